"""Generation: a decoder's next token again and again, with keys and values kept.

Tokens in, tokens out; `zoo.text` turns them into text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.transformers.blocks import Cache
from zoonet.zoo.transformers.sampling import Sampling, check_scores, log_softmax

Array = np.ndarray[Any, Any]


class Decoder(Protocol):
    """What generation needs of a network: scores of the next tokens."""

    @property
    def positions(self) -> int | None:
        """The longest text in tokens, or None."""

    def forward(
        self, tokens: Any, mask: Any = None, positions: Any = None, cache: Cache | None = None, last: bool = False
    ) -> Any:
        """(N, T) -> (N, T, V)."""


@dataclass(frozen=True)
class Step:
    """One more token of each text. tokens, log_probabilities: (N,). going: (N,) bool, texts that had not ended."""

    tokens: Array
    log_probabilities: Array
    going: Array


@dataclass
class Generated:
    """One text. log_probabilities: natural logarithm for each token. reason: "stop", "length" or "string"."""

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    reason: str = "length"


def pad_left(prompts: Sequence[Sequence[int]], padding: int = 0) -> tuple[Array, Array]:
    """Prompts of tokens as one array (N, T), padded in front, and the mask of what is a prompt.

    Raises InputError for an empty prompt or none at all.
    """
    if not prompts or any(len(prompt) == 0 for prompt in prompts):
        raise InputError("there is nothing to continue", expected="at least one token", fix="begin with a start token")
    longest = max(len(prompt) for prompt in prompts)
    tokens, mask = np.full((len(prompts), longest), padding, np.int64), np.zeros((len(prompts), longest), bool)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = prompt, True
    return tokens, mask


class _Decoding:
    """The state of decoding N texts: what is cached, and which of it is padding."""

    def __init__(self, network: Decoder, tokens: Array, mask: Array, room: int, cached: bool) -> None:
        length = tokens.shape[1] + room
        limit = network.positions
        if limit is not None and int(mask.sum(1).max()) + room > limit:
            raise InputError(
                "prompt and new tokens are too long for the model",
                expected=f"at most {limit} tokens",
                received=f"{int(mask.sum(1).max())} and {room}",
                fix="shorten the prompt, or ask for fewer tokens (max_tokens)",
            )
        self._network = network
        self._cache = Cache(length) if cached else None
        self._tokens, self._mask = tokens, mask

    def first(self, chunk: int) -> Array:
        """Scores (N, V) after the prompt, which is read in chunks."""
        if self._cache is None:
            return self._run(0, self._tokens.shape[1])
        scores = None
        for start in range(0, self._tokens.shape[1], chunk):
            scores = self._run(start, min(start + chunk, self._tokens.shape[1]))
        assert scores is not None
        return scores

    def next(self, tokens: Array) -> Array:
        """Scores (N, V) after one more token of each text (N,)."""
        self._tokens = np.concatenate([self._tokens, tokens[:, None]], 1)
        self._mask = np.concatenate([self._mask, np.ones((len(tokens), 1), bool)], 1)
        stop = self._tokens.shape[1]
        return self._run(0 if self._cache is None else stop - 1, stop)

    def reorder(self, rows: Array) -> None:
        """Row i becomes what row rows[i] was."""
        self._tokens, self._mask = self._tokens[rows], self._mask[rows]
        if self._cache is not None:
            self._cache.reorder(rows)

    def _run(self, start: int, stop: int) -> Array:
        mask = self._mask[:, :stop]
        positions = np.maximum(np.cumsum(mask, 1) - 1, 0)[:, start:stop]
        padded = None if mask.all() else mask
        scores = self._network.forward(self._tokens[:, start:stop], padded, positions, self._cache, True)
        return np.asarray(ops.to_device(scores, "cpu"))[:, -1]


def steps(
    network: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling | None = None,
    *,
    stop: Sequence[int] = (),
    seed: int | None = None,
    padding: int = 0,
    chunk: int = 512,
    cached: bool = True,
) -> Iterator[Step]:
    """The tokens after each prompt, one step at a time, until all texts ended with a token of `stop`, or max_tokens.

    sampling: greedy if None. seed: of the draws, a fresh one if None; each text has draws of its own. chunk: prompts
    are read in parts of this many tokens. cached: keys and values are kept (else all is computed again, for tests).
    Raises InputError for empty or too long prompts and NaN scores, ArgumentError for a max_tokens below 0.
    """
    _check_limit(max_tokens)
    chosen = sampling or Sampling()
    tokens, mask = pad_left(prompts, padding)
    if max_tokens == 0:
        return
    generators = [np.random.Generator(np.random.PCG64(s)) for s in np.random.SeedSequence(seed).spawn(len(prompts))]
    decoding = _Decoding(network, tokens, mask, max_tokens, cached)
    scores = decoding.first(chunk)
    occurred = np.zeros(scores.shape, bool)
    for row in range(len(prompts)):
        occurred[row, tokens[row][mask[row]]] = True
    going = np.ones(len(prompts), bool)
    ends = np.asarray(list(stop), np.int64)
    for step in range(max_tokens):
        new, logarithms = chosen.choose(scores, occurred, generators)
        new = np.where(going, new, padding)
        yield Step(new, logarithms, going.copy())
        occurred[np.arange(len(new)), new] |= going
        going &= ~np.isin(new, ends)
        if not going.any() or step + 1 == max_tokens:
            return
        scores = decoding.next(new)


def generate(
    network: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling | None = None,
    **options: Any,
) -> list[Generated]:
    """All of `steps`, one result per prompt; a token of `stop` is the last of its text. options: those of `steps`."""
    results = [Generated() for _ in prompts]
    ends = set(options.get("stop", ()))
    for step in steps(network, prompts, max_tokens, sampling, **options):
        for row, result in enumerate(results):
            if step.going[row]:
                result.tokens.append(int(step.tokens[row]))
                result.log_probabilities.append(float(step.log_probabilities[row]))
                if result.tokens[-1] in ends:
                    result.reason = "stop"
    return results


def beam_search(
    network: Decoder,
    prompt: Sequence[int],
    max_tokens: int,
    beams: int = 4,
    *,
    stop: Sequence[int] = (),
    length_penalty: float = 1.0,
) -> list[Generated]:
    """The `beams` most likely continuations that were found, best first by log-probability / length ** length_penalty.

    Width-limited breadth-first search; it ends when as many texts ended as there are beams, or at max_tokens. Raises
    what `steps` raises, and ArgumentError for no beams.
    """
    _check_limit(max_tokens)
    if beams < 1:
        raise ArgumentError("beam search needs a beam", expected="1 or more", received=beams)
    tokens, mask = pad_left([prompt])
    if max_tokens == 0:
        return [Generated()]
    decoding = _Decoding(network, tokens, mask, max_tokens, True)
    scores = decoding.first(512)
    live = [Generated()]
    done: list[Generated] = []
    for step in range(max_tokens):
        check_scores(scores)
        logarithms = log_softmax(np.asarray(scores, np.float64))
        totals = np.array([sum(text.log_probabilities) for text in live])[:, None] + logarithms
        best = np.argsort(-totals, axis=None, kind="stable")[: 2 * beams]
        rows: list[int] = []
        extended: list[Generated] = []
        for rank, position in enumerate(best):
            row, token = divmod(int(position), totals.shape[1])
            text = live[row]
            grown = Generated([*text.tokens, token], [*text.log_probabilities, float(logarithms[row, token])])
            if token in stop:
                if rank < beams:
                    done.append(replace(grown, reason="stop"))
            elif len(extended) < beams:
                extended.append(grown)
                rows.append(row)
        live = extended
        if not live or len(done) >= beams or step + 1 == max_tokens:
            break
        decoding.reorder(np.array(rows))
        scores = decoding.next(np.array([text.tokens[-1] for text in live]))
    candidates = done if len(done) >= beams else done + live
    ranked = sorted(candidates, key=lambda t: -sum(t.log_probabilities) / len(t.tokens) ** length_penalty)
    return ranked[:beams]


def _check_limit(max_tokens: int) -> None:
    if max_tokens < 0:
        raise ArgumentError("max_tokens is negative", expected="0 or more", received=max_tokens)
