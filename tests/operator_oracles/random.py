"""Oracles of random operators: Philox written out on Python integers, one word at a time (Salmon et al., SC 2011)."""

import math

import numpy as np
import torch

from operator_oracles import array_oracle, torch_oracle
from zoonet.ops.types import as_dtype


def philox_block(counter, key):
    """Four words. Checked against the published vectors in test_random.py."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def stream(key, count, domain=0):
    key = [int(k) for k in key]
    blocks = [philox_block((b % 2**32, b >> 32, 0, domain), key) for b in range(-(-count // 4))]
    return [word for block in blocks for word in block][:count]


def stream64(key, count):
    flat = stream(key, 2 * count)
    return [flat[2 * i] + (flat[2 * i + 1] << 32) for i in range(count)]


def size(shape):
    return int(np.prod(shape, dtype=int))


def unit(key, count, dtype):
    if dtype == "float64":
        return np.array([(w >> 11) / 2**53 for w in stream64(key, count)])
    digits = {"float32": 24, "float16": 11, "bfloat16": 8}[dtype]
    return np.array([(w >> (32 - digits)) / 2**digits for w in stream(key, count)])


def open_unit(key, count, dtype):
    if dtype == "float64":
        return np.array([(w + 0.5) / 2**64 for w in stream64(key, count)])
    return np.array([(w + 0.5) / 2**32 for w in stream(key, count)])


@array_oracle("random_split")
def random_split(key, count):
    return np.array(stream(key, 4 * count, 1), np.uint32).reshape(count, 4)[:, :2]


@array_oracle("random_fold_in")
def random_fold_in(key, data):
    number = int(data)
    return np.array(philox_block((number % 2**32, number >> 32, 0, 2), [int(k) for k in key])[:2], np.uint32)


@array_oracle("random_bits")
def random_bits(key, shape, dtype):
    make = stream if dtype == "uint32" else stream64
    return np.array(make(key, size(shape)), dtype).reshape(shape)


@array_oracle("random_uniform")
def random_uniform(key, shape, low, high, dtype):
    return (low + (high - low) * unit(key, size(shape), dtype)).reshape(shape)


@array_oracle("random_normal", tolerance=2000.0)  # the samples draw float32, whatever dtype is tested
def random_normal(key, shape, mean, std, dtype):
    pairs = (size(shape) + 1) // 2
    u = open_unit(key, 2 * pairs, dtype)
    polar = [(math.sqrt(-2 * math.log(a)), 2 * math.pi * b) for a, b in zip(u[:pairs], u[pairs:], strict=True)]
    drawn = [r * math.cos(t) for r, t in polar] + [r * math.sin(t) for r, t in polar]
    exact = mean + std * np.array(drawn[: size(shape)]).reshape(shape)
    return exact.astype(as_dtype(dtype)).astype(np.float64)


@array_oracle("random_bernoulli")
def random_bernoulli(key, p, shape):
    return unit(key, size(shape), p.dtype.name).reshape(shape) < p


@array_oracle("random_integers")
def random_integers(key, shape, low, high, dtype):
    return np.array([low + w % (high - low) for w in stream64(key, size(shape))], dtype).reshape(shape)


@array_oracle("random_permutation")
def random_permutation(key, count):
    drawn = stream64(key, count)
    return np.array(sorted(range(count), key=drawn.__getitem__), np.int64)


@torch_oracle("random_shuffle")
def random_shuffle(key, x, axis):
    return torch.index_select(x, axis, torch.from_numpy(random_permutation(key.tolist(), x.shape[axis])))


@array_oracle("random_categorical")
def random_categorical(key, logits, axis):
    u = open_unit(key, logits.size, logits.dtype.name).reshape(logits.shape)
    return np.argmax(np.asarray(logits, np.float64) - np.log(-np.log(u)), axis)


@torch_oracle("dropout")
def dropout(x, key, p, training):
    if not training:
        return x
    kept = np.array([w >= p * 2**32 for w in stream(key.tolist(), x.numel())]).reshape(tuple(x.shape))
    return x * torch.from_numpy(kept) / (1 - p) if p < 1 else x * 0
