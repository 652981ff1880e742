"""The random generator: Philox 4x32 with 10 rounds, a function from a key and a counter to 128 random bits.

It has no state, so any part of a stream can be made anywhere, and the same on the CPU and the GPU.
Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and √3 - 1
_LOW = 0xFFFFFFFF
_BLOCKS = {True: 1 << 14, False: 1 << 22}  # blocks at a time: what fits in a CPU's cache; what fills a GPU

#: The last word of the counter, so that streams, split keys and folded keys of one key never meet.
STREAM, SPLIT, FOLD = 0, 1, 2


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Four words for counters of four words and a key of two: uint64 arrays or numbers that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for turn in range(ROUNDS):
        if turn:
            k0, k1 = (k0 + KEY_STEPS[0]) & _LOW, (k1 + KEY_STEPS[1]) & _LOW
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = second >> 32, first >> 32
        c0 ^= c1
        c0 ^= k0
        c2 ^= c3
        c2 ^= k1
        second &= _LOW
        first &= _LOW
        c1, c3 = second, first
    return c0, c1, c2, c3


def words(xp: Any, key: Any, count: int, domain: int = STREAM) -> Any:
    """The first `count` 32-bit words of a key's stream in a domain: uint32 [count]."""
    blocks = -(-count // 4)
    result = xp.empty((blocks, 4), np.uint32)
    wide = key.astype(np.uint64)
    step = _BLOCKS[xp is np]
    for start in range(0, blocks, step):
        stop = min(start + step, blocks)
        number = xp.arange(start, stop, dtype=np.uint64)
        zero = xp.zeros_like(number)
        block = philox((number & _LOW, number >> 32, zero, zero + domain), (wide[0], wide[1]))
        for position, word in enumerate(block):
            result[start:stop, position] = word
    return result.reshape(-1)[:count]


def wide_words(xp: Any, key: Any, count: int) -> Any:
    """64-bit words of a key's stream, each of two 32-bit ones, the low one first: uint64 [count]."""
    pairs = words(xp, key, 2 * count).reshape(count, 2)
    return (pairs[:, 1].astype(np.uint64) << 32) | pairs[:, 0]
