"""Maps from other vocabularies of parameter names to those of the zoo's networks.

The networks are named as torchvision and timm name theirs, and as Hugging Face does for text, so most checkpoints need
none of this. Where a map changes the layout of an array, it says so: a source has one layout, and none is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from zoonet.formats import Checkpoint, LazyTensor
from zoonet.ops.errors import FormatError
from zoonet.weights.mobilenet_names import layers_of, renamed_mobilenet, vocabulary_of_mobilenet
from zoonet.weights.shapes import reshaped
from zoonet.weights.vit_names import is_foreign_vit, renamed

__all__ = [
    "in_our_names",
    "keras_mobilenet",
    "keras_resnet",
    "published_rtdetr",
    "torchvision_detector",
    "transformers_resnet",
]

_TRANSFORMERS_BLOCK = re.compile(
    r"encoder\.stages\.(\d{1,3})\.layers\.(\d{1,3})\.(?:layer\.(\d)|shortcut)\.(convolution|normalization)\.(\w+)"
)


def in_our_names(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint under the names of the zoo's networks, if its names are of a vocabulary that has a map.

    Any other checkpoint is returned as it is. metadata of a changed one: "vocabulary", where networks of the same
    shapes differ by it. Raises FormatError where a map applies to some of the names only.
    """
    if checkpoint.format in ("keras_h5", "keras_weights", "keras"):
        layers = {layer for layer, _ in map(_keras_layer_and_role(checkpoint), checkpoint)}
        if {"conv1_conv", "conv2_block1_1_conv"} <= layers:
            return keras_resnet(checkpoint)
        found = vocabulary_of_mobilenet(layers, ("keras.applications",))
        return keras_mobilenet(checkpoint, found[0]) if found else checkpoint
    if any(name.removeprefix("resnet.").startswith("embedder.embedder.convolution.") for name in checkpoint):
        return transformers_resnet(checkpoint)
    if any(name.startswith("model.encoder.aifi.") or name.endswith("_attn.n_points_scale") for name in checkpoint):
        return published_rtdetr(checkpoint)
    if any(_OLD_PYRAMID.match(name) for name in checkpoint):
        return torchvision_detector(checkpoint)
    mobilenet = renamed_mobilenet(checkpoint)
    if mobilenet is not None:
        return _named(checkpoint, mobilenet[1], mobilenet[0])
    if is_foreign_vit(checkpoint):
        return Checkpoint(dict(renamed(checkpoint.original())), checkpoint.metadata, checkpoint.format)
    return checkpoint


def _named(checkpoint: Checkpoint, tensors: Mapping[str, LazyTensor], vocabulary: str) -> Checkpoint:
    return Checkpoint(tensors, {**checkpoint.metadata, "vocabulary": vocabulary}, checkpoint.format)


def published_rtdetr(checkpoint: Checkpoint) -> Checkpoint:
    """RT-DETR in the names of transformers 5 in those of published checkpoints.

    model.encoder.aifi.0.layers.0.mlp.fc1.weight -> model.encoder.encoder.0.layers.0.fc1.weight; o_proj -> out_proj.
    Version 2 is the same network; its names of the heads lack model.decoder, and it writes down 1 / points.
    """

    def ours(name: str) -> str:
        name = name.replace(".o_proj.", ".out_proj.").replace("encoder.aifi.", "encoder.encoder.")
        name = re.sub(r"^(class_embed|bbox_embed)\.", r"model.decoder.\1.", name)
        return re.sub(r"(layers\.\d+)\.mlp\.(fc\d)", r"\1.\2", name)

    tensors = {ours(n): t for n, t in checkpoint.items() if not n.endswith("_attn.n_points_scale")}
    return Checkpoint(tensors, checkpoint.metadata, checkpoint.format)


_OLD_PYRAMID = re.compile(r"backbone\.fpn\.(?:inner|layer)_blocks\.\d+\.(?:weight|bias)$")


def torchvision_detector(checkpoint: Checkpoint) -> Checkpoint:
    """Detectors that torchvision saved before version 0.13, in its present names.

    backbone.fpn.inner_blocks.0.weight -> backbone.fpn.inner_blocks.0.0.weight; of RetinaNet's heads, whose convolutions
    were every second entry, head.classification_head.conv.4.weight -> head.classification_head.conv.2.0.weight. FCOS's
    heads kept their names.
    """
    plain = not any(name.endswith("_head.conv.1.weight") for name in checkpoint)  # FCOS has norms between

    def ours(name: str) -> str:
        name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
        if plain:
            head = re.fullmatch(r"(head\.\w+_head\.conv)\.(\d+)\.(weight|bias)", name)
            return f"{head[1]}.{int(head[2]) // 2}.0.{head[3]}" if head else name
        return name

    return Checkpoint({ours(n): t for n, t in checkpoint.items()}, checkpoint.metadata, checkpoint.format)


