"""BERT and its kin: RoBERTa, MiniLM, ELECTRA and DistilBERT, with the names of Hugging Face's checkpoints.

Source: arXiv:1810.04805, 1907.11692, 2002.10957, 2003.10555, 1910.01108. One encoder; a table says what each family
names its parts, and what its heads are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, UnsupportedFormatError
from zoonet.zoo.layers import Embedding, LayerNorm, Linear
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import (
    Block,
    BlockConfig,
    Context,
    activation,
    beside,
    check_heads,
    check_tokens,
    place,
)
from zoonet.zoo.transformers.configurations import count, multiple, number

_BERT_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
_DISTILBERT_BLOCK = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm2": "output_layer_norm",
}


@dataclass(frozen=True)
class Family:
    """What differs between families.

    masked: names of a masked language model's dense layer, norm, decoder and further name of its bias. sequence: names
    of a classifier's dense layer (None: the pooler) and output, and the activation between.
    """

    block: Mapping[str, str]
    layers: str
    pooler: bool
    token_types: bool
    masked: tuple[str, str, str, str | None]
    sequence: tuple[str | None, str, str]
    title: str


FAMILIES: dict[str, Family] = {
    "bert": Family(
        _BERT_BLOCK,
        "encoder.layer",
        True,
        True,
        (
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder",
            "cls.predictions",
        ),
        (None, "classifier", "tanh"),
        "Bert",
    ),
    "roberta": Family(
        _BERT_BLOCK,
        "encoder.layer",
        True,
        True,
        ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head"),
        ("classifier.dense", "classifier.out_proj", "tanh"),
        "Roberta",
    ),
    "electra": Family(
        _BERT_BLOCK,
        "encoder.layer",
        False,
        True,
        ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head", None),
        ("classifier.dense", "classifier.out_proj", "gelu"),
        "Electra",
    ),
    "distilbert": Family(
        _DISTILBERT_BLOCK,
        "transformer.layer",
        False,
        False,
        ("vocab_transform", "vocab_layer_norm", "vocab_projector", None),
        ("pre_classifier", "classifier", "relu"),
        "DistilBert",
    ),
}

#: Head -> the end of Hugging Face's class name.
HEADS = {
    "embedding": "Model",
    "masked": "ForMaskedLM",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "answer": "ForQuestionAnswering",
    "discriminator": "ForPreTraining",
}


@dataclass(frozen=True)
class BertConfig:
    """Sizes of an encoder. family: a key of FAMILIES. embedding: width of the embeddings. padding: its token."""

    family: str = "bert"
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 30522
    positions: int = 512
    token_types: int = 2
    embedding: int = 768
    classes: int = 2
    activation: str = "gelu"
    eps: float = 1e-12
    padding: int = 0

    @property
    def longest(self) -> int:
        """The longest text in tokens: RoBERTa counts positions from its padding token's number on."""
        return self.positions - (self.padding + 1 if self.family == "roberta" else 0)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> BertConfig:
        """Read config.json's fields. Raises FormatError where they make no encoder of these families."""
        family = {"xlm-roberta": "roberta"}.get(str(config.get("model_type")), config.get("model_type"))
        if family not in FAMILIES:
            received = repr(family)[:100]
            raise FormatError("config.json: not an encoder", expected=", ".join(FAMILIES), received=received)
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise FormatError(
                "config.json: positions of a kind that is not known",
                expected="absolute",
                received=repr(config["position_embedding_type"])[:100],
            )
        if config.get("is_decoder") is True:
            raise UnsupportedFormatError(
                "config.json: is_decoder is true, but these networks read a text from both sides",
                fix="set it to false if the network was trained as an encoder",
            )
        width, heads = count(config, "hidden_size", "dim"), count(config, "num_attention_heads", "n_heads")
        multiple("width and heads", width, heads)
        labels = config.get("id2label")
        return cls(
            str(family),
            width,
            count(config, "num_hidden_layers", "n_layers"),
            heads,
            count(config, "intermediate_size", "hidden_dim"),
            count(config, "vocab_size"),
            count(config, "max_position_embeddings"),
            count(config, "type_vocab_size", default=2),
            count(config, "embedding_size", default=width) if family == "electra" else width,
            len(labels) if isinstance(labels, dict) and labels else count(config, "num_labels", default=2),
            str(config.get("hidden_act", config.get("activation", "gelu"))),
            number(config, "layer_norm_eps", 1e-12),
            count(config, "pad_token_id", default=1 if family == "roberta" else 0, least=0),
        )

    def to_json(self, head: str = "embedding") -> dict[str, Any]:
        """The fields of config.json."""
        named = self.family == "distilbert"
        return {
            "model_type": self.family,
            "architectures": [FAMILIES[self.family].title + HEADS[head]],
            "dim" if named else "hidden_size": self.width,
            "n_layers" if named else "num_hidden_layers": self.layers,
            "n_heads" if named else "num_attention_heads": self.heads,
            "hidden_dim" if named else "intermediate_size": self.hidden,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.token_types,
            "embedding_size": self.embedding,
            "activation" if named else "hidden_act": self.activation,
            "layer_norm_eps": self.eps,
            "pad_token_id": self.padding,
        }


