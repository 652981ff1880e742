"""Tasks on text: embedding, generation, filling a mask, and classification."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.types import INTEGER, TensorType, int64, kind_of
from zoonet.zoo.modules import Module
from zoonet.zoo.results import Classification, Results
from zoonet.zoo.text.tokenizer import Tokenizer, read_tokenizer
from zoonet.zoo.transformers.bert import mean_pool
from zoonet.zoo.transformers.sampling import softmax

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

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


class LanguageTask:
    """What tasks on text share. settings: fields of config.json that the task uses."""

    name = ""
    unit = "texts"

    def __init__(self, tokenizer: Tokenizer | None, settings: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self.settings = dict(settings or {})

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns texts into tokens. Raises ArgumentError for a network that was made without one."""
        if self._tokenizer is None:
            fix = "give one, tokenizer=PATH, to create or load; or call the model on token numbers"
            raise ArgumentError("the model has no tokenizer", fix=fix)
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
        """Integer arrays of one shape (N, T): tokens, and where the network takes them mask and token types."""
        arrays = tuple([x if ops.is_array(x) else np.asarray(x) for x in inputs])
        if not arrays or any(a.ndim != 2 or kind_of(a.dtype) != INTEGER for a in arrays):
            received = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays)
            raise InputError("the model takes token numbers", expected="integers (N, T)", received=received)
        return arrays

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """One text of 16 tokens."""
        return (TensorType((1, 16), int64),)

    def _texts(self, source: Any) -> list[str]:
        texts = [source] if isinstance(source, str) else source
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError("the model takes a text or a list of texts", received=type(source).__name__)
        return list(texts)

    def _limit(self, network: Any) -> int:
        limit: int = network.config.longest
        return min(limit, int(self.settings.get("max_seq_length", limit)))

    def _batches(self, model: Model, texts: list[str], batch: int) -> Iterator[tuple[list[str], Any, Array]]:
        """(texts, their tokens, outputs of the network) for `batch` texts at a time."""
        if batch < 1:
            raise ArgumentError("batch is wrong", expected="a positive number of texts", received=batch)
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            found = self.tokenizer.batch(part, max_tokens=self._limit(model.network))
            inputs = [ops.to_device(a, model.device) for a in (found.tokens, found.mask, found.token_types)]
            yield part, found, np.asarray(ops.to_device(model.network(*inputs), "cpu"))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError("standard input is no UTF-8", received=str(error)[:200], fix="convert it to UTF-8") from error


class TextEmbedding(LanguageTask):
    """Texts in, a vector each out: the mean over tokens or the first, of length 1 where the folder says so."""

    name = "text-embedding"

    def run(self, model: Model, source: Any, *, batch: int = 32) -> Embedding | list[Embedding]:
        """An `Embedding`, or a list of them for a list of texts. Longer texts are cut. Raises InputError."""
        results = []
        for part, found, hidden in self._batches(model, self._texts(source), batch):
            first = self.settings.get("pooling") == "cls"
            vectors = hidden[:, 0] if first else mean_pool(hidden, found.mask)
            if self.settings.get("normalise"):
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            results += [Embedding(text, vector) for text, vector in zip(part, vectors, strict=True)]
        return results[0] if isinstance(source, str) else results


class TextClassification(LanguageTask):
    """Texts in, the scores of classes out."""

    name = "text-classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, from id2label."""
        named = self.settings.get("id2label") or {"0": "class 0", "1": "class 1"}
        return tuple(str(named[key]) for key in sorted(named, key=int))

    def run(self, model: Model, source: Any, *, batch: int = 32) -> Classification | Results:
        """A `Classification`, or Results for a list of texts. Longer texts are cut. Raises InputError."""
        results = Results()
        for part, _, scores in self._batches(model, self._texts(source), batch):
            rows = softmax(scores.astype(np.float64))
            results += [Classification(text, row, self.labels) for text, row in zip(part, rows, strict=True)]
        return results[0] if isinstance(source, str) else results


class FillMask(LanguageTask):
    """Texts with one mask token ("[MASK]", "<mask>") in, the probabilities of words out."""

    name = "fill-mask"

    def run(self, model: Model, source: Any, *, batch: int = 32) -> Classification | Results:
        """A `Classification` over the vocabulary, or Results. Raises InputError for a text without one mask."""
        mask = next((n for n in map(self.tokenizer.number, ("[MASK]", "<mask>")) if n is not None), None)
        size: int = model.network.config.vocabulary  # type: ignore[attr-defined]
        words = tuple((self.tokenizer.token(n) or f"token {n}").replace("Ġ", " ") for n in range(size))
        results = Results()
        for part, found, scores in self._batches(model, self._texts(source), batch):
            for text, tokens, row in zip(part, found.tokens, scores, strict=True):
                places = np.flatnonzero(tokens == mask)
                if len(places) != 1:
                    raise InputError(f"{text[:80]!r} has not one mask", expected="[MASK] once", received=len(places))
                results.append(Classification(text, softmax(row[places[0]].astype(np.float64)), words))
        return results[0] if isinstance(source, str) else results
