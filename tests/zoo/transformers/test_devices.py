"""Transformers on a GPU, as far as the stand-in for CuPy tells: nothing is mixed, and results equal the CPU's."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import replace
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

from zoonet import ops, zoo
from zoonet.zoo import architectures
from zoonet.zoo.modules import initialised_by
from zoonet.zoo.transformers import bert, generation
from zoonet.zoo.transformers.sampling import Sampling
from zoonet.zoo.transformers.seq2seq import Reading

TOKENS = np.random.default_rng(0).integers(3, 30, (2, 7))
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3])
PICTURES = np.random.default_rng(0).standard_normal((2, 3, 48, 32), np.float32)
SMALL: dict[str, Any] = {"vocabulary": 30, "layers": 2, "width": 16, "heads": 4, "hidden": 24}
NETWORKS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "bert-base-uncased": ({**SMALL, "embedding": 16}, (TOKENS, MASK, MASK)),
    "roberta-base": ({**SMALL, "embedding": 16}, (TOKENS, MASK)),
    "electra-small": ({**SMALL, "embedding": 8}, (TOKENS, MASK)),
    "distilbert-base-uncased": ({**SMALL, "embedding": 16}, (TOKENS,)),
    "gpt2": (SMALL, (TOKENS, MASK)),
    "llama-3.1-8b": ({**SMALL, "key_value_heads": 2}, (TOKENS, MASK)),
    "mistral-7b-v0.1": ({**SMALL, "key_value_heads": 2, "window": 3}, (TOKENS,)),
    "qwen3-0.6b": ({**SMALL, "key_value_heads": 2, "head_size": 8}, (TOKENS,)),
    "t5-small": ({**SMALL, "decoder_layers": 2}, (TOKENS, TOKENS[:, :5], MASK)),
    "transformer-base": ({**SMALL, "decoder_layers": 2, "written": 30}, (TOKENS, TOKENS[:, :5], MASK)),
    "vit_tiny_patch16_224": ({"layers": 2, "width": 16, "heads": 4}, (PICTURES,)),
    "deit_tiny_distilled_patch16_224": ({"layers": 2, "width": 16, "heads": 4}, (PICTURES,)),
}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.module())


def on_gpu(inputs: tuple[Any, ...]) -> list[Any]:
    return [ops.to_device(x, "cuda") for x in inputs]


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    sizes, inputs = NETWORKS[name]
    network = architectures.build(name, seed=0, **sizes)
    expected = network(*inputs)
    network.to("cuda")
    found = network(*on_gpu(inputs))
    assert isinstance(found, cupy_stand_in.ndarray)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("head", list(bert.HEADS)[1:])
def test_heads(head: str) -> None:
    config = replace(bert.BERTS["electra-small"], **SMALL, embedding=8)
    with initialised_by(0):
        network = bert.BertWithHead(config, head)
    expected = network(TOKENS, MASK)
    np.testing.assert_allclose(network.to("cuda")(*on_gpu((TOKENS, MASK))).get(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("name", ["gpt2", "llama-3.1-8b", "t5-small", "transformer-base"])
def test_writing(name: str) -> None:
    network: Any = architectures.build(name, seed=0, **NETWORKS[name][0])

    def read(rows: int) -> Any:
        return Reading(network, TOKENS[:rows], MASK[:rows] == 1) if hasattr(network, "encode") else network

    def write() -> list[Any]:
        texts = generation.generate(read(2), [[5, 6, 7], [8]], 6, Sampling(0.8, top_k=9), seed=1, chunk=2)
        return [*[t.tokens for t in texts], *[t.tokens for t in generation.beam_search(read(1), [5, 6], 5, 3)]]

    expected = write()
    network.to("cuda")
    assert write() == expected


@pytest.mark.usefixtures("cupy")
def test_tasks(assets: pathlib.Path) -> None:
    path = assets / "stories260k" / "stories260K.bin"
    expected = (assets / "stories260k" / "greedy_200.txt").read_text()
    model = zoo.load(path, device="cuda")
    assert expected.startswith(model.run("", max_tokens=20).text())
    assert "".join(model.stream("", max_tokens=20, stop=["Lily"])) == expected.partition("Lily")[0]
    np.testing.assert_allclose(model(TOKENS).get(), zoo.load(path)(TOKENS), rtol=1e-4, atol=1e-4)
