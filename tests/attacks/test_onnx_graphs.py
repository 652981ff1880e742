"""Graphs that lie or are broken: a clear error that names the node, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from zoonet import formats, zoo
from zoonet.formats import onnx as reader
from zoonet.ops import memory
from zoonet.ops.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    FormatError,
    InputError,
    MissingFileError,
    ShapeError,
    UnsafeFileError,
    UnsupportedFormatError,
    ZoonetError,
)
from zoonet.ops.sets.onnx import control

FUZZ = pathlib.Path(__file__).resolve().parent.parent / "onnx_fuzz.py"
FLOAT = TensorProto.FLOAT


def port(name: str, kind: int = FLOAT, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list, inputs: Any = "x", outputs: Any = "y", weights: dict | None = None, opset: int = 17, **options: Any
) -> onnx.ModelProto:
    """inputs, outputs: ports, or names of floats."""
    sides = [[port(p) for p in side.split()] if isinstance(side, str) else side for side in (inputs, outputs)]
    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", *sides, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, **options)


def node(operator: str, inputs: str = "x", outputs: str = "y", name: str = "the_node", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes)


def with_attributes(axis: int = 1, ref: str = "") -> Any:
    """A Softmax with two axes, or one that it takes from a function around it."""
    made = node("Softmax", axis=1) if not ref else node("Softmax")
    made.attribute.add(name="axis", type=onnx.AttributeProto.INT, i=axis, ref_attr_name=ref)
    return made


X = np.ones((2, 3), np.float32)


# -- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        ([node("Add", "x z", "y", "first"), node("Relu", "y", "z", "second")], FormatError, "cycle.*first.*second"),
        ([node("Add", "x y", "y", "loop")], FormatError, "cycle.*loop"),
        ([node("Relu", "nothing")], FormatError, "'the_node'.*Relu.*'nothing'"),
        ([node("Relu", outputs="z")], FormatError, "output that nothing computes.*'y'"),
        ([node("Relu"), node("Tanh")], FormatError, "'y' is defined twice"),
        ([node("Relu", outputs="x")], FormatError, "'x' is defined twice|nothing computes"),
        ([node("Relu", "x x")], FormatError, "'the_node'.*more inputs"),
        ([node("Add", "x")], FormatError, "'the_node'.*lacks the input 'B'"),
        ([node("Relu", outputs="y z")], FormatError, "'the_node'.*more outputs"),
        ([node("Relu", alpha=1.0)], UnsupportedFormatError, "'the_node'.*attribute.*alpha"),
        ([node("Concat", "x x")], FormatError, "'the_node'.*lacks the attribute 'axis'"),
        ([node("Concat", "x x", axis=1.5)], FormatError, "'the_node'.*'axis'.*wrong kind"),
        ([node("Reluu")], UnsupportedFormatError, "'the_node'.*Reluu.*opset 17.*Relu"),
        ([node("FusedMatMul", "x x")], UnsupportedFormatError, "'the_node'.*com.microsoft has an operator"),
        ([node("Relu", domain="my.company")], UnsupportedFormatError, "'the_node'.*my.company.*ai.onnx"),
        ([node("Conv", domain="com.microsoft.nchwc")], UnsupportedFormatError, "'the_node'.*ORT_ENABLE_EXTENDED"),
        ([node("Swish")], UnsupportedFormatError, "'the_node'.*Swish.*opset 17 does not have.*24"),
        ([node("If", then_branch=helper.make_graph([], "g", [], [port("a")]))], FormatError, "lacks|nothing"),
        ([node("If", then_branch=1, else_branch="a")], FormatError, "'the_node'.*branch.*wrong kind.*GRAPH"),
        ([node("ConstantOfShape", value=3)], FormatError, "'the_node'.*'value'.*wrong kind.*TENSOR"),
        ([node("Cast")], FormatError, "'the_node'.*lacks the attribute 'to'"),
        ([node("LRN")], FormatError, "'the_node'.*lacks the attribute 'size'"),
        ([node("MaxPool")], FormatError, "'the_node'.*lacks the attribute 'kernel_shape'"),
        ([node("RandomNormal", "")], FormatError, "'the_node'.*lacks the attribute 'shape'"),
        ([node("NonMaxSuppression", "x x")], ShapeError, "'the_node'.*scores .N, classes, boxes"),
        ([with_attributes(axis=0)], FormatError, "'the_node'.*'axis' twice"),
        ([with_attributes(ref="axis")], FormatError, "'the_node'.*from a function's 'axis'"),
    ],
)
def test_broken_graphs(nodes: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        reader.run_model(model_of(nodes), [X])


@pytest.mark.parametrize("opset", [0, -1, 29, 2**40])
def test_impossible_opsets(opset: int) -> None:
    with pytest.raises(UnsupportedFormatError, match="opset"):
        reader.run_model(model_of([node("Relu")], opset=opset), [X])


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_two_opsets_of_a_domain(domain: str) -> None:
    model = model_of([node("Relu")])
    model.opset_import.append(helper.make_opsetid(domain, 17))
    reader.run_model(model, [X])
    model.opset_import[-1].version = 13
    with pytest.raises(FormatError, match=r"two opsets of the domain 'ai.onnx'.*17 and 13"):
        reader.run_model(model, [X])


def loop_of(condition: str, count: Any, extra: tuple[Any, ...] = (), limit: int = 0) -> Any:
    """Counts turns; ends after `limit` of them where its condition is computed."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["n", "one"], ["m"]),
            helper.make_node("Less", ["m", "limit"], ["less"]),
            helper.make_node("Identity", ["going"], ["same"]),
            helper.make_node("Identity", ["true"], ["fixed"]),
        ],
        "body",
        [port("i", TensorProto.INT64, []), port("going", TensorProto.BOOL, []), port("n", TensorProto.INT64, [])],
        [
            port(condition, TensorProto.BOOL, []),
            port("m", TensorProto.INT64, []),
            *(port("i", TensorProto.INT64, []) for _ in extra),
        ],
        [numpy_helper.from_array(np.array(v), k) for k, v in (("one", 1), ("true", True), ("limit", limit))],
    )
    weights = {"zero": np.array(0), "yes": np.array(True)} | ({} if count is None else {"count": np.array(count)})
    made = helper.make_node("Loop", ["" if count is None else "count", "yes", "zero"], ["y", *extra], body=body)
    return model_of([made], outputs=[port("y", TensorProto.INT64, [])], weights=weights)


