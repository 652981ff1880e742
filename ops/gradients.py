"""Reverse-mode gradients: run a function on a tape, then apply each operator's gradient rule from last to first.

Rules are written in operators, so a gradient can be traced, compiled and differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoonet.ops import trees
from zoonet.ops.devices import array_module, is_array
from zoonet.ops.errors import ArgumentError, GradientError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.registry import ARRAY, ARRAYS, REGISTRY, Op, op
from zoonet.ops.samples import floats, sample
from zoonet.ops.tracing import Saved, Tape, Variable
from zoonet.ops.types import COMPLEX, Array, TensorType, is_differentiable, kind_of

__all__ = ["check_gradients", "grad", "stop_gradient", "value_and_grad", "vjp"]


def zeros_like(array: Any) -> Any:
    """Zeros of the shape and dtype of an array or traced value, on its device."""
    return REGISTRY["full_like"](array, 0)


def _sum_to(gradient: Any, shape: tuple[int, ...]) -> Any:
    """The gradient summed over the axes along which an operand of this shape was broadcast."""
    leading = len(gradient.shape) - len(shape)
    axes = [
        *range(leading),
        *(i + leading for i, n in enumerate(shape) if n == 1 and gradient.shape[i + leading] != 1),
    ]
    if axes:
        gradient = REGISTRY["sum"](gradient, tuple(axes), True)
    return REGISTRY["reshape"](gradient, shape) if leading else gradient


def _fit(op: Op[..., Any], gradient: Any, value: Value) -> Any:
    """A rule's gradient in the shape and dtype of the operand that it belongs to."""
    shape, dtype = value.type.shape, value.type.dtype
    if op.promotes and tuple(gradient.shape) != shape:
        gradient = _sum_to(gradient, shape)
    if tuple(gradient.shape) != shape:
        raise GradientError(
            f"the gradient rule of {op.name} gave the wrong shape",
            expected=list(shape),
            received=list(gradient.shape),
        )
    if gradient.dtype != dtype:
        if kind_of(gradient.dtype) == COMPLEX and kind_of(dtype) != COMPLEX:
            gradient = REGISTRY["real"](gradient)
        gradient = REGISTRY["cast"](gradient, dtype)
    return gradient


def _operand_gradients(node: Node, saved: Saved, cotangents: tuple[Any, ...]) -> list[tuple[Value, Any]]:
    """Pairs of an operand's value and its gradient, or a function that gives it."""
    op = node.op
    if op.vjp_rule is None:
        raise GradientError(
            f"operator {op.name} has no gradient",
            fix=f"declare one with @{op.name}.vjp, or differentiable=False if it has none",
        )
    single = node.single
    gy = cotangents[0] if single else cotangents
    y = saved.outputs[0] if single else saved.outputs
    result = op.apply(op.vjp_rule, saved.arguments, gy, y)
    slots = [name for name, role in op.roles.items() if role in (ARRAY, ARRAYS)]
    if len(slots) == 1 and (op.roles[slots[0]] == ARRAY or not _is_pair_of_one(result)):
        result = (result,)
    if not isinstance(result, tuple | list) or len(result) != len(slots):
        raise GradientError(
            f"the gradient rule of {op.name} is wrong",
            expected=f"a tuple of {len(slots)} gradients, for {', '.join(slots)}",
            received=f"{len(result)}" if isinstance(result, tuple | list) else type(result).__name__,
        )
    pairs: list[tuple[Value, Any]] = []
    for slot, gradient in zip(slots, result, strict=True):
        argument = node.arguments[slot]
        if op.roles[slot] == ARRAYS:
            if gradient is not None:
                pairs += [(v, g) for v, g in zip(argument, gradient, strict=True) if isinstance(v, Value)]
        elif isinstance(argument, Value):
            pairs.append((argument, gradient))
    return pairs


