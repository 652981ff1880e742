"""One file from the first place that has it: caches, other frameworks' folders, mirror, network."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoonet.formats import damage
from zoonet.ops.errors import (
    DownloadError,
    FormatError,
    IntegrityError,
    NotAvailableError,
    OfflineError,
    StorageError,
    ZoonetError,
)
from zoonet.weights import hub, mirror
from zoonet.weights.integrity import Expected, known_digests
from zoonet.weights.settings import (
    Progress,
    Settings,
    hub_endpoint,
    hub_offline,
    keras_folder,
    offline,
    torch_folder,
)
from zoonet.weights.settings import mirror as mirror_setting
from zoonet.weights.source import Source, is_commit
from zoonet.weights.store import Slot, key_of, locked
from zoonet.weights.transport import Received, Request, discard, download

# Strengths of a check that tell nothing of contents.
_UNVERIFIED = ("none", "size")


class UnverifiedWarning(UserWarning):
    """No hash of a file is published, so it was accepted as it came."""


@dataclass(frozen=True, slots=True)
class Job:
    """What stays the same while the files of one name are brought."""

    settings: Settings
    progress: Progress | None
    deadline: float

    @classmethod
    def start(cls, settings: Settings | None, progress: Progress | None) -> Job:
        """Begin to count the total time."""
        chosen = settings or Settings.from_environment()
        return cls(chosen, progress, time.monotonic() + chosen.total_timeout)


def find_cached(sources: Sequence[Source], expected: Expected, *, link: bool = True) -> Path | None:
    """The file of any of the sources in our cache or the Hugging Face cache, or None; link: see `hub.find_cached`."""
    for source in sources:
        found = None
        if source.kind == "url":
            found = Slot(source).find(expected)
        elif source.kind == "hugging-face":
            found = hub.find_cached(source, expected, link=link)
        if found is not None:
            return found
    return None


def matches(path: Path, expected: Expected) -> bool:
    """Whether a file that is not ours has the published hash."""
    try:
        if expected.size is not None and path.stat().st_size != expected.size:
            return False
        return path.is_file() and expected.problem(known_digests(path, md5=bool(expected.md5))) is None
    except OSError:
        return False


def of_other_frameworks(sources: Sequence[Source], expected: Expected) -> tuple[Path, ...]:
    """Files of this name in torch hub's or Keras's folder, not compared with the published hash yet.

    Without a published hash there is none, since nothing could tell whether they are the right ones.
    """
    if not expected.has_hash:
        return ()
    names = [source.file_name for source in sources if source.kind == "url"]
    places = [folder / name for name in names for folder in (torch_folder(), keras_folder())]
    return tuple(place for place in places if place.is_file())


def _shared(sources: Sequence[Source], expected: Expected) -> Path | None:
    """The file in torch hub's or Keras's folder, if its hash is the published one."""
    return next((path for path in of_other_frameworks(sources, expected) if matches(path, expected)), None)


def bring_one(sources: Sequence[Source], expected: Expected, job: Job) -> Path:
    """One file from the first place that has it.

    Raises the error of the only source, or one that lists all.
    """
    found = find_cached(sources, expected) or _shared(sources, expected)
    if found is not None:
        return found
    problems: list[ZoonetError] = []
    for source in sources:
        try:
            forbid_offline(source)
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


def forbid_offline(source: Source) -> None:
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


def _transfer(source: Source, published: Expected, expected: Expected, part: Path, job: Job) -> Received:
    """Bring a source's file into a partial file: from the mirror if there is one, else from its URL.

    published: hashes of the catalog, by which a mirror names the file. expected: those and what a server
    told. Without any hash, what can be seen to be damaged is refused: IntegrityError.
    """
    received = _transferred(source, published, expected, part, job)
    if received.verified in _UNVERIFIED and (problem := damage(part)) is not None:
        discard(part)
        raise IntegrityError(
            f"{source} did not arrive as a whole file",
            received=str(problem).partition(". Fix:")[0].replace(part.name, source.file_name),
            fix="try again, or use another source",
        )
    return received


def _transferred(source: Source, published: Expected, expected: Expected, part: Path, job: Job) -> Received:
    place = mirror_setting()
    name = source.file_name
    if not place:
        request = Request(source.url(hub_endpoint()), name, expected)
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
    if received.verified in _UNVERIFIED:
        warnings.warn(
            f"no hash of {source} is known, so it was accepted as it came (sha256 {received.digests.sha256})",
            UnverifiedWarning,
            stacklevel=6,
        )


def _bring_url(source: Source, expected: Expected, job: Job) -> Path:
    slot = Slot(source)
    with locked(slot.lock, job.deadline):
        # Another process may have brought it while we waited.
        if (found := slot.find(expected)) is not None:
            return found
        received = _transfer(source, expected, expected, slot.part, job)
        path = slot.store(received.url, received.digests, received.verified)
    _warn_unverified(source, received)
    return path


def _bring_hub(source: Source, expected: Expected, job: Job) -> Path:
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
    with locked(repository.lock(etag), job.deadline):
        found = _present(repository, source, commit, facts.etag, checks)
        if found is None:
            received = _transfer(source, expected, checks, repository.part(etag), job)
            blob = facts.etag or received.digests.sha256
            found = repository.store(commit, source.file, etag, blob)
            _warn_unverified(source, received)
    if facts.commit:
        repository.note_commit(source.revision, commit)
    return found


def _present(repository: hub.Repository, source: Source, commit: str, etag: str, expected: Expected) -> Path | None:
    """The file if its contents arrived meanwhile, or are there for another revision."""
    blob = repository.blob(etag) if etag else None
    if blob is not None and blob.is_file() and (expected.size is None or blob.stat().st_size == expected.size):
        return repository.link(commit, source.file, blob)
    return None


def known_missing(source: Source) -> bool:
    """Whether it is written down that the hub, or the mirror if there is one, has no such file."""
    if source.kind != "hugging-face":
        return False
    shared, ours = hub.repositories(source.location)
    places = (shared, ours) if mirror_setting() else (shared,)
    return any(place.known_missing(source.revision, source.file) for place in places)


def note_missing(source: Source) -> None:
    """Write it down: for the hub in its own cache, where its tools read it; what a mirror lacks in ours."""
    if source.kind != "hugging-face":
        return
    shared, ours = hub.repositories(source.location)
    if mirror_setting():
        commit = source.revision if is_commit(source.revision) else hub.slug(source.revision)
        ours.note_missing(commit, source.file)
    elif is_commit(source.revision):
        shared.note_missing(source.revision, source.file)
