"""Layers of MobileNet v1, v2 and v3 as timm, transformers and keras.applications name them, beside the zoo's names.

Layouts are PyTorch's but for two: the 1×1 convolution that timm (`conv_head`, v3) and Keras (`conv_2`, `logits`,
`conv_preds`) have on the pooled picture is a linear layer here, and Keras's kernels are those of `keras_names`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from zoonet.formats import LazyTensor
from zoonet.weights.shapes import reshaped

__all__ = ["Layer", "family_of", "layers_of", "named_as", "renamed_mobilenet", "vocabulary_of_mobilenet"]


@dataclass(frozen=True)
class Layer:
    """One layer in every vocabulary; "" where a library has no such network. pooled: a 1×1 convolution elsewhere."""

    ours: str
    timm: str = ""
    hugging_face: str = ""
    keras: str = ""
    pooled: bool = False


def _first() -> Iterator[Layer]:
    """Of v1: stage1.0.0 and its norm, then 13 blocks of a convolution in each channel and one across."""
    stem = "mobilenet_v1.conv_stem"
    yield Layer("stage1.0.0", "conv_stem", f"{stem}.convolution", "conv1")
    yield Layer("stage1.0.1", "bn1", f"{stem}.normalization", "conv1_bn")
    ours = [f"stage1.{n}" for n in range(1, 6)] + [f"stage2.{n}" for n in range(6)] + ["stage3.0", "stage3.1"]
    timm = [f"blocks.{s}.{b}" for s, count in enumerate((1, 2, 2, 6, 2)) for b in range(count)]
    for n, (our, their) in enumerate(zip(ours, timm, strict=True)):
        for half, kind in enumerate(("dw", "pw")):
            hf, keras = f"mobilenet_v1.layer.{2 * n + half}", f"conv_{kind}_{n + 1}"
            yield Layer(f"{our}.{3 * half}", f"{their}.conv_{kind}", f"{hf}.convolution", keras)
            yield Layer(f"{our}.{3 * half + 1}", f"{their}.bn{half + 1}", f"{hf}.normalization", f"{keras}_bn")
    yield Layer("fc", "classifier", "classifier", "conv_preds")


#: Blocks of each stage of arXiv:1801.04381 and of timm.
_SECOND = (1, 2, 3, 4, 3, 3, 1)


def _second() -> Iterator[Layer]:
    """Of v2: features.0, 17 blocks, features.18, classifier.1."""
    hf = "mobilenet_v2"
    yield Layer("features.0.0", "conv_stem", f"{hf}.conv_stem.first_conv.convolution", "Conv1")
    yield Layer("features.0.1", "bn1", f"{hf}.conv_stem.first_conv.normalization", "bn_Conv1")
    timm = [f"blocks.{s}.{b}" for s, count in enumerate(_SECOND) for b in range(count)]
    for n, their in enumerate(timm):
        parts = ("expand", "depthwise", "project") if n else ("depthwise", "project")
        names = ("conv_pw", "conv_dw", "conv_pwl") if n else ("conv_dw", "conv_pw")
        theirs = f"{hf}.layer.{n - 1}" if n else f"{hf}.conv_stem"
        keras = f"block_{n}" if n else "expanded_conv"
        for k, (part, name) in enumerate(zip(parts, names, strict=True)):
            last = k == len(parts) - 1
            ours = [f"features.{n + 1}.conv.{k + i}" if last else f"features.{n + 1}.conv.{k}.{i}" for i in (0, 1)]
            block = f"{theirs}.{ {'expand': 'expand_1x1', 'depthwise': 'conv_3x3', 'project': 'reduce_1x1'}[part] }"
            yield Layer(ours[0], f"{their}.{name}", f"{block}.convolution", f"{keras}_{part}")
            yield Layer(ours[1], f"{their}.bn{k + 1}", f"{block}.normalization", f"{keras}_{part}_BN")
    yield Layer("features.18.0", "conv_head", f"{hf}.conv_1x1.convolution", "Conv_1")
    yield Layer("features.18.1", "bn2", f"{hf}.conv_1x1.normalization", "Conv_1_bn")
    yield Layer("classifier.1", "classifier", "classifier", "predictions")


#: By variant: timm's blocks of each stage, which blocks squeeze, and which of the first do not widen.
_THIRD = {"large": ((1, 2, 3, 4, 2, 3), (3, 4, 5, 10, 11, 12, 13, 14)), "small": ((1, 2, 3, 2, 3), (0, *range(3, 11)))}


def _third(variant: str) -> Iterator[Layer]:
    """Of v3: features.0, 15 or 11 blocks, the last convolution, classifier.0 and classifier.3."""
    stages, squeezed = _THIRD[variant]
    timm = [f"blocks.{s}.{b}" for s, count in enumerate(stages) for b in range(count)]
    yield Layer("features.0.0", "conv_stem", "", "conv")
    yield Layer("features.0.1", "bn1", "", "conv_bn")
    for n, their in enumerate(timm):
        parts = ("expand", "depthwise", "project") if n else ("depthwise", "project")
        names = ("conv_pw", "conv_dw", "conv_pwl") if n else ("conv_dw", "conv_pw")
        keras = f"expanded_conv_{n}" if n else "expanded_conv"
        place = 0
        for k, (part, name) in enumerate(zip(parts, names, strict=True)):
            if part == "project" and n in squeezed:
                for fc, (conv, end) in enumerate((("conv_reduce", ""), ("conv_expand", "_1")), start=1):
                    se = f"{keras}_squeeze_excite_conv{end}"
                    yield Layer(f"features.{n + 1}.block.{place}.fc{fc}", f"{their}.se.{conv}", "", se)
                place += 1
            ours = f"features.{n + 1}.block.{place}"
            yield Layer(f"{ours}.0", f"{their}.{name}", "", f"{keras}_{part}")
            yield Layer(f"{ours}.1", f"{their}.bn{k + 1}", "", f"{keras}_{part}_bn")
            place += 1
    end = f"blocks.{len(stages)}.0"
    yield Layer(f"features.{len(timm) + 1}.0", f"{end}.conv", "", "conv_1")
    yield Layer(f"features.{len(timm) + 1}.1", f"{end}.bn1", "", "conv_1_bn")
    yield Layer("classifier.0", "conv_head", "", "conv_2", pooled=True)
    yield Layer("classifier.3", "classifier", "", "logits")


_FAMILIES: dict[str, Callable[[], Iterator[Layer]]] = {
    "v1": _first,
    "v2": _second,
    "v3_large": lambda: _third("large"),
    "v3_small": lambda: _third("small"),
}
_COLUMNS: dict[str, Callable[[Layer], str]] = {
    "timm": lambda layer: layer.timm,
    "Hugging Face": lambda layer: layer.hugging_face,
    "keras.applications": lambda layer: layer.keras,
}


@cache
def layers_of(family: str, vocabulary: str) -> Mapping[str, Layer]:
    """From the names of layers in a vocabulary to the layers of a family ("v1", "v2", "v3_large", "v3_small")."""
    column = _COLUMNS[vocabulary]
    names = {column(layer): layer for layer in _FAMILIES[family]() if column(layer)}
    older = {"Logits": names["predictions"]} if (family, vocabulary) == ("v2", "keras.applications") else {}
    return older | names


def family_of(architecture: str) -> str:
    """The family of an architecture's name; "" for other networks."""
    if architecture.startswith("mobilenetv1"):
        return "v1"
    if architecture.startswith("mobilenet_v2"):
        return "v2"
    third = architecture.replace("mobilenetv3", "mobilenet_v3").removeprefix("mobilenet_").removesuffix("_keras")
    return third.removesuffix("_100") if third.startswith(("v3_large", "v3_small")) else ""


