"""Recurrent layers as ONNX nodes, with what their gradients need."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import LAST, Builder, Operand
from zoonet.formats.onnx.writing.maps import fixed
from zoonet.formats.onnx.writing.sizes import Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.types import int64

#: By kind: ONNX's operator, the order of its gates in ours, and its attributes.
_LAYERS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "tanh": ("RNN", (0,), {"activations": ["Tanh"]}),
    "relu": ("RNN", (0,), {"activations": ["Relu"]}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "gru_reset_first": ("GRU", (1, 0, 2), {"linear_before_reset": 0}),
}


@emitter("recurrent_layer")
def _(
    b: Builder,
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    lengths: Tensor | None,
    kind: str,
    is_reversed: bool,
) -> tuple[str | None, ...]:
    """A layer of ONNX whose weight for its inputs is the identity, since these are what they give the gates."""
    if projection is not None:
        raise b.refuse("a projection of the hidden state")
    if inputs.shape[0] == 0:
        raise b.refuse("a sequence of no steps")
    total, size = fixed(b, weight.shape)
    op_type, order, attributes = _LAYERS[kind]
    dtype = b.outputs[0].dtype
    rows = np.concatenate([np.arange(size) + gate * size for gate in order]).astype(np.int64)
    turned = b.node("Gather", weight, b.constant(rows), axis=0)
    biases = None
    if bias is not None:
        own = b.node("Gather", bias, b.constant(rows), axis=0)
        biases = b.unsqueeze(b.node("Concat", b.constant(np.zeros(total, dtype)), own, axis=0), [0])
    given: list[Operand] = [
        inputs,
        b.constant(np.eye(total, dtype=dtype)[rows][None]),
        b.unsqueeze(turned, [0]),
        biases,
        None if lengths is None else b.node("Cast", lengths, to=6),
        b.unsqueeze(hidden, [0]),
    ]
    if cell is not None:
        given.append(b.unsqueeze(cell, [0]))
    direction = "reverse" if is_reversed else "forward"
    count = 3 if kind == "lstm" else 2
    results = b.many(op_type, *given, outputs=count, hidden_size=size, direction=direction, **attributes)
    outputs, last = b.squeeze(results[0], [1]), b.squeeze(results[1], [0])
    if kind != "lstm":
        return outputs, last, b.full(b.outputs[2].shape, 0, dtype), b.full(b.outputs[3].shape, 0, dtype)
    cells = None
    if cell is not None and isinstance(inputs.shape[0], int):
        cells = _cells(b, outputs, inputs, hidden, cell, weight, bias, lengths, is_reversed)
    return outputs, last, b.squeeze(results[2], [0]), cells


def _cells(
    b: Builder,
    outputs: str,
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    is_reversed: bool,
) -> str:
    """The cells of an LSTM after every step, which its gradient needs; ONNX's gives the last ones alone.

    The outputs tell the gates of all steps at once; only forget · cell + new is left to do step by step. Nodes that
    nothing reads are not written.
    """
    (steps,) = fixed(b, inputs.shape[:1])
    first = b.unsqueeze(hidden, [0])
    active = None
    if lengths is not None:
        shorter = b.node("Less", b.unsqueeze(b.range(steps), [1]), b.unsqueeze(b.cast(lengths, int64), [0]))
        active = b.unsqueeze(shorter, [2])  # (T, N, 1)
    if is_reversed:
        later = b.slice(outputs, [1], [LAST], [0])
        if active is not None:  # beyond the end of a sequence the state is the first one
            later = b.node("Where", b.slice(active, [1], [LAST], [0]), later, first)
        before = b.node("Concat", later, first, axis=0)
    else:
        before = b.node("Concat", first, b.slice(outputs, [0], [-1], [0]), axis=0)
    gates = b.node("Add", inputs, b.node("MatMul", before, b.transpose(weight, [1, 0])))
    if bias is not None:
        gates = b.node("Add", gates, bias)
    quarter = fixed(b, weight.shape)[1]
    entering, forget, candidate, _ = b.many("Split", gates, b.ints([quarter] * 4), outputs=4, axis=2)
    kept = b.node("Sigmoid", forget)
    added = b.node("Mul", b.node("Sigmoid", entering), b.node("Tanh", candidate))
    if active is not None:
        kept = b.node("Where", active, kept, b.constant(np.asarray(1, cell.dtype)))
        added = b.node("Where", active, added, b.constant(np.asarray(0, cell.dtype)))
    state, found = b.unsqueeze(cell, [0]), {}
    for t in reversed(range(steps)) if is_reversed else range(steps):
        share, new = [b.slice(a, [t], [t + 1], [0]) for a in (kept, added)]
        state = found[t] = b.node("Add", b.node("Mul", share, state), new)
    cells = b.node("Concat", *[found[t] for t in range(steps)], axis=0)
    if active is None:
        return cells
    return b.node("Where", active, cells, b.constant(np.asarray(0, cell.dtype)))
