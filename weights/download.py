"""From a name to files on disk: caches first, then installed packages, then the network, source by source."""

from __future__ import annotations

import importlib.util
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoonet.ops.errors import (
    DownloadError,
    FormatError,
    IntegrityError,
    NotAvailableError,
    OfflineError,
    StorageError,
    UnknownModelError,
    ZoonetError,
)
from zoonet.weights import hub, mirror
from zoonet.weights.entry import Entry
from zoonet.weights.integrity import Expected, known_digests
from zoonet.weights.registry import find
from zoonet.weights.settings import (
    Progress,
    Settings,
    hub_offline,
    keras_folder,
    offline,
    torch_folder,
)
from zoonet.weights.settings import hub_endpoint as endpoint
from zoonet.weights.settings import mirror as mirror_setting
from zoonet.weights.source import HubReference, Source, is_commit, safe_relative
from zoonet.weights.store import Slot, key_of, locked
from zoonet.weights.transport import Received, Request, download

# Weights of a repository in the order in which they are looked for.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# What a network and its pre- and post-processing may need beside the weights.
COMPANIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
# An index names a few thousand shards at most.
LARGEST_INDEX = 64 << 20


class LicenceWarning(UserWarning):
    """Weights have a licence that reaches the software around them, or forbids a use."""


class UnverifiedWarning(UserWarning):
    """No hash of a file is published, so it was accepted as it came."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What stays the same while the files of one name are brought."""

    settings: Settings
    progress: Progress | None
    deadline: float

    @classmethod
    def start(cls, settings: Settings | None, progress: Progress | None) -> _Job:
        chosen = settings or Settings.from_environment()
        return cls(chosen, progress, time.monotonic() + chosen.total_timeout)


def fetch(what: Entry | str, *, progress: Progress | None = None, settings: Settings | None = None) -> Path:
    """Path of the weights, downloaded if they are nowhere on this machine.

    what: an entry or its name; `https://host/file`, with `#sha256=…` to have it verified; or
    `hf://organisation/name[@revision]` and plain `organisation/name`. A Hugging Face repository gives the
    folder that holds config.json, the weights and the tokenizer's files;
    `hf://organisation/name[@revision]/file` and all else give a file. progress: called as progress(file name,
    bytes so far, bytes in all or None).

    Cached files are used without opening a connection. Raises UnknownModelError, OfflineError, DownloadError,
    StorageError or IntegrityError; then nothing new is visible in any cache.
    """
    job = _Job.start(settings, progress)
    if isinstance(what, Entry):
        return _entry_files(what, job)[what.file_name]
    target = resolve(what)
    if isinstance(target, Entry):
        return _entry_files(target, job)[target.file_name]
    if isinstance(target, HubReference):
        return _repository(target, job)
    source, expected = target
    return _one((source,), expected, job)


def fetch_files(
    entry: Entry, *, progress: Progress | None = None, settings: Settings | None = None
) -> Mapping[str, Path]:
    """The weights file of an entry and the companions that exist, by name. Raises as `fetch` does."""
    return _entry_files(entry, _Job.start(settings, progress))


def fetch_sources(
    what: str, *, progress: Progress | None = None, settings: Settings | None = None
) -> tuple[tuple[Source, Expected, Path], ...]:
    """All files that a name stands for, each with the source that a mirror would stand in for."""
    job = _Job.start(settings, progress)
    target = resolve(what)
    if isinstance(target, Entry):
        remote = next(source for source in target.sources if source.kind != "package")
        expected = {target.file_name: target.expected} | {
            item.name: item.expected for item in target.companions
        }
        return tuple(
            (remote if name == target.file_name else remote.beside(name), expected[name], path)
            for name, path in _entry_files(target, job).items()
        )
    if isinstance(target, HubReference):
        folder = _repository(target, job)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        names = [path.relative_to(folder).as_posix() for path in files]
        return tuple(
            (Source("hugging-face", target.repository, name, target.revision), Expected(), path)
            for name, path in zip(names, files, strict=True)
            if name in COMPANIONS or name in _weights_in(folder)
        )
    source, expectation = target
    return ((source, expectation, _one((source,), expectation, job)),)


