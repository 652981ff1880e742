"""Catalog of pretrained weights, download, cache, integrity, and maps between parameter names.

    from zoonet import weights

    entry = weights.find("resnet50.tv_in1k")      # what is known of a weights file
    path = weights.fetch(entry)                   # the file: cached, or downloaded and verified
    weights.entries("resnet*", task="image-classification")
    weights.cache.list()
    weights.mirror.export("folder", ["resnet50.tv_in1k"])

Names are imported at first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoonet.weights import cache, mirror
    from zoonet.weights.bring import UnverifiedWarning, of_other_frameworks
    from zoonet.weights.download import LicenceWarning, cached, fetch, fetch_files, resolve
    from zoonet.weights.entry import Companion, Entry, Metric, Preprocessing
    from zoonet.weights.registry import entries, find, label_names, suggest, tasks
    from zoonet.weights.settings import Progress, Settings
    from zoonet.weights.source import HubReference, Source

__all__ = [
    "Companion",
    "Entry",
    "HubReference",
    "LicenceWarning",
    "Metric",
    "Preprocessing",
    "Progress",
    "Settings",
    "Source",
    "UnverifiedWarning",
    "cache",
    "cached",
    "entries",
    "fetch",
    "fetch_files",
    "find",
    "label_names",
    "mirror",
    "of_other_frameworks",
    "resolve",
    "suggest",
    "tasks",
]

_MODULES = {
    "bring": ("UnverifiedWarning", "of_other_frameworks"),
    "download": ("LicenceWarning", "cached", "fetch", "fetch_files", "resolve"),
    "entry": ("Companion", "Entry", "Metric", "Preprocessing"),
    "registry": ("entries", "find", "label_names", "suggest", "tasks"),
    "settings": ("Progress", "Settings"),
    "source": ("HubReference", "Source"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
