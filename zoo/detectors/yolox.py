"""YOLOX (Ge et al., 2021): an anchor-free detector with a decoupled head, and a table of its sizes.

Source: arXiv:2107.08430. Parameter names are those of the checkpoints of Megvii-BaseDetection/YOLOX. Inputs are BGR,
0 to 255. The output is raw: per cell x, y, log width, log height in units of the cell, and the scores of an object and
of each class, as in the exported ONNX files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.decoding import YoloxDecoder
from zoonet.zoo.detection.exports import yolox_preprocessing
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Sequential
from zoonet.zoo.modules import Array, Module, sizes


@dataclass(frozen=True)
class YOLOXConfig:
    """depth, width: multipliers of the number of blocks and of channels. depthwise: 3×3 convolutions are separable.

    size: the side of the usual input.
    """

    depth: float = 1.0
    width: float = 1.0
    depthwise: bool = False
    size: int = 640
    classes: int = 80
    channels: int = 3

    def wide(self, channels: int) -> int:
        """A number of channels times the width."""
        return int(channels * self.width)


class ConvBlock(Module):
    """Convolution, batch norm, SiLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        self.conv = Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.bn = BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return ops.silu(self.bn(self.conv(x)))


class SeparableBlock(Module):
    """A block in each channel, then 1×1 across: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        self.dconv = ConvBlock(inputs, inputs, kernel, stride, groups=inputs)
        self.pconv = ConvBlock(inputs, outputs, 1)

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return self.pconv(self.dconv(x))


def _block(config: YOLOXConfig, inputs: int, outputs: int, stride: int = 1) -> Module:
    """A 3×3 block as this network has them."""
    return (SeparableBlock if config.depthwise else ConvBlock)(inputs, outputs, 3, stride)


class Bottleneck(Module):
    """3×3(1×1(x)), and x where it has a shortcut: (N, width, H, W) -> the same."""

    def __init__(self, config: YOLOXConfig, width: int, shortcut: bool) -> None:
        self.conv1 = ConvBlock(width, width, 1)
        self.conv2 = _block(config, width, width)
        self.shortcut = shortcut

    def forward(self, x: Array) -> Array:
        """(N, width, H, W) -> (N, width, H, W)."""
        y = self.conv2(self.conv1(x))
        return y + x if self.shortcut else y


class CSPLayer(Module):
    """Bottlenecks on half of the channels, beside the other half: (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, config: YOLOXConfig, inputs: int, outputs: int, blocks: int, shortcut: bool = True) -> None:
        hidden = outputs // 2
        self.conv1, self.conv2 = ConvBlock(inputs, hidden, 1), ConvBlock(inputs, hidden, 1)
        self.conv3 = ConvBlock(2 * hidden, outputs, 1)
        self.m = Sequential(*(Bottleneck(config, hidden, shortcut) for _ in range(blocks)))

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        first, second = self.conv1(x), self.conv2(x)
        return self.conv3(ops.concat([self.m(first), second], 1))


