"""Transformers against Hugging Face's, on random weights: outputs, gradients, names, masks, padding, token types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import ops
from zoonet.zoo.modules import Module, initialised_by, value_and_grad
from zoonet.zoo.transformers import bert, gpt2, llama

try:
    from transformer_oracles import DECODERS, DISTIL, SIZES, decoder, drawn, gpt, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

TOLERANCE = 1e-4


def texts(left: bool = False) -> tuple[Any, Any]:
    tokens = np.random.default_rng(0).integers(4, 37, (3, 9))
    mask = np.ones((3, 9), np.int64)
    mask[1, 6:] = 0
    mask[2, 3:] = 0
    if left:
        mask = mask[:, ::-1].copy()
    return tokens, mask


def compare(ours: Module, theirs: Any, inputs: tuple[Any, ...], output: Any, seen: Any) -> None:
    """Outputs and gradients of the sum of outputs (where seen) times fixed noise."""
    ours.load_state_dict({n: p.detach().numpy().copy() for n, p in theirs.state_dict().items()})
    expected = output()
    noise = np.random.default_rng(2).standard_normal(expected.shape, np.float32)
    if seen is not None:
        noise *= seen.reshape(*seen.shape, *[1] * (noise.ndim - seen.ndim))
    (expected * torch.from_numpy(noise)).sum().backward()
    value = ours(*inputs)
    shown = (noise != 0).astype(np.float32)
    assert resnet_parity.relative(value * shown, expected.detach().numpy() * shown) <= TOLERANCE
    _, gradients, _ = value_and_grad(ours, lambda *given: ops.sum(ours(*given) * noise))(*inputs)
    first = {id(slot.get()): name for name, slot in reversed(list(ours.slots().items()))}
    wanted = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
    names = {n: first[id(ours.slots()[n].get())] for n in wanted}
    assert len(wanted) >= len(gradients) - 2  # a pooler that an output does not need has none
    largest = max(np.abs(g).max() for g in wanted.values())
    for name, gradient in wanted.items():
        nothing = name.endswith(("key.bias", "k_lin.bias", "k_proj.bias"))  # 0, but for rounding
        scale = max(np.abs(gradient).max(), (1e-1 if nothing else 1e-3) * largest)
        assert np.abs(gradients[names[name]] - gradient).max() / scale <= TOLERANCE, name


ENCODERS = {
    "bert": ("Bert", SIZES),
    "roberta": ("Roberta", {**SIZES, "pad_token_id": 1, "type_vocab_size": 2}),
    "electra": ("Electra", {**SIZES, "embedding_size": 8}),
    "distilbert": ("DistilBert", DISTIL),
}


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("head", bert.HEADS)
def test_encoders(family: str, head: str) -> None:
    if head == "discriminator" and family != "electra":
        pytest.skip("no such head")
    title, sizes = ENCODERS[family]
    settings = getattr(transformers, f"{title}Config")(**sizes, num_labels=2 if head == "answer" else 3)
    theirs = drawn(getattr(transformers, title + bert.HEADS[head])(settings))
    config = bert.BertConfig.from_json(settings.to_dict())
    with initialised_by(None):
        ours = bert.BertModel(config) if head == "embedding" else bert.BertWithHead(config, head)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    tokens, mask = texts()
    if family == "roberta":
        tokens = np.where(mask == 1, tokens, 1)
    types = np.zeros_like(tokens) if family == "distilbert" else (np.arange(9) > 2)[None].repeat(3, 0).astype(int)
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
    if family != "distilbert":
        inputs["token_type_ids"] = torch.from_numpy(types)

    def output() -> Any:
        result = theirs(**inputs)
        if head == "answer":
            return torch.stack([result.start_logits, result.end_logits], -1)
        return result.last_hidden_state if head == "embedding" else result.logits

    compare(ours, theirs, (tokens, mask, types), output, None if head == "sequence" else mask.astype(np.float32))


def test_pooler() -> None:
    settings = transformers.BertConfig(**SIZES)
    theirs = drawn(transformers.BertModel(settings))
    ours = bert.BertModel(bert.BertConfig.from_json(settings.to_dict()))
    ours.load_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    tokens, mask = texts()
    expected = theirs(torch.from_numpy(tokens), torch.from_numpy(mask)).pooler_output.detach().numpy()
    assert resnet_parity.relative(ours.pool(ours(tokens, mask)), expected) <= TOLERANCE


SCALES: dict[str, dict[str, bool]] = {
    "gpt2": {},
    "gpt2-by-layer": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "gpt2-unscaled": {"scale_attn_weights": False},
}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", [*SCALES, *DECODERS])
def test_decoders(name: str, left: bool) -> None:
    ours, theirs = gpt(**SCALES[name]) if name in SCALES else decoder(name)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    tokens, mask = texts(left)
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}
    given = {n: torch.from_numpy(a) for n, a in inputs.items()}
    compare(ours, theirs, (tokens, mask, positions), lambda: theirs(**given).logits, mask.astype(np.float32))


@pytest.mark.parametrize("name", DECODERS)
def test_configurations_survive_writing(name: str) -> None:
    title, sizes = DECODERS[name]
    settings = getattr(transformers, f"{title}Config")(**sizes)
    config = llama.LlamaConfig.from_json(settings.to_dict())
    assert llama.LlamaConfig.from_json(config.to_json()) == config


def test_published_sizes() -> None:
    """Parameters as the model cards state them."""
    with initialised_by(None):
        assert sum(p.size for _, p in gpt2.build("gpt2").named_parameters()) == 124_439_808
        assert sum(p.size for _, p in llama.build("tinyllama-1.1b").named_parameters()) == 1_100_048_384
        assert sum(p.size for _, p in llama.build("smollm2-135m").named_parameters()) == 134_515_008
        assert sum(p.size for _, p in llama.build("qwen2.5-0.5b").named_parameters()) == 494_032_768
        assert sum(p.size for _, p in bert.build("bert-base-uncased").named_parameters()) == 109_482_240
