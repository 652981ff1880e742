"""HDF5 files as hostile bytes: hard links only, no external or virtual data, known filters, sizes in proportion."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import Array, LazyTensor
from zoonet.formats.dtypes import TORCH
from zoonet.formats.files import expansion_budget, map_file, view_as
from zoonet.formats.hdf5_texts import TextCheck
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError, ZoonetError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_DEPTH = 64
_BUILT_IN_FILTERS = range(1, 7)  # deflate, shuffle, fletcher32, szip, nbit, scale-offset: others would load a plugin
_LZF = 32000  # part of h5py
_HEADER_LIMIT = 64512  # bytes that one attribute of an object header may take, less than HDF5's limit of 64 KiB


@contextlib.contextmanager
def hdf5_errors(name: str) -> Iterator[None]:
    """Turn what h5py raises on corrupt files into FormatError."""
    try:
        yield
    except ZoonetError:
        raise
    except RecursionError:
        raise FormatError(f"{name}: nested too deeply") from None
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise FormatError(
            f"{name}: the HDF5 file is broken", received=str(error)[:200], fix="obtain the file again"
        ) from error


class _MappedFile(io.RawIOBase):
    """A mapped file, or a part of one, as a stream.

    An HDF5 file inside an archive is read where it lies; and a file that is opened by its path would stay locked
    for others in this process as long as its tensors live.
    """

    def __init__(self, data: Array) -> None:
        super().__init__()
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._data.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        part = self._data[self._position : self._position + len(target)]
        target[: part.size] = part.data
        self._position += part.size
        return int(part.size)


def root_names(path: Path) -> tuple[set[str], set[str]]:
    """Names of the root's members and attributes; empty where the file is broken."""
    import h5py

    try:
        with hdf5_errors(path.name), h5py.File(_MappedFile(map_file(path)), "r") as file:
            return set(file), set(file.attrs)
    except FormatError:
        return set(), set()


