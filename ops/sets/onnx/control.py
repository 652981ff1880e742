"""Control flow: If, Loop, Scan, SequenceMap. Sub-graphs run node by node, so they may depend on contents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.memory import MEMORY
from zoonet.ops.sets.onnx.common import STRING, concrete, scalar
from zoonet.ops.sets.onnx.registry import Subgraph, declare, onnx_operator
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import UNKNOWN

#: Turns of a Loop that has no other end than its trip count.
_MOST_TURNS = 1 << 24


def call(graph: Subgraph, *inputs: Any) -> tuple[Any, ...]:
    """The outputs of a sub-graph for its own inputs."""
    body, captured = graph
    given = len(body.inputs) - len(captured)
    if len(inputs) != given:
        raise ShapeError("a sub-graph takes another number of inputs", expected=given, received=len(inputs))
    return evaluate_graph(body, *inputs, *captured)


def if_(cond: Any, /, else_branch: Any, then_branch: Any, outputs: int = 1) -> tuple[Any, ...]:
    """The outputs of one of two sub-graphs."""
    return call(then_branch if bool(scalar(cond, "the condition of If")) else else_branch)


declare("If", if_, (1, 11, 13, 16, 19, 21, 23, 24, 25))


def loop(M: Any, cond: Any, v_initial: Any, /, body: Any, outputs: int = 1) -> tuple[Any, ...]:
    """The body for counts up to M, as long as its condition holds: the last values, and those of each turn stacked."""
    most = None if M is None else int(scalar(M, "the trip count of Loop"))
    going = True if cond is None else bool(scalar(cond, "the condition of Loop"))
    values = list(v_initial)
    count = len(values)
    stacks: list[list[Any]] = [[] for _ in body[0].outputs[1 + count :]]
    turn = nbytes = 0
    while going and (most is None or turn < most):
        if turn == 1 and (most is None or most > _MOST_TURNS) and _is_fixed(body):
            raise ArgumentError(
                "Loop would not end: its condition stays true",
                expected=f"a condition that changes, or at most {_MOST_TURNS} turns",
                received="no trip count" if most is None else most,
            )
        results = call(body, np.asarray(turn, np.int64), np.asarray(True), *values)
        going = bool(scalar(results[0], "the condition of Loop"))
        values = list(results[1 : 1 + count])
        for stack, value in zip(stacks, results[1 + count :], strict=True):
            stack.append(value)
            nbytes += int(getattr(value, "nbytes", 0))
        if nbytes > MEMORY // 2:
            raise ShapeError("Loop stacks more than memory holds", expected=f"{MEMORY // 2} bytes", received=nbytes)
        turn += 1
    scanned = [_stacked(stack, value) for stack, value in zip(stacks, body[0].outputs[1 + count :], strict=True)]
    return (*values, *scanned)


def _is_fixed(body: Subgraph) -> bool:
    """Whether nothing that the body of a Loop computes decides about its condition."""
    graph, captured = body
    makers = {value: node for node in graph.nodes for value in node.outputs}
    value = graph.outputs[0]
    while value in makers and makers[value].op.name.startswith("onnx.Identity-"):
        value = makers[value].inputs[0]
    outside = graph.inputs[len(graph.inputs) - len(captured) :]
    return value in graph.constants or value is graph.inputs[1] or value in outside


def _stacked(items: list[Any], value: Any, axis: int = 0) -> Any:
    """Values of each turn on a new axis; nothing, in the type that the graph declares, where there was no turn."""
    if items:
        return np.stack(items, axis) if _is_text(items[0]) else ops.stack(items, axis)
    shape = [n or 0 for n in (value.type.shape or ())]
    dtype = value.type.dtype
    return np.zeros((0, *shape), np.float32 if value.type is UNKNOWN else dtype)


def _is_text(item: Any) -> bool:
    return hasattr(item, "dtype") and bool(item.dtype == STRING)


def loop_of(operator_inputs: Any, /, body: Any, outputs: int = 1) -> tuple[Any, ...]:
    """Loop, whose first two inputs may be absent."""
    padded = (*operator_inputs, None, None)
    return loop(padded[0], padded[1], tuple(operator_inputs[2:]), body, outputs)


for _version in (1, 11, 13, 16, 19, 21, 23, 24, 25):
    onnx_operator("Loop", since=_version, variadic=True)(loop_of)


def scanned(
    states: list[Any],
    inputs: list[Any],
    body: Any,
    axes: Sequence[int],
    reverse: Sequence[int],
    output_axes: Sequence[int],
    output_reverse: Sequence[int],
) -> tuple[Any, ...]:
    """Scan without a batch axis."""
    lengths = {x.shape[axis] for x, axis in zip(inputs, axes, strict=True)}
    if len(lengths) != 1:
        raise ShapeError("Scan: inputs differ in length", received=sorted(lengths))
    steps = lengths.pop()
    count = len(states)
    stacks: list[list[Any]] = [[] for _ in body[0].outputs[count:]]
    for turn in range(steps):
        given = [
            ops.take(x, np.asarray(steps - 1 - turn if back else turn), axis % len(x.shape))
            for x, axis, back in zip(inputs, axes, reverse, strict=True)
        ]
        results = call(body, *states, *given)
        states = list(results[:count])
        for stack, value in zip(stacks, results[count:], strict=True):
            stack.append(value)
    joined = []
    for stack, value, axis, back in zip(stacks, body[0].outputs[count:], output_axes, output_reverse, strict=True):
        joined.append(_stacked(stack[::-1] if back else stack, value, axis))
    return (*states, *joined)


def scan(
    operands: Any,
    /,
    body: Any,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """The body along an axis of the last inputs, with states handed on: the last states, and the values stacked."""
    count = len(operands) - num_scan_inputs
    made = len(body[0].outputs) - count
    return scanned(
        list(operands[:count]),
        list(operands[count:]),
        body,
        scan_input_axes or (0,) * num_scan_inputs,
        scan_input_directions or (0,) * num_scan_inputs,
        scan_output_axes or (0,) * made,
        scan_output_directions or (0,) * made,
    )


for _version in (9, 11, 16, 19, 21, 23, 24, 25):
    onnx_operator("Scan", since=_version, variadic=True)(scan)


@onnx_operator("Scan", since=8, variadic=True)
def scan_8(
    operands: Any,
    /,
    body: Any,
    num_scan_inputs: int,
    directions: Sequence[int] | None = None,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """Scan of each item of a batch, the first operand being the lengths of its items."""
    lengths, rest = operands[0], operands[1:]
    count = len(rest) - num_scan_inputs
    made = len(body[0].outputs) - count
    sizes = None if lengths is None else [int(n) for n in concrete(lengths, "the lengths of Scan")]
    results = []
    for item in range(rest[count].shape[0]):
        parts = [ops.index(x, item) for x in rest]
        if sizes is not None:
            parts[count:] = [ops.index(x, slice(0, sizes[item])) for x in parts[count:]]
        results.append(
            scanned(
                parts[:count],
                parts[count:],
                body,
                (0,) * num_scan_inputs,
                directions or (0,) * num_scan_inputs,
                (0,) * made,
                (0,) * made,
            )
        )
    longest = rest[count].shape[1]
    joined = []
    for position, values in enumerate(zip(*results, strict=True)):
        if position >= count:
            values = tuple(
                ops.pad(v, ((0, longest - v.shape[0]), *[(0, 0)] * (len(v.shape) - 1))) if v.shape[0] < longest else v
                for v in values
            )
        joined.append(ops.stack(list(values), 0))
    return tuple(joined)


@onnx_operator("SequenceMap", since=17, variadic=True)
def sequence_map(input_sequence: Any, additional_inputs: Any, /, body: Any, outputs: int = 1) -> tuple[Any, ...]:
    """The body for each item of the sequences (a tensor is the same for each): a sequence for each output."""
    results: list[list[Any]] = [[] for _ in body[0].outputs]
    for position, item in enumerate(input_sequence):
        others = [x[position] if isinstance(x, list | tuple) else x for x in additional_inputs]
        for made, value in zip(results, call(body, item, *others), strict=True):
            made.append(value)
    return tuple(results)
