"""Generation: the real stories260k byte for byte, transformers' own greedy and beam search, and samplers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import formats
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.transformers import generation, llama2c
from zoonet.zoo.transformers.sampling import Sampling, softmax

try:
    from transformer_oracles import decoder, gpt, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

PROMPTS = [[5, 9, 11, 4, 30], [7, 8], [20, 21, 22]]


@pytest.fixture(scope="module", params=["gpt2", "llama", "mistral", "qwen3"])
def pair(request: Any) -> tuple[Any, Any]:
    ours, theirs = gpt() if request.param == "gpt2" else decoder(request.param)
    ours.load_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    return ours, theirs


def theirs_continue(network: Any, prompts: list[list[int]], count: int, **options: Any) -> list[list[int]]:
    tokens, mask = generation.pad_left(prompts)
    given = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    result = network.generate(**given, max_new_tokens=count, **options)
    return [list(row) for row in result[:, tokens.shape[1] :].numpy()]


def test_greedy_equals_transformers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    expected = theirs_continue(theirs, PROMPTS, 12)
    assert [g.tokens for g in generation.generate(ours, PROMPTS, 12)] == expected
    assert [g.tokens for g in generation.generate(ours, PROMPTS, 12, chunk=2)] == expected
    assert [g.tokens for g in generation.generate(ours, PROMPTS, 12, cached=False)] == expected
    alone = [generation.generate(ours, [prompt], 12)[0].tokens for prompt in PROMPTS]
    assert alone == expected


def test_penalty_equals_transformers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    expected = theirs_continue(theirs, PROMPTS[:1], 12, repetition_penalty=1.7)
    found = generation.generate(ours, PROMPTS[:1], 12, Sampling(repetition_penalty=1.7))
    assert [g.tokens for g in found] == expected


def test_beam_search_equals_transformers(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    expected = theirs_continue(theirs, PROMPTS[:1], 8, num_beams=3, num_return_sequences=3)
    assert [g.tokens for g in generation.beam_search(ours, PROMPTS[0], 8, 3)] == expected


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.5, -1.0])
def test_beam_search_with_stop_tokens_equals_transformers(pair: tuple[Any, Any], penalty: float) -> None:
    ours, theirs = pair
    stop = generation.beam_search(ours, PROMPTS[0], 8, 3)[1].tokens[2:4]  # some that the search meets
    options = {"num_beams": 3, "num_return_sequences": 3, "eos_token_id": stop, "pad_token_id": 99}
    expected = theirs_continue(theirs, PROMPTS[:1], 8, length_penalty=penalty, **options)
    found = generation.beam_search(ours, PROMPTS[0], 8, 3, stop=stop, length_penalty=penalty)
    assert [g.tokens for g in found] == [[t for t in row if t != 99] for row in expected]
    assert {g.reason for g in found} <= {"stop", "length"}


def test_stop_tokens(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    free = generation.generate(ours, PROMPTS, 12)
    end = free[0].tokens[4]
    ended = generation.generate(ours, PROMPTS, 12, stop=[end])
    assert ended[0].tokens == free[0].tokens[: free[0].tokens.index(end) + 1]
    assert ended[0].reason == "stop"
    for one, other in zip(free, ended, strict=True):
        assert one.tokens[: len(other.tokens)] == other.tokens


def test_cuts_equal_transformers() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 50)) * 3
    for ours, theirs in (
        (Sampling(1.0, top_k=7), transformers.TopKLogitsWarper(7)),
        (Sampling(1.0, top_p=0.8), transformers.TopPLogitsWarper(0.8)),
        (Sampling(1.0, min_p=0.1), transformers.MinPLogitsWarper(0.1)),
        (Sampling(0.7), transformers.TemperatureLogitsWarper(0.7)),
    ):
        np.testing.assert_allclose(ours.cut(scores), theirs(None, torch.from_numpy(scores)).numpy(), rtol=1e-12)


def test_draws_have_the_probabilities() -> None:
    scores = np.array([[1.0, 0.0, 2.0, -1.0]])
    generators = [np.random.default_rng(0)] * 20_000
    tokens, logarithms = Sampling(1.0).choose(scores.repeat(20_000, 0), np.zeros((20_000, 4), bool), generators)
    np.testing.assert_allclose(np.bincount(tokens, minlength=4) / 20_000, softmax(scores)[0], atol=0.015)
    np.testing.assert_allclose(np.exp(logarithms), softmax(scores)[0][tokens])


def test_a_seed_draws_the_same_text_whatever_the_batch(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    sampling = Sampling(1.0, top_p=0.9)
    together = generation.generate(ours, PROMPTS, 10, sampling, seed=3)
    again = generation.generate(ours, PROMPTS[:1], 10, sampling, seed=3)
    other = generation.generate(ours, PROMPTS[:1], 10, sampling, seed=4)
    assert together[0].tokens == again[0].tokens != other[0].tokens


def test_what_cannot_be_generated_says_why(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    with pytest.raises(InputError, match="start token"):
        generation.generate(ours, [[]], 3)
    with pytest.raises(ArgumentError, match="max_tokens"):
        generation.generate(ours, PROMPTS, -1)
    with pytest.raises(InputError, match="vocabulary"):
        generation.generate(ours, [[99]], 3)
    with pytest.raises(ArgumentError, match="top_p"):
        Sampling(top_p=1.5)
    with pytest.raises(InputError, match="no numbers"):
        Sampling().choose(np.array([[np.nan, 1.0]]), np.zeros((1, 2), bool), [])
    assert generation.generate(ours, PROMPTS, 0)[0].tokens == []


def decoded(vocabulary: list[bytes], tokens: list[int]) -> bytes:
    """What run.c prints: a space after the start token is dropped, tokens of the form <0xAB> are bytes."""
    pieces = [vocabulary[token] for token in tokens]
    pieces = [bytes([int(p[3:5], 16)]) if len(p) == 6 and p.startswith(b"<0x") else p for p in pieces]
    return pieces[0].removeprefix(b" ") + b"".join(pieces[1:])


def test_stories260k(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = assets / "stories260k"
    checkpoint = formats.read(folder / "stories260K.bin")
    network = llama2c.network_of(checkpoint)
    [text] = generation.generate(network, [[1]], 200)
    expected = (folder / "greedy_200.txt").read_bytes()
    vocabulary = checkpoint.metadata["tokenizer"]["tokens"]
    assert decoded(vocabulary, text.tokens) == expected
    # and transformers' own Llama on the converted weights
    config = llama2c.config_of(checkpoint.metadata)
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    formats.write(llama2c.state_of(checkpoint, config), tmp_path / "model.safetensors")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs_continue(theirs, [[1]], 40)[0] == text.tokens[:40]
    tokens = np.array([[1, *text.tokens[:60]]])
    expected_scores = theirs(torch.from_numpy(tokens)).logits.detach().numpy()
    assert resnet_parity.relative(network(tokens), expected_scores) <= 1e-4
