"""Shifting and repeating arrays, by the names of the array API and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError
from zoonet.ops.reductions import Axis
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.scattering import add_rows
from zoonet.ops.shapes import broadcast_to, checked_shape, normalize_axis, reshape
from zoonet.ops.types import Array, TensorType

__all__ = ["repeat", "roll", "tile", "unrepeat"]


@op(
    exact=True,
    samples=[
        sample(floats(2, 3), 4),
        sample(floats(2, 3), -1, 1),
        sample(floats(2, 3), (1, 2), (0, -1)),
        sample(ints(4), 3),
        sample(floats(0, 2), 1, 0),
    ],
)
def roll(xp: Any, x: Array, shift: int | Sequence[int], axis: Axis = None) -> Array:
    """x shifted along axes, with what leaves at the end entering at the start; None shifts the flattened elements.

    x: any shape and dtype. shift: a number, or one per axis. Raises ArgumentError where their numbers differ.
    Source: array API `roll`.
    """
    return xp.roll(x, shift, axis)


@roll.type
def _(x: TensorType, shift: int | Sequence[int], axis: Axis = None) -> TensorType:
    axes = [axis] if isinstance(axis, int) else axis
    if axes is not None:
        for a in axes:
            normalize_axis("roll", x.ndim, a)
    if not isinstance(shift, int) and len(shift) != (1 if axes is None else len(axes)):
        raise ArgumentError(
            "roll: shifts and axes differ in number", expected=f"one for each of {axis}", received=shift
        )
    return x


@roll.vjp
def _(gy: Array, _y: Array, _x: TensorType, shift: int | Sequence[int], axis: Axis) -> Any:
    return roll(gy, -shift if isinstance(shift, int) else tuple(-s for s in shift), axis)


@composite(
    exact=True,
    samples=[
        sample(floats(2, 3), (2, 1)),
        sample(floats(2, 3), 2),
        sample(floats(3), (2, 1, 3)),
        sample(ints(2, 3), (1, 0)),
    ],
)
def tile(x: Array, repetitions: int | Sequence[int]) -> Array:
    """x repeated as a whole along each axis; missing axes of x or repetitions count as 1 in front.

    x: any shape and dtype. Raises ShapeError for a negative number. Source: array API `tile`.
    """
    times = checked_shape("tile", repetitions)
    ndim = max(len(times), len(x.shape))
    times = (1,) * (ndim - len(times)) + times
    shape = (1,) * (ndim - len(x.shape)) + tuple(x.shape)
    interleaved = reshape(x, [size for n in shape for size in (1, n)])
    full = broadcast_to(interleaved, [size for pair in zip(times, shape, strict=True) for size in pair])
    return reshape(full, [t * n for t, n in zip(times, shape, strict=True)])


def _counts(name: str, size: int, repeats: int | Sequence[int]) -> tuple[int, ...]:
    """How often each position on an axis is repeated."""
    counts = checked_shape(name, repeats)
    if isinstance(repeats, int):
        return counts * size
    if len(counts) != size:
        raise ArgumentError(f"{name}: wrong number of repeats", expected=f"1 or {size}", received=len(counts))
    return counts


@op(
    exact=True,
    samples=[
        sample(floats(2, 3), 2, 1),
        sample(floats(2, 3), 2),
        sample(floats(3, 2), (2, 0, 1), 0),
        sample(floats(2, 2), (1, 2, 0, 3)),
        sample(ints(3), 3, -1),
    ],
)
def repeat(xp: Any, x: Array, repeats: int | Sequence[int], axis: int | None = None) -> Array:
    """x with each element repeated along an axis; None repeats the flattened elements.

    x: any shape and dtype. repeats: a number, or one for each position on the axis. Raises ArgumentError where there
    are not as many, ShapeError for negative ones or a missing axis. Source: array API `repeat`.
    """
    return xp.repeat(x, repeats, axis)


@repeat.type
def _(x: TensorType, repeats: int | Sequence[int], axis: int | None = None) -> TensorType:
    if axis is None:
        return TensorType((sum(_counts("repeat", x.size, repeats)),), x.dtype)
    along = normalize_axis("repeat", x.ndim, axis)
    count = sum(_counts("repeat", x.shape[along] or 0, repeats))
    return TensorType((*x.shape[:along], count, *x.shape[along + 1 :]), x.dtype)


@repeat.vjp
def _(gy: Array, _y: Array, _x: TensorType, repeats: int | Sequence[int], axis: int | None) -> Any:
    along = 0 if axis is None else normalize_axis("repeat", _x.ndim, axis)
    size = _x.size if axis is None else _x.shape[along] or 0
    return reshape(unrepeat(gy, _counts("repeat", size, repeats), along), _x.shape)


@op(samples=[sample(floats(4, 2), (2, 0, 1, 1)), sample(floats(2, 3), (3,), 1), sample(floats(0), (0, 0))])
def unrepeat(xp: Any, x: Array, repeats: Sequence[int], axis: int = 0) -> Array:
    """Sums of repeats[0], repeats[1], … neighbours along an axis: the transpose of `repeat`.

    x: numbers, with as many positions on the axis as repeats add up to. Raises ArgumentError where there are not.
    """
    rows = xp.moveaxis(x, axis, 0)
    total = xp.zeros((len(repeats), *rows.shape[1:]), x.dtype)
    add_rows(xp, total, xp.asarray(np.repeat(np.arange(len(repeats)), repeats)), rows)
    return xp.moveaxis(total, 0, axis)


@unrepeat.type
def _(x: TensorType, repeats: Sequence[int], axis: int = 0) -> TensorType:
    along = normalize_axis("unrepeat", x.ndim, axis)
    if sum(checked_shape("unrepeat", repeats)) != x.shape[along]:
        raise ArgumentError(
            "unrepeat: wrong repeats", expected=f"numbers that add up to {x.shape[along]}", received=repeats
        )
    return TensorType((*x.shape[:along], len(repeats), *x.shape[along + 1 :]), x.dtype)


@unrepeat.vjp
def _(gy: Array, _y: Array, _x: TensorType, repeats: Sequence[int], axis: int) -> Any:
    return repeat(gy, repeats, axis)
