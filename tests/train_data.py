"""Small pictures that tests of training draw."""

from __future__ import annotations

import numpy as np


def shapes(count: int, seed: int = 0, size: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, size, size, 3) of red discs (0), green bars (1) and blue crosses (2) on noise."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 90, (count, size, size, 3), np.uint8)
    classes = np.arange(count) % 3
    rows, columns = np.mgrid[:size, :size]
    for picture, kind in zip(pictures, classes, strict=True):
        y, x = rng.integers(size // 3, 2 * size // 3, 2)
        masks = (
            (rows - y) ** 2 + (columns - x) ** 2 < size,
            abs(rows - y) < 2,
            (abs(rows - y) < 2) | (abs(columns - x) < 2),
        )
        picture[masks[kind], kind] = 220
    return pictures, classes.astype(np.int64)