def _is_pair_of_one(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 1 and isinstance(result[0], tuple | list)


def _dependents(graph: Graph, sources: set[Value]) -> set[Value]:
    """The values that a change of the sources can change, as far as gradients go."""
    found = set(sources)
    for node in graph.nodes:
        if any(value in found for value in node.inputs):
            found.update(value for value in node.outputs if is_differentiable(value.type.dtype))
    return found


def backward(tape: Tape, cotangents: dict[Value, Any], sources: Sequence[Value], keep: bool = False) -> list[Any]:
    """Gradients of the sources, given the gradients of outputs. None for a source that nothing depends on.

    keep: the tape can be used again; otherwise what it saved is freed on the way.
    """
    graph = tape.graph
    needed = _dependents(graph, set(sources))
    total = {value: gradient for value, gradient in cotangents.items() if value in needed}
    kept = set(sources)
    for position in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[position]
        if not any(value in total for value in node.outputs):
            if not keep:
                tape.saved[position] = None  # type: ignore[call-overload]
            continue
        saved = tape.saved[position]
        given = [total[v] for v in node.outputs if v in total]
        incoming = tuple([total[v] if v in total else _zeros_of(v, given) for v in node.outputs])
        for value in node.outputs:
            if value not in kept:
                total.pop(value, None)
        if any(value in needed for value in node.inputs):
            for value, gradient in _operand_gradients(node, saved, incoming):
                if gradient is None or value not in needed:
                    continue
                if callable(gradient):
                    gradient = gradient()
                    if gradient is None:
                        continue
                gradient = _fit(node.op, gradient, value)
                total[value] = REGISTRY["add"](total[value], gradient) if value in total else gradient
        if not keep:
            tape.saved[position] = None  # type: ignore[call-overload]
    return [total.get(value) for value in sources]


def _zeros_of(value: Value, below: list[Any]) -> Any:
    """Zeros for an output that has no gradient, on the device of the gradients that the node's other outputs have."""
    while any(isinstance(o, Variable) for o in below):  # down to arrays, or to None in an abstract trace
        below = [o.primal if isinstance(o, Variable) else o for o in below]
    xp = array_module(*[a for a in below if is_array(a)])
    return xp.zeros(value.type.shape, value.type.dtype)


def _is_leaf_differentiable(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and is_differentiable(leaf.dtype)


def _run(function: Callable[..., Any], arguments: Sequence[Any], positions: Sequence[int], **constants: Any) -> Any:
    """Call the function on a tape: the tape, its result, and for each position the tree of its inputs' values."""
    tape = Tape(getattr(function, "__name__", "tape"))

    def enter(leaf: Any) -> Any:
        leaf = np.asarray(leaf, np.float32) if type(leaf) is float else leaf
        return tape.input(leaf) if _is_leaf_differentiable(leaf) else leaf

    entered = [trees.map_leaves(enter, a) if i in positions else a for i, a in enumerate(arguments)]
    result = function(*entered, **constants)
    sources = [trees.map_leaves(lambda v: v if tape.owns(v) else None, entered[i]) for i in positions]
    return tape, result, sources


def _lower(tape: Tape, tree: Any) -> Any:
    return trees.map_leaves(lambda leaf: leaf.primal if tape.owns(leaf) else leaf, tree)


def _gather(tape: Tape, sources: Any, cotangents: dict[Value, Any], keep: bool = False) -> Any:
    variables = trees.leaves(sources)
    found = dict(zip(variables, backward(tape, cotangents, [v.value for v in variables], keep), strict=True))
    return trees.map_leaves(lambda v: zeros_like(v.primal) if found[v] is None else found[v], sources)


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns (function(*args), gradients) for a function with a scalar result.

    argnums: the positions of the arguments to differentiate by, from the end where negative; each argument is an array
    or a nested dict, list or tuple of arrays, and the gradients have the same containers (None for leaves that are not
    floating). Keyword arguments of the call are constants. has_aux: the function returns (scalar, anything else), and
    the first item returned is that pair. Raises GradientError if the result is not one floating number, ArgumentError
    for a position without argument.
    """
    several = not isinstance(argnums, int)
    asked = list(argnums) if not isinstance(argnums, int) else [argnums]

    def differentiated(*arguments: Any, **constants: Any) -> tuple[Any, Any]:
        positions = [_position(number, len(arguments)) for number in asked]
        tape, result, sources = _run(function, arguments, positions, **constants)
        loss = result[0] if has_aux else result
        if not hasattr(loss, "dtype") or loss.size != 1 or not is_differentiable(loss.dtype):
            received = f"{loss.dtype}{list(loss.shape)}" if hasattr(loss, "dtype") else type(loss).__name__
            raise GradientError(
                "a gradient needs a scalar result",
                expected="one floating number",
                received=received,
                fix="reduce it with sum or mean, or use vjp",
            )
        cotangents = {}
        if tape.owns(loss):
            cotangents[loss.value] = REGISTRY["full_like"](loss.primal, 1)
        value = _lower(tape, result)
        gradients = _gather(tape, sources, cotangents)
        tape.closed = True
        return value, tuple(gradients) if several else gradients[0]

    return differentiated


def _position(number: int, count: int) -> int:
    if not -count <= number < count:
        raise ArgumentError(
            "a gradient by an argument that is not given",
            expected=f"argnums below {count}, the number of positional arguments",
            received=number,
        )
    return number % count


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that returns the gradients alone; see `value_and_grad`. May be applied again, to any order."""
    with_value = value_and_grad(function, argnums)

    def differentiated(*arguments: Any, **constants: Any) -> Any:
        return with_value(*arguments, **constants)[1]

    return differentiated


def vjp(function: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """The function's result and its pullback: from a gradient of the result to gradients of the arguments.

    Results and arguments may be nested dicts, lists and tuples; the pullback takes the result's containers, returns a
    tuple with one item per argument, and may be called more than once.
    """
    tape, result, sources = _run(function, primals, range(len(primals)))
    outputs = trees.leaves(result)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given = trees.leaves(cotangent)
        if len(given) != len(outputs):
            raise GradientError(
                "the gradient does not match the result",
                expected=f"{len(outputs)} arrays",
                received=len(given),
            )
        cotangents: dict[Value, Any] = {}
        for output, gradient in zip(outputs, given, strict=True):
            if tape.owns(output):
                if isinstance(gradient, int | float) and not output.shape:
                    gradient = REGISTRY["full_like"](output.primal, gradient)
                if tuple(getattr(gradient, "shape", (None,))) != output.shape:
                    raise GradientError(
                        "the gradient does not have the shape of the result",
                        expected=str(output.value.type),
                        received=list(gradient.shape) if hasattr(gradient, "shape") else type(gradient).__name__,
                    )
                gradient = _fit(REGISTRY["add"], gradient, output.value)
                before = cotangents.get(output.value)
                cotangents[output.value] = gradient if before is None else REGISTRY["add"](before, gradient)
        return tuple(_gather(tape, sources, cotangents, keep=True))

    return _lower(tape, result), pullback


@op(differentiable=False, exact=True, view=True, samples=[sample(floats(2, 3)), sample(floats())])
def stop_gradient(xp: Any, x: Array) -> Array:
    """x, as a constant to gradients. Any shape and dtype -> same; a view. Source: torch.Tensor.detach."""
    return x


@stop_gradient.type
def _(x: TensorType) -> TensorType:
    return x


@stop_gradient.vjp
def _(_gy: Array, _y: TensorType, _x: TensorType) -> None:
    return None


def numerical_gradients(function: Callable[..., Any], arguments: Sequence[Any], step: float = 1e-6) -> list[Any]:
    """Central differences of a scalar function by each floating array among its arguments, in float64.

    The function must be smooth within `step` of the arguments. Integer arguments give None.
    """
    results: list[Any] = []
    arrays = [np.array(a, np.float64) if _is_leaf_differentiable(a) else a for a in arguments]
    for position, array in enumerate(arrays):
        if not _is_leaf_differentiable(array):
            results.append(None)
            continue
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            outcomes = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                outcomes.append(float(function(*arrays[:position], moved, *arrays[position + 1 :])))
            gradient[index] = (outcomes[0] - outcomes[1]) / (2 * step)
        results.append(gradient)
    return results


def check_gradients(
    function: Callable[..., Any], arguments: Sequence[Any], *, step: float = 1e-6, tolerance: float = 1e-5
) -> float:
    """Compare gradients with central differences in float64; returns the largest relative difference.

    Raises GradientError where it exceeds the tolerance.
    """
    arrays = [np.array(a, np.float64) if _is_leaf_differentiable(a) else a for a in arguments]
    positions = [i for i, a in enumerate(arrays) if _is_leaf_differentiable(a)]
    analytic = grad(function, positions)(*arrays)
    numeric = numerical_gradients(function, arrays, step)
    worst = 0.0
    for gradient, position in zip(analytic, positions, strict=True):
        scale = max(1.0, float(np.abs(numeric[position]).max(initial=0.0)))
        worst = max(worst, float(np.abs(gradient - numeric[position]).max(initial=0.0)) / scale)
    if worst > tolerance:
        raise GradientError(
            "gradients differ from finite differences",
            expected=f"at most {tolerance}",
            received=f"{worst:.3g}",
        )
    return worst
