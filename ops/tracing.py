"""Traced values: what an operator is called on when its application is to be recorded in a graph.

A `Tape` runs each operator and records it, for gradients; an `Abstract` trace records from types alone. Traces nest
(a gradient of a gradient, a gradient inside a traced function): each wraps the values of the ones outside it, and an
operator is recorded by the innermost trace among its operands, which calls it again on the values below.
The idea of levels is from "Autodidax" (JAX) and Autograd.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops import trees
from zoonet.ops.devices import is_array
from zoonet.ops.errors import ArgumentError, ShapeError, TraceError, ZoonetError
from zoonet.ops.graph import Graph, Node, Value, map_values
from zoonet.ops.operands import Traced, Types, type_of
from zoonet.ops.registry import ARRAY, ARRAYS, REGISTRY, Op
from zoonet.ops.types import DType, TensorType

__all__ = ["Variable", "evaluate_graph", "trace"]

_levels = itertools.count(1)
_from_types = contextvars.ContextVar("from_types", default=False)


@contextlib.contextmanager
def tracing_types() -> Iterator[None]:
    """While it lasts, what runs is recorded to run again: see `is_tracing_types`."""
    token = _from_types.set(True)
    try:
        yield
    finally:
        _from_types.reset(token)


def is_tracing_types() -> bool:
    """Whether a graph is being recorded from types alone, where what is not an operand becomes a constant of it."""
    return _from_types.get()


class Variable(Traced):
    """A traced value: behaves as an array, and records what is done to it. Never changed in place."""

    __slots__ = ("primal", "trace", "value")
    __array_ufunc__ = None  # NumPy arrays leave `array + variable` to the variable

    def __init__(self, trace: Trace, value: Value, primal: Any = None) -> None:
        self.trace = trace
        self.value = value
        self.primal = primal  # what the value is below this trace; None in an abstract one

    @property
    def level(self) -> int:  # type: ignore[override]
        """The nesting depth of the trace: the largest is the innermost."""
        return self.trace.level

    def record(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        """Apply op in this value's trace."""
        return self.trace.call(op, arguments)

    def concrete(self, purpose: str) -> Any:
        """The array behind the value. Raises TraceError in an abstract trace."""
        if self.primal is None:
            raise TraceError(
                f"{purpose} depends on the contents of a traced value",
                expected="a shape, dtype or number that is known while tracing",
                received=str(self.value.type),
                fix="compute it outside the traced function, or call the function on arrays without tracing",
            )
        return self.primal.concrete(purpose) if isinstance(self.primal, Variable) else self.primal

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        """Data type."""
        return self.value.type.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.value.type.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.type.size

    @property
    def T(self) -> Any:
        """All axes reversed."""
        return REGISTRY["transpose"](self)

    def astype(self, dtype: Any) -> Any:
        """The value cast to a dtype."""
        return REGISTRY["cast"](self, dtype)

    def reshape(self, *shape: Any) -> Any:
        """The value with another shape."""
        return REGISTRY["reshape"](self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes: Any) -> Any:
        """The value with its axes permuted."""
        return REGISTRY["transpose"](self, (axes[0] if len(axes) == 1 and axes[0] is not None else axes) or None)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The sum over axes."""
        return REGISTRY["sum"](self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The mean over axes."""
        return REGISTRY["mean"](self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The largest element over axes."""
        return REGISTRY["max"](self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The smallest element over axes."""
        return REGISTRY["min"](self, axis, keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The product over axes."""
        return REGISTRY["prod"](self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        """Whether any element over axes is true."""
        return REGISTRY["any"](self, axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        """Whether all elements over axes are true."""
        return REGISTRY["all"](self, axis, keepdims)

    def var(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
        """The variance over axes."""
        return REGISTRY["var"](self, axis, ddof, keepdims)

    def std(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
        """The standard deviation over axes."""
        return REGISTRY["std"](self, axis, ddof, keepdims)

    def argmax(self, axis: int | None = None) -> Any:
        """The index of the largest element."""
        return REGISTRY["argmax"](self, axis)

    def argmin(self, axis: int | None = None) -> Any:
        """The index of the smallest element."""
        return REGISTRY["argmin"](self, axis)

    def ravel(self) -> Any:
        """The value with one axis."""
        return REGISTRY["reshape"](self, (-1,))

    flatten = ravel

    def squeeze(self, axis: Any = None) -> Any:
        """The value without axes of size 1."""
        return REGISTRY["squeeze"](self, axis)

    def swapaxes(self, first: int, second: int) -> Any:
        """The value with two axes exchanged."""
        return REGISTRY["swapaxes"](self, first, second)

    def clip(self, min: Any = None, max: Any = None) -> Any:
        """The value limited to an interval."""
        return REGISTRY["clip"](self, min, max)

    def dot(self, other: Any) -> Any:
        """The matrix product."""
        return REGISTRY["matmul"](self, other)

    def copy(self) -> Any:
        """The value itself, which is never changed in place."""
        return self

    def item(self) -> Any:
        """The Python number of a value with one element. Raises TraceError in an abstract trace."""
        return self.concrete("a number").item()

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        raise TraceError(
            f"NumPy's {function.__name__} was called on a traced value",
            received=str(self.value.type),
            fix=f"use zoonet.ops.{function.__name__}, or what is like it there",
        )

    def __getitem__(self, key: Any) -> Any:
        from zoonet.ops.slicing import getitem

        return getitem(self, key)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d value")
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d value")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.concrete("a condition"))

    def __int__(self) -> int:
        return int(self.concrete("an integer"))

    def __index__(self) -> int:
        return int(self.concrete("an index").__index__())

    def __float__(self) -> float:
        return float(self.concrete("a number"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise TraceError(
            "a traced value cannot become a NumPy array: the operation would be lost to the trace",
            received=str(self.value.type),
            fix="use the functions of zoonet.ops in place of NumPy's",
        )

    def __repr__(self) -> str:
        inner = "" if self.primal is None else f", {self.primal!r}"
        return f"Variable({self.value.type}{inner})"

    __hash__ = object.__hash__


def _binary(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    def forward(self: Any, other: Any) -> Any:
        return REGISTRY[name](self, other)

    def reflected(self: Any, other: Any) -> Any:
        return REGISTRY[name](other, self)

    return forward, reflected


for _symbol, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "pow",
    "matmul": "matmul",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}.items():
    _forward, _reflected = _binary(_name)
    setattr(Variable, f"__{_symbol}__", _forward)
    setattr(Variable, f"__r{_symbol}__", _reflected)
for _symbol, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(Variable, f"__{_symbol}__", _binary(_name)[0])
for _symbol, _name in {
    "neg": "negative",
    "abs": "abs",
    "invert": "bitwise_invert",
    "pos": "positive",
}.items():
    setattr(Variable, f"__{_symbol}__", lambda self, _op=_name: REGISTRY[_op](self))


class Trace:
    """One recording: a graph being built. Variables of it raise TraceError after it is closed."""

    def __init__(self, name: str = "graph") -> None:
        self.level = next(_levels)
        self.graph = Graph(name=name)
        self.closed = False
        self._constants: dict[int, Value] = {}

    def call(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        """Apply op to bound arguments and record it."""
        raise NotImplementedError

    def owns(self, operand: Any) -> bool:
        """True for a variable of this trace; raises TraceError once the trace is over."""
        if isinstance(operand, Variable) and operand.trace is self:
            if self.closed:
                raise TraceError(
                    "a traced value is used after its trace ended",
                    fix="return it from the traced function in place of storing it elsewhere",
                )
            return True
        return False

    def value_of(self, operand: Any) -> Value:
        """The graph's value for an operand: a variable's own, or a constant for anything from outside."""
        if isinstance(operand, Variable) and operand.trace is self:
            return operand.value
        value = self._constants.get(id(operand))
        if value is None:
            value = self.graph.add_constant(operand)  # the graph keeps the operand alive, so its id stays its own
            self._constants[id(operand)] = value
        return value


class Abstract(Trace):
    """A trace of types: operators are recorded, not run."""

    def call(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        """Record op with the types that its rule gives."""
        for operand in op.operands(arguments):
            self.owns(operand)
        types = op.infer(op.map_operands(arguments, type_of))
        for output in (types,) if isinstance(types, TensorType) else types:
            if None in output.shape:
                raise TraceError(
                    f"the shape of the result of {op.name} depends on the contents of its operands",
                    expected="shapes that are known while tracing",
                    received=str(output),
                    fix="call the function on arrays without tracing",
                )
        node = self.graph.add_node(op, op.map_operands(arguments, self.value_of), types)
        variables = tuple([Variable(self, value) for value in node.outputs])
        return variables[0] if node.single else variables

    def input(self, type: TensorType, name: str | None = None) -> Variable:
        """A new input of the graph."""
        return Variable(self, self.graph.add_input(type, name))


@dataclass(slots=True)
class Saved:
    """What a tape keeps of one application for its gradient: arguments and outputs, types where these suffice."""

    arguments: dict[str, Any]
    outputs: tuple[Any, ...]


class Tape(Trace):
    """A trace that runs operators as it records them, and keeps what their gradients need."""

    def __init__(self, name: str = "tape") -> None:
        super().__init__(name)
        self.saved: list[Saved] = []  # one per node

    def input(self, primal: Any, name: str | None = None) -> Variable:
        """A new input of the graph with its value below."""
        return Variable(self, self.graph.add_input(type_of(primal), name), primal)

    def call(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        """Run op on the values below and record it; a composite without a gradient of its own is expanded."""
        if op.is_composite and op.vjp_rule is None and op.differentiable:
            return op.expand(arguments)
        lower = op.map_operands(arguments, lambda a: a.primal if self.owns(a) else a)
        result = op(*lower.values()) if not op.variadic else op.apply(op, lower)
        if not op.differentiable:
            return result
        single = not isinstance(result, tuple)
        results = (result,) if single else result
        types = type_of(result) if single else tuple([type_of(r) for r in results])
        node = self.graph.add_node(op, op.map_operands(arguments, self.value_of), types)
        self.saved.append(_save(op, lower, results))
        variables = tuple([Variable(self, v, r) for v, r in zip(node.outputs, results, strict=True)])
        return variables[0] if single else variables


def _save(op: Op[..., Any], lower: dict[str, Any], results: tuple[Any, ...]) -> Saved:
    skip = op.vjp_types_only
    arguments = {
        name: op_types(value) if position + 2 in skip and op.roles[name] in (ARRAY, ARRAYS) else value
        for position, (name, value) in enumerate(lower.items())
    }
    read = () if 1 in skip else range(len(results)) if op.vjp_outputs is None else op.vjp_outputs
    return Saved(arguments, tuple([r if i in read else type_of(r) for i, r in enumerate(results)]))


def op_types(value: Any) -> Any:
    """The operand with types in the place of arrays."""
    if isinstance(value, tuple):
        return tuple([op_types(v) for v in value])
    return type_of(value) if hasattr(value, "dtype") else value


def trace(function: Callable[..., Any], *types: Any, name: str | None = None) -> Graph:
    """The graph of a function, recorded by calling it on values that have types only.

    types: for each argument of the function a TensorType, an array (its type is taken), or a nested dict, list or
    tuple of them. Arrays that the function closes over become constants; Python control flow is followed once.
    Raises TraceError where the function asks for the contents of a traced value.
    """
    abstract = Abstract(name or str(getattr(function, "__name__", "graph")))
    typed = trees.map_leaves(_type_of_leaf, types)
    counter = itertools.count()
    arguments = trees.map_leaves(lambda t: abstract.input(t, f"x{next(counter)}"), typed)
    try:
        with tracing_types():
            result = function(*arguments)
    finally:
        abstract.closed = True
    outputs = []
    for leaf in trees.leaves(result):
        if not isinstance(leaf, Variable | int | float) and not is_array(leaf):
            raise TraceError("a traced function returned something that is not an array", received=type(leaf).__name__)
        outputs.append(abstract.value_of(leaf if hasattr(leaf, "dtype") else np.asarray(leaf)))
    graph = abstract.graph
    graph.outputs = outputs
    graph.input_tree = typed
    graph.output_tree = trees.map_leaves(lambda leaf: type_of(leaf) if hasattr(leaf, "dtype") else leaf, result)
    return graph


def _type_of_leaf(leaf: Any) -> TensorType:
    if isinstance(leaf, TensorType):
        return leaf
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        raise ArgumentError(
            "trace takes the types of the arguments",
            expected="ops.tensor_type((2, 3), 'float32'), or an array",
            received=repr(leaf)[:100],
        )
    return type_of(leaf)


def infer_composite(op: Op[..., Any], arguments: dict[str, Any]) -> Types:
    """The types of a composite's outputs, by tracing its body."""
    abstract = Abstract(op.name)
    operands = op.map_operands(arguments, abstract.input)
    result = op.apply(op.body, operands)
    abstract.closed = True
    if isinstance(result, tuple | list):
        return tuple([type_of(r) for r in result])
    return type_of(result)


def run_node(op: Op[..., Any], arguments: dict[str, Any], lookup: Callable[[Value], Any]) -> tuple[Any, ...]:
    """Apply a node's operator to what lookup gives for its values; the outputs as a tuple."""
    actual = {name: map_values(argument, lookup) for name, argument in arguments.items()}
    result = op.apply(op, actual)
    return result if isinstance(result, tuple) else (result,)


_watch: contextvars.ContextVar[Callable[[Node, Any], None] | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def nodes_watched_by(watch: Callable[[Node, Any], None]) -> Iterator[None]:
    """Graphs that are evaluated inside tell watch(node, results) of each node after it was run."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def _at(node: Node, error: ZoonetError) -> ZoonetError:
    """The same error, naming the node where the graph's maker gave it a name."""
    if not node.name:
        return error
    message = f"node {node.name!r} ({node.op.name}): {error.message}"
    return type(error)(message, expected=error.expected, received=error.received, fix=error.fix)


def evaluate_graph(graph: Graph, *arguments: Any, constants: dict[Value, Any] | None = None) -> tuple[Any, ...]:
    """Run a graph node by node on arrays or traced values, one per input; the outputs as a tuple.

    Called inside `value_and_grad` or `trace`, this differentiates or traces the graph again. constants: arrays or
    traced values in the place of some of the graph's constants. Values are let go after their last use.
    """
    environment: dict[Value, Any] = {**graph.constants, **dict(zip(graph.inputs, arguments, strict=True))}
    environment.update(constants or {})
    last = {value: position for position, node in enumerate(graph.nodes) for value in node.inputs}
    kept, watch = set(graph.outputs), _watch.get()
    for position, node in enumerate(graph.nodes):
        try:
            results = run_node(node.op, node.arguments, environment.__getitem__)
        except ZoonetError as error:
            raise _at(node, error) from error
        except (MemoryError, RecursionError) as error:
            raise _at(node, ShapeError(f"it needs more memory than there is: {error}")) from error
        if watch is not None:
            watch(node, results)
        environment.update(zip(node.outputs, results, strict=True))
        for value in (*node.inputs, *node.outputs):
            if last.get(value, position) == position and value not in kept:
                environment.pop(value, None)
    return tuple(environment[value] for value in graph.outputs)
