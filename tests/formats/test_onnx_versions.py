"""Older versions of operators against ONNX Runtime: what became an input was an attribute, defaults were others."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_suite import cases, compare, data_sets

from zoonet.formats.onnx import run_model

RNG = np.random.default_rng(0)
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


X = floats(2, 3, 4, 5)
ROWS = floats(3, 4)
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
CASES: list[tuple[str, int, list, dict]] = [
    *[(f"Reduce{name}", 11, [np.abs(X)], {"axes": [1, -1], "keepdims": 0}) for name in REDUCTIONS],
    *[(f"Reduce{name}", 13, [np.abs(X)], {"axes": [0, 2]}) for name in REDUCTIONS if name != "Sum"],
    *[(f"Reduce{name}", 7, [np.abs(X)], {}) for name in REDUCTIONS],
    ("Squeeze", 7, [floats(1, 3, 1, 2)], {"axes": [0, 2]}),
    ("Squeeze", 11, [floats(1, 3, 1, 2)], {"axes": [-2]}),
    ("Squeeze", 9, [floats(1, 3, 1, 2)], {}),
    ("Unsqueeze", 7, [ROWS], {"axes": [0, 2]}),
    ("Unsqueeze", 11, [ROWS], {"axes": [-1, 0]}),
    ("Split", 7, [X], {"axis": 3, "split": [1, 4]}),
    ("Split", 11, [X], {"axis": -2}),
    ("Slice", 7, [X], {"starts": [1, -3], "ends": [2**31, -1], "axes": [1, 3]}),
    ("Slice", 9, [X], {"starts": [0, 1], "ends": [2, 3]}),
    ("Slice", 10, [X, np.array([3]), np.array([-9]), np.array([3]), np.array([-1])], {}),
    ("Pad", 7, [X], {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": "reflect"}),
    ("Pad", 10, [X], {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 3.0}),
    ("Clip", 7, [X], {"min": -0.5, "max": 0.75}),
    ("Clip", 10, [X], {"min": 0.0}),
    ("Upsample", 7, [X], {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}),
    ("Upsample", 9, [X, np.float32([1, 1, 2, 3])], {"mode": "linear"}),
    ("Resize", 10, [X, np.float32([1, 1, 0.5, 2])], {"mode": "nearest"}),
    ("Resize", 10, [X, np.float32([1, 1, 1.5, 0.6])], {"mode": "linear"}),
    ("Resize", 11, [X, np.float32([]), np.float32([1, 1, 1.5, 0.6])], {"mode": "linear"}),
    ("TopK", 7, [X], {"k": 2, "axis": 2}),
    ("TopK", 10, [X, np.array([3])], {"axis": 1}),
    ("TopK", 11, [X, np.array([3])], {"axis": -1, "largest": 0}),
    ("Dropout", 7, [X], {"ratio": 0.4}),
    ("Dropout", 10, [X], {"ratio": 0.4}),
    ("Softmax", 7, [X], {"axis": 2}),
    ("Softmax", 11, [X], {}),
    ("LogSoftmax", 11, [X], {"axis": -2}),
    ("Hardmax", 11, [X], {"axis": 1}),
    ("Flatten", 7, [X], {"axis": 2}),
    ("Flatten", 11, [X], {"axis": -1}),
    ("BatchNormalization", 7, [X, floats(3), floats(3), floats(3), np.abs(floats(3))], {"epsilon": 1e-3}),
    ("BatchNormalization", 9, [X, floats(3), floats(3), floats(3), np.abs(floats(3))], {}),
    ("Gemm", 7, [ROWS, floats(4, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", 9, [ROWS, floats(3, 5), floats(5, 1, 1)[:, 0, 0]], {"transA": 1}),
    ("Tile", 7, [ROWS, np.array([2, 3])], {}),
    ("Gather", 7, [X, np.array([[0, 2], [1, 1]])], {"axis": 1}),
    ("Gather", 11, [X, np.array([-1, 0])], {"axis": -1}),
    ("Scatter", 9, [np.zeros((3, 4), np.float32), np.array([[1, 0, 2, 0]]), floats(1, 4)], {}),
    ("OneHot", 9, [np.array([1, 0, 3]), np.array([4]), np.float32([-1, 1])], {}),
    ("Cast", 7, [X * 3], {"to": INT}),
    ("Cast", 9, [np.array([0, 3])], {"to": TensorProto.BOOL}),
    ("Pow", 7, [np.abs(X), np.float32(2.5)], {}),
    ("Pow", 12, [np.abs(X), np.array([2, 3, 1, 0, 2])], {}),
    ("Max", 8, [X, floats(5), floats(4, 1)], {}),
    ("Mean", 7, [ROWS, ROWS + 1], {}),
    ("Sum", 8, [ROWS, floats(4)], {}),
    ("PRelu", 7, [X, floats(3, 1, 1)], {}),
    ("AveragePool", 7, [X], {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    ("AveragePool", 10, [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1, "strides": [2, 2]}),
    ("MaxPool", 8, [X], {"kernel_shape": [2, 2], "storage_order": 1}),
    ("MaxPool", 10, [X], {"kernel_shape": [2, 2], "dilations": [1, 2]}),
    ("LpPool", 7, [X], {"kernel_shape": [2, 2], "p": 3}),
    ("ConvTranspose", 7, [X, floats(3, 2, 3, 3)], {"output_shape": [9, 11], "strides": [2, 2]}),
    ("ConvTranspose", 7, [X, floats(3, 2, 3, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("GlobalLpPool", 7, [X], {"p": 3}),
    ("LRN", 7, [X], {"size": 3, "alpha": 0.1}),
    ("InstanceNormalization", 7, [X, floats(3), floats(3)], {"epsilon": 1e-3}),
    ("DepthToSpace", 7, [floats(1, 8, 2, 3)], {"blocksize": 2}),
    ("DepthToSpace", 11, [floats(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    ("Multinomial", 7, [np.float32([[-50, 50, -50]])], {"sample_size": 4}),
    ("EyeLike", 9, [ROWS], {"k": 1}),
    ("ArgMax", 11, [X], {"axis": -2, "keepdims": 0}),
    ("CumSum", 11, [X, np.array(2)], {"exclusive": 1, "reverse": 1}),
    ("Equal", 7, [np.array([1, 2]), np.array([2, 2])], {}),
    ("Greater", 7, [ROWS, floats(4)], {}),
    ("MeanVarianceNormalization", 9, [X], {"axes": [0, 2, 3]}),
    ("LSTM", 7, [floats(4, 2, 3), floats(1, 20, 3), floats(1, 20, 5), floats(1, 40)], {"hidden_size": 5}),
    ("GRU", 7, [floats(4, 2, 3), floats(1, 15, 3), floats(1, 15, 5), floats(1, 30)],
     {"hidden_size": 5, "linear_before_reset": 1}),
    ("RNN", 7, [floats(4, 2, 3), floats(2, 5, 3), floats(2, 5, 5)],
     {"hidden_size": 5, "direction": "bidirectional", "activations": ["Relu", "Sigmoid"]}),
    ("GridSample", 16, [X, floats(2, 3, 3, 2) / 2], {"mode": "bicubic", "align_corners": 1}),
    ("ScatterND", 11, [ROWS, np.array([[1], [0]]), floats(2, 4)], {}),
    ("ScatterElements", 16, [ROWS, np.array([[1, 0, 2, 0]]), floats(1, 4)], {"reduction": "add"}),
    ("QuantizeLinear", 10, [X, np.float32(0.1), np.uint8(3)], {}),
    ("DequantizeLinear", 10, [np.arange(6, dtype=np.uint8), np.float32(0.1), np.uint8(3)], {}),
    ("QuantizeLinear", 13, [X, np.float32([0.1, 0.2, 0.3]), np.int8([3, 0, 1])], {"axis": 1}),
    ("GroupNormalization", 18, [floats(2, 4, 3), floats(2), floats(2)], {"num_groups": 2}),
    ("RoiAlign", 10, [floats(1, 2, 8, 8), np.float32([[0, 0, 5, 6]]), np.array([0])],
     {"output_height": 2, "output_width": 3, "sampling_ratio": 2}),
    ("NonMaxSuppression", 10, [np.float32([[[0, 0, 1, 1], [0, 0, 1, 1.1], [2, 2, 3, 3]]]),
                               np.float32([[[0.9, 0.8, 0.7]]]), np.array([2]), np.float32([0.5])], {}),
]  # fmt: skip
OUTPUTS: dict[str, list[int]] = {
    "Split": [FLOAT, FLOAT], "TopK": [FLOAT, INT], "ArgMax": [INT], "Cast": [], "Equal": [TensorProto.BOOL],
    "Greater": [TensorProto.BOOL], "Multinomial": [TensorProto.INT32], "LSTM": [FLOAT] * 3, "GRU": [FLOAT] * 2,
    "RNN": [FLOAT] * 2, "QuantizeLinear": [], "NonMaxSuppression": [INT], "MaxPool": [FLOAT, INT],
}  # fmt: skip


@pytest.mark.parametrize("position", range(len(CASES)), ids=[f"{name}-{opset}" for name, opset, *_ in CASES])
def test_older_versions(position: int) -> None:
    name, opset, inputs, attributes = CASES[position]
    arrays = [np.asarray(x) for x in inputs]
    kinds = OUTPUTS.get(name, [FLOAT])
    if not kinds:
        kinds = [attributes["to"] if name == "Cast" else helper.np_dtype_to_tensor_dtype(arrays[2].dtype)]
    names = [f"x{i}" for i in range(len(arrays))]
    made = [helper.make_tensor_value_info(f"y{i}", kind, None) for i, kind in enumerate(kinds)]
    ports = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in zip(names, arrays, strict=True)
    ]
    node = helper.make_node(name, names, [port.name for port in made], **attributes)
    graph = helper.make_graph([node], "g", ports, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    expected = session_of(model).run(None, dict(zip(names, arrays, strict=True)))
    for ours, theirs in zip(run_model(model, arrays), expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if theirs.dtype == np.int8 or theirs.dtype == np.uint8:
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 0
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


#: Cases of the suite in which ONNX Runtime differs from it, at the newest version too.
DIFFERENT = {
    "maxunpool_export_with_output_shape": "ONNX Runtime takes output_shape as the size that indices count in",
    "resize_downsample_scales_linear_align_corners": "ONNX Runtime rounds the size before it aligns corners",
    "resize_downsample_scales_cubic_align_corners": "ONNX Runtime rounds the size before it aligns corners",
    "attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal": "ONNX Runtime shows the lowest float for -inf",
    "attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal": "ONNX Runtime shows the lowest float for -inf",
    "attention_4d_causal_fp16": "ONNX Runtime computes the softmax in float32",
}


@pytest.mark.slow
def test_the_suite_at_every_older_version_that_takes_its_cases() -> None:
    """Each case of one node, run as every older version of its operator, where ONNX Runtime can run that too."""
    history = collections.defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and not schema.deprecated:
            history[schema.name].append(schema)
    tried: set[tuple[str, int]] = set()
    failures = {}
    for name, case in cases().items():
        if (
            not name.startswith("node/")
            or name.removeprefix("node/test_") in DIFFERENT
            or len(case.model.graph.node) > 1
        ):
            continue
        (node,) = case.model.graph.node
        given = {attribute.name for attribute in node.attribute}
        for schema in history[node.op_type] if node.op_type not in ("If", "Loop", "Scan", "SequenceMap") else ():
            version = schema.since_version
            fits = schema.min_input <= len(node.input) <= schema.max_input and given <= set(schema.attributes)
            if not fits or node.domain or version == onnx.defs.get_schema(node.op_type).since_version:
                continue
            model = onnx.ModelProto.FromString(case.model.SerializeToString())
            model.opset_import[0].version = version
            model.ir_version = min(model.ir_version, 8)
            try:
                onnx.checker.check_model(model, full_check=True)
                session = session_of(model)
                sets = [inputs for inputs, _ in data_sets(case, model)]
                ports = [port.name for port in session.get_inputs()]
                expected = [session.run(None, dict(zip(ports, inputs, strict=True))) for inputs in sets]
            except Exception:  # not valid at that version, or not in ONNX Runtime
                continue
            tried.add((node.op_type, version))
            for inputs, theirs in zip(sets, expected, strict=True):
                try:
                    close(theirs, run_model(model, inputs), case)
                except Exception as error:
                    failures[name, version] = f"{type(error).__name__}: {error}"
    assert failures == {}
    assert len(tried) > 250


def close(theirs: list, ours: Any, case: Any) -> None:
    """As the suite compares; ONNX Runtime gives floats of 8 bits as bytes, and transforms with less precision."""
    views = [y.view(np.uint8) if isinstance(y, np.ndarray) and y.dtype.name.startswith("float8") else y for y in ours]
    if case.name.startswith("test_dft"):
        for one, other in zip(views, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
        return
    compare(theirs, views, case)
