"""Gathering and scattering: Gather…, Scatter…, OneHot, NonZero, Compress, Unique, ReverseSequence, TensorScatter."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.common import STRING, concrete, normalized_axis, scalar
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array


def gather(data: Array, indices: Array, /, axis: int = 0) -> Array:
    """The slices of data at indices along an axis; negative indices count from the end."""
    if data.dtype == STRING:
        return np.take(data, np.asarray(indices), axis=axis)
    return ops.take(data, indices, normalized_axis(axis, len(data.shape), "Gather"))


def gather_elements(data: Array, indices: Array, /, axis: int = 0) -> Array:
    """For each index the element of data at it along an axis, and elsewhere at the index's own place."""
    if data.dtype == STRING:
        return np.take_along_axis(data, np.asarray(indices), axis=axis)
    return ops.gather_elements(data, indices, axis)


def gather_nd(data: Array, indices: Array, /, batch_dims: int = 0) -> Array:
    """The slices of data at tuples of indices, which lie on the last axis of indices."""
    return ops.gather_nd(data, indices, batch_dims)


def gather_nd_11(data: Array, indices: Array, /) -> Array:
    """As version 12, without batch axes."""
    return ops.gather_nd(data, indices, 0)


declare("Gather", gather, (1, 11, 13))
declare("GatherElements", gather_elements, (11, 13))
declare("GatherND", gather_nd_11, (11,))
declare("GatherND", gather_nd, (12, 13))


def scatter_elements(data: Array, indices: Array, updates: Array, /, axis: int = 0) -> Array:
    """The data with updates at indices along an axis."""
    return ops.scatter_elements(data, indices, updates, axis)


def scatter_elements_16(
    data: Array, indices: Array, updates: Array, /, axis: int = 0, reduction: str = "none"
) -> Array:
    """The data with updates at indices along an axis; reduction: none, add, mul, max, min."""
    return ops.scatter_elements(data, indices, updates, axis, reduction)


def scatter_nd(data: Array, indices: Array, updates: Array, /) -> Array:
    """The data with slices of updates at tuples of indices."""
    return ops.scatter_nd(data, indices, updates)


def scatter_nd_16(data: Array, indices: Array, updates: Array, /, reduction: str = "none") -> Array:
    """The data with slices of updates at tuples of indices; reduction: none, add, mul, max, min."""
    return ops.scatter_nd(data, indices, updates, reduction)


declare("Scatter", scatter_elements, (9, 11))
declare("ScatterElements", scatter_elements, (11, 13))
declare("ScatterElements", scatter_elements_16, (16, 18))
declare("ScatterND", scatter_nd, (11, 13))
declare("ScatterND", scatter_nd_16, (16, 18))


def one_hot(indices: Array, depth: Array, values: Array, /, axis: int = -1) -> Array:
    """values[1] where the new axis is at the index (negative ones count from the end), values[0] elsewhere."""
    count = int(scalar(depth, "the depth of OneHot"))
    if count < 0:
        raise ArgumentError("OneHot: depth is negative", received=count)
    place = normalized_axis(axis, len(indices.shape) + 1, "OneHot")
    wanted = ops.cast(indices, np.int64)
    wanted = ops.where(ops.less(wanted, np.asarray(0)), ops.add(wanted, np.asarray(count)), wanted)
    shape = [count if i == place else 1 for i in range(len(indices.shape) + 1)]
    hot = ops.equal(ops.expand_dims(wanted, place), np.arange(count).reshape(shape))
    if values.dtype == STRING:
        return np.where(np.asarray(hot), values[1], values[0])
    return ops.where(hot, values[1], values[0])


declare("OneHot", one_hot, (9, 11, 28))


def nonzero(X: Array, /) -> Array:
    """The indices of what is not zero: (rank, count)."""
    found = concrete(X, "the number of elements that are not zero")
    places = np.nonzero(found) if found.ndim else np.nonzero(found.reshape(1))
    return np.asarray(places, np.int64).reshape(found.ndim, -1)


declare("NonZero", nonzero, (9, 13))


def compress(input: Array, condition: Array, /, axis: int | None = None) -> Array:
    """The slices along an axis (the elements, without one) at which the condition holds."""
    kept = np.flatnonzero(concrete(condition, "the condition of Compress"))
    if axis is None:
        return ops.take(ops.reshape(input, (-1,)), kept, 0)
    return ops.take(input, kept, normalized_axis(axis, len(input.shape), "Compress"))


declare("Compress", compress, (9, 11, 28))


def unique(X: Array, /, axis: int | None = None, sorted: int = 1, outputs: int = 1) -> tuple[Array, ...]:
    """The distinct elements or slices, where each comes first, which each element is, and how often each comes."""
    data = concrete(X, "the number of distinct elements")
    if axis is not None:
        axis = normalized_axis(axis, data.ndim, "Unique")
    values, first, inverse, counts = np.unique(
        data, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        values = np.take(values, order, axis=0 if axis is None else axis)
        first, inverse, counts = first[order], place[inverse], counts[order]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


declare("Unique", unique, (11, 28))


def reverse_sequence(input: Array, sequence_lens: Array, /, batch_axis: int = 1, time_axis: int = 0) -> Array:
    """The first sequence_lens[b] steps of each item b in reverse order."""
    if {batch_axis, time_axis} != {0, 1}:
        raise ArgumentError("ReverseSequence takes axes 0 and 1", received=(batch_axis, time_axis))
    steps = np.arange(input.shape[time_axis])
    lengths = ops.cast(ops.reshape(sequence_lens, (-1, 1)), np.int64)
    turned = ops.subtract(ops.subtract(lengths, np.asarray(1)), steps)
    index = ops.where(ops.less(steps, lengths), turned, steps)  # (batch, time)
    if time_axis == 0:
        index = ops.swapaxes(index, 0, 1)
    index = ops.reshape(index, (*index.shape, *[1] * (len(input.shape) - 2)))
    return ops.gather_elements(input, ops.broadcast_to(index, tuple(input.shape)), time_axis)


declare("ReverseSequence", reverse_sequence, (10, 28))


@onnx_operator("TensorScatter", since=24)
def tensor_scatter(
    past_cache: Array,
    update: Array,
    write_indices: Any = None,
    /,
    axis: int = -2,
    mode: str = "linear",
) -> Array:
    """The cache with the update of each item written from its index on along an axis; mode: linear or circular."""
    place = normalized_axis(axis, len(past_cache.shape), "TensorScatter")
    batch, length, steps = past_cache.shape[0], past_cache.shape[place], update.shape[place]
    starts = np.zeros(batch, np.int64) if write_indices is None else ops.cast(write_indices, np.int64)
    index = ops.add(ops.reshape(starts, (-1, 1)), np.arange(steps))
    if mode == "circular":
        index = ops.remainder(index, np.asarray(length))
    shape = [batch if i == 0 else steps if i == place else 1 for i in range(len(past_cache.shape))]
    index = ops.broadcast_to(ops.reshape(index, shape), tuple(update.shape))
    return ops.scatter_elements(past_cache, index, update, place)
