"""Keras models with a new head for other classes: saved as Keras files of each kind, which Keras loads."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
from keras_legacy import legacy_file  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import zoo  # noqa: E402
from zoonet.ops.errors import UnsupportedFormatError  # noqa: E402
from zoonet.zoo.train.adapt import with_classes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


def dense() -> Any:
    return keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.Flatten(), L.Dense(5, activation="softmax")])


def convolution() -> Any:
    """As keras.applications.MobileNet ends."""
    inputs = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D(keepdims=True)(L.BatchNormalization()(L.Conv2D(4, 3)(inputs)))
    x = L.Reshape((5,))(L.Dropout(0.1)(L.Conv2D(5, 1, padding="same")(x)))
    return keras.Model(inputs, L.Activation("softmax")(x))


def nested() -> Any:
    top = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="relu"), L.Dense(5)], name="top")
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, top(L.GlobalMaxPooling2D()(L.Conv2D(4, 3)(inputs))))


HEADS: dict[str, Callable[[], Any]] = {"dense": dense, "convolution": convolution, "nested": nested}


@pytest.mark.parametrize("name", HEADS)
def test_a_new_head_is_saved(name: str, tmp_path: pathlib.Path) -> None:
    original = keras_oracles.scrambled(HEADS[name]())
    x = floats(2, 8, 8, 3)
    for suffix in (".keras", ".h5"):
        model = zoo.load(keras_oracles.saved(original, tmp_path, suffix))
        model.network = with_classes(model.network, 3, seed=0)
        expected = model(x)
        assert expected.shape == (2, 3)
        targets = ["a.keras", "a.h5"] if suffix == ".keras" else ["b.keras", "b.h5"]
        for target in targets:
            model.save(tmp_path / target)
            loaded = keras.models.load_model(tmp_path / target)
            keras_oracles.close(loaded(x, training=False).detach().numpy(), expected, target)
            again = zoo.load(tmp_path / target)
            np.testing.assert_array_equal(again(x), expected)
            assert again.network.config.classes == 3
        model.save(tmp_path / "a.weights.h5")
        loaded = keras.models.load_model(tmp_path / "a.keras")
        loaded.set_weights([np.zeros(w.shape, w.dtype) for w in loaded.get_weights()])
        loaded.load_weights(tmp_path / "a.weights.h5")
        keras_oracles.close(loaded(x, training=False).detach().numpy(), expected, "weights")


def test_labels_and_preprocessing_travel_with_a_classifier(tmp_path: pathlib.Path) -> None:
    """What `train` leaves: a classifier of pictures with classes of its own, from the Keras file alone."""
    from PIL import Image

    keras_oracles.scrambled(model := dense()).save(tmp_path / "a.keras")
    preprocessing = zoo.ImagePreprocessing(resize=(8, 8), crop=None, mean=(0, 0, 0), std=(1, 1, 1))
    classifier = zoo.load(tmp_path / "a.keras", task="image-classification", preprocessing=preprocessing)
    assert classifier.network.config.classes == model.output_shape[-1]
    for label, colour in (("red", (250, 10, 10)), ("blue", (10, 10, 250)), ("green", (10, 250, 10))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), colour).save(tmp_path / "data" / label / f"{number}.png")
    classifier.train(tmp_path / "data", epochs=1, progress=False, run=False, validation=0)
    picture = tmp_path / "data" / "red" / "0.png"
    for name in ("b.keras", "b.h5", "c.keras"):
        source = classifier if name[0] == "b" else zoo.load(tmp_path / "b.keras")
        source.save(tmp_path / name)
        again = zoo.load(tmp_path / name)
        assert sorted(again.labels) == ["blue", "green", "red"]
        assert again.run(picture).top(3) == classifier.run(picture).top(3)
        x = floats(2, 8, 8, 3)
        theirs = keras.models.load_model(tmp_path / name)(x).detach().numpy()
        np.testing.assert_allclose(np.exp(again(np.moveaxis(x, -1, 1))), theirs, rtol=1e-3, atol=1e-6)


def test_names_of_keras_1(tmp_path: pathlib.Path) -> None:
    """A head whose size has an old name, in its own format and as a .keras file."""
    options = {"name": "d", "output_dim": 5, "input_dim": 4, "activation": "softmax", "bias": True, "trainable": True,
               "batch_input_shape": [None, 4], "init": "normal"}  # fmt: skip
    config = {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": options}]}
    path = legacy_file(tmp_path / "a.h5", config, {"d": [("d_W", floats(4, 5)), ("d_b", floats(5))]}, "1.2.2")
    model = zoo.load(path)
    model.network = with_classes(model.network, 3, seed=0)
    x = floats(2, 4)
    for name in ("b.h5", "b.keras"):
        model.save(tmp_path / name)
        np.testing.assert_array_equal(zoo.load(tmp_path / name)(x), model(x))
    loaded = keras.models.load_model(tmp_path / "b.keras")
    keras_oracles.close(loaded(x).detach().numpy(), model(x), "loaded by Keras")


def test_a_head_whose_size_no_option_says(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((4, 3)), L.EinsumDense("abc,cd->abd", (None, 5))])
    model.save(tmp_path / "a.keras")
    ours = zoo.load(tmp_path / "a.keras")
    ours.network = with_classes(ours.network, 2, seed=0)
    with pytest.raises(UnsupportedFormatError, match="no option of its EinsumDense says so"):
        ours.save(tmp_path / "b.keras")
