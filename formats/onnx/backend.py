"""The ONNX project's backend interface (`onnx.backend.base`) over zoonet, for any harness written against it."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.backend.base import Backend as BackendBase
from onnx.backend.base import BackendRep as BackendRepBase

from zoonet.formats.onnx.model import OnnxModel, from_proto
from zoonet.ops.devices import module_for
from zoonet.ops.errors import ArgumentError, DeviceError
from zoonet.ops.sets.onnx import DOMAINS

__all__ = ["Backend", "BackendRep"]


class BackendRep(BackendRepBase):
    """A prepared model."""

    def __init__(self, model: OnnxModel, device: str) -> None:
        self.model = model
        self.device = device

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for inputs as a list in the model's order, a dict by name, or one array."""
        if not isinstance(inputs, list | tuple | dict):
            inputs = [inputs]
        return self.model.run(inputs, self.device)


class Backend(BackendBase):
    """Runs ONNX models with zoonet's operators."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """A prepared model for a ModelProto. Raises FormatError, UnsupportedFormatError, DeviceError."""
        if not isinstance(model, onnx.ModelProto):
            raise ArgumentError("prepare takes a ModelProto", received=type(model).__name__, fix="use zoonet's load")
        name = _device(device)
        module_for(name)
        return BackendRep(from_proto(model), name)

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """The outputs of a ModelProto for inputs."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """The outputs of one NodeProto for inputs by name or in order; `opset_version` may be given."""
        names = [name for name in node.input if name]
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        opset = kwargs.get("opset_version", DOMAINS.get(node.domain, 1))
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(node.domain, opset)])
        if not isinstance(inputs, dict):
            inputs = dict(zip(names, inputs if isinstance(inputs, list | tuple) else [inputs], strict=False))
        return cls.run_model(model, inputs, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for CPU, and for CUDA where CuPy and a GPU are there."""
        try:
            module_for(_device(device))
        except DeviceError:
            return False
        return True


def _device(device: str) -> str:
    name, _, index = device.lower().partition(":")
    return name if name == "cpu" or not index else f"{name}:{index}"
