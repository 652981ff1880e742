"""Texts among the attributes of an HDF5 object, checked before the HDF5 library reads them.

The library makes room for as many bytes as the file says that a text has, up to 4 GiB, before it looks where the text
lies; and a heap whose free space has no size it reads for ever. So each attribute is found in the headers of its object
here, and its texts in their heaps.

Source: HDF5 File Format Specification 3.0, III.E (global heap), IV.A (object headers: messages 0x03, 0x0C, 0x10, 0x15).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from zoonet.formats.checkpoint import Array
from zoonet.ops.errors import FormatError, UnsupportedFormatError

_ATTRIBUTE, _CONTINUATION, _ATTRIBUTE_INFORMATION = 0x0C, 0x10, 0x15
_SHARED_MESSAGE, _CREATION_ORDERS, _TIMES, _PHASES = 2, 4, 32, 16  # bits of flags
_TEXT_OF_ANY_LENGTH = [9, 1]  # class of a datatype, and the kind within the class
_TEXT_ADDRESS = 16  # bytes: length of the text, address of its heap, place in the heap
_NOWHERE = 2**64 - 1


class _Message(NamedTuple):
    kind: int
    flags: int
    content: bytes


class TextCheck:
    """Checks the texts of objects in the bytes of one file. name: the subject of error messages."""

    def __init__(self, data: Array, name: str) -> None:
        self._data = data
        self._name = name
        self._heaps: dict[int, dict[int, int]] = {}

    def __call__(self, address: int, attributes: int) -> None:
        """Check the object whose header is at `address` and that has so many attributes.

        Raises FormatError for a damaged one, UnsupportedFormatError where attributes lie outside the header.
        """
        messages = list(self._messages(address))
        found = [message for message in messages if message.kind == _ATTRIBUTE]
        dense = any(message.kind == _ATTRIBUTE_INFORMATION and _is_dense(message.content) for message in messages)
        if dense or len(found) != attributes or any(message.flags & _SHARED_MESSAGE for message in found):
            raise UnsupportedFormatError(
                f"{self._name}: texts in attributes that are kept apart from their object",
                expected=f"{attributes} attributes in the object's header, as h5py and Keras write them",
                received=f"{len(found)} in the header",
                fix="write the file again with the default settings of h5py",
            )
        for message in found:
            self._check_attribute(message.content)

    def _messages(self, address: int) -> Iterator[_Message]:
        """The messages of an object header of version 1 or 2, those of its continuations as well."""
        new = self._bytes(address, 4) == b"OHDR"
        flags = self._bytes(address, 6)[5] if new else 0
        if new:
            start = address + 6 + (16 if flags & _TIMES else 0) + (4 if flags & _PHASES else 0)
            width = 1 << (flags & 3)  # of the size of the first part
            parts = [(start + width, self._number(start, width))]
        else:
            parts = [(address + 16, self._number(address + 8, 4))]
        head = (6 if flags & _CREATION_ORDERS else 4) if new else 8
        seen = 0
        while parts:
            place, size = parts.pop()
            seen += size
            if seen > self._data.size:
                raise self._damage("an object's header is larger than the file")
            part = self._bytes(place, size)
            place = 0
            while place + head <= size:
                kind, length, message_flags = _message_head(part[place : place + head], new)
                place += head
                content = part[place : place + length]
                if len(content) < length:
                    raise self._damage("a message is larger than its object's header")
                place += length
                yield _Message(kind, message_flags, content)
                if kind == _CONTINUATION and length >= 16:
                    offset, extent = _integer(content[:8]), _integer(content[8:16])
                    parts.append((offset + 4, extent - 8) if new else (offset, extent))  # signature and checksum

    def _check_attribute(self, content: bytes) -> None:
        """Check the texts of an attribute message, if its type is of texts."""
        version = content[0] if len(content) >= 8 else 0
        if version not in (1, 2, 3):
            raise self._damage("an attribute has an unknown version", version)
        name, datatype, dataspace = (_integer(content[start : start + 2]) for start in (2, 4, 6))
        if version > 1 and content[1] & 1:
            raise UnsupportedFormatError(f"{self._name}: an attribute has a type that is kept apart from it")
        unit = 8 if version == 1 else 1
        start = (9 if version == 3 else 8) + -(-name // unit) * unit
        if [part & 15 for part in content[start : start + 2]] != _TEXT_OF_ANY_LENGTH:
            return
        start += -(-datatype // unit) * unit
        count = self._elements(content[start : start + dataspace])
        start += -(-dataspace // unit) * unit
        if count * _TEXT_ADDRESS > len(content) - start:
            raise self._damage("an attribute is larger than its message", count)
        for place in range(start, start + count * _TEXT_ADDRESS, _TEXT_ADDRESS):
            length, heap, index = (
                _integer(content[place + first : place + last]) for first, last in ((0, 4), (4, 12), (12, 16))
            )
            if heap != 0 and self._heap(heap).get(index) != length:
                raise self._damage("a text has another length than its place in the heap", length)

    def _elements(self, dataspace: bytes) -> int:
        """How many elements a dataspace message of version 1 or 2 has."""
        version, rank = dataspace[0] if len(dataspace) >= 4 else 0, dataspace[1] if len(dataspace) >= 4 else 0
        start = {1: 8, 2: 4}.get(version)
        if start is None or len(dataspace) < start + 8 * rank:
            raise self._damage("the shape of an attribute cannot be read")
        if version == 2 and dataspace[3] == 2:  # the null dataspace
            return 0
        return math.prod(_integer(dataspace[start + 8 * axis : start + 8 * axis + 8]) for axis in range(rank))

    def _heap(self, address: int) -> dict[int, int]:
        """The length of each object in a global heap."""
        if address not in self._heaps:
            if self._bytes(address, 4) != b"GCOL":
                raise self._damage("a text lies in no heap")
            sizes: dict[int, int] = {}
            stop, place = min(address + self._number(address + 8, 8), self._data.size), address + 16
            while place + 16 <= stop:
                index, length = self._number(place, 2), self._number(place + 8, 8)
                if length > stop - place or (index == 0 and length < 16):
                    raise self._damage("a heap is damaged")
                sizes[index] = length
                place += length if index == 0 else 16 + (length + 7) // 8 * 8
            self._heaps[address] = sizes
        return self._heaps[address]

    def _number(self, place: int, width: int) -> int:
        return _integer(self._bytes(place, width))

    def _bytes(self, place: int, size: int) -> bytes:
        if not 0 <= place <= place + size <= self._data.size:
            raise self._damage("it points outside itself", place)
        return self._data[place : place + size].tobytes()

    def _damage(self, what: str, received: object = None) -> FormatError:
        return FormatError(
            f"{self._name}: the HDF5 file is damaged: {what}", received=received, fix="obtain the file again"
        )


def _message_head(head: bytes, new: bool) -> tuple[int, int, int]:
    """Type, size and flags."""
    if new:
        return head[0], _integer(head[1:3]), head[3]
    return _integer(head[:2]), _integer(head[2:4]), head[4]


def _is_dense(information: bytes) -> bool:
    """Whether an attribute information message says that attributes are in a heap of their own."""
    start = 2 + (2 if information[1:2] and information[1] & 1 else 0)
    return information[start : start + 8] != _NOWHERE.to_bytes(8, "little")


def _integer(content: bytes) -> int:
    return int.from_bytes(content, "little")
