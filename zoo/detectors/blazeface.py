"""BlazeFace (Bazarevsky et al., 2019), the front camera's network: faces and six points of each in 128×128 pixels.

Source: arXiv:1907.05047; parameter names are those of hollance/BlazeFace-PyTorch (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.candidates import Candidates
from zoonet.zoo.detection.decoding import corners, sigmoid
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.layers import Conv2d, Sequential
from zoonet.zoo.modules import Array, Module

_SIZE = 128
_POINTS = 6  # eyes, nose, mouth, ears


@dataclass(frozen=True)
class BlazeFaceConfig:
    """It has one size."""

    classes: int = 1
    channels: int = 3


class BlazeBlock(Module):
    """3×3 in each channel, 1×1 across, and the input: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        padding = 0 if stride == 2 else 1
        depthwise = Conv2d(inputs, inputs, 3, stride, padding=padding, groups=inputs, bias=True)
        self.convs = Sequential(depthwise, Conv2d(inputs, outputs, 1, bias=True))
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = x
        if self.stride == 2:
            y = ops.pad(x, ((0, 0), (0, 0), (0, 2), (0, 2)))
            x = ops.max_pool(x, 2, 2)
        if self.more:
            x = ops.pad(x, ((0, 0), (0, self.more), (0, 0), (0, 0)))
        return ops.relu(self.convs(y) + x)


class BlazeFace(Module):
    """Pictures (N, 3, 128, 128), from -1 to 1 -> numbers (N, 896, 16) of box and points, and scores (N, 896, 1)."""

    thresholds = (0.75, 0.3)
    size_multiple = None  # it has one size
    suppression = "weighted"

    def __init__(self, config: BlazeFaceConfig) -> None:
        self.config = config
        first = Conv2d(config.channels, 24, 5, 2, padding=0, bias=True)
        plan = ((24, 24), (24, 28), (28, 32, 2), (32, 36), (36, 42), (42, 48, 2))
        wider = ((48, 56), (56, 64), (64, 72), (72, 80), (80, 88))
        self.backbone1 = Sequential(first, ops.relu, *(BlazeBlock(*each) for each in (*plan, *wider)))
        self.backbone2 = Sequential(BlazeBlock(88, 96, 2), *(BlazeBlock(96, 96) for _ in range(4)))
        self.classifier_8, self.classifier_16 = Conv2d(88, 2, 1, bias=True), Conv2d(96, 6, 1, bias=True)
        self.regressor_8, self.regressor_16 = Conv2d(88, 32, 1, bias=True), Conv2d(96, 96, 1, bias=True)
        self._draw()

    @classmethod
    def fit(cls, config: BlazeFaceConfig, shapes: Mapping[str, Any]) -> BlazeFaceConfig:
        """The configuration itself."""
        return config

    @property
    def decoder(self) -> BlazeFaceDecoder:
        """What the outputs mean."""
        return BlazeFaceDecoder()

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """RGB from -1 to 1, in the middle of black."""
        size, half = (_SIZE, _SIZE), (1.0, 1.0, 1.0)
        return DetectionPreprocessing(size=size, pad=0.0, scale=1 / 127.5, mean=half)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, 128, 128) -> (N, 896, 16), (N, 896, 1)."""
        x = ops.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)))
        fine = self.backbone1(x)  # (N, 88, 16, 16)
        coarse = self.backbone2(fine)  # (N, 96, 8, 8)

        def rows(numbers: int, *maps: Array) -> Array:
            parts = [ops.transpose(y, (0, 2, 3, 1)) for y in maps]
            return ops.concat([ops.reshape(y, (y.shape[0], -1, numbers)) for y in parts], 1)

        boxes = rows(4 + 2 * _POINTS, self.regressor_8(fine), self.regressor_16(coarse))
        return boxes, rows(1, self.classifier_8(fine), self.classifier_16(coarse))


def anchors_of() -> np.ndarray[Any, Any]:
    """Centers, width and height (896, 4) in fractions: two in each of 16×16 cells, six in each of 8×8, of size 1."""
    rows = []
    for cells, count in ((16, 2), (8, 6)):
        y, x = np.divmod(np.repeat(np.arange(cells * cells), count), cells)
        rows.append(np.stack([(x + 0.5) / cells, (y + 0.5) / cells, np.ones(len(x)), np.ones(len(x))], 1))
    return np.concatenate(rows).astype(np.float32)


@dataclass(frozen=True)
class BlazeFaceDecoder:
    """Boxes and six points in pixels, from offsets to anchors."""

    classes: int = 1

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        centers = anchors_of()[:, :2] * _SIZE
        result = []
        for raw, scores in zip(np.asarray(outputs[0], np.float32), np.asarray(outputs[1], np.float32), strict=True):
            boxes = corners(np.concatenate([raw[:, :2] + centers, raw[:, 2:4]], 1))
            points = raw[:, 4:].reshape(len(raw), _POINTS, 2) + centers[:, None]
            result.append(Candidates(boxes, sigmoid(np.clip(scores, -100, 100)), keypoints=points))
        return result


#: Every variant by name.
BLAZEFACES: dict[str, BlazeFaceConfig] = {"blazeface": BlazeFaceConfig()}