def _ours(names: Mapping[str, Layer]) -> set[str]:
    return {layer.ours for layer in names.values()}


def vocabulary_of_mobilenet(layers: Iterable[str], vocabularies: Iterable[str]) -> tuple[str, str] | None:
    """(family, vocabulary) whose layers these are all of, but for a last layer that may lack; None if of none."""
    known = set(layers)
    for vocabulary in vocabularies:
        for family in _FAMILIES:
            names = layers_of(family, vocabulary)
            if known and known <= set(names) and len(known) >= len(_ours(names)) - 1:
                return family, vocabulary
    return None


def renamed_mobilenet(tensors: Mapping[str, LazyTensor]) -> tuple[str, dict[str, LazyTensor]] | None:
    """The vocabulary of a state dict of timm or transformers, and its arrays under the zoo's names; None if of neither.

    blocks.1.0.conv_dw.weight -> features.2.conv.1.0.weight. Linear layers that are 1×1 convolutions there, (O, I, 1, 1)
    -> (O, I).
    """
    split = {name: name.rpartition(".") for name in tensors}
    found = vocabulary_of_mobilenet((layer for layer, _, _ in split.values()), ("timm", "Hugging Face"))
    if found is None:
        return None
    names = layers_of(*found)
    result = {}
    for name, tensor in tensors.items():
        layer, _, role = split[name]
        known = names[layer]
        pooled = known.pooled and role == "weight" and tensor.ndim == 4
        result[f"{known.ours}.{role}"] = reshaped(tensor, tensor.shape[:2]) if pooled else tensor
    return found[1], result


def named_as(architecture: str, vocabulary: str, state: Mapping[str, LazyTensor]) -> dict[str, LazyTensor] | None:
    """The zoo's arrays under the names of timm or transformers, the inverse; None where they have no such network."""
    family = family_of(architecture)
    if not family or vocabulary not in ("timm", "Hugging Face"):
        return None
    theirs = {layer.ours: (name, layer) for name, layer in layers_of(family, vocabulary).items()}
    result = {}
    for name, tensor in state.items():
        module, _, role = name.rpartition(".")
        if module not in theirs:
            return None
        new, layer = theirs[module]
        pooled = layer.pooled and role == "weight"
        result[f"{new}.{role}"] = reshaped(tensor, (*tensor.shape, 1, 1)) if pooled else tensor
    return result