def resolve(what: str) -> Entry | HubReference | tuple[Source, Expected]:
    """What a text names: an entry, a repository, or one file. Opens no connection.

    Raises UnknownModelError with near names, or DownloadError for a malformed reference.
    """
    try:
        if what.startswith(("http://", "https://")):
            url, _, fragment = what.partition("#")
            sha256 = fragment.removeprefix("sha256=").lower() if fragment.startswith("sha256=") else ""
            return Source.parse(url), Expected(sha256=(sha256,) if sha256 else ())
        if what.startswith("hf://"):
            reference = HubReference.parse(what)
            return (Source.parse(what), Expected()) if reference.file else reference
    except ValueError as error:
        raise DownloadError(f"{what!r} cannot be read as a reference", received=error) from None
    try:
        return find(what)
    except UnknownModelError:
        try:
            return HubReference.parse(what)
        except ValueError:
            pass
        raise


def cached(what: Entry | str) -> Path | None:
    """Where `fetch` would find it in a cache, or None. Opens no connection and hashes nothing."""
    target = resolve(what) if isinstance(what, str) else what
    if isinstance(target, Entry):
        return _cached(target.sources, target.expected)
    if isinstance(target, HubReference):
        return _cached_repository(target, complete=False)
    return _cached((target[0],), target[1])


def _cached(sources: Sequence[Source], expected: Expected) -> Path | None:
    for source in sources:
        found = None
        if source.kind == "url":
            found = Slot(source).find(expected)
        elif source.kind == "hugging-face":
            found = hub.find_cached(source, expected)
        if found is not None:
            return found
    return None


def _entry_files(entry: Entry, job: _Job) -> dict[str, Path]:
    if entry.warning:
        warnings.warn(entry.warning, LicenceWarning, stacklevel=4)
    packaged = _cached(entry.sources, entry.expected) is None
    for source in entry.sources if packaged else ():
        if source.kind == "package" and (found := _packaged(entry, source)):
            return found
    sources = tuple(source for source in entry.sources if source.kind != "package")
    if not sources:
        raise NotAvailableError(
            f"{entry.name} comes with the package {entry.sources[0].location} only",
            fix="install that package",
        )
    files = {entry.file_name: _one(sources, entry.expected, job)}
    for item in entry.companions:
        beside = tuple(source.beside(item.name) for source in sources)
        if not item.required and all(_known_missing(source) for source in beside):
            continue
        try:
            files[item.name] = _one(beside, item.expected, job)
        except (NotAvailableError, OfflineError):
            if item.required:
                raise
            for source in beside:
                _note_missing(source)
    return files


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
            if expected.strength == "sha256" and _matches(path, expected):
                files[name] = path
            elif required:
                break
        else:
            return files
    return None


def _matches(path: Path, expected: Expected) -> bool:
    """Whether a file that is not ours has the published hash."""
    try:
        if expected.size is not None and path.stat().st_size != expected.size:
            return False
        return path.is_file() and expected.problem(known_digests(path, md5=bool(expected.md5))) is None
    except OSError:
        return False


def _shared(sources: Sequence[Source], expected: Expected) -> Path | None:
    """The file in torch hub's or Keras's folder, if its hash is the published one."""
    if not expected.has_hash:
        return None
    for source in sources:
        if source.kind == "url":
            for folder in (torch_folder(), keras_folder()):
                if _matches(folder / source.file_name, expected):
                    return folder / source.file_name
    return None


def _one(sources: Sequence[Source], expected: Expected, job: _Job) -> Path:
    """One file from the first place that has it.

    Raises the error of the only source, or one that lists all.
    """
    found = _cached(sources, expected) or _shared(sources, expected)
    if found is not None:
        return found
    problems: list[ZoonetError] = []
    for source in sources:
        try:
            _forbid_offline(source)
            return (
                _bring_hub(source, expected, job)
                if source.kind == "hugging-face"
                else _bring_url(source, expected, job)
            )
        except StorageError:
            raise
        except (DownloadError, IntegrityError, FormatError) as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    raise _combined(sources, problems)


