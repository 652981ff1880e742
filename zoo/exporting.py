"""Models and functions as ONNX files: what each kind of network takes and gives, and what the file says of its task."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import UnsupportedFormatError
from zoonet.ops.types import TensorType, int64
from zoonet.zoo.modules import Module, functional_call

if TYPE_CHECKING:
    from zoonet.formats.onnx import Draft
    from zoonet.zoo.model import Model

__all__ = ["draft", "export", "save"]

Axes = Mapping[str, Mapping[int, str]]
#: Free sizes of token numbers.
_TOKENS = {0: "batch", 1: "sequence"}


@dataclass(frozen=True)
class Signature:
    """How a network is exported: a function of the weights by name and the inputs, with names, types and free sizes."""

    function: Callable[..., Any]
    inputs: Mapping[str, TensorType]
    outputs: Sequence[str] | None
    dynamic: Axes | None


def export(
    function: Callable[..., Any],
    path: str | os.PathLike[str],
    *examples: Any,
    dynamic: Axes | None = None,
    opset: int | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a function of arrays, or a module, as an ONNX model: `export(step, "step.onnx", parameters, x, y)`.

    examples: arrays or types (`ops.tensor_type((1, 3))`), one per argument, or containers of them; contents do not
    matter. dynamic: which axes may have any size, by input: {"x": {0: "batch"}}; the first of every argument that is an
    array itself where None. A module's parameters are weights of the model, under their names. See
    `zoonet.formats.onnx.export` for the rest. Raises TraceError, UnsupportedFormatError, ArgumentError, FileError.
    """
    from zoonet.formats import onnx

    weights = None
    called = function
    if isinstance(function, Module):
        called, weights = _of_module(function), dict(_arrays(function))
    made = onnx.export(
        called,
        *examples,
        dynamic=dynamic,
        opset=opset,
        inputs=inputs if inputs is not None or weights is None else _parameters(function, len(examples)),
        outputs=outputs,
        weights=weights,
        name=type(function).__name__ if weights is not None else None,
        metadata=metadata,
    )
    made.save(path)


def _parameters(module: Callable[..., Any], count: int) -> list[str] | None:
    import inspect

    names = list(inspect.signature(module.forward).parameters)  # type: ignore[attr-defined]
    return names[:count] if len(names) >= count else None


def _of_module(module: Module) -> Callable[..., Any]:
    """The module as a function of its arrays by name and its inputs."""
    return lambda weights, *inputs: functional_call(module, weights, *inputs)[0]


def _arrays(module: Module) -> Mapping[str, Any]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


# -- models ------------------------------------------------------------------------------------------------------


def save(model: Model, path: pathlib.Path, opset: int | None = None, dynamic: Axes | None = None) -> None:
    """Write a model of the facade as ONNX; see `Model.save`."""
    draft(model, opset, dynamic).save(path)


def draft(model: Model, opset: int | None = None, dynamic: Axes | None = None) -> Draft:
    """The ONNX model of a model of the facade, in inference mode. Raises UnsupportedFormatError, TraceError."""
    from zoonet.formats import onnx
    from zoonet.zoo.graphs import GraphNetwork
    from zoonet.zoo.onnx_graphs import OnnxNetwork

    network = model.network
    metadata = describe(model)
    if isinstance(network, GraphNetwork):
        is_asked = dynamic is None and (opset is None or opset == getattr(network, "opset", None))
        if is_asked and isinstance(network, OnnxNetwork) and not network.differs_from_file:
            return network.draft(metadata)
        signature = _imported(network)
    else:
        signature = _signature(model)
    training = [module for _, module in network.named_modules() if module.training]
    if training:
        network.eval()
    try:
        return onnx.export(
            signature.function,
            *signature.inputs.values(),
            dynamic=signature.dynamic if dynamic is None else dynamic,
            opset=opset,
            inputs=list(signature.inputs),
            outputs=signature.outputs,
            weights=_arrays(network),
            name=model.architecture,
            metadata=metadata,
            description=model.card.notes,
        )
    finally:
        for module in training:
            module.training = True


def _signature(model: Model) -> Signature:
    network = model.network
    if hasattr(model.task, "has_tokenizer"):
        from zoonet.zoo.transformers.bert import BertModel, BertWithHead

        if hasattr(network, "decode"):
            return _encoder_decoder(network)
        return _encoder(network) if isinstance(network, BertModel | BertWithHead) else _decoder(network)
    kinds = model.task.example(network)
    ports = getattr(model.task, "inputs", ())
    names = ["input"] if len(kinds) == 1 else [f"input_{i}" for i in range(len(kinds))]
    outputs: list[str] | None = ["scores"] if model.task.name == "image-classification" else None
    if len(ports) == len(kinds):  # a graph that names them
        names, outputs = [port.name for port in ports], [port.name for port in model.task.outputs]  # type: ignore[attr-defined]
    axes = model.task.free_axes() if hasattr(model.task, "free_axes") else {0: "batch"}
    dynamic = {name: axes for name, kind in zip(names, kinds, strict=True) if kind.shape}
    return Signature(_of_module(network), dict(zip(names, kinds, strict=True)), outputs, dynamic)


