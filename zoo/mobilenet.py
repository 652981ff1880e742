"""MobileNets: depthwise separable convolutions, and what became of them.

v1 (Howard et al., 2017): parameter names and stages are those of the backbone of biubug6/Pytorch_Retinaface, whose
ImageNet weights at width 0.25 are the ones that people hold. v2 (Sandler et al., 2018) and v3 (Howard et al., 2019)
have the names of torchvision's. The same networks are trained with other epsilons and paddings elsewhere: variants
stand for timm's (`mobilenetv3_large_100`) and for those of TensorFlow, which keras.applications and transformers have
(`…_keras`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.windows import Padding
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Dropout, Linear, Sequential, kaiming_normal, linear_or_none
from zoonet.zoo.modules import Array, Module, sizes


@dataclass(frozen=True)
class MobileNetConfig:
    """width: multiplier of all channels. slope: of the leaky ReLU for negative numbers. limit: of a ReLU, 0 for none.

    The paper has a ReLU; TensorFlow's weights have one with the limit 6. eps: of batch norms. padding: see `_padded`.
    """

    width: float = 1.0
    slope: float = 0.0
    limit: float = 0.0
    classes: int = 1000
    channels: int = 3
    eps: float = 1e-5
    padding: str = "both"


class Activation(Module):
    """Leaky ReLU with a fixed slope, or a ReLU with a limit."""

    def __init__(self, slope: float, limit: float) -> None:
        self.slope, self.limit = slope, limit

    def forward(self, x: Array) -> Array:
        """Any shape -> the same."""
        y = ops.leaky_relu(x, self.slope) if self.slope else ops.relu(x)
        return ops.minimum(y, self.limit) if self.limit else y


def _padded(inputs: int, outputs: int, kernel: int, stride: int, groups: int, padding: str) -> Conv2d:
    """A convolution. With a stride it is padded as the weights were trained.

    padding: "both": half a kernel of zeros on every side; "same": every row and column is covered, as SAME of
    TensorFlow; "after": zeros after the picture whatever its size, as keras.applications' first MobileNet.
    Without a stride all three are half a kernel.
    """
    zeros: Padding | None = {"both": None, "same": "same", "after": ((0, kernel - stride),) * 2}[padding]
    return Conv2d(inputs, outputs, kernel, stride, padding=zeros if stride > 1 else None, groups=groups)


def _plain(config: MobileNetConfig, inputs: int, outputs: int, stride: int, act: Activation) -> Sequential:
    """3×3 convolution: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    padding = "same" if config.padding == "after" else config.padding
    return Sequential(_padded(inputs, outputs, 3, stride, 1, padding), BatchNorm2d(outputs, eps=config.eps), act)


def _separable(config: MobileNetConfig, inputs: int, outputs: int, stride: int, act: Activation) -> Sequential:
    """3×3 in each channel, then 1×1 across: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    return Sequential(
        _padded(inputs, inputs, 3, stride, inputs, config.padding),
        BatchNorm2d(inputs, eps=config.eps),
        act,
        Conv2d(inputs, outputs, 1),
        BatchNorm2d(outputs, eps=config.eps),
        act,
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
        inputs, act = config.channels, Activation(config.slope, config.limit)
        for number, stage in enumerate(self.STAGES, start=1):
            blocks: list[Module] = []
            for channels, stride in stage:
                outputs = max(8, int(channels * config.width))
                block = _separable if number > 1 or blocks else _plain
                blocks.append(block(config, inputs, outputs, stride, act))
                inputs = outputs
            setattr(self, f"stage{number}", Sequential(*blocks))
        self.fc = linear_or_none(inputs, config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: MobileNetConfig, shapes: Mapping[str, Any]) -> MobileNetConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        return replace(config, **sizes(shapes, classes=("fc.weight", 0), channels=("stage1.0.0.weight", 1)))

    @classmethod
    def resized(cls, config: MobileNetConfig, shapes: Mapping[str, Any]) -> MobileNetConfig:
        """The configuration with the width of a state dict too."""
        widest = sizes(shapes, outputs=("fc.weight", 1)).get("outputs", 0)
        return replace(cls.fit(config, shapes), width=widest / 1024) if widest else config

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


# -- v2 and v3 -----------------------------------------------------------------------------------------------------


def _whole(channels: float, least: int = 8) -> int:
    """The multiple of 8 nearest to a number of channels, not less than nine tenths of it."""
    rounded = max(least, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(
    config: InvertedConfig, inputs: int, outputs: int, kernel: int, stride: int, act: Any, groups: int = 1
) -> Sequential:
    """Convolution, batch norm, and an activation or None: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
    norm = BatchNorm2d(outputs, eps=config.eps, momentum=0.1 if config.eps < 1e-3 else 0.01)
    layers = [_padded(inputs, outputs, kernel, stride, groups, config.padding), norm]
    return Sequential(*layers, act) if act is not None else Sequential(*layers)


