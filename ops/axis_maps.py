"""Linear maps along one axis by small matrices: the array algorithm behind resizing and adaptive averages."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.ops.types import Array

#: Output positions that are computed in one product, from the inputs that they depend on.
_BLOCK = 32


def map_axis(xp: Any, x: Array, matrix: np.ndarray[Any, Any], axis: int) -> Array:
    """x with `axis` (not negative) mapped by a matrix (out, in), in x's dtype.

    Interpolation matrices are banded: each block of outputs is multiplied with the inputs that have weights only.
    """
    outputs, inputs = matrix.shape
    before, after = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
    source = x.reshape(before, inputs, after)
    result = xp.zeros((before, outputs, after), x.dtype)
    weights = xp.asarray(matrix, dtype=x.dtype)
    for start in range(0, outputs, _BLOCK):
        stop = min(start + _BLOCK, outputs)
        used = np.flatnonzero(matrix[start:stop].any(axis=0))
        if not used.size or not result.size:
            continue
        first, last = int(used[0]), int(used[-1]) + 1
        part = weights[start:stop, first:last]
        if after == 1:
            xp.matmul(source[:, first:last, 0], part.T, out=result[:, start:stop, 0])
        else:
            xp.matmul(part, source[:, first:last], out=result[:, start:stop])
    return result.reshape(*x.shape[:axis], outputs, *x.shape[axis + 1 :])
