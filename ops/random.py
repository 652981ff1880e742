"""Random arrays from explicit keys: the same key, shape and dtype always give the same array, on every machine.

A key is uint32 [2]. A key is used once; `random_split` and `random_fold_in` make further ones. Bits, uniform numbers,
integers, masks and permutations are equal on CPU and GPU; normal ones and choices agree up to rounding of log and cos.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod
from typing import Any

import numpy as np

from zoonet.ops.devices import to_device
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.indexing import take
from zoonet.ops.operands import broadcast_shapes
from zoonet.ops.philox import FOLD, SPLIT, philox, wide_words, words
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import fixed, floats, ints, sample
from zoonet.ops.shapes import checked_shape, normalize_axis
from zoonet.ops.types import (
    INTEGER,
    Array,
    DType,
    TensorType,
    as_dtype,
    bool_,
    float16,
    float32,
    float64,
    int64,
    is_floating,
    is_low_precision,
    kind_of,
    uint32,
    uint64,
)

__all__ = [
    "dropout",
    "random_bernoulli",
    "random_bits",
    "random_categorical",
    "random_fold_in",
    "random_integers",
    "random_key",
    "random_normal",
    "random_permutation",
    "random_shuffle",
    "random_split",
    "random_uniform",
]

_KEY = fixed([7, 11], "uint32")


def random_key(seed: int, device: str = "cpu") -> Any:
    """The key for a seed: uint32 [2] on a device. seed: an integer of up to 64 bits; a negative one counts from 2⁶⁴.

    Raises ArgumentError for anything else.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not -(2**63) <= int(seed) < 2**64:
        raise ArgumentError("a seed is a 64-bit integer", received=repr(seed))
    number = int(seed) % 2**64
    return to_device(np.array([number & 0xFFFFFFFF, number >> 32], np.uint32), device)


def _check_key(name: str, key: TensorType) -> None:
    if key.shape != (2,) or key.dtype != uint32:
        raise ShapeError(f"{name}: not a key", expected="uint32[2]", received=key, fix="use random_key(seed)")


def _floating(name: str, dtype: Any) -> DType:
    result = as_dtype(dtype)
    if not is_floating(result):
        raise DTypeError(f"{name} gives floats", expected="a floating dtype", received=result.name)
    return result


@op(differentiable=False, samples=[sample(_KEY), sample(_KEY, 5)])
def random_split(xp: Any, key: Array, count: int = 2) -> Array:
    """New keys from one, independent of it and of each other: uint32 [2] -> uint32 [count, 2].

    Raises ShapeError for what is not a key, or a negative count.
    """
    return words(xp, key, 4 * count, SPLIT).reshape(count, 4)[:, :2].copy()


@random_split.type
def _(key: TensorType, count: int = 2) -> TensorType:
    _check_key("random_split", key)
    return TensorType((*checked_shape("random_split", (count,)), 2), uint32)


@op(differentiable=False, samples=[sample(_KEY, fixed(3, "int64")), sample(_KEY, fixed(2**40 + 1, "int64"))])
def random_fold_in(xp: Any, key: Array, data: Array) -> Array:
    """A new key from a key and a number, such as a step or the place of a layer: uint32 [2], integer [] -> uint32 [2].

    Raises ShapeError or DTypeError for other operands.
    """
    wide, number = key.astype(np.uint64), data.astype(np.uint64).reshape(1)
    zero = xp.zeros_like(number)
    block = philox((number & 0xFFFFFFFF, number >> 32, zero, zero + FOLD), (wide[0], wide[1]))
    return xp.concatenate(block[:2])


@random_fold_in.type
def _(key: TensorType, data: TensorType) -> TensorType:
    _check_key("random_fold_in", key)
    if data.shape or kind_of(data.dtype) != INTEGER:
        raise ShapeError("random_fold_in takes one integer", expected="int64[]", received=data)
    return key


@op(differentiable=False, samples=[sample(_KEY, (2, 3)), sample(_KEY, 5, "uint64"), sample(_KEY, ())])
def random_bits(xp: Any, key: Array, shape: int | Sequence[int] = (), dtype: Any = "uint32") -> Array:
    """Random bits: uint32 or uint64 of a shape.

    Raises ShapeError for what is not a key or a shape, DTypeError for another dtype. Source: see philox.py.
    """
    make = words if as_dtype(dtype) == uint32 else wide_words
    return make(xp, key, _count(shape)).reshape(shape)


def _count(shape: int | Sequence[int]) -> int:
    return shape if isinstance(shape, int) else prod(shape)


@random_bits.type
def _(key: TensorType, shape: int | Sequence[int] = (), dtype: Any = "uint32") -> TensorType:
    _check_key("random_bits", key)
    if as_dtype(dtype) not in (uint32, uint64):
        raise DTypeError("random_bits gives unsigned integers", expected="uint32 or uint64", received=dtype)
    return TensorType(checked_shape("random_bits", shape), as_dtype(dtype))


