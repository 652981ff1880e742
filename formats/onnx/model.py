"""An imported ONNX model: its graph, what it takes and gives, and what it says about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoonet.formats.files import check_path, map_file
from zoonet.formats.onnx.reader import GraphReader, opsets_of
from zoonet.formats.onnx.tensors import TensorReader
from zoonet.formats.onnx.values import ValueInfo, as_text, value_info
from zoonet.formats.onnx.wire import without_weights
from zoonet.ops.devices import to_device
from zoonet.ops.errors import FormatError, InputError, UnsafeFileError, UnsupportedFormatError
from zoonet.ops.graph import Graph, Value
from zoonet.ops.tracing import evaluate_graph

__all__ = ["OnnxModel", "from_proto", "load"]

#: Elements up to which a constant is left on the host.
_SMALL = 64


@dataclass(eq=False)
class OnnxModel:
    """A model read from ONNX.

    graph: takes the inputs that no initializer gives, in order. inputs: all of them, those with an initializer marked
    optional. initializers: the graph's constants by name. opsets: by domain, "" for ai.onnx. metadata: metadata_props.
    """

    graph: Graph
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    initializers: dict[str, Value]
    opsets: dict[str, int]
    ir_version: int
    producer: str
    description: str
    metadata: dict[str, str]
    _placed: dict[str, dict[Value, Any]] = field(default_factory=dict, repr=False)

    def run(self, inputs: Mapping[str, Any] | Sequence[Any], device: str = "cpu") -> tuple[Any, ...]:
        """The outputs for inputs by name or in order.

        In order, inputs that have an initializer may be left out all together. Sequences are lists, absent optional
        values None, strings arrays of objects. Raises InputError, and what the operators raise.
        """
        feeds = {name: _moved(value, device) for name, value in self._feeds(inputs).items()}
        arguments = [feeds[value.name or ""] for value in self.graph.inputs]
        overridden = {self.initializers[n]: v for n, v in feeds.items() if n in self.initializers}
        results = evaluate_graph(self.graph, *arguments, constants={**self._constants(device), **overridden})
        return tuple([_moved(result, device) for result in results])

    def _constants(self, device: str) -> dict[Value, Any]:
        """Constants on another device, moved once; small ones, shapes and axes mostly, stay where they are read."""
        if device not in self._placed:
            large = {} if device == "cpu" else {v: a for v, a in self.graph.constants.items() if a.size > _SMALL}
            self._placed[device] = {value: _moved(array, device) for value, array in large.items()}
        return self._placed[device]

    def _feeds(self, inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
        infos = {info.name: info for info in self.inputs}
        required = [info.name for info in self.inputs if not info.optional]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = list(inputs)
            names = required if len(given) == len(required) else list(infos)[: len(given)]
            if len(given) > len(infos):
                raise InputError(
                    "the model got too many inputs", expected=", ".join(map(str, infos)), received=len(given)
                )
            feeds = dict(zip(names, given, strict=True))
        unknown = [name for name in feeds if name not in infos]
        missing = [name for name in required if name not in feeds]
        if unknown or missing:
            raise InputError(
                f"the model has no input {unknown[0]!r}" if unknown else f"the input {missing[0]!r} is missing",
                expected=", ".join(f"{info.name}: {info}" for info in self.inputs),
                received=", ".join(map(str, feeds)) or "nothing",
            )
        return {name: infos[name].check(value) for name, value in feeds.items()}


def _moved(value: Any, device: str) -> Any:
    if device == "cpu":
        return value
    if isinstance(value, list):
        return [_moved(item, device) for item in value]
    return to_device(value, device) if hasattr(value, "dtype") and value.dtype != object else value


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read a model file, with external data from its own folder only.

    Weights are views of the mapped file, and of mapped external data: reading takes no memory for them. Raises
    MissingFileError, FormatError, UnsupportedFormatError, UnsafeFileError.
    """
    file = check_path(path)
    tensors = TensorReader(file.parent, Path(file))
    message, tensors.large = without_weights(map_file(file))
    return _parse(message, file.name, tensors)


def from_bytes(data: bytes) -> OnnxModel:
    """Read a model from the bytes of a file without external data. Raises as `load` does."""
    return _parse(data, "the model", TensorReader())


def _parse(data: bytes, name: str, tensors: TensorReader) -> OnnxModel:
    import onnx
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    if not isinstance(data, bytes | bytearray | memoryview):
        raise FormatError(
            "from_bytes takes the bytes of a file", received=type(data).__name__, fix="use load for a path"
        )
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise FormatError(
            f"{name} is not a readable ONNX model: {error}",
            expected="a ModelProto message",
            received=f"{len(data)} bytes",
            fix="the file is truncated or damaged, or is not ONNX: get it again",
        ) from None
    return from_proto(proto, tensors)


def from_proto(proto: Any, tensors: TensorReader | None = None) -> OnnxModel:
    """The model of a ModelProto. tensors: reads external data; without it there must be none.

    Raises FormatError, UnsupportedFormatError, UnsafeFileError.
    """
    import onnx

    if not isinstance(proto, onnx.ModelProto):
        raise FormatError("from_proto takes a ModelProto", received=type(proto).__name__, fix="use load for a path")
    if not proto.HasField("graph"):
        raise FormatError("the model has no graph", fix="the file is truncated or is not an ONNX model")
    opsets = opsets_of(proto.opset_import)
    if not opsets and proto.ir_version >= 3:
        raise FormatError("the model does not say which opset it uses")
    if any(version < 1 for version in opsets.values()):
        raise UnsupportedFormatError("the model uses an impossible opset", received=opsets)
    reader = GraphReader(proto, tensors or TensorReader())
    try:
        graph, initializers = reader.read(proto.graph, opsets)
    except RecursionError:
        raise UnsafeFileError("the model's sub-graphs are nested too deep") from None
    inputs = tuple(value_info(v, optional=v.name in initializers) for v in proto.graph.input)
    return OnnxModel(
        graph=graph,
        inputs=inputs,
        outputs=tuple(value_info(v) for v in proto.graph.output),
        initializers=initializers,
        opsets=opsets,
        ir_version=int(proto.ir_version),
        producer=f"{as_text(proto.producer_name)} {as_text(proto.producer_version)}".strip(),
        description=as_text(proto.doc_string or proto.graph.doc_string),
        metadata={as_text(entry.key): as_text(entry.value) for entry in proto.metadata_props},
    )