def _imported(network: Any) -> Signature:
    """A graph that is traced to get another opset, or other free sizes, than those of its file."""
    from zoonet.zoo.arrays import usual

    inputs: dict[str, TensorType] = {}
    dynamic: dict[str, dict[int, str]] = {}
    for port in network.ports:
        if port.kind != "tensor" or port.dtype is None or port.shape is None:
            raise UnsupportedFormatError(
                "the graph cannot be written in another opset",
                expected="inputs that are arrays of known rank",
                received=f"{port.name}: {port}",
                fix="leave out opset and dynamic: it then stays as it is in its file",
            )
        inputs[port.name] = TensorType(usual(port.shape), port.dtype)
        usual_names = {0: "batch"}  # where the graph names none
        free = {
            axis: n or usual_names.get(axis, f"{port.name}_{axis}")
            for axis, n in enumerate(port.shape)
            if not isinstance(n, int)
        }
        dynamic[port.name] = {axis: _size_name(n) for axis, n in free.items()}

    def run(weights: Mapping[str, Any], *arrays: Any) -> Any:
        return functional_call(network, weights, *arrays, function=network.run_graph)[0]

    return Signature(run, inputs, network.results, dynamic)


def _size_name(name: str) -> str:
    """The name of a free size, or a sum of such names, as `onnx.export` takes it."""
    if all(term.strip().isidentifier() for term in name.split("+")):
        return name
    return "".join(c if c.isalnum() else "_" for c in name)


def _encoder(network: Any) -> Signature:
    from zoonet.zoo.transformers.bert import FAMILIES

    names = ["input_ids", "attention_mask"]
    if FAMILIES[network.config.family].token_types:
        names.append("token_type_ids")
    head = getattr(network, "head", "embedding")
    outputs = ["last_hidden_state"] if head == "embedding" else ["logits"]
    kind = TensorType((1, min(8, network.config.longest)), int64)
    return Signature(_of_module(network), dict.fromkeys(names, kind), outputs, dict.fromkeys(names, _TOKENS))