def _unit(xp: Any, key: Any, count: int, dtype: DType) -> Any:
    """Evenly spaced floats in [0, 1), all exact in dtype; float32 unless dtype is float64."""
    if dtype == float64:
        return (wide_words(xp, key, count) >> 11).astype(np.float64) * 2.0**-53
    digits = 24 if not is_low_precision(dtype) else 11 if dtype == float16 else 8
    return (words(xp, key, count) >> (32 - digits)).astype(np.float32) * np.float32(2.0**-digits)


def _open_unit(xp: Any, key: Any, count: int, dtype: DType) -> Any:
    """Floats in (0, 1] that reach as close to 0 as the bits allow, for logarithms."""
    if dtype == float64:
        return (wide_words(xp, key, count).astype(np.float64) + 0.5) * 2.0**-64
    return (words(xp, key, count).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)


@op(
    differentiable=False,
    samples=[
        sample(_KEY, (2, 3)),
        sample(_KEY, 5, -1.0, 3.0, "float64"),
        sample(_KEY, 9, 0.0, 1.0, "bfloat16"),
        sample(_KEY, 9, 0.0, 1.0, "float16"),
    ],
)
def random_uniform(
    xp: Any,
    key: Array,
    shape: int | Sequence[int] = (),
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = "float32",
) -> Array:
    """Uniform floats from low to high, high itself excluded up to rounding.

    Raises ShapeError for what is not a key or a shape, DTypeError for a dtype that is not floating, ArgumentError where
    low exceeds high.
    """
    wanted = as_dtype(dtype)
    unit = _unit(xp, key, _count(shape), wanted)
    if (low, high) != (0, 1):
        unit = unit * unit.dtype.type(high - low) + unit.dtype.type(low)
    return unit.reshape(shape).astype(wanted, copy=False)


@random_uniform.type
def _(key: TensorType, shape: Any = (), low: float = 0.0, high: float = 1.0, dtype: Any = "float32") -> TensorType:
    _check_key("random_uniform", key)
    if not low <= high:
        raise ArgumentError("random_uniform: the limits are in the wrong order", received=f"{low} and {high}")
    return TensorType(checked_shape("random_uniform", shape), _floating("random_uniform", dtype))


@op(
    differentiable=False,
    samples=[sample(_KEY, (2, 3)), sample(_KEY, 5, 1.0, 0.5, "float64"), sample(_KEY, 4, 0.0, 1.0, "bfloat16")],
)
def random_normal(
    xp: Any,
    key: Array,
    shape: int | Sequence[int] = (),
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = "float32",
) -> Array:
    """Normally distributed floats.

    Raises ShapeError for what is not a key or a shape, DTypeError for a dtype that is not floating, ArgumentError for a
    negative std. Source: Box and Muller, "A note on the generation of random normal deviates", 1958.
    """
    count = _count(shape)
    pairs = (count + 1) // 2
    wanted = as_dtype(dtype)
    unit = _open_unit(xp, key, 2 * pairs, wanted)
    real = unit.dtype.type
    radius = xp.sqrt(real(-2) * xp.log(unit[:pairs]))
    angle = real(2 * pi) * unit[pairs:]
    result = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:count]
    if (mean, std) != (0, 1):
        result = result * real(std) + real(mean)
    return result.reshape(shape).astype(wanted, copy=False)


@random_normal.type
def _(key: TensorType, shape: Any = (), mean: float = 0.0, std: float = 1.0, dtype: Any = "float32") -> TensorType:
    _check_key("random_normal", key)
    if not std >= 0:
        raise ArgumentError("random_normal: std is negative", expected="0 or more", received=std)
    return TensorType(checked_shape("random_normal", shape), _floating("random_normal", dtype))


@op(
    differentiable=False,
    samples=[
        sample(_KEY, fixed(0.25, "float32"), (3, 4)),
        sample(_KEY, fixed([[0.0], [1.0], [0.5]], "float64"), (3, 2)),
    ],
)
def random_bernoulli(xp: Any, key: Array, p: Array, shape: Any = None) -> Array:
    """True with probability p, each element by itself: bool.

    p: a number or an array in [0, 1], which broadcasts to shape; None: p's own. Raises ShapeError for what is not a
    key, or where p does not broadcast.
    """
    wanted = p.shape if shape is None else shape
    return _unit(xp, key, _count(wanted), float64 if p.dtype == float64 else float32).reshape(wanted) < p


@random_bernoulli.type
def _(key: TensorType, p: TensorType, shape: Any = None) -> TensorType:
    _check_key("random_bernoulli", key)
    wanted = p.shape if shape is None else checked_shape("random_bernoulli", shape)
    if broadcast_shapes("random_bernoulli", p.shape, wanted) != wanted:
        raise ShapeError("random_bernoulli: p does not fit", expected=f"one that broadcasts to {wanted}", received=p)
    return TensorType(wanted, bool_)


