"""Files that are hashed and synced while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

from zoonet.weights import writing
from zoonet.weights.integrity import Hasher

DATA = random.Random(7).randbytes(5_000_000)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zoonet-hash"]


@pytest.mark.parametrize("piece", [1, 100_000, 1 << 20, 5_000_000])
def test_hashes_are_those_of_the_file(tmp_path: Path, piece: int) -> None:
    data = DATA[:1000] if piece == 1 else DATA
    hasher = Hasher(md5=True)
    hasher.update(b"before")
    with (tmp_path / "f").open("wb") as file, writing.HashedFile(file, hasher) as target:
        for start in range(0, len(data), piece):
            target.write(data[start : start + piece])
        assert target.size == 6 + len(data)
        target.finish()
        assert (tmp_path / "f").read_bytes() == data
    found = hasher.digests()
    assert (found.size, found.sha256) == (6 + len(data), hashlib.sha256(b"before" + data).hexdigest())
    assert found.md5 == hashlib.md5(b"before" + data).hexdigest()
    assert threads() == []


def test_what_was_written_goes_to_the_disk_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(writing, "_SYNC_EVERY", 2_000_000)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(threading.current_thread().name))
    with (tmp_path / "f").open("wb") as file, writing.HashedFile(file, Hasher()) as target:
        for start in range(0, len(DATA), 250_000):
            target.write(DATA[start : start + 250_000])
        target.finish()
    assert synced == ["zoonet-hash", "zoonet-hash", "MainThread"]


def test_a_disk_that_fails_behind_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "_SYNC_EVERY", 1_000_000)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_on(tmp_path / "f", 50)
    assert threads() == []


def write_on(path: Path, times: int) -> None:
    with path.open("wb") as file, writing.HashedFile(file, Hasher()) as target:
        for _ in range(times):
            target.write(DATA[:500_000])
        target.finish()


def test_an_error_of_the_writer_ends_the_thread(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "f")
    assert threads() == []


def interrupted(path: Path) -> None:
    with path.open("wb") as file, writing.HashedFile(file, Hasher()) as target:
        target.write(DATA)
        assert len(threads()) == 1
        raise KeyboardInterrupt
