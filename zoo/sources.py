"""What a name stands for: an embedded model, a file or folder, weights of the catalog, or a place on the network."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from zoonet import formats
from zoonet.ops.errors import ArgumentError, DownloadError, MissingFileError, UnknownModelError
from zoonet.zoo import architectures
from zoonet.zoo.downloads import fetched

if TYPE_CHECKING:
    from zoonet.weights import Entry, Progress
    from zoonet.weights.entry import Preprocessing

#: Models whose weights are in the package (data/NAME.safetensors), and their architectures.
EMBEDDED = {"digits": "digitnet"}
_REMOTE = ("hf://", "http://", "https://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIXES = tuple(suffix for entry in formats.FORMATS for suffix in entry.suffixes)


@dataclass(frozen=True)
class Located:
    """A file or folder, and what is known of it from elsewhere, as in a configuration."""

    path: pathlib.Path
    config: Mapping[str, Any]


def locate(source: str | os.PathLike[str]) -> Located:
    """What a name or a path stands for; weights that are not on this machine yet are downloaded."""
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise ArgumentError("load takes a name or a path", expected="such as 'digits'", received=repr(source))
    text = os.fsdecode(source)
    if text in EMBEDDED:
        return Located(pathlib.Path(__file__).parent / "data" / f"{text}.safetensors", {})
    if not isinstance(source, str) or not is_remote(text):
        path = pathlib.Path(text)
        try:
            if path.exists():
                return Located(path, {})
        except (OSError, ValueError):
            pass
        if not isinstance(source, str):
            raise _missing(text)
    found = resolved(text)
    if not isinstance(found, str):
        return Located(fetched(found), configuration_of(found))
    try:
        place = fetched(found)
    except DownloadError as error:
        if is_remote(text):
            raise
        raise type(error)(
            f"there is no file {text!r}, and as a repository on the Hugging Face hub: {error.message}",
            expected=error.expected,
            received=error.received,
            fix=error.fix,
        ) from None
    name, source_text = name_of(found)
    return Located(place, {"card": {"name": name, "source": source_text}})


def download(name: str, *, progress: Progress | None = None) -> pathlib.Path:
    """Bring weights onto this machine, if they are not here yet, and return where they are; nothing is loaded.

    name: what `load` takes and is not a path: a name of the catalog, `hf://org/name[@revision]`, `org/name`, or
    `https://host/file#sha256=…`. progress: called as progress(file name, bytes so far, bytes in all or None); a bar on
    standard error where None, if that is a terminal. The path is a file, or a folder for a model of several files.
    Later loads open no connection. Raises UnknownModelError, DownloadError, OfflineError, StorageError, IntegrityError.
    """
    if not isinstance(name, str) or not name:
        raise ArgumentError("download takes a name", expected="such as 'resnet50.tv_in1k'", received=repr(name))
    return locate(name).path if name in EMBEDDED else fetched(resolved(name), progress=progress)


def is_remote(text: str) -> bool:
    """Whether a text is a URL or hf://…, in capitals too."""
    return text.lower().startswith(_REMOTE)


def check_downloadable(name: str) -> None:
    """Raise UnknownModelError for a model whose weights are in the package, and so in no cache and no mirror."""
    if name in EMBEDDED:
        raise UnknownModelError(
            f"{name} is embedded in zoonet itself, so it is in no cache and needs no mirror",
            fix=f"use it as it is, offline too; `zoonet download {name}` prints where its file is",
        )


def _missing(path: str) -> MissingFileError:
    return MissingFileError("there is no such weights file", received=path, fix="check the path")


def resolved(text: str) -> Entry | str:
    """What a text that is no path names: an entry of the catalog, or a reference that `weights.fetch` takes.

    Opens no connection. Raises UnknownModelError with the nearest names, MissingFileError for what looks like a path,
    DownloadError for a malformed reference.
    """
    from zoonet import weights

    if is_remote(text):
        weights.resolve(text)
        return text
    if scheme := _SCHEME.match(text):
        raise DownloadError(
            f"nothing is read from {scheme[0]}…",
            expected="a name, a path, https://…, http://… or hf://…",
            fix="give the path itself" if scheme[0].lower() == "file://" else "download the file, and give its path",
        )
    if os.sep in text or "/" in text or text.endswith(_SUFFIXES):
        try:
            weights.HubReference.parse(text)
        except ValueError:
            raise _missing(text) from None
        if text.endswith(_SUFFIXES) or _is_folder(text.partition("/")[0]):
            raise MissingFileError(
                "there is no such weights file",
                received=text,
                fix=f"check the path, or write hf://{text} for a repository on the Hugging Face hub",
            )
        return text
    return _from_catalog(text)


