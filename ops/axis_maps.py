"""Linear maps along one axis by banded matrices: the array algorithm behind resizing and adaptive averages."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.types import Array

#: Output positions that are computed in one matrix product, from the inputs that they depend on.
_BLOCK = 32


@dataclass(frozen=True)
class Bands:
    """A matrix (outputs, inputs) with a few entries per row: `weights[o, t]` at column `indices[o, t]`.

    Columns may repeat within a row, their weights being added.
    """

    inputs: int
    indices: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]

    def block(self, start: int, stop: int) -> tuple[int, int, np.ndarray[Any, Any]]:
        """Rows start to stop as a dense matrix over the columns first to last that they use."""
        indices = self.indices[start:stop]
        first, last = int(indices.min()), int(indices.max()) + 1
        dense = np.zeros((stop - start, last - first))
        np.add.at(dense, (np.arange(stop - start)[:, None], indices - first), self.weights[start:stop])
        return first, last, dense


def map_axis(xp: Any, x: Array, bands: Bands, axis: int, transposed: bool = False) -> Array:
    """x with `axis` (not negative) mapped by the matrix of the bands, or its transpose, in x's dtype."""
    outputs = len(bands.indices)
    length = bands.inputs if transposed else outputs
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    if 0 in shape:
        return xp.zeros(shape, x.dtype)
    before, after = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
    source = x.reshape(before, x.shape[axis], after)
    result = xp.zeros((before, length, after), x.dtype)
    for start in range(0, outputs, _BLOCK):
        stop = min(start + _BLOCK, outputs)
        first, last, dense = bands.block(start, stop)
        matrix = xp.asarray(dense.T if transposed else dense, dtype=x.dtype)
        if transposed:
            place = result[:, first:last]
            xp.add(place, _product(xp, matrix, source[:, start:stop]), out=place)
        else:
            result[:, start:stop] = _product(xp, matrix, source[:, first:last])
    return result.reshape(shape)


def _product(xp: Any, matrix: Array, source: Array) -> Array:
    if source.shape[2] == 1:  # one product in place of one for each row
        return xp.matmul(source[:, :, 0], matrix.T)[:, :, None]
    return xp.matmul(matrix, source)