class SqueezeExcitation(Module):
    """Scales each channel by what the means of all say (Hu et al., 2018): (N, C, H, W) -> the same."""

    def __init__(self, channels: int, squeezed: int) -> None:
        self.fc1 = Conv2d(channels, squeezed, 1, bias=True)
        self.fc2 = Conv2d(squeezed, channels, 1, bias=True)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        scale = ops.relu(self.fc1(ops.mean(x, (2, 3), True)))  # (N, squeezed, 1, 1)
        return x * ops.hardsigmoid(self.fc2(scale))


@dataclass(frozen=True)
class Row:
    """A block: kernel, channels inside (a factor of the inputs in v2) and out, squeeze, activation, stride, repeats."""

    kernel: int
    inside: int
    outputs: int
    squeeze: bool = False
    act: str = "relu"
    stride: int = 1
    count: int = 1


@dataclass(frozen=True)
class InvertedConfig:
    """What tells v2 and v3 apart. version: 2 or 3. rows: names a table of blocks. last: channels before the classes.

    eps: of batch norms. padding: see `_padded`. by_inputs: in v3 of another width a block is wider inside by as much
    as its inputs are, as those of timm and Keras, else by the multiplier, as torchvision's.
    """

    rows: str
    version: int = 3
    last: int = 1280
    width: float = 1.0
    dropout: float = 0.2
    classes: int = 1000
    channels: int = 3
    eps: float = 1e-3
    padding: str = "both"
    by_inputs: bool = False

    @property
    def last_factor(self) -> float:
        """Multiplier of `last`: Keras's and timm's narrow networks keep all of these channels."""
        return max(1.0, self.width) if self.by_inputs else self.width


