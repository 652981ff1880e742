"""Keras files against Keras and h5py: every dialect read, and what is written loaded by Keras."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import ArgumentError, FormatError, UnsupportedFormatError

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def model() -> Any:
    """Convolution, batch norm, dropout (its seed is a variable), recurrence, nesting and a shared layer."""
    shared = keras.layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(3)], name="inner")
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.1)(x)
    x = keras.layers.Reshape((36, 5))(x)
    x = keras.layers.LSTM(4)(x)
    return keras.Model(inputs, inner(shared(shared(x))), name="outer")


def values(network: Any) -> list[np.ndarray]:
    return [np.asarray(value) for value in network.get_weights()]


def scrambled(network: Any, seed: int) -> Any:
    """The same model with other weights."""
    generator = np.random.default_rng(seed)
    network.set_weights([generator.random(value.shape, np.float32) for value in network.get_weights()])
    return network


def multiset(arrays: list[np.ndarray]) -> list[tuple[tuple[int, ...], bytes]]:
    return sorted((array.shape, array.tobytes()) for array in arrays)


@pytest.fixture
def network() -> Any:
    keras.utils.clear_session()
    return scrambled(model(), 1)


@pytest.mark.parametrize("name", ["whole.h5", "whole.keras", "a.weights.h5"])
def test_files_of_keras_are_read_and_written_back(tmp_path: pathlib.Path, network: Any, name: str) -> None:
    path = tmp_path / name
    network.save_weights(path) if name.endswith(".weights.h5") else network.save(path)
    checkpoint = formats.read(path)
    arrays = [tensor.load() for key, tensor in checkpoint.items() if "seed" not in key]
    assert multiset(arrays) == multiset(values(network))
    formats.write(checkpoint, tmp_path / f"copy_{name}")
    other = scrambled(model(), 2)
    other.load_weights(tmp_path / f"copy_{name}")
    for ours, theirs in zip(values(other), values(network), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if not name.endswith(".weights.h5"):
        loaded = keras.models.load_model(tmp_path / f"copy_{name}", compile=False)
        for ours, theirs in zip(values(loaded), values(network), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_names_and_metadata(tmp_path: pathlib.Path, network: Any) -> None:
    network.save(tmp_path / "a.h5")
    legacy = formats.read(tmp_path / "a.h5")
    assert legacy.format == "keras_h5"
    assert legacy.metadata["model_config"]["config"]["name"] == "outer"
    assert legacy.metadata["layer_names"] == [layer.name for layer in network.layers]
    conv = next(layer for layer in network.layers if "conv" in layer.name)
    names = legacy.metadata["weight_names"][conv.name]
    np.testing.assert_array_equal(legacy[names[0]].load(), np.asarray(conv.get_weights()[0]))
    np.testing.assert_array_equal(legacy[names[1]].load(), np.asarray(conv.get_weights()[1]))
    network.save(tmp_path / "a.keras")
    archive = formats.read(tmp_path / "a.keras")
    assert archive.format == "keras"
    assert archive.metadata["config"]["class_name"] == "Functional"
    assert archive.metadata["keras_metadata"]["keras_version"] == keras.__version__
    assert archive.metadata["names"]["layers/conv2d"] == conv.name
    np.testing.assert_array_equal(archive["layers/conv2d/vars/0"].load(), np.asarray(conv.get_weights()[0]))


def test_layers_of_an_old_file_are_in_order(tmp_path: pathlib.Path) -> None:
    """Keras 1: no model_config, weights named LAYER_W and LAYER_b directly in the layer's group."""
    kernel, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)
    with h5py.File(tmp_path / "keras1.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense_2", b"dense_10", b"flatten_1"]
        for layer in ("dense_2", "dense_10"):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}_W".encode(), f"{layer}_b".encode()]
            group[f"{layer}_W"] = kernel
            group[f"{layer}_b"] = bias
        file.create_group("flatten_1").attrs["weight_names"] = []
    checkpoint = formats.read(tmp_path / "keras1.h5")
    assert list(checkpoint) == [f"{layer}/{layer}_{role}" for layer in ("dense_2", "dense_10") for role in "Wb"]
    np.testing.assert_array_equal(checkpoint["dense_10/dense_10_W"].load(), kernel)


