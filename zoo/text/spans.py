"""Tasks whose answers are parts of a text: question answering and token classification."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.text.tasks import LabelledTask, LanguageTask
from zoonet.zoo.text.tokenizer import TokenBatch
from zoonet.zoo.transformers.sampling import check_integer, softmax

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

    def _repr_html_(self) -> str:
        cells = [(html.escape(span.words), html.escape(span.label), f"{span.score:.1%}") for span in self]
        return "<table>" + "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells) + "</table>"


class QuestionAnswering(LanguageTask):
    """A question and a text in, the parts of the text that answer it out."""

    name = "question-answering"
    takes = "answer"

    def run(
        self, model: Model, source: Any, *, top: int = 3, longest: int = 30, overlap: int = 128, batch: int = 8
    ) -> Spans | list[Spans]:
        """The `top` most likely answers of at most `longest` tokens.

        source: (question, text), {"question": …, "context": …}, or a list of these, which gives a list.
        A text that is too long for the model is read in windows that share `overlap` tokens, `batch` windows at a
        time. A score is the product of the probabilities of start and end among all places of the text (of all
        windows). Raises InputError, ArgumentError.
        """
        for name, value in (("top", top), ("longest", longest), ("batch", batch)):
            check_integer(name, value, 1)
        if isinstance(source, list | tuple) and source and not isinstance(source[0], str):
            return [self._answers(model, each, top, longest, overlap, batch) for each in source]
        return self._answers(model, source, top, longest, overlap, batch)

    def _answers(self, model: Model, source: Any, top: int, longest: int, overlap: int, batch: int) -> Spans:
        if isinstance(source, Mapping):
            source = [source[key] for key in ("question", "context") if key in source]
        pair = self._texts(source)
        if len(pair) != 2 or isinstance(source, str):
            raise InputError("a question needs a text", expected="(question, text)", received=f"{len(pair)} texts")
        limit = self._limit(model.network)
        found = self.tokenizer.windows(pair[0], pair[1], max_tokens=limit, overlap=overlap)
        inside = found.sequence == 1
        if not inside.any():
            raise InputError("the text is empty, or the question leaves no room for it", fix="give a shorter question")
        scores = np.concatenate([part for _, part in self._outputs(model, found, batch)]).astype(np.float64)
        starts, ends = [_shares(np.where(inside, scores[..., i], -np.inf)) for i in (0, 1)]  # (windows, T)
        best: dict[tuple[int, int], float] = {}
        for window, offsets in enumerate(found.offsets):
            for first, last, score in _likeliest(starts[window], ends[window], longest, top):
                place = offsets[first][0], offsets[last][1]
                best[place] = max(score, best.get(place, 0.0))
        ranked = sorted(best.items(), key=lambda item: -item[1])[:top]
        return Spans(pair[1], [Span(pair[1][a:b], "answer", score, a, b) for (a, b), score in ranked])


def _shares(scores: Any) -> Any:
    """Probabilities over all places of all windows."""
    return softmax(scores.reshape(-1)).reshape(scores.shape)


def _likeliest(starts: Any, ends: Any, longest: int, top: int) -> Iterator[tuple[int, int, float]]:
    """(first token, last token, probability) of the `top` answers in a window, those without any left out."""
    joint = np.triu(starts[:, None] * ends[None])  # (start, end)
    joint -= np.triu(joint, longest)
    for place in np.argsort(-joint, axis=None, kind="stable")[:top]:
        first, last = divmod(int(place), len(starts))
        if joint[first, last] > 0:
            yield first, last, float(joint[first, last])


#: How tokens become spans: none (each token alone), simple (neighbours of one label), and three that first give all
#: tokens of a word one label: that of its first token, the mean of its tokens' probabilities, or that of its surest.
STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class _Marked:
    """A token or a word: the probabilities of its labels, its place in the text, and whether it goes on with a word."""

    scores: Any
    start: int
    stop: int
    inner: bool = False


class TokenClassification(LabelledTask):
    """Texts in, labelled parts of them out; neighbouring tokens of one kind are one part."""

    name = "token-classification"
    takes = "token"

    def run(
        self, model: Model, source: Any, *, strategy: str = "simple", overlap: int = 64, batch: int = 8
    ) -> Spans | list[Spans]:
        """`Spans`, or a list of them for a list of texts. "B-" starts a part, "I-" continues it, "O" is none.

        strategy: one of STRATEGIES, as aggregation_strategy of transformers. A score is the mean of the probabilities
        of its tokens or words. A text that is too long for the model is read in windows that share `overlap` tokens;
        of parts that overlap the longer one stays. batch: windows at a time. Raises InputError, ArgumentError.
        """
        if strategy not in STRATEGIES:
            raise ArgumentError("no such strategy", expected=", ".join(STRATEGIES), received=repr(strategy))
        check_integer("batch", batch, 1)
        limit = self._limit(model.network)
        results = []
        for text in self._texts(source):
            found = self.tokenizer.windows(text, max_tokens=limit, overlap=overlap)
            spans: list[Span] = []
            for first, scores in self._outputs(model, found, batch):
                for row, probabilities in enumerate(softmax(scores.astype(np.float64)), first):
                    spans += self._spans(text, self._marked(text, found, row, probabilities), strategy)
            results.append(Spans(text, spans if len(found.tokens) == 1 else _without_overlaps(spans)))
        return results[0] if isinstance(source, str) else results

    def _marked(self, text: str, found: TokenBatch, row: int, probabilities: Any) -> list[_Marked]:
        """The tokens of a window that stand for text."""
        model = self.tokenizer.pipeline.model
        prefix, unknown = getattr(model, "continuing_subword_prefix", None), getattr(model, "unk_token", None)
        result = []
        for place in np.flatnonzero(~found.special[row]):
            start, stop = found.offsets[row][place]
            token = self.tokenizer.token(int(found.tokens[row, place])) or ""
            behind = text[max(start - 1, 0) : start + 1]  # with its own first letter
            inner = len(token) != stop - start if prefix else start > 0 and " " not in behind
            result.append(_Marked(probabilities[place], start, stop, inner and token != unknown))
        return result

    def _spans(self, text: str, marked: Sequence[_Marked], strategy: str) -> list[Span]:
        if strategy in ("first", "average", "max"):
            marked = [_word(group, strategy) for group in _words(marked)]
        groups: list[tuple[str, list[float], int, int]] = []
        before = None
        for item in marked:
            tag = self.labels[int(item.scores.argmax())]
            kind = tag[2:] if tag[:2] in ("B-", "I-") else tag
            score = float(item.scores.max())
            if strategy != "none" and kind == before and not tag.startswith("B-"):
                label, scores, start, _ = groups[-1]
                groups[-1] = label, [*scores, score], start, item.stop
            else:
                groups.append((tag if strategy == "none" else tag.split("-", 1)[-1], [score], item.start, item.stop))
            before = kind
        return [Span(text[a:b], label, float(np.mean(s)), a, b) for label, s, a, b in groups if label != "O"]


class ReplacedTokens(LanguageTask):
    """Texts in, the tokens out that do not belong there: what ELECTRA's discriminator tells."""

    name = "replaced-tokens"
    takes = "discriminator"

    def run(self, model: Model, source: Any, *, batch: int = 32, truncate: bool = False) -> Spans | list[Spans]:
        """`Spans`, or a list of them for a list of texts: tokens that are more likely replaced than not.

        A score is the probability that the token is not the text's own. truncate: cut texts that are too long for the
        model, an error otherwise. Raises InputError, ArgumentError.
        """
        results = []
        for part, found, scores in self._batches(model, self._texts(source), batch, truncate):
            for row, text in enumerate(part):
                places = np.flatnonzero(~found.special[row] & (scores[row] > 0))
                spans = []
                for place in places:
                    start, stop = found.offsets[row][place]
                    probability = float(1 / (1 + np.exp(-float(scores[row, place]))))
                    spans.append(Span(text[start:stop], "replaced", probability, start, stop))
                results.append(Spans(text, spans))
        return results[0] if isinstance(source, str) else results


def _words(marked: Sequence[_Marked]) -> list[list[_Marked]]:
    """Tokens by word."""
    words: list[list[_Marked]] = []
    for item in marked:
        if words and item.inner:
            words[-1].append(item)
        else:
            words.append([item])
    return words


def _word(tokens: Sequence[_Marked], strategy: str) -> _Marked:
    """The tokens of a word as one."""
    if strategy == "average":
        scores = np.mean([token.scores for token in tokens], axis=0)
    else:
        scores = tokens[0].scores if strategy == "first" else max(tokens, key=lambda t: float(t.scores.max())).scores
    return _Marked(scores, tokens[0].start, tokens[-1].stop)


def _without_overlaps(spans: Sequence[Span]) -> list[Span]:
    """Of spans that overlap the longest, of equally long ones the surest."""
    result: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if not result or not result[-1].start <= span.start < result[-1].stop:
            result.append(span)
        elif (span.stop - span.start, span.score) > (result[-1].stop - result[-1].start, result[-1].score):
            result[-1] = span
    return result
