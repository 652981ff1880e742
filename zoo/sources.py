"""What a name stands for: an embedded model, a file or folder, or weights of the catalog."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoonet import formats
from zoonet.ops.errors import ArgumentError, MissingFileError, UnknownModelError
from zoonet.zoo import architectures

if TYPE_CHECKING:
    from zoonet.weights import Entry

#: Models whose weights are in the package (data/NAME.safetensors), and their architectures.
EMBEDDED = {"digits": "digitnet"}
_SUFFIXES = tuple(suffix for entry in formats.FORMATS for suffix in entry.suffixes)


@dataclass(frozen=True)
class Located:
    """A file or folder, and what is known of it from elsewhere, as in a configuration."""

    path: pathlib.Path
    config: Mapping[str, Any]


def locate(source: str | os.PathLike[str]) -> Located:
    """What a name or a path stands for; weights of the catalog are downloaded if they are not there yet."""
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise ArgumentError("load takes a name or a path", expected="such as 'digits'", received=repr(source))
    text = os.fsdecode(source)
    if text in EMBEDDED:
        return Located(pathlib.Path(__file__).parent / "data" / f"{text}.safetensors", {})
    path = pathlib.Path(text)
    try:
        if path.exists():
            return Located(path, {})
    except (OSError, ValueError):
        pass
    if os.sep in text or "/" in text or not isinstance(source, str) or text.endswith(_SUFFIXES):
        raise MissingFileError("there is no such weights file", received=text, fix="check the path")
    return _from_catalog(text)


def _from_catalog(name: str) -> Located:
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
        everything = [*EMBEDDED, *known, *(e.name for e in weights.entries(architectures=known))]
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
    card = {
        "name": entry.name,
        "source": entry.origin,
        "licence": entry.licence,
        "accuracy": ", ".join(f"{m.value:g} % {m.name} on {m.dataset}" for m in entry.metrics),
        "notes": entry.note,
    }
    config: dict[str, Any] = {"architecture": entry.architecture, "card": card}
    if entry.preprocessing is not None:
        config["preprocessing"] = _preprocessing(entry)
    if entry.labels:
        config["labels"] = list(weights.label_names(entry.labels))
    return Located(weights.fetch(entry), config)


def _preprocessing(entry: Entry) -> dict[str, Any]:
    """The configuration of what an entry says of preprocessing."""
    given = entry.preprocessing
    assert given is not None, "asked for where there is one"
    usual: dict[str, Any] = {
        "mean": list(given.mean),
        "std": list(given.std),
        "channels": {"rgb": "RGB", "bgr": "BGR", "grey": "L"}[given.channels],
        "scale": given.scale,
    }
    if entry.task == "object-detection":
        size = [given.size, given.size] if isinstance(given.size, int) else list(given.size or (640, 640))
        boxed = {"keep": given.resize == "letterbox", "center": False, "pad": given.pad}
        return {"kind": "detection", "size": size, **boxed, **usual}
    exact = given.resize == "exact" and isinstance(given.size, int)
    return {
        "resize": [given.size, given.size] if exact else given.size,
        "crop": list(given.crop) if given.crop else None,
        "interpolation": given.interpolation,
        **usual,
    }


#: What the catalog calls parameter names that are those of our networks, by task.
_VOCABULARIES = {"image-classification": ("torchvision", "timm"), "object-detection": ("yolox", "darknet")}


def runs(entry: Entry) -> bool:
    """True for weights in the catalog whose network is in the zoo under the same parameter names."""
    return (
        entry.architecture in architectures.names()
        and entry.vocabulary in _VOCABULARIES.get(entry.task, ())
        and entry.format in ("torch", "safetensors", "darknet")
    )
