"""Which network the weights in a file are of, where its names have prefixes, another last layer, or none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zoonet.formats import Checkpoint
from zoonet.ops.errors import FormatError
from zoonet.weights.families import family_of
from zoonet.weights.names import in_our_names
from zoonet.weights.vocabularies import vocabulary_of
from zoonet.zoo import architectures
from zoonet.zoo.modules import compare_shapes

__all__ = ["Body", "body_of", "describe", "only", "unwrapped", "without_head"]

#: What wrappers put before the names of a network: Lightning, mmcv, timm, training scripts, other networks.
_WRAPPERS = re.compile(
    r"_orig_mod|backbone|base_encoder|base_model|body|classifier|cnn|ema|encoder|encoder_q|feature_extract(ion|or)|"
    r"features|image_encoder|img_backbone|mobilenet|model|module|net|network|online|resnet|state_dict|student|teacher|"
    r"trunk|visual|vit"
)
_DEEPEST = 4
#: Where fastai's `create_body` leaves the parts of a ResNet.
_FASTAI = {"0.0": "conv1", "0.1": "bn1", "0.4": "layer1", "0.5": "layer2", "0.6": "layer3", "0.7": "layer4"}


@dataclass(frozen=True)
class Body:
    """A network whose last layer is not in the file. rest: names of arrays that are of no network, and so unused."""

    architecture: str
    head: str
    prefix: str
    rest: tuple[str, ...]

    def __str__(self) -> str:
        others = f"; {len(self.rest)} other tensors ({', '.join(self.rest[:3])}…)" if self.rest else ""
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"{self.architecture}{under} without its last layer ({self.head}, so no classes){others}"


def only(state: Mapping[str, Any]) -> str | None:
    """The one architecture that a state dict is of, in its own depths and widths or others; None where not one."""
    found = architectures.recognise(state)
    if found:
        return found[0] if len(found) == 1 else None
    return architectures.recognise_resized(state)


def unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the prefix of a wrapper, and with the last layer under its own name, where that makes it a
    network of the zoo; else as it is. `Checkpoint.original_names` keeps the names of the file.
    """
    if not 0 < len(checkpoint) <= architectures.MOST_ARRAYS or _known(checkpoint):
        return checkpoint
    for prefix, names in _variants(checkpoint):
        variant = _mapped(checkpoint, names)
        if variant is None:
            continue
        if prefix and _known(variant) and len(names) == len(checkpoint):
            return variant
        found = _with_head(variant, checkpoint, names)
        if found is not None:
            return found
    return checkpoint


def _known(state: Mapping[str, Any]) -> bool:
    return bool(architectures.recognise(state)) or architectures.recognise_resized(state) is not None


