"""An ONNX model that is ready to be written: its graph, its weights as arrays, and what it says about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.files import atomic_path
from zoonet.formats.onnx.tensors import dtype_number
from zoonet.formats.onnx.wire import encoded
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.ops.sets.onnx.common import PACKED_BITS, STRING

__all__ = ["EXTERNAL_LIMIT", "Draft"]

#: Models with more bytes of weights than this are written with external data: a message ends at 2 GiB.
EXTERNAL_LIMIT = (2 << 30) - (64 << 20)
#: Arrays below this many bytes stay in the message; offsets of the others are multiples of a page.
_SMALL, _PAGE = 1 << 10, 1 << 12
#: Numbers of fields: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


@dataclass(eq=False)
class Draft:
    """A model to be written.

    inputs, outputs: ValueInfoProtos. nodes: NodeProtos in order. initializers: arrays by name. opsets: by domain, ""
    for ai.onnx. metadata: written as metadata_props.
    """

    name: str
    inputs: list[Any]
    outputs: list[Any]
    nodes: list[Any]
    initializers: dict[str, Any]
    opsets: dict[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    ir_version: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of all weights."""
        return sum(int(array.nbytes) for array in self.initializers.values())

    def proto(self) -> Any:
        """The whole model as a ModelProto. Raises UnsupportedFormatError above 2 GiB."""
        if self.nbytes > EXTERNAL_LIMIT:
            raise UnsupportedFormatError(
                "the model is too large for one message",
                expected=f"at most {EXTERNAL_LIMIT} bytes of weights",
                received=self.nbytes,
                fix="save it to a file: its weights then lie beside it",
            )
        return self._model([tensor(name, array) for name, array in self.initializers.items()])

    def save(self, path: str | os.PathLike[str], *, external: int | None = None) -> None:
        """Write the model atomically.

        external: with more bytes of weights than this (by default just below 2 GiB), they lie in a second file,
        `<name>.data`, in the same folder. Raises FileError, MissingFileError.
        """
        file = Path(os.fsdecode(path))
        limit = EXTERNAL_LIMIT if external is None else external
        if not isinstance(limit, int) or limit < 0:
            raise ArgumentError("the limit of external data is wrong", expected="a number of bytes", received=limit)
        with ExitStack() as stack:
            written = stack.enter_context(atomic_path(file))
            if self.nbytes <= min(limit, EXTERNAL_LIMIT):
                self._write(written)
                return
            # the data is renamed first, so that a model never stands without it
            data = file.with_name(file.name + ".data")
            with atomic_path(data) as temporary:
                tensors = self._external(temporary, data.name)
                written.write_bytes(self._model(tensors).SerializeToString())

    def _write(self, path: Path) -> None:
        """Write the model in one file, array by array: the message is never in memory as a whole."""
        model = self._model([])
        graph = model.graph.SerializeToString()
        model.ClearField("graph")
        heads = []
        for name, array in self.initializers.items():
            head = tensor(name, array, with_data=False).SerializeToString()
            plain = array.dtype != STRING and dtype_number(array.dtype) not in PACKED_BITS
            if plain:
                head += _key(_RAW_DATA) + encoded(array.nbytes)
            heads.append((head, array if plain else None, len(head) + (int(array.nbytes) if plain else 0)))
        total = len(graph) + sum(len(_key(_INITIALIZER)) + len(encoded(size)) + size for _, _, size in heads)
        with path.open("wb") as stream:
            stream.write(model.SerializeToString() + _key(_GRAPH) + encoded(total) + graph)
            for head, array, size in heads:
                stream.write(_key(_INITIALIZER) + encoded(size) + head)
                if array is not None:
                    stream.write(memoryview(_plain(array)))

    def _external(self, path: Path, location: str) -> list[Any]:
        """Write large arrays one after the other; their TensorProtos, and those of the small ones."""
        from onnx import StringStringEntryProto, TensorProto

        tensors = []
        with path.open("wb") as stream:
            for name, array in self.initializers.items():
                if array.nbytes < _SMALL or array.dtype == STRING or dtype_number(array.dtype) in PACKED_BITS:
                    tensors.append(tensor(name, array))
                    continue
                stream.write(b"\0" * (-stream.tell() % _PAGE))
                entries = {"location": location, "offset": stream.tell(), "length": array.nbytes}
                stream.write(memoryview(_plain(array)))
                tensors.append(
                    TensorProto(
                        name=name,
                        data_type=dtype_number(array.dtype),
                        dims=array.shape,
                        data_location=TensorProto.EXTERNAL,
                        external_data=[StringStringEntryProto(key=k, value=str(v)) for k, v in entries.items()],
                    )
                )
        return tensors

    def _model(self, tensors: list[Any]) -> Any:
        from onnx import helper

        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, tensors)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph,
            producer_name="zoonet",
            producer_version=_version(),
            opset_imports=opsets,
            ir_version=self.ir_version or helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        )
        model.doc_string = self.description
        if self.metadata:
            helper.set_model_props(model, {key: str(value) for key, value in self.metadata.items()})
        return model


def _version() -> str:
    try:
        return version("zoonet")
    except PackageNotFoundError:  # from a checkout that is not installed
        return ""


def _plain(array: Any) -> Any:
    """The array's bytes, little-endian, uint8."""
    ordered = np.ascontiguousarray(array)
    if ordered.dtype.byteorder == ">" or (ordered.dtype.byteorder == "=" and not np.little_endian):
        ordered = ordered.astype(ordered.dtype.newbyteorder("<"))
    return ordered.reshape(-1).view(np.uint8)


def _key(field: int) -> bytes:
    """The key of a field that holds bytes or a message."""
    return encoded(field << 3 | 2)


def tensor(name: str, array: Any, with_data: bool = True) -> Any:
    """An array as a TensorProto. with_data=False: without raw_data, for arrays that would have it."""
    from onnx import TensorProto, numpy_helper

    number = dtype_number(array.dtype)
    if array.dtype == STRING or number in PACKED_BITS:
        return numpy_helper.from_array(np.asarray(array), name)
    data = {"raw_data": _plain(array).tobytes()} if with_data else {}
    return TensorProto(name=name, data_type=number, dims=array.shape, **data)
