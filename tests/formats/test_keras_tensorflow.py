"""Functions of TensorFlow in models of tf.keras (TFOpLambda, SlicingOpLambda), written by hand as tf.keras writes them.

The expected numbers are NumPy's and torch's, by TensorFlow's documentation; TensorFlow is not installed.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from keras_legacy import legacy_file, tf_layer, tf_model

from zoonet import zoo
from zoonet.ops.errors import UnsupportedFormatError

X = np.random.default_rng(1).standard_normal((2, 5, 4)).astype(np.float32)
Y = np.random.default_rng(2).standard_normal((2, 5, 4)).astype(np.float32)
ALL = {"start": None, "stop": None, "step": None}
TENSOR = ["y", 0, 0]


def of_torch(function: Any) -> Any:
    return function(torch.tensor(X)).numpy()


#: Function, first argument ("x", "xy" for a list of both, or a constant), the other arguments, the result.
CASES: list[tuple[str, Any, dict[str, Any], Any]] = [
    ("__operators__.add", "x", {"y": 3.0, "name": None}, X + 3),
    ("math.subtract", 1.0, {"y": ["x", 0, 0], "name": None}, 1 - X),
    ("math.multiply", "x", {"y": TENSOR, "name": None}, X * Y),
    ("math.multiply", "x", {"y": [1.0, 2.0, 3.0, 4.0], "name": None}, X * np.array([1, 2, 3, 4], np.float32)),
    ("math.truediv", "x", {"y": 2.0}, X / 2),
    ("math.floormod", "x", {"y": 0.7}, np.mod(X, np.float32(0.7))),
    ("math.maximum", "x", {"y": TENSOR}, np.maximum(X, Y)),
    ("math.atan2", "x", {"x": TENSOR}, np.arctan2(X, Y)),
    ("math.square", "x", {"name": None}, X**2),
    ("math.negative", "x", {"name": None}, -X),
    ("nn.relu6", "x", {"name": None}, np.clip(X, 0, 6)),
    ("nn.leaky_relu", "x", {}, np.where(X > 0, X, np.float32(0.2) * X)),
    ("nn.leaky_relu", "x", {"alpha": 0.1}, np.where(X > 0, X, np.float32(0.1) * X)),
    ("nn.gelu", "x", {"approximate": False, "name": None}, of_torch(torch.nn.functional.gelu)),
    ("nn.gelu", "x", {}, of_torch(torch.nn.functional.gelu)),
    ("nn.silu", "x", {"beta": None}, of_torch(torch.nn.functional.silu)),
    ("nn.softmax", "x", {"axis": 1, "name": None}, of_torch(lambda x: x.softmax(1))),
    ("math.reduce_mean", "x", {"axis": [1, 2], "keepdims": True, "name": None}, X.mean((1, 2), keepdims=True)),
    ("math.reduce_max", "x", {"axis": -1, "keepdims": False}, X.max(-1)),
    ("math.reduce_variance", "x", {"axis": 1}, X.var(1)),
    ("math.argmax", "x", {"axis": -1}, X.argmax(-1)),
    ("math.l2_normalize", "x", {"axis": -1}, X / np.linalg.norm(X, axis=-1, keepdims=True)),
    ("linalg.matmul", "x", {"b": np.eye(4)[:, :3].tolist()}, X[..., :3]),
    ("reshape", "x", {"shape": [-1, 2, 10], "name": None}, X.reshape(-1, 2, 10)),
    ("transpose", "x", {"perm": [0, 2, 1], "conjugate": None}, X.transpose(0, 2, 1)),
    ("compat.v1.transpose", "x", {"perm": [0, 2, 1]}, X.transpose(0, 2, 1)),
    ("expand_dims", "x", {"axis": 1, "name": None}, X[:, None]),
    ("concat", "xy", {"axis": -1, "name": None}, np.concatenate([X, Y], -1)),
    ("stack", "xy", {"axis": 1, "name": None}, np.stack([X, Y], 1)),
    ("math.add_n", "xy", {"name": None}, X + Y),
    ("tile", "x", {"multiples": [1, 2, 1]}, np.tile(X, (1, 2, 1))),
    ("pad", "x", {"paddings": [[0, 0], [1, 2], [0, 0]], "mode": "CONSTANT", "constant_values": 2.0},
     np.pad(X, ((0, 0), (1, 2), (0, 0)), constant_values=2)),
    ("pad", "x", {"paddings": [[0, 0], [1, 2], [0, 0]], "mode": "REFLECT"},
     np.pad(X, ((0, 0), (1, 2), (0, 0)), "reflect")),
    ("slice", "x", {"begin": [0, 1, 0], "size": [2, 2, 3]}, X[:, 1:3, :3]),
    ("reverse", "x", {"axis": [1]}, X[:, ::-1]),
    ("cast", "x", {"dtype": "int32"}, X.astype(np.int32)),
    ("clip_by_value", "x", {"clip_value_min": -0.5, "clip_value_max": 0.5}, np.clip(X, -0.5, 0.5)),
    ("gather", "x", {"indices": [2, 0], "axis": 1}, X[:, [2, 0]]),
    ("zeros_like", "x", {"dtype": None}, 0 * X),
    ("math.cumsum", "x", {"axis": 1}, X.cumsum(1)),
    ("__operators__.getitem", "x", {"slice_spec": [ALL, {"start": 1, "stop": None, "step": 2}]}, X[:, 1::2]),
    ("__operators__.getitem", "x", {"slice_spec": [ALL, 0]}, X[:, 0]),
    ("__operators__.getitem", "x", {"slice_spec": [{"class_name": "__ellipsis__"}, None, -1]}, X[..., None, -1]),
]  # fmt: skip


def model(tmp_path: pathlib.Path, function: str, first: Any, arguments: dict[str, Any], count: int = 1) -> Any:
    """A model of tf.keras with one call of a function."""
    if first == "x":
        node: Any = ["x", 0, 0, arguments]
    elif first == "xy":
        node = [["x", 0, 0, arguments], ["y", 0, 0, arguments]]
    else:
        node = ["_CONSTANT_VALUE", -1, first, arguments]
    class_name = "SlicingOpLambda" if function.endswith("getitem") else "TFOpLambda"
    layers = [tf_layer("InputLayer", name, [], batch_input_shape=[None, 5, 4]) for name in "xy"]
    layers.append(tf_layer(class_name, "f", [node], function=function))
    config = tf_model("m", layers, ["x", "y"], ["f"])
    config["config"]["output_layers"] = [["f", 0, number] for number in range(count)]
    return zoo.load(legacy_file(tmp_path / "a.h5", config, {}, "2.11.0"))


@pytest.mark.parametrize("case", CASES, ids=[f"{i} {case[0]}" for i, case in enumerate(CASES)])
def test_functions(case: Any, tmp_path: pathlib.Path) -> None:
    function, first, arguments, expected = case
    y = np.asarray(model(tmp_path, function, first, arguments)(X, Y))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6)


def test_parts(tmp_path: pathlib.Path) -> None:
    """tf.split takes the sizes of parts where NumPy takes the places."""
    arguments = {"num_or_size_splits": [1, 3, 1], "axis": 1, "num": None, "name": None}
    parts = model(tmp_path, "split", "x", arguments, 3)(X, Y)
    for ours, theirs in zip(parts, np.split(X, [1, 4], 1), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"'f' calls the TensorFlow function 'raw_ops\.Foo', which is not"):
        model(tmp_path, "raw_ops.Foo", "x", {})
    with pytest.raises(UnsupportedFormatError, match="'f' calls 'gather' with an argument that is not supported"):
        model(tmp_path, "gather", "x", {"indices": [0], "batch_dims": 1})
    with pytest.raises(UnsupportedFormatError, match=r"'f': linalg\.matmul with transpose_b is not supported"):
        model(tmp_path, "linalg.matmul", "x", {"b": TENSOR, "transpose_b": True})


def test_hard_swish_of_mobilenet_v3(tmp_path: pathlib.Path) -> None:
    """As keras.applications.MobileNetV3Small of tf.keras writes it: layers and functions in turn."""
    layers = [
        tf_layer("InputLayer", "input_1", [], batch_input_shape=[None, 5, 4]),
        tf_layer("TFOpLambda", "plus", [["input_1", 0, 0, {"y": 3.0, "name": None}]], function="__operators__.add"),
        tf_layer("ReLU", "re_lu", [[["plus", 0, 0, {}]]], max_value=6.0, negative_slope=0.0, threshold=0.0),
        tf_layer(
            "TFOpLambda",
            "times",
            [["re_lu", 0, 0, {"y": 0.16666666666666666, "name": None}]],
            function="math.multiply",
        ),
        tf_layer("Multiply", "multiply", [[["input_1", 0, 0, {}], ["times", 0, 0, {}]]]),
    ]
    config = tf_model("MobilenetV3small", layers, ["input_1"], ["multiply"])
    y = zoo.load(legacy_file(tmp_path / "a.h5", config, {}, "2.9.0"))(X)
    np.testing.assert_allclose(y, of_torch(torch.nn.functional.hardswish), rtol=1e-5, atol=1e-6)
