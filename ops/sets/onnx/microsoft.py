"""Operators of com.microsoft that optimised and quantised models have: fused ones, and those of quantised numbers.

Source: ONNX Runtime's documentation of contributed operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.linear import product
from zoonet.ops.sets.onnx.quantization import dequantized, dynamic_quantize, quantized, rounded
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.sets.onnx.windows import conv, shifted
from zoonet.ops.types import Array

DOMAIN = "com.microsoft"


def declared(*names: str, variadic: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Declare an operator of this domain."""
    return onnx_operator(*names, domain=DOMAIN, variadic=variadic)


@declared("Gelu")
def gelu(X: Array, /) -> Array:
    """x Φ(x), by the error function."""
    return ops.gelu(X)


@declared("BiasGelu")
def bias_gelu(A: Array, B: Array, /) -> Array:
    """Gelu of the sum with a bias."""
    return ops.gelu(ops.add(A, B))


@declared("FastGelu")
def fast_gelu(X: Array, bias: Array | None = None, /) -> Array:
    """Gelu by tanh, of the sum with a bias."""
    return ops.gelu(X if bias is None else ops.add(X, bias), "tanh")


@declared("QuickGelu")
def quick_gelu(X: Array, /, alpha: float = 1.702) -> Array:
    """x σ(alpha x)."""
    return ops.multiply(X, ops.sigmoid(ops.multiply(X, number(alpha, X.dtype))))


def activated(x: Array, activation: str, parameters: Sequence[float]) -> Array:
    """The activation that a fused operator ends with."""
    values = list(parameters)
    functions: dict[str, Callable[[], Array]] = {
        "": lambda: x,
        "Relu": lambda: ops.relu(x),
        "Tanh": lambda: ops.tanh(x),
        "Sigmoid": lambda: ops.sigmoid(x),
        "LeakyRelu": lambda: ops.leaky_relu(x, values[0]),
        "Clip": lambda: ops.clip(x, values[0], values[1]),
        "HardSigmoid": lambda: ops.clip(
            ops.add(ops.multiply(x, number(values[0], x.dtype)), number(values[1], x.dtype)), 0.0, 1.0
        ),
    }
    if activation not in functions:
        raise ArgumentError(
            "unknown fused activation", expected=", ".join(filter(None, functions)), received=activation
        )
    return functions[activation]()


@declared("FusedConv")
def fused_conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    Z: Array | None = None,
    /,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution, plus Z, through an activation."""
    y = conv(X, W, B, auto_pad, dilations, group, kernel_shape, pads, strides)
    return activated(y if Z is None else ops.add(y, Z), activation, activation_params or ())


@declared("FusedGemm")
def fused_gemm(
    A: Array,
    B: Array,
    C: Array | None = None,
    /,
    activation: str = "",
    activation_alpha: float = 0.01,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """Gemm through an activation."""
    return activated(product(A, B, C, alpha, beta, transA, transB), activation, (activation_alpha, activation_beta))


@declared("FusedMatMul", "TransposeMatMul")
def fused_matmul(
    A: Array,
    B: Array,
    /,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Array:
    """alpha · A' B'; transBatch moves the axis before the last to the front of the batch axes."""
    a, b = _turned(A, transA, transBatchA), _turned(B, transB, transBatchB)
    y = ops.matmul(a, b)
    return y if alpha == 1.0 else ops.multiply(y, number(alpha, y.dtype))


def _turned(x: Array, transposed: int, batch: int) -> Array:
    rank = len(x.shape)
    if batch and rank > 2:
        x = ops.transpose(x, (*range(1, rank - 1), 0, rank - 1))
    return ops.swapaxes(x, -1, -2) if transposed and rank > 1 else x


@declared("SkipLayerNormalization")
def skip_layer_norm(
    input: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    /,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """The layer norm of input + skip + bias; the fourth output is that sum."""
    total = ops.add(input, skip) if bias is None else ops.add(ops.add(input, skip), bias)
    return ops.layer_norm(total, tuple(gamma.shape), gamma, beta, epsilon), None, None, total


@declared("SkipSimplifiedLayerNormalization")
def skip_rms_norm(
    input: Array, skip: Array, gamma: Array, bias: Array | None = None, /, epsilon: float = 1e-12, outputs: int = 1
) -> tuple[Any, ...]:
    """The RMS norm of input + skip + bias; the fourth output is that sum."""
    total = ops.add(input, skip) if bias is None else ops.add(ops.add(input, skip), bias)
    return ops.rms_norm(total, tuple(gamma.shape), gamma, epsilon), None, None, total


# -- quantised numbers -------------------------------------------------------------------------------------------


@declared("QuantizeLinear")
def quantize(x: Array, y_scale: Array, y_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """As that of ai.onnx, for 16 bits and fewer."""
    return quantized(x, y_scale, y_zero_point, axis)


@declared("DequantizeLinear")
def dequantize(x: Array, x_scale: Array, x_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """As that of ai.onnx, for 16 bits and fewer."""
    return dequantized(x, x_scale, x_zero_point, axis)


@declared("QGemm")
def qgemm(
    A: Array,
    a_scale: Array,
    a_zero_point: Array,
    B: Array,
    b_scale: Array,
    b_zero_point: Array,
    C: Array | None = None,
    y_scale: Array | None = None,
    y_zero_point: Array | None = None,
    /,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha · A' B' + C of quantised matrices, quantised where there is a scale for it, else float32. C is int32."""
    a, b = shifted(A, a_zero_point, -2), shifted(B, b_zero_point, -2 if transB else -1)
    sums = ops.matmul(ops.swapaxes(a, 0, 1) if transA else a, ops.swapaxes(b, 0, 1) if transB else b)
    if C is not None:
        sums = ops.add(sums, C)
    factor = ops.multiply(ops.multiply(a_scale, b_scale), number(alpha, a_scale.dtype))
    real = ops.multiply(ops.cast(sums, np.float32), factor)
    if y_scale is None or y_zero_point is None:
        return real
    return rounded(ops.divide(real, y_scale), y_zero_point, y_zero_point.dtype)


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def operator(
        A: Array,
        A_scale: Array,
        A_zero_point: Array | None,
        B: Array,
        B_scale: Array,
        B_zero_point: Array | None,
        C_scale: Array,
        C_zero_point: Array | None = None,
        /,
    ) -> Array:
        y = function(dequantized(A, A_scale, A_zero_point, 1), dequantized(B, B_scale, B_zero_point, 1))
        return rounded(ops.divide(y, C_scale), C_zero_point, A.dtype)

    return operator


