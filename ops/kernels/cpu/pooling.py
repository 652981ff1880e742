"""Kernels of pooling on NumPy: results written in place, and gradients of windows that do not overlap."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from zoonet.ops.pooling import max_pool, max_pool_gradient, max_pool_into, pooling_windows
from zoonet.ops.types import Array, TensorType
from zoonet.ops.window_reductions import image_blocks
from zoonet.ops.windows import Padding, PerAxis

max_pool.kernel("cpu", takes_out=True)(max_pool_into)


def _do_not_overlap(
    gy: TensorType,
    x: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> bool:
    windows, pairs = pooling_windows("max_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    inside = all(k * o <= n for k, o, n in zip(windows.kernel, windows.output, windows.input, strict=True))
    return windows.kernel == windows.stride and set(windows.dilation) == {1} and not any(map(any, pairs)) and inside


@max_pool_gradient.kernel("cpu", when=_do_not_overlap, takes_out=True)
def max_pool_gradient_apart(
    xp: Any,
    gy: Array,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
    out: Array | None = None,
) -> Array:
    """Each cell of x belongs to one window at most, so its gradient is gy where it is the window's first maximum."""
    windows, _ = pooling_windows("max_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    out = np.empty(x.shape, gy.dtype) if out is None else out
    out[...] = 0
    offsets = product(*[range(size) for size in windows.kernel])
    taps = [
        (
            slice(None),
            slice(None),
            *[slice(t, t + k * o, k) for t, k, o in zip(tap, windows.kernel, windows.output, strict=True)],
        )
        for tap in offsets
    ]
    for block in image_blocks(np, x):
        cells, gradient, target = x[block], gy[block], out[block]
        largest = cells[taps[0]].copy()
        for tap in taps[1:]:
            np.maximum(largest, cells[tap], out=largest)
        unordered = bool((largest != largest).any())
        free = np.ones(largest.shape, bool)
        for tap in taps:
            cell = cells[tap]
            hit = cell == largest
            if unordered:  # the maximum of a window with nan is its first nan
                hit |= (cell != cell) & (largest != largest)
            hit &= free
            np.copyto(target[tap], gradient, where=hit)
            free ^= hit
    return out
