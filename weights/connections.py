"""Connections on which an answer has a limited time, however it arrives.

A timeout of sockets is one between two arrivals, so a server can hold a client for ever by small gifts: interim answers
without end, a header of one byte a second, trailers after the last chunk, compressed bytes that unpack to nothing.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Session(requests.Session):
    """requests' session that asks for plain bytes, so that lengths and ranges mean the file's own.

    deadline: on the clock of time.monotonic, for all that is read. `allow` sets a nearer limit.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.headers["User-Agent"] = "zoonet"
        self.headers["Accept-Encoding"] = "identity"
        self._deadline = self._until = deadline
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self))

    def allow(self, seconds: float) -> None:
        """Let what is read from now on take so long, however much arrives."""
        self._until = min(self._deadline, time.monotonic() + seconds)

    def check(self) -> None:
        """Raise TimeoutError, as a socket does, if the time is over."""
        if time.monotonic() > self._until:
            raise TimeoutError("timed out")

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, since redirects are followed elsewhere: requests would read the body of each to its end first."""


class _Reader(io.RawIOBase):
    """Bytes of a socket as long as the session has time."""

    def __init__(self, raw: io.RawIOBase, session: Session) -> None:
        self._raw = raw
        self._session = session

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        self._session.check()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A connected socket, of which answers are read by _Reader."""

    def __init__(self, inner: Any, session: Session) -> None:
        self._inner = inner
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._inner.makefile(mode, buffering=0), self._session))


def _pools(session: Session) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """urllib3's pools by scheme, whose connections keep to the session's time once they stand."""

    class Limited(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.sock: Any = _Socket(self.sock, session)

    class Secure(Limited, HTTPSConnection):
        pass

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Limited

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Adapter(HTTPAdapter):
    def __init__(self, session: Session) -> None:
        self._pools = _pools(session)
        super().__init__()

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        super().init_poolmanager(*args, **keywords)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **keywords: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **keywords)
        if not str(proxy).lower().startswith("socks"):  # those have connections of their own
            manager.pool_classes_by_scheme = self._pools
        return manager
