"""ONNX models made by others and by PyTorch, as models of the facade, have the outputs of ONNX Runtime."""

from __future__ import annotations

import io
import pathlib
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx_models import RealModel, models, run

from zoonet import zoo
from zoonet.zoo.cli import main

RNG = np.random.default_rng(1)


def assert_equal_to_onnx_runtime(path: pathlib.Path | str, *inputs: np.ndarray, tolerance: float = 1e-4) -> None:
    session = onnxruntime.InferenceSession(str(path))
    expected = session.run(None, {port.name: x for port, x in zip(session.get_inputs(), inputs, strict=True)})
    outputs = zoo.load(path)(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_real_models(model: RealModel) -> None:
    """Numbers, and what they say: boxes, classes."""
    result = run(model)
    for ours, theirs in zip(result.outputs, result.expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    assert result.difference <= 1e-3
    ours, theirs = model.meaning(result.outputs), model.meaning(result.expected)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        if not isinstance(one, tuple):
            assert one == other
            continue
        assert one[0] == other[0]
        np.testing.assert_allclose(one[1], other[1], atol=2e-3)
        np.testing.assert_allclose(one[2], other[2], atol=0.2)


def exported(module: torch.nn.Module, inputs: tuple[Any, ...], path: pathlib.Path, opset: int, **options: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, str(path), opset_version=opset, dynamo=False, **options)
    return str(path)


class Pools(torch.nn.Module):
    """Convolutions and pools with unusual paddings and strides."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
            torch.nn.BatchNorm2d(8),
            torch.nn.Hardswish(),
            torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4),
            torch.nn.AvgPool2d(2, 2, count_include_pad=False),
            torch.nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
            torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 5),
            torch.nn.Softmax(-1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_convolutions_of_torch(opset: int, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
    path = exported(Pools(), (torch.randn(1, 3, 32, 32),), tmp_path / "m.onnx", opset, **options)
    for batch in (1, 3):
        assert_equal_to_onnx_runtime(path, RNG.normal(size=(batch, 3, 32, 32)).astype(np.float32))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_of_torch(kind: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(5, 7, num_layers=2, bidirectional=True)
    path = exported(layer, (torch.randn(4, 2, 5),), tmp_path / "m.onnx", 17)
    assert_equal_to_onnx_runtime(path, RNG.normal(size=(4, 2, 5)).astype(np.float32))


@pytest.mark.parametrize("opset", [14, 17, 18])
def test_a_transformer_of_torch(opset: int, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "N", 1: "T"}}}
    path = exported(encoder, (torch.randn(2, 6, 16),), tmp_path / "m.onnx", opset, **options)
    assert_equal_to_onnx_runtime(path, RNG.normal(size=(2, 6, 16)).astype(np.float32))


def test_quantised_models_of_onnx_runtime(tmp_path: pathlib.Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(72, 4),
    )
    path = exported(network, (torch.randn(1, 3, 11, 11),), tmp_path / "m.onnx", 13, input_names=["x"])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.items = iter([{"x": RNG.normal(size=(1, 3, 11, 11)).astype(np.float32)} for _ in range(4)])

        def get_next(self) -> Any:
            return next(self.items, None)

    x = RNG.normal(size=(1, 3, 11, 11)).astype(np.float32)
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        target = str(tmp_path / f"{form.name}.onnx")
        quantize_static(path, target, Reader(), quant_format=form)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(target, options)
        (expected,) = session.run(None, {"x": x})
        ours = zoo.load(target)(x)
        step = np.abs(expected).max() / 127  # one step of the quantised result
        assert np.abs(ours - expected).max() <= 1.01 * step


def test_the_command_line_runs_and_shows_a_graph(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = exported(Pools(), (torch.randn(1, 3, 32, 32),), tmp_path / "m.onnx", 13, output_names=["scores"])
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 32, 32), np.float32))
    assert main(["run", path, str(tmp_path / "x.npy")]) == 0
    assert "scores: float32[1, 5], " in capsys.readouterr().out
    assert main(["run", path, str(tmp_path / "nothing.npy")]) == 2
    assert main(["show", path]) == 0
    out = capsys.readouterr().out
    assert "float32[1, 3, 32, 32]" in out
    assert "scores" in out


@pytest.mark.parametrize(("count", "message"), [(0, "shape"), (7, "truncated|readable|shape|weights")])
def test_damaged_files_are_refused(count: int, message: str, tmp_path: pathlib.Path) -> None:
    from zoonet.ops.errors import ZoonetError

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.Linear(3, 2), (torch.randn(1, 3),), buffer, opset_version=13, dynamo=False)
    data = buffer.getvalue()
    onnx.load_from_string(data)
    path = tmp_path / "m.onnx"
    if count:
        path.write_bytes(data[: len(data) * count // 10])
        with pytest.raises(ZoonetError):
            zoo.load(path)(np.zeros((1, 3), np.float32))
    else:
        path.write_bytes(data)
        with pytest.raises(ZoonetError, match=message):
            zoo.load(path)(np.zeros((1, 4), np.float32))


MICROSOFT = [
    ("Gelu", [(2, 3)], {}),
    ("BiasGelu", [(2, 3), (3,)], {}),
    ("FastGelu", [(2, 3), (3,)], {}),
    ("QuickGelu", [(2, 3)], {"alpha": 1.5}),
    ("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"alpha": 0.5, "transA": 1}),
    ("FusedGemm", [(2, 3), (3, 4), (4,)], {"activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 2.0}),
    ("FusedConv", [(1, 2, 5, 5), (3, 2, 3, 3), (3,)], {"activation": "Relu", "pads": [1, 0, 1, 2]}),
    ("SkipLayerNormalization", [(2, 3, 4), (2, 3, 4), (4,), (4,), (4,)], {"epsilon": 1e-5}),
    ("SkipSimplifiedLayerNormalization", [(2, 3, 4), (2, 3, 4), (4,)], {"epsilon": 1e-5}),
]


@pytest.mark.parametrize(("operator", "shapes", "attributes"), MICROSOFT)
def test_fused_operators(operator: str, shapes: list, attributes: dict, tmp_path: pathlib.Path) -> None:
    names = [f"x{i}" for i in range(len(shapes))]
    node = onnx.helper.make_node(operator, names, ["y"], domain="com.microsoft", **attributes)
    ports = [onnx.helper.make_tensor_value_info(n, 1, s) for n, s in zip(names, shapes, strict=True)]
    graph = onnx.helper.make_graph([node], "g", ports, [onnx.helper.make_tensor_value_info("y", 1, None)])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    assert_equal_to_onnx_runtime(path, *[RNG.normal(size=shape).astype(np.float32) for shape in shapes])


def _estimators() -> list[Any]:
    from sklearn import ensemble, linear_model, pipeline, preprocessing, tree

    return [
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
        pipeline.make_pipeline(preprocessing.Normalizer(), tree.DecisionTreeClassifier(max_depth=4, random_state=0)),
        ensemble.RandomForestClassifier(5, max_depth=4, random_state=0),
        linear_model.LinearRegression(),
        ensemble.RandomForestRegressor(5, max_depth=4, random_state=0),
        ensemble.GradientBoostingRegressor(n_estimators=5, random_state=0),
        ensemble.GradientBoostingClassifier(n_estimators=5, random_state=0),
    ]


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("classes", [2, 3])
def test_models_of_scikit_learn(index: int, classes: int, tmp_path: pathlib.Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    x = RNG.normal(size=(60, 4)).astype(np.float32)
    y = np.digitize(x @ [1.0, -2.0, 0.5, 0.0], [0] if classes == 2 else [-1, 1])
    model = _estimators()[index].fit(x, y)
    options = {"zipmap": False} if hasattr(model, "predict_proba") else None
    proto = skl2onnx.to_onnx(model, x[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"X": x})
    outputs = zoo.load(path).run(x)
    for ours, theirs in zip(outputs.values(), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
