"""Pooling: windows and whole pictures or sequences."""

from __future__ import annotations

from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.keras.common import (
    Sizes,
    floating,
    from_first,
    per_axis,
    require_rank,
    spatial_axes,
    to_first,
)
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array


def pool_windows(x: Array, rank: int, average: bool, size: Sizes, strides: Sizes, padding: str, name: str) -> Array:
    """The maximum or average of each window of (N, C, …); cells of the padding do not count."""
    window = per_axis(size, rank, name, "pool_size")
    steps = window if strides is None else per_axis(strides, rank, name, "strides")
    if padding not in ("valid", "same"):
        raise ArgumentError(f"{name}: unknown padding", expected="valid or same", received=padding)
    if average:
        return ops.avg_pool(floating(x), window, steps, padding, count_include_pad=False)
    return ops.max_pool(x, window, steps, padding)


def _declare_pooling(rank: int, average: bool, *names: str) -> None:
    name = names[0]
    usual = 2 if rank == 1 else (2,) * rank

    def pool(
        inputs: Array,
        /,
        pool_size: Sizes = usual,
        strides: Sizes = None,
        padding: str = "valid",
        data_format: str | None = None,
    ) -> Array:
        """The maximum or average of each window; cells of the padding do not count."""
        require_rank(inputs, rank + 2, name)
        x = to_first(inputs, data_format, name)
        return from_first(pool_windows(x, rank, average, pool_size, strides, padding, name), data_format, name)

    layer(*names)(pool)


def _declare_global(rank: int, average: bool, *names: str) -> None:
    name = names[0]

    def global_pool(
        inputs: Array, mask: Array | None = None, /, data_format: str | None = None, keepdims: bool = False
    ) -> Array:
        """The maximum or average over all spatial axes. mask: steps that count in an average over one axis."""
        require_rank(inputs, rank + 2, name)
        axes = spatial_axes(inputs, data_format, name)
        if not average:
            return ops.max(inputs, axes, bool(keepdims))
        x = floating(inputs)
        if mask is None:
            return ops.mean(x, axes, bool(keepdims))
        counted = ops.cast(ops.expand_dims(mask, 2 if axes == (1,) else 1), x.dtype)
        total = ops.sum(ops.multiply(x, counted), axes, bool(keepdims))
        return ops.divide(total, ops.sum(counted, axes, bool(keepdims)))

    def without_mask(inputs: Array, /, data_format: str | None = None, keepdims: bool = False) -> Array:
        """The maximum or average over all spatial axes."""
        return global_pool(inputs, None, data_format, keepdims)

    layer(*names)(global_pool if average and rank == 1 else without_mask)


def _declare_adaptive(rank: int, average: bool, name: str) -> None:
    def adaptive_pool(inputs: Array, /, output_size: Sizes, data_format: str | None = None) -> Array:
        """Windows such that there are output_size of them."""
        require_rank(inputs, rank + 2, name)
        pool = ops.adaptive_avg_pool if average else ops.adaptive_max_pool
        y: Any = pool(to_first(inputs, data_format, name), per_axis(output_size, rank, name, "output_size"))
        return from_first(y, data_format, name)

    layer(name)(adaptive_pool)


for _rank in (1, 2, 3):
    for _average, _kind in ((True, "Average"), (False, "Max")):
        _short = "Avg" if _average else "Max"
        _declare_pooling(_rank, _average, f"{_kind}Pooling{_rank}D", f"{_short}Pool{_rank}D")
        _declare_global(_rank, _average, f"Global{_kind}Pooling{_rank}D", f"Global{_short}Pool{_rank}D")
        _declare_adaptive(_rank, _average, f"Adaptive{_kind}Pooling{_rank}D")
