"""Lazy changes of an array's shape, without its contents being read before they are asked for."""

from __future__ import annotations

from typing import Any

from zoonet.formats import LazyTensor

__all__ = ["reshaped"]


def reshaped(tensor: LazyTensor, shape: tuple[int, ...]) -> LazyTensor:
    """The same numbers in another shape."""

    def load() -> Any:
        return tensor.load().reshape(shape)

    return LazyTensor(shape, tensor.dtype, load, tensor.identity)
