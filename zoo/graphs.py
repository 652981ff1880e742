"""Imported graphs as networks: a file that holds a whole graph (ONNX, Keras) becomes a `Model` as any other."""

from __future__ import annotations

import json
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import formats, ops
from zoonet.formats.json_data import parse_json, parse_json_object
from zoonet.formats.keras_h5 import has_model
from zoonet.ops.errors import ArgumentError, FormatError, ZoonetError
from zoonet.ops.graph import Graph, Value
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import DType
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module
from zoonet.zoo.tasks import TASKS, make_task

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
        """The last size of the first output, but for (N, classes, 1, 1), as convolutions end."""
        shape = self.outputs[0].shape if self.outputs else None
        if not shape:
            return 0
        size = shape[1] if _is_column(shape) else shape[-1]
        return size if isinstance(size, int) else 0

    @property
    def channels(self) -> int:
        """The second size of the first input, or the last one with channels last."""
        shape = self.inputs[0].shape if self.inputs else None
        size = shape[-1 if self.channels_last else 1] if shape and len(shape) > 1 else None
        return size if isinstance(size, int) else 0


def _is_column(shape: Sequence[Any]) -> bool:
    """Whether a shape is (N, classes, 1, 1), with any number of ones."""
    return len(shape) > 2 and all(size == 1 for size in shape[2:])


class GraphNetwork(Module):
    """A graph as a module. Its parameters are floating weights of the file, under their names.

    parameters, state: the values of these constants by name; state is what training does not change by gradients.
    operators: the names of those that the graph uses, without set and version. classifies: it is used as the zoo's
    classifiers are, so that it takes pictures (N, channels, H, W) and gives scores, the logarithms of what a softmax
    at its end gives. precision: the floating dtype of the whole graph, where that is not as its file says.
    Called on inputs in order, it returns one output, or a tuple of them.
    """

    buffers: tuple[str, ...] = ("state",)
    flat = ("weights", "state")
    data_dependent = True
    precision: DType | None = None

    def __init__(
        self, graph: Graph, config: GraphConfig, parameters: Mapping[str, Value], state: Mapping[str, Value]
    ) -> None:
        self.config: Any = config
        self.classifies = False
        self._ports = config.inputs
        self._results = [port.name for port in config.outputs]
        self.operators = frozenset(n.op.name.split(".")[-1].split("-")[0] for n in graph.nodes)
        self._places = {**parameters, **state}
        self._graph = with_inputs(graph, self._places.values())
        self.weights = {name: graph.constants[value] for name, value in parameters.items()}
        self.state = {name: graph.constants[value] for name, value in state.items()}

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs in the order of the file."""
        if not self.classifies:
            return self.run_graph(*inputs)
        if self.config.channels_last:
            inputs = tuple([ops.moveaxis(x, 1, -1) for x in inputs])
        outputs = self.run_graph(*inputs)
        scores = outputs[0] if isinstance(outputs, tuple) else outputs
        if _is_column(scores.shape):
            scores = ops.reshape(scores, scores.shape[:2])
        return ops.log(ops.maximum(scores, 1e-30)) if self.config.probabilities else scores

    def run_graph(self, *inputs: Any) -> Any:
        """The graph itself, where a class for a task has a `forward` of its own."""
        outputs = self._outputs(inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _outputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return evaluate_graph(self._graph, *inputs, *self._arrays())

    def _arrays(self) -> list[Any]:
        """What the inputs of the graph after its own stand for."""
        return [*self.weights.values(), *self.state.values()]

    def move_state(self, moved: Mapping[str, Any]) -> None:
        """Replace statistics by those that a step of training gave."""
        for name, value in moved.items():  # in the same dict, which `functional_call` puts back as it was
            self.state[name] = self.settled(name, value)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, as texts by name."""
        return {}

    @property
    def ports(self) -> tuple[ValueInfo, ...]:
        """The inputs that a caller gives; a class for a task has a `config` of another kind."""
        return self._ports

    @property
    def results(self) -> list[str]:
        """The names of the outputs."""
        return self._results

    def checkpoint(self, format_name: str) -> formats.Checkpoint | None:
        """What to write for a format: the file with the network's present arrays; None where it is not of weights.

        Raises UnsupportedFormatError for what the format does not have.
        """
        return None


def with_inputs(graph: Graph, constants: Iterable[Value]) -> Graph:
    """A copy of the graph in which some constants are inputs, after its own."""
    copied = graph.copy()
    for value in constants:
        copied.constants.pop(value, None)
        copied.inputs.append(value)
    return copied


