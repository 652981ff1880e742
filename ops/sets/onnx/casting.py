"""Cast, CastLike, BitCast: between numbers, booleans, strings and the narrow floats."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.operands import Traced
from zoonet.ops.sets.onnx.common import STRING, concrete, dtype_of
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import BOOL, INTEGER, Array, DType, is_floating, kind_of

#: Floats of 8 bits without an infinity that `saturate` could give, and those with one.
_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_SCALE = "float8_e8m0fnu"
_TYPES = {
    "FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "STRING": 8, "BOOL": 9,
    "FLOAT16": 10, "DOUBLE": 11, "UINT32": 12, "UINT64": 13, "COMPLEX64": 14, "COMPLEX128": 15,
}  # fmt: skip


def converted(x: Array, to: DType, saturate: bool = True, round_mode: str = "up") -> Array:
    """x in another type by ONNX's rules: narrow floats saturate, integers wrap, strings are read and written."""
    if x.dtype == STRING:
        return x if to == STRING else _parsed(np.asarray(x), to)
    if to == STRING:
        return _written(x)
    if to.name in _FLOAT8 and saturate and kind_of(x.dtype) > BOOL:
        largest: Any = ml_dtypes.finfo(to).max  # type: ignore[no-untyped-call]
        wide = ops.cast(x, np.float64 if x.dtype == np.float64 else np.float32)
        limit = np.asarray(largest).astype(wide.dtype)
        return ops.cast(ops.where(ops.isnan(wide), wide, ops.clip(wide, float(-limit), float(limit))), to)
    if to.name == _SCALE and is_floating(x.dtype):
        return _powers(x, saturate, round_mode)
    if to.name == "float4_e2m1fn" and is_floating(x.dtype):
        return ops.cast(ops.clip(ops.cast(x, np.float32), -6.0, 6.0), to)
    if to.itemsize == 1 and kind_of(to) == INTEGER and to.name[-1] in "24" and to.name[-2:] != "64":
        return _narrow(x, to)
    return ops.cast(x, to)


def _narrow(x: Array, to: DType) -> Array:
    """Integers of 2 or 4 bits: the lowest bits of whole numbers."""
    bits = 4 if to.name.endswith("4") else 2
    whole = ops.cast(ops.cast(ops.trunc(x), np.int64) if is_floating(x.dtype) else x, np.int64)
    low = ops.bitwise_and(whole, np.asarray((1 << bits) - 1))
    if not to.name.startswith("u"):
        low = ops.where(
            ops.greater_equal(low, np.asarray(1 << (bits - 1))), ops.subtract(low, np.asarray(1 << bits)), low
        )
    return ops.cast(low, to)


def _powers(x: Array, saturate: bool, round_mode: str) -> Array:
    """Powers of two near the absolute value of x, as float8_e8m0fnu holds them."""
    wide = np.abs(concrete(x, "a cast to float8_e8m0fnu").astype(np.float64))
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(wide)  # wide = mantissa · 2^exponent, mantissa in [0.5, 1)
    power = exponent.astype(np.int64) - 1
    exact = mantissa == 0.5
    if round_mode == "up":
        power = np.where(exact, power, power + 1)
    elif round_mode == "nearest":
        power = np.where(mantissa >= 0.75, power + 1, power)
    elif round_mode != "down":
        raise ArgumentError("Cast: unknown round_mode", expected="up, down or nearest", received=round_mode)
    power = np.where(wide == 0, -127, power)
    too_large = (power > 127) | np.isinf(wide)
    bits = np.clip(power + 127, 0, 254)
    bits = np.where(too_large & (not saturate), 255, bits)
    bits = np.where(np.isnan(wide), 255, bits)
    result: Any = bits.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)
    return result


def _parsed(x: np.ndarray[Any, Any], to: DType) -> Array:
    """Strings as numbers. Raises ArgumentError for one that is no number."""
    try:
        if kind_of(to) == BOOL:
            return np.asarray([bool(float(text)) for text in x.reshape(-1)], np.bool_).reshape(x.shape)
        numbers = [float(text) for text in x.reshape(-1)]
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "a string is no number", expected="such as '3.14', '1e-5', 'INF', 'NaN'", received=error
        ) from None
    if kind_of(to) == INTEGER:
        whole = [
            int(text) if text.lstrip("+-").isdigit() else int(n) for text, n in zip(x.reshape(-1), numbers, strict=True)
        ]
        return np.asarray(whole).reshape(x.shape).astype(to)
    return (
        converted(np.asarray(numbers, np.float64).reshape(x.shape).astype(np.float32), to)
        if to.itemsize < 4
        else (np.asarray(numbers).reshape(x.shape).astype(to))
    )


def _written(x: Array) -> Array:
    """Numbers as strings, the shortest that say them."""
    array = concrete(x, "a cast to strings")
    if is_floating(array.dtype) and array.dtype not in (np.float32, np.float64, np.float16):
        array = array.astype(np.float32)
    texts = [str(value) for value in array.reshape(-1)]
    return np.asarray(texts, object).reshape(array.shape)


def cast_1(input: Array, /, to: str) -> Array:
    """The input in the type of a name."""
    if to.upper() not in _TYPES:
        raise ArgumentError("Cast: unknown data type", expected=", ".join(_TYPES), received=to)
    return converted(input, dtype_of(_TYPES[to.upper()]))


def cast_6(input: Array, /, to: int) -> Array:
    """The input in another type."""
    return converted(input, dtype_of(to))


def cast_19(input: Array, /, saturate: int = 1, to: int = 1) -> Array:
    """The input in another type; saturate: floats of 8 bits take the largest number for what is larger."""
    return converted(input, dtype_of(to), bool(saturate))


def cast_24(input: Array, /, round_mode: str = "up", saturate: int = 1, to: int = 1) -> Array:
    """The input in another type; round_mode: of powers of two."""
    return converted(input, dtype_of(to), bool(saturate), round_mode)


declare("Cast", cast_1, (1,))
declare("Cast", cast_6, (6, 9, 13))
declare("Cast", cast_19, (19, 21, 23))
declare("Cast", cast_24, (24, 25, 28))


@onnx_operator("CastLike", since=15)
def cast_like_15(input: Array, target_type: Array, /) -> Array:
    """The input in the type of another tensor."""
    return converted(input, target_type.dtype)


def cast_like_19(input: Array, target_type: Array, /, saturate: int = 1) -> Array:
    """The input in the type of another tensor."""
    return converted(input, target_type.dtype, bool(saturate))


def cast_like_24(input: Array, target_type: Array, /, round_mode: str = "up", saturate: int = 1) -> Array:
    """The input in the type of another tensor."""
    return converted(input, target_type.dtype, bool(saturate), round_mode)


declare("CastLike", cast_like_19, (19, 21, 23))
declare("CastLike", cast_like_24, (24, 25))


@onnx_operator("BitCast", since=26)
def bit_cast(input: Array, /, to: int) -> Array:
    """The same bits, read as another type of as many bits."""
    if isinstance(input, Traced):
        input = input.concrete("a reinterpretation of bits")
    wanted = dtype_of(to)
    if STRING in (wanted, input.dtype):
        raise DTypeError("BitCast takes no strings")
    if wanted.itemsize != input.dtype.itemsize:
        raise ShapeError("BitCast: the types have different sizes", expected=input.dtype, received=wanted)
    result: Array = input.view(wanted)
    return result
