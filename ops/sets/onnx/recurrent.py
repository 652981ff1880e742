"""RNN, LSTM, GRU: every activation, direction, layout, peephole, clip and reset convention of the specification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.registry import declare
from zoonet.ops.types import Array

Function = Callable[[Array], Array]

#: By lower-case name: the function of x and the two parameters, and the parameters' defaults.
_ACTIVATIONS: dict[str, tuple[Callable[[Array, float, float], Array], float, float]] = {
    "relu": (lambda x, a, b: ops.relu(x), 0.0, 0.0),
    "tanh": (lambda x, a, b: ops.tanh(x), 0.0, 0.0),
    "sigmoid": (lambda x, a, b: ops.sigmoid(x), 0.0, 0.0),
    "affine": (lambda x, a, b: _affine(x, a, b), 1.0, 0.0),
    "leakyrelu": (lambda x, a, b: ops.leaky_relu(x, a), 0.01, 0.0),
    "thresholdedrelu": (lambda x, a, b: ops.where(ops.greater(x, number(a, x.dtype)), x, ops.zeros_like(x)), 1.0, 0.0),
    "scaledtanh": (
        lambda x, a, b: ops.multiply(ops.tanh(ops.multiply(x, number(b, x.dtype))), number(a, x.dtype)),
        1.0,
        1.0,
    ),
    "hardsigmoid": (lambda x, a, b: ops.clip(_affine(x, a, b), 0.0, 1.0), 0.2, 0.5),
    "elu": (lambda x, a, b: ops.elu(x, a), 1.0, 0.0),
    "softsign": (lambda x, a, b: ops.softsign(x), 0.0, 0.0),
    "softplus": (lambda x, a, b: ops.softplus(x), 0.0, 0.0),
}


def _affine(x: Array, a: float, b: float) -> Array:
    return ops.add(ops.multiply(x, number(a, x.dtype)), number(b, x.dtype))


@dataclass(frozen=True)
class Options:
    """The attributes that all three operators share."""

    activations: Sequence[str]
    alpha: Sequence[float]
    beta: Sequence[float]
    clip: float | None
    direction: str
    layout: int

    @property
    def reversed(self) -> tuple[bool, ...]:
        """Whether each direction runs from the end."""
        known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
        if self.direction not in known:
            raise ArgumentError("unknown direction", expected=", ".join(known), received=self.direction)
        return known[self.direction]

    def functions(self, index: int, usual: Sequence[str]) -> list[Function]:
        """The activations of a direction. Parameters are given in order to those that have them."""
        names = [str(n).lower() for n in self.activations] or list(usual) * len(self.reversed)
        alphas, betas = list(self.alpha), list(self.beta)
        made: list[Function] = []
        for name in names:
            if name not in _ACTIVATIONS:
                raise ArgumentError("unknown activation", expected=", ".join(_ACTIVATIONS), received=name)
            function, a, b = _ACTIVATIONS[name]
            if name in ("affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu") and alphas:
                a = alphas.pop(0)
            if name in ("affine", "scaledtanh", "hardsigmoid") and betas:
                b = betas.pop(0)
            made.append(_bound(function, a, b))
        count = len(usual)
        chosen = made[index * count : (index + 1) * count]
        if len(chosen) != count:
            raise ArgumentError("activations are missing", expected=f"{count} for each direction", received=names)
        return chosen

    def limited(self, x: Array) -> Array:
        """x within the clip."""
        return ops.clip(x, -self.clip, self.clip) if self.clip else x


def _bound(function: Callable[[Array, float, float], Array], a: float, b: float) -> Function:
    return lambda x: function(x, a, b)


Step = Callable[[Array, list[Array]], list[Array]]


def unrolled(x: Array, states: list[Array], step: Step, lengths: Array | None, back: bool) -> tuple[Array, list[Array]]:
    """Outputs (time, batch, hidden) and last states of one direction; beyond an item's length states stay, outputs are
    zero.
    """
    steps = x.shape[0]
    outputs: list[Any] = [None] * steps
    for t in reversed(range(steps)) if back else range(steps):
        new = step(ops.index(x, t), states)
        shown = new[0]
        if lengths is not None:
            active = ops.reshape(ops.less(np.asarray(t), lengths), (-1, 1))
            shown = ops.where(active, shown, ops.zeros_like(shown))
            new = [ops.where(active, n, old) for n, old in zip(new, states, strict=True)]
        states, outputs[t] = new, shown
    return ops.stack(outputs, 0), states


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    y = ops.matmul(x, ops.swapaxes(weight, 0, 1))
    return y if bias is None else ops.add(y, bias)


def recurrent(
    X: Array,
    W: Array,
    B: Array | None,
    lengths: Array | None,
    initial: list[Array | None],
    options: Options,
    cell: Callable[[int, Array | None], tuple[Callable[[Array], Array], Step]],
) -> tuple[Array, ...]:
    """Y and the last states of all directions, in the layout that the node asks for.

    cell(direction, bias): the projection of the whole input, and the step.
    """
    if options.layout:
        X = ops.swapaxes(X, 0, 1)
        initial = [None if s is None else ops.swapaxes(s, 0, 1) for s in initial]
    batch, hidden = X.shape[1], W.shape[1] // cell_gates(cell)
    rows, last = [], []
    for index, back in enumerate(options.reversed):
        projection, step = cell(index, None if B is None else ops.index(B, index))
        states = [ops.zeros((batch, hidden), X.dtype) if s is None else ops.index(s, index) for s in initial]
        y, states = unrolled(projection(X), states, step, lengths, back)
        rows.append(y)
        last.append(states)
    Y = ops.stack(rows, 1)  # (time, directions, batch, hidden)
    ends = [ops.stack([states[i] for states in last], 0) for i in range(len(initial))]
    if options.layout:
        Y = ops.transpose(Y, (2, 0, 1, 3))
        ends = [ops.swapaxes(e, 0, 1) for e in ends]
    return (Y, *ends)


def cell_gates(cell: Any) -> int:
    """The number of gates of a kind of cell."""
    gates: int = cell.gates
    return gates


@dataclass(frozen=True)
class RnnCell:
    """h = f(x W + h R + b)."""

    W: Array
    R: Array
    options: Options
    gates: int = 1

    def __call__(self, index: int, bias: Array | None) -> tuple[Callable[[Array], Array], Step]:
        """The projection of the input, and the step."""
        (f,) = self.options.functions(index, ("tanh",))
        w, r = ops.index(self.W, index), ops.index(self.R, index)
        both = None if bias is None else ops.add(*ops.split(bias, 2))

        def step(x: Array, states: list[Array]) -> list[Array]:
            return [f(self.options.limited(ops.add(x, _linear(states[0], r, None))))]

        return lambda x: _linear(x, w, both), step


@dataclass(frozen=True)
class LstmCell:
    """Gates i, o, f, c; peepholes p for i, o, f. rounding: what inputs and states go through before each product."""

    W: Array
    R: Array
    P: Array | None
    coupled: bool
    options: Options
    rounding: Function | None = None
    gates: int = 4

    def __call__(self, index: int, bias: Array | None) -> tuple[Callable[[Array], Array], Step]:
        """The projection of the input, and the step."""
        f, g, h = self.options.functions(index, ("sigmoid", "tanh", "tanh"))
        w, r = ops.index(self.W, index), ops.index(self.R, index)
        both = None if bias is None else ops.add(*ops.split(bias, 2))
        peepholes = None if self.P is None else ops.split(ops.index(self.P, index), 3)
        limited = self.options.limited

        def product(x: Array, weight: Array, bias: Array | None) -> Array:
            return _linear(x if self.rounding is None else self.rounding(x), weight, bias)

        def step(x: Array, states: list[Array]) -> list[Array]:
            hidden, memory = states
            i, o, forget, c = ops.split(ops.add(x, product(hidden, r, None)), 4, -1)
            if peepholes is not None:
                i = ops.add(i, ops.multiply(peepholes[0], memory))
                forget = ops.add(forget, ops.multiply(peepholes[2], memory))
            i = f(limited(i))
            forget = ops.subtract(number(1, i.dtype), i) if self.coupled else f(limited(forget))
            new = ops.add(ops.multiply(forget, memory), ops.multiply(i, g(limited(c))))
            if peepholes is not None:
                o = ops.add(o, ops.multiply(peepholes[1], new))
            return [ops.multiply(f(limited(o)), h(new)), new]

        return lambda x: product(x, w, both), step


@dataclass(frozen=True)
class GruCell:
    """Gates z, r, h; linear_before_reset: the reset gate multiplies the product with the weight, not the state."""

    W: Array
    R: Array
    linear_before_reset: bool
    options: Options
    gates: int = 3

    def __call__(self, index: int, bias: Array | None) -> tuple[Callable[[Array], Array], Step]:
        """The projection of the input, and the step."""
        f, g = self.options.functions(index, ("sigmoid", "tanh"))
        w, r = ops.index(self.W, index), ops.index(self.R, index)
        size = self.R.shape[-1]
        of_input, of_state = (None, None) if bias is None else ops.split(bias, 2)
        r_gates, r_new = ops.split(r, (2 * size,), 0)
        b_gates, b_new = (None, None) if of_state is None else ops.split(of_state, (2 * size,))
        limited = self.options.limited

        def step(x: Array, states: list[Array]) -> list[Array]:
            hidden = states[0]
            x_gates, x_new = ops.split(x, (2 * size,), -1)
            z, reset = ops.split(f(limited(ops.add(x_gates, _linear(hidden, r_gates, b_gates)))), 2, -1)
            if self.linear_before_reset:
                inner = ops.multiply(reset, _linear(hidden, r_new, b_new))
            else:
                inner = _linear(ops.multiply(reset, hidden), r_new, b_new)
            new = g(limited(ops.add(x_new, inner)))
            return [ops.add(ops.multiply(ops.subtract(number(1, z.dtype), z), new), ops.multiply(z, hidden))]

        return lambda x: _linear(x, w, of_input), step


def rnn(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    /,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """A simple recurrent layer: all outputs, and the last states."""
    options = Options(activations or (), activation_alpha or (), activation_beta or (), clip, direction, layout)
    return recurrent(X, W, B, sequence_lens, [initial_h], options, RnnCell(W, R, options))


def lstm(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    /,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """A layer of long short-term memory: all outputs, the last states and the last memories."""
    options = Options(activations or (), activation_alpha or (), activation_beta or (), clip, direction, layout)
    cell = LstmCell(W, R, P, bool(input_forget), options)
    return recurrent(X, W, B, sequence_lens, [initial_h, initial_c], options, cell)


def gru(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    /,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """A layer of gated recurrent units: all outputs, and the last states."""
    options = Options(activations or (), activation_alpha or (), activation_beta or (), clip, direction, layout)
    return recurrent(X, W, B, sequence_lens, [initial_h], options, GruCell(W, R, bool(linear_before_reset), options))


declare("RNN", rnn, (1, 7, 14, 22))
declare("LSTM", lstm, (1, 7, 14, 22))
declare("GRU", gru, (1, 3, 7, 14, 22))
