"""Cache commands, the folders of other frameworks, and mirrors for closed networks."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoonet import weights
from zoonet.ops.errors import (
    ArgumentError,
    DownloadError,
    IntegrityError,
    NotAvailableError,
    UnknownModelError,
)
from zoonet.weights import settings as environment
from zoonet.weights.settings import Settings
from zoonet.weights.source import Source

DATA = random.Random(7).randbytes(100_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
MD5 = hashlib.md5(DATA).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"model_type": "bert"}', "model.safetensors": DATA}


def entry_at(url: str, **values: Any) -> weights.Entry:
    return weights.Entry("net.tag", "net", "t", (Source.parse(url),), "torch", "timm", "test", **values)


class TestCommands:
    def test_list_path_verify_remove(self, server: Any, hub: Any, quick: Settings, clean_environment: Path) -> None:
        url = server.add("/model.bin", DATA)
        path = weights.fetch(f"{url}#sha256={SHA256}", settings=quick)
        hub.add("org/name", COMMIT, FILES)
        folder = weights.fetch("org/name", settings=quick)
        listed = weights.cache.list()
        assert {(file.kind, file.path, file.size) for file in listed} == {
            ("zoonet", path, len(DATA)),
            ("hugging-face", folder / "model.safetensors", len(DATA)),
            ("hugging-face", folder / "config.json", len(FILES["config.json"])),
        }
        assert weights.cache.path() == clean_environment
        assert weights.cache.path(url) == path
        assert weights.cache.path("org/name") == folder
        assert [outcome.problem for outcome in weights.cache.verify()] == [None] * 3
        assert {outcome.strength for outcome in weights.cache.verify()} == {"sha256", "git-sha1"}
        assert [file.path for file in weights.cache.remove(url)] == [path]
        assert not path.exists()
        assert weights.cached(url) is None
        assert {file.path.name for file in weights.cache.remove("org/name")} == set(FILES)
        assert weights.cache.list() == ()
        assert not list((environment.hub_cache_folder() / "models--org--name" / "blobs").iterdir())

    def test_verify_finds_what_changed(self, server: Any, hub: Any, quick: Settings) -> None:
        path = weights.fetch(server.add("/model.bin", DATA) + f"#sha256={SHA256}", settings=quick)
        hub.add("org/name", COMMIT, FILES)
        folder = weights.fetch("org/name", settings=quick)
        for changed in (path, folder / "model.safetensors", folder / "config.json"):
            data = bytearray(changed.read_bytes())
            data[0] ^= 1
            changed.write_bytes(data)
        seen: list[tuple[int, int]] = []
        outcomes = weights.cache.verify(progress=lambda *args: seen.append(args))
        total = sum(outcome.file.size for outcome in outcomes)
        assert (len(seen), seen[0], seen[-1]) == (len(outcomes) + 1, (0, total), (total, total))
        problems = {outcome.file.path.name: outcome.problem for outcome in outcomes}
        wrong = hashlib.sha256(bytes([DATA[0] ^ 1]) + DATA[1:]).hexdigest()
        assert problems["model.bin"] == (f"sha256 {SHA256}", f"sha256 {wrong}")
        assert problems["model.safetensors"] == (f"sha256 {SHA256}", f"sha256 {wrong}")
        assert problems["config.json"] is not None

    def test_blob_that_another_commit_needs_stays(self, hub: Any, quick: Settings) -> None:
        hub.add("org/name", COMMIT, FILES)
        weights.fetch("org/name", settings=quick)
        other = weights.Entry(
            "net.tag", "net", "t", (Source("hugging-face", "org/name", "model.safetensors", "f" * 40),),
            "safetensors", "timm", "test", sha256=(SHA256,),
        )  # fmt: skip
        path = weights.fetch(other, settings=quick)
        weights.cache.remove("org/name")
        assert path.read_bytes() == DATA

    def test_remove_all_leaves_the_shared_cache(self, server: Any, hub: Any, quick: Settings) -> None:
        weights.fetch(server.add("/model.bin", DATA) + f"#sha256={SHA256}", settings=quick)
        hub.add("org/name", COMMIT, FILES)
        folder = weights.fetch("org/name", settings=quick)
        assert len(weights.cache.remove()) == 1
        assert (folder / "model.safetensors").read_bytes() == DATA
        assert {file.kind for file in weights.cache.list()} == {"hugging-face"}

    def test_names_that_are_not_cached(self) -> None:
        with pytest.raises(UnknownModelError, match=r"is not cached.*zoonet download resnet50"):
            weights.cache.path("resnet50.tv_in1k")
        with pytest.raises(UnknownModelError, match="did you mean"):
            weights.cache.path("resnet5")
        assert weights.cache.list("resnet50.tv_in1k") == ()

    @pytest.mark.parametrize("text", ["", "{}", "[1]", '{"name": "../../evil"}', "\x00"])
    def test_broken_record_is_a_miss(self, server: Any, quick: Settings, text: str) -> None:
        url = server.add("/model.bin", DATA) + f"#sha256={SHA256}"
        path = weights.fetch(url, settings=quick)
        (path.parent / "record.json").write_text(text)
        assert weights.cached(url) is None
        assert weights.cache.list() == ()
        assert weights.fetch(url, settings=quick).read_bytes() == DATA

    def test_same_url_with_another_hash_is_fetched_again(self, server: Any, quick: Settings) -> None:
        url = server.add("/model.bin", b"old contents")
        with pytest.warns(weights.UnverifiedWarning):
            weights.fetch(url, settings=quick)
        server.add("/model.bin", DATA)
        assert weights.fetch(url, settings=quick).read_bytes() == b"old contents"
        assert weights.fetch(f"{url}#sha256={SHA256}", settings=quick).read_bytes() == DATA

    def test_catalog_names_appear(self, server: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = entry_at(server.add("/model.bin", DATA), sha256=(SHA256[:8],))
        monkeypatch.setattr("zoonet.weights.cache.entries", lambda: (entry,))
        weights.fetch(entry, settings=quick)
        assert [file.name for file in weights.cache.list()] == ["net.tag"]


class TestHashes:
    @pytest.mark.parametrize(
        "published",
        [
            {"sha256": (SHA256[:8],)},
            {"sha256": ("0" * 8, SHA256)},
            {"md5": (MD5,)},
            {"md5": (MD5,), "sha256": (SHA256,)},
        ],
    )
    def test_accepted(self, server: Any, quick: Settings, published: Any) -> None:
        path = weights.fetch(entry_at(server.add("/model.bin", DATA), **published), settings=quick)
        assert path.read_bytes() == DATA

    @pytest.mark.parametrize(
        "published", [{"sha256": ("0" * 8,)}, {"md5": ("0" * 32,)}, {"md5": (MD5,), "sha256": ("0" * 64,)}]
    )
    def test_refused(self, server: Any, quick: Settings, published: Any, files_in: Any, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match=r"expected .*0{8}.*received"):
            weights.fetch(entry_at(server.add("/model.bin", DATA), **published), settings=quick)
        assert files_in(tmp_path / "cache") == []


class TestOtherFrameworks:
    @pytest.mark.parametrize("folder", ["torch/hub/checkpoints", "keras/models"])
    @pytest.mark.parametrize("published", [{"sha256": (SHA256[:8],)}, {"md5": (MD5,)}])
    def test_their_files_are_used(self, tmp_path: Path, quick: Settings, folder: str, published: Any) -> None:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.bin").write_bytes(DATA)
        path = weights.fetch(entry_at("http://127.0.0.1:1/model.bin", **published), settings=quick)
        assert path == tmp_path / folder / "model.bin"

    @pytest.mark.parametrize("published", [{}, {"sha256": ("0" * 8,)}, {"sha256": (SHA256,), "size": 5}])
    def test_only_with_the_published_hash(self, tmp_path: Path, quick: Settings, published: Any) -> None:
        (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "torch" / "hub" / "checkpoints" / "model.bin").write_bytes(DATA)
        with pytest.raises(DownloadError, match="refused"):
            weights.fetch(entry_at("http://127.0.0.1:1/model.bin", **published), settings=quick)

    def test_default_folders(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As torch.hub.get_dir, Keras's get_file and huggingface_hub.constants document them."""
        home = Path(os.environ["HOME"])
        for variable in ("TORCH_HOME", "KERAS_HOME", "HF_HOME", "ZOONET_CACHE"):
            monkeypatch.delenv(variable)
        assert environment.torch_folder() == home / ".cache" / "torch" / "hub" / "checkpoints"
        assert environment.keras_folder() == home / ".keras" / "models"
        assert environment.hub_cache_folder() == home / ".cache" / "huggingface" / "hub"
        assert environment.cache_folder().name == "zoonet"
        monkeypatch.setenv("HF_HUB_CACHE", "~/elsewhere")
        assert environment.hub_cache_folder() == home / "elsewhere"
        monkeypatch.setenv("XDG_CACHE_HOME", "/x")
        assert environment.torch_folder() == Path("/x/torch/hub/checkpoints")

    def test_timeouts_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ZOONET_READ_TIMEOUT", "7.5")
        assert Settings.from_environment().read_timeout == 7.5
        monkeypatch.setenv("ZOONET_TOTAL_TIMEOUT", "soon")
        with pytest.raises(ArgumentError, match="ZOONET_TOTAL_TIMEOUT"):
            Settings.from_environment()


