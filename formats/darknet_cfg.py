"""Darknet's .cfg: sections of options, the shapes they imply, and the parameters they have in a .weights file.

Source: `src/parser.c` of AlexeyAB/darknet (a superset of pjreddie/darknet). Sizes are (channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from zoonet.ops.errors import FormatError, UnsupportedFormatError

Shape = tuple[int, ...]
_MAX_NUMBER = 2**31

# Layers that have no parameters and keep the shape of their input.
_SAME_SHAPE = frozenset(
    {"activation", "cost", "detection", "dropout", "empty", "gaussian_yolo", "iseg", "l2norm", "logistic", "lrn"}
    | {"normalization", "region", "sam", "silence", "softmax", "yolo"}
)
_ALIASES = {
    "conv": "convolutional",
    "conn": "connected",
    "max": "maxpool",
    "avg": "avgpool",
    "net": "network",
}


@dataclass
class Section:
    """One section of a .cfg: its type, the line it starts on, the number of its layer (-1 for [net]), its options."""

    kind: str
    line: int
    index: int = -1
    options: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"cfg, line {self.line}, " + (f"layer {self.index} " if self.index >= 0 else "") + f"[{self.kind}]"

    def integer(self, name: str, default: int) -> int:
        """An option as an integer in the range of C's int."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = int(float(text)) if len(text) < 40 else _MAX_NUMBER
        except (ValueError, OverflowError):
            value = _MAX_NUMBER
        if abs(value) >= _MAX_NUMBER:
            raise self.error(f"option {name!r} is not an integer", received=text[:50])
        return value

    def integers(self, name: str) -> list[int]:
        """An option as a list of integers."""
        try:
            return [int(part) for part in self.options.get(name, "").split(",") if part.strip()]
        except ValueError:
            raise self.error(f"option {name!r} is not a list of integers") from None

    def positive(self, name: str, default: int) -> int:
        """An option as an integer of at least one."""
        value = self.integer(name, default)
        if value < 1:
            raise self.error(f"option {name!r} must be positive", received=str(value))
        return value

    def error(self, message: str, received: str | None = None) -> FormatError:
        """An error that names this section."""
        return FormatError(f"{self.place}: {message}", received=received)


@dataclass
class Layer:
    """A layer with its shapes and its parameters (role, shape) in the order of the file."""

    index: int
    section: Section
    input_shape: Shape
    output_shape: Shape
    parameters: list[tuple[str, Shape]]


def parse_cfg(text: str) -> list[Section]:
    """Split a .cfg into sections. Raises FormatError with the line number."""
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            if "]" not in line:
                raise FormatError(f"cfg, line {number}: a section name without its bracket", received=line[:50])
            kind = line[1 : line.index("]")].strip().lower()
            sections.append(Section(_ALIASES.get(kind, kind), number, len(sections) - 1))
            continue
        key, separator, value = line.partition("=")
        if not separator or not sections:
            raise FormatError(f"cfg, line {number}: expected a section or key=value", received=line[:50])
        sections[-1].options[key.strip()] = value.partition("#")[0].partition(";")[0].strip()
    if not sections or sections[0].kind != "network":
        raise FormatError("a cfg starts with the section [net]", received=sections[0].kind if sections else "nothing")
    return sections


def layers_of(sections: list[Section]) -> list[Layer]:
    """Work out shapes and parameters of all layers. Raises FormatError, UnsupportedFormatError."""
    network = sections[0]
    shape: Shape
    if "inputs" in network.options and "height" not in network.options:
        shape = (network.positive("inputs", 1), 1, 1)
    else:
        shape = (network.positive("channels", 3), network.positive("height", 1), network.positive("width", 1))
    layers: list[Layer] = []
    for index, section in enumerate(sections[1:]):
        rule = _RULES.get(section.kind)
        if rule is None and section.kind not in _SAME_SHAPE:
            raise UnsupportedFormatError(f"{section.place}: layers of this type are not read")
        output, parameters = rule(section, shape, layers) if rule else (shape, [])
        if min(output) < 1 or math.prod(output) >= _MAX_NUMBER:
            raise section.error("its output has no or too many elements", received=str(output))
        if section.integer("dontload", 0):
            parameters = []
        layers.append(Layer(index, section, shape, output, parameters))
        shape = output
    return layers


_Rule = Callable[[Section, Shape, list[Layer]], tuple[Shape, list[tuple[str, Shape]]]]


def _normalised(section: Section, channels: int) -> list[tuple[str, Shape]]:
    if not section.integer("batch_normalize", 0) or section.integer("dontloadscales", 0):
        return []
    return [("scales", (channels,)), ("means", (channels,)), ("variances", (channels,))]


def _window(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + padding - kernel) // stride + 1


