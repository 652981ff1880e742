"""Models of one node, and their results in zoonet and in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from zoonet.formats.onnx import run_model

RNG = np.random.default_rng(0)
MICROSOFT = "com.microsoft"


def floats(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def bytes_(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    """Weights of int8 have 7 bits: without VNNI, ONNX Runtime's sums of two products with uint8 saturate."""
    limits = np.iinfo(dtype)
    low, high = (-64, 63) if dtype is np.int8 else (limits.min, limits.max)
    return RNG.integers(low, high + 1, shape).astype(dtype)


def scale(value: float = 0.02) -> np.ndarray:
    return np.float32(value)


def node_model(
    operator: str, inputs: list, outputs: int | list[int], attributes: dict, domain: str = MICROSOFT, opset: int = 17
) -> tuple[onnx.ModelProto, dict]:
    """A model of one node. inputs: arrays or None; outputs: how many, or the types of each."""
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    feeds = {name: np.asarray(x) for name, x in zip(names, inputs, strict=True) if x is not None}
    kinds = [TensorProto.FLOAT] * outputs if isinstance(outputs, int) else outputs
    ports = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in feeds.items()
    ]
    made = [helper.make_tensor_value_info(f"y{i}", kind, None) for i, kind in enumerate(kinds)]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(len(kinds))], domain=domain, **attributes)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    graph = helper.make_graph([node], "g", ports, made)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds


def compare(
    operator: str,
    inputs: list,
    outputs: int | list[int] = 1,
    tolerance: float = 1e-5,
    rows: Any = None,
    domain: str = MICROSOFT,
    version: int = 17,
    **attributes: Any,
) -> None:
    """Equal results of zoonet and ONNX Runtime. rows: what part of each output is defined."""
    model, feeds = node_model(operator, inputs, outputs, attributes, domain, version)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    expected = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)
    ours = run_model(model, feeds)
    assert len(ours) == len(expected)
    for i, (one, other) in enumerate(zip(ours, expected, strict=True)):
        one = np.asarray(one)
        assert one.dtype == other.dtype, i
        assert one.shape == other.shape, i
        if rows is not None:
            one, other = rows(i, one), rows(i, other)
        if other.dtype.kind in "iu":
            assert np.abs(one.astype(int) - other.astype(int)).max(initial=0) <= tolerance, i
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=str(i))
