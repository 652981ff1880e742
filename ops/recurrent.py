"""Recurrent networks: rnn, lstm and gru, with PyTorch's weights, gate orders and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoonet.ops.creation import zeros_like
from zoonet.ops.elementwise import add
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.joining import concat, stack, unstack
from zoonet.ops.linear import matmul
from zoonet.ops.recurrent_layer import GATES, recurrent_layer
from zoonet.ops.registry import composite
from zoonet.ops.samples import fixed, floats, sample
from zoonet.ops.shapes import broadcast_to, swapaxes, transpose
from zoonet.ops.types import Array

__all__ = ["gru", "lstm", "rnn"]


def _check_sequences(name: str, x: Any, lengths: Any, batch_first: bool) -> None:
    if len(x.shape) != 3:
        raise ShapeError(
            f"{name}: x is not a batch of sequences",
            expected="(N, T, features)" if batch_first else "(T, N, features)",
            received=tuple(x.shape),
        )
    batch = x.shape[0] if batch_first else x.shape[1]
    if lengths is not None and tuple(lengths.shape) != (batch,):
        raise ShapeError(f"{name}: lengths do not fit x", expected=(batch,), received=tuple(lengths.shape))


def _per_layer(name: str, weights: Sequence[Any], layers: int, directions: int, allowed: tuple[int, ...]) -> int:
    count = len(weights) // (layers * directions) if layers > 0 else 0
    if count not in allowed or count * layers * directions != len(weights):
        raise ArgumentError(
            f"{name}: the number of weights does not fit",
            expected=f"{' or '.join(str(n * layers * directions) for n in allowed)} for {layers} layers of "
            f"{directions} directions",
            received=len(weights),
        )
    return count


def _first_states(name: str, label: str, states: Any, x: Any, count: int, size: int) -> list[Any]:
    """The initial state of each layer and direction; zeros for None."""
    shape = (count, x.shape[1], size)
    if states is None:
        if not x.shape[0] or not x.shape[2]:
            raise ShapeError(f"{name}: x has no steps or no features", received=tuple(x.shape))
        return [broadcast_to(zeros_like(x[0, :, :1]), shape[1:])] * count
    if tuple(states.shape) != shape:
        raise ShapeError(f"{name}: {label} does not fit", expected=shape, received=tuple(states.shape))
    return list(unstack(states, 0))


def _run(
    name: str,
    kind: str,
    x: Any,
    weights: Sequence[Any],
    hidden: Any,
    cell: Any,
    lengths: Any,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, Any, Any]:
    """Every layer and direction in turn: the outputs of the last, and the last states of all."""
    _check_sequences(name, x, lengths, batch_first)
    directions = 2 if bidirectional else 1
    count = _per_layer(name, weights, layers, directions, (2, 3, 4, 5) if kind == "lstm" else (2, 4))
    x = swapaxes(x, 0, 1) if batch_first else x
    total = layers * directions
    state, size = weights[1].shape[-1], weights[1].shape[0] // GATES[kind]
    first = _first_states(name, "hidden", hidden, x, total, state)
    first_cells = _first_states(name, "cell", cell, x, total, size) if kind == "lstm" else [None] * total
    last, last_cells = [], []
    for layer in range(layers):
        parts = []
        for direction in range(directions):
            place = layer * directions + direction
            weight_in, weight, *rest = weights[place * count : (place + 1) * count]
            if len(weight_in.shape) != 2 or weight_in.shape[1] != x.shape[2]:
                raise ShapeError(
                    f"{name}: the input weight of layer {layer} does not fit what enters it",
                    expected=f"(gates · size, {x.shape[2]})",
                    received=tuple(weight_in.shape),
                )
            bias = rest[:2] if count > 3 else None
            inputs = matmul(x, transpose(weight_in))
            inner = None
            if bias is not None:
                inner = bias[1] if kind.startswith("gru") else None
                inputs = add(inputs, bias[0] if inner is not None else add(*bias))
            projection = rest[-1] if count in (3, 5) else None
            outputs, after, after_cell, _ = recurrent_layer(
                inputs, first[place], first_cells[place], weight, inner, projection, lengths, kind, direction == 1
            )
            parts.append(outputs)
            last.append(after)
            last_cells.append(after_cell)
        x = parts[0] if directions == 1 else concat(parts, 2)
    return swapaxes(x, 0, 1) if batch_first else x, stack(last, 0), stack(last_cells, 0)


def _weights(gates: int, features: int, size: int, layers: int = 1, directions: int = 1) -> list[Any]:
    """Specifications of the weights of a stack, for samples."""
    specs = []
    for layer in range(layers):
        for _ in range(directions):
            entering = features if layer == 0 else size * directions
            specs += [floats(gates * size, entering), floats(gates * size, size)]
            specs += [floats(gates * size), floats(gates * size)]
    return specs


@composite(
    samples=[
        sample(floats(3, 2, 3), _weights(1, 3, 2)),
        sample(
            floats(2, 3, 3), _weights(1, 3, 2, 2, 2), floats(4, 2, 2), fixed([2, 3], "int64"), 2, True, True, "relu"
        ),
    ]
)
def rnn(
    x: Array,
    weights: Sequence[Array],
    hidden: Array | None = None,
    lengths: Array | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    nonlinearity: str = "tanh",
) -> tuple[Array, Array]:
    """A stack of simple recurrent layers: h' = nonlinearity(W x + b + U h + c).

    x: (T, N, features), with batch_first (N, T, features) -> (outputs (T, N, directions · size), last hidden states
    (layers · directions, N, size)). weights: per layer and direction W (size, features), U (size, size) and, unless
    left out everywhere, b and c (size,). hidden: the initial states, zeros by default. lengths: (N,) integers, steps
    from there on are not part of a sequence: outputs there are 0, and the backward direction starts before them.
    nonlinearity: "tanh" or "relu". Raises ShapeError, DTypeError, ArgumentError. Source: `torch.nn.RNN`.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError("rnn: no such nonlinearity", expected="'tanh' or 'relu'", received=nonlinearity)
    y, last, _ = _run("rnn", nonlinearity, x, weights, hidden, None, lengths, layers, bidirectional, batch_first)
    return y, last


