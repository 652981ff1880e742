"""Graph passes: each is one file with one function from graph to graph, and says before and after in its docstring."""

from __future__ import annotations

from zoonet.ops.graph import Graph
from zoonet.ops.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from zoonet.ops.passes.eliminate_dead_code import eliminate_dead_code
from zoonet.ops.passes.expand_composites import expand_composites
from zoonet.ops.passes.fold_batch_norm import fold_batch_norm
from zoonet.ops.passes.fold_constants import fold_constants
from zoonet.ops.passes.plan_memory import MemoryPlan, plan_memory
from zoonet.ops.passes.sink_transposes import sink_transposes

__all__ = [
    "MemoryPlan",
    "eliminate_common_subexpressions",
    "eliminate_dead_code",
    "expand_composites",
    "fold_batch_norm",
    "fold_constants",
    "optimize",
    "plan_memory",
    "sink_transposes",
]


def optimize(graph: Graph, device: str = "cpu") -> Graph:
    """The passes that `compile` runs, in their order."""
    graph = eliminate_dead_code(graph)
    graph = expand_composites(graph, device)
    graph = fold_constants(graph)
    graph = eliminate_dead_code(sink_transposes(graph))
    graph = fold_batch_norm(graph)
    graph = eliminate_common_subexpressions(graph)
    return eliminate_dead_code(graph)
