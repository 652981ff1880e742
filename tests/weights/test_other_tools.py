"""Repositories that other tools brought into the Hugging Face cache: what they left suffices, and nobody is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zoonet import weights
from zoonet.ops.errors import DownloadError, StorageError
from zoonet.weights import settings as environment
from zoonet.weights.settings import Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEAD = json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}).encode()
NO_HEAD = json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode()
PICTURES = json.dumps({"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}).encode()
TIMM = json.dumps({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224]}}).encode()
WEIGHTS = {"model.safetensors": b"weights"}


def put(files: dict[str, bytes], missing: tuple[str, ...] = ()) -> Path:
    """Files in the cache as the hub's tools leave them, and notes of what they found missing. Returns the folder."""
    repository = environment.hub_cache_folder() / "models--org--name"
    folder = repository / "snapshots" / COMMIT
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name in missing:
        note = repository / ".no_exist" / COMMIT / name
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"config.json": HEAD, "tokenizer.json": b"{}"}, ()),
        ({"config.json": HEAD, "vocab.txt": b"a"}, ()),
        ({"config.json": HEAD, "vocab.json": b"{}", "merges.txt": b""}, ()),
        ({"config.json": NO_HEAD, "tokenizer.json": b"{}"}, ("modules.json",)),
        ({"config.json": NO_HEAD, "tokenizer.json": b"{}", ".gitattributes": b""}, ()),
        ({"config.json": PICTURES, "preprocessor_config.json": b"{}"}, ()),
        ({"config.json": PICTURES}, ("preprocessor_config.json",)),
        ({"config.json": TIMM}, ()),
    ],
)
def test_what_suffices(files: dict[str, bytes], missing: tuple[str, ...], hub: Any, quick: Settings) -> None:
    folder = put(files | WEIGHTS, missing)
    assert weights.fetch("org/name", settings=quick) == folder
    assert hub.server.seen == []


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config.json": HEAD},  # where is its tokenizer?
        {"config.json": NO_HEAD, "tokenizer.json": b"{}"},  # how are its outputs pooled?
        {"config.json": PICTURES},  # what does it do to pictures first?
        {"config.json": b"[]", "tokenizer.json": b"{}"},
        {"config.json": b"{", "tokenizer.json": b"{}"},
    ],
)
def test_what_does_not_suffice(files: dict[str, bytes], hub: Any, quick: Settings) -> None:
    folder = put(files | WEIGHTS)
    there = {"config.json": HEAD, "tokenizer.json": b"{}", "modules.json": b"[]", "preprocessor_config.json": b"{}"}
    hub.add("org/name", COMMIT, there | files | WEIGHTS)
    assert weights.fetch("org/name", settings=quick) == folder
    assert {path.name for path in folder.iterdir()} == {*there, *WEIGHTS}


def test_all_that_their_tool_brought(hub: Any, quick: Settings) -> None:
    """It writes down which files the commit has, so that no more is looked for."""
    hf = pytest.importorskip("huggingface_hub")
    hub.add("org/name", COMMIT, {"config.json": NO_HEAD, "vocab.txt": b"a"} | WEIGHTS)
    theirs = hf.snapshot_download("org/name", cache_dir=environment.hub_cache_folder(), endpoint=hub.server.url)
    if not list(environment.hub_cache_folder().glob("*/trees/*.json")):
        pytest.skip("this huggingface_hub writes no list of files")
    hub.server.seen.clear()
    assert weights.fetch("org/name", settings=quick) == Path(theirs)
    assert hub.server.seen == []


@pytest.mark.parametrize("text", [b"", b"[]", b'{"files": 3}', b'{"format_version": 2, "files": {"config.json": {}}}'])
def test_a_list_of_files_that_is_none(text: bytes, hub: Any, quick: Settings) -> None:
    folder = put({"config.json": NO_HEAD, "tokenizer.json": b"{}"} | WEIGHTS)
    trees = folder.parents[1] / "trees"
    trees.mkdir()
    (trees / f"{COMMIT}.json").write_bytes(text)
    hub.add("org/name", COMMIT, {"config.json": NO_HEAD, "tokenizer.json": b"{}", "modules.json": b"[]"} | WEIGHTS)
    weights.fetch("org/name", settings=quick)
    assert (folder / "modules.json").is_file()


def test_what_is_there_is_used_where_the_hub_cannot_be_reached(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = put({"config.json": NO_HEAD, "tokenizer.json": b"{}"} | WEIGHTS)
    with pytest.warns(UserWarning, match="cannot be reached"):
        assert weights.fetch("org/name", settings=quick) == folder
    with pytest.raises(DownloadError, match="refused"):
        weights.fetch("org/other", settings=quick)


def test_a_cache_that_takes_no_notes(hub: Any, quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whole in a cache of others that may be read only is used all the same."""

    def refuse(path: Path, text: str) -> None:
        raise StorageError(f"{path} cannot be written")

    files = {"config.json": NO_HEAD, "tokenizer.json": b"{}"} | WEIGHTS
    folder = put(files)
    hub.add("org/name", COMMIT, files)
    monkeypatch.setattr("zoonet.weights.hub.write_text", refuse)
    assert weights.fetch("org/name", settings=quick) == folder
