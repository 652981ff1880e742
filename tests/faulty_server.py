"""A server that misbehaves on request, and one that is shaped like the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Resource:
    """What a path serves. faults: behaviour of the next requests, one each; after them it behaves."""

    data: bytes
    etag: str = ""
    faults: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]


class _QuietServer(ThreadingHTTPServer):
    """Clients that go away in the middle are what these tests are about."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Server:
    """HTTP on 127.0.0.1 with faults by name: see Handler.fault."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.seen: list[Seen] = []
        self.gate = threading.Event()
        self.httpd = _QuietServer(("127.0.0.1", 0), type("Bound", (Handler,), {"server_state": self}))
        self.thread = threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.httpd.server_address[1]}"

    def add(self, path: str, data: bytes, *faults: str, etag: str | None = None, **headers: str) -> str:
        """Serve data at a path; returns its URL."""
        tag = hashlib.md5(data).hexdigest() if etag is None else etag
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.resources[path] = Resource(data, tag, list(faults), named)
        return self.url + path

    def gets(self, path: str) -> list[Seen]:
        return [request for request in self.seen if request.method == "GET" and request.path == path]

    def close(self) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()


class Handler(BaseHTTPRequestHandler):
    """Serves Resources with Range and If-Range, and breaks where told to."""

    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        state = self.server_state
        path = self.path.partition("?")[0]
        state.seen.append(Seen(self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        resource = state.resources.get(path)
        if resource is None:
            self.plain(404)
            return
        fault, _, argument = (resource.faults.pop(0) if resource.faults else "ok").partition(":")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.fault(fault, argument, resource, body)

    def plain(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def fault(self, fault: str, argument: str, resource: Resource, body: bool) -> None:
        data = resource.data
        if fault == "status":
            status, _, retry_after = argument.partition(":")
            self.plain(int(status), **({"Retry_After": retry_after} if retry_after else {}))
        elif fault == "redirect":
            self.plain(302, Location=argument, **{k.replace("-", "_"): v for k, v in resource.headers.items()})
        elif fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "hang":
            time.sleep(float(argument))
            self.close_connection = True
        elif fault == "length":  # announces another length than the body has
            self.start(200, resource, int(argument))
            self.wfile.write(data)
            self.close_connection = True
        elif fault == "nolength":
            self.start(200, resource, None)
            self.wfile.write(data if not argument else data[: int(argument)])
            self.close_connection = True
        elif fault == "chunked":
            self.start(200, resource, None, Transfer_Encoding="chunked")
            half = data[: int(argument)] if argument else data
            self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half) + (b"0\r\n\r\n" if not argument else b""))
            self.close_connection = True
        elif fault == "gzip":
            import gzip

            packed = gzip.compress(data)
            self.start(200, resource, len(packed), Content_Encoding="gzip")
            self.wfile.write(packed)
        elif fault == "elsewhere" and "Range" in self.headers:  # continues where nobody asked
            begin = int(argument)
            place = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self.start(206, resource, len(data) - begin, Content_Range=place)
            self.wfile.write(data[begin:])
        elif fault == "two lengths":
            self.start(200, resource, len(data), Content_length="5")
            self.wfile.write(data)
        elif fault == "norange":
            self.start(200, resource, len(data))
            self.wfile.write(data)
        else:
            self.ranged(fault, argument, resource, body)

    def start(self, status: int, resource: Resource, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if resource.etag:
            self.send_header("ETag", f'"{resource.etag}"')
        for key, value in (resource.headers | headers).items():
            self.send_header(key.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def ranged(self, fault: str, argument: str, resource: Resource, body: bool) -> None:
        data, begin = resource.data, 0
        wanted = self.headers.get("Range", "")
        unchanged = self.headers.get("If-Range") in (None, f'"{resource.etag}"')
        if wanted and unchanged:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(data):
                self.plain(416, Content_Range=f"bytes */{len(data)}")
                return
            self.start(206, resource, len(data) - begin, Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.start(200, resource, len(data))
        if not body:
            return
        data = data[begin:]
        if fault == "truncate":
            self.wfile.write(data[: int(argument)])
            self.close_connection = True
        elif fault == "corrupt":
            position = int(argument) if argument else len(data) // 2
            self.wfile.write(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        elif fault == "drip":
            size, _, seconds = argument.partition(":")
            for start in range(0, len(data), int(size)):
                self.wfile.write(data[start : start + int(size)])
                self.wfile.flush()
                time.sleep(float(seconds))
        elif fault == "gate":  # the last byte waits until the test opens the gate
            for start in range(0, len(data) - 1, int(argument)):
                self.wfile.write(data[start : min(start + int(argument), len(data) - 1)])
                self.wfile.flush()
                time.sleep(0.05)
            self.server_state.gate.wait(60)
            self.wfile.write(data[-1:])
        else:
            self.wfile.write(data)


class Hub:
    """A Hugging Face-shaped pair of servers:

    large files redirect to another host, small ones come directly.
    """

    def __init__(self, server: Server, content_host: Server) -> None:
        self.server = server
        self.content_host = content_host

    def add(self, repository: str, commit: str, files: dict[str, bytes], branch: str = "main") -> None:
        """Serve a repository's files at a commit and a branch, with the API that lists them."""
        listing = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        for revision in (branch, commit):
            api = f"/api/models/{repository}/revision/{revision}"
            self.server.add(api, json.dumps(listing).encode())
            tree = [self.described(name, data) for name, data in files.items()]
            self.server.add(f"/api/models/{repository}/tree/{revision}", json.dumps(tree).encode())
            for name, data in files.items():
                self.add_file(repository, commit, revision, name, data)

    @staticmethod
    def described(name: str, data: bytes) -> dict[str, Any]:
        """What the hub's list of a tree says of a file; large ones are kept elsewhere."""
        blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
        facts: dict[str, Any] = {"type": "file", "oid": blob, "size": len(data), "path": name}
        if len(data) >= 2000:
            facts["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return facts

    def add_file(self, repository: str, commit: str, revision: str, name: str, data: bytes) -> None:
        path = f"/{repository}/resolve/{revision}/{name}"
        if len(data) < 2000:
            blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
            self.server.add(path, data, etag=blob, X_Repo_Commit=commit)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.content_host.add(f"/content/{sha256}", data, etag="content-" + sha256[:8])
        headers = {
            "X_Repo_Commit": commit,
            "X_Linked_Etag": f'"{sha256}"',
            "X_Linked_Size": str(len(data)),
        }
        faults = [f"redirect:{target}?signature=secret"] * 1000
        self.server.add(path, b"", *faults, etag="", **headers)


def leftovers(folder: Path) -> list[str]:
    """Files below a folder that are neither locks nor whole, recorded files."""
    if not folder.exists():
        return []
    return sorted(
        path.name
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != "record.json"
    )
