"""Nested containers of arrays: dicts, lists and tuples are walked; everything else is a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leaves(tree: Any) -> list[Any]:
    """The leaves of a nested dict, list or tuple in order; None holds no leaf."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [leaf for child in tree.values() for leaf in leaves(child)]
    if isinstance(tree, list | tuple):
        return [leaf for child in tree for leaf in leaves(child)]
    return [tree]


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """A tree of the same containers with function applied to each leaf."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_leaves(function, child) for key, child in tree.items()}
    if isinstance(tree, list | tuple):
        children = [map_leaves(function, child) for child in tree]
        if hasattr(tree, "_fields"):
            return type(tree)(*children)
        return type(tree)(children)
    return function(tree)
