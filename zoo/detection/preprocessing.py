"""Pictures as inputs of detectors, and where each pixel went, so that boxes find back into the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.pictures import MAX_PIXELS
from zoonet.zoo.preprocessing import Configured

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
_SAMPLINGS = ("centres", "corners")
#: Pixels on a side of a network's input, at most.
MAX_SIDE = 1 << 14


@dataclass(frozen=True)
class Placement:
    """Where a picture of (width, height) lies in an input: scaled, then moved by (left, top).

    x' = x · scale_x + left, y' = y · scale_y + top.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_picture(self, points: Array) -> Array:
        """Coordinates (…, 2k) of alternating x and y in the input, as those of the picture; float32, not clipped."""
        pairs = points.shape[-1] // 2
        offset = np.array([self.left, self.top] * pairs, np.float64)
        scale = np.array([self.scale_x, self.scale_y] * pairs, np.float64)
        result: Array = ((points - offset) / scale).astype(np.float32)
        return result

    def clipped(self, boxes: Array) -> Array:
        """Corners (…, 4) of the picture moved into it."""
        limits = np.array([self.width, self.height, self.width, self.height], np.float32)
        result: Array = np.clip(boxes, 0, limits)
        return result


@dataclass(frozen=True)
class DetectionPreprocessing(Configured):
    """Scale a picture into a network's input, keep its proportions or not, pad, and normalise.

    size: (height, width) of the input. With keep the picture is scaled by one factor until it fits, and padded;
        without, it is stretched.
    area, shorter, longest, multiple: where size is None, the picture keeps its proportions. It is scaled to have `area`
        pixels, or with area 0 until its shorter side has `shorter`, unless the longer one would exceed `longest`; then
        both sides are padded to a multiple of `multiple`.
    center: the picture lies in the middle of the padding, else at the top left. pad: the value of padded pixels, 0 to
        255, one number or one per channel. sampling: bilinear without antialiasing, between the centres of pixels (as
        OpenCV and PyTorch do) or with the corner pixels of both pictures on each other (as darknet does).
    scale, mean, std: y = (pixel · scale − mean) / std. channels: "RGB", "BGR" or "L".
    Raises ArgumentError for values outside these.
    """

    size: tuple[int, int] | None = (640, 640)
    keep: bool = True
    center: bool = True
    pad: float | tuple[float, ...] = 114.0
    area: int = 0
    shorter: int = 800
    longest: int = 1333
    multiple: int = 32
    sampling: str = "centres"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: str = "RGB"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        count = 1 if self.channels == "L" else 3
        sizes = (*(self.size or ()), self.shorter, self.longest, self.multiple)
        checks = {
            "channels": (self.channels in ("RGB", "BGR", "L"), "'RGB', 'BGR' or 'L'"),
            "sampling": (self.sampling in _SAMPLINGS, " or ".join(_SAMPLINGS)),
            "mean": (len(self.mean) == count, f"{count} numbers, one per channel"),
            "std": (len(self.std) == count and all(self.std), f"{count} numbers other than 0"),
            "size": (self.size is None or len(self.size) == 2, "(height, width) or None"),
            "sizes": (all(isinstance(n, int) and 0 < n <= MAX_SIDE for n in sizes), f"sizes from 1 to {MAX_SIDE}"),
            "area": (isinstance(self.area, int) and 0 <= self.area <= MAX_SIDE**2, f"0 to {MAX_SIDE}² pixels"),
            "pad": (isinstance(self.pad, int | float) or len(self.pad) == count, f"a number, or {count}"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                received = sizes if name == "sizes" else getattr(self, name)
                raise ArgumentError(f"preprocessing cannot have this {name}", expected=expected, received=received)

    @property
    def mode(self) -> str:
        """The PIL mode of the pictures that this takes."""
        return "L" if self.channels == "L" else "RGB"

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every result, or None where it depends on the picture."""
        return None if self.size is None else (len(self.mean), *self.size)

    def of_size(self, size: int | Sequence[int]) -> DetectionPreprocessing:
        """The same for inputs of another size.

        size: (height, width), or one number: both sides. Where the size follows from the picture, one number is the
        shorter side, or with `area` the side of a square of as many pixels; `longest` keeps its ratio to it.
        Raises ArgumentError.
        """
        sides = (size,) if isinstance(size, int | np.integer) else tuple(size) if isinstance(size, Sequence) else ()
        whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sides)
        if len(sides) not in (1, 2) or isinstance(size, str) or not whole or not all(0 < n <= MAX_SIDE for n in sides):
            raise ArgumentError(
                "size is wrong", expected=f"pixels, or (height, width), from 1 to {MAX_SIDE}", received=repr(size)[:100]
            )
        if len(sides) == 1 and self.size is None:
            side = int(sides[0])
            longest = min(round(self.longest * side / (self.area**0.5 or self.shorter)), MAX_SIDE)
            if self.area:
                return replace(self, longest=longest, area=side * side)
            return replace(self, longest=longest, shorter=side)
        return replace(self, size=(int(sides[0]), int(sides[-1])))

    def __call__(self, image: Image) -> Array:
        """A PIL image of `mode` -> float32 (channels, height, width)."""
        return self.placed(image)[0]

    def placed(self, image: Image) -> tuple[Array, Placement]:
        """A PIL image of `mode` -> float32 (channels, height, width), and where the picture lies in it."""
        pixels = np.asarray(image)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        height, width = pixels.shape[:2]
        inner, outer = self._sizes(height, width)
        left, top = ((outer[1] - inner[1]) // 2, (outer[0] - inner[0]) // 2) if self.center else (0, 0)
        placement = Placement(width, height, inner[1] / width, inner[0] / height, left, top)
        resized = pixels if inner == (height, width) else resized_bilinear(pixels, inner, self.sampling)
        canvas = np.empty((*outer, pixels.shape[2]), np.float32)
        if inner != outer:
            canvas[...] = self.pad
        canvas[top : top + inner[0], left : left + inner[1]] = resized
        if self.channels == "BGR":
            canvas = canvas[:, :, ::-1]
        return self._normalised(canvas), placement

    def _sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of the scaled picture, and of the input around it."""
        if self.size is not None:
            if not self.keep:
                return self.size, self.size
            ratio = min(self.size[0] / height, self.size[1] / width)
            return _scaled(height, width, ratio), self.size
        wanted = math.sqrt(self.area / (height * width)) or self.shorter / min(height, width)
        ratio = min(wanted, self.longest / max(height, width))
        inner = _scaled(height, width, ratio)
        if inner[0] * inner[1] > MAX_PIXELS:
            raise InputError("the picture is too long for its width", received=f"{width}×{height}", fix="cut it first")
        down, across = (-(-n // self.multiple) * self.multiple for n in inner)
        return inner, (down, across)

    def _normalised(self, canvas: Array) -> Array:
        planes = canvas.transpose(2, 0, 1)
        if self.scale != 1:
            planes = planes * np.float32(self.scale)
        if any(self.mean) or any(n != 1 for n in self.std):
            mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
            planes = (planes - mean) / std
        return np.ascontiguousarray(planes)


def _scaled(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Sizes times a ratio, rounded down as the original codes do, at least one pixel."""
    return max(1, int(height * ratio + 1e-6)), max(1, int(width * ratio + 1e-6))


def resized_bilinear(pixels: Array, size: tuple[int, int], sampling: str = "centres") -> Array:
    """Pixels (H, W, C) as float32 (height, width, C), each result between its four nearest pixels; no antialiasing.

    sampling: see `DetectionPreprocessing`. Source: OpenCV's INTER_LINEAR, torch's bilinear; darknet's resize_image.
    """
    rows, columns = (_taps(n, m, sampling) for n, m in zip(pixels.shape[:2], size, strict=True))
    # The first of both axes touches more pixels; rows, which lie together in memory, are the cheaper ones.
    if size[0] * pixels.shape[1] <= 3 * pixels.shape[0] * size[1]:
        return _between(_between(pixels, rows, 0), columns, 1)
    return _between(_between(pixels, columns, 1), rows, 0)


def _taps(source: int, target: int, sampling: str) -> tuple[Array, Array, Array]:
    """The pixels before and after each result along an axis, and the weight of the one after."""
    steps = np.arange(target)
    if sampling == "corners":
        places = steps * ((source - 1) / max(target - 1, 1))
    else:
        places = (steps + 0.5) * (source / target) - 0.5
    places = np.clip(places, 0, source - 1)
    low = places.astype(np.int64)
    return low, np.minimum(low + 1, source - 1), (places - low).astype(np.float32)


def _between(pixels: Array, taps: tuple[Array, Array, Array], axis: int) -> Array:
    low, high, weight = taps
    first = pixels.take(low, axis).astype(np.float32)
    second = pixels.take(high, axis).astype(np.float32)
    second -= first
    second *= weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    second += first
    return second
