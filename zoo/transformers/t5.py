"""T5 (Raffel et al., arXiv:1910.10683), T5 1.1, FLAN-T5 and mT5, with the names of Hugging Face's checkpoints.

Positions are told by a bias of the scores that depends on the distance, in buckets, and is shared by all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.buckets import distance_bucket
from zoonet.ops.errors import FormatError
from zoonet.zoo.layers import Embedding, Linear
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import Block, BlockConfig, Cache, Context, RMSNorm, beside, check_tokens, place
from zoonet.zoo.transformers.configurations import count, number
from zoonet.zoo.transformers.seq2seq import counted, seen

#: model_type -> the start of Hugging Face's class names.
CLASSES = {"t5": "T5", "mt5": "MT5"}


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5. heads · head_size may differ from width. gated: T5 1.1's layers of two factors.

    tied: the output layer is the embedding. scaled: scores are divided by √width. buckets: of distances, the last one
    for those from `distance` on. padding, end: tokens; texts that are written begin with padding.
    """

    width: int = 512
    layers: int = 6
    decoder_layers: int = 6
    heads: int = 8
    head_size: int = 64
    hidden: int = 2048
    vocabulary: int = 32128
    activation: str = "relu"
    gated: bool = False
    tied: bool = True
    scaled: bool = True
    buckets: int = 32
    distance: int = 128
    eps: float = 1e-6
    kind: str = "t5"
    padding: int = 0
    end: int = 1

    @property
    def start(self) -> int:
        """The token that written texts begin with."""
        return self.padding

    @property
    def longest(self) -> int:
        """The longest text in tokens that the encoder was trained on; distances beyond share a bucket."""
        return 1 << 16

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> T5Config:
        """Read config.json's fields. Raises FormatError where they make no T5."""
        kind = config.get("model_type")
        if kind not in CLASSES:
            raise FormatError("config.json: not a T5", expected=", ".join(CLASSES), received=repr(kind)[:100])
        gated, _, name = str(config.get("feed_forward_proj", "relu")).rpartition("-")
        if gated not in ("", "gated"):
            raise FormatError("config.json: feed_forward_proj is wrong", expected="relu or gated-gelu", received=gated)
        layers, tied = count(config, "num_layers"), config.get("tie_word_embeddings", True) is not False
        return cls(
            count(config, "d_model"),
            layers,
            count(config, "num_decoder_layers", default=layers),
            count(config, "num_heads"),
            count(config, "d_kv"),
            count(config, "d_ff"),
            count(config, "vocab_size"),
            "gelu_new" if gated and name == "gelu" else name,
            bool(gated),
            tied,
            config.get("scale_decoder_outputs", tied) is True,
            count(config, "relative_attention_num_buckets", default=32, least=4),
            count(config, "relative_attention_max_distance", default=128, least=3),
            number(config, "layer_norm_epsilon", 1e-6),
            str(kind),
            count(config, "pad_token_id", default=0, least=0),
            count(config, "eos_token_id", default=1, least=0),
        )

    def to_json(self) -> dict[str, Any]:
        """The fields of config.json."""
        name = "gelu" if self.activation == "gelu_new" and self.gated else self.activation
        return {
            "model_type": self.kind,
            "architectures": [f"{CLASSES[self.kind]}ForConditionalGeneration"],
            "is_encoder_decoder": True,
            "d_model": self.width,
            "num_layers": self.layers,
            "num_decoder_layers": self.decoder_layers,
            "num_heads": self.heads,
            "d_kv": self.head_size,
            "d_ff": self.hidden,
            "vocab_size": self.vocabulary,
            "feed_forward_proj": f"gated-{name}" if self.gated else name,
            "tie_word_embeddings": self.tied,
            "scale_decoder_outputs": self.scaled,
            "relative_attention_num_buckets": self.buckets,
            "relative_attention_max_distance": self.distance,
            "layer_norm_epsilon": self.eps,
            "pad_token_id": self.padding,
            "eos_token_id": self.end,
            "decoder_start_token_id": self.padding,
        }


def _names(decoder: bool, gated: bool) -> dict[str, str]:
    last = 2 if decoder else 1
    attention = {"query": "q", "key": "k", "value": "v", "output": "o"}
    names = {"norm1": "layer.0.layer_norm", "norm2": f"layer.{last}.layer_norm"}
    names |= {role: f"layer.0.SelfAttention.{name}" for role, name in attention.items()}
    if decoder:
        names |= {f"memory_{role}": f"layer.1.EncDecAttention.{name}" for role, name in attention.items()}
        names["memory_norm"] = "layer.1.layer_norm"
    dense = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    return names | {role: f"layer.{last}.DenseReluDense.{name}" for role, name in dense.items()}


