"""How Keras lays out a tensor that PyTorch lays out otherwise, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import LazyTensor
from zoonet.ops.errors import FormatError

__all__ = ["LAYOUTS", "Layout", "layout_of", "to_keras", "to_torch"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """rank: of the tensor in PyTorch. to_keras, to_torch: the change in each direction."""

    rank: int | None
    to_keras: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]


def _permuted(*axes: int) -> Layout:
    back = tuple(int(i) for i in np.argsort(axes))
    return Layout(len(axes), lambda a: a.transpose(axes), lambda a: a.transpose(back))


def _depthwise(spatial: int) -> Layout:
    """(channels · multiplier, 1, kernel…) and (kernel…, channels, multiplier); written with a multiplier of 1."""
    axes = (*range(2, spatial + 2), 0, 1)

    def to_torch(array: Array) -> Array:
        *kernel, channels, multiplier = array.shape
        first = array.transpose(spatial, spatial + 1, *range(spatial))
        return first.reshape(channels * multiplier, 1, *kernel)

    return Layout(spatial + 2, lambda a: a.transpose(axes), to_torch)


#: Letters are the axes of Keras's array: W, HW, DHW of the kernel, I inputs, O outputs, C channels, M multiplier.
LAYOUTS = {
    "": Layout(None, lambda a: a, lambda a: a),
    "IO": _permuted(1, 0),
    "WIO": _permuted(2, 1, 0),
    "HWIO": _permuted(2, 3, 1, 0),
    "DHWIO": _permuted(2, 3, 4, 1, 0),
    "WCM": _depthwise(1),
    "HWCM": _depthwise(2),
}


def layout_of(name: str) -> Layout:
    """The layout of a name. Raises FormatError."""
    if name not in LAYOUTS:
        raise FormatError("unknown layout of a Keras tensor", expected=", ".join(LAYOUTS), received=name)
    return LAYOUTS[name]


def _changed(tensor: LazyTensor, rank: int | None, change: Callable[[Array], Array]) -> LazyTensor:
    if rank is not None and tensor.ndim != rank:
        raise FormatError("a tensor does not have the rank of its layout", expected=rank, received=tensor.shape)
    shape = change(np.broadcast_to(np.zeros((), tensor.dtype), tensor.shape)).shape
    return LazyTensor(tuple(shape), tensor.dtype, lambda: np.ascontiguousarray(change(tensor.load())), tensor.identity)


def to_keras(tensor: LazyTensor, layout: str) -> LazyTensor:
    """A tensor of PyTorch's layout as Keras has it; contents are changed when they are read. Raises FormatError."""
    found = layout_of(layout)
    return _changed(tensor, found.rank, found.to_keras)


def to_torch(tensor: LazyTensor, layout: str) -> LazyTensor:
    """A tensor of Keras's layout as PyTorch has it. Raises FormatError."""
    found = layout_of(layout)
    return _changed(tensor, found.rank, found.to_torch)
