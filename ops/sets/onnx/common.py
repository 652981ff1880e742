"""What the families of ONNX operators share: data types by number, contents of operands, sizes that are affordable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from zoonet.ops.devices import array_module
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFormatError
from zoonet.ops.memory import MEMORY
from zoonet.ops.operands import Traced
from zoonet.ops.types import DType

#: NumPy data types by their number in TensorProto.DataType; strings are arrays of objects.
DTYPES: dict[int, DType] = {
    number: np.dtype(dtype)
    for number, dtype in {
        1: np.float32,
        2: np.uint8,
        3: np.int8,
        4: np.uint16,
        5: np.int16,
        6: np.int32,
        7: np.int64,
        8: np.object_,
        9: np.bool_,
        10: np.float16,
        11: np.float64,
        12: np.uint32,
        13: np.uint64,
        14: np.complex64,
        15: np.complex128,
        16: ml_dtypes.bfloat16,
        17: ml_dtypes.float8_e4m3fn,
        18: ml_dtypes.float8_e4m3fnuz,
        19: ml_dtypes.float8_e5m2,
        20: ml_dtypes.float8_e5m2fnuz,
        21: ml_dtypes.uint4,
        22: ml_dtypes.int4,
        23: ml_dtypes.float4_e2m1fn,
        24: ml_dtypes.float8_e8m0fnu,
        25: ml_dtypes.uint2,
        26: ml_dtypes.int2,
    }.items()
}
#: Bits of one element where several share a byte.
PACKED_BITS = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}

STRING = DTYPES[8]


def dtype_of(number: int) -> DType:
    """The NumPy data type of a number of TensorProto.DataType. Raises UnsupportedFormatError."""
    dtype = DTYPES.get(number)
    if dtype is None:
        raise UnsupportedFormatError(
            "unknown ONNX data type", expected=f"a number from 1 to {max(DTYPES)}", received=number
        )
    return dtype


def concrete(value: Any, purpose: str) -> Any:
    """The contents of an operand as a NumPy array; raises TraceError where it is traced from its type alone."""
    if isinstance(value, Traced):
        value = value.concrete(purpose)
    return value.get() if array_module(value) is not np else np.asarray(value)


def integers(value: Any, purpose: str) -> tuple[int, ...]:
    """The contents of an operand of integers as a tuple. Raises TraceError, DTypeError."""
    array = concrete(value, purpose)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{purpose} must be integers", received=str(array.dtype))
    return tuple([int(n) for n in array.reshape(-1)])


def scalar(value: Any, purpose: str) -> Any:
    """The contents of an operand of one element as a Python number. Raises TraceError, ShapeError."""
    array = concrete(value, purpose)
    if array.size != 1:
        raise ShapeError(f"{purpose} must be one value", received=f"shape {tuple(array.shape)}")
    return array.reshape(-1)[0].item() if array.dtype != STRING else array.reshape(-1)[0]


def axes_of(value: Any, purpose: str = "the axes") -> tuple[int, ...] | None:
    """Axes given as an operand or attribute; None stays None."""
    if value is None:
        return None
    return tuple(value) if isinstance(value, tuple | list) else integers(value, purpose)


def normalized_axis(axis: int, rank: int, operator: str) -> int:
    """The axis counted from the front. Raises ArgumentError."""
    if not -rank <= axis < max(rank, 1):
        raise ArgumentError(f"{operator}: no such axis", expected=f"-{rank} to {rank - 1}", received=axis)
    return axis + rank if axis < 0 else axis


def affordable(shape: Sequence[int], dtype: DType, operator: str) -> tuple[int, ...]:
    """The shape, if an array of it can exist on this machine; for shapes that are made of contents.

    Raises ShapeError if a size is negative or the array would be larger than half of the machine's memory.
    """
    result = tuple([int(n) for n in shape])
    if any(n < 0 for n in result) or math.prod(result) * dtype.itemsize > MEMORY // 2:
        raise ShapeError(
            f"{operator} would make an array that cannot exist",
            expected=f"sizes that are not negative, and at most {MEMORY // 2} bytes",
            received=f"{dtype.name}{list(result)}",
        )
    return result
