"""What there is to load: embedded models, the catalog's weights of networks in the zoo, and architectures."""

from __future__ import annotations

import builtins
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from zoonet import weights
from zoonet.ops.errors import ArgumentError
from zoonet.zoo import architectures
from zoonet.zoo.sources import EMBEDDED, runs
from zoonet.zoo.storage import embedded_card


@dataclass(frozen=True)
class Listed:
    """One name: what `load` (with weights) or `create` (an architecture alone) takes.

    weights: "embedded", "catalog" or "" for an architecture alone. parameters: their number, where known; that of the
    usual number of classes for an architecture.
    """

    name: str
    task: str
    architecture: str
    weights: str
    parameters: int | None = None
    accuracy: str = ""
    licence: str = ""


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
    return sorted(found, key=lambda e: (not e.weights, e.weights != "embedded", architectures.natural_order(e.name)))


def _all() -> Iterator[Listed]:
    known = architectures.names()
    for name, architecture in EMBEDDED.items():
        card = embedded_card(name)
        yield Listed(
            name,
            "image-classification",
            architecture,
            "embedded",
            architectures.parameters(architecture),
            card.accuracy.partition(",")[0],
            card.licence,
        )
    for entry in weights.entries(architectures=known):
        if runs(entry):
            accuracy = next((f"{m.value:g} % {m.name}" for m in entry.metrics), "")
            yield Listed(
                entry.name, entry.task, entry.architecture, "catalog", entry.parameters, accuracy, entry.licence
            )
    for name in known:
        yield Listed(name, architectures.task_of(name), name, "", architectures.parameters(name))
