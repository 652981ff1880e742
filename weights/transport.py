"""One file over HTTP into a partial file: redirects, retries, resume, limits, and hashes on the way.

Nothing here knows catalogs or caches. The partial file may be left behind for a later resume; whoever calls
decides what becomes visible.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

from zoonet.ops.errors import (
    AccessDeniedError,
    DownloadError,
    IntegrityError,
    NotAvailableError,
    StorageError,
)
from zoonet.weights.integrity import CHUNK, Digests, Expected, Hasher, hash_file
from zoonet.weights.settings import Progress, Settings, hub_token, is_hub

if TYPE_CHECKING:
    import requests

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 10
# Bytes that must arrive before the count of fruitless attempts starts anew.
PROGRESS_BYTES = 1 << 20


class _Again(Exception):
    """An attempt failed in a way that may pass. wait: seconds that the server asked for, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


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


def public_url(url: str) -> str:
    """A URL fit for messages and records: without password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def new_session() -> requests.Session:
    """A session that asks for plain bytes, so that lengths and ranges mean the file's own."""
    import requests

    session = requests.Session()
    session.headers["User-Agent"] = "zoonet"
    session.headers["Accept-Encoding"] = "identity"
    return session


class _HubAuthorization:
    """The hub's token, or nothing.

    Being there, it keeps requests from sending a ~/.netrc password to the hub.
    """

    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: Any) -> Any:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _send(
    session: requests.Session, method: str, url: str, headers: Mapping[str, str], settings: Settings
) -> Any:
    """One exchange without redirects. The token goes to the hub's host only, decided anew for each URL."""
    import requests

    auth = _HubAuthorization(hub_token()) if is_hub(url) else None
    try:
        return session.request(
            method,
            url,
            headers=dict(headers),
            auth=auth,
            allow_redirects=False,
            stream=True,
            timeout=(settings.connect_timeout, settings.read_timeout),
        )
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        raise DownloadError(f"{public_url(url)} is not a usable URL", received=type(error).__name__) from None
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"the certificate of {urlsplit(url).hostname} cannot be verified",
            received=_reason(error),
            fix="set REQUESTS_CA_BUNDLE to your network's certificate file",
        ) from None
    except requests.exceptions.RequestException as error:
        raise _Again(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """The innermost cause, without the URL (which may carry a signature) and without nested class names."""
    seen = str(error)
    if "NameResolutionError" in seen or "getaddrinfo failed" in seen:
        return "the host name cannot be resolved (is there a network?)"
    if "Connection refused" in seen:
        return "the connection was refused"
    if "timed out" in seen.lower():
        return "no answer in time"
    if "CERTIFICATE_VERIFY_FAILED" in seen:
        return "certificate verification failed"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return "the connection was dropped"


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    settings: Settings,
    *,
    stay: bool = False,
) -> Any:
    """Response after redirects. stay: stop at a redirect to another host (it carries the hub's metadata).

    Raises DownloadError for a redirect loop or a redirect that leaves HTTPS, and _Again for what may pass.
    """
    visited = []
    for _ in range(MOST_REDIRECTS + 1):
        visited.append(url)
        response = _send(session, method, url, headers, settings)
        if response.status_code not in REDIRECTS or "Location" not in response.headers:
            return response
        target = urljoin(url, response.headers["Location"])
        if stay and urlsplit(target).netloc != urlsplit(url).netloc:
            return response
        response.close()
        if urlsplit(target).scheme not in ("http", "https"):
            raise DownloadError(f"{public_url(url)} redirects to something that is not HTTP")
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
            raise DownloadError(
                f"{public_url(url)} redirects from https to unprotected http", fix="use another source"
            )
        url = target
    raise DownloadError(
        f"{public_url(visited[0])} redirects without end",
        expected=f"at most {MOST_REDIRECTS} redirects",
        received=f"a loop through {public_url(visited[-1])}",
    )


def check_status(response: Any, url: str) -> None:
    """Raise what a status other than success means:

    NotAvailableError, AccessDeniedError, DownloadError or _Again.
    """
    status = response.status_code
    if status < 400:
        return
    response.close()
    where = public_url(url)
    if status in (408, 425, 429) or status >= 500:
        raise _Again(f"status {status}", _retry_after(response.headers.get("Retry-After")))
    if status in (404, 410):
        raise NotAvailableError(
            f"{where} does not exist (status {status})", fix="check the name and the revision"
        )
    if status in (401, 403):
        raise AccessDeniedError(f"{where} refuses access (status {status})", fix=_denied_fix(url))
    raise DownloadError(f"{where} answers with status {status}", expected="the file")


