"""Random operators as ONNX nodes: Philox 4x32 in integers, so that a key gives the numbers that it gives here.

ONNX's own random operators take no key: a training step that they are in could not be repeated. See ops/philox.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import LAST, Builder
from zoonet.formats.onnx.writing.sizes import Dimension, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.philox import FOLD, KEY_STEPS, MULTIPLIERS, ROUNDS, SPLIT, STREAM
from zoonet.ops.types import (
    as_dtype,
    float16,
    float32,
    float64,
    int64,
    is_low_precision,
    uint32,
)

_WORD = 1 << 32
_HALF = 1 << 16


def _int(b: Builder, op_type: str, x: str, number: int) -> str:
    return b.node(op_type, x, b.constant(number, int64))


def _times(b: Builder, x: str, factor: int) -> tuple[str, str]:
    """The high and the low word of the product of a word and a factor, by halves, as int64 holds no 64 bits."""
    low, high = _int(b, "Mul", x, factor % _HALF), _int(b, "Mul", x, factor // _HALF)
    upper = _int(b, "Div", b.node("Add", high, _int(b, "Div", low, _HALF)), _HALF)
    return upper, _int(b, "Mod", b.node("Add", _int(b, "Mul", _int(b, "Mod", high, _HALF), _HALF), low), _WORD)


def _philox(b: Builder, counter: Sequence[str], key: str) -> list[str]:
    """Four words for counters of four words, int64 of one shape; key: uint32 [2]."""
    b.require(18)
    c0, c1, c2, c3 = counter
    wide = b.node("Cast", key, to=7)
    keys = [b.slice(wide, [place], [place + 1], [0]) for place in (0, 1)]
    for turn in range(ROUNDS):
        if turn:
            keys = [_int(b, "Mod", _int(b, "Add", k, step), _WORD) for k, step in zip(keys, KEY_STEPS, strict=True)]
        (high0, low0), (high2, low2) = _times(b, c0, MULTIPLIERS[0]), _times(b, c2, MULTIPLIERS[1])
        c0 = b.node("BitwiseXor", b.node("BitwiseXor", high2, c1), keys[0])
        c2 = b.node("BitwiseXor", b.node("BitwiseXor", high0, c3), keys[1])
        c1, c3 = low2, low0
    return [c0, c1, c2, c3]


def _count(b: Builder, shape: Sequence[Dimension], factor: int = 1) -> str:
    """The number of elements of a shape, times a factor: int64 [1]."""
    if not shape:
        return b.constant(np.array([factor], np.int64))
    total = b.reduce("ReduceProd", b.ints(shape), [0], True)
    return total if factor == 1 else _int(b, "Mul", total, factor)


def _words(b: Builder, key: Tensor, count: str, domain: int = STREAM) -> str:
    """The first words of a key's stream, int64 [count]."""
    blocks = _int(b, "Div", _int(b, "Add", count, 3), 4)
    end = b.squeeze(blocks, [0])
    number = b.node("Range", b.constant(0, int64), end, b.constant(1, int64))
    zero = _int(b, "Mul", number, 0)
    last = _int(b, "Add", zero, domain) if domain else zero
    words = _philox(b, [number, zero, zero, last], key.name)
    flat = b.node("Reshape", b.node("Concat", *[b.unsqueeze(w, [1]) for w in words], axis=1), b.ints([-1]))
    return b.node("Slice", flat, b.ints([0]), count, b.ints([0]))


def _pairs(b: Builder, key: Tensor, shape: Sequence[Dimension]) -> tuple[str, str]:
    """The low and high words of 64-bit ones, int64 [count]."""
    words = b.node("Reshape", _words(b, key, _count(b, shape, 2)), b.ints([-1, 2]))
    low, high = [b.squeeze(b.slice(words, [place], [place + 1], [1]), [1]) for place in (0, 1)]
    return low, high


def _scaled(b: Builder, x: str, factor: float, offset: float, dtype: Any) -> str:
    y = x if factor == 1 else b.node("Mul", x, b.constant(np.asarray(factor, dtype)))
    return y if offset == 0 else b.node("Add", y, b.constant(np.asarray(offset, dtype)))


def _unit(b: Builder, key: Tensor, shape: Sequence[Dimension], dtype: Any) -> str:
    """Evenly spaced floats in [0, 1), [count]; float32 unless dtype is float64."""
    if dtype == float64:
        low, high = _pairs(b, key, shape)
        whole = b.node("Add", _int(b, "Mul", high, 1 << 21), _int(b, "Div", low, 1 << 11))
        return _scaled(b, b.cast(whole, float64), 2.0**-53, 0, float64)
    digits = 24 if not is_low_precision(dtype) else 11 if dtype == float16 else 8
    words = _int(b, "Div", _words(b, key, _count(b, shape)), 1 << (32 - digits))
    return _scaled(b, b.cast(words, float32), 2.0**-digits, 0, float32)


def _open_unit(b: Builder, key: Tensor, count: str, dtype: Any) -> str:
    """Floats in (0, 1], [count]; float32 unless dtype is float64."""
    if dtype != float64:
        y = _scaled(b, b.cast(_words(b, key, count), float32), 1, 0.5, float32)
        return _scaled(b, y, 2.0**-32, 0, float32)
    words = b.node("Reshape", _words(b, key, _int(b, "Mul", count, 2)), b.ints([-1, 2]))
    low, high = [b.cast(b.squeeze(b.slice(words, [place], [place + 1], [1]), [1]), float64) for place in (0, 1)]
    y = b.node("Add", _scaled(b, high, 2.0**32, 0, float64), low)
    return _scaled(b, _scaled(b, y, 1, 0.5, float64), 2.0**-64, 0, float64)


