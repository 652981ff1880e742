"""The configuration of a Keras model, of any dialect, as one tree of layers. It is data: nothing in it is run.

Keras 1 and 2, tf.keras and Keras 3 write the same things differently: calls between layers as lists or as objects,
options under other names and with other defaults. What comes out speaks Keras 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zoonet.formats.keras.dialects import modern_options
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError
from zoonet.ops.sets.keras import is_known

__all__ = ["Call", "LayerConfig", "Ref", "parse_model", "plain"]

_DEPTH = 40
_LAYERS = 200_000
_MODELS = ("Sequential", "Functional", "Model", "Container", "Pipeline")
#: Classes that hold one layer or more below them, and the keys of those.
_WRAPPERS = {
    "TimeDistributed": ("layer",),
    "Bidirectional": ("layer", "backward_layer"),
    "RNN": ("cell",),
    "StackedRNNCells": ("cells",),
    "SpectralNormalization": ("layer",),
}


@dataclass(frozen=True)
class Ref:
    """An output of a layer: its name, which of its calls, which of the outputs."""

    layer: str
    call: int
    output: int


@dataclass
class Call:
    """One use of a layer: arguments with `Ref` in the place of tensors. modern: written by Keras 3."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    modern: bool = False


@dataclass
class LayerConfig:
    """A layer or a model.

    options: its configuration, with lists as tuples. layers: those of a model or wrapper, by role for a wrapper.
    inputs, outputs: of a functional model, structures of `Ref`. kind: "layer", "sequential" or "functional".
    build_shape: of the input, where the file says it. modern: written by Keras 3.
    entry: the object in the file that the options are from.
    """

    class_name: str
    name: str
    options: dict[str, Any]
    kind: str = "layer"
    registered: str | None = None
    layers: list[LayerConfig] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    inputs: Any = ()
    outputs: Any = ()
    is_operation: bool = False
    build_shape: Any = None
    modern: bool = False
    entry: Any = None

    @property
    def trainable(self) -> bool:
        """False where the file says that the weights are frozen."""
        return self.options.get("trainable", True) is not False

    def below(self, role: str) -> LayerConfig | None:
        """The layer of a wrapper in a role."""
        return next((child for child, name in zip(self.layers, self.roles, strict=True) if name == role), None)


def parse_model(entry: Any, generation: int) -> LayerConfig:
    """The model of a parsed model_config or config.json. generation: 1, 2 or 3, Keras's major version.

    Raises FormatError for what is malformed, UnsupportedFormatError for what is not a Sequential or Functional model.
    """
    model = _Parser(generation).layer(entry, 0)
    if model.kind == "layer":
        raise UnsupportedFormatError(
            f"the model is of the class {model.class_name}, whose computation is Python code and not in the file",
            expected="a Sequential or Functional model",
            received=model.registered or model.class_name,
            fix="save it as a Functional model, or take its weights alone with formats.read",
        )
    return model


