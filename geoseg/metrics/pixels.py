"""Pixel scores: integer counts in a confusion matrix, everything else derived from them.

With TP, FP and FN of one class counted over valid pixels:

    IoU = TP / (TP + FP + FN)                     Jaccard 1912
    Dice = 2 TP / (2 TP + FP + FN)                Dice 1945; equals the pixel F1
    precision = TP / (TP + FP), recall = TP / (TP + FN)
    mIoU = mean IoU of the classes that occur in prediction or truth
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

BLOCK_ROWS = 512
"""Rows counted at a time, so that the counting needs little memory beside the rasters."""


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None where there is nothing to divide by."""
    return part / whole if whole else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    name: str
    iou: float | None
    """None where the class occurs in neither layer (or is not known: see PixelScores.partial)."""
    dice: float | None
    precision: float | None
    recall: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "iou": self.iou,
            "dice": self.dice,
            "precision": self.precision,
            "recall": self.recall,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelScores:
    classes: tuple[str, ...]
    """Names, in the order of the matrix."""
    confusion: tuple[tuple[int, ...], ...]
    """Pixel counts, a row for each true class, a column for each predicted class."""
    field: str = "field"
    """The class that `field_scores` is about."""
    partial: bool = False
    """True where only labelled pixels were counted: of the scores only recall has a meaning then."""
    bounded: bool = True
    """False where the extent is arbitrary (two vector layers): accuracy and mIoU would only say how wide it is."""

    @classmethod
    def of(
        cls,
        confusion: NDArray[np.int64],
        classes: Sequence[str],
        *,
        field: str = "field",
        partial: bool = False,
        bounded: bool = True,
    ) -> PixelScores:
        """Scores of a (true class, predicted class) matrix of counts."""
        rows = tuple(tuple(int(count) for count in row) for row in confusion)
        return cls(classes=tuple(classes), confusion=rows, field=field, partial=partial, bounded=bounded)

    def __post_init__(self) -> None:
        n = len(self.classes)
        if len(self.confusion) != n or any(len(row) != n for row in self.confusion):
            raise InputError(f"the confusion matrix is not {n} x {n}; it needs a row and a column for each class name")

    def __add__(self, other: PixelScores) -> PixelScores:
        """Counts of two images together."""
        if (self.classes, self.field, self.partial) != (other.classes, other.field, other.partial):
            raise InputError(
                f"pixel scores of classes {', '.join(self.classes)} and {', '.join(other.classes)} "
                f"cannot be pooled; evaluate both with the same classes and options"
            )
        total = np.array(self.confusion) + np.array(other.confusion)
        bounded = self.bounded and other.bounded
        return PixelScores.of(total, self.classes, field=self.field, partial=self.partial, bounded=bounded)

    @property
    def counted(self) -> int:
        """Number of pixels counted."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float | None:
        """Share of the counted pixels whose class is right."""
        right = sum(self.confusion[i][i] for i in range(len(self.classes)))
        return ratio(right, self.counted) if self.bounded and not self.partial else None

    @property
    def miou(self) -> float | None:
        """Mean IoU of the classes that occur."""
        known = [scores.iou for scores in self.per_class() if scores.iou is not None]
        return ratio(sum(known), len(known)) if self.bounded else None

    @property
    def field_scores(self) -> ClassScores:
        return self.scores(self.field)

    def scores(self, name: str) -> ClassScores:
        """Scores of one class."""
        if name not in self.classes:
            raise InputError(f"no class {name!r} was counted; there are {', '.join(self.classes)}")
        i = self.classes.index(name)
        tp = self.confusion[i][i]
        fn = sum(self.confusion[i]) - tp
        fp = sum(row[i] for row in self.confusion) - tp
        if self.partial:
            return ClassScores(name=name, iou=None, dice=None, precision=None, recall=ratio(tp, tp + fn))
        return ClassScores(
            name=name,
            iou=ratio(tp, tp + fp + fn),
            dice=ratio(2 * tp, 2 * tp + fp + fn),
            precision=ratio(tp, tp + fp),
            recall=ratio(tp, tp + fn),
        )

    def per_class(self) -> tuple[ClassScores, ...]:
        return tuple(self.scores(name) for name in self.classes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "counted": self.counted,
            "field": self.field_scores.to_dict(),
            "miou": self.miou,
            "accuracy": self.accuracy,
            "classes": [scores.to_dict() for scores in self.per_class()],
            "confusion": [list(row) for row in self.confusion],
        }


def confusion_matrix(
    pred: NDArray[Any], truth: NDArray[Any], *, classes: int, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Counts pixels by true and predicted class.

    Args:
        pred: (row, col) class ids from 0 to classes - 1; arbitrary where not valid.
        truth: the same shape and rules.
        classes: number of classes.
        valid: (row, col), True where a pixel counts; None for all.

    Returns:
        (true class, predicted class), int64.

    Raises:
        InputError: shapes disagree, or a valid pixel holds another class.
    """
    if pred.shape != truth.shape or (valid is not None and valid.shape != pred.shape):
        shapes = [pred.shape, truth.shape] + ([] if valid is None else [valid.shape])
        raise InputError(f"prediction, truth and validity have shapes {shapes}; bring them onto one grid first")
    matrix = np.zeros(classes * classes, dtype=np.int64)
    for start in range(0, pred.shape[0], BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        counted: Any = ... if valid is None else valid[rows]
        pairs = [layer[rows][counted].ravel().astype(np.int64) for layer in (truth, pred)]
        for ids in pairs:
            if ids.size and not 0 <= ids.min() <= ids.max() < classes:
                raise InputError(f"found class ids {ids.min()} to {ids.max()}, expected 0 to {classes - 1}")
        matrix += np.bincount(pairs[0] * classes + pairs[1], minlength=classes * classes)
    return matrix.reshape(classes, classes)
