"""Sequences and optionals: lists of tensors, and values that may be absent (None)."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, DTypeError, InputError
from zoonet.ops.sets.onnx.common import concrete, normalized_axis, scalar
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array


def _position(value: Any, count: int, purpose: str) -> int:
    place = int(scalar(value, purpose))
    if not -count <= place < count:
        raise ArgumentError(
            f"{purpose} is outside of the sequence", expected=f"{-count} to {count - 1}", received=place
        )
    return place % count


@onnx_operator("SequenceEmpty", since=11)
def sequence_empty(dtype: int = 1) -> list[Any]:
    """No tensors."""
    return []


@onnx_operator("SequenceConstruct", since=11, variadic=True)
def sequence_construct(inputs: Any, /) -> list[Any]:
    """The inputs as a sequence."""
    return list(inputs)


@onnx_operator("SequenceAt", since=11)
def sequence_at(input_sequence: Any, position: Any, /) -> Any:
    """One tensor of a sequence."""
    return input_sequence[_position(position, len(input_sequence), "the position of SequenceAt")]


@onnx_operator("SequenceErase", since=11)
def sequence_erase(input_sequence: Any, position: Any = None, /) -> list[Any]:
    """The sequence without one tensor, the last where no position is given."""
    at = -1 if position is None else position
    place = _position(np.asarray(at) if position is None else at, len(input_sequence), "the position of SequenceErase")
    return [*input_sequence[:place], *input_sequence[place + 1 :]]


@onnx_operator("SequenceInsert", since=11)
def sequence_insert(input_sequence: Any, tensor: Any, position: Any = None, /) -> list[Any]:
    """The sequence with a tensor before a position, at the end where none is given."""
    count = len(input_sequence)
    place = count if position is None else int(scalar(position, "the position of SequenceInsert"))
    if not -count <= place <= count:
        raise ArgumentError("SequenceInsert: no such position", expected=f"{-count} to {count}", received=place)
    if input_sequence and getattr(input_sequence[0], "dtype", None) != getattr(tensor, "dtype", None):
        raise DTypeError(
            "SequenceInsert: the tensor is of another data type than the sequence",
            expected=input_sequence[0].dtype,
            received=tensor.dtype,
            fix="put a Cast before it",
        )
    place = place + count if place < 0 else place
    return [*input_sequence[:place], tensor, *input_sequence[place:]]


@onnx_operator("SequenceLength", since=11)
def sequence_length(input_sequence: Any, /) -> Array:
    """How many tensors there are."""
    return np.asarray(len(input_sequence), np.int64)


@onnx_operator("ConcatFromSequence", since=11)
def concat_from_sequence(input_sequence: Any, /, axis: int, new_axis: int = 0) -> Array:
    """The tensors joined along an axis, or stacked on a new one."""
    if not input_sequence:
        raise ArgumentError("ConcatFromSequence needs a tensor", received="an empty sequence")
    rank = len(input_sequence[0].shape)
    if new_axis:
        return ops.stack(list(input_sequence), normalized_axis(axis, rank + 1, "ConcatFromSequence"))
    return ops.concat(list(input_sequence), normalized_axis(axis, rank, "ConcatFromSequence"))


def split_to_sequence(input: Array, split: Any = None, /, axis: int = 0, keepdims: int = 1) -> list[Any]:
    """The tensor cut along an axis into pieces of given sizes, of one size, or of size 1."""
    place = normalized_axis(axis, len(input.shape), "SplitToSequence")
    size = input.shape[place]
    drop = split is None and not keepdims
    sizes = np.asarray(1) if split is None else concrete(split, "the sizes of SplitToSequence")
    if sizes.ndim == 0:
        step = int(sizes)
        if step < 1:
            raise ArgumentError("SplitToSequence: a size is not positive", received=step)
        pieces = [min(step, size - start) for start in range(0, size, step)]
    else:
        pieces = [int(n) for n in sizes]
    if min(pieces, default=0) < 0 or sum(pieces) != size:
        raise ArgumentError("SplitToSequence: sizes do not fit", expected=f"a sum of {size}", received=pieces)
    result, start = [], 0
    before = (slice(None),) * place
    for piece in pieces:
        result.append(ops.index(input, (*before, start if drop else slice(start, start + piece))))
        start += piece
    return result


declare("SplitToSequence", split_to_sequence, (11, 24))


def optional(input: Any = None, /, type: Any = None) -> Any:
    """The input as an optional value, or one that is absent."""
    return input


def optional_has_element(input: Any = None, /) -> Array:
    """Whether there is a value."""
    return np.asarray(input is not None)


def optional_get_element(input: Any, /) -> Any:
    """The value. Raises InputError where there is none."""
    if input is None:
        raise InputError("OptionalGetElement got no value", expected="a value", received="an absent optional")
    return input


declare("Optional", optional, (15, 28))
declare("OptionalHasElement", optional_has_element, (15, 18, 28))
declare("OptionalGetElement", optional_get_element, (15, 18, 28))
