"""File formats: bytes to and from named tensors or a graph. Nothing here knows a model."""

from zoonet.formats.checkpoint import Checkpoint, LazyTensor, as_lazy
from zoonet.formats.registry import (
    FORMATS,
    Description,
    Format,
    TensorDescription,
    damage,
    describe,
    detect,
    read,
    write,
)

__all__ = [
    "FORMATS",
    "Checkpoint",
    "Description",
    "Format",
    "LazyTensor",
    "TensorDescription",
    "as_lazy",
    "damage",
    "describe",
    "detect",
    "read",
    "write",
]
