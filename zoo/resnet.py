"""Residual networks (He et al., 2015) and their kin, as one network and a table of configurations.

Sources: torchvision's ResNet, ResNeXt and Wide ResNet (v1.5: a block strides in its 3×3), timm's ResNet-C and
ResNet-D ("Bag of Tricks", He et al., 2018: deep stem, average pooling before the projection), keras.applications'
v1 (a block strides in its first 1×1, convolutions have biases, eps 1.001e-5), and the CIFAR ResNets of the original
paper's section 4.2 (shortcuts of option A have no parameters). Parameter names are those of torchvision and timm, and
of akamaster/pytorch_resnet_cifar10 for the CIFAR networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Identity, Sequential, kaiming_normal, linear_or_none
from zoonet.zoo.modules import Array, Module, sizes


@dataclass(frozen=True)
class ResNetConfig:
    """What tells one residual network from another.

    blocks: number of blocks per stage; the first stage is `width` wide and each further one twice as wide.
    bottleneck: 1×1, 3×3, 1×1 convolutions with an expansion of 4, or two 3×3. groups, group_width: the 3×3 of a
    bottleneck has groups, and is group_width / 64 times as wide as the stage. stem: widths of two 3×3 convolutions
    before a third, in the place of the 7×7. cifar: for small pictures, the stem is one 3×3 without pooling.
    shortcut: where shapes change, "conv" 1×1, "pool" for average pooling before it, "pad" for slices padded with zero
    channels. widths: channels after each stage, where they do not double. stride_first: a bottleneck strides in its
    first convolution. bias, eps: of convolutions and batch norms.
    """

    blocks: tuple[int, ...]
    bottleneck: bool = True
    classes: int = 1000
    channels: int = 3
    width: int = 64
    groups: int = 1
    group_width: int = 64
    stem: tuple[int, ...] = ()
    cifar: bool = False
    shortcut: str = "conv"
    stride_first: bool = False
    bias: bool = False
    eps: float = 1e-5
    widths: tuple[int, ...] = ()

    def stage_width(self, stage: int) -> int:
        """The width of the blocks of a stage, of which a bottleneck's output has four times as many channels."""
        if not self.widths:
            return self.width << stage
        if len(self.widths) != len(self.blocks):
            raise ArgumentError(
                "a ResNet has one width for each stage", expected=f"{len(self.blocks)} widths", received=self.widths
            )
        return self.widths[stage] // (4 if self.bottleneck else 1)

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv2d:
        """A convolution as this network has them."""
        return Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=self.bias)

    def norm(self, channels: int) -> BatchNorm2d:
        """A batch norm as this network has them."""
        return BatchNorm2d(channels, eps=self.eps)


class BasicBlock(Module):
    """x + 3×3(3×3(x)): (N, inputs, H, W) -> (N, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, config: ResNetConfig, inputs: int, width: int, stride: int) -> None:
        self.conv1, self.bn1 = config.conv(inputs, width, 3, stride), config.norm(width)
        self.conv2, self.bn2 = config.conv(width, width, 3), config.norm(width)
        self.downsample = shortcut(config, inputs, width, stride)

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, width, H/stride, W/stride)."""
        y = ops.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return ops.relu(y + self.downsample(x))


class Bottleneck(Module):
    """x + 1×1(3×3(1×1(x))): (N, inputs, H, W) -> (N, 4·width, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, config: ResNetConfig, inputs: int, width: int, stride: int) -> None:
        inner, outputs = width * config.group_width // 64 * config.groups, 4 * width
        first, second = (stride, 1) if config.stride_first else (1, stride)
        self.conv1, self.bn1 = config.conv(inputs, inner, 1, first), config.norm(inner)
        self.conv2, self.bn2 = config.conv(inner, inner, 3, second, config.groups), config.norm(inner)
        self.conv3, self.bn3 = config.conv(inner, outputs, 1), config.norm(outputs)
        self.downsample = shortcut(config, inputs, outputs, stride)

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, 4·width, H/stride, W/stride)."""
        y = ops.relu(self.bn1(self.conv1(x)))  # (N, inner, H, W)
        y = ops.relu(self.bn2(self.conv2(y)))  # (N, inner, H/stride, W/stride)
        y = self.bn3(self.conv3(y))  # (N, 4·width, H/stride, W/stride)
        return ops.relu(y + self.downsample(x))


