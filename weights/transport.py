"""One file over HTTP into a partial file: redirects, retries, resume, limits, and hashes on the way.

Nothing here knows catalogs or caches. The partial file may be left behind for a later resume; whoever calls
decides what becomes visible.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import DownloadError, IntegrityError
from zoonet.weights.http import (
    Again,
    check_status,
    exchange,
    is_encoded,
    new_session,
    pause,
    reason_of,
    storage_error,
    whole_number,
)
from zoonet.weights.integrity import CHUNK, Digests, Expected, Hasher, hash_file
from zoonet.weights.settings import Progress, Settings
from zoonet.weights.source import public_url
from zoonet.weights.writing import HashedFile

if TYPE_CHECKING:
    from zoonet.weights.connections import Session

# Bytes that must arrive before the count of fruitless attempts starts anew.
PROGRESS_BYTES = 1 << 20
# Bytes that are read at once, if so many have arrived: fewer, larger reads take less of the processor.
_PIECE = 1 << 19


@dataclass(frozen=True, slots=True)
class Request:
    """One URL to try. name: file name for progress. expected: what the file must be."""

    url: str
    name: str
    expected: Expected


@dataclass(slots=True)
class Received:
    """A finished partial file. verified: strength of the check that it passed."""

    url: str
    digests: Digests
    verified: str


@dataclass(slots=True)
class _Attempt:
    """State of one file over several attempts."""

    request: Request
    part: Path
    settings: Settings
    progress: Progress | None
    deadline: float
    fruitless: int = 0
    resumed: bool = False
    restarted: bool = False


def download(
    request: Request,
    part: Path,
    settings: Settings,
    progress: Progress | None = None,
    deadline: float | None = None,
) -> Received:
    """Bring request.url into the partial file `part`, resuming what is there, and verify it.

    deadline: on the clock of time.monotonic. On success `part` holds the whole, synced file. On a wrong hash
    or size it is deleted; where the disk is full too; after a lost connection it stays for the next attempt.
    Raises DownloadError or IntegrityError.
    """
    end = deadline if deadline is not None else time.monotonic() + settings.total_timeout
    attempt = _Attempt(request, part, settings, progress, end)
    with new_session(end) as session:
        while True:
            before = _size(part)
            try:
                received = _fetch_once(session, attempt)
                request.expected.check(received.digests, public_url(request.url), "try again, or use another source")
            except Again as again:
                gained = _size(part) - before
                attempt.fruitless = 1 if gained >= PROGRESS_BYTES else attempt.fruitless + 1
                pause(again, attempt.fruitless, settings, end, request.url)
            except IntegrityError:
                discard(part)
                # What an earlier attempt left may be what is wrong, so the whole file gets one more chance.
                if not attempt.resumed or attempt.restarted:
                    raise
                attempt.resumed, attempt.restarted = False, True
            else:
                return received


def discard(part: Path) -> None:
    """Remove a partial file and its notes, whatever of them exists."""
    for path in (part, _notes_path(part)):
        with contextlib.suppress(OSError):
            path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _notes_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict[str, Any]:
    try:
        notes = json.loads(_notes_path(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _resume_headers(attempt: _Attempt, size: int) -> dict[str, str] | None:
    """Headers that continue a partial file, or None if that cannot be done without mixing two files.

    A validator from the same URL lets the server decide. Without one, a published hash will tell.
    """
    if size == 0:
        return None
    notes = _read_notes(attempt.part)
    headers = {"Range": f"bytes={size}-"}
    validator = notes.get("validator") if notes.get("url") == public_url(attempt.request.url) else None
    if isinstance(validator, str) and validator:
        headers["If-Range"] = validator
    elif not attempt.request.expected.has_hash:
        return None
    return headers


def _validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return "" if etag else headers.get("Last-Modified", "")


def _fetch_once(session: Session, attempt: _Attempt) -> Received:
    """One exchange: continue or start the partial file and read to its end."""
    request, part = attempt.request, attempt.part
    have = _size(part)
    headers = _resume_headers(attempt, have)
    response = exchange(session, "GET", request.url, headers or {}, attempt.settings)
    with contextlib.closing(response):
        if response.status_code == 416 and headers:
            # The partial file is at least as long as the file: whole, or of something else.
            attempt.resumed = True
            if request.expected.size != have and _range_total(response) != have:
                discard(part)
                raise Again("the server refused to continue the partial file")
            return _finish(request, part, _hashed(part, request.expected, have))
        check_status(response, request.url)
        if headers and response.status_code == 206 and _range_start(response) != have:
            discard(part)
            raise Again("the server continues the file at another place than asked")
        if headers and response.status_code == 206:
            attempt.resumed = True
        else:
            have = 0
        if response.status_code not in (200, 206) or (response.status_code == 206 and not have):
            raise DownloadError(f"{public_url(request.url)} answers with status {response.status_code}")
        return _store_body(session, response, attempt, have)


def _range_start(response: Any) -> int:
    text = response.headers.get("Content-Range", "")
    start = whole_number(text.removeprefix("bytes").strip().partition("-")[0])
    return -1 if start is None else start


def _range_total(response: Any) -> int:
    total = whole_number(response.headers.get("Content-Range", "").rpartition("/")[2])
    return -1 if total is None else total


def _announced(response: Any, have: int) -> int | None:
    """Size of the whole file by the response's headers, or None. A compressed body has no usable length."""
    if is_encoded(response):
        return None
    length = whole_number(response.headers.get("Content-Length"))
    return have + length if length is not None else None


