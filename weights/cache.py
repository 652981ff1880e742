"""What lies in the caches: list, locate, verify and remove.

Our own cache holds files from URLs; the Hugging Face cache is shared with other tools, which use it too.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoonet.ops.errors import StorageError, UnknownModelError
from zoonet.weights.download import cached, resolve
from zoonet.weights.entry import Entry
from zoonet.weights.hub import expected_by_etag, repositories
from zoonet.weights.integrity import Expected, hash_file
from zoonet.weights.registry import entries
from zoonet.weights.settings import cache_folder, hub_cache_folder
from zoonet.weights.source import HubReference, Source
from zoonet.weights.store import Slot, read_record


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file in a cache.

    name: catalog name where there is one, else the source. kind: "zoonet" or "hugging-face". size: bytes.
    expected: size and hashes by which it can be verified. contents: the file itself behind a link.
    """

    name: str
    path: Path
    size: int
    kind: str
    source: str
    expected: Expected
    contents: Path


@dataclass(frozen=True, slots=True)
class Verified:
    """Outcome for one file. problem: None if it is right, else (expected, received)."""

    file: CachedFile
    problem: tuple[str, str] | None
    strength: str


def path(name: str | None = None) -> Path:
    """Our cache's folder, or where a name's weights are cached.

    Raises UnknownModelError if the name is unknown or not cached.
    """
    if name is None:
        return cache_folder()
    found = cached(name)
    if found is None:
        raise UnknownModelError(f"{name} is not cached", fix=f"`zoonet download {name}`")
    return found


def list(name: str | None = None) -> tuple[CachedFile, ...]:
    """Cached files in our cache and in the Hugging Face cache, of one name or of all, sorted by name."""
    target = None if name is None else resolve(name)
    files = sorted((*_ours(), *_hub()), key=lambda file: (file.name.lower(), str(file.path)))
    return tuple(file for file in files if target is None or _belongs(file, target))


def _names() -> dict[str, Entry]:
    return {str(source): entry for entry in entries() for source in entry.sources}


def _ours() -> Iterator[CachedFile]:
    names = _names()
    for record_path in sorted(cache_folder().glob("files/*/record.json")):
        record = read_record(record_path.parent)
        file = record_path.parent / record.name if record is not None and "/" not in record.name else None
        if record is None or file is None or not file.is_file():
            continue
        entry = names.get(record.source)
        # The record tells what arrived, so a later change shows even where nothing is published.
        expected = Expected(sha256=(record.sha256,) if re.fullmatch(r"[0-9a-f]{64}", record.sha256) else ())
        yield CachedFile(
            entry.name if entry else record.source,
            file,
            file.stat().st_size,
            "zoonet",
            record.source,
            expected,
            file,
        )


def _hub() -> Iterator[CachedFile]:
    names = _names()
    for root in (hub_cache_folder(), cache_folder() / "hub"):
        for folder in sorted(root.glob("models--*")):
            repository = folder.name.removeprefix("models--").replace("--", "/")
            for file in sorted((folder / "snapshots").glob("*/**/*")):
                if file.name.startswith(".") or not file.is_file():
                    continue
                commit, _, inside = file.relative_to(folder / "snapshots").as_posix().partition("/")
                entry = names.get(str(HubReference(repository, commit, inside)))
                for revision in _revisions(folder, commit) if entry is None else ():
                    entry = entry or names.get(str(HubReference(repository, revision, inside)))
                contents = Path(os.path.realpath(file))
                source = str(HubReference(repository, commit, inside))
                name = entry.name if entry else source
                yield CachedFile(
                    name,
                    file,
                    file.stat().st_size,
                    "hugging-face",
                    source,
                    expected_by_etag(contents.name),
                    contents,
                )


def _revisions(folder: Path, commit: str) -> Iterator[str]:
    refs = folder / "refs"
    for file in sorted(refs.rglob("*")) if refs.is_dir() else ():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if file.is_file() and file.read_text(encoding="utf-8").strip() == commit:
                yield file.relative_to(refs).as_posix()


def _belongs(file: CachedFile, target: Entry | HubReference | tuple[Source, Expected]) -> bool:
    if isinstance(target, Entry):
        if file.name == target.name:
            return True
        beside = [source.beside(item.name) for source in target.sources for item in target.companions]
        return file.source in {str(source) for source in beside}
    if isinstance(target, tuple):
        source = target[0]
        if source.kind != "hugging-face":
            return file.path.parent == Slot(source).folder
        target = HubReference(source.location, source.revision, source.file)
    reference = HubReference.parse(file.source) if file.kind == "hugging-face" else None
    if reference is None or reference.repository != target.repository or target.file not in ("", reference.file):
        return False
    # What came from a mirror lies in our own cache, under its revision's name.
    return reference.revision in {
        target.revision,
        *(place.commit(target.revision) for place in repositories(target.repository)),
    }


def verify(name: str | None = None, *, progress: Callable[[int, int], None] | None = None) -> tuple[Verified, ...]:
    """Read cached files in full and compare their hashes with what they should have. Changes nothing.

    progress: called with the bytes that were read and those that are to be read, before each file and at the end.
    """
    outcomes = []
    files = list(name)
    done, total = 0, sum(file.size for file in files)
    for file in files:
        if progress is not None:
            progress(done, total)
        done += file.size
        found = hash_file(file.contents, md5=bool(file.expected.md5), git=bool(file.expected.git))
        outcomes.append(Verified(file, file.expected.problem(found), file.expected.strength))
    if progress is not None:
        progress(total, total)
    return tuple(outcomes)


def remove(name: str | None = None) -> tuple[CachedFile, ...]:
    """Remove a name's files from the caches, or without a name all of our own cache, unfinished downloads
    included.

    Files in the Hugging Face cache go by name only, since other tools use it too; a blob goes when no commit
    needs it any more. Returns what was removed. Raises UnknownModelError, and StorageError if the cache
    cannot be written.
    """
    files = tuple(file for file in list(name) if name is not None or not file.path.is_relative_to(hub_cache_folder()))
    try:
        for file in files:
            _remove_file(file)
        if name is None:
            for folder in ("files", "hub", "locks"):
                if (cache_folder() / folder).is_dir():
                    shutil.rmtree(cache_folder() / folder)
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be removed", received=error.strerror) from None
    return files


def _remove_file(file: CachedFile) -> None:
    if file.kind == "zoonet":
        shutil.rmtree(file.path.parent)
        return
    file.path.unlink(missing_ok=True)
    snapshots = next(parent for parent in file.path.parents if parent.name == "snapshots")
    for folder in builtins.list(file.path.parents):
        if folder == snapshots:
            break
        with contextlib.suppress(OSError):
            folder.rmdir()
    still = any(os.path.realpath(other) == str(file.contents) for other in snapshots.rglob("*") if other.is_symlink())
    if not still and file.contents.parent.name == "blobs":
        file.contents.unlink(missing_ok=True)
