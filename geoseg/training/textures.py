"""Noise textures for generated scenes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], *, wavelength: float) -> NDArray[np.float32]:
    """Noise of mean about 0 and deviation about 1 that changes over `wavelength` pixels (row, col)."""
    if wavelength <= 1.5:
        return rng.standard_normal(shape, dtype=np.float32)
    rows, cols = (int(np.ceil(side / wavelength)) + 3 for side in shape)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, rows, cols), dtype=np.float32))
    size = (int(np.ceil(rows * wavelength)), int(np.ceil(cols * wavelength)))
    fine = F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0, 0].numpy()
    row, col = (int(rng.integers(0, fine.shape[k] - shape[k] + 1)) for k in (0, 1))
    return np.ascontiguousarray(fine[row : row + shape[0], col : col + shape[1]]) * np.float32(1.3)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], *, wavelength: float, octaves: int
) -> NDArray[np.float32]:
    """Octaves of smooth noise, each half as long and half as strong as the one before; deviation about 1."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        total += smooth_noise(rng, shape, wavelength=max(1.0, wavelength / 2**octave)) * np.float32(0.5**octave)
    return total / np.float32(max(1e-6, float(total.std())))
