"""Augmentation: pictures changed at random, by torchvision's definitions, before a network sees them in training.

All randomness comes from a NumPy generator that is given, so the same seed gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AUGMENTATIONS", "Augmentation", "make_augmentation", "mix"]

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


@dataclass(frozen=True)
class Augmentation:
    """What is done to a picture at random.

    crop: least and largest share of the picture's area that is cut and resized to the network's size; None for the
    usual preprocessing. ratio: least and largest width / height of the cut. shift: pixels by which the prepared array
    is moved at most, the rest being its edge (for small pictures). flip, vertical_flip: probabilities. jitter: strength
    of changes of brightness, contrast and saturation, hue: of hue. rand_augment: (number of operations, magnitude 0 to
    30), or None. erase: probability that a rectangle is erased. mixup, cutmix: parameters of the Beta distribution by
    which pictures of a batch are mixed, 0 for not. function: what else is done to a prepared array. Raises
    ArgumentError for values out of range.
    """

    crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: int = 0
    flip: float = 0.0
    vertical_flip: float = 0.0
    jitter: float = 0.0
    hue: float = 0.0
    rand_augment: tuple[int, int] | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    function: Callable[[Array, Generator], Array] | None = None

    def __post_init__(self) -> None:
        checks = {
            "crop": (self.crop is None or 0 < self.crop[0] <= self.crop[1] <= 1, "0 < least ≤ largest ≤ 1"),
            "ratio": (0 < self.ratio[0] <= self.ratio[1], "0 < least ≤ largest"),
            "hue": (0 <= self.hue <= 0.5, "from 0 to 0.5"),
            "rand_augment": (
                self.rand_augment is None or (self.rand_augment[0] > 0 and 0 <= self.rand_augment[1] <= 30),
                "(operations, magnitude 0 to 30)",
            ),
            **{n: (0 <= getattr(self, n) <= 1, "from 0 to 1") for n in ("flip", "vertical_flip", "erase", "jitter")},
            **{n: (getattr(self, n) >= 0, "from 0") for n in ("mixup", "cutmix", "shift")},
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ArgumentError(
                    f"augmentation cannot have this {name}", expected=expected, received=getattr(self, name)
                )

    def to_config(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def changes_pictures(self) -> bool:
        """Whether anything is done to a picture before it becomes an array."""
        recolours = self.jitter or self.hue or self.rand_augment
        return bool(self.crop or self.flip or self.vertical_flip or recolours)

    def picture(self, image: Image, rng: Generator) -> Image:
        """A picture cut, flipped and recoloured; its size changes with the cut."""
        from PIL.Image import Transpose

        if self.crop is not None:
            image = image.crop(crop_box(image.width, image.height, self.crop, self.ratio, rng))
        if self.flip and rng.random() < self.flip:
            image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
        if self.vertical_flip and rng.random() < self.vertical_flip:
            image = image.transpose(Transpose.FLIP_TOP_BOTTOM)
        if self.rand_augment is not None:
            image = rand_augment(image, *self.rand_augment, rng)
        if self.jitter or self.hue:
            image = colour_jitter(image, self.jitter, self.hue, rng)
        return image

    def array(self, array: Array, rng: Generator) -> Array:
        """A prepared array (channels, H, W) moved, and with a rectangle erased, or what a function makes of it."""
        if self.function is not None:
            array = np.asarray(self.function(array, rng))
        if self.shift:
            array = moved(array, rng.integers(-self.shift, self.shift + 1, 2))
        if self.erase and rng.random() < self.erase:
            array = erased(array, rng)
        return array


#: By the name that settings and the command line use.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(crop=(0.5, 1.0), flip=0.5),
    "standard": Augmentation(crop=(0.25, 1.0), flip=0.5, jitter=0.3, hue=0.02),
    "strong": Augmentation(crop=(0.08, 1.0), flip=0.5, rand_augment=(2, 9), erase=0.25, mixup=0.2, cutmix=1.0),
    "shift": Augmentation(shift=2),
    "small": Augmentation(shift=4, flip=0.5),
}


def make_augmentation(given: Any) -> Augmentation:
    """By name, or as given; a function (array, generator) -> array becomes one that calls it. Raises ArgumentError."""
    if given is None:
        return Augmentation()
    if callable(given):
        return Augmentation(function=given)
    if isinstance(given, Augmentation):
        return given
    if given not in AUGMENTATIONS:
        raise ArgumentError("there is no such augmentation", expected=", ".join(AUGMENTATIONS), received=repr(given))
    return AUGMENTATIONS[given]


def crop_box(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int]:
    """A random rectangle (left, top, right, bottom) of a share of the area and a ratio, as RandomResizedCrop."""
    if (found := _random_box(width, height, area, ratio, rng)) is not None:
        return found
    w, h = min(width, max(1, round(height * ratio[1]))), min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _random_box(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], rng: Generator
) -> tuple[int, int, int, int] | None:
    """A rectangle that fits, or None after ten that do not."""
    for _ in range(10):
        target = width * height * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    return None


def colour_jitter(image: Image, strength: float, hue: float, rng: Generator) -> Image:
    """Brightness, contrast, saturation and hue, in random order, by factors 1 ± strength, as ColorJitter."""
    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3)
    turn = rng.uniform(-hue, hue)
    for which in rng.permutation(4):
        if which < 3 and strength:
            image = _enhanced(image, ("Brightness", "Contrast", "Color")[which], float(factors[which]))
        elif which == 3 and hue and image.mode == "RGB":
            image = turned_hue(image, turn)
    return image


def _enhanced(image: Image, kind: str, factor: float) -> Image:
    from PIL import ImageEnhance

    result: Image = getattr(ImageEnhance, kind)(image).enhance(factor)
    return result


def turned_hue(image: Image, turn: float) -> Image:
    """The hue turned by a share of the circle, -0.5 to 0.5."""
    from PIL import Image as images

    h, s, v = image.convert("HSV").split()
    shifted = np.asarray(h).astype(np.int16) + int(turn * 255)
    return images.merge("HSV", (images.fromarray((shifted % 256).astype(np.uint8)), s, v)).convert("RGB")


def _affine(image: Image, matrix: tuple[float, ...]) -> Image:
    from PIL import Image as images

    return image.transform(image.size, images.Transform.AFFINE, matrix, images.Resampling.NEAREST)


def _sheared(image: Image, level: float, across: bool) -> Image:
    return _affine(image, (1, level, 0, 0, 1, 0) if across else (1, 0, 0, level, 1, 0))


def _translated(image: Image, level: float, across: bool) -> Image:
    shift = int(level * (image.width if across else image.height))
    return _affine(image, (1, 0, -shift if across else 0, 0, 1, 0 if across else -shift))


def _posterized(image: Image, bits: float) -> Image:
    from PIL import ImageOps

    return ImageOps.posterize(image, round(bits))


def _solarized(image: Image, threshold: float) -> Image:
    from PIL import ImageOps

    return ImageOps.solarize(image, math.ceil(threshold))


def _plain(name: str) -> Callable[[Image, float], Image]:
    def apply(image: Image, _level: float) -> Image:
        from PIL import ImageOps

        result: Image = getattr(ImageOps, name)(image)
        return result

    return apply


#: name -> (what is done, level at magnitude 0 and at 30, whether its sign is random).
_OPERATIONS: dict[str, tuple[Callable[[Any, float], Any], float, float, bool]] = {
    "identity": (lambda image, _level: image, 0.0, 0.0, False),
    "shear_x": (lambda image, level: _sheared(image, level, True), 0.0, 0.3, True),
    "shear_y": (lambda image, level: _sheared(image, level, False), 0.0, 0.3, True),
    "translate_x": (lambda image, level: _translated(image, level, True), 0.0, 150 / 331, True),
    "translate_y": (lambda image, level: _translated(image, level, False), 0.0, 150 / 331, True),
    "rotate": (lambda image, level: image.rotate(level), 0.0, 30.0, True),
    "brightness": (lambda image, level: _enhanced(image, "Brightness", 1 + level), 0.0, 0.9, True),
    "color": (lambda image, level: _enhanced(image, "Color", 1 + level), 0.0, 0.9, True),
    "contrast": (lambda image, level: _enhanced(image, "Contrast", 1 + level), 0.0, 0.9, True),
    "sharpness": (lambda image, level: _enhanced(image, "Sharpness", 1 + level), 0.0, 0.9, True),
    "posterize": (_posterized, 8.0, 4.0, False),
    "solarize": (_solarized, 255.0, 0.0, False),
    "autocontrast": (_plain("autocontrast"), 0.0, 0.0, False),
    "equalize": (_plain("equalize"), 0.0, 0.0, False),
}


def rand_augment(image: Image, operations: int, magnitude: int, rng: Generator) -> Image:
    """Random operations of one magnitude, 0 to 30, one after the other (Cubuk et al., 2020), as RandAugment."""
    names = list(_OPERATIONS)
    for _ in range(operations):
        image = augmented_by(image, names[int(rng.integers(len(names)))], magnitude, bool(rng.random() < 0.5))
    return image


def augmented_by(image: Image, name: str, magnitude: int, negative: bool) -> Image:
    """One operation of RandAugment."""
    apply, first, last, signed = _OPERATIONS[name]
    level = first + (last - first) * magnitude / 30
    result: Image = apply(image, -level if signed and negative else level)
    return result


def moved(array: Array, shift: Array) -> Array:
    """An array (channels, H, W) moved by (down, across) pixels; what comes in is its edge."""
    down, across = int(shift[0]), int(shift[1])
    rows = np.clip(np.arange(array.shape[1]) - down, 0, array.shape[1] - 1)
    columns = np.clip(np.arange(array.shape[2]) - across, 0, array.shape[2] - 1)
    return array[:, rows][:, :, columns]


def erased(array: Array, rng: Generator) -> Array:
    """A rectangle of 2 to 33 % of the area set to 0, the mean of normalised pictures (Zhong et al., 2020).

    Nothing is erased where no rectangle fits in ten attempts, as in pictures that are far longer than wide.
    """
    box = _random_box(array.shape[2], array.shape[1], (0.02, 0.33), (0.3, 3.3), rng)
    if box is None:
        return array
    left, top, right, bottom = box
    array = array.copy()
    array[:, top:bottom, left:right] = 0
    return array


def mix(inputs: Array, targets: Array, augmentation: Augmentation, rng: Generator) -> tuple[Array, Array]:
    """A batch mixed with itself in another order by MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019).

    inputs: (B, channels, H, W) or, for MixUp alone, any shape. targets: (B, classes), probabilities -> the same shapes.
    """
    kinds = [name for name in ("mixup", "cutmix") if getattr(augmentation, name)]
    if not kinds or len(inputs) < 2:
        return inputs, targets
    kind = kinds[int(rng.integers(len(kinds)))]
    kept = float(rng.beta(getattr(augmentation, kind), getattr(augmentation, kind)))
    order = rng.permutation(len(inputs))
    if kind == "cutmix" and inputs.ndim == 4:
        height, width = inputs.shape[2:]
        y, x = int(rng.integers(height)), int(rng.integers(width))
        half_h, half_w = (int(n * math.sqrt(1 - kept)) // 2 for n in (height, width))
        top, bottom, left, right = (
            max(y - half_h, 0),
            min(y + half_h, height),
            max(x - half_w, 0),
            min(x + half_w, width),
        )
        mixed = inputs.copy()
        mixed[:, :, top:bottom, left:right] = inputs[order][:, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        mixed = (kept * inputs + (1 - kept) * inputs[order]).astype(inputs.dtype)
    return mixed, (kept * targets + (1 - kept) * targets[order]).astype(targets.dtype)
