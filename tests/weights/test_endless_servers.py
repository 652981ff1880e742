"""Servers that never come to an end, though something arrives all the time: each is given up in a limited time."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from zoonet import weights
from zoonet.ops.errors import DownloadError
from zoonet.weights.settings import Settings

OK = b"HTTP/1.1 200 OK\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: /file.bin\r\n"
# The start of a gzip file, and a block of none of its bytes.
GZIP, EMPTY_BLOCK = gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff"
#: What is sent once, what is sent again and again, and the seconds between.
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0),
    "interim answers, slowly": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.1),
    "a header": (OK + b"X: ", b"y", 0.1),
    "headers": (OK, b"X: y\r\n", 0.1),
    "a status": (b"HTTP/1.1 200 ", b"O", 0.1),
    "the body of a redirect": (FOUND + b"Content-Length: 99999999999\r\n\r\n", b"x" * 1000, 0.0),
    "the body of a redirect, slowly": (FOUND + b"\r\n", b"x", 0.1),
    "the size of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 0.1),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", b"X: y\r\n", 0.0),
    "trailers, slowly": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", b"X: y\r\n", 0.1),
    "empty blocks": (OK + b"Content-Encoding: gzip\r\nContent-Length: 99999999999\r\n\r\n" + GZIP, EMPTY_BLOCK, 0.1),
    "empty blocks, fast": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: 99999999999\r\n\r\n" + GZIP,
        EMPTY_BLOCK * 1000,
        0.0,
    ),
    "a body": (OK + b"Content-Length: 99999999999\r\n\r\n", b"{", 0.1),
}
#: Seconds after which the server gives up, so that a client that would not fails and does not hang.
PATIENCE = 12


@contextlib.contextmanager
def sending(first: bytes, again: bytes, wait: float) -> Iterator[str]:
    """URL of a server that answers every request so."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            began = time.monotonic()
            pieces: Iterable[bytes] = itertools.chain([first], itertools.repeat(again))
            for piece in pieces:
                if over.wait(wait) if wait else over.is_set() or time.monotonic() - began > PATIENCE:
                    return
                connection.sendall(piece)
                if time.monotonic() - began > PATIENCE:
                    return

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def brief() -> Settings:
    return Settings(
        connect_timeout=1, read_timeout=0.15, total_timeout=60, retries=0, slow_seconds=0.15, slow_bytes=1 << 20
    )


CASES = [(name, "file") for name in ENDLESS] + [
    (name, what)
    for name in ("interim answers, slowly", "a header", "the body of a redirect", "a body")
    for what in ("repository", "hub's file")
]


@pytest.mark.parametrize(("name", "what"), CASES)
def test_it_is_given_up(
    name: str,
    what: str,
    brief: Settings,
    monkeypatch: pytest.MonkeyPatch,
    clean_environment: Path,
) -> None:
    with sending(*ENDLESS[name]) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        names = {"file": f"{url}/file.bin", "repository": "hf://org/name", "hub's file": "hf://org/name/file.bin"}
        began = time.monotonic()
        tracemalloc.start()
        try:
            with pytest.raises(DownloadError):
                weights.fetch(names[what], settings=brief)
            assert tracemalloc.get_traced_memory()[1] < 32 << 20
        finally:
            tracemalloc.stop()
        assert time.monotonic() - began < 5
    assert not [path for path in clean_environment.parent.rglob("*") if path.name in ("file.bin", "config.json")]


@pytest.mark.parametrize("name", ["a header", "empty blocks"])
def test_the_total_time_holds_in_the_middle_of_an_answer(name: str) -> None:
    settings = Settings(read_timeout=5, total_timeout=0.5, retries=5)
    began = time.monotonic()
    with sending(*ENDLESS[name]) as url, pytest.raises(DownloadError, match="took too long"):
        weights.fetch(f"{url}/file.bin", settings=settings)
    assert time.monotonic() - began < 3
