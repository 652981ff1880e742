"""How the next token is chosen from scores: penalties, temperature, and cuts of the unlikely.

Source: top-p arXiv:1904.09751; min-p arXiv:2407.01082; repetition penalty arXiv:1909.05858.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sampling:
    """temperature 0: the most likely token. The others are off at their defaults.

    top_k: this many most likely tokens. top_p: the fewest most likely tokens that together reach this probability.
    min_p: tokens of at least this share of the largest probability. repetition_penalty: scores of tokens that occurred
    are divided by it (multiplied where negative). presence_penalty: taken from scores of tokens that occurred.
    Raises ArgumentError for values out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        check_integer("top_k", self.top_k)
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise ArgumentError(f"{name} is wrong", expected="a finite number", received=repr(value)[:100])
        ranges = {
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "min_p": (0 <= self.min_p < 1, "0 or more, below 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ArgumentError(f"{name} is out of range", expected=expected, received=getattr(self, name))

    def penalise(self, scores: Array, occurred: Array) -> Array:
        """Scores (N, V) with penalties for the tokens that occurred, (N, V) bool."""
        if self.repetition_penalty != 1:
            factor = np.where(scores < 0, self.repetition_penalty, 1 / self.repetition_penalty)
            scores = np.where(occurred, scores * factor, scores)
        return scores - self.presence_penalty * occurred if self.presence_penalty else scores

    def cut(self, scores: Array) -> Array:
        """Scores (N, V) over the temperature, with -inf for tokens that are never drawn. The best is always kept."""
        scores = scores / max(self.temperature, 1e-6)
        if 0 < self.top_k < scores.shape[1]:
            least = np.partition(scores, -self.top_k, axis=1)[:, -self.top_k, None]
            scores = np.where(scores < least, -np.inf, scores)
        if self.top_p < 1:
            order = np.argsort(-scores, axis=1, kind="stable")
            ranked = softmax(np.take_along_axis(scores, order, 1))
            before = np.cumsum(ranked, 1) - ranked
            dropped = np.zeros(scores.shape, bool)
            np.put_along_axis(dropped, order, before >= self.top_p, 1)
            scores = np.where(dropped, -np.inf, scores)
        if self.min_p > 0:
            least = scores.max(1, keepdims=True) + np.log(self.min_p)
            scores = np.where(scores < least, -np.inf, scores)
        return scores

    def choose(self, scores: Array, occurred: Array, generators: list[np.random.Generator]) -> tuple[Array, Array]:
        """Scores (N, V) -> tokens (N,) and the natural logarithms of their probabilities before any cut (N,).

        generators: one per row, so that a text does not depend on its neighbours. Raises InputError for NaN scores.
        """
        scores = np.asarray(scores, np.float64)
        check_scores(scores)
        logarithms = log_softmax(scores)
        scores = self.penalise(scores, occurred)
        if self.temperature == 0:
            tokens = scores.argmax(1)
        else:
            probabilities = softmax(self.cut(scores))
            draws = np.array([g.random() for g in generators])[:, None]
            reached = np.cumsum(probabilities, 1)
            tokens = (reached > draws * reached[:, -1:]).argmax(1)
        return tokens, np.take_along_axis(logarithms, tokens[:, None], 1)[:, 0]


def check_integer(name: str, value: object, least: int = 0) -> None:
    """Raise ArgumentError where an option is no integer, or too small."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(f"{name} is wrong", expected=f"an integer from {least}", received=repr(value)[:100])


def check_scores(scores: Array) -> None:
    """Raise InputError where a row has NaN or inf, or nothing but -inf."""
    if not np.isfinite(scores.max(1)).all():
        raise InputError("the model gave scores that are no numbers", fix="check that its weights are complete")


def log_softmax(scores: Array) -> Array:
    """Natural logarithms of probabilities, along the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    logarithms: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logarithms


def softmax(scores: Array) -> Array:
    """Probabilities along the last axis."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    probabilities: Array = weights / weights.sum(-1, keepdims=True)
    return probabilities