@emitter("random_split")
def _(b: Builder, key: Tensor, count: int) -> str:
    words = b.node("Reshape", _words(b, key, b.ints([4 * count]), SPLIT), b.ints([-1, 4]))
    return b.cast(b.slice(words, [0], [2], [1]), uint32)


@emitter("random_fold_in")
def _(b: Builder, key: Tensor, data: Tensor) -> str:
    number = b.node("Reshape", b.cast(data, int64), b.ints([1]))
    low = _int(b, "Mod", number, _WORD)
    high = _int(b, "Mod", _int(b, "Div", b.node("Sub", number, low), _WORD), _WORD)
    ends = [b.constant(np.array([n], np.int64)) for n in (0, FOLD)]
    words = _philox(b, [low, high, *ends], key.name)
    return b.cast(b.node("Concat", *words[:2], axis=0), uint32)


@emitter("random_bits")
def _(b: Builder, key: Tensor, _shape: Any, dtype: Any) -> str:
    if as_dtype(dtype) != uint32:
        raise b.refuse("words of 64 bits", "draw those of 32")
    shape = b.outputs[0].shape
    return b.reshape(b.cast(_words(b, key, _count(b, shape)), uint32), shape)


@emitter("random_uniform")
def _(b: Builder, key: Tensor, _shape: Any, low: float, high: float, dtype: Any) -> str:
    shape, wanted = b.outputs[0].shape, as_dtype(dtype)
    own = float64 if wanted == float64 else float32
    y = b.reshape(_scaled(b, _unit(b, key, shape, wanted), high - low, low, own), shape)
    return y if wanted == own else b.cast(y, wanted)


@emitter("random_normal")
def _(b: Builder, key: Tensor, _shape: Any, mean: float, std: float, dtype: Any) -> str:
    shape, wanted = b.outputs[0].shape, as_dtype(dtype)
    own = float64 if wanted == float64 else float32
    count = _count(b, shape)
    pairs = _int(b, "Div", _int(b, "Add", count, 1), 2)
    unit = _open_unit(b, key, _int(b, "Mul", pairs, 2), wanted)
    first = b.node("Slice", unit, b.ints([0]), pairs, b.ints([0]))
    second = b.node("Slice", unit, pairs, b.ints([LAST]), b.ints([0]))
    radius = b.node("Sqrt", _scaled(b, b.node("Log", first), -2, 0, own))
    angle = _scaled(b, second, 2 * pi, 0, own)
    both = b.node("Concat", *[b.node("Mul", radius, b.node(f, angle)) for f in ("Cos", "Sin")], axis=0)
    y = _scaled(b, b.node("Slice", both, b.ints([0]), count, b.ints([0])), std, mean, own)
    return b.reshape(y if wanted == own else b.cast(y, wanted), shape)


@emitter("random_bernoulli")
def _(b: Builder, key: Tensor, p: Any, _shape: Any) -> str:
    shape = b.outputs[0].shape
    own = float64 if isinstance(p, Tensor) and p.dtype == float64 else float32
    return b.node("Less", b.reshape(_unit(b, key, shape, own), shape), b.operand(p, own))


@emitter("random_integers")
def _(b: Builder, key: Tensor, _shape: Any, low: int, high: int, dtype: Any) -> str:
    span, shape = high - low, b.outputs[0].shape
    if span >= 1 << 31:
        raise b.refuse("a range of 2³¹ numbers or more")
    lower, upper = _pairs(b, key, shape)
    rest = _int(b, "Mul", _int(b, "Mod", upper, span), _WORD % span)
    drawn = _int(b, "Mod", b.node("Add", rest, lower), span)
    return b.reshape(b.cast(_int(b, "Add", drawn, low), as_dtype(dtype)), shape)


@emitter("random_permutation")
def _(b: Builder, key: Tensor, _count_of: Any) -> str:
    shape = b.outputs[0].shape
    low, high = _pairs(b, key, shape)
    order = b.node("Add", _int(b, "Mul", _int(b, "Sub", high, 1 << 31), _WORD), low)  # as of unsigned words
    return b.many("TopK", order, b.ints(shape), outputs=2, axis=0, largest=0, sorted=1)[1]


@emitter("random_categorical")
def _(b: Builder, key: Tensor, logits: Tensor, axis: int) -> str:
    own = float64 if logits.dtype == float64 else float32
    unit = b.reshape(_open_unit(b, key, _count(b, logits.shape), logits.dtype), logits.shape)
    tiny = b.constant(np.asarray(np.finfo(own).tiny, own))
    noise = b.node("Log", b.node("Max", b.node("Neg", b.node("Log", unit)), tiny))
    return b.node("ArgMax", b.node("Sub", b.cast(logits, own), noise), axis=axis, keepdims=0)


@emitter("dropout")
def _(b: Builder, x: Tensor, key: Tensor, p: float, training: bool) -> str:
    if not training or p == 0:
        return b.node("Identity", x)
    if p == 1:
        return b.full(x.shape, 0, x.dtype)
    threshold = b.constant(min(round(p * 2**32), 2**32 - 1), int64)
    kept = b.node("GreaterOrEqual", _words(b, key, _count(b, x.shape)), threshold)
    mask = b.cast(b.reshape(kept, x.shape), x.dtype)
    return b.node("Mul", b.node("Mul", x, mask), b.constant(np.asarray(1 / (1 - p), x.dtype)))