class Pad(Module):
    """Option A of the paper: every stride-th pixel, and zeros for half of the new channels on either side."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return ops.pad(x, ((0, 0), (self.before, self.after), (0, 0), (0, 0)))


class AveragePool(Module):
    """Means of 2×2 pixels with stride 2; the pixels of an odd edge are averaged alone (timm's ResNet-D)."""

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return ops.avg_pool(x, 2, 2, ceil_mode=True, count_include_pad=False)


def shortcut(config: ResNetConfig, inputs: int, outputs: int, stride: int) -> Module:
    """What brings a block's input to its output's shape: nothing where they are equal."""
    if stride == 1 and inputs == outputs:
        return Identity()
    if config.shortcut == "pad":
        return Pad(inputs, outputs, stride)
    if config.shortcut == "pool":
        pool = Identity() if stride == 1 else AveragePool()
        return Sequential(pool, config.conv(inputs, outputs, 1), config.norm(outputs))
    return Sequential(config.conv(inputs, outputs, 1, stride), config.norm(outputs))


class ResNet(Module):
    """A residual network: pictures (N, channels, H, W) -> scores (N, classes), features without any classes."""

    def __init__(self, config: ResNetConfig) -> None:
        self.config = config
        block = Bottleneck if config.bottleneck else BasicBlock
        width = config.width
        if config.stem:
            layers: list[Any] = []
            for position, (inputs, outputs) in enumerate(pairwise((config.channels, *config.stem, width))):
                layers += [config.conv(inputs, outputs, 3, 1 if position else 2), config.norm(outputs), ops.relu]
            self.conv1: Module = Sequential(*layers[:-2])  # the last norm and ReLU are the network's own
        else:
            self.conv1 = config.conv(config.channels, width, *((3, 1) if config.cifar else (7, 2)))
        self.bn1 = config.norm(width)
        inputs = width
        for stage, count in enumerate(config.blocks):
            blocks = []
            for position in range(count):
                stride = 2 if stage and not position else 1
                blocks.append(block(config, inputs, config.stage_width(stage), stride))
                inputs = config.stage_width(stage) * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(*blocks))
        setattr(self, self.head, linear_or_none(inputs, config.classes))
        self._draw()

    @property
    def head(self) -> str:
        """The name of the last layer."""
        return "linear" if self.config.cifar else "fc"

    @classmethod
    def fit(cls, config: ResNetConfig, shapes: Mapping[str, Any]) -> ResNetConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        head = "linear.weight" if config.cifar else "fc.weight"
        stem = "conv1.0.weight" if config.stem else "conv1.weight"
        found: dict[str, Any] = sizes(shapes, classes=(head, 0), channels=(stem, 1))
        return replace(config, **found)

    @classmethod
    def resized(cls, config: ResNetConfig, shapes: Mapping[str, Any]) -> ResNetConfig:
        """The configuration with the number of blocks and the widths of a state dict too."""
        blocks: dict[int, int] = {}
        for name in shapes:
            found = re.fullmatch(r"layer([1-9])\.(\d{1,3})\.conv1\.weight", name)
            if found:
                blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]) + 1)
        in_order = sorted(blocks) == list(range(1, len(blocks) + 1)) and sum(blocks.values()) < len(shapes)
        norm, times = ("bn3", 4) if config.bottleneck else ("bn2", 1)
        ends = sizes(shapes, **{f"{stage}": (f"layer{stage}.0.{norm}.weight", 0) for stage in blocks})
        width = sizes(shapes, width=("bn1.weight", 0)).get("width", config.width)
        if not in_order or len(ends) != len(blocks) or any(n % times for n in ends.values()):
            return config
        widths = tuple(ends[str(stage)] for stage in sorted(blocks))
        usual = widths == tuple((width << stage) * times for stage in range(len(widths)))
        depths = tuple(blocks[stage] for stage in sorted(blocks))
        return replace(cls.fit(config, shapes), blocks=depths, width=width, widths=() if usual else widths)

    def reset(self, rng: np.random.Generator) -> None:
        """Draw convolutions as torchvision and He et al. (2015) do: normal, by the number of outputs."""
        for _, module in self.named_modules():
            if isinstance(module, Conv2d):
                outputs, _, height, width = module.weight.shape
                module.weight = kaiming_normal(rng, module.weight.shape, outputs * height * width)

    def forward(self, x: Array) -> Array:
        """(N, channels, H, W) -> (N, classes)."""
        y = ops.relu(self.bn1(self.conv1(x)))  # (N, width, H/2, W/2)
        if not self.config.cifar:
            y = ops.max_pool(y, 3, 2, 1)  # (N, width, H/4, W/4)
        for stage in range(len(self.config.blocks)):
            y = vars(self)[f"layer{stage + 1}"](y)  # (N, width·2^stage·expansion, H/(4·2^stage), …)
        y = ops.mean(y, (2, 3))  # (N, features)
        return vars(self)[self.head](y)


