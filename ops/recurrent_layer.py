"""A recurrent layer over whole sequences in one direction.

`recurrent_layer` is a Python loop over steps, each a matrix product and a few array operations. Its gradient computes
the gates of all steps at one time from the kept outputs, and loops only over what depends on the next step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoonet.ops.activations import sigmoid
from zoonet.ops.comparisons import greater, less_equal, logical_not
from zoonet.ops.creation import full_like, zeros_like
from zoonet.ops.elementary import tanh
from zoonet.ops.elementwise import add, cast, multiply, square, subtract, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.joining import concat, split, stack, unstack
from zoonet.ops.linear import matmul
from zoonet.ops.reductions import cumsum
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import op
from zoonet.ops.samples import fixed, floats, sample
from zoonet.ops.shapes import expand_dims, flip, reshape, transpose
from zoonet.ops.types import INTEGER, Array, TensorType, is_floating, kind_of

__all__ = ["recurrent_layer"]


#: Gates of each kind of layer: the rows of a weight per hidden feature.
GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "gru_reset_first": 3}


def _open(xp: Any, x: Any) -> Any:
    """The logistic function, by tanh: no overflow."""
    y = xp.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y


@dataclass
class _Layer:
    """The arrays of a layer with time running forward, and what its steps share."""

    xp: Any
    kind: str
    inputs: Any
    hidden: Any
    cell: Any
    weight: Any
    bias: Any
    projection: Any
    active: Any

    @property
    def size(self) -> int:
        return int(self.weight.shape[0] // GATES[self.kind])

    def recur(self, state: Any) -> Any:
        """The product of hidden states and weight."""
        product = self.xp.matmul(state, self.weight.T)
        if self.bias is not None:
            product += self.bias
        return product

    def step(self, t: int, hidden: Any, cell: Any) -> tuple[Any, Any]:
        """The states after one step."""
        xp, n, given = self.xp, self.size, self.inputs[t]
        if self.kind == "gru_reset_first":
            gates = _open(xp, given[:, : 2 * n] + self._part(hidden, slice(2 * n)))
            inner = self._part(gates[:, :n] * hidden, slice(2 * n, None))
        else:
            product = self.recur(hidden)
            if self.kind == "gru":
                gates = _open(xp, given[:, : 2 * n] + product[:, : 2 * n])
                inner = gates[:, :n] * product[:, 2 * n :]
            else:
                product += given
                if self.kind == "lstm":
                    return self._lstm(product, cell)
                return (xp.tanh(product) if self.kind == "tanh" else xp.maximum(product, 0)), cell
        new = xp.tanh(given[:, 2 * n :] + inner)
        return new + gates[:, n:] * (hidden - new), cell

    def _part(self, state: Any, rows: slice) -> Any:
        product = self.xp.matmul(state, self.weight[rows].T)
        return product if self.bias is None else product + self.bias[rows]

    def _lstm(self, gates: Any, cell: Any) -> tuple[Any, Any]:
        xp, n = self.xp, self.size
        opened = _open(xp, gates[:, : 2 * n])
        cell = opened[:, n:] * cell + opened[:, :n] * xp.tanh(gates[:, 2 * n : 3 * n])
        hidden = _open(xp, gates[:, 3 * n :]) * xp.tanh(cell)
        return (hidden if self.projection is None else xp.matmul(hidden, self.projection.T)), cell


def _layer(
    xp: Any,
    inputs: Any,
    hidden: Any,
    cell: Any,
    weight: Any,
    bias: Any,
    projection: Any,
    lengths: Any,
    kind: str,
    reverse: bool,
) -> _Layer:
    active = None if lengths is None else (xp.arange(inputs.shape[0])[:, None] < lengths)[:, :, None]
    if reverse:
        inputs, active = inputs[::-1], None if active is None else active[::-1]
    return _Layer(xp, kind, inputs, hidden, cell, weight, bias, projection, active)


_LENGTHS = fixed([3, 1], "int64")


@op(
    samples=[
        sample(floats(3, 2, 4), floats(2, 4), None, floats(4, 4)),
        sample(floats(3, 2, 4), floats(2, 4), None, floats(4, 4), None, None, _LENGTHS, "relu", True),
        sample(floats(3, 2, 8), floats(2, 2), floats(2, 2), floats(8, 2), None, None, _LENGTHS, "lstm", True),
        sample(floats(4, 2, 8), floats(2, 2), floats(2, 2), floats(8, 2), None, None, _LENGTHS, "lstm"),
        sample(floats(2, 2, 12), floats(2, 2), floats(2, 3), floats(12, 2), floats(12), floats(2, 3), None, "lstm"),
        sample(floats(3, 2, 6), floats(2, 2), None, floats(6, 2), floats(6), None, _LENGTHS, "gru"),
        sample(floats(3, 2, 6), floats(2, 2), None, floats(6, 2), floats(6), None, _LENGTHS, "gru_reset_first", True),
        sample(floats(2, 1, 6), floats(1, 2), None, floats(6, 2), None, None, None, "gru_reset_first"),
        sample(floats(0, 2, 6), floats(2, 2), None, floats(6, 2), None, None, None, "gru"),
    ]
)
def recurrent_layer(
    xp: Any,
    inputs: Array,
    hidden: Array,
    cell: Array | None,
    weight: Array,
    bias: Array | None = None,
    projection: Array | None = None,
    lengths: Array | None = None,
    kind: str = "tanh",
    reverse: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """One recurrent layer in one direction, from what the input gives the gates at every step.

    inputs: (T, N, G·H) with G gates; hidden: (N, P), the state before the first step; cell: (N, H), for an LSTM;
    weight: (G·H, P) and bias: (G·H,) act on the hidden state; projection: (P, H) maps an LSTM's output to the hidden
    state, without it P = H -> (outputs (T, N, P), last hidden (N, P), last cell (N, H), cells (T, N, H)); the cells'
    H is 0 where there are none. kind: "tanh", "relu", "lstm" (gates input, forget, cell, output), "gru" (reset,
    update, new) or "gru_reset_first". lengths: (N,) integers: later steps leave the states and give zeros. reverse:
    from the last step (of each sequence) to the first. Raises ShapeError, DTypeError, ArgumentError.
    """
    layer = _layer(xp, inputs, hidden, cell, weight, bias, projection, lengths, kind, reverse)
    if cell is None:
        cell = xp.zeros((hidden.shape[0], 0), hidden.dtype)
    outputs = xp.zeros((inputs.shape[0], *hidden.shape), inputs.dtype)
    cells = xp.zeros((inputs.shape[0], *cell.shape), inputs.dtype)
    for t in range(inputs.shape[0]):
        after, after_cell = layer.step(t, hidden, cell)
        if layer.active is None:
            outputs[t], cells[t] = after, after_cell
            hidden, cell = after, after_cell
            continue
        keep = layer.active[t]
        outputs[t], cells[t] = after * keep, after_cell * keep
        hidden, cell = xp.where(keep, after, hidden), xp.where(keep, after_cell, cell)
    if reverse:
        outputs, cells = outputs[::-1].copy(), cells[::-1].copy()
    return outputs, hidden.copy(), cell.copy(), cells


@recurrent_layer.type
def _(
    inputs: TensorType,
    hidden: TensorType,
    cell: TensorType | None,
    weight: TensorType,
    bias: TensorType | None,
    projection: TensorType | None,
    lengths: TensorType | None,
    kind: str,
    reverse: bool,
) -> tuple[TensorType, TensorType, TensorType, TensorType]:
    name = "recurrent_layer"
    if kind not in GATES:
        raise ArgumentError(f"{name}: no such kind", expected=", ".join(GATES), received=kind)
    for operand in (inputs, hidden, cell, weight, bias, projection):
        if operand is not None and not is_floating(operand.dtype):
            raise DTypeError(f"{name}: an operand is not floating", received=operand.dtype.name)
    if lengths is not None and kind_of(lengths.dtype) != INTEGER:
        raise DTypeError(f"{name}: lengths are not integers", received=lengths.dtype.name)
    if inputs.ndim != 3 or hidden.ndim != 2 or weight.ndim != 2:
        raise ShapeError(
            f"{name}: operands have the wrong rank",
            expected="inputs of 3 axes, hidden and weight of 2",
            received=f"{inputs.shape}, {hidden.shape}, {weight.shape}",
        )
    (steps, batch, total), state = inputs.shape, hidden.shape[1]
    size = (total or 0) // GATES[kind]
    expected = {
        "inputs": (steps, batch, size * GATES[kind]),
        "hidden": (batch, size if projection is None else state),
        "cell": (batch, size) if kind == "lstm" else None,
        "weight": (total, state),
        "bias": None if bias is None else (total,),
        "projection": None if projection is None or kind != "lstm" else (state, size),
        "lengths": None if lengths is None else (batch,),
    }
    given = (inputs, hidden, cell, weight, bias, projection, lengths)
    for (label, wanted), operand in zip(expected.items(), given, strict=True):
        received = None if operand is None else operand.shape
        if received != wanted:
            raise ShapeError(
                f"{name}: {label} does not fit the others for kind {kind!r}", expected=wanted, received=received
            )
    width = 0 if cell is None else size
    dtype = inputs.dtype
    return (
        TensorType((steps, batch, state), dtype),
        TensorType((batch, state), dtype),
        TensorType((batch, width), dtype),
        TensorType((steps, batch, width), dtype),
    )


recurrent_layer.vjp_outputs = (0, 3)  # the outputs and cells tell every state; the last ones are among them


@dataclass
class _Backward:
    """What the gradient of a layer is computed from, with time running forward; written in operators."""

    goutputs: Any
    ghidden: Any
    gcell: Any
    gcells: Any
    inputs: Any
    before: Any
    cells: Any
    cells_before: Any
    weight: Any
    bias: Any
    projection: Any
    active: Any

    def masked(self, x: Any) -> Any:
        """x, or 0 at steps beyond a sequence's length."""
        return x if self.active is None else where(self.active, x, 0.0)

    def steps(self, *arrays: Any) -> list[tuple[Any, ...]]:
        """The arrays step by step, from the last to the first."""
        return list(zip(*[unstack(a, 0) for a in arrays], strict=True))[::-1]

    def idle(self) -> list[Any]:
        """For each step from the last, 1 where it is beyond the length and passes gradients on, or None."""
        if self.active is None:
            return [None] * int(self.inputs.shape[0])
        return [step for (step,) in self.steps(cast(logical_not(self.active), self.inputs.dtype))]

    def products(self, rows: slice = slice(None), state: Any = None) -> Any:
        """What the hidden states (or another state) gave the gates at every step."""
        product = matmul(self.before if state is None else state, transpose(self.weight[rows]))
        return product if self.bias is None else add(product, self.bias[rows])


