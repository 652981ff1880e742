"""Which weights each layer of a model has, and where files of each kind keep them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import LazyTensor
from zoonet.formats.keras.config import LayerConfig
from zoonet.formats.keras.dialects import generation, policy_of
from zoonet.formats.keras.old_weights import conversion_of
from zoonet.ops.errors import FormatError, UnsupportedFormatError
from zoonet.ops.sets.keras import Layer, Weight, find_layer

__all__ = ["Slot", "assign_legacy", "assign_tree", "declared", "slots_of", "walk_slots"]

Array = np.ndarray[Any, Any]
#: Cells of RNN layers, and the layers that run them.
CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}


@dataclass
class Slot:
    """One weight of one layer.

    layer: the layer that owns it. name: in the graph, "block1/conv/kernel". path: in a Keras 3 file. tensor: what the
    file has for it. stored: the name of that tensor, if it is one. convert: from the layout of old files. constant: the
    graph's value and its array, once made.
    """

    layer: LayerConfig
    weight: Weight
    name: str
    path: str
    trainable: bool
    tensor: LazyTensor | None = None
    stored: str | None = None
    convert: Callable[[Array], Array] | None = None
    constant: tuple[Any, Any] | None = None

    def load(self) -> Array:
        """The array of the file, in Keras 3's layout. Raises FormatError where there is none."""
        if self.tensor is None:
            raise FormatError(
                f"the file has no weight {self.name!r}",
                expected=self.path,
                fix="the file is incomplete, or its configuration is of another model",
            )
        array = self.tensor.load()
        return array if self.convert is None else self.convert(array)


def declared(layer: LayerConfig) -> Layer:
    """The declaration of a layer in the Keras set."""
    return find_layer(operator_name(layer), layer.name, layer.registered)


def operator_name(layer: LayerConfig) -> str:
    """The name of a layer in the Keras set; operations of keras.ops have a prefix."""
    return f"ops.{layer.class_name}" if layer.is_operation else CELLS.get(layer.class_name, layer.class_name)


