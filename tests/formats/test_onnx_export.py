"""Functions written as ONNX: each operator's samples, free sizes, names and errors, against ONNX Runtime."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from onnx_runtime import assert_equal, run, session_of

from zoonet import ops
from zoonet.formats import onnx as onnx_format
from zoonet.formats.onnx.writing.table import EMITTERS
from zoonet.ops.errors import ArgumentError, TraceError, UnsupportedFormatError
from zoonet.ops.registry import REGISTRY
from zoonet.ops.types import is_floating

RNG = np.random.default_rng(0)
export = onnx_format.export

#: Operators that the table does not have, and why.
MISSING = {
    **dict.fromkeys(
        [
            "nonzero",
            "masked_select",
            "compress",
            "nms",
            "batched_nms",
            "soft_nms",
            "remove_small_boxes",
            "unique",
            "bincount",
        ],
        "the shape of the result depends on contents, so that it cannot be traced",
    ),
    **dict.fromkeys(
        ["bitwise_left_shift", "bitwise_right_shift", "max_unpool", "nextafter", "searchsorted"],
        "ONNX has no operator for it on these types",
    ),
    **dict.fromkeys(["roi_pool", "roi_pool_indices"], "ONNX rounds regions in another way"),
}
#: Samples that are refused although the operator is written: (operator, sample) -> words of the error.
REFUSED = {
    ("random_bits", 1): "words of 64 bits",
    ("random_integers", 2): "2³¹",
    ("einsum", 8): "ellipses",
    ("recurrent_layer", 4): "projection",
    ("recurrent_layer", 8): "no steps",
    ("lstm", 3): "projection",
}
#: Samples whose gradients are refused although the operator is written: (operator, sample) -> words of the error.
NO_GRADIENT = {("roi_align", sample): "sampling_ratio" for sample in (0, 2, 4)}
CASES = [
    pytest.param(name, index, id=f"{name}-{index}")
    for name, op in REGISTRY.items()
    if op.__module__.startswith("zoonet.ops") and not op.inline and "." not in name and name not in MISSING
    for index in range(len(op.samples))
]


def sampled(name: str, index: int) -> tuple[Any, list[Any]]:
    """A function of the arrays of an operator's sample, and these arrays, in float32."""
    op = REGISTRY[name]
    args, kwargs = op.samples[index].make(zlib.crc32(f"{name}-{index}".encode()), ops.as_dtype("float32"))
    arguments = op.bind(args, kwargs)
    arrays = [a for a in op.operands(arguments) if hasattr(a, "dtype")]

    def function(*given: Any) -> Any:
        remaining = iter(given)
        return op.apply(op, op.map_operands(arguments, lambda _: next(remaining)))

    return function, arrays


@pytest.mark.parametrize(("name", "index"), CASES)
def test_each_operator_runs_in_onnx_runtime(name: str, index: int) -> None:
    function, arrays = sampled(name, index)
    if not arrays or any(np.iscomplexobj(a) for a in arrays):
        pytest.skip("takes no arrays, or complex ones, which ONNX's operators do not")
    names = [f"x{i}" for i in range(len(arrays))]
    if (name, index) in REFUSED:
        with pytest.raises(UnsupportedFormatError, match=REFUSED[name, index]):
            export(function, *arrays, dynamic={}, opset=20, inputs=names)
        return
    try:
        session = session_of(export(function, *arrays, dynamic={}, opset=20, inputs=names).proto())
    except Exception as error:  # ONNX Runtime has no kernel for every type
        if "NOT_IMPLEMENTED" in str(error):
            pytest.skip(str(error)[:100])
        raise
    expected = function(*arrays)
    if getattr(getattr(expected, "dtype", None), "name", "") == "bfloat16":
        pytest.skip("ONNX Runtime's Python interface has no bfloat16")
    feeds = {n: np.array(a, order="C") for n, a in zip(names, arrays, strict=True)}
    found = session.run(None, {port.name: feeds[port.name] for port in session.get_inputs()})
    for ours, theirs in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
        assert_equal(ours, theirs)


def projected(function: Any, *arrays: Any) -> Any:
    """A number that depends on all floating results."""
    results = function(*arrays)
    total: Any = np.float32(0)
    for result in results if isinstance(results, tuple) else (results,):
        if is_floating(result.dtype):
            weight = np.random.default_rng(1).normal(size=result.shape).astype(np.float32)
            total = total + ops.sum(result * weight)
    return total


