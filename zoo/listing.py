"""What there is to load: embedded models, the catalog's weights of networks in the zoo, and architectures."""

from __future__ import annotations

import builtins
import fnmatch
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from zoonet import weights
from zoonet.ops.errors import ArgumentError
from zoonet.zoo import architectures
from zoonet.zoo.sources import EMBEDDED, locate, runs
from zoonet.zoo.storage import embedded_card


@dataclass(frozen=True)
class Listed:
    """One name: what `load` (with weights) or `create` (an architecture alone) takes.

    weights: "embedded", "catalog" or "" for an architecture alone. parameters: their number, where known; that of the
    usual number of classes for an architecture. accuracy: the first published number, such as "76.13 % top-1". size:
    bytes to download, rounded where only that is published. cached: "cached", "package" for a file that comes with an
    installed package, "other" for one of its name in the folder of torch hub or Keras, which is used if its hash is
    right, or "".
    """

    name: str
    task: str
    architecture: str
    weights: str
    parameters: int | None = None
    accuracy: str = ""
    licence: str = ""
    size: int | None = None
    cached: str = ""


def list(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> builtins.list[str]:
    """The names that a shell pattern fits, those with weights first.

    pattern: such as "resnet*"; fits a name, or a name without its tag. task: such as "image-classification".
    pretrained: only names that `load` takes; otherwise architectures, which `create` takes, as well.
    """
    return [entry.name for entry in listed(pattern, task=task, pretrained=pretrained)]


def listed(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> builtins.list[Listed]:
    """As `list`, with what is known of each name."""
    if not isinstance(pattern, str):
        raise ArgumentError("list takes a shell pattern", expected="such as 'resnet*'", received=repr(pattern))
    found = []
    for entry in _all():
        names = (entry.name.lower(), entry.name.lower().rpartition(".")[0])
        if pretrained and not entry.weights:
            continue
        if task in (None, entry.task) and any(fnmatch.fnmatchcase(name, pattern.lower()) for name in names):
            found.append(entry)
    return sorted(
        found, key=lambda e: (not e.weights, e.weights != "embedded", architectures.natural_order(e.name.lower()))
    )


def _all() -> Iterator[Listed]:
    for name, architecture in EMBEDDED.items():
        card = embedded_card(name)
        yield Listed(
            name,
            architectures.task_of(architecture),
            architecture,
            "embedded",
            architectures.parameters(architecture),
            card.accuracy.partition(" (")[0],
            card.licence,
            locate(name).path.stat().st_size,
            "package",
        )
    entries = [entry for entry in weights.entries() if runs(entry)]
    for entry in entries:
        yield _of_catalog(entry)
    named = {entry.name for entry in entries}
    for name in architectures.names():
        if name not in named:  # "gpt2" is both: what `load` takes is listed
            yield Listed(name, architectures.task_of(name), name, "", architectures.parameters(name))


def _of_catalog(entry: weights.Entry) -> Listed:
    return Listed(
        entry.name,
        entry.task,
        entry.architecture,
        "catalog",
        _parameters(entry),
        entry.metrics[0].text.partition(" on ")[0] if entry.metrics else "",
        entry.licence,
        entry.bytes_or_estimate,
        where_cached(entry),
    )


def _parameters(entry: weights.Entry) -> int | None:
    """The published number of parameters, or that of the network where none is published."""
    if entry.parameters is None and entry.format != "onnx" and entry.architecture in architectures.names():
        return architectures.parameters(entry.architecture)
    return entry.parameters


def where_cached(entry: weights.Entry) -> str:
    """Where weights should be on this machine, as in `Listed`; nothing is read or hashed."""
    if weights.cached(entry, link=False) is not None:
        return "cached"
    for source in entry.sources:
        if source.kind == "package" and importlib.util.find_spec(source.location) is not None:
            return "package"
    return "other" if weights.of_other_frameworks(entry.sources, entry.expected) else ""
