"""Servers that answer nonsense or worse: each ends in a file as it was sent, or in one of our errors, never in another.

Answers are written by hand, since a server library would not send them.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoonet import weights
from zoonet.ops.errors import DownloadError, FormatError, ZoonetError
from zoonet.weights.settings import Settings
from zoonet.weights.source import HubReference

OK = b"HTTP/1.1 200 OK\r\n"


def redirect(location: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"


def later(when: bytes) -> bytes:
    return b"HTTP/1.1 429 Too Many\r\nRetry-After: " + when + b"\r\nContent-Length: 0\r\n\r\n"


ANSWERS = {
    "a length of 5000 digits": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
    "a length beyond all disks": OK + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\nabc",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "no HTTP": b"\x00\xff\x01" * 100,
    "another HTTP": b"HTTP/9.9 abc\r\n\r\n",
    "an impossible status": b"HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "a piece that nobody asked for": b"HTTP/1.1 206 x\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nabc",
    "redirect to half an address": redirect(b"http://[::1"),
    "redirect to a port out of range": redirect(b"http://127.0.0.1:99999/x"),
    "redirect to a port of letters": redirect(b"http://127.0.0.1:abc/x"),
    "redirect to other bytes": redirect(b"http://127.0.0.1\xff\xfe/x"),
    "redirect to nowhere": redirect(b""),
    "redirect without a host": redirect(b"http:///x"),
    "redirect to a host with a space": redirect(b"http://a b/x"),
    "redirect to a file": redirect(b"file:///etc/passwd"),
    "redirect to a long name": redirect(b"http://" + b"a" * 300 + b"/y"),
    "redirect to an empty label": redirect(b"http://a..b/y"),
    "a wait that is no number": later(b"nan"),
    "a wait without end": later(b"inf"),
    "a wait until after all calendars": later(b"Fri, 31 Dec 99999999999999 23:59:59 GMT"),
    "200 headers": OK + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\nabc",
    "a long header": OK + b"X: " + b"y" * 70_000 + b"\r\n\r\nabc",
    "an unknown encoding": OK + b"Content-Encoding: rot13\r\nContent-Length: 3\r\n\r\nabc",
    "no gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "100 encodings": OK + b"Content-Encoding: " + b", ".join([b"gzip"] * 100) + b"\r\nContent-Length: 3\r\n\r\nabc",
    "a chunk of no size": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "a huge chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    "a body that is cut": OK + b'Content-Length: 100\r\n\r\n{"sha": "',
}


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """URL of a server that sends these bytes to every request and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing alone would not
        listener.close()
        thread.join(5)


@pytest.fixture
def brief() -> Settings:
    return Settings(connect_timeout=2, read_timeout=2, total_timeout=10, retries=1, backoff=0.01, longest_wait=1)


def visible(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.suffix == ".bin"]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_file(answer: bytes, brief: Settings, clean_environment: Path) -> None:
    with answering(answer) as url, pytest.raises(ZoonetError):
        weights.fetch(f"{url}/file.bin", settings=brief)
    assert not visible(clean_environment)


@pytest.mark.parametrize("what", ["hf://org/name", "hf://org/name/file.bin"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_repository(
    answer: bytes, what: str, brief: Settings, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    with answering(answer) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(ZoonetError):
            weights.fetch(what, settings=brief)
    assert not visible(clean_environment.parent)


def test_names_that_a_server_suggests_are_not_used(brief: Settings, clean_environment: Path) -> None:
    answer = OK + b'Content-Disposition: attachment; filename="../../../evil.bin"\r\nContent-Length: 3\r\n\r\nabc'
    with answering(answer) as url, pytest.warns(weights.UnverifiedWarning):
        assert weights.fetch(f"{url}/file.bin", settings=brief).read_bytes() == b"abc"
    assert [path.name for path in visible(clean_environment.parent)] == ["file.bin"]


def test_a_compressed_list_of_files_that_never_ends(brief: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB of spaces in 100 kB: what is read of a repository's description has a limit after unpacking too."""
    import tracemalloc

    packed = gzip.compress(b" " * (100 << 20), 1)
    answer = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    tracemalloc.start()
    try:
        with answering(answer) as url:
            monkeypatch.setenv("HF_ENDPOINT", url)
            with pytest.raises(FormatError, match="expected JSON"):
                weights.fetch("hf://org/name", settings=brief)
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()


def test_hosts_that_cannot_be(brief: Settings) -> None:
    with pytest.raises(DownloadError, match="is not a usable URL"):
        weights.fetch(f"http://{'a' * 300}/file.bin", settings=brief)


@pytest.mark.parametrize("text", ["hf://org/name@..", "hf://org/name@.", "org/name@..", "hf://org/name@../file.bin"])
def test_revisions_that_leave_the_repository(text: str) -> None:
    with pytest.raises(ValueError, match="revision"):
        HubReference.parse(text)
