"""Whole Keras models: topology, dialects, layers of one's own, and configurations that are refused or broken."""

from __future__ import annotations

import copy
import json
import pathlib
import random
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402

from zoonet import formats, ops, zoo  # noqa: E402
from zoonet.formats.keras import from_checkpoint  # noqa: E402
from zoonet.ops.errors import FormatError, InputError, UnsupportedFormatError, ZoonetError  # noqa: E402
from zoonet.ops.sets import keras as keras_set  # noqa: E402
from zoonet.ops.types import Array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


def floats(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def fresh() -> None:
    keras.utils.clear_session(free_memory=False)


# -- topology ----------------------------------------------------------------------------------------------------


def test_shared_layers_and_models_inputs_and_outputs(tmp_path: pathlib.Path) -> None:
    """A layer and a model used twice, a model in a model in a model, frozen parts, inputs used out of order."""
    shared = L.Dense(4, name="shared")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, [L.BatchNormalization()(inner_input), shared(L.Dense(4)(inner_input))])
    tower = keras.Sequential([keras.Input((3,)), L.Dense(4), L.BatchNormalization(), L.ReLU()], name="tower")
    tower.trainable = False
    a, b, unused = keras.Input((3,), name="a"), keras.Input((3,), name="b"), keras.Input((2,), name="unused")
    x, y = tower(a), tower(b)
    first, second = inner(x)
    third, _ = inner(y)
    model = keras.Model([b, unused, a], [second, L.Add()([first, third]), shared(x), L.Concatenate()([x, y])])
    keras_oracles.scrambled(model)
    keras_oracles.check(model, [floats(2, 3), floats(2, 2), floats(2, 3, seed=2)], tmp_path)
    read = keras_oracles.load(tmp_path / "model.keras")
    assert [info.name for info in read.inputs] == ["b", "unused", "a"]
    assert {"tower/dense_1/kernel", "tower/batch_normalization_1/gamma"} <= read.state.keys() | read.weights.keys()
    frozen = [name for name in read.state if name.startswith("tower/")]
    assert len(frozen) == 6, "frozen weights are state"
    assert set(read.updates) == {n for n in read.state if "moving" in n and not n.startswith("tower/")}


def test_inputs_and_outputs_by_name(tmp_path: pathlib.Path) -> None:
    a, b = keras.Input((3,), name="first"), keras.Input((2,), name="second", dtype="int32")
    model = keras.Model({"x": a, "y": b}, {"p": L.Dense(2, name="p")(a), "q": L.Embedding(5, 3, name="q")(b)})
    keras_oracles.scrambled(model)
    model.save(tmp_path / "a.keras")
    loaded = zoo.load(tmp_path / "a.keras")
    x, ids = floats(4, 3), np.array([[1, 2]] * 4)
    result = loaded.run({"first": x, "second": ids})
    expected = model({"x": x, "y": ids})
    assert list(result) == ["p", "q"]
    for key, array in result.items():
        keras_oracles.close(array, expected[key].detach().numpy(), key)
    with pytest.raises(InputError, match="the input 'second' is missing"):
        loaded.run({"first": x})


def test_sizes_that_vary(tmp_path: pathlib.Path) -> None:
    model = keras_oracles.scrambled(
        keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3, strides=2), L.GlobalMaxPooling2D(), L.Dense(2)])
    )
    model.save(tmp_path / "a.keras")
    loaded = zoo.load(tmp_path / "a.keras")
    assert str(loaded.network.config.inputs[0]) == "float32[?, ?, ?, 3]"
    assert str(loaded.network.config.outputs[0]) == "float32[?, 2]"
    for size in (9, 14):
        x = floats(2, size, size + 1, 3)
        keras_oracles.close(loaded(x), model(x).detach().numpy(), str(size))
    with pytest.raises(InputError, match="wrong shape"):
        loaded(floats(2, 9, 9, 4))


def test_sequential_without_input_layer(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])
    model(floats(1, 3))
    keras_oracles.check(keras_oracles.scrambled(model), [floats(2, 3)], tmp_path)


# -- layers of one's own -----------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Scaled(L.Layer):
    def __init__(self, power: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x: Any) -> Any:
        return x * self.factor**self.power

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


