"""What the commands share: the console, the progress bar, and how facts and sizes are written."""

from __future__ import annotations

import os
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoonet.zoo.results import printable

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 1000
_KEY = 16


def width() -> int:
    """Columns of the terminal; where the output is not one, those that COLUMNS says, or many."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return _WIDE


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a plain file of full width where the output is not one."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, width=None if stderr else width())


def size_text(size: int | None) -> str:
    """A number of bytes in three digits: "97.8 MB"; "" for None."""
    return "" if size is None else _scaled(size, (" B", " kB", " MB", " GB", " TB"))


def count_text(number: int | None) -> str:
    """A large number in three digits: "25.6 M"; "" for None."""
    return "" if number is None else _scaled(number, ("", " k", " M", " G", " T"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    step = 0
    while number >= 999.5 and step + 1 < len(units):
        number, step = number / 1000, step + 1
    digits = 0 if not step or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[step]}"


def facts_text(facts: Mapping[str, Any]) -> str:
    """Facts as lines "key:   value", long values broken at the width of the terminal; empty facts are left out."""
    lines = []
    for key, value in facts.items():
        if value in ("", None, {}, []):
            continue
        label = f"{key + ':':<{_KEY}}"
        for text in value if isinstance(value, tuple) else (value,):
            lines += _broken(label, text_of(text))
            label = " " * _KEY
    return "\n".join(lines)


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for JSON: tuples of lines become lists."""
    return {key: [*value] if isinstance(value, tuple) else value for key, value in facts.items()}


def _broken(label: str, text: str) -> list[str]:
    room = max(20, width() - _KEY)
    words = " ".join(piece for word in printable(text).split(" ") for piece in _pieces(word, room))
    parts = textwrap.wrap(words, room, break_on_hyphens=False) or [""]
    return [label + parts[0], *(" " * _KEY + part for part in parts[1:])]


def _pieces(word: str, room: int) -> list[str]:
    """A word that is longer than a line, such as a URL, in pieces that end with a slash where there is one."""
    pieces = []
    while len(word) > room:
        cut = word.rfind("/", 1, room) + 1 or room
        pieces.append(word[:cut])
        word = word[cut:]
    return [*pieces, word]


def text_of(value: Any) -> str:
    """A fact as text: lists and dicts shortened, without what is not set; integers with commas."""
    if isinstance(value, list):
        texts = list(map(str, value))
        return ", ".join(texts[:10]) + (f", … ({len(texts)} in all)" if len(texts) > 10 else "")
    if isinstance(value, dict):
        text = ", ".join(
            f"{key}={item:.6g}" if isinstance(item, float) else f"{key}={item}"
            for key, item in value.items()
            if item is not None
        )
        return text if len(text) <= 500 else text[:500] + " …"
    return f"{value:,}" if isinstance(value, int) else str(value)


def shown(text: str) -> str:
    """A text that a model wrote, as a terminal may have it: control characters other than line ends are spelled out."""
    return "".join(printable(c) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in text)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A function progress(done, total) that draws a bar on stderr, if that is a terminal and there is more to do."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = None

        def progress(done: int, total: int) -> None:
            nonlocal task
            if task is None and done < total:
                task = bar.add_task(description, total=total)
            if task is not None:
                bar.update(task, completed=done)

        yield progress
