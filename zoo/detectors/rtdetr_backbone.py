"""The residual network of RT-DETR: a stem of three 3×3 convolutions, and averages before projections (ResNet-D).

Parameter names are those of Hugging Face's layout. Unlike `zoo/resnet.py`, a stage of basic blocks begins with a
projection even where shapes agree, as in PaddleDetection, where the weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoonet import ops
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Sequential
from zoonet.zoo.modules import Array, Module
from zoonet.zoo.resnet import AveragePool


@dataclass(frozen=True)
class RTDetrResNetConfig:
    """blocks, widths: of the four stages. bottleneck: 1×1, 3×3, 1×1 with a quarter of the channels, or two 3×3."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    bottleneck: bool = True


class ConvLayer(Module):
    """Convolution, batch norm and perhaps ReLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        self.convolution, self.normalization = Conv2d(inputs, outputs, kernel, stride), BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = self.normalization(self.convolution(x))
        return ops.relu(y) if self.relu else y


class Block(Module):
    """Two or three convolutions, and the input: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool, first: bool) -> None:
        if bottleneck:
            inner = outputs // 4
            last = ConvLayer(inner, outputs, 1, relu=False)
            self.layer = Sequential(ConvLayer(inputs, inner, 1), ConvLayer(inner, inner, 3, stride), last)
        else:
            self.layer = Sequential(ConvLayer(inputs, outputs, stride=stride), ConvLayer(outputs, outputs, relu=False))
        self.shortcut: Module | None = None
        if first:
            projection = ConvLayer(inputs, outputs, 1, relu=False)
            self.shortcut = Sequential(AveragePool(), projection) if stride == 2 else projection

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return ops.relu(self.layer(x) + (x if self.shortcut is None else self.shortcut(x)))


class Stage(Module):
    """Blocks of which the first changes the shape."""

    def __init__(self, inputs: int, outputs: int, count: int, stride: int, bottleneck: bool) -> None:
        self.layers = Sequential(
            Block(inputs, outputs, stride, bottleneck, True),
            *(Block(outputs, outputs, 1, bottleneck, False) for _ in range(count - 1)),
        )

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        return self.layers(x)


class Stem(Module):
    """Three 3×3 convolutions and a maximum: (N, C, H, W) -> (N, 64, H/4, W/4)."""

    def __init__(self, channels: int) -> None:
        self.embedder = Sequential(ConvLayer(channels, 32, stride=2), ConvLayer(32, 32), ConvLayer(32, 64))

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, 64, H/4, W/4)."""
        return ops.max_pool(self.embedder(x), 3, 2, 1)


class Stages(Module):
    """The four stages."""

    def __init__(self, config: RTDetrResNetConfig) -> None:
        inputs = (64, *config.widths[:-1])
        rows = zip(inputs, config.widths, config.blocks, (1, 2, 2, 2), strict=True)
        self.stages = [Stage(*row, config.bottleneck) for row in rows]

    def forward(self, x: Array) -> Any:
        """(N, 64, H/4, W/4) -> maps at strides 8, 16, 32."""
        maps = [x := stage(x) for stage in self.stages]
        return tuple(maps[1:])


class RTDetrResNet(Module):
    """(N, C, H, W) -> maps at strides 8, 16, 32."""

    def __init__(self, config: RTDetrResNetConfig, channels: int) -> None:
        self.embedder, self.encoder = Stem(channels), Stages(config)

    def forward(self, x: Array) -> Any:
        """(N, C, H, W) -> maps at strides 8, 16, 32."""
        return self.encoder(self.embedder(x))
