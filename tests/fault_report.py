"""Print what becomes of a download under each fault: `python tests/fault_report.py`, a Markdown table.

A server on 127.0.0.1 serves one file of 3 MB and misbehaves as the first column says. The result is "right file" (its
SHA-256 is the published one), or the error that the user gets. The last column lists what is left in the cache: the
whole file, or a ".part" that the next attempt continues. The status is 1 if a result is not the one that is expected.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faulty_server import Server, leftovers

from zoonet import weights
from zoonet.ops.errors import ZoonetError
from zoonet.weights.settings import Settings
from zoonet.weights.source import Source
from zoonet.weights.store import Slot

DATA = random.Random(5).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
RIGHT = "right file"
QUICK = Settings(
    connect_timeout=2, read_timeout=1, total_timeout=20, retries=2, backoff=0.01, longest_wait=2, slow_seconds=0.5,
    slow_bytes=100_000,
)  # fmt: skip
COLUMNS = ("fault", "result", "message", "requests", "left in the cache")


@dataclass
class Place:
    """One fault's server, cache and limits."""

    server: Server
    folder: Path
    settings: Settings

    def fetch(self, url: str, sha256: str = SHA256) -> str:
        """RIGHT, or the error in one line."""
        try:
            path = weights.fetch(f"{url}#sha256={sha256}", settings=self.settings)
        except ZoonetError as error:
            return f"{type(error).__name__}: {error}"
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        return RIGHT if found == SHA256 else f"WRONG FILE: sha256 {found}"

    def child(self, url: str, limit: int | None = None) -> subprocess.Popen[str]:
        """A process that fetches, and prints RIGHT or the error."""
        code = f"import fault_report; print(fault_report.Place(None, None, fault_report.QUICK).fetch({url!r}))"

        def bound() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        return subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True,
            preexec_fn=bound,
        )  # fmt: skip


@dataclass
class Fault:
    """How to bring a fault about, and what should come of it: RIGHT, or the name of the error."""

    name: str
    expected: str
    faults: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    provoke: Callable[[Place], str] | None = None


def no_listener(place: Place) -> str:
    return place.fetch("http://127.0.0.1:9/model.bin")


def no_such_host(place: Place) -> str:
    return place.fetch("http://no-such-host.invalid/model.bin")


def on_the_hub(status: int, token: str) -> Callable[[Place], str]:
    def provoke(place: Place) -> str:
        place.server.add("/org/gated/resolve/main/model.bin", DATA, *[f"status:{status}"] * 9)
        with patch.dict(os.environ, {"HF_ENDPOINT": place.server.url, "HF_TOKEN": token}):
            try:
                return str(weights.fetch("hf://org/gated/model.bin", settings=place.settings))
            except ZoonetError as error:
                return f"{type(error).__name__}: {error}"

    return provoke


def redirect_loop(place: Place) -> str:
    a, b = place.server.url + "/a", place.server.url + "/b"
    place.server.add("/a", DATA, *[f"redirect:{b}"] * 20)
    place.server.add("/b", DATA, *[f"redirect:{a}"] * 20)
    return place.fetch(a)


def wrong_hash(place: Place) -> str:
    return place.fetch(place.server.add("/model.bin", DATA), "0" * 64)


def web_page(place: Place) -> str:
    url = place.server.add("/model.bin", b"<!doctype html><title>Log in</title>")
    try:
        return str(weights.fetch(url, settings=place.settings))
    except ZoonetError as error:
        return f"{type(error).__name__}: {error}"