def _hold(gradient: Any, before: Any, idle: Any) -> Any:
    return gradient if idle is None else add(gradient, multiply(before, idle))


def _slope_of_sigmoid(y: Any) -> Any:
    return multiply(y, subtract(1.0, y))


def _slope_of_tanh(y: Any) -> Any:
    return subtract(1.0, square(y))


def _stacked(steps: list[Any]) -> Any:
    return stack(steps[::-1], 0)


def _across_time(gates: Any, states: Any) -> Any:
    """The gradient of a weight: the products of gates' gradients and states, summed over steps and sequences."""
    rows = int(gates.shape[0] * gates.shape[1])
    return matmul(transpose(reshape(gates, (rows, gates.shape[2]))), reshape(states, (rows, states.shape[2])))


def _simple_gradient(b: _Backward, outputs: Any, kind: str) -> tuple[Any, ...]:
    slopes = _slope_of_tanh(outputs) if kind == "tanh" else cast(greater(outputs, 0.0), outputs.dtype)
    dh, gates = b.ghidden, []
    for (slope, given), idle in zip(b.steps(b.masked(slopes), b.masked(b.goutputs)), b.idle(), strict=True):
        dh = add(dh, given)
        gates.append(multiply(dh, slope))
        dh = _hold(matmul(gates[-1], b.weight), dh, idle)
    total = _stacked(gates)
    return total, dh, None, _across_time(total, b.before), total, None


