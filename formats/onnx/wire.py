"""The protobuf wire format, as far as it takes to leave the weights of a model out of its message.

A message of protobuf holds bytes by copy, and each access to a field copies them again. So the large `raw_data` fields
are cut out of the mapped file before it is parsed: a token of 16 random bytes stands in the place of each, and the
weights stay views of the file. Source: protobuf's encoding, and the field numbers of `onnx.proto`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["encoded", "without_weights"]

#: Messages and fields below this many bytes are left as they are.
_LARGE = 1 << 12
_DEPTH = 64
_RAW_DATA = 9
#: Message -> field -> the message that lies in it; only those in which tensors can lie.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


class _MalformedError(Exception):
    pass


def without_weights(data: Any) -> tuple[bytes, dict[bytes, Any]]:
    """A ModelProto (uint8) without its large raw_data fields, and these by the token that stands in their place.

    What is not well formed comes back whole, for the parser to complain about.
    """
    weights: dict[bytes, Any] = {}
    try:
        return _cut(data, memoryview(data), 0, len(data), "model", weights, 0), weights
    except _MalformedError:
        return data.tobytes(), {}


def _cut(data: Any, view: Any, start: int, end: int, kind: str, weights: dict[bytes, Any], depth: int) -> bytes:
    """The message from start to end, rewritten."""
    if depth > _DEPTH:
        raise _MalformedError
    pieces: list[bytes] = []
    copied = position = start
    while position < end:
        tag, place = _varint(view, position, end)
        field, wire = tag >> 3, tag & 7
        if wire == 2:
            length, place = _varint(view, place, end)
            stop = place + length
            inner = _FIELDS[kind].get(field)
            raw = kind == "tensor" and field == _RAW_DATA
            if stop <= end and length >= _LARGE and (raw or inner is not None):
                if raw:
                    content = os.urandom(16)
                    weights[content] = data[place:stop]
                else:
                    content = _cut(data, view, place, stop, inner or "", weights, depth + 1)
                pieces += [view[copied:position].tobytes(), encoded(tag), encoded(len(content)), content]
                copied = stop
        elif wire == 0:
            _, stop = _varint(view, place, end)
        elif wire in (1, 5):
            stop = place + (8 if wire == 1 else 4)
        else:
            raise _MalformedError
        if stop > end:
            raise _MalformedError
        position = stop
    pieces.append(view[copied:end].tobytes())
    return b"".join(pieces)


def _varint(view: Any, position: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while position < end and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _MalformedError


def encoded(number: int) -> bytes:
    """A number as a varint."""
    result = bytearray()
    while number >= 0x80:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
