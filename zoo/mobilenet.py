"""MobileNet v1 (Howard et al., 2017): depthwise separable convolutions.

Parameter names and stages are those of the backbone of biubug6/Pytorch_Retinaface, whose ImageNet weights at width
0.25 are the ones that people hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Linear, Sequential, kaiming_normal
from zoonet.zoo.modules import Array, Module, sizes


@dataclass(frozen=True)
class MobileNetConfig:
    """width: multiplier of all channels. slope: of the leaky ReLU for negative numbers; 0 is the paper's ReLU."""

    width: float = 1.0
    slope: float = 0.0
    classes: int = 1000
    channels: int = 3


class Activation(Module):
    """Leaky ReLU with a fixed slope."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x: Array) -> Array:
        """Any shape -> the same."""
        return ops.leaky_relu(x, self.slope) if self.slope else ops.relu(x)


def _plain(inputs: int, outputs: int, stride: int, slope: float) -> Sequential:
    """3×3 convolution: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    return Sequential(Conv2d(inputs, outputs, 3, stride), BatchNorm2d(outputs), Activation(slope))


def _separable(inputs: int, outputs: int, stride: int, slope: float) -> Sequential:
    """3×3 in each channel, then 1×1 across: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    return Sequential(
        Conv2d(inputs, inputs, 3, stride, groups=inputs),
        BatchNorm2d(inputs),
        Activation(slope),
        Conv2d(inputs, outputs, 1),
        BatchNorm2d(outputs),
        Activation(slope),
    )


class MobileNetV1(Module):
    """Pictures (N, channels, H, W) -> scores (N, classes)."""

    #: (channels before the width multiplier, stride) of the blocks of each stage; the first block is a plain one.
    STAGES = (
        ((32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
        ((512, 2), *[(512, 1)] * 5),
        ((1024, 2), (1024, 1)),
    )

    def __init__(self, config: MobileNetConfig) -> None:
        self.config = config
        inputs = config.channels
        for number, stage in enumerate(self.STAGES, start=1):
            blocks: list[Module] = []
            for channels, stride in stage:
                outputs = max(8, int(channels * config.width))
                block = _separable if number > 1 or blocks else _plain
                blocks.append(block(inputs, outputs, stride, config.slope))
                inputs = outputs
            setattr(self, f"stage{number}", Sequential(*blocks))
        self.fc = Linear(inputs, config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: MobileNetConfig, shapes: Mapping[str, Any]) -> MobileNetConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        return replace(config, **sizes(shapes, classes=("fc.weight", 0), channels=("stage1.0.0.weight", 1)))

    def reset(self, rng: np.random.Generator) -> None:
        """Draw convolutions for the ReLU after them, by the number of outputs of each channel (He et al., 2015)."""
        for _, module in self.named_modules():
            if isinstance(module, Conv2d):
                outputs, _, height, width = module.weight.shape
                module.weight = kaiming_normal(rng, module.weight.shape, outputs * height * width // module.groups)

    @property
    def head(self) -> str:
        """The name of the last layer."""
        return "fc"

    def forward(self, x: Array) -> Array:
        """(N, channels, H, W) -> (N, classes)."""
        for number in range(1, len(self.STAGES) + 1):
            x = vars(self)[f"stage{number}"](x)  # (N, 256·width, H/8, W/8), (N, 512·width, …), (N, 1024·width, …)
        return self.fc(ops.mean(x, (2, 3)))


#: Every variant by name.
MOBILENETS: dict[str, MobileNetConfig] = {"mobilenetv1_025": MobileNetConfig(0.25, slope=0.1)}
