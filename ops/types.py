"""Types of array values, and the promotion rule of the operator set.

Promotion (`promote`): arrays are of one of four kinds, bool < integer < floating < complex. The highest kind among
the operands decides; among the operands of that kind NumPy's table holds (float16 with bfloat16 gives float32).
So int64 with float32 is float32, as in PyTorch, where NumPy would give float64. Python numbers are weak: they take
part with their kind only, and the default of a kind that no array has is float32, int64 or complex64.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from typing import Annotated, Any, TypeAlias

import ml_dtypes
import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError

__all__ = ["Array", "DType", "Mask", "TensorType", "as_dtype", "bfloat16", "promote", "tensor_type"]

#: A NumPy or CuPy array, a traced value, or a Python number. In an operator's signature it marks an array operand.
Array: TypeAlias = Annotated[Any, "Array"]
#: An array operand that keeps its own dtype where the others are promoted, such as the condition of `where`.
Mask: TypeAlias = Annotated[Any, "Mask"]
DType: TypeAlias = "np.dtype[Any]"

float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
uint16 = np.dtype(np.uint16)
uint32 = np.dtype(np.uint32)
uint64 = np.dtype(np.uint64)
bool_ = np.dtype(np.bool_)
complex64 = np.dtype(np.complex64)
complex128 = np.dtype(np.complex128)

BOOL, INTEGER, FLOATING, COMPLEX, OTHER = range(5)
_DEFAULT = {BOOL: bool_, INTEGER: int64, FLOATING: float32, COMPLEX: complex64}


#: Sizes of axes: each an int, or None where only running the operator tells it.
Shape: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape and dtype of an array. A dimension is None where only running the operator tells it."""

    shape: Shape
    dtype: DType

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements; a dimension that is not known counts as 0."""
        return prod(n or 0 for n in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join('?' if n is None else str(int(n)) for n in self.shape)}]"


class UnknownType(TensorType):
    """The type of a value in an imported graph of which nothing is known before it runs."""

    def __str__(self) -> str:
        return "?"


UNKNOWN = UnknownType((), np.dtype(object))


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice as plain data of an operator: hashable, which the built-in one is only since Python 3.12."""

    start: int | None
    stop: int | None
    step: int | None

    def builtin(self) -> slice:
        """The built-in slice."""
        return slice(self.start, self.stop, self.step)

    def __repr__(self) -> str:
        return ":".join("" if n is None else str(n) for n in (self.start, self.stop, self.step))


def tensor_type(shape: Sequence[int], dtype: Any = float32) -> TensorType:
    """The type of an array of this shape and dtype (a name, NumPy dtype or scalar type).

    Raises ArgumentError for what is not a sequence of sizes, DTypeError for an unknown dtype.
    """
    try:
        sizes = tuple([operator.index(size) for size in shape])
    except TypeError:
        sizes = (-1,)
    if any(size < 0 for size in sizes):
        raise ArgumentError("a shape is a sequence of sizes", expected="such as (2, 3)", received=repr(shape)[:100])
    return TensorType(sizes, as_dtype(dtype))


def as_dtype(dtype: Any) -> DType:
    """The NumPy dtype that a name ("float32", "bfloat16"), scalar type or dtype names. Raises DTypeError."""
    try:
        return np.dtype(dtype)  # type: ignore[no-any-return]
    except TypeError:
        extended = getattr(ml_dtypes, dtype, None) if isinstance(dtype, str) else None
        if extended is None:
            raise DTypeError(
                "unknown data type",
                expected="a name such as 'float32' or 'bfloat16', or a NumPy dtype",
                received=repr(dtype),
            ) from None
        return np.dtype(extended)  # type: ignore[no-any-return]


@cache
def kind_of(dtype: DType) -> int:
    """BOOL, INTEGER, FLOATING, COMPLEX or OTHER, for NumPy's and ml_dtypes' types alike."""
    known = {"b": BOOL, "i": INTEGER, "u": INTEGER, "f": FLOATING, "c": COMPLEX}.get(dtype.kind)
    if known is not None:
        return known
    if dtype.name.startswith(("int", "uint")):
        return INTEGER
    if dtype.name.startswith(("float", "bfloat")):
        return FLOATING
    return OTHER


def is_floating(dtype: DType) -> bool:
    """True for real floating dtypes, ml_dtypes' among them."""
    return kind_of(dtype) == FLOATING


def is_differentiable(dtype: DType) -> bool:
    """True for dtypes that a gradient can have: real and complex floating ones."""
    return kind_of(dtype) in (FLOATING, COMPLEX)


def is_low_precision(dtype: DType) -> bool:
    """True for floating dtypes narrower than 32 bits, which operators compute in float32 and round once."""
    return dtype.itemsize <= 2 and kind_of(dtype) == FLOATING


def kind_of_number(number: complex) -> int:
    """The kind of a Python number."""
    if isinstance(number, bool):
        return BOOL
    if isinstance(number, int):
        return INTEGER
    return FLOATING if isinstance(number, float) else COMPLEX


@lru_cache(maxsize=4096)
def _promote(dtypes: tuple[DType, ...], weakest: int) -> DType:
    kind = max([weakest, *(kind_of(d) for d in dtypes)])
    if kind == OTHER:
        if len(set(dtypes)) == 1:
            return dtypes[0]
        raise DTypeError("operands have no common type", received=", ".join(d.name for d in dtypes))
    top = [d for d in dtypes if kind_of(d) == kind]
    if not top:
        if kind == COMPLEX and float64 in dtypes:
            return complex128
        return _DEFAULT[kind]
    if kind == COMPLEX and float64 in dtypes:
        return complex128
    result = top[0]
    for d in top[1:]:
        if d == result:
            continue
        if is_low_precision(d) and is_low_precision(result):
            result = float32
        elif is_low_precision(d) or is_low_precision(result):
            result = result if is_low_precision(d) else d
        else:
            result = np.promote_types(result, d)
    return result


def promote(operands: Iterable[Any], *, floating: bool = False) -> DType:
    """The common dtype of arrays, types and Python numbers by the rule in this module's docstring.

    floating: a bool or integer result becomes float32. Raises DTypeError if there is no common type.
    """
    dtypes = []
    weakest = BOOL
    for operand in operands:
        dtype = getattr(operand, "dtype", None)
        if dtype is not None:
            dtypes.append(dtype)
        elif isinstance(operand, int | float | complex):
            weakest = max(weakest, kind_of_number(operand))
    result = _promote(tuple(dtypes), weakest)
    return float32 if floating and kind_of(result) <= INTEGER else result