_R18, _R34 = (ResNetConfig(blocks, bottleneck=False) for blocks in ((2, 2, 2, 2), (3, 4, 6, 3)))
_R26, _R50, _R101, _R152, _R200 = (
    ResNetConfig(blocks) for blocks in ((2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3))
)
_CIFAR = ResNetConfig((), bottleneck=False, classes=10, width=16, cifar=True, shortcut="pad")

#: Every variant by name.
RESNETS: dict[str, ResNetConfig] = {
    "resnet18": _R18,
    "resnet34": _R34,
    "resnet26": _R26,
    "resnet50": _R50,
    "resnet101": _R101,
    "resnet152": _R152,
    "resnext50_32x4d": replace(_R50, groups=32, group_width=4),
    "resnext101_32x4d": replace(_R101, groups=32, group_width=4),
    "resnext101_32x8d": replace(_R101, groups=32, group_width=8),
    "resnext101_64x4d": replace(_R101, groups=64, group_width=4),
    "wide_resnet50_2": replace(_R50, group_width=128),
    "wide_resnet101_2": replace(_R101, group_width=128),
    "resnet50c": replace(_R50, stem=(32, 32)),
    "resnet18d": replace(_R18, stem=(32, 32), shortcut="pool"),
    "resnet26d": replace(_R26, stem=(32, 32), shortcut="pool"),
    "resnet34d": replace(_R34, stem=(32, 32), shortcut="pool"),
    "resnet50d": replace(_R50, stem=(32, 32), shortcut="pool"),
    "resnet101d": replace(_R101, stem=(32, 32), shortcut="pool"),
    "resnet152d": replace(_R152, stem=(32, 32), shortcut="pool"),
    "resnet200d": replace(_R200, stem=(32, 32), shortcut="pool"),
    "resnet10t": replace(_R18, blocks=(1, 1, 1, 1), stem=(24, 32), shortcut="pool"),
    "resnet14t": replace(_R26, blocks=(1, 1, 1, 1), stem=(24, 32), shortcut="pool"),
    "resnet50t": replace(_R50, stem=(24, 32), shortcut="pool"),
    "resnet26t": replace(_R26, stem=(24, 32), shortcut="pool"),
    "resnext50d_32x4d": replace(_R50, groups=32, group_width=4, stem=(32, 32), shortcut="pool"),
    "resnet50_keras": replace(_R50, stride_first=True, bias=True, eps=1.001e-5),
    "resnet101_keras": replace(_R101, stride_first=True, bias=True, eps=1.001e-5),
    "resnet152_keras": replace(_R152, stride_first=True, bias=True, eps=1.001e-5),
} | {f"resnet{6 * n + 2}": replace(_CIFAR, blocks=(n, n, n)) for n in (3, 5, 7, 9, 18)}
