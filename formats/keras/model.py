"""A Keras model read from a file: its graph, what it takes and gives, and its weights by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import Checkpoint, as_lazy
from zoonet.formats.files import check_path
from zoonet.formats.keras.config import LayerConfig, parse_model, references
from zoonet.formats.keras.dialects import edited, generation
from zoonet.formats.keras.modern import legacy_checkpoint, modern_checkpoint
from zoonet.formats.keras.reader import GraphBuilder, Tensor
from zoonet.formats.keras.slots import Slot, all_layers, assign_legacy, assign_tree, walk_slots
from zoonet.formats.keras.types import InputInfo, infer_types
from zoonet.formats.onnx.values import ValueInfo
from zoonet.formats.registry import read
from zoonet.ops.errors import FormatError, UnsupportedFormatError, ZoonetError
from zoonet.ops.graph import Graph, Value, values_in
from zoonet.ops.sets.keras.augmentation import UNCHANGED
from zoonet.ops.types import TensorType, as_dtype, is_floating

__all__ = ["KerasModel", "from_checkpoint", "load"]

#: What of a file's metadata is the configuration of its model.
_CONFIGS = ("config", "model_config")


@dataclass(eq=False)
class KerasModel:
    """A model read from a Keras file.

    graph: takes the inputs in order, in inference. weights, state: its floating constants by name, as "conv/kernel";
    state is what training does not change by gradients: moving statistics, and weights of frozen layers.
    training: the same model in training, over the same constants; its last outputs are `updates` (names of the state
    that they replace), and its last input is a random key if `random`. notes: what the file says that is not kept.
    stateful: layers that carry their state from one call to the next in Keras; here each call begins with zeros, as
    Keras's first one after loading does.
    channels_last: the first input is pictures (N, H, W, C). probabilities: the first output is a softmax.
    source, stored: the file, and the name of each weight in it. tree, slots: its configuration, and the weights of each
    layer. owners: the layer of a node of `graph`, by its id.
    """

    name: str
    graph: Graph
    training: Graph
    inputs: tuple[InputInfo, ...]
    outputs: tuple[ValueInfo, ...]
    weights: dict[str, Value]
    state: dict[str, Value]
    updates: tuple[str, ...]
    random: bool
    version: str
    layers: int
    notes: list[str] = field(default_factory=list)
    channels_last: bool = False
    probabilities: bool = False
    source: Checkpoint = field(default_factory=lambda: Checkpoint({}))
    stored: dict[str, str] = field(default_factory=dict)
    tree: LayerConfig | None = None
    slots: list[Slot] = field(default_factory=list)
    stateful: tuple[str, ...] = ()
    owners: dict[int, LayerConfig] = field(default_factory=dict)

    def checkpoint(
        self, arrays: Mapping[str, Any], format_name: str | None = None, graph: Graph | None = None
    ) -> Checkpoint:
        """The file that the model was read from with other arrays, for `formats.write`: after training, say.

        arrays: by name, as in `arrays`; those left out stay as they are. format_name: "keras" or "keras_weights" for
        what Keras 3 has in the place of a legacy file, "keras_h5" for a .keras file as a whole .h5. graph: a copy of
        the model's own with other options of layers, as those of a head for other classes, which the file then says.
        What belongs to an optimizer is left out. Raises UnsupportedFormatError for weights of Keras 1 in their own
        format, which keeps them otherwise, and for a new shape of a weight that no option of its layer says.
        """
        changes = {} if graph is None else self._changes(graph)
        self._check_shapes(arrays, changes)
        source, tree = self.source, self.tree
        metadata = {key: edited(value, changes) if key in _CONFIGS else value for key, value in source.metadata.items()}
        if format_name in ("keras", "keras_weights") and source.format == "keras_h5" and tree is not None:
            return modern_checkpoint(tree, self.slots, arrays, changes)
        if format_name == "keras_h5" and source.format == "keras" and tree is not None:
            return legacy_checkpoint(tree, self.slots, arrays, metadata["config"], self.version)
        tensors: dict[str, Any] = dict(source)
        for name, array in arrays.items():
            if name not in self.stored:
                raise UnsupportedFormatError(
                    f"the weight {name!r} cannot be written back", expected=", ".join(list(self.stored)[:5])
                )
            tensors[self.stored[name]] = as_lazy(array)
        left_out = ("optimizer", "training_config")
        metadata = {key: value for key, value in metadata.items() if key not in left_out}
        if isinstance(metadata.get("config"), dict):
            metadata["config"] = {k: v for k, v in metadata["config"].items() if k != "compile_config"}
        return Checkpoint(tensors, metadata, source.format)

    def _changes(self, graph: Graph) -> dict[int, dict[str, Any]]:
        """In which options of layers a copy of the model's graph differs from it; see `Changes`."""
        changes: dict[int, dict[str, Any]] = {}
        for node, own in zip(graph.nodes, self.graph.nodes, strict=True):
            other = {
                k: v for k, v in node.arguments.items() if not any(True for _ in values_in(v)) and v != own.arguments[k]
            }
            if other and (layer := self.owners.get(id(own))) is not None:
                changes.setdefault(id(layer.entry), {}).update(other)
        return changes

    def _check_shapes(self, arrays: Mapping[str, Any], changes: Mapping[int, Any]) -> None:
        """Raise UnsupportedFormatError for an array of another shape than the file's where no option says so."""
        for slot in self.slots:
            given, constant = arrays.get(slot.name), slot.constant
            if given is None or constant is None or tuple(given.shape) == constant[0].type.shape:
                continue
            if id(slot.layer.entry) not in changes:
                raise UnsupportedFormatError(
                    f"the weight {slot.name!r} has another shape, and no option of its {slot.layer.class_name} says so",
                    expected=list(constant[0].type.shape),
                    received=list(given.shape),
                    fix="write .onnx",
                )

    def arrays(self) -> dict[str, Any]:
        """The weights and the state by name."""
        return {name: self.graph.constants[value] for name, value in {**self.weights, **self.state}.items()}


