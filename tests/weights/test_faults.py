"""Every fault of a server, a disk or another process ends in the right file or a clear error, nothing corrupt
left.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy

from zoonet import weights
from zoonet.ops.errors import (
    AccessDeniedError,
    DownloadError,
    IntegrityError,
    NotAvailableError,
    OfflineError,
    StorageError,
)
from zoonet.weights.settings import Settings
from zoonet.weights.source import Source
from zoonet.weights.store import Slot

DATA = random.Random(5).randbytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
TENSORS = safetensors.numpy.save({"a": np.arange(500.0), "b": np.ones((3, 4))})
with io.BytesIO() as _stream:
    np.savez(_stream, a=np.arange(50.0))
    ZIPPED = _stream.getvalue()
FetchFile = Callable[..., Path]


@pytest.fixture
def get(quick: Settings) -> FetchFile:
    def run(url: str, **changes: Any) -> Path:
        return weights.fetch(f"{url}#sha256={SHA256}", settings=replace(quick, **changes))

    return run


def assert_whole(path: Path) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


class TestNetwork:
    def test_plain_download_is_recorded_and_then_cached(self, server: Any, get: FetchFile, files_in: Any) -> None:
        url = server.add("/model.bin", DATA)
        path = get(url)
        assert_whole(path)
        assert get(url) == path
        assert len(server.seen) == 1
        assert files_in(path.parent) == ["model.bin"]
        record = json.loads((path.parent / "record.json").read_text())
        assert (record["sha256"], record["size"], record["verified"]) == (SHA256, len(DATA), "sha256")

    def test_connection_refused(self, get: FetchFile, clean_environment: Path, files_in: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(DownloadError, match=r"3 attempts.*refused"):
            get(f"http://127.0.0.1:{port}/model.bin")
        assert files_in(clean_environment) == []

    def test_name_that_does_not_resolve(self, get: FetchFile, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(DownloadError, match="cannot be resolved"):
            get("http://nowhere.invalid/model.bin")

    @pytest.mark.parametrize("status", [404, 410])
    def test_missing_is_told_at_once(self, server: Any, get: FetchFile, status: int) -> None:
        url = server.add("/gone.bin", DATA, f"status:{status}")
        with pytest.raises(NotAvailableError, match=f"does not exist.*{status}"):
            get(url)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_elsewhere_names_the_host(self, server: Any, get: FetchFile, status: int) -> None:
        url = server.add("/private.bin", DATA, f"status:{status}")
        with pytest.raises(AccessDeniedError, match=rf"{status}.*127\.0\.0\.1.*netrc"):
            get(url)

    def test_other_client_errors_are_not_retried(self, server: Any, get: FetchFile) -> None:
        url = server.add("/odd.bin", DATA, "status:418")
        with pytest.raises(DownloadError, match="418"):
            get(url)
        assert len(server.seen) == 1

    def test_too_many_requests_waits_as_told(self, server: Any, get: FetchFile) -> None:
        url = server.add("/busy.bin", DATA, "status:429:1")
        began = time.monotonic()
        assert_whole(get(url))
        assert 1.0 <= time.monotonic() - began < 4

    def test_too_long_a_wait_is_told_at_once(self, server: Any, get: FetchFile) -> None:
        url = server.add("/busy.bin", DATA, "status:429:3600")
        began = time.monotonic()
        with pytest.raises(DownloadError, match=r"later.*3600 seconds"):
            get(url)
        assert time.monotonic() - began < 2

    def test_retry_after_may_be_a_date(self, server: Any, get: FetchFile) -> None:
        url = server.add("/busy.bin", DATA, "status:503:Wed, 21 Oct 2015 07:28:00 GMT")
        assert_whole(get(url))

    def test_server_error_then_success(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "status:500", "status:502")
        assert_whole(get(url))
        assert len(server.seen) == 3

    def test_server_error_for_good(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, *["status:500"] * 9)
        with pytest.raises(DownloadError, match=r"3 attempts.*status 500"):
            get(url)
        assert len(server.seen) == 3

    def test_dropped_before_an_answer(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "drop")
        assert_whole(get(url))

    def test_silent_server(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, *["hang:2"] * 3)
        with pytest.raises(DownloadError, match="no answer in time"):
            get(url, retries=0, read_timeout=0.3)

    def test_redirect_is_followed(self, server: Any, other_host: Any, get: FetchFile) -> None:
        target = other_host.add("/there.bin", DATA)
        assert_whole(get(server.add("/here.bin", b"", f"redirect:{target}")))

    def test_redirect_loop(self, server: Any, get: FetchFile, clean_environment: Path, files_in: Any) -> None:
        url = server.add("/a.bin", b"", *["redirect:/b.bin"] * 20)
        server.add("/b.bin", b"", *["redirect:/a.bin"] * 20)
        with pytest.raises(DownloadError, match="redirects without end"):
            get(url)
        assert len(server.seen) <= 12
        assert files_in(clean_environment) == []

    def test_redirect_to_a_file_is_refused(self, server: Any, get: FetchFile) -> None:
        url = server.add("/a.bin", b"", "redirect:file:///etc/passwd")
        with pytest.raises(DownloadError, match="not HTTP"):
            get(url)

    def test_proxy_of_the_environment(self, server: Any, get: FetchFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("http_proxy", server.url)
        server.add("http://files.example/model.bin", DATA)
        assert_whole(get("http://files.example/model.bin"))

    def test_proxy_that_is_not_there(self, get: FetchFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_PROXY")
        with socket.socket() as taken:  # bound and not listening
            taken.bind(("127.0.0.1", 0))
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(DownloadError, match="the proxy does not answer: the connection was refused"):
                get("http://files.example/model.bin")

    def test_certificates(self, server: Any, get: FetchFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that nobody vouches for is refused; one in REQUESTS_CA_BUNDLE is taken, as requests does."""
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        if shutil.which("openssl") is None or subprocess.run(make, capture_output=True, check=False).returncode:
            pytest.skip("a certificate cannot be made without openssl")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.httpd.socket = context.wrap_socket(server.httpd.socket, server_side=True)
        url = server.add("/model.bin", DATA).replace("http://", "https://")
        with pytest.raises(DownloadError, match=r"certificate of 127.0.0.1 cannot be verified.*CA_BUNDLE"):
            get(url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert_whole(get(url))

    def test_redirect_from_https_to_http_is_refused(self, get: FetchFile, monkeypatch: pytest.MonkeyPatch) -> None:
        class Answer:
            status_code = 302
            headers: ClassVar = {"Location": "http://files.example/model.bin"}

            def close(self) -> None:
                pass

        monkeypatch.setattr("zoonet.weights.http._send", lambda *_: Answer())
        with pytest.raises(DownloadError, match="from https to unprotected http"):
            get("https://files.example/model.bin")


class TestBody:
    def test_announced_too_short(self, server: Any, quick: Settings, clean_environment: Path, files_in: Any) -> None:
        url = server.add("/model.bin", DATA, *["length:1000"] * 3)
        with pytest.raises(IntegrityError, match=r"expected sha256.*received sha256"):
            weights.fetch(f"{url}#sha256={SHA256}", settings=quick)
        assert files_in(clean_environment) == []

    def test_announced_too_long(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "length:3000500")
        assert_whole(get(url))

    @pytest.mark.parametrize("fault", ["nolength", "chunked", "gzip"])
    def test_no_length(self, server: Any, get: FetchFile, fault: str) -> None:
        assert_whole(get(server.add("/model.bin", DATA, fault)))

    def test_no_length_and_cut_is_caught_by_the_hash(
        self, server: Any, get: FetchFile, clean_environment: Path, files_in: Any
    ) -> None:
        url = server.add("/model.bin", DATA, "nolength:1000000")
        with pytest.raises(IntegrityError, match="expected sha256"):
            get(url)
        assert files_in(clean_environment) == []

    def test_chunked_and_cut_is_resumed(self, server: Any, get: FetchFile) -> None:
        assert_whole(get(server.add("/model.bin", DATA, "chunked:1000000")))
        assert server.seen[-1].headers["range"] == "bytes=1000000-"

    def test_truncated_body_is_resumed(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "truncate:1000000", "truncate:500000")
        assert_whole(get(url))
        ranges = [request.headers.get("range") for request in server.seen]
        assert ranges == [None, "bytes=1000000-", "bytes=1500000-"]
        assert server.seen[1].headers["if-range"] == f'"{hashlib.md5(DATA).hexdigest()}"'

    def test_file_replaced_between_attempts_starts_anew(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", b"x" * len(DATA), "truncate:1000000", "drop", "drop")
        with pytest.raises(DownloadError, match="attempts"):
            get(url)
        server.add("/model.bin", DATA)
        assert_whole(get(url))

    def test_without_validator_or_hash_nothing_is_mixed(self, server: Any, quick: Settings) -> None:
        url = server.add("/model.bin", DATA, "truncate:1000000", etag="")
        with pytest.warns(weights.UnverifiedWarning, match=SHA256):
            path = weights.fetch(url, settings=quick)
        assert_whole(path)
        assert all("range" not in request.headers for request in server.seen)

    def test_range_ignored(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "truncate:1000000", "norange")
        assert_whole(get(url))
        assert server.seen[1].headers["range"] == "bytes=1000000-"

    def test_continued_at_another_place_starts_anew(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "truncate:1000000", "elsewhere:999900")
        assert_whole(get(url))
        assert [request.headers.get("range") for request in server.seen] == [None, "bytes=1000000-", None]

    def test_headers_that_contradict_each_other(self, server: Any, get: FetchFile) -> None:
        with pytest.raises(DownloadError, match="headers that contradict each other"):
            get(server.add("/model.bin", DATA, "two lengths"))

    def test_corrupted_body_is_deleted_with_both_hashes_told(
        self, server: Any, get: FetchFile, clean_environment: Path, files_in: Any
    ) -> None:
        url = server.add("/model.bin", DATA, "corrupt")
        with pytest.raises(IntegrityError) as caught:
            get(url)
        wrong = bytearray(DATA)
        wrong[len(DATA) // 2] ^= 1
        assert SHA256 in str(caught.value)
        assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
        assert files_in(clean_environment) == []
        assert_whole(get(url))

    def test_corrupt_partial_file_of_an_earlier_run_is_replaced(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA)
        slot = Slot(Source.parse(url))
        slot.folder.mkdir(parents=True)
        slot.part.write_bytes(b"?" * 1_000_000)
        assert_whole(get(url))
        assert [request.headers.get("range") for request in server.seen] == ["bytes=1000000-", None]

    def test_partial_file_that_is_already_whole(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA)
        slot = Slot(Source.parse(url))
        slot.folder.mkdir(parents=True)
        slot.part.write_bytes(DATA)
        assert_whole(get(url))

    def test_partial_file_that_is_too_long(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA)
        slot = Slot(Source.parse(url))
        slot.folder.mkdir(parents=True)
        slot.part.write_bytes(DATA + b"more")
        assert_whole(get(url))

    def test_silence_in_the_middle_is_resumed(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, "drip:1500000:2")
        assert_whole(get(url, read_timeout=0.4))
        assert server.seen[-1].headers["range"] == "bytes=1500000-"

    def test_slow_drip_counts_as_dropped(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, *["drip:10:0.02"] * 5)
        began = time.monotonic()
        with pytest.raises(DownloadError, match="bytes came in"):
            get(url, retries=1)
        assert time.monotonic() - began < 5

    def test_slow_drip_past_the_total_timeout(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA, *["drip:2000:0.02"] * 5)
        began = time.monotonic()
        with pytest.raises(DownloadError, match="took too long"):
            get(url, total_timeout=0.5)
        assert time.monotonic() - began < 3

    @pytest.mark.parametrize(
        ("data", "fault", "said"),
        [
            (TENSORS, f"nolength:{len(TENSORS) - 100}", "its data lies outside the file"),
            (TENSORS[:200], "", "model.safetensors"),
            (b"", "", "is empty"),
            (b"\n<!DOCTYPE html><title>Log in</title>", "", "is a web page"),
            (ZIPPED[:-30], "", "zip"),
        ],
        ids=["cut", "header cut", "empty", "web page", "archive cut"],
    )
    def test_what_is_seen_to_be_damaged_without_a_hash(
        self, server: Any, quick: Settings, data: bytes, fault: str, said: str, clean_environment: Path, files_in: Any
    ) -> None:
        url = server.add("/model.safetensors", data, *([fault] if fault else []))
        with pytest.raises(IntegrityError, match=f"did not arrive as a whole file.*{said}"):
            weights.fetch(url, settings=quick)
        assert files_in(clean_environment) == []
        server.add("/model.safetensors", TENSORS)
        with pytest.warns(weights.UnverifiedWarning):
            assert weights.fetch(url, settings=quick).read_bytes() == TENSORS

    def test_more_than_the_published_size_is_not_stored(self, server: Any, quick: Settings) -> None:
        entry = weights.Entry(
            "a.b", "a", "t", (Source.parse(server.add("/model.bin", DATA, "nolength")),),
            "torch", "timm", "test", sha256=(SHA256,), size=1000,
        )  # fmt: skip
        with pytest.raises(IntegrityError, match="expected 1000 bytes"):
            weights.fetch(entry, settings=quick)

    def test_wrong_announced_size_is_told_before_the_body(self, server: Any, quick: Settings) -> None:
        entry = weights.Entry(
            "a.b",
            "a",
            "t",
            (Source.parse(server.add("/model.bin", DATA)),),
            "torch",
            "timm",
            "test",
            size=1000,
        )
        with pytest.raises(IntegrityError, match="3000000 bytes announced"):
            weights.fetch(entry, settings=quick)


class TestSources:
    def entry(self, *urls: str) -> weights.Entry:
        sources = tuple(Source.parse(url) for url in urls)
        return weights.Entry("a.b", "a", "t", sources, "torch", "timm", "test", sha256=(SHA256,), size=len(DATA))

    @pytest.mark.parametrize("fault", ["status:404", "corrupt", "status:403", "length:5"])
    def test_falls_through_to_the_next_source(self, server: Any, quick: Settings, fault: str) -> None:
        first = server.add("/first.bin", DATA, fault)
        second = server.add("/second.bin", DATA)
        assert_whole(weights.fetch(self.entry(first, second), settings=quick))

    def test_all_fail_and_each_is_told(self, server: Any, quick: Settings) -> None:
        first = server.add("/first.bin", DATA, "status:404")
        second = server.add("/second.bin", DATA, "status:403")
        with pytest.raises(DownloadError, match=r"(?s)none of 2 sources.*first.bin.*404.*second.bin.*403"):
            weights.fetch(self.entry(first, second), settings=quick)

    def test_messages_show_neither_password_nor_signature(self, server: Any, quick: Settings) -> None:
        url = server.add("/first.bin", DATA, "status:404").replace("http://", "http://user:hunter2@")
        with pytest.raises(NotAvailableError) as caught:
            weights.fetch(f"{url}?signature=secret", settings=quick)
        assert "hunter2" not in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_nothing_else_shows_them(
        self, server: Any, quick: Settings, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither warnings nor the list of the cache nor what lies in it, and they still tell files apart."""
        url = server.add("/first.bin", DATA).replace("http://", "http://user:hunter2@") + "?signature=secret"
        with pytest.warns(weights.UnverifiedWarning) as caught:
            path = weights.fetch(url, settings=quick)
        written = "".join(
            file.read_text(errors="replace") for file in clean_environment.rglob("*") if file.is_file() and file != path
        )
        listed = weights.cache.list(url)
        assert [file.path for file in listed] == [path]
        shown = f"{caught[0].message}{written}{listed}"
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        with pytest.raises(OfflineError) as offline:
            weights.fetch(url + "2", settings=quick)
        shown += str(offline.value)
        assert "first.bin" in shown
        assert "hunter2" not in shown
        assert "secret" not in shown
        assert weights.cache.list(url + "2") == ()


CHILD = """
import sys, json
from zoonet import weights
from zoonet.weights.settings import Settings
print(weights.fetch(sys.argv[1], settings=Settings(**json.loads(sys.argv[2]))))
"""


def child(environment: dict[str, str], url: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, json.dumps({"backoff": 0.01, **settings})],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class TestProcesses:
    def test_killed_in_the_middle_and_resumed(
        self, server: Any, get: FetchFile, python_environment: dict[str, str]
    ) -> None:
        url = server.add("/model.bin", DATA, "drip:100000:0.05")
        part = Slot(Source.parse(url)).part
        process = child(python_environment, f"{url}#sha256={SHA256}")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 300_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = part.stat().st_size
        assert 0 < kept < len(DATA)
        assert weights.cached(f"{url}#sha256={SHA256}") is None
        assert_whole(get(url))
        assert server.seen[-1].headers["range"] == f"bytes={kept}-"

    @pytest.mark.parametrize("count", [2, 8])
    def test_processes_share_one_download(self, server: Any, python_environment: dict[str, str], count: int) -> None:
        url = server.add("/model.bin", DATA, "drip:300000:0.05")
        processes = [child(python_environment, f"{url}#sha256={SHA256}") for _ in range(count)]
        answers = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0] * count, answers
        assert len({answer[0] for answer in answers}) == 1
        assert_whole(Path(answers[0][0].strip()))
        assert len(server.gets("/model.bin")) == 1

    def test_lock_of_a_dead_process_means_nothing(
        self, server: Any, get: FetchFile, python_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = server.add("/model.bin", DATA)
        lock = Slot(Source.parse(url)).lock
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock)], env=python_environment, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DownloadError, match="another process"):
            get(url, total_timeout=0.3)
        monkeypatch.setattr("zoonet.weights.store._MOMENT", 0.1)
        with pytest.warns(UserWarning, match="waiting for it"), pytest.raises(DownloadError, match="another process"):
            get(url, total_timeout=0.5)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert lock.exists()
        assert_whole(get(url))


HOLD = """
import sys, time, filelock, pathlib
pathlib.Path(sys.argv[1]).parent.mkdir(parents=True, exist_ok=True)
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at a folder, where the user may mount one."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestDisk:
    @pytest.mark.parametrize("fault", ["ok", "nolength"])
    def test_full_disk(
        self,
        server: Any,
        get: FetchFile,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        files_in: Any,
        fault: str,
    ) -> None:
        small = server.add("/small.bin", DATA[:100_000])
        url = server.add("/model.bin", DATA, fault)
        with small_disk(tmp_path / "disk", "1m"):
            monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "disk"))
            sha256 = hashlib.sha256(DATA[:100_000]).hexdigest()
            before = weights.fetch(f"{small}#sha256={sha256}")
            with pytest.raises(StorageError, match=r"no room for model.bin.*ZOONET_CACHE"):
                get(url)
            assert before.read_bytes() == DATA[:100_000]
            assert files_in(tmp_path / "disk") == ["small.bin"]

    def test_limit_on_file_size(self, server: Any, python_environment: dict[str, str], files_in: Any) -> None:
        url = server.add("/model.bin", DATA)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

        process = subprocess.run(
            [sys.executable, "-c", CHILD, f"{url}#sha256={SHA256}", "{}"],
            env=python_environment, preexec_fn=limit, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "StorageError: there is no room for model.bin" in process.stderr
        assert files_in(Path(os.environ["ZOONET_CACHE"])) == []

    def test_read_only_cache(
        self, server: Any, get: FetchFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, other = server.add("/model.bin", DATA), server.add("/other.bin", DATA)
        with small_disk(tmp_path / "disk", "8m"):
            monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "disk"))
            path = get(url)
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
            assert get(url) == path
            with pytest.raises(StorageError, match=r"cannot be written.*ZOONET_CACHE"):
                get(other)
        assert len(server.seen) == 1

    def test_cache_path_that_is_a_file(
        self, server: Any, get: FetchFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "file"))
        with pytest.raises(StorageError, match="cannot be written"):
            get(server.add("/model.bin", DATA))

    def test_path_with_spaces_and_other_scripts(
        self, server: Any, get: FetchFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "my cache — кеш 缓存"))
        path = get(server.add("/model%20%C3%A9.bin", DATA))
        assert_whole(path)
        assert path.name == "model é.bin"
        assert path.is_relative_to(tmp_path / "my cache — кеш 缓存")

    def test_cached_file_that_shrank_is_fetched_again(self, server: Any, get: FetchFile) -> None:
        url = server.add("/model.bin", DATA)
        path = get(url)
        path.write_bytes(DATA[:10])
        assert_whole(get(url))


