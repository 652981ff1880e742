"""Slices: basic indexing with numbers, slices, None and Ellipsis, its transpose, and functional assignment.

A key is plain data: slices in it become `Slice`, which hashes on every Python. Array indices are the business of
`getitem` (behind `x[key]` of traced values), which sends them to `take` and `gather_nd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.devices import is_array
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.operands import Traced, broadcast_shapes, type_of
from zoonet.ops.registry import REGISTRY, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import checked_shape, reshape
from zoonet.ops.types import BOOL, INTEGER, Array, Slice, TensorType, kind_of

__all__ = ["index", "index_update", "unindex"]


def _items(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _numpy_key(key: Any) -> Any:
    return tuple([item.builtin() if isinstance(item, Slice) else item for item in _items(key)])


def expand_key(name: str, ndim: int, key: tuple[Any, ...], consumed: Any = lambda item: 1) -> list[Any]:
    """A key's items with the Ellipsis (or the missing end) written as whole slices, one item per axis, and Nones.

    consumed(item): the number of axes that an item other than None takes. Raises ShapeError for too many of them.
    """
    ellipses = [i for i, item in enumerate(key) if item is Ellipsis]
    if len(ellipses) > 1:
        raise ArgumentError(f"{name}: a key has at most one Ellipsis", received=key)
    used = sum(consumed(item) for item in key if item is not None and item is not Ellipsis)
    if used > ndim:
        raise ShapeError(f"{name}: too many indices", expected=f"at most {ndim}", received=used)
    at = ellipses[0] if ellipses else len(key)
    return [*key[:at], *[Slice(None, None, None)] * (ndim - used), *key[at + 1 :]]


def _indexed_shape(name: str, x: TensorType, key: Any) -> tuple[int, ...]:
    """The shape of x[key]; checks the key."""
    shape: list[int] = []
    axis = 0
    for item in expand_key(name, x.ndim, _items(key)):
        if item is None:
            shape.append(1)
            continue
        size = x.shape[axis] or 0
        if isinstance(item, Slice):
            if item.step == 0 or not all(v is None or isinstance(v, int) for v in (item.start, item.stop, item.step)):
                raise ArgumentError(
                    f"{name}: wrong slice", expected="integers, and a step that is not 0", received=item
                )
            shape.append(len(range(*item.builtin().indices(size))))
        elif isinstance(item, int) and not isinstance(item, bool):
            if not -size <= item < size:
                raise ShapeError(
                    f"{name}: index out of range",
                    expected=f"{-size} to {size - 1} on axis {axis}",
                    received=item,
                )
        else:
            raise ArgumentError(
                f"{name}: wrong item in a key",
                expected="integers, slices, None or Ellipsis",
                received=repr(item),
                fix="use take, gather_nd or masked_select for indices in arrays",
            )
        axis += 1
    return tuple(shape)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(4, 3), 1),
        sample(floats(4, 3), (slice(None, None, -1), -1)),
        sample(floats(5, 3, 2), (slice(1, -1, 2), Ellipsis, None, slice(-1, None))),
        sample(floats(5), slice(4, 0, -2)),
        sample(floats(2, 3), (None, Ellipsis, 0)),
        sample(floats(3), slice(3, 1)),
        sample(ints(2, 2), ()),
    ],
)
def index(xp: Any, x: Array, key: Any) -> Array:
    """x[key] for a basic key: integers, slices (any step), None for a new axis, at most one Ellipsis; a view.

    x: any shape and dtype. Raises ShapeError for an index out of range or too many, ArgumentError for other items.
    Source: array API indexing, NumPy basic indexing.
    """
    return x[_numpy_key(key)]


@index.type
def _(x: TensorType, key: Any) -> TensorType:
    return TensorType(_indexed_shape("index", x, key), x.dtype)


@index.vjp
def _(gy: Array, _y: Array, _x: TensorType, key: Any) -> Any:
    return unindex(gy, _x.shape, key)


@op(
    exact=True,
    samples=[
        sample(floats(3), (4, 3), 1),
        sample(floats(2, 1, 3), (5, 3), (slice(None, None, -3), None)),
        sample(ints(2), (5,), slice(1, 4, 2)),
    ],
)
def unindex(xp: Any, x: Array, shape: Any, key: Any) -> Array:
    """Zeros of `shape` with x at the basic key: the transpose of `index`.

    x: the shape of an array of `shape` indexed by key, any dtype. Raises ShapeError where it differs.
    """
    result = xp.zeros(shape, x.dtype)
    result[_numpy_key(key)] = x
    return result


@unindex.type
def _(x: TensorType, shape: Any, key: Any) -> TensorType:
    whole = TensorType(checked_shape("unindex", shape), x.dtype)
    wanted = _indexed_shape("unindex", whole, key)
    if wanted != x.shape:
        raise ShapeError("unindex: wrong shape", expected=list(wanted), received=list(x.shape))
    return whole


@unindex.vjp
def _(gy: Array, _y: Array, _x: TensorType, _shape: Any, key: Any) -> Any:
    return index(gy, key)


@op(
    exact=True,
    samples=[
        sample(floats(4, 3), 1, floats(3)),
        sample(floats(4, 3), (slice(None, None, -2), slice(1, None)), floats(2, 1)),
        sample(floats(3, 2), (Ellipsis, 0), floats()),
        sample(ints(5), slice(1, 3), ints(2)),
    ],
)
def index_update(xp: Any, x: Array, key: Any, values: Array) -> Array:
    """A copy of x with x[key] replaced by values, for a basic key as in `index`.

    x: any shape and dtype -> same. values: broadcast to the shape of x[key] and cast to x's dtype. Raises ShapeError
    where they do not broadcast.
    """
    result = x.copy()
    result[_numpy_key(key)] = xp.asarray(values, dtype=x.dtype)
    return result


@index_update.type
def _(x: TensorType, key: Any, values: TensorType) -> TensorType:
    wanted = _indexed_shape("index_update", x, key)
    if broadcast_shapes("index_update", wanted, values.shape) != wanted:
        raise ShapeError(
            "index_update: wrong shape", expected=f"one that broadcasts to {list(wanted)}", received=values
        )
    return x


@index_update.vjp
def _(gy: Array, _y: Array, _x: TensorType, key: Any, _values: TensorType) -> Any:
    def to_values() -> Array:
        part = index(gy, key)
        leading = len(part.shape) - _values.ndim
        axes = [i for i, n in enumerate(part.shape) if i < leading or _values.shape[i - leading] != n]
        return reshape(REGISTRY["sum"](part, axes, True), _values.shape)

    return lambda: index_update(gy, key, np.zeros((), _x.dtype)), to_values


def getitem(x: Any, key: Any) -> Any:
    """x[key] by NumPy's rules for an array or traced value x and a key that may hold index arrays and masks.

    Basic keys go to `index`, one array of integers to `take`, several (broadcast against each other) to `gather_nd`; a
    mask counts as the arrays of its `nonzero`, so its contents must be known.
    """
    items = key if isinstance(key, tuple) else (key,)
    if not any(_is_advanced(item) for item in items):
        return index(x, key)
    items = tuple([_as_indices(item) if _is_advanced(item) else item for item in items])
    expanded: list[Any] = []
    for item in expand_key("index", len(x.shape), items, lambda i: len(i.shape) if _is_mask(i) else 1):
        expanded += REGISTRY["nonzero"](item) if _is_mask(item) else [item]
    numbers = [i for i, item in enumerate(expanded) if _is_indices(item) or isinstance(item, int)]
    contiguous = numbers == list(range(numbers[0], numbers[-1] + 1))
    basic = index(x, tuple(Slice(None, None, None) if i in numbers else item for i, item in enumerate(expanded)))
    if len(numbers) == 1:
        return REGISTRY["take"](basic, expanded[numbers[0]], numbers[0])
    arrays = [np.asarray(expanded[i]) if isinstance(expanded[i], int) else expanded[i] for i in numbers]
    shape = broadcast_shapes("index", *[tuple(a.shape) for a in arrays])
    indices = REGISTRY["stack"]([REGISTRY["broadcast_to"](a, shape) for a in arrays], -1)
    gathered = REGISTRY["gather_nd"](REGISTRY["moveaxis"](basic, numbers, range(len(numbers))), indices)
    if not contiguous or numbers[0] == 0:
        return gathered
    places = range(numbers[0], numbers[0] + len(shape))
    return REGISTRY["moveaxis"](gathered, tuple(range(len(shape))), tuple(places))


def _is_advanced(item: Any) -> bool:
    """True for masks and index arrays; 0-d integer arrays are numbers where their value is known."""
    if isinstance(item, list | bool):
        return True
    if isinstance(item, np.integer) or (is_array(item) and item.ndim == 0 and item.dtype.kind in "iu"):
        return False
    return is_array(item) or isinstance(item, Traced)


def _as_indices(item: Any) -> Any:
    array = np.asarray(item) if isinstance(item, list | bool) else item
    if isinstance(item, list) and not item:
        array = array.astype(np.int64)
    if kind_of(type_of(array).dtype) > INTEGER:
        raise ArgumentError("index: an array in a key holds integers or is a mask", received=type_of(array))
    return array


def _is_indices(item: Any) -> bool:
    return hasattr(item, "dtype") and not isinstance(item, np.generic)


def _is_mask(item: Any) -> bool:
    return _is_indices(item) and kind_of(item.dtype) == BOOL
