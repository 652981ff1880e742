"""Operands of operators: traced values, numbers and lists as arrays, plain data, types, and broadcasting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zoonet.ops.devices import is_array
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.types import DType, Shape, Slice, TensorType
from zoonet.ops.types import float32 as float32_dtype
from zoonet.ops.types import float64 as float64_dtype

if TYPE_CHECKING:
    from zoonet.ops.registry import Op


Types: TypeAlias = "TensorType | tuple[TensorType, ...]"


class Traced:
    """Base of values that record the operators applied to them (see tracing.py)."""

    __slots__ = ()
    level: int

    def record(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        """Apply op to arguments of which self is the innermost traced one."""
        raise NotImplementedError

    def concrete(self, purpose: str) -> Any:
        """The array behind the value; raises TraceError naming the purpose where there is none."""
        raise NotImplementedError


def innermost(operands: Iterable[Any]) -> Traced | None:
    """The traced value of the innermost trace among operands, or None."""
    found: Traced | None = None
    for operand in operands:
        if isinstance(operand, Traced) and (found is None or operand.level > found.level):
            found = operand
    return found


def static_value(value: Any, op: str = "operator", parameter: str = "argument") -> Any:
    """Plain data of an argument that is not an operand: arrays, lists and ranges become tuples, NumPy numbers
    Python's, slices `Slice`."""
    if isinstance(value, Traced):
        value = value.concrete(f"the argument {parameter!r} of {op}")
    if isinstance(value, list | tuple):
        items = tuple([static_value(item, op, parameter) for item in value])
        return type(value)(*items) if hasattr(value, "_fields") else items
    if isinstance(value, slice):
        return Slice(*[static_value(bound, op, parameter) for bound in (value.start, value.stop, value.step)])
    if is_array(value):
        return static_value(value.tolist())
    if isinstance(value, range):
        return tuple(value)
    return value


def as_array(value: Any, op: str, parameter: str) -> np.ndarray[Any, Any]:
    """A number or a list of numbers as an array, floats as float32. Raises ArgumentError for anything else.

    A list of arrays is refused too: it is a sequence of an ONNX graph that stands where a tensor belongs.
    """
    if isinstance(value, list) and any(is_array(item) and item.ndim for item in value):
        raise ArgumentError(
            f"{op}: {parameter} is a sequence of arrays",
            expected="one array, a number or a list of numbers",
            received=f"{len(value)} arrays",
            fix="stack or concatenate them first",
        )
    if isinstance(value, list | tuple | int | float | complex):
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.asarray(None)
        if array.dtype == float64_dtype:
            return array.astype(float32_dtype)
        if array.dtype.kind in "biufc":
            return array
    raise ArgumentError(
        f"{op}: {parameter} is not an array",
        expected="a NumPy or CuPy array, a number or a list of numbers",
        received=type(value).__name__,
    )


def as_operand(xp: Any, value: Any, dtype: DType, op: str) -> Any:
    """An array or number as an array of this dtype. Raises ArgumentError for a number that the dtype cannot hold."""
    try:
        return xp.asarray(value, dtype=dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        raise ArgumentError(
            f"{op}: a number does not fit the type of the other operands",
            expected=f"{limits.min} to {limits.max} for {dtype.name}",
            received=value,
            fix="cast the arrays to a wider type first",
        ) from None


def type_of(array: Any) -> TensorType:
    """The type of an array, a traced value or a type."""
    return TensorType(tuple(array.shape), array.dtype)


def conform(xp: Any, result: Any, types: Types) -> Any:
    """Arrays of the dtypes that the type rule gives (not copied where they have them)."""
    if isinstance(types, TensorType):
        return xp.asarray(result, dtype=types.dtype)
    return tuple([xp.asarray(r, dtype=t.dtype) for r, t in zip(result, types, strict=True)])


def broadcast_shapes(name: str, *shapes: Shape) -> Shape:
    """The shape that these broadcast to by NumPy's rule; raises ShapeError naming the operator."""
    result: list[int | None] = []
    for sizes in zip(*([1] * (max(map(len, shapes), default=0) - len(s)) + list(s) for s in shapes), strict=True):
        known = [n for n in sizes if n != 1]
        fixed = {int(n) for n in known if n is not None}
        if len(fixed) > 1:
            raise ShapeError(
                f"{name}: shapes do not broadcast",
                expected="equal sizes, or 1, on each axis from the last",
                received=" and ".join(str(tuple(s)) for s in shapes),
            )
        result.append(next((n for n in known if n is not None), None) if known else 1)
    return tuple(result)