def _combined(sources: Sequence[Source], problems: Sequence[ZoonetError]) -> ZoonetError:
    lines = "".join(f"\n  {source}: {problem}" for source, problem in zip(sources, problems, strict=True))
    message = f"none of {len(sources)} sources gave {sources[0].file_name}:{lines}"
    for kind in (OfflineError, NotAvailableError):
        if all(isinstance(problem, kind) for problem in problems):
            return kind(message)
    if any(isinstance(problem, IntegrityError) for problem in problems):
        return IntegrityError(message)
    return DownloadError(message)


def _forbid_offline(source: Source) -> None:
    """Raise OfflineError if the source's host may not be asked."""
    place = mirror_setting()
    if place and mirror.is_directory(place):
        return
    is_hub = source.kind == "hugging-face" and not place
    if offline() or (is_hub and hub_offline()):
        variable = "ZOONET_OFFLINE" if offline() else "HF_HUB_OFFLINE"
        raise OfflineError(
            f"{source.file_name} is not cached and {variable} is set",
            received=str(source),
            fix=f"unset {variable} to download it, or name a mirror in ZOONET_MIRROR",
        )


def _transfer(source: Source, published: Expected, expected: Expected, part: Path, job: _Job) -> Received:
    """Bring a source's file into a partial file: from the mirror if there is one, else from its URL.

    published: hashes of the catalog, by which a mirror names the file. expected: those and what a server
    told.
    """
    place = mirror_setting()
    name = source.file_name
    if not place:
        request = Request(source.url(endpoint()), name, expected)
        return download(request, part, job.settings, job.progress, job.deadline)
    problem: NotAvailableError | None = None
    for below in mirror.places(source, published):
        request = Request(mirror.url_below(place, below), name, expected)
        try:
            if mirror.is_directory(place):
                folder = Path(place).expanduser()
                return mirror.copy_from_directory(folder, below, request, part, job.progress)
            return download(request, part, job.settings, job.progress, job.deadline)
        except NotAvailableError as error:
            problem = error
    raise problem or NotAvailableError(f"the mirror has no {source}")


def _warn_unverified(source: Source, received: Received) -> None:
    if received.verified in ("none", "size"):
        warnings.warn(
            f"no hash of {source} is known, so it was accepted as it came (sha256 {received.digests.sha256})",
            UnverifiedWarning,
            stacklevel=6,
        )


def _bring_url(source: Source, expected: Expected, job: _Job) -> Path:
    slot = Slot(source)
    with locked(slot.lock, job.settings):
        # Another process may have brought it while we waited.
        if (found := slot.find(expected)) is not None:
            return found
        received = _transfer(source, expected, expected, slot.part, job)
        path = slot.store(received.url, received.digests, received.verified)
    _warn_unverified(source, received)
    return path


def _bring_hub(source: Source, expected: Expected, job: _Job) -> Path:
    pinned = source.revision if is_commit(source.revision) else ""
    if mirror_setting() or (pinned and expected.full_sha256):
        facts = hub.FileFacts(pinned, expected.full_sha256, expected.size)
    else:
        facts = hub.file_facts(source, job.settings, job.deadline)
    told = hub.expected_by_etag(facts.etag)
    if expected.full_sha256 and told.full_sha256 and told.full_sha256 != expected.full_sha256:
        raise IntegrityError(
            f"{source} is not the published file",
            expected=f"sha256 {expected.full_sha256}",
            received=f"sha256 {told.full_sha256} by the server",
            fix="the repository has changed: use another source",
        )
    checks = replace(expected if expected.has_hash else told, size=expected.size or facts.size)
    shared, ours = hub.repositories(source.location)
    # Without a commit (from a mirror) a file would be in nobody's way, but unfindable, in the shared cache.
    repository, commit = (shared, facts.commit) if facts.commit else (ours, hub.slug(source.revision))
    etag = facts.etag or key_of(str(source))
    with locked(repository.lock(etag), job.settings):
        found = _present(repository, source, commit, facts.etag, checks)
        if found is None:
            received = _transfer(source, expected, checks, repository.part(etag), job)
            blob = facts.etag or received.digests.sha256
            found = repository.store(commit, source.file, etag, blob)
            _warn_unverified(source, received)
    repository.note_commit(source.revision, commit)
    return found


