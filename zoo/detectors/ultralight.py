"""Ultra-Light-Fast-Generic-Face-Detector, RFB-320: MobileNet-like layers, one receptive field block, SSD heads.

Source: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB (MIT), whose parameter names these are; Liu et al., 2017
(RFB), 2015 (SSD).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.decoding import FractionsDecoder
from zoonet.zoo.detection.exports import face_preprocessing
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Sequential
from zoonet.zoo.modules import Array, Module, sizes

#: Sides of the squares around each cell at strides 8, 16, 32, 64, in pixels of the input.
_SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
_STRIDES = (8, 16, 32, 64)


@dataclass(frozen=True)
class UltraLightConfig:
    """width: channels of the first layer. size: (height, width) of the usual input."""

    width: int = 16
    size: tuple[int, int] = (240, 320)
    classes: int = 1
    channels: int = 3


class NormConv(Module):
    """Convolution and batch norm, with or without ReLU: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, relu: bool = False) -> None:
        self.conv = Conv2d(inputs, outputs, kernel, dilation=dilation)
        self.bn = BatchNorm2d(outputs, momentum=0.01)
        self.relu = relu

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        y = self.bn(self.conv(x))
        return ops.relu(y) if self.relu else y


class ReceptiveFields(Module):
    """Three branches that look 2, 3 and 5 cells apart, beside a shortcut: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        inner = channels // 8

        def branch(dilation: int, *widths: int) -> Sequential:
            steps = [NormConv(a, b, 3, relu=True) for a, b in pairwise((inner, *widths))]
            last = NormConv(widths[-1], widths[-1], 3, dilation)
            return Sequential(NormConv(channels, inner, 1), *steps, last)

        self.branch0, self.branch1 = branch(2, 2 * inner), branch(3, 2 * inner)
        self.branch2 = branch(5, inner // 2 * 3, 2 * inner)
        self.ConvLinear = NormConv(6 * inner, channels, 1)
        self.shortcut = NormConv(channels, channels, 1)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        y = ops.concat([self.branch0(x), self.branch1(x), self.branch2(x)], 1)
        return ops.relu(self.ConvLinear(y) + self.shortcut(x))


def _plain(inputs: int, outputs: int, stride: int) -> Sequential:
    return Sequential(Conv2d(inputs, outputs, 3, stride), BatchNorm2d(outputs), ops.relu)


def _separable(inputs: int, outputs: int, stride: int) -> Sequential:
    """3×3 in each channel, then 1×1 across, each with batch norm and ReLU."""
    return Sequential(
        Conv2d(inputs, inputs, 3, stride, groups=inputs),
        BatchNorm2d(inputs),
        ops.relu,
        Conv2d(inputs, outputs, 1),
        BatchNorm2d(outputs),
        ops.relu,
    )


def _bare(inputs: int, outputs: int, stride: int = 1) -> Sequential:
    """3×3 in each channel, ReLU, 1×1 across, with biases."""
    depthwise = Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=True)
    return Sequential(depthwise, ops.relu, Conv2d(inputs, outputs, 1, bias=True))


class UltraLight(Module):
    """Pictures (N, 3, H, W) -> probabilities (N, A, 2) of background and face, and corners (N, A, 4) in fractions."""

    thresholds = (0.7, 0.3)

    def __init__(self, config: UltraLightConfig) -> None:
        self.config = config
        w = config.width
        plan = [(w, 2 * w, 1), (2 * w, 2 * w, 2), (2 * w, 2 * w, 1), (2 * w, 4 * w, 2), *[(4 * w, 4 * w, 1)] * 2]
        later = [(4 * w, 8 * w, 2), *[(8 * w, 8 * w, 1)] * 2, (8 * w, 16 * w, 2), (16 * w, 16 * w, 1)]
        self.base_net = Sequential(
            _plain(config.channels, w, 2),
            *(_separable(*each) for each in plan),
            ReceptiveFields(4 * w),
            *(_separable(*each) for each in later),
        )
        outer = Sequential(Conv2d(16 * w, 4 * w, 1, bias=True), ops.relu, _bare(4 * w, 16 * w, 2), ops.relu)
        self.extras = [outer]
        widths, counts = (4 * w, 8 * w, 16 * w, 16 * w), [len(sides) for sides in _SIDES]

        def headers(numbers: int) -> list[Module]:
            parts: list[Module] = [_bare(c, n * numbers) for c, n in zip(widths[:3], counts[:3], strict=True)]
            return [*parts, Conv2d(widths[3], counts[3] * numbers, 3, bias=True)]

        self.classification_headers, self.regression_headers = headers(1 + config.classes), headers(4)
        self._draw()

    @classmethod
    def fit(cls, config: UltraLightConfig, shapes: Mapping[str, Any]) -> UltraLightConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        found: dict[str, Any] = sizes(shapes, channels=("base_net.0.0.weight", 1))
        scores = sizes(shapes, count=("classification_headers.3.bias", 0)).get("count", 0)
        return replace(config, **found, **({"classes": scores // 3 - 1} if scores >= 6 and scores % 3 == 0 else {}))

    @property
    def decoder(self) -> FractionsDecoder:
        """What the outputs mean."""
        return FractionsDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """What the weights usually see."""
        return face_preprocessing(self.config.size)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, H, W) -> (N, A, 2), (N, A, 4)."""
        size = (int(x.shape[2]), int(x.shape[3]))
        scores: list[Array] = []
        places: list[Array] = []
        for k, (first, last) in enumerate(((0, 8), (8, 11), (11, 13), (0, 0))):
            for position in range(first, last):
                x = self.base_net[position](x)
            x = self.extras[0](x) if k == 3 else x
            for found, headers, numbers in (
                (scores, self.classification_headers, 1 + self.config.classes),
                (places, self.regression_headers, 4),
            ):
                y = ops.transpose(headers[k](x), (0, 2, 3, 1))
                found.append(ops.reshape(y, (y.shape[0], -1, numbers)))
        priors = priors_of(size).astype(x.dtype)
        raw = ops.concat(places, 1)
        centers = raw[..., :2] * 0.1 * priors[:, 2:] + priors[:, :2]
        half = ops.exp(raw[..., 2:] * 0.2) * priors[:, 2:] * 0.5
        return ops.softmax(ops.concat(scores, 1), 2), ops.concat([centers - half, centers + half], 2)


def priors_of(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Center, width, height (A, 4) of all squares for an input of (height, width), in fractions of it, clipped."""
    height, width = size
    rows = []
    for stride, sides in zip(_STRIDES, _SIDES, strict=True):
        down, across = -(-height // stride), -(-width // stride)
        y, x, side = np.meshgrid(np.arange(down), np.arange(across), np.array(sides), indexing="ij")
        columns = ((x + 0.5) / across, (y + 0.5) / down, side / width, side / height)
        rows.append(np.stack([column.ravel() for column in columns], 1))
    result: np.ndarray[Any, Any] = np.clip(np.concatenate(rows), 0, 1).astype(np.float32)
    return result


#: Every variant by name.
ULTRALIGHTS: dict[str, UltraLightConfig] = {"ultralight_rfb_320": UltraLightConfig()}
