"""Preprocessing against torchvision's transforms on PIL images, to within 1/255 per pixel."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
from PIL import Image

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.pictures import find_pictures

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

from torchvision import transforms

MODES = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "nearest": transforms.InterpolationMode.NEAREST,
    "lanczos": transforms.InterpolationMode.LANCZOS,
}
SIZES = [
    (640, 480),
    (480, 640),
    (333, 500),
    (500, 333),
    (256, 256),
    (225, 301),
    (1000, 37),
    (60, 90),
    (224, 224),
    (1, 1),
]


def torchvision_pixels(image: Image.Image, resize: Any, crop: Any, interpolation: str) -> np.ndarray[Any, Any]:
    """Pixels from 0 to 1, (3, H, W), before they are normalised."""
    steps = [transforms.Resize(resize, MODES[interpolation])] if resize is not None else []
    steps += [transforms.CenterCrop(crop)] if crop is not None else []
    return np.asarray(transforms.Compose([*steps, transforms.ToTensor()])(image.convert("RGB")))


def our_pixels(image: Image.Image, **options: Any) -> np.ndarray[Any, Any]:
    """The same of ours."""
    return zoo.ImagePreprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, **options)(image.convert("RGB"))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", list(MODES))
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("resize", "crop"), [(256, (224, 224)), (232, (224, 224)), (64, (63, 48)), (32, None)], ids=str
)
def test_resize_and_crop(size: tuple[int, int], resize: int, crop: tuple[int, int] | None, interpolation: str) -> None:
    image = noise(*size)
    expected = torchvision_pixels(image, resize, crop, interpolation)
    actual = our_pixels(image, resize=resize, crop=crop, interpolation=interpolation)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1 / 255


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("resize", "crop"), [((224, 224), None), ((50, 120), (40, 130)), (None, (224, 224))], ids=str)
def test_exact_sizes_and_padding(size: tuple[int, int], resize: Any, crop: Any) -> None:
    image = noise(*size)
    expected = torchvision_pixels(image, resize, crop, "bilinear")
    actual = our_pixels(image, resize=resize, crop=crop)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1 / 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "name", ["cat_720p.jpg", "dog.jpg", "grace_hopper.bmp", "hot_dog.jpg", "owl.jpg", "parrot.jpg"]
)
def test_photos(assets: pathlib.Path, name: str, interpolation: str) -> None:
    (source,) = find_pictures(assets / "photos" / name)
    expected = torchvision_pixels(Image.open(assets / "photos" / name), 256, 224, interpolation)
    actual = our_pixels(source.open("RGB"), interpolation=interpolation)
    assert np.abs(actual - expected).max() <= 1 / 255


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "RGBX"])
def test_modes_of_pictures(mode: str) -> None:
    image = noise(90, 70).convert(mode)
    (source,) = find_pictures(image)
    expected = torchvision_pixels(image, 64, 56, "bilinear")
    assert np.abs(our_pixels(source.open("RGB"), resize=64, crop=(56, 56)) - expected).max() <= 1 / 255


def test_the_rule_of_timm() -> None:
    import timm.data

    config = {"input_size": (3, 224, 224), "crop_pct": 0.95, "interpolation": "bicubic"}
    transform = timm.data.create_transform(**config, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    ours = zoo.ImagePreprocessing.from_crop_pct(
        224, 0.95, interpolation="bicubic", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    image = noise(400, 301)
    difference = np.abs(ours(image) - transform(image).numpy()) * np.array([0.2, 0.3, 0.4])[:, None, None]
    assert difference.max() <= 1 / 255


def test_normalisation_by_hand() -> None:
    image = Image.fromarray(np.array([[[255, 51, 0]]], np.uint8))
    plain = zoo.ImagePreprocessing(resize=None, crop=None, mean=(0.5, 0.1, 0.0), std=(0.5, 0.1, 2.0))
    np.testing.assert_allclose(plain(image).ravel(), [1, 1, 0], atol=1e-6)
    caffe = zoo.ImagePreprocessing(
        resize=None, crop=None, mean=(103.939, 116.779, 123.68), std=(1, 1, 1), channels="BGR", scale=1.0
    )
    np.testing.assert_allclose(caffe(image).ravel(), [0 - 103.939, 51 - 116.779, 255 - 123.68], rtol=1e-6)
    grey = zoo.ImagePreprocessing(resize=None, crop=None, mean=(0.0,), std=(1.0,), channels="L")
    assert grey(image.convert("L")).shape == (1, 1, 1)


def test_the_preprocessing_of_keras() -> None:
    keras = pytest.importorskip("keras")
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    expected = keras.applications.resnet.preprocess_input(pixels.astype(np.float32)[None], data_format="channels_last")
    ours = zoo.create("resnet50_keras").preprocessing(Image.fromarray(pixels))
    np.testing.assert_allclose(ours.transpose(1, 2, 0)[None], expected, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resize": (40, 50), "crop": None},
        {"channels": "L", "mean": (0.5,), "std": (0.5,), "interpolation": "bicubic", "scale": 1.0},
    ],
)
def test_configurations_go_there_and_back_as_json(options: dict[str, Any]) -> None:
    import json

    before = zoo.ImagePreprocessing(**options)
    assert zoo.ImagePreprocessing.from_config(json.loads(json.dumps(before.to_config()))) == before


@pytest.mark.parametrize(
    "options",
    [
        {"interpolation": "cubic"},
        {"mean": (0.5,)},
        {"std": (0.0, 1.0, 1.0)},
        {"channels": "HSV"},
        {"resize": 0},
        {"resize": (224, 1 << 20)},
        {"crop": (224,)},
    ],
    ids=str,
)
def test_values_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"this {next(iter(options))}"):
        zoo.ImagePreprocessing(**options)
    with pytest.raises(ArgumentError, match="no such entry"):
        zoo.ImagePreprocessing.from_config({"sharpen": True})


def test_a_strip_does_not_take_the_memory() -> None:
    strip = Image.new("RGB", (65000, 1))
    assert zoo.ImagePreprocessing()(strip).shape == (3, 224, 224)
    with pytest.raises(InputError, match="too long"):
        zoo.ImagePreprocessing(resize=5000, crop=None)(strip)
