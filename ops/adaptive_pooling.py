"""Adaptive pooling over one, two and three spatial axes: windows are chosen so that the result has given sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from zoonet.ops.axis_maps import Bands, map_axis
from zoonet.ops.errors import ShapeError
from zoonet.ops.pooling import require_real, scatter_spatial
from zoonet.ops.registry import op
from zoonet.ops.samples import distinct, floats, sample
from zoonet.ops.types import Array, TensorType, int64, promote
from zoonet.ops.window_reductions import Taps, lowest, max_with_indices, reduce_windows
from zoonet.ops.windows import per_axis, spatial_rank

__all__ = ["adaptive_avg_pool", "adaptive_max_pool"]

OutputSize: TypeAlias = "int | Sequence[int | None]"


def _adaptive_sizes(name: str, shape: Sequence[Any], output_size: OutputSize) -> tuple[int, ...]:
    rank = spatial_rank(name, len(shape))
    if not isinstance(output_size, int) and len(output_size) == rank:
        output_size = [n if wanted is None else wanted for n, wanted in zip(shape[2:], output_size, strict=True)]
    if 0 in shape[2:]:
        raise ShapeError(f"{name}: x has no cells", received=list(shape))
    return per_axis(name, "output_size", output_size, rank)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _averages(inputs: int, outputs: int) -> Bands:
    """The averages over ⌊o·n/m⌋ to ⌈(o + 1)·n/m⌉."""
    ranges = np.array(adaptive_ranges(inputs, outputs)).reshape(-1, 2)
    lengths = ranges[:, 1] - ranges[:, 0]
    taps = np.arange(int(lengths.max(initial=1)))
    indices = np.minimum(ranges[:, :1] + taps, inputs - 1)
    return Bands(inputs, indices, (taps < lengths[:, None]) / lengths[:, None])


def adaptive_ranges(inputs: int, outputs: int) -> list[tuple[int, int]]:
    """The first cell of each adaptive window, and the one behind its last."""
    return [(o * inputs // outputs, -(-(o + 1) * inputs // outputs)) for o in range(outputs)]


ADAPTIVE_SIZES = [((2, 3, 6, 7), 3), ((2, 2, 5, 7), (2, 3)), ((1, 2, 4, 5), (None, 7)), ((2, 2, 7), 4)]


@op(samples=[sample(floats(*s), n) for s, n in [*ADAPTIVE_SIZES, ((1, 2, 4, 5, 3), (2, 1, 3))]])
def adaptive_avg_pool(xp: Any, x: Array, output_size: OutputSize) -> Array:
    """Averages over windows chosen so that the result has these sizes.

    x: (N, C, spatial...), real -> (N, C, *output_size), at least float32; None keeps a size. Position o averages the
    cells from ⌊o·n/m⌋ to ⌈(o + 1)·n/m⌉. Raises ShapeError, ArgumentError or DTypeError where arguments do not fit.
    Source: torch.nn.functional.adaptive_avg_pool2d.
    """
    x = xp.asarray(x, dtype=promote([x], floating=True))
    for axis, size in enumerate(_adaptive_sizes("adaptive_avg_pool", x.shape, output_size)):
        x = map_axis(xp, x, _averages(x.shape[2 + axis], size), 2 + axis)
    return x


@adaptive_avg_pool.type
def _(x: TensorType, output_size: OutputSize) -> TensorType:
    sizes = _adaptive_sizes("adaptive_avg_pool", x.shape, output_size)
    require_real("adaptive_avg_pool", x.dtype)
    return TensorType((*x.shape[:2], *sizes), promote([x], floating=True))


@adaptive_avg_pool.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, _output_size: OutputSize) -> Any:
    return adaptive_avg_pool_gradient(gy, _x.shape[2:])


@op(name="adaptive_avg_pool.gradient")
def adaptive_avg_pool_gradient(xp: Any, gy: Array, spatial: tuple[int, ...]) -> Array:
    """The gradient of adaptive_avg_pool by x: (N, C, positions...) -> (N, C, spatial...)."""
    for axis, size in enumerate(spatial):
        gy = map_axis(xp, gy, _averages(size, gy.shape[2 + axis]), 2 + axis, transposed=True)
    return gy


@adaptive_avg_pool_gradient.type
def _(gy: TensorType, spatial: tuple[int, ...]) -> TensorType:
    return TensorType((*gy.shape[:2], *spatial), gy.dtype)


@adaptive_avg_pool_gradient.vjp
def _(gx: Array, _y: TensorType, _gy: TensorType, _spatial: tuple[int, ...]) -> Any:
    return adaptive_avg_pool(gx, _gy.shape[2:])


def _adaptive_taps(xp: Any, inputs: Sequence[int], outputs: Sequence[int]) -> list[Taps]:
    """Taps of adaptive windows: the t-th cell of each window, its last one where it has fewer."""
    axes: list[Taps] = []
    for n, m in zip(inputs, outputs, strict=True):
        ranges = np.array(adaptive_ranges(n, m))
        longest = int((ranges[:, 1] - ranges[:, 0]).max())
        cells = [np.minimum(ranges[:, 0] + tap, ranges[:, 1] - 1) for tap in range(longest)]
        axes.append([(slice(0, m), xp.asarray(cell)) for cell in cells])
    return axes


@op(samples=[sample(distinct(*s), n) for s, n in [*ADAPTIVE_SIZES, ((1, 2, 4, 5, 3), (2, 1, 3))]])
def adaptive_max_pool(xp: Any, x: Array, output_size: OutputSize) -> Array:
    """Maxima over the windows of adaptive_avg_pool; same arguments and errors, the dtype of x.

    The gradient goes to the first maximum of each window. Source: torch.nn.functional.adaptive_max_pool2d.
    """
    sizes = _adaptive_sizes("adaptive_max_pool", x.shape, output_size)
    out = xp.empty((*x.shape[:2], *sizes), x.dtype)
    return reduce_windows(xp, x, _adaptive_taps(xp, x.shape[2:], sizes), xp.maximum, lowest(x.dtype), out)


@adaptive_max_pool.type
def _(x: TensorType, output_size: OutputSize) -> TensorType:
    sizes = _adaptive_sizes("adaptive_max_pool", x.shape, output_size)
    return TensorType((*x.shape[:2], *sizes), require_real("adaptive_max_pool", x.dtype))


@adaptive_max_pool.vjp
def _(gy: Array, _y: TensorType, x: Array, _output_size: OutputSize) -> Any:
    return scatter_spatial(gy, adaptive_max_indices(x, tuple(gy.shape[2:])), tuple(x.shape[2:]))


@op(name="adaptive_max_pool.indices", differentiable=False)
def adaptive_max_indices(xp: Any, x: Array, sizes: tuple[int, ...]) -> Array:
    """Where the maxima of adaptive_max_pool are in the flattened spatial axes, int64."""
    return max_with_indices(xp, x, _adaptive_taps(xp, x.shape[2:], sizes), sizes)[1]


@adaptive_max_indices.type
def _(x: TensorType, sizes: tuple[int, ...]) -> TensorType:
    return TensorType((*x.shape[:2], *sizes), int64)
