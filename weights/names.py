"""Maps from other vocabularies of parameter names to those of the zoo's networks.

The networks are named as torchvision and timm name theirs, and as Hugging Face does for text, so most checkpoints need
none of this. Where a map changes the layout of an array, it says so: a source has one layout, and none is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from zoonet.formats import Checkpoint, LazyTensor
from zoonet.ops.errors import FormatError
from zoonet.weights.vit_names import is_foreign_vit, renamed

__all__ = ["in_our_names", "keras_resnet", "transformers_resnet"]

_KERAS_PARTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERAS_BLOCK = re.compile(r"conv([2-5])_block(\d+)_([0-3])_(conv|bn)")
_TRANSFORMERS_BLOCK = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)\.(convolution|normalization)\.(\w+)"
)


def in_our_names(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint under the names of the zoo's networks, if its names are of a vocabulary that has a map.

    Any other checkpoint is returned as it is. Raises FormatError where a map applies to some of the names only.
    """
    if checkpoint.format in ("keras_h5", "keras_weights", "keras"):
        layers = {layer for layer, _ in map(_keras_layer_and_part(checkpoint), checkpoint)}
        return keras_resnet(checkpoint) if {"conv1_conv", "conv2_block1_1_conv"} <= layers else checkpoint
    if any(name.removeprefix("resnet.").startswith("embedder.embedder.convolution.") for name in checkpoint):
        return transformers_resnet(checkpoint)
    if is_foreign_vit(checkpoint):
        return Checkpoint(dict(renamed(checkpoint.original())), checkpoint.metadata, checkpoint.format)
    return checkpoint


def keras_resnet(checkpoint: Checkpoint) -> Checkpoint:
    """The weights of keras.applications' ResNet-50, 101 and 152 in torchvision's names and layout.

    conv3_block2_1_conv/kernel:0 -> layer2.1.conv1.weight; number 0 of a block is the projection. Kernels are
    (height, width, in, out) -> (out, in, height, width), and (in, out) -> (out, in) for the last layer, which is
    called "probs" or "predictions" by the version that wrote the file. Raises FormatError for other layers.
    """
    tensors: dict[str, LazyTensor] = {}
    split = _keras_layer_and_part(checkpoint)
    for name, tensor in checkpoint.items():
        layer, part = split(name)
        ours = f"{_keras_layer(layer, tensor.ndim)}.{part}" if part else ""
        if not part or ours.startswith(".") or ours in tensors:
            raise FormatError(
                "the file is not of a ResNet of keras.applications",
                expected="layers such as conv1_conv, conv2_block1_1_bn and predictions",
                received=name[:200],
            )
        tensors[ours] = _turned(tensor)
    return Checkpoint(tensors, _without_keras_layers(checkpoint.metadata), checkpoint.format)


def _keras_layer_and_part(checkpoint: Checkpoint) -> Callable[[str], tuple[str, str]]:
    """A function from a name to its layer and our name of the array in the layer, "" where it is not known.

    Keras 2 writes "conv1_bn/conv1_bn/gamma:0"; Keras 3 "layers/dense/vars/0", and the layers' names apart.
    """
    named = checkpoint.metadata.get("names")
    layers: Mapping[str, object] = named if isinstance(named, dict) else {}

    def split(name: str) -> tuple[str, str]:
        head, _, part = name.rpartition("/")
        if len(part) == 1 and part.isdecimal() and head.endswith("/vars"):
            layer = str(layers.get(head.removesuffix("/vars"), ""))
            order = ("gamma", "beta", "moving_mean", "moving_variance") if layer.endswith("_bn") else ("kernel", "bias")
            return layer, _KERAS_PARTS[order[int(part)]] if int(part) < len(order) else ""
        return head.rpartition("/")[2], _KERAS_PARTS.get(part.partition(":")[0], "")

    return split


def _keras_layer(layer: str, axes: int) -> str:
    """Our name of a layer, or ""."""
    if layer in ("conv1_conv", "conv1_bn"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
    if layer in ("probs", "predictions", "fc1000") and axes < 3:
        return "fc"
    found = _KERAS_BLOCK.fullmatch(layer)
    if found is None:
        return ""
    stage, block, number, kind = found.groups()
    place = f"downsample.{'1' if kind == 'bn' else '0'}" if number == "0" else f"{kind}{number}"
    return f"layer{int(stage) - 1}.{int(block) - 1}.{place}"


def _turned(tensor: LazyTensor) -> LazyTensor:
    """A Keras kernel in PyTorch's layout; vectors stay."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.ndim)
    if axes is None:
        return tensor
    shape = tuple(tensor.shape[axis] for axis in axes)
    return LazyTensor(shape, tensor.dtype, lambda: tensor.load().transpose(axes), tensor.identity)


def _without_keras_layers(metadata: Mapping[str, object]) -> dict[str, object]:
    """Metadata without the lists of the file's own names, which no longer hold."""
    return {key: value for key, value in metadata.items() if key not in ("layer_names", "weight_names", "names")}


def transformers_resnet(checkpoint: Checkpoint) -> Checkpoint:
    """The weights of transformers' ResNetForImageClassification in torchvision's names; layouts are the same.

    resnet.encoder.stages.1.layers.0.layer.2.convolution.weight -> layer2.0.conv3.weight. Raises FormatError for names
    that the map does not know.
    """
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in checkpoint.items():
        ours = _transformers_name(name.removeprefix("resnet."))
        if not ours or ours in tensors:
            raise FormatError(
                "the file is not of transformers' ResNet",
                expected="names such as resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
                received=name[:200],
            )
        tensors[ours] = tensor
    return Checkpoint(tensors, checkpoint.metadata, checkpoint.format)


def _transformers_name(name: str) -> str:
    head, _, part = name.rpartition(".")
    fixed = {
        "embedder.embedder.convolution": "conv1",
        "embedder.embedder.normalization": "bn1",
        "classifier.1": "fc",
    }
    if head in fixed:
        return f"{fixed[head]}.{part}"
    found = _TRANSFORMERS_BLOCK.fullmatch(name)
    if found is None:
        return ""
    stage, block, number, kind, part = found.groups()
    is_norm = kind == "normalization"
    place = f"downsample.{int(is_norm)}" if number is None else f"{'bn' if is_norm else 'conv'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{block}.{place}.{part}"
