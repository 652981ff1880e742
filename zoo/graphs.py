"""Imported graphs as networks: a file that holds a whole graph (ONNX) becomes a `Model` as any other."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import formats
from zoonet.ops.errors import ZoonetError
from zoonet.ops.graph import Graph, Value
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import is_floating
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module
from zoonet.zoo.tasks import make_task

if TYPE_CHECKING:
    from zoonet.formats.onnx import ValueInfo

__all__ = ["GraphConfig", "GraphNetwork", "importer_of", "load"]


@dataclass(frozen=True)
class GraphConfig:
    """What a graph takes and gives; classes and channels are those of its first output and input, 0 where unknown."""

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]

    @property
    def classes(self) -> int:
        """The last size of the first output."""
        shape = self.outputs[0].shape if self.outputs else None
        return shape[-1] if shape and isinstance(shape[-1], int) else 0

    @property
    def channels(self) -> int:
        """The second size of the first input."""
        shape = self.inputs[0].shape if self.inputs else None
        return shape[1] if shape and len(shape) > 1 and isinstance(shape[1], int) else 0


class GraphNetwork(Module):
    """A graph as a module. Its parameters are floating constants of the graph, under their names in the file.

    parameters, state: the values of these constants by name; state is what training does not change by gradients.
    operators: the ONNX names of those that the graph uses, without versions.
    Called on inputs in order, it returns one output, or a tuple of them.
    """

    buffers = ("state",)
    flat = ("weights", "state")
    data_dependent = True

    def __init__(
        self, graph: Graph, config: GraphConfig, parameters: Mapping[str, Value], state: Mapping[str, Value]
    ) -> None:
        self.config = config
        self.operators = frozenset(n.op.name.split(".")[-1].split("-")[0] for n in graph.nodes)
        self._graph = graph.copy()
        self._graph.inputs += [*parameters.values(), *state.values()]
        self.weights = {name: self._graph.constants.pop(value) for name, value in parameters.items()}
        self.state = {name: self._graph.constants.pop(value) for name, value in state.items()}

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs in the order of the file."""
        outputs = evaluate_graph(self._graph, *inputs, *self.weights.values(), *self.state.values())
        return outputs[0] if len(outputs) == 1 else outputs


@dataclass(frozen=True)
class Imported:
    """A graph from a file, and what the file says of it."""

    network: GraphNetwork
    metadata: dict[str, Any]
    card: Card


def _from_onnx(path: pathlib.Path) -> Imported:
    from zoonet.formats import onnx

    model = onnx.load(path)

    config = GraphConfig(tuple(info for info in model.inputs if not info.optional), model.outputs)
    statistics = {
        value
        for node in model.graph.nodes
        if node.op.name.startswith("onnx.BatchNormalization-")
        for value in list(node.arguments.values())[3:5]
        if isinstance(value, Value)
    }
    floating = {
        name: value
        for name, value in model.initializers.items()
        if value in model.graph.constants and is_floating(model.graph.constants[value].dtype)
    }
    network = GraphNetwork(
        model.graph,
        config,
        {name: value for name, value in floating.items() if value not in statistics},
        {name: value for name, value in floating.items() if value in statistics},
    )
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
    notes = f"ONNX graph of {len(model.graph.nodes)} nodes, opset {opsets}" + (
        f", written by {model.producer}" if model.producer else ""
    )
    return Imported(network, dict(model.metadata), Card(name=path.name, notes=notes))


#: By the name of a format of `zoonet.formats`: what reads a graph from a file of it.
_IMPORTERS: dict[str, Callable[[pathlib.Path], Imported]] = {"onnx": _from_onnx}


def importer_of(path: pathlib.Path) -> Callable[[pathlib.Path], Imported] | None:
    """What reads a graph from this file; None for a folder, and for a file that holds no graph."""
    if path.is_dir():
        return None
    try:
        return _IMPORTERS.get(formats.detect(path).name)
    except ZoonetError:
        return None


def load(path: pathlib.Path, *, task: str | None, device: str, dtype: Any, given: Mapping[str, Any]) -> Model:
    """The model of a file that holds a graph. Raises as the importer does, and as the task does for what is given."""
    importer = importer_of(path)
    assert importer is not None, "importer_of decides whether a file is loaded here"
    imported = importer(path)
    if dtype is not None:
        imported.network.to(dtype=dtype)
    made = make_task(task or _purpose(imported), imported.metadata, imported.network, "graph", path.name, given)
    return Model(imported.network, "graph", made, card=imported.card, device=device)


def _purpose(imported: Imported) -> str:
    """The task of a graph, where its outputs tell it."""
    from zoonet.zoo.detection.exports import is_detector

    network = imported.network
    return "object-detection" if is_detector(network.config, imported.metadata, network.operators) else "arrays"


def named_arrays(inputs: Any) -> Any:
    """Arrays by name from an .npz file, one array from an .npy file; anything else as it is."""
    if isinstance(inputs, str | pathlib.Path):
        found = {name: np.asarray(tensor.load()) for name, tensor in formats.read(inputs, format="npz").items()}
        return next(iter(found.values())) if len(found) == 1 else found
    return inputs
