"""The task of writing on: prompts or conversations in, continuations out, all at once or piece by piece."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.types import TensorType, int64
from zoonet.zoo.text.chat import ChatTemplate, check_messages
from zoonet.zoo.text.streaming import Continuation, stop_texts
from zoonet.zoo.text.tasks import LanguageTask
from zoonet.zoo.transformers import generation
from zoonet.zoo.transformers.sampling import Sampling, check_integer
from zoonet.zoo.transformers.seq2seq import Reading

if TYPE_CHECKING:
    from zoonet.zoo.model import Model
    from zoonet.zoo.modules import Module


class Written(str):
    """A text; called, as `text(top)` of every result is, it gives itself."""

    __slots__ = ()

    def __call__(self, top: int = 5) -> str:
        """The text. top: has no meaning here."""
        return str(self)


@dataclass(frozen=True)
class Generation:
    """A text and what a model wrote after it. reason: "stop", "string" (a stop string) or "length".

    tokens: those written, one that ended the text included. log_probabilities: natural logarithm of the probability
    that the model gave each of them, before penalties, temperature and cuts.
    """

    source: str
    continuation: str
    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    reason: str

    @property
    def text(self) -> Written:
        """Prompt and continuation."""
        return Written(self.source + self.continuation)

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data for JSON. top: has no meaning here."""
        return {**vars(self), "tokens": list(self.tokens), "log_probabilities": list(self.log_probabilities)}

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.source)}<b>{html.escape(self.continuation)}</b></p>"


@dataclass(frozen=True)
class Answer(Generation):
    """A text that a model wrote after it had read another, as in a translation."""

    @property
    def text(self) -> Written:
        """What was written."""
        return Written(self.continuation)


@dataclass(frozen=True)
class Reply(Answer):
    """The answer in a conversation. source: the conversation as the chat template writes it."""

    @property
    def message(self) -> dict[str, str]:
        """The answer as a message, to go on with: `messages + [reply.message]`."""
        return {"role": "assistant", "content": self.continuation}


@dataclass(frozen=True)
class _Prompt:
    """The text that is given, its tokens, and what its result is."""

    text: str
    tokens: list[int]
    kind: type[Generation]