declared("QLinearAdd")(_elementwise(ops.add))
declared("QLinearMul")(_elementwise(ops.multiply))


def _unary(function: Callable[[Array], Array], x: Array, scales: tuple[Array, ...], zeros: tuple[Any, Any]) -> Array:
    y = function(dequantized(x, scales[0], zeros[0], 1))
    return rounded(ops.divide(y, scales[1]), zeros[1], x.dtype)


@declared("QLinearSigmoid")
def qlinear_sigmoid(
    X: Array, X_scale: Array, X_zero_point: Array | None, Y_scale: Array, Y_zero_point: Array | None = None, /
) -> Array:
    """The sigmoid of quantised numbers, quantised."""
    return _unary(ops.sigmoid, X, (X_scale, Y_scale), (X_zero_point, Y_zero_point))


@declared("QLinearLeakyRelu")
def qlinear_leaky_relu(
    X: Array,
    X_scale: Array,
    X_zero_point: Array | None,
    Y_scale: Array,
    Y_zero_point: Array | None = None,
    /,
    alpha: float = 0.01,
) -> Array:
    """The leaky ReLU of quantised numbers, quantised."""
    return _unary(lambda x: ops.leaky_relu(x, alpha), X, (X_scale, Y_scale), (X_zero_point, Y_zero_point))


@declared("QLinearGlobalAveragePool")
def qlinear_global_average_pool(
    X: Array, x_scale: Array, x_zero_point: Array, y_scale: Array, y_zero_point: Array, /, channels_last: int = 0
) -> Array:
    """The mean over the spatial axes of quantised pictures, quantised."""
    rank = len(X.shape)
    axes = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    return _unary(lambda x: ops.mean(x, axes, True), X, (x_scale, y_scale), (x_zero_point, y_zero_point))


@declared("QLinearConcat", variadic=True)
def qlinear_concat(inputs: Sequence[Array], /, axis: int) -> Array:
    """Quantised tensors joined along an axis and quantised anew: scale and zero point of the result, then triples."""
    scale, zero, rest = inputs[0], inputs[1], inputs[2:]
    triples = [rest[i : i + 3] for i in range(0, len(rest), 3)]
    whole = ops.concat([dequantized(x, s, z, 1) for x, s, z in triples], axis)
    return rounded(ops.divide(whole, scale), zero, zero.dtype)


@declared("MatMulIntegerToFloat")
def matmul_integer_to_float(
    A: Array,
    B: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
    /,
) -> Array:
    """The product of quantised matrices in float32, plus a bias."""
    sums = ops.matmul(shifted(A, a_zero_point, -2), shifted(B, b_zero_point, -1))
    y = functools.reduce(ops.multiply, [ops.cast(sums, np.float32), a_scale, b_scale])
    return y if bias is None else ops.add(y, bias)


@declared("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(
    A: Array, B: Array, b_scale: Array, b_zero_point: Array | None = None, bias: Array | None = None, /
) -> Array:
    """The product of a matrix, quantised as it comes, and a quantised one."""
    quantised, scale, zero = dynamic_quantize(A)
    sums = ops.matmul(shifted(quantised, zero, -2), shifted(B, b_zero_point, -1))
    y = functools.reduce(ops.multiply, [ops.cast(sums, np.float32), scale, b_scale])
    return y if bias is None else ops.add(y, bias)
