"""Keras models of Keras 1, Keras 2 and tf.keras: their configurations, numberings and layouts of weights."""

from __future__ import annotations

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
from keras_legacy import legacy_file, tf_layer, tf_model  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import formats, zoo  # noqa: E402
from zoonet.formats.keras import from_checkpoint  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


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


def test_tf_keras_masks_states_and_attention(tmp_path: pathlib.Path) -> None:
    """A decoder with given states is masked by tf.keras; attention keeps the shapes that it was built for."""
    options = {"units": 4, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True,
               "return_sequences": True, "time_major": False, "implementation": 2}  # fmt: skip
    built = {"class_name": "TensorShape", "items": [None, 5, 4]}
    shapes = {"query_shape": built, "key_shape": built, "value_shape": built}
    layers = [
        tf_layer("InputLayer", "ids", [], batch_input_shape=[None, 5]),
        *[tf_layer("InputLayer", name, [], batch_input_shape=[None, 4]) for name in "hc"],
        tf_layer("Embedding", "e", [[["ids", 0, 0, {}]]], input_dim=7, output_dim=3, mask_zero=True, input_length=None),
        tf_layer("LSTM", "l", [[["e", 0, 0, {}], ["h", 0, 0, {}], ["c", 0, 0, {}]]], **options),
        tf_layer("MultiHeadAttention", "a", [[["l", 0, 0, {"value": ["l", 0, 0]}]]], num_heads=2, key_dim=3,
                 value_dim=3, dropout=0.0, use_bias=True, output_shape=None, attention_axes=[1], **shapes),
    ]  # fmt: skip
    layers[0]["config"]["dtype"] = "int32"
    embedding, lstm, attention = L.Embedding(7, 3), L.LSTM(4, return_sequences=True), L.MultiHeadAttention(2, 3)
    x, h, c, ids = floats(3, 5, 3), floats(3, 4), floats(3, 4, seed=2), np.array([[1, 2, 0, 0, 0], [3, 0, 4, 5, 0]])
    ids = np.concatenate([ids, [[6, 1, 2, 3, 4]]]).astype(np.int32)
    for layer, given in ((embedding, [ids]), (lstm, [x]), (attention, [x[..., :1].repeat(4, -1)] * 2)):
        layer(*given)
        keras_oracles.scrambled(layer)
    kept = ids != 0
    middle = lstm(embedding(ids), initial_state=[h, c], mask=kept)
    expected = attention(middle, middle, query_mask=kept, value_mask=kept).detach().numpy()

    def named(layer: Any, *names: str) -> list[tuple[str, Any]]:
        return [(f"{name}:0", np.asarray(array)) for name, array in zip(names, layer.get_weights(), strict=True)]

    dense = ("query", "key", "value", "attention_output")
    parts = [f"a/{part}/{role}" for part in dense for role in ("kernel", "bias")]
    weights = {
        "e": named(embedding, "e/embeddings"),
        "l": named(lstm, *(f"l/lstm_cell/{role}" for role in ("kernel", "recurrent_kernel", "bias"))),
        "a": named(attention, *parts),
    }
    path = legacy_file(tmp_path / "a.h5", tf_model("m", layers, ["ids", "h", "c"], ["a"]), weights, "2.11.0")
    ours = zoo.load(path)(ids, h, c)
    keras_oracles.close(ours[kept], expected[kept], "tf.keras")