def _is_folder(name: str) -> bool:
    try:
        return pathlib.Path(name).is_dir()
    except (OSError, ValueError):
        return False


def name_of(reference: str) -> tuple[str, str]:
    """A short name of a reference, and its full text without a password or a query."""
    from zoonet import weights

    target = weights.resolve(reference)
    if isinstance(target, weights.HubReference):
        return target.repository, str(target)
    assert isinstance(target, tuple), "names of the catalog do not come here"
    file = target[0]
    return file.file_name, str(file)


def _from_catalog(name: str) -> Entry:
    from zoonet import weights

    known = architectures.names()
    try:
        entry = weights.find(name)
    except UnknownModelError:
        if name in known:
            raise UnknownModelError(
                f"{name} is an architecture, and the catalog has no weights of that name",
                fix=f'load a file, zoo.load("weights.safetensors", arch="{name}"), or make random parameters with '
                f'zoo.create("{name}")',
            ) from None
        everything = [*EMBEDDED, *known, *(e.name for e in weights.entries() if runs(e))]
        raise UnknownModelError(
            f"there is no model and no file named {architectures.shortened(name)!r}",
            fix=architectures.nearest(name, everything) or "`zoonet list` prints all names",
        ) from None
    if not runs(entry):
        raise UnknownModelError(
            f"zoonet knows the weights {entry.name}, but has no network for them yet",
            received=f"{entry.architecture} with names of {entry.vocabulary}",
            fix="`zoonet list` prints what it can run",
        )
    return entry


def configuration_of(entry: Entry) -> dict[str, Any]:
    """What the catalog knows of weights, as a configuration: architecture, preprocessing, labels and card."""
    from zoonet import weights

    card = {
        "name": entry.name,
        "source": entry.origin,
        "licence": entry.licence,
        "accuracy": ", ".join(metric.text for metric in entry.metrics),
        "notes": entry.note,
    }
    config: dict[str, Any] = {"card": card}
    if entry.vocabulary != "hugging-face" and entry.architecture in architectures.names():
        config["architecture"] = entry.architecture
        config["configuration"] = changes_of(entry)
    if classifies_pictures(entry):
        config["task"] = entry.task
    if entry.preprocessing is not None:
        config["preprocessing"] = _preprocessing(entry.preprocessing, entry.task)
    if entry.labels:
        config["labels"] = list(weights.label_names(entry.labels))
    return config


def classifies_pictures(entry: Entry) -> bool:
    """Whether enough is known of weights to make classes of pictures: for a graph, how pictures are prepared for it."""
    return entry.task == "image-classification" and (entry.format != "onnx" or entry.preprocessing is not None)


def changes_of(entry: Entry) -> dict[str, Any]:
    """In what the network of an entry differs from its architecture: its facts that are fields of the configuration."""
    known = {field.name for field in fields(architectures.find(entry.architecture)[1])}
    return {key: value for key, value in entry.configuration.items() if key in known}


def _preprocessing(given: Preprocessing, task: str) -> dict[str, Any]:
    """The configuration of what an entry says of preprocessing."""
    usual: dict[str, Any] = {
        "mean": list(given.mean),
        "std": list(given.std),
        "channels": {"rgb": "RGB", "bgr": "BGR", "grey": "L"}[given.channels],
        "scale": given.scale,
    }
    exact = given.resize == "exact" and isinstance(given.size, int)
    size = [given.size, given.size] if exact else given.size
    if task == "object-detection" and given.resize == "shorter":
        return {}  # the network's own
    if task == "object-detection":
        sides = [given.size, given.size] if isinstance(given.size, int) else list(given.size or (640, 640))
        keep = given.resize == "letterbox"
        return {"kind": "detection", "size": sides, "keep": keep, "center": False, "pad": given.pad, **usual}
    crop = list(given.crop) if given.crop else None
    return {"resize": size, "crop": crop, "interpolation": given.interpolation, **usual}


def runs(entry: Entry) -> bool:
    """True for weights in the catalog that `load` makes a model of: of a network of the zoo, or a graph."""
    if entry.format == "onnx":
        return True
    if entry.vocabulary == "hugging-face" and entry.task != "object-detection":
        from zoonet.zoo.transformers.pretrained import MODEL_TYPES

        return entry.architecture in MODEL_TYPES
    if entry.architecture not in architectures.names():
        return False
    if entry.task == "object-detection":
        return entry.vocabulary in ("yolox", "darknet", "torchvision", "hugging-face")
    if entry.task != "image-classification":
        return False
    return entry.vocabulary in ("torchvision", "timm") or (
        entry.vocabulary == "keras" and entry.architecture.endswith("_keras")
    )
