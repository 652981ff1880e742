"""What a model may hold beside nodes: sparse weights, defaults of inputs, functions, containers, every data type."""

from __future__ import annotations

import pathlib
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from zoonet.formats import onnx as reader
from zoonet.ops.errors import FormatError, InputError

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def port(name: str, kind: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes: list, inputs: list, outputs: list, weights: list | None = None, **options: Any) -> onnx.ModelProto:
    sparse = options.pop("sparse", None)
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights, sparse_initializer=sparse)
    opsets = [helper.make_opsetid("", 17), *options.pop("domains", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **options)


def expected_of(model: onnx.ModelProto, feeds: dict) -> list:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


X = RNG.normal(size=(2, 3)).astype(np.float32)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights(flat: bool) -> None:
    values = numpy_helper.from_array(np.float32([5, -2]), "w")
    places = np.array([1, 5]) if flat else np.array([[0, 1], [1, 2]])
    weight = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "i"), [2, 3])
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [port("x")], [port("y")], sparse=[weight])
    (y,) = reader.run_model(model, [X])
    dense = np.zeros((2, 3), np.float32)
    dense[0, 1], dense[1, 2] = 5, -2
    np.testing.assert_array_equal(y, X + dense)
    np.testing.assert_array_equal(y, expected_of(model, {"x": X})[0])
    weight.indices.CopyFrom(numpy_helper.from_array(np.array([1, 6]), "i"))
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [port("x")], [port("y")], sparse=[weight])
    with pytest.raises(FormatError, match="outside of its shape"):
        reader.run_model(model, [X])


def test_defaults_of_inputs_may_be_replaced() -> None:
    weights = [numpy_helper.from_array(np.float32([1, 2, 3]), "w"), numpy_helper.from_array(np.float32(10), "s")]
    nodes = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("Add", ["a", "w"], ["y"])]
    made = model_of(nodes, [port("x"), port("w", FLOAT, [3]), port("s", FLOAT, [])], [port("y")], weights)
    model = reader.from_proto(made)
    assert [info.optional for info in model.inputs] == [False, True, True]
    for feeds in ({"x": X}, {"x": X, "w": np.float32([4, 5, 6])}, {"s": np.array(-1, np.float32), "x": X}):
        np.testing.assert_array_equal(model.run(feeds)[0], expected_of(made, feeds)[0])
    np.testing.assert_array_equal(model.run([X])[0], model.run({"x": X})[0])
    with pytest.raises(InputError, match="wrong shape"):
        model.run({"x": X, "w": np.float32([4, 5])})


def test_functions_with_attributes_defaults_and_absent_inputs() -> None:
    scaled = helper.make_node("LeakyRelu", ["a"], ["b"])
    scaled.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    body = [scaled, helper.make_node("Clip", ["b", "low", "high"], ["c"])]
    function = helper.make_function(
        "own", "Bounded", ["a", "low", "high"], ["c"], body, [helper.make_opsetid("", 17)], [],
        [helper.make_attribute("slope", 0.5)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Bounded", ["x", "", "top"], ["p"], domain="own", slope=0.25),
        helper.make_node("Bounded", ["p", "top"], ["y"], domain="own"),
    ]
    weights = [numpy_helper.from_array(np.float32(0.1), "top")]
    domains = [helper.make_opsetid("own", 1)]
    made = model_of(nodes, [port("x")], [port("y")], weights, functions=[function], domains=domains)
    first = np.minimum(np.where(X < 0, X * np.float32(0.25), X), np.float32(0.1))
    expected = np.maximum(np.where(first < 0, first * np.float32(0.5), first), np.float32(0.1))
    np.testing.assert_allclose(reader.run_model(made, [X])[0], expected)
    np.testing.assert_allclose(expected_of(made, {"x": X})[0], expected)


def test_sub_graphs_see_what_is_around_them() -> None:
    """A loop in a branch, both of which use values from outside."""
    step = helper.make_graph(
        [helper.make_node("Mul", ["v", "factor"], ["n"]), helper.make_node("Identity", ["c"], ["go"])], "step",
        [port("i", TensorProto.INT64, []), port("c", TensorProto.BOOL, []), port("v")],
        [port("go", TensorProto.BOOL, []), port("n")],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["count", "", "x"], ["z"], body=step)
    then = helper.make_graph([loop], "then", [], [port("z")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z2"])], "else", [], [port("z2")])
    node = helper.make_node("If", ["cond"], ["y"], then_branch=then, else_branch=other)
    weights = [numpy_helper.from_array(np.float32(2), "factor"), numpy_helper.from_array(np.array(3), "count")]
    made = model_of([node], [port("x", FLOAT, [2, 3]), port("cond", TensorProto.BOOL, [])], [port("y")], weights)
    for cond in (True, False):
        feeds = {"x": X, "cond": np.array(cond)}
        np.testing.assert_array_equal(reader.run_model(made, feeds)[0], expected_of(made, feeds)[0])


DTYPES = [
    *[
        "float32",
        "float64",
        "float16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ],
    *["complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "float4_e2m1fn"],
]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_every_data_type_passes_through(name: str, raw: bool, tmp_path: pathlib.Path) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    weight = numpy_helper.from_array(values, "w")
    if not raw:
        weight = helper.make_tensor("w", kind, [2, 3], values.reshape(-1).tolist())
    nodes = [helper.make_node("Identity", ["w"], ["y"]), helper.make_node("Identity", ["x"], ["z"])]
    made = model_of(nodes, [port("x", kind, ["N", 3])], [port("y", kind), port("z", kind)], [weight])
    made.opset_import[0].version = 23
    onnx.save(made, tmp_path / "m.onnx")
    y, z = reader.load(tmp_path / "m.onnx").run([values])
    for result in (y, z):
        assert result.dtype == dtype
        assert result.tobytes() == values.tobytes()


def test_strings_sequences_and_optionals() -> None:
    names = numpy_helper.from_array(np.array(["one", "zwei", "três"], object), "names")
    picked = model_of(
        [helper.make_node("Gather", ["names", "i"], ["y"])],
        [port("i", TensorProto.INT64, ["N"])], [port("y", TensorProto.STRING)], [names],
    )  # fmt: skip
    assert reader.run_model(picked, [np.array([2, 0])])[0].tolist() == ["três", "one"]
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    joined = model_of(
        [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)], [helper.make_value_info("s", kind)], [port("y")]
    )
    np.testing.assert_array_equal(reader.run_model(joined, [[X, X[:1]]])[0], np.concatenate([X, X[:1]]))
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    asked = model_of(
        [helper.make_node("OptionalHasElement", ["o"], ["y"])],
        [helper.make_value_info("o", optional)], [port("y", TensorProto.BOOL)],
    )  # fmt: skip
    assert not reader.run_model(asked, [None])[0]
    assert reader.run_model(asked, [X])[0]
