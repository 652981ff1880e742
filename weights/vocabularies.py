"""Whose names the parameters of a file have: told from the names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["vocabulary_of"]

#: The first rule decides of which the architecture's name fits the first pattern and one of the file's names the
#: second. ResNets have the same names in timm as in torchvision, which has fewer variants.
_RULES = (
    (r".*", r"conv1_(conv|bn)/.*|conv[2-5]_block\d+_\d_(conv|bn)/.*|conv_(dw|pw)_\d+/.*", "keras.applications"),
    (r".*", r"layers/[a-z0-9_]+/(.+/)?vars/\d+", "Keras"),
    (r"resnet.*", r"(resnet\.)?embedder\.embedder\..*", "Hugging Face"),
    (r"(vit|deit).*", r"(vit|deit)\..*", "Hugging Face"),
    (r"(bert|gpt|llama|roberta|distil|minilm).*", r".*", "Hugging Face"),
    (r".*", r"encoder\.layers\.encoder_layer_\d+\..*", "torchvision"),
    (r"(vit|deit).*", r"blocks\.\d+\..*", "timm"),
    (r"resnet(18|34|50|101|152)|wide_resnet(50|101)_2", r"layer1\..*", "torchvision"),
    (r"resnext(50_32x4d|101_32x8d|101_64x4d)", r"layer1\..*", "torchvision"),
    (r"resnet(20|32|44|56|110)", r"linear\..*", "pytorch_resnet_cifar10"),
    (r"(wide_)?resne[xt].*_keras", r"layer1\..*", "torchvision"),
    (r"(wide_)?resne[xt].*", r"layer1\..*", "timm"),
    (r"mobilenet_v2", r"blocks\.\d+\..*", "timm"),
    (r"mobilenet_v[23].*", r"features\.\d+\..*", "torchvision"),
    (r"mobilenetv1.*", r"stage1\..*", "Pytorch_Retinaface"),
    (r"digit.*", r".*", "zoonet"),
)


def vocabulary_of(architecture: str, names: Iterable[str]) -> str:
    """Whose names these are, for weights of an architecture: "torchvision", "keras.applications", …; "" if unknown.

    A prefix that all names share, as "module." or "model.", does not matter.
    """
    known = [re.sub(r"^(module|state_dict)\.", "", name) for name in names]
    for of, name, vocabulary in _RULES:
        if re.fullmatch(of, architecture) and any(re.fullmatch(name, item) for item in known):
            return vocabulary
    return ""
