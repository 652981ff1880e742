"""Random numbers: RandomNormal, RandomUniform, Bernoulli, Multinomial.

A node without a seed draws from the process's own generator, as ONNX Runtime does, or, in training, from a key; with
one, the same numbers each run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

import numpy as np

from zoonet import ops
from zoonet.ops.errors import TraceError
from zoonet.ops.sets.onnx.common import affordable, dtype_of
from zoonet.ops.sets.onnx.registry import declare
from zoonet.ops.tracing import is_tracing_types
from zoonet.ops.types import Array, DType

_generator = np.random.default_rng()
#: Keys for the calls without a seed, in order; None: from the generator.
_keys: ContextVar[Iterator[Array] | None] = ContextVar("keys", default=None)


@contextmanager
def drawing_from(key: Array, start: int = 0) -> Iterator[None]:
    """Operators without a seed draw from a key, each with the next number from `start` on, so that they trace."""
    token = _keys.set(ops.random_fold_in(key, number) for number in count(start))
    try:
        yield
    finally:
        _keys.reset(token)


def key_of(seed: float | None) -> Array:
    """The key of a seed, or a new one for each call where there is none; see `drawing_from`.

    Raises TraceError where a call without a seed would be recorded, as each run of the record would repeat it.
    """
    if seed is None:
        keys = _keys.get()
        if keys is not None:
            return next(keys)
        if is_tracing_types():
            raise TraceError(
                "a random operator without a seed gives other numbers at each run, so it cannot be traced",
                fix="give it a seed, or run the graph on arrays",
            )
        return ops.random_key(int(_generator.integers(1 << 62)))
    return ops.random_key(int.from_bytes(struct.pack("<d", float(seed)), "little") >> 2)


def _shape(shape: Sequence[int], dtype: DType) -> tuple[int, ...]:
    return affordable(shape, dtype, "a random operator")


def random_normal(
    dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None, shape: Sequence[int] = ()
) -> Array:
    """Normal numbers of a mean and standard deviation."""
    kind = dtype_of(dtype)
    return ops.random_normal(key_of(seed), _shape(shape, kind), mean, scale, kind)


def random_uniform(
    dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None, shape: Sequence[int] = ()
) -> Array:
    """Numbers from low to high, all equally likely."""
    kind = dtype_of(dtype)
    return ops.random_uniform(key_of(seed), _shape(shape, kind), low, high, kind)


def random_normal_like(
    input: Array, /, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Array:
    """Normal numbers in the shape of the input."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return ops.random_normal(key_of(seed), tuple(input.shape), mean, scale, kind)


def random_uniform_like(
    input: Array, /, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Array:
    """Uniform numbers in the shape of the input."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return ops.random_uniform(key_of(seed), tuple(input.shape), low, high, kind)


def bernoulli(input: Array, /, dtype: int | None = None, seed: float | None = None) -> Array:
    """Ones at the probabilities that the input gives, zeros otherwise."""
    kind = input.dtype if dtype is None else dtype_of(dtype)
    return ops.cast(ops.random_bernoulli(key_of(seed), input), kind)


def multinomial(input: Array, /, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Array:
    """Classes (N, sample_size) drawn by their logits (N, classes)."""
    logits = ops.broadcast_to(ops.expand_dims(input, 1), (input.shape[0], sample_size, input.shape[1]))
    return ops.cast(ops.random_categorical(key_of(seed), logits), dtype_of(dtype))


declare("RandomNormal", random_normal, (1, 22))
declare("RandomUniform", random_uniform, (1, 22))
declare("RandomNormalLike", random_normal_like, (1, 22))
declare("RandomUniformLike", random_uniform_like, (1, 22))
declare("Bernoulli", bernoulli, (15, 22))
declare("Multinomial", multinomial, (7, 22))
