"""Networks of the zoo written for Keras: Keras loads them and computes the same; zoonet reads them back."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402

from zoonet import zoo  # noqa: E402
from zoonet.ops.errors import FormatError, UnsupportedFormatError  # noqa: E402
from zoonet.zoo.modules import assign  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
SUFFIXES = (".keras", ".h5", ".weights.h5")


def made(architecture: str, **changes: Any) -> Any:
    """A network with random weights and statistics."""
    model = zoo.create(architecture, seed=1, **changes)
    generator = np.random.default_rng(0)
    statistics = {}
    for name, array in model.network.state_dict().items():
        if name.endswith("running_var"):
            statistics[name] = generator.random(array.shape, np.float32) + 0.5
        elif name.endswith("running_mean"):
            statistics[name] = generator.standard_normal(array.shape).astype(np.float32) / 10
    assign(model.network, statistics)
    return model


def by_keras(network: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return network(np.moveaxis(x, 1, -1), training=False).detach().numpy()


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("resnet18", marks=pytest.mark.slow),
        "resnet20",
        "mobilenetv1_025",
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small_keras", marks=pytest.mark.slow),
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("resnet50_keras", marks=pytest.mark.slow),
        pytest.param("resnet50d", marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", marks=pytest.mark.slow),
    ],
)
def test_keras_loads_what_is_saved(architecture: str, tmp_path: pathlib.Path) -> None:
    model = made(architecture, classes=5, labels=list("abcde"))
    x = np.random.default_rng(1).standard_normal((2, 3, 48, 48)).astype(np.float32)
    expected = model(x)
    loaded: Any = None
    for suffix in SUFFIXES:
        path = tmp_path / f"model{suffix}"
        model.save(path)
        if suffix == ".weights.h5":
            for weight in loaded.weights:
                weight.assign(np.zeros(weight.shape, np.float32))
            loaded.load_weights(path)
        else:
            loaded = keras.models.load_model(path, compile=False)
        keras_oracles.close(by_keras(loaded, x), expected, suffix)
        again = zoo.load(path)
        assert (again.architecture, again.labels) == (architecture, tuple("abcde"))
        np.testing.assert_array_equal(again(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "name"), [("resnet50_keras", "ResNet50"), ("resnet101_keras", "ResNet101")])
def test_keras_applications_take_the_weights(architecture: str, name: str, tmp_path: pathlib.Path) -> None:
    """Weights alone, into the network that Keras itself builds."""
    model = made(architecture)
    application = getattr(keras.applications, name)(weights=None, classifier_activation=None)
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224)).astype(np.float32)
    for suffix in (".weights.h5", ".h5"):
        model.save(tmp_path / f"a{suffix}")
        application.set_weights([np.zeros(w.shape, np.float32) for w in application.get_weights()])
        application.load_weights(tmp_path / f"a{suffix}")
        keras_oracles.close(by_keras(application, x), model(x), suffix)


def test_the_graph_that_keras_would_load_equals_the_network(tmp_path: pathlib.Path) -> None:
    """Read as a Keras model, without what zoonet wrote beside it."""
    model = made("resnet18", classes=5)
    model.save(tmp_path / "a.keras")
    read = keras_oracles.load(tmp_path / "a.keras")
    x = np.random.default_rng(1).standard_normal((1, 3, 40, 40)).astype(np.float32)
    keras_oracles.close(keras_oracles.run(read, np.moveaxis(x, 1, -1))[0], model(x), "graph")
    assert "layer1_0_conv1/kernel" in read.weights


def test_conversion_to_keras_and_back(tmp_path: pathlib.Path) -> None:
    model = made("mobilenetv1_025", classes=5)
    model.save(tmp_path / "a.safetensors")
    places = [tmp_path / f"a{suffix}" for suffix in (".safetensors", ".keras", ".h5", ".weights.h5", ".pt")]
    for source, target in itertools.pairwise(places):
        report = zoo.convert(source, target)
        assert report.agrees
        assert report.relative is not None
        assert report.compared == len(model.network.state_dict()) - sum(
            "num_batches" in name for name in model.network.state_dict()
        )
        assert not [item for item in report.lost if "num_batches" not in item], report.lost
    for name, array in zoo.load(places[-1]).network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, model.network.state_dict()[name])


def test_what_has_no_layer_is_named(tmp_path: pathlib.Path) -> None:
    from zoonet import ops
    from zoonet.formats.keras.tracing import describe

    graph = ops.trace(lambda x: ops.erf(x), ops.TensorType((1, 3, 4, 4), np.dtype(np.float32)))
    with pytest.raises(UnsupportedFormatError, match="operator erf has no layer"):
        describe(graph, {})
    graph = ops.trace(lambda x: ops.max_pool(x, 3, 2, 1), ops.TensorType((1, 3, 8, 8), np.dtype(np.float32)))
    with pytest.raises(UnsupportedFormatError, match="may be negative"):
        describe(graph, {})


def test_a_file_of_ours_that_lost_a_tensor(tmp_path: pathlib.Path) -> None:
    import h5py

    made("mobilenetv1_025", classes=5).save(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5", "r+") as file:
        del file["layers/conv2d/vars/0"]
    with pytest.raises(FormatError, match="listed but missing"):
        zoo.load(tmp_path / "a.weights.h5")


def shared_and_nested() -> Any:
    """A model of Keras with a shared layer, a nested model, a frozen layer and two outputs."""
    layers = keras.layers
    x = keras.Input((6, 6, 3))
    shared = layers.Conv2D(3, 3, padding="same", kernel_regularizer="l2")
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 1), layers.BatchNormalization(trainable=False)])
    y = layers.Reshape((36, 4))(inner(layers.Add()([shared(x), shared(shared(x))])))
    y = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(y)
    y = layers.Flatten()(layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(y, y)))
    return keras.Model(x, [layers.Dense(3)(y), layers.Dense(2, activation="relu")(y)])


def test_a_keras_archive_becomes_a_legacy_file_that_keras_loads(tmp_path: pathlib.Path) -> None:
    original = keras_oracles.scrambled(shared_and_nested())
    original.compile("adam", "mse")
    original.save(tmp_path / "a.keras")
    report = zoo.convert(tmp_path / "a.keras", tmp_path / "a.h5")
    assert report.lost == ["what it was compiled with and the state of an optimizer"]
    assert (report.relative, report.compared) == (0.0, len(original.weights))
    zoo.load(tmp_path / "a.keras").save(tmp_path / "b.h5")
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)
    expected = [y.detach().numpy() for y in original(x, training=False)]
    for name in ("a.h5", "b.h5"):
        loaded = keras.models.load_model(tmp_path / name, compile=False)
        for ours, theirs, wanted in zip(zoo.load(tmp_path / name)(x), loaded(x, training=False), expected, strict=True):
            keras_oracles.close(theirs.detach().numpy(), wanted, name)
            keras_oracles.close(ours, wanted, name)


def test_what_a_keras_model_loses_is_said(tmp_path: pathlib.Path) -> None:
    keras_oracles.scrambled(shared_and_nested()).save(tmp_path / "a.keras")
    copy = zoo.convert(tmp_path / "a.keras", tmp_path / "b.keras", dtype="float16")
    assert copy.relative is not None
    assert copy.relative > 0
    assert copy.agrees
    assert "the graph: this format keeps weights alone" in zoo.convert(tmp_path / "a.keras", tmp_path / "a.npz").lost


def test_bare_weights_become_a_legacy_file_that_keras_takes_by_names(tmp_path: pathlib.Path) -> None:
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="zz")(inputs))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(layers.Dropout(0.1)(layers.Reshape((36, 4))(x)))
    x = layers.GRU(3)(layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x))
    model = keras_oracles.scrambled(keras.Model(inputs, layers.Dense(2)(x)))
    model.save_weights(tmp_path / "a.weights.h5")
    report = zoo.convert(tmp_path / "a.weights.h5", tmp_path / "a.h5")
    assert report.lost == ["the order of layers, so that Keras takes them by names: load_weights(file, by_name=True)"]
    assert report.compared == report.tensors == len(model.weights)
    empty = keras.models.clone_model(model)
    empty.load_weights(tmp_path / "a.h5", by_name=True)
    for ours, theirs in zip(empty.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    outer = keras.Sequential([keras.Input((4,)), keras.Sequential([keras.Input((4,)), layers.Dense(2)])])
    outer.save_weights(tmp_path / "b.weights.h5")
    with pytest.raises(UnsupportedFormatError, match="not of a layer of the model itself"):
        zoo.convert(tmp_path / "b.weights.h5", tmp_path / "b.h5")
