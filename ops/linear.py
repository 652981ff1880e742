"""Matrix products: matmul, linear, einsum, outer and tensordot."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from zoonet.ops.elementwise import conjugate, multiply
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import broadcast_shapes, composite, op
from zoonet.ops.samples import complexes, floats, ints, sample
from zoonet.ops.shapes import expand_dims, reshape, swapaxes, transpose
from zoonet.ops.types import BOOL, FLOATING, Array, TensorType, kind_of, promote

__all__ = ["linear", "matmul", "outer", "tensordot"]


@op(
    samples=[
        sample(floats(3, 4), floats(4, 2)),
        sample(floats(4), floats(4)),
        sample(floats(4), floats(2, 4, 3)),
        sample(floats(2, 3, 4), floats(4)),
        sample(floats(2, 1, 3, 4), floats(5, 4, 2)),
        sample(floats(2, 5, 3, 4), floats(4, 2)),
        sample(floats(3, 4), floats(2, 4, 2)),
        sample(floats(0, 3), floats(3, 2)),
        sample(floats(2, 0), floats(0, 3)),
        sample(ints(2, 3), ints(3, 2, dtype="int32")),
        sample(ints(2, 3), floats(3, 2)),
        sample(complexes(2, 3), complexes(3, 2)),
    ]
)
def matmul(xp: Any, x: Array, y: Array) -> Array:
    """The matrix product over the last axis of x and the last but one of y; the axes before broadcast.

    x: (..., n, k) or (k,); y: (..., k, m) or (k,), numbers -> (..., n, m) without the axis that a vector lacks;
    promoted dtype. Raises ShapeError where the sizes do not fit, DTypeError for bool.
    Source: array API `matmul`.
    """
    dtype = promote((x, y))
    x, y = xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype)
    if x.ndim > 2 and y.ndim == 2:  # one product in place of one for each matrix of the stack
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        return xp.matmul(rows, y).reshape(*x.shape[:-1], y.shape[1])
    return xp.matmul(x, y)


@matmul.type
def _(x: TensorType, y: TensorType) -> TensorType:
    dtype = promote((x, y))
    if kind_of(dtype) == BOOL:
        raise DTypeError("matmul takes numbers", received="bool", fix="cast the operands to integers")
    if not x.ndim or not y.ndim:
        raise ShapeError("matmul takes vectors and matrices", expected="at least one axis", received=f"{x} and {y}")
    if x.shape[-1] != y.shape[-1 if y.ndim == 1 else -2]:
        raise ShapeError(
            "matmul: the inner sizes differ",
            expected="the last axis of x as long as the last but one of y",
            received=f"{list(x.shape)} and {list(y.shape)}",
        )
    stack = broadcast_shapes("matmul", x.shape[:-2], y.shape[:-2])
    return TensorType((*stack, *x.shape[-2:-1], *(y.shape[-1:] if y.ndim > 1 else ())), dtype)


@matmul.vjp
def _(gy: Array, _y: Array, x: Array, y: Array) -> Any:
    rows = x if len(x.shape) > 1 else expand_dims(x, 0)
    columns = y if len(y.shape) > 1 else expand_dims(y, 1)
    gradient = gy if len(x.shape) > 1 else expand_dims(gy, len(gy.shape) if len(y.shape) == 1 else len(gy.shape) - 1)
    gradient = gradient if len(y.shape) > 1 else expand_dims(gradient, len(gradient.shape))
    return (
        lambda: _reduced(matmul(gradient, _adjoint(columns)), x.shape, len(rows.shape)),
        lambda: _right_gradient(gradient, rows, y.shape),
    )


def _adjoint(matrix: Array) -> Array:
    """Matrices transposed and conjugated."""
    turned = swapaxes(matrix, -1, -2)
    return conjugate(turned) if turned.dtype.kind == "c" else turned


def _right_gradient(gradient: Array, rows: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of matmul by its right operand; a single matrix gets one product over the joined stack."""
    if len(shape) <= 2:
        rows = reshape(rows, (prod(rows.shape[:-1]), rows.shape[-1]))
        gradient = reshape(gradient, (prod(gradient.shape[:-1]), gradient.shape[-1]))
    return _reduced(matmul(_adjoint(rows), gradient), shape, max(len(shape), 2))


def _reduced(gradient: Array, shape: tuple[int, ...], ndim: int) -> Array:
    """The gradient summed over the axes of the stack that an operand was broadcast along."""
    leading = len(gradient.shape) - ndim
    kept = (1,) * (ndim - len(shape)) + tuple(shape)
    axes = [*range(leading)]
    if ndim > 2:
        axes += [i + leading for i in range(ndim - 2) if kept[i] == 1 and gradient.shape[i + leading] != 1]
    if axes:
        gradient = sum_over(gradient, tuple(axes))
    return reshape(gradient, tuple(shape))