class TestMirror:
    @pytest.fixture
    def origin(self, server: Any) -> weights.Entry:
        return entry_at(server.add("/folder/model.bin", DATA), sha256=(SHA256,))

    @pytest.mark.parametrize("layout", ["sha256", "host and port", "host"])
    @pytest.mark.parametrize("over_http", [False, True])
    def test_file_below_a_mirror(
        self, tmp_path: Path, other_host: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch,
        layout: str, over_http: bool,
    ) -> None:  # fmt: skip
        entry = entry_at("http://files.example:81/folder/model.bin", sha256=(SHA256,))
        place = {"sha256": SHA256, "host and port": "files.example:81/folder/model.bin"}.get(
            layout, "files.example/folder/model.bin"
        )
        mirror = tmp_path / "a mirror"
        (mirror / place).parent.mkdir(parents=True)
        (mirror / place).write_bytes(DATA)
        as_text = mirror.as_uri() if layout == "host" else str(mirror)
        other_host.add(f"/m/{place.replace(':', '%3A')}", DATA)
        monkeypatch.setenv("ZOONET_MIRROR", f"{other_host.url}/m/" if over_http else as_text)
        if not over_http:
            monkeypatch.setenv("ZOONET_OFFLINE", "1")
        path = weights.fetch(entry, settings=quick)
        assert path.read_bytes() == DATA
        assert path.is_relative_to(tmp_path / "cache")

    def test_queries_tell_files_apart(
        self, server: Any, tmp_path: Path, quick: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One path, two queries, two files; where the second lies is written out by hand: printf b=2 | sha256sum."""
        urls = []
        for query, data in (("a=1", b"first"), ("b=2", b"second")):
            server.add("/get", data)
            urls.append(f"{server.url}/get?{query}")
            with pytest.warns(weights.UnverifiedWarning):
                weights.mirror.export(tmp_path / "m", [urls[-1]], settings=quick)
        host = server.url.removeprefix("http://")
        assert (tmp_path / "m" / host / "get~efa2eba7fff4").read_bytes() == b"second"
        monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "another cache"))
        monkeypatch.setenv("ZOONET_MIRROR", str(tmp_path / "m"))
        with pytest.warns(weights.UnverifiedWarning):
            assert [weights.fetch(url, settings=quick).read_bytes() for url in urls] == [b"first", b"second"]

    def test_wrong_file_in_a_mirror(
        self,
        tmp_path: Path,
        origin: weights.Entry,
        quick: Settings,
        monkeypatch: pytest.MonkeyPatch,
        files_in: Any,
    ) -> None:
        (tmp_path / "mirror").mkdir()
        (tmp_path / "mirror" / SHA256).write_bytes(DATA[:-1])
        monkeypatch.setenv("ZOONET_MIRROR", str(tmp_path / "mirror"))
        with pytest.raises(IntegrityError, match="correct the mirror"):
            weights.fetch(origin, settings=quick)
        assert files_in(tmp_path / "cache") == []

    def test_nothing_but_the_mirror_is_asked(
        self,
        tmp_path: Path,
        server: Any,
        origin: weights.Entry,
        quick: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("ZOONET_MIRROR", str(tmp_path))
        with pytest.raises(NotAvailableError, match="mirror export"):
            weights.fetch(origin, settings=quick)
        assert server.seen == []

    def test_export_and_use(
        self, tmp_path: Path, server: Any, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Everything that a machine with a network exports serves one without:

        URLs, entries, repositories.
        """
        url = server.add("/folder/model.bin", DATA)
        hub.add("org/name", COMMIT, FILES | {"vocab.txt": b"a"})
        hub.add("org/pinned", COMMIT, FILES)
        names = [f"{url}#sha256={SHA256}", "org/name", f"hf://org/pinned@{COMMIT}"]
        mirror = tmp_path / "mirror"
        written = weights.mirror.export(mirror, names, settings=quick)
        assert len(written) == 1 + 3 + 2
        assert (mirror / SHA256).read_bytes() == DATA
        assert (mirror / "huggingface.co/org/name/resolve/main/config.json").read_bytes() == FILES["config.json"]
        monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "cache2"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf2"))
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        monkeypatch.setenv("ZOONET_MIRROR", str(mirror))
        assert weights.fetch(names[0], settings=quick).read_bytes() == DATA
        with pytest.warns(weights.UnverifiedWarning):
            folder = weights.fetch("org/name", settings=quick)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES | {"vocab.txt": b"a"}
        with pytest.warns(weights.UnverifiedWarning):
            pinned = weights.fetch(names[2], settings=quick)
        assert pinned.name == COMMIT
        assert pinned.is_relative_to(tmp_path / "hf2")
        monkeypatch.setenv("ZOONET_MIRROR", "http://127.0.0.1:1")
        assert weights.fetch("org/name", settings=quick) == folder
        assert weights.fetch(names[2], settings=quick) == pinned

    def test_export_of_a_catalog_entry(
        self, tmp_path: Path, hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source("hugging-face", "org/name", "model.safetensors", COMMIT)
        config = weights.Companion("config.json", weights.Entry("a", "a", "t", (), "", "", "").expected, True)
        entry = weights.Entry(
            "net.tag",
            "net",
            "t",
            (source,),
            "safetensors",
            "timm",
            "test",
            sha256=(SHA256,),
            companions=(config,),
        )
        monkeypatch.setattr("zoonet.weights.download.find", lambda _: entry)
        hub.add("org/name", COMMIT, FILES)
        written = weights.mirror.export(tmp_path / "mirror", ["net.tag"], settings=quick)
        assert {path.relative_to(tmp_path / "mirror").as_posix() for path in written} == {
            SHA256,
            f"huggingface.co/org/name/resolve/{COMMIT}/config.json",
        }
        monkeypatch.setenv("ZOONET_CACHE", str(tmp_path / "cache2"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf2"))
        monkeypatch.setenv("ZOONET_MIRROR", str(tmp_path / "mirror"))
        seen = len(hub.server.seen)
        with pytest.warns(weights.UnverifiedWarning, match=r"config\.json"):
            files = weights.fetch_files(entry, settings=quick)
        assert {name: path.read_bytes() for name, path in files.items()} == FILES
        assert len(hub.server.seen) == seen


def test_cached_entry_of_the_catalog_opens_no_socket(tmp_path: Path, python_environment: dict[str, str]) -> None:
    """A real catalog name, found in torch hub's folder by the hash that its name carries:

    the 1 MB ResNet-20.
    """
    shared = Path(__file__).resolve().parents[2] / ".." / "shared" / "assets" / "resnet-cifar10"
    if not shared.exists():
        pytest.skip("the folder shared/ is absent")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet20-12fca82f.th").write_bytes((shared / "resnet20-12fca82f.th").read_bytes())
    code = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and sys.exit('forbidden ' + event))\n"
        "from zoonet import weights; print(weights.fetch('resnet20.cifar10'))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=python_environment, capture_output=True, text=True, check=False
    )
    assert process.stdout.strip() == str(folder / "resnet20-12fca82f.th"), process.stderr
