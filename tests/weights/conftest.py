"""Servers that misbehave on request, and a clean environment for every test."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Hub, Server, leftovers

from zoonet.weights.settings import Settings

VARIABLES = [
    "ZOONET_CACHE",
    "ZOONET_OFFLINE",
    "ZOONET_MIRROR",
    "ZOONET_READ_TIMEOUT",
    "ZOONET_TOTAL_TIMEOUT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
    "TORCH_HOME",
    "KERAS_HOME",
    "XDG_CACHE_HOME",
]


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    yield state
    state.close()


@pytest.fixture
def other_host() -> Iterator[Server]:
    """A server on another port, which is another host for tokens and redirects."""
    state = Server()
    yield state
    state.close()


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches below tmp_path, no tokens, no proxies. Returns our cache's folder."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache"


@pytest.fixture
def quick() -> Settings:
    """Limits short enough for tests."""
    return Settings(
        connect_timeout=2,
        read_timeout=5,
        total_timeout=30,
        retries=2,
        backoff=0.01,
        longest_wait=2,
        slow_seconds=0.3,
        slow_bytes=1024,
    )


@pytest.fixture
def serve(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve other contents in the place of an entry's: a small file stands for a large one."""

    def replaced(name: str, data: bytes, **changes: Any) -> Any:
        from zoonet import weights
        from zoonet.weights import registry
        from zoonet.weights.source import Source

        entry = weights.find(name)
        url = server.add(f"/{entry.file_name}", data)
        hashes = {"sha256": (hashlib.sha256(data).hexdigest(),), "md5": (), "size": len(data)}
        if entry.md5 and not entry.sha256:
            hashes = {"sha256": (), "md5": (hashlib.md5(data).hexdigest(),), "size": None}
        new = replace(entry, sources=(Source.parse(url),), companions=(), **hashes, **changes)
        index = {**registry._index(), entry.name.lower(): new}
        monkeypatch.setattr(registry, "_index", lambda: index)
        return new

    return replaced


@pytest.fixture
def hub(server: Server, other_host: Server, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return Hub(server, other_host)


@pytest.fixture
def files_in() -> Any:
    return leftovers


@pytest.fixture
def python_environment() -> dict[str, str]:
    """Environment in which a child process imports the same zoonet."""
    import zoonet.weights

    root = Path(zoonet.weights.__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