def test_a_layer_of_ones_own(tmp_path: pathlib.Path) -> None:
    model = keras_oracles.scrambled(keras.Sequential([keras.Input((4, 3)), Scaled(2), L.Dense(2)]))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="layer 'scaled' is of the class tests>Scaled") as caught:
        keras_oracles.load(tmp_path / "a.keras")
    assert '@layer("Scaled")' in str(caught.value)

    @keras_set.layer("tests>Scaled", "Scaled", weights=["factor"])
    def scaled(inputs: Array, factor: Array, /, power: int = 1) -> Array:
        return ops.multiply(inputs, ops.pow(factor, float(power)))

    keras_oracles.check(model, [floats(2, 4, 3)], tmp_path)


def test_lambda_is_refused_unless_declared(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x * 2 + 1, name="twice"), L.Dense(2)])
    keras_oracles.scrambled(model)
    paths = [keras_oracles.saved(model, tmp_path, suffix) for suffix in (".keras", ".h5")]
    for path in paths:
        with pytest.raises(UnsupportedFormatError, match="'twice' is a Lambda: it consists of Python code") as caught:
            keras_oracles.load(path)
        assert '@layer("Lambda:twice")' in str(caught.value)

    @keras_set.layer("Lambda:twice", any_options=True)
    def twice(inputs: Array, /) -> Array:
        return ops.add(ops.multiply(inputs, 2.0), 1.0)

    for path in paths:
        x = floats(2, 3)
        keras_oracles.close(keras_oracles.run(keras_oracles.load(path), x)[0], model(x).detach().numpy(), str(path))


def test_an_activation_of_ones_own(tmp_path: pathlib.Path) -> None:
    @keras.saving.register_keras_serializable("tests")
    def bent(x: Any) -> Any:
        return keras.ops.sqrt(x * x + 1) + x

    model = keras_oracles.scrambled(keras.Sequential([keras.Input((3,)), L.Dense(2, activation=bent)]))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="has an activation that is not known"):
        keras_oracles.load(tmp_path / "a.keras")

    @keras_set.activation("bent", "tests>bent")
    def ours(x: Array) -> Array:
        return ops.add(ops.sqrt(ops.add(ops.square(x), 1.0)), x)

    keras_oracles.check(model, [floats(4, 3)], tmp_path, formats=(".keras",))


def test_activations_that_are_layers(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(4, activation=L.LeakyReLU(0.3)),
            L.Dense(4, activation=L.ReLU(6.0)),
            L.Dense(4, activation=L.ELU(0.5)),
            L.Activation(L.Softmax(axis=-1)),
        ]
    )
    keras_oracles.check(keras_oracles.scrambled(model), [3 * floats(4, 3)], tmp_path)


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    class Own(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = L.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def get_config(self) -> dict[str, Any]:
            return {}

    model = Own()
    model(floats(1, 3))
    model.save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedFormatError, match="class Own, whose computation is Python code"):
        keras_oracles.load(tmp_path / "a.keras")
    renorm = keras.Sequential([keras.Input((3,)), L.BatchNormalization(renorm=True)])
    renorm.save(tmp_path / "b.keras")
    with pytest.raises(UnsupportedFormatError, match="renorm"):
        keras_oracles.load(tmp_path / "b.keras")
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    model.save_weights(tmp_path / "c.weights.h5")
    with pytest.raises(UnsupportedFormatError, match="weights only, and no model"):
        keras_oracles.load(tmp_path / "c.weights.h5")


def test_whether_a_layer_trains_is_for_the_caller_to_say(tmp_path: pathlib.Path) -> None:
    """Keras 3 keeps `training=True` of a call in the file, and lets the model's own argument decide."""
    inputs = keras.Input((8, 8, 3))
    x = L.Resizing(6, 6)(L.RandomRotation(0.2)(L.RandomFlip()(inputs)))
    keras_oracles.check(keras.Model(inputs, L.Dropout(0.5)(x, training=True)), [floats(2, 8, 8, 3)], tmp_path)
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 3])]
    layers += [tf_layer("Dropout", "d", [[["x", 0, 0, {"training": True}]]], rate=0.5)]
    path = legacy_file(tmp_path / "a.h5", tf_model("m", layers, ["x"], ["d"]), {}, "2.4.0")  # here it holds
    with pytest.raises(UnsupportedFormatError, match="'d' is always in training mode"):
        keras_oracles.load(path)


# -- dialects ----------------------------------------------------------------------------------------------------


