"""Padding and cropping."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.scattering import add_rows
from zoonet.ops.shapes import checked_shape
from zoonet.ops.types import Array, TensorType

__all__ = ["pad", "unpad"]

_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")


def _pairs(ndim: int, pad_width: Any) -> tuple[tuple[int, int], ...]:
    """One pair of numbers per axis. Raises ArgumentError or ShapeError."""
    given = pad_width
    if isinstance(given, int):
        given = ((given, given),) * ndim
    elif len(given) == 2 and all(isinstance(n, int) for n in given):
        given = (tuple(given),) * ndim
    pairs = tuple(tuple(pair) if isinstance(pair, list | tuple) else (pair, pair) for pair in given)
    if not all(len(pair) == 2 and all(isinstance(n, int) for n in pair) for pair in pairs):
        raise ArgumentError(
            "pad: wrong widths",
            expected="a number, (before, after), or a pair for each axis",
            received=pad_width,
        )
    if len(pairs) != ndim:
        raise ShapeError("pad: a pair of widths for each axis", expected=f"{ndim} pairs", received=f"{len(pairs)}")
    return pairs


def _source(size: int, before: int, after: int, mode: str) -> np.ndarray[Any, Any]:
    """For each position on a padded axis the position on the axis that it is read from.

    A side that is cropped is cropped first, so that the other side sees what is left, as ONNX does.
    """
    start, stop = max(-before, 0), size - max(-after, 0)
    size = stop - start
    position = np.arange(-max(before, 0), size + max(after, 0))
    if mode == "edge":
        inner = position.clip(0, size - 1)
    elif mode == "wrap":
        inner = position % size
    elif mode == "symmetric":
        inner = position % (2 * size)
        inner = np.minimum(inner, 2 * size - 1 - inner)
    else:
        period = max(2 * (size - 1), 1)
        inner = position % period
        inner = np.minimum(inner, period - inner) if size > 1 else inner * 0
    return inner + start


@op(
    exact=True,
    samples=[
        sample(floats(2, 3), ((1, 0), (2, 1)), "constant", 1.5),
        sample(floats(2, 3), ((0, -1), (-1, 2))),
        sample(floats(4, 5), ((1, 2), (3, 0)), "reflect"),
        sample(floats(4, 5), ((1, 2), (4, 3)), "symmetric"),
        sample(floats(4, 5), ((0, 2), (-1, 1)), "edge"),
        sample(floats(2, 3, 4), ((0, 0), (1, 2), (3, 0)), "wrap"),
        sample(floats(3), 2, "reflect"),
        sample(ints(2, 2), (1, 0), "constant", 3),
    ],
)
def pad(xp: Any, x: Array, pad_width: Any, mode: str = "constant", value: float = 0) -> Array:
    """x with elements added before and after on each axis; negative widths crop.

    x: any shape and dtype. pad_width: a number, one pair (before, after), or a pair per axis. mode: "constant"
    (`value`), "reflect" (mirrored without the edge), "symmetric" (mirrored with it), "edge" (repeated), "wrap"
    (periodic); mirrors and periods repeat where the padding is longer than x. Raises ArgumentError for another mode or
    wrong widths, ShapeError where they do not fit x. Source: NumPy `pad`; negative widths as ONNX `Pad`.
    """
    pairs = _pairs(x.ndim, pad_width)
    if mode == "constant":
        result = xp.full([n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)], value, x.dtype)
        inner = tuple([slice(max(a, 0), m - max(b, 0)) for m, (a, b) in zip(result.shape, pairs, strict=True)])
        kept = tuple([slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True)])
        result[inner] = x[kept]
        return result
    result = x
    for axis, (before, after) in enumerate(pairs):
        if before or after:
            result = xp.take(result, xp.asarray(_source(x.shape[axis], before, after, mode)), axis)
    return result.copy() if result is x else result


@pad.type
def _(x: TensorType, pad_width: Any, mode: str = "constant", value: float = 0) -> TensorType:
    pairs = _pairs(x.ndim, pad_width)
    if mode not in _MODES:
        raise ArgumentError("pad: unknown mode", expected=", ".join(_MODES), received=repr(mode))
    shape = []
    for size, (before, after) in zip(x.shape, pairs, strict=True):
        left = (size or 0) + min(before, 0) + min(after, 0)
        grows = max(before, 0) + max(after, 0)
        if left < 0 or (mode != "constant" and left == 0 and grows):
            raise ShapeError(
                f"pad: an axis is too short for {mode} padding",
                expected=f"more than {size}",
                received=(before, after),
            )
        shape.append(left + grows)
    return TensorType(tuple(shape), x.dtype)


@pad.vjp
def _(gy: Array, _y: Array, _x: TensorType, pad_width: Any, mode: str, _value: Any) -> Any:
    pairs = _pairs(_x.ndim, pad_width)
    if mode == "constant":
        return pad(gy, tuple((-a, -b) for a, b in pairs))
    return unpad(gy, _x.shape, pairs, mode)


@op(
    samples=[
        sample(floats(3, 6), (2, 3), ((1, 0), (2, 1)), "reflect"),
        sample(floats(7, 4), (4, 5), ((1, 2), (0, -1)), "edge"),
        sample(floats(3, 9), (3, 2), ((0, 0), (4, 3)), "wrap"),
        sample(floats(8), (2,), 3, "symmetric"),
    ]
)
def unpad(xp: Any, x: Array, shape: Any, pad_width: Any, mode: str) -> Array:
    """Sums of the elements that `pad` copies from one: the transpose of pad in every mode but "constant".

    x: the shape that padding an array of `shape` gives, floating -> `shape`. Raises ShapeError for another.
    """
    result = x
    for axis, (before, after) in enumerate(_pairs(x.ndim, pad_width)):
        if before or after:
            rows = xp.moveaxis(result, axis, 0)
            total = xp.zeros((shape[axis], *rows.shape[1:]), x.dtype)
            add_rows(xp, total, xp.asarray(_source(shape[axis], before, after, mode)), rows)
            result = xp.moveaxis(total, 0, axis)
    return result.copy() if result is x else result


@unpad.type
def _(x: TensorType, shape: Any, pad_width: Any, mode: str) -> TensorType:
    result = TensorType(checked_shape("unpad", shape), x.dtype)
    padded = pad.infer({"x": result, "pad_width": pad_width, "mode": mode, "value": 0})
    if padded != x:
        raise ShapeError("unpad: wrong shape", expected=padded, received=x)
    return result


@unpad.vjp
def _(gy: Array, _y: Array, _x: TensorType, _shape: Any, pad_width: Any, mode: str) -> Any:
    return pad(gy, pad_width, mode)