@op(
    differentiable=False,
    samples=[sample(_KEY, (2, 5), 0, 10), sample(_KEY, 6, -3, 4, "int32"), sample(_KEY, 3, -(2**63), 2**63 - 1)],
)
def random_integers(
    xp: Any, key: Array, shape: int | Sequence[int], low: int, high: int, dtype: Any = "int64"
) -> Array:
    """Integers from low to high - 1, equally likely (up to one part in 2⁶⁴ / (high - low)).

    Raises ShapeError for what is not a key or a shape, ArgumentError for an empty range or one beyond the dtype.
    """
    drawn = wide_words(xp, key, _count(shape)) % np.uint64(high - low)
    return (drawn + np.uint64(low % 2**64)).view(np.int64).reshape(shape).astype(as_dtype(dtype), copy=False)


@random_integers.type
def _(key: TensorType, shape: int | Sequence[int], low: int, high: int, dtype: Any = "int64") -> TensorType:
    _check_key("random_integers", key)
    wanted = as_dtype(dtype)
    if kind_of(wanted) != INTEGER:
        raise DTypeError("random_integers gives integers", expected="an integer dtype", received=wanted.name)
    limits = np.iinfo(wanted)
    if not limits.min <= low < high <= int(limits.max) + 1:
        raise ArgumentError(
            "random_integers: wrong range", expected=f"low < high within {wanted.name}", received=(low, high)
        )
    return TensorType(checked_shape("random_integers", shape), wanted)


@op(differentiable=False, samples=[sample(_KEY, 7), sample(_KEY, 0)])
def random_permutation(xp: Any, key: Array, count: int) -> Array:
    """The numbers 0 … count - 1 in random order, int64.

    Raises ShapeError for what is not a key, or a negative count.
    """
    return xp.argsort(wide_words(xp, key, count), kind="stable" if xp is np else None)


@random_permutation.type
def _(key: TensorType, count: int) -> TensorType:
    _check_key("random_permutation", key)
    return TensorType(checked_shape("random_permutation", (count,)), int64)


@composite(exact=True, samples=[sample(_KEY, floats(5, 2)), sample(_KEY, ints(2, 4), -1)])
def random_shuffle(key: Array, x: Array, axis: int = 0) -> Array:
    """The slices of x along an axis in random order. Any shape with the axis and dtype; see `random_permutation`."""
    return take(x, random_permutation(key, x.shape[normalize_axis("random_shuffle", len(x.shape), axis)]), axis)


@op(
    differentiable=False,
    samples=[
        sample(_KEY, floats(3, 5)),
        sample(_KEY, fixed([[-50.0, 50.0, -50.0]], "float32"), 1),
        sample(_KEY, floats(4, 2), 0),
    ],
)
def random_categorical(xp: Any, key: Array, logits: Array, axis: int = -1) -> Array:
    """One choice per slice along an axis, with the probabilities softmax(logits): int64 of the shape without the axis.

    logits: floating, -inf for what is never chosen. Raises ShapeError for what is not a key and for a missing axis.
    Source: the Gumbel-max trick, Maddison, Tarlow and Minka, "A* sampling", 2014.
    """
    unit = _open_unit(xp, key, logits.size, logits.dtype).reshape(logits.shape)
    tiny = np.finfo(unit.dtype).tiny
    return xp.argmax(logits - xp.log(xp.maximum(-xp.log(unit), tiny)), axis)


@random_categorical.type
def _(key: TensorType, logits: TensorType, axis: int = -1) -> TensorType:
    _check_key("random_categorical", key)
    _floating("random_categorical", logits.dtype)
    along = normalize_axis("random_categorical", logits.ndim, axis)
    if logits.shape[along] == 0:
        raise ShapeError("random_categorical: nothing to choose from", received=logits)
    return TensorType((*logits.shape[:along], *logits.shape[along + 1 :]), int64)


@op(
    view=True,
    samples=[
        sample(floats(3, 5), _KEY),
        sample(floats(4, 3), _KEY, 0.2),
        sample(floats(2, 2), _KEY, 0.5, False),
        sample(floats(3), _KEY, 1.0),
        sample(floats(3), _KEY, 0),
    ],
)
def dropout(xp: Any, x: Array, key: Array, p: float = 0.5, training: bool = True) -> Array:
    """x with each element set to 0 with probability p, the others divided by 1 - p; x itself unless training.

    x: any shape, floating. key: see `random_key`. Raises ArgumentError for p outside [0, 1], DTypeError for other x.
    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """
    if not training or p == 0:
        return x
    kept = words(xp, key, x.size).reshape(x.shape) >= np.uint32(min(round(p * 2**32), 2**32 - 1))
    if p == 1:
        return xp.zeros_like(x)
    return x * kept * x.dtype.type(1 / (1 - p))


@dropout.type
def _(x: TensorType, key: TensorType, p: float = 0.5, training: bool = True) -> TensorType:
    _check_key("dropout", key)
    _floating("dropout", x.dtype)
    if not 0 <= p <= 1:
        raise ArgumentError("dropout: p is a probability", expected="a number in [0, 1]", received=p)
    return x


@dropout.vjp
def _(gy: Array, _y: Array, _x: TensorType, key: Array, p: float, training: bool) -> Any:
    return dropout(gy, key, p, training), None