GRADIENTS = [
    pytest.param(*case.values, id=case.id, marks=[] if case.values[1] == 0 else pytest.mark.slow)
    for case in CASES
    if REGISTRY[case.values[0]].differentiable and case.values[0] != "recurrent_layer"
]


@pytest.mark.parametrize(("name", "index"), GRADIENTS)
def test_gradients_run_in_onnx_runtime(name: str, index: int) -> None:
    function, arrays = sampled(name, index)
    places = [i for i, array in enumerate(arrays) if is_floating(array.dtype)]
    if not places or any(np.iscomplexobj(a) for a in arrays) or (name, index) in REFUSED:
        pytest.skip("no gradient in real numbers")
    gradient = ops.grad(lambda *given: projected(function, *given), places)
    names = [f"x{i}" for i in range(len(arrays))]
    if (name, index) in NO_GRADIENT:
        with pytest.raises(UnsupportedFormatError, match=NO_GRADIENT[name, index]):
            export(lambda *given: gradient(*given), *arrays, dynamic={}, opset=20, inputs=names)
        return
    if name in ("det", "inv"):  # ONNX Runtime has determinants in float32 alone
        arrays = [a.astype(np.float32) for a in arrays]
    session = session_of(export(lambda *given: gradient(*given), *arrays, dynamic={}, opset=20, inputs=names).proto())
    feeds = {n: np.array(a, order="C") for n, a in zip(names, arrays, strict=True)}
    found = session.run(None, {port.name: feeds[port.name] for port in session.get_inputs()})
    for ours, theirs in zip(gradient(*arrays), found, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "least"), [(13, 215), (17, 223), (23, 238)])
def test_the_first_sample_of_each_operator_in_other_opsets(opset: int, least: int) -> None:
    """What an opset cannot hold is refused by its number, and nothing else is."""
    passed = 0
    for name in dict.fromkeys(case.values[0] for case in CASES):
        function, arrays = sampled(name, 0)
        if not arrays or any(np.iscomplexobj(a) for a in arrays):
            continue
        names = [f"x{i}" for i in range(len(arrays))]
        try:
            session = session_of(export(function, *arrays, dynamic={}, opset=opset, inputs=names).proto())
        except Exception as error:  # ONNX Runtime has no kernel for every type
            if "NOT_IMPLEMENTED" in str(error) or "expected opset " in str(error):
                continue
            raise
        feeds = {n: np.array(a, order="C") for n, a in zip(names, arrays, strict=True)}
        found = session.run(None, {port.name: feeds[port.name] for port in session.get_inputs()})
        expected = function(*arrays)
        for ours, theirs in zip(expected if isinstance(expected, tuple) else (expected,), found, strict=True):
            assert_equal(ours, theirs)
        passed += 1
    assert passed >= least


def test_the_table_covers_what_it_says() -> None:
    composites = {name for name, op in REGISTRY.items() if op.is_composite}
    primitive = {n for n, op in REGISTRY.items() if op.__module__.startswith("zoonet.ops") and not op.inline}
    lacking = {n for n in primitive - composites - set(EMITTERS) if "." not in n and n not in ("linspace", "eye")}
    assert lacking <= set(MISSING), sorted(lacking - set(MISSING))
    assert not set(MISSING) & set(EMITTERS)


