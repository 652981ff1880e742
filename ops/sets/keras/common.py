"""What the families of Keras layers share: data formats, sizes and checks of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.types import Array, is_floating

#: One number for all spatial axes, or one per axis.
Sizes = Any
#: Sizes that files may ask for: of a picture's side, of a mask, of the steps of a loop.
LARGEST_SIDE, LARGEST_MASK, LARGEST_LOOP = 1 << 16, 1 << 28, 10_000
FIRST, LAST = "channels_first", "channels_last"


def is_channels_first(data_format: str | None, name: str) -> bool:
    """True for channels_first; None is Keras's default, channels_last. Raises ArgumentError."""
    if data_format not in (None, FIRST, LAST):
        raise ArgumentError(f"{name}: unknown data_format", expected=f"{LAST} or {FIRST}", received=data_format)
    return data_format == FIRST


def to_first(x: Array, data_format: str | None, name: str) -> Array:
    """x with its channels at axis 1."""
    return x if is_channels_first(data_format, name) or len(x.shape) < 3 else ops.moveaxis(x, -1, 1)


def from_first(x: Array, data_format: str | None, name: str) -> Array:
    """x, whose channels are at axis 1, in the data format."""
    return x if is_channels_first(data_format, name) or len(x.shape) < 3 else ops.moveaxis(x, 1, -1)


def per_axis(value: Any, rank: int, name: str, option: str) -> tuple[int, ...]:
    """One integer per axis. Raises ArgumentError."""
    values = (value,) * rank if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(values) != rank or not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise ArgumentError(f"{name}: {option} does not fit", expected=f"an integer or {rank} of them", received=value)
    return values


def pairs_per_axis(value: Any, rank: int, name: str, option: str) -> tuple[tuple[int, int], ...]:
    """A pair (before, after) per axis, from one number, one per axis, or pairs. Raises ArgumentError."""
    if rank == 1 and isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(n, int) for n in value):
        value = (value,)
    items = (value,) * rank if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    pairs = tuple([(n, n) if isinstance(n, int) else tuple(n) for n in items])
    if len(pairs) != rank or any(len(p) != 2 or not all(isinstance(n, int) and n >= 0 for n in p) for p in pairs):
        raise ArgumentError(
            f"{name}: {option} does not fit", expected=f"a number >= 0, {rank} of them, or pairs", received=value
        )
    return pairs


def spatial_axes(x: Array, data_format: str | None, name: str) -> tuple[int, ...]:
    """The axes between batch and channels."""
    first = is_channels_first(data_format, name)
    return tuple(range(2, len(x.shape))) if first else tuple(range(1, len(x.shape) - 1))


def require_rank(x: Array, rank: int, name: str) -> None:
    """Check the number of axes. Raises ShapeError."""
    if len(x.shape) != rank:
        raise ShapeError(f"{name}: the input has the wrong number of axes", expected=rank, received=list(x.shape))


def require_shape(weight: Array, shape: Sequence[int | None], name: str, weight_name: str) -> None:
    """Check a weight's shape; None fits any size. Raises ShapeError."""
    given = tuple(weight.shape)
    if len(given) != len(shape) or any(n is not None and n != m for n, m in zip(shape, given, strict=True)):
        raise ShapeError(
            f"{name}: {weight_name} has the wrong shape",
            expected=["any" if n is None else n for n in shape],
            received=list(given),
            fix="weights and configuration of the file are not of one model",
        )


def affordable(size: int, limit: int, name: str, what: str) -> int:
    """A size that is made of options of a file, if it is within a limit. Raises ShapeError."""
    if size > limit:
        raise ShapeError(f"{name}: {what} is too large", expected=f"at most {limit}", received=size)
    return size


def floating(x: Array, dtype: Any = np.float32) -> Array:
    """x, or x as floating numbers where it holds others."""
    return x if is_floating(x.dtype) else ops.cast(x, dtype)


def axes_of(axis: Any, rank: int, name: str) -> tuple[int, ...]:
    """Axes as sorted numbers >= 0. Raises ArgumentError."""
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    if not all(isinstance(a, int) and -rank <= a < rank for a in given):
        raise ArgumentError(f"{name}: no such axis", expected=f"-{rank} to {rank - 1}", received=axis)
    return tuple(sorted(a % rank for a in given))


def along(parameter: Array, axes: Sequence[int], rank: int) -> Array:
    """A parameter of these axes as one that broadcasts against an array of `rank` axes."""
    sizes = dict(zip(axes, parameter.shape, strict=True))
    return ops.reshape(parameter, [sizes.get(axis, 1) for axis in range(rank)])


def probability(rate: float, name: str) -> float:
    """The rate of a dropout. Raises ArgumentError."""
    if not 0 <= rate < 1:
        raise ArgumentError(f"{name}: the rate is no probability below 1", expected="0 <= rate < 1", received=rate)
    return float(rate)


def kept(key: Array, shape: Sequence[int], rate: float, like: Array) -> Array:
    """0 with probability `rate` and else 1, in the data type of another array."""
    return ops.cast(ops.less(ops.random_uniform(key, tuple([int(n) for n in shape])), 1.0 - rate), like.dtype)


def dropped(key: Array | None, x: Array, rate: float) -> Array:
    """x with zeros with probability `rate`, and the rest by 1 / (1 - rate); x as it is without a key."""
    if key is None or not 0 < rate < 1:
        return x
    return ops.multiply(x, ops.multiply(kept(key, x.shape, rate, x), 1.0 / (1.0 - rate)))
