"""The architectures: every network of the zoo by name, and what pictures and classes its weights usually expect."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from typing import Any

from zoonet.ops.errors import ArgumentError, FormatError, UnknownModelError
from zoonet.ops.types import TensorType
from zoonet.zoo.digits import DigitPreprocessing
from zoonet.zoo.modules import Module, compare_shapes, initialised_by
from zoonet.zoo.preprocessing import ImagePreprocessing


@dataclass(frozen=True)
class Family:
    """One file of networks: module of zoonet.zoo, class of the network, and its table from names to configurations.

    The class takes a configuration (a dataclass) and has a classmethod `fit(config, shapes)`: the configuration with
    the number of classes and channels that a state dict has; where its names and shapes tell more, one `resized(config,
    shapes)` too, with depths and widths. task: what the networks are usually for. marks: names of which every state
    dict of these networks has one.
    """

    module: str
    network: str
    table: str
    task: str = "image-classification"
    marks: tuple[str, ...] = ()


FAMILIES = (
    Family("resnet", "ResNet", "RESNETS", marks=("layer1.0.conv1.weight",)),
    Family("mobilenet", "MobileNetV1", "MOBILENETS", marks=("stage1.1.3.weight",)),
    Family("mobilenet", "InvertedMobileNet", "INVERTED_MOBILENETS", marks=("features.0.0.weight",)),
    Family("digits", "DigitNet", "DIGIT_NETS", marks=("bn3.weight",)),
    Family("detectors.yolox", "YOLOX", "YOLOXS", "object-detection", marks=("backbone.C3_n3.conv1.conv.weight",)),
    Family("detectors.darknet", "Darknet", "DARKNETS", "object-detection", marks=("0.weights", "0.biases")),
    Family("detectors.ultralight", "UltraLight", "ULTRALIGHTS", "object-detection", marks=("base_net.0.0.weight",)),
    Family("detectors.blazeface", "BlazeFace", "BLAZEFACES", "object-detection", marks=("backbone1.0.weight",)),
    Family(
        "detectors.retinanet",
        "RetinaNet",
        "RETINANETS",
        "object-detection",
        marks=("head.classification_head.cls_logits.weight",),
    ),
    Family(
        "detectors.fcos", "FCOS", "FCOSES", "object-detection", marks=("head.classification_head.cls_logits.weight",)
    ),
    Family("detectors.ssdlite", "SSDLite", "SSDLITES", "object-detection", marks=("backbone.extra.0.0.0.weight",)),
    Family(
        "detectors.rtdetr",
        "RTDetr",
        "RTDETRS",
        "object-detection",
        marks=("model.backbone.model.embedder.embedder.0.convolution.weight",),
    ),
    Family("transformers.vit", "ViT", "VITS", marks=("blocks.0.attn.qkv.weight",)),
    Family("transformers.bert", "BertModel", "BERTS", "text-embedding", marks=("embeddings.word_embeddings.weight",)),
    Family(
        "transformers.gpt2",
        "GPT2LMHeadModel",
        "GPT2S",
        "text-generation",
        marks=("transformer.h.0.attn.c_attn.weight",),
    ),
    Family("transformers.llama", "LlamaForCausalLM", "LLAMAS", "text-generation", marks=("model.embed_tokens.weight",)),
    Family("transformers.t5", "T5", "T5S", "text-to-text", marks=("shared.weight",)),
    Family(
        "transformers.transformer",
        "Transformer",
        "TRANSFORMERS",
        "text-to-text",
        marks=("src_tok_emb.embedding.weight",),
    ),
)


@dataclass(frozen=True)
class Defaults:
    """What weights that say nothing themselves expect: preprocessing, and the list of labels by number of classes."""

    preprocessing: Any
    labels: Mapping[int, str]


_IMAGENET = Defaults(ImagePreprocessing(), {1000: "imagenet-1k"})
_KERAS = Defaults(
    ImagePreprocessing(
        resize=(224, 224),
        crop=None,
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
        channels="BGR",
        scale=1.0,
    ),
    {1000: "imagenet-1k"},
)
_TENSORFLOW = Defaults(
    ImagePreprocessing(resize=(224, 224), crop=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), {1000: "imagenet-1k"}
)
_CIFAR = Defaults(ImagePreprocessing(resize=32, crop=(32, 32)), {10: "cifar-10"})
_BICUBIC = ImagePreprocessing.from_crop_pct(224, 0.9, interpolation="bicubic")
_BICUBIC_384 = ImagePreprocessing.from_crop_pct(384, 1.0, interpolation="bicubic")
_HALF: Any = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_DIGITS = Defaults(DigitPreprocessing(), {10: "digits"})
_COCO = Defaults(None, {80: "coco-80", 91: "coco-91"})
_FACE = Defaults(None, {1: "face"})
_WIDEST = 1 << 24  # the largest number of channels, classes or words that a file may ask for
#: More arrays than a network has; those of the largest language models are a few thousand.
MOST_ARRAYS = 20_000
#: The first pattern that fits an architecture's name decides.
DEFAULTS: tuple[tuple[str, Defaults], ...] = (
    ("resnet*_keras", _KERAS),
    ("mobilenet*_keras", _TENSORFLOW),
    ("mobilenetv1_tf", _TENSORFLOW),
    ("digitnet", _DIGITS),
    ("yolo*", _COCO),
    ("darknet", _COCO),
    ("retinanet_*", _COCO),
    ("rtdetr_*", _COCO),
    ("fcos_*", _COCO),
    ("ssdlite*", _COCO),
    ("ultralight_*", _FACE),
    ("blazeface", _FACE),
    ("vit_*_384", Defaults(replace(_BICUBIC_384, **_HALF), {1000: "imagenet-1k"})),
    ("vit_*", Defaults(replace(_BICUBIC, **_HALF), {1000: "imagenet-1k"})),
    ("deit_*_384", Defaults(_BICUBIC_384, {1000: "imagenet-1k"})),
    ("deit_*", Defaults(_BICUBIC, {1000: "imagenet-1k"})),
    *((f"resnet{depth}", _CIFAR) for depth in (20, 32, 44, 56, 110)),
    ("*", _IMAGENET),
)


def defaults(name: str) -> Defaults:
    """What the weights of an architecture expect if they say nothing."""
    return next(entry for pattern, entry in DEFAULTS if fnmatch.fnmatchcase(name, pattern))


@cache
def _of_family(family: Family) -> dict[str, tuple[Any, Any]]:
    """Network class and configuration by name, of one family."""
    module = importlib.import_module(f"zoonet.zoo.{family.module}")
    return {name: (getattr(module, family.network), config) for name, config in getattr(module, family.table).items()}


@cache
def _table() -> dict[str, tuple[Any, Any]]:
    """Network class and configuration by name."""
    return {name: found for family in FAMILIES for name, found in _of_family(family).items()}


def task_of(name: str) -> str:
    """What the networks of an architecture are usually for."""
    network, _ = find(name)
    return next(
        f.task for f in FAMILIES if (f"zoonet.zoo.{f.module}", f.network) == (network.__module__, network.__name__)
    )


def changes(name: str, network: Module) -> dict[str, Any]:
    """The fields in which a network's configuration differs from that of its architecture, as plain data."""
    usual, own = find(name)[1], network.config  # type: ignore[attr-defined]
    return {f.name: getattr(own, f.name) for f in fields(own) if getattr(own, f.name) != getattr(usual, f.name)}


