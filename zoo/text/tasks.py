"""Tasks on text: embedding, generation, filling a mask, and classification."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.ops.types import TensorType, int64
from zoonet.zoo.modules import Module
from zoonet.zoo.results import Classification, Results
from zoonet.zoo.text.inputs import check_inputs
from zoonet.zoo.text.tokenizer import TOKENIZER_FILES, TokenBatch, Tokenizer, read_tokenizer
from zoonet.zoo.transformers.bert import BertModel, BertWithHead, mean_pool
from zoonet.zoo.transformers.sampling import check_integer, softmax

if TYPE_CHECKING:
    from zoonet.zoo.model import Model
    from zoonet.zoo.train.evaluate import Evaluation

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embedding:
    """The vector of one text. vector: (width,) float32."""

    source: str
    vector: Array

    def similarity(self, other: Embedding) -> float:
        """The cosine between the two vectors."""
        norms = float(np.linalg.norm(self.vector) * np.linalg.norm(other.vector))
        return float(self.vector @ other.vector) / max(norms, 1e-12)

    def text(self, top: int = 5) -> str:
        """The width and the first numbers."""
        return f"{self.source!r}: {len(self.vector)} numbers, {', '.join(f'{x:.4f}' for x in self.vector[:top])}, …"

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data for JSON. top: has no meaning here."""
        return {"source": self.source, "vector": self.vector.tolist()}

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.text())}</p>"


def network_kind(network: Module) -> str:
    """What a network does with tokens: a head of `bert.HEADS`, decoder or encoder-decoder; its class for another."""
    if isinstance(network, BertModel):
        return "embedding"
    if isinstance(network, BertWithHead):
        return network.head
    if hasattr(network, "decode"):
        return "encoder-decoder"
    if hasattr(network, "kind"):  # an imported graph
        return str(network.kind)
    return "decoder" if hasattr(network, "positions") else type(network).__name__


class LanguageTask:
    """What tasks on text share. settings: fields of config.json that the task uses."""

    name = ""
    unit = "texts"
    takes = ""  # the kind of network, see `network_kind`

    def __init__(self, tokenizer: Tokenizer | None, settings: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self.settings = dict(settings or {})

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into tokens. Raises ArgumentError for a network that was made without one."""
        if self._tokenizer is None:
            raise ArgumentError(
                "the model has no tokenizer",
                expected=TOKENIZER_FILES,
                fix="put its files into the model's folder, or give one, tokenizer=PATH, to load or create; "
                "or call the model on token numbers",
            )
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is one."""
        return self._tokenizer is not None

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        network: Module,
        architecture: str,
        file: str,
        tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    ) -> Self:
        """See `Task`. tokenizer: may not have more tokens than the network."""
        if network_kind(network) != cls.takes:
            raise ArgumentError(
                f"{file}: the network is not for {cls.name}",
                expected=f"one of the kind {cls.takes}",
                received=f"one of the kind {network_kind(network)}",
                fix="leave task out, or load the weights of another network",
            )
        if isinstance(tokenizer, str | os.PathLike):
            tokenizer = read_tokenizer(tokenizer)
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            received = type(tokenizer).__name__
            raise ArgumentError("this is no tokenizer", expected="a Tokenizer or a path", received=received)
        vocabulary: int = network.config.vocabulary  # type: ignore[attr-defined]
        if tokenizer is not None and tokenizer.size > vocabulary:
            raise ArgumentError(
                "the tokenizer has more tokens than the network", expected=vocabulary, received=tokenizer.size
            )
        return cls(tokenizer, config)

    def to_config(self) -> dict[str, Any]:
        """The fields of config.json."""
        return self.settings

    def from_arguments(self, arguments: Sequence[str]) -> list[str]:
        """Each argument is a text; "-" is what comes on standard input. Raises InputError for what is no UTF-8."""
        return [_standard_input() if argument == "-" else argument for argument in arguments]

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Integer arrays (N, T): tokens, and where the network takes them mask, token types, positions or the written.

        Raises InputError for another number, kind or shape of them, and for numbers that no token has.
        """
        return check_inputs(network, inputs)

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """One text of 16 tokens."""
        return (TensorType((1, 16), int64),)

    def evaluate(
        self, model: Model, data: Any, *, batch: int = 32, columns: tuple[str, str] | None = None
    ) -> Evaluation:
        """See `Model.evaluate`: accuracy on labelled texts, perplexity on texts of a model that writes them."""
        from zoonet.zoo.train.measure import evaluate

        return evaluate(model, data, batch, columns, "raise", "auto", 0, None)

    def _texts(self, source: Any) -> list[str]:
        texts = [source] if isinstance(source, str) else source
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError("the model takes a text or a list of texts", received=type(source).__name__)
        return list(texts)

    def _limit(self, network: Any) -> int:
        limit: int = network.config.longest
        return min(limit, int(self.settings.get("max_seq_length", limit)))

    def _batches(
        self, model: Model, texts: list[str], batch: int, truncate: bool
    ) -> Iterator[tuple[list[str], TokenBatch, Array]]:
        """(texts, their tokens, outputs of the network) for `batch` texts at a time."""
        check_integer("batch", batch, 1)
        limit = self._limit(model.network)
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            found = self.tokenizer.batch(part, max_tokens=limit if truncate else None)
            if found.tokens.shape[1] > limit:
                longest = part[int(found.mask.sum(1).argmax())]
                raise InputError(
                    f"the text {longest[:40]!r}… is too long for the model",
                    expected=f"at most {limit} tokens",
                    received=found.tokens.shape[1],
                    fix="truncate=True cuts it; or split it into parts",
                )
            [(_, outputs)] = self._outputs(model, found, batch)
            yield part, found, outputs

    def _outputs(self, model: Model, found: TokenBatch, batch: int) -> Iterator[tuple[int, Array]]:
        """(number of the first row, outputs of the network) for `batch` rows at a time. Raises InputError for NaN."""
        for start in range(0, len(found.tokens), batch):
            rows = slice(start, start + batch)
            inputs = [ops.to_device(a[rows], model.device) for a in (found.tokens, found.mask, found.token_types)]
            outputs = np.asarray(ops.to_device(model.network(*inputs), "cpu"))
            if not np.isfinite(outputs).all():
                raise InputError("the model gave scores that are no numbers", fix="check that its weights are complete")
            yield start, outputs


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError("standard input is no UTF-8", received=str(error)[:200], fix="convert it to UTF-8") from error


class TextEmbedding(LanguageTask):
    """Texts in, a vector each out: the mean over tokens or the first, of length 1 where the folder says so."""

    name = "text-embedding"
    takes = "embedding"

    def run(self, model: Model, source: Any, *, batch: int = 32, truncate: bool = True) -> Embedding | list[Embedding]:
        """An `Embedding`, or a list of them for a list of texts, `batch` at a time.

        truncate: texts that are longer than the folder says are cut, as sentence-transformers cuts them; an error
        otherwise. Raises InputError, ArgumentError.
        """
        results = []
        for part, found, hidden in self._batches(model, self._texts(source), batch, truncate):
            vectors = _pooled(hidden, found.mask, self.settings.get("pooling"))
            if self.settings.get("normalise"):
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            results += [Embedding(text, vector) for text, vector in zip(part, vectors, strict=True)]
        return results[0] if isinstance(source, str) else results


def _pooled(hidden: Array, mask: Array, pooling: Any) -> Array:
    """One vector (N, width) of hidden states (N, T, width): of the first token, the largest numbers, or the mean."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        largest: Array = np.where(mask[:, :, None] == 1, hidden, -np.inf).max(1).astype(hidden.dtype)
        return largest
    means: Array = mean_pool(hidden, mask)
    return means