@composite(
    samples=[
        sample(floats(3, 2, 3), _weights(4, 3, 2)),
        sample(floats(3, 2, 2), [floats(8, 2), floats(8, 2)], floats(1, 2, 2), floats(1, 2, 2)),
        sample(
            floats(2, 3, 2),
            _weights(4, 2, 2, 2, 2),
            floats(4, 2, 2),
            floats(4, 2, 2),
            fixed([3, 1], "int64"),
            2,
            True,
            True,
        ),
        sample(floats(2, 2, 3), [floats(12, 3), floats(12, 2), floats(12), floats(12), floats(2, 3)]),
    ]
)
def lstm(
    x: Array,
    weights: Sequence[Array],
    hidden: Array | None = None,
    cell: Array | None = None,
    lengths: Array | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Array, Array, Array]:
    """A stack of LSTM layers.

    As `rnn`, with gates in the order input, forget, cell, output: W (4 · size, features), U (4 · size, state), b and c
    (4 · size,); a fifth weight per layer and direction (the third where there are no biases) is the projection
    (state, size) of the output, without which state = size -> (outputs, last hidden states, last cells). cell: the
    initial cells (layers · directions, N, size). Raises ShapeError, DTypeError, ArgumentError. Source: Hochreiter and
    Schmidhuber 1997, `torch.nn.LSTM`.
    """
    return _run("lstm", "lstm", x, weights, hidden, cell, lengths, layers, bidirectional, batch_first)


@composite(
    samples=[
        sample(floats(3, 2, 3), _weights(3, 3, 2)),
        sample(floats(2, 3, 2), _weights(3, 2, 2, 2, 2), floats(4, 2, 2), fixed([3, 1], "int64"), 2, True, True),
        sample(floats(3, 2, 2), [floats(6, 2), floats(6, 2)], None, fixed([2, 3], "int64")),
        sample(floats(3, 2, 3), _weights(3, 3, 2, 1, 2), None, None, 1, True, False, False),
    ]
)
def gru(
    x: Array,
    weights: Sequence[Array],
    hidden: Array | None = None,
    lengths: Array | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    linear_before_reset: bool = True,
) -> tuple[Array, Array]:
    """A stack of GRU layers.

    As `rnn`, with gates in the order reset, update, new. linear_before_reset: see `gru_cell`; PyTorch's layers have
    it, ONNX's and the original only where it is asked for. Raises ShapeError, DTypeError, ArgumentError. Source: Cho
    et al. 2014 (arXiv:1406.1078), `torch.nn.GRU`.
    """
    kind = "gru" if linear_before_reset else "gru_reset_first"
    y, last, _ = _run("gru", kind, x, weights, hidden, None, lengths, layers, bidirectional, batch_first)
    return y, last
