"""timm's names of MobileNetV2 in those of torchvision; the networks and the layouts of the arrays are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from zoonet.formats import LazyTensor

__all__ = ["is_timm_mobilenet_v2", "renamed_mobilenet"]

#: Blocks of each stage of arXiv:1801.04381, and the number of the first one in torchvision's `features`.
_STAGES = ((1, 1), (2, 2), (3, 4), (4, 7), (3, 11), (3, 14), (1, 17))
_OUTER = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1",
          "classifier": "classifier.1"}  # fmt: skip
#: The first block does not widen, so it has two convolutions and the others three.
_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_OTHERS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def is_timm_mobilenet_v2(names: Iterable[str]) -> bool:
    """Whether these are the parameters of timm's MobileNetV2 of the published depth, each with a name of ours."""
    known = set(names)
    return {"conv_stem.weight", "blocks.6.0.conv_pwl.weight"} <= known and all(map(_ours, known))


def renamed_mobilenet(tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """blocks.1.0.conv_dw.weight -> features.2.conv.1.0.weight, for names that `is_timm_mobilenet_v2` accepts."""
    return {_ours(name): tensor for name, tensor in tensors.items()}


def _ours(name: str) -> str:
    """torchvision's name, "" where there is none."""
    module, _, role = name.rpartition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{role}"
    found = re.fullmatch(r"blocks\.([0-6])\.([0-3])\.(\w+)", module)
    if not found:
        return ""
    (count, start), block = _STAGES[int(found[1])], int(found[2])
    part = (_FIRST if found[1] == "0" else _OTHERS).get(found[3])
    return f"features.{start + block}.conv.{part}.{role}" if part and block < count else ""