class LabelledTask(LanguageTask):
    """A task whose outputs have labels: id2label of config.json, or those that are given."""

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        network: Module,
        architecture: str,
        file: str,
        tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> Self:
        """See `Task`. labels: one per output of the network. Raises ArgumentError for another number of them."""
        classes: int = network.config.classes  # type: ignore[attr-defined]
        if labels is None:
            named = config.get("id2label") or {str(number): f"LABEL_{number}" for number in range(classes)}
            if not isinstance(named, dict) or set(map(str, named)) != set(map(str, range(len(named)))):
                received = repr(named)[:100]
                raise FormatError(f"{file}: id2label is wrong", expected='{"0": …, "1": …}', received=received)
            labels = [str(named[key]) for key in sorted(named, key=int)]
        if len(labels) != classes:
            raise ArgumentError(f"{file}: the labels do not fit", expected=f"{classes} labels", received=len(labels))
        numbered = {str(number): label for number, label in enumerate(labels)}
        return super().from_config({**config, "id2label": numbered}, network, architecture, file, tokenizer)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, one per output of the network."""
        return tuple(self.settings["id2label"].values())


class TextClassification(LabelledTask):
    """Texts in, the scores of classes out."""

    name = "text-classification"
    takes = "sequence"

    def run(self, model: Model, source: Any, *, batch: int = 32, truncate: bool = False) -> Classification | Results:
        """A `Classification`, or Results for a list of texts, `batch` at a time.

        Scores sum to 1, unless config.json says that several classes may hold at once (multi_label_classification).
        truncate: cut texts that are too long for the model, an error otherwise. Raises InputError, ArgumentError.
        """
        results = Results()
        for part, _, scores in self._batches(model, self._texts(source), batch, truncate):
            scores = scores.astype(np.float64)
            alone = self.settings.get("problem_type") == "multi_label_classification" or len(self.labels) == 1
            rows = 1 / (1 + np.exp(-scores)) if alone else softmax(scores)
            results += [Classification(text, row, self.labels) for text, row in zip(part, rows, strict=True)]
        return results[0] if isinstance(source, str) else results


class FillMask(LanguageTask):
    """Texts with one mask token ("[MASK]", "<mask>") in, the probabilities of words out."""

    name = "fill-mask"
    takes = "masked"

    def run(self, model: Model, source: Any, *, batch: int = 32, truncate: bool = False) -> Classification | Results:
        """A `Classification` over the vocabulary, or Results. Raises InputError for a text without one mask.

        truncate: cut texts that are too long for the model, an error otherwise.
        """
        mask = self.tokenizer.number(self.tokenizer.names.get("mask_token", ""))
        size: int = model.network.config.vocabulary  # type: ignore[attr-defined]
        words = tuple(
            (self.tokenizer.token(n) or f"token {n}").replace("Ġ", " ").replace("▁", " ") for n in range(size)
        )
        results = Results()
        for part, found, scores in self._batches(model, self._texts(source), batch, truncate):
            for text, tokens, row in zip(part, found.tokens, scores, strict=True):
                places = np.flatnonzero(tokens == mask)
                if len(places) != 1:
                    named = self.tokenizer.names.get("mask_token", "a mask token")
                    received = len(places)
                    raise InputError(f"{text[:80]!r} has not one mask", expected=f"{named} once", received=received)
                results.append(Classification(text, softmax(row[places[0]].astype(np.float64)), words))
        return results[0] if isinstance(source, str) else results
