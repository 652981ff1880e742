"""ai.onnx.ml: maps as tensors and tensors as maps: CastMap, DictVectorizer, CategoryMapper, ZipMap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError, InputError, ShapeError
from zoonet.ops.sets.onnx.common import STRING, affordable, concrete
from zoonet.ops.sets.onnx.features import ML, encoded
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array


def _map(X: Any, operator: str) -> Mapping[Any, Any]:
    if not isinstance(X, Mapping):
        raise InputError(f"{operator} takes a map", expected="a dict", received=type(X).__name__)
    return X


@onnx_operator("CastMap", domain=ML)
def cast_map(X: Any, /, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1) -> Array:
    """The values of a map by ascending key, [1, count]; for SPARSE each at the place of its key, zeros elsewhere."""
    table = _map(X, "CastMap")
    kinds: dict[str, tuple[Any, Any]] = {
        "TO_FLOAT": (np.float32, float),
        "TO_STRING": (object, str),
        "TO_INT64": (np.int64, lambda v: int(float(v))),
    }
    if cast_to not in kinds or map_form not in ("DENSE", "SPARSE"):
        raise ArgumentError("CastMap: unknown cast_to or map_form", received=f"{cast_to}, {map_form}")
    dtype, convert = kinds[cast_to]
    try:
        items = sorted((int(key), convert(value)) for key, value in table.items())
    except (TypeError, ValueError) as error:
        raise InputError("CastMap: a key or value is no number", received=error) from None
    if map_form == "DENSE":
        return np.asarray([value for _, value in items], dtype).reshape(1, -1)
    if any(not 0 <= key < max_map for key, _ in items):
        raise ArgumentError(
            "CastMap: a key does not fit", expected=f"0 to {max_map - 1}", received=[k for k, _ in items]
        )
    result = np.zeros(affordable((1, max_map), np.dtype(dtype), "CastMap"), dtype)
    if dtype is object:
        result.fill("0.f")
    for key, value in items:
        result[0, key] = value
    return result


@onnx_operator("DictVectorizer", domain=ML)
def dict_vectorizer(
    X: Any, /, int64_vocabulary: Sequence[int] | None = None, string_vocabulary: Sequence[str] | None = None
) -> Array:
    """The values of a map's keys in the order of a vocabulary, [1, count]; zeros, or "", for those it has not."""
    table = _map(X, "DictVectorizer")
    words: Sequence[Any] = string_vocabulary if string_vocabulary is not None else int64_vocabulary or ()
    values = list(table.values())
    if values and isinstance(values[0], str):
        return np.asarray([table.get(word, "") for word in words], object).reshape(1, -1)
    kind: Any = np.int64 if values and isinstance(values[0], int | np.integer) else np.float32
    if values and isinstance(values[0], np.float64):
        kind = np.float64
    return np.asarray([table.get(word, 0) for word in words], kind).reshape(1, -1)


@onnx_operator("CategoryMapper", domain=ML)
def category_mapper(
    X: Array,
    /,
    cats_int64s: Sequence[int] = (),
    cats_strings: Sequence[str] = (),
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> Array:
    """Strings as the integers of a table, or integers as its strings."""
    if len(cats_int64s) != len(cats_strings):
        raise ArgumentError(
            "CategoryMapper: the lists differ in length", expected=len(cats_strings), received=len(cats_int64s)
        )
    if X.dtype == STRING:
        return encoded(X, cats_strings, cats_int64s, default_int64, np.int64)
    if X.dtype.kind not in "iu":
        raise DTypeError("CategoryMapper takes strings or integers", received=X.dtype.name)
    return encoded(X, cats_int64s, cats_strings, default_string, object)


@onnx_operator("ZipMap", domain=ML)
def zip_map(
    X: Array, /, classlabels_int64s: Sequence[int] | None = None, classlabels_strings: Sequence[str] | None = None
) -> Any:
    """A sequence of maps from class to score, one for each row."""
    labels: Sequence[Any] = classlabels_strings or classlabels_int64s or ()
    rows = concrete(X, "scores by class")
    rows = rows.reshape(-1, rows.shape[-1])
    if rows.shape[1] != len(labels):
        raise ShapeError("ZipMap: the labels do not fit", expected=rows.shape[1], received=len(labels))
    return [dict(zip(labels, row.tolist(), strict=True)) for row in rows]
