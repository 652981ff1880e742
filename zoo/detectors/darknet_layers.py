"""The layers of darknet, one module each, with the parameter names of `formats.darknet`.

Source: the files `src/*_layer.c` of AlexeyAB/darknet, and of pjreddie/darknet where it agrees.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.formats.darknet_cfg import Layer, source_layers
from zoonet.ops.errors import FormatError, UnsupportedFormatError
from zoonet.zoo.detectors.darknet_activations import ACTIVATIONS
from zoonet.zoo.layers import kaiming_normal, undrawn
from zoonet.zoo.modules import Array, Module

_EPS, _MOMENTUM = 1e-5, 0.05


class DarknetLayer(Module):
    """Base: a layer of a .cfg. sources: the numbers of the earlier layers that it takes beside its input."""

    buffers = ("means", "variances")

    def __init__(self, layer: Layer, layers: list[Layer]) -> None:
        self.sources: tuple[int, ...] = ()
        self.input_shape, self.output_shape = layer.input_shape, layer.output_shape
        for role, shape in layer.parameters:
            setattr(self, role, undrawn(*shape))
        self.build(layer, layers)
        self._draw()

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""

    def reset(self, rng: np.random.Generator) -> None:
        """Draw weights for leaky ReLUs (He et al., 2015); scales and variances 1, the rest 0."""
        for role, array in list(vars(self).items()):
            if role in ("scales", "variances"):
                setattr(self, role, np.ones(array.shape, np.float32))
            elif role in ("biases", "means"):
                setattr(self, role, np.zeros(array.shape, np.float32))
            elif role == "weights":
                self.weights = kaiming_normal(rng, array.shape, max(1, math.prod(array.shape[1:])))

    def normalised(self, x: Array) -> Array:
        """Batch normalisation where the layer has statistics, else the biases alone; channels are on axis 1."""
        values = vars(self)
        if "scales" not in values:
            return x + ops.reshape(values["biases"], (1, -1, *[1] * (len(x.shape) - 2)))
        scales, biases = values["scales"], values["biases"]
        if not self.training:
            return ops.batch_norm(x, values["means"], values["variances"], scales, biases, _EPS)
        y, self.means, self.variances = ops.batch_norm_training(
            x, scales, biases, values["means"], values["variances"], _MOMENTUM, _EPS
        )
        return y


def activation_of(layer: Layer, usual: str = "linear") -> Any:
    """The activation that a section names. Raises UnsupportedFormatError for an unknown one."""
    name = layer.section.options.get("activation", usual).lower()
    if name not in ACTIVATIONS:
        raise UnsupportedFormatError(
            f"{layer.section.place}: there is no activation {name!r}",
            expected=", ".join(ACTIVATIONS),
        )
    return ACTIVATIONS[name]


def _refuse(layer: Layer, *names: str) -> None:
    """Raise UnsupportedFormatError for an option that changes what the layer computes, and is not run."""
    for name in names:
        if layer.section.integer(name, 0):
            raise UnsupportedFormatError(f"{layer.section.place}: the option {name!r} is not run")


class Convolutional(DarknetLayer):
    """Convolution, batch norm or biases, activation: (N, C, H, W) -> (N, filters, H', W')."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        _refuse(layer, "binary", "xnor", "antialiasing", "share_index", "assisted_excitation", "deform", "flipped")
        section = layer.section
        size, stride = section.positive("size", 1), section.positive("stride", 1)
        self.stride = (section.positive("stride_y", stride), section.positive("stride_x", stride))
        self.groups = section.positive("groups", 1)
        self.dilation = section.positive("dilation", 1) if size > 1 else 1
        self.padding = (size // 2 if section.integer("pad", 0) else section.integer("padding", 0)) * self.dilation
        self.activation = activation_of(layer, "logistic")

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, filters, H', W')."""
        values = vars(self)
        plain = values["biases"] if "scales" not in values else None
        y = ops.conv(x, values["weights"], plain, self.stride, self.padding, self.dilation, self.groups)
        return self.activation(y if plain is not None else self.normalised(y))


class Connected(DarknetLayer):
    """Linear layer, batch norm or biases, activation: (N, …) -> (N, output, 1, 1)."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        self.activation = activation_of(layer, "logistic")

    def forward(self, x: Array) -> Array:
        """(N, …) -> (N, output, 1, 1)."""
        y = ops.linear(ops.reshape(x, (x.shape[0], -1)), vars(self)["weights"])
        y = self.activation(self.normalised(y))
        return ops.reshape(y, (*y.shape, 1, 1))


