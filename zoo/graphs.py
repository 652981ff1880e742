"""Imported graphs as networks: a file that holds a whole graph (ONNX, Keras) becomes a `Model` as any other."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import formats, ops
from zoonet.formats.keras_h5 import has_model
from zoonet.ops.errors import ArgumentError, ZoonetError
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
    """What a graph takes and gives; classes and channels are those of its first output and input, 0 where unknown.

    channels_last: pictures are (N, H, W, channels). probabilities: the first output is a softmax, where that is known.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    channels_last: bool = False
    probabilities: bool = False

    @property
    def classes(self) -> int:
        """The last size of the first output."""
        shape = self.outputs[0].shape if self.outputs else None
        return shape[-1] if shape and isinstance(shape[-1], int) else 0

    @property
    def channels(self) -> int:
        """The second size of the first input, or the last one with channels last."""
        shape = self.inputs[0].shape if self.inputs else None
        place = -1 if self.channels_last else 1
        size = shape[place] if shape and len(shape) > 1 else None
        return size if isinstance(size, int) else 0


@dataclass(frozen=True)
class Training:
    """A graph as it is in training, where that differs: the same inputs and constants.

    updates: names of the state that the last outputs of the graph replace. random: the last input is a random key.
    """

    graph: Graph
    updates: Sequence[str] = ()
    random: bool = False


class GraphNetwork(Module):
    """A graph as a module. Its parameters are floating constants of the graph, under their names in the file.

    parameters, state: the values of these constants by name; state is what training does not change by gradients.
    training: what the module computes in training mode, where that differs; `key` is then the random key of the next
    call. rewrite: from arrays by name to the file with them in the place of its own, where it can be written. Called
    on inputs in order, it returns one output, or a tuple of them. classifies: it is used as the zoo's classifiers are,
    so that it takes pictures (N, channels, H, W) and gives scores, the logarithms of what a softmax at its end gives.
    """

    buffers = ("state", "key")
    hidden = ("key",)
    flat = ("weights", "state")
    data_dependent = True

    def __init__(
        self,
        graph: Graph,
        config: GraphConfig,
        parameters: Mapping[str, Value],
        state: Mapping[str, Value],
        training: Training | None = None,
        rewrite: Callable[[Mapping[str, Any], str], formats.Checkpoint] | None = None,
    ) -> None:
        self.config = config
        self.classifies = False
        self._rewrite = rewrite
        constants = [*parameters.values(), *state.values()]
        self._graph = _with_inputs(graph, constants)
        self._training = training
        if training is not None:
            self._training_graph = _with_inputs(training.graph, constants)
            if training.random:
                self.key = ops.random_key(0)
        self.weights = {name: graph.constants[value] for name, value in parameters.items()}
        self.state = {name: graph.constants[value] for name, value in state.items()}

    def checkpoint(self, format_name: str) -> formats.Checkpoint | None:
        """What to write for a format: the file with the network's present arrays; None where it cannot be written.

        Raises UnsupportedFormatError for what the format does not have.
        """
        if self._rewrite is None:
            return None
        arrays = {name: ops.to_device(array, "cpu") for name, array in self.state_dict().items()}
        return self._rewrite(arrays, format_name)

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs in the order of the file."""
        constants = [*self.weights.values(), *self.state.values()]
        if self.classifies and self.config.channels_last:
            inputs = tuple(ops.moveaxis(x, 1, -1) for x in inputs)
        if self.training and self._training is not None:
            outputs = self._train(inputs, constants, self._training)
        else:
            outputs = evaluate_graph(self._graph, *inputs, *constants)
        if self.classifies and self.config.probabilities:
            return ops.log(ops.maximum(outputs[0], 1e-30))
        return outputs[0] if len(outputs) == 1 else outputs

    def _train(self, inputs: tuple[Any, ...], constants: list[Any], training: Training) -> tuple[Any, ...]:
        """The outputs in training; new statistics and the next random key are assigned."""
        keys: list[Any] = []
        if training.random:
            self.key, used = ops.unstack(ops.random_split(self.key), 0)
            keys = [used]
        outputs = evaluate_graph(self._training_graph, *inputs, *keys, *constants)
        count = len(outputs) - len(training.updates)
        for name, value in zip(training.updates, outputs[count:], strict=True):
            self.state[name] = value
        return outputs[:count]


def _with_inputs(graph: Graph, constants: Sequence[Value]) -> Graph:
    """A copy of the graph in which some constants are inputs, after its own."""
    copied = graph.copy()
    for value in constants:
        copied.constants.pop(value, None)
    copied.inputs += constants
    return copied


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


def _from_keras(path: pathlib.Path) -> Imported:
    from zoonet.formats import keras

    model = keras.load(path)
    network = GraphNetwork(
        model.graph,
        GraphConfig(model.inputs, model.outputs, model.channels_last, model.probabilities),
        model.weights,
        model.state,
        Training(model.training, model.updates, model.random),
        model.checkpoint,
    )
    notes = [f"Keras {model.version} model of {model.layers} layers, {len(model.graph.nodes)} calls", *model.notes]
    return Imported(network, {}, Card(name=path.name, notes="; ".join(notes)))


#: By the name of a format of `zoonet.formats`: what reads a graph from a file of it.
_IMPORTERS: dict[str, Callable[[pathlib.Path], Imported]] = {
    "onnx": _from_onnx,
    "keras": _from_keras,
    "keras_h5": _from_keras,
}


def importer_of(path: pathlib.Path) -> Callable[[pathlib.Path], Imported] | None:
    """What reads a graph from this file; None for a folder, and for a file that holds no graph."""
    if path.is_dir():
        return None
    try:
        name = formats.detect(path).name
        if name in ("keras", "keras_h5") and not _is_keras_model(path, name):
            return None
        return _IMPORTERS.get(name)
    except ZoonetError:
        return None


def _is_keras_model(path: pathlib.Path, format_name: str) -> bool:
    """Whether a Keras file is a model that is no network of the zoo, saved by zoonet."""
    if format_name == "keras_h5" and not has_model(path):
        return False
    return "zoonet" not in formats.read(path).metadata


def load(
    path: pathlib.Path,
    *,
    task: str | None,
    device: str,
    dtype: Any,
    given: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> Model:
    """The model of a file that holds a graph. Raises as the importer does, and as the task does for what is given.

    config: what is known of the file from elsewhere, such as labels, for a task that uses it.
    """
    importer = importer_of(path)
    assert importer is not None, "importer_of decides whether a file is loaded here"
    imported = importer(path)
    if dtype is not None:
        imported.network.to(dtype=dtype)
    known = {**imported.metadata, **(config or {})}
    if task == "image-classification":
        imported.network.classifies = True
        if imported.network.config.channels_last and not (known.get("preprocessing") or given.get("preprocessing")):
            raise ArgumentError(
                f"{path.name} does not say how pictures are prepared for it",
                expected="preprocessing beside the task",
                fix="give it as it was in training, preprocessing=zoo.ImagePreprocessing(resize=(height, width), …)",
            )
    made = make_task(task or "arrays", known, imported.network, "graph", path.name, given)
    return Model(imported.network, "graph", made, card=imported.card, device=device)


def named_arrays(inputs: Any) -> Any:
    """Arrays by name from an .npz file, one array from an .npy file; anything else as it is."""
    if isinstance(inputs, str | pathlib.Path):
        found = {name: np.asarray(tensor.load()) for name, tensor in formats.read(inputs, format="npz").items()}
        return next(iter(found.values())) if len(found) == 1 else found
    return inputs
