"""Bringing weights onto this machine: the bar that shows it, and the folder of a model of several files."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import StorageError

if TYPE_CHECKING:
    from zoonet.weights import Entry, Progress

__all__ = ["download_bar", "fetched", "folder_of"]


def fetched(what: Entry | str, *, progress: Progress | None = None) -> pathlib.Path:
    """The file of an entry or a reference, or the folder of one with several, downloaded if it is not here yet.

    progress: as for `weights.fetch`; a bar on standard error where None, if that is a terminal. Raises as that does.
    """
    from zoonet import weights

    with download_bar() if progress is None else _given(progress) as shown:
        if isinstance(what, str):
            return weights.fetch(what, progress=shown)
        if not what.companions:
            return weights.fetch(what, progress=shown)
        return folder_of(what.file_name, weights.fetch_files(what, progress=shown))


def folder_of(weights_file: str, files: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """The folder in which files lie under their names. Raises StorageError if they are spread over several."""
    folders = {name: path.parents[name.count("/")] for name, path in files.items()}
    folder = folders[weights_file]
    if strays := [name for name, other in folders.items() if other != folder or files[name] != folder / name]:
        raise StorageError(
            f"the files of one model lie in several folders: {folder} has no {strays[0]}",
            fix="make the cache writable, or remove the model from it with `zoonet cache remove`",
        )
    return folder


@contextmanager
def _given(progress: Progress) -> Iterator[Progress]:
    yield progress


@contextmanager
def download_bar() -> Iterator[Progress]:
    """A progress function that draws a bar for the file under way, on a terminal's standard error or in a notebook.

    rich is imported when the first bytes arrive, so that loading from a cache costs nothing.
    """
    bar: Any = None
    tasks: dict[str, Any] = {}

    def progress(name: str, done: int, total: int | None) -> None:
        nonlocal bar
        if bar is None:
            bar = _bar()
            bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(name if len(name) <= 32 else name[:31] + "…", total=total, completed=done)
        bar.update(tasks[name], completed=done, total=total, visible=total is None or done < total)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.stop()


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(file=sys.stderr, markup=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    return Progress(
        *columns, console=console, transient=True, expand=True, disable=not (console.is_terminal or console.is_jupyter)
    )
