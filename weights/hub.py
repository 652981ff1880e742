"""The Hugging Face hub: its cache layout on disk, and what its server says about a file or a repository.

<cache>/models--<organisation>--<name>/
    blobs/<etag>                      contents; the etag is a SHA-256 for large files, a git blob hash for small
    refs/<revision>                   commit that a branch or tag meant when it was last asked for
    snapshots/<commit>/<file>         link to a blob
    .no_exist/<commit>/<file>         empty: the commit has no such file
    trees/<commit>.json               names of all files of a commit, written by newer tools
<cache>/.locks/models--<organisation>--<name>/<etag>.lock

Source: the hub's documentation, "Hub Local Cache". Its own tools find our files there, and we find theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoonet.ops.errors import DownloadError, FormatError, StorageError
from zoonet.weights.http import check_status, exchange, new_session, read_whole, retrying, whole_number
from zoonet.weights.integrity import Expected
from zoonet.weights.settings import Settings, cache_folder, hub_cache_folder, hub_endpoint
from zoonet.weights.source import Source, is_commit, safe_relative
from zoonet.weights.store import link_or_copy, publish, write_text

# A repository's description lists its files; a larger answer is not one.
LARGEST_ANSWER = 16 << 20


def _etag(text: str) -> str:
    """The etag as the hub's tools write it: without quotes and weakness, and safe as a file name; else ""."""
    etag = text.strip().removeprefix("W/").strip('"')
    return etag if re.fullmatch(r"[A-Za-z0-9_-]{1,128}", etag) else ""


def expected_by_etag(etag: str) -> Expected:
    """What an etag of the hub says about the contents."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return Expected(sha256=(etag,))
    return Expected(git=etag) if re.fullmatch(r"[0-9a-f]{40}", etag) else Expected()


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository in a cache folder of the hub's layout."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """Folder of the repository."""
        return self.root / ("models--" + self.name.replace("/", "--"))

    def commit(self, revision: str) -> str:
        """Commit that a revision means as far as the cache knows, or ""."""
        if is_commit(revision):
            return revision
        try:
            commit = (self.folder / "refs" / safe_relative(revision)).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            # What came from a mirror has no commit, and its snapshot is named by the revision.
            return slug(revision) if self.snapshot(slug(revision)).is_dir() else ""
        return commit if is_commit(commit) else ""

    def snapshot(self, commit: str) -> Path:
        """Folder of a commit's files."""
        return self.folder / "snapshots" / commit

    def find(self, revision: str, file: str) -> Path | None:
        """A cached file, or None."""
        commit = self.commit(revision)
        path = self.snapshot(commit) / safe_relative(file) if commit else None
        return path if path is not None and path.is_file() else None

    def known_missing(self, revision: str, file: str) -> bool:
        """Whether the cache knows that a revision has no such file."""
        commit = self.commit(revision)
        if not commit:
            return False
        if (self.folder / ".no_exist" / commit / safe_relative(file)).is_file():
            return True
        listed = _files_of_tree(self.folder / "trees" / f"{commit}.json")
        return listed is not None and file not in listed

    def note_missing(self, commit: str, file: str) -> None:
        """Write down that a commit has no such file, where the cache can be written."""
        with contextlib.suppress(StorageError):
            write_text(self.folder / ".no_exist" / commit / safe_relative(file), "")

    def note_commit(self, revision: str, commit: str) -> None:
        """Write down what commit a branch or tag means, where the cache can be written."""
        if revision != commit and self.commit(revision) != commit:
            with contextlib.suppress(StorageError):
                write_text(self.folder / "refs" / safe_relative(revision), commit)

    def blob(self, etag: str) -> Path:
        """Place of the contents with an etag."""
        return self.folder / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Place of the contents while they are brought."""
        return self.folder / "blobs" / f"{etag}.incomplete"

    def lock(self, etag: str) -> Path:
        """Lock of a blob, the one that the hub's own tools take."""
        return self.root / ".locks" / self.folder.name / f"{etag}.lock"

    def link(self, commit: str, file: str, blob: Path) -> Path:
        """Make a blob visible as a file of a commit. Raises DownloadError."""
        pointer = self.snapshot(commit) / safe_relative(file)
        link_or_copy(blob, pointer)
        return pointer

    def store(self, commit: str, file: str, etag: str, blob_name: str) -> Path:
        """Publish the finished partial file of an etag as a blob, and link it. Raises DownloadError."""
        publish(self.part(etag), self.blob(blob_name))
        return self.link(commit, file, self.blob(blob_name))


