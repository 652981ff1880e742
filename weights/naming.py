"""Parameters of the zoo's networks under the names of another library: the inverse of `zoonet.weights.names`.

A network goes only where the other library has the very same: MobileNets whose epsilon or padding differs are refused,
since the weights would load there and give other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoonet.formats import Checkpoint, LazyTensor
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.weights.keras_names import to_keras_names
from zoonet.weights.mobilenet_names import named_as

__all__ = ["VOCABULARIES", "homes", "named"]

#: What `named` takes, and what messages call it.
VOCABULARIES = {
    "torchvision": "torchvision",
    "timm": "timm",
    "hugging-face": "Hugging Face",
    "keras": "keras.applications",
}
_RESNET = r"resnet(18|26|34|50|101|152)"
#: By pattern of the architecture's name: the libraries that have this network.
_HOMES = (
    (_RESNET, ("torchvision", "timm", "hugging-face")),
    (r"resnet(50|101|152)_keras", ("keras",)),
    (r"(wide_)?resne[xt](50|101)_\w+", ("torchvision", "timm")),
    (r"resne[xt]\d+[dt]?(_32x4d)?", ("timm",)),
    (r"mobilenetv1(_050|_075)?", ("timm",)),
    (r"mobilenetv1_tf", ("hugging-face",)),
    (r"mobilenetv1_keras", ("keras",)),
    (r"mobilenet_v2", ("torchvision", "timm")),
    (r"mobilenet_v2_keras", ("hugging-face", "keras")),
    (r"mobilenet_v3_(large|small)", ("torchvision",)),
    (r"mobilenetv3_(large|small)_100", ("timm",)),
    (r"mobilenet_v3_(large|small)_keras", ("keras",)),
    (r"vit_(base|large)_patch\d+_\d+", ("timm", "torchvision", "hugging-face")),
    (r"(vit|deit)_\w+", ("timm", "hugging-face")),
)


def homes(architecture: str) -> tuple[str, ...]:
    """The libraries (VOCABULARIES) that have this network of the zoo with the same arrays and outputs."""
    return next((found for pattern, found in _HOMES if re.fullmatch(pattern, architecture)), ())


def named(architecture: str, checkpoint: Checkpoint, vocabulary: str) -> Checkpoint:
    """The parameters of an architecture of the zoo under the names, and in the layouts, of a library (VOCABULARIES).

    Raises ArgumentError for another vocabulary, UnsupportedFormatError where the library has no such network.
    """
    if vocabulary not in VOCABULARIES:
        raise ArgumentError("no such vocabulary of names", expected=", ".join(VOCABULARIES), received=repr(vocabulary))
    found = homes(architecture)
    if vocabulary not in found:
        raise UnsupportedFormatError(
            f"{VOCABULARIES[vocabulary]} has no network of which {architecture} has the arrays and gives the outputs",
            expected=" or ".join(found) or "a network that several libraries have",
        )
    tensors = _renamed(architecture, checkpoint, vocabulary)
    return Checkpoint(tensors, checkpoint.metadata, checkpoint.format)


def _renamed(architecture: str, state: Mapping[str, LazyTensor], vocabulary: str) -> Mapping[str, LazyTensor]:
    if vocabulary == "keras":
        return to_keras_names(architecture, state)
    if architecture.startswith("mobilenet"):
        return named_as(architecture, VOCABULARIES[vocabulary], state) or state
    if architecture.startswith(("vit", "deit")):
        if vocabulary == "timm":
            return state
        return _vit_of_transformers(state) if vocabulary == "hugging-face" else _vit_of_torchvision(state)
    return {_resnet_of_transformers(n): t for n, t in state.items()} if vocabulary == "hugging-face" else state


def _resnet_of_transformers(name: str) -> str:
    """layer2.0.conv3.weight -> resnet.encoder.stages.1.layers.0.layer.2.convolution.weight."""
    module, _, role = name.rpartition(".")
    outer = {"conv1": "convolution", "bn1": "normalization"}
    if module in outer:
        return f"resnet.embedder.embedder.{outer[module]}.{role}"
    if module == "fc":
        return f"classifier.1.{role}"
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))", module)
    if found is None:
        raise UnsupportedFormatError("transformers' ResNet has no such array", received=name[:200])
    stage, block, kind, number, shortcut = found.groups()
    part = "shortcut" if shortcut is not None else f"layer.{int(number) - 1}"
    end = "normalization" if kind == "bn" or shortcut == "1" else "convolution"
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{end}.{role}"


_VIT_OF_TRANSFORMERS = (
    (r"blocks\.(\d+)\.norm1", r"{0}.encoder.layer.\1.layernorm_before"),
    (r"blocks\.(\d+)\.norm2", r"{0}.encoder.layer.\1.layernorm_after"),
    (r"blocks\.(\d+)\.attn\.proj", r"{0}.encoder.layer.\1.attention.output.dense"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"{0}.encoder.layer.\1.intermediate.dense"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"{0}.encoder.layer.\1.output.dense"),
    (r"cls_token", r"{0}.embeddings.cls_token"),
    (r"dist_token", r"{0}.embeddings.distillation_token"),
    (r"pos_embed", r"{0}.embeddings.position_embeddings"),
    (r"patch_embed\.proj", r"{0}.embeddings.patch_embeddings.projection"),
    (r"norm", r"{0}.layernorm"),
)
_VIT_OF_TORCHVISION = (
    (r"blocks\.(\d+)\.norm([12])", r"encoder.layers.encoder_layer_\1.ln_\2"),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj", r"encoder.layers.encoder_layer_\1.self_attention.out_proj"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"encoder.layers.encoder_layer_\1.mlp.0"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"encoder.layers.encoder_layer_\1.mlp.3"),
    (r"cls_token", r"class_token"),
    (r"pos_embed", r"encoder.pos_embedding"),
    (r"patch_embed\.proj", r"conv_proj"),
    (r"norm", r"encoder.ln"),
    (r"head", r"heads.head"),
)


def _replaced(name: str, rules: tuple[tuple[str, str], ...], prefix: str = "") -> str:
    for pattern, new in rules:
        found = re.match(pattern + r"(?![a-z0-9_])" if not pattern.endswith(".") else pattern, name)
        if found is not None:
            return found.expand(new).replace("{0}", prefix) + name[found.end() :]
    return name


def _vit_of_torchvision(state: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    return {_replaced(name, _VIT_OF_TORCHVISION): tensor for name, tensor in state.items()}


def _vit_of_transformers(state: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """blocks.0.attn.qkv.weight (3·width, width) -> attention.attention.query, key and value, (width, width) each."""
    distilled = "dist_token" in state
    prefix, result = ("deit" if distilled else "vit"), {}
    heads = {"head.": "cls_classifier." if distilled else "classifier.", "head_dist.": "distillation_classifier."}
    for name, tensor in state.items():
        found = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name)
        if found is not None:
            for number, role in enumerate(("query", "key", "value")):
                new = f"{prefix}.encoder.layer.{found[1]}.attention.attention.{role}.{found[2]}"
                result[new] = _third(tensor, number)
            continue
        head = next((start for start in heads if name.startswith(start)), None)
        if head is not None:
            result[heads[head] + name.removeprefix(head)] = tensor
        else:
            result[_replaced(name, _VIT_OF_TRANSFORMERS, prefix)] = tensor
    return result


def _third(tensor: LazyTensor, number: int) -> LazyTensor:
    rows = tensor.shape[0] // 3

    def load() -> Any:
        return tensor.load()[number * rows : (number + 1) * rows]

    return LazyTensor((rows, *tensor.shape[1:]), tensor.dtype, load)
