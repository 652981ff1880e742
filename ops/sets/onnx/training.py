"""ai.onnx.preview.training: Gradient, and one step of Adagrad, Adam and Momentum for any number of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.control import call
from zoonet.ops.sets.onnx.registry import Subgraph, onnx_operator
from zoonet.ops.types import Array

TRAINING = "ai.onnx.preview.training"


@onnx_operator("Gradient", domain=TRAINING, variadic=True)
def gradient(
    Inputs: Any, /, function: Subgraph, xs: Sequence[str], zs: Sequence[str] | None = None, outputs: int = 1
) -> tuple[Array, ...]:
    """The gradients of y by each of xs, at the values that the inputs give for xs and zs.

    function: the part of the graph from xs and zs to y, which the reader finds by their names.
    """
    if len(Inputs) != len(xs) + len(zs or ()):
        raise ShapeError("Gradient takes a value for each name", expected=len(xs) + len(zs or ()), received=len(Inputs))
    constants = tuple(Inputs[len(xs) :])
    y, pullback = ops.vjp(lambda *values: call(function, *values, *constants)[0], *Inputs[: len(xs)])
    return pullback(ops.ones_like(y))


def _grouped(inputs: Any, count: int, operator: str) -> list[tuple[Any, ...]]:
    """Tensors, their gradients, their states…: one tuple for each tensor that is trained."""
    if not inputs or len(inputs) % count:
        raise ShapeError(
            f"{operator}: inputs do not come in groups", expected=f"a multiple of {count}", received=len(inputs)
        )
    each = len(inputs) // count
    return [tuple(inputs[i::each]) for i in range(each)]


def _regularized(x: Array, gradient: Array, coefficient: float) -> Array:
    return gradient if not coefficient else ops.add(ops.multiply(x, number(coefficient, x.dtype)), gradient)


def _mixed(state: Array, value: Array, rate: float) -> Array:
    return ops.add(ops.multiply(state, number(rate, state.dtype)), ops.multiply(value, number(1 - rate, state.dtype)))


@onnx_operator("Adagrad", domain=TRAINING, variadic=True)
def adagrad(
    R: Array,
    T: Array,
    inputs: Any,
    /,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    outputs: int = 2,
) -> tuple[Array, ...]:
    """New tensors and sums of squared gradients, of inputs (tensors, gradients, sums). Source: Duchi et al., 2011."""
    tensors, states = [], []
    for x, gradient, state in _grouped(inputs, 3, "Adagrad"):
        decay = ops.add(ops.multiply(ops.cast(T, x.dtype), number(decay_factor, x.dtype)), number(1, x.dtype))
        rate = ops.divide(ops.cast(R, x.dtype), decay)
        slope = _regularized(x, gradient, norm_coefficient)
        total = ops.add(state, ops.square(slope))
        step = ops.divide(ops.multiply(rate, slope), ops.add(ops.sqrt(total), number(epsilon, x.dtype)))
        tensors.append(ops.subtract(x, step))
        states.append(total)
    return (*tensors, *states)


@onnx_operator("Adam", domain=TRAINING, variadic=True)
def adam(
    R: Array,
    T: Array,
    inputs: Any,
    /,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
    outputs: int = 3,
) -> tuple[Array, ...]:
    """New tensors and averages of gradients and of their squares, of inputs (tensors, gradients, both averages).

    Source: arXiv:1412.6980; at step 0 averages are not corrected.
    """
    tensors, firsts, seconds = [], [], []
    for x, gradient, first, second in _grouped(inputs, 4, "Adam"):
        kind = x.dtype
        one, steps = number(1, kind), ops.cast(T, kind)
        slope = _regularized(x, gradient, norm_coefficient)
        first, second = _mixed(first, slope, alpha), _mixed(second, ops.square(slope), beta)
        begun = ops.greater(steps, number(0, kind))
        power = ops.where(begun, steps, one)
        correction = ops.divide(
            ops.sqrt(ops.subtract(one, ops.pow(number(beta, kind), power))),
            ops.subtract(one, ops.pow(number(alpha, kind), power)),
        )
        rate = ops.multiply(ops.cast(R, kind), ops.where(begun, correction, one))
        step = ops.divide(ops.multiply(rate, first), ops.add(ops.sqrt(second), number(epsilon, kind)))
        tensors.append(ops.multiply(ops.subtract(x, step), number(1 - norm_coefficient_post, kind)))
        firsts.append(first)
        seconds.append(second)
    return (*tensors, *firsts, *seconds)


@onnx_operator("Momentum", domain=TRAINING, variadic=True)
def momentum(
    R: Array,
    T: Array,
    inputs: Any,
    /,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
    outputs: int = 2,
) -> tuple[Array, ...]:
    """New tensors and momenta, of inputs (tensors, gradients, momenta); beta counts from the second step on."""
    if mode not in ("standard", "nesterov"):
        raise ArgumentError("Momentum: unknown mode", expected="standard or nesterov", received=mode)
    tensors, states = [], []
    for x, gradient, state in _grouped(inputs, 3, "Momentum"):
        kind = x.dtype
        slope = _regularized(x, gradient, norm_coefficient)
        begun = ops.greater(ops.cast(T, np.int64), np.asarray(0))
        share = ops.where(begun, number(beta, kind), number(1, kind))
        state = ops.add(ops.multiply(state, number(alpha, kind)), ops.multiply(slope, share))
        slope = ops.add(slope, ops.multiply(state, number(alpha, kind))) if mode == "nesterov" else state
        tensors.append(ops.subtract(x, ops.multiply(ops.cast(R, kind), slope)))
        states.append(state)
    return (*tensors, *states)
