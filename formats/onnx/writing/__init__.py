"""Writing ONNX: graphs of zoonet's operators, and imported graphs, become ONNX models."""

from zoonet.formats.onnx.writing import (  # noqa: F401 (declare what writes their operators)
    elementwise,
    gradients,
    indexing,
    linear,
    maps,
    normalization,
    random,
    recurrence,
    reductions,
    shapes,
    signal,
    windows,
)
from zoonet.formats.onnx.writing.draft import Draft
from zoonet.formats.onnx.writing.export import export
from zoonet.formats.onnx.writing.imported import rewrite

__all__ = ["Draft", "export", "rewrite"]
