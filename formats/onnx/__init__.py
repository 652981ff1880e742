"""ONNX files: a model becomes a `Graph` of operators of the ONNX set.

`load` reads a file, `from_proto` a ModelProto; `export` makes a model of a function, `rewrite` of an imported graph.
`Backend`, `prepare`, `run_model`, `run_node` and `supports_device` are the official backend interface of the onnx
package, which is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoonet.formats.onnx.model import OnnxModel, from_bytes, from_proto, load
from zoonet.formats.onnx.values import ValueInfo

if TYPE_CHECKING:
    from zoonet.formats.onnx.backend import Backend, BackendRep
    from zoonet.formats.onnx.writing import Draft, export, rewrite

__all__ = [
    "Backend",
    "BackendRep",
    "Draft",
    "OnnxModel",
    "ValueInfo",
    "export",
    "from_bytes",
    "from_proto",
    "load",
    "prepare",
    "rewrite",
    "run_model",
    "run_node",
    "supports_device",
]


def __getattr__(name: str) -> Any:
    if name in ("Backend", "BackendRep"):
        from zoonet.formats.onnx import backend

        return getattr(backend, name)
    if name in ("Draft", "export", "rewrite"):
        from zoonet.formats.onnx import writing

        return getattr(writing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def prepare(model: Any, device: str = "CPU", **kwargs: Any) -> BackendRep:
    """A ModelProto prepared for `run`. Raises FormatError, UnsupportedFormatError, DeviceError."""
    from zoonet.formats.onnx.backend import Backend

    return Backend.prepare(model, device, **kwargs)


def run_model(model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
    """The outputs of a ModelProto for inputs as a list or a dict by name."""
    from zoonet.formats.onnx.backend import Backend

    return Backend.run_model(model, inputs, device, **kwargs)


def run_node(node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any) -> tuple[Any, ...]:
    """The outputs of one NodeProto; `opset_version` chooses the operator's version (the newest by default)."""
    from zoonet.formats.onnx.backend import Backend

    return Backend.run_node(node, inputs, device, outputs_info, **kwargs)


def supports_device(device: str) -> bool:
    """True for "CPU", and for "CUDA" where CuPy and a GPU are there."""
    from zoonet.formats.onnx.backend import Backend

    return Backend.supports_device(device)