@pytest.mark.parametrize("condition", ["going", "same", "fixed", "true"])
@pytest.mark.parametrize("count", [None, 1 << 62, 10**9])
def test_loops_without_end(condition: str, count: int | None) -> None:
    with pytest.raises(ArgumentError, match=r"(?s)Loop would not end.*turns"):
        reader.run_model(loop_of(condition, count), [X])


def test_loops_that_end_by_their_condition_or_count() -> None:
    for count in (None, 1 << 62):  # as exporters write `while`
        assert reader.run_model(loop_of("less", count, limit=7), [X])[0] == 7
    assert reader.run_model(loop_of("same", 5), [X])[0] == 5


@pytest.mark.parametrize(
    "nodes",
    [
        [node("SequenceConstruct", "x x", "s"), node("Add", "s x")],
        [node("SequenceConstruct", "x x", "s"), node("Relu", "s")],
        [node("SequenceConstruct", "x x", "s"), node("Concat", "x s", axis=0)],
        [node("SequenceConstruct", "x x", "s"), node("Cast", "x", "i", to=7), node("SequenceInsert", "s i")],
    ],
)
def test_sequences_and_tensors_that_clash(nodes: list) -> None:
    with pytest.raises(ZoonetError, match=r"'the_node'.*(is a sequence|another data type)"):
        reader.run_model(model_of(nodes), [X])


@pytest.mark.parametrize("kind", [99, -1])
def test_types_that_nobody_knows(kind: int) -> None:
    model = model_of([node("Relu")])
    model.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises(FormatError, match=f"'x'.*unknown.*{kind}"):
        reader.run_model(model, [X])


