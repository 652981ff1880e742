"""T5 against transformers, the 2017 Transformer against torch.nn.Transformer: outputs, gradients, generation."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import ops
from zoonet.ops.buckets import distance_bucket
from zoonet.ops.errors import FormatError, InputError
from zoonet.zoo.modules import Module, initialised_by, value_and_grad
from zoonet.zoo.transformers import blocks, generation, t5, transformer
from zoonet.zoo.transformers.pretrained import read_network, write_network
from zoonet.zoo.transformers.seq2seq import Reading

try:
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

TOLERANCE = 1e-4
SIZES: dict[str, Any] = {"vocab_size": 37, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 4}
SIZES |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
KINDS: dict[str, dict[str, Any]] = {
    "t5": SIZES,
    "t5-v1.1": {**SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3},
}
READ = np.random.default_rng(0).integers(2, 37, (3, 15))
WRITTEN = np.random.default_rng(1).integers(2, 37, (3, 14))
MASK = np.ones((3, 15), np.int64)
MASK[1, 9:] = 0
MASK[2, 4:] = 0


def pair(name: str, **more: Any) -> tuple[Any, Any]:
    settings = transformers.T5Config(**KINDS[name], **more)
    theirs = drawn(transformers.T5ForConditionalGeneration(settings))
    fields = {k: v for k, v in settings.to_dict().items() if k != "scale_decoder_outputs" or name == "t5"}
    with initialised_by(None):
        ours = t5.T5(t5.T5Config.from_json({**fields, "scale_decoder_outputs": settings.scale_decoder_outputs}))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({n: p.detach().numpy().copy() for n, p in theirs.state_dict().items()})
    return ours, theirs


def check_gradients(ours: Module, inputs: tuple[Any, ...], noise: Any, wanted: dict[str, Any]) -> None:
    _, gradients, _ = value_and_grad(ours, lambda *given: ops.sum(ours(*given) * noise))(*inputs)
    first = {id(slot.get()): name for name, slot in reversed(list(ours.slots().items()))}
    largest = max(float(np.abs(g).max()) for g in wanted.values())
    for name, gradient in wanted.items():
        own = gradients[first[id(ours.slots()[name].get())]]
        scale = max(float(np.abs(gradient).max()), 1e-2 * largest)
        assert np.abs(own - gradient).max() / scale <= TOLERANCE, name


@pytest.mark.parametrize("name", KINDS)
def test_t5(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair(name)
    given = {"input_ids": READ, "attention_mask": MASK, "decoder_input_ids": WRITTEN}
    expected = theirs(**{n: torch.from_numpy(a) for n, a in given.items()}).logits
    noise = np.random.default_rng(2).standard_normal(expected.shape, np.float32)
    (expected * torch.from_numpy(noise)).sum().backward()
    assert resnet_parity.relative(ours(READ, WRITTEN, MASK), expected.detach().numpy()) <= TOLERANCE
    wanted = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
    assert len(wanted) == len(dict(ours.named_parameters()))
    check_gradients(ours, (READ, WRITTEN, MASK), noise, wanted)
    monkeypatch.setattr(blocks, "_SCORES", 4 * 15 * 4)  # four queries at a time
    assert resnet_parity.relative(ours(READ, WRITTEN, MASK), expected.detach().numpy()) <= TOLERANCE
    traced = ops.compile(ops.trace(ours, *[ops.TensorType(a.shape, a.dtype) for a in (READ, WRITTEN, MASK)]))
    assert resnet_parity.relative(traced(READ, WRITTEN, MASK), expected.detach().numpy()) <= TOLERANCE


@pytest.mark.parametrize("two_sided", [True, False])
def test_buckets(two_sided: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-700, 700)
    for count, furthest in ((32, 128), (8, 12), (64, 256)):
        theirs = T5Attention._relative_position_bucket(torch.from_numpy(distance), two_sided, count, furthest)
        np.testing.assert_array_equal(distance_bucket(distance, count, furthest, two_sided), theirs.numpy())


@pytest.mark.parametrize("name", KINDS)
def test_t5_writes_as_transformers(name: str) -> None:
    ours, theirs = pair(name, decoder_start_token_id=0)
    given = {"input_ids": torch.from_numpy(READ), "attention_mask": torch.from_numpy(MASK)}
    options: dict[str, Any] = {"max_new_tokens": 9, "do_sample": False, "use_cache": False}
    expected = theirs.generate(**given, **options)[:, 1:].tolist()
    reading = Reading(ours, READ, MASK)
    for cached in (True, False):
        found = generation.generate(reading, [[0]] * 3, 9, stop=[1], cached=cached)
        padded = [g.tokens + [0] * (max(len(f.tokens) for f in found) - len(g.tokens)) for g in found]
        assert padded == expected
    beams = theirs.generate(input_ids=given["input_ids"][:1], num_beams=3, num_return_sequences=3, **options)
    best = generation.beam_search(Reading(ours, READ[:1], MASK[:1]), [0], 9, 3, stop=[1])
    assert [text.tokens for text in best] == [[int(t) for t in row[1:] if t != 0] for row in beams]


def test_t5_folders(tmp_path: pathlib.Path) -> None:
    for name in KINDS:
        ours, theirs = pair(name)
        theirs.save_pretrained(tmp_path / "theirs")
        again = read_network(tmp_path / "theirs")
        np.testing.assert_array_equal(again(READ, WRITTEN), ours(READ, WRITTEN))
        write_network(again, tmp_path / "ours")
        made = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
        expected = made(input_ids=torch.from_numpy(READ), decoder_input_ids=torch.from_numpy(WRITTEN)).logits
        assert resnet_parity.relative(ours(READ, WRITTEN), expected.detach().numpy()) <= TOLERANCE
    with pytest.raises(FormatError, match="feed_forward_proj"):
        t5.T5Config.from_json({**theirs.config.to_dict(), "feed_forward_proj": "mixed-gelu"})
    with pytest.raises(InputError, match="vocabulary"):
        ours(READ, WRITTEN + 99)


class Tutorial(torch.nn.Module):
    """PyTorch's own nn.Transformer with embeddings, sinusoids and an output layer, written anew for this test."""

    def __init__(self, pre_norm: bool) -> None:
        super().__init__()
        for name in ("src_tok_emb", "tgt_tok_emb"):
            holder = torch.nn.Module()
            holder.embedding = torch.nn.Embedding(37, 16)
            setattr(self, name, holder)
        self.transformer = torch.nn.Transformer(16, 4, 2, 2, 24, 0.0, batch_first=True, norm_first=pre_norm)
        self.generator = torch.nn.Linear(16, 37)
        angles = torch.arange(50)[:, None] / 10000 ** (torch.arange(0, 16, 2) / 16)
        self.table = torch.stack([angles.sin(), angles.cos()], -1).reshape(50, 16)

    def forward(self, read: Any, written: Any, mask: Any) -> Any:
        x = self.src_tok_emb.embedding(read) * math.sqrt(16) + self.table[: read.shape[1]]
        y = self.tgt_tok_emb.embedding(written) * math.sqrt(16) + self.table[: written.shape[1]]
        causal = torch.nn.Transformer.generate_square_subsequent_mask(written.shape[1])
        hidden = self.transformer(
            x, y, tgt_mask=causal, src_key_padding_mask=mask == 0, memory_key_padding_mask=mask == 0
        )
        return self.generator(hidden)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_transformer(pre_norm: bool) -> None:
    theirs = drawn(Tutorial(pre_norm)).train()
    sizes = {"width": 16, "layers": 2, "decoder_layers": 2, "heads": 4, "hidden": 24, "vocabulary": 37, "written": 37}
    with initialised_by(None):
        ours = transformer.Transformer(transformer.TransformerConfig(**sizes, pre_norm=pre_norm))
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict({n: p.detach().numpy().copy() for n, p in theirs.state_dict().items()})
    expected = theirs(*[torch.from_numpy(a) for a in (READ, WRITTEN, MASK)])
    noise = np.random.default_rng(2).standard_normal(expected.shape, np.float32)
    (expected * torch.from_numpy(noise)).sum().backward()
    assert resnet_parity.relative(ours(READ, WRITTEN, MASK), expected.detach().numpy()) <= TOLERANCE
    check_gradients(ours, (READ, WRITTEN, MASK), noise, {n: p.grad.numpy() for n, p in theirs.named_parameters()})
    # greedy, token by token, with and without the cache
    written = torch.ones((3, 1), dtype=torch.int64)
    with torch.no_grad():
        for _ in range(8):
            scores = theirs(torch.from_numpy(READ), written, torch.from_numpy(MASK))
            written = torch.cat([written, scores[:, -1:].argmax(-1)], 1)
    for cached in (True, False):
        found = generation.generate(Reading(ours, READ, MASK), [[1]] * 3, 8, cached=cached)
        assert [g.tokens for g in found] == written[:, 1:].tolist()
    with pytest.raises(InputError, match="too long"):
        generation.generate(Reading(ours, READ, MASK), [[1]], 6000)


def test_published_sizes() -> None:
    with initialised_by(None):
        for made, count in (
            (t5.T5(t5.T5S["t5-small"]), 60_506_624),
            (t5.T5(t5.T5S["t5-base"]), 222_903_552),
            (t5.T5(t5.T5S["flan-t5-small"]), 76_961_152),
        ):
            assert sum(int(a.size) for _, a in made.named_parameters()) == count