@dataclass(frozen=True)
class Imported:
    """A graph from a file, and what the file says of it."""

    network: GraphNetwork
    metadata: dict[str, Any]
    card: Card


def _from_onnx(path: pathlib.Path) -> Imported:
    from zoonet.formats import onnx
    from zoonet.zoo.onnx_graphs import OnnxNetwork

    model = onnx.load(path)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
    notes = f"ONNX graph of {len(model.graph.nodes)} nodes, opset {opsets}" + (
        f", written by {model.producer}" if model.producer else ""
    )
    licence = model.metadata.get("license", "")[:200]  # as ultralytics writes it
    return Imported(OnnxNetwork(model), dict(model.metadata), Card(name=path.name, licence=licence, notes=notes))


def _from_keras(path: pathlib.Path) -> Imported:
    from zoonet.formats import keras
    from zoonet.zoo.keras_graphs import KerasNetwork

    model = keras.load(path)
    notes = [f"Keras {model.version} model of {model.layers} layers, {len(model.graph.nodes)} calls", *model.notes]
    if model.stateful:
        notes.append(
            f"{', '.join(model.stateful[:5])}: stateful in Keras; here each call begins with states of zero, as "
            "Keras's first call does after loading or reset_state(), so give whole sequences in one call"
        )
        warnings.warn(notes[-1], stacklevel=2)
    own = model.source.metadata.get("zoonet")
    metadata = {"zoonet": json.dumps(own)} if isinstance(own, dict) else {}
    return Imported(KerasNetwork(model, metadata), dict(metadata), Card(name=path.name, notes="; ".join(notes)))


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
    """Whether a Keras file is a graph, and not a network of the zoo with its parameters under Keras's names."""
    if format_name == "keras_h5" and not has_model(path):
        return False
    own = formats.read(path).metadata.get("zoonet")
    return own is None or (isinstance(own, dict) and "tensors" not in own)


def load(
    path: pathlib.Path,
    *,
    task: str | None,
    device: str,
    dtype: Any,
    given: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
) -> Model:
    """The model of a file that holds a graph, for the task that the file names if `Model.save` wrote it.

    known: what is known of the file from elsewhere, such as its task and labels. Raises as the importer does, and as
    the task does for what is given.
    """
    from zoonet.zoo.onnx_graphs import OnnxNetwork

    importer = importer_of(path)
    assert importer is not None, "importer_of decides whether a file is loaded here"
    imported = importer(path)
    own = own_config(imported.metadata, path.name)
    if dtype is not None:
        imported.network.to(dtype=dtype)
    purpose = task or own.get("task") or (known or {}).get("task") or _purpose(imported)
    card = imported.card
    if own:
        from zoonet.zoo.storage import read_card

        saved = read_card(own.get("card"), path.name)
        card = Card(**{**vars(saved), "notes": saved.notes or card.notes})
    network = imported.network
    settings = {**_told(imported.metadata), **(known or {}), **own}
    if purpose == "image-classification":
        network.classifies = True
        if network.config.channels_last and not (settings.get("preprocessing") or given.get("preprocessing")):
            raise ArgumentError(
                f"{path.name} does not say how pictures are prepared for it",
                expected="preprocessing beside the task",
                fix="give it as it was in training, preprocessing=zoo.ImagePreprocessing(resize=(height, width), …)"
                ", or --preprocessing",
            )
    if TASKS.get(purpose, ("",))[0].startswith("text.") and isinstance(network, OnnxNetwork):
        from zoonet.zoo.text import graphs as text_graphs

        network, settings, given = text_graphs.prepared(network, purpose, own, path.name, given)
    made = make_task(purpose, settings, network, "graph", path.name, given)
    return Model(network, "graph", made, card=card, device=device)


def _told(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of itself; labels and preprocessing, which are JSON in it, as data, or not at all."""
    result = dict(metadata)
    for key, kind in (("labels", list), ("preprocessing", dict)):
        if isinstance(result.get(key), str):
            try:
                result[key] = parse_json(result[key].encode("utf-8", "surrogatepass"), key)
            except FormatError:
                result[key] = None
        if not isinstance(result.get(key), kind) or not all(isinstance(item, str) for item in result[key]):
            result.pop(key, None)
    return result


def _purpose(imported: Imported) -> str:
    """The task of a graph, where its outputs tell it."""
    from zoonet.zoo.detection.exports import is_detector

    network = imported.network
    return "object-detection" if is_detector(network.config, imported.metadata, network.operators) else "arrays"


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
