"""What the commands share: the console, and the progress bar."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoonet.zoo.results import printable

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a plain file of full width where the output is not one."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else 200)


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