def exists(weight: Weight, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Whether a layer with these options has the weight. `when`: "option", "option=value", joined by "&"."""
    for term in (weight.when or "").split("&"):
        key, has_value, value = term.partition("=")
        given = options.get(key, defaults.get(key))
        if term and (str(given) != value if has_value else not given):
            return False
    return True


def walk_slots(model: LayerConfig) -> Iterator[Slot]:
    """Every weight of a model in the order of its layers."""
    yield from _slots(model, "", "", True)


def _slots(layer: LayerConfig, prefix: str, path: str, trainable: bool) -> Iterator[Slot]:
    """prefix: of names; path: of the layer in a Keras 3 file."""
    trainable = trainable and layer.trainable
    if layer.kind != "layer":
        for child, place in zip(layer.layers, _container_paths(layer), strict=True):
            if not child.is_operation:
                yield from _slots(child, _join(prefix, child.name), _join(path, place), trainable)
        return
    if layer.class_name == "Bidirectional":
        forward, backward = directions(layer)
        yield from _slots(forward, _join(prefix, "forward"), _join(path, "forward_layer"), trainable)
        yield from _slots(backward, _join(prefix, "backward"), _join(path, "backward_layer"), trainable)
        return
    if layer.layers:
        several = len(layer.layers) > 1 or layer.class_name == "StackedRNNCells"
        places = _numbered(layer.layers) if several else []
        for number, child in enumerate(layer.layers):
            role = layer.roles[number]
            place = f"{role}/{places[number]}" if several else role
            name = _join(prefix, str(number)) if several else prefix
            yield from _slots(child, name, _join(path, place), trainable)
        if layer.class_name == "SpectralNormalization":
            vector = Weight("vector_u", trainable=False)
            yield Slot(layer, vector, _join(prefix, vector.name), _join(path, "vars/1"), False)
        return
    if layer.is_operation or layer.class_name in ("InputLayer", "TFOpLambda", "SlicingOpLambda"):
        return
    kind = declared(layer)
    _check_policy(layer)
    number = 0
    for weight in kind.weights:
        if not exists(weight, layer.options, kind.options):
            continue
        below = "cell/" if kind.cell and layer.class_name not in CELLS else ""
        place = weight.path or f"{below}vars/{number}"
        number += 1
        trains = trainable and weight.trainable and not (layer.options.get("quantized") and weight.name != "bias")
        yield Slot(layer, weight, _join(prefix, weight.name), _join(path, place), trains)


def _check_policy(layer: LayerConfig) -> None:
    """Raise UnsupportedFormatError for a layer with quantised weights that is not known in that form."""
    policy = policy_of(layer.options)
    if policy.startswith(("int8", "int4", "float8", "gptq", "Quantized", "awq")) and "quantized" not in layer.options:
        raise UnsupportedFormatError(
            f"the layer {layer.name!r} ({layer.class_name}) is quantised in a way that is not supported",
            expected="floating weights, or int8 in layers Dense and Embedding",
            received=policy,
            fix="save the model as it was before quantize()",
        )


def directions(layer: LayerConfig) -> tuple[LayerConfig, LayerConfig]:
    """The forward and the backward layer of a Bidirectional; remembered, so that they are the same ones each time."""
    forward = layer.below("layer")
    if forward is None:
        raise FormatError(f"the layer {layer.name!r} (Bidirectional) has no layer inside")
    if any(item.class_name == "Bidirectional" for item in all_layers(forward)):
        raise FormatError(
            f"the layer {layer.name!r} (Bidirectional) has another one inside, which Keras does not allow"
        )
    backward = layer.below("backward_layer")
    if backward is None:
        turned = not forward.options.get("go_backwards", False)
        backward = copy.deepcopy(forward)
        backward.name, backward.options["go_backwards"] = f"backward_{forward.name}", turned
        layer.layers.append(backward)
        layer.roles.append("backward_layer")
    return forward, backward


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def snake_case(name: str) -> str:
    """A class name as Keras 3 files write it: BatchNormalization is batch_normalization."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return "grouped_query_attention" if name == "group_query_attention" else name  # the class has two names


def _numbered(layers: list[LayerConfig]) -> list[str]:
    """Where the layers of a list lie: by class, the second of one with _1."""
    used: dict[str, int] = {}
    places = []
    for layer in layers:
        name = snake_case(layer.class_name)
        number = used.get(name, -1) + 1
        used[name] = number
        places.append(f"{name}_{number}" if number else name)
    return places


def _container_paths(model: LayerConfig) -> list[str]:
    counted = [child for child in model.layers if not child.is_operation]
    places = dict(zip(map(id, counted), _numbered(counted), strict=True))
    return [f"layers/{places[id(child)]}" if id(child) in places else "" for child in model.layers]


# -- Keras 3 files -----------------------------------------------------------------------------------------------


def assign_tree(slots: list[Slot], tensors: Mapping[str, LazyTensor]) -> list[str]:
    """Give each slot its tensor of a Keras 3 file; the names of tensors that no layer takes are returned.

    tf.keras writes `_layer_checkpoint_dependencies` where Keras 3 has `layers`, and hides attributes behind "_".
    """
    normal = {_normal(name): name for name in tensors}
    used = set()
    for slot in slots:
        name = slot.path if slot.path in tensors else normal.get(_normal(slot.path), "")
        if name:
            slot.tensor, slot.stored = tensors[name], name
            used.add(name)
    _share(slots)
    twins = {slot.path.removesuffix("1") + "0" for slot in slots if slot.weight.name == "vector_u"}  # the kernel again
    return [name for name in tensors if name not in used | twins and "seed_generator" not in name]


def _share(slots: list[Slot]) -> None:
    """A layer that stands in two models is written once: its other places have the weights of the first."""
    known: dict[tuple[str, str, str], list[Slot]] = {}
    for slot in slots:
        if slot.tensor is not None:
            known.setdefault((slot.layer.class_name, slot.layer.name, slot.weight.name), []).append(slot)
    for slot in slots:
        found = known.get((slot.layer.class_name, slot.layer.name, slot.weight.name), [])
        if slot.tensor is None and len(found) == 1:
            options = declared(slot.layer).options
            if all(slot.layer.options.get(key) == found[0].layer.options.get(key) for key in options):
                slot.tensor, slot.name = found[0].tensor, found[0].name


def _normal(path: str) -> str:
    path = path.replace("_layer_checkpoint_dependencies/", "layers/").replace("/_", "/")
    return path.removeprefix("_")


# -- legacy files ------------------------------------------------------------------------------------------------

_ROLES_1 = {
    "W": "kernel",
    "U": "recurrent_kernel",
    "b": "bias",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
    "alphas": "alpha",
}


def assign_legacy(
    model: LayerConfig, slots: list[Slot], checkpoint: Mapping[str, LazyTensor], metadata: Any
) -> list[str]:
    """Give each slot its tensor of a legacy file, layer by layer.

    Layers are found by name, weights by the end of theirs, in the order of Keras: those that are trained before the
    others, or as they were made. Names of tensors that no layer takes are returned. Raises FormatError.
    """
    names: dict[str, list[str]] = metadata.get("weight_names", {})
    leftover = [name for layer, found in names.items() if layer not in {c.name for c in model.layers} for name in found]
    for child in model.layers:
        own = slots_of(child, slots)
        found = [(name, checkpoint[name]) for name in names.get(child.name, []) if not _is_seed(name)]
        _assign_group(child, own, found)
    version, backend = metadata.get("keras_version"), str(metadata.get("backend"))
    for slot in slots:
        slot.convert = conversion_of(slot.layer, slot.weight.name, generation(version), backend)
        if slot.convert is not None:
            slot.stored = None  # it is not written back in the old layout
    return leftover


def slots_of(layer: LayerConfig, slots: list[Slot]) -> list[Slot]:
    """The weights of a layer and of the layers in it."""
    inside = {id(item) for item in all_layers(layer)}
    return [slot for slot in slots if id(slot.layer) in inside]


def all_layers(layer: LayerConfig) -> Iterator[LayerConfig]:
    """A layer and all below it."""
    yield layer
    for child in layer.layers:
        yield from all_layers(child)


def _is_seed(name: str) -> bool:
    return "seed_generator" in name


def _assign_group(layer: LayerConfig, slots: list[Slot], found: list[tuple[str, LazyTensor]]) -> None:
    if not slots and not found:
        return
    if len(found) == 12 and len(slots) == 3 and layer.class_name == "LSTM":
        _assign_gates(slots, found, "ifco")
        return
    if len(found) == 9 and len(slots) == 3 and layer.class_name == "GRU":
        _assign_gates(slots, found, "zrh")
        return
    if len(found) != len(slots):
        raise FormatError(
            f"the layer {layer.name!r} ({layer.class_name}) has the wrong number of weights",
            expected=f"{len(slots)}: {', '.join(slot.weight.name for slot in slots[:8])}",
            received=f"{len(found)}: {', '.join(name for name, _ in found[:8])}",
            fix="the file's configuration and weights are not of one model",
        )
    orders = [
        sorted(slots, key=lambda slot: not slot.trainable),
        slots,
        sorted(slots, key=lambda s: not s.weight.trainable),
    ]
    best = max(orders, key=lambda order: sum(_fits(s, n) for s, (n, _) in zip(order, found, strict=True)))
    for slot, (name, tensor) in zip(best, found, strict=True):
        slot.tensor, slot.stored = tensor, name


def _fits(slot: Slot, name: str) -> int:
    """How well a name in the file agrees with a weight: its end, and the layer before it."""
    *above, last = name.removesuffix(":0").split("/")
    role = last
    for short, long in _ROLES_1.items():
        if last.endswith(f"_{short}"):
            role = long
    wanted = slot.weight.name
    end = re.sub(r"_\d+$", "", role)
    score = 2 if end == wanted or wanted.endswith(f"_{end}") or role.endswith(f"_{wanted}") else 0
    return score + (1 if slot.layer.name in above else 0)


def _assign_gates(slots: list[Slot], found: list[tuple[str, LazyTensor]], gates: str) -> None:
    """Keras 1 keeps each gate of a recurrent layer by itself, under names that end with W_i, U_i, b_i."""
    for slot, letter in zip(slots, "WUb", strict=True):
        parts = [next((t for name, t in found if name.endswith(f"{letter}_{gate}")), None) for gate in gates]
        known = [part for part in parts if part is not None]
        if len(known) != len(gates):
            raise FormatError(f"the gates of {slot.name!r} are not complete", received=[name for name, _ in found])
        slot.tensor = joined(known)


def joined(tensors: list[LazyTensor]) -> LazyTensor:
    """Tensors one after the other along the last axis."""
    first = tensors[0]
    shape = (*first.shape[:-1], sum(tensor.shape[-1] for tensor in tensors))
    return LazyTensor(shape, first.dtype, lambda: np.concatenate([tensor.load() for tensor in tensors], -1))