def load(path: str | os.PathLike[str]) -> KerasModel:
    """Read a whole model: a legacy .h5 with a configuration (Keras 1, 2, tf.keras or 3), or a .keras archive.

    Raises MissingFileError, FormatError, UnsupportedFormatError (a layer that is not known, a Lambda, a subclassed
    model), UnsafeFileError.
    """
    file = check_path(path)
    return from_checkpoint(read(file), Path(file).name)


def from_checkpoint(checkpoint: Checkpoint, file: str = "the file") -> KerasModel:
    """The model of a checkpoint that `formats.read` gave for a whole model. Raises as `load` does."""
    metadata = checkpoint.metadata
    legacy = isinstance(metadata.get("model_config"), dict)
    config = metadata.get("model_config") if legacy else metadata.get("config")
    if not isinstance(config, dict):
        raise UnsupportedFormatError(
            f"{file} has weights only, and no model",
            expected="model_config in an .h5 file, or config.json in a .keras file",
            fix="name the architecture, load(path, arch=…), or save the whole model",
        )
    described = metadata.get("keras_metadata")
    version = metadata.get("keras_version") if legacy else None
    if isinstance(described, dict):
        version = described.get("keras_version")
    version = version if isinstance(version, str) else "1" if legacy else "3"
    try:
        model = parse_model(config, generation(version))
        slots = list(walk_slots(model))
        unused = assign_legacy(model, slots, checkpoint, metadata) if legacy else assign_tree(slots, checkpoint)
    except RecursionError:
        raise FormatError(f"{file}: the configuration is nested too deeply") from None
    notes = [f"weights that no layer takes: {', '.join(unused[:5])}"] if unused else []
    still = [layer.name for layer in all_layers(model) if layer.class_name in UNCHANGED]
    if still:
        notes.append(f"layers that change pictures in Keras's training, and not here: {', '.join(still[:5])}")
    spectral = [layer.name for layer in all_layers(model) if layer.class_name == "SpectralNormalization"]
    if spectral:
        notes.append(f"kernels that Keras divides by their norm in training, and not here: {', '.join(spectral[:5])}")
    return _built(model, slots, version, notes, checkpoint)


def _built(model: LayerConfig, slots: list[Slot], version: str, notes: list[str], checkpoint: Checkpoint) -> KerasModel:
    infos = _inputs(model)
    graph, inference = _graph(model, slots, infos, training=False)
    training, builder = _graph(model, slots, infos, training=True)
    named = {value.name: value for value in graph.constants}
    floating = {slot.name: slot for slot in slots if slot.name in named and is_floating(named[slot.name].type.dtype)}
    weights = {name: named[name] for name, slot in floating.items() if slot.trainable}
    state = {name: named[name] for name, slot in floating.items() if not slot.trainable}
    updates = tuple(builder.updates)
    training.outputs += [builder.updates[name] for name in updates]
    if builder.key is not None:
        training.inputs.append(builder.key)
    fixed = next((info.batch for info in infos if info.batch), None)
    types = infer_types(graph, [info.shape or () for info in infos], [info.dtype for info in infos], fixed)
    names = _output_names(model, len(graph.outputs))
    outputs = tuple(
        ValueInfo(name, "tensor", kind.dtype, kind.shape) if kind is not None else ValueInfo(name)
        for name, kind in zip(names, types, strict=True)
    )
    return KerasModel(
        model.name,
        graph,
        training,
        infos,
        outputs,
        weights,
        state,
        updates,
        builder.key is not None,
        version,
        _count(model),
        notes,
        channels_last=len(infos[0].shape or ()) == 4 and not _is_channels_first(model),
        probabilities=_ends_with_softmax(model),
        source=checkpoint,
        stored={slot.name: slot.stored for slot in slots if slot.stored is not None},
        tree=model,
        slots=slots,
        owners=inference.owners,
        stateful=tuple([layer.name for layer in all_layers(model) if layer.options.get("stateful") is True]),
    )


