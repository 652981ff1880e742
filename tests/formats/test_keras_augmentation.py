"""Layers that change pictures in training, against Keras with the same numbers drawn; inference leaves them alone."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
import torch  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import zoo  # noqa: E402
from zoonet.ops.sets.keras import augmentation  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers
FIRST = {"data_format": "channels_first"}

LAYERS: dict[str, Callable[[], Any]] = {
    **{mode: (lambda mode=mode: L.RandomFlip(mode)) for mode in ("horizontal", "vertical", "horizontal_and_vertical")},
    "flip channels first": lambda: L.RandomFlip("horizontal", **FIRST),
    **{
        f"rotation, {mode}": (lambda mode=mode: L.RandomRotation(0.3, fill_mode=mode, fill_value=7.0))
        for mode in ("constant", "nearest", "wrap", "reflect")
    },
    "rotation, nearest cell": lambda: L.RandomRotation((0.05, 0.2), interpolation="nearest"),
    "rotation channels first": lambda: L.RandomRotation(0.2, **FIRST),
    "zoom": lambda: L.RandomZoom(0.5),
    "zoom of both": lambda: L.RandomZoom((-0.3, 0.4), 0.5, fill_mode="constant", fill_value=9.0),
    "zoom channels first": lambda: L.RandomZoom(0.4, (0.1, 0.3), **FIRST),
    "translation": lambda: L.RandomTranslation(0.3, (-0.2, 0.4), fill_mode="wrap"),
    "shear": lambda: L.RandomShear(0.4, (0.1, 0.3)),
    "crop": lambda: L.RandomCrop(5, 4),
    "crop of what is smaller": lambda: L.RandomCrop(12, 6),
    "crop channels first": lambda: L.RandomCrop(5, 4, **FIRST),
    "contrast": lambda: L.RandomContrast(0.6),
    "contrast of a pair": lambda: L.RandomContrast((0.3, 0.8), value_range=(0, 200)),
    "brightness": lambda: L.RandomBrightness(0.4),
    "brightness up": lambda: L.RandomBrightness((0.1, 0.3), value_range=(0.0, 100.0)),
    "grey": lambda: L.RandomGrayscale(0.6),
    "inverted": lambda: L.RandomInvert(0.9),
    "saturation": lambda: L.RandomSaturation((0.2, 0.9)),
    "hue": lambda: L.RandomHue((0.2, 0.9)),
    "hue channels first": lambda: L.RandomHue(0.8, **FIRST),
    "degeneration": lambda: L.RandomColorDegeneration((0.2, 0.7)),
    "solarised": lambda: L.Solarization(0.3, 0.6),
}


def numbers(shape: Any, low: float, high: float) -> np.ndarray[Any, Any]:
    """Numbers that depend on shape and range alone, so that both sides draw the same."""
    shape = tuple(int(n) for n in shape)
    generator = np.random.default_rng(int(1000 * (abs(low) + 2 * abs(high))) + 11)
    return (low + (high - low) * generator.random(shape)).astype(np.float32)


@pytest.fixture
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(shape: Any = (), minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None) -> Any:
        return torch.tensor(numbers(shape, minval, maxval))

    monkeypatch.setattr(keras.src.backend.random, "uniform", theirs)
    monkeypatch.setattr(augmentation, "drawn", lambda key, place, shape, low, high: numbers(shape, low, high))


@pytest.mark.parametrize("name", LAYERS)
def test_pictures_in_training(name: str, tmp_path: pathlib.Path, same_numbers: None) -> None:
    shape = (3, 8, 9) if "channels first" in name else (8, 9, 3)
    inputs = keras.Input(shape)
    layer = LAYERS[name]()
    model = keras.Model(inputs, layer(inputs))
    x = 60 * np.abs(floats(4, *shape))
    network = zoo.load(keras_oracles.saved(model, tmp_path, ".keras")).network
    np.testing.assert_array_equal(network(x), x)
    theirs = layer(torch.tensor(x), training=True).detach().numpy()
    assert theirs.shape != x.shape or np.abs(theirs - x).max() > 1
    keras_oracles.close(network.train()(x), theirs, name)


def test_bits(tmp_path: pathlib.Path) -> None:
    """Posterization by hand: as many bits as are drawn; Keras draws whole numbers below the upper end."""
    model = keras.Sequential([keras.Input((8, 9, 3)), L.RandomPosterization(3)])
    x = np.floor(60 * np.abs(floats(4, 8, 9, 3)))
    network = zoo.load(keras_oracles.saved(model, tmp_path, ".keras")).network.train()
    y = network(x)
    kept = [[np.floor(picture / 2 ** (8 - bits)) * 2 ** (8 - bits) for bits in (1, 2)] for picture in x]
    assert all(any(np.array_equal(mine, one) for one in both) for mine, both in zip(y, kept, strict=True))


def test_contrast_outside_of_training_too(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((8, 9, 3)), L.AutoContrast(value_range=(0, 100))])
    x = 60 * np.abs(floats(4, 8, 9, 3))
    x[0, ..., 1] = 5.0
    keras_oracles.check(model, [x], tmp_path, gradients=False)


def test_each_call_draws_anew(tmp_path: pathlib.Path) -> None:
    """Angles of a whole turn are spread evenly, layers draw apart, and gradients pass through what was sampled."""
    inputs = keras.Input((9, 9, 1))
    outputs = [L.RandomRotation(0.5)(inputs), L.RandomRotation(0.5)(inputs), L.RandomFlip()(inputs)]
    path = keras_oracles.saved(keras.Model(inputs, outputs), tmp_path, ".keras")
    network = zoo.load(path).network.train()
    x = np.zeros((200, 9, 9, 1), np.float32)
    x[:, 4, 8] = 1.0
    first, second, flipped = network(x)
    assert np.abs(first - second).max() > 0.1
    assert np.abs(first - network(x)[0]).max() > 0.1
    down, right = np.meshgrid(np.arange(9) - 4, np.arange(9) - 4, indexing="ij")
    angles = [np.arctan2((y[..., 0] * down).sum(), (y[..., 0] * right).sum()) for y in first]
    quarters = np.histogram(angles, 4, (-np.pi, np.pi))[0]
    assert quarters.min() > 25
    assert 70 < sum(y[4, 8, 0] for y in flipped) < 130
