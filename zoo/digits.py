"""The embedded default: a small network for pictures of one digit, and the preprocessing that finds the digit.

    python -m zoonet.zoo.train_digits

trains it again on scikit-learn's digits (see train_digits.py) and writes data/digits.safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.zoo.ink import find_ink, fit_box
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Linear, kaiming_normal
from zoonet.zoo.modules import Array, Module, sizes

if TYPE_CHECKING:
    from PIL.Image import Image

Plane = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DigitNetConfig:
    """widths: channels of the three convolutions."""

    widths: tuple[int, int, int] = (16, 32, 64)
    classes: int = 10
    channels: int = 1


class DigitNet(Module):
    """Three 3×3 convolutions with batch norm and ReLU, and a linear layer: (N, 1, 24, 24) -> scores (N, 10)."""

    def __init__(self, config: DigitNetConfig) -> None:
        self.config = config
        first, second, third = config.widths
        self.conv1, self.bn1 = Conv2d(config.channels, first, 3), BatchNorm2d(first)
        self.conv2, self.bn2 = Conv2d(first, second, 3), BatchNorm2d(second)
        self.conv3, self.bn3 = Conv2d(second, third, 3), BatchNorm2d(third)
        self.fc = Linear(third * 9, config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: DigitNetConfig, shapes: Mapping[str, Any]) -> DigitNetConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        return replace(config, **sizes(shapes, classes=("fc.weight", 0), channels=("conv1.weight", 1)))

    def reset(self, rng: np.random.Generator) -> None:
        """Draw convolutions for the ReLU after them (He et al., 2015)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            conv.weight = kaiming_normal(rng, conv.weight.shape, int(np.prod(conv.weight.shape[1:])))

    def forward(self, x: Array) -> Array:
        """(N, 1, 24, 24) -> (N, 10)."""
        x = ops.max_pool(ops.relu(self.bn1(self.conv1(x))), 2, 2)  # (N, 16, 12, 12)
        x = ops.max_pool(ops.relu(self.bn2(self.conv2(x))), 2, 2)  # (N, 32, 6, 6)
        x = ops.max_pool(ops.relu(self.bn3(self.conv3(x))), 2, 2)  # (N, 64, 3, 3)
        return self.fc(ops.reshape(x, (x.shape[0], -1)))


DIGIT_NETS = {"digitnet": DigitNetConfig()}


@dataclass(frozen=True)
class DigitPreprocessing:
    """Find the digit in a picture and bring it to the form that DigitNet takes.

    Colours become the grey in which details show best. The background is estimated and removed (so shadows and
    gradients go), ink is what differs from it, dark or light; the digit is the heaviest connected piece of ink with
    what belongs to it; it is scaled to fit `box` pixels and centred in `size`. Ink is 1 and paper 0.
    """

    size: int = 24
    box: int = 20

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and isinstance(self.box, int) and 4 <= self.box <= self.size <= 512):
            raise ArgumentError(
                "digit preprocessing has wrong sizes", expected="4 ≤ box ≤ size", received=(self.box, self.size)
            )

    mode = "RGB"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DigitPreprocessing:
        """The inverse of `to_config`."""
        return cls(**config)

    def to_config(self) -> dict[str, Any]:
        """Plain data for a configuration file."""
        return asdict(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every result."""
        return 1, self.size, self.size

    def __call__(self, image: Image) -> Plane:
        """A PIL image of mode RGB -> float32 (1, size, size). Raises InputError for a picture of one colour."""
        return fit_box(find_ink(image), self.box, self.size)[None]
