"""One step of a recurrent layer, written in operators."""

from __future__ import annotations

from typing import Any

from zoonet.ops.activations import sigmoid
from zoonet.ops.elementary import tanh
from zoonet.ops.elementwise import add, clip, multiply, subtract
from zoonet.ops.errors import ShapeError
from zoonet.ops.joining import split
from zoonet.ops.linear import matmul
from zoonet.ops.registry import composite
from zoonet.ops.samples import floats, sample
from zoonet.ops.shapes import transpose
from zoonet.ops.types import Array

__all__ = ["gru_cell", "lstm_cell"]


@composite(
    samples=[
        sample(floats(2, 12), floats(2, 3)),
        sample(floats(2, 8), floats(2, 2), floats(6)),
        sample(floats(2, 8), floats(2, 2), floats(6), 0.7, True),
    ]
)
def lstm_cell(
    gates: Array,
    cell: Array,
    peepholes: Array | None = None,
    clip_at: float | None = None,
    coupled: bool = False,
) -> tuple[Array, Array]:
    """One step of an LSTM from the sums that enter its gates: the new hidden and cell state.

    gates: (N, 4·H) in the order input, forget, cell, output; cell: (N, H) -> two of (N, H). peepholes: (3·H,) in the
    order input, output, forget: the cell's weights on these gates. clip_at: bounds the sums to ±clip_at. coupled: the
    forget gate is 1 - input gate. Raises ShapeError. Source: Gers et al. 2000 and 2002; the options are those of ONNX.
    """
    if len(gates.shape) != 2 or gates.shape[1] != 4 * cell.shape[-1]:
        raise ShapeError(
            "lstm_cell: gates do not fit the cell",
            expected=(*cell.shape[:-1], 4 * cell.shape[-1]),
            received=tuple(gates.shape),
        )

    def bounded(x: Any) -> Any:
        return x if clip_at is None else clip(x, -clip_at, clip_at)

    entering, forget, candidate, output = split(gates, 4, 1)
    from_cell = None if peepholes is None else split(peepholes, 3, 0)
    if from_cell is not None:
        entering = add(entering, multiply(from_cell[0], cell))
        forget = add(forget, multiply(from_cell[2], cell))
    opened = sigmoid(bounded(entering))
    kept = subtract(1.0, opened) if coupled else sigmoid(bounded(forget))
    cell = add(multiply(kept, cell), multiply(opened, tanh(bounded(candidate))))
    if from_cell is not None:
        output = add(output, multiply(from_cell[1], cell))
    return multiply(sigmoid(bounded(output)), tanh(cell)), cell


@composite(
    samples=[
        sample(floats(2, 9), floats(2, 3), floats(9, 3), floats(9)),
        sample(floats(2, 6), floats(2, 2), floats(6, 2), None, False),
    ]
)
def gru_cell(
    gates: Array, hidden: Array, weight: Array, bias: Array | None = None, linear_before_reset: bool = True
) -> Array:
    """One step of a GRU: the new hidden state.

    gates: (N, 3·H), what the input gives the gates reset, update, new; hidden: (N, H); weight: (3·H, H) and bias:
    (3·H,) act on the hidden state -> (N, H). linear_before_reset: the reset gate multiplies the product of hidden
    state and weight, bias included (PyTorch); otherwise the hidden state itself (Cho et al. 2014, arXiv:1406.1078).
    Raises ShapeError.
    """
    if tuple(weight.shape) != (3 * hidden.shape[-1], hidden.shape[-1]) or gates.shape[-1] != weight.shape[0]:
        raise ShapeError(
            "gru_cell: weight or gates do not fit the hidden state",
            expected=(3 * hidden.shape[-1], hidden.shape[-1]),
            received=f"{tuple(weight.shape)} and {tuple(gates.shape)}",
        )
    reset, update, new = split(gates, 3, 1)
    rows = split(weight, 3, 0)
    shifts = (None, None, None) if bias is None else split(bias, 3, 0)

    def project(state: Any, gate: int) -> Any:
        product = matmul(state, transpose(rows[gate]))
        return product if shifts[gate] is None else add(product, shifts[gate])

    reset = sigmoid(add(reset, project(hidden, 0)))
    update = sigmoid(add(update, project(hidden, 1)))
    inner = multiply(reset, project(hidden, 2)) if linear_before_reset else project(multiply(reset, hidden), 2)
    new = tanh(add(new, inner))
    return add(new, multiply(update, subtract(hidden, new)))