def test_strings_that_double_forty_times() -> None:
    nodes = [node("StringConcat", f"s{i} s{i}", f"s{i + 1}", f"n{i}") for i in range(40)]
    weights = {"s0": np.array(["a" * 1000], object)}
    start = time.perf_counter()
    with pytest.raises(ShapeError, match=r"'n\d+'.*too much text"):
        reader.run_model(model_of(nodes, [], [port("s40", TensorProto.STRING)], weights, opset=20), [])
    assert time.perf_counter() - start < 5


def test_patterns_of_many_states_on_long_texts() -> None:
    """A pattern of 6,000 states on 5,000 letters: the same step again and again."""
    made = node("RegexFullMatch", "s", pattern="(a*)*" * 2000 + "b")
    weights = {"s": np.array(["a" * 5000, "a" * 5000 + "b"], object)}
    start = time.perf_counter()
    (found,) = reader.run_model(model_of([made], [], [port("y", TensorProto.BOOL)], weights, opset=20), [])
    assert found.tolist() == [False, True]
    assert time.perf_counter() - start < 5


def test_results_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LARGE", 1 << 10)
    monkeypatch.setattr(memory, "available", lambda: 3 << 20)
    doubled = [helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(40)]
    model = model_of(
        doubled, [port("v0", TensorProto.INT8, [1, 1 << 19])], [port("v40", TensorProto.INT8, [None, None])]
    )
    with pytest.raises(ShapeError, match="needs more memory than there is"):
        reader.run_model(model, [np.zeros((1, 1 << 19), np.int8)])
    monkeypatch.setattr(control, "MEMORY", 1 << 10)
    with pytest.raises(ShapeError, match="Loop stacks more than memory holds"):
        reader.run_model(loop_of("less", None, ("turns",), limit=1 << 30), [X])


def test_functions_that_call_themselves_or_grow_without_bound() -> None:
    def function(name: str, calls: str, count: int) -> onnx.FunctionProto:
        nodes = [helper.make_node(calls, [f"v{i}"], [f"v{i + 1}"], domain="own") for i in range(count)]
        return helper.make_function("own", name, ["v0"], [f"v{count}"], nodes, [helper.make_opsetid("own", 1)])

    leaf = helper.make_function(
        "own", "f0", ["v0"], ["v1"], [helper.make_node("Relu", ["v0"], ["v1"])], [helper.make_opsetid("", 17)]
    )
    for functions, message in (
        ([function("f1", "f1", 1)], "calls itself"),
        ([leaf, *(function(f"f{i}", f"f{i - 1}", 10) for i in range(1, 9))], "too many nodes"),
        ([leaf, *(function(f"f{i}", f"f{i - 1}", 2) for i in range(1, 60))], "too many nodes.*at most 200000"),
        ([leaf, *(function(f"f{i}", f"f{i - 1}", 1) for i in range(1, 1000))], "too deep"),
    ):
        start = time.perf_counter()
        call = helper.make_node(functions[-1].name, ["x"], ["y"], domain="own")
        model = model_of([call], functions=functions)
        model.opset_import.append(helper.make_opsetid("own", 1))
        with pytest.raises(FormatError, match=message):
            reader.run_model(model, [X])
        assert time.perf_counter() - start < 2


def test_inputs_of_one_name() -> None:
    with pytest.raises(FormatError, match="'x' is defined twice"):
        reader.run_model(model_of([node("Relu")], "x x"), [X])


def test_what_is_no_model() -> None:
    for call, wrong in ((reader.from_bytes, "text"), (reader.from_proto, "text"), (reader.from_bytes, None)):
        with pytest.raises(FormatError, match="takes"):
            call(wrong)
    with pytest.raises(DeviceError):
        reader.prepare(model_of([node("Relu")]), "FPGA")


def test_memory_that_is_not_there_is_an_error_of_the_node(tmp_path: pathlib.Path) -> None:
    model = model_of([node("Add", "x w")], [port("x", FLOAT, [1 << 22, 1])], weights={"w": np.ones((1, 1 << 22))})
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((1, 1 << 22), np.float32), "w"))
    x = np.ones((1 << 22, 1), np.float32)
    with pytest.raises(ShapeError, match=r"'the_node'.*more memory than there is"):
        reader.run_model(model, [x])
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ShapeError, match="more memory than there is"):
        zoo.load(tmp_path / "m.onnx").run(x)


