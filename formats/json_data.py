"""JSON from untrusted files: duplicate keys, absurd numbers and deep nesting are errors of ours."""

from __future__ import annotations

import json
from typing import Any

from zoonet.ops.errors import FormatError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:200]!r} occurs twice")
            seen.add(key)
    return result


def parse_json(text: bytes | str, what: str) -> Any:
    """Parse JSON strictly. what: the subject of the error message. Raises FormatError."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON", received=str(error)[:300]) from error


def parse_json_object(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse JSON that must be an object. Raises FormatError."""
    value = parse_json(text, what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object", received=type(value).__name__)
    return value
