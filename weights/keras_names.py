"""Names of parameters in keras.applications beside those of torchvision and timm, with the layout of each tensor.

A map goes from a parameter's name in the zoo (torchvision's, timm's) to (layer of Keras, role, layout); the layouts
stand in `zoonet.formats.keras.layouts`. Layers have the same names in every kind of file that Keras writes; roles are
those of Keras 2, since Keras 3 numbers them in its own files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from zoonet.formats import Checkpoint, LazyTensor
from zoonet.formats.keras.layouts import to_keras, to_torch
from zoonet.ops.errors import StateDictError
from zoonet.weights.mobilenet_names import family_of, layers_of
from zoonet.weights.shapes import reshaped

__all__ = [
    "ROLES",
    "KerasName",
    "from_keras",
    "is_norm",
    "keras_name",
    "layer_names",
    "resnet_modules",
    "resnet_parameter",
    "to_keras_names",
]

_KERNEL = {"kernel": "weight", "bias": "bias"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

#: From the roles of arrays in Keras to those of PyTorch.
ROLES = {**{theirs: ours for ours, theirs in _NORM.items()}, **_KERNEL, "depthwise_kernel": "weight"}


@dataclass(frozen=True)
class KerasName:
    """A tensor of keras.applications: its layer, its role there, its layout."""

    layer: str
    role: str
    layout: str = ""

    def __str__(self) -> str:
        return f"{self.layer}/{self.role}"


def _resnet_layer(module: str) -> str | None:
    """conv1 -> conv1_conv, layer2.0.conv1 -> conv3_block1_1_conv, fc -> predictions."""
    if module in ("conv1", "bn1"):
        return f"conv1_{'conv' if module == 'conv1' else 'bn'}"
    if module == "fc":
        return "predictions"
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))", module)
    if found is None:
        return None
    stage, block, kind, number, shortcut = found.groups()
    if shortcut is not None:
        kind, number = ("conv", "0") if shortcut == "0" else ("bn", "0")
    return f"conv{int(stage) + 1}_block{int(block) + 1}_{number}_{kind}"


#: More blocks in a stage than any ResNet of Keras has.
_MOST_BLOCKS = 64


@cache
def resnet_modules() -> Mapping[str, str]:
    """From layers of keras.applications' ResNets to modules of the zoo's, the inverse of the names that they have here.

    The last layer is called "probs" or "fc1000" by older versions of Keras, which wrote the published files.
    """
    parts = [*(f"{kind}{number}" for kind in ("conv", "bn") for number in (1, 2, 3)), "downsample.0", "downsample.1"]
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in range(_MOST_BLOCKS)]
    modules = ["conv1", "bn1", "fc", *(f"{block}.{part}" for block in blocks for part in parts)]
    named = {layer: module for module in modules if (layer := _resnet_layer(module)) is not None}
    return {**named, "probs": "fc", "fc1000": "fc"}


def resnet_parameter(layer: str, role: str) -> str | None:
    """The zoo's name of an array of Keras's ResNets, ("conv1_bn", "gamma") -> "bn1.weight"; None for any other."""
    module = resnet_modules().get(layer)
    roles = {theirs: ours for ours, theirs in _NORM.items()} if layer.endswith("_bn") else _KERNEL
    return f"{module}.{roles[role]}" if module is not None and role in roles else None


def _mobilenet_layer(architecture: str) -> Callable[[str], str | None]:
    """stage1.0.0 -> conv1, stage1.1.0 -> conv_dw_1, features.0.0 -> Conv1 of v2 and conv of v3, …"""
    names = {layer.ours: name for name, layer in layers_of(family_of(architecture), "keras.applications").items()}
    return names.get


def _layer(architecture: str, module: str) -> str | None:
    if re.fullmatch(r"resnet(50|101|152)(_keras)?", architecture):
        return _resnet_layer(module)
    return _mobilenet_layer(architecture)(module) if family_of(architecture) else None


def is_norm(layer: str) -> bool:
    """Whether a layer of keras.applications is a batch norm, by its name."""
    return layer.lower().endswith("_bn") or layer == "bn_Conv1"


#: Convolutions of size 1 on the pooled picture in Keras's MobileNets, which are linear layers here.
_POOLED = ("conv_preds", "conv_2", "logits")


def layer_names(architecture: str, parameters: Iterable[str]) -> dict[str, str]:
    """For each module that has parameters, the layer of keras.applications; empty for families that Keras has not."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    found = {module: _layer(architecture, module) for module in modules}
    return {module: name for module, name in found.items() if name is not None}


def keras_name(architecture: str, parameter: str, rank: int) -> KerasName | None:
    """The tensor of keras.applications that a parameter of the zoo is; None for one that Keras does not have.

    rank: the parameter's number of axes. PyTorch's convolutions (out, in, H, W) are (H, W, in, out) in Keras, depthwise
    ones (C, 1, H, W) are (H, W, C, 1), linear ones (out, in) are (in, out).
    """
    module, _, role = parameter.rpartition(".")
    layer = _layer(architecture, module)
    if layer is None or role == "num_batches_tracked":
        return None
    if layer in _POOLED:
        return KerasName(layer, "kernel" if role == "weight" else role, "HWIO" if role == "weight" else "")
    if rank == 4:
        depthwise = layer.startswith("conv_dw") or layer.endswith("_depthwise")
        return KerasName(layer, "depthwise_kernel" if depthwise else "kernel", "HWCM" if depthwise else "HWIO")
    if rank == 2:
        return KerasName(layer, "kernel", "IO")
    if is_norm(layer):
        return KerasName(layer, _NORM[role])
    return KerasName(layer, role)


def to_keras_names(architecture: str, state: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Parameters of the zoo under the names and in the layouts of keras.applications, "conv1_conv/kernel".

    Raises StateDictError for one that Keras has no place for.
    """
    result = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        found = keras_name(architecture, name, tensor.ndim)
        if found is None:
            raise StateDictError(
                f"keras.applications has no name for {name!r} of {architecture}",
                expected="resnet50, resnet101, resnet152, their _keras variants, or a MobileNet",
            )
        shaped = tensor
        if found.layer in _POOLED and tensor.ndim == 2:
            shaped = reshaped(tensor, (*tensor.shape, 1, 1))
        result[str(found)] = to_keras(shaped, found.layout)
    return result


def from_keras(architecture: str, names: Iterable[tuple[str, int]], state: Mapping[str, LazyTensor]) -> Checkpoint:
    """Parameters of the zoo from those of keras.applications by "layer/role", the inverse of `to_keras_names`.

    names: (name, rank) of the network's parameters. Raises StateDictError that names what is missing.
    """
    result, missing = {}, []
    for name, rank in names:
        found = keras_name(architecture, name, rank)
        if found is None:
            continue
        if str(found) not in state:
            missing.append(str(found))
            continue
        tensor = to_torch(state[str(found)], found.layout)
        result[name] = reshaped(tensor, tensor.shape[:2]) if found.layer in _POOLED and rank == 2 else tensor
    if missing:
        raise StateDictError(
            f"the weights lack {len(missing)} tensors of keras.applications' {architecture}",
            expected=", ".join(missing[:5]),
            received=", ".join(list(state)[:5]),
        )
    return Checkpoint(result, {}, "keras")