class BertEmbeddings(Module):
    """Tokens (N, T) -> normalised sums of the embeddings of token, position and type (N, T, embedding)."""

    def __init__(self, config: BertConfig) -> None:
        self._config = config
        self.word_embeddings = Embedding(config.vocabulary, config.embedding)
        self.position_embeddings = Embedding(config.positions, config.embedding)
        if FAMILIES[config.family].token_types:
            self.token_type_embeddings = Embedding(config.token_types, config.embedding)
        self.LayerNorm = LayerNorm(config.embedding, eps=config.eps)

    def forward(self, tokens: Array, token_types: Array | None = None) -> Array:
        """Integers (N, T), twice -> (N, T, embedding)."""
        if self._config.family == "roberta":  # padding has position `padding`; the others are counted from the next
            present = ops.cast(ops.not_equal(tokens, self._config.padding), "int64")
            positions = ops.cumsum(present, 1) * present + self._config.padding
        else:
            positions = beside(np.arange(tokens.shape[1])[None], tokens)
        x = self.word_embeddings(tokens) + self.position_embeddings(positions)
        if FAMILIES[self._config.family].token_types:
            if token_types is None:
                token_types = beside(np.zeros((1, tokens.shape[1]), np.int64), tokens)
            x = x + self.token_type_embeddings(token_types)
        return self.LayerNorm(x)


class BertModel(Module):
    """Tokens (N, T) -> hidden states (N, T, width)."""

    def __init__(self, config: BertConfig, *, pooler: bool = True) -> None:
        check_heads(config.width, config.heads)
        self.config = config
        family = FAMILIES[config.family]
        block = BlockConfig(
            config.width,
            config.heads,
            config.hidden,
            config.activation,
            partial(LayerNorm, eps=config.eps),
            family.block,
            config.heads,
            config.width // config.heads,
            pre_norm=False,
        )
        self.embeddings = BertEmbeddings(config)
        if config.embedding != config.width:
            self.embeddings_project = Linear(config.embedding, config.width)
        self._blocks = [Block(block, layer) for layer in range(config.layers)]
        for layer, module in enumerate(self._blocks):
            place(self, f"{family.layers}.{layer}", module)
        if pooler and family.pooler:
            place(self, "pooler.dense", Linear(config.width, config.width))

    @classmethod
    def fit(cls, config: BertConfig, shapes: Mapping[str, Any]) -> BertConfig:
        """The configuration with the vocabulary and the positions of a state dict."""
        names = {"vocabulary": "word", "positions": "position", "token_types": "token_type"}
        axes = {field: (f"embeddings.{name}_embeddings.weight", 0) for field, name in names.items()}
        return replace(config, **sizes(shapes, **axes))

    def forward(self, tokens: Array, mask: Array | None = None, token_types: Array | None = None) -> Array:
        """(N, T), mask (N, T) True: take part, token types (N, T) -> (N, T, width)."""
        check_tokens(tokens, self.config.vocabulary, self.config.longest)
        x = self.embeddings(tokens, token_types)
        if self.config.embedding != self.config.width:
            x = self.embeddings_project(x)
        context = Context(None if mask is None else ops.cast(mask, "bool")[:, None, None, :])
        for block in self._blocks:
            x = block(x, context)
        return x

    def pool(self, hidden: Array) -> Array:
        """tanh of a dense layer on the first position: (N, T, width) -> (N, width)."""
        if "pooler" not in vars(self):
            raise ArgumentError("this encoder has no pooler", fix="use mean_pool or the first position")
        return ops.tanh(vars(self)["pooler"].dense(hidden[:, 0]))


