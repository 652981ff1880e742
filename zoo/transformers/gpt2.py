"""GPT-2 (Radford et al., 2019) and DistilGPT-2, with the names and the layout of Hugging Face's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.zoo.layers import Embedding, LayerNorm, undrawn
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import Block, BlockConfig, Cache, Context, Conv1D, beside, check_heads, check_tokens
from zoonet.zoo.transformers.configurations import count, multiple, number

_NAMES = {
    "norm1": "ln_1",
    "query_key_value": "attn.c_attn",
    "output": "attn.c_proj",
    "norm2": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


@dataclass(frozen=True)
class GPT2Config:
    """Sizes of a GPT-2. positions: the longest text in tokens. tied: the output layer is the embedding.

    scaled: scores of attention are divided by √head_size; by_layer: and by the layer's number, counted from 1, as in
    checkpoints trained with Mistral's recipe (Stanford CRFM).
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 50257
    positions: int = 1024
    activation: str = "gelu_new"
    eps: float = 1e-5
    tied: bool = True
    scaled: bool = True
    by_layer: bool = False

    def attention_scale(self, layer: int) -> float:
        """The factor of a layer's attention scores."""
        scale: float = (self.width // self.heads) ** -0.5 if self.scaled else 1.0
        return scale / (layer + 1) if self.by_layer else scale

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> GPT2Config:
        """Read config.json's fields. Raises FormatError where they make no GPT-2."""
        width, heads = count(config, "n_embd"), count(config, "n_head")
        multiple("n_embd and n_head", width, heads)
        return cls(
            width,
            count(config, "n_layer"),
            heads,
            count(config, "n_inner", default=4 * width),
            count(config, "vocab_size"),
            count(config, "n_positions", "n_ctx"),
            str(config.get("activation_function", "gelu_new")),
            number(config, "layer_norm_epsilon", 1e-5),
            config.get("tie_word_embeddings", True) is not False,
            config.get("scale_attn_weights", True) is not False,
            config.get("scale_attn_by_inverse_layer_idx") is True,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields of config.json."""
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_inner": self.hidden,
            "vocab_size": self.vocabulary,
            "n_positions": self.positions,
            "activation_function": self.activation,
            "layer_norm_epsilon": self.eps,
            "tie_word_embeddings": self.tied,
            "scale_attn_weights": self.scaled,
            "scale_attn_by_inverse_layer_idx": self.by_layer,
        }


class GPT2Model(Module):
    """Tokens (N, T) -> hidden states (N, T, width)."""

    def __init__(self, config: GPT2Config) -> None:
        check_heads(config.width, config.heads)
        block = BlockConfig(
            config.width,
            config.heads,
            config.hidden,
            config.activation,
            partial(LayerNorm, eps=config.eps),
            _NAMES,
            config.heads,
            config.width // config.heads,
            True,
            Conv1D,
        )
        self.wte, self.wpe = Embedding(config.vocabulary, config.width), Embedding(config.positions, config.width)
        self.h = [Block(replace(block, scale=config.attention_scale(layer)), layer) for layer in range(config.layers)]
        self.ln_f = LayerNorm(config.width, eps=config.eps)

    def forward(
        self, tokens: Array, mask: Array | None = None, positions: Array | None = None, cache: Cache | None = None
    ) -> Array:
        """(N, T), mask (N, S) True: take part, positions (N, T) -> (N, T, width). S: cached positions and T."""
        offset = 0 if cache is None else cache.length
        length = tokens.shape[1]
        if positions is None:
            positions = beside(np.arange(offset, offset + length)[None], tokens)
        x = self.wte(tokens) + self.wpe(positions)
        seen = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]  # (N, 1, 1, S)
        context = Context(seen, causal=True, cache=cache)
        for block in self.h:
            x = block(x, context)
        if cache is not None:
            cache.advance(length)
        return self.ln_f(x)


class GPT2LMHeadModel(Module):
    """Tokens (N, T) -> scores of the next token (N, T, vocabulary)."""

    def __init__(self, config: GPT2Config) -> None:
        self.config = config
        self.transformer = GPT2Model(config)
        self.lm_head = _Output()
        self.lm_head.weight = undrawn(config.vocabulary, config.width)
        self._tie()
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Embeddings and output layer normal with deviation 0.02, as GPT-2."""
        for table in (self.transformer.wte, self.transformer.wpe, *(() if self.config.tied else (self.lm_head,))):
            table.weight = rng.standard_normal(table.weight.shape, np.float32) * np.float32(0.02)
        self._tie()

    def _tie(self) -> None:
        if self.config.tied:
            self.lm_head.weight = self.transformer.wte.weight

    @classmethod
    def fit(cls, config: GPT2Config, shapes: Mapping[str, Any]) -> GPT2Config:
        """The configuration with the vocabulary and the positions of a state dict."""
        axes = {"vocabulary": ("transformer.wte.weight", 0), "positions": ("transformer.wpe.weight", 0)}
        return replace(config, **sizes(shapes, **axes))

    @property
    def positions(self) -> int | None:
        """The longest text in tokens."""
        return self.config.positions

    def forward(
        self,
        tokens: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Array:
        """As GPT2Model, to scores (N, T, vocabulary); of the last position alone (N, 1, vocabulary) if `last`."""
        check_tokens(tokens, self.config.vocabulary, self.config.positions - (cache.length if cache else 0))
        x = self.transformer(tokens, mask, positions, cache)
        return ops.linear(x[:, -1:] if last else x, self.lm_head.weight)


class _Output(Module):
    """Holds the output layer's matrix, which is the embedding's if they are tied."""

    weight: Array


#: Published sizes by name.
GPT2S: dict[str, GPT2Config] = {
    "distilgpt2": GPT2Config(layers=6),
    "gpt2": GPT2Config(),
    "gpt2-medium": GPT2Config(1024, 24, 16, 4096),
    "gpt2-large": GPT2Config(1280, 36, 20, 5120),
    "gpt2-xl": GPT2Config(1600, 48, 25, 6400),
}


def build(name: str) -> GPT2LMHeadModel:
    """A GPT-2 of a published size with fresh parameters. Raises ArgumentError for another name."""
    if name not in GPT2S:
        raise ArgumentError("no such GPT-2", expected=", ".join(GPT2S), received=repr(name))
    return GPT2LMHeadModel(GPT2S[name])
