"""TensorProto and SparseTensorProto as arrays. Weights are views of the file's bytes wherever their layout allows."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.files import map_file
from zoonet.ops.errors import FormatError, MissingFileError, UnsafeFileError, ZoonetError
from zoonet.ops.memory import MEMORY
from zoonet.ops.sets.onnx.common import DTYPES, PACKED_BITS, STRING, dtype_of
from zoonet.ops.types import DType

# The field of TensorProto that holds elements of a type where raw_data does not, and the type they have there.
_FIELDS: dict[int, tuple[str, Any]] = {
    **dict.fromkeys((1, 14), ("float_data", np.float32)),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, *range(16, 27)), ("int32_data", np.int32)),
    7: ("int64_data", np.int64),
    **dict.fromkeys((11, 15), ("double_data", np.float64)),
    **dict.fromkeys((12, 13), ("uint64_data", np.uint64)),
}
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_SPARSE_LIMIT = 1 << 28


class TensorReader:
    """Reads the tensors of one model.

    folder: where external data may lie; None if the model came as bytes and has none. model: the path of the model's
    own file, if any. large: the contents of raw_data fields that were left out of the message, by token.
    """

    def __init__(self, folder: Path | None = None, model: Path | None = None) -> None:
        self.folder = folder
        self.model = model
        self.large: dict[bytes, Any] = {}
        self._files: dict[str, Any] = {}

    def array(self, tensor: Any) -> Any:
        """The array of a TensorProto: read-only, a view of the file's bytes where possible; strings as objects.

        Raises FormatError where dims, type and data do not fit together, UnsafeFileError, MissingFileError.
        """
        number = tensor.data_type
        where = f"tensor {tensor.name!r}"
        try:
            dtype = dtype_of(number)
        except ZoonetError as error:
            raise FormatError(f"{where}: {error}") from None
        shape = checked_dims(tensor.dims, where)
        count = math.prod(shape)
        check_one_field(tensor, where)
        if tensor.HasField("segment"):
            raise FormatError(f"{where} is stored in segments, which ONNX does not use")
        if tensor.data_location == 1:
            data = self._external(tensor, where)
        elif dtype == STRING:
            return _strings(tensor, shape, count, where)
        elif tensor.HasField("raw_data"):
            data = tensor.raw_data
            data = self.large.get(data, data) if len(data) == 16 else data
        else:
            return _from_field(tensor, number, dtype, shape, count, where)
        if dtype == STRING:
            raise FormatError(f"{where}: strings cannot be raw or external data")
        return _from_bytes(np.frombuffer(data, np.uint8), number, dtype, shape, where)

    def dense(self, sparse: Any) -> Any:
        """The dense array of a SparseTensorProto. Raises FormatError."""
        values = self.array(sparse.values)
        indices = self.array(sparse.indices)
        where = f"sparse tensor {sparse.values.name!r}"
        shape = checked_dims(sparse.dims, where)
        if math.prod(shape) > _SPARSE_LIMIT:
            raise UnsafeFileError(
                f"{where} is too large to be made dense",
                expected=f"at most {_SPARSE_LIMIT} elements",
                received=list(shape),
            )
        if indices.dtype != np.int64 or values.ndim != 1:
            raise FormatError(f"{where} is not a list of values with int64 indices")
        if indices.shape == (*values.shape, len(shape)) and indices.ndim == 2:
            sizes = np.asarray(shape, np.int64)
            if ((indices < 0) | (indices >= sizes)).any():
                raise FormatError(f"{where} has an index outside of its shape", expected=list(shape))
            flat = np.ravel_multi_index(tuple(indices.T), shape) if len(values) else indices.reshape(-1)
        elif indices.shape == values.shape:
            flat = indices
        else:
            raise FormatError(f"{where} has indices of the wrong shape", received=list(indices.shape))
        if len(flat) and not (flat.min() >= 0 and flat.max() < math.prod(shape)):
            raise FormatError(f"{where} has an index outside of its shape", expected=list(shape))
        if len(np.unique(flat)) < len(flat):
            raise FormatError(f"{where} has an index twice", expected="each index once")
        dense = np.zeros(math.prod(shape), values.dtype) if values.dtype != STRING else _empty_strings(shape)
        dense.reshape(-1)[flat] = values
        return dense.reshape(shape)

    def _external(self, tensor: Any, where: str) -> Any:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = self._open(entries.get("location", ""), where)
        try:
            offset = int(entries.get("offset", 0) or 0)
            length = int(entries["length"]) if entries.get("length") else len(file) - offset
        except ValueError as error:
            raise FormatError(f"{where}: offset or length of external data is not a number: {error}") from None
        if offset < 0 or length < 0 or offset + length > len(file):
            raise FormatError(
                f"{where}: external data {entries.get('location')!r} is too short",
                expected=f"{length} bytes from {offset}",
                received=f"a file of {len(file)} bytes",
                fix="get the complete data file that belongs to this model",
            )
        return file[offset : offset + length]

    def _open(self, location: str, where: str) -> Any:
        if location in self._files:
            return self._files[location]
        if self.folder is None:
            raise UnsafeFileError(
                f"{where} lies in an external file",
                received=location,
                fix="load the model by its path, so that its folder is known",
            )
        parts = location.replace("\\", "/").split("/")
        if not location or "\0" in location or location.startswith("/") or ".." in parts or ":" in parts[0]:
            raise UnsafeFileError(
                f"{where} asks for a file outside of the model's folder",
                expected="a relative path inside it",
                received=repr(location),
            )
        path = self.folder / "/".join(parts)
        real = Path(os.path.realpath(path))
        homes = {Path(os.path.realpath(self.folder))}
        if self.model is not None:  # a cache may hold the model and its data as links into one folder
            homes.add(Path(os.path.realpath(self.model)).parent)
        if not any(real.is_relative_to(home) for home in homes):
            raise UnsafeFileError(f"{where}: external data is a link out of the model's folder", received=str(location))
        try:
            present = real.is_file()
        except OSError:  # a name that is too long, say
            present = False
        if not present:
            raise MissingFileError(
                f"{where}: external data {location[:200]!r} is missing", fix="put it into the folder of the model"
            )
        size = real.stat().st_size
        file = map_file(real) if size else np.zeros(0, np.uint8)
        self._files[location] = file
        return file


def checked_dims(dims: Any, where: str) -> tuple[int, ...]:
    """The dims as a tuple. Raises FormatError if one is negative or their product absurd."""
    shape = tuple(int(n) for n in dims)
    if any(n < 0 for n in shape) or len(shape) > 64 or math.prod(n for n in shape if n) > MEMORY * 4:
        raise FormatError(f"{where} has impossible dims", received=list(shape))
    return shape


def _empty_strings(shape: tuple[int, ...]) -> Any:
    array = np.empty(shape, object)
    array.fill("")
    return array


def _strings(tensor: Any, shape: tuple[int, ...], count: int, where: str) -> Any:
    if len(tensor.string_data) != count:
        raise FormatError(f"{where} has the wrong number of strings", expected=count, received=len(tensor.string_data))
    array = np.empty(count, object)
    array[:] = [text.decode("utf-8", "surrogateescape") for text in tensor.string_data]
    return array.reshape(shape)


def _from_bytes(data: Any, number: int, dtype: DType, shape: tuple[int, ...], where: str) -> Any:
    count = math.prod(shape)
    bits = PACKED_BITS.get(number)
    expected = -(-count * bits // 8) if bits else count * dtype.itemsize
    if len(data) != expected:
        raise FormatError(
            f"{where} has data of the wrong size",
            expected=f"{expected} bytes for {dtype.name}{list(shape)}",
            received=f"{len(data)} bytes",
            fix="the file is damaged: get it again",
        )
    if bits:
        return _unpacked(data, bits, dtype, count).reshape(shape)
    if number == 9:
        data = data != 0 if len(data) and data.max() > 1 else data
    return data.view(dtype).reshape(shape)


def _unpacked(data: Any, bits: int, dtype: DType, count: int) -> Any:
    """Elements of fewer than 8 bits, the first in the lowest bits of each byte."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    elements = (data[:, None] >> shifts & (2**bits - 1)).reshape(-1)[:count]
    if dtype.name.startswith("int"):  # sign-extended
        half = 2 ** (bits - 1)
        return ((elements.astype(np.int8) ^ half) - half).astype(dtype)
    return elements.astype(dtype) if dtype.name.startswith("uint") else elements.astype(np.uint8).view(dtype)