# -- what is given at run time ---------------------------------------------------------------------------------------


def test_inputs_that_are_missing_or_of_another_type() -> None:
    model = reader.from_proto(model_of([node("Add", "x z")], [port("x", FLOAT, [2, 3]), port("z", FLOAT, ["N", 3])]))
    for values, message in (
        ({"x": X}, "'z' is missing.*z: float32"),
        ({"x": X, "z": X, "w": X}, "no input 'w'"),
        ([X, X, X], "too many inputs"),
        ([X.astype(np.float64), X], "'x' has the wrong data type.*float32.*float64"),
        ([X[:1], X], "'x' has the wrong shape"),
        ([X, "text"], "'z'.*(not an array|wrong)"),
    ):
        with pytest.raises(InputError, match=f"(?s){message}"):
            model.run(values)


def test_errors_at_run_time_name_the_node() -> None:
    model = reader.from_proto(model_of([node("Relu", "x", "a", "before"), node("MatMul", "a a", "y", "product")]))
    with pytest.raises(ShapeError, match=r"node 'product' \(onnx.MatMul-13\).*\[2, 3\]"):
        model.run([X])
    inner = helper.make_graph([node("MatMul", "x x", "a", "inner")], "g", [], [port("a")])
    branches = {"then_branch": inner, "else_branch": inner}
    model = reader.from_proto(model_of([node("If", "c", "y", "choice", **branches)], [port("x"), port("c", 9)]))
    with pytest.raises(ShapeError, match=r"node 'choice'.*node 'inner'"):
        model.run([X, np.array(True)])


def test_types_that_clash() -> None:
    model = model_of([node("Add", "x z")], [port("x"), port("z", TensorProto.BOOL)])
    with pytest.raises(DTypeError, match=r"'the_node'.*float32 and bool.*Cast"):
        reader.run_model(model, [X, np.array([[True, False, True]])])
    model = model_of([node("Slice", "x z z")], "x z")
    with pytest.raises(ZoonetError, match=r"'the_node'.*(integers|one data type)"):
        reader.run_model(model, [X, np.ones(1, np.float32)])


HUGE = np.array([1 << 40, 1 << 20], np.int64)


