"""Results: what a model says about its inputs, printing well in a terminal and in a notebook."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zoonet.ops.errors import ArgumentError


@dataclass(frozen=True)
class Prediction:
    """One class: its label, its score (a probability from 0 to 1) and its index among the network's outputs."""

    label: str
    score: float
    index: int

    def __str__(self) -> str:
        return f"{self.label} {self.score:.1%}"


class Result(Protocol):
    """What the result for one input offers, whatever the task."""

    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""

    def _repr_html_(self) -> str: ...


class Classification:
    """The scores of all classes for one input.

    source: the name of the input. scores: float array (classes,), probabilities. labels: a label per class.
    """

    def __init__(self, source: str, scores: np.ndarray[Any, Any], labels: Sequence[str]) -> None:
        self.source = source
        self.scores = scores
        self.labels = labels

    def top(self, k: int = 5) -> list[Prediction]:
        """The k classes of highest score, best first; all where there are fewer. Raises ArgumentError for k < 1."""
        if not isinstance(k, int | np.integer) or k < 1:
            raise ArgumentError("top takes a number of classes", expected="an integer from 1", received=repr(k))
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [Prediction(self.labels[i], float(self.scores[i]), int(i)) for i in order]

    @property
    def label(self) -> str:
        """The label of the best class."""
        return self.top(1)[0].label

    @property
    def score(self) -> float:
        """The score of the best class."""
        return self.top(1)[0].score

    @property
    def index(self) -> int:
        """The index of the best class."""
        return self.top(1)[0].index

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data: {"source": …, "top": [{"label": …, "score": …, "index": …}, …]}."""
        return {"source": self.source, "top": [vars(p) | {"score": round(p.score, 6)} for p in self.top(top)]}

    def to_json(self, top: int = 5) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(top), ensure_ascii=False)

    def text(self, top: int = 5) -> str:
        """A line per class: score, a bar, label."""
        lines = [f"{p.score:7.2%}  {_bar(p.score):<20}  {printable(p.label)}" for p in self.top(top)]
        return "\n".join([printable(self.source), *lines])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(p.label)}</td><td style='text-align:right'>{p.score:.2%}</td><td>"
            f"<div style='background:#48c;height:.8em;width:{p.score * 12:.2f}em'></div></td></tr>"
            for p in self.top()
        )
        return f"<table><caption>{html.escape(self.source)}</caption>{rows}</table>"


def printable(text: str) -> str:
    """A text from a file as a terminal may have it: control characters are spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _bar(fraction: float, width: int = 20) -> str:
    """A horizontal bar of block characters, in steps of an eighth."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


class Results(list[Any]):
    """The results of several inputs, a list that prints one after the other. Items are Result objects of one task."""

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        texts: list[str] = [result._repr_html_() for result in self]
        return "".join(texts)

    def to_json(self) -> str:
        """A JSON array of the results' plain data."""
        return json.dumps([result.to_dict() for result in self], ensure_ascii=False)
