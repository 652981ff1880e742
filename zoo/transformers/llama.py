"""Llama-style decoders: rotary positions, RMS norms, gated layers, grouped heads (Touvron et al., arXiv:2302.13971).

One network covers Llama 2 and 3, Mistral (sliding window), Qwen2, Qwen2.5 and Qwen3, SmolLM2, TinyLlama and llama2.c;
names are those of Hugging Face's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, UnsupportedFormatError
from zoonet.zoo.layers import Embedding, Linear
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import (
    Block,
    BlockConfig,
    Cache,
    Context,
    RMSNorm,
    beside,
    check_heads,
    check_tokens,
)
from zoonet.zoo.transformers.configurations import count, multiple, number
from zoonet.zoo.transformers.rope import frequencies

_NAMES = {
    "norm1": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "norm2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_QUERY_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
#: model_type -> the start of Hugging Face's class names.
CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and kinds of a decoder.

    positions: longest text in training. tied: the output layer is the embedding. window: keys that a query sees, its
    own position included, in layers from `full_layers` on. query_norm: RMS norms of each head's queries and keys.
    rope: rope_theta, rope_type and the fields of the scaling. kind: Hugging Face's model_type.
    """

    width: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    vocabulary: int
    positions: int
    head_size: int = 0  # 0: width / heads
    eps: float = 1e-5
    tied: bool = False
    projection_bias: bool = False
    output_bias: bool = False
    hidden_bias: bool = False
    query_norm: bool = False
    window: int | None = None
    full_layers: int = 0
    activation: str = "silu"
    kind: str = "llama"
    rope: Mapping[str, Any] = field(default_factory=lambda: {"rope_theta": 10000.0}, hash=False)

    @property
    def depth(self) -> int:
        """Features of one head."""
        return self.head_size or self.width // self.heads

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> LlamaConfig:
        """Read config.json's fields. Raises FormatError where they make no decoder of this kind."""
        kind = config.get("model_type")
        if kind not in CLASSES:
            raise FormatError("config.json: not a Llama-style model", expected=", ".join(CLASSES), received=repr(kind))
        width, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
        shared = count(config, "num_key_value_heads", default=heads)
        multiple("attention heads and key-value heads", heads, shared)
        depth = count(config, "head_dim", default=0, least=0) or multiple("hidden_size and heads", width, heads)
        multiple("head_dim and rotated pairs", depth, 2)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise FormatError("config.json: rope_parameters are wrong", expected="an object", received=repr(rope)[:100])
        if "original_max_position_embeddings" in config:  # beside the scaling in Phi-3's and others' configurations
            rope = {"original_max_position_embeddings": config["original_max_position_embeddings"], **rope}
        bias = kind == "qwen2" or bool(config.get("attention_bias", False))
        layers = count(config, "num_hidden_layers")
        sliding = config.get("sliding_window") if kind == "mistral" or config.get("use_sliding_window") else None
        full = 0 if kind == "mistral" else count(config, "max_window_layers", default=layers, least=0)
        if sliding is not None and kind != "mistral":
            full = _full_layers(config, layers, full)
        return cls(
            width,
            layers,
            heads,
            shared,
            count(config, "intermediate_size"),
            count(config, "vocab_size"),
            count(config, "max_position_embeddings", default=2048),
            depth,
            number(config, "rms_norm_eps", 1e-6),
            bool(config.get("tie_word_embeddings", False)),
            bias and kind != "mistral",
            bool(config.get("attention_bias", False)) and kind in ("llama", "qwen3"),
            bool(config.get("mlp_bias", False)) and kind == "llama",
            kind == "qwen3",
            None if sliding is None else count(config, "sliding_window"),
            full,
            str(config.get("hidden_act", "silu")),
            str(kind),
            {"rope_theta": number(config, "rope_theta", 10000.0), **rope},
        )

    def to_json(self) -> dict[str, Any]:
        """The fields of config.json."""
        return {
            "model_type": self.kind,
            "architectures": [f"{CLASSES[self.kind]}ForCausalLM"],
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "intermediate_size": self.hidden,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "head_dim": self.depth,
            "rms_norm_eps": self.eps,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.projection_bias if self.kind != "qwen2" else False,
            "mlp_bias": self.hidden_bias,
            "sliding_window": self.window,
            "use_sliding_window": self.window is not None,
            "max_window_layers": self.full_layers,
            "hidden_act": self.activation,
            "rope_theta": self.rope.get("rope_theta", 10000.0),
            "rope_parameters": {"rope_type": "default", **self.rope},
        }


