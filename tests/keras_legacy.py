"""Files and configurations as Keras 1, Keras 2 and tf.keras wrote them, which no installed Keras writes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import h5py


def legacy_file(
    path: pathlib.Path, config: Any, weights: dict[str, list[tuple[str, Any]]], version: str
) -> pathlib.Path:
    """A legacy whole model as old versions wrote it."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        for attributes in (file.attrs, root.attrs):
            attributes["keras_version"], attributes["backend"] = version, "tensorflow"
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                group[name] = array
    return path


def tf_layer(class_name: str, name: str, nodes: Any, **options: Any) -> dict[str, Any]:
    """A layer as tf.keras writes it."""
    config = {"name": name, "trainable": True, "dtype": "float32", **options}
    return {"class_name": class_name, "name": name, "config": config, "inbound_nodes": nodes}


def tf_model(name: str, layers: list[Any], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    """A functional model as tf.keras writes it."""
    config = {
        "name": name,
        "layers": layers,
        "input_layers": [[layer, 0, 0] for layer in inputs],
        "output_layers": [[layer, 0, 0] for layer in outputs],
    }
    return {"class_name": "Functional", "name": name, "config": config}
