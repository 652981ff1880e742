"""Keras's legacy HDF5 files: weights (`save_weights`) and whole models (`save`), of Keras 1 and 2, tf.keras and 3.

    /                   whole models: attributes model_config (JSON), training_config, keras_version, backend
    /model_weights      whole models: what is in the root of a weights file
        attribute layer_names: the layers in the order of the model
        LAYER           attribute weight_names: the layer's weights in its order, as paths of datasets

Long lists of names are spread over attributes layer_names0, layer_names1, ... Source: `legacy_h5_format.py` of Keras.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.formats.checkpoint import Checkpoint, LazyTensor
from zoonet.formats.files import atomic_path
from zoonet.formats.hdf5 import (
    SIGNATURE,
    Hdf5File,
    chunked_attribute,
    create_dataset,
    root_names,
    set_chunked_attribute,
)
from zoonet.formats.json_data import parse_json
from zoonet.ops.errors import FormatError, UnsupportedFormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_TOP_LEVEL = "top_level_model_weights"
_ROOT_ATTRIBUTES = ("keras_version", "backend")
_JSON_ATTRIBUTES = ("model_config", "training_config", "zoonet")


def recognise(probe: Probe) -> bool:
    """Whether the file is HDF5 with Keras's list of layers."""
    if not probe.head.startswith(SIGNATURE):
        return False
    members, attributes = root_names(probe.path)
    return "model_weights" in members or bool({"model_config", "layer_names", "layer_names0"} & attributes)


def has_model(path: Path) -> bool:
    """Whether the file is a whole model and not weights alone."""
    return "model_config" in root_names(path)[1]


def read(path: Path) -> Checkpoint:
    """Read a legacy Keras file; tensors are named by layer and weight, as "conv1/conv1/kernel:0", in Keras's order.

    metadata: "keras_version", "backend", "layer_names" (all layers), "weight_names" (layer -> names of its tensors);
    of whole models "model_config" and "training_config" (parsed JSON, never run) and "optimizer" (name -> LazyTensor);
    "zoonet": what zoonet wrote.
    """
    file = Hdf5File(path, path.name)
    root_attributes = file.attributes("")
    root = "model_weights" if "model_weights" in file.groups else ""
    attributes = file.attributes(root)
    metadata: dict[str, Any] = {}
    for name in _ROOT_ATTRIBUTES:
        value = attributes.get(name, root_attributes.get(name))
        if value is not None:
            metadata[name] = value
    for name in _JSON_ATTRIBUTES:
        if name in root_attributes:
            metadata[name] = parse_json(str(root_attributes[name]), f"{path.name}: {name}")
    layer_names = chunked_attribute(attributes, "layer_names")
    if layer_names is None:
        raise FormatError(f"{path.name}: Keras's list of layers is missing", expected="the attribute layer_names")
    tensors: dict[str, LazyTensor] = {}
    weight_names: dict[str, list[str]] = {}
    extra = [_TOP_LEVEL] if _join(root, _TOP_LEVEL) in file.groups else []
    for layer in [*layer_names, *extra]:
        names = _layer_weights(file, root, layer)
        if names:
            weight_names[layer] = names
            tensors.update((name, file.tensor(_join(root, name))) for name in names)
    metadata["layer_names"] = layer_names
    metadata["weight_names"] = weight_names
    optimizer = {
        name.removeprefix("optimizer_weights/"): file.tensor(name)
        for name in file.datasets
        if root and name.startswith("optimizer_weights/") and file.is_numeric(name)
    }
    if optimizer:
        metadata["optimizer"] = optimizer
    return Checkpoint(tensors, metadata, "keras_h5")


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _layer_weights(file: Hdf5File, root: str, layer: str) -> list[str]:
    group = _join(root, layer)
    if group not in file.groups:
        raise FormatError(f"{file.name}: layer {layer[:200]!r} is listed but missing")
    names = chunked_attribute(file.attributes(group), "weight_names") or []
    for name in names:
        if _join(group, name) not in file.datasets:
            raise FormatError(f"{file.name}: weight {name[:200]!r} of layer {layer[:200]!r} is missing")
    return [_join(layer, name) for name in names]


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write a file that Keras loads by `load_weights`, or by `load_model` where metadata has "model_config".

    Keras matches layers and weights by their order: that of metadata["layer_names"] and ["weight_names"] where they
    are given, else that of the tensors, whose names are split into layer and weight at the first "/", or at the last
    "." where there is none.
    """
    layers = _layers(tensors, metadata)
    names = [str(name) for name in metadata.get("layer_names") or layers]
    names.extend(layer for layer in layers if layer not in names and layer != _TOP_LEVEL)
    import h5py

    with atomic_path(path, named=True) as temporary, h5py.File(temporary, "w") as file:
        root = file
        if isinstance(metadata.get("model_config"), dict):
            root = file.create_group("model_weights")
        for name in _JSON_ATTRIBUTES:
            if isinstance(metadata.get(name), dict):
                file.attrs[name] = json.dumps(metadata[name])
        for target in {file, root}:
            target.attrs["keras_version"] = str(metadata.get("keras_version", "2.15.0")).encode()
            target.attrs["backend"] = str(metadata.get("backend", "tensorflow")).encode()
        set_chunked_attribute(root, "layer_names", names)
        for layer in [*names, *([_TOP_LEVEL] if _TOP_LEVEL in layers else [])]:
            group = root.create_group(layer)
            weights = layers.get(layer, {})
            set_chunked_attribute(group, "weight_names", list(weights))
            for weight, tensor in weights.items():
                create_dataset(group, weight, tensor)


def _layers(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any]) -> dict[str, dict[str, LazyTensor]]:
    """Group the tensors: layer -> weight name -> tensor."""
    known = metadata.get("weight_names")
    layers: dict[str, dict[str, LazyTensor]] = {}
    placed = set()
    for layer, names in known.items() if isinstance(known, dict) else ():
        for name in names if isinstance(names, list) else ():
            if name in tensors and name.startswith(f"{layer}/"):
                layers.setdefault(layer, {})[name[len(layer) + 1 :]] = tensors[name]
                placed.add(name)
    for name in _unplaced(tensors, placed):
        layer, separator, weight = name.partition("/") if "/" in name else name.rpartition(".")
        if not separator or not layer or not weight:
            raise UnsupportedFormatError(
                f"Keras files keep weights by layers: tensor {name!r} names none", expected="LAYER/WEIGHT"
            )
        layers.setdefault(layer, {})[weight] = tensors[name]
    return layers


def _unplaced(tensors: Mapping[str, LazyTensor], placed: set[str]) -> Iterable[str]:
    return (name for name in tensors if name not in placed)
