"""Throughput and memory of downloads: one file from loopback by zoonet, by requests alone and by curl.

Run: python tests/bench/download.py [--megabytes 1000] [--rounds 3] [--folder /somewhere/with/room]

Each client is a process of its own, so that its peak memory is its own. zoonet hashes (SHA-256), writes,
syncs to disk and renames; the others only write. "hash" is the time that hashing alone takes on this machine.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import os
import shutil
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ZOONET = """
import sys
from zoonet import weights
weights.fetch(sys.argv[1] + "#sha256=" + sys.argv[3])
"""
REQUESTS = """
import sys, requests
with requests.get(sys.argv[1], stream=True) as response, open(sys.argv[2], "wb") as file:
    for data in response.iter_content(1 << 20):
        file.write(data)
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source: object, outputfile: object) -> None:
        """By sendfile, so that the server is not what is measured."""
        self.wfile.flush()
        self.connection.sendfile(source)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and peak resident MiB of a child process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        compare(folder, options.megabytes * 10**6, options.rounds)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, size: int, rounds: int) -> None:
    (folder / "served").mkdir()
    block = os.urandom(10**6)
    digest = hashlib.sha256()
    with (folder / "served" / "file.bin").open("wb") as file:
        for _ in range(size // 10**6):
            file.write(block)
            digest.update(block)
    handler = functools.partial(_Quiet, directory=str(folder / "served"))
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    target = str(folder / "copy.bin")
    environment = {**os.environ, "NO_PROXY": "*", "ZOONET_CACHE": str(folder / "cache")}
    clients = {
        "zoonet": [sys.executable, "-c", ZOONET, url, target, digest.hexdigest()],
        "requests": [sys.executable, "-c", REQUESTS, url, target],
        "curl": ["curl", "--silent", "--noproxy", "*", "--output", target, url],
    }
    if shutil.which("curl") is None:
        del clients["curl"]
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name, command in clients.items():
            results[name].append(run(command, environment))
            shutil.rmtree(folder / "cache", ignore_errors=True)
            Path(target).unlink(missing_ok=True)
    print(f"{size / 1e6:.0f} MB from loopback, median (best) of {rounds}")
    for name, measured in results.items():
        seconds, best = statistics.median(item[0] for item in measured), min(item[0] for item in measured)
        print(
            f"{name:10} {seconds:6.2f} s ({best:.2f})  {size / 1e6 / seconds:6.0f} MB/s ({size / 1e6 / best:.0f})  "
            f"processor {min(item[1] for item in measured):.2f} s  peak {max(item[2] for item in measured):.0f} MiB"
        )
    began = time.perf_counter()
    with (folder / "served" / "file.bin").open("rb") as file:
        hashlib.file_digest(file, "sha256")
    print(f"{'hash':10} {time.perf_counter() - began:6.2f} s")
    server.shutdown()


if __name__ == "__main__":
    main()