class _Parser:
    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.count = 0

    def layer(self, entry: Any, depth: int) -> LayerConfig:
        """A layer with those below it."""
        self.count += 1
        if depth > _DEPTH or self.count > _LAYERS:
            raise UnsafeFileError("the configuration is nested too deeply", expected=f"at most {_DEPTH} levels")
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise _malformed("a layer has no class_name", entry)
        class_name, config = entry["class_name"], entry.get("config")
        if class_name == "Sequential" and isinstance(config, list):  # Keras 1 and early 2
            config = {"layers": config}
        if not isinstance(config, dict):
            raise _malformed(f"the configuration of a {class_name} is no object", config)
        name = entry.get("name") or config.get("name") or class_name.lower()
        if not isinstance(name, str):
            raise _malformed("a layer's name is no string", name)
        registered = entry.get("registered_name")
        build = entry.get("build_config")
        layer = LayerConfig(
            class_name,
            name,
            {},
            registered=registered if isinstance(registered, str) and registered != class_name else None,
            build_shape=build.get("input_shape") if isinstance(build, dict) else None,
            modern=self.generation == 3,
            entry=config,
        )
        if "layers" in config and (class_name in _MODELS or "input_layers" in config):
            self._model(layer, config, depth)
            return layer
        module = entry.get("module")
        layer.is_operation = (
            module.startswith(("keras.src.ops", "keras.ops"))
            if isinstance(module, str)  # legacy files of Keras 3 do not say it; layers are trainable or not
            else self.generation == 3 and "trainable" not in config and is_known(f"ops.{class_name}")
        )
        for role in _WRAPPERS.get(class_name, ()):
            below = config.get(role)
            for item in below if isinstance(below, list) else [below] if below is not None else []:
                layer.layers.append(self.layer(item, depth + 1))
                layer.roles.append(role)
        kept = {key: value for key, value in config.items() if key not in _WRAPPERS.get(class_name, ())}
        layer.class_name, layer.options = modern_options(
            class_name, {key: plain(value) for key, value in kept.items()}, self.generation
        )
        return layer

    def _model(self, layer: LayerConfig, config: dict[str, Any], depth: int) -> None:
        entries = config["layers"]
        if not isinstance(entries, list):
            raise _malformed("the layers of a model are no list", entries)
        layer.options = {key: plain(config[key]) for key in ("trainable", "build_input_shape") if key in config}
        is_functional = "input_layers" in config
        layer.kind = "functional" if is_functional else "sequential"
        names: set[str] = set()
        for entry in entries:
            child = self.layer(entry, depth + 1)
            if child.name in names:
                if is_functional:
                    raise _malformed("two layers of a model have one name", child.name)
                child.name = _unique(child.name, names)  # Keras 1 let layers of a Sequential model share names
            names.add(child.name)
            layer.layers.append(child)
        if not is_functional:
            return
        for child, entry in zip(layer.layers, entries, strict=True):
            nodes = entry.get("inbound_nodes", [])
            if not isinstance(nodes, list):
                raise _malformed("the calls of a layer are no list", nodes)
            child.calls = [parse_call(node, names) for node in nodes]
        layer.inputs = _refs(config["input_layers"])
        layer.outputs = _refs(config.get("output_layers"))
        _renumber(layer)


def _renumber(model: LayerConfig) -> None:
    """Count the calls of each layer from 0 wherever they are read.

    tf.keras counts a nested model's own inputs as call 0. Keras 3 does so in the list of outputs only, and not for
    Sequential models.
    """
    calls = [call for child in model.layers for call in child.calls]
    modern = any(call.modern for call in calls)
    read = [*references([(call.args, call.kwargs) for call in calls]), *([] if modern else references(model.outputs))]
    first: dict[str, int] = {}
    for ref in read:
        first[ref.layer] = min(ref.call, first.get(ref.layer, ref.call))
    nested = [child.name for child in model.layers if child.kind != "layer"]
    shifts = {} if modern else {name: min(first.get(name, 0), 1) for name in nested}
    at_end = {child.name: 1 for child in model.layers if child.kind == "functional"} if modern else shifts

    def changed(value: Any, by: dict[str, int]) -> Any:
        if isinstance(value, Ref):
            return Ref(value.layer, max(value.call - by.get(value.layer, 0), 0), value.output)
        if isinstance(value, tuple | list):
            return tuple(changed(item, by) for item in value)
        return {key: changed(item, by) for key, item in value.items()} if isinstance(value, dict) else value

    for call in calls:
        call.args, call.kwargs = changed(call.args, shifts), changed(call.kwargs, shifts)
    model.outputs = changed(model.outputs, at_end)


def _unique(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _malformed(message: str, received: Any) -> FormatError:
    return FormatError(
        f"the model's configuration is malformed: {message}",
        received=str(received)[:200],
        fix="the file is damaged, or was not written by Keras",
    )


def _ref(value: Any) -> Ref | None:
    if (
        isinstance(value, list | tuple)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value[1:3])
    ):
        return Ref(value[0], value[1], value[2])
    return None