def _store_body(session: Session, response: Any, attempt: _Attempt, have: int) -> Received:
    request, part = attempt.request, attempt.part
    total = _announced(response, have)
    wanted = request.expected.size
    if total is not None and wanted is not None and total != wanted:
        raise IntegrityError(
            f"{public_url(request.url)} is not the published file",
            expected=f"{wanted} bytes",
            received=f"{total} bytes announced",
            fix="use another source",
        )
    size = total if total is not None else wanted
    notes = {"url": public_url(request.url), "validator": _validator(response.headers)}
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _check_room(part, size, have)
        hasher = _hashed(part, request.expected, have)
        _notes_path(part).write_text(json.dumps(notes))
        with part.open("r+b" if have else "wb") as file:
            file.truncate(have)
            file.seek(have)
            with HashedFile(file, hasher) as target:
                _copy(_pieces(session, response, attempt), target, size, attempt)
                target.finish()
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            discard(part)
        raise storage_error(error, part) from None
    return _finish(request, part, hasher)


def _check_room(part: Path, size: int | None, have: int) -> None:
    if size is not None and shutil.disk_usage(part.parent).free < size - have:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _hashed(part: Path, expected: Expected, have: int) -> Hasher:
    """Hasher that has seen the first `have` bytes of the partial file."""
    hasher = Hasher(md5=bool(expected.md5))
    if have:
        with part.open("rb") as file:
            while hasher.size < have and (data := file.read(min(CHUNK, have - hasher.size))):
                hasher.update(data)
    return hasher


def _copy(pieces: Iterator[bytes], target: HashedFile, size: int | None, attempt: _Attempt) -> None:
    """Body to file.

    Raises Again if it ends early or drips, IntegrityError if it is longer than it may be.
    """
    name = attempt.request.name
    for data in pieces:
        if size is not None and target.size + len(data) > size:
            raise IntegrityError(
                f"{public_url(attempt.request.url)} is not the published file",
                expected=f"{size} bytes",
                received="more",
                fix="use another source",
            )
        target.write(data)
        if attempt.progress is not None:
            attempt.progress(name, target.size, size)
    if size is not None and target.size < size:
        raise Again(f"the connection ended after {target.size} of {size} bytes")


def _pieces(session: Session, response: Any, attempt: _Attempt) -> Iterator[bytes]:
    """Body in pieces as they arrive.

    read1 returns what there is, so that a drip cannot hold us past the limits.
    """
    import urllib3

    settings = attempt.settings
    window, window_bytes = time.monotonic(), 0
    packed = is_encoded(response)
    while True:
        session.allow(settings.read_timeout + settings.slow_seconds)
        try:
            data = response.raw.read1(_PIECE, decode_content=packed)
        except urllib3.exceptions.ReadTimeoutError:
            raise Again(f"no data for {settings.read_timeout:g} seconds") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Again(reason_of(error)) from None
        if not data:
            return
        now = time.monotonic()
        window_bytes += len(data)
        if now > attempt.deadline:
            raise DownloadError(
                f"{public_url(attempt.request.url)} took too long",
                expected=f"at most {settings.total_timeout:g} seconds",
                fix="run again to continue where it stopped, or raise ZOONET_TOTAL_TIMEOUT",
            )
        yield data
        if now - window >= settings.slow_seconds:
            if window_bytes < settings.slow_bytes:
                raise Again(f"only {window_bytes} bytes came in {now - window:.0f} seconds")
            window, window_bytes = now, 0


def _finish(request: Request, part: Path, hasher: Hasher) -> Received:
    digests = hasher.digests()
    if request.expected.git:
        # Only small files are known by this hash, and it starts with the size, which may come last.
        digests = hash_file(part, md5=bool(request.expected.md5), git=True)
    return Received(public_url(request.url), digests, request.expected.strength)