def _is_channels_first(model: LayerConfig) -> bool:
    return any(
        _is_channels_first(child) if child.kind != "layer" else child.options.get("data_format") == "channels_first"
        for child in model.layers
    )


def _ends_with_softmax(model: LayerConfig) -> bool:
    """Whether the layer of the first output is a softmax along the last axis."""
    if model.kind == "sequential":
        last = model.layers[-1] if model.layers else None
    else:
        ref = next(references(model.outputs), None)
        last = next((child for child in model.layers if ref is not None and child.name == ref.layer), None)
    if last is None or last.kind != "layer":
        return last is not None and _ends_with_softmax(last)
    return last.options.get("activation") == "softmax" or (
        last.class_name == "Softmax" and last.options.get("axis", -1) == -1
    )


def _count(model: LayerConfig) -> int:
    return sum(1 if child.kind == "layer" else _count(child) for child in model.layers)


def _graph(
    model: LayerConfig, slots: list[Slot], infos: tuple[InputInfo, ...], training: bool
) -> tuple[Graph, GraphBuilder]:
    """The graph of the model. Arrays and values of weights are made once, for both graphs."""
    builder = GraphBuilder(slots, training)
    inputs = [Tensor(builder.graph.add_input(info.type, info.name)) for info in infos]
    outputs = builder.run(model, inputs)
    builder.graph.outputs = [tensor.value for tensor in outputs]
    by_name = {slot.name: slot for slot in slots}
    replaced: dict[Value, Value] = {}
    for name, value in builder.values.items():
        slot = by_name[name]
        constant, array = _constant(slot)
        builder.graph.constants[constant] = array
        replaced[value] = constant
    builder.graph.replace_uses(replaced)
    return builder.graph, builder


def _constant(slot: Slot) -> tuple[Value, Any]:
    if slot.constant is None:
        array = slot.load()
        slot.constant = Value(TensorType(tuple(array.shape), array.dtype), slot.name), array
    return slot.constant


def _inputs(model: LayerConfig) -> tuple[InputInfo, ...]:
    """What the model takes, by its input layers."""
    if model.kind == "functional":
        layers = {child.name: child for child in model.layers}
        found = []
        for ref in references(model.inputs):
            layer = layers.get(ref.layer)
            if layer is None:
                raise FormatError(f"the model has an input {ref.layer!r} that is no layer")
            found.append(_input(layer, layer.name))
        return tuple(found)
    first = model.layers[0] if model.layers else None
    if first is None:
        raise FormatError(f"the model {model.name!r} has no layers")
    if first.kind != "layer" and not first.options.get("build_input_shape"):
        return _inputs(first)
    info = _input(first, first.name if first.class_name == "InputLayer" else f"{first.name}_input")
    shape = model.options.get("build_input_shape") or first.build_shape
    if info.shape is None and isinstance(shape, tuple | list):
        info = InputInfo(info.name, "tensor", info.dtype, _shape(shape))
    return (info,)


def _input(layer: LayerConfig, name: str) -> InputInfo:
    options = layer.options
    shape = options.get("batch_input_shape", options.get("batch_shape"))
    dtype = options.get("input_dtype") or options.get("dtype") if layer.class_name == "InputLayer" else None
    if isinstance(dtype, dict):
        dtype = (dtype.get("config") or {}).get("name")
    try:
        known = as_dtype(dtype) if isinstance(dtype, str) and not dtype.startswith("mixed") else np.dtype(np.float32)
    except ZoonetError:
        raise UnsupportedFormatError(f"the input {name!r} is of an unknown data type", received=dtype) from None
    if layer.class_name == "Embedding" and dtype is None:
        known = np.dtype(np.float32)
    checked = None if shape is None else _shape(shape)
    batch = shape[0] if isinstance(shape, tuple | list) and shape and isinstance(shape[0], int) else None
    return InputInfo(name, "tensor", known, checked, batch=batch if batch is None or batch < 2**20 else None)


def _shape(shape: Any) -> tuple[int | None, ...]:
    if not isinstance(shape, tuple | list) or not all(n is None or (isinstance(n, int) and n >= 0) for n in shape):
        raise FormatError("an input has an impossible shape", received=str(shape)[:100])
    return (None, *shape[1:])


def _output_names(model: LayerConfig, count: int) -> list[str]:
    """The names of the layers that give the outputs, told apart by numbers where one gives several."""
    names: list[str] = []
    last = [model.layers[-1].name] * count if model.kind == "sequential" else []
    for layer in last or [ref.layer for ref in references(model.outputs)]:
        name, number = layer, 1
        while name in names:
            name, number = f"{layer}_{number}", number + 1
        names.append(name)
    return names
