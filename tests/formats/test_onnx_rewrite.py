"""Imported graphs written back: every case of the onnx package's suite, and real models, import → export → import."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_runtime import assert_equal, run, session_of
from onnx_suite import cases, compare, data_sets, light_inputs, model_of

from zoonet import zoo
from zoonet.formats import onnx as onnx_format
from zoonet.ops.errors import UnsupportedFormatError, ZoonetError

CASES = [
    pytest.param(name, marks=[] if index % 8 == 0 or "gradient" in name or "opt" in name else pytest.mark.slow)
    for index, name in enumerate(sorted(cases()))
]


def rewritten(model: onnx_format.OnnxModel) -> onnx.ModelProto:
    """The model written and parsed again."""
    draft = onnx_format.rewrite(
        model.graph,
        model.inputs,
        model.outputs,
        model.opsets,
        metadata=model.metadata,
        description=model.description,
        ir_version=model.ir_version,
    )
    return onnx.ModelProto.FromString(draft.proto().SerializeToString())


def passes_the_checker(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # of several unrelated classes
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_each_case_survives(name: str) -> None:
    case = cases()[name]
    original = model_of(case)
    try:
        model = onnx_format.from_proto(original)
    except ZoonetError as error:
        pytest.skip(f"not imported: {str(error)[:60]}")
    written = rewritten(model)
    if passes_the_checker(original):
        onnx.checker.check_model(written, full_check=True)
    assert [v.name for v in written.graph.input] == [v.name for v in original.graph.input]
    assert [v.name for v in written.graph.output] == [v.name for v in original.graph.output]
    again = onnx_format.from_proto(written)
    if case.kind == "light":
        inputs = light_inputs(original)
        for ours, theirs in zip(again.run(inputs), model.run(inputs), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        return
    for inputs, expected in data_sets(case, original)[:1]:
        try:
            compare(expected, list(model.run(inputs)), case)
        except Exception:
            pytest.skip("the import does not pass")  # which the conformance tests say
        compare(expected, list(again.run(inputs)), case)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("yolox-nano/yolox_nano.onnx", (1, 3, 416, 416)), ("ultra-light-face/version-RFB-320.onnx", (1, 3, 240, 320))],
)
def test_real_models(name: str, shape: tuple[int, ...], assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = zoo.load(assets / name)
    model.save(tmp_path / "m.onnx")
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    theirs = run(session_of(assets / name), x)
    for ours, expected in zip(run(session_of(tmp_path / "m.onnx"), x), theirs, strict=True):
        assert_equal(ours, expected)
    result: Any = zoo.load(tmp_path / "m.onnx")(x)
    for ours, expected in zip(result if isinstance(result, tuple) else (result,), theirs, strict=True):
        assert_equal(ours, expected, 1e-3)


def test_names_and_opsets_stay(assets: pathlib.Path) -> None:
    original = onnx.load(assets / "yolox-nano/yolox_nano.onnx")
    written = rewritten(onnx_format.from_proto(original))
    assert [(n.op_type, list(n.output)) for n in written.graph.node] == [
        (n.op_type, list(n.output)) for n in original.graph.node if n.op_type != "Constant"
    ]
    assert {t.name for t in original.graph.initializer} <= {t.name for t in written.graph.initializer}
    assert list(written.opset_import) == list(original.opset_import)
    assert written.producer_name == "zoonet"


def test_what_is_no_graph_of_onnx_is_refused() -> None:
    from zoonet import ops

    graph = ops.trace(ops.relu, ops.tensor_type((2,)))
    info = onnx_format.ValueInfo("x", "tensor", np.dtype(np.float32), (2,))
    with pytest.raises(UnsupportedFormatError, match="relu is not one of ONNX"):
        onnx_format.rewrite(graph, [info], [info], {"": 17})
