"""Operators on shapes, slices, padding and joining as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import LAST, Builder
from zoonet.formats.onnx.writing.sizes import Dimension, Size, Tensor, dimension_of
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.reductions import normalize_axes
from zoonet.ops.slicing import expand_key
from zoonet.ops.types import Slice, bool_, int64


@emitter("reshape", "squeeze", "expand_dims")
def _(b: Builder, x: Tensor, *_: Any) -> str:
    if b.outputs[0].shape == x.shape:
        return b.node("Identity", x)
    if b.operator == "reshape" or not all(isinstance(n, int) for n in b.outputs[0].shape):
        return b.reshape(x, b.outputs[0].shape, x.shape)
    return b.reshape(x, b.outputs[0].shape)


@emitter("transpose")
def _(b: Builder, x: Tensor, axes: Any) -> str:
    order = range(x.ndim)[::-1] if axes is None else [a % x.ndim for a in axes]
    return b.transpose(x, list(order)) if x.ndim else b.node("Identity", x)


@emitter("broadcast_to")
def _(b: Builder, x: Tensor, shape: Any) -> str:
    return b.expand(x, b.outputs[0].shape)


@emitter("flip")
def _(b: Builder, x: Tensor, axis: Any) -> str:
    axes = normalize_axes("flip", x.ndim, axis)
    return reverse(b, x, axes) if axes else b.node("Identity", x)


def reverse(b: Builder, x: Any, axes: Any) -> str:
    """x with axes reversed."""
    return b.slice(x, [-1] * len(axes), [-LAST] * len(axes), axes, [-1] * len(axes))


@emitter("full_like")
def _(b: Builder, x: Tensor, value: Any, dtype: Any) -> str:
    return b.full(x.shape, value, b.outputs[0].dtype)


@emitter("full")
def _(b: Builder, shape: Any, value: Any, dtype: Any, device: str) -> str:
    return b.full(b.outputs[0].shape, value, b.outputs[0].dtype)


@emitter("arange")
def _(b: Builder, start: Any, stop: Any, step: Any, dtype: Any, device: str) -> str:
    wanted = b.outputs[0].dtype
    first, last = (0, start) if stop is None else (start, stop)
    kind = wanted if wanted.name in ("int32", "int64", "float32", "float64") else int64
    return b.cast(b.node("Range", *[b.number(n, kind) for n in (first, last, step)]), wanted)


@emitter("tril", "triu")
def _(b: Builder, x: Tensor, k: Any) -> str:
    b.require(14)
    diagonal = b.number(k, int64)
    upper = int(b.operator == "triu")
    if x.dtype == bool_:
        return b.cast(b.node("Trilu", b.node("Cast", x, to=7), diagonal, upper=upper), bool_)
    return b.node("Trilu", x, diagonal, upper=upper)


@emitter("diagonal")
def _(b: Builder, x: Tensor, offset: int, axis1: int, axis2: int) -> str:
    rows, columns = x.shape[axis1], x.shape[axis2]
    if not (isinstance(rows, int) and isinstance(columns, int)):
        raise b.refuse("a diagonal of a matrix of free size", "fix the sizes of the matrix")
    first, second = axis1 % x.ndim, axis2 % x.ndim
    rest = [i for i in range(x.ndim) if i not in (first, second)]
    moved = b.transpose(x, [*rest, first, second])
    flat = b.reshape(moved, [*(x.shape[i] for i in rest), rows * columns])
    count = b.outputs[0].shape[-1]
    assert isinstance(count, int)
    place = np.arange(count) * (columns + 1) + (offset if offset >= 0 else -offset * columns)
    return b.node("Gather", flat, b.constant(place.astype(np.int64)), axis=-1)


# -- joining -----------------------------------------------------------------------------------------------------


@emitter("concat")
def _(b: Builder, arrays: Any, axis: int) -> str:
    return b.node("Concat", *[b.cast(a, b.outputs[0].dtype) for a in arrays], axis=axis)


@emitter("stack")
def _(b: Builder, arrays: Any, axis: int) -> str:
    place = axis % len(b.outputs[0].shape)
    parts = [b.unsqueeze(b.cast(a, b.outputs[0].dtype), [place]) for a in arrays]
    return b.node("Concat", *parts, axis=place)


@emitter("unstack")
def _(b: Builder, x: Tensor, axis: int) -> tuple[str, ...]:
    indices = range(len(b.outputs))
    return tuple([b.node("Gather", x, b.constant(i, int64), axis=axis) for i in indices])


@emitter("split")
def _(b: Builder, x: Tensor, sections: Any, axis: int) -> tuple[str, ...]:
    sizes = [t.shape[axis] for t in b.outputs]
    if not sizes:
        raise b.refuse("a split into no parts")
    return tuple(b.many("Split", x, b.ints(sizes), outputs=len(sizes), axis=axis))


@emitter("tile")
def _(b: Builder, x: Tensor, repetitions: Any) -> str:
    times = (repetitions,) if isinstance(repetitions, int | Size) else tuple(repetitions)
    rank = max(len(times), x.ndim)
    given: Any = x if x.ndim == rank else b.unsqueeze(x, range(rank - x.ndim))
    return b.node("Tile", given, b.ints((1,) * (rank - len(times)) + times))


@emitter("roll")
def _(b: Builder, x: Tensor, shift: Any, axis: Any) -> str:
    if axis is None:
        flat = b.node("Reshape", x, b.constant([-1], int64))
        return b.reshape(_rolled(b, flat, shift, 0), x.shape)
    shifts = (shift,) if isinstance(shift, int | Size) else shift
    axes = (axis,) if isinstance(axis, int) else axis
    y: Any = x.name
    for step, at in zip(shifts * (len(axes) if len(shifts) == 1 else 1), axes, strict=True):
        n = x.shape[at]
        if isinstance(n, int) and isinstance(step, int):
            step %= max(n, 1)
        y = _rolled(b, y, step, at)
    return y if y != x.name else b.node("Identity", x)


def _rolled(b: Builder, x: Any, step: Dimension, axis: int) -> str:
    if step == 0:
        return str(x)
    if isinstance(step, Size):
        raise b.refuse("a roll by a free size")
    return b.node("Concat", b.slice(x, [-step], [LAST], [axis]), b.slice(x, [0], [-step], [axis]), axis=axis)


@emitter("repeat")
def _(b: Builder, x: Tensor, repeats: Any, axis: int | None) -> str:
    given: Any = x
    if axis is None:
        given, axis, count = b.node("Reshape", x, b.constant([-1], int64)), 0, None
    else:
        axis %= x.ndim
        count = x.shape[axis]
    if isinstance(repeats, int) and axis is not None:
        wide = b.unsqueeze(given, [axis + 1])
        times = [1] * (len(b.outputs[0].shape) + 1)
        times[axis + 1] = repeats
        return b.reshape(b.node("Tile", wide, b.ints(times)), b.outputs[0].shape)
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    size = count if isinstance(count, int) else len(counts)
    places = np.repeat(np.arange(size), counts if len(counts) > 1 else counts * size)
    return b.node("Gather", given, b.constant(places.astype(np.int64)), axis=axis)


# -- slices ------------------------------------------------------------------------------------------------------


def _items(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


@emitter("index")
def _(b: Builder, x: Tensor, key: Any) -> str:
    starts: list[Any] = []
    ends: list[Any] = []
    axes: list[int] = []
    steps: list[Any] = []
    dropped: list[int] = []
    added: list[int] = []
    axis = place = 0
    for item in expand_key("index", x.ndim, _items(key)):
        if item is None:
            added.append(place)
            place += 1
            continue
        if isinstance(item, Slice):
            step = 1 if item.step is None else item.step
            backwards = isinstance(step, int) and step < 0
            if item != Slice(None, None, None):
                starts.append((LAST if backwards else 0) if item.start is None else item.start)
                ends.append((-LAST if backwards else LAST) if item.stop is None else item.stop)
                axes.append(axis)
                steps.append(step)
            place += 1
        else:
            starts.append(item)
            ends.append(LAST if item == -1 else _next(item))
            axes.append(axis)
            steps.append(1)
            dropped.append(axis)
        axis += 1
    y: Any = x.name
    if axes:
        y = b.slice(x, starts, ends, axes, None if all(s == 1 for s in steps) else steps)
    if dropped:
        y = b.squeeze(y, dropped)
    if added:
        y = b.unsqueeze(y, added)
    return y if y != x.name else b.node("Identity", x)


def _next(item: Dimension) -> Dimension:
    return item + 1 if isinstance(item, int) else Size(tuple(n + 1 for n in item.values))


@emitter("unindex")
def _(b: Builder, x: Tensor, shape: Any, key: Any) -> str:
    return unindexed(b, x.name, b.outputs[0], key)


def unindexed(b: Builder, x: str, whole: Tensor, key: Any) -> str:
    """Zeros of the shape of `whole`, with x where a basic key points."""
    items = expand_key("unindex", len(whole.shape), _items(key))
    added = [i for i, item in enumerate(_places(items)) if item is None]
    if added:
        x = b.squeeze(x, added)
    dropped = [i for i, item in enumerate([i for i in items if i is not None]) if not isinstance(item, Slice)]
    if dropped:
        x = b.unsqueeze(x, dropped)
    before: list[Dimension] = [0] * len(whole.shape)
    after: list[Dimension] = [0] * len(whole.shape)
    axis = 0
    for item in items:
        if item is None:
            continue
        n = whole.shape[axis]
        if item != Slice(None, None, None):
            if isinstance(n, int) and not _is_plain(item):
                x = _spread(b, x, whole, axis, np.arange(n)[_built(item)].reshape(-1))
            else:
                before[axis], after[axis] = _margins(b, item, n)
        axis += 1
    if any(n != 0 for n in (*before, *after)):
        zero = b.constant(np.asarray(0, whole.dtype))
        given = b.cast(x, int64) if whole.dtype == bool_ else x
        x = b.node("Pad", given, b.ints([*before, *after]), b.constant(0, int64) if whole.dtype == bool_ else zero)
        x = b.cast(x, bool_) if whole.dtype == bool_ else x
    return b.node("Identity", x)


def _places(items: list[Any]) -> list[Any]:
    """The items that stand for an axis of the indexed array: slices and new axes."""
    return [item for item in items if item is None or isinstance(item, Slice)]


def _is_plain(item: Any) -> bool:
    return not isinstance(item, Slice) or item.step in (None, 1)


def _built(item: Any) -> Any:
    return item.builtin() if isinstance(item, Slice) else item


def _margins(b: Builder, item: Any, n: Dimension) -> tuple[Dimension, Dimension]:
    """Cells before and after what an item of a key takes from an axis."""
    points = n.values if isinstance(n, Size) else (n,)
    pairs = []
    for place, size in enumerate(points):
        at = _at(item, place)
        if isinstance(at, Slice):
            start, stop, step = at.builtin().indices(size)
            if step != 1:
                raise b.refuse("a slice with steps of an axis of free size", "fix the size of the axis")
            pairs.append((start, size - max(stop, start)))
        else:
            pairs.append((at % size, size - at % size - 1))
    if len(points) == 1:
        return pairs[0]
    return dimension_of([p[0] for p in pairs]), dimension_of([p[1] for p in pairs])


def _at(item: Any, place: int) -> Any:
    if isinstance(item, Slice):
        return Slice(*[_at(bound, place) for bound in (item.start, item.stop, item.step)])
    return item.values[place] if isinstance(item, Size) else item


def _spread(b: Builder, x: str, whole: Tensor, axis: int, places: Any) -> str:
    """x with its entries on an axis put at these places of a longer one, zeros elsewhere."""
    size = whole.shape[axis]
    assert isinstance(size, int)
    sources = np.full(size, len(places), np.int64)  # the entry behind the last: the zero
    sources[places] = np.arange(len(places))
    widths = [0] * (2 * len(whole.shape))
    widths[len(whole.shape) + axis] = 1
    given = b.cast(x, int64) if whole.dtype == bool_ else x
    kind = int64 if whole.dtype == bool_ else whole.dtype
    padded = b.node("Pad", given, b.ints(widths), b.constant(np.asarray(0, kind)))
    y = b.node("Gather", padded, b.constant(sources), axis=axis)
    return b.cast(y, bool_) if whole.dtype == bool_ else y


@emitter("index_update")
def _(b: Builder, x: Tensor, key: Any, values: Tensor) -> str:
    whole = b.outputs[0]
    ones = b.full(whole.shape, 1, int64)
    inner = Tensor(ones, whole.shape, int64)
    from zoonet.formats.onnx.writing.table import EMITTERS

    chosen = EMITTERS["index"](b, inner, key)  # ones in the shape that the key takes
    hit = b.cast(unindexed(b, chosen, inner, key), bool_)
    spread = b.node("Expand", b.cast(values, whole.dtype), b.node("Shape", chosen))
    return b.node("Where", hit, unindexed(b, spread, whole, key), x)


# -- padding -----------------------------------------------------------------------------------------------------


def widths_of(ndim: int, pad_width: Any) -> list[tuple[Any, Any]]:
    """A pair (before, after) for each axis."""
    if isinstance(pad_width, int | Size):
        return [(pad_width, pad_width)] * ndim
    if len(pad_width) == 2 and all(isinstance(n, int | Size) for n in pad_width):
        return [tuple(pad_width)] * ndim
    return [tuple(p) if isinstance(p, tuple | list) else (p, p) for p in pad_width]


@emitter("pad")
def _(b: Builder, x: Tensor, pad_width: Any, mode: str, value: float) -> str:
    pairs = widths_of(x.ndim, pad_width)
    if mode == "symmetric" or (mode == "wrap" and b.opset < 19):
        from zoonet.formats.onnx.writing.maps import padded_by_gathers

        return padded_by_gathers(b, x, pad_width, mode)
    if x.dtype == bool_:
        raise b.refuse("padding of bool", "cast it first")
    pads = b.ints([*(p[0] for p in pairs), *(p[1] for p in pairs)])
    if mode == "constant":
        return b.node("Pad", x, pads, b.constant(np.asarray(value, x.dtype)), mode="constant")
    return b.node("Pad", x, pads, mode=mode)


@emitter("unpad")
def _(b: Builder, x: Tensor, shape: Any, pad_width: Any, mode: str) -> str:
    if mode != "constant":
        from zoonet.formats.onnx.writing.maps import unpadded

        return unpadded(b, x, pad_width, mode)
    pairs = widths_of(x.ndim, pad_width)
    if any(not isinstance(n, int) for pair in pairs for n in pair):
        raise b.refuse("padding by a free size")
    # what was cropped comes back as zeros, what was padded goes
    return b.node(
        "Pad", x, b.ints([*(-p[0] for p in pairs), *(-p[1] for p in pairs)]), b.constant(np.asarray(0, x.dtype))
    )
