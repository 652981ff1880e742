"""Elementwise operators as ONNX nodes. Operands are cast to one dtype and broadcast, as ONNX does it too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder, Operand
from zoonet.formats.onnx.writing.table import EMITTERS, emitter
from zoonet.ops.types import BOOL, INTEGER, DType, as_dtype, bool_, float32, int32, kind_of, promote

#: Operators that are one ONNX operator on operands of the result's dtype.
_DIRECT = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "negative": "Neg",
    "positive": "Identity",
    "abs": "Abs",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "maximum": "Max",
    "minimum": "Min",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "tanh": "Tanh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "ceil": "Ceil",
    "floor": "Floor",
    "round": "Round",
    "sigmoid": "Sigmoid",
    "softsign": "Softsign",
}
_COMPARISONS = {
    "equal": "Equal",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}
_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}
_BITWISE = {"bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor"}


def _common(values: tuple[Any, ...]) -> DType:
    return promote([v for v in values if v is not None])


def _operands(b: Builder, values: tuple[Any, ...], dtype: DType | None = None) -> list[str]:
    wanted = b.outputs[0].dtype if dtype is None else dtype
    return [b.operand(v, wanted) for v in values]


def _is_integer(b: Builder) -> bool:
    return kind_of(b.outputs[0].dtype) <= INTEGER


def _direct(op_type: str) -> Callable[..., Any]:
    def emit(b: Builder, *values: Any) -> str:
        whole = op_type in ("Ceil", "Floor", "Round") and _is_integer(b)
        return b.node("Identity" if whole else op_type, *_operands(b, values))

    return emit


def _comparison(op_type: str) -> Callable[..., Any]:
    def emit(b: Builder, *values: Any) -> str:
        dtype = _common(values)
        if dtype == bool_ and op_type != "Equal":
            dtype = int32  # ONNX orders numbers only
        return b.node(op_type, *_operands(b, values, dtype))

    return emit


def _logical(op_type: str) -> Callable[..., Any]:
    return lambda b, *values: b.node(op_type, *_operands(b, values, bool_))


def _bitwise(op_type: str) -> Callable[..., Any]:
    def emit(b: Builder, *values: Any) -> str:
        if b.outputs[0].dtype == bool_:
            return b.node(op_type.removeprefix("Bitwise"), *_operands(b, values))
        b.require(18)
        return b.node(op_type, *_operands(b, values))

    return emit


EMITTERS.update({name: _direct(op_type) for name, op_type in _DIRECT.items()})
EMITTERS.update({name: _comparison(op_type) for name, op_type in _COMPARISONS.items()})
EMITTERS.update({name: _logical(op_type) for name, op_type in _LOGICAL.items()})
EMITTERS.update({name: _bitwise(op_type) for name, op_type in _BITWISE.items()})


def one(b: Builder, value: float, dtype: DType | None = None) -> str:
    """A number in the dtype of the result."""
    return b.constant(np.asarray(value, b.outputs[0].dtype if dtype is None else dtype))


@emitter("not_equal")
def _(b: Builder, x: Any, y: Any) -> str:
    return b.node("Not", b.node("Equal", *_operands(b, (x, y), _common((x, y)))))


@emitter("logical_not")
def _(b: Builder, x: Any) -> str:
    return b.node("Not", b.operand(x, bool_))


@emitter("bitwise_invert")
def _(b: Builder, x: Any) -> str:
    if b.outputs[0].dtype == bool_:
        return b.node("Not", x)
    b.require(18)
    return b.node("BitwiseNot", x)


@emitter("isnan", "isinf")
def _(b: Builder, x: Any) -> str:
    op_type = {"isnan": "IsNaN", "isinf": "IsInf"}[b.operator]
    return b.node(op_type, x if kind_of(x.dtype) > INTEGER else b.cast(x, float32))


@emitter("isfinite")
def _(b: Builder, x: Any) -> str:
    given = x if kind_of(x.dtype) > INTEGER else b.cast(x, float32)
    return b.node("Not", b.node("Or", b.node("IsNaN", given), b.node("IsInf", given)))


@emitter("square")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Mul", given, given)


@emitter("rsqrt")
def _(b: Builder, x: Any) -> str:
    return b.node("Reciprocal", b.node("Sqrt", *_operands(b, (x,))))


@emitter("pow")
def _(b: Builder, x: Any, y: Any) -> str:
    return b.node("Pow", *_operands(b, (x, y)))


@emitter("clip")
def _(b: Builder, x: Any, low: Any, high: Any) -> str:
    dtype = b.outputs[0].dtype
    if all(bound is None or isinstance(bound, int | float) for bound in (low, high)):
        bounds = [None if bound is None else b.constant(np.asarray(bound, dtype)) for bound in (low, high)]
        return b.node("Clip", b.operand(x, dtype), *bounds)
    y = b.operand(x, dtype)
    if low is not None:
        y = b.node("Max", y, b.operand(low, dtype))
    return y if high is None else b.node("Min", y, b.operand(high, dtype))


@emitter("where")
def _(b: Builder, condition: Any, x: Any, y: Any) -> str:
    return b.node("Where", b.operand(condition, bool_), *_operands(b, (x, y)))


@emitter("cast")
def _(b: Builder, x: Any, dtype: Any) -> str:
    return b.cast(x, as_dtype(dtype))


@emitter("stop_gradient")
def _(b: Builder, x: Any) -> str:
    return b.node("Identity", x)


# -- elementary functions ----------------------------------------------------------------------------------------


@emitter("expm1")
def _(b: Builder, x: Any) -> str:
    # 2 · sinh(x / 2) · e^(x / 2), which loses no digits near 0
    half = b.node("Mul", *_operands(b, (x,)), one(b, 0.5))
    return b.node("Mul", b.node("Mul", b.node("Sinh", half), one(b, 2)), b.node("Exp", half))


@emitter("log1p")
def _(b: Builder, x: Any) -> str:
    # log(1 + x) = 2 · atanh(x / (2 + x)), which loses no digits near 0, where |x| is small
    given = b.operand(x, b.outputs[0].dtype)
    small = b.node("Less", b.node("Abs", given), one(b, 0.5))
    near = b.node("Where", small, given, one(b, 0))
    series = b.node("Mul", b.node("Atanh", b.node("Div", near, b.node("Add", near, one(b, 2)))), one(b, 2))
    return b.node("Where", small, series, b.node("Log", b.node("Add", given, one(b, 1))))


@emitter("log2", "log10")
def _(b: Builder, x: Any) -> str:
    base = {"log2": 2.0, "log10": 10.0}[b.operator]
    return b.node("Mul", b.node("Log", *_operands(b, (x,))), one(b, 1 / math.log(base)))


@emitter("logaddexp")
def _(b: Builder, x: Any, y: Any) -> str:
    x, y = _operands(b, (x, y))
    gap = b.node("Neg", b.node("Abs", b.node("Sub", x, y)))
    return b.node("Add", b.node("Max", x, y), b.node("Log", b.node("Add", b.node("Exp", gap), one(b, 1))))


@emitter("erfc")
def _(b: Builder, x: Any) -> str:
    return b.node("Sub", one(b, 1), b.node("Erf", *_operands(b, (x,))))


@emitter("hypot")
def _(b: Builder, x: Any, y: Any) -> str:
    x, y = _operands(b, (x, y))
    return b.node("Sqrt", b.node("Add", b.node("Mul", x, x), b.node("Mul", y, y)))


@emitter("atan2")
def _(b: Builder, y: Any, x: Any) -> str:
    y, x = _operands(b, (y, x))
    zero = one(b, 0)
    right = b.node("Greater", x, zero)
    still = b.node("Equal", x, zero)
    angle = b.node("Atan", b.node("Div", y, b.node("Where", still, one(b, 1), x)))
    above = b.node("GreaterOrEqual", y, zero)
    left = b.node("Add", angle, b.node("Where", above, one(b, math.pi), one(b, -math.pi)))
    upright = b.node("Mul", b.node("Sign", y), one(b, math.pi / 2))
    return b.node("Where", still, upright, b.node("Where", right, angle, left))


# -- rounding and division ---------------------------------------------------------------------------------------


@emitter("trunc")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    if _is_integer(b):
        return b.node("Identity", given)
    return b.node("Mul", b.node("Sign", given), b.node("Floor", b.node("Abs", given)))


@emitter("floor_divide")
def _(b: Builder, x: Any, y: Any) -> str:
    x, y = _operands(b, (x, y))
    if not _is_integer(b):
        return b.node("Floor", b.node("Div", x, y))
    exact = b.node("Sub", x, b.node("Mod", x, y))  # Mod has the sign of the divisor, so that this divides evenly
    return b.node("Div", exact, y)


@emitter("remainder")
def _(b: Builder, x: Any, y: Any) -> str:
    x, y = _operands(b, (x, y))
    if _is_integer(b):
        return b.node("Mod", x, y)
    return b.node("Sub", x, b.node("Mul", b.node("Floor", b.node("Div", x, y)), y))


@emitter("fmod")
def _(b: Builder, x: Any, y: Any) -> str:
    return b.node("Mod", *_operands(b, (x, y)), fmod=1)


# -- activations -------------------------------------------------------------------------------------------------


@emitter("relu")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Max", given, one(b, 0)) if _is_integer(b) else b.node("Relu", given)


@emitter("hardtanh")
def _(b: Builder, x: Any, low: float, high: float) -> str:
    return b.node("Clip", *_operands(b, (x,)), one(b, low), one(b, high))


@emitter("leaky_relu")
def _(b: Builder, x: Any, slope: float) -> str:
    return b.node("LeakyRelu", *_operands(b, (x,)), alpha=float(slope))


@emitter("threshold")
def _(b: Builder, x: Any, threshold: float, value: float) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Where", b.node("Greater", given, one(b, threshold)), given, one(b, value))


@emitter("hardshrink")
def _(b: Builder, x: Any, lambd: float) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Where", b.node("Greater", b.node("Abs", given), one(b, lambd)), given, one(b, 0))


@emitter("softshrink")
def _(b: Builder, x: Any, lambd: float) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Sub", given, b.node("Clip", given, one(b, -lambd), one(b, lambd)))


@emitter("hardsigmoid")
def _(b: Builder, x: Any, alpha: float, beta: float) -> str:
    return b.node("HardSigmoid", *_operands(b, (x,)), alpha=float(alpha), beta=float(beta))


@emitter("hardswish")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Mul", given, b.node("HardSigmoid", given, alpha=1 / 6, beta=0.5))


@emitter("log_sigmoid")
def _(b: Builder, x: Any) -> str:
    return b.node("Neg", b.node("Softplus", b.node("Neg", *_operands(b, (x,)))))


@emitter("softplus")
def _(b: Builder, x: Any, beta: float, threshold: float) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    scaled = b.node("Mul", given, one(b, beta))
    soft = b.node("Div", b.node("Softplus", scaled), one(b, beta))
    return b.node("Where", b.node("Greater", scaled, one(b, threshold)), given, soft)


@emitter("elu", "celu")
def _(b: Builder, x: Any, alpha: float) -> str:
    return b.node({"elu": "Elu", "celu": "Celu"}[b.operator], *_operands(b, (x,)), alpha=float(alpha))


@emitter("silu")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Mul", given, b.node("Sigmoid", given))


@emitter("mish")
def _(b: Builder, x: Any) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    return b.node("Mul", given, b.node("Tanh", b.node("Softplus", given)))


@emitter("gelu")
def _(b: Builder, x: Any, approximate: str) -> str:
    given = b.operand(x, b.outputs[0].dtype)
    if b.opset >= 20:
        return b.node("Gelu", given, approximate=approximate)
    if approximate == "tanh":
        cube = b.node("Mul", b.node("Mul", given, given), given)
        inner = b.node("Add", given, b.node("Mul", cube, one(b, 0.044715)))
        share = b.node("Tanh", b.node("Mul", inner, one(b, math.sqrt(2 / math.pi))))
    else:
        share = b.node("Erf", b.node("Mul", given, one(b, math.sqrt(0.5))))
    return b.node("Mul", b.node("Mul", given, one(b, 0.5)), b.node("Add", share, one(b, 1)))


@emitter("masked_fill")
def _(b: Builder, x: Any, mask: Operand, value: float) -> str:
    return b.node("Where", mask, one(b, value), x)


@emitter("binary_log_loss")
def _(b: Builder, x: Any, target: Any) -> str:
    x, target = _operands(b, (x, target))
    floor = one(b, -100.0)  # as PyTorch bounds the logarithms
    hit = b.node("Max", b.node("Log", x), floor)
    miss = b.node("Max", b.node("Log", b.node("Sub", one(b, 1), x)), floor)
    sum = b.node("Add", b.node("Mul", target, hit), b.node("Mul", b.node("Sub", one(b, 1), target), miss))
    return b.node("Neg", sum)


def is_bool(dtype: DType) -> bool:
    """True for bool."""
    return kind_of(dtype) == BOOL
