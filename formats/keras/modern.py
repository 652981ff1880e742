"""A model that was read, as Keras 3 writes it: what old files hold becomes a .keras archive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoonet.formats.checkpoint import Checkpoint, LazyTensor, as_lazy
from zoonet.formats.keras.config import LayerConfig, Ref, references
from zoonet.formats.keras.slots import Slot, slots_of
from zoonet.ops.errors import UnsupportedFormatError

__all__ = ["legacy_checkpoint", "modern_checkpoint"]

#: How weights are drawn, penalised and bounded, in the words of old versions; and what Keras 3 does not take.
_LEFT_OUT = ("_initializer", "_regularizer", "_constraint")
_UNKNOWN_TO_KERAS_3 = (
    *("cudnn", "implementation", "input_dtype", "ragged", "sparse", "time_major", "fused", "renorm_clipping"),
    *("renorm_momentum", "virtual_batch_size", "input_length", "batch_input_shape", "dtype", "batch_shape"),
)
#: Options of tf.keras that Keras 3 does not take, in layers where they have one value only.
_UNKNOWN_OF = {"DepthwiseConv2D": ("groups",), "DepthwiseConv1D": ("groups",), "Embedding": ("activity_regularizer",)}


#: New options of layers, by the id of the object of the file (`LayerConfig.entry`) that has the old ones.
Changes = Mapping[int, Mapping[str, Any]]


def modern_checkpoint(model: LayerConfig, slots: list[Slot], arrays: Mapping[str, Any], changes: Changes) -> Checkpoint:
    """What `formats.write` takes to write a .keras file. arrays: weights by name, in the place of the file's own.

    Initialisers, regularisers and constraints are left out. Raises UnsupportedFormatError for operations of TensorFlow
    and for layers that Keras 3 does not have.
    """
    tensors, names = {}, {}
    for slot in slots:
        tensors[slot.path] = as_lazy(arrays[slot.name] if slot.name in arrays else slot.load())
        names[slot.path.rpartition("/vars/")[0]] = slot.layer.name
    metadata = {
        "config": _entry(model, changes),
        "keras_metadata": {"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"},
        "names": names,
    }
    return Checkpoint(tensors, metadata, "keras")


def legacy_checkpoint(
    model: LayerConfig, slots: list[Slot], arrays: Mapping[str, Any], config: Mapping[str, Any], version: str
) -> Checkpoint:
    """What `formats.write` takes to write a model of Keras 3 as a whole .h5 file, which Keras 3 loads.

    config: that of the .keras file. arrays: by name, in the place of the file's own. Weights are listed by layers of
    the model, those that are trained before the others, because Keras matches them by their order.
    """
    tensors: dict[str, LazyTensor] = {}
    names: dict[str, list[str]] = {}
    for layer in model.layers:
        for slot in sorted(slots_of(layer, slots), key=lambda slot: not slot.trainable):
            name = f"{layer.name}/{slot.name}"
            tensors[name] = as_lazy(arrays[slot.name] if slot.name in arrays else slot.load())
            names.setdefault(layer.name, []).append(name)
    metadata = {
        "model_config": {key: value for key, value in config.items() if key != "compile_config"},
        "layer_names": [layer.name for layer in model.layers],
        "weight_names": names,
        "keras_version": version,
    }
    return Checkpoint(tensors, metadata, "keras_h5")


def _entry(layer: LayerConfig, changes: Changes) -> dict[str, Any]:
    if layer.kind == "layer":
        return {
            "module": "keras.layers",
            "class_name": layer.class_name,
            "config": _options(layer, changes),
            "registered_name": layer.registered,
        }
    config: dict[str, Any] = {"name": layer.name, "trainable": layer.trainable}
    if layer.kind == "sequential":
        config["layers"] = [_entry(child, changes) for child in layer.layers]
        first = layer.layers[0].options if layer.layers else {}
        shape = first.get("batch_input_shape", first.get("batch_shape"))
        if shape is not None and layer.layers[0].class_name != "InputLayer":
            given = {"batch_shape": list(shape), "name": f"{layer.layers[0].name}_input", "dtype": "float32"}
            config["layers"].insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": given,
                                        "registered_name": None})  # fmt: skip
        return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    functional = {child.name for child in layer.layers if child.kind == "functional"}
    config["layers"] = [
        {**_entry(child, changes), "name": child.name, "inbound_nodes": _nodes(child)} for child in layer.layers
    ]
    inputs = [[ref.layer, ref.call, ref.output] for ref in references(layer.inputs)]
    outputs = [[ref.layer, ref.call + (ref.layer in functional), ref.output] for ref in references(layer.outputs)]
    config["input_layers"] = inputs[0] if len(inputs) == 1 else inputs
    config["output_layers"] = outputs[0] if len(outputs) == 1 else outputs
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }


def _options(layer: LayerConfig, changes: Changes) -> dict[str, Any]:
    if layer.is_operation or layer.class_name in ("TFOpLambda", "SlicingOpLambda"):
        raise UnsupportedFormatError(
            f"the operation {layer.name!r} ({layer.class_name}) cannot be written", expected="layers of keras.layers"
        )
    unknown = (*_UNKNOWN_TO_KERAS_3, *_UNKNOWN_OF.get(layer.class_name, ()))
    given = {**layer.options, **changes.get(id(layer.entry), {})}
    kept = {k: v for k, v in given.items() if k not in unknown and not k.endswith(_LEFT_OUT)}
    options: dict[str, Any] = {"name": layer.name, "dtype": "float32", **_listed(kept)}
    if layer.class_name == "InputLayer":
        shape = layer.options.get("batch_shape", layer.options.get("batch_input_shape"))
        dtype = layer.options.get("dtype")
        return {
            "batch_shape": _listed(shape),
            "dtype": dtype if isinstance(dtype, str) else "float32",
            "name": layer.name,
        }
    if layer.class_name == "BatchNormalization" and isinstance(options.get("axis"), list):
        options["axis"] = options["axis"][0]
    for key in ("activation", "recurrent_activation"):
        options.update({key: _activation(options[key], layer)} if key in options else {})
    for child, role in zip(layer.layers, layer.roles, strict=True):
        options[role] = _entry(child, changes)
    return options


def _activation(value: Any, layer: LayerConfig) -> Any:
    if isinstance(value, list):  # a name and its options
        raise UnsupportedFormatError(
            f"the activation of {layer.name!r} has options, which are not written", received=value
        )
    if value == "hard_sigmoid_v2":
        raise UnsupportedFormatError(
            f"{layer.name!r} has the hard_sigmoid of Keras 2, which Keras 3 does not have: it has another of that name"
        )
    return value


def _listed(value: Any) -> Any:
    """Tuples as lists, for JSON."""
    if isinstance(value, tuple | list):
        return [_listed(item) for item in value]
    return {key: _listed(item) for key, item in value.items()} if isinstance(value, dict) else value


def _nodes(layer: LayerConfig) -> list[Any]:
    return [
        {"args": [_argument(arg) for arg in call.args], "kwargs": {k: _argument(v) for k, v in call.kwargs.items()}}
        for call in layer.calls
    ]


def _argument(value: Any) -> Any:
    if isinstance(value, Ref):
        history = [value.layer, value.call, value.output]
        config = {"shape": [None], "dtype": "float32", "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}
    if isinstance(value, tuple | list):
        return [_argument(item) for item in value]
    return {key: _argument(item) for key, item in value.items()} if isinstance(value, dict) else value
