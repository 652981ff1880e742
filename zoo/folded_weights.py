"""Weights of an exported graph as those of our own network: matched by the order in which they are used.

Exporters fold batch norms into convolutions and number the results, so that names are lost; the order in which
convolutions run is not.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import StateDictError
from zoonet.ops.graph import Value
from zoonet.ops.types import TensorType, float32
from zoonet.zoo.layers import BatchNorm2d, Conv2d
from zoonet.zoo.modules import Module, observed_by

Array = np.ndarray[Any, Any]


def state_from_onnx(network: Module, path: pathlib.Path, shape: tuple[int, ...]) -> dict[str, Array]:
    """The state dict of a network of convolutions from an ONNX file of the same network.

    shape: of an input that the network takes. A batch norm that the exporter folded into the convolution before it
    becomes one that adds the bias and does nothing else. Raises StateDictError where the convolutions differ.
    """
    wanted = _convolutions(network, shape)
    found = _graph_convolutions(path)
    own = [(name, tuple(conv.weight.shape)) for name, conv, _, _ in wanted]
    theirs = [tuple(weight.shape) for weight, _ in found]
    if [shape for _, shape in own] != theirs:
        differs = next((i for i, ((_, a), b) in enumerate(zip(own, theirs, strict=False)) if a != b), None)
        raise StateDictError(
            f"the convolutions of {path.name} are not those of {type(network).__name__}",
            expected=f"{len(own)}" if differs is None else f"{own[differs][0]} of shape {list(own[differs][1])}",
            received=f"{len(theirs)}" if differs is None else f"shape {list(theirs[differs])}",
            fix="name the architecture that the file holds",
        )
    state: dict[str, Array] = {name: np.asarray(array) for name, array in network.state_dict().items()}
    for (name, conv, norm_name, norm), (weight, bias) in zip(wanted, found, strict=True):
        state[f"{name}.weight"] = weight
        bias = np.zeros(weight.shape[0], weight.dtype) if bias is None else bias
        if conv.bias is not None:
            state[f"{name}.bias"] = bias
        elif norm is not None:
            state |= {
                f"{norm_name}.weight": np.ones_like(bias),
                f"{norm_name}.bias": bias,
                f"{norm_name}.running_mean": np.zeros_like(bias),
                f"{norm_name}.running_var": np.full_like(bias, 1 - norm.eps),  # so that it divides by √1
            }
    return state


_Used = tuple[str, Conv2d, str, BatchNorm2d | None]


def _convolutions(network: Module, shape: tuple[int, ...]) -> list[_Used]:
    """Name and module of each convolution in the order of use, and of the batch norm after it."""
    names = {id(module): name for name, module in network.named_modules()}
    used: list[_Used] = []

    def observe(module: Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if isinstance(module, Conv2d):
            used.append((names[id(module)], module, "", None))
        elif isinstance(module, BatchNorm2d) and used and used[-1][3] is None:
            name, conv, _, _ = used[-1]
            used[-1] = (name, conv, names[id(module)], module)
        return module.forward(*inputs, **keywords)

    with observed_by(observe):
        ops.trace(network, TensorType(shape, float32))
    return used


def _graph_convolutions(path: pathlib.Path) -> list[tuple[Array, Array | None]]:
    """Weight and bias of each convolution of a file, in the order of its nodes."""
    from zoonet.formats import onnx

    graph = onnx.load(path).graph
    result = []
    for node in graph.nodes:
        if not node.op.name.startswith("onnx.Conv-"):
            continue
        constants = [graph.constants.get(v) if isinstance(v, Value) else None for v in node.arguments.values()]
        weight, bias = (*constants, None, None)[1:3]
        if weight is None:
            raise StateDictError(f"a convolution of {path.name} has a weight that is computed", expected="constants")
        result.append((np.asarray(weight), None if bias is None else np.asarray(bias)))
    return result
