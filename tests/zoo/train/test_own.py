"""The same call for networks of one's own, plain functions, and imported graphs; short forms of Knet's tutorials."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from train_data import shapes

from zoonet import formats, ops, zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.layers import Conv2d, Dropout, Linear, Sequential

RNG = np.random.default_rng(0)
QUIET: dict[str, Any] = {"progress": False, "run": False}


def test_linear_regression_finds_the_least_squares() -> None:
    x = RNG.normal(size=(200, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + 0.3 + 0.01 * RNG.normal(size=200)).astype(np.float32)
    model = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]) + p["b"], {"w": np.zeros(3, np.float32), "b": 0.0})
    history = model.train((x, y), epochs=40, lr=0.05, **QUIET)
    expected = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0]
    np.testing.assert_allclose(model.network.values["w"], expected[:3], atol=0.01)
    np.testing.assert_allclose(model.network.values["b"], expected[3], atol=0.01)
    assert history.best["val_r2"] > 0.99
    assert model.evaluate((x, y))["rmse"] < 0.02


def test_logistic_regression_is_scikit_learn_s() -> None:
    from sklearn.datasets import make_blobs
    from sklearn.linear_model import LogisticRegression

    x, y = make_blobs(300, 2, centers=3, cluster_std=2.0, random_state=0)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    model = zoo.wrap(lambda p, x: ops.matmul(x, p[0]) + p[1], [np.zeros((2, 3), np.float32), np.zeros(3, np.float32)])
    model.train((x, y), epochs=60, lr=0.1, validation=None, **QUIET)
    theirs = LogisticRegression(C=1e6).fit(x, y)
    agreement = np.mean(np.asarray(model(x)).argmax(1) == theirs.predict(x))
    assert agreement > 0.98


def test_autoencoder() -> None:
    low = RNG.normal(size=(300, 2))
    x = np.tanh(low @ RNG.normal(size=(2, 8))).astype(np.float32)
    model = zoo.wrap(
        lambda p, x: ops.matmul(ops.tanh(ops.matmul(x, p["encode"])), p["decode"]),
        {n: RNG.normal(size=s).astype(np.float32) * 0.3 for n, s in (("encode", (8, 2)), ("decode", (2, 8)))},
    )
    before = model.evaluate((x, x))["mse"]
    model.train((x, x), epochs=40, lr=0.02, **QUIET)
    assert model.evaluate((x, x))["mse"] < 0.3 * before


class Net(zoo.Module):
    """A small network with everything in it that training treats specially."""

    def __init__(self, classes: int = 3) -> None:
        self.features = Sequential(Conv2d(3, 8, 3), ops.relu, Conv2d(8, 16, 3, stride=2), ops.relu)
        self.drop, self.fc = Dropout(0.1), Linear(16, classes)

    def forward(self, x: Any) -> Any:
        return self.fc(self.drop(ops.mean(self.features(x), (2, 3))))


def test_a_module_of_your_own(tmp_path: pathlib.Path) -> None:
    x, y = shapes(96)
    with zoo.initialised_by(0):
        model = zoo.wrap(Net(), preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None))
    named = np.array(["disc", "bar", "cross"])[y]
    history = model.train((x, named), epochs=12, lr=0.02, batch=16, progress=False, run=tmp_path / "run")
    assert max(history["val_accuracy"]) > 0.8
    assert model.labels == ("bar", "cross", "disc")
    assert model.run(x[0]).label == named[0]
    model.save(tmp_path / "net.safetensors")
    other = Net()
    other.load_state_dict(formats.read(tmp_path / "net.safetensors"))
    np.testing.assert_array_equal(other.fc.weight, model.network.fc.weight)
    with pytest.raises(InputError, match="another number of classes"):
        zoo.wrap(Net(5), preprocessing=model.preprocessing).train((x, named), epochs=1, **QUIET)
    with pytest.raises(ArgumentError, match="no parameters"):
        zoo.wrap(lambda p, x: x)


def test_own_loss_and_pairs() -> None:
    pairs = [(RNG.normal(size=4).astype(np.float32), float(i % 2)) for i in range(40)]
    for x, y in pairs:
        x[0] += 3 * y
    model = zoo.wrap(lambda p, x: ops.matmul(x, p), np.zeros(4, np.float32))
    history = model.train(pairs, epochs=10, lr=0.1, loss="bce", **QUIET)
    assert history.best["val_accuracy"] > 0.7

    def hinge(y: Any, t: Any) -> Any:
        return ops.mean(ops.relu(1 - (2 * t - 1) * y))

    history = model.train(iter(pairs), epochs=3, lr=0.1, loss=hinge, **QUIET)
    assert history["loss"][-1] < 1


def graph(path: pathlib.Path, transposed: bool, softmax: bool) -> zoo.Model:
    weights = {
        "kernel": RNG.normal(size=(8, 3, 3, 3)) * 0.2,
        "head": RNG.normal(size=(5, 8) if transposed else (8, 5)),
        "bias": np.zeros(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Softmax" if softmax else "Identity", ["s"], ["y"]),
    ]
    if transposed:
        nodes.insert(4, helper.make_node("Gemm", ["f", "head", "bias"], ["s"], transB=1))
    else:
        nodes[4:4] = [helper.make_node("MatMul", ["f", "head"], ["m"]), helper.make_node("Add", ["m", "bias"], ["s"])]
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 20, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return zoo.load(path)


@pytest.mark.parametrize(("transposed", "softmax"), [(True, True), (False, False)])
def test_an_imported_graph(transposed: bool, softmax: bool, tmp_path: pathlib.Path) -> None:
    x, y = shapes(96)
    x = (x / 255).astype(np.float32).transpose(0, 3, 1, 2)
    model = graph(tmp_path / "g.onnx", transposed, softmax)
    history = model.train((x, y), epochs=8, lr=0.05, **QUIET)  # five outputs serve for three classes
    assert history.best["val_accuracy"] > 0.8
    kernel = model.network.weights["kernel"].copy()
    named = np.array(["disc", "bar", "cross"])[y]
    history = model.train((x, named), epochs=8, lr=0.05, freeze="backbone", **QUIET)  # a new last layer
    assert model.network.weights["head"].shape == ((3, 8) if transposed else (8, 3))
    np.testing.assert_array_equal(model.network.weights["kernel"], kernel)
    assert history.best["val_accuracy"] > 0.8
    y0 = np.asarray(model(x[:4]))
    assert y0.shape == (4, 3)
    if softmax:
        np.testing.assert_allclose(y0.sum(1), 1, rtol=1e-5)
    assert model.evaluate((x, named))["accuracy"] > 0.8


def test_table_of_numbers(tmp_path: pathlib.Path) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    path = tmp_path / "iris.csv"
    rows = ["a,b,c,d,species"]
    rows += [",".join(map(str, r)) + f",{iris.target_names[t]}" for r, t in zip(iris.data, iris.target, strict=True)]
    path.write_text("\n".join(rows))
    p = {n: RNG.normal(size=s).astype(np.float32) * 0.3 for n, s in (("w", (4, 16)), ("v", (16, 3)))}
    model = zoo.wrap(lambda p, x: ops.matmul(ops.relu(ops.matmul(x, p["w"])), p["v"]), p)
    history = model.train(path, epochs=40, lr=0.02, **QUIET)
    assert history.best["val_accuracy"] > 0.9
    path.write_text(path.read_text().replace("5.1,3.5", "5.1,many"))
    with pytest.raises(InputError, match=r"row 1, column 'b' is no number"):
        model.train(path, epochs=1, **QUIET)


def test_an_imported_keras_model(tmp_path: pathlib.Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    theirs = keras.Sequential(
        [
            layers.Input((20, 20, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    theirs.save(tmp_path / "model.keras")
    model = zoo.load(tmp_path / "model.keras", task="arrays")
    x, y = shapes(96)
    x = (x / 255).astype(np.float32)
    before = model.evaluate((x, y))["loss"]
    history = model.train((x, y), epochs=10, lr=0.05, progress=False, run=tmp_path / "run")
    assert history.best["val_accuracy"] > 0.8
    assert model.evaluate((x, y))["loss"] < 0.7 * before
    model.save(tmp_path / "trained.keras")
    again = keras.models.load_model(tmp_path / "trained.keras")
    np.testing.assert_allclose(np.asarray(model(x)), again.predict(x, verbose=0), rtol=1e-3, atol=1e-5)
    model.train((x, y % 2), epochs=1, progress=False, run=False)  # three outputs serve
    model.train((x, np.array(["a", "b"])[y % 2]), epochs=1, progress=False, run=False)
    for name in ("two.keras", "two.h5"):
        model.save(tmp_path / name)
        again = keras.models.load_model(tmp_path / name)
        np.testing.assert_allclose(np.asarray(model(x)), again.predict(x, verbose=0), rtol=1e-3, atol=1e-5)
    model.save(tmp_path / "two.onnx")
    np.testing.assert_allclose(
        np.asarray(zoo.load(tmp_path / "two.onnx")(x)), np.asarray(model(x)), rtol=1e-4, atol=1e-6
    )


def test_a_trained_graph_is_saved_as_onnx(tmp_path: pathlib.Path) -> None:
    import onnxruntime

    x, y = shapes(48)
    x = (x / 255).astype(np.float32).transpose(0, 3, 1, 2)
    model = graph(tmp_path / "g.onnx", True, True)
    named = np.array(["disc", "bar", "cross"])[y]
    model.train((x, named), epochs=2, lr=0.05, progress=False, run=tmp_path / "run", out=tmp_path / "trained.onnx")
    again = onnxruntime.InferenceSession(tmp_path / "trained.onnx").run(None, {"x": x})[0]
    assert again.shape == (48, 3)
    np.testing.assert_allclose(again, np.asarray(model(x)), rtol=1e-4, atol=1e-6)
    assert [d.dim_value for d in onnx.load(tmp_path / "trained.onnx").graph.output[0].type.tensor_type.shape.dim][
        1
    ] == 3
    assert np.asarray(zoo.load(tmp_path / "run" / "best.onnx")(x)).shape == (48, 3)


def test_a_broken_run_of_a_graph_keeps_the_best_weights(tmp_path: pathlib.Path) -> None:
    """The best epoch is the first, before the break; the run ends with its weights all the same."""
    x, y = shapes(48)
    x = (x / 255).astype(np.float32).transpose(0, 3, 1, 2)

    def worse(step: int) -> float:
        return 1.0 if step < 4 else 200.0

    class Stop(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record.get("step") == 6:
            raise Stop

    options: dict[str, Any] = {"epochs": 3, "batch": 12, "lr": 0.01, "schedule": worse, "warm_up": 0, "metric": "loss"}
    options |= {"validation": (x, y), "save_every": 1}
    graph(tmp_path / "g.onnx", True, True)
    whole, broken, resumed = (zoo.load(tmp_path / "g.onnx") for _ in range(3))
    expected = whole.train((x, y), **QUIET, **options)
    assert expected.best_epoch == 1
    with pytest.raises(Stop):
        broken.train((x, y), run=tmp_path / "run", progress=stop, **options)
    history = resumed.train((x, y), run=tmp_path / "run", resume=True, progress=False, **options)
    assert history["val_loss"] == expected["val_loss"]
    for name, array in whole.network.weights.items():
        np.testing.assert_array_equal(resumed.network.weights[name], array)
    with pytest.raises(ArgumentError, match=r"imported graph.*accumulate"):
        resumed.train((x, y), gradient_checkpointing=True, **QUIET)
