"""Matrix products: MatMul, MatMulInteger, Gemm, Einsum, Det."""

from __future__ import annotations

from zoonet import ops
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.sets.onnx.windows import shifted
from zoonet.ops.types import Array


def matmul(A: Array, B: Array, /) -> Array:
    """The matrix product, as NumPy's matmul."""
    return ops.matmul(A, B)


declare("MatMul", matmul, (1, 9, 13))


@onnx_operator("MatMulInteger", since=10)
def matmul_integer(
    A: Array, B: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None, /
) -> Array:
    """The product of 8-bit matrices in int32, after their zero points were subtracted (by row of A, column of B)."""
    return ops.matmul(shifted(A, a_zero_point, -2), shifted(B, b_zero_point, -1))


def product(A: Array, B: Array, C: Array | None, alpha: float, beta: float, transA: int, transB: int) -> Array:
    """alpha · A' B' + beta · C."""
    y = ops.matmul(ops.swapaxes(A, 0, 1) if transA else A, ops.swapaxes(B, 0, 1) if transB else B)
    if alpha != 1.0:
        y = ops.multiply(y, number(alpha, y.dtype))
    if C is None or beta == 0.0:
        return y
    return ops.add(y, C if beta == 1.0 else ops.multiply(C, number(beta, y.dtype)))


def gemm(
    A: Array,
    B: Array,
    C: Array | None = None,
    /,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha · A' B' + beta · C, where C broadcasts."""
    return product(A, B, C, alpha, beta, transA, transB)


def gemm_1(
    A: Array,
    B: Array,
    C: Array,
    /,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha · A' B' + beta · C; C broadcasts if it says so."""
    return product(A, B, C, alpha, beta, transA, transB)


declare("Gemm", gemm_1, (1, 6))
declare("Gemm", gemm, (7, 9, 11, 13))


@onnx_operator("Einsum", since=12, variadic=True)
@onnx_operator("Einsum", since=28, variadic=True)
def einsum(inputs: tuple[Array, ...], /, equation: str) -> Array:
    """Einstein's summation."""
    return ops.einsum(equation.replace(" ", ""), *inputs)


def determinant(X: Array, /) -> Array:
    """The determinants of the square matrices on the last two axes."""
    return ops.det(X)


declare("Det", determinant, (11, 22))