@op(
    samples=[
        sample(floats(3, 4), floats(2, 4), floats(2)),
        sample(floats(2, 3, 4), floats(5, 4)),
        sample(floats(4), floats(2, 4), floats(2)),
        sample(floats(0, 4), floats(2, 4), floats(2)),
        sample(ints(3, 4), ints(2, 4), ints(2)),
    ]
)
def linear(xp: Any, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x · weightᵀ + bias. x: (..., in); weight: (out, in); bias: (out,) or None -> (..., out), promoted dtype.

    Raises ShapeError where the sizes do not fit. Source: torch.nn.functional.linear.
    """
    dtype = promote([a for a in (x, weight, bias) if a is not None])
    rows = xp.asarray(x, dtype=dtype).reshape(prod(x.shape[:-1]), x.shape[-1])
    result = xp.matmul(rows, xp.asarray(weight, dtype=dtype).T)
    if bias is not None:
        xp.add(result, bias, out=result)
    return result.reshape(*x.shape[:-1], weight.shape[0])


@linear.type
def _(x: TensorType, weight: TensorType, bias: TensorType | None) -> TensorType:
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            "linear: the weight does not fit x",
            expected=f"weight (out, {x.shape[-1] if x.ndim else 'in'})",
            received=f"weight {list(weight.shape)}, x {list(x.shape)}",
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError("linear: the bias does not fit", expected=list(weight.shape[:1]), received=list(bias.shape))
    dtype = promote([x, weight] if bias is None else [x, weight, bias])
    if not BOOL < kind_of(dtype) <= FLOATING:
        raise DTypeError("linear takes real numbers", expected="floats or integers", received=dtype.name)
    return TensorType((*x.shape[:-1], weight.shape[0]), dtype)


@linear.vjp
def _(gy: Array, _y: Array, x: Array, weight: Array, _bias: TensorType | None) -> Any:
    def rows(array: Array) -> Array:
        return reshape(array, (prod(array.shape[:-1]), array.shape[-1]))

    return (
        lambda: matmul(gy, weight),
        lambda: matmul(transpose(rows(gy)), rows(x)),
        lambda: sum_over(gy, tuple(range(len(gy.shape) - 1))),
    )


@composite(samples=[sample(floats(3), floats(2)), sample(ints(2), ints(3))])
def outer(x: Array, y: Array) -> Array:
    """The products of every pair. x: (n,); y: (m,) -> (n, m), promoted dtype. Raises ShapeError for other ranks.

    Source: NumPy `outer`.
    """
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise ShapeError("outer takes vectors", expected="(n,) and (m,)", received=f"{x.shape} and {y.shape}")
    return multiply(expand_dims(x, 1), expand_dims(y, 0))


@composite(
    samples=[
        sample(floats(2, 3, 4), floats(3, 4, 5)),
        sample(floats(2, 3), floats(4), 0),
        sample(floats(2, 3, 4), floats(4, 5, 2), ((0, 2), (2, 0))),
    ]
)
def tensordot(x: Array, y: Array, axes: int | Sequence[Sequence[int]] = 2) -> Array:
    """The sum of products over pairs of axes: the last `axes` of x with the first of y, or the listed ones.

    x, y: any shapes -> the remaining axes of x, then of y; promoted dtype. Raises ShapeError or ArgumentError where
    the axes do not pair up. Source: array API `tensordot`.
    """
    left, right = len(x.shape), len(y.shape)
    if isinstance(axes, int):
        pairs: Any = (tuple(range(left - axes, left)), tuple(range(axes)))
    else:
        pairs = axes
    if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]):
        raise ArgumentError("tensordot: axes do not pair up", expected="two lists of equal length", received=axes)
    if any(not -n <= a < n for n, listed in zip((left, right), pairs, strict=True) for a in listed):
        raise ShapeError("tensordot: no such axis", received=f"{axes} for {list(x.shape)} and {list(y.shape)}")
    first, second = [a % left for a in pairs[0]], [a % right for a in pairs[1]]
    if [x.shape[a] for a in first] != [y.shape[a] for a in second]:
        raise ShapeError(
            "tensordot: the sizes of paired axes differ", received=f"{list(x.shape)} and {list(y.shape)}, axes {axes}"
        )
    kept_x = [a for a in range(left) if a not in first]
    kept_y = [a for a in range(right) if a not in second]
    inner = prod(x.shape[a] for a in first)
    rows = reshape(transpose(x, (*kept_x, *first)), (prod(x.shape[a] for a in kept_x), inner))
    columns = reshape(transpose(y, (*second, *kept_y)), (inner, prod(y.shape[a] for a in kept_y)))
    return reshape(matmul(rows, columns), (*[x.shape[a] for a in kept_x], *[y.shape[a] for a in kept_y]))
