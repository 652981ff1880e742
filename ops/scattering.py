"""Adding into arrays at given places."""

from __future__ import annotations

from typing import Any

import numpy as np


def add_at(xp: Any, target: Any, indices: Any, values: Any) -> None:
    """target[indices] += values in place, where an index may occur several times; target contiguous, 1-d."""
    if xp is not np and target.dtype == np.int64:  # CuPy adds to no signed 64-bit integers; unsigned wrap to the same
        target, values = target.view(np.uint64), values.astype(np.int64, copy=False).view(np.uint64)
    xp.add.at(target, indices, values)


def add_rows(xp: Any, target: Any, indices: Any, values: Any) -> None:
    """target[i] += values[j] in place for each j with i = indices[j]; target contiguous, indices 1-d, at least 0."""
    width = target[0].size if len(target) else 0
    if not width or not indices.size:
        return
    flat = (indices[:, None] * width + xp.arange(width)).reshape(-1)
    add_at(xp, target.reshape(-1), flat, xp.ascontiguousarray(values).reshape(-1))
