"""NumPy arrays and Python's containers inside pickles.

`NUMPY` gives the restricted interpreter what NumPy's own pickling names: arrays, dtypes and scalars. `PLAIN` gives what
Python's own library names for plain data. Arrays of text, dates and objects only ever become metadata.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from zoonet.formats.pickle_names import Buildable, StatefulDict, brief
from zoonet.formats.pickles import hashable
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError

_NUMBERS, _TEXT, _DATES = "biufc", "US", "mM"
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")


class PickledDType(Buildable):
    """A NumPy dtype of numbers, text, dates or objects; byte order and unit come with the BUILD opcode."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        kinds = _NUMBERS + _TEXT + _DATES + "O"
        if not isinstance(code, str) or not re.fullmatch(rf"[{kinds}][1-9]\d{{0,6}}", code, re.ASCII):
            raise UnsupportedFormatError("the pickle has an array that is not of numbers", received=brief(code))
        self.dtype: np.dtype[Any] = np.dtype(code)

    def set_state(self, state: Any) -> PickledDType:
        """Take (version, byte order, ...)."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise FormatError("the pickle has a NumPy dtype of unknown byte order")
        if state[2:5] != (None, None, None):
            raise UnsupportedFormatError("the pickle has an array of structures")
        if self.dtype.kind in _DATES:
            self.dtype = np.dtype(f"{self.dtype.kind}8[{_unit(state[-1])}]")
        self.dtype = self.dtype.newbyteorder("<" if state[1] == "=" else state[1])
        return self


def _unit(state: Any) -> str:
    """The unit of dates, from the last part of a dtype's state: ({}, (unit, number, 1, 1))."""
    parts = state[1] if isinstance(state, tuple) and len(state) == 2 else None
    if isinstance(parts, tuple) and len(parts) == 4 and isinstance(parts[0], bytes) and type(parts[1]) is int:
        name = parts[0].decode("latin-1")
        if name in _UNITS and 0 < parts[1] < 1 << 31:
            return f"{parts[1]}{name}"
    raise UnsupportedFormatError("the pickle has dates of an unknown unit")


class PickledArray(Buildable):
    """An array whose shape, dtype and bytes come with the BUILD opcode."""

    def __init__(self, _class: Any, _shape: Any, _code: Any) -> None:
        pass

    def set_state(self, state: Any) -> Any:
        """Take (version, shape, dtype, is Fortran-ordered, bytes)."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise FormatError("the pickle has a NumPy array without its five parts")
        shape, dtype, fortran, raw = state[-4:]
        return array_from_bytes(raw, dtype, shape, "F" if fortran else "C")


def array_from_bytes(raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """Check the parts of a pickled array and return it in native byte order; of objects, which are data, their list."""
    if not isinstance(dtype, PickledDType):
        raise FormatError("the pickle has a NumPy array without a dtype", received=type(dtype).__name__)
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise FormatError("the pickle has a NumPy array of invalid shape", received=brief(shape))
    if dtype.dtype.kind == "O" and isinstance(raw, list):
        return raw
    content = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(content, bytes) or order not in ("C", "F") or dtype.dtype.kind == "O":
        raise FormatError("the pickle has a NumPy array without its bytes", received=type(raw).__name__)
    count = 1
    for size in shape:
        count *= size
    if count * dtype.dtype.itemsize != len(content):
        raise FormatError(
            "the pickle has a NumPy array of other size than it declares",
            expected=f"{dtype.dtype} {shape}"[:200],
            received=f"{len(content)} bytes",
        )
    array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)
    return np.ascontiguousarray(array, dtype.dtype.newbyteorder("=")).reshape(shape)


def _scalar(dtype: Any, raw: Any) -> Any:
    scalar = array_from_bytes(raw, dtype, (), "C")
    if not isinstance(scalar, np.ndarray):
        raise FormatError("the pickle has a scalar that is an object")
    return str(scalar) if scalar.dtype.kind in _DATES else scalar.item()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return array_from_bytes(raw, dtype, shape, order)


def _ordered_dict(pairs: Any = ()) -> StatefulDict:
    return StatefulDict(_pairs(pairs))


def _default_dict(_factory: Any = None, pairs: Any = ()) -> StatefulDict:
    return StatefulDict(_pairs(pairs))


def _pairs(pairs: Any) -> dict[Any, Any]:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in items):
        raise FormatError("the pickle makes a dict of what are not pairs")
    return {hashable(key): value for key, value in items}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, (str, bytes)) or encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise UnsafeFileError("the pickle encodes what is not text", received=brief(encoding))
    return text.encode(encoding) if isinstance(text, str) else text


def _set(items: Any = ()) -> set[Any]:
    return {hashable(item) for item in _sequence(items)}


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _sequence(items: Any) -> list[Any]:
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise FormatError("the pickle makes a container of what is not a sequence", received=type(items).__name__)
    return list(items)


def _bytes(*arguments: Any) -> bytes:
    if not arguments:
        return b""
    if len(arguments) == 2:
        return _encode(*arguments)
    content = arguments[0]
    # bytes(n) would allocate n zeros: only a list of byte values, or bytes, are taken.
    if not isinstance(content, (bytes, list)):
        raise UnsafeFileError("the pickle makes bytes of neither bytes nor a list", received=type(content).__name__)
    return bytes(content)


def _complex(real: float, imaginary: float = 0.0) -> complex:
    return complex(float(real), float(imaginary))


def _list(items: Any = ()) -> list[Any]:
    return _sequence(items)


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_sequence(items))


_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": _set,
    "frozenset": _frozenset,
    "list": _list,
    "tuple": _tuple,
    "dict": _ordered_dict,
    "bytes": _bytes,
    "bytearray": _bytes,
    "complex": _complex,
}
_MULTIARRAY: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": PickledArray,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _frombuffer,
}

PLAIN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _ordered_dict,
    "_codecs.encode": _encode,
    **{f"{module}.{name}": build for module in ("builtins", "__builtin__") for name, build in _BUILTINS.items()},
}
NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.dtype": PickledDType,
    "numpy.ndarray": PickledArray,
    **{f"numpy.{package}.{name}": build for package in ("core", "_core") for name, build in _MULTIARRAY.items()},
}
