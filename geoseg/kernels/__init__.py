"""Pure functions on arrays: NumPy in, NumPy out, numba inside. They know pixels, never files or models."""