def names(pattern: str = "*") -> list[str]:
    """The names of all architectures that a shell pattern fits, sorted with numbers in their order."""
    return sorted(fnmatch.filter(_table(), pattern), key=natural_order)


def natural_order(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts resnet50 before resnet101."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def shortened(name: str, limit: int = 80) -> str:
    """A name as messages show it."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A fix that names the known names nearest to a mistyped one."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def find(name: str) -> tuple[Any, Any]:
    """Network class and configuration of an architecture. Raises UnknownModelError that suggests the nearest."""
    if not isinstance(name, str):
        raise ArgumentError("an architecture is named by a string", expected="such as 'resnet50'", received=repr(name))
    if name not in _table():
        raise UnknownModelError(
            f"there is no architecture named {shortened(name)!r}",
            fix=nearest(name, _table()) or "`zoonet list` prints all names",
        )
    return _table()[name]


def build(name: str, *, seed: int | None = None, **changes: Any) -> Module:
    """The network of an architecture; its parameters drawn from a seed, or zero (to be loaded) without one.

    changes: fields of its configuration, such as classes=10. Raises UnknownModelError or ArgumentError.
    """
    network, config = find(name)
    known = {field.name for field in fields(config)}
    for key, value in changes.items():
        if key not in known:
            raise ArgumentError(f"{name} has no option {key!r}", expected=", ".join(sorted(known)))
        number = isinstance(getattr(config, key), int) and not isinstance(getattr(config, key), bool)
        if number and (not isinstance(value, int) or value < 1):
            raise ArgumentError(f"{name} cannot have this {key}", expected="a positive integer", received=repr(value))
    return make(network, replace(config, **changes), seed)


def make(network: Any, config: Any, seed: int | None) -> Module:
    """The network of a class and a configuration; seed as in `build`."""
    with initialised_by(seed):
        result: Module = network(config)
        return result


@lru_cache(maxsize=512)
def shapes_of(network: Any, config: Any) -> dict[str, Any]:
    """Types of the arrays of a network by name; it is made without parameters."""
    return {
        name: TensorType(array.shape, array.dtype) for name, array in make(network, config, None).state_dict().items()
    }


@cache
def parameters(name: str) -> int:
    """The number of parameters of an architecture with its usual classes; no memory is taken to tell."""
    network, config = find(name)
    return sum(int(array.size) for _, array in make(network, config, None).named_parameters())


def fitted(name: str, state: Mapping[str, Any], changes: Any = None) -> Module:
    """The network of an architecture, not loaded yet, with the number of classes and channels that a state dict has.

    changes: further fields of its configuration, from a file. Without any, other depths and widths too where a state
    dict that is of no architecture has them. Raises FormatError where they are not such fields.
    """
    network, config = find(name)
    fit = network.fit(changed(name, changes or {}, len(state)), state)
    if not changes and hasattr(network, "resized") and not fits(network, fit, state):
        sized = network.resized(config, state)
        if fits(network, sized, state) and not recognise(state):
            fit = sized
    return make(network, fit, None)


def changed(name: str, changes: Any, arrays: int) -> Any:
    """The configuration of an architecture with changes that a file asks for.

    arrays: how many the file has; a network has no more layers or blocks. Raises FormatError where the changes do not
    have the types of its fields, or sizes in reason.
    """
    config = find(name)[1]
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    if not isinstance(changes, Mapping) or not set(changes) <= set(known):
        raise FormatError(
            f"the configuration of {name} is malformed", expected=", ".join(known), received=repr(changes)[:200]
        )
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    for key, value in given.items():
        depth = sum(value) if isinstance(value, tuple) else value
        if not _resembles(value, known[key]) or (key in ("layers", "decoder_layers", "blocks") and depth > arrays):
            raise FormatError(
                f"the configuration of {name} cannot have this {key}",
                expected=f"such as {known[key]!r}",
                received=repr(value)[:100],
            )
    return replace(config, **given)


def _resembles(value: Any, usual: Any) -> bool:
    """Whether a value has the type of another, and a number the range of what networks have."""
    if isinstance(usual, tuple):
        return (
            isinstance(value, tuple) and len(value) <= 16 and all(type(n) is int and 0 <= n <= _WIDEST for n in value)
        )
    if isinstance(usual, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6
    return type(value) is type(usual) and (type(value) is not int or 0 <= value <= _WIDEST)


def recognise(state: Mapping[str, Any]) -> list[str]:
    """The architectures that the names and shapes of a state dict fit exactly, most often one or none.

    Where networks of the same shapes differ otherwise (MobileNets of torchvision, timm and TensorFlow), those whose
    names the file had (metadata "vocabulary" of a Checkpoint).
    """
    result = [name for name, (network, config) in possible(state) if fits(network, network.fit(config, state), state)]
    return of_vocabulary(result, state)


def recognise_resized(state: Mapping[str, Any]) -> str | None:
    """The architecture that a state dict fits with other depths or widths than its own; None where there is none.

    The one that differs least of those that become the same network, the first of its table; None too where two
    architectures are one network for weights of different uses (vit_tiny_patch16_224 and deit_tiny_patch16_224).
    """
    found: dict[Any, list[str]] = {}
    for name, (network, config) in possible(state):
        if hasattr(network, "resized") and fits(network, sized := network.resized(config, state), state):
            known = found.setdefault(sized, [name])
            nearest_first = _changed_fields(config, sized) - _changed_fields(find(known[0])[1], sized)
            if nearest_first < 0:
                found[sized] = [name]
            elif config == find(known[0])[1] and name not in known:
                known.append(name)
    named = of_vocabulary([name for kin in found.values() for name in kin], state)
    return named[0] if len(named) == 1 else None


def possible(state: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    """Networks and configurations by name, of the families of whose marks a state dict has one.

    None for more arrays than any network has: comparing them would take long.
    """
    if len(state) > MOST_ARRAYS:
        return []
    return [
        (name, found)
        for family in FAMILIES
        if not family.marks or any(mark in state for mark in family.marks)
        for name, found in _of_family(family).items()
    ]


def fits(network: Any, config: Any, state: Mapping[str, Any]) -> bool:
    """Whether a state dict has exactly the arrays of a network; counters of batches may lack."""
    misfits = compare_shapes(shapes_of(network, config), state)
    missing = [name for name in misfits.missing if not name.endswith("num_batches_tracked")]
    return not (missing or misfits.unexpected or misfits.wrong)


def head_of(network: Any, config: Any) -> str:
    """The name of the last layer of a classifier, one linear layer; "" where the network has no such."""
    known = {"ResNet": "linear" if getattr(config, "cifar", False) else "fc", "MobileNetV1": "fc", "ViT": "head"}
    inverted = "classifier.1" if getattr(config, "version", 3) == 2 else "classifier.3"
    return {**known, "InvertedMobileNet": inverted}.get(network.__name__, "")


def _changed_fields(usual: Any, own: Any) -> int:
    return sum(getattr(own, f.name) != getattr(usual, f.name) for f in fields(own))


def of_vocabulary(names: list[str], state: Mapping[str, Any]) -> list[str]:
    """Of architectures whose arrays have the same shapes those that belong to the vocabulary of the file's names."""
    from zoonet.weights.mobilenet_names import family_of
    from zoonet.zoo.mobilenet import OF_VOCABULARY

    said = getattr(state, "metadata", {}).get("vocabulary")
    if not isinstance(said, str):
        return [name for name in names if name not in OF_VOCABULARY] or names
    own = {name for name, vocabularies in OF_VOCABULARY.items() if said in vocabularies.split(", ")}
    families = {family_of(name) for name in own}
    kept = [name for name in names if name in own or family_of(name) not in families]
    return [name for name in kept if name in own or name not in OF_VOCABULARY] or kept


def closest(state: Mapping[str, Any]) -> str | None:
    """The architecture that shares most names and shapes with a state dict; None where none shares a third."""
    best, best_share = None, 1 / 3
    for name, (network, config) in possible(state):
        fit = network.fit(config, state)
        misfits = compare_shapes(own := shapes_of(network, fit), state)
        share = (len(own) - len(misfits.missing) - len(misfits.wrong)) / (len(own) + len(misfits.unexpected))
        if share > best_share:
            best, best_share = name, share
    return best