def _denied_fix(url: str) -> str:
    if not is_hub(url):
        return f"put credentials for {urlsplit(url).hostname} into ~/.netrc, or use another source"
    page = "/".join(urlsplit(url).path.split("/")[1:3])
    if hub_token():
        return f"the Hugging Face token was refused: check it, and accept the terms of {page} on its page"
    return (
        f"no Hugging Face token is set: {page} does not exist, is private, or its terms must be accepted on "
        "its page; then set HF_TOKEN"
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def storage_error(error: OSError, path: Path) -> StorageError:
    """What the operating system's refusal to write means for the user."""
    folder = path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(
            f"there is no room for {path.name} in {folder} ({os.strerror(error.errno)})",
            fix="free space there, or set ZOONET_CACHE (for Hugging Face files: HF_HOME) to a roomy folder",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"the cache {folder} cannot be written ({os.strerror(error.errno)})",
            fix="set ZOONET_CACHE (HF_HOME for Hugging Face files) to a folder that you may write",
        )
    return StorageError(f"{path} cannot be written", received=error.strerror or str(error))


def retrying(action: Any, settings: Settings, deadline: float, what: str) -> Any:
    """Result of action(), called again after failures that may pass, with growing waits.

    Raises DownloadError when attempts or time are used up.
    """
    fruitless = 0
    while True:
        try:
            return action()
        except _Again as again:
            fruitless += 1
            pause(again, fruitless, settings, deadline, what)


def pause(again: _Again, fruitless: int, settings: Settings, deadline: float, what: str) -> None:
    """Wait before the next attempt, or raise DownloadError if there should be none."""
    if fruitless > settings.retries:
        raise DownloadError(
            f"{public_url(what)} could not be read in {fruitless} attempts", received=str(again)
        ) from None
    wait = settings.backoff * 2 ** (fruitless - 1) * random.uniform(0.75, 1.25)
    if again.wait is not None:
        if again.wait > settings.longest_wait:
            raise DownloadError(
                f"{public_url(what)} asks to come back later",
                received=f"Retry-After of {again.wait:.0f} seconds",
            ) from None
        wait = max(wait, again.wait)
    if time.monotonic() + wait > deadline:
        raise DownloadError(f"{public_url(what)} took too long", received=f"last: {again}") from None
    time.sleep(wait)


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
    with new_session() as session:
        while True:
            before = _size(part)
            try:
                received = _fetch_once(session, attempt)
                request.expected.check(
                    received.digests, public_url(request.url), "try again, or use another source"
                )
            except _Again as again:
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


def _fetch_once(session: requests.Session, attempt: _Attempt) -> Received:
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
                raise _Again("the server refused to continue the partial file")
            return _finish(request, part, _hashed(part, request.expected, have))
        check_status(response, request.url)
        if headers and response.status_code == 206 and _range_start(response) == have:
            attempt.resumed = True
        else:
            have = 0
        if response.status_code not in (200, 206) or (response.status_code == 206 and not have):
            raise DownloadError(f"{public_url(request.url)} answers with status {response.status_code}")
        return _store_body(response, attempt, have)


def _range_start(response: Any) -> int:
    text = response.headers.get("Content-Range", "")
    start = text.removeprefix("bytes").strip().partition("-")[0]
    return int(start) if start.isdecimal() else -1


def _range_total(response: Any) -> int:
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else -1


def _is_encoded(response: Any) -> bool:
    """Whether the server compressed the body although plain bytes were asked for."""
    return response.headers.get("Content-Encoding", "identity") not in ("", "identity")


def _announced(response: Any, have: int) -> int | None:
    """Size of the whole file by the response's headers, or None. A compressed body has no usable length."""
    if _is_encoded(response):
        return None
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdecimal() else None


def _store_body(response: Any, attempt: _Attempt, have: int) -> Received:
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
            _copy(response, file, hasher, size, attempt)
            file.flush()
            os.fsync(file.fileno())
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


def _copy(response: Any, file: BinaryIO, hasher: Hasher, size: int | None, attempt: _Attempt) -> None:
    """Body to file.

    Raises _Again if it ends early or drips, IntegrityError if it is longer than it may be.
    """
    name = attempt.request.name
    for data in _pieces(response, attempt):
        if size is not None and hasher.size + len(data) > size:
            raise IntegrityError(
                f"{public_url(attempt.request.url)} is not the published file",
                expected=f"{size} bytes",
                received="more",
                fix="use another source",
            )
        hasher.update(data)
        file.write(data)
        if attempt.progress is not None:
            attempt.progress(name, hasher.size, size)
    if size is not None and hasher.size < size:
        raise _Again(f"the connection ended after {hasher.size} of {size} bytes")


def _pieces(response: Any, attempt: _Attempt) -> Iterator[bytes]:
    """Body in pieces as they arrive.

    read1 returns what there is, so that a drip cannot hold us past the limits.
    """
    import urllib3

    settings = attempt.settings
    window, window_bytes = time.monotonic(), 0
    decoded = response.raw.stream(CHUNK, decode_content=True) if _is_encoded(response) else None
    while True:
        try:
            data = response.raw.read1(CHUNK, decode_content=False) if decoded is None else next(decoded, b"")
        except urllib3.exceptions.ReadTimeoutError:
            raise _Again(f"no data for {settings.read_timeout:g} seconds") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _Again(_reason(error)) from None
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
                raise _Again(f"only {window_bytes} bytes came in {now - window:.0f} seconds")
            window, window_bytes = now, 0


def _finish(request: Request, part: Path, hasher: Hasher) -> Received:
    digests = hasher.digests()
    if request.expected.git:
        # Only small files are known by this hash, and it starts with the size, which may come last.
        digests = hash_file(part, md5=bool(request.expected.md5), git=True)
    return Received(public_url(request.url), digests, request.expected.strength)
