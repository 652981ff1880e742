"""Imported graphs that end in a softmax, in its logarithm, or in neither: the loss is that of their own libraries."""

from __future__ import annotations

import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from zoonet import zoo

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3, 8, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 24)
QUIET: dict[str, Any] = {"progress": False, "run": False, "validation": None, "batch": 24}


def exported(last: list[torch.nn.Module], path: pathlib.Path) -> torch.nn.Module:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 3), *last).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            theirs, (torch.zeros(2, 3, 8, 8),), str(path), dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
        )
    return theirs


@pytest.mark.parametrize("end", ["scores", "softmax", "log_softmax"])
def test_losses_of_onnx_graphs(end: str, tmp_path: pathlib.Path) -> None:
    last: list[torch.nn.Module] = {
        "scores": [],
        "softmax": [torch.nn.Softmax(1)],
        "log_softmax": [torch.nn.LogSoftmax(1)],
    }[end]
    theirs = exported(last, tmp_path / "net.onnx")
    optimizer = torch.optim.SGD(theirs.parameters(), 0.05)
    expected = []
    for _ in range(5):
        scores = theirs[:3](torch.from_numpy(X))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(Y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    model = zoo.load(tmp_path / "net.onnx")
    settings = {"epochs": 5, "optimizer": "sgd", "lr": 0.05, "schedule": "constant", "warm_up": 0, "weight_decay": 0}
    history = model.train((X, Y), **settings, **QUIET)
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-4)


def test_a_softmax_at_the_end_is_not_taken_twice(tmp_path: pathlib.Path) -> None:
    theirs = exported([torch.nn.Softmax(1)], tmp_path / "net.onnx")
    plain = zoo.ImagePreprocessing(resize=(8, 8), crop=None)
    model = zoo.load(tmp_path / "net.onnx", task="image-classification", preprocessing=plain)
    picture = RNG.integers(0, 255, (8, 8, 3), np.uint8)
    x = (picture.astype(np.float32) / 255 - plain.mean) / np.array(plain.std, np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(x, 2, 0)[None].astype(np.float32)))[0].numpy()
    np.testing.assert_allclose(model.run(picture).scores, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_keras_models_with_a_softmax(kind: str, tmp_path: pathlib.Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    end = {
        "dense": [layers.Flatten(), layers.Dense(5, activation="softmax")],
        "convolution": [layers.Conv2D(5, 3), layers.GlobalAveragePooling2D(), layers.Activation("softmax")],
    }[kind]
    theirs = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), *end])
    theirs.save(tmp_path / "net.keras")
    x = np.moveaxis(X, 1, 3)
    model = zoo.load(tmp_path / "net.keras")
    expected = keras.losses.sparse_categorical_crossentropy(Y, theirs.predict(x, verbose=0))
    assert model.evaluate((x, Y))["loss"] == pytest.approx(float(np.mean(np.asarray(expected))), rel=1e-5)
    # a new last layer for three classes, written as ONNX, is the same classifier of pictures again
    plain = zoo.ImagePreprocessing(resize=(8, 8), crop=None)
    model = zoo.load(tmp_path / "net.keras", task="image-classification", preprocessing=plain)
    pictures = RNG.integers(0, 255, (24, 8, 8, 3), np.uint8)
    model.train(
        (pictures, np.array(["a", "b", "c"])[Y]), epochs=2, out=tmp_path / "net.onnx", progress=False, run=False
    )
    again = zoo.load(tmp_path / "net.onnx")
    assert again.labels == ("a", "b", "c")
    np.testing.assert_allclose(again.run(pictures[0]).scores, model.run(pictures[0]).scores, atol=1e-5)
    again.train((pictures, np.array(["a", "b", "c"])[Y]), epochs=1, progress=False, run=False)


@pytest.mark.parametrize("end", ["keras", "sigmoid", "logit"])
def test_one_output_for_two_classes(end: str, tmp_path: pathlib.Path) -> None:
    y = np.arange(24) % 2
    if end == "keras":
        keras = pytest.importorskip("keras")
        theirs = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])
        theirs.save(tmp_path / "net.keras")
        scores = np.asarray(theirs.predict(X.reshape(24, -1)[:, :5], verbose=0), np.float64)[:, 0]
    else:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(5, 1), *([torch.nn.Sigmoid()] if end == "sigmoid" else []))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (torch.zeros(2, 5),),
                str(tmp_path / "net.onnx"),
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "n"}},
            )
        with torch.no_grad():
            scores = torch.sigmoid(net[0](torch.from_numpy(X.reshape(24, -1)[:, :5]))).double().numpy()[:, 0]
    model = zoo.load(tmp_path / ("net.keras" if end == "keras" else "net.onnx"))
    x = X.reshape(24, -1)[:, :5]
    expected = -np.mean(np.log(np.where(y == 1, scores, 1 - scores)))
    result = model.evaluate((x, y))
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert result["accuracy"] == pytest.approx(np.mean((scores > 0.5) == y))
    history = model.train((x, np.array(["no", "yes"])[y]), epochs=20, lr=0.1, **QUIET)
    assert history["loss"][-1] < history["loss"][0]
    assert np.asarray(model(x)).shape == (24, 1)