@pytest.mark.parametrize(
    ("made", "weights"),
    [
        (node("ConstantOfShape", "s"), {"s": HUGE}),
        (node("Expand", "x s"), {"s": np.array([1 << 40, 1, 3])}),
        (node("Tile", "x s"), {"s": HUGE}),
        (node("Range", "a b c"), {"a": 0, "b": 1 << 60, "c": 1}),
        (node("Range", "a b c"), {"a": np.float32(0), "b": np.float32(np.inf), "c": np.float32(1)}),
        (node("OneHot", "i d v"), {"i": np.arange(9), "d": np.array(1 << 50), "v": np.float32([0, 1])}),
        (node("Pad", "x s"), {"s": np.array([0, 1 << 50, 0, 0])}),
        (node("Resize", "x none s"), {"none": np.float32([]), "s": np.float32([1e12, 1e12])}),
        (node("RandomNormal", "", shape=[1 << 40, 1 << 20]), {}),
        (node("RandomUniform", "", shape=[-1]), {}),
        (node("EyeLike", "x", dtype=99), {}),
        (node("HannWindow", "s"), {"s": np.array(1 << 50)}),
        (node("Reshape", "x s"), {"s": HUGE}),
        (node("MaxPool", "p", kernel_shape=[1 << 30] * 2, auto_pad="SAME_UPPER"), {"p": np.ones((1, 1, 4, 4))}),
        (node("Split", "x", "y", num_outputs=1 << 40), {}),
        (node("CumSum", "x s"), {"s": np.array(7)}),
        (node("TopK", "x s", "y z"), {"s": np.array([1 << 40])}),
        (node("Gather", "x s"), {"s": np.array([1 << 40])}),
        (node("Multinomial", "x", sample_size=1 << 50), {}),
        (node("Col2Im", "q a b"), {"q": np.ones((1, 4, 4), np.float32), "a": HUGE, "b": np.array([2, 2])}),
        (node("MaxUnpool", "p i s", kernel_shape=[2, 2]), {"p": np.ones((1, 1, 2, 2), np.float32),
         "i": np.arange(4).reshape(1, 1, 2, 2), "s": np.array([1, 1, 1 << 40, 1 << 20])}),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_at_once(made: Any, weights: dict) -> None:
    start = time.perf_counter()
    with pytest.raises(ZoonetError):
        reader.run_model(model_of([made], outputs=[port("y", TensorProto.UNDEFINED)], weights=weights, opset=20), [X])
    assert time.perf_counter() - start < 2


# -- tensors and external data ---------------------------------------------------------------------------------------


def saved(folder: pathlib.Path, weight: TensorProto) -> pathlib.Path:
    model = model_of([node("Add", "x w")])
    model.graph.initializer.append(weight)
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def external(**entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"location": "../secret"}, UnsafeFileError),
        ({"location": "sub/../../secret"}, UnsafeFileError),
        ({"location": "/etc/hostname"}, UnsafeFileError),
        ({"location": "..\\secret"}, UnsafeFileError),
        ({"location": "C:\\secret"}, UnsafeFileError),
        ({"location": "link"}, UnsafeFileError),
        ({"location": ""}, UnsafeFileError),
        ({"location": "a\0b"}, UnsafeFileError),
        ({"location": "absent"}, MissingFileError),
        ({"location": "."}, MissingFileError),
        ({"location": "data", "length": "400"}, FormatError),
        ({"location": "data", "offset": "12"}, FormatError),
        ({"location": "data", "offset": "-4", "length": "12"}, FormatError),
        ({"location": "data", "offset": "x"}, FormatError),
        ({"location": "data", "offset": "9" * 50}, FormatError),
        ({"location": "data", "length": "8"}, FormatError),
        ({"location": "a" * 5000}, MissingFileError),
    ],
)
def test_external_data(entries: dict, error: type[Exception], tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 12)
    folder = tmp_path / "model"
    path = saved(folder, external(**entries))
    (folder / "data").write_bytes(np.float32([1, 2, 3]).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(error, match="'w'"):
        reader.load(path)
    path = saved(folder, external(location="data"))
    np.testing.assert_array_equal(reader.load(path).run([X])[0], X + np.float32([1, 2, 3]))


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=FLOAT, dims=[1 << 40, 1 << 40, 0], raw_data=b""),
        TensorProto(name="w", data_type=FLOAT, dims=[1 << 62, 4], raw_data=b"\0" * 16),
        TensorProto(name="w", data_type=FLOAT, dims=[-1], raw_data=b""),
        TensorProto(name="w", data_type=FLOAT, dims=[3], raw_data=b"\0" * 11),
        TensorProto(name="w", data_type=FLOAT, dims=[3], float_data=[1.0, 2.0]),
        TensorProto(name="w", data_type=FLOAT, dims=[3], float_data=[1.0, 2.0, 3.0], raw_data=b"\0" * 12),
        TensorProto(name="w", data_type=FLOAT, dims=[3], float_data=[1.0, 2.0, 3.0], int32_data=[1, 2, 3]),
        TensorProto(name="w", data_type=TensorProto.INT8, dims=[1], int32_data=[128]),
        TensorProto(name="w", data_type=TensorProto.UINT8, dims=[1], int32_data=[-1]),
        TensorProto(name="w", data_type=TensorProto.INT16, dims=[1], int32_data=[70000]),
        TensorProto(name="w", data_type=TensorProto.UINT32, dims=[1], uint64_data=[1 << 33]),
        TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=[1], int32_data=[1 << 16]),
        TensorProto(name="w", data_type=TensorProto.INT4, dims=[1], int32_data=[256]),
        TensorProto(name="w", data_type=99, dims=[3], raw_data=b"\0" * 12),
        TensorProto(name="w", data_type=0, dims=[3], raw_data=b"\0" * 12),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[3], string_data=[b"a"]),
        TensorProto(name="w", data_type=FLOAT, dims=[1] * 100, raw_data=b"\0" * 4),
    ],
)
def test_tensors_that_lie(tensor: TensorProto, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FormatError, match="'w'"):
        reader.load(saved(tmp_path, tensor))
    if tensor.data_type != TensorProto.STRING and len(tensor.dims) == 1:
        with pytest.raises(ZoonetError, match="'w'"):
            formats.read(tmp_path / "m.onnx")["w"].load()


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_tensors_with_an_index_twice(flat: bool) -> None:
    indices = np.array([1, 1]) if flat else np.array([[0, 1], [0, 1]])
    values = numpy_helper.from_array(np.float32([1, 2]), "w")
    model = model_of([node("Add", "x w")])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "i"), [1, 3])
    )
    with pytest.raises(FormatError, match="'w' has an index twice"):
        reader.from_proto(model)


