"""A traced graph as a Keras model: one layer per node, with channels last; and its weights as Keras's files name them.

Written are the layers of convolutional networks; other operators are refused by name. Keras numbers the layers of a
file in an order of its own, by depth, so that order is computed here as Keras does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoonet.formats.checkpoint import Checkpoint, LazyTensor
from zoonet.formats.keras.config import parse_model
from zoonet.formats.keras.layouts import to_keras
from zoonet.formats.keras.slots import walk_slots
from zoonet.ops.errors import UnsupportedFormatError

__all__ = ["Description", "LayerSpec", "WeightSpec"]

_VERSIONS = {"keras": "3.0.0", "keras_h5": "2.15.0"}
#: Layers whose options Keras 2 calls otherwise.
_RENAMED_2 = {"LeakyReLU": {"negative_slope": "alpha"}}


@dataclass(frozen=True)
class WeightSpec:
    """A weight of a layer: its role, the parameter that it is, the layout (see `layouts`)."""

    role: str
    parameter: str
    layout: str = ""


@dataclass
class LayerSpec:
    """A layer to be written. inputs: names of the layers that it reads."""

    class_name: str
    name: str
    options: dict[str, Any]
    inputs: list[str]
    weights: list[WeightSpec] = field(default_factory=list)


@dataclass
class Description:
    """A Functional model of Keras: layers in Keras's order, names of its input and output layers."""

    name: str
    layers: list[LayerSpec]
    inputs: list[str]
    outputs: list[str]

    def __post_init__(self) -> None:
        self.layers = keras_order(self.layers, self.inputs, self.outputs)

    def config(self, legacy: bool) -> dict[str, Any]:
        """The configuration: of a .keras file, or as tf.keras writes it into .h5 files."""
        layers = [self._legacy(spec) if legacy else self._modern(spec) for spec in self.layers]
        inner = {
            "name": self.name,
            "trainable": True,
            "layers": layers,
            "input_layers": _references(self.inputs, legacy),
            "output_layers": _references(self.outputs, legacy),
        }
        if legacy:
            return {"class_name": "Functional", "config": inner}
        return {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": inner,
            "registered_name": "Functional",
        }

    def _legacy(self, spec: LayerSpec) -> dict[str, Any]:
        renamed = _RENAMED_2.get(spec.class_name, {})
        options = {renamed.get(key, key): value for key, value in spec.options.items()}
        if spec.class_name == "InputLayer":
            options = {"batch_input_shape": options["batch_shape"], "dtype": "float32", "name": spec.name}
        else:
            options = {"name": spec.name, "trainable": True, "dtype": "float32", **options}
        nodes = [[[name, 0, 0, {}] for name in spec.inputs]] if spec.inputs else []
        return {"class_name": spec.class_name, "config": options, "name": spec.name, "inbound_nodes": nodes}

    def _modern(self, spec: LayerSpec) -> dict[str, Any]:
        options = {"name": spec.name, "dtype": "float32", **spec.options}
        if spec.class_name != "InputLayer":
            options["trainable"] = True
        tensors = [  # Keras takes the shape from the layer that gives the tensor, and needs one here
            {
                "class_name": "__keras_tensor__",
                "config": {"shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]},
            }
            for name in spec.inputs
        ]
        args = [tensors] if len(tensors) > 1 else tensors
        return {
            "module": "keras.layers",
            "class_name": spec.class_name,
            "config": options,
            "registered_name": None,
            "name": spec.name,
            "inbound_nodes": [{"args": args, "kwargs": {}}] if tensors else [],
        }

    def checkpoint(
        self, format_name: str, parameters: Mapping[str, LazyTensor]
    ) -> tuple[Checkpoint, dict[str, list[str]]]:
        """What a writer of Keras files takes, and for each tensor the parameter that it is and its layout.

        format_name: "keras", "keras_h5" or "keras_weights". parameters: in PyTorch's layouts, by name.
        """
        specs = {spec.name: spec for spec in self.layers}
        places: dict[str, WeightSpec] = {}
        names: dict[str, list[str]] = {}
        groups: dict[str, str] = {}
        for slot in walk_slots(parse_model(self.config(legacy=False), 3)):
            spec = specs[slot.layer.name]
            weight = next(w for w in spec.weights if w.role == slot.weight.name)
            if format_name == "keras_h5":
                name = f"{spec.name}/{spec.name}/{weight.role}:0"
                names.setdefault(spec.name, []).append(name)
            else:
                name = slot.path
                groups[name.rpartition("/vars/")[0]] = spec.name
            places[name] = weight
        tensors = {name: to_keras(parameters[w.parameter], w.layout) for name, w in places.items()}
        metadata: dict[str, Any] = {"names": groups}
        if format_name == "keras_h5":
            metadata = {
                "model_config": self.config(legacy=True),
                "layer_names": [spec.name for spec in self.layers],
                "weight_names": names,
                "keras_version": _VERSIONS["keras_h5"],
            }
        elif format_name == "keras":
            metadata["config"] = self.config(legacy=False)
            metadata["keras_metadata"] = {
                "keras_version": _VERSIONS["keras"],
                "date_saved": "1980-01-01@00:00:00",
            }
        return Checkpoint(tensors, metadata, format_name), {n: [w.parameter, w.layout] for n, w in places.items()}


def _references(names: list[str], legacy: bool) -> Any:
    """Keras 3 takes a single tensor where there is no list around it."""
    found = [[name, 0, 0] for name in names]
    return found[0] if len(found) == 1 and not legacy else found


def keras_order(layers: list[LayerSpec], inputs: list[str], outputs: list[str]) -> list[LayerSpec]:
    """The layers in the order in which Keras lists those of a Functional model.

    Deepest first, by the longest way to an output; among equals in the order of a depth-first walk from the outputs.
    """
    by_name = {spec.name: spec for spec in layers}
    visited: dict[str, int] = {}
    finished: list[str] = []
    for output in outputs:
        stack: list[tuple[str, int]] = [(output, 0)]
        while stack:
            name, position = stack.pop()
            if position == 0:
                if name in visited:
                    continue
                visited[name] = len(visited)
            sources = by_name[name].inputs
            if position < len(sources):
                stack += [(name, position + 1), (sources[position], 0)]
            else:
                finished.append(name)
    depths = dict.fromkeys(finished, 0)
    for name in reversed(finished):
        for source in by_name[name].inputs:
            depths[source] = max(depths[source], depths[name] + 1)
    unused = [name for name in inputs if name not in depths]
    order = sorted(depths, key=lambda name: (-depths[name], visited[name]))
    return [by_name[name] for name in (*order, *unused)]


def refuse(operator: str, why: str) -> UnsupportedFormatError:
    """The error for an operator that has no layer."""
    return UnsupportedFormatError(
        f"the network cannot be written for Keras: {operator} {why}",
        expected="layers of convolutional networks",
        fix="write .onnx or .safetensors",
    )