class SPPBottleneck(Module):
    """Maxima over 5×5, 9×9 and 13×13 beside the input: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        self.conv1 = ConvBlock(channels, channels // 2, 1)
        self.conv2 = ConvBlock(channels // 2 * 4, channels, 1)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        x = self.conv1(x)
        return self.conv2(ops.concat([x, *(ops.max_pool(x, k, 1, k // 2) for k in (5, 9, 13))], 1))


class Focus(Module):
    """Every second row and column as channels, then a block: (N, C, H, W) -> (N, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv = ConvBlock(4 * inputs, outputs, 3)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, outputs, H/2, W/2)."""
        parts = [x[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.conv(ops.concat(parts, 1))


class CSPDarknet(Module):
    """The backbone: (N, C, H, W) -> maps at strides 8, 16, 32 of 256, 512, 1024 channels times the width."""

    def __init__(self, config: YOLOXConfig) -> None:
        blocks = max(round(config.depth * 3), 1)
        w = [config.wide(n) for n in (64, 128, 256, 512, 1024)]
        self.stem = Focus(config.channels, w[0])
        self.dark2 = Sequential(_block(config, w[0], w[1], 2), CSPLayer(config, w[1], w[1], blocks))
        self.dark3 = Sequential(_block(config, w[1], w[2], 2), CSPLayer(config, w[2], w[2], 3 * blocks))
        self.dark4 = Sequential(_block(config, w[2], w[3], 2), CSPLayer(config, w[3], w[3], 3 * blocks))
        self.dark5 = Sequential(
            _block(config, w[3], w[4], 2), SPPBottleneck(w[4]), CSPLayer(config, w[4], w[4], blocks, shortcut=False)
        )

    def forward(self, x: Array) -> tuple[Array, Array, Array]:
        """(N, C, H, W) -> (N, 256w, H/8, W/8), (N, 512w, H/16, W/16), (N, 1024w, H/32, W/32)."""
        third = self.dark3(self.dark2(self.stem(x)))
        fourth = self.dark4(third)
        return third, fourth, self.dark5(fourth)


class Pyramid(Module):
    """Features of three scales, mixed from coarse to fine and back: (N, C, H, W) -> maps as of the backbone."""

    def __init__(self, config: YOLOXConfig) -> None:
        self.backbone = CSPDarknet(config)
        blocks = round(3 * config.depth)
        a, b, c = (config.wide(n) for n in (256, 512, 1024))
        self.lateral_conv0 = ConvBlock(c, b, 1)
        self.C3_p4 = CSPLayer(config, 2 * b, b, blocks, shortcut=False)
        self.reduce_conv1 = ConvBlock(b, a, 1)
        self.C3_p3 = CSPLayer(config, 2 * a, a, blocks, shortcut=False)
        self.bu_conv2 = _block(config, a, a, 2)
        self.C3_n3 = CSPLayer(config, 2 * a, b, blocks, shortcut=False)
        self.bu_conv1 = _block(config, b, b, 2)
        self.C3_n4 = CSPLayer(config, 2 * b, c, blocks, shortcut=False)

    def forward(self, x: Array) -> tuple[Array, Array, Array]:
        """(N, C, H, W) -> (N, 256w, H/8, W/8), (N, 512w, H/16, W/16), (N, 1024w, H/32, W/32)."""
        third, fourth, fifth = self.backbone(x)
        top = self.lateral_conv0(fifth)  # (N, 512w, H/32, W/32)
        middle = self.C3_p4(ops.concat([ops.interpolate(top, scale_factor=2), fourth], 1))
        middle = self.reduce_conv1(middle)  # (N, 256w, H/16, W/16)
        fine = self.C3_p3(ops.concat([ops.interpolate(middle, scale_factor=2), third], 1))
        second = self.C3_n3(ops.concat([self.bu_conv2(fine), middle], 1))
        return fine, second, self.C3_n4(ops.concat([self.bu_conv1(second), top], 1))


class Head(Module):
    """A branch for classes and one for boxes and objects, at each of three scales."""

    def __init__(self, config: YOLOXConfig) -> None:
        hidden = config.wide(256)

        def branch() -> Sequential:
            return Sequential(_block(config, hidden, hidden), _block(config, hidden, hidden))

        self.cls_convs, self.reg_convs = [branch() for _ in range(3)], [branch() for _ in range(3)]
        self.cls_preds = [Conv2d(hidden, config.classes, 1, bias=True) for _ in range(3)]
        self.reg_preds = [Conv2d(hidden, 4, 1, bias=True) for _ in range(3)]
        self.obj_preds = [Conv2d(hidden, 1, 1, bias=True) for _ in range(3)]
        self.stems = [ConvBlock(config.wide(n), hidden, 1) for n in (256, 512, 1024)]

    def forward(self, *features: Array) -> Array:
        """Maps at strides 8, 16, 32 -> (N, cells, 5 + classes)."""
        rows = []
        for k, feature in enumerate(features):
            x = self.stems[k](feature)
            classes = self.cls_preds[k](self.cls_convs[k](x))
            boxes = self.reg_convs[k](x)
            parts = [self.reg_preds[k](boxes), ops.sigmoid(self.obj_preds[k](boxes)), ops.sigmoid(classes)]
            joined = ops.concat(parts, 1)  # (N, 5 + classes, H, W)
            rows.append(ops.reshape(joined, (*joined.shape[:2], joined.shape[2] * joined.shape[3])))
        return ops.transpose(ops.concat(rows, 2), (0, 2, 1))


class YOLOX(Module):
    """Pictures (N, 3, H, W), sides multiples of 32 -> (N, cells, 5 + classes); see the module's description."""

    thresholds = (0.25, 0.45)
    size_multiple = 32

    def __init__(self, config: YOLOXConfig) -> None:
        self.config = config
        self.backbone = Pyramid(config)
        self.head = Head(config)
        self._draw()

    @classmethod
    def fit(cls, config: YOLOXConfig, shapes: Mapping[str, Any]) -> YOLOXConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        found: dict[str, Any] = sizes(shapes, classes=("head.cls_preds.0.weight", 0))
        stem = sizes(shapes, channels=("backbone.backbone.stem.conv.conv.weight", 1)).get("channels", 0)
        return replace(config, **found, **({"channels": stem // 4} if stem and stem % 4 == 0 else {}))

    def reset(self, rng: np.random.Generator) -> None:
        """Scores start at 1 in 100, as Lin et al. (2017) propose for focal losses."""
        for layer in (*self.head.cls_preds, *self.head.obj_preds):
            layer.bias = np.full_like(layer.bias, -math.log(99))

    @property
    def decoder(self) -> YoloxDecoder:
        """What the output means."""
        return YoloxDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """What the weights usually see."""
        return yolox_preprocessing((self.config.size, self.config.size))

    def forward(self, x: Array) -> Array:
        """(N, 3, H, W) -> (N, H·W/64 + H·W/256 + H·W/1024, 5 + classes)."""
        return self.head(*self.backbone(x))


#: Every variant by name.
YOLOXS: dict[str, YOLOXConfig] = {
    "yolox_nano": YOLOXConfig(0.33, 0.25, depthwise=True, size=416),
    "yolox_tiny": YOLOXConfig(0.33, 0.375, size=416),
    "yolox_s": YOLOXConfig(0.33, 0.50),
    "yolox_m": YOLOXConfig(0.67, 0.75),
    "yolox_l": YOLOXConfig(1.0, 1.0),
    "yolox_x": YOLOXConfig(1.33, 1.25),
}
