"""Darknet's networks, built from the text of a .cfg: YOLOv2 to v4, YOLO-Fastest, and classifiers.

Source: AlexeyAB/darknet. Parameters are named as `formats.darknet` names them: "<layer>.weights", "<layer>.scales", ….
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.formats.darknet_cfg import layers_of, parse_cfg
from zoonet.ops.errors import FormatError
from zoonet.zoo.detection.candidates import Candidates
from zoonet.zoo.detection.decoding import corners
from zoonet.zoo.detection.preprocessing import MAX_SIDE, DetectionPreprocessing
from zoonet.zoo.detectors.darknet_configurations import CONFIGURATIONS, filled
from zoonet.zoo.detectors.darknet_layers import DarknetLayer, DetectionHead, build_layer
from zoonet.zoo.modules import Array, Module

_ONE_SIZE = ("connected", "local", "crop")  # layers that fix the size of the picture


@dataclass(frozen=True)
class DarknetConfig:
    """cfg: the text of a .cfg. classes: of heads whose text leaves them open; else they are what the text says."""

    cfg: str
    classes: int = 80


class Darknet(Module):
    """Pictures (N, C, H, W) -> what each detection head gives, a tuple where there are several; see `DetectionHead`.

    A network without heads gives the output of its last layer, (N, classes).
    """

    thresholds = (0.25, 0.45)

    def __init__(self, config: DarknetConfig) -> None:
        sections = parse_cfg(filled(config.cfg, config.classes))
        structure = layers_of(sections)
        if not structure:
            raise FormatError("the cfg has no layers", expected="[convolutional] and others after [net]")
        self._net, self._structure = sections[0], structure
        self._layers: list[DarknetLayer] = []
        for layer in structure:
            module = build_layer(layer, structure[: layer.index])
            setattr(self, str(layer.index), module)
            self._layers.append(module)
        self._kept = {index for module in self._layers for index in module.sources}
        self._heads = [module for module in self._layers if isinstance(module, DetectionHead)]
        counts = {head.classes for head in self._heads} or {structure[-1].output_shape[0]}
        if len(counts) > 1:
            raise FormatError("the heads of the cfg have different classes", received=sorted(counts))
        self.config = replace(config, classes=counts.pop())

    @classmethod
    def fit(cls, config: DarknetConfig, shapes: Mapping[str, Any]) -> DarknetConfig:
        """The configuration with as many classes as the last convolution of a state dict has filters for."""
        if "$classes" not in config.cfg:
            return config
        found = (re.fullmatch(r"(\d{1,6})\.biases", name) for name in shapes)
        last = max((int(name[1]) for name in found if name), default=None)
        filters = tuple(shapes[f"{last}.biases"].shape) if last is not None else ()
        anchors = int(re.findall(r"\$filters\*(\d+)", config.cfg)[-1])
        if len(filters) == 1 and filters[0] % anchors == 0 and filters[0] // anchors > 5:
            return replace(config, classes=filters[0] // anchors - 5)
        return config

    @property
    def decoder(self) -> DarknetDecoder:
        """What the heads' outputs mean."""
        return DarknetDecoder(
            self.config.classes,
            tuple(head.anchors for head in self._heads),
            tuple(head.region for head in self._heads),
            tuple(head.raw for head in self._heads),
        )

    @property
    def is_detector(self) -> bool:
        """Whether the network has detection heads; else it classifies."""
        return bool(self._heads)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) as [net] has them."""
        return self._net.positive("height", 1), self._net.positive("width", 1)

    @property
    def size_multiple(self) -> int | None:
        """What sides of inputs are multiples of, as the coarsest head's cells; None for a network of one size."""
        if any(layer.section.kind in _ONE_SIZE for layer in self._structure):
            return None
        cells = [layer.input_shape[1] for layer in self._structure if layer.section.kind in ("yolo", "region")]
        if not cells:
            return None
        multiple = 1 << max(0, round(math.log2(self.input_size[0] / min(cells))))
        return multiple if self._is_proportional(multiple) else None

    def _is_proportional(self, multiple: int) -> bool:
        """Whether every layer grows as the input does, from one multiple to the next, so that what fits still fits."""
        height = max(1, self.input_size[0] // multiple) * multiple
        width = height + multiple
        net = replace(self._net, options={**self._net.options, "height": str(height), "width": str(width)})
        try:
            layers = layers_of([net, *(layer.section for layer in self._structure)])
        except FormatError:
            return False
        maps = [layer.output_shape for layer in layers if not layer.section.kind.startswith("implicit")]
        return all(down * width == across * height or (down, across) == (1, 1) for _, down, across in maps)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """RGB from 0 to 1, with as many pixels as [net] has, in the picture's own proportions.

        Darknet itself stretches pictures to the size in [net], as `of_size` with a height and a width does; so it is
        here where a layer takes no other size. With letter_box the picture is put in the middle of grey of that size.
        """
        grey = self._net.positive("channels", 3) == 1
        count = 1 if grey else 3
        (height, width), keep = self.input_size, bool(self._net.integer("letter_box", 0))
        multiple = None if keep or max(height, width) > MAX_SIDE else self.size_multiple
        free = multiple is not None and height % multiple == 0 and width % multiple == 0
        return DetectionPreprocessing(
            size=None if free else (height, width),
            keep=keep,
            center=keep,
            area=height * width if free else 0,
            longest=min(4 * max(height, width), MAX_SIDE) if free else DetectionPreprocessing.longest,
            multiple=multiple or 1,
            pad=127.5,
            channels="L" if grey else "RGB",
            mean=(0.0,) * count,
            std=(1.0,) * count,
        )

    def forward(self, x: Array) -> Any:
        """(N, C, H, W) -> (N, anchors·(5 + classes), H', W') per head, a tuple where there are several."""
        kept: dict[int, Array] = {}
        found: list[Array] = []
        for index, module in enumerate(self._layers):
            x = module(x, *(kept[source] for source in module.sources))
            if index in self._kept:
                kept[index] = x
            if isinstance(module, DetectionHead):
                found.append(x)
        if not found:
            return ops.reshape(x, (x.shape[0], -1))
        return found[0] if len(found) == 1 else tuple(found)


@dataclass(frozen=True)
class DarknetDecoder:
    """Boxes of [yolo] and [region] heads.

    anchors: of each head, (width, height) in pixels of the input, in cells for a region. region: which heads are of
    that kind. raw: which have new_coords, where sizes are (2w)² anchors rather than exponentials.
    Source: get_yolo_box and get_region_box of AlexeyAB/darknet.
    """

    classes: int
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    region: tuple[bool, ...]
    raw: tuple[bool, ...]

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        heads = [self._head(k, np.asarray(output, np.float32), size) for k, output in enumerate(outputs)]
        return [
            Candidates(
                np.concatenate([boxes[i] for boxes, _ in heads]), np.concatenate([scores[i] for _, scores in heads])
            )
            for i in range(len(outputs[0]))
        ]

    def _head(self, k: int, output: Any, size: tuple[int, int]) -> tuple[Any, Any]:
        """Corners (N, anchors·H·W, 4) and scores (N, anchors·H·W, classes)."""
        count, _, height, width = output.shape
        anchors = np.array(self.anchors[k], np.float32)
        cells = np.moveaxis(output.reshape(count, len(anchors), 5 + self.classes, height, width), 2, -1)
        step = np.array([size[1] / width, size[0] / height], np.float32)
        rows, columns = np.divmod(np.arange(height * width, dtype=np.int64).reshape(height, width), width)
        centers = (cells[..., :2] + np.stack([columns, rows], -1).astype(np.float32)) * step
        sides = anchors[None, :, None, None] * (step if self.region[k] else 1)
        with np.errstate(over="ignore"):
            sides = sides * (4 * cells[..., 2:4] ** 2 if self.raw[k] else np.exp(cells[..., 2:4]))
        boxes = corners(np.concatenate([centers, sides], -1)).reshape(count, -1, 4)
        return boxes, (cells[..., 4:5] * cells[..., 5:]).reshape(count, -1, self.classes)


#: Every variant by name, and "darknet" for any other .cfg.
DARKNETS: dict[str, DarknetConfig] = {name: DarknetConfig(text) for name, text in CONFIGURATIONS.items()}
