"""SentencePiece models (tokenizer.model): the pieces and the settings that encoding needs.

A protocol buffer read field by field; what is not needed is skipped. Source: `sentencepiece_model.proto` and the
encoding of protocol buffers.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from zoonet.formats.files import check_path
from zoonet.ops.errors import FormatError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


@dataclass(frozen=True)
class SentencePieceModel:
    """pieces: (text, score, type) by token. kind: "unigram", "bpe", "word" or "char". charsmap: compiled normaliser.

    unknown, start, end, padding: their tokens, -1 where there is none.
    """

    pieces: tuple[tuple[str, float, int], ...]
    kind: str = "unigram"
    byte_fallback: bool = False
    unknown: int = 0
    start: int = 1
    end: int = 2
    padding: int = -1
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The integer at a position, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise FormatError("a SentencePiece model ends inside a number", fix="obtain the file again")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise FormatError("a SentencePiece model has a number that is too long")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: int, or memoryview for lengths and fixed sizes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value: Any
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise FormatError("not a SentencePiece model", expected="wire types 0, 1, 2 or 5", received=wire)
        if number == 0 or size > len(data) - position:
            raise FormatError("a SentencePiece model ends inside a field", fix="obtain the file again")
        yield number, data[position : position + size]
        position += size


def _of_kind(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise FormatError(f"a SentencePiece model's {what} has the wrong type", fix="obtain the file again")
    return value


def _signed(value: Any, what: str) -> int:
    number = int(_of_kind(value, int, what))
    return number - (1 << 64) if number >= 1 << 63 else number


def _piece(data: memoryview) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            try:
                text = bytes(_of_kind(value, memoryview, "piece")).decode()
            except UnicodeDecodeError as error:
                raise FormatError("a SentencePiece model has a piece that is no UTF-8") from error
        elif number == 2:
            raw = _of_kind(value, memoryview, "score")
            if len(raw) != 4:
                raise FormatError("a SentencePiece model's score has the wrong size")
            (score,) = struct.unpack("<f", raw)
        elif number == 3:
            kind = _signed(value, "type")
    if not score == score or abs(score) == float("inf"):
        raise FormatError("a SentencePiece model has a score that is no number")
    return text, score, kind


def read_sentencepiece(path: str | os.PathLike[str]) -> SentencePieceModel:
    """Read a tokenizer.model. Raises FormatError where it is none, or damaged; MissingFileError."""
    pieces: list[tuple[str, float, int]] = []
    settings: dict[str, Any] = {}
    trainer = {40: "unknown", 41: "start", 42: "end", 43: "padding"}
    normaliser = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}
    for number, value in _fields(memoryview(check_path(path).read_bytes())):
        if number == 1:
            pieces.append(_piece(_of_kind(value, memoryview, "piece")))
        elif number == 2:
            for inner, item in _fields(_of_kind(value, memoryview, "trainer")):
                if inner == 3:
                    settings["kind"] = _KINDS.get(_signed(item, "model type"), "unknown")
                elif inner == 35:
                    settings["byte_fallback"] = bool(_of_kind(item, int, "setting"))
                elif inner in trainer:
                    settings[trainer[inner]] = _signed(item, trainer[inner])
        elif number == 3:
            for inner, item in _fields(_of_kind(value, memoryview, "normaliser")):
                if inner == 2:
                    settings["charsmap"] = bytes(_of_kind(item, memoryview, "normaliser"))
                elif inner in normaliser:
                    settings[normaliser[inner]] = bool(_of_kind(item, int, "setting"))
    if not pieces:
        raise FormatError("not a SentencePiece model: it has no pieces")
    return SentencePieceModel(tuple(pieces), **settings)