def _present(
    repository: hub.Repository, source: Source, commit: str, etag: str, expected: Expected
) -> Path | None:
    """The file if its contents arrived meanwhile, or are there for another revision."""
    blob = repository.blob(etag) if etag else None
    if (
        blob is not None
        and blob.is_file()
        and (expected.size is None or blob.stat().st_size == expected.size)
    ):
        return repository.link(commit, source.file, blob)
    return None


def _known_missing(source: Source) -> bool:
    if source.kind != "hugging-face":
        return False
    return any(item.known_missing(source.revision, source.file) for item in hub.repositories(source.location))


def _note_missing(source: Source) -> None:
    if (
        source.kind == "hugging-face"
        and is_commit(source.revision)
        and not (mirror_setting() or hub_offline())
    ):
        hub.repositories(source.location)[0].note_missing(source.revision, source.file)


def _weights_in(folder: Path) -> tuple[str, ...]:
    """Names of the weights files in a folder, an index before its shards; () if none, or a shard is missing.

    Raises FormatError for an index that is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            shards = read_index(folder / name) if name.endswith(".index.json") else ()
            return (name, *shards) if all((folder / shard).is_file() for shard in shards) else ()
    return ()


def read_index(path: Path) -> tuple[str, ...]:
    """Shard names of a safetensors or PyTorch index, sorted.

    Raises FormatError if it is not an index, or a name leaves the folder; MissingFileError is not raised
    here.
    """
    try:
        if path.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"{path.stat().st_size} bytes")
        names = set(json.loads(path.read_bytes())["weight_map"].values())
        return tuple(sorted(safe_relative(name) for name in names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not an index of weights",
            expected="JSON with weight_map: name to file",
            received=error,
        ) from None


def _cached_repository(reference: HubReference, *, complete: bool) -> Path | None:
    """Folder of a cached repository with its weights.

    complete: every companion is there or known not to exist.
    """
    for repository in hub.repositories(reference.repository):
        commit = repository.commit(reference.revision)
        folder = repository.snapshot(commit) if commit else None
        if folder is None or not folder.is_dir():
            continue
        try:
            weights = _weights_in(folder)
        except FormatError:
            continue
        known = (
            (folder / name).is_file() or repository.known_missing(reference.revision, name)
            for name in COMPANIONS
        )
        if weights and (not complete or all(known)):
            return folder
    return None


def _repository(reference: HubReference, job: _Job) -> Path:
    """Folder with a repository's config.json, weights and tokenizer files."""
    stay = hub_offline() and not mirror_setting()
    folder = _cached_repository(reference, complete=not stay)
    if folder is not None:
        return folder
    probe = Source("hugging-face", reference.repository, "config.json", reference.revision)
    _forbid_offline(probe)
    if mirror_setting():
        return _mirrored_repository(reference, job)
    commit, files = hub.list_files(reference.repository, reference.revision, job.settings, job.deadline)
    repository = hub.repositories(reference.repository)[0]

    def bring(name: str) -> Path:
        return _one((Source("hugging-face", reference.repository, name, commit),), Expected(), job)

    for name in COMPANIONS:
        if name in files:
            bring(name)
        else:
            repository.note_missing(commit, name)
    first = next((name for name in WEIGHTS if name in files), "")
    if not first:
        raise NotAvailableError(
            f"{reference} has no weights that can be read",
            expected=" or ".join(WEIGHTS),
            received=", ".join(files)[:500],
        )
    path = bring(first)
    for shard in read_index(path) if first.endswith(".index.json") else ():
        bring(shard)
    repository.note_commit(reference.revision, commit)
    return repository.snapshot(commit)


def _mirrored_repository(reference: HubReference, job: _Job) -> Path:
    """The same from a mirror, which has no list of files: each name is tried."""

    def bring(name: str) -> Path:
        source = Source("hugging-face", reference.repository, name, reference.revision)
        return _one((source,), Expected(), job)

    for name in COMPANIONS:
        try:
            bring(name)
        except NotAvailableError:
            continue
    for name in WEIGHTS:
        try:
            path = bring(name)
        except NotAvailableError:
            continue
        for shard in read_index(path) if name.endswith(".index.json") else ():
            bring(shard)
        return Path(os.path.abspath(path)).parent
    raise NotAvailableError(
        f"the mirror has no weights of {reference}", fix="add it with `zoonet mirror export`"
    )
