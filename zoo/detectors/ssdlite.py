"""SSDLite on MobileNetV3-Large: separable heads on six maps of a picture of 320 pixels.

Sources: Liu et al., 2015 (SSD), Sandler et al., 2018 (SSDLite), Howard et al., 2019 (MobileNetV3); torchvision, whose
parameter names these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.candidates import Candidates
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.detectors import pyramid
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Sequential
from zoonet.zoo.modules import Array, Module, sizes

_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class SSDLiteConfig:
    """size: the side of the usual input."""

    size: int = 320
    classes: int = 91
    channels: int = 3


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: Any = None
) -> Sequential:
    """Convolution, batch norm and perhaps an activation: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    norm = BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
    conv = Conv2d(inputs, outputs, kernel, stride, groups=groups)
    return Sequential(conv, norm, *([activation] if activation else []))


class SqueezeExcitation(Module):
    """Each channel times a number from the means of all: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        inner += 8 if inner < 0.9 * (channels // 4) else 0
        self.fc1, self.fc2 = Conv2d(channels, inner, 1, bias=True), Conv2d(inner, channels, 1, bias=True)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        y = ops.relu(self.fc1(ops.mean(x, (2, 3), keepdims=True)))
        return x * ops.hardsigmoid(self.fc2(y))


class InvertedResidual(Module):
    """Wider by 1×1, k×k in each channel, narrower by 1×1: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(
        self, inputs: int, kernel: int, wide: int, outputs: int, squeeze: bool, activation: Any, stride: int
    ) -> None:
        layers: list[Module] = [] if wide == inputs else [conv_norm(inputs, wide, 1, activation=activation)]
        layers.append(conv_norm(wide, wide, kernel, stride, wide, activation))
        if squeeze:
            layers.append(SqueezeExcitation(wide))
        self.block = Sequential(*layers, conv_norm(wide, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = self.block(x)
        return y + x if self.shortcut else y


class Rest(Module):
    """The layers of a block after its first one, under their numbers in the block."""

    def __init__(self, block: InvertedResidual) -> None:
        self._layers = [block.block[k] for k in range(1, len(block.block))]
        for position, layer in enumerate(self._layers, start=1):
            setattr(self, str(position), layer)

    def forward(self, x: Array) -> Array:
        """(N, wide, H, W) -> (N, outputs, H/stride, W/stride)."""
        for layer in self._layers:
            x = layer(x)
        return x


_R, _H = ops.relu, ops.hardswish
#: Inputs, kernel, inner width, outputs, squeeze-and-excitation, activation, stride of each block.
_BLOCKS = (
    (16, 3, 16, 16, False, _R, 1),
    (16, 3, 64, 24, False, _R, 2),
    (24, 3, 72, 24, False, _R, 1),
    (24, 5, 72, 40, True, _R, 2),
    (40, 5, 120, 40, True, _R, 1),
    (40, 5, 120, 40, True, _R, 1),
    (40, 3, 240, 80, False, _H, 2),
    (80, 3, 200, 80, False, _H, 1),
    (80, 3, 184, 80, False, _H, 1),
    (80, 3, 184, 80, False, _H, 1),
    (80, 3, 480, 112, True, _H, 1),
    (112, 3, 672, 112, True, _H, 1),
    (112, 5, 672, 80, True, _H, 2),
    (80, 5, 480, 80, True, _H, 1),
    (80, 5, 480, 80, True, _H, 1),
)


def _extra(inputs: int, outputs: int) -> Sequential:
    """A map of half the size."""
    half = outputs // 2
    return Sequential(
        conv_norm(inputs, half, 1, activation=ops.relu6),
        conv_norm(half, half, 3, 2, half, ops.relu6),
        conv_norm(half, outputs, 1, activation=ops.relu6),
    )


class Backbone(Module):
    """MobileNetV3-Large with a narrow tail, and four further maps: (N, 3, H, W) -> six maps at strides 16 to 512."""

    WIDTHS = (672, 480, 512, 256, 256, 128)

    def __init__(self, channels: int) -> None:
        blocks = [InvertedResidual(*each) for each in _BLOCKS]
        last = conv_norm(80, 480, 1, activation=ops.hardswish)
        cut = blocks[12]  # the first map is taken within this block, after its first layer
        first = Sequential(conv_norm(channels, 16, 3, 2, activation=ops.hardswish), *blocks[:12], cut.block[0])
        self.features = Sequential(first, Sequential(Rest(cut), *blocks[13:], last))
        self.extra = [_extra(a, b) for a, b in ((480, 512), (512, 256), (256, 256), (256, 128))]

    def forward(self, x: Array) -> Any:
        """(N, 3, H, W) -> six maps."""
        maps = []
        for layer in (self.features[0], self.features[1], *self.extra):
            x = layer(x)
            maps.append(x)
        return tuple(maps)


class ScoringHead(Module):
    """A separable convolution on each map: maps -> (N, A, numbers)."""

    def __init__(self, numbers: int) -> None:
        self.module_list = [
            Sequential(conv_norm(c, c, 3, groups=c, activation=ops.relu6), Conv2d(c, 6 * numbers, 1, bias=True))
            for c in Backbone.WIDTHS
        ]
        self.numbers = numbers

    def forward(self, *maps: Array) -> Array:
        """Six maps -> (N, A, numbers)."""
        pairs = zip(self.module_list, maps, strict=True)
        return ops.concat([pyramid.rows(layer(x), self.numbers) for layer, x in pairs], 1)


class Head(Module):
    """Scores and boxes of six anchors in each cell."""

    def __init__(self, classes: int) -> None:
        self.classification_head, self.regression_head = ScoringHead(classes), ScoringHead(4)

    def forward(self, *maps: Array) -> tuple[Array, Array]:
        """Six maps -> (N, A, classes), (N, A, 4)."""
        return self.classification_head(*maps), self.regression_head(*maps)


class SSDLite(Module):
    """Pictures (N, 3, H, W) -> logits (N, A, classes), of which the first is background, and offsets (N, A, 4)."""

    thresholds = (0.25, 0.55)

    def __init__(self, config: SSDLiteConfig) -> None:
        self.config = config
        self.backbone = Backbone(config.channels)
        self.head = Head(config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: SSDLiteConfig, shapes: Mapping[str, Any]) -> SSDLiteConfig:
        """The configuration with as many classes as the arrays of a state dict have."""
        name = "head.classification_head.module_list.0.1.bias"
        count = sizes(shapes, count=(name, 0)).get("count", 0)
        return replace(config, classes=count // 6) if count and count % 6 == 0 else config

    @property
    def decoder(self) -> SSDDecoder:
        """What the outputs mean."""
        return SSDDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """Stretched RGB from -1 to 1."""
        size, half = (self.config.size, self.config.size), (0.5, 0.5, 0.5)
        return DetectionPreprocessing(size=size, keep=False, mean=half, std=half)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, H, W) -> (N, A, classes), (N, A, 4)."""
        scores, boxes = self.head(*self.backbone(x))
        return scores, boxes


def anchors_of(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Corners (A, 4) of six boxes around each cell of six maps, for an input of (height, width), in its pixels.

    Source: torchvision's DefaultBoxGenerator, which clips centers and sizes to the picture.
    """
    height, width = size
    down, across = -(-height // 16), -(-width // 16)
    result = []
    for k in range(6):
        small, large = _SCALES[k], (_SCALES[k] * _SCALES[k + 1]) ** 0.5
        shapes = [(small, small), (large, large)]
        for root in (2**0.5, 3**0.5):
            shapes += [(small * root, small / root), (small / root, small * root)]
        y, x = np.meshgrid((np.arange(down) + 0.5) / down, (np.arange(across) + 0.5) / across, indexing="ij")
        centers = np.repeat(np.stack([x.ravel(), y.ravel()], 1), 6, 0)
        own = np.tile(np.clip(shapes, 0, 1), (down * across, 1))
        boxes = np.concatenate([centers - own / 2, centers + own / 2], 1)
        result.append(boxes * [width, height, width, height])
        down, across = (down + 1) // 2, (across + 1) // 2
    return np.concatenate(result).astype(np.float32)


@dataclass(frozen=True)
class SSDDecoder:
    """A softmax over classes, of which the first is background; anchors moved by offsets."""

    classes: int

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        anchors = anchors_of(size)
        result = []
        for logits, offsets in zip(*(np.asarray(o, np.float32) for o in outputs), strict=True):
            powers = np.exp(logits - logits.max(1, keepdims=True))
            scores = powers / powers.sum(1, keepdims=True)
            scores[:, 0] = -1  # never confident
            result.append(Candidates(pyramid.within(pyramid.moved(anchors, offsets, _WEIGHTS), size), scores))
        return result


#: Every variant by name.
SSDLITES: dict[str, SSDLiteConfig] = {"ssdlite320_mobilenet_v3_large": SSDLiteConfig()}
