"""ONNX files as models of the facade, against ONNX Runtime."""

from __future__ import annotations

import contextlib
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_runtime import run, session_of

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, InputError, TraceError
from zoonet.zoo import conversion
from zoonet.zoo.cli import main

RNG = np.random.default_rng(0)


def written(path: pathlib.Path, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> str:
    graph = helper.make_graph(
        nodes, "test", inputs, outputs, [numpy_helper.from_array(array, name) for name, array in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def info(name: str, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def two_inputs(tmp_path: pathlib.Path) -> str:
    """y = tanh(a + w) · b, total = sum of y."""
    return written(
        tmp_path / "two.onnx",
        [
            helper.make_node("Add", ["a", "w"], ["s"]),
            helper.make_node("Tanh", ["s"], ["t"]),
            helper.make_node("Mul", ["t", "b"], ["y"]),
            helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in "ab"],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, []),
        ],
        {"w": RNG.normal(size=3).astype(np.float32)},
    )


def test_run_takes_a_list_or_a_dict_and_equals_onnx_runtime(two_inputs: str, tmp_path: pathlib.Path) -> None:
    model = zoo.load(two_inputs)
    a, b = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    expected = onnxruntime.InferenceSession(two_inputs).run(None, {"a": a, "b": b})
    np.savez(tmp_path / "inputs.npz", a=a, b=b)
    for given in ([a, b], {"b": b, "a": a}, str(tmp_path / "inputs.npz")):
        outputs = model.run(given)
        assert list(outputs) == ["y", "total"]
        for ours, theirs in zip(outputs.values(), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model(a, b)[0], expected[0], rtol=1e-6)


def test_parameters_are_named_and_can_be_replaced(two_inputs: str) -> None:
    model = zoo.load(two_inputs)
    assert list(model.network.state_dict()) == ["w"]
    a, b = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    model.network.load_state_dict({"w": np.full(3, 0.5, np.float32)})
    np.testing.assert_allclose(model(a, b)[0], np.full((1, 3), np.tanh(0.5)), rtol=1e-6)

    def loss(parameters: dict) -> object:
        return zoo.functional_call(model.network, parameters, a, b)[0][1]

    gradient = ops.grad(loss)(model.network.parameters())["w"]
    np.testing.assert_allclose(gradient, np.full(3, 1 - np.tanh(0.5) ** 2), rtol=1e-5)


def test_shapes_that_depend_on_contents_run(tmp_path: pathlib.Path) -> None:
    path = written(
        tmp_path / "shape.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [6]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        {},
    )
    model = zoo.load(path)
    for shape in ((2, 3), (3, 2)):
        x = np.arange(6, dtype=np.float32)
        np.testing.assert_array_equal(model(x, np.array(shape)), x.reshape(shape))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": np.zeros((1, 3), np.float32)}, "the input 'b' is missing"),
        ({"c": 1, "a": 1, "b": 1}, "has no input 'c'"),
        ([np.zeros((1, 3), np.float32)] * 3, "wrong number of inputs"),
        ([np.zeros((1, 4), np.float32)] * 2, "wrong shape"),
        ([np.zeros((1, 3), np.float64)] * 2, "wrong data type"),
        (["text", "text"], "is not an array"),
    ],
)
def test_inputs_that_do_not_fit(two_inputs: str, given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.load(two_inputs).run(given)


def test_options_that_the_task_does_not_have(two_inputs: str) -> None:
    with pytest.raises(ArgumentError, match="no option 'labels'"):
        zoo.load(two_inputs, labels=["a"])
    with pytest.raises(ArgumentError, match="no option 'batch'"):
        zoo.load(two_inputs).run([], batch=3)


@pytest.mark.parametrize("operator", ["RandomNormal", "RandomUniformLike", "Bernoulli", "Dropout"])
@pytest.mark.parametrize("seeded", [False, True])
def test_random_numbers_are_new_at_each_run_unless_they_have_a_seed(
    operator: str, seeded: bool, tmp_path: pathlib.Path
) -> None:
    attributes = {"shape": [3, 50]} if operator == "RandomNormal" else {}
    seed = {"seed": 5 if operator == "Dropout" else 5.0} if seeded else {}
    inputs = {"RandomNormal": [], "Dropout": ["x", "ratio", "training"]}.get(operator, ["x"])
    node = helper.make_node(operator, inputs, ["drawn"], **attributes, **seed)
    path = written(
        tmp_path / "random.onnx",
        [node, helper.make_node("Add", ["drawn", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 50])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 50])],
        {"ratio": np.float32(0.5), "training": np.array(True)} if operator == "Dropout" else {},
    )  # fmt: skip
    model = zoo.load(path)
    x = np.full((3, 50), 0.5, np.float32)
    first, second = model(x), model(x)
    assert (first == second).all() == seeded
    assert np.unique(first).size > 1
    with pytest.raises(TraceError, match="seed") if not seeded else contextlib.nullcontext():
        ops.compile(ops.trace(model.network, x))


