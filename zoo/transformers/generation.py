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
from zoonet.zoo.transformers.sampling import Sampling, check_integer, check_scores, log_softmax
from zoonet.zoo.transformers.seq2seq import place_of

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

    def __init__(self, network: Decoder, tokens: Array, mask: Array, room: int, cached: bool, chunk: int) -> None:
        length = tokens.shape[1] + room
        limit = network.positions
        if limit is not None and int(mask.sum(1).max()) + room > limit:
            raise InputError(
                "prompt and new tokens are too long for the model",
                expected=f"at most {limit} tokens",
                received=f"{int(mask.sum(1).max())} and {room}",
                fix="shorten the prompt, or ask for fewer tokens (max_tokens)",
            )
        self._network, self._chunk = network, chunk
        self._device = getattr(network, "device", None) or place_of(network)
        self._cache = Cache(length) if cached else None
        self._tokens, self._mask = tokens, mask

    def first(self) -> Array:
        """Scores (N, V) after the prompt, which is read in chunks."""
        if self._cache is None:
            return self._run(0, self._tokens.shape[1])
        length = self._tokens.shape[1]
        last = (length - 1) // self._chunk * self._chunk
        for start in range(0, last, self._chunk):
            self._run(start, start + self._chunk)
        return self._run(last, length)

    def occurred(self, vocabulary: int) -> Array:
        """Which tokens the prompts have: (N, V) bool."""
        result = np.zeros((len(self._tokens), vocabulary), bool)
        for row, (tokens, mask) in enumerate(zip(self._tokens, self._mask, strict=True)):
            result[row, tokens[mask]] = True
        return result

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
        tokens, positions = [ops.to_device(a, self._device) for a in (self._tokens[:, start:stop], positions)]
        padded = None if padded is None else ops.to_device(padded, self._device)
        scores = self._network.forward(tokens, padded, positions, self._cache, True)
        return np.asarray(ops.to_device(scores, "cpu"))[:, -1]


def steps(
    network: Decoder,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling | None = None,
    *,
    stop: Sequence[int] = (),
    seed: int | list[np.random.SeedSequence] | None = None,
    padding: int = 0,
    chunk: int = 512,
    cached: bool = True,
) -> Iterator[Step]:
    """The tokens after each prompt, one step at a time, until all texts ended with a token of `stop`, or max_tokens.

    sampling: greedy if None. seed: of the draws, a fresh one if None; each text has draws of its own, or the seed that
    a list has for it. chunk: prompts are read in parts of this many tokens. cached: keys and values are kept (else all
    is computed again, for tests). Raises InputError for empty or too long prompts and ArgumentError for wrong numbers
    at once, InputError for NaN scores when they come.
    """
    check_integer("max_tokens", max_tokens)
    check_integer("chunk", chunk, 1)
    if isinstance(seed, list):
        seeds = seed
    else:
        if seed is not None:
            check_integer("seed", seed)
        seeds = np.random.SeedSequence(seed).spawn(len(prompts))
    tokens, mask = pad_left(prompts, padding)
    if max_tokens == 0:
        return iter(())
    decoding = _Decoding(network, tokens, mask, max_tokens, cached, chunk)
    generators = [np.random.Generator(np.random.PCG64(s)) for s in seeds]
    return _steps(decoding, max_tokens, sampling or Sampling(), stop, generators, padding)


def _steps(
    decoding: _Decoding,
    max_tokens: int,
    sampling: Sampling,
    stop: Sequence[int],
    generators: list[np.random.Generator],
    padding: int,
) -> Iterator[Step]:
    scores = decoding.first()
    occurred = decoding.occurred(scores.shape[1])
    going = np.ones(len(scores), bool)
    ends = np.asarray(list(stop), np.int64)
    for step in range(max_tokens):
        new, logarithms = sampling.choose(scores, occurred, generators)
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
    """The `beams` best continuations that were found, best first by log-probability / length ** length_penalty.

    Width-limited breadth-first search; it ends when there are as many ended texts as beams and the best of the others
    is not better than the worst of them now, or at max_tokens. Raises what `steps` raises, and ArgumentError for no
    beams.
    """
    check_integer("max_tokens", max_tokens)
    check_integer("beams", beams, 1)
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, int | float):
        raise ArgumentError("length_penalty is wrong", expected="a number", received=repr(length_penalty)[:100])
    tokens, mask = pad_left([prompt])
    if max_tokens == 0:
        return [Generated()]
    decoding = _Decoding(network, tokens, mask, max_tokens, True, 512)
    scores = decoding.first()
    live = [Generated()]
    done: list[tuple[float, Generated]] = []
    for step in range(1, max_tokens + 1):
        grown = _grown(live, scores, max(2, 1 + len(stop)) * beams)
        divisor = float(step) ** length_penalty
        for _, text in grown[:beams]:  # those of lower rank only stand in for texts that ended
            if text.tokens[-1] in stop or step == max_tokens:
                reason = "stop" if text.tokens[-1] in stop else "length"
                done.append((sum(text.log_probabilities) / divisor, replace(text, reason=reason)))
        done = sorted(done, key=lambda item: -item[0])[:beams]
        going = [(row, text) for row, text in grown if text.tokens[-1] not in stop][:beams]
        live = [text for _, text in going]
        best = max((sum(text.log_probabilities) / divisor for text in live), default=-np.inf)
        if step == max_tokens or not live or (len(done) == beams and best <= done[-1][0]):
            break
        decoding.reorder(np.array([row for row, _ in going]))
        scores = decoding.next(np.array([text.tokens[-1] for text in live]))
    return [text for _, text in done]


def _grown(live: Sequence[Generated], scores: Array, count: int) -> list[tuple[int, Generated]]:
    """The `count` most likely texts that are one token longer, and the row that each comes from."""
    check_scores(scores)
    logarithms = log_softmax(np.asarray(scores, np.float64))
    totals = np.array([sum(text.log_probabilities) for text in live])[:, None] + logarithms
    result = []
    for position in np.argsort(-totals, axis=None, kind="stable")[:count]:
        row, token = divmod(int(position), totals.shape[1])
        text, new = live[row], float(logarithms[row, token])
        result.append((row, Generated([*text.tokens, token], [*text.log_probabilities, new])))
    return result
