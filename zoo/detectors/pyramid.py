"""What RetinaNet and FCOS share: ResNet's features, the feature pyramid, anchors, and boxes relative to them.

Sources: Lin et al., 2016 (arXiv:1612.03144) and 2017 (arXiv:1708.02002); torchvision, whose parameter names these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.layers import Conv2d, Sequential
from zoonet.zoo.modules import Array, Module
from zoonet.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from zoonet.zoo.resnet import ResNet, ResNetConfig

STRIDES = (8, 16, 32, 64, 128)
#: The picture's shorter side becomes 800, unless the longer would exceed 1333; padding is 0 after normalisation.
PREPROCESSING = DetectionPreprocessing(
    size=None,
    center=False,
    pad=tuple(255 * n for n in IMAGENET_MEAN),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)


class Body(ResNet):
    """A residual network without its head: (N, 3, H, W) -> maps at strides 8, 16, 32."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        delattr(self, self.head)

    def forward(self, x: Array) -> Any:
        """(N, 3, H, W) -> (N, 512, H/8, W/8), (N, 1024, H/16, W/16), (N, 2048, H/32, W/32)."""
        values = vars(self)
        y = ops.max_pool(ops.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = [y := values[f"layer{stage}"](y) for stage in (1, 2, 3, 4)]
        return tuple(maps[1:])


class CoarserLevels(Module):
    """Two further maps, each of half the size of the one before."""

    def __init__(self, inputs: int, width: int) -> None:
        self.p6, self.p7 = (Conv2d(c, width, 3, 2, bias=True) for c in (inputs, width))

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, inputs, H, W) -> (N, width, H/2, W/2), (N, width, H/4, W/4)."""
        sixth = self.p6(x)
        return sixth, self.p7(ops.relu(sixth))


class FeaturePyramid(Module):
    """Maps of all scales with the same width, each mixed with the coarser ones.

    from_body: the sixth map is made of the body's last, else of the pyramid's.
    """

    def __init__(self, inputs: Sequence[int], width: int, from_body: bool) -> None:
        self.inner_blocks = [Sequential(Conv2d(c, width, 1, bias=True)) for c in inputs]
        self.layer_blocks = [Sequential(Conv2d(width, width, 3, bias=True)) for _ in inputs]
        self.extra_blocks = CoarserLevels(inputs[-1] if from_body else width, width)
        self.from_body = from_body

    def forward(self, *maps: Array) -> tuple[Array, ...]:
        """Maps at strides 8, 16, 32 -> (N, width, …) at strides 8, 16, 32, 64, 128."""
        inner = self.inner_blocks[-1](maps[-1])
        found = [self.layer_blocks[-1](inner)]
        for k in range(len(maps) - 2, -1, -1):
            size = (int(maps[k].shape[2]), int(maps[k].shape[3]))
            inner = self.inner_blocks[k](maps[k]) + ops.interpolate(inner, size=size)
            found.insert(0, self.layer_blocks[k](inner))
        return (*found, *self.extra_blocks(maps[-1] if self.from_body else found[-1]))


class Backbone(Module):
    """Body and pyramid: (N, 3, H, W) -> five maps of 256 channels at strides 8 to 128."""

    def __init__(self, config: ResNetConfig, channels: int, from_body: bool = False) -> None:
        widths = [config.width * (4 if config.bottleneck else 1) << stage for stage in (1, 2, 3)]
        self.body = Body(config)
        self.fpn = FeaturePyramid(widths, channels, from_body)

    def forward(self, x: Array) -> Any:
        """(N, 3, H, W) -> five maps (N, 256, …)."""
        return self.fpn(*self.body(x))


class GroupNorm(Module):
    """Normalisation over 32 groups of channels (Wu and He, 2018): (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        self.weight, self.bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)

    def reset(self, rng: np.random.Generator) -> None:
        """Weight one, bias zero."""
        self.weight, self.bias = np.ones_like(self.weight), np.zeros_like(self.bias)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        return ops.group_norm(x, 32, self.weight, self.bias)


def rows(x: Array, numbers: int) -> Array:
    """(N, anchors·numbers, H, W) -> (N, H·W·anchors, numbers)."""
    n, channels, height, width = x.shape
    y = ops.transpose(ops.reshape(x, (n, channels // numbers, numbers, height, width)), (0, 3, 4, 1, 2))
    return ops.reshape(y, (n, height * width * (channels // numbers), numbers))


def drawn_head(module: Module, rng: np.random.Generator, layers: Sequence[Conv2d], prior: Sequence[Conv2d]) -> None:
    """Draw a head's convolutions with deviation 0.01; scores start at 1 in 100 (Lin et al., 2017)."""
    for layer in layers:
        layer.weight = rng.standard_normal(layer.weight.shape, np.float32) * np.float32(0.01)
        if layer.bias is not None:
            layer.bias = np.zeros_like(layer.bias)
    for layer in prior:
        layer.bias = np.full_like(layer.bias, -np.log(99.0))


def anchors_of(size: tuple[int, int], sides: Sequence[Sequence[int]], ratios: Sequence[float]) -> np.ndarray[Any, Any]:
    """Corners (A, 4) around the cells of the five maps for an input of (height, width), in its pixels.

    sides: at each stride. ratios: of height to width. Source: torchvision's AnchorGenerator, which rounds the corners.
    """
    result = []
    height, width = size
    down, across = (height + 7) // 8, (width + 7) // 8
    roots = np.sqrt(np.array(ratios, np.float32))
    for own in sides:
        high, wide = np.outer(roots, own).ravel(), np.outer(1 / roots, own).ravel()
        base = np.rint(np.stack([-wide, -high, wide, high], 1).astype(np.float32) / 2)
        y, x = np.meshgrid(np.arange(down) * (height // down), np.arange(across) * (width // across), indexing="ij")
        shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        result.append((shifts + base).reshape(-1, 4).astype(np.float32))
        down, across = (down + 1) // 2, (across + 1) // 2
    return np.concatenate(result)


def moved(anchors: Any, offsets: Any, weights: Sequence[float] = (1, 1, 1, 1)) -> Any:
    """Corners (A, 4) of anchors moved by offsets (A, 4) of the center and logarithms of sizes, as R-CNN has them.

    Sizes grow at most by 1000 / 16. Source: torchvision's BoxCoder.
    """
    sizes = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + 0.5 * sizes
    scaled = offsets / np.array(weights, np.float32)
    centers = scaled[:, :2] * sizes + centers
    half = 0.5 * np.exp(np.minimum(scaled[:, 2:], np.float32(np.log(1000.0 / 16)))) * sizes
    return np.concatenate([centers - half, centers + half], 1)


def within(boxes: Any, size: tuple[int, int]) -> Any:
    """Corners moved into an input of (height, width)."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
