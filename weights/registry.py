"""The catalog: reads catalog/*.toml at first use, and finds entries by name, pattern and task.

Each file is a table of defaults for its entries and one table per entry:

    [defaults]
    task = "image-classification"
    [entry."resnet50.tv_in1k"]
    sources = ["https://…"]

A table in an entry replaces the default's table whole. Named preprocessings are written once, under
[preprocessing.NAME], and entries refer to them by name.
"""

from __future__ import annotations

import difflib
import fnmatch
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zoonet.ops.errors import FormatError, UnknownModelError
from zoonet.weights.entry import Entry, parse_entry

CATALOG = Path(__file__).parent / "catalog"
LABELS = Path(__file__).parent / "labels"


def read_catalog_file(path: Path) -> tuple[Entry, ...]:
    """Entries of one catalog file, in its order. Raises FormatError that names the file, entry and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"catalog {path.name} cannot be read", received=error) from None
    unknown = set(document) - {"defaults", "preprocessing", "entry"}
    if unknown:
        raise FormatError(f"catalog {path.name} has unknown tables", received=sorted(unknown))
    defaults, named = document.get("defaults", {}), document.get("preprocessing", {})
    entries = []
    for name, table in document.get("entry", {}).items():
        values: dict[str, Any] = {**defaults, **table}
        if isinstance(values.get("preprocessing"), str):
            if values["preprocessing"] not in named:
                raise FormatError(
                    f"catalog {path.name}, entry {name!r}, names an unknown preprocessing",
                    expected=", ".join(named),
                    received=values["preprocessing"],
                )
            values["preprocessing"] = named[values["preprocessing"]]
        entries.append(parse_entry(name, values, path.name))
    return tuple(entries)


def build_index(entries: Collection[Entry]) -> Mapping[str, Entry]:
    """Entries by lower-case name. Raises FormatError for a name or a default that two entries share."""
    index: dict[str, Entry] = {}
    defaults: dict[str, str] = {}
    for entry in entries:
        if entry.name.lower() in index:
            raise FormatError("the catalog has two entries of one name", received=entry.name)
        index[entry.name.lower()] = entry
        if entry.default and defaults.setdefault(entry.family.lower(), entry.name) != entry.name:
            raise FormatError(
                f"the catalog has two defaults for {entry.family}",
                received=f"{defaults[entry.family.lower()]} and {entry.name}",
            )
    return MappingProxyType(index)


@cache
def _index() -> Mapping[str, Entry]:
    files = sorted(CATALOG.glob("*.toml"))
    return build_index([entry for path in files for entry in read_catalog_file(path)])


@cache
def _defaults() -> Mapping[str, Entry]:
    """The entry of an architecture named alone: the one marked default, or the only one."""
    families: dict[str, list[Entry]] = {}
    for entry in _index().values():
        families.setdefault(entry.family.lower(), []).append(entry)
    chosen = {}
    for family, entries in families.items():
        marked = [entry for entry in entries if entry.default] or (entries if len(entries) == 1 else [])
        if marked and not marked[0].warning:
            chosen[family] = marked[0]
    return chosen


def find(name: str) -> Entry:
    """The entry of a name, or the default entry of an architecture. Case does not matter.

    Raises UnknownModelError with near names.
    """
    entry = _index().get(name.lower()) or _defaults().get(name.lower())
    if entry is not None:
        return entry
    tags = [item.name for item in _index().values() if item.family.lower() == name.lower()]
    near = tags or list(suggest(name))
    raise UnknownModelError(
        f"there are no pretrained weights named {name!r}",
        fix=("did you mean " + ", ".join(near) + "?") if near else "`zoonet list` shows all names",
    )


def suggest(name: str, limit: int = 5) -> tuple[str, ...]:
    """Names near to a mistyped one, best first."""
    names = {key: entry.name for key, entry in _index().items()}
    names |= {key: entry.family for key, entry in _defaults().items()}
    near = sorted((key for key in names if name and key.startswith(name.lower())), key=len)[:limit]
    near += difflib.get_close_matches(name.lower(), names, n=limit, cutoff=0.6)
    return tuple(dict.fromkeys(names[key] for key in near[:limit]))


def entries(
    pattern: str = "*",
    *,
    task: str | None = None,
    format: str | None = None,
    architectures: Collection[str] | None = None,
) -> tuple[Entry, ...]:
    """Entries in alphabetical order whose name, or name without tag, matches a shell pattern.

    task, format: keep these only. architectures: keep entries of networks that exist, and graphs (ONNX),
    which need none.
    """
    wanted = pattern.lower()
    return tuple(
        entry
        for key, entry in sorted(_index().items())
        if (fnmatch.fnmatchcase(key, wanted) or fnmatch.fnmatchcase(entry.family.lower(), wanted))
        and task in (None, entry.task)
        and format in (None, entry.format)
        and (architectures is None or entry.architecture in architectures or entry.format == "onnx")
    )


def tasks() -> tuple[str, ...]:
    """All tasks in the catalog, sorted."""
    return tuple(sorted({entry.task for entry in _index().values()}))


@cache
def label_names(name: str) -> tuple[str, ...]:
    """Class names of a label list such as "imagenet-1k", in the order of a network's outputs.

    Lines that start with # say where a list comes from. Raises UnknownModelError.
    """
    known = sorted(path.stem for path in LABELS.glob("*.txt"))
    if name not in known:
        raise UnknownModelError("there is no list of labels of this name", expected=", ".join(known), received=name)
    lines = (LABELS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
