"""Long texts take memory in proportion to their length, not to its square; and the cache is not copied per step."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zoonet.zoo import architectures
from zoonet.zoo.transformers import generation
from zoonet.zoo.transformers.blocks import Cache
from zoonet.zoo.transformers.seq2seq import Reading

SMALL: dict[str, Any] = {"vocabulary": 30, "layers": 1, "width": 32, "heads": 8, "hidden": 16}
LENGTH = 3000
SQUARE = 8 * LENGTH**2 * 4  # bytes of the scores of all heads


def peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def network(name: str, **more: Any) -> Any:
    return architectures.build(name, seed=0, **SMALL, **more)


@pytest.mark.parametrize("name", ["llama-2-7b", "gpt2", "bert-base-uncased", "t5-small"])
def test_memory(name: str) -> None:
    tokens = np.random.default_rng(0).integers(3, 30, (1, LENGTH))
    if name == "llama-2-7b":
        made = network(name, key_value_heads=2)
        used = peak(lambda: generation.generate(made, tokens.tolist(), 2))
    elif name == "gpt2":
        made = network(name, positions=LENGTH + 9)
        used = peak(lambda: generation.generate(made, tokens.tolist(), 2, chunk=LENGTH))  # bounded without chunks too
    elif name == "bert-base-uncased":
        made = network(name, embedding=32, positions=LENGTH)
        used = peak(lambda: made(tokens))
    else:
        made = network(name, decoder_layers=1, head_size=4)
        used = peak(lambda: generation.generate(Reading(made, tokens, tokens > 0), [[0]], 2))
    assert used < SQUARE / 4


def test_chunks_give_the_same_text() -> None:
    made = network("llama-2-7b", key_value_heads=2)
    prompt = np.random.default_rng(1).integers(3, 30, (1, 200)).tolist()
    expected = generation.generate(made, prompt, 20, chunk=200)[0].tokens
    for chunk in (1, 7, 64, 199):
        assert generation.generate(made, prompt, 20, chunk=chunk)[0].tokens == expected


def test_the_cache_grows_seldom() -> None:
    """Its arrays are replaced when they are full, each time by ones twice as long, up to the capacity."""
    cache = Cache(5000)
    seen = set()
    for position in range(5000):
        key = np.full((1, 2, 1, 4), position, np.float32)
        keys, values = cache.append(0, key, key)
        cache.advance(1)
        seen.add(id(keys.base))
        assert keys.shape == values.shape == (1, 2, position + 1, 4)
    assert (keys[0, 0, :, 0] == np.arange(5000)).all()
    assert len(seen) <= 4
    assert keys.base.shape[2] == 5000
