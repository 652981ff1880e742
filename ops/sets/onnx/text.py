"""Strings, as arrays of objects: StringNormalizer, StringSplit, StringConcat, RegexFullMatch, TfIdfVectorizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError, FormatError, ShapeError
from zoonet.ops.sets.onnx.common import STRING, affordable, concrete
from zoonet.ops.sets.onnx.patterns import Pattern
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

#: Characters that one StringConcat may make: a few nodes that double a text would fill any memory.
_MOST_CHARACTERS = 1 << 27


def strings(x: Any, operator: str) -> np.ndarray[Any, Any]:
    """The contents of an operand of strings. Raises DTypeError."""
    array: np.ndarray[Any, Any] = concrete(x, f"the strings of {operator}")
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype != STRING:
        raise DTypeError(f"{operator} takes strings", received=array.dtype.name)
    return array


def texts(items: Sequence[str], shape: Sequence[int]) -> Array:
    """An array of strings."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(tuple(shape))


@onnx_operator("StringNormalizer", since=10)
def string_normalizer(
    X: Array,
    /,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "en_US",
    stopwords: Sequence[str] | None = None,
) -> Array:
    """X [C] or [1, C] without stop words, in lower or upper case; one empty string where nothing remains."""
    data = strings(X, "StringNormalizer")
    if data.ndim not in (1, 2) or (data.ndim == 2 and data.shape[0] != 1):
        raise ShapeError("StringNormalizer takes one row", expected="[C] or [1, C]", received=list(data.shape))
    changes: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    if case_change_action not in changes:
        raise ArgumentError(
            "StringNormalizer: unknown case_change_action", expected=", ".join(changes), received=case_change_action
        )
    compared: Callable[[str], str] = str if is_case_sensitive else str.lower
    stopped = {compared(word) for word in stopwords or ()}
    kept = [changes[case_change_action](word) for word in data.reshape(-1) if compared(word) not in stopped] or [""]
    return texts(kept, (*data.shape[:-1], len(kept)))


@onnx_operator("StringConcat", since=20)
def string_concat(X: Array, Y: Array, /) -> Array:
    """The strings of X, each followed by that of Y, which broadcast."""
    x, y = strings(X, "StringConcat"), strings(Y, "StringConcat")
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ShapeError("StringConcat: shapes do not broadcast", received=f"{x.shape} and {y.shape}") from None
    affordable(shape, STRING, "StringConcat")
    sides = [np.broadcast_to(side, shape).reshape(-1) for side in (x, y)]
    count = sum(len(text) for side in sides for text in side)
    if count > _MOST_CHARACTERS:
        raise ShapeError(
            "StringConcat would make too much text", expected=f"at most {_MOST_CHARACTERS} characters", received=count
        )
    return texts([first + second for first, second in zip(*sides, strict=True)], shape)


@onnx_operator("StringSplit", since=20)
def string_split(
    X: Array, /, delimiter: str | None = None, maxsplit: int | None = None, outputs: int = 2
) -> tuple[Array, ...]:
    """The parts of each string on a new last axis, "" where there are fewer, and their number."""
    data = strings(X, "StringSplit")
    parts = [text.split(delimiter or None, -1 if maxsplit is None else maxsplit) for text in data.reshape(-1)]
    width = max(map(len, parts), default=0)
    affordable((len(parts), width), STRING, "StringSplit")
    filled = [part for row in parts for part in (*row, *[""] * (width - len(row)))]
    return texts(filled, (*data.shape, width)), np.asarray([len(row) for row in parts], np.int64).reshape(data.shape)


@onnx_operator("RegexFullMatch", since=20)
def regex_full_match(X: Array, /, pattern: str = "") -> Array:
    """Whether each string matches the whole pattern, in the syntax of RE2."""
    data = strings(X, "RegexFullMatch")
    compiled = Pattern(pattern)
    return np.asarray([compiled.matches(text) for text in data.reshape(-1)], np.bool_).reshape(data.shape)


def _pieces(text: str, separators: Sequence[Pattern]) -> list[str]:
    """What lies between matches of the separators, one after another."""
    pieces = [text]
    for separator in separators:
        divided = []
        for piece in pieces:
            start = at = 0
            while at < len(piece):
                end = separator.longest(piece, at)
                if end is None or end == at:
                    at += 1
                    continue
                divided.append(piece[start:at])
                start = at = end
            divided.append(piece[start:])
        pieces = divided
    return pieces


def _found(text: str, token: Pattern) -> list[str]:
    """Matches of a pattern from left to right, each as long as it can be."""
    found, at = [], 0
    while at < len(text):
        end = token.longest(text, at)
        if end is None or end == at:
            at += 1
            continue
        found.append(text[at:end])
        at = end
    return found