@pytest.mark.parametrize("opset", [13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
def test_every_opset(opset: int) -> None:
    weight, bias = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=4).astype(np.float32)

    def function(x: Any) -> Any:
        y = ops.gelu(ops.layer_norm(x, 6, ops.ones(6), ops.zeros(6)))
        y = ops.softmax(ops.linear(y, weight, bias), -1)
        return {"scores": y, "total": ops.sum(y, 1), "largest": ops.max(y, (0, 1)), "parts": ops.split(y, 2, 1)[1]}

    x = RNG.normal(size=(3, 6)).astype(np.float32)
    model = export(function, x, opset=opset).proto()
    assert {o.version for o in model.opset_import} == {opset}
    session = session_of(model)
    assert [port.name for port in session.get_outputs()] == ["scores", "total", "largest", "parts"]
    for rows in (1, 5):
        x = RNG.normal(size=(rows, 6)).astype(np.float32)
        for ours, theirs in zip(function(x).values(), run(session, x), strict=True):
            assert_equal(ours, theirs)


def attention(x: Any, mask: Any) -> Any:
    """Reshapes, causal masks and positions that depend on two free sizes."""
    count, length, width = x.shape
    heads = ops.transpose(ops.reshape(x, (count, length, 2, width // 2)), (0, 2, 1, 3))
    y = ops.scaled_dot_product_attention(heads, heads, heads, ops.cast(mask, "bool")[:, None, None, :], True)
    y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (count * length, width))
    y = ops.reshape(y, (count, length, width)) + np.arange(length, dtype=np.float32)[None, :, None]
    return ops.mean(y, (0, 1)) / count, y[:, -1], ops.concat([y, x[:, : length - 1]], 1)


def test_sizes_are_free() -> None:
    x, mask = RNG.normal(size=(2, 5, 4)).astype(np.float32), np.ones((2, 5), np.int64)
    axes = {0: "batch", 1: "length"}
    draft = export(attention, x, mask, dynamic={"x": axes, "mask": axes}, outputs=["mean", "last", "joined"])
    session = session_of(draft.proto())
    shapes = [port.shape for port in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [["batch", "length", 4], ["batch", "length"], [4], ["batch", 4], ["batch", "2*length - 1", 4]]
    for count, length in ((1, 1), (1, 6), (4, 3)):
        x = RNG.normal(size=(count, length, 4)).astype(np.float32)
        mask = np.maximum(RNG.integers(0, 2, (count, length)), np.arange(length) == 0)
        for ours, theirs in zip(attention(x, mask), run(session, x, mask), strict=True):
            assert_equal(ours, theirs)


def test_spatial_sizes_are_free() -> None:
    weight = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)

    def function(x: Any) -> Any:
        y = ops.max_pool(ops.relu(ops.conv(x, weight, None, 2, 1)), 3, 2, 1)
        y = ops.interpolate(y, scale_factor=2.0)
        y = ops.reshape(y, (y.shape[0], 4, y.shape[2] * y.shape[3]))
        return ops.mean(y, -1), ops.flip(y, -1)

    axes = {0: "batch", 2: "height", 3: "width"}
    session = session_of(export(function, ops.tensor_type((1, 3, 32, 32)), dynamic={"x": axes}, opset=18).proto())
    for shape in ((1, 3, 32, 32), (2, 3, 45, 27)):
        x = RNG.normal(size=shape).astype(np.float32)
        for ours, theirs in zip(function(x), run(session, x), strict=True):
            assert_equal(ours, theirs)


def test_the_batch_is_free_by_default_and_containers_are_not() -> None:
    weights = {"w": RNG.normal(size=(3, 2)).astype(np.float32), "b": [np.zeros(2, np.float32)]}

    def function(parameters: Any, x: Any) -> Any:
        return {"y": ops.matmul(x, parameters["w"]) + parameters["b"][0]}

    session = session_of(export(function, weights, ops.tensor_type((1, 3))).proto())
    ports = {port.name: port.shape for port in session.get_inputs()}
    assert ports == {"parameters.w": [3, 2], "parameters.b.0": [2], "x": ["batch", 3]}
    assert [port.shape for port in session.get_outputs()] == [["batch", 2]]


def test_metadata_and_names() -> None:
    draft = export(
        lambda weights, x: ops.linear(x, weights["fc.weight"]),
        ops.tensor_type((1, 3)),
        weights={"fc.weight": np.ones((2, 3), np.float32), "unused": np.ones(2, np.float32)},
        inputs=["features"],
        outputs=["scores"],
        name="tiny",
        metadata={"labels": "a\nb", "licence": "CC0"},
        description="a test",
    )
    model = draft.proto()
    assert [t.name for t in model.graph.initializer] == ["fc.weight"]
    assert {p.key: p.value for p in model.metadata_props} == {"labels": "a\nb", "licence": "CC0"}
    assert (model.graph.name, model.doc_string, model.producer_name) == ("tiny", "a test", "zoonet")
    assert [i.name for i in model.graph.input] == ["features"]
    assert [o.name for o in model.graph.output] == ["scores"]


def test_outputs_that_no_operator_makes() -> None:
    constant = np.arange(3, dtype=np.float32)
    draft = export(lambda x: (x, constant, x, ops.relu(x), x), ops.tensor_type((1, 3)))
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    found = run(session_of(draft.proto()), x)
    for ours, theirs in zip((x, constant, x, np.maximum(x, 0), x), found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (lambda x: ops.relu(x), {"opset": 12}, ArgumentError, "opset.*13 to"),
        (lambda x: ops.relu(x), {"opset": "17"}, ArgumentError, "opset"),
        (lambda x: ops.relu(x), {"dynamic": {"y": {0: "n"}}}, ArgumentError, "dynamic names no input.*x"),
        (lambda x: ops.relu(x), {"dynamic": {"x": {5: "n"}}}, ArgumentError, "no such axis"),
        (lambda x: ops.relu(x), {"inputs": ["a", "b"]}, ArgumentError, "inputs are not as many"),
        (lambda x: ops.relu(x), {"outputs": ["a", "b"]}, ArgumentError, "outputs are not as many"),
        (lambda x: ops.searchsorted(x[0], x), {}, UnsupportedFormatError, "operator searchsorted cannot be written"),
        (lambda x: ops.bitwise_and(ops.cast(x, "int32"), 1), {"opset": 17}, UnsupportedFormatError, "opset=18"),
        (lambda x: ops.matmul(x, ops.ones((3, 3))) + x[:2], {}, TraceError, "dynamic"),
        (lambda x: x * np.arange(len(x))[:, None] ** 2.0, {}, TraceError, "constant"),
        (lambda x: x if len(x) == 3 else ops.relu(x), {}, TraceError, "at every size|any size"),
    ],
)
def test_errors(function: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        export(function, ops.tensor_type((3, 3)), **{"inputs": ["x"], **options})


def test_external_data(tmp_path: Any) -> None:
    weights = {"w": RNG.normal(size=(64, 64)).astype(np.float32), "b": RNG.normal(size=64).astype(np.float32)}
    draft = export(lambda w, x: ops.matmul(x, w["w"]) + w["b"], ops.tensor_type((1, 64)), weights=weights, inputs=["x"])
    x = RNG.normal(size=(2, 64)).astype(np.float32)
    draft.save(tmp_path / "whole.onnx")
    draft.save(tmp_path / "apart.onnx", external=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["apart.onnx", "apart.onnx.data", "whole.onnx"]
    assert (tmp_path / "apart.onnx").stat().st_size < 2000
    for name in ("whole.onnx", "apart.onnx"):
        (found,) = run(session_of(tmp_path / name), x)
        assert_equal(x @ weights["w"] + weights["b"], found)
        assert_equal(onnx_format.load(tmp_path / name).run([x])[0], found)


def test_writing_is_atomic(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    draft = export(ops.relu, ops.tensor_type((1, 3)))

    def fails(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(type(draft), "_model", fails)
    for external in (None, 0):
        with pytest.raises(MemoryError):
            draft.save(path, external=external)
        assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
        assert path.read_bytes() == b"before"


def test_halves_are_rounded_as_the_function_rounds_them() -> None:
    def function(x: Any) -> Any:
        half = (x.shape[2] + 1) // 2
        return ops.concat([x, ops.zeros((1, 1, half))], 2), x[:, :, :half]

    session = session_of(export(function, ops.tensor_type((1, 1, 32)), dynamic={"x": {2: "n"}}).proto())
    for size in (1, 2, 7, 8):
        x = RNG.normal(size=(1, 1, size)).astype(np.float32)
        for ours, theirs in zip(function(x), run(session, x), strict=True):
            assert_equal(ours, theirs)


def test_sizes_that_no_formula_gives_are_refused() -> None:
    with pytest.raises(TraceError, match="depends on the size"):
        export(lambda x: ops.concat([x, ops.zeros((min(len(x), 4) + 1, 3))]), ops.tensor_type((1, 3)), inputs=["x"])


def test_masks_of_numpy_grow_with_the_text() -> None:
    def function(x: Any) -> Any:
        length = x.shape[1]
        distance = np.arange(length) - np.arange(length)[:, None]
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        scores = ops.where(np.tril(np.ones((length, length), bool)), scores, -1e9)
        window = np.where((distance >= -2) & (distance <= 1), np.float32(0), np.float32(-np.inf))[None]
        return ops.softmax(scores + window), x + np.arange(length, 0, -1, dtype=np.float32)[:, None]

    session = session_of(export(function, ops.tensor_type((1, 4, 3)), dynamic={"x": {0: "batch", 1: "length"}}).proto())
    for count, length in ((1, 1), (2, 3), (1, 9)):
        x = RNG.normal(size=(count, length, 3)).astype(np.float32)
        for ours, theirs in zip(function(x), run(session, x), strict=True):
            assert_equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_inverses_are_written_by_minors(size: int) -> None:
    x = (RNG.normal(size=(3, size, size)) + 2 * np.eye(size)).astype(np.float32)
    session = session_of(export(lambda x: (ops.inv(x), ops.grad(lambda y: ops.sum(ops.det(y)))(x)), x).proto())
    inverse, slope = run(session, x[:2])
    np.testing.assert_allclose(inverse, np.linalg.inv(x[:2].astype(np.float64)), rtol=1e-4, atol=1e-5)
    exact = np.linalg.det(x[:2].astype(np.float64))[:, None, None] * np.linalg.inv(x[:2].astype(np.float64))
    np.testing.assert_allclose(slope, np.swapaxes(exact, 1, 2), rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedFormatError, match="16 rows"):
        export(ops.inv, np.eye(17, dtype=np.float32), dynamic={})


def test_a_training_step_of_a_recurrent_network_runs_in_onnx_runtime() -> None:
    """An LSTM of two layers and both directions, and a GRU, with lengths; the batch is free, the steps are not."""
    sizes = [(16, 3), (16, 4), (16,), (16,)]
    weights = [RNG.normal(size=s).astype(np.float32) for s in sizes * 2 + [(16, 8), *sizes[1:]] * 2]
    gru_weights = [RNG.normal(size=s).astype(np.float32) for s in [(6, 8), (6, 2), (6,), (6,)]]

    def loss(parameters: Any, x: Any, lengths: Any) -> Any:
        y, _, cells = ops.lstm(x, parameters[:16], None, None, lengths, 2, True, True)
        z, last = ops.gru(y, parameters[16:], None, lengths, 1, False, True)
        return ops.mean(ops.square(z)) + ops.mean(last) + ops.mean(ops.square(cells))

    def step(parameters: Any, x: Any, lengths: Any) -> Any:
        value, gradients = ops.value_and_grad(loss)(parameters, x, lengths)
        return value, [p - 0.1 * g for p, g in zip(parameters, gradients, strict=True)]

    x, lengths = RNG.normal(size=(3, 5, 3)).astype(np.float32), np.array([5, 2, 4])
    parameters = [*weights, *gru_weights]
    dynamic = {"x": {0: "n"}, "lengths": {0: "n"}}
    names = [*(f"p{i}" for i in range(len(parameters))), "x", "lengths"]
    session = session_of(export(step, parameters, x, lengths, dynamic=dynamic, inputs=names, opset=18).proto())
    for count in (1, 3):
        value, new = step(parameters, x[:count], lengths[:count])
        found = run(session, *parameters, x[:count], lengths[:count])
        assert_equal(value, found[0])
        for ours, theirs in zip(new, found[1:], strict=True):
            assert_equal(ours, theirs)


def test_a_training_step_with_dropout_and_noise_runs_in_onnx_runtime() -> None:
    """The key is an input, the next one an output: ONNX Runtime drops what zoonet drops, at any size of the batch."""
    parameters = {"w": RNG.normal(size=(6, 16)).astype(np.float32), "v": RNG.normal(size=(16, 3)).astype(np.float32)}

    def loss(values: Any, key: Any, x: Any, target: Any) -> Any:
        first, second = ops.unstack(ops.random_split(key, 2), 0)
        hidden = ops.dropout(ops.relu(ops.matmul(x, values["w"])), first, 0.3)
        noise = ops.random_normal(second, hidden.shape, 0.0, 0.1)
        return ops.cross_entropy(ops.matmul(hidden + noise, values["v"]), target)

    def step(values: Any, key: Any, x: Any, target: Any) -> Any:
        value, gradients = ops.value_and_grad(loss)(values, key, x, target)
        new = {name: p - 0.1 * gradients[name] for name, p in values.items()}
        return {"loss": value, "values": new, "key": ops.random_fold_in(key, np.asarray(1))}

    key = ops.random_key(3)
    x, target = RNG.normal(size=(9, 6)).astype(np.float32), RNG.integers(0, 3, 9)
    dynamic = {"x": {0: "n"}, "target": {0: "n"}}
    with pytest.raises(UnsupportedFormatError, match="opset=18"):
        export(step, parameters, key, x, target, dynamic=dynamic, opset=17)
    session = session_of(export(step, parameters, key, x, target, dynamic=dynamic, opset=18).proto())
    losses = []
    for index in range(10):
        count = 5 + index % 5
        ours = step(parameters, key, x[:count], target[:count])
        found = run(session, parameters["w"], parameters["v"], key, x[:count], target[:count])
        for mine, theirs in zip([ours["loss"], *ours["values"].values(), ours["key"]], found, strict=True):
            assert_equal(mine, theirs)
        parameters, key = ours["values"], ours["key"]
        losses.append(float(ours["loss"]))
    assert losses[-1] < losses[0]