def killed(place: Place) -> str:
    url = place.server.add("/model.bin", DATA, "drip:100000:0.05")
    process = place.child(url)
    part, end = Slot(Source.parse(url)).part, time.monotonic() + 20
    while time.monotonic() < end and not (part.exists() and part.stat().st_size > 300_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return place.fetch(url)


def together(count: int) -> Callable[[Place], str]:
    def provoke(place: Place) -> str:
        url = place.server.add("/model.bin", DATA, "drip:300000:0.05")
        processes = [place.child(url) for _ in range(count)]
        answers = {process.communicate(timeout=60)[0].strip() for process in processes}
        return answers.pop() if len(answers) == 1 else f"different results: {answers}"

    return provoke


def stale_lock(place: Place) -> str:
    url = place.server.add("/model.bin", DATA)
    lock = Slot(Source.parse(url)).lock
    code = "import filelock, sys, os, signal; filelock.FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    lock.parent.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    return place.fetch(url) if lock.exists() else "the lock vanished"


@contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A file system of 1 MB at a folder; False where this user may not mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(place: Place) -> str:
    """A small file system, or where none can be mounted a limit on the size of files."""
    url = place.server.add("/model.bin", DATA, "nolength")
    with mounted(place.folder / "cache") as done:
        return place.fetch(url) if done else place.child(url, 1_000_000).communicate()[0].strip()


def read_only(place: Place) -> str:
    url = place.server.add("/model.bin", DATA)
    with mounted(place.folder / "cache") as done:
        if done:
            subprocess.run(["mount", "-o", "remount,ro", str(place.folder / "cache")], check=True)
        else:
            (place.folder / "cache").chmod(0o500)
        return place.fetch(url)


def other_scripts(place: Place) -> str:
    with patch.dict(os.environ, {"ZOONET_CACHE": str(place.folder / "cache" / "my cache — кеш 缓存")}):
        return place.fetch(place.server.add("/model.bin", DATA))


FAULTS = (
    Fault("none", RIGHT),
    Fault("connection refused", "DownloadError", provoke=no_listener),
    Fault("DNS failure", "DownloadError", provoke=no_such_host),
    Fault("404", "NotAvailableError", ("status:404",)),
    Fault("401, the hub, no token", "AccessDeniedError", provoke=on_the_hub(401, "")),
    Fault("403, the hub, with a token", "AccessDeniedError", provoke=on_the_hub(403, "secret")),
    Fault("403, elsewhere", "AccessDeniedError", ("status:403",)),
    Fault("429, Retry-After of 1 s", RIGHT, ("status:429:1",)),
    Fault("500, then 200", RIGHT, ("status:500",)),
    Fault("500 each time", "DownloadError", ("status:500",) * 9),
    Fault("redirect loop", "DownloadError", provoke=redirect_loop),
    Fault("length announced too short", "IntegrityError", ("length:1000",) * 9),
    Fault("length announced too long", RIGHT, ("length:4000000",)),
    Fault("no length", RIGHT, ("nolength",)),
    Fault("connection lost in the middle", RIGHT, ("truncate:1000000",)),
    Fault("no length, cut in the middle", "IntegrityError", ("nolength:1000000",) * 9),
    Fault("one bit changed on the way", "IntegrityError", ("corrupt",) * 9),
    Fault("another hash is published", "IntegrityError", provoke=wrong_hash),
    Fault("Range ignored when resuming", RIGHT, ("truncate:1000000", "norange")),
    Fault("another range than asked for", RIGHT, ("truncate:1000000", "elsewhere:999900")),
    Fault("lengths that contradict each other", "DownloadError", ("two lengths",) * 9),
    Fault("a web page, no hash published", "IntegrityError", provoke=web_page),
    Fault("silence past the read timeout", RIGHT, ("hang:1.5",)),
    Fault("slow drip, then well", RIGHT, ("drip:1000:0.1",)),
    Fault("slow drip past the total timeout", "DownloadError", ("drip:100000:0.3",) * 9, {"total_timeout": 2.0}),
    Fault("kill -9 in the middle, run again", RIGHT, provoke=killed),
    Fault("two processes at once", RIGHT, provoke=together(2)),
    Fault("eight processes at once", RIGHT, provoke=together(8)),
    Fault("disk full", "StorageError", provoke=full_disk),
    Fault("read-only cache", "StorageError", provoke=read_only),
    Fault("cache path with spaces, 缓存", RIGHT, provoke=other_scripts),
    Fault("lock of a dead process", RIGHT, provoke=stale_lock),
)


def outcome(fault: Fault) -> tuple[bool, list[str]]:
    """Whether the result is as expected and nothing wrong is left, and the cells of the table."""
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, NO_PROXY="*", HF_HOME=f"{name}/hf"):
        folder = Path(name)
        os.environ["ZOONET_CACHE"] = str(folder / "cache")
        for variable in ("ZOONET_MIRROR", "ZOONET_OFFLINE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN"):
            os.environ.pop(variable, None)
        server = Server()
        try:
            place = Place(server, folder, replace(QUICK, **fault.settings))
            if fault.provoke is not None:
                told = fault.provoke(place)
            else:
                told = place.fetch(server.add("/model.bin", DATA, *fault.faults))
        finally:
            server.close()
        result, _, message = told.partition(": ")
        left = [item for item in leftovers(folder) if item != "model.bin.part.json"]
        right = result == fault.expected and set(left) <= ({"model.bin"} if result == RIGHT else {"model.bin.part"})
        message = message.replace(server.url, "http://host").replace(name, "…").replace("|", "/")
        message = message.replace(SHA256, SHA256[:8] + "…").replace("0" * 64, "00000000…")
        return right, [fault.name, result, message, str(len(server.seen)), ", ".join(left) or "nothing"]


def main() -> int:
    """Print the table; the exit status."""
    rows = [outcome(fault) for fault in FAULTS]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in [COLUMNS, ["---"] * len(COLUMNS), *(r[1] for r in rows)]))
    wrong = [cells[0] for right, cells in rows if not right]
    print(
        f"\n{len(rows)} faults, {len(wrong)} with another result than expected{': ' if wrong else ''}{', '.join(wrong)}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
