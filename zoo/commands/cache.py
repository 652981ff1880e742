"""`zoonet cache`: what was downloaded, where it is, whether it is still right, and its removal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoonet import weights
from zoonet.ops.errors import ArgumentError, UnknownModelError
from zoonet.weights.settings import hub_cache_folder
from zoonet.zoo.commands.output import progress_bar, size_text
from zoonet.zoo.results import printable
from zoonet.zoo.sources import check_downloadable

if TYPE_CHECKING:
    from zoonet.weights.cache import CachedFile

_Name = Annotated[str | None, typer.Argument(help="A name from `zoonet list`, org/name, or a URL; all where absent.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def application() -> typer.Typer:
    """The commands below `zoonet cache`."""
    app = typer.Typer(
        help="List, locate, verify and remove downloaded weights.", no_args_is_help=True, rich_markup_mode=None
    )
    for name, command in (("list", list_files), ("path", path), ("verify", verify), ("remove", remove)):
        app.command(name)(command)
    return app


def list_files(name: _Name = None, as_json: _Json = False) -> None:
    """List downloaded files and their sizes. Those in Hugging Face's cache are shared with other tools."""
    files = weights.cache.list(_known(name))
    if as_json:
        print(json.dumps([_facts(file) for file in files], indent=2, ensure_ascii=False))
        return
    _print_files(files)
    # One file may stand under several revisions of a repository.
    total = sum({file.contents: file.size for file in files}.values())
    where = f" in {' and '.join(_folders(files))}" if name is None else ""
    print(f"{len(files)} files, {size_text(total)}{where}")


def path(name: _Name = None) -> None:
    """Print where weights are. Without a name: the folder of zoonet's own cache."""
    print(weights.cache.path(_known(name)))


def verify(name: _Name = None, as_json: _Json = False) -> None:
    """Compare the hashes of downloaded files. Reads them in full; status 1 where one is not as it should be."""
    with progress_bar("verifying") as progress:
        outcomes = weights.cache.verify(_known(name), progress=progress)
    wrong = [outcome for outcome in outcomes if outcome.problem is not None]
    if as_json:
        described: list[dict[str, Any]] = [
            {**_facts(o.file), "check": o.strength, "problem": list(o.problem) if o.problem else None} for o in outcomes
        ]
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        for outcome in outcomes:
            verdict = "ok" if outcome.problem is None else "WRONG"
            print(f"{verdict:<6}{outcome.strength:<14}{printable(_title(outcome.file))}")
            if outcome.problem is not None:
                print(f"      expected {outcome.problem[0]}\n      received {outcome.problem[1]}")
        print(f"{len(outcomes)} files, {len(wrong)} wrong")
        if wrong:
            print("Fix: `zoonet cache remove NAME`, then download again")
    if wrong:
        raise typer.Exit(1)


def remove(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="What to remove.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of zoonet's own cache.")] = False,
) -> None:
    """Remove downloaded weights. --all leaves Hugging Face's cache alone, since other tools use it too."""
    if bool(names) == everything:
        raise ArgumentError("name what to remove", expected="names, or --all for all of zoonet's own cache")
    chosen: list[str | None] = [*(names or ())] if names else [None]
    for name in chosen:
        removed = weights.cache.remove(_known(name))
        if name is not None and not removed:
            raise UnknownModelError(f"{name} is not in the cache", fix="`zoonet cache list` shows what is")
        _print_files(removed)
        print(f"removed {len(removed)} files, {size_text(sum(file.size for file in removed))}")


def _known(name: str | None) -> str | None:
    if name is not None:
        check_downloadable(name)
    return name


def _folders(files: Sequence[CachedFile]) -> list[str]:
    """The caches that files lie in; zoonet's own where there are none."""
    own, hub = weights.cache.path(), hub_cache_folder()
    found = [folder for folder in (own, hub) if any(file.path.is_relative_to(folder) for file in files)]
    return [str(folder) for folder in found or [own]]


def _facts(file: CachedFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "path": str(file.path),
        "size": file.size,
        "cache": file.kind,
        "source": file.source,
    }


def _title(file: CachedFile) -> str:
    return file.name if file.name.endswith(file.path.name) else f"{file.name} ({file.path.name})"


def _print_files(files: Sequence[CachedFile]) -> None:
    for file in files:
        print(f"{size_text(file.size):>8}  {printable(_title(file))}\n{'':>10}{printable(str(file.path))}")
