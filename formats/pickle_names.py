"""What a pickle may name, and what stands for it: functions of ours that check their arguments, or inert records.

A name is looked up in tables of ours and never imported. Where nothing stands for it, UnsafeFileError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoonet.ops.errors import UnsafeFileError


@dataclass(frozen=True)
class Known:
    """A global that the reader knows: `build` receives the pickle's arguments and must check them."""

    name: str
    build: Callable[..., Any]


@dataclass(frozen=True)
class InertClass:
    """A class that is never imported; its instances are `Inert`."""

    name: str


@dataclass(repr=False)
class Inert:
    """What a pickle says of an instance of a class that is never imported."""

    class_name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.class_name[:100]}>"  # what it holds may unfold without end


class Buildable:
    """An object of ours that accepts the state of a BUILD opcode."""

    def set_state(self, state: Any) -> Any:
        """Take the state; return the object to stand on the stack."""
        raise NotImplementedError


class StatefulDict(dict[Any, Any]):
    """An OrderedDict of a pickle; attributes that its BUILD opcode sets are dropped."""


Resolver = Callable[[str, str], Any]


def brief(value: Any) -> str:
    """A value of a pickle as messages show it; `repr` would unfold what a few bytes can nest a billion times."""
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}: " + ", ".join(map(_brief_part, value[:8]))
    return _brief_part(value)


def _brief_part(value: Any) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value[:100])
    return repr(value)[:100] if isinstance(value, (int, float, complex, type(None))) else type(value).__name__


class Allowance:
    """Bytes that the calls of a pickle may copy in all: what one call gets can be given to a million others.

    size: of the pickle in bytes.
    """

    def __init__(self, size: int) -> None:
        self._limit = self._left = 8 * size + (8 << 20)

    def spend(self, values: tuple[Any, ...]) -> None:
        """Count a call with these values. Raises UnsafeFileError where there were too many."""
        self._left -= _COPY * len(values)
        for value in values:
            if isinstance(value, (str, bytes)):
                self._left -= len(value)
            elif isinstance(value, (tuple, list, dict, set, frozenset)):
                self._left -= _COPY * len(value)
        if self._left < 0:
            raise UnsafeFileError(
                "the pickle copies its data beyond measure", expected=f"at most {self._limit} bytes copied"
            )


_COPY = 16  # bytes that an element of a copied container takes, and a little more


#: Packages beside Python's own library of which nothing unknown is taken for data: they have functions that run code.
_NEVER_DATA = sys.stdlib_module_names.union(
    ("__builtin__", "cPickle", "cloudpickle", "commands", "copy_reg", "dill", "exceptions", "joblib", "numpy", "pip"),
    ("popen2", "setuptools", "tensorflow", "thread", "torch", "urllib2"),
)


def resolver(
    known: Mapping[str, Callable[..., Any]], inert: tuple[str, ...] = (), unknown: set[str] | None = None
) -> Resolver:
    """Make a function that resolves globals.

    known: "module.name" -> function of ours. inert: names, or prefixes that end with a dot, of inert classes. unknown:
    takes the names of what packages that are not Python's define, which is then inert too; None refuses them.
    """

    def resolve(module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in known:
            return Known(full, known[full])
        if any(full == entry or (entry.endswith(".") and full.startswith(entry)) for entry in inert):
            return InertClass(full)
        root = module.partition(".")[0]
        if unknown is not None and root.isidentifier() and root not in _NEVER_DATA:
            unknown.add(full[:200])
            return InertClass(full)
        raise UnsafeFileError(
            f"the pickle names {full[:200]!r}, which is neither a tensor nor a plain container",
            fix="if you trust the file's author, ask for a state dict (torch.save(model.state_dict(), ...)) or "
            "safetensors instead",
        )

    return resolve