def _lstm_gradient(b: _Backward) -> tuple[Any, ...]:
    entering, forget, candidate, output = split(add(b.inputs, b.products()), 4, 2)
    entering, forget, output = sigmoid(entering), sigmoid(forget), sigmoid(output)
    candidate, squashed = tanh(candidate), tanh(b.cells)
    slopes = stack(
        [
            multiply(candidate, _slope_of_sigmoid(entering)),
            multiply(b.cells_before, _slope_of_sigmoid(forget)),
            multiply(entering, _slope_of_tanh(candidate)),
            multiply(squashed, _slope_of_sigmoid(output)),
        ],
        2,
    )
    if b.active is not None:
        slopes = where(expand_dims(b.active, 3), slopes, 0.0)
    through = b.masked(multiply(output, _slope_of_tanh(squashed)))
    arrays = (slopes, through, b.masked(forget), b.masked(b.goutputs), b.masked(b.gcells))
    dh, dc, gates, states = b.ghidden, b.gcell, [], []
    for (slope, passed, kept, given, given_cell), idle in zip(b.steps(*arrays), b.idle(), strict=True):
        dh, dc = add(dh, given), add(dc, given_cell)
        states.append(dh)
        out = dh if b.projection is None else matmul(dh, b.projection)
        inner = add(dc, multiply(out, passed))
        gate = multiply(stack([inner, inner, inner, out], 1), slope)
        gates.append(reshape(gate, (gate.shape[0], 4 * gate.shape[2])))
        dc = _hold(multiply(inner, kept), dc, idle)
        dh = _hold(matmul(gates[-1], b.weight), dh, idle)
    total = _stacked(gates)
    gprojection = None
    if b.projection is not None:
        gprojection = _across_time(b.masked(_stacked(states)), multiply(output, squashed))
    return total, dh, dc, _across_time(total, b.before), total, gprojection


