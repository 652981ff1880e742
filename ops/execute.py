"""Compiled execution: a graph becomes a flat list of calls on slots, with buffers that are used again.

Types are checked when the program is made, not at each step; values are let go after their last use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops import trees
from zoonet.ops.devices import device_of, module_for, to_device
from zoonet.ops.errors import ArgumentError, DeviceError, DTypeError, ShapeError, ZoonetError
from zoonet.ops.graph import Graph, Node, Value, map_values
from zoonet.ops.operands import as_operand, innermost
from zoonet.ops.passes import expand_composites, optimize, plan_memory
from zoonet.ops.registry import Kernel
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import DType, TensorType, float32, is_low_precision

__all__ = ["Program", "compile"]


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the run's list of values, and the dtype that the value is cast to before the call."""

    index: int
    cast: DType | None


@dataclass(frozen=True, slots=True)
class _Step:
    """One call: arguments (slots, tuples of slots, or plain data), where the results go, and what dies after it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    outputs: tuple[int, ...]
    dtypes: tuple[DType, ...]
    single: bool
    buffer: tuple[int, TensorType] | None
    frees: tuple[int, ...]
    plain: bool  # every argument is a slot without cast or plain data
    name: str


class Program:
    """A compiled graph. Call it with the arguments of the traced function (or one array per input of the graph).

    graph: what is run, after the passes. Raises ShapeError, DTypeError or DeviceError for other inputs than those
    it was compiled for. Safe to call from several threads: each has its own buffers.
    """

    def __init__(self, graph: Graph, device: str = "cpu") -> None:
        self.graph = graph
        self.device = device.partition(":")[0]
        self._xp = module_for(device)
        self._local = threading.local()
        self._index: dict[Value, int] = {}
        kernels = {id(node): self._kernel(node) for node in graph.nodes}

        def takes_out(node: Node) -> bool:
            kernel = kernels[id(node)]
            return kernel is not None and kernel.takes_out and not is_low_precision(node.outputs[0].type.dtype)

        def in_place(node: Node) -> bool:
            kernel = kernels[id(node)]
            return kernel is not None and kernel.in_place

        self.plan = plan_memory(graph, takes_out, in_place)
        constants = [self._slot(value) for value in graph.constants]
        self._template: list[Any] = [_aligned(to_device(array, device)) for array in graph.constants.values()]
        assert constants == list(range(len(constants)))
        self._inputs = [self._slot(value) for value in graph.inputs]
        self._steps = [
            self._step(node, kernels[id(node)], frees) for node, frees in zip(graph.nodes, self.plan.frees, strict=True)
        ]
        self._outputs = [self._slot(value) for value in graph.outputs]
        self._constant_outputs = {i for i, v in enumerate(graph.outputs) if v in graph.constants}
        self._slots = len(self._index)

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers that each thread's runs share."""
        return sum(self.plan.buffers)

    def _slot(self, value: Value) -> int:
        return self._index.setdefault(value, len(self._index))

    def _kernel(self, node: Node) -> Kernel | None:
        if not node.op.kernels:
            return None
        return node.op.find_kernel(self.device, {k: map_values(a, lambda v: v.type) for k, a in node.arguments.items()})

    def _step(self, node: Node, kernel: Kernel | None, frees: tuple[Value, ...]) -> _Step:
        op = node.op
        if kernel is None and op.is_composite:
            raise AssertionError(f"composite {op.name} has no kernel and was not expanded")
        arguments = self._arguments(node)
        if op.variadic:
            arguments = (*arguments[:-1], *arguments[-1])
        buffer = None
        value = node.outputs[0]
        if value in self.plan.placed:
            buffer = (self.plan.placed[value], value.type)
        return _Step(
            kernel.function if kernel is not None else op.body,
            arguments,
            tuple([self._slot(v) for v in node.outputs]),
            tuple([v.type.dtype for v in node.outputs]),
            node.single,
            buffer,
            tuple([self._slot(v) for v in frees]),
            all(not isinstance(a, tuple) and not (isinstance(a, _Slot) and a.cast) for a in arguments),
            op.name,
        )

    def _arguments(self, node: Node) -> tuple[Any, ...]:
        """The node's arguments with slots for values, and with the casts that `Op.prepare` would make."""
        op = node.op
        common = None
        if op.promotes:
            common = op.common_dtype({k: map_values(a, lambda v: v.type) for k, a in node.arguments.items()})
            if not op.exact and is_low_precision(common):
                common = float32

        def slot(value: Value, wanted: DType | None) -> _Slot:
            dtype = value.type.dtype
            if wanted is None and not op.promotes and not op.exact and is_low_precision(dtype):
                wanted = float32
            return _Slot(self._slot(value), None if wanted == dtype else wanted)

        prepared = []
        for name, argument in node.arguments.items():
            wanted = common if name in op.promoted and op.promotes else None
            if wanted is not None and isinstance(argument, int | float | complex):
                argument = as_operand(self._xp, argument, wanted, op.name)
            prepared.append(map_values(argument, lambda v, wanted=wanted: slot(v, wanted)))  # type: ignore[misc]
        return tuple(prepared)

    def _check(self, arrays: list[Any]) -> None:
        if len(arrays) != len(self.graph.inputs):
            raise ShapeError(
                "a compiled graph got the wrong number of inputs",
                expected=len(self.graph.inputs),
                received=len(arrays),
            )
        for position, (array, value) in enumerate(zip(arrays, self.graph.inputs, strict=True)):
            where = f"input {value.name or position} of a compiled graph"
            if tuple(array.shape) != value.type.shape:
                raise ShapeError(
                    f"{where} has another shape",
                    expected=list(value.type.shape),
                    received=list(array.shape),
                    fix="compile the function again for this shape",
                )
            if array.dtype != value.type.dtype:
                raise DTypeError(
                    f"{where} has another data type",
                    expected=value.type.dtype.name,
                    received=array.dtype.name,
                    fix="cast it, or compile the function again for this type",
                )
            if device_of(array) != self.device:
                raise DeviceError(
                    f"{where} lies on another device",
                    expected=self.device,
                    received=device_of(array),
                    fix="move it with zoonet.ops.to_device",
                )

    def _buffers(self) -> list[Any]:
        """This thread's buffers, made at its first run."""
        buffers: list[Any] | None = getattr(self._local, "buffers", None)
        if buffers is None:
            buffers = [self._xp.empty(size, np.uint8) for size in self.plan.buffers]
            self._local.buffers = buffers
            self._local.views = {}
        return buffers

    def _view(self, buffer: int, type: TensorType) -> Any:
        buffers = self._buffers()
        key = (buffer, type)
        view = self._local.views.get(key)
        if view is None:
            count = type.size * type.dtype.itemsize
            view = buffers[buffer][:count].view(type.dtype).reshape(type.shape)
            self._local.views[key] = view
        return view

    def __call__(self, *arguments: Any) -> Any:
        """Run the program; on traced values, apply the graph's operators to them."""
        arrays = [a if hasattr(a, "shape") else np.asarray(a) for a in trees.leaves(arguments)]
        if innermost(arrays) is not None:
            outputs = list(evaluate_graph(self.graph, *arrays))
        else:
            self._check(arrays)
            with np.errstate(all="ignore"):  # as Op.evaluate has it
                outputs = self._run(arrays)
        if self.graph.output_tree is None:
            return tuple(outputs)
        remaining = iter(outputs)
        return trees.map_leaves(lambda _: next(remaining), self.graph.output_tree)

    def _run(self, arrays: list[Any]) -> list[Any]:
        xp = self._xp
        slots: list[Any] = [None] * self._slots
        slots[: len(self._template)] = self._template
        for index, array in zip(self._inputs, arrays, strict=True):
            slots[index] = array
        for step in self._steps:
            if step.plain:
                given = [slots[a.index] if type(a) is _Slot else a for a in step.arguments]
            else:
                given = [_fetch(a, slots) for a in step.arguments]
            try:
                if step.buffer is not None:
                    result = step.function(xp, *given, out=self._view(*step.buffer))
                else:
                    result = step.function(xp, *given)
            except (ValueError, TypeError, IndexError) as error:  # the contents of an operand, as `Op.evaluate` has it
                raise error if isinstance(error, ZoonetError) else _failed(step, given, error) from error
            if step.single:
                slots[step.outputs[0]] = xp.asarray(result, dtype=step.dtypes[0])
            else:
                for index, item, dtype in zip(step.outputs, result, step.dtypes, strict=True):
                    slots[index] = xp.asarray(item, dtype=dtype)
            for index in step.frees:
                slots[index] = None
        return [
            slots[index].copy() if position in self._constant_outputs else slots[index]
            for position, index in enumerate(self._outputs)
        ]