class TextGeneration(LanguageTask):
    """Texts or conversations in, longer texts or answers out."""

    name = "text-generation"
    takes = "decoder"
    result: type[Generation] = Generation

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
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        chat: bool = False,
        system: str | None = None,
        batch: int = 16,
    ) -> Generation | list[Generation]:
        """A `Generation`, or a list for a list of prompts, of which `batch` are continued together.

        source: a text or a list of texts; or a conversation, [{"role": "user", "content": "Hi"}], or a list of them,
        which gives `Reply`s. chat: a text is what a user says in a conversation; system: what stands before it.
        temperature 0: the most likely token each time. The other options of the draws: see `Sampling`. stop: texts at
        which a continuation ends, without them. seed: of the draws. beams: above 1 the most likely text that a search
        of this width finds, by log-probability / length ** length_penalty. Raises InputError, ArgumentError.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty)
        texts = stop_texts(stop)
        check_integer("max_tokens", max_tokens)
        check_integer("beams", beams, 1)
        check_integer("batch", batch, 1)
        prompts, several = self._prompts(source, chat, system)
        if beams > 1:
            if sampling != Sampling():
                raise ArgumentError("beam search draws nothing", fix="leave out temperature, cuts and penalties")
            results = [self._best(model, prompt, max_tokens, beams, length_penalty, texts) for prompt in prompts]
        else:
            if seed is not None:
                check_integer("seed", seed)
            seeds = np.random.SeedSequence(seed).spawn(len(prompts))  # of each text, whatever the batch
            results = []
            for start in range(0, len(prompts), batch):
                part = slice(start, start + batch)
                results += self._sampled(model, prompts[part], max_tokens, sampling, texts, seeds[part])
        return results if several else results[0]

    def _sampled(
        self,
        model: Model,
        prompts: Sequence[_Prompt],
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
        seeds: list[np.random.SeedSequence],
    ) -> list[Generation]:
        ends = self._special("eos_token")
        network, given = self._started(model, prompts)
        written = [Continuation(self.tokenizer, tokens, stop) for tokens in given]
        found = [generation.Generated() for _ in prompts]
        open_rows = set(range(len(prompts)))
        steps = generation.steps(network, given, max_tokens, sampling, stop=ends, seed=seeds)
        for step in steps:
            for row in sorted(open_rows):
                result, token = found[row], int(step.tokens[row])
                result.tokens.append(token)
                result.log_probabilities.append(float(step.log_probabilities[row]))
                if token in ends:
                    result.reason = "stop"
                else:
                    written[row].push(token)
                    result.reason = "string" if written[row].stopped else "length"
            open_rows = {row for row in open_rows if found[row].reason == "length"}
            if not open_rows:
                break
        return [self._result(*each) for each in zip(prompts, found, written, strict=True)]

    def _best(
        self, model: Model, prompt: _Prompt, max_tokens: int, beams: int, length_penalty: float, stop: Sequence[str]
    ) -> Generation:
        ends = self._special("eos_token")
        network, [given] = self._started(model, [prompt])
        found = generation.beam_search(network, given, max_tokens, beams, stop=ends, length_penalty=length_penalty)[0]
        written = Continuation(self.tokenizer, given, stop)
        for token in found.tokens[: -1 if found.reason == "stop" else None]:
            written.push(token)
        return self._result(prompt, found, written)

    def _result(self, prompt: _Prompt, found: generation.Generated, written: Continuation) -> Generation:
        written.finish()
        reason = "string" if written.stopped else found.reason
        return prompt.kind(prompt.text, written.text, tuple(found.tokens), tuple(found.log_probabilities), reason)

    def stream(
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
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        chat: bool = False,
        system: str | None = None,
    ) -> Iterator[str]:
        """The continuation of one text or conversation piece by piece, as it is written; options as for `run`."""
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty)
        texts = stop_texts(stop)
        prompts, several = self._prompts(source, chat, system)
        if several:
            raise InputError("one text is streamed at a time", expected="a text", received=f"{len(prompts)} texts")
        ends = self._special("eos_token")
        network, given = self._started(model, prompts)
        steps = generation.steps(network, given, max_tokens, sampling, stop=ends, seed=seed)
        return _pieces(steps, Continuation(self.tokenizer, given[0], texts), ends)

    def answers(self, options: Mapping[str, Any]) -> bool:
        """Whether a result of `run` with these options is a text of its own, not one that goes on with the source."""
        return issubclass(self.result, Answer) or bool(options.get("chat"))

    def _started(self, model: Model, prompts: Sequence[_Prompt]) -> tuple[generation.Decoder, list[list[int]]]:
        """What writes, and the tokens that each text begins with."""
        network: Any = model.network
        return network, [prompt.tokens for prompt in prompts]

    def _prompts(self, source: Any, chat: bool, system: str | None) -> tuple[list[_Prompt], bool]:
        """The prompts, and whether they were given as a list."""
        if system is not None and not chat:
            raise ArgumentError("system is for conversations", fix="set chat too")
        if isinstance(source, list | tuple) and source and isinstance(source[0], Mapping):
            return [self._conversation(source)], False
        if isinstance(source, list | tuple) and source and isinstance(source[0], list | tuple):
            return [self._conversation(messages) for messages in source], True
        texts = self._texts(source)
        if chat:
            before = [] if system is None else [{"role": "system", "content": system}]
            prompts = [self._conversation([*before, {"role": "user", "content": text}]) for text in texts]
        else:
            prompts = [_Prompt(text, self._prompt(text), self.result) for text in texts]
        return prompts, not isinstance(source, str)

    def _conversation(self, messages: Any) -> _Prompt:
        check_messages(messages)
        text = self.template.render(messages)
        return _Prompt(text, self.tokenizer.encode(text, special=False), Reply)

    @property
    def template(self) -> ChatTemplate:
        """The chat template of the tokenizer. Raises ArgumentError where it has none."""
        found: ChatTemplate | None = self.tokenizer.template
        if found is None:
            raise ArgumentError("the model has no chat template", fix="use one that was trained on conversations")
        return found

    def _prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode(text) or self._special("bos_token")[:1]

    def _special(self, role: str) -> list[int]:
        """Tokens of a role by config.json, or by the tokenizer's settings where that is silent; those that exist."""
        found = self.settings.get(f"{role}_id", self.tokenizer.number(self.tokenizer.names.get(role, "")))
        tokens = found if isinstance(found, list) else [found]
        return [n for n in tokens if type(n) is int and 0 <= n < self.tokenizer.size]


class TextToText(TextGeneration):
    """Texts in, other texts out: translations, summaries and the like, by an encoder–decoder."""

    name = "text-to-text"
    takes = "encoder-decoder"
    result = Answer

    def _started(self, model: Model, prompts: Sequence[_Prompt]) -> tuple[generation.Decoder, list[list[int]]]:
        network: Any = model.network
        tokens, mask = generation.pad_left([prompt.tokens for prompt in prompts])
        order = np.argsort(~mask, axis=1, kind="stable")  # padding behind the text, where positions count from 0
        tokens, mask = np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)
        start = self._special("decoder_start_token")[:1] or [network.config.start]
        return Reading(network, tokens, mask), [list(start) for _ in prompts]

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """A text of 16 tokens to read, and one of 8 that was written."""
        return TensorType((1, 16), int64), TensorType((1, 8), int64)


def _pieces(steps: Iterator[generation.Step], written: Continuation, ends: Sequence[int]) -> Iterator[str]:
    for step in steps:
        token = int(step.tokens[0])
        if token not in ends and (piece := written.push(token)):
            yield piece
        if written.stopped:
            return
    if rest := written.finish():
        yield rest
