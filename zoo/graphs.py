"""Imported graphs as networks: a file that holds a whole graph (ONNX) becomes a `Model` as any other."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import formats
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import FormatError, ZoonetError
from zoonet.ops.graph import Graph, Value
from zoonet.ops.tracing import evaluate_graph
from zoonet.zoo.graph_training import TrainingGraph, inference_graph, training_graph
from zoonet.zoo.graph_weights import weights_of
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module
from zoonet.zoo.tasks import TASKS, make_task

if TYPE_CHECKING:
    from zoonet.formats.onnx import Draft, OnnxModel, ValueInfo

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
    """A graph as a module. Its parameters are floating weights of the file, under their names; see `weights_of`.

    Called on inputs in order, it returns one output, or a tuple of them. It runs as the file
    says until `train` or `eval` is called: then batch norm uses the batch and moves its statistics, and dropout drops,
    by a key that each call changes; or neither does.
    """

    buffers = ("state", "dropout_key")
    hidden = ("dropout_key",)
    flat = ("weights", "state")
    data_dependent = True

    def __init__(self, model: OnnxModel) -> None:
        model, parameters, state = weights_of(model)
        self.config: Any = GraphConfig(tuple(info for info in model.inputs if not info.optional), model.outputs)
        self._model = model
        self._places = {**parameters, **state}
        self._graph = model.graph.copy()
        self._graph.inputs += self._places.values()
        constants = self._graph.constants
        self.weights = {name: constants.pop(value) for name, value in parameters.items()}
        self.state = {name: constants.pop(value) for name, value in state.items()}
        self._mode: bool | None = None
        self._training: TrainingGraph | None = None
        self._inference: Graph | None = None
        if any(node.op.name.startswith("onnx.Dropout-") for node in self._graph.nodes):
            self.dropout_key = np.zeros(2, np.uint32)

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs in the order of the file."""
        return self.run_graph(*inputs)

    def run_graph(self, *inputs: Any) -> Any:
        """The graph itself, where a class for a task has a `forward` of its own."""
        values = (*inputs, *self.weights.values(), *self.state.values())
        outputs = self._trained(values) if self.training else evaluate_graph(self._inferring(), *values)
        return outputs[0] if len(outputs) == 1 else outputs

    def _inferring(self) -> Graph:
        """The graph that runs outside of training."""
        if self._mode is None:
            return self._graph
        if self._inference is None:
            self._inference = inference_graph(self._graph, self._statistics())
        return self._inference

    def _trained(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._training is None:
            self._training = training_graph(self._graph, self._statistics())
        outputs, moved, key = self._training.run(values, vars(self).get("dropout_key"))
        self.state.update(moved)
        if key is not None:
            self.dropout_key = key
        return outputs

    def _statistics(self) -> dict[Value, str]:
        return {value: name for name, value in self._places.items() if name in self.state}

    @property
    def training(self) -> bool:
        """Whether the graph trains, whatever its file says."""
        return self._mode is True

    @training.setter
    def training(self, mode: bool) -> None:
        self._mode = bool(mode)

    @property
    def as_file(self) -> bool:
        """Whether it runs as its file says, since neither `train` nor `eval` was called."""
        return self._mode is None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata_props of the file."""
        return dict(self._model.metadata)

    @property
    def opset(self) -> int | None:
        """The opset of the file, None where it has no operators of ONNX proper."""
        return self._model.opsets.get("")

    @property
    def ports(self) -> tuple[ValueInfo, ...]:
        """The inputs that a caller gives."""
        return tuple(info for info in self._model.inputs if not info.optional)

    @property
    def results(self) -> list[str]:
        """The names of the outputs."""
        return [info.name for info in self._model.outputs]

    def draft(self, metadata: Mapping[str, str]) -> Draft:
        """The graph as an ONNX model as it was read, with the weights that the network has now."""
        from zoonet.formats import onnx

        model = self._model
        arrays = {**self.weights, **self.state}
        return onnx.rewrite(
            model.graph,
            model.inputs,
            model.outputs,
            model.opsets,
            {value: arrays[name] for name, value in self._places.items()},
            metadata=metadata,
            description=model.description,
            ir_version=model.ir_version,
        )


@dataclass(frozen=True)
class Imported:
    """A graph from a file, and what the file says of it."""

    network: GraphNetwork
    metadata: dict[str, Any]
    card: Card


def _from_onnx(path: pathlib.Path) -> Imported:
    from zoonet.formats import onnx

    model = onnx.load(path)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
    notes = f"ONNX graph of {len(model.graph.nodes)} nodes, opset {opsets}" + (
        f", written by {model.producer}" if model.producer else ""
    )
    return Imported(GraphNetwork(model), dict(model.metadata), Card(name=path.name, notes=notes))


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


def load(
    path: pathlib.Path,
    *,
    task: str | None,
    device: str,
    dtype: Any,
    given: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
) -> Model:
    """The model of a file that holds a graph, for the task that the file names if `Model.save` wrote it.

    config: what is known of the file from elsewhere, such as labels, for a task that uses it. Raises as the importer
    does, and as the task does for what is given.
    """
    importer = importer_of(path)
    assert importer is not None, "importer_of decides whether a file is loaded here"
    imported = importer(path)
    own = own_config(imported.metadata, path.name)
    if dtype is not None:
        imported.network.to(dtype=dtype)
    purpose = task or own.get("task") or "arrays"
    card = imported.card
    if own:
        from zoonet.zoo.storage import read_card

        saved = read_card(own.get("card"), path.name)
        card = Card(**{**vars(saved), "notes": saved.notes or card.notes})
    network = imported.network
    settings = {**(own or imported.metadata), **(config or {})}
    if TASKS.get(purpose, ("",))[0].startswith("text."):
        from zoonet.zoo.text import graphs as text_graphs

        network, settings, given = text_graphs.prepared(network, purpose, own, path.name, given)
    made = make_task(purpose, settings, network, "graph", path.name, given)
    return Model(network, "graph", made, card=card, device=device)


def own_config(metadata: Mapping[str, str], file: str) -> dict[str, Any]:
    """What `Model.save` wrote of the task; empty for a file of another origin. Raises FormatError."""
    text = metadata.get("zoonet")
    if text is None:
        return {}
    config = dict(parse_json_object(text.encode("utf-8", "surrogatepass"), f"the metadata of {file}"))
    kinds: dict[str, type] = {"task": str, "preprocessing": dict, "labels": list, "card": dict, "config": dict}
    kinds |= {"tokenizer": str, "padding": int, "special_tokens": dict, "chat_template": str}
    fits = all(isinstance(config.get(key, kind()), kind) for key, kind in kinds.items())
    texts = [*config.get("labels", []), *config.get("special_tokens", {}).values()] if fits else []
    if not fits or not all(isinstance(text, str) for text in texts):
        raise FormatError(f"the metadata of {file} is malformed", fix='load it as a plain graph, task="arrays"')
    return config


def named_arrays(inputs: Any) -> Any:
    """Arrays by name from an .npz file, one array from an .npy file; anything else as it is."""
    if isinstance(inputs, str | pathlib.Path):
        found = {name: np.asarray(tensor.load()) for name, tensor in formats.read(inputs, format="npz").items()}
        return next(iter(found.values())) if len(found) == 1 else found
    return inputs
