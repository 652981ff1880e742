"""ONNX graphs put in another precision, against PyTorch in it, and against ONNX Runtime on what is saved.

ONNX Runtime has few operators of float64: there ONNX's reference evaluator stands for it.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_runtime import run, session_of

from zoonet import zoo
from zoonet.ops.errors import InputError

RNG = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


def results_of_others(path: pathlib.Path, feeds: dict[str, np.ndarray]) -> list[Any]:
    """What another library computes from a file."""
    if any(array.dtype == np.float64 for array in feeds.values()):
        onnx.checker.check_model(path, full_check=True)
        return list(ReferenceEvaluator(onnx.load(path)).run(None, feeds))
    return run(session_of(path), *feeds.values())


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.linear = torch.nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.conv(x))) * 0.3 + 0.1
        h = h * torch.arange(h.shape[-1]).to(h.dtype) + torch.zeros(h.shape[0], 1, 1, 1)
        return torch.softmax(self.linear(torch.clip(h, 0, 6).mean((2, 3))), -1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-7), ("float16", 2e-3)])
def test_a_network_of_torch(dtype: str, tolerance: float, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    theirs = Network().eval()
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    path, saved = tmp_path / "m.onnx", tmp_path / "saved.onnx"
    axes = {"x": {0: "n", 2: "height", 3: "width"}}
    torch.onnx.export(theirs, (torch.tensor(x),), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    with torch.no_grad():
        expected = theirs.double()(torch.tensor(x.astype(np.float64))).numpy()
    model = zoo.load(path, dtype=dtype)
    for given in (x, x.astype(dtype)):
        y = model(given)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype(np.float64), expected, atol=tolerance)
    model.save(saved)
    [found] = results_of_others(saved, {"x": x.astype(dtype)})
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=tolerance)
    again = zoo.load(saved)
    np.testing.assert_array_equal(again(x.astype(dtype)), model(x))
    with pytest.raises(InputError, match="wrong data type"):
        again(x)
    model.network.to(dtype="float32")
    model.save(saved)
    np.testing.assert_allclose(run(session_of(saved), x)[0], expected, atol=max(1e-6, tolerance))


def operators_that_differ() -> onnx.ModelProto:
    """What keeps float32 in every precision, what says a data type, and sub-graphs that read the graph around them."""
    value = helper.make_tensor("value", FLOAT, [1], [0.5])
    turn = helper.make_graph(
        [helper.make_node("Add", ["state", "step"], ["next"]), helper.make_node("Identity", ["going"], ["still"])],
        "turn",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("going", TensorProto.BOOL, []),
         helper.make_tensor_value_info("state", FLOAT, None)],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next", FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["large"], mode="linear"),
        helper.make_node("Shape", ["large"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["halves"], value=value),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Cast", ["count"], ["step"], to=FLOAT),
        helper.make_node("Add", ["large", "halves"], ["sum"]),
        helper.make_node("Add", ["sum", "zeros"], ["start"]),
        helper.make_node("Loop", ["turns", "goes", "start"], ["y"], body=turn),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["kept"]),
        helper.make_node("Mul", ["scores", "factor"], ["scaled"]),
    ]
    initializers = {
        "scales": np.float32([1, 1, 1.5, 1.3]),
        "turns": np.int64(3),
        "goes": np.array(True),
        "most": np.int64([4]),
        "overlap": np.float32([0.4]),
        "factor": np.float32([0.7]),
    }
    inputs = {"x": [1, 2, 4, 11], "boxes": [1, 6, 4], "scores": [1, 1, 6]}
    ports = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
    ports.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    results = [
        helper.make_tensor_value_info("y", FLOAT, ["n", "c", "h", "w"]),
        helper.make_tensor_value_info("scaled", FLOAT, [1, 1, 6]),
    ]
    results.append(helper.make_tensor_value_info("kept", TensorProto.INT64, ["kept", 3]))
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "g", ports, results, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float16", 2e-2)])
def test_operators_that_differ(dtype: Any, tolerance: float, tmp_path: pathlib.Path) -> None:
    path, saved = tmp_path / "m.onnx", tmp_path / "saved.onnx"
    onnx.save(operators_that_differ(), path)
    corners = np.sort(RNG.random((1, 6, 2, 2)), 2).reshape(1, 6, 4)
    feeds = {"x": RNG.normal(size=(1, 2, 4, 11)), "boxes": corners, "scores": RNG.random((1, 1, 6))}
    feeds = {name: array.astype(np.float16).astype(np.float32) for name, array in feeds.items()}
    feeds["count"] = np.asarray(2, np.int64)
    expected = run(session_of(path), *feeds.values())
    model = zoo.load(path, dtype=dtype)
    model.save(saved)
    cast = {name: array.astype(dtype) if array.dtype == np.float32 else array for name, array in feeds.items()}
    for results in (model.run(feeds).values(), results_of_others(saved, cast), zoo.load(saved).run(cast).values()):
        for found, other in zip(results, expected, strict=True):
            assert found.dtype == (dtype if other.dtype == np.float32 else other.dtype)
            np.testing.assert_allclose(found, other, atol=tolerance)
