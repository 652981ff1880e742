"""Reading of Hugging Face's config.json: values that are checked before a network is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoonet.ops.errors import FormatError

_LIMIT = 1 << 24


def count(config: Mapping[str, Any], *names: str, default: int | None = None, least: int = 1) -> int:
    """The integer under the first of these names that is there. Raises FormatError where it is none, or absurd."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if type(value) is not int or not least <= value <= _LIMIT:
            raise FormatError(
                f"config.json: {name} is wrong", expected=f"{least} to {_LIMIT}", received=repr(value)[:100]
            )
        return value
    if default is None:
        raise FormatError(f"config.json: {names[0]} is missing", fix="obtain the file again")
    return default


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """The finite number under this name, or the default. Raises FormatError for anything else."""
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise FormatError(f"config.json: {name} is wrong", expected="a number", received=repr(value)[:100])
    return float(value)


def multiple(what: str, size: int, parts: int) -> int:
    """size / parts. Raises FormatError where that is no integer."""
    if size % parts:
        raise FormatError(f"config.json: {what} do not fit", expected=f"a multiple of {parts}", received=size)
    return size // parts