def _full_layers(config: Mapping[str, Any], layers: int, usual: int) -> int:
    """How many layers come before those with a window, by `layer_types`, which goes before max_window_layers."""
    kinds = config.get("layer_types")
    if kinds is None:
        return usual
    found = kinds.count("full_attention") if isinstance(kinds, list) else 0
    if kinds != ["full_attention"] * found + ["sliding_attention"] * (layers - found):
        raise UnsupportedFormatError(
            "config.json: an order of layer_types that zoonet does not have",
            expected=f"{layers} in all, full_attention before sliding_attention",
            received=repr(kinds)[:100],
        )
    return found


class LlamaModel(Module):
    """Tokens (N, T) -> hidden states (N, T, width)."""

    def __init__(self, config: LlamaConfig) -> None:
        check_heads(
            config.depth * config.heads if config.head_size else config.width, config.heads, config.key_value_heads
        )
        self._config = config
        norm = partial(RMSNorm, eps=config.eps)
        block = BlockConfig(
            config.width,
            config.heads,
            config.hidden,
            config.activation,
            norm,
            {**_NAMES, **(_QUERY_NORMS if config.query_norm else {})},
            config.key_value_heads,
            config.depth,
            pre_norm=True,
            projection_bias=config.projection_bias,
            output_bias=config.output_bias,
            hidden_bias=config.hidden_bias,
        )
        self.embed_tokens = Embedding(config.vocabulary, config.width)
        self.layers = [Block(block, layer) for layer in range(config.layers)]
        self.norm = norm(config.width)

    def forward(
        self, tokens: Array, mask: Array | None = None, positions: Array | None = None, cache: Cache | None = None
    ) -> Array:
        """(N, T), mask (N, S) True: take part, positions (N, T) -> (N, T, width). S: cached positions and T."""
        config, length = self._config, tokens.shape[1]
        offset = 0 if cache is None else cache.length
        if positions is None:
            positions = beside(np.arange(offset, offset + length)[None], tokens)
        total = cache.capacity if cache is not None else length  # one scaling for the whole text
        rates, factor = frequencies(config.depth, config.rope, config.positions, total)
        tables = ops.rotary_tables(positions, config.depth, 10000.0, rates, factor)
        rotation = tuple(table[:, None] for table in tables)  # (N, 1, T, D / 2)
        seen = None if mask is None else ops.cast(mask, "bool")[:, None, None, :]  # (N, 1, 1, S)
        x = self.embed_tokens(tokens)
        for layer, block in enumerate(self.layers):
            sliding = config.window is not None and layer >= config.full_layers
            window = (config.window - 1, -1) if sliding and config.window else None
            x = block(x, Context(seen, True, window, rotation, cache))
        if cache is not None:
            cache.advance(length)
        return self.norm(x)