class BertWithHead(Module):
    """An encoder with a head; see HEADS. The output's shape stands at `forward`."""

    def __init__(self, config: BertConfig, head: str) -> None:
        if head not in HEADS or head == "embedding":
            raise ArgumentError("no such head", expected=", ".join(list(HEADS)[1:]), received=repr(head))
        if head == "discriminator" and config.family != "electra":
            raise ArgumentError("only ELECTRA has a discriminator", received=config.family)
        self.config, self.head = config, head
        self._family = family = FAMILIES[config.family]
        dense, output, _ = family.sequence
        encoder = BertModel(config, pooler=head == "sequence" and dense is None)
        self._encoder = place(self, config.family, encoder)
        width = config.width
        if head == "masked":
            self._masked()
        elif head == "discriminator":
            place(self, "discriminator_predictions.dense", Linear(width, width))
            place(self, "discriminator_predictions.dense_prediction", Linear(width, 1))
        elif head == "sequence":
            if dense is not None:
                self._dense = place(self, dense, Linear(width, width))
            self._output = place(self, output, Linear(width, config.classes))
        elif head == "token":
            self._output = place(self, "classifier", Linear(width, config.classes))
        else:
            self._output = place(self, "qa_outputs", Linear(width, 2))

    def _masked(self) -> None:
        """A dense layer, a norm, and the embedding as output layer with a bias of its own."""
        dense, norm, decoder, bias = self._family.masked
        config, embedding = self.config, self._encoder.embeddings.word_embeddings  # type: ignore[attr-defined]
        self._dense = place(self, dense, Linear(config.width, config.embedding))
        self._norm = place(self, norm, LayerNorm(config.embedding, eps=config.eps))
        output = Linear(config.embedding, config.vocabulary)
        output.weight = embedding.weight
        self._output = place(self, decoder, output)
        if bias is not None:
            holder: Any = self
            for part in bias.split("."):
                holder = vars(holder)[part]
            holder.bias = output.bias

    def forward(self, tokens: Array, mask: Array | None = None, token_types: Array | None = None) -> Array:
        """(N, T), mask (N, T), token types (N, T) -> scores.

        masked: (N, T, vocabulary); sequence: (N, classes); token: (N, T, classes); answer: (N, T, 2), of a start
        and an end; discriminator: (N, T), above 0 for a replaced token.
        """
        x = self._encoder(tokens, mask, token_types)
        dense, _, between = self._family.sequence
        if self.head == "sequence":
            encoder: Any = self._encoder
            x = encoder.pool(x) if dense is None else activation(between)(self._dense(x[:, 0]))
        elif self.head == "masked":
            chosen = "gelu" if self.config.family in ("roberta", "electra") else self.config.activation
            x = self._norm(activation(chosen)(self._dense(x)))
        elif self.head == "discriminator":
            head = vars(self)["discriminator_predictions"]
            x = activation(self.config.activation)(head.dense(x))
            return head.dense_prediction(x)[..., 0]
        return self._output(x)


def mean_pool(hidden: Array, mask: Array) -> Array:
    """Means over the positions that take part: (N, T, width), mask (N, T) -> (N, width), as sentence-transformers."""
    weights = ops.cast(mask, "float32")[:, :, None]
    return ops.sum(hidden * weights, 1) / ops.maximum(ops.sum(weights, 1), np.float32(1e-9))


#: Published sizes by name.
BERTS: dict[str, BertConfig] = {
    "bert-base-uncased": BertConfig(),
    "bert-base-cased": BertConfig(vocabulary=28996),
    "bert-large-uncased": BertConfig("bert", 1024, 24, 16, 4096, embedding=1024),
    "distilbert-base-uncased": BertConfig("distilbert", layers=6),
    "roberta-base": BertConfig("roberta", vocabulary=50265, positions=514, token_types=1, eps=1e-5, padding=1),
    "roberta-large": BertConfig("roberta", 1024, 24, 16, 4096, 50265, 514, 1, 1024, eps=1e-5, padding=1),
    "minilm-l6-h384": BertConfig("bert", 384, 6, 12, 1536, embedding=384),
    "minilm-l12-h384": BertConfig("bert", 384, 12, 12, 1536, embedding=384),
    "electra-small": BertConfig("electra", 256, 12, 4, 1024, embedding=128),
    "electra-base": BertConfig("electra"),
}


def build(name: str, head: str = "embedding") -> BertModel | BertWithHead:
    """An encoder of a published size with fresh parameters. Raises ArgumentError for another name or head."""
    if name not in BERTS:
        raise ArgumentError("no such encoder", expected=", ".join(BERTS), received=repr(name))
    return BertModel(BERTS[name]) if head == "embedding" else BertWithHead(BERTS[name], head)
