"""The embedded model of digits: accuracy on scans that it never saw, and on pictures of many kinds."""

from __future__ import annotations

import contextlib
import gzip
import io
import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo import train_digits

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digit.png"  # of a 4
WEIGHTS = ROOT / "zoo" / "data" / "digits.safetensors"


@pytest.fixture(scope="module")
def held_out() -> tuple[Any, Any]:
    """The scans that the card calls held out, by scikit-learn itself: every fifth, counted from the fifth."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return data.images[4::5] / 16, data.target[4::5]


def accuracy(model: Any, images: list[Any], targets: Any) -> float:
    return float(np.mean([result.index == target for result, target in zip(model.run(images), targets, strict=True)]))


def test_held_out_accuracy_is_what_the_card_says(digits: Any, held_out: tuple[Any, Any]) -> None:
    images, targets = held_out
    measured = accuracy(digits, list(images), targets)
    assert measured >= 0.985
    assert digits.card.accuracy.startswith(f"{100 * measured:.2f} % top-1")


def test_the_weights_are_small_and_described() -> None:
    assert WEIGHTS.stat().st_size < 300_000
    card = zoo.load("digits").card
    assert "CC BY 4.0" in card.licence
    assert "UCI" in card.source
    assert "train_digits" in card.source


@pytest.mark.parametrize("size", [8, 31, 100, 640])
@pytest.mark.parametrize("inverted", [False, True], ids=["light ink", "dark ink"])
def test_scans_of_any_size_and_polarity(digits: Any, held_out: tuple[Any, Any], size: int, inverted: bool) -> None:
    images, targets = (array[:60] for array in held_out)
    pixels = (255 * (1 - images if inverted else images)).round().astype(np.uint8)
    pictures = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in pixels]
    assert accuracy(digits, pictures, targets) >= 0.95


def test_handwriting_of_other_people(digits: Any, assets: pathlib.Path) -> None:
    """MNIST, none of which it was trained on; as coloured, shaded and grainy pictures of random size too."""
    folder = assets / "mnist-t10k"
    if not folder.exists():
        pytest.skip("mnist-t10k is absent")
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    scans, targets = pixels.reshape(-1, 28, 28)[5000:5200], labels[5000:5200]
    assert accuracy(digits, list(scans), targets) >= 0.9
    rng = np.random.default_rng(0)
    assert accuracy(digits, [photo(scan, rng) for scan in scans], targets) >= 0.9


def photo(scan: Any, rng: np.random.Generator) -> Image.Image:
    """A white-on-black scan as a photo: anywhere in a larger picture, in two colours, lit from one side, grainy."""
    size = int(rng.integers(50, 300))
    height, width = (int(size * rng.uniform(1, 2)) for _ in range(2))
    weight = np.zeros((height, width, 1))
    top, left = rng.integers(0, height - size + 1), rng.integers(0, width - size + 1)
    weight[top : top + size, left : left + size, 0] = np.asarray(Image.fromarray(scan).resize((size, size))) / 255
    ink, paper = rng.uniform(0, 1, (2, 3))
    while abs(ink - paper).max() < 0.4:
        ink, paper = rng.uniform(0, 1, (2, 3))
    y, x = np.mgrid[0:height, 0:width]
    light = 0.8 + rng.uniform(-0.3, 0.3) * (x / width - 0.5) + rng.uniform(-0.3, 0.3) * (y / height - 0.5)
    pixels = (paper + (ink - paper) * weight) * light[:, :, None] + rng.normal(0, 0.03, (height, width, 3))
    return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8))


@pytest.mark.parametrize("size", [16, 40, 250])
@pytest.mark.parametrize(
    ("mode", "ink", "paper"),
    [
        ("RGB", "black", "white"),
        ("RGB", "yellow", "navy"),
        ("RGB", (255, 0, 0), (0, 130, 0)),  # of one lightness
        ("RGB", (150, 150, 150), (180, 180, 180)),  # faint
        ("L", 250, 40),
        ("1", 1, 0),
        ("I;16", 60000, 9000),
        ("RGBA", (0, 0, 0, 255), (0, 0, 0, 0)),  # black on transparent black
        ("RGBA", (255, 255, 255, 255), (255, 255, 255, 0)),
        ("LA", (0, 255), (0, 0)),
        ("CMYK", (0, 200, 200, 0), (10, 0, 0, 0)),
    ],
)
def test_printed_digits_in_any_colour(
    digits: Any, text_picture: Any, size: int, mode: str, ink: Any, paper: Any
) -> None:
    pictures = [text_picture(str(digit), size, ink, paper, mode) for digit in range(10)]
    answers = [result.label for result in digits.run(pictures)]
    right = sum(answer == str(digit) for digit, answer in enumerate(answers))
    assert right >= 9, answers


def framed(image: Any) -> Any:
    return ImageOps.expand(image, 6, "black")


def on_a_table(image: Any) -> Any:
    table = Image.new("RGB", (image.width * 3 // 2, image.height * 3 // 2), (70, 60, 55))
    table.paste(image, (image.width // 4, image.height // 4))
    return table


def far_away(image: Any) -> Any:
    wall = Image.new("RGB", (1200, 900), "white")
    wall.paste(image, (900, 100))
    return wall


def vignetted(image: Any) -> Any:
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    light = 1 - 0.35 * (x**2 + y**2)
    return Image.fromarray((np.asarray(image) * light[:, :, None]).astype(np.uint8))


def ruled(image: Any) -> Any:
    pixels = np.array(image)
    pixels[::25] = np.minimum(pixels[::25], 190)
    return Image.fromarray(pixels)


def compressed(image: Any) -> Any:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=10)
    return file.getvalue()


def blurred(image: Any) -> Any:
    return image.filter(ImageFilter.GaussianBlur(3))


def grainy(image: Any) -> Any:
    noise = np.random.default_rng(0).normal(0, 30, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) * 0.8 + 25 + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "change", [framed, on_a_table, far_away, vignetted, ruled, compressed, blurred, grainy], ids=lambda f: f.__name__
)
def test_photographs(digits: Any, text_picture: Any, change: Any) -> None:
    answers = [result.label for result in digits.run([change(text_picture(str(digit), 120)) for digit in range(10)])]
    assert sum(answer == str(digit) for digit, answer in enumerate(answers)) >= 9, answers


def test_the_example_in_the_repository(digits: Any) -> None:
    best = digits.run(EXAMPLE).top(1)[0]
    assert (best.label, best.index) == ("4", 4)
    assert best.score > 0.9


@pytest.mark.parametrize("colour", ["white", "black", "red"])
def test_a_picture_of_one_colour_holds_no_digit(digits: Any, colour: str) -> None:
    with pytest.raises(InputError, match="no digit in the picture"):
        digits.run(Image.new("RGB", (50, 40), colour))


@pytest.mark.parametrize("shape", [(2, 2), (1, 300), (300, 1), (2, 999)])
def test_odd_shapes_give_an_answer_or_a_clear_error(digits: Any, shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).random(shape)
    with contextlib.suppress(InputError):
        assert digits.run(array).label in "0123456789"


def test_training_is_reproducible() -> None:
    images, targets = train_digits.scans()
    recipe = replace(train_digits.FULL, epochs=1, drawn=200)
    first, second = (train_digits.train(images[:128], targets[:128], recipe, seed=3) for _ in range(2))
    for name, array in first.network.state_dict().items():
        np.testing.assert_array_equal(array, second.network.state_dict()[name], err_msg=name)


def test_the_quick_recipe_does_not_overwrite_the_model_in_the_package() -> None:
    with pytest.raises(ArgumentError, match="--output"):
        train_digits.main(["--minute"])


@pytest.mark.slow
def test_one_command_trains_it_again(tmp_path: pathlib.Path, held_out: tuple[Any, Any]) -> None:
    target = tmp_path / "digits.safetensors"
    assert train_digits.main(["--output", str(target)]) == 0
    trained, kept = zoo.load(target), zoo.load("digits")
    assert accuracy(trained, list(held_out[0]), held_out[1]) >= 0.985
    sample = np.random.default_rng(0).random((8, 1, 24, 24), np.float32)
    agree = np.mean(trained(sample).argmax(1) == kept(sample).argmax(1))
    assert agree >= 0.5  # the same file on the same machine and NumPy; rounding differs elsewhere
