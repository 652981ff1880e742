"""Hashes: MurmurHash3 of com.microsoft, as converters write scikit-learn's FeatureHasher.

Source: Austin Appleby's MurmurHash3_x86_32, in the public domain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.errors import DTypeError
from zoonet.ops.sets.onnx.common import STRING, concrete
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

_FIRST, _SECOND = np.uint32(0xCC9E2D51), np.uint32(0x1B873593)


@onnx_operator("MurmurHash3", domain="com.microsoft")
def murmur_hash_3(X: Array, /, positive: int = 1, seed: int = 0) -> Array:
    """The hash of each element's bytes, of strings in UTF-8: uint32, or int32 unless `positive`.

    X: any shape; strings, or numbers of 4 or 8 bytes. Raises DTypeError.
    """
    array: np.ndarray[Any, Any] = concrete(X, "the operand of MurmurHash3")
    result = np.zeros(array.size, np.uint32)
    start = seed & 0xFFFFFFFF
    if array.dtype == STRING or array.dtype.kind in "US":
        items = [str(item).encode("utf-8", "surrogateescape") for item in array.reshape(-1)]
        lengths = np.array([len(item) for item in items], np.int64)
        for length in np.unique(lengths).tolist():
            places = np.flatnonzero(lengths == length)
            data = np.frombuffer(b"".join(items[i] for i in places), np.uint8).reshape(len(places), length)
            result[places] = _hashes(data, start)
    elif array.dtype.kind in "iuf" and array.dtype.itemsize in (4, 8):
        ordered = np.ascontiguousarray(array.reshape(-1), array.dtype.newbyteorder("<"))
        result = _hashes(ordered.view(np.uint8).reshape(array.size, array.dtype.itemsize), start)
    else:
        raise DTypeError("MurmurHash3 takes strings or numbers of 4 or 8 bytes", received=array.dtype.name)
    return result.reshape(array.shape).view(np.uint32 if positive else np.int32)


def _hashes(data: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """The hash of each row of bytes (N, length): uint32 (N,)."""
    count, length = data.shape
    whole = length // 4 * 4
    blocks = np.ascontiguousarray(data[:, :whole]).view("<u4").astype(np.uint32)  # (N, length / 4)
    state = np.full(count, seed, np.uint32)
    for block in blocks.T:
        state = _rotated(state ^ _mixed(block), 13) * np.uint32(5) + np.uint32(0xE6546B64)
    if length > whole:
        rest = np.zeros((count, 4), np.uint8)
        rest[:, : length - whole] = data[:, whole:]
        state = state ^ _mixed(rest.view("<u4")[:, 0].astype(np.uint32))
    state = state ^ np.uint32(length)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ (state >> np.uint32(shift))) * np.uint32(factor)
    return state ^ (state >> np.uint32(16))


def _mixed(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return _rotated(block * _FIRST, 15) * _SECOND


def _rotated(x: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))
