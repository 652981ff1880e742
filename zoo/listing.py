"""What there is to load: embedded models, the catalog's weights of networks in the zoo, and architectures."""

from __future__ import annotations

import builtins
import fnmatch
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True)
class _Known:
    """A name, before anything is counted or looked for. task: of the model. describe: makes its `Listed`."""

    name: str
    task: str
    weights: str
    describe: Callable[[], Listed]


def list(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> builtins.list[str]:
    """The names that a shell pattern fits, those with weights first.

    pattern: such as "resnet*"; fits a name, or a name without its tag. task: such as "image-classification".
    pretrained: only names that `load` takes; otherwise architectures, which `create` takes, as well.
    """
    return [known.name for known in _found(pattern, task, pretrained)]


def listed(pattern: str = "*", *, task: str | None = None, pretrained: bool = False) -> builtins.list[Listed]:
    """As `list`, with what is known of each name."""
    return [known.describe() for known in _found(pattern, task, pretrained)]


def tasks() -> builtins.list[str]:
    """The tasks of all names, sorted."""
    return sorted({known.task for known in _all()})


def _found(pattern: str, task: str | None, pretrained: bool) -> builtins.list[_Known]:
    if not isinstance(pattern, str):
        raise ArgumentError("list takes a shell pattern", expected="such as 'resnet*'", received=repr(pattern))
    found = []
    for known in _all():
        names = (known.name.lower(), known.name.lower().rpartition(".")[0])
        if pretrained and not known.weights:
            continue
        if task in (None, known.task) and any(fnmatch.fnmatchcase(name, pattern.lower()) for name in names):
            found.append(known)
    return sorted(
        found, key=lambda e: (not e.weights, e.weights != "embedded", architectures.natural_order(e.name.lower()))
    )


def _all() -> Iterator[_Known]:
    for name, architecture in EMBEDDED.items():
        task = architectures.task_of(architecture)
        yield _Known(name, task, "embedded", partial(_embedded, name, architecture, task))
    entries = [entry for entry in weights.entries() if runs(entry)]
    for entry in entries:
        yield _Known(entry.name, entry.task, "catalog", partial(_of_catalog, entry))
    named = {entry.name for entry in entries}
    for name in architectures.names():
        if name not in named:  # "gpt2" is both: what `load` takes is listed
            task = architectures.task_of(name)
            yield _Known(name, task, "", partial(_alone, name, task))


def _embedded(name: str, architecture: str, task: str) -> Listed:
    card = embedded_card(name)
    return Listed(
        name,
        task,
        architecture,
        "embedded",
        architectures.parameters(architecture),
        card.accuracy.partition(" (")[0],
        card.licence,
        locate(name).path.stat().st_size,
        "package",
    )


def _alone(name: str, task: str) -> Listed:
    return Listed(name, task, name, "", architectures.parameters(name))


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