def test_parameters_may_be_cast_to_another_precision(two_inputs: str) -> None:
    a, b = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    expected = zoo.load(two_inputs)(a, b)[0]
    for dtype in ("float16", "float64"):
        model = zoo.load(two_inputs, dtype=dtype)
        assert model.network.state_dict()["w"].dtype == dtype
        np.testing.assert_allclose(model(a, b)[0], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
def test_classifiers_that_end_in_other_shapes(tmp_path: pathlib.Path, softmax: bool, column: bool) -> None:
    """SqueezeNet's scores are (1, classes, 1, 1), and a softmax may stand before the flattening."""
    weights = RNG.normal(size=(5, 3, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["p"])]
    nodes += [helper.make_node("Softmax", ["p"], ["s"], axis=1)] if softmax else []
    nodes += [] if column else [helper.make_node("Flatten", ["s" if softmax else "p"], ["y"])]
    name, shape = nodes[-1].output[0], [1, 5, 1, 1] if column else [1, 5]
    path = written(
        tmp_path / "c.onnx",
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        {"w": weights},
    )
    prepared = zoo.ImagePreprocessing(resize=(8, 8), crop=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    model = zoo.load(path, task="image-classification", preprocessing=prepared)
    picture = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    raw = onnxruntime.InferenceSession(path).run(None, {"x": picture.transpose(2, 0, 1)[None].astype("f4") / 255})[0]
    expected = raw.ravel() if softmax else np.exp(raw.ravel()) / np.exp(raw.ravel()).sum()
    found = {item.index: item.score for item in model.run(picture).top(5)}
    np.testing.assert_allclose([found[index] for index in range(5)], expected, rtol=1e-4)


def test_settings_of_a_file_stay_settings_when_it_is_written(tmp_path: pathlib.Path) -> None:
    """Constant nodes that are no weights do not become parameters of the copy."""
    arrays = {"mean": [0.1, 0.2, 0.3], "spread": [0.5, 0.25, 2.0], "value": [1.0, 2.0]}
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.float32(array), "value"))
        for name, array in arrays.items()
    ]
    nodes = [
        *constants,
        helper.make_node("Sub", ["x", "mean"], ["a"]),
        helper.make_node("Div", ["a", "spread"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
        helper.make_node("Mul", ["y", "value"], ["z"]),
        helper.make_node("Identity", ["mean"], ["m"]),
    ]
    w = np.arange(6, dtype=np.float32).reshape(3, 2)
    outputs = [info("z", ["N", 2]), info("m", [3])]
    source = written(tmp_path / "a.onnx", nodes, [info("x", ["N", 3])], outputs, {"w": w})
    report = zoo.convert(source, tmp_path / "b.onnx")
    assert (report.compared, report.tensors, report.agrees, report.changed) == (1, 1, True, [])
    assert list(zoo.load(tmp_path / "b.onnx").network.state_dict()) == ["w"]
    model = onnx.load(tmp_path / "b.onnx")
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
    x = np.float32([[1, 2, 3]])
    found = run(session_of(tmp_path / "b.onnx"), x)
    np.testing.assert_allclose(found[0], (x - np.float32([0.1, 0.2, 0.3])) / np.float32([0.5, 0.25, 2]) @ w * [1, 2])


def test_a_conversion_that_changes_weights_ends_with_status_1(
    two_inputs: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", two_inputs, str(tmp_path / "good.onnx")]) == 0
    load = conversion.storage.load
    monkeypatch.setattr(conversion.storage, "load", lambda path, *rest, **given: _changed(load(path, *rest, **given)))
    assert main(["convert", two_inputs, str(tmp_path / "bad.onnx")]) == 1
    assert "CHANGED: not read back as written: " in capsys.readouterr().out


def _changed(model: zoo.Model) -> zoo.Model:
    """Each time it is loaded, its last parameter is another."""
    name, array = list(model.network.named_parameters())[-1]
    model.network.load_state_dict({**model.network.state_dict(), name: array + RNG.normal(size=array.shape)})
    return model