class InvertedResidual(Module):
    """1×1 to more channels, 3×3 or 5×5 in each, 1×1 to few; plus x where shapes allow.

    (N, inputs, H, W) -> (N, outputs, H/stride, W/stride). Its layers are named "conv" in v2 and "block" in v3.
    """

    def __init__(self, config: InvertedConfig, inputs: int, inside: int, outputs: int, row: Row, stride: int) -> None:
        act = {"relu6": ops.relu6, "relu": ops.relu, "hardswish": ops.hardswish}[row.act]
        layers: list[Any] = [] if inside == inputs else [_conv(config, inputs, inside, 1, 1, act)]
        layers.append(_conv(config, inside, inside, row.kernel, stride, act, groups=inside))
        if row.squeeze:
            layers.append(SqueezeExcitation(inside, _whole(inside // 4)))
        last = _conv(config, inside, outputs, 1, 1, None)
        second = config.version == 2
        layers += [last[0], last[1]] if second else [last]
        self._layers = Sequential(*layers)
        setattr(self, "conv" if second else "block", self._layers)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = self._layers(x)
        return y + x if self._adds else y


class InvertedMobileNet(Module):
    """MobileNet v2 and v3: pictures (N, channels, H, W) -> scores (N, classes)."""

    def __init__(self, config: InvertedConfig) -> None:
        self.config = config
        second = config.version == 2
        act = ops.relu6 if second else ops.hardswish
        inputs = _whole((32 if second else 16) * config.width)
        layers: list[Module] = [_conv(config, config.channels, inputs, 3, 2, act)]  # (N, 16 or 32, H/2, W/2)
        usual = 16  # the channels that come in at width 1
        for row in ROWS[config.rows]:
            outputs = _whole(row.outputs * config.width)
            for number in range(row.count):
                factor = inputs / usual if config.by_inputs else config.width
                inside = inputs * row.inside if second else _whole(row.inside * factor)
                stride = row.stride if number == 0 else 1
                layers.append(InvertedResidual(config, inputs, inside, outputs, row, stride))
                inputs, usual = outputs, row.outputs
        wide = _whole(1280 * max(1.0, config.width)) if second else 6 * inputs
        self.features = Sequential(*layers, _conv(config, inputs, wide, 1, 1, act))  # (N, wide, H/32, W/32)
        drop = Dropout(config.dropout)
        if second:
            self.classifier = Sequential(drop, linear_or_none(wide, config.classes))
        else:
            last = _whole(config.last * config.last_factor)
            self.classifier = Sequential(Linear(wide, last), ops.hardswish, drop, linear_or_none(last, config.classes))
        self._draw()

    @classmethod
    def fit(cls, config: InvertedConfig, shapes: Mapping[str, Any]) -> InvertedConfig:
        """The configuration with as many classes and channels as the arrays of a state dict have."""
        head = "classifier.1.weight" if config.version == 2 else "classifier.3.weight"
        return replace(config, **sizes(shapes, classes=(head, 0), channels=("features.0.0.weight", 1)))

    @classmethod
    def resized(cls, config: InvertedConfig, shapes: Mapping[str, Any]) -> InvertedConfig:
        """The configuration with the width of a state dict too, and in v3 with its channels before the classes."""
        fitted, second = cls.fit(config, shapes), config.version == 2
        name = f"features.{sum(row.count for row in ROWS[config.rows]) + 1}.0.weight"
        found = sizes(shapes, stem=("features.0.0.weight", 0), wide=(name, 0), inputs=(name, 1))
        for width in WIDTHS:
            inputs = _whole(ROWS[config.rows][-1].outputs * width)
            wide = _whole(1280 * max(1.0, width)) if second else 6 * inputs
            if found == {"stem": _whole((32 if second else 16) * width), "wide": wide, "inputs": inputs}:
                last = sizes(shapes, last=("classifier.0.weight", 0)).get("last", 0)
                wider = replace(fitted, width=width)
                kept = second or _whole(config.last * wider.last_factor) == last
                return wider if kept else replace(wider, last=round(last / wider.last_factor))
        return fitted

    def reset(self, rng: np.random.Generator) -> None:
        """Draw convolutions by the number of outputs (He et al., 2015), linear layers normal with deviation 0.01."""
        for _, module in self.named_modules():
            if isinstance(module, Conv2d):
                outputs, _, height, width = module.weight.shape
                module.weight = kaiming_normal(rng, module.weight.shape, outputs * height * width)
                if module.bias is not None:
                    module.bias = np.zeros(outputs, np.float32)
            elif isinstance(module, Linear):
                module.weight = rng.standard_normal(module.weight.shape, np.float32) * np.float32(0.01)
                module.bias = np.zeros(module.weight.shape[0], np.float32)

    def forward(self, x: Array) -> Array:
        """(N, channels, H, W) -> (N, classes)."""
        return self.classifier(ops.mean(self.features(x), (2, 3)))


ROWS = {
    "v2": (
        Row(3, 1, 16, act="relu6"),
        Row(3, 6, 24, act="relu6", stride=2, count=2),
        Row(3, 6, 32, act="relu6", stride=2, count=3),
        Row(3, 6, 64, act="relu6", stride=2, count=4),
        Row(3, 6, 96, act="relu6", count=3),
        Row(3, 6, 160, act="relu6", stride=2, count=3),
        Row(3, 6, 320, act="relu6"),
    ),
    "v3_large": (
        Row(3, 16, 16),
        Row(3, 64, 24, stride=2),
        Row(3, 72, 24),
        Row(5, 72, 40, True, stride=2),
        Row(5, 120, 40, True, count=2),
        Row(3, 240, 80, act="hardswish", stride=2),
        Row(3, 200, 80, act="hardswish"),
        Row(3, 184, 80, act="hardswish", count=2),
        Row(3, 480, 112, True, "hardswish"),
        Row(3, 672, 112, True, "hardswish"),
        Row(5, 672, 160, True, "hardswish", stride=2),
        Row(5, 960, 160, True, "hardswish", count=2),
    ),
    "v3_small": (
        Row(3, 16, 16, True, stride=2),
        Row(3, 72, 24, stride=2),
        Row(3, 88, 24),
        Row(5, 96, 40, True, "hardswish", stride=2),
        Row(5, 240, 40, True, "hardswish", count=2),
        Row(5, 120, 48, True, "hardswish"),
        Row(5, 144, 48, True, "hardswish"),
        Row(5, 288, 96, True, "hardswish", stride=2),
        Row(5, 576, 96, True, "hardswish", count=2),
    ),
}

#: Multipliers of channels that a state dict is tried with: those that somebody published, then every twentieth.
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.2, 1.25, 1.3, 1.4, 1.5, 2.0, *(n / 20 for n in range(2, 61)))
_TENSORFLOW: dict[str, Any] = {"eps": 1e-3, "padding": "same"}

#: Every variant of v1 by name.
MOBILENETS: dict[str, MobileNetConfig] = {
    "mobilenetv1_025": MobileNetConfig(0.25, slope=0.1),
    "mobilenetv1_050": MobileNetConfig(0.5, limit=6.0),
    "mobilenetv1_075": MobileNetConfig(0.75, limit=6.0),
    "mobilenetv1": MobileNetConfig(limit=6.0),
    "mobilenetv1_tf": MobileNetConfig(limit=6.0, **_TENSORFLOW),
    "mobilenetv1_keras": MobileNetConfig(limit=6.0, eps=1e-3, padding="after"),
}
#: Every variant of v2 and v3 by name.
INVERTED_MOBILENETS: dict[str, InvertedConfig] = {
    "mobilenet_v2": InvertedConfig("v2", 2, eps=1e-5),
    "mobilenet_v2_keras": InvertedConfig("v2", 2, **_TENSORFLOW),
    "mobilenet_v3_large": InvertedConfig("v3_large"),
    "mobilenet_v3_small": InvertedConfig("v3_small", last=1024),
    "mobilenetv3_large_100": InvertedConfig("v3_large", eps=1e-5, by_inputs=True),
    "mobilenetv3_small_100": InvertedConfig("v3_small", last=1024, eps=1e-5, by_inputs=True),
    "mobilenet_v3_large_keras": InvertedConfig("v3_large", by_inputs=True, **_TENSORFLOW),
    "mobilenet_v3_small_keras": InvertedConfig("v3_small", last=1024, by_inputs=True, **_TENSORFLOW),
}
#: Variants whose arrays have the shapes of another's: whose names tell them apart, in files that say no more.
OF_VOCABULARY = {
    "mobilenetv1_tf": "Hugging Face",
    "mobilenetv1_keras": "keras.applications",
    "mobilenet_v2_keras": "Hugging Face, keras.applications",
    "mobilenetv3_large_100": "timm",
    "mobilenetv3_small_100": "timm",
    "mobilenet_v3_large_keras": "keras.applications",
    "mobilenet_v3_small_keras": "keras.applications",
}