def _gru_gradient(b: _Backward) -> tuple[Any, ...]:
    given = split(b.inputs, 3, 2)
    products = split(b.products(), 3, 2)
    reset, update = sigmoid(add(given[0], products[0])), sigmoid(add(given[1], products[1]))
    new = tanh(add(given[2], multiply(reset, products[2])))
    onto_new = multiply(subtract(1.0, update), _slope_of_tanh(new))
    onto_reset = multiply(multiply(onto_new, products[2]), _slope_of_sigmoid(reset))
    onto_update = multiply(subtract(b.before, new), _slope_of_sigmoid(update))
    slopes = b.masked(concat([onto_reset, onto_update, onto_new], 2))
    recurrent = b.masked(concat([onto_reset, onto_update, multiply(onto_new, reset)], 2))
    dh, states = b.ghidden, []
    arrays = (recurrent, b.masked(update), b.masked(b.goutputs))
    for (slope, kept, given_step), idle in zip(b.steps(*arrays), b.idle(), strict=True):
        dh = add(dh, given_step)
        states.append(dh)
        inner = matmul(multiply(concat([dh, dh, dh], 1), slope), b.weight)
        dh = _hold(add(inner, multiply(dh, kept)), dh, idle)
    thrice = concat([_stacked(states)] * 3, 2)
    total = multiply(thrice, recurrent)
    return multiply(thrice, slopes), dh, None, _across_time(total, b.before), total, None