class _Past:
    """A cache that is traced: keys and values of earlier positions are inputs of the graph, all of them outputs."""

    def __init__(self, arrays: Sequence[Any], capacity: int) -> None:
        self.capacity = capacity
        self.length = arrays[0].shape[2]
        self._past = list(arrays)
        self.present: list[Any] = [None] * len(arrays)

    def append(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """(N, H, T, D) behind the past: (N, H, length + T, D)."""
        from zoonet import ops

        for place, new in ((2 * layer, key), (2 * layer + 1, value)):
            self.present[place] = ops.concat([self._past[place], new], 2)
        return self.present[2 * layer], self.present[2 * layer + 1]

    def memory(self, layer: int, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Keys and values of an encoder's output, which are not kept."""
        return make()

    def advance(self, count: int) -> None:
        """Nothing is counted: sizes are those of the arrays."""


def _decoder(network: Any) -> Signature:
    """Tokens, mask, positions and the keys and values of earlier positions, which a first call gives empty."""
    config = network.config
    rope = getattr(config, "rope", {})
    if rope.get("rope_type", rope.get("type")) == "longrope":
        raise UnsupportedFormatError(
            "a decoder with LongRoPE is not written as ONNX: its positions depend on the length of the whole text",
            fix="save it as a folder, or with other rope_parameters",
        )
    heads = getattr(config, "key_value_heads", config.heads)
    depth = config.depth if hasattr(config, "depth") else config.width // config.heads
    names = [f"{layer}.{part}" for layer in range(config.layers) for part in ("key", "value")]
    tokens = TensorType((1, 4), int64)
    past = TensorType((1, heads, 4, depth), _dtype(network))
    inputs = {
        "input_ids": tokens,
        "attention_mask": TensorType((1, 8), int64),
        "position_ids": tokens,
        **{f"past_key_values.{name}": past for name in names},
    }
    dynamic: dict[str, Mapping[int, str]] = {name: {0: "batch", 2: "past"} for name in inputs}
    dynamic |= {"input_ids": _TOKENS, "position_ids": _TOKENS, "attention_mask": {0: "batch", 1: "past + sequence"}}

    def run(weights: Mapping[str, Any], ids: Any, mask: Any, positions: Any, *arrays: Any) -> Any:
        cache = _Past(arrays, config.positions)
        logits, _ = functional_call(network, weights, ids, mask, positions, cache)
        return (logits, *cache.present)

    return Signature(run, inputs, ["logits", *(f"present.{name}" for name in names)], dynamic)


def _encoder_decoder(network: Any) -> Signature:
    """The text that is read and its mask, what is written, and the decoder's keys and values of earlier positions.

    One graph, where optimum writes two or three. Inputs: input_ids and attention_mask (batch, source),
    decoder_input_ids (batch, sequence), past_key_values.LAYER.decoder.key and .value (batch, heads, past, size), of
    length 0 at first. Outputs: logits (batch, sequence, words), present.LAYER.decoder.key and .value, and
    encoder_last_hidden_state, so that a decoder that goes on needs the encoder no more. There is no
    decoder_attention_mask: what is written has no padding, and each position sees those before it.
    """
    config = network.config
    depth = getattr(config, "head_size", config.width // config.heads)
    names = [f"{layer}.decoder.{part}" for layer in range(config.decoder_layers) for part in ("key", "value")]
    past = TensorType((1, config.heads, 4, depth), _dtype(network))
    tokens = dict.fromkeys(("input_ids", "attention_mask", "decoder_input_ids"), TensorType((1, 4), int64))
    inputs = {**tokens, **{f"past_key_values.{name}": past for name in names}}
    dynamic: dict[str, Mapping[int, str]] = {name: {0: "batch", 2: "past"} for name in inputs}
    source = {0: "batch", 1: "source"}
    dynamic |= {"input_ids": source, "attention_mask": source, "decoder_input_ids": _TOKENS}

    def write(ids: Any, mask: Any, written: Any, *arrays: Any) -> Any:
        cache = _Past(arrays, network.positions or 0)
        memory = network.encode(ids, mask)
        return network.decode(written, memory, mask, cache=cache), cache.present, memory

    def run(weights: Mapping[str, Any], *arrays: Any) -> Any:
        logits, present, memory = functional_call(network, weights, *arrays, function=write)[0]
        return (logits, *present, memory)

    outputs = ["logits", *(f"present.{name}" for name in names), "encoder_last_hidden_state"]
    return Signature(run, inputs, outputs, dynamic)


def _dtype(network: Module) -> Any:
    from zoonet.zoo.classification import floating_dtype

    return floating_dtype(network)


# -- what the file says ------------------------------------------------------------------------------------------


def describe(model: Model) -> dict[str, str]:
    """metadata_props of a model: labels, preprocessing, licence and source as anybody reads them, and under "zoonet"
    all that `zoo.load` needs to give back the task."""
    from zoonet.zoo import architectures
    from zoonet.zoo.graphs import GraphNetwork, own_config

    network: Any = model.network
    if model.task.name == "arrays":
        return network.metadata if isinstance(network, GraphNetwork) else {}
    content: dict[str, Any] = {}
    kept: dict[str, str] = {}
    if isinstance(network, GraphNetwork):  # what it was before it became a graph, if anything
        kept = network.metadata
        content |= {k: v for k, v in own_config(kept, "").items() if k in ("architecture", "configuration")}
    else:
        content["architecture"] = model.architecture
        is_text = hasattr(model.task, "has_tokenizer") and hasattr(network.config, "to_json")
        if not is_text and model.architecture in architectures.names():
            content["configuration"] = architectures.changes(model.architecture, network)
    content |= {"task": model.task.name, "card": {key: value for key, value in vars(model.card).items() if value}}
    if hasattr(model.task, "has_tokenizer"):
        content |= {"config": _text_config(model), **_tokenizer(model.task)}
    else:
        content |= model.task.to_config()
    plain: dict[str, str] = {
        "architecture": content.get("architecture", ""),
        "task": model.task.name,
        "licence": model.card.licence,
        "source": model.card.source,
    }
    plain |= {key: _json(content[key]) for key in ("labels", "preprocessing") if key in content}
    return {**kept, **{key: value for key, value in plain.items() if value}, "zoonet": _json(content)}


def _tokenizer(task: Any) -> dict[str, Any]:
    """A task's tokenizer as plain data; nothing where it has none."""
    if not task.has_tokenizer:
        return {}
    tokenizer = task.tokenizer
    content = {"tokenizer": tokenizer.pipeline.to_str(), "padding": tokenizer.padding}
    if tokenizer.names:
        content["special_tokens"] = dict(tokenizer.names)
    if tokenizer.template is not None:
        content["chat_template"] = tokenizer.template.source
    return content


def _text_config(model: Model) -> dict[str, Any]:
    """The fields of config.json that make the task again."""
    from zoonet.zoo.graphs import GraphNetwork

    network: Any = model.network
    settings = {
        k: v for k, v in model.task.to_config().items() if isinstance(v, str | int | float | list | dict | bool)
    }
    if isinstance(network, GraphNetwork) or not hasattr(network.config, "to_json"):
        return settings
    head = getattr(network, "head", None)
    sizes = network.config.to_json() if head is None else network.config.to_json(head)
    return {**settings, **sizes, **{k: v for k, v in settings.items() if k.endswith("token_id")}}


def _json(content: Any) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UnsupportedFormatError("the model's configuration is not plain data", received=error) from None