class TestOffline:
    def test_not_cached(self, get: FetchFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        with pytest.raises(OfflineError, match="not cached and ZOONET_OFFLINE is set"):
            get("http://127.0.0.1:1/model.bin")

    @pytest.mark.parametrize("offline", ["", "1"])
    def test_cached_opens_no_socket(
        self, server: Any, get: FetchFile, python_environment: dict[str, str], offline: str
    ) -> None:
        url = server.add("/model.bin", DATA)
        path = get(url)
        code = FORBID + "print(weights.fetch(sys.argv[1]), weights.cached(sys.argv[1]), len(weights.cache.list()))"
        process = subprocess.run(
            [sys.executable, "-c", code, f"{url}#sha256={SHA256}"],
            env={**python_environment, "ZOONET_OFFLINE": offline},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert process.stdout.split() == [str(path), str(path), "1"], process.stderr

    def test_the_ban_on_sockets_bites(self, server: Any, python_environment: dict[str, str]) -> None:
        url = server.add("/model.bin", DATA)
        process = subprocess.run(
            [sys.executable, "-c", FORBID + "weights.fetch(sys.argv[1])", url],
            env=python_environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "forbidden" in process.stderr


FORBID = """
import sys
def hook(event, arguments):
    if event.startswith("socket."):
        raise SystemExit("forbidden: " + event)
sys.addaudithook(hook)
from zoonet import weights
"""