def _files_of_tree(path: Path) -> Collection[str] | None:
    """Names of all files of a commit, if the hub's own tool wrote them down when it brought the whole repository."""
    try:
        if path.stat().st_size > LARGEST_ANSWER:
            return None
        listing = json.loads(path.read_bytes())
        files = listing["files"] if listing["format_version"] == 1 else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return files if isinstance(files, dict) else None


def slug(revision: str) -> str:
    """Name of the snapshot of a revision whose commit is not known."""
    return revision.replace("/", "--")


def repositories(name: str) -> tuple[Repository, Repository]:
    """A repository in the hub's own cache, and in ours, for what came from a mirror without a commit."""
    return Repository(hub_cache_folder(), name), Repository(cache_folder() / "hub", name)


def find_cached(source: Source, expected: Expected, *, link: bool = True) -> Path | None:
    """Path of a hub source's file in either cache, or None. Opens no connection.

    A blob with the published hash is found at whatever revision it was brought, and linked if that is
    possible. link: False leaves the cache as it is.
    """
    for repository in repositories(source.location):
        found = repository.find(source.revision, source.file)
        if found is not None and (expected.size is None or found.stat().st_size == expected.size):
            blob = Path(os.path.realpath(found)).name
            # A blob named by a hash that differs from the published one is another version of the file.
            if not expected.full_sha256 or not re.fullmatch(r"[0-9a-f]{64}", blob) or blob == expected.full_sha256:
                return found
        if expected.full_sha256 and repository.blob(expected.full_sha256).is_file():
            blob_path = repository.blob(expected.full_sha256)
            if link and is_commit(source.revision):
                with contextlib.suppress(DownloadError):
                    return repository.link(source.revision, source.file, blob_path)
            return blob_path
    return None


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the hub says about a file before it is brought."""

    commit: str
    etag: str
    size: int | None


def file_facts(source: Source, settings: Settings, deadline: float) -> FileFacts:
    """Ask the hub for a file's commit, etag and size.

    Raises NotAvailableError, AccessDeniedError or DownloadError.
    """
    url = source.url(hub_endpoint())

    def ask() -> FileFacts:
        hops: list[Mapping[str, str]] = []
        with new_session(deadline) as session:
            response = exchange(session, "HEAD", url, {}, settings, stay=True, hops=hops)
            response.close()
            check_status(response, url)
        # The hub tells some facts on the way and some at the end; the first word counts.
        told = {key.lower(): value for hop in reversed(hops) for key, value in hop.items()}
        last = response.headers if response.status_code == 200 else {}
        size = told.get("x-linked-size") or last.get("Content-Length", "")
        commit = told.get("x-repo-commit", "")
        return FileFacts(
            commit if is_commit(commit) else "",
            _etag(told.get("x-linked-etag") or last.get("ETag", "")),
            whole_number(size),
        )

    result: FileFacts = retrying(ask, settings, deadline, url)
    return result


def list_files(repository: str, revision: str, settings: Settings, deadline: float) -> tuple[str, tuple[str, ...]]:
    """Commit and file names of a repository at a revision, by the hub's API; names that are not safe are left
    out.

    Raises NotAvailableError, AccessDeniedError, DownloadError, or FormatError for an answer that makes no
    sense.
    """
    url = f"{hub_endpoint()}/api/models/{repository}/revision/{quote(revision, safe='')}"

    def ask() -> Any:
        with (
            new_session(deadline) as session,
            contextlib.closing(exchange(session, "GET", url, {}, settings)) as response,
        ):
            check_status(response, url)
            body = read_whole(response, LARGEST_ANSWER, deadline)
        try:
            if len(body) > LARGEST_ANSWER:
                raise ValueError
            return json.loads(body)
        except (ValueError, RecursionError):
            raise FormatError(f"{url} does not answer as the Hugging Face hub does", expected="JSON") from None

    answer = retrying(ask, settings, deadline, url)
    try:
        commit, files = answer["sha"], [item["rfilename"] for item in answer["siblings"]]
    except (TypeError, KeyError):
        raise FormatError(
            f"{url} does not answer as the Hugging Face hub does", expected="the keys sha and siblings"
        ) from None
    if not isinstance(commit, str) or not is_commit(commit):
        raise FormatError(f"{url} does not answer as the Hugging Face hub does", expected="a commit in sha")
    return commit, tuple(file for file in files if isinstance(file, str) and _is_safe(file))


def _is_safe(name: str) -> bool:
    try:
        safe_relative(name)
    except ValueError:
        return False
    return True