def _gru_reset_first_gradient(b: _Backward) -> tuple[Any, ...]:
    size = int(b.before.shape[2])
    given = split(b.inputs, 3, 2)
    products = split(b.products(slice(0, 2 * size)), 2, 2)
    reset, update = sigmoid(add(given[0], products[0])), sigmoid(add(given[1], products[1]))
    state = multiply(reset, b.before)
    new = tanh(add(given[2], b.products(slice(2 * size, 3 * size), state)))
    onto_new = b.masked(multiply(subtract(1.0, update), _slope_of_tanh(new)))
    onto_reset = multiply(b.before, _slope_of_sigmoid(reset))
    onto_update = b.masked(multiply(subtract(b.before, new), _slope_of_sigmoid(update)))
    opening, closing = b.weight[: 2 * size], b.weight[2 * size :]
    dh, gates = b.ghidden, []
    arrays = (onto_new, onto_reset, onto_update, reset, b.masked(update), b.masked(b.goutputs))
    for (slope, slope_reset, slope_update, opened, kept, given_step), idle in zip(
        b.steps(*arrays), b.idle(), strict=True
    ):
        dh = add(dh, given_step)
        dnew = multiply(dh, slope)
        inner = matmul(dnew, closing)
        gate = concat([multiply(inner, slope_reset), multiply(dh, slope_update)], 1)
        gates.append(concat([gate, dnew], 1))
        passed = add(multiply(dh, kept), add(multiply(inner, opened), matmul(gate, opening)))
        dh = _hold(passed, dh, idle)
    total = _stacked(gates)
    gweight = concat(
        [
            _across_time(total[:, :, : 2 * size], b.before),
            _across_time(total[:, :, 2 * size :], state),
        ],
        0,
    )
    return total, dh, None, gweight, total, None


@recurrent_layer.vjp
def _(
    gy: tuple[Array, ...],
    y: tuple[Any, ...],
    inputs: Array,
    hidden: Array,
    cell: Array | None,
    weight: Array,
    bias: Array | None,
    projection: Array | None,
    lengths: Array | None,
    kind: str,
    reverse: bool,
) -> Any:
    goutputs, ghidden, gcell, gcells = gy
    outputs, _, _, cells = y
    if not inputs.shape[0]:
        gprojection = None if projection is None else zeros_like(projection)
        gbias = None if bias is None else zeros_like(bias)
        gcell = None if cell is None else gcell
        return zeros_like(inputs), ghidden, gcell, zeros_like(weight), gbias, gprojection, None
    active = None
    if lengths is not None:
        steps = cumsum(full_like(inputs[:, :1, :1], 1, "int64"), 0)
        active = less_equal(steps, reshape(lengths, (lengths.shape[0], 1)))
    if reverse:
        inputs, outputs, cells, goutputs, gcells = [flip(a, 0) for a in (inputs, outputs, cells, goutputs, gcells)]
        active = None if active is None else flip(active, 0)

    def before(initial: Any, states: Any) -> Any:
        held = states if active is None else where(active, states, initial)
        return concat([expand_dims(initial, 0), held[:-1]], 0)

    b = _Backward(
        goutputs,
        ghidden,
        gcell,
        gcells,
        inputs,
        before(hidden, outputs),
        cells,
        None if cell is None else before(cell, cells),
        weight,
        bias,
        projection,
        active,
    )
    rules: dict[str, Callable[[], tuple[Any, ...]]] = {
        "lstm": lambda: _lstm_gradient(b),
        "gru": lambda: _gru_gradient(b),
        "gru_reset_first": lambda: _gru_reset_first_gradient(b),
    }
    rule = rules.get(kind, lambda: _simple_gradient(b, outputs, kind))
    ginputs, dh, dc, gweight, recurrent, gprojection = rule()
    gbias = None if bias is None else sum_over(recurrent, (0, 1))
    return flip(ginputs, 0) if reverse else ginputs, dh, dc, gweight, gbias, gprojection, None