class BatchNorm(DarknetLayer):
    """Batch normalisation alone: (N, C, H, W) -> the same."""

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        return self.normalised(x)


class Shortcut(DarknetLayer):
    """The input plus earlier layers, each weighted where the section says so; the fewest channels are added."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        section = layer.section
        found = source_layers(section, "from", layers)
        for source in found:
            if source.output_shape[1:] != layer.input_shape[1:]:
                raise section.error(
                    f"layer {source.index} has another height or width",
                    received=f"{source.output_shape} and {layer.input_shape}",
                )
        self.sources = tuple(source.index for source in found)
        self.activation = activation_of(layer)
        self.normalization = section.options.get("weights_normalization", "none")

    def forward(self, x: Array, *others: Array) -> Array:
        """(N, C, H, W) and others (N, C', H, W) -> (N, C, H, W)."""
        weights = self._weights()
        channels = x.shape[1]
        y = x if weights is None else x * weights[0]
        for position, other in enumerate(others, start=1):
            other = other[:, :channels]
            if weights is not None:
                weight = weights[position]
                other = other * (weight[:, : other.shape[1]] if len(weight.shape) > 1 else weight)
            missing = channels - other.shape[1]
            y = y + (ops.pad(other, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else other)
        return self.activation(y)

    def _weights(self) -> list[Array] | None:
        """A weight of each layer, one number, or one per channel as (1, C, 1, 1)."""
        weights = vars(self).get("weights")
        if weights is None:
            return None
        if self.normalization in ("relu", "avg_relu"):
            positive = ops.relu(weights)
            weights = positive / (ops.sum(positive, 0, keepdims=True) + 1e-4)
        elif self.normalization == "softmax":
            powers = ops.exp(weights - ops.stop_gradient(ops.max(weights, 0, keepdims=True)))
            weights = powers / (ops.sum(powers, 0, keepdims=True) + 1e-4)
        rows = [weights[i] for i in range(weights.shape[0])]
        return [ops.reshape(row, (1, -1, 1, 1)) if len(row.shape) else row for row in rows]


class Route(DarknetLayer):
    """Earlier layers, or one group of the channels of each, one after the other."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        section = layer.section
        found = source_layers(section, "layers", layers)
        if len({source.output_shape[1:] for source in found}) > 1:
            shapes = ", ".join(f"layer {source.index}: {source.output_shape}" for source in found)
            raise section.error("layers of different height or width cannot be joined", received=shapes)
        self.sources = tuple(source.index for source in found)
        self.groups, self.group = section.positive("groups", 1), section.integer("group_id", 0)
        uneven = any(source.output_shape[0] % self.groups for source in found)
        if uneven or not 0 <= self.group < self.groups:
            raise section.error("there is no such group of channels", received=f"{self.group} of {self.groups}")

    def forward(self, x: Array, *others: Array) -> Array:
        """Arrays (N, C, H, W) -> (N, sum of C / groups, H, W)."""
        parts = []
        for other in others:
            width = other.shape[1] // self.groups
            parts.append(other if self.groups == 1 else other[:, self.group * width : (self.group + 1) * width])
        return parts[0] if len(parts) == 1 else ops.concat(parts, 1)


class Pool(DarknetLayer):
    """Maxima, or means of what is in the picture, of windows: (N, C, H, W) -> (N, C, H', W')."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        _refuse(layer, "antialiasing")
        section = layer.section
        stride = section.positive("stride", 1)
        self.size = section.positive("size", stride)
        self.stride = (section.positive("stride_y", stride), section.positive("stride_x", stride))
        padding = section.integer("padding", self.size - 1)
        # Half before, rounded down. What no window reaches is padded all the same: it would depend on the input's size.
        self.pads = ((padding // 2, padding - padding // 2),) * 2
        self.mean = section.kind == "local_avgpool"
        self.depth = section.integer("maxpool_depth", 0) and layer.output_shape[0]
        if self.depth and layer.input_shape[0] % self.depth:
            raise section.error("out_channels do not divide the channels", received=str(layer.input_shape[0]))

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H', W'); with maxpool_depth (N, out_channels, H, W)."""
        if self.depth:
            n, channels, height, width = x.shape
            return ops.max(ops.reshape(x, (n, channels // self.depth, self.depth, height, width)), 1)
        if self.mean:
            return ops.avg_pool(x, self.size, self.stride, self.pads, count_include_pad=False)
        return ops.max_pool(x, self.size, self.stride, self.pads)


class GlobalAverage(DarknetLayer):
    """The mean of each channel: (N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        return ops.mean(x, (2, 3), keepdims=True)


class Upsample(DarknetLayer):
    """Each pixel as a square of equal ones, times a scale: (N, C, H, W) -> (N, C, stride·H, stride·W)."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        self.stride = layer.section.positive("stride", 2)
        try:
            self.scale = float(layer.section.options.get("scale", "1"))
        except ValueError:
            raise layer.section.error("option 'scale' is not a number") from None

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, stride·H, stride·W)."""
        y = ops.interpolate(x, scale_factor=self.stride)
        return y if self.scale == 1 else y * self.scale


class Reorganise(DarknetLayer):
    """Blocks of pixels as channels. [reorg] does it to the array reread as one of fewer channels, as YOLOv2 needs."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        self.stride = layer.section.positive("stride", 1)
        self.reverse = bool(layer.section.integer("reverse", 0))
        self.plain = layer.section.kind == "reorg3d"
        channels, height, width = layer.input_shape
        square = self.stride**2
        if channels % square if self.reverse or not self.plain else height % self.stride or width % self.stride:
            raise layer.section.error("its input cannot be cut into blocks", received=str(layer.input_shape))

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C·s², H/s, W/s), or with reverse (N, C/s², H·s, W·s)."""
        s, (n, c, h, w) = self.stride, x.shape
        if self.reverse:
            y = ops.reshape(x, (n, s, s, c // s**2, h, w))
            return ops.reshape(ops.transpose(y, (0, 3, 4, 1, 5, 2)), (n, c // s**2, h * s, w * s))
        if not self.plain:
            x = ops.reshape(x, (n, c // s**2, h * s, w * s))
        inner = x.shape
        y = ops.reshape(x, (n, inner[1], inner[2] // s, s, inner[3] // s, s))
        y = ops.transpose(y, (0, 3, 5, 1, 2, 4))
        return ops.reshape(y, (n, c * s**2, h // s, w // s))


class Product(DarknetLayer):
    """[sam] and [scale_channels]: an earlier layer times the input, which may be one number per channel or place."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        self.sources = (source_layers(layer.section, "from", layers)[0].index,)
        other = layers[self.sources[0]].output_shape
        if layer.section.kind == "sam" and other != layer.input_shape:
            raise layer.section.error("its layers differ in shape", received=f"{layer.input_shape} and {other}")
        self.activation = activation_of(layer)

    def forward(self, x: Array, other: Array) -> Array:
        """(N, C, H, W), (N, C, 1, 1) or (N, 1, H, W), and (N, C, H, W) -> (N, C, H, W)."""
        return self.activation(x * other)


class Implicit(DarknetLayer):
    """[implicit_add], [implicit_mul]: learned numbers that depend on no input, (1, filters, atoms, 1)."""

    def forward(self, x: Array) -> Array:
        """Anything -> (1, filters, atoms, 1)."""
        weights = vars(self)["weights"]
        return ops.reshape(weights, (1, *weights.shape, 1))


class Softmax(DarknetLayer):
    """Probabilities over all numbers of a picture, or over each of several groups: the shape of the input."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        if "tree" in layer.section.options:
            raise UnsupportedFormatError(f"{layer.section.place}: class trees are not run")
        self.groups = layer.section.positive("groups", 1)
        try:
            self.temperature = float(layer.section.options.get("temperature", "1"))
        except ValueError:
            raise layer.section.error("option 'temperature' is not a number") from None
        if not self.temperature > 0 or math.prod(layer.input_shape) % self.groups:
            raise layer.section.error("groups or temperature do not fit", received=str(layer.section.options))

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        rows = ops.reshape(x, (x.shape[0], self.groups, -1))
        return ops.reshape(ops.softmax(rows / self.temperature, -1), tuple(x.shape))


class Same(DarknetLayer):
    """Layers that change nothing at inference: [dropout], [cost], [empty], [silence]."""

    def forward(self, x: Array) -> Array:
        """The input."""
        return x


class Activation(DarknetLayer):
    """An activation alone, [activation] and [logistic]."""

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        self.activation = activation_of(layer, "logistic" if layer.section.kind == "logistic" else "linear")

    def forward(self, x: Array) -> Array:
        """Any shape -> the same."""
        return self.activation(x)


class DetectionHead(DarknetLayer):
    """[yolo] and [region]: per cell and anchor x, y, log width, log height, objectness and classes.

    The logistic function is applied to x, y, objectness and (yolo) classes; region has a softmax over classes.
    scale: of x and y around a half, `scale_x_y`. raw: with new_coords the convolution before has done it all.
    """

    def build(self, layer: Layer, layers: list[Layer]) -> None:
        """Read the options."""
        section = layer.section
        self.region = section.kind == "region"
        self.classes = section.positive("classes", 20)
        if section.integer("coords", 4) != 4 or "tree" in section.options:
            raise UnsupportedFormatError(f"{section.place}: class trees and masks in heads are not run")
        self.anchors = tuple(_anchors(layer))
        self.raw = bool(section.integer("new_coords", 0))
        self.independent = self.region and not section.integer("softmax", 0)
        try:
            self.scale = float(section.options.get("scale_x_y", "1"))
        except ValueError:
            raise section.error("option 'scale_x_y' is not a number") from None
        wanted = len(self.anchors) * (5 + self.classes)
        if layer.input_shape[0] != wanted:
            raise section.error(
                f"{len(self.anchors)} anchors of 5 + {self.classes} numbers take {wanted} channels",
                received=f"{layer.input_shape[0]}: filters of the layer before must be {wanted}",
            )

    def forward(self, x: Array) -> Array:
        """(N, anchors·(5 + classes), H, W) -> the same shape."""
        n, channels, height, width = x.shape
        y = ops.reshape(x, (n, len(self.anchors), 5 + self.classes, height, width))
        places, sizes, objects, classes = y[:, :, 0:2], y[:, :, 2:4], y[:, :, 4:5], y[:, :, 5:]
        if not self.raw:
            places, objects = ops.sigmoid(places), ops.sigmoid(objects)
            if not self.region:
                classes = ops.sigmoid(classes)
            elif not self.independent:
                classes = ops.softmax(classes, 2)
        if self.scale != 1:
            places = places * self.scale - 0.5 * (self.scale - 1)
        return ops.reshape(ops.concat([places, sizes, objects, classes], 2), (n, channels, height, width))


def _anchors(layer: Layer) -> list[tuple[float, float]]:
    """The widths and heights of a head's anchors, those of its mask."""
    section = layer.section
    number = section.positive("num", 1)
    try:
        values = [float(part) for part in section.options.get("anchors", "").split(",") if part.strip()]
    except ValueError:
        raise section.error("option 'anchors' is not a list of numbers") from None
    if not values:
        values = [0.5] * (2 * min(number, 1000))
    pairs = list(zip(values[::2], values[1::2], strict=False))[:number]
    mask = section.integers("mask") if "mask" in section.options else range(len(pairs))
    if any(not 0 <= index < len(pairs) for index in mask) or not all(math.isfinite(n) for n in values):
        raise section.error("option 'mask' names no anchor", received=section.options.get("mask"))
    return [pairs[index] for index in mask]


LAYERS: dict[str, type[DarknetLayer]] = {
    "convolutional": Convolutional,
    "connected": Connected,
    "batchnorm": BatchNorm,
    "shortcut": Shortcut,
    "route": Route,
    "maxpool": Pool,
    "local_avgpool": Pool,
    "avgpool": GlobalAverage,
    "upsample": Upsample,
    "reorg": Reorganise,
    "reorg3d": Reorganise,
    "sam": Product,
    "scale_channels": Product,
    "implicit_add": Implicit,
    "implicit_mul": Implicit,
    "softmax": Softmax,
    "dropout": Same,
    "cost": Same,
    "empty": Same,
    "silence": Same,
    "activation": Activation,
    "logistic": Activation,
    "yolo": DetectionHead,
    "region": DetectionHead,
}


def build_layer(layer: Layer, layers: list[Layer]) -> DarknetLayer:
    """The module of a layer. layers: those before it. Raises FormatError or UnsupportedFormatError."""
    kind = LAYERS.get(layer.section.kind)
    if kind is None:
        raise UnsupportedFormatError(
            f"{layer.section.place}: layers of this type are not run",
            expected=", ".join(LAYERS),
        )
    try:
        return kind(layer, layers)
    except OverflowError:
        raise FormatError(f"{layer.section.place}: a number is out of range") from None