def check_one_field(tensor: Any, where: str) -> None:
    """Raise FormatError if a TensorProto has its elements more than once, so that which of them count is not told."""
    found = [name for name in _TYPED if len(getattr(tensor, name))]
    found += ["external data"] if tensor.data_location == 1 else []
    if found and tensor.HasField("raw_data") and tensor.raw_data:  # a copy, which is made where it is wrong only
        found.append("raw_data")
    if len(found) > 1:
        raise FormatError(f"{where} has its elements twice", expected="one field", received=" and ".join(found))


def check_range(data: Any, lowest: int, highest: int, where: str) -> None:
    """Raise FormatError where an element of a typed field is not one of its data type."""
    if data.size and not (data.min() >= lowest and data.max() <= highest):
        wrong = data[(data < lowest) | (data > highest)][0]
        raise FormatError(
            f"{where} has elements that its data type cannot hold", expected=f"{lowest} to {highest}", received=wrong
        )


def _from_field(tensor: Any, number: int, dtype: DType, shape: tuple[int, ...], count: int, where: str) -> Any:
    field, stored = _FIELDS[number]
    data = np.asarray(getattr(tensor, field), stored)
    if dtype.kind in "iu" and number not in PACKED_BITS:
        check_range(data, np.iinfo(dtype).min, np.iinfo(dtype).max, where)
    elif field == "int32_data" and dtype.kind != "b":  # bits, also written as a signed number
        width = 8 if number in PACKED_BITS else 8 * dtype.itemsize
        check_range(data, -1 << width - 1, (1 << width) - 1, where)
    bits = PACKED_BITS.get(number)
    expected = -(-count * bits // 8) if bits else count * (2 if dtype.kind == "c" else 1)
    if len(data) != expected:
        raise FormatError(
            f"{where} has the wrong number of elements",
            expected=f"{expected} in {field} for {dtype.name}{list(shape)}",
            received=len(data),
        )
    if bits:
        return _unpacked(data.astype(np.uint8), bits, dtype, count).reshape(shape)
    if dtype.kind == "c":
        return data.view(dtype).reshape(shape)
    if number in (10, 16):  # bits of a 16-bit float
        return data.astype(np.uint16).view(dtype).reshape(shape)
    if number in (17, 18, 19, 20, 24):
        return data.astype(np.uint8).view(dtype).reshape(shape)
    return data.astype(dtype).reshape(shape)


def dtype_number(dtype: DType) -> int:
    """The number of TensorProto.DataType for a NumPy data type. Raises FormatError."""
    for number, known in DTYPES.items():
        if known == dtype:
            return number
    raise FormatError("ONNX has no such data type", received=str(dtype))
