"""NumPy's .npz (a zip of .npy members) and .npy files. Source: NumPy Enhancement Proposal 1 and numpy.lib.format.

Arrays of objects are pickles and refused. Arrays of text become metadata.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.files import ZipArchive, atomic_path, map_file, view_as
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # NumPy's own limit
_MAX_TEXT = 1 << 20
_NUMBERS = "biufc"


def recognise(probe: Probe) -> bool:
    """Whether the file is a .npy file or a zip archive of them."""
    if probe.head.startswith(_MAGIC):
        return True
    return bool(probe.members) and all(name.endswith(".npy") for name in probe.members)


def read(path: Path) -> Checkpoint:
    """Read a .npz file, its arrays named by its members, or a .npy file, its array named by the file's stem."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if start == _MAGIC:
        data = map_file(path)
        shape, dtype, fortran, offset = _header(data[: _MAX_HEADER + 16].tobytes(), path.name)
        _check_size(shape, dtype, data.size - offset, path.name)
        tensor = LazyTensor(shape, _native(dtype, path.name), lambda: _array(data, shape, dtype, fortran, offset))
        return Checkpoint({path.stem: tensor}, {}, "npy")
    archive = ZipArchive(path)
    tensors: dict[str, LazyTensor] = {}
    metadata: dict[str, Any] = {}
    for member in archive.names:
        if not member.endswith(".npy"):
            raise FormatError(f"{path.name}: a member is not an array", received=repr(member[:200]))
        _read_member(archive, member, tensors, metadata)
    return Checkpoint(tensors, metadata, "npz")


def _read_member(archive: ZipArchive, member: str, tensors: dict[str, LazyTensor], metadata: dict[str, Any]) -> None:
    what = f"{archive.path.name}: array {member[:200]!r}"
    shape, dtype, fortran, offset = _header(archive.read_start(member, _MAX_HEADER + 16), what)
    _check_size(shape, dtype, archive.size(member) - offset, what)

    def load() -> Array:
        return _array(archive.read(member), shape, dtype, fortran, offset)

    name = member.removesuffix(".npy")
    if dtype.kind in "US" and archive.size(member) <= _MAX_TEXT:
        metadata[name] = np.frombuffer(archive.read(member)[offset:], dtype).reshape(shape).tolist()
        return
    tensors[name] = LazyTensor(shape, _native(dtype, what), load)


def _header(start: bytes, what: str) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Parse the header of a .npy file: shape, dtype, whether Fortran-ordered, where the data start."""
    stream = io.BytesIO(start)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        # Version 3 differs from 2 only by UTF-8 names of fields, and structures are refused anyway.
        reader = readers[(2, 0) if version == (3, 0) else version]
        shape, fortran, dtype = reader(stream, max_header_size=_MAX_HEADER)
    except Exception as error:  # NumPy's parser lets those of tokenize, ast and its own pass
        raise FormatError(f"{what} has no valid header", received=str(error)[:200]) from error
    if dtype.hasobject:
        raise UnsafeFileError(f"{what} holds Python objects, which only code in the file could restore")
    if any(type(size) is not int or size < 0 for size in shape) or len(shape) > 64:
        raise FormatError(f"{what} has an invalid shape", received=repr(shape)[:100])
    return shape, dtype, fortran, stream.tell()


def _native(dtype: np.dtype[Any], what: str) -> np.dtype[Any]:
    if dtype.kind not in _NUMBERS:
        raise UnsupportedFormatError(
            f"{what} is not of numbers",
            expected="a boolean, integer, real or complex dtype",
            received=str(dtype)[:100],
            fix="NumPy files keep bfloat16 and float8 as raw bytes: save them as float32, or as safetensors",
        )
    return dtype.newbyteorder("=")


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], available: int, what: str) -> None:
    needed = math.prod(shape) * dtype.itemsize
    if needed != available:
        raise FormatError(
            f"{what} has not the size that its header declares",
            expected=f"{needed} bytes",
            received=f"{available}",
            fix="the file is truncated or corrupt: obtain it again",
        )


def _array(data: Array, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, offset: int) -> Array:
    if not fortran:
        return view_as(data[offset:], dtype, shape)
    return np.ascontiguousarray(view_as(data[offset:], dtype, shape[::-1]).transpose())


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write a .npz file (stored, tensor by tensor), or a .npy file where the suffix says so and there is one tensor.

    These formats keep no metadata. Raises UnsupportedFormatError for dtypes that NumPy alone does not know.
    """
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in _NUMBERS:
            raise UnsupportedFormatError(
                f"NumPy files cannot hold tensor {name!r} of dtype {tensor.dtype}",
                fix="convert it to float32, or write safetensors",
            )
    if path.suffix.lower() == ".npy":
        if len(tensors) != 1:
            raise UnsupportedFormatError("a .npy file holds one array", received=f"{len(tensors)}", fix="write .npz")
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array(stream, next(iter(tensors.values())).load(), allow_pickle=False)
        return
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, tensor in tensors.items():
            entry = zipfile.ZipInfo(name + ".npy")
            with archive.open(entry, "w", force_zip64=tensor.nbytes > 1 << 30) as member:
                np.lib.format.write_array(member, tensor.load(), allow_pickle=False)
