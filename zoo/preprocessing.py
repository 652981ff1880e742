"""Preprocessing as data: what is done to a picture before a network sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
_LONGEST = 64  # a picture longer than 64 times its width is cut to that before it is enlarged
_MODES = {"RGB": "RGB", "BGR": "RGB", "L": "L"}


class Configured:
    """A dataclass of plain values that goes to a configuration file and comes back."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_config`. Raises ArgumentError for unknown entries."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        unknown = set(config) - known
        if unknown:
            raise ArgumentError("preprocessing has no such entry", expected=sorted(known), received=sorted(unknown))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """Plain data for a configuration file."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}  # type: ignore[call-overload]


@dataclass(frozen=True)
class ImagePreprocessing(Configured):
    """Resize, centre crop, scale and normalise, in this order, as torchvision's transforms do on PIL images.

    resize: an int scales the shorter side to it and keeps the proportions, (height, width) scales to exactly that,
        None leaves the size. interpolation: "bilinear", "bicubic", "lanczos", "box", "hamming" (antialiased, as PIL
        does) or "nearest".
    crop: (height, width) cut from the centre, a smaller picture being padded with black; None for no crop.
    scale, mean, std: y = (pixel · scale − mean) / std, pixels from 0 to 255, one mean and std per channel.
    channels: "RGB", "BGR" or "L" (one channel), the order of the result and of mean and std.
    Raises ArgumentError for values outside these.
    """

    resize: int | tuple[int, int] | None = 256
    crop: tuple[int, int] | None = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    channels: str = "RGB"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        count = 1 if self.channels == "L" else 3
        sizes = [n for size in (self.resize, self.crop) if size is not None for n in np.atleast_1d(size).tolist()]
        checks = {
            "channels": (self.channels in _MODES, "'RGB', 'BGR' or 'L'"),
            "interpolation": (self.interpolation in _INTERPOLATIONS, " or ".join(_INTERPOLATIONS)),
            "mean": (len(self.mean) == count, f"{count} numbers, one per channel"),
            "std": (len(self.std) == count and all(self.std), f"{count} numbers other than 0"),
            "resize": (all(isinstance(n, int) and 0 < n < 2**15 for n in sizes), "sizes from 1 to 32767"),
            "crop": (self.crop is None or len(self.crop) == 2, "(height, width)"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ArgumentError(
                    f"preprocessing cannot have this {name}", expected=expected, received=getattr(self, name)
                )

    @classmethod
    def from_crop_pct(cls, size: int, crop_pct: float, **options: Any) -> ImagePreprocessing:
        """The rule of timm's configurations: the shorter side becomes floor(size / crop_pct), then size is cut."""
        return cls(resize=math.floor(size / crop_pct), crop=(size, size), **options)

    @property
    def mode(self) -> str:
        """The PIL mode of the pictures that this takes."""
        return _MODES[self.channels]

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every result, or None where it depends on the picture."""
        size = self.crop or (self.resize if isinstance(self.resize, tuple) else None)
        return None if size is None else (len(self.mean), *size)

    def __call__(self, image: Image) -> np.ndarray[Any, Any]:
        """A PIL image of `mode` -> float32 (channels, height, width)."""
        pixels = np.asarray(self._crop(self._resize(image)))
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        scaled = pixels.transpose(2, 0, 1) * np.float32(self.scale)
        mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return np.ascontiguousarray((scaled - mean) / std)

    def _resize(self, image: Image) -> Image:
        from PIL import Image as images

        if self.resize is None:
            return image
        if isinstance(self.resize, tuple):
            height, width = self.resize
        else:
            if self.crop is not None:
                image = _shorten(image)
            short, long = sorted(image.size)
            longer = int(self.resize * long / short)  # torchvision truncates it too
            height, width = (longer, self.resize) if image.height > image.width else (self.resize, longer)
        if (width, height) == image.size:
            return image
        if width * height > MAX_PIXELS:
            raise InputError(
                "the picture is too long for its width",
                expected=f"at most {MAX_PIXELS:,} pixels after resizing",
                received=f"{image.width}×{image.height}, which becomes {width}×{height}",
                fix="cut it first",
            )
        return image.resize((width, height), images.Resampling[self.interpolation.upper()])

    def _crop(self, image: Image) -> Image:
        """Cut (or pad) around the centre; halves are rounded as torchvision's center_crop rounds them."""
        if self.crop is None or (image.height, image.width) == self.crop:
            return image
        from PIL import ImageOps

        height, width = self.crop
        if height > image.height or width > image.width:
            across, down = max(width - image.width, 0), max(height - image.height, 0)
            image = ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2), fill=0)
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))


def _shorten(image: Image) -> Image:
    """The middle of a picture of extreme proportions, whose ends the centre crop would drop in any case.

    Without it, one row of 65,535 pixels would be resized to gigabytes.
    """
    limit = _LONGEST * min(image.size)
    if max(image.size) <= limit:
        return image
    left, top = (max(0, (n - limit) // 2) for n in image.size)
    return image.crop((left, top, left + min(image.width, limit), top + min(image.height, limit)))
