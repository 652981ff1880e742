"""Gradient checkpointing (Chen et al., 2016): blocks are computed again for their gradients, not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zoonet import ops
from zoonet.ops import Array, trees
from zoonet.ops.errors import ArgumentError, TraceError
from zoonet.ops.graph import Graph
from zoonet.ops.tracing import evaluate_graph
from zoonet.zoo.modules import Module, keys_taken, take_keys_again
from zoonet.zoo.train.updates import Names, matches

__all__ = ["blocks_of", "recomputing"]


class Segment:
    """A block as a function of arrays: its inputs, then what it closes over -> its outputs. graph: of that."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, *operands: Array) -> tuple[Array, ...]:
        """Run the block."""
        count = len(self.graph.inputs)
        constants = dict(zip(self.graph.constants, operands[count:], strict=True))
        return evaluate_graph(self.graph, *operands[:count], constants=constants)


@ops.op(name="zoo.recomputed", exact=True)
def recomputed(xp: Any, operands: Sequence[Array], segment: Segment) -> tuple[Array, ...]:
    """segment(*operands), whose gradient calls the segment again. Any operands -> what the segment gives."""
    return tuple([xp.array(y) if _is_view(y, operands) else y for y in segment(*operands)])


def _is_view(array: Array, operands: Sequence[Array]) -> bool:
    """Whether an array may lie in the memory of an operand, which a compiled program uses again."""
    return getattr(array, "base", None) is not None or any(array is operand for operand in operands)


@recomputed.type
def _(operands: Any, segment: Segment) -> Any:
    return tuple([value.type for value in segment.graph.outputs])


@recomputed.vjp
def _(gy: Any, _y: Any, operands: Any, segment: Segment) -> Any:
    return (list(ops.vjp(segment, *operands)[1](gy)),)


def blocks_of(network: Module, names: bool | Names = True) -> list[Module]:
    """The modules that are computed twice, the outermost of those that fit.

    names: True for the blocks of stages and stacks (modules in lists or sequences that consist of several layers), or,
    where there are none, for the network's parts of several layers; or patterns of names. Raises ArgumentError where
    nothing fits.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    several = [
        name
        for name, module in modules.items()
        if sum(1 for _, below in module.named_modules() if below is not module and list(below.named_parameters())) > 1
    ]
    if names is True:
        fitting = [name for name in several if name.rpartition(".")[2].isdigit()] or several
    else:
        fits = matches(names)  # type: ignore[arg-type]
        fitting = [name for name in modules if fits(name)]
    if not fitting:
        raise ArgumentError(
            "the network has no blocks that could be computed twice",
            expected="modules of several layers" if names is True else f"names such as {', '.join([*modules][:4])}",
            received=type(network).__name__ if names is True else repr(names),
            fix='leave out gradient_checkpointing, or name modules: gradient_checkpointing="features.*"',
        )
    chosen = set(fitting)
    return [modules[name] for name in fitting if not any(above in chosen for above in _above(name))]


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def recomputing(
    network: Module, names: bool | Names = True
) -> Callable[[Module, tuple[Any, ...], dict[str, Any]], Any]:
    """An observer for `observed_by` under which blocks of a network are recomputed for their gradients.

    What a block takes beside arrays (a mask in an object, a function, a cache) it closes over, and gradients go there
    too. A block that looks at the contents of arrays, and so cannot be traced, is kept as usual.
    """
    chosen = {id(block) for block in blocks_of(network, names)}

    def call(module: Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if id(module) not in chosen:
            return module.forward(*inputs, **keywords)
        given = (inputs, keywords)
        arrays = [leaf for leaf in trees.leaves(given) if hasattr(leaf, "dtype")]
        if not arrays:
            return module.forward(*inputs, **keywords)
        taken = keys_taken()
        try:
            graph, changed = _traced(module, given, arrays)
        except TraceError:
            take_keys_again(taken)
            return module.forward(*inputs, **keywords)
        output, state = _recomputed(graph, arrays)
        slots = module.slots()
        for name, array in zip(changed, state, strict=True):
            slots[name].set(array)
        return output

    return call


def _recomputed(graph: Graph, arrays: list[Array]) -> Any:
    """What the graph of a block gives, in its containers; inputs and constants among that are not computed."""
    places = list(graph.outputs)
    values: dict[Any, Any] = {**graph.constants, **dict(zip(graph.inputs, arrays, strict=True))}
    graph.outputs = [value for value in dict.fromkeys(places) if value not in values]
    if graph.outputs:
        results = recomputed((*arrays, *graph.constants.values()), Segment(graph))
        values.update(zip(graph.outputs, results, strict=True))
    following = iter(places)
    return trees.map_leaves(lambda _: values[next(following)], graph.output_tree)


def _traced(module: Module, given: tuple[Any, ...], arrays: list[Array]) -> tuple[Graph, list[str]]:
    """The graph of a block by the arrays among its inputs, giving (output, new buffers), and the buffers' names.

    Traced values from outside, such as its parameters, are constants of the graph.
    """
    slots = {name: slot for name, slot in module.slots().items() if slot.is_buffer}
    before = {name: slot.get() for name, slot in slots.items()}
    changed: list[str] = []

    def block(*operands: Array) -> Any:
        following = iter(operands)
        inputs, keywords = trees.map_leaves(lambda x: next(following) if hasattr(x, "dtype") else x, given)
        output = module.forward(*inputs, **keywords)
        changed[:] = [name for name, slot in slots.items() if slot.get() is not before[name]]
        return output, [slots[name].get() for name in changed]

    try:
        return ops.trace(block, *arrays), changed
    finally:
        for name, slot in slots.items():
            slot.set(before[name])
