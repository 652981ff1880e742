"""The Transformer of 2017 (Vaswani et al., arXiv:1706.03762): text in, text out, with torch.nn.Transformer's names.

Both embeddings and the output layer are named as in PyTorch's tutorial on translation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.layers import Embedding, LayerNorm, Linear, undrawn
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import Block, BlockConfig, Cache, Context, beside, check_heads, check_tokens, place
from zoonet.zoo.transformers.seq2seq import counted, seen

_ENCODER = {
    "query_key_value": "self_attn",
    "output": "self_attn.out_proj",
    "norm1": "norm1",
    "up": "linear1",
    "down": "linear2",
    "norm2": "norm2",
}
_DECODER = {
    **_ENCODER,
    "memory_query_key_value": "multihead_attn",
    "memory_output": "multihead_attn.out_proj",
    "memory_norm": "norm2",
    "norm2": "norm3",
}


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a Transformer. vocabulary, written: tokens of the text that is read, and of that which is written.

    pre_norm: norms before the layers instead of after the sums. final_norms: one more norm at the end of each half.
    start, end: tokens that a written text begins and ends with. longest: of a text, in tokens.
    """

    width: int = 512
    layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    hidden: int = 2048
    vocabulary: int = 37000
    written: int = 37000
    activation: str = "relu"
    eps: float = 1e-5
    pre_norm: bool = False
    final_norms: bool = True
    start: int = 1
    end: int = 2
    longest: int = 5000


class InProjection(Module):
    """Queries, keys and values by one matrix, as torch.nn.MultiheadAttention holds it: (…, inputs) -> (…, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.in_proj_weight = undrawn(outputs, inputs)
        self.in_proj_bias = undrawn(outputs) if bias else None
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Uniform by the sum of inputs and outputs (Glorot and Bengio, 2010); bias zero."""
        bound = (6 / sum(self.in_proj_weight.shape)) ** 0.5
        self.in_proj_weight = (rng.random(self.in_proj_weight.shape, np.float32) * 2 - 1) * np.float32(bound)
        self.in_proj_bias = None if self.in_proj_bias is None else np.zeros(self.in_proj_bias.shape, np.float32)

    def forward(self, x: Array) -> Array:
        """(…, inputs) -> (…, outputs)."""
        return ops.linear(x, self.in_proj_weight, self.in_proj_bias)

    def part(self, x: Array, start: int, stop: int) -> Array:
        """Outputs start to stop alone."""
        bias = None if self.in_proj_bias is None else self.in_proj_bias[start:stop]
        return ops.linear(x, self.in_proj_weight[start:stop], bias)


class Stack(Module):
    """(N, T, width) -> (N, T, width): the encoder, or the decoder, which looks at a memory as well."""

    def __init__(self, config: TransformerConfig, decoder: bool) -> None:
        self._decoder = decoder
        norm = partial(LayerNorm, eps=config.eps)
        block = BlockConfig(
            config.width,
            config.heads,
            config.hidden,
            config.activation,
            norm,
            _DECODER if decoder else _ENCODER,
            config.heads,
            config.width // config.heads,
            config.pre_norm,
            joined=InProjection,
        )
        self.layers = [Block(block, layer) for layer in range(config.decoder_layers if decoder else config.layers)]
        if config.final_norms:
            self.norm = norm(config.width)

    def forward(
        self,
        x: Array,
        mask: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
        cache: Cache | None = None,
    ) -> Array:
        """(N, T, width), mask (N, S), memory (N, M, width), memory_mask (N, M) -> (N, T, width)."""
        length = x.shape[1]
        context = Context(seen(mask), self._decoder, cache=cache, memory=memory, memory_mask=seen(memory_mask))
        for block in self.layers:
            x = block(x, context)
        if cache is not None:
            cache.advance(length)
        return self.norm(x) if "norm" in vars(self) else x


