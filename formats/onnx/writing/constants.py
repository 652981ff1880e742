"""Constants that are another one at other sizes, such as positions and masks: written so that they grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.sizes import Dimension, Number, Size, dimension_of, varying
from zoonet.ops.types import bool_, int64

__all__ = ["varying_constant"]


def varying_constant(b: Builder, arrays: Sequence[Any]) -> str:
    """The constant that has these values in the traces.

    One number throughout, numbers that rise evenly along an axis, or one number in a band of diagonals and another one
    outside. Raises TraceError for any other.
    """
    first = arrays[0]
    if len({a.ndim for a in arrays}) > 1 or any(a.size == 0 or a.dtype != first.dtype for a in arrays):
        raise varying("a constant", str(tuple(first.shape)))
    shape = [dimension_of([int(a.shape[axis]) for a in arrays]) for axis in range(first.ndim)]
    for written in (_filled(b, arrays, shape), _rising(b, arrays, shape), _banded(b, arrays, shape)):
        if written is not None:
            return written
    raise varying("a constant", f"an array {first.dtype}{list(first.shape)} that is another one at other sizes")


def _filled(b: Builder, arrays: Sequence[Any], shape: list[Dimension]) -> str | None:
    flat = [np.asarray(a).reshape(-1) for a in arrays]
    if not all((f == f[0]).all() for f in flat):
        return None
    values = [f[0].item() for f in flat]
    if len(set(values)) == 1:
        return b.full(shape, values[0], arrays[0].dtype)
    whole = all(float(v).is_integer() for v in values)
    return b.full(shape, Size(tuple(map(int, values))) if whole else Number(tuple(values)), arrays[0].dtype)


def _rising(b: Builder, arrays: Sequence[Any], shape: list[Dimension]) -> str | None:
    dtype = arrays[0].dtype
    for axis, n in enumerate(shape):
        found = _steps(arrays, axis) if isinstance(n, Size) else None
        if found is None:
            continue
        start, step = found
        line = b.cast(b.range(n), dtype)
        if step != 1:
            line = b.node("Mul", line, b.constant(np.asarray(step, dtype)))
        if start != 0:
            line = b.node("Add", line, b.number(start, dtype))
        if axis < len(shape) - 1:
            line = b.unsqueeze(line, range(1, len(shape) - axis))
        if any(m != 1 for i, m in enumerate(shape) if i != axis):
            return b.expand(line, shape)
        return b.unsqueeze(line, range(axis)) if axis else line
    return None


def _steps(arrays: Sequence[Any], axis: int) -> tuple[Any, Any] | None:
    """(start, step) of arrays that rise evenly along an axis and are equal along the others."""
    starts, steps = [], []
    for array in arrays:
        lines = np.moveaxis(np.asarray(array), axis, 0).reshape(array.shape[axis], -1)
        if lines.dtype.kind not in "iuf" or len(lines) < 2 or (lines != lines[:, :1]).any():
            return None
        column = lines[:, 0]
        step = column[1] - column[0]
        if not np.array_equal(column, (column[0] + step * np.arange(len(column))).astype(column.dtype)):
            return None
        starts.append(column[0].item())
        steps.append(step.item())
    if len(set(steps)) > 1:
        return None
    if len(set(starts)) == 1:
        return starts[0], steps[0]
    whole = all(float(s).is_integer() for s in starts)
    return (Size(tuple(int(s) for s in starts)), steps[0]) if whole else None


def _banded(b: Builder, arrays: Sequence[Any], shape: list[Dimension]) -> str | None:
    """Masks of attention: one number where column - row lies between two bounds, another one elsewhere."""
    if len(shape) < 2 or any(n != 1 for n in shape[:-2]):
        return None
    values = np.unique(np.concatenate([np.asarray(a).reshape(-1) for a in arrays]))
    for inside, outside in (values, values[::-1]) if len(values) == 2 else ():
        masks = [np.asarray(a).reshape(a.shape[-2:]) == inside for a in arrays]
        sides = _common_bounds(masks)
        if sides is None:
            continue
        rows, columns = shape[-2:]
        distance = b.node("Sub", b.unsqueeze(b.range(columns), [0]), b.unsqueeze(b.range(rows), [1]))
        parts = [
            b.node(op_type, distance, b.number(dimension_of(side), int64))
            for op_type, side in zip(("GreaterOrEqual", "LessOrEqual"), sides, strict=True)
            if side
        ]
        seen = parts[0] if len(parts) == 1 else b.node("And", *parts)
        if arrays[0].dtype == bool_:
            y = seen if inside else b.node("Not", seen)
        else:
            y = b.node("Where", seen, *[b.constant(np.asarray(v, arrays[0].dtype)) for v in (inside, outside)])
        return b.unsqueeze(y, range(len(shape) - 2)) if len(shape) > 2 else y
    return None


def _common_bounds(masks: Sequence[Any]) -> tuple[list[int], list[int]] | None:
    """The least and the greatest distance of the band in every trace, empty for a side without bound.

    None if there is no such band. Where a bound lies outside of a small array, it is that of the others.
    """
    found: list[list[int | None]] = [[], []]
    limits: list[list[int]] = [[], []]
    for seen in masks:
        distance = np.arange(seen.shape[1]) - np.arange(seen.shape[0])[:, None]
        if not seen.any():
            return None
        low, high = int(distance[seen].min()), int(distance[seen].max())
        if not np.array_equal(seen, (distance >= low) & (distance <= high)):
            return None
        for side, bound, limit in ((0, low, int(distance.min())), (1, high, int(distance.max()))):
            found[side].append(None if bound == limit else bound)
            limits[side].append(limit)
    sides: list[list[int]] = []
    for bounds, edges, sign in zip(found, limits, (1, -1), strict=True):
        known = [bound for bound in bounds if bound is not None]
        if known and len(known) < len(bounds):
            outside = [edge for bound, edge in zip(bounds, edges, strict=True) if bound is None]
            if len(set(known)) > 1 or any(sign * known[0] > sign * edge for edge in outside):
                return None
            known = known[:1] * len(bounds)
        sides.append(known)
    return (sides[0], sides[1]) if sides[0] or sides[1] else None