def _convolutional(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    channels, height, width = shape
    filters, size = section.positive("filters", 1), section.positive("size", 1)
    groups, stride = section.positive("groups", 1), section.positive("stride", 1)
    dilation = section.positive("dilation", 1) if size > 1 else 1
    padding = (size // 2 if section.integer("pad", 0) else section.integer("padding", 0)) * dilation
    if channels % groups or filters % groups:
        raise section.error("groups do not divide the channels", received=f"{channels}, {filters}, {groups}")
    reach = dilation * (size - 1) + 1
    output = (
        filters,
        _window(height, reach, section.positive("stride_y", stride), 2 * padding),
        _window(width, reach, section.positive("stride_x", stride), 2 * padding),
    )
    if "share_index" in section.options:
        return output, []
    weights = ("weights", (filters, channels // groups, size, size))
    return output, [("biases", (filters,)), *_normalised(section, filters), weights]


def _connected(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    outputs = section.positive("output", 1)
    parameters = [
        ("biases", (outputs,)),
        ("weights", (outputs, math.prod(shape))),
        *_normalised(section, outputs),
    ]
    return (outputs, 1, 1), parameters


def _local(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    channels, height, width = shape
    filters, size, stride = (
        section.positive("filters", 1),
        section.positive("size", 1),
        section.positive("stride", 1),
    )
    # Without padding darknet shrinks by the window, with it by one pixel less than the stride makes.
    reach = 1 if section.integer("pad", 0) else size
    output = (filters, (height - reach) // stride + 1, (width - reach) // stride + 1)
    locations = output[1] * output[2]
    return output, [("biases", (math.prod(output),)), ("weights", (locations, filters, channels, size, size))]


def _batch_norm(_section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    roles = ("biases", "scales", "means", "variances")
    return shape, [(role, (shape[0],)) for role in roles]


def _max_pool(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    channels, height, width = shape
    stride = section.positive("stride", 1)
    size = section.positive("size", stride)
    padding = section.integer("padding", size - 1)
    if section.integer("maxpool_depth", 0):
        return (section.positive("out_channels", 1), height, width), []
    stride_y, stride_x = section.positive("stride_y", stride), section.positive("stride_x", stride)
    return (channels, _window(height, size, stride_y, padding), _window(width, size, stride_x, padding)), []


def _average_pool(_section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    return (shape[0], 1, 1), []


def _upsample(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    stride = section.positive("stride", 2)
    return (shape[0], shape[1] * stride, shape[2] * stride), []


def _reorg(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    stride = section.positive("stride", 1)
    if section.integer("reverse", 0):
        return (shape[0] // stride**2, shape[1] * stride, shape[2] * stride), []
    return (shape[0] * stride**2, shape[1] // stride, shape[2] // stride), []


def _crop(section: Section, shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    return (shape[0], section.positive("crop_height", 1), section.positive("crop_width", 1)), []


def source_layers(section: Section, name: str, layers: list[Layer]) -> list[Layer]:
    """The earlier layers that an option refers to: absolute numbers, or negative ones relative to this layer."""
    result = []
    for number in section.integers(name):
        index = number if number >= 0 else len(layers) + number
        if not 0 <= index < len(layers):
            raise section.error(f"option {name!r} refers to no earlier layer", received=str(number))
        result.append(layers[index])
    if not result:
        raise section.error(f"option {name!r} is missing")
    return result


def _route(section: Section, _shape: Shape, layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    sources = source_layers(section, "layers", layers)
    groups = section.positive("groups", 1)
    channels = sum(layer.output_shape[0] // groups for layer in sources)
    return (channels, *sources[0].output_shape[1:]), []


def _shortcut(section: Section, shape: Shape, layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    sources = source_layers(section, "from", layers)
    kind = section.options.get("weights_type", "none")
    count = len(sources) + 1
    if kind in ("per_feature", "per_layer"):
        return shape, [("weights", (count,))]
    if kind == "per_channel":
        return shape, [("weights", (count, shape[0]))]
    return shape, []


def _scale_channels(section: Section, shape: Shape, layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    """The layer named by `from`, each channel (or with scale_wh each place) times a number of this layer's input."""
    output = source_layers(section, "from", layers)[0].output_shape
    wanted = (1, *output[1:]) if section.integer("scale_wh", 0) else (output[0], 1, 1)
    if shape != wanted:
        raise section.error(f"its input does not scale {output}, which takes {wanted}", received=str(shape))
    return output, []


def _implicit(section: Section, _shape: Shape, _layers: list[Layer]) -> tuple[Shape, list[tuple[str, Shape]]]:
    filters, atoms = section.positive("filters", 128), section.positive("atoms", 1)
    return (filters, atoms, 1), [("weights", (filters, atoms))]


_RULES: dict[str, _Rule] = {
    "convolutional": _convolutional,
    "connected": _connected,
    "local": _local,
    "batchnorm": _batch_norm,
    "maxpool": _max_pool,
    "local_avgpool": _max_pool,
    "avgpool": _average_pool,
    "upsample": _upsample,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "crop": _crop,
    "route": _route,
    "shortcut": _shortcut,
    "scale_channels": _scale_channels,
    "implicit_add": _implicit,
    "implicit_mul": _implicit,
}
