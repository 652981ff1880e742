"""FCOS (Tian et al., 2019) on ResNet-50 with a feature pyramid: boxes from each cell, without anchors.

Source: arXiv:1904.01355; torchvision, whose parameter names these are.
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
from zoonet.zoo.detectors.retinanet import best_of_levels, level_counts
from zoonet.zoo.layers import Conv2d, Sequential
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.resnet import ResNetConfig

_SIDES = ((8,), (16,), (32,), (64,), (128,))


@dataclass(frozen=True)
class FCOSConfig:
    """blocks: of the ResNet."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    classes: int = 91
    channels: int = 3


def _tower() -> Sequential:
    """Four 3×3 convolutions, each with group norm and ReLU."""
    layers: list[Any] = []
    for _ in range(4):
        layers += [Conv2d(256, 256, 3, bias=True), pyramid.GroupNorm(256), ops.relu]
    return Sequential(*layers)


class ClassificationHead(Module):
    """Maps (N, 256, …) -> logits (N, cells, classes)."""

    def __init__(self, classes: int) -> None:
        self.conv, self.cls_logits = _tower(), Conv2d(256, classes, 3, bias=True)
        self.classes = classes

    def forward(self, *maps: Array) -> Array:
        """Maps (N, 256, …) -> (N, cells, classes)."""
        return ops.concat([pyramid.rows(self.cls_logits(self.conv(x)), self.classes) for x in maps], 1)


class RegressionHead(Module):
    """Maps (N, 256, …) -> distances to the four sides (N, cells, 4), and logits of being central (N, cells, 1)."""

    def __init__(self) -> None:
        self.conv = _tower()
        self.bbox_reg, self.bbox_ctrness = Conv2d(256, 4, 3, bias=True), Conv2d(256, 1, 3, bias=True)

    def forward(self, *maps: Array) -> tuple[Array, Array]:
        """Maps (N, 256, …) -> (N, cells, 4), (N, cells, 1)."""
        features = [self.conv(x) for x in maps]
        boxes = [pyramid.rows(ops.relu(self.bbox_reg(y)), 4) for y in features]
        return ops.concat(boxes, 1), ops.concat([pyramid.rows(self.bbox_ctrness(y), 1) for y in features], 1)


class Head(Module):
    """Both heads."""

    def __init__(self, classes: int) -> None:
        self.classification_head, self.regression_head = ClassificationHead(classes), RegressionHead()

    def forward(self, *maps: Array) -> tuple[Array, Array, Array]:
        """Maps (N, 256, …) -> (N, cells, classes), (N, cells, 4), (N, cells, 1)."""
        return (self.classification_head(*maps), *self.regression_head(*maps))


class FCOS(Module):
    """Pictures (N, 3, H, W), sides multiples of 32 -> logits (N, cells, classes), sides (…, 4), centrality (…, 1)."""

    thresholds = (0.25, 0.6)
    size_multiple = 32

    def __init__(self, config: FCOSConfig) -> None:
        self.config = config
        self.backbone = pyramid.Backbone(ResNetConfig(config.blocks, channels=config.channels), 256)
        self.head = Head(config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: FCOSConfig, shapes: Mapping[str, Any]) -> FCOSConfig:
        """The configuration with as many classes as the arrays of a state dict have."""
        found: dict[str, Any] = sizes(shapes, classes=("head.classification_head.cls_logits.bias", 0))
        return replace(config, **found)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the heads."""
        heads = [m for name, m in self.head.named_modules() if isinstance(m, Conv2d)]
        pyramid.drawn_head(self, rng, heads, [self.head.classification_head.cls_logits])

    @property
    def decoder(self) -> FCOSDecoder:
        """What the outputs mean."""
        return FCOSDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """What the weights usually see."""
        return pyramid.PREPROCESSING

    def forward(self, x: Array) -> tuple[Array, Array, Array]:
        """(N, 3, H, W) -> (N, cells, classes), (N, cells, 4), (N, cells, 1)."""
        scores, boxes, central = self.head(*self.backbone(x))
        return scores, boxes, central


@dataclass(frozen=True)
class FCOSDecoder:
    """Scores are roots of class times centrality; boxes reach from the cell by multiples of its size."""

    classes: int
    per_level: int = 1000

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        anchors = pyramid.anchors_of(size, _SIDES, (1.0,))
        centers, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        counts = level_counts(size, 1)
        result = []
        for logits, offsets, central in zip(*(np.asarray(o, np.float32) for o in outputs), strict=True):
            scores = np.sqrt(sigmoid(logits) * sigmoid(central))
            keep, labels, values = best_of_levels(scores, counts, self.per_level)
            reach = offsets[keep] * np.tile(sides[keep], 2)
            boxes = np.concatenate([centers[keep] - reach[:, :2], centers[keep] + reach[:, 2:]], 1)
            result.append(Candidates(pyramid.within(boxes, size), values, labels))
        return result


#: Every variant by name.
FCOSES: dict[str, FCOSConfig] = {"fcos_resnet50_fpn": FCOSConfig()}
