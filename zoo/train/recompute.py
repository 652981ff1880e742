"""Gradient checkpointing (Chen et al., 2016): blocks are computed again for their gradients, not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zoonet import ops
from zoonet.ops import Array
from zoonet.ops.errors import ArgumentError
from zoonet.zoo.modules import Module, functional_call, keyed_by, next_key

__all__ = ["blocks_of", "recomputing"]


class Segment:
    """A block as a function of arrays: (key, its own arrays in the order of `names`, inputs) -> (output, new state).

    state: the names of the new state, once it was called.
    """

    def __init__(self, module: Module, names: tuple[str, ...]) -> None:
        self.module, self.names = module, names
        self.state: tuple[str, ...] = ()

    def __call__(self, *operands: Array) -> tuple[Array, ...]:
        """Run the block."""
        key, own, inputs = operands[0], operands[1 : 1 + len(self.names)], operands[1 + len(self.names) :]
        with keyed_by(key):
            values = dict(zip(self.names, own, strict=True))
            output, state = functional_call(self.module, values, *inputs, function=self.module.forward)
        self.state = tuple(state)
        return (output, *state.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segment) and self.module is other.module and self.names == other.names

    def __hash__(self) -> int:
        return hash((id(self.module), self.names))


@ops.op(name="zoo.recomputed", exact=True)
def recomputed(xp: Any, operands: Sequence[Array], segment: Segment) -> tuple[Array, ...]:
    """segment(*operands), whose gradient calls the segment again. Any operands -> what the segment gives."""
    return segment(*operands)


@recomputed.type
def _(operands: Any, segment: Segment) -> Any:
    return tuple([value.type for value in ops.trace(segment, *operands).outputs])


@recomputed.vjp
def _(gy: Any, _y: Any, operands: Any, segment: Segment) -> Any:
    return (list(ops.vjp(segment, *operands)[1](gy)),)


def blocks_of(network: Module) -> list[Module]:
    """The outermost modules in lists or sequences that consist of several layers: blocks of a stage or of a stack.

    Raises ArgumentError where a network has none.
    """
    found: dict[str, Module] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        layers = sum(1 for _, below in module.named_modules() if below is not module and list(below.named_parameters()))
        if name.rpartition(".")[2].isdigit() and layers > 1 and not inside:
            found[name] = module
    if not found:
        raise ArgumentError("the network has no blocks that could be computed twice", fix="leave out checkpointing")
    return list(found.values())


def recomputing(network: Module) -> Callable[[Module, tuple[Any, ...]], Any]:
    """An observer for `observed_by` under which the blocks of a network are recomputed for their gradients.

    Blocks that are called on anything but arrays are left alone.
    """
    chosen = {id(block) for block in blocks_of(network)}

    def call(module: Module, inputs: tuple[Any, ...]) -> Any:
        if id(module) not in chosen or not all(hasattr(x, "dtype") for x in inputs):
            return module.forward(*inputs)
        slots = module.slots()
        segment = Segment(module, tuple(slots))
        values = [slot.get() for slot in slots.values()]
        output, *state = recomputed((next_key(), *values, *inputs), segment)
        if len(segment.state) != len(state):  # the types were remembered, and the segment was not called
            segment.state = tuple(n for n, s in slots.items() if s.is_buffer)[: len(state)]
        for name, array in zip(segment.state, state, strict=True):
            slots[name].set(array)
        return output

    return call
