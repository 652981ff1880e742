"""Text that is written token by token: pieces that are final, letters that are whole, and texts at which to stop."""

from __future__ import annotations

from collections.abc import Sequence

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.text.tokenizer import Tokenizer

_BROKEN = "\ufffd"  # what a decoder makes of bytes that are no whole letter
_WAITING = 64  # tokens after which bytes that make no letter are taken as they are


class TextStream:
    """Text of tokens that come one by one; a letter that is not complete yet is held back.

    Only the last few tokens are decoded each time, so that a long text takes time in proportion to its length.
    before: tokens of the prompt, whose text is not repeated.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(before)
        self._given = len(tokenizer.decode(self._tokens))  # letters of these tokens that were given
        self._whole = len(self._tokens)  # tokens that make whole letters

    def push(self, token: int) -> str:
        """The text that this token adds."""
        self._tokens.append(token)
        return self._take(last=len(self._tokens) - self._whole > _WAITING)

    def finish(self) -> str:
        """What is left at the end."""
        return self._take(last=True)

    def _take(self, last: bool) -> str:
        text = self._tokenizer.decode(self._tokens)
        certain = text if last else text.rstrip(_BROKEN)
        new = certain[self._given :]
        self._given = max(self._given, len(certain))
        if len(certain) == len(text) and self._whole < len(self._tokens):
            # Later tokens are decoded after these, not alone: decoders drop a space at the start of all.
            after = self._tokens[self._whole :]
            if shown := self._tokenizer.decode(after):
                self._tokens, self._given = after, len(shown)
            self._whole = len(self._tokens)
        return new


class Continuation:
    """A continuation as it is written, up to the first of some stop texts, which is left out.

    Text that may turn out to be the start of a stop text is held back. text: what was given so far. stopped: whether a
    stop text was met.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._stream = TextStream(tokenizer, before)
        self._stop = stop
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now, after one more token."""
        return self._pass(self._stream.push(token), last=False)

    def finish(self) -> str:
        """What is left at the end."""
        return self._pass(self._stream.finish(), last=True)

    def _pass(self, new: str, last: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + new
        places = [place for place in (held.find(text) for text in self._stop) if place >= 0]
        if places:
            self.stopped = True
            given, self._held = held[: min(places)], ""
        else:
            keep = 0 if last else max((_overlap(held, text) for text in self._stop), default=0)
            given, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self.text += given
        return given


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of a text are the start of a stop text."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def stop_texts(stop: object) -> tuple[str, ...]:
    """Stop texts as they were given, one or several. Raises ArgumentError for what is none."""
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise ArgumentError(
            "stop is wrong", expected="a text, or a list of texts that are not empty", received=repr(stop)
        )
    return tuple(texts)