def _variants(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Prefixes that may be dropped, "" first, and new names by old ones; names without the prefix are left out."""
    names, prefix = {name: name for name in state}, ""
    yield prefix, names
    if sum(name.startswith(tuple(f"{start}." for start in _FASTAI)) for name in names) > len(names) // 2:
        moved = {old: re.sub(r"^0\.[014567](?=\.)", lambda found: _FASTAI[found[0]], old) for old in names}
        yield "0.", {old: new for old, new in moved.items() if new != old}
    for _ in range(_DEEPEST):
        firsts: dict[str, int] = {}
        for new in names.values():
            first, dot, _ = new.partition(".")
            firsts[first] = firsts.get(first, 0) + bool(dot)
        common = max(firsts, key=lambda first: firsts[first], default="")
        if not _WRAPPERS.fullmatch(common) or firsts[common] * 2 < len(names):
            return
        prefix += f"{common}."
        start = f"{common}."
        names = {old: new[len(start) :] for old, new in names.items() if new.startswith(start) and new != start}
        yield prefix, names


def _mapped(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint | None:
    """The arrays under new names, and those under the zoo's names where a map knows them; None where it refuses."""
    if len(set(names.values())) != len(names):
        return None
    renamed = Checkpoint({new: checkpoint[old] for old, new in names.items()}, checkpoint.metadata, checkpoint.format)
    try:
        mapped = in_our_names(renamed)
    except FormatError:
        return None
    if mapped is renamed:
        originals = {new: checkpoint.original_names.get(old, old) for old, new in names.items()}
        mapped.original_names.update({new: old for new, old in originals.items() if new != old})
    return mapped


def _with_head(variant: Checkpoint, whole: Checkpoint, names: Mapping[str, str]) -> Checkpoint | None:
    """A network whose last layer is the one linear layer of another name: "fc.1.weight", or "head.weight"."""
    body = _body(variant)
    if body is None:
        return None
    architecture, head, unused = body
    outside = [name for name in whole if name not in names]
    rest = {**{name: whole[name] for name in outside}, **{name: variant[name] for name in unused}}
    weights = [name for name in rest if name.endswith("weight") and len(rest[name].shape) == 2]
    if len(weights) != 1 or set(rest) != {weights[0], weights[0].removesuffix("weight") + "bias"}:
        return None
    given = {f"{head}.weight": weights[0], f"{head}.bias": weights[0].removesuffix("weight") + "bias"}
    tensors = {name: tensor for name, tensor in variant.items() if name not in unused}
    tensors |= {new: rest[old] for new, old in given.items()}
    result = Checkpoint(tensors, variant.metadata, variant.format, {**variant.original_names, **given})
    return result if architecture in architectures.recognise(result) else None


def _body(state: Mapping[str, Any], architecture: str | None = None) -> tuple[str, str, list[str]] | None:
    """The architecture of which all but the last layer is there, the name of that layer, and the arrays left over.

    architecture: the one to look at. Of several that which leaves least over, and nothing of its own kind: no more
    blocks than it has.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for name, (network, config) in architectures.possible(state):
        if architecture not in (None, name):
            continue
        fit = network.fit(config, state)
        head = architectures.head_of(network, fit)
        own = architectures.shapes_of(network, fit)
        misfits = compare_shapes(own, state)
        missing = {n for n in misfits.missing if not n.endswith("num_batches_tracked")}
        parts = {n.partition(".")[0] for n in own} - {head.partition(".")[0]}
        more = any(n.partition(".")[0] in parts for n in misfits.unexpected)
        if head and missing == {f"{head}.weight", f"{head}.bias"} and not misfits.wrong and not more:
            found[name] = head, misfits.unexpected
    kept = architectures.of_vocabulary(list(found), state)
    best = min(kept, key=lambda name: len(found[name][1]), default=None)
    return None if best is None else (best, *found[best])


def body_of(checkpoint: Checkpoint) -> Body | None:
    """The network of which a checkpoint has all but the last layer; None where it is none."""
    for prefix, names in _variants(checkpoint):
        variant = _mapped(checkpoint, names)
        found = _body(variant) if variant is not None else None
        if found is not None:
            outside = [name for name in checkpoint if name not in names]
            return Body(found[0], found[1], prefix, (*outside, *found[2]))
    return None


def without_head(checkpoint: Checkpoint, architecture: str | None = None) -> tuple[str, Checkpoint] | None:
    """The network of which a checkpoint is everything but the last layer, and its arrays under the network's names.

    architecture: the one to take, of which it must be. None where it is of no network, or has other arrays besides.
    """
    if len(checkpoint) > architectures.MOST_ARRAYS:
        return None
    for _, names in _variants(checkpoint):
        variant = _mapped(checkpoint, names)
        found = _body(variant, architecture) if variant is not None else None
        if variant is not None and found is not None:
            return (found[0], variant) if len(names) == len(checkpoint) and not found[2] else None
    return None


def describe(checkpoint: Checkpoint, names: list[str]) -> str:
    """What a bare state dict looks like, in words: "resnet50, torchvision names, 37 classes".

    names: those in the file, which tell the vocabulary.
    """
    if len(checkpoint) > architectures.MOST_ARRAYS:
        return "no architecture of the zoo"
    found = architectures.recognise(checkpoint)
    one = only(checkpoint)
    if one is not None:
        network: Any = architectures.fitted(one, checkpoint)
        classes = getattr(network.config, "classes", None)
        changes = architectures.changes(one, network)
        sizes = [f"{key} {value}" for key, value in changes.items() if key in ("width", "widths", "blocks")]
        dropped = _dropped(checkpoint)
        vocabulary = checkpoint.metadata.get("vocabulary") or vocabulary_of(
            one, [n.removeprefix(dropped) for n in names]
        )
        parts = [
            one,
            *sizes,
            f"{vocabulary} names" if vocabulary else "",
            f"{classes} classes" if classes else "",
            f"after {dropped!r}" if dropped else "",
        ]
        return ", ".join(part for part in parts if part)
    if found:
        return " or ".join(found) + " (ambiguous: --arch decides)"
    body = body_of(checkpoint)
    if body is not None:
        return str(body)
    kin = family_of(checkpoint)
    if kin is not None:
        return str(kin)
    near = architectures.closest(checkpoint)
    return "no architecture of the zoo" + (f"; nearest {near}" if near else "")


def _dropped(checkpoint: Checkpoint) -> str:
    """What stands before most names of the file, "" where nothing does."""
    for new, old in checkpoint.original_names.items():
        if old.endswith(f".{new}"):
            return old.removesuffix(new)
    return ""
