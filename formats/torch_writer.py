"""Writes PyTorch's zip format: a state dict that `torch.load(path, weights_only=True)` accepts."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import LazyTensor
from zoonet.formats.dtypes import TORCH_NAMES, TORCH_STORAGE_NAMES
from zoonet.formats.files import atomic_path
from zoonet.ops.errors import UnsupportedFormatError

_ALIGNMENT = 64  # so that PyTorch can map the storages of the file


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write an OrderedDict of tensors, little-endian, tensor by tensor; tied tensors share one storage.

    A state dict holds tensors only: metadata is left out. Raises UnsupportedFormatError for a dtype that PyTorch
    lacks (4-bit floats).
    """
    storages: dict[Hashable, tuple[str, LazyTensor]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in TORCH_NAMES:
            raise UnsupportedFormatError(
                f"PyTorch files cannot hold tensor {name!r} of dtype {tensor.dtype}",
                expected="one of " + ", ".join(str(dtype) for dtype in TORCH_NAMES),
            )
        storages.setdefault(_storage_of(name, tensor), (str(len(storages)), tensor))
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        program = [b"\x80\x02ccollections\nOrderedDict\n)R("]
        for name, tensor in tensors.items():
            program.append(_text(name) + _tensor(tensor, storages[_storage_of(name, tensor)][0]))
        program.append(b"u.")
        _add(archive, "archive/data.pkl", b"".join(program))
        _add(archive, "archive/byteorder", b"little")
        for key, tensor in storages.values():
            array = np.ascontiguousarray(tensor.load())
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            _add(archive, f"archive/data/{key}", little.reshape(-1).view(np.uint8).data)
        _add(archive, "archive/version", b"3\n")


def _storage_of(name: str, tensor: LazyTensor) -> Hashable:
    return (name if tensor.identity is None else (tensor.identity,), tensor.dtype, tensor.shape)


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(name)
    entry.file_size = len(content)
    assert archive.fp is not None
    large = entry.file_size * 1.05 > zipfile.ZIP64_LIMIT
    start = archive.fp.tell() + 30 + len(name) + (20 if large else 0)
    padding = -(start + 4) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(entry, "w") as stream:
        stream.write(content)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 256:
        return b"K" + struct.pack("<B", value)
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"


def _tensor(tensor: LazyTensor, key: str) -> bytes:
    """The opcodes of one tensor: a call of PyTorch's rebuilding function with a reference to its storage."""
    dtype = TORCH_NAMES[tensor.dtype]
    storage_name = TORCH_STORAGE_NAMES.get(dtype)
    count = tensor.size if storage_name else tensor.nbytes
    storage = f"ctorch\n{storage_name}\n" if storage_name else "ctorch.storage\nUntypedStorage\n"
    reference = b"(" + _text("storage") + storage.encode() + _text(key) + _text("cpu") + _integer(count) + b"tQ"
    strides, step = [], 1
    for size in reversed(tensor.shape):
        strides.append(step)
        step *= max(size, 1)
    geometry = b"K\x00" + _tuple(tensor.shape) + _tuple(tuple(reversed(strides)))
    rest = b"\x89ccollections\nOrderedDict\n)R"
    if storage_name:
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + geometry + rest + b"tR"
    return b"ctorch._utils\n_rebuild_tensor_v3\n(" + reference + geometry + rest + f"ctorch\n{dtype}\n".encode() + b"tR"
