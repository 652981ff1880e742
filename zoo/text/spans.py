"""Tasks whose answers are parts of a text: question answering and token classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.text.tasks import LanguageTask
from zoonet.zoo.transformers.sampling import softmax

if TYPE_CHECKING:
    from zoonet.zoo.model import Model


@dataclass(frozen=True)
class Span:
    """Characters start to stop of a text, what they say, their label ("answer" for answers) and probability."""

    words: str
    label: str
    score: float
    start: int
    stop: int


class Spans(list[Span]):
    """The spans found in one text; for a question the best answer comes first. source: the text."""

    def __init__(self, source: str, spans: Sequence[Span]) -> None:
        super().__init__(spans)
        self.source = source

    def text(self, top: int = 5) -> str:
        """A line per span."""
        return "\n".join(f"{span.words}: {span.label} {span.score:.1%}" for span in self[:top])

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"source": self.source, "spans": [vars(span) for span in self[:top]]}


class QuestionAnswering(LanguageTask):
    """A question and a text in, the parts of the text that answer it out."""

    name = "question-answering"

    def run(self, model: Model, source: Any, *, top: int = 3, longest: int = 30) -> Spans:
        """The `top` most likely answers of at most `longest` tokens. source: (question, text); a long text is cut.

        A score is the product of the probabilities of start and end within the text. Raises InputError, ArgumentError.
        """
        if top < 1 or longest < 1:
            raise ArgumentError("top and longest are wrong", expected="1 or more", received=(top, longest))
        pair = self._texts(source)
        if len(pair) != 2 or isinstance(source, str):
            raise InputError("a question needs a text", expected="(question, text)", received=f"{len(pair)} texts")
        found = self.tokenizer.batch(pair[:1], pair[1:], max_tokens=self._limit(model.network))
        inputs = [ops.to_device(a, model.device) for a in (found.tokens, found.mask, found.token_types)]
        scores = np.asarray(ops.to_device(model.network(*inputs), "cpu"))[0].astype(np.float64)  # (T, 2)
        inside = found.sequence[0] == 1
        if not inside.any():
            raise InputError("the text is empty, or the question leaves no room for it", fix="give a shorter question")
        starts, ends = [softmax(np.where(inside, scores[:, i], -np.inf)) for i in (0, 1)]
        joint = np.triu(starts[:, None] * ends[None])  # (start, end)
        joint -= np.triu(joint, longest)
        order = [divmod(int(i), len(starts)) for i in np.argsort(-joint, axis=None, kind="stable")[:top]]
        spans = []
        for first, last in order:
            if joint[first, last] > 0:
                start, stop = found.offsets[0][first][0], found.offsets[0][last][1]
                spans.append(Span(pair[1][start:stop], "answer", float(joint[first, last]), start, stop))
        return Spans(pair[1], spans)


class TokenClassification(LanguageTask):
    """Texts in, labelled parts of them out; neighbouring tokens of one kind are one part."""

    name = "token-classification"

    def run(self, model: Model, source: Any, *, batch: int = 32) -> Spans | list[Spans]:
        """`Spans`, or a list of them for a list of texts. "B-" starts a part, "I-" continues it, "O" is none.

        A score is the mean of the probabilities of its tokens. Longer texts are cut. Raises InputError.
        """
        named = self.settings.get("id2label") or {}
        results = []
        for part, found, scores in self._batches(model, self._texts(source), batch):
            rows = softmax(scores.astype(np.float64))
            for row, text in enumerate(part):
                places = np.flatnonzero(~found.special[row])
                best = [int(rows[row, place].argmax()) for place in places]
                tags = [str(named.get(str(index), f"class {index}")) for index in best]
                marked = [
                    (tag, float(rows[row, place, index]), *found.offsets[row][place])
                    for tag, place, index in zip(tags, places, best, strict=True)
                ]
                results.append(Spans(text, _grouped(text, marked)))
        return results[0] if isinstance(source, str) else results


def _grouped(text: str, marked: Sequence[tuple[str, float, int, int]]) -> list[Span]:
    """Spans of (tag, probability, start, stop) per token."""
    groups: list[tuple[str, list[float], int, int]] = []
    open_kind = None
    for tag, probability, start, stop in marked:
        kind = tag[2:] if tag[:2] in ("B-", "I-") else tag
        if tag == "O":
            open_kind = None
        elif kind == open_kind and not tag.startswith("B-"):
            label, scores, first, _ = groups[-1]
            groups[-1] = (label, [*scores, probability], first, stop)
        else:
            groups.append((kind, [probability], start, stop))
            open_kind = kind
    return [Span(text[a:b], label, float(np.mean(scores)), a, b) for label, scores, a, b in groups]
