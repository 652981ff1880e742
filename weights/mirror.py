"""A mirror for closed networks: a directory, or a web server over one, that stands in for every source.

A file lies at `<mirror>/<sha256>` if its SHA-256 is published, else at `<mirror>/<host>/<path>` of its URL. Files whose
URLs differ in the query alone lie apart: `~` and the first 12 digits of the query's SHA-256 follow the path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from zoonet.ops.errors import DownloadError, NotAvailableError
from zoonet.weights.http import storage_error
from zoonet.weights.integrity import CHUNK, Expected, Hasher, hash_file
from zoonet.weights.settings import HUB, Progress, Settings
from zoonet.weights.source import Source, safe_relative
from zoonet.weights.store import write_atomic
from zoonet.weights.transport import Received, Request, discard
from zoonet.weights.writing import HashedFile


def places(source: Source, expected: Expected) -> tuple[str, ...]:
    """Names below a mirror under which the file of a source may lie, best first."""
    names = [expected.full_sha256] if expected.full_sha256 else []
    if source.kind != "package":
        parts = urlsplit(source.url(HUB))
        path = safe_relative(unquote(parts.path).strip("/")) if parts.path.strip("/") else "index"
        if parts.query:
            path = f"{path}~{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}"
        hosts = [f"{parts.hostname}:{parts.port}"] if parts.port else []
        names += [f"{host}/{path}" for host in [*hosts, parts.hostname]]
    return tuple(names)


def is_directory(mirror: str) -> bool:
    """Whether ZOONET_MIRROR names a directory and not a web server."""
    return not mirror.startswith(("http://", "https://"))


def url_below(mirror: str, place: str) -> str:
    """URL of a place on a web server's mirror."""
    return f"{mirror}/{quote(place)}"


def copy_from_directory(folder: Path, place: str, request: Request, part: Path, progress: Progress | None) -> Received:
    """Copy a mirrored file into a partial file and verify it.

    Raises NotAvailableError, IntegrityError, or StorageError with the partial file removed.
    """
    path = folder / place
    hasher = Hasher(md5=bool(request.expected.md5))
    if not path.is_file():
        raise NotAvailableError(f"the mirror {folder} has no {place}", fix="add it with `zoonet mirror export`")
    try:
        total = path.stat().st_size
        part.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(part.parent).free < total:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with path.open("rb") as source, part.open("wb") as file, HashedFile(file, hasher) as target:
            while data := source.read(CHUNK):
                target.write(data)
                if progress is not None:
                    progress(request.name, target.size, total)
            target.finish()
        digests = hash_file(part, git=True) if request.expected.git else hasher.digests()
        request.expected.check(digests, str(path), "correct the mirror")
    except OSError as error:
        discard(part)
        raise (error if isinstance(error, DownloadError) else storage_error(error, part)) from None
    except ValueError:
        discard(part)
        raise
    return Received(str(path), digests, request.expected.strength)


def export(
    folder: Path | str,
    names: Sequence[str],
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> tuple[Path, ...]:
    """Fill a directory that ZOONET_MIRROR can name, from what `fetch` brings for each name.

    names: catalog names, URLs or Hugging Face references. Returns the files written or already right.
    Raises what `fetch` raises, and StorageError.
    """
    from zoonet.weights.download import fetch_sources

    written = []
    for name in names:
        for source, expected, path in fetch_sources(name, progress=progress, settings=settings):
            target = Path(folder) / places(source, expected)[0]
            if not (target.is_file() and hash_file(target).sha256 == hash_file(path).sha256):
                write_atomic(target, partial(shutil.copyfile, path))
            written.append(target)
    return tuple(written)