class Hdf5File:
    """A checked HDF5 file, on disk or in memory. name: the subject of error messages."""

    def __init__(self, source: Path | Array, name: str) -> None:
        import h5py

        self.name = name
        self._data = map_file(source) if isinstance(source, Path) else source
        self._budget = expansion_budget(self._data.size)
        self._texts = TextCheck(self._data, name)
        self._check_superblock()
        with hdf5_errors(name):
            self._file = h5py.File(_MappedFile(self._data), "r")
            self.groups: dict[str, Any] = {}
            self.datasets: dict[str, Any] = {}
            self._visit(self._file, "", 0, set())
            total = sum(tensor_size(dataset) for dataset in self.datasets.values())
        if total > self._budget:
            raise UnsafeFileError(
                f"{name}: its datasets would grow beyond measure",
                expected=f"at most {self._budget} bytes",
                received=f"{total} bytes",
            )

    def _check_superblock(self) -> None:
        """Raise UnsupportedFormatError unless addresses take 8 bytes and count from the first, as TextCheck assumes."""
        if self._data.size < 48:
            raise FormatError(f"{self.name}: the HDF5 file is truncated", received=f"{self._data.size} bytes")
        version = int(self._data[8])
        sizes, base = (13, 24 + 4 * version) if version < 2 else (9, 12)
        widths, start = self._data[sizes : sizes + 2].tolist(), self._data[base : base + 8].tobytes()
        if widths != [8, 8] or start != bytes(8):
            raise UnsupportedFormatError(
                f"{self.name}: an HDF5 file of unusual addresses",
                expected="8 bytes, from the beginning of the file",
                received=f"{widths} bytes, from {int.from_bytes(start, 'little')}",
            )

    def _visit(self, group: Any, path: str, depth: int, above: set[int]) -> None:
        import h5py

        address = h5py.h5o.get_info(group.id).addr
        if address in above or depth > _MAX_DEPTH:
            raise UnsafeFileError(f"{self.name}: group {path[:200]!r} contains itself or is nested too deeply")
        self.groups[path] = group
        if len(self.groups) + len(self.datasets) > self._data.size // 8:
            raise UnsafeFileError(f"{self.name}: more objects than the file can hold")
        for key in group:
            child = f"{path}/{key}" if path else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise UnsafeFileError(
                    f"{self.name}: {child[:200]!r} is a link to elsewhere",
                    expected="groups and datasets of this file",
                    fix="do not trust this file",
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                self._visit(item, child, depth + 1, above | {address})
            elif isinstance(item, h5py.Dataset):
                self._check_dataset(item, child)
                self.datasets[child] = item
            else:
                raise UnsupportedFormatError(f"{self.name}: {child[:200]!r} is neither a group nor a dataset")

    def _check_dataset(self, dataset: Any, path: str) -> None:
        import h5py

        creation = dataset.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count() > 0:
            raise UnsafeFileError(f"{self.name}: dataset {path[:200]!r} takes its data from other files")
        for index in range(creation.get_nfilters()):
            code = creation.get_filter(index)[0]
            if code not in _BUILT_IN_FILTERS and code != _LZF:
                raise UnsupportedFormatError(f"{self.name}: dataset {path[:200]!r} has an unknown filter {code}")

    def attributes(self, path: str) -> dict[str, Any]:
        """The attributes of a group as plain data: bytes decoded, arrays as lists; numbers and texts only."""
        with hdf5_errors(self.name):
            return self._attributes(self.groups[path])

    def _attributes(self, item: Any) -> dict[str, Any]:
        import h5py

        types = {key: item.attrs.get_id(key).dtype for key in item.attrs}
        if any(dtype.hasobject for dtype in types.values()):
            self._texts(h5py.h5o.get_info(item.id).addr, len(types))
        readable = (key for key, dtype in types.items() if not dtype.hasobject or h5py.check_string_dtype(dtype))
        return {str(key): _plain(item.attrs[key]) for key in readable}

    def is_numeric(self, path: str) -> bool:
        """Whether a dataset holds numbers."""
        with hdf5_errors(self.name):
            dtype = self.datasets[path].dtype
        return self._is_bfloat16(path) or (dtype.kind in "biufc" and dtype.subdtype is None)

    def _is_bfloat16(self, path: str) -> bool:
        """Whether a dataset is bfloat16, which Keras keeps as two opaque bytes with the attribute "dtype"."""
        dataset = self.datasets[path]
        with hdf5_errors(self.name):
            if dataset.dtype != np.dtype("V2"):
                return False
            return bool(self._attributes(dataset).get("dtype") == "bfloat16")

    def tensor(self, path: str) -> LazyTensor:
        """A dataset as a lazy array, mapped where it lies contiguous in the file."""
        dataset = self.datasets[path]
        if not self.is_numeric(path):
            raise UnsupportedFormatError(f"{self.name}: {path[:200]!r} is not of numbers", received=str(dataset.dtype))
        stored = bfloat16() if self._is_bfloat16(path) else dataset.dtype
        with hdf5_errors(self.name):
            shape = tuple(dataset.shape)
            contiguous = dataset.chunks is None and dataset.id.get_offset() is not None

        def load() -> Array:
            with hdf5_errors(self.name):
                if not contiguous:
                    content = np.ascontiguousarray(dataset[()]).reshape(-1).view(np.uint8)
                    return view_as(content, stored, shape)
                start = dataset.id.get_offset()
                data = self._data[start : start + tensor_size(dataset)]
                if data.size != tensor_size(dataset):
                    raise FormatError(f"{self.name}: dataset {path[:200]!r} is truncated")
                return view_as(data, stored, shape)

        return LazyTensor(shape, stored.newbyteorder("="), load)


def bfloat16() -> np.dtype[Any]:
    """The dtype bfloat16."""
    return TORCH["bfloat16"]


def tensor_size(dataset: Any) -> int:
    """Bytes that a dataset takes in memory."""
    if dataset.shape is None:
        return 0
    size: int = math.prod(dataset.shape) * int(dataset.dtype.itemsize)
    return size


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def chunked_attribute(attributes: dict[str, Any], name: str) -> list[str] | None:
    """A list of names kept in one attribute, or in several (`name0`, `name1`, ...) where it is long; None if absent."""
    if name in attributes:
        parts = [attributes[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in attributes:
            parts.append(attributes[f"{name}{len(parts)}"])
    if not parts:
        return None
    return [str(item) for part in parts for item in (part if isinstance(part, list) else [part])]


def set_chunked_attribute(group: Any, name: str, values: list[str]) -> None:
    """Keep a list of names as Keras does: fixed-length bytes, in several attributes where one would be too long."""
    encoded = np.array([value.encode() for value in values])
    if not values:
        group.attrs[name] = []
        return
    parts = math.ceil(encoded.nbytes / _HEADER_LIMIT)
    if parts == 1:
        group.attrs[name] = encoded
        return
    for index, part in enumerate(np.array_split(encoded, parts + 1)):
        group.attrs[f"{name}{index}"] = part


def create_dataset(group: Any, name: str, tensor: LazyTensor) -> None:
    """Write one tensor. Raises UnsupportedFormatError for dtypes that Keras cannot read back."""
    array = tensor.load()
    if array.dtype == bfloat16():
        group.create_dataset(name, data=array).attrs["dtype"] = "bfloat16"
    elif array.dtype.kind in "biufc":
        group.create_dataset(name, data=array)
    else:
        raise UnsupportedFormatError(
            f"Keras files cannot hold tensor {name!r} of dtype {array.dtype}", fix="convert it to float32"
        )