def _refs(value: Any, depth: int = 0) -> Any:
    """References in lists and objects, as they stand in input_layers and output_layers."""
    found = _ref(value)
    if found is not None:
        return found
    if depth < _DEPTH and isinstance(value, dict):
        return {key: _refs(item, depth + 1) for key, item in value.items()}
    if depth < _DEPTH and isinstance(value, list | tuple):
        return [_refs(item, depth + 1) for item in value]
    raise _malformed("an input or output names no layer", value)


def parse_call(node: Any, names: set[str]) -> Call:
    """One entry of inbound_nodes, of any dialect."""
    if isinstance(node, dict) and "args" in node:
        args, kwargs = node["args"], node.get("kwargs", {})
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise _malformed("a call has no arguments", node)
        named = {key: _tensors(value) for key, value in kwargs.items() if key != "training"}  # the caller's decides
        return Call(tuple(_tensors(arg) for arg in args), named, modern=True)
    if isinstance(node, dict):  # tensors by name
        node = [item[0] if isinstance(item, list) and item and _ref(item) is None else item for item in node.values()]
    if not isinstance(node, list) or not node:
        raise _malformed("a call is no list of tensors", node)
    items = [node] if isinstance(node[0], str) else node
    found: list[Any] = []
    kwargs = {}
    for item in items:
        if not isinstance(item, list) or len(item) < 3:
            raise _malformed("a call is no list of tensors", node)
        if len(item) > 3 and isinstance(item[3], dict):
            kwargs.update({key: _legacy_argument(value, names) for key, value in item[3].items()})
        if item[0] == "_CONSTANT_VALUE":
            found.append(plain(item[2]))
            continue
        ref = _ref(item)
        if ref is None:
            raise _malformed("a call names no layer", item)
        found.append(ref)
    return Call((found[0] if len(found) == 1 else tuple(found),), kwargs)


def _legacy_argument(value: Any, names: set[str]) -> Any:
    ref = _ref(value)
    if ref is not None and ref.layer in names and len(value) in (3, 4):
        return ref
    if isinstance(value, list):
        return tuple(_legacy_argument(item, names) for item in value)
    return plain(value)


def _tensors(value: Any, depth: int = 0) -> Any:
    """An argument of Keras 3: objects that stand for tensors become `Ref`."""
    if depth > _DEPTH:
        raise _malformed("arguments are nested too deeply", value)
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        config = value.get("config")
        ref = _ref(config.get("keras_history")) if isinstance(config, dict) else None
        if ref is None:
            raise _malformed("a tensor has no history", value)
        return ref
    if isinstance(value, list):
        return tuple(_tensors(item, depth + 1) for item in value)
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _tensors(item, depth + 1) for key, item in value.items()}
    return plain(value)


def plain(value: Any, depth: int = 0) -> Any:
    """Plain, hashable data: lists and arrays as tuples, slices as ("slice", start, stop, step), `...` as "...".

    Objects with a class_name stay dicts, for those who know the class.
    """
    if depth > _DEPTH:
        raise _malformed("options are nested too deeply", value)
    if isinstance(value, list | tuple):
        return tuple(plain(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return value
    class_name, config = value.get("class_name"), value.get("config")
    if class_name == "__ellipsis__":
        return "..."
    if isinstance(config, dict):
        if class_name == "__slice__":
            return ("slice", *(plain(config.get(key), depth + 1) for key in ("start", "stop", "step")))
        if class_name in ("__numpy__", "__tensor__", "__tuple__", "TensorShape"):
            return plain(config.get("value", config.get("items")), depth + 1)
    return {key: plain(item, depth + 1) for key, item in value.items()}


def references(value: Any) -> Iterator[Ref]:
    """Every `Ref` in a structure, those of a dict by sorted names, as Keras flattens it."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from references(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)
