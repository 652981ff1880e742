"""RetinaNet (Lin et al., 2017) on ResNet-50 with a feature pyramid.

Source: arXiv:1708.02002; torchvision, whose parameter names these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.candidates import Candidates
from zoonet.zoo.detection.decoding import sigmoid
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.detectors import pyramid
from zoonet.zoo.layers import Conv2d, Sequential
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.resnet import ResNetConfig

_RATIOS = (0.5, 1.0, 2.0)
_SIDES = tuple((n, int(n * 2 ** (1 / 3)), int(n * 2 ** (2 / 3))) for n in (32, 64, 128, 256, 512))


@dataclass(frozen=True)
class RetinaNetConfig:
    """blocks: of the ResNet. group_norm: in the heads, and coarser levels from the body ("v2"). eps: of batch norms."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    group_norm: bool = False
    eps: float = 1e-5
    classes: int = 91
    channels: int = 3


class Branch(Module):
    """Four 3×3 convolutions with ReLU, and a last one named by `last`: five maps -> (N, A, numbers)."""

    def __init__(self, config: RetinaNetConfig, last: str, numbers: int) -> None:
        layers: list[Any] = []
        for _ in range(4):
            conv = Conv2d(256, 256, 3, bias=not config.group_norm)
            layers.append(Sequential(conv, *([pyramid.GroupNorm(256)] if config.group_norm else []), ops.relu))
        self.conv = Sequential(*layers)
        setattr(self, last, Conv2d(256, 9 * numbers, 3, bias=True))
        self.last, self.numbers = last, numbers

    def forward(self, *maps: Array) -> Array:
        """Maps (N, 256, …) -> (N, A, numbers)."""
        found = [pyramid.rows(vars(self)[self.last](self.conv(x)), self.numbers) for x in maps]
        return ops.concat(found, 1)


class Head(Module):
    """Scores and boxes of nine anchors in each cell."""

    def __init__(self, config: RetinaNetConfig) -> None:
        self.classification_head = Branch(config, "cls_logits", config.classes)
        self.regression_head = Branch(config, "bbox_reg", 4)

    def forward(self, *maps: Array) -> tuple[Array, Array]:
        """Maps (N, 256, …) -> (N, A, classes), (N, A, 4)."""
        return self.classification_head(*maps), self.regression_head(*maps)


class RetinaNet(Module):
    """Pictures (N, 3, H, W), sides multiples of 32 -> logits (N, A, classes), offsets to anchors (N, A, 4)."""

    thresholds = (0.25, 0.5)
    size_multiple = 32

    def __init__(self, config: RetinaNetConfig) -> None:
        self.config = config
        body = ResNetConfig(config.blocks, channels=config.channels, eps=config.eps)
        self.backbone = pyramid.Backbone(body, 256, from_body=config.group_norm)
        self.head = Head(config)
        self._draw()

    @classmethod
    def fit(cls, config: RetinaNetConfig, shapes: Mapping[str, Any]) -> RetinaNetConfig:
        """The configuration with as many classes as the arrays of a state dict have.

        torchvision sets eps to 0 for its published weights of the first version, whose batch norms were frozen: they
        count no batches.
        """
        count = sizes(shapes, count=("head.classification_head.cls_logits.bias", 0)).get("count", 0)
        frozen = "backbone.body.bn1.weight" in shapes and not any("num_batches_tracked" in name for name in shapes)
        if frozen and not config.group_norm:
            config = replace(config, eps=0.0)
        return replace(config, classes=count // 9) if count and count % 9 == 0 else config

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the heads."""
        heads = [m for name, m in self.head.named_modules() if isinstance(m, Conv2d)]
        pyramid.drawn_head(self, rng, heads, [vars(self.head.classification_head)["cls_logits"]])

    @property
    def decoder(self) -> RetinaNetDecoder:
        """What the outputs mean."""
        return RetinaNetDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """What the weights usually see."""
        return pyramid.PREPROCESSING

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, H, W) -> (N, A, classes), (N, A, 4)."""
        scores, boxes = self.head(*self.backbone(x))
        return scores, boxes


@dataclass(frozen=True)
class RetinaNetDecoder:
    """Sigmoids of scores; anchors moved by offsets; of each map the best `per_level` pairs of anchor and class."""

    classes: int
    per_level: int = 1000

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        anchors = pyramid.anchors_of(size, _SIDES, _RATIOS)
        counts = level_counts(size, 9)
        result = []
        for logits, offsets in zip(*(np.asarray(o, np.float32) for o in outputs), strict=True):
            keep, labels, scores = best_of_levels(sigmoid(logits), counts, self.per_level)
            boxes = pyramid.within(pyramid.moved(anchors[keep], offsets[keep]), size)
            result.append(Candidates(boxes, scores, labels))
        return result


def level_counts(size: tuple[int, int], anchors: int) -> list[int]:
    """How many anchors each map has."""
    down, across = (size[0] + 7) // 8, (size[1] + 7) // 8
    result = []
    for _ in pyramid.STRIDES:
        result.append(down * across * anchors)
        down, across = (down + 1) // 2, (across + 1) // 2
    return result


def best_of_levels(scores: Any, counts: list[int], most: int) -> tuple[Any, Any, Any]:
    """Rows, classes and scores of the `most` best pairs of each map."""
    rows, labels, values, start = [], [], [], 0
    for count in counts:
        part = scores[start : start + count].reshape(-1)
        if len(part) > most:
            best = np.argpartition(-part, most - 1)[:most]
            best = best[np.argsort(-part[best], kind="stable")]
        else:
            best = np.argsort(-part, kind="stable")
        row, label = np.divmod(best, scores.shape[1])
        rows.append(row + start)
        labels.append(label)
        values.append(part[best])
        start += count
    return np.concatenate(rows), np.concatenate(labels), np.concatenate(values)


#: Every variant by name.
RETINANETS: dict[str, RetinaNetConfig] = {
    "retinanet_resnet50_fpn": RetinaNetConfig(),
    "retinanet_resnet50_fpn_v2": RetinaNetConfig(group_norm=True),
}