def keras_resnet(checkpoint: Checkpoint) -> Checkpoint:
    """The weights of keras.applications' ResNet-50, 101 and 152 in torchvision's names and layout.

    conv3_block2_1_conv/kernel:0 -> layer2.1.conv1.weight; number 0 of a block is the projection. Kernels are
    (height, width, in, out) -> (out, in, height, width), and (in, out) -> (out, in) for the last layer. Raises
    FormatError for other layers.
    """
    from zoonet.formats.keras.layouts import to_torch
    from zoonet.weights.keras_names import resnet_parameter

    tensors: dict[str, LazyTensor] = {}
    split = _keras_layer_and_role(checkpoint)
    for name, tensor in checkpoint.items():
        ours = resnet_parameter(*split(name))
        if ours is None or ours in tensors:
            raise FormatError(
                "the file is not of a ResNet of keras.applications",
                expected="layers such as conv1_conv, conv2_block1_1_bn and predictions",
                received=name[:200],
            )
        tensors[ours] = to_torch(tensor, {4: "HWIO", 2: "IO"}.get(tensor.ndim, ""))
    return Checkpoint(tensors, _without_keras_layers(checkpoint.metadata), checkpoint.format)


def keras_mobilenet(checkpoint: Checkpoint, family: str) -> Checkpoint:
    """The weights of keras.applications' MobileNets in the zoo's names; `family` as `mobilenet_names` calls them.

    Kernels of convolutions (H, W, in, out) -> (out, in, H, W), in each channel (H, W, C, 1) -> (C, 1, H, W); those of
    linear layers (in, out) or (1, 1, in, out) -> (out, in).
    """
    from zoonet.formats.keras.layouts import to_torch
    from zoonet.weights.keras_names import ROLES

    layers, split = layers_of(family, "keras.applications"), _keras_layer_and_role(checkpoint)
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in checkpoint.items():
        layer, role = split(name)
        if role not in ROLES:
            raise FormatError(
                "the file is not of a MobileNet of keras.applications", expected=", ".join(ROLES), received=name[:200]
            )
        depthwise = tensor.ndim == 4 and (layer.startswith("conv_dw") or layer.endswith("_depthwise"))
        found = to_torch(tensor, "HWCM" if depthwise else {4: "HWIO", 2: "IO"}.get(tensor.ndim, ""))
        ours = layers[layer].ours
        if tensor.ndim == 4 and ours.startswith(("fc", "classifier")):
            found = reshaped(found, found.shape[:2])
        tensors[f"{ours}.{ROLES[role]}"] = found
    metadata = _without_keras_layers(checkpoint.metadata)
    return Checkpoint(tensors, {**metadata, "vocabulary": "keras.applications"}, checkpoint.format)


def _keras_layer_and_role(checkpoint: Checkpoint) -> Callable[[str], tuple[str, str]]:
    """A function from a name to its layer and the role of the array there, "" where it is not known.

    Keras 2 writes "conv1_bn/conv1_bn/gamma:0"; Keras 3 "layers/dense/vars/0", and the layers' names apart.
    """
    from zoonet.weights.keras_names import is_norm, resnet_modules

    known = resnet_modules()
    older = _third_of_keras_2(checkpoint)
    named = checkpoint.metadata.get("names")
    layers: Mapping[str, object] = named if isinstance(named, dict) else {}

    def split(name: str) -> tuple[str, str]:
        head, _, role = name.rpartition("/")
        if name in older:
            return older[name], role.partition(":")[0]
        if len(role) == 1 and role.isdecimal() and head.endswith("/vars"):
            layer = str(layers.get(head.removesuffix("/vars"), ""))
            order = ("gamma", "beta", "moving_mean", "moving_variance") if is_norm(layer) else ("kernel", "bias")
            return layer, order[int(role)] if int(role) < len(order) else ""
        # The folder of a layer has its name; what lies in it may have been numbered: "conv1_bn/conv1_bn_1/gamma:0".
        folders = head.split("/")
        layer = next((folder for folder in folders if folder in known), folders[-1])
        return layer, role.partition(":")[0]

    return split


def _third_of_keras_2(checkpoint: Checkpoint) -> Mapping[str, str]:
    """The layer of each array, as Keras 3 names it, of a MobileNetV3 of Keras 2; empty for other files.

    Its names have slashes, in the published files too: expanded_conv_1/expand/BatchNorm -> expanded_conv_1_expand_bn.
    """
    weights = checkpoint.metadata.get("weight_names")
    if not isinstance(weights, dict) or not {"Conv/BatchNorm", "Conv_1/BatchNorm"} <= set(weights):
        return {}
    modern = {layer: layer.replace("/BatchNorm", "_bn").replace("/", "_").lower() for layer in weights}
    return {name: modern[layer] for layer, names in weights.items() for name in names}


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