def test_names_in_chunked_attributes(tmp_path: pathlib.Path) -> None:
    """200 layers with very long names do not fit one attribute of 64 KiB: both directions."""
    names = [f"layer_{index:04d}_{'x' * 400}" for index in range(200)]
    formats.write({f"{name}/kernel": np.full(1, i, np.float32) for i, name in enumerate(names)}, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert "layer_names" not in file.attrs
        parts = [list(file.attrs[f"layer_names{i}"]) for i in range(sum("layer_names" in key for key in file.attrs))]
        assert [part.decode() for group in parts for part in group] == names
    checkpoint = formats.read(tmp_path / "a.h5")
    assert list(checkpoint) == [f"{name}/kernel" for name in names]
    assert checkpoint[f"{names[123]}/kernel"].load() == [123]


def test_legacy_weights_from_plain_names_load_by_order(tmp_path: pathlib.Path) -> None:
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    arrays = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in (
        ("fc1.kernel", (3, 4)), ("fc1.bias", (4,)), ("fc2.kernel", (4, 2)), ("fc2.bias", (2,))
    )}  # fmt: skip
    formats.write(arrays, tmp_path / "a.h5")
    dense.load_weights(tmp_path / "a.h5")
    for ours, theirs in zip(arrays.values(), values(dense), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_bfloat16_weights(tmp_path: pathlib.Path) -> None:
    keras.config.set_dtype_policy("bfloat16")
    try:
        dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
        dense.save_weights(tmp_path / "a.weights.h5")
        checkpoint = formats.read(tmp_path / "a.weights.h5")
        kernel = checkpoint["layers/dense/vars/0"].load()
        assert kernel.dtype.name == "bfloat16"
        expected = dense.layers[0].kernel.value.detach().float().numpy()
        np.testing.assert_array_equal(kernel.astype(np.float32), expected)
        formats.write(checkpoint, tmp_path / "b.weights.h5")
        dense.set_weights([np.zeros((3, 4)), np.zeros(4)])
        dense.load_weights(tmp_path / "b.weights.h5")
        np.testing.assert_array_equal(dense.layers[0].kernel.value.detach().float().numpy(), expected)
    finally:
        keras.config.set_dtype_policy("float32")


REAL_FILES = [
    ("face-emotion/fer2013_mini_XCEPTION.102-0.66.hdf5", "keras_h5", 80),
    ("mlperf-tiny/vww_96.h5", "keras_h5", 164),
    ("mlperf-tiny/pretrainedResnet.h5", "keras_h5", 48),
    ("mnist-keras3/mnist_cnn.h5", "keras_h5", 32),
    ("mnist-keras3/mnist_cnn.keras", "keras", 32),
    ("keras3-weights-h5/model.weights.h5", "keras_weights", 8),
]


@pytest.mark.parametrize(("name", "format_name", "count"), REAL_FILES)
def test_real_files_equal_h5py(assets: pathlib.Path, name: str, format_name: str, count: int) -> None:
    checkpoint = formats.read(assets / name)
    assert checkpoint.format == format_name
    assert len(checkpoint) == count
    if name.endswith(".keras"):
        loaded = keras.models.load_model(assets / name, compile=False)
        arrays = [tensor.load() for key, tensor in checkpoint.items() if "seed" not in key]
        expected = [array for array in values(loaded) if array.dtype != np.int64]
        assert multiset([a for a in arrays if a.dtype == np.float32]) == multiset(
            [e for e in expected if e.dtype == np.float32]
        )
        return
    with h5py.File(assets / name) as file:
        root = file.get("model_weights", file)
        for key, tensor in checkpoint.items():
            np.testing.assert_array_equal(tensor.load(), root[key][()], strict=True)


def test_chunked_and_compressed_datasets(tmp_path: pathlib.Path) -> None:
    array = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, options in {
            "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
            "lzf": {"compression": "lzf"},
            "chunked": {"chunks": (7, 7)},
            "plain": {},
        }.items():
            file.create_dataset(f"group/{name}", data=array, **options)
        file["big"] = array.astype(">f8")
        file["scalar"] = np.float32(3)
    checkpoint = formats.read(tmp_path / "a.h5")
    assert checkpoint.format == "keras_weights"
    for name in ("group/gzip", "group/lzf", "group/chunked", "group/plain"):
        np.testing.assert_array_equal(checkpoint[name].load(), array, strict=True)
    np.testing.assert_array_equal(checkpoint["big"].load(), array.astype(np.float64), strict=True)
    assert checkpoint["scalar"].load() == 3


def test_what_cannot_be_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="layers"):
        formats.write({"weight": np.zeros(2)}, tmp_path / "a.h5")
    with pytest.raises(UnsupportedFormatError, match="vars"):
        formats.write({"dense/kernel": np.zeros(2)}, tmp_path / "a.weights.h5")
    with pytest.raises(ArgumentError, match="config"):
        formats.write({"layers/dense/vars/0": np.zeros(2)}, tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


def test_listed_layers_must_exist(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(FormatError, match="listed but missing"):
        formats.read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel"]
    with pytest.raises(FormatError, match="'kernel' of layer 'dense' is missing"):
        formats.read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = "{not json"
        file.attrs["layer_names"] = []
    with pytest.raises(FormatError, match="model_config is not valid JSON"):
        formats.read(tmp_path / "a.h5")


def test_lambda_code_stays_data(tmp_path: pathlib.Path) -> None:
    config = {"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wA="}}}}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = []
    assert formats.read(tmp_path / "a.h5").metadata["model_config"] == config
