"""safetensors files: a JSON header, then one buffer. Source: the format's specification, version 0.6.

    8 bytes   N, the length of the header, little-endian unsigned
    N bytes   JSON: {"name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, "__metadata__": {...}}
    the rest  the buffer, covered by the tensors without holes or overlaps

The header is checked here rather than by the safetensors package because files are mapped lazily as NumPy arrays,
including dtypes that the package cannot give to NumPy.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.dtypes import SAFETENSORS, SAFETENSORS_NAMES, pack, unpack
from zoonet.formats.files import atomic_path, map_file, view_as
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

MAX_HEADER = 100_000_000  # the specification's cap
_MAX_RANK = 64  # NumPy's
_PACKED = SAFETENSORS["F4"]


def recognise(probe: Probe) -> bool:
    """Whether the file starts with a header length and an opening brace."""
    if len(probe.head) < 10:
        return False
    (length,) = struct.unpack("<Q", probe.head[:8])
    # A header length beyond the file is still this format, only damaged, if its JSON starts as it must.
    start = probe.head[8:].lstrip(b" ")[:2]
    return start == b"{}" or (start == b'{"' and length >= 2)


def read(path: Path) -> Checkpoint:
    """Map one safetensors file. metadata: the strings of `__metadata__`."""
    data = map_file(path)
    length = _header_length(data, path.name)
    header = parse_json_object(data[8 : 8 + length].tobytes(), f"{path.name}: the header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path.name}: __metadata__ must map strings to strings")
    buffer = data[8 + length :]
    tensors = {}
    spans = []
    for name, entry in header.items():
        what = f"{path.name}: tensor {name[:200]!r}"
        dtype, shape, begin, end = _check_entry(entry, buffer.size, what)
        spans.append((begin, end, name))
        tensors[name] = _tensor(buffer[begin:end], dtype, shape)
    _check_cover(spans, buffer.size, path.name)
    return Checkpoint(tensors, metadata, "safetensors")


def _header_length(data: Array, file_name: str) -> int:
    if data.size < 10:
        raise FormatError(f"{file_name}: too short for a safetensors file", received=f"{data.size} bytes")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    if length > MAX_HEADER:
        raise UnsafeFileError(
            f"{file_name}: the header is larger than the format allows",
            expected=f"at most {MAX_HEADER} bytes",
            received=f"{length}",
        )
    if length > data.size - 8:
        raise FormatError(
            f"{file_name}: the file ends inside its header",
            expected=f"{length + 8} bytes or more",
            received=f"{data.size}",
            fix="obtain the file again",
        )
    if length < 2 or data[8] != ord("{"):
        raise FormatError(f"{file_name}: the header does not start with a brace")
    return int(length)


def _check_entry(entry: Any, buffer_size: int, what: str) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{what}: the entry must have dtype, shape and data_offsets")
    name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = SAFETENSORS.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise UnsupportedFormatError(
            f"{what}: unknown dtype", expected=", ".join(SAFETENSORS), received=repr(name)[:100]
        )
    if not _are_counts(shape) or len(shape) > _MAX_RANK:
        raise FormatError(f"{what}: the shape must be a list of counts", received=repr(shape)[:200])
    if not _are_counts(offsets) or len(offsets) != 2:
        raise FormatError(f"{what}: data_offsets must be two counts", received=repr(offsets)[:200])
    begin, end = offsets
    if not begin <= end <= buffer_size:
        raise FormatError(
            f"{what}: its data lies outside the file",
            expected=f"0 <= begin <= end <= {buffer_size}",
            received=f"{offsets}"[:200],
            fix="the file is truncated or corrupt: obtain it again",
        )
    bits = 4 if dtype == _PACKED else 8 * dtype.itemsize
    if math.prod(shape) * bits != 8 * (end - begin):
        raise FormatError(
            f"{what}: its size does not fit its shape",
            expected=f"{bits} bits for each element of {shape}"[:200],
            received=f"{end - begin} bytes",
        )
    return dtype, tuple(shape), begin, end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(spans: list[tuple[int, int, str]], size: int, file_name: str) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            problem = "overlaps another tensor" if begin < position else "is preceded by bytes of no tensor"
            raise FormatError(f"{file_name}: tensor {name[:200]!r} {problem}", received=f"offset {begin}")
        position = end
    if position != size:
        raise FormatError(
            f"{file_name}: the file is longer than its tensors",
            expected=f"{position} bytes",
            received=f"{size}",
        )


def _tensor(data: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> LazyTensor:
    if dtype == _PACKED:
        return LazyTensor(shape, dtype, lambda: unpack(data).view(dtype).reshape(shape))
    return LazyTensor(shape, dtype.newbyteorder("="), lambda: view_as(data, dtype, shape))


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write one file, tensor by tensor. Metadata that is not a string is written as JSON, what JSON lacks is left out.

    Larger elements come first, so that every tensor is aligned. Raises UnsupportedFormatError for a dtype that
    the format lacks (complex128).
    """
    header: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    strings = header_metadata(metadata)
    if strings:
        header["__metadata__"] = strings
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    position = 0
    for name in order:
        tensor = tensors[name]
        dtype_name = SAFETENSORS_NAMES.get(tensor.dtype)
        if dtype_name is None or name == "__metadata__":
            raise UnsupportedFormatError(
                f"safetensors files cannot hold tensor {name!r} of dtype {tensor.dtype}",
                fix="convert it to " + ", ".join(str(dtype) for dtype in SAFETENSORS_NAMES),
            )
        if tensor.dtype == _PACKED and tensor.size % 2:
            raise UnsupportedFormatError(f"safetensors: {name!r} has an odd number of 4-bit elements")
        nbytes = tensor.nbytes // 2 if tensor.dtype == _PACKED else tensor.nbytes
        entry = {
            "dtype": dtype_name,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + nbytes],
        }
        entries[name] = entry
        position += nbytes
    header.update((name, entries[name]) for name in tensors)
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in order:
            array = np.ascontiguousarray(tensors[name].load())
            packed = pack(array) if array.dtype == _PACKED else array
            stream.write(packed.astype(packed.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)


def header_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as safetensors can keep it: strings as they are, other plain data as JSON."""
    result = {}
    for key, value in metadata.items():
        try:
            result[str(key)] = value if isinstance(value, str) else json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            continue
    return result
