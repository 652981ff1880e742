"""Requests and answers over HTTP: redirects, the hub's token, statuses, waits, and errors in plain words."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from zoonet.ops.errors import AccessDeniedError, DownloadError, NotAvailableError, StorageError
from zoonet.weights.settings import Settings, hub_endpoint, hub_token, is_hub
from zoonet.weights.source import public_url

if TYPE_CHECKING:
    from zoonet.weights.connections import Session

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 10


class Again(Exception):
    """An attempt failed in a way that may pass. wait: seconds that the server asked for, or None."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def new_session(deadline: float) -> Session:
    """A session that reads nothing after the deadline, which is on the clock of time.monotonic."""
    from zoonet.weights.connections import Session  # brings requests with it

    return Session(deadline)


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


def _send(session: Session, method: str, url: str, headers: Mapping[str, str], settings: Settings) -> Any:
    """One exchange without redirects, whose headers have a limited time, and a body too unless it is given more.

    The token goes to the hub's host only, decided anew for each URL.
    """
    import requests

    token = hub_token() if is_hub(url) else ""
    if not (token.isascii() and token.isprintable()):
        raise AccessDeniedError(
            "the Hugging Face token is none",
            expected="letters and digits, as in hf_…",
            received="other characters",
            fix="set HF_TOKEN anew, or unset it",
        )
    auth = _HubAuthorization(token) if is_hub(url) else None
    session.allow(settings.read_timeout + settings.slow_seconds)
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
    except requests.exceptions.InvalidHeader:
        raise DownloadError(f"{public_url(url)} answers with headers that contradict each other") from None
    except ValueError as error:  # all that requests, urllib3 and the encoding of host names say of a wrong URL
        raise DownloadError(f"{public_url(url)} is not a usable URL", received=type(error).__name__) from None
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"the certificate of {urlsplit(url).hostname} cannot be verified",
            received=reason_of(error),
            fix="set REQUESTS_CA_BUNDLE to your network's certificate file",
        ) from None
    except requests.exceptions.ProxyError as error:
        raise Again(f"the proxy does not answer: {reason_of(error)}") from None
    except requests.exceptions.RequestException as error:
        raise Again(reason_of(error)) from None


def reason_of(error: BaseException) -> str:
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
    session: Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    settings: Settings,
    *,
    stay: bool = False,
    hops: list[Mapping[str, str]] | None = None,
) -> Any:
    """Response after redirects. stay: stop at a redirect to another host. hops: takes each answer's headers.

    Raises DownloadError for a redirect loop or a redirect that leaves HTTPS, and Again for what may pass.
    """
    visited = []
    for _ in range(MOST_REDIRECTS + 1):
        visited.append(url)
        response = _send(session, method, url, headers, settings)
        if hops is not None:
            hops.append(response.headers)
        if response.status_code not in REDIRECTS or "Location" not in response.headers:
            return response
        target = _target(url, response.headers["Location"])
        if stay and urlsplit(target).netloc != urlsplit(url).netloc:
            return response
        response.close()
        if urlsplit(target).scheme not in ("http", "https"):
            raise DownloadError(f"{public_url(url)} redirects to something that is not HTTP")
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
            raise DownloadError(f"{public_url(url)} redirects from https to unprotected http", fix="use another source")
        url = target
    raise DownloadError(
        f"{public_url(visited[0])} redirects without end",
        expected=f"at most {MOST_REDIRECTS} redirects",
        received=f"a loop through {public_url(visited[-1])}",
    )


def _target(url: str, location: str) -> str:
    """URL to which a redirect leads. Raises DownloadError for one that is none."""
    try:
        target = urljoin(url, location)
        _ = urlsplit(target).port  # is read later, and may be no number
    except ValueError as error:
        raise DownloadError(f"{public_url(url)} redirects to what is no URL", received=error) from None
    return target


def whole_number(text: str | None) -> int | None:
    """A header's number of bytes, or None where it is none. What has more digits than any file counts as 10^20."""
    if not text or not text.isdecimal():
        return None
    return int(text) if len(text) <= 20 else 10**20


def is_encoded(response: Any) -> bool:
    """Whether the server compressed the body although plain bytes were asked for.

    Raises DownloadError for a compression that cannot be undone here.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return False
    known = response.raw.CONTENT_DECODERS
    if unknown := [way for way in map(str.strip, encoding.split(",")) if way not in known]:
        raise DownloadError(
            f"{public_url(response.url)} sends the file compressed in an unknown way",
            expected=", ".join(known),
            received=unknown[0][:100],
            fix="use another source",
        )
    return True


def read_whole(response: Any, limit: int, deadline: float) -> bytes:
    """A small body. One of more than `limit` bytes, after unpacking too, is cut behind that.

    Raises Again if it does not come to its end, or not before the deadline.
    """
    import urllib3

    packed = is_encoded(response)
    body = bytearray()
    try:
        while len(body) <= limit and (data := response.raw.read1(1 << 16, decode_content=packed)):
            body += data
            if time.monotonic() > deadline:
                raise Again("no end in time")
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Again(reason_of(error)) from None
    return bytes(body)


def check_status(response: Any, url: str) -> None:
    """Raise what a status other than success means:

    NotAvailableError, AccessDeniedError, DownloadError or Again.
    """
    status = response.status_code
    if status < 400:
        return
    response.close()
    where = public_url(url)
    if status in (408, 425, 429) or status >= 500:
        raise Again(f"status {status}", _retry_after(response.headers.get("Retry-After")))
    if status in (404, 410):
        raise NotAvailableError(f"{where} does not exist (status {status})", fix="check the name and the revision")
    if status in (401, 403):
        raise AccessDeniedError(f"{where} refuses access (status {status})", fix=_denied_fix(url))
    raise DownloadError(f"{where} answers with status {status}", expected="the file")


def _denied_fix(url: str) -> str:
    if not is_hub(url):
        return f"put credentials for {urlsplit(url).hostname} into ~/.netrc, or use another source"
    page = _repository_of(url)
    if hub_token():
        return f"the Hugging Face token was refused: check it, and accept the terms of {page} on its page"
    return (
        f"no Hugging Face token is set: {page} does not exist, is private, or its terms must be accepted on "
        "its page; then set HF_TOKEN"
    )


def _repository_of(url: str) -> str:
    """organisation/name in a URL of the hub: of its API, of a file, or below an endpoint that is not at the root."""
    path = urlsplit(url).path.removeprefix(urlsplit(hub_endpoint()).path).removeprefix("/api/models")
    return "/".join(path.split("/")[1:3])


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
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
        except Again as again:
            fruitless += 1
            pause(again, fruitless, settings, deadline, what)


def pause(again: Again, fruitless: int, settings: Settings, deadline: float, what: str) -> None:
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