class LlamaForCausalLM(Module):
    """Tokens (N, T) -> scores of the next token (N, T, vocabulary)."""

    def __init__(self, config: LlamaConfig) -> None:
        self.config = config
        self.model = LlamaModel(config)
        self.lm_head = Linear(config.width, config.vocabulary, bias=False)
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Matrices normal with deviation 0.02; the output layer is the embedding if they are tied."""
        for _, module in self.named_modules():
            if isinstance(module, Linear | Embedding):
                module.weight = rng.standard_normal(module.weight.shape, np.float32) * np.float32(0.02)
        self._tie()

    def _draw(self) -> None:
        super()._draw()
        self._tie()

    def _tie(self) -> None:
        if self.config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    @classmethod
    def fit(cls, config: LlamaConfig, shapes: Mapping[str, Any]) -> LlamaConfig:
        """The configuration with the vocabulary of a state dict."""
        return replace(config, **sizes(shapes, vocabulary=("model.embed_tokens.weight", 0)))

    @property
    def positions(self) -> int | None:
        """The longest text in tokens: no limit, since rotary positions go on."""
        return None

    def forward(
        self,
        tokens: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Array:
        """As LlamaModel, to scores (N, T, vocabulary); of the last position alone (N, 1, vocabulary) if `last`."""
        check_tokens(tokens, self.config.vocabulary, None)
        x = self.model(tokens, mask, positions, cache)
        return self.lm_head(x[:, -1:] if last else x)


_LLAMA3 = {"rope_theta": 500000.0}
_LLAMA31 = {
    "rope_theta": 500000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LLAMA32 = {**_LLAMA31, "factor": 32.0}
_MILLION = {"rope_theta": 1000000.0}
_SMOL = {"rope_theta": 100000.0}


_QWEN2 = LlamaConfig(
    896, 24, 14, 2, 4864, 151936, 32768, eps=1e-6, tied=True, projection_bias=True, kind="qwen2", rope=_MILLION
)
_QWEN3 = LlamaConfig(
    1024, 28, 16, 8, 3072, 151936, 40960, 128, eps=1e-6, tied=True, query_norm=True, kind="qwen3", rope=_MILLION
)

#: Published sizes by name: width, layers, heads, key-value heads, hidden, vocabulary, positions.
LLAMAS: dict[str, LlamaConfig] = {
    "llama-2-7b": LlamaConfig(4096, 32, 32, 32, 11008, 32000, 4096),
    "llama-2-13b": LlamaConfig(5120, 40, 40, 40, 13824, 32000, 4096),
    "llama-2-70b": LlamaConfig(8192, 80, 64, 8, 28672, 32000, 4096),
    "llama-3-8b": LlamaConfig(4096, 32, 32, 8, 14336, 128256, 8192, rope=_LLAMA3),
    "llama-3-70b": LlamaConfig(8192, 80, 64, 8, 28672, 128256, 8192, rope=_LLAMA3),
    "llama-3.1-8b": LlamaConfig(4096, 32, 32, 8, 14336, 128256, 131072, rope=_LLAMA31),
    "llama-3.2-1b": LlamaConfig(2048, 16, 32, 8, 8192, 128256, 131072, 64, tied=True, rope=_LLAMA32),
    "llama-3.2-3b": LlamaConfig(3072, 28, 24, 8, 8192, 128256, 131072, 128, tied=True, rope=_LLAMA32),
    "mistral-7b-v0.1": LlamaConfig(4096, 32, 32, 8, 14336, 32000, 32768, window=4096, kind="mistral"),
    "mistral-7b-v0.3": LlamaConfig(4096, 32, 32, 8, 14336, 32768, 32768, kind="mistral", rope=_MILLION),
    "qwen2-0.5b": _QWEN2,
    "qwen2.5-0.5b": _QWEN2,
    "qwen2.5-1.5b": replace(_QWEN2, width=1536, layers=28, heads=12, hidden=8960),
    "qwen3-0.6b": _QWEN3,
    "qwen3-1.7b": replace(_QWEN3, width=2048, hidden=6144),
    "qwen3-4b": replace(_QWEN3, width=2560, layers=36, heads=32, hidden=9728),
    "smollm2-135m": LlamaConfig(576, 30, 9, 3, 1536, 49152, 8192, tied=True, rope=_SMOL),
    "smollm2-360m": LlamaConfig(960, 32, 15, 5, 2560, 49152, 8192, tied=True, rope=_SMOL),
    "smollm2-1.7b": LlamaConfig(2048, 24, 32, 32, 8192, 49152, 8192, tied=True, rope={"rope_theta": 130000.0}),
    "tinyllama-1.1b": LlamaConfig(2048, 22, 32, 4, 5632, 32000, 2048),
}


def build(name: str) -> LlamaForCausalLM:
    """A decoder of a published size with fresh parameters. Raises ArgumentError for another name."""
    if name not in LLAMAS:
        raise ArgumentError("no such decoder", expected=", ".join(LLAMAS), received=repr(name))
    return LlamaForCausalLM(LLAMAS[name])
