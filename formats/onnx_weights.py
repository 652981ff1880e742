"""The weights inside an ONNX file: its initializers, also those kept in external data files beside it.

Source: `onnx.proto` (TensorProto, its data fields and `external_data`). Only the graph's initializers are read here;
the graph itself is read elsewhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.dtypes import ONNX, ONNX_PACKED, unpack
from zoonet.formats.files import check_relative_name, map_file, view_as
from zoonet.ops.errors import FormatError, MissingFileError, UnsafeFileError, UnsupportedFormatError

if TYPE_CHECKING:
    import onnx

    from zoonet.formats.registry import Probe

_EXTERNAL = 1
_STRING = 8
# Typed fields that hold a tensor's elements where raw_data does not: data types -> field.
_FIELDS: dict[int, str] = {1: "float_data", 14: "float_data", 7: "int64_data", 11: "double_data", 15: "double_data"}
_FIELDS.update({12: "uint64_data", 13: "uint64_data"})


def recognise(probe: Probe) -> bool:
    """Whether the file starts as an ONNX model does: field 1 (ir_version), a small number, then a known field."""
    head = probe.head
    if len(head) < 8 or head[0] != 0x08 or not 1 <= head[1] <= 30:
        return False
    # opset_import, producer_name, producer_version, domain, doc_string, graph, metadata, model_version
    return head[2] in (0x42, 0x12, 0x1A, 0x22, 0x32, 0x3A, 0x72, 0x28)


def read(path: Path) -> Checkpoint:
    """Read the initializers of an ONNX file; external data is mapped, and may not leave the folder.

    metadata: "ir_version", "opsets" (domain -> version), "producer", and the file's own metadata under "properties".
    Raises FormatError, UnsafeFileError (external data outside the folder), MissingFileError (external data absent),
    UnsupportedFormatError (text, sparse or 2- and 6-bit initializers).
    """
    model, weights = load_model(path)
    if len(model.graph.sparse_initializer):
        raise UnsupportedFormatError(f"{path.name}: sparse initializers are not read")
    files: dict[str, Array] = {}
    tensors: dict[str, LazyTensor] = {}
    skipped = []
    for initializer in model.graph.initializer:
        if initializer.data_type == _STRING:
            skipped.append(initializer.name)
            continue
        if initializer.name in tensors:
            raise FormatError(f"{path.name}: two initializers are named {initializer.name[:200]!r}")
        tensors[initializer.name] = tensor_from_proto(initializer, path, files, weights)
    metadata: dict[str, Any] = {
        "ir_version": model.ir_version,
        "opsets": {opset.domain: opset.version for opset in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "properties": {entry.key: entry.value for entry in model.metadata_props},
    }
    if skipped:
        metadata["text_initializers"] = skipped
    return Checkpoint(tensors, metadata, "onnx")


def load_model(path: Path) -> tuple[onnx.ModelProto, dict[bytes, Array]]:
    """Parse an ONNX file without its external data; its large weights by token, see `wire`. Raises FormatError."""
    import onnx
    from google.protobuf.message import DecodeError

    from zoonet.formats.onnx.wire import without_weights

    model = onnx.ModelProto()
    message, weights = without_weights(map_file(path))
    try:
        model.ParseFromString(message)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{path.name}: the ONNX file is truncated or corrupt", received=str(error)[:200], fix="obtain it again"
        ) from error
    if not model.HasField("graph"):
        raise FormatError(f"{path.name}: the ONNX file has no graph", fix="obtain it again")
    return model, weights


def tensor_from_proto(
    proto: onnx.TensorProto, path: Path, files: dict[str, Array], weights: dict[bytes, Array]
) -> LazyTensor:
    """Make a TensorProto lazy. path: the ONNX file. files: mapped external data by name, shared between tensors."""
    what = f"{path.name}: initializer {proto.name[:200]!r}"
    shape = tuple(proto.dims)
    if any(size < 0 for size in shape) or len(shape) > 64:
        raise FormatError(f"{what} has an invalid shape", received=str(shape)[:200])
    from zoonet.formats.onnx.tensors import check_one_field

    dtype = ONNX.get(proto.data_type)
    if dtype is None or proto.HasField("segment"):
        raise UnsupportedFormatError(f"{what} is of a data type that is not read", received=str(proto.data_type))
    check_one_field(proto, what)
    count = math.prod(shape)
    per_byte = 2 if proto.data_type in ONNX_PACKED else 1
    nbytes = -(-count // per_byte) * dtype.itemsize
    if proto.data_location == _EXTERNAL:
        external = _external(proto, path, nbytes, files, what)
        content: Callable[[], Array] = external.view
        size = external.size
    elif proto.HasField("raw_data") and len(proto.raw_data) == 16 and proto.raw_data in weights:
        mapped = weights[proto.raw_data]
        content, size = (lambda: mapped), len(mapped)
    elif proto.HasField("raw_data"):
        # Each access copies the bytes: only their number is kept until they are wanted.
        content, size = (lambda: np.frombuffer(proto.raw_data, np.uint8)), len(proto.raw_data)
    else:
        typed = _typed_data(proto, dtype, what)
        content, size = typed.view, typed.size
    if size != nbytes:
        raise FormatError(
            f"{what} has not the size that its shape declares",
            expected=f"{nbytes} bytes for {dtype} {shape}"[:200],
            received=f"{size}",
        )
    if per_byte == 2:
        return LazyTensor(shape, dtype, lambda: unpack(content())[:count].view(dtype).reshape(shape))
    return LazyTensor(shape, dtype.newbyteorder("="), lambda: view_as(content(), dtype, shape))


def _typed_data(proto: onnx.TensorProto, dtype: np.dtype[Any], what: str) -> Array:
    """The elements of a typed field as the bytes that raw_data would have."""
    from zoonet.formats.onnx.tensors import check_range

    values = getattr(proto, _FIELDS.get(proto.data_type, "int32_data"))
    try:
        if proto.data_type in (14, 15):  # complex numbers: real and imaginary parts in turn
            array = np.array(values, "<f4" if proto.data_type == 14 else "<f8")
        elif dtype.kind in "iu" and proto.data_type not in ONNX_PACKED:
            array = np.array(values)
            check_range(array, np.iinfo(dtype).min, np.iinfo(dtype).max, what)
            array = array.astype(dtype)
        elif proto.data_type in ONNX_PACKED or dtype.itemsize == 1:
            array = np.array(values, np.int64)
            check_range(array, -(1 << 7), (1 << 8) - 1, what)
            array = array.astype(np.uint8)
        elif dtype.itemsize == 2:  # the bits of float16 and bfloat16
            array = np.array(values, np.int64)
            check_range(array, -(1 << 15), (1 << 16) - 1, what)
            array = array.astype("<u2")
        else:
            array = np.array(values, dtype)
    except (ValueError, OverflowError, TypeError) as error:
        raise FormatError(f"{what} has elements that its data type cannot hold", received=str(error)) from error
    return array.reshape(-1).view(np.uint8)


def _external(proto: onnx.TensorProto, path: Path, nbytes: int, files: dict[str, Array], what: str) -> Array:
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    relative = check_relative_name(location, f"{what}: its external data")
    try:
        offset, length = int(entries.get("offset", "0") or 0), int(entries.get("length", str(nbytes)) or nbytes)
    except ValueError as error:
        raise FormatError(f"{what}: its external data has no valid place", received=str(entries)[:200]) from error
    if location not in files:
        file = path.parent / relative
        # A link in the folder may lead out of it: what counts is where it ends.
        if path.parent.resolve() not in file.resolve().parents:
            raise UnsafeFileError(f"{what}: its external data lies outside the folder", received=repr(location[:200]))
        if not os.path.isfile(file) or not os.access(file, os.R_OK):
            raise MissingFileError(f"{what}: its external data {location[:200]!r} is missing", fix="put it beside")
        files[location] = map_file(file) if file.stat().st_size else np.empty(0, np.uint8)
    data = files[location]
    if offset < 0 or length < 0 or offset + length > data.size:
        raise FormatError(
            f"{what}: its external data ends after the file",
            expected=f"{length} bytes at {offset}",
            received=f"{location[:200]!r} of {data.size} bytes",
            fix="obtain the file again",
        )
    return data[offset : offset + length]
