"""Tasks on text: embedding, generation, filling a mask, and classification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.ops.types import INTEGER, TensorType, int64, kind_of
from zoonet.zoo.modules import Module
from zoonet.zoo.results import Classification, Results
from zoonet.zoo.text.tokenizer import TextStream, Tokenizer
from zoonet.zoo.transformers import generation
from zoonet.zoo.transformers.bert import mean_pool
from zoonet.zoo.transformers.sampling import Sampling, softmax

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


@dataclass(frozen=True)
class Generation:
    """A text and what a model wrote after it. reason: "stop", "string" (a stop string) or "length"."""

    source: str
    continuation: str
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    reason: str

    def text(self, top: int = 5) -> str:
        """Prompt and continuation. top: has no meaning here."""
        return self.source + self.continuation

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data for JSON. top: has no meaning here."""
        return {"source": self.source, "continuation": self.continuation, "reason": self.reason}


class LanguageTask:
    """What tasks on text share. settings: fields of config.json that the task uses."""

    name = ""
    unit = "texts"

    def __init__(self, tokenizer: Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.settings = dict(settings or {})

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        network: Module,
        architecture: str,
        file: str,
        tokenizer: Tokenizer | None = None,
    ) -> Self:
        """See `Task`. tokenizer: is needed, and may not have more tokens than the network."""
        if tokenizer is None:
            raise FormatError(f"{file} has no tokenizer", fix="give one, load(path, tokenizer=…)")
        vocabulary: int = network.config.vocabulary  # type: ignore[attr-defined]
        if tokenizer.size > vocabulary:
            raise ArgumentError(
                "the tokenizer has more tokens than the network", expected=vocabulary, received=tokenizer.size
            )
        return cls(tokenizer, config)

    def to_config(self) -> dict[str, Any]:
        """The fields of config.json."""
        return self.settings

    def from_arguments(self, arguments: Sequence[str]) -> list[str]:
        """Each argument is a text."""
        return list(arguments)

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

    def _batches(self, model: Model, texts: list[str], batch: int) -> Iterator[tuple[list[str], Any, Array]]:
        """(texts, their tokens, outputs of the network) for `batch` texts at a time."""
        if batch < 1:
            raise ArgumentError("batch is wrong", expected="a positive number of texts", received=batch)
        for start in range(0, len(texts), batch):
            part = texts[start : start + batch]
            found = self.tokenizer.batch(part, max_tokens=self._limit(model.network))
            inputs = [ops.to_device(a, model.device) for a in (found.tokens, found.mask, found.token_types)]
            yield part, found, np.asarray(ops.to_device(model.network(*inputs), "cpu"))


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


class TextGeneration(LanguageTask):
    """Texts in, longer texts out."""

    name = "text-generation"

    def run(
        self,
        model: Model,
        source: Any,
        *,
        max_tokens: int = 100,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Generation | list[Generation]:
        """A `Generation`, or a list for a list of prompts, which are continued together.

        temperature 0: the most likely token each time. The other options: see `Sampling`. stop: texts at which a
        continuation ends, without them. seed: of the draws. Raises InputError, ArgumentError.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty)
        prompts = self._texts(source)
        tokens = [self._prompt(text) for text in prompts]
        written: list[list[int]] = [[] for _ in prompts]
        logarithms: list[list[float]] = [[] for _ in prompts]
        reasons = ["length"] * len(prompts)
        ends = self._ends()
        for step in generation.steps(model.network, tokens, max_tokens, sampling, stop=ends, seed=seed):  # type: ignore[arg-type]
            for row in map(int, np.flatnonzero(step.going)):
                if reasons[row] != "length":
                    continue
                written[row].append(int(step.tokens[row]))
                logarithms[row].append(float(step.log_probabilities[row]))
                if written[row][-1] in ends:
                    reasons[row] = "stop"
                elif stop and any(s in self._continuation(tokens[row], written[row]) for s in stop):
                    reasons[row] = "string"
            if "length" not in reasons:
                break
        results = []
        for row, prompt in enumerate(prompts):
            text = self._continuation(tokens[row], written[row])
            cut = min([text.find(s) for s in stop if s in text], default=len(text))
            results.append(Generation(prompt, text[:cut], tuple(written[row]), tuple(logarithms[row]), reasons[row]))
        return results[0] if isinstance(source, str) else results

    def stream(
        self, model: Model, prompt: str, *, max_tokens: int = 100, seed: int | None = None, **sampling: Any
    ) -> Iterator[str]:
        """The continuation piece by piece, as it is written. sampling: fields of `Sampling`."""
        [text] = self._texts([prompt])
        tokens = self._prompt(text)
        pieces = TextStream(self.tokenizer, tokens)
        ends = self._ends()
        chosen = Sampling(**sampling)
        for step in generation.steps(model.network, [tokens], max_tokens, chosen, stop=ends, seed=seed):  # type: ignore[arg-type]
            if int(step.tokens[0]) not in ends and (piece := pieces.push(int(step.tokens[0]))):
                yield piece
        if rest := pieces.finish():
            yield rest

    def _prompt(self, text: str) -> list[int]:
        start = self.settings.get("bos_token_id")
        return self.tokenizer.encode(text) or ([start] if isinstance(start, int) else [])

    def _ends(self) -> list[int]:
        ends = self.settings.get("eos_token_id")
        return [n for n in (ends if isinstance(ends, list) else [ends]) if isinstance(n, int)]

    def _continuation(self, prompt: list[int], written: list[int]) -> str:
        before = self.tokenizer.decode(prompt)
        return self.tokenizer.decode([*prompt, *written])[len(before) :]