def test_files_that_are_no_models(tmp_path: pathlib.Path) -> None:
    good = model_of([node("Relu")]).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(good)
    for data in (b"", b"\0", b"hello", good[: len(good) // 2], b"\x0a" * 4000, b"\x3a\xff\xff\xff\xff\x0f"):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(FormatError, match=r"truncated|damaged|graph|opset|empty"):
            reader.load(tmp_path / "m.onnx")
    with pytest.raises(MissingFileError):
        reader.load(tmp_path / "nothing.onnx")


# -- chance ----------------------------------------------------------------------------------------------------------


def fuzzed(seed: int, count: int, folder: pathlib.Path | None = None) -> None:
    command = [sys.executable, str(FUZZ), str(seed), str(count), *([str(folder)] if folder else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failures"] == []
    assert result["cases"] == count
    assert result["ends"]["ran"] > count / 20
    assert result["ends"]["FormatError"] > count / 20


def test_damaged_models_end_in_a_result_or_a_clear_error() -> None:
    fuzzed(8, 600)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_damaged_models_and_large_ones(seed: int, assets: pathlib.Path) -> None:
    fuzzed(seed, 6000, assets)


SCALARS = st.one_of(
    st.integers(-3, 3), st.sampled_from([1 << 31, -(1 << 63), (1 << 63) - 1]), st.floats(-2, 2, width=32)
)
ATTRIBUTES = st.one_of(
    SCALARS,
    st.sampled_from(["", "NOTSET", "linear", "SAME_UPPER", "reflect"]),
    st.lists(st.integers(-2, 4), min_size=1, max_size=4),
)
ARRAYS = st.builds(
    lambda shape, kind: (np.arange(int(np.prod(shape))) % 3 - 1).reshape(shape).astype(kind),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([np.float32, np.int64, np.bool_, np.uint8, np.float16, np.int32]),
)


@st.composite
def single_nodes(draw: Any) -> tuple[onnx.ModelProto, list]:
    """Any operator on any operands, with any values for its own attributes."""
    from zoonet.ops.sets.onnx import operators

    operator = draw(st.sampled_from([o for o in operators() if o.name not in ("Loop", "Gradient")]))
    count = len(operator.inputs) if draw(st.booleans()) else draw(st.integers(0, 6))
    values = draw(st.lists(ARRAYS, min_size=count, max_size=count))
    some = draw(st.lists(st.sampled_from(sorted(operator.attributes) or ["x"]), max_size=3))
    attributes = {name: draw(ATTRIBUTES) for name in dict.fromkeys([*sorted(operator.required), *some])}
    names = [f"v{i}" for i in range(len(values))]
    made = helper.make_node(operator.name, names, ["y", "z"][: draw(st.integers(1, 2))], domain=operator.domain)
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    ports = [port(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in zip(names, values, strict=True)]
    graph = helper.make_graph([made], "g", ports, [port("y", 0)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(operator.domain, operator.since)]), values


def tried(example: tuple[onnx.ModelProto, list]) -> None:
    model, values = example
    with contextlib.suppress(ZoonetError):
        reader.run_model(model, values)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(single_nodes())
def test_operators_on_anything(example: tuple[onnx.ModelProto, list]) -> None:
    tried(example)


@pytest.mark.slow
@settings(max_examples=6000, deadline=None, suppress_health_check=list(HealthCheck))
@given(single_nodes())
def test_operators_on_much_more(example: tuple[onnx.ModelProto, list]) -> None:
    tried(example)