class Transformer(Module):
    """Tokens (N, M) of a text and (N, T) of what is written -> scores of the next token (N, T, written)."""

    def __init__(self, config: TransformerConfig) -> None:
        check_heads(config.width, config.heads)
        self.config = config
        for name, entries in (("src_tok_emb", config.vocabulary), ("tgt_tok_emb", config.written)):
            place(self, f"{name}.embedding", Embedding(entries, config.width))
        self._encoder = place(self, "transformer.encoder", Stack(config, False))
        self._decoder = place(self, "transformer.decoder", Stack(config, True))
        self.generator = Linear(config.width, config.written)
        self._draw()

    @classmethod
    def fit(cls, config: TransformerConfig, shapes: Mapping[str, Any]) -> TransformerConfig:
        """The configuration with the vocabularies of a state dict."""
        axes = {"vocabulary": ("src_tok_emb.embedding.weight", 0), "written": ("tgt_tok_emb.embedding.weight", 0)}
        return replace(config, **sizes(shapes, **axes))

    def reset(self, rng: np.random.Generator) -> None:
        """Embeddings normal with deviation 1 / √width, since √width multiplies them; linear layers as Glorot."""
        for _, module in self.named_modules():
            if isinstance(module, Linear):
                bound = (6 / sum(module.weight.shape)) ** 0.5
                module.weight = (rng.random(module.weight.shape, np.float32) * 2 - 1) * np.float32(bound)
                module.bias = np.zeros(module.weight.shape[0], np.float32)
            elif isinstance(module, Embedding):
                scale = np.float32(self.config.width**-0.5)
                module.weight = rng.standard_normal(module.weight.shape, np.float32) * scale

    @property
    def positions(self) -> int | None:
        """The longest text in tokens."""
        return self.config.longest

    def forward(
        self, tokens: Array, written: Array, mask: Array | None = None, written_mask: Array | None = None
    ) -> Array:
        """(N, M), (N, T), masks of the same shapes, True: take part -> (N, T, written)."""
        return self.decode(written, self.encode(tokens, mask), mask, written_mask)

    def encode(self, tokens: Array, mask: Array | None = None) -> Array:
        """(N, M), mask (N, M) -> memory (N, M, width)."""
        check_tokens(tokens, self.config.vocabulary, self.config.longest)
        x = self._embedded("src_tok_emb", tokens, counted(tokens)[None])
        return self._encoder(x, mask)

    def decode(
        self,
        tokens: Array,
        memory: Array,
        memory_mask: Array | None = None,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Array:
        """(N, T), memory (N, M, width) -> (N, T, written); of the last position alone (N, 1, written) if `last`."""
        offset = 0 if cache is None else cache.length
        check_tokens(tokens, self.config.written, self.config.longest - offset)
        if positions is None:
            positions = counted(tokens, offset)[None]
        x = self._embedded("tgt_tok_emb", tokens, positions)
        x = self._decoder(x, mask, memory, memory_mask, cache)
        return self.generator(x[:, -1:] if last else x)

    def _embedded(self, name: str, tokens: Array, positions: Array) -> Array:
        """(N, T), positions (N, T) -> (N, T, width): √width times the embedding, plus waves of the position."""
        width = self.config.width
        x = vars(self)[name].embedding(tokens) * np.float32(width**0.5)
        return x + ops.cast(waves(positions, width), x.dtype)


def waves(positions: Array, width: int) -> Array:
    """Sines and cosines of positions at `width` / 2 rates from 1 to 1 / 10000: (…) -> (…, width)."""
    rates = np.exp(np.arange(0, width, 2) * (-np.log(10000.0) / width))
    angles = ops.cast(positions, "float32")[..., None] * beside(rates.astype(np.float32), positions)  # (…, width / 2)
    both = ops.stack([ops.sin(angles), ops.cos(angles)], -1)  # (…, width / 2, 2)
    return ops.reshape(both, (*positions.shape, width + width % 2))[..., :width]


#: Published sizes by name.
TRANSFORMERS: dict[str, TransformerConfig] = {
    "transformer-base": TransformerConfig(),
    "transformer-big": TransformerConfig(1024, heads=16, hidden=4096),
}