def _failed(step: _Step, given: list[Any], error: Exception) -> ShapeError:
    shown = ", ".join(f"{a.dtype.name}{list(a.shape)}" if hasattr(a, "dtype") else repr(a) for a in given)
    return ShapeError(f"{step.name} failed on {shown}: {error}")


def _aligned(array: Any) -> Any:
    """The array at an address that suits its type: views of mapped files may lie anywhere, which costs every call."""
    return array.copy() if isinstance(array, np.ndarray) and not array.flags.aligned else array


def _fetch(argument: Any, slots: list[Any]) -> Any:
    if type(argument) is _Slot:
        value = slots[argument.index]
        return value if argument.cast is None else value.astype(argument.cast)
    if isinstance(argument, tuple):
        return tuple([_fetch(item, slots) for item in argument])
    return argument


def compile(graph: Graph, *, device: str = "cpu", optimized: bool = True) -> Program:
    """A program for a graph: passes are run over it (see `ops.passes`), kernels chosen, and buffers planned.

    device: "cpu" or "cuda". optimized=False leaves out every pass but the expansion of composites. Arrays that the
    traced function closed over are constants, which nobody may change afterwards. Raises ArgumentError for what is not
    a graph.
    """
    if not isinstance(graph, Graph):
        raise ArgumentError(
            "compile takes a graph", expected="ops.trace(function, *types)", received=type(graph).__name__
        )
    return Program(optimize(graph, device) if optimized else expand_composites(graph, device), device)