def legacy_file(
    path: pathlib.Path, config: Any, weights: dict[str, list[tuple[str, Any]]], version: str
) -> pathlib.Path:
    """A legacy whole model as old versions wrote it."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        for attributes in (file.attrs, root.attrs):
            attributes["keras_version"], attributes["backend"] = version, "tensorflow"
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                group[name] = array
    return path


def test_keras_1(tmp_path: pathlib.Path) -> None:
    """A Sequential model as a list, with the names of that time; the numbers by torch."""
    import torch
    from torch.nn import functional as F

    kernel, bias, w, b = floats(3, 2, 4, 5), floats(5), floats(5 * 4, 6, seed=2), floats(6)
    gamma, beta, mean, std = floats(5), floats(5), floats(5), np.abs(floats(5)) + 0.5
    config = {
        "class_name": "Sequential",
        "config": [
            {
                "class_name": "Convolution2D",
                "config": {
                    "name": "convolution2d_1", "batch_input_shape": [None, 6, 5, 4], "input_dtype": "float32",
                    "nb_filter": 5, "nb_row": 3, "nb_col": 2, "border_mode": "valid", "subsample": [1, 1],
                    "dim_ordering": "tf", "activation": "linear", "init": "glorot_uniform", "bias": True,
                    "W_regularizer": None, "b_regularizer": None, "W_constraint": None, "b_constraint": None,
                    "activity_regularizer": None, "trainable": True,
                },
            },
            {
                "class_name": "BatchNormalization",
                "config": {
                    "name": "bn", "mode": 0, "axis": -1, "epsilon": 1e-3, "momentum": 0.99, "trainable": True,
                    "gamma_regularizer": None, "beta_regularizer": None,
                },
            },
            {"class_name": "Activation", "config": {"name": "act", "activation": "hard_sigmoid", "trainable": True}},
            {
                "class_name": "MaxPooling2D",
                "config": {
                    "name": "pool", "pool_size": [2, 2], "strides": [2, 2], "border_mode": "same", "dim_ordering": "tf",
                    "trainable": True,
                },
            },
            {"class_name": "Dropout", "config": {"name": "drop", "p": 0.25, "trainable": True}},
            {"class_name": "Flatten", "config": {"name": "flat", "trainable": True}},
            {
                "class_name": "Dense",
                "config": {
                    "name": "dense_1", "output_dim": 6, "input_dim": 20, "activation": "softmax", "bias": True,
                    "init": "glorot_uniform", "trainable": True, "W_regularizer": None,
                },
            },
        ],
    }  # fmt: skip
    weights = {
        "convolution2d_1": [("convolution2d_1_W", kernel), ("convolution2d_1_b", bias)],
        "bn": [("bn_gamma", gamma), ("bn_beta", beta), ("bn_running_mean", mean), ("bn_running_std", std)],
        "dense_1": [("dense_1_W", w), ("dense_1_b", b)],
    }
    path = legacy_file(tmp_path / "a.h5", config, weights, "1.2.2")
    x = floats(3, 6, 5, 4)
    y = F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(kernel).permute(3, 2, 0, 1), torch.tensor(bias))
    y = F.batch_norm(y, *map(torch.tensor, (mean, std, gamma, beta)), eps=1e-3)
    y = F.max_pool2d((0.2 * y + 0.5).clamp(0, 1), 2, 2)
    y = F.softmax(y.permute(0, 2, 3, 1).flatten(1) @ torch.tensor(w) + torch.tensor(b), -1)
    keras_oracles.close(zoo.load(path)(x), y.numpy(), "Keras 1")


def test_recurrent_layers_of_keras_1_and_2(tmp_path: pathlib.Path) -> None:
    """Gates by themselves (Keras 1), and hard_sigmoid as it was; the numbers by the formulas."""
    units, features = 3, 2
    generator = np.random.default_rng(0)
    parts = {f"{letter}_{gate}": generator.standard_normal(shape).astype(np.float32) for gate in "icfo"
             for letter, shape in (("W", (features, units)), ("U", (units, units)), ("b", (units,)))}  # fmt: skip
    options = {"name": "lstm_1", "batch_input_shape": [None, 4, features], "return_sequences": False, "trainable": True}
    old = {**options, "output_dim": units, "init": "a", "inner_init": "b", "forget_bias_init": "one",
           "activation": "tanh", "inner_activation": "hard_sigmoid", "go_backwards": False, "stateful": False,
           "unroll": False, "consume_less": "cpu", "dropout_W": 0.0, "dropout_U": 0.0, "input_length": 4}  # fmt: skip
    config = {"class_name": "Sequential", "config": [{"class_name": "LSTM", "config": old}]}
    arrays = [(f"lstm_1_{name}", array) for name, array in parts.items()]
    first = legacy_file(tmp_path / "a.h5", config, {"lstm_1": arrays}, "1.2.2")
    new = {**options, "units": units, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True,
           "implementation": 1, "unit_forget_bias": True}  # fmt: skip
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [{"class_name": "LSTM", "config": new}]}}
    joined = [np.concatenate([parts[f"{letter}_{gate}"] for gate in "ifco"], -1) for letter in "WUb"]
    named = list(zip([f"lstm_1/{n}:0" for n in ("kernel", "recurrent_kernel", "bias")], joined, strict=True))
    second = legacy_file(tmp_path / "b.h5", config, {"lstm_1": named}, "2.2.4")

    def gate(name: str, x: Any, h: Any) -> Any:
        return x @ parts[f"W_{name}"] + h @ parts[f"U_{name}"] + parts[f"b_{name}"]

    x, h, c = floats(2, 4, features), np.zeros((2, units)), np.zeros((2, units))
    for t in range(4):
        i, f, o = (np.clip(0.2 * gate(n, x[:, t], h) + 0.5, 0, 1) for n in "ifo")
        c = f * c + i * np.tanh(gate("c", x[:, t], h))
        h = o * np.tanh(c)
    for path in (first, second):
        keras_oracles.close(zoo.load(path)(x), h, path.name)


def old_convolution(kernel: Any, options: dict[str, Any], version: str, backend: str, path: pathlib.Path) -> Any:
    """The output of a convolution in a file of this version and backend."""
    options = {"name": "c", "trainable": True, "activation": "linear", **options}
    config = {"class_name": "Sequential", "config": [{"class_name": options.pop("class_name"), "config": options}]}
    file = legacy_file(path, config, {"c": [("c_W", kernel), ("c_b", np.zeros(5, np.float32))]}, version)
    with h5py.File(file, "r+") as opened:
        opened["model_weights"].attrs["backend"] = backend
    x = floats(*(3 if n is None else n for n in options["batch_input_shape"]))
    return zoo.load(file)(x), x


def test_kernels_of_theano_and_keras_1(tmp_path: pathlib.Path) -> None:
    """Kernels that are (out, in, size…), turned round, or of one axis but kept with two; the numbers by torch."""
    import torch
    from torch.nn import functional as F

    kernel = floats(5, 2, 3, 2)  # as torch has it
    old = {"class_name": "Convolution2D", "nb_filter": 5, "nb_row": 3, "nb_col": 2, "border_mode": "valid",
           "subsample": [1, 1], "dim_ordering": "th", "batch_input_shape": [None, 2, 6, 5]}  # fmt: skip
    new = {"class_name": "Conv2D", "filters": 5, "kernel_size": [3, 2], "strides": [1, 1], "padding": "valid",
           "data_format": "channels_first", "use_bias": True, "batch_input_shape": [None, 2, 6, 5]}  # fmt: skip
    turned = np.flip(kernel, (2, 3))
    for stored, options, version, backend in (
        (kernel, old, "1.2.2", "tensorflow"),
        (turned, old, "1.2.2", "theano"),
        (turned.transpose(2, 3, 1, 0), new, "2.1.0", "theano"),
    ):
        y, x = old_convolution(stored, options, version, backend, tmp_path / "a.h5")
        keras_oracles.close(y, F.conv2d(torch.tensor(x), torch.tensor(kernel)).numpy(), f"{version} {backend}")
    line = floats(5, 2, 3)
    one = {"class_name": "Convolution1D", "nb_filter": 5, "filter_length": 3, "border_mode": "valid",
           "subsample_length": 1, "batch_input_shape": [None, 6, 2]}  # fmt: skip
    y, x = old_convolution(line.transpose(2, 1, 0)[:, None], one, "1.2.2", "tensorflow", tmp_path / "a.h5")
    expected = F.conv1d(torch.tensor(x).permute(0, 2, 1), torch.tensor(line)).permute(0, 2, 1)
    keras_oracles.close(y, expected.numpy(), "one axis")


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_layers_of_cudnn(kind: str, gates: int, tmp_path: pathlib.Path) -> None:
    """The weights of a Keras layer as CuDNNLSTM and CuDNNGRU kept them: transposed gate by gate, two biases."""
    model = keras_oracles.scrambled(keras.Sequential([keras.Input((4, 3)), getattr(L, kind)(2)]))
    kernel, recurrent, bias = (np.asarray(array) for array in model.get_weights())
    arrays = [
        np.concatenate([part.T.reshape(part.shape) for part in np.split(kernel, gates, 1)], 1),
        np.concatenate([part.T for part in np.split(recurrent, gates, 1)], 1),
        bias.reshape(-1) if kind == "GRU" else np.concatenate([bias - 1, np.ones_like(bias)]),
    ]
    named = list(zip([f"r/{n}:0" for n in ("kernel", "recurrent_kernel", "bias")], arrays, strict=True))
    options = {"name": "r", "trainable": True, "batch_input_shape": [None, 4, 3], "units": 2,
               "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False}  # fmt: skip
    config = {"class_name": "Sequential", "config": [{"class_name": f"CuDNN{kind}", "config": options}]}
    path = legacy_file(tmp_path / "a.h5", config, {"r": named}, "2.2.4")
    x = floats(2, 4, 3)
    keras_oracles.close(zoo.load(path)(x), model(x).detach().numpy(), kind)


def tf_layer(class_name: str, name: str, nodes: Any, **options: Any) -> dict[str, Any]:
    """A layer as tf.keras writes it."""
    config = {"name": name, "trainable": True, "dtype": "float32", **options}
    return {"class_name": class_name, "name": name, "config": config, "inbound_nodes": nodes}


def tf_model(name: str, layers: list[Any], inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    """A functional model as tf.keras writes it."""
    config = {
        "name": name,
        "layers": layers,
        "input_layers": [[layer, 0, 0] for layer in inputs],
        "output_layers": [[layer, 0, 0] for layer in outputs],
    }
    return {"class_name": "Functional", "name": name, "config": config}


def test_tf_keras_functional_with_operations(tmp_path: pathlib.Path) -> None:
    """Calls as lists, a nested model whose calls count from 1, keyword tensors, TFOpLambda with constants."""
    sizes = {"batch_input_shape": [None, 3]}
    dense = {"units": 3, "activation": "relu", "use_bias": True}
    inner = tf_model(
        "inner",
        [tf_layer("InputLayer", "i", [], **sizes), tf_layer("Dense", "d", [[["i", 0, 0, {}]]], **dense)],
        ["i"],
        ["d"],
    )
    inner["inbound_nodes"] = [[["x", 0, 0, {}]], [["times", 0, 0, {}]]]
    times = [["x", 0, 0, {"y": 2.0, "name": None}]]
    minus = [["inner", 1, 0, {"y": ["inner", 2, 0], "name": None}]]
    from_one = [["_CONSTANT_VALUE", -1, 1.0, {"y": ["minus", 0, 0], "name": None}]]
    layers = [
        tf_layer("InputLayer", "x", [], **sizes),
        tf_layer("TFOpLambda", "times", times, function="math.multiply"),
        inner,
        tf_layer("TFOpLambda", "minus", minus, function="math.subtract"),
        tf_layer("TFOpLambda", "from_one", from_one, function="math.subtract"),
        tf_layer("Concatenate", "c", [[["minus", 0, 0, {}], ["from_one", 0, 0, {}]]], axis=-1),
    ]
    kernel, bias = floats(3, 3), floats(3)
    arrays = {"inner": [("d/kernel:0", kernel), ("d/bias:0", bias)]}
    x = floats(2, 3)
    first, second = (np.maximum(v @ kernel + bias, 0) for v in (x, 2 * x))
    expected = np.concatenate([first - second, 1 - (first - second)], -1)
    path = legacy_file(tmp_path / "a.h5", tf_model("outer", layers, ["x"], ["c"]), arrays, "2.4.0")
    keras_oracles.close(zoo.load(path)(x), expected, "tf.keras")


def test_names_in_archives_of_tf_keras(tmp_path: pathlib.Path) -> None:
    """tf.keras 2.12 to 2.15 keep the layers of functional models below another name."""
    inputs = keras.Input((3,))
    model = keras_oracles.scrambled(keras.Model(inputs, L.Dense(2)(L.BatchNormalization()(inputs))))
    model.save(tmp_path / "a.keras")
    checkpoint = formats.read(tmp_path / "a.keras")
    renamed = {name.replace("layers/", "_layer_checkpoint_dependencies/", 1): t for name, t in checkpoint.items()}
    x = floats(2, 3)
    read = from_checkpoint(formats.Checkpoint(renamed, checkpoint.metadata, "keras"))
    keras_oracles.close(keras_oracles.run(read, x)[0], model(x).detach().numpy(), "tf.keras")


# -- broken and hostile files ------------------------------------------------------------------------------------


def example(tmp_path: pathlib.Path) -> list[Any]:
    """Checkpoints of a model with many kinds of layers, of both formats."""
    inputs = keras.Input((6, 6, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    x = L.MaxPooling2D()(L.Add()([x, L.DepthwiseConv2D(1)(x)]))
    x = L.Bidirectional(L.GRU(3, return_sequences=True))(L.Reshape((9, 4))(x))
    x = L.MultiHeadAttention(2, 2)(x, x)
    x = L.TimeDistributed(keras.Sequential([keras.Input((6,)), L.Dense(3)]))(x)
    model = keras.Model(inputs, L.Softmax()(L.Dense(2)(L.Flatten()(x)) * 2.0))
    return [formats.read(keras_oracles.saved(model, tmp_path, suffix)) for suffix in (".keras", ".h5")]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(value, key), *places(item)]]


STRANGE = [None, -1, 0, 1, 2**40, 1.5, True, "", "x", "Dense", [], [1], {}, {"class_name": "Dense"}, [["a", 0, 0]]]


def mutated(config: Any, generator: random.Random) -> Any:
    """A configuration with one to three values replaced or taken away."""
    changed = copy.deepcopy(config)
    for _ in range(generator.randint(1, 3)):
        container, key = generator.choice(places(changed))
        if generator.random() < 0.3:
            container.pop(key)
        else:
            container[key] = copy.deepcopy(generator.choice(STRANGE))
    return changed


def fuzz(tmp_path: pathlib.Path, count: int) -> None:
    """Mutated configurations give a model, or an error of ours."""
    generator = random.Random(0)
    checkpoints = example(tmp_path)
    failed = 0
    for number in range(count):
        checkpoint = checkpoints[number % 2]
        key = "config" if number % 2 == 0 else "model_config"
        metadata = {**checkpoint.metadata, key: mutated(checkpoint.metadata[key], generator)}
        try:
            from_checkpoint(formats.Checkpoint(checkpoint, metadata, checkpoint.format))
        except ZoonetError:
            failed += 1
    assert count / 20 < failed < count


def test_mutated_configurations(tmp_path: pathlib.Path) -> None:
    fuzz(tmp_path, 200)


@pytest.mark.slow
def test_many_mutated_configurations(tmp_path: pathlib.Path) -> None:
    fuzz(tmp_path, 20_000)


def test_cycles_depth_and_missing_weights(tmp_path: pathlib.Path) -> None:
    checkpoint = example(tmp_path)[0]
    config = copy.deepcopy(checkpoint.metadata["config"])
    layers = {layer["name"]: layer for layer in config["config"]["layers"]}
    tensor = layers["conv2d"]["inbound_nodes"][0]["args"][0]
    tensor["config"]["keras_history"] = ["flatten", 0, 0]
    with pytest.raises(FormatError, match="have a cycle"):
        from_checkpoint(formats.Checkpoint(checkpoint, {"config": config}, "keras"))
    deep: Any = {"class_name": "Dense", "config": {"name": "dense"}}
    for _ in range(60):
        deep = {"class_name": "Sequential", "config": {"name": "s", "layers": [deep]}}
    with pytest.raises(FormatError, match="nested too deeply"):
        from_checkpoint(formats.Checkpoint({}, {"config": deep}, "keras"))
    fewer = {name: tensor for name, tensor in checkpoint.items() if name != "layers/conv2d/vars/1"}
    with pytest.raises(FormatError, match="no weight 'conv2d/bias'"):
        from_checkpoint(formats.Checkpoint(fewer, checkpoint.metadata, "keras"))


def test_models_that_call_each_other_many_times() -> None:
    """Each model calls the one before it twice: 2^38 calls in a short file."""
    layer = {"class_name": "Activation", "config": {"name": "a", "activation": "relu", "trainable": True}}
    inner: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
    for _ in range(38):
        inner |= {"name": "m", "inbound_nodes": [[["x", 0, 0, {}]], [["m", 0, 0, {}]]]}
        entry = tf_layer("InputLayer", "x", [], batch_input_shape=[None, 2])
        inner = tf_model("m", [entry, inner], ["x"], ["m"])
        inner["config"]["output_layers"] = [["m", 1, 0]]
    with pytest.raises(ZoonetError, match="too often"):
        from_checkpoint(formats.Checkpoint({}, {"config": inner}, "keras"))


HUGE: dict[str, Any] = {
    "Resizing": {"height": 2**34, "width": 2**34},
    "UpSampling2D": {"size": [2**20, 2**20], "interpolation": "bilinear"},
    "CenterCrop": {"height": 2**34, "width": 2**34},
    "ZeroPadding2D": {"padding": [2**40, 2**40]},
    "Cropping2D": {"cropping": [2**40, 2**40]},
}


@pytest.mark.parametrize("class_name", HUGE)
def test_sizes_that_no_machine_has(class_name: str) -> None:
    """An error of ours, or a model that was only described: nothing of that size is made by reading."""
    layers = [tf_layer("InputLayer", "x", [], batch_input_shape=[None, 4, 4, 3])]
    layers += [tf_layer(class_name, "y", [[["x", 0, 0, {}]]], **HUGE[class_name])]
    checkpoint = formats.Checkpoint({}, {"config": tf_model("m", layers, ["x"], ["y"])}, "keras")
    if class_name == "ZeroPadding2D":
        assert from_checkpoint(checkpoint).outputs[0].shape == (None, 4 + 2**41, 4 + 2**41, 3)
        return
    with pytest.raises(ZoonetError, match="'y'"):
        from_checkpoint(checkpoint)


def test_sequences_that_never_end(tmp_path: pathlib.Path) -> None:
    model = keras.Sequential([keras.Input((5, 3)), L.SimpleRNN(2)])
    checkpoint = formats.read(keras_oracles.saved(model, tmp_path, ".keras"))
    config = json.loads(json.dumps(checkpoint.metadata["config"]).replace("[null, 5, 3]", "[null, 10000000000, 3]"))
    with pytest.raises(FormatError, match="the number of steps is too large"):
        from_checkpoint(formats.Checkpoint(checkpoint, {"config": config}, "keras"))


def test_old_files_of_many_layers_become_new_ones(tmp_path: pathlib.Path) -> None:
    """Nested and shared models, wrappers, attention: a legacy file written as .keras and loaded by Keras."""
    block = keras.Sequential([keras.Input((4,)), L.Dense(4, activation="gelu"), L.LayerNormalization()], name="block")
    inner_input = keras.Input((9, 4))
    inner = keras.Model(inner_input, L.MultiHeadAttention(2, 2)(inner_input, inner_input), name="inner")
    inputs, ids = keras.Input((6, 6, 2), name="picture"), keras.Input((9,), dtype="int32", name="ids")
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(inputs))
    x = L.PReLU(shared_axes=[1, 2])(L.MaxPooling2D()(L.Add()([x, L.DepthwiseConv2D(1)(x)])))
    x = L.Concatenate(axis=1)([L.Reshape((9, 4))(x), L.Embedding(7, 4)(ids)])
    x = inner(L.Cropping1D((4, 5))(x))
    x = L.Add()([x, L.TimeDistributed(block)(x), inner(x)])
    x = L.Bidirectional(L.GRU(3, reset_after=False))(x)
    outputs = [L.Dense(2, activation="softmax")(x), L.Dropout(0.2)(L.LeakyReLU(0.1)(x))]
    model = keras_oracles.scrambled(keras.Model([inputs, ids], outputs))
    old = zoo.load(keras_oracles.saved(model, tmp_path, ".h5"))
    old.save(tmp_path / "new.keras")
    arrays = [floats(2, 6, 6, 2), np.random.default_rng(0).integers(0, 7, (2, 9)).astype(np.int32)]
    _, expected = keras_oracles.outputs_of(model, arrays)
    _, loaded = keras_oracles.outputs_of(keras.models.load_model(tmp_path / "new.keras"), arrays)
    for ours, theirs, again in zip(old(*arrays), expected, loaded, strict=True):
        keras_oracles.close(ours, theirs.detach().numpy(), "read")
        keras_oracles.close(again.detach().numpy(), theirs.detach().numpy(), "loaded by Keras")
