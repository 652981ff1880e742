"""Regular expressions in the syntax of RE2, matched in time that grows with pattern times text, whatever they are.

A pattern comes from a file; Python's own engine would backtrack for ever on some. Thompson's construction instead: the
pattern becomes a small graph of states, and all of them are followed at once.

Source: Thompson 1968, and RE2's page on its syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from zoonet.ops.errors import ArgumentError

__all__ = ["Pattern"]

#: Most states of a pattern, as repetitions multiply them.
_STATES = 20_000
#: Steps that are remembered: texts repeat themselves, and a step from many states is slow.
_STEPS_KNOWN = 64
_DEPTH = 100
#: Classes of POSIX as Python writes them inside brackets.
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ",
    "upper": "A-Z", "word": r"0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}


#: A part of a pattern: its kind, and what it consists of.
_Part: TypeAlias = "tuple[str, Any]"


@dataclass
class _State:
    """kind: "char" (argument: a compiled class of one character), "assert" (its name), "split" or "match"."""

    kind: str
    argument: Any = None
    next: int = -1
    other: int = -1


class Pattern:
    """A pattern that says of texts whether they match it from beginning to end. Raises ArgumentError if it is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.flags = ""
        self.steps = 0
        self.states: list[_State] = [_State("match")]
        whole = self._alternatives(0)
        if self.at < len(source):
            raise self._error("a closing parenthesis without an opening one")
        self.start = self._build(whole, 0)
        self.has_asserts = any(state.kind == "assert" for state in self.states)
        self.steps_known: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        current = self._closure({self.start}, text, 0)
        for position in range(len(text)):
            current = self._after(current, text, position)
            if not current:
                return False
        return 0 in current

    def longest(self, text: str, start: int) -> int | None:
        """Where the longest match that begins at a position ends; None where none begins there."""
        current = self._closure({self.start}, text, start)
        end = start if 0 in current else None
        for position in range(start, len(text)):
            current = self._after(current, text, position)
            if not current:
                break
            if 0 in current:
                end = position + 1
        return end

    def _after(self, current: frozenset[int], text: str, position: int) -> frozenset[int]:
        """The states after the character at a position; the last few steps are remembered."""
        character = text[position]
        known = self.steps_known.get((current, character))
        if known is not None:
            return known
        reached = {
            self.states[i].next
            for i in current
            if self.states[i].kind == "char" and self.states[i].argument.fullmatch(character)
        }
        after = self._closure(reached, text, position + 1)
        if not self.has_asserts:
            if len(self.steps_known) >= _STEPS_KNOWN:
                self.steps_known.clear()
            self.steps_known[current, character] = after
        return after

    def _closure(self, states: set[int], text: str, position: int) -> frozenset[int]:
        """The states that are reached without reading a character."""
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            state = self.states[number]
            if state.kind == "split":
                waiting += (state.next, state.other)
            elif state.kind == "assert" and _holds(state.argument, text, position):
                waiting.append(state.next)
        return frozenset(found)

    # -- the graph, from its end to its beginning: each part gets the state that follows it -------------------------

    def _build(self, part: _Part, following: int) -> int:
        """The first state of a part of the pattern."""
        self.steps += 1
        if self.steps > 10 * _STATES:
            raise self._error("more repetitions than can be held")
        kind, content = part
        if kind == "sequence":
            for item in reversed(content):
                following = self._build(item, following)
            return following
        if kind == "alternatives":
            starts = [self._build(item, following) for item in content]
            start = starts.pop()
            while starts:
                start = self._state("split", None, starts.pop(), start)
            return start
        if kind == "repeated":
            item, (least, most) = content
            return self._repeated(item, least, most, following)
        return self._state(kind, content, following)

    def _repeated(self, part: _Part, least: int, most: int | None, following: int) -> int:
        if most is None:
            loop = self._state("split", None, -1, following)
            self.states[loop].next = self._build(part, loop)
            following = loop
        else:
            after = following
            for _ in range(most - least):
                following = self._state("split", None, self._build(part, following), after)
        for _ in range(least):
            following = self._build(part, following)
        return following

    def _state(self, kind: str, argument: Any = None, following: int = -1, other: int = -1) -> int:
        if len(self.states) >= _STATES:
            raise self._error("more repetitions than can be held", f"at most {_STATES} states")
        self.states.append(_State(kind, argument, following, other))
        return len(self.states) - 1

    # -- reading ---------------------------------------------------------------------------------------------------

    def _alternatives(self, depth: int) -> _Part:
        if depth > _DEPTH:
            raise self._error("groups within groups beyond reason")
        choices = [self._sequence(depth)]
        while self.source.startswith("|", self.at):
            self.at += 1
            choices.append(self._sequence(depth))
        return ("alternatives", choices) if len(choices) > 1 else choices[0]

    def _sequence(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            if self.source.startswith(r"\Q", self.at):
                parts += self._quoted()
                if not parts:
                    continue
            else:
                parts.append(self._atom(depth))
            bounds = self._repetitions()
            if bounds != (1, 1):
                parts[-1] = ("repeated", (parts[-1], bounds))
        return "sequence", parts

    def _quoted(self) -> list[_Part]:
        end = self.source.find(r"\E", self.at)
        literal = self.source[self.at + 2 : end if end >= 0 else len(self.source)]
        self.at = end + 2 if end >= 0 else len(self.source)
        return [self._class(re.escape(letter)) for letter in literal]

    def _atom(self, depth: int) -> _Part:
        character = self.source[self.at]
        if character == "(":
            return self._group(depth)
        if character in "*+?":
            raise self._error(f"{character!r} repeats nothing")
        self.at += 1
        if character == "[":
            return self._class("[" + self._brackets() + "]")
        if character == ".":
            return self._class("." if "s" in self.flags else r"[^\n]")
        if character in "^$":
            lines = "m" in self.flags
            name = ("line start" if lines else "start") if character == "^" else ("line end" if lines else "end")
            return "assert", name
        if character != "\\":
            return self._class(re.escape(character))
        escaped = self._next("a backslash at the end")
        if escaped in "AzbB":
            return "assert", {"A": "start", "z": "end", "b": "boundary", "B": "no boundary"}[escaped]
        return self._class(self._escape(escaped))

    def _group(self, depth: int) -> _Part:
        self.at += 1
        before = self.flags
        if self.source.startswith("?", self.at):
            opened = re.compile(r"\?(?:P?<[A-Za-z_]\w*>|([imsU]*)(?:-([imsU]+))?([:)]))").match(self.source, self.at)
            if opened is None:
                raise self._error("a group of a kind that RE2 does not have")
            self.at = opened.end()
            if opened[3]:
                self.flags = "".join({*self.flags, *opened[1]} - {*(opened[2] or "")})
            if opened[3] == ")":  # flags for what follows
                return "sequence", []
        part = self._alternatives(depth + 1)
        if not self.source.startswith(")", self.at):
            raise self._error("a group that is not closed")
        self.at += 1
        self.flags = before
        return part

    def _repetitions(self) -> tuple[int, int | None]:
        bounds: tuple[int, int | None] = (1, 1)
        found = re.compile(r"([*+?])|\{(\d+)(,?)(\d*)\}").match(self.source, self.at)
        if found is None:
            return bounds
        self.at = found.end()
        if found[1]:
            bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
        else:
            if max(len(found[2]), len(found[4])) > 4:
                raise self._error("a repetition beyond 1000")
            least = int(found[2])
            bounds = (least, int(found[4]) if found[4] else None if found[3] else least)
            if least > 1000 or (bounds[1] is not None and not least <= bounds[1] <= 1000):
                raise self._error("a repetition that is impossible, or beyond 1000")
        if self.source.startswith("?", self.at):  # lazy: the same texts match
            self.at += 1
        if self.source[self.at : self.at + 1] in ("*", "+", "?") and self.at < len(self.source):
            raise self._error("a repetition of a repetition")
        return bounds

    # -- classes of one character, as Python writes them ----------------------------------------------------------

    def _class(self, text: str) -> _Part:
        flags = re.ASCII | (re.DOTALL if text == "." else 0)
        try:
            compiled = re.compile(text, (re.IGNORECASE if "i" in self.flags else 0) | flags)
        except (re.error, OverflowError) as error:
            raise self._error(f"a wrong class of characters ({error})") from None
        return "char", compiled

    def _next(self, message: str) -> str:
        if self.at >= len(self.source):
            raise self._error(message)
        self.at += 1
        return self.source[self.at - 1]

    def _escape(self, letter: str) -> str:
        if letter in "dDsSwW":
            return f"\\{letter}"
        if letter in _CONTROLS:
            return re.escape(_CONTROLS[letter])
        code = re.compile(r"x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([0-7]{3})").match(self.source, self.at - 1)
        if code is not None:
            self.at = code.end()
            number = int(code[1] or code[2] or code[3], 8 if code[3] else 16)
            if number > 0x10FFFF:
                raise self._error("no such character")
            return re.escape(chr(number))
        if letter.isalnum():
            raise self._error(f"the escape \\{letter} is not supported")
        return re.escape(letter)

    def _brackets(self) -> str:
        parts = []
        if self.source.startswith("^", self.at):
            self.at += 1
            parts.append("^")
        first = True
        while True:
            character = self._next("a class that is not closed")
            if character == "]" and not first:
                return "".join(parts)
            first = False
            posix = re.compile(r":(\^?)([a-z]+):\]").match(self.source, self.at) if character == "[" else None
            if posix is not None:
                if posix[2] not in _POSIX or posix[1]:
                    raise self._error("an unknown class of POSIX")
                self.at = posix.end()
                parts.append(_POSIX[posix[2]])
            elif character == "\\":
                parts.append(self._escape(self._next("a backslash at the end")))
            else:
                lone = character == "-" and parts[-1:] != ["-"]
                parts.append("-" if lone else re.escape(character))

    def _error(self, what: str, expected: str = "the syntax of RE2") -> ArgumentError:
        return ArgumentError(
            f"the pattern has {what}, at {self.at}", expected=expected, received=repr(self.source[:80])
        )


def _holds(name: str, text: str, position: int) -> bool:
    """Whether an assertion holds between the characters at position - 1 and position."""
    if name == "start":
        return position == 0
    if name == "end":
        return position == len(text)
    if name == "line start":
        return position == 0 or text[position - 1] == "\n"
    if name == "line end":
        return position == len(text) or text[position] == "\n"
    before = position > 0 and _is_word(text[position - 1])
    after = position < len(text) and _is_word(text[position])
    return (before != after) == (name == "boundary")


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())
