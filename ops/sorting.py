"""Sorting and searching. NaN counts as larger than every number, as NumPy and torch have it."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import distinct, fixed, floats, ints, sample
from zoonet.ops.scattering import check_indices, untake_along_axis
from zoonet.ops.shapes import normalize_axis
from zoonet.ops.types import COMPLEX, Array, TensorType, int64, kind_of

__all__ = ["argsort", "bincount", "searchsorted", "sort", "topk", "unique"]


def _check_sortable(name: str, x: TensorType, axis: int) -> None:
    if kind_of(x.dtype) >= COMPLEX:
        raise DTypeError(f"{name} needs an order", expected="real numbers", received=x)
    normalize_axis(name, x.ndim, axis)


def _order(xp: Any, x: Any, axis: int, descending: bool, stable: bool = True) -> Any:
    """The indices that sort x along an axis, of equal elements the first one first if stable."""
    kind = "stable" if stable and xp is np else None  # CuPy's sort is stable
    if not descending:
        return xp.argsort(x, axis, kind=kind)
    backwards = xp.flip(xp.argsort(xp.flip(x, axis), axis, kind=kind), axis)
    return x.shape[axis] - 1 - backwards


@op(samples=[sample(distinct(3, 4)), sample(distinct(3, 4), 0, True), sample(ints(8)), sample(distinct(2, 0))])
def sort(xp: Any, x: Array, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """x sorted along an axis. Real numbers of any shape with an axis -> same; NaN last, or first if descending.

    stable: whether gradients of equal elements keep their order. Raises ShapeError for an axis that x does not have.
    Source: array API `sort`.
    """
    result = xp.sort(x, axis)
    return xp.flip(result, axis) if descending else result


@sort.type
def _(x: TensorType, axis: int = -1, descending: bool = False, stable: bool = True) -> TensorType:
    _check_sortable("sort", x, axis)
    return x


@sort.vjp
def _(gy: Array, _y: Array, x: Array, axis: int, descending: bool, stable: bool) -> Any:
    return lambda: untake_along_axis(gy, argsort(x, axis, descending, stable), tuple(x.shape), axis)


@op(
    differentiable=False,
    samples=[
        sample(distinct(3, 4)),
        sample(distinct(3, 4), 0, True),
        sample(ints(12)),
        sample(ints(2, 9, high=3), -1, True),
    ],
)
def argsort(xp: Any, x: Array, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """The indices that sort x along an axis, int64; see `sort`. Of equal elements the first comes first if stable.

    Real numbers of any shape with an axis. Raises ShapeError for an axis that x does not have.
    Source: array API `argsort`.
    """
    return _order(xp, x, axis, descending, stable)


@argsort.type
def _(x: TensorType, axis: int = -1, descending: bool = False, stable: bool = True) -> TensorType:
    _check_sortable("argsort", x, axis)
    return TensorType(x.shape, int64)


def _extremes(x: Any, k: int, largest: bool) -> Any:
    """The indices of the k extreme elements on the last axis, ascending, of ties the first; None if NaN is a limit."""
    edge = x.shape[-1] - k if largest else k - 1
    limit = np.partition(x, edge, -1)[..., edge : edge + 1]
    if np.isnan(limit).any():
        return None
    chosen = ~(x <= limit) if largest else x < limit  # NaN is largest
    ties = x == limit
    chosen |= ties & (np.cumsum(ties, -1) <= k - chosen.sum(-1, keepdims=True))
    return np.nonzero(chosen)[-1].reshape(*x.shape[:-1], k)


@op(
    samples=[
        sample(distinct(3, 5), 2),
        sample(distinct(6, 2), 3, 0, False),
        sample(distinct(2, 40), 3, -1, True, True),
        sample(distinct(40), 4, 0, False),
        sample(distinct(5), 5),
        sample(ints(60, low=-2, high=3), 5),
        sample(distinct(2, 3), 0),
    ]
)
def topk(xp: Any, x: Array, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Array, Array]:
    """The k largest (or smallest) elements along an axis and their indices (int64), the most extreme first.

    x: real numbers with an axis of size k or more -> two arrays with k there. Of equal elements the one with the lower
    index comes first; NaN is largest. sorted=False leaves the order open. Raises ShapeError where k does not fit.
    Source: torch `topk`, ONNX `TopK`.
    """
    moved = xp.moveaxis(x, axis, -1)
    chosen = None
    if xp is np and 0 < k < moved.shape[-1] // 4 and x.size:
        chosen = _extremes(moved, k, largest)
    if chosen is None:
        indices = _order(xp, moved, -1, largest)[..., :k]
    else:
        within = _order(xp, xp.take_along_axis(moved, chosen, -1), -1, largest)
        indices = xp.take_along_axis(chosen, within, -1)
    values = xp.take_along_axis(moved, indices, -1)
    return xp.moveaxis(values, -1, axis), xp.moveaxis(indices, -1, axis)


@topk.type
def _(
    x: TensorType, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[TensorType, TensorType]:
    _check_sortable("topk", x, axis)
    along = normalize_axis("topk", x.ndim, axis)
    if not isinstance(k, int) or not 0 <= k <= (x.shape[along] or 0):
        raise ShapeError("topk: k does not fit", expected=f"0 to {x.shape[along]}, the size of axis {axis}", received=k)
    shape = (*x.shape[:along], k, *x.shape[along + 1 :])
    return TensorType(shape, x.dtype), TensorType(shape, int64)


@topk.vjp
def _(gy: tuple[Array, Array], y: tuple[Array, Array], _x: TensorType, _k: Any, axis: int, *_rest: Any) -> Any:
    return untake_along_axis(gy[0], y[1], _x.shape, axis)


@op(
    differentiable=False,
    samples=[
        sample(ints(12)),
        sample(ints(3, 4), None, True, True, True),
        sample(ints(6, 2, high=2), 0, True, True, True),
        sample(ints(2, 6, high=2), 1, False, True),
        sample(fixed([2, 1, 1, 3, 4, 3], "int64"), None, True, True, True, False),
    ],
)
def unique(
    xp: Any,
    x: Array,
    axis: int | None = None,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    sorted: bool = True,
    equal_nan: bool = True,
) -> Any:
    """The distinct elements of x, or its distinct slices along an axis; if asked for, a tuple with up to three more.

    x: any shape and dtype -> [n] (or n on the axis), where n depends on x. return_index: where each occurs first.
    return_inverse: for each element (in x's shape; for each position on the axis) its place in the result.
    return_counts: how often each occurs. All int64. sorted=False gives them in the order of first appearance.
    equal_nan=False takes every NaN as distinct. Source: NumPy `unique`, ONNX `Unique`.
    """
    values, first, inverse, counts = xp.unique(x, True, True, True, axis=axis, equal_nan=equal_nan)
    inverse = inverse.reshape(x.shape if axis is None else -1)
    if not sorted:
        order = xp.argsort(first)
        place = xp.empty_like(order)
        place[order] = xp.arange(order.size)
        values = xp.take(values, order, 0 if axis is None else axis)
        first, inverse, counts = first[order], place[inverse], counts[order]
    results = [values]
    wanted = ((first, return_index), (inverse, return_inverse), (counts, return_counts))
    results += [array for array, asked in wanted if asked]
    return tuple(results) if len(results) > 1 else values


@unique.type
def _(
    x: TensorType,
    axis: int | None = None,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    sorted: bool = True,
    equal_nan: bool = True,
) -> Any:
    shape: tuple[int | None, ...] = (None,)
    inverse = x.shape
    if axis is not None:
        along = normalize_axis("unique", x.ndim, axis)
        shape = (*x.shape[:along], None, *x.shape[along + 1 :])
        inverse = (x.shape[along],)
    results = [TensorType(shape, x.dtype)]
    wanted = (((None,), return_index), (inverse, return_inverse), ((None,), return_counts))
    results += [TensorType(s, int64) for s, asked in wanted if asked]
    return tuple(results) if len(results) > 1 else results[0]


@op(
    differentiable=False,
    samples=[
        sample(fixed([0.0, 1.0, 1.0, 2.0], "float32"), fixed([[1.0, -1.0], [2.0, 5.0]], "float32")),
        sample(fixed([0, 1, 1, 2], "int64"), ints(5, high=4), "right"),
        sample(fixed([], "float32"), floats(2)),
    ],
)
def searchsorted(xp: Any, x: Array, values: Array, side: str = "left") -> Array:
    """For each value the index at which inserting it keeps the 1-d array x in order, int64.

    x: ascending [n], values: any shape -> that shape. side: "left" gives the first such index, "right" the last.
    Raises ShapeError for other x, ArgumentError for another side. Source: array API `searchsorted`.
    """
    return xp.searchsorted(x, values, side)


@searchsorted.type
def _(x: TensorType, values: TensorType, side: str = "left") -> TensorType:
    if x.ndim != 1:
        raise ShapeError("searchsorted takes a 1-d array", expected="[n]", received=x)
    if side not in ("left", "right"):
        raise ArgumentError("searchsorted: unknown side", expected="'left' or 'right'", received=repr(side))
    return TensorType(values.shape, int64)


@op(differentiable=False, samples=[sample(ints(9)), sample(ints(9, high=3), 6), sample(fixed([], "int64"), 2)])
def bincount(xp: Any, x: Array, minlength: int = 0) -> Array:
    """How often 0, 1, 2, … occur in a 1-d array of integers of at least 0: int64, minlength long or longer.

    Raises ShapeError for other shapes and negative numbers, DTypeError for other dtypes. Source: NumPy `bincount`.
    """
    return xp.bincount(x, minlength=minlength)


@bincount.type
def _(x: TensorType, minlength: int = 0) -> TensorType:
    check_indices("bincount", x)
    if x.ndim != 1:
        raise ShapeError("bincount takes a 1-d array", expected="[n]", received=x)
    return TensorType((None,), int64)
