"""From a name to files on disk: caches first, then installed packages, then the network, source by source."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from zoonet.ops.errors import (
    DownloadError,
    IntegrityError,
    NotAvailableError,
    OfflineError,
    StorageError,
    UnknownModelError,
)
from zoonet.weights.bring import (
    Job,
    bring_one,
    find_cached,
    known_missing,
    matches,
    note_missing,
)
from zoonet.weights.entry import Entry
from zoonet.weights.integrity import Expected
from zoonet.weights.registry import find
from zoonet.weights.repository import (
    COMPANIONS,
    INDEX_SUFFIX,
    cached_repository,
    fetch_repository,
    read_index,
    weights_in,
)
from zoonet.weights.settings import Progress, Settings, is_hub
from zoonet.weights.source import HubReference, Source, plain_scheme
from zoonet.weights.store import link_or_copy


class LicenceWarning(UserWarning):
    """Weights have a licence that reaches the software around them, or forbids a use."""


def fetch(what: Entry | str, *, progress: Progress | None = None, settings: Settings | None = None) -> Path:
    """Path of the weights, downloaded if they are nowhere on this machine.

    what: an entry or its name; `https://host/file`, with `#sha256=…` to have it verified; or
    `hf://organisation/name[@revision]` and plain `organisation/name`. A Hugging Face repository gives the
    folder that holds config.json, the weights and the tokenizer's files;
    `hf://organisation/name[@revision]/file` and all else give a file; with an index of shards come its
    shards. The hub's own pages and download links are taken as the repositories and files that they show.
    progress: called as progress(file name, bytes so far, bytes in all or None).

    Cached files are used without opening a connection. Raises UnknownModelError, OfflineError, DownloadError,
    StorageError or IntegrityError; then nothing new is visible in any cache.
    """
    job = Job.start(settings, progress)
    if isinstance(what, Entry):
        return _entry_files(what, job)[what.file_name]
    target = resolve(what)
    if isinstance(target, Entry):
        return _entry_files(target, job)[target.file_name]
    if isinstance(target, HubReference):
        return fetch_repository(target, job)
    source, expected = target
    path = bring_one((source,), expected, job)
    if source.file_name.endswith(INDEX_SUFFIX):
        _bring_shards(source, path, job)
    return path


def _bring_shards(source: Source, index: Path, job: Job) -> dict[str, Path]:
    """Bring the files that an index names, which lie beside it, and have them beside it on disk too; by name."""
    shards = {}
    for name in read_index(index):
        shards[name] = bring_one((source.beside(name),), Expected(), job)
        place = index.parent / name
        if source.kind == "url" and not (place.exists() and place.samefile(shards[name])):
            link_or_copy(shards[name], place)
    return shards


def fetch_files(
    entry: Entry, *, progress: Progress | None = None, settings: Settings | None = None
) -> Mapping[str, Path]:
    """The weights file of an entry and the companions that exist, by name. Raises as `fetch` does."""
    return _entry_files(entry, Job.start(settings, progress))


def fetch_sources(
    what: str, *, progress: Progress | None = None, settings: Settings | None = None
) -> tuple[tuple[Source, Expected, Path], ...]:
    """All files that a name stands for, each with the source that a mirror would stand in for."""
    job = Job.start(settings, progress)
    target = resolve(what)
    if isinstance(target, Entry):
        remote = next(source for source in target.sources if source.kind != "package")
        expected = {target.file_name: target.expected} | {item.name: item.expected for item in target.companions}
        return tuple(
            (remote if name == target.file_name else remote.beside(name), expected[name], path)
            for name, path in _entry_files(target, job).items()
        )
    if isinstance(target, HubReference):
        folder = fetch_repository(target, job)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        names = [path.relative_to(folder).as_posix() for path in files]
        return tuple(
            (Source("hugging-face", target.repository, name, target.revision), Expected(), path)
            for name, path in zip(names, files, strict=True)
            if name in COMPANIONS or name in weights_in(folder)
        )
    source, expectation = target
    path = bring_one((source,), expectation, job)
    shards = _bring_shards(source, path, job) if source.file_name.endswith(INDEX_SUFFIX) else {}
    return ((source, expectation, path), *((source.beside(name), Expected(), shards[name]) for name in shards))


def resolve(what: str) -> Entry | HubReference | tuple[Source, Expected]:
    """What a text names: an entry, a repository, or one file. Opens no connection.

    Raises UnknownModelError with near names, or DownloadError for a malformed reference.
    """
    what = plain_scheme(what)
    try:
        if what.startswith(("http://", "https://")):
            url, _, fragment = what.partition("#")
            kind, _, digest = fragment.lower().partition("=")
            if fragment and kind not in ("sha256", "md5"):
                raise ValueError(f"#{fragment} is not #sha256=… or #md5=…")
            hashes = {kind: (digest,)}
            expected = Expected(sha256=hashes.get("sha256", ()), md5=hashes.get("md5", ()))
            page = HubReference.from_url(urlsplit(url).path) if is_hub(url) else None
            if page is not None and (page.file or not expected.has_hash):
                return (Source.parse(str(page)), expected) if page.file else page
            return Source.parse(url), expected
        if what.startswith("hf://"):
            reference = HubReference.parse(what)
            return (Source.parse(what), Expected()) if reference.file else reference
    except ValueError as error:
        shown = re.sub(r"//[^/?#]*@", "//", re.sub(r"\?[^#]*", "", what))  # without a password and a signature
        raise DownloadError(f"{shown!r} cannot be read as a reference", received=error) from None
    try:
        return find(what)
    except UnknownModelError:
        try:
            return HubReference.parse(what)
        except ValueError:
            pass
        raise


def cached(what: Entry | str, *, link: bool = True) -> Path | None:
    """Where `fetch` would find it in a cache, or None. Opens no connection and hashes nothing.

    link: whether contents that the Hugging Face cache has for another revision are linked under their name, as `fetch`
    does; if not, their own path is returned.
    """
    target = resolve(what) if isinstance(what, str) else what
    if isinstance(target, Entry):
        return find_cached(target.sources, target.expected, link=link)
    if isinstance(target, HubReference):
        return cached_repository(target, complete=False)
    return find_cached((target[0],), target[1], link=link)


def _entry_files(entry: Entry, job: Job) -> dict[str, Path]:
    if entry.warning:
        warnings.warn(entry.warning, LicenceWarning, stacklevel=4)
    packaged = find_cached(entry.sources, entry.expected) is None
    for source in entry.sources if packaged else ():
        if source.kind == "package" and (found := _packaged(entry, source)):
            return found
    sources = tuple(source for source in entry.sources if source.kind != "package")
    if not sources:
        raise NotAvailableError(
            f"{entry.name} comes with the package {entry.sources[0].location} only",
            fix="install that package",
        )
    try:
        files = {entry.file_name: bring_one(sources, entry.expected, job)}
    except (DownloadError, IntegrityError) as error:
        raise _with_packages(error, entry) from None
    for item in entry.companions:
        beside = tuple(source.beside(item.name) for source in sources)
        if not item.required and all(known_missing(source) for source in beside):
            continue
        try:
            files[item.name] = bring_one(beside, item.expected, job)
        except OfflineError:
            if item.required:
                raise
        except NotAvailableError:
            if item.required:
                raise
            for source in beside:
                note_missing(source)
    return files


def _with_packages(error: DownloadError | IntegrityError, entry: Entry) -> DownloadError | IntegrityError:
    """The error, and that a Python package has the file too, where one has."""
    packages = [source.location.replace("_", "-") for source in entry.sources if source.kind == "package"]
    if not packages or isinstance(error, StorageError):
        return error
    fix = f"install the Python package {packages[0]}, which has the file too"
    return type(error)(
        error.message,
        expected=error.expected,
        received=error.received,
        fix=f"{error.fix}, or {fix}" if error.fix else fix,
    )


def _packaged(entry: Entry, source: Source) -> dict[str, Path] | None:
    """Files inside an installed package, if the weights and all required companions have their published
    SHA-256.

    The package is located, never imported.
    """
    try:
        spec = importlib.util.find_spec(source.location)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        files: dict[str, Path] = {}
        wanted = [(entry.file_name, entry.expected, True)]
        wanted += [(item.name, item.expected, item.required) for item in entry.companions]
        for name, expected, required in wanted:
            place = source if name == entry.file_name else source.beside(name)
            path = Path(folder) / place.file
            if expected.strength == "sha256" and matches(path, expected):
                files[name] = path
            elif required:
                break
        else:
            return files
    return None
