"""Bringing weights onto this machine: the bar that shows it, and the folder of a model of several files."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import ArgumentError, StorageError

if TYPE_CHECKING:
    from zoonet.weights import Entry, Progress

__all__ = ["download", "download_bar", "fetched"]


def download(name: str, *, progress: Progress | None = None) -> pathlib.Path:
    """Bring weights onto this machine, if they are not here yet, and return where they are; nothing is loaded.

    name: what `load` takes and is not a path: a name of the catalog, `hf://org/name[@revision]`, `org/name`, or
    `https://host/file#sha256=…`. progress: called as progress(file name, bytes so far, bytes in all or None); a bar on
    standard error where None, if that is a terminal. The path is a file, or a folder for a model of several files.
    Later loads open no connection. Raises UnknownModelError, DownloadError, OfflineError, StorageError, IntegrityError.
    """
    from zoonet.zoo.sources import EMBEDDED, locate, resolved

    if not isinstance(name, str) or not name:
        raise ArgumentError("download takes a name", expected="such as 'resnet50.tv_in1k'", received=repr(name))
    return locate(name).path if name in EMBEDDED else fetched(resolved(name), progress=progress)


def fetched(what: Entry | str, *, progress: Progress | None = None) -> pathlib.Path:
    """The file or folder of an entry or a reference; see `download`."""
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
    """A progress function that draws one bar per file on standard error, if that is a terminal or a notebook.

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
            tasks[name] = bar.add_task(name if len(name) <= 32 else name[:31] + "…", total=total)
        bar.update(tasks[name], completed=done, total=total)

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
