"""Files on disk: locks, partial files, and the step that makes a verified file visible at once and whole.

Our cache, under `settings.cache_folder()`:
    files/<key>/<name>        one file of one source; the key is a hash of the source
    files/<key>/record.json   where it came from, its size and hashes
    hub/                      Hugging Face files that have no commit (from a mirror), in the hub's layout
    locks/<key>.lock          held while a file is brought; an empty leftover means nothing
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from zoonet.ops.errors import DownloadError, StorageError
from zoonet.weights.http import storage_error
from zoonet.weights.integrity import Digests, Expected
from zoonet.weights.settings import cache_folder
from zoonet.weights.source import Source


class WaitingWarning(UserWarning):
    """Another process holds what is needed here."""


# Seconds that a lock is waited for in silence.
_MOMENT = 3.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down beside a cached file."""

    source: str
    url: str
    name: str
    size: int
    sha256: str
    md5: str
    verified: str

    @property
    def digests(self) -> Digests:
        """Digests that the file had when it was stored."""
        return Digests(self.size, self.sha256, self.md5)


def key_of(text: str) -> str:
    """Folder name for a source: 24 hexadecimal digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@contextlib.contextmanager
def locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold an exclusive lock between processes. It ends with the process that holds it, however that ends.

    deadline: on the clock of time.monotonic. Warns where another process makes this one wait for more than a moment.
    Raises StorageError if the folder cannot be written or has no locks, DownloadError if another process holds it past
    the deadline.
    """
    import filelock

    began, lock = time.monotonic(), filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=max(0.0, min(_MOMENT, deadline - began)), poll_interval=0.05)
        except filelock.Timeout:
            if deadline - time.monotonic() > 0:
                warnings.warn("another process is downloading this file: waiting for it", WaitingWarning, stacklevel=4)
            lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=0.05)
    except filelock.Timeout:
        raise DownloadError(
            f"another process has been downloading for {time.monotonic() - began:.0f} seconds",
            received=f"lock {path}",
            fix="end that process, or wait longer with a larger ZOONET_TOTAL_TIMEOUT",
        ) from None
    except NotImplementedError:
        raise StorageError(
            f"the file system of {path.parent} has no locks",
            fix="set ZOONET_CACHE (HF_HOME for Hugging Face files) to a folder of a local disk",
        ) from None
    except OSError as error:
        raise storage_error(error, path) from None
    try:
        yield
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish(part: Path, final: Path) -> None:
    """Make a finished partial file visible under its name, in one step. Raises DownloadError."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)
        part.with_name(part.name + ".json").unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, final) from None
    sync_folder(final.parent)


def link_or_copy(path: Path, place: Path) -> None:
    """Make a file visible in another place too, atomically, by a relative link. Raises DownloadError.

    On systems without links for plain users it becomes a second copy, as the hub's own tools make it.
    """
    temporary = place.with_name(f".{place.name[:100]}.{os.getpid()}.link")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(os.path.relpath(path, place.parent))
        except (OSError, NotImplementedError):
            shutil.copyfile(path, temporary)
        temporary.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(error, place) from None
    sync_folder(place.parent)


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary file beside path, then rename it.

    Raises DownloadError, leaving nothing.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        temporary = Path(name)
        os.close(descriptor)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise (error if isinstance(error, DownloadError) else storage_error(error, path)) from None
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically. Raises DownloadError."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Slot:
    """The place in our cache of the file of one source."""

    source: Source

    @property
    def key(self) -> str:
        """Name of the slot's folder."""
        return key_of(self.source.identity)

    @property
    def folder(self) -> Path:
        """Folder of the file and its record."""
        return cache_folder() / "files" / self.key

    @property
    def final(self) -> Path:
        """The file once it is whole."""
        return self.folder / self.source.file_name

    @property
    def part(self) -> Path:
        """The file while it is brought."""
        return self.folder / (self.source.file_name + ".part")

    @property
    def lock(self) -> Path:
        """Lock of the slot."""
        return cache_folder() / "locks" / f"{self.key}.lock"

    def find(self, expected: Expected) -> Path | None:
        """The cached file if its record fits what is expected, without reading the file."""
        record = read_record(self.folder)
        if record is None or expected.problem(record.digests) is not None:
            return None
        try:
            return self.final if self.final.stat().st_size == record.size else None
        except OSError:
            return None

    def store(self, url: str, digests: Digests, verified: str) -> Path:
        """Publish the finished partial file with its record. Raises DownloadError."""
        record = Record(
            str(self.source), url, self.source.file_name, digests.size, digests.sha256, digests.md5, verified
        )
        # The record first: a record without its file is a miss, a file without its record would be unknown.
        write_text(self.folder / "record.json", json.dumps(asdict(record), indent=1))
        publish(self.part, self.final)
        return self.final


def read_record(folder: Path) -> Record | None:
    """The record in a cache folder, or None where there is none that can be read."""
    try:
        values = json.loads((folder / "record.json").read_bytes())
        record = Record(**values)
    except (OSError, ValueError, TypeError):
        return None
    texts = (record.source, record.url, record.name, record.sha256, record.md5, record.verified)
    return record if isinstance(record.size, int) and all(isinstance(text, str) for text in texts) else None