class T5Stack(Module):
    """Embeddings (N, T, width) -> hidden states (N, T, width); a decoder looks at a memory as well."""

    def __init__(self, config: T5Config, decoder: bool, embedding: Embedding) -> None:
        self._config, self._decoder = config, decoder
        norm = partial(RMSNorm, eps=config.eps)
        block = BlockConfig(
            config.width,
            config.heads,
            config.hidden,
            config.activation,
            norm,
            _names(decoder, config.gated),
            config.heads,
            config.head_size,
            pre_norm=True,
            projection_bias=False,
            output_bias=False,
            hidden_bias=False,
            scale=1.0,
        )
        self.embed_tokens = embedding
        self.block = [Block(block, layer) for layer in range(config.decoder_layers if decoder else config.layers)]
        self._bias = Embedding(config.buckets, config.heads)
        place(self.block[0], "layer.0.SelfAttention.relative_attention_bias", self._bias)
        self.final_layer_norm = norm(config.width)

    def forward(
        self,
        tokens: Array,
        mask: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
        cache: Cache | None = None,
    ) -> Array:
        """(N, T), mask (N, S), memory (N, M, width), memory_mask (N, M) -> (N, T, width). S: cached positions and T."""
        length, offset = tokens.shape[1], 0 if cache is None else cache.length
        bias = self._biases(offset, length, tokens)
        context = Context(seen(mask), self._decoder, None, None, cache, bias, memory, seen(memory_mask))
        x = self.embed_tokens(tokens)
        for block in self.block:
            x = block(x, context)
        if cache is not None:
            cache.advance(length)
        return self.final_layer_norm(x)

    def _biases(self, offset: int, length: int, tokens: Array) -> Callable[[int, int], Array]:
        """The bias of queries start to stop, (1, H, stop - start, offset + length); made once if it is asked whole."""
        config = self._config
        furthest = min(config.distance, config.longest)  # further keys are in the bucket of this one
        numbers = distance_bucket(
            np.arange(-furthest, furthest + 1), config.buckets, config.distance, not self._decoder
        )
        known = self._bias(beside(numbers, tokens))  # (2 · furthest + 1, H)
        queries = counted(tokens, offset)
        keys = beside(np.arange(offset + length), tokens)
        whole: list[Array] = []

        def bias(start: int, stop: int) -> Array:
            if whole:
                return whole[0]
            own = queries if (start, stop) == (0, length) else queries[start:stop]
            distance = ops.clip(keys - own[:, None], -furthest, furthest)
            result = ops.transpose(ops.take(known, distance + furthest, 0), (2, 0, 1))[None]
            if (start, stop) == (0, length):
                whole.append(result)
            return result

        return bias


class T5(Module):
    """Tokens (N, M) of a text and (N, T) of what is written -> scores of the next token (N, T, vocabulary)."""

    def __init__(self, config: T5Config) -> None:
        self.config = config
        self.shared = Embedding(config.vocabulary, config.width)
        self.encoder = T5Stack(config, False, self.shared)
        self.decoder = T5Stack(config, True, self.shared)
        self.lm_head = Linear(config.width, config.vocabulary, bias=False)
        self._draw()

    @classmethod
    def fit(cls, config: T5Config, shapes: Mapping[str, Any]) -> T5Config:
        """The configuration with the vocabulary of a state dict."""
        return replace(config, **sizes(shapes, vocabulary=("shared.weight", 0)))

    def reset(self, rng: np.random.Generator) -> None:
        """As T5: matrices normal with deviation 1 / √inputs, queries smaller by √head_size, embeddings 1."""
        for name, module in self.named_modules():
            if isinstance(module, Linear):
                deviation = module.weight.shape[1] ** -0.5
                if name.endswith(".q"):
                    deviation *= self.config.head_size**-0.5
                module.weight = rng.standard_normal(module.weight.shape, np.float32) * np.float32(deviation)
        self._tie()

    def _draw(self) -> None:
        super()._draw()
        self._tie()

    def _tie(self) -> None:
        if self.config.tied:
            self.lm_head.weight = self.shared.weight

    @property
    def positions(self) -> int | None:
        """The longest text in tokens: no limit, since distances are told in buckets."""
        return None

    def forward(
        self, tokens: Array, written: Array, mask: Array | None = None, written_mask: Array | None = None
    ) -> Array:
        """(N, M), (N, T), masks of the same shapes, True: take part -> (N, T, vocabulary)."""
        return self.decode(written, self.encode(tokens, mask), mask, written_mask)

    def encode(self, tokens: Array, mask: Array | None = None) -> Array:
        """(N, M), mask (N, M) -> memory (N, M, width)."""
        check_tokens(tokens, self.config.vocabulary, self.config.longest)
        return self.encoder(tokens, mask)

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
        """(N, T), memory (N, M, width) -> (N, T, vocabulary); (N, 1, vocabulary) if `last`. positions have no use."""
        check_tokens(tokens, self.config.vocabulary, None)
        x = self.decoder(tokens, mask, memory, memory_mask, cache)
        x = x[:, -1:] if last else x
        return self.lm_head(x * np.float32(self.config.width**-0.5) if self.config.scaled else x)


_V11 = T5Config(512, 8, 8, 6, 64, 1024, activation="gelu_new", gated=True, tied=False, scaled=False)
_BASE11 = replace(_V11, width=768, layers=12, decoder_layers=12, heads=12, hidden=2048)
_LARGE11 = replace(_V11, width=1024, layers=24, decoder_layers=24, heads=16, hidden=2816)

#: Published sizes by name.
T5S: dict[str, T5Config] = {
    "t5-small": T5Config(),
    "t5-base": T5Config(768, 12, 12, 12, 64, 3072),
    "t5-large": T5Config(1024, 24, 24, 16, 64, 4096),
    "t5-v1.1-small": _V11,
    "t5-v1.1-base": _BASE11,
    "t5-v1.1-large": _LARGE11,
    "flan-t5-small": _V11,
    "flan-t5-base": _BASE11,
    "flan-t5-large": _LARGE11,
    "mt5-small": replace(_V11, vocabulary=250112, kind="mt5"),
}