@onnx_operator("Tokenizer", domain="com.microsoft")
def tokenizer(
    X: Array,
    /,
    mark: int,
    mincharnum: int,
    pad_value: str,
    separators: Sequence[str] | None = None,
    tokenexp: str | None = None,
) -> Array:
    """The tokens of each string on a new last axis: what separators divide, or what matches a pattern."""
    data = strings(X, "Tokenizer")
    if data.ndim not in (1, 2):
        raise ShapeError("Tokenizer takes rows", expected="[C] or [N, C]", received=list(data.shape))
    if data.size == 0:
        return data
    if (tokenexp is None) == (separators is None):
        raise ArgumentError("Tokenizer takes either tokenexp or separators")
    if tokenexp == "." or (separators is not None and tuple(separators) == ("",)):
        rows = [list(text) for text in data.reshape(-1)]
    elif tokenexp is not None:
        pattern = Pattern(tokenexp)
        rows = [_found(text, pattern) for text in data.reshape(-1)]
    else:
        patterns = [Pattern(separator) for separator in separators or ()]
        rows = [_pieces(text, patterns) for text in data.reshape(-1)]
    rows = [[token for token in row if len(token) >= max(mincharnum, 1)] for row in rows]
    if mark:
        rows = [["\x02", *row, "\x03"] for row in rows]
    width = max(map(len, rows), default=0)
    affordable((len(rows), width), STRING, "Tokenizer")
    return texts([token for row in rows for token in (*row, *[pad_value] * (width - len(row)))], (*data.shape, width))


def _pool(counts: Sequence[int], pool: Sequence[Any], indexes: Sequence[int]) -> dict[tuple[Any, ...], int]:
    """The place in the pool of each n-gram. counts: where the 1-grams, 2-grams, … begin."""
    places: dict[tuple[Any, ...], int] = {}
    ends = [*counts[1:], len(pool)]
    for size, (start, end) in enumerate(zip(counts, ends, strict=True), 1):
        if not 0 <= start <= end <= len(pool) or (end - start) % size:
            raise FormatError(
                "TfIdfVectorizer: ngram_counts does not fit the pool", expected=f"up to {len(pool)}", received=counts
            )
        for at in range(start, end, size):
            places[tuple(pool[at : at + size])] = len(places)
    if len(places) > len(indexes):
        raise FormatError("TfIdfVectorizer: n-grams without an index", expected=len(places), received=len(indexes))
    return places


def _grams(row: list[Any], sizes: range, skips: int) -> Iterator[tuple[Any, ...]]:
    """The n-grams of a row, with up to so many elements left out between neighbours."""
    for step in range(1, min(skips, len(row)) + 2):
        for size in sizes:
            if size == 1 and step > 1:
                continue
            for start in range(len(row) - (size - 1) * step):
                yield tuple(row[start : start + (size - 1) * step + 1 : step])


@onnx_operator("TfIdfVectorizer", since=9)
def tfidf_vectorizer(
    X: Array,
    /,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Array:
    """How often each n-gram of a pool stands in each row of X, weighted as the mode says."""
    data = concrete(X, "what TfIdfVectorizer counts")
    if data.ndim not in (1, 2):
        raise ShapeError("TfIdfVectorizer takes rows", expected="[C] or [N, C]", received=list(data.shape))
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ArgumentError("TfIdfVectorizer: unknown mode", expected="TF, IDF or TFIDF", received=mode)
    indexes = np.asarray(ngram_indexes, np.int64)
    if not 1 <= min_gram_length <= max_gram_length or not indexes.size or indexes.min() < 0:
        raise ArgumentError("TfIdfVectorizer: lengths or indexes of n-grams are impossible")
    places = _pool(ngram_counts, pool_strings if pool_strings is not None else pool_int64s or (), ngram_indexes)
    scale = np.asarray(weights if weights and mode != "TF" else [1.0] * len(indexes), np.float32)
    if len(scale) != len(indexes):
        raise ArgumentError("TfIdfVectorizer: weights do not fit", expected=len(indexes), received=len(scale))
    rows = data.reshape(1, -1) if data.ndim == 1 else data
    width = int(indexes.max()) + 1
    result = np.zeros(affordable((len(rows), width), np.dtype(np.float32), "TfIdfVectorizer"), np.float32)
    sizes = range(min_gram_length, min(max_gram_length, len(ngram_counts)) + 1)
    for counts, row in zip(result, rows.tolist(), strict=True):
        found = [places[gram] for gram in _grams(row, sizes, max_skip_count) if gram in places]
        np.add.at(counts, indexes[found], 1)
        if mode == "IDF":
            np.minimum(counts, 1, out=counts)
        each = np.zeros(width, np.float32)
        each[indexes] = scale
        counts *= each
    return result[0] if data.ndim == 1 else result
