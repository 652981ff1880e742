"""Which kinds of numbers an elementwise operator takes: a type rule made from that, with its errors."""

from __future__ import annotations

from typing import Any

from zoonet.ops.errors import DTypeError
from zoonet.ops.registry import Op, elementwise_type
from zoonet.ops.types import COMPLEX, DType, TensorType, complex64, float32, float64, kind_of

_KINDS = ("bool", "integer", "floating", "complex", "other")


def restrict(operator: Op[..., Any], lowest: int, highest: int, result: DType | None = None) -> None:
    """Give an elementwise operator a type rule that takes only kinds of numbers from lowest to highest.

    result: the dtype of the result where it is not the promoted one. The rule raises DTypeError for other kinds.
    """

    def rule(*arguments: Any) -> TensorType:
        named = dict(zip(operator.parameters, arguments, strict=True))
        common = operator.common_dtype(named)
        if not lowest <= kind_of(common) <= highest:
            raise DTypeError(
                f"{operator.name} does not take {common.name}",
                expected="operands of kind " + " or ".join(_KINDS[lowest : highest + 1]),
                received=common.name,
                fix="cast the operands first",
            )
        inferred = elementwise_type(operator, named)
        return inferred if result is None else TensorType(inferred.shape, result)

    operator.type(rule)


def real_dtype(dtype: DType) -> DType:
    """The dtype of the parts of a complex dtype; other dtypes are returned."""
    if kind_of(dtype) != COMPLEX:
        return dtype
    return float32 if dtype == complex64 else float64
