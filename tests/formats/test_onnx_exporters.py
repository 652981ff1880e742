"""Models that PyTorch's exporters, Keras and ONNX Runtime's quantiser write, at many opsets, against ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from zoonet.formats import onnx as reader

OPSETS = (7, 9, 11, 13, 17, 18, 21, 23)
RNG = np.random.default_rng(0)


def assert_equal_to_onnx_runtime(
    data: bytes, *inputs: np.ndarray, tolerance: float = 1e-4, plain: bool = False
) -> list[np.ndarray]:
    """plain: without the optimisations of ONNX Runtime, which quantised graphs do not survive unchanged."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options)
    expected = session.run(None, {port.name: x for port, x in zip(session.get_inputs(), inputs, strict=True)})
    ours = reader.from_bytes(data).run(inputs)
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        scale = max(1.0, float(np.abs(other.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)
    return list(ours)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


class Pads(nn.Module):
    """A convolution with each kind of padding, and a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(3, 3, 3, padding=(1, 2), padding_mode=mode) for mode in ("zeros", "reflect", "replicate")
        )
        self.same = nn.Conv2d(3, 3, (3, 2), padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = functional.relu(layer(x))
        x = functional.avg_pool2d(self.same(x), 3, 2, 1, count_include_pad=False)
        return functional.max_pool2d(x, 2).flatten(1)


class Recurrent(nn.Module):
    """An LSTM, a GRU and a plain network, with their last states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, 2, bidirectional=True)
        self.gru = nn.GRU(10, 5, batch_first=True)
        self.rnn = nn.RNN(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, (h, c) = self.lstm(x)
        x, g = self.gru(x)
        y, _ = self.rnn(x)
        return y, h, c, g


class Encoder(nn.Module):
    """Tokens to vectors, with a mask made in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        angles = torch.sin(places[:, None] / torch.pow(10.0, torch.arange(16) / 16))
        x = self.tokens(tokens) * 4.0 + angles
        return self.encoder(x).mean(1)


class Decoder(nn.Module):
    """Causal self-attention, then attention to a memory: written out, as decoders with a cache are."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.Linear(16, 48)
        self.query, self.memory = nn.Linear(16, 16), nn.Linear(16, 32)
        self.norm = nn.LayerNorm(16)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
        q, k, v = (x.reshape(x.shape[0], x.shape[1], 4, 4).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) / 2.0
        if causal:
            later = torch.ones(q.shape[2], q.shape[2]).cumsum(1) > torch.ones(q.shape[2], q.shape[2]).cumsum(0)
            scores = scores.masked_fill(later, -1e9)
        y = scores.softmax(-1) @ v
        return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], 16)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(*self.self_attention(self.norm(x)).chunk(3, -1), causal=True)
        return x + self.attend(self.query(self.norm(x)), *self.memory(memory).chunk(2, -1), causal=False)


class Shapes(nn.Module):
    """What exporters make of indexing, comparison and rearranging."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n, c, h, w = x.shape
        parts = x.view(n, c // 2, 2, h, w).permute(0, 2, 1, 4, 3).reshape(n, -1, w, h)
        value, place = parts.topk(2, dim=1)
        picked = parts.gather(1, place) - value
        cut = torch.where(parts[:, :, 1:-1, ::1] > 0, parts[:, :, 1:-1], torch.zeros(1))
        return picked, cut.clamp(-0.5, 1.0), parts.argmax(1), torch.cat([parts, -parts], 1).sum((2, 3)), x.var(1)


class Pyramid(nn.Module):
    """Features at two scales, upsampled and joined, as in detectors and segmentation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.Hardtanh(-1, 1), nn.Conv2d(8, 8, 1))
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high = self.first(x)
        low = self.second(high)
        joined = torch.cat([functional.interpolate(low, scale_factor=2.0, mode="nearest"), self.up(low), high], 1)
        return torch.sigmoid(functional.adaptive_avg_pool2d(joined, 2))


@dataclass(frozen=True)
class Case:
    """A model and its inputs. least: the oldest opset that the exporter can write it for; dynamic: axes by input."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[np.ndarray, ...]]
    least: int = 7
    dynamic: tuple[dict[int, str], ...] = ({0: "N"},)


CASES = {
    "perceptron": Case(
        lambda: nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 4), nn.Softmax(-1)), lambda n: (floats(n, 5),)
    ),
    "paddings": Case(Pads, lambda n: (floats(n, 3, 9, 11),)),
    "pyramid": Case(Pyramid, lambda n: (floats(n, 3, 16, 16),), 9),
    "recurrent": Case(Recurrent, lambda n: (floats(6, n, 4),), 9, ({1: "N"},)),
    "encoder": Case(Encoder, lambda n: (RNG.integers(0, 20, (n, 5)),), 14),
    "decoder": Case(
        Decoder,
        lambda n: (floats(n, 4 + n, 16), floats(n, 2 + n, 16)),
        11,
        ({0: "N", 1: "T"}, {0: "N", 1: "S"}),
    ),
    "shapes": Case(Shapes, lambda n: (floats(n, 4, 5, 6),), 11),
}


def exported(case: Case, opset: int, modern: bool) -> bytes:
    torch.manual_seed(0)
    module = case.make().eval()
    inputs = tuple(torch.tensor(x) for x in case.inputs(2))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if modern:
            shapes = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in case.dynamic)
            program = torch.onnx.export(
                module, inputs, opset_version=opset, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            return program.model_proto.SerializeToString()
        buffer = io.BytesIO()
        names = [f"x{i}" for i in range(len(inputs))]
        axes = dict(zip(names, case.dynamic, strict=True))
        torch.onnx.export(
            module, inputs, buffer, opset_version=opset, dynamo=False, input_names=names, dynamic_axes=axes
        )
        return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in CASES.items() for opset in OPSETS if opset >= case.least]
)
def test_models_of_torch(name: str, opset: int) -> None:
    case = CASES[name]
    data = exported(case, opset, modern=False)
    assert onnx.load_from_string(data).opset_import[0].version == opset
    for batch in (2, 3):
        assert_equal_to_onnx_runtime(data, *case.inputs(batch))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("opset", [18, 21, 23])
def test_models_of_the_modern_exporter_of_torch(name: str, opset: int) -> None:
    pytest.importorskip("onnxscript")
    case = CASES[name]
    data = exported(case, opset, modern=True)
    for batch in (2,) if name == "recurrent" else (2, 3):
        assert_equal_to_onnx_runtime(data, *case.inputs(batch))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_models_of_keras(tmp_path: pathlib.Path) -> None:
    import keras

    pytest.importorskip("onnxscript")
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.UpSampling2D(2)(keras.layers.MaxPooling2D(2)(x))
    x = keras.layers.Reshape((-1, 4))(x)
    x = keras.layers.GRU(6)(keras.layers.Conv1D(5, 3, padding="causal", activation="gelu")(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x))
    model(floats(2, 12, 10, 3))
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(str(tmp_path / "m.onnx"), format="onnx", verbose=False)
    data = (tmp_path / "m.onnx").read_bytes()
    x = floats(2, 12, 10, 3)
    (y,) = assert_equal_to_onnx_runtime(data, x)
    np.testing.assert_allclose(y, keras.ops.convert_to_numpy(model(x)), rtol=1e-3, atol=1e-5)


# -- graphs as TensorFlow's converter writes them, and detectors with their suppression inside -----------------------


def graph_of(nodes: list, inputs: dict, outputs: list[str], weights: dict[str, np.ndarray], opset: int) -> bytes:
    ports = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    made = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    opsets = [helper.make_opsetid("", opset)]
    graph = helper.make_graph(nodes, "graph", ports, made, constants)
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.INT64 if value.name == "picked" else TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=opsets, ir_version=4 if opset < 13 else 9).SerializeToString()


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


@pytest.mark.parametrize("opset", OPSETS)
def test_graphs_in_the_style_of_tensorflow(opset: int) -> None:
    axes = {"axes": [1, 2]} if opset < 18 else {}
    reduced = "last" if opset < 18 else "last spatial"
    shapes = {"starts": [0], "ends": [1], "axes": [0]} if opset < 10 else {}
    sliced = "shape" if opset < 10 else "shape zero one zero"
    nodes = [
        node("Transpose", "x", "nchw", perm=[0, 3, 1, 2]),
        node("Conv", "nchw kernel", "conv", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        node("Add", "conv bias", "biased"),
        node("Relu", "biased", "active"),
        node("MaxPool", "active", "pooled", auto_pad="SAME_LOWER", kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", "pooled", "padded", pads=[0, 0, 1, 0, 0, 0, 0, 1])
        if opset < 11
        else node("Pad", "pooled widths", "padded"),
        node("BatchNormalization", "padded gamma beta mean variance", "normal", epsilon=1e-3),
        node("Transpose", "normal", "last", perm=[0, 2, 3, 1]),
        node("ReduceMean", reduced, "features", keepdims=0, **axes),
        node("Shape", "features", "shape"),
        node("Slice", sliced, "count", **shapes),
        node("Concat", "count minus", "target", axis=0),
        node("Reshape", "features target", "flat"),
        node("MatMul", "flat dense", "logits"),
        node("Softmax", "logits", "y", axis=1),
        node("ArgMax", "y", "picked", axis=1, keepdims=0),
    ]
    weights = {
        "kernel": floats(4, 3, 3, 3), "bias": floats(1, 4, 1, 1), "gamma": floats(4), "beta": floats(4),
        "mean": floats(4), "variance": np.abs(floats(4)) + 0.5, "dense": floats(4, 5), "minus": np.array([-1]),
        "spatial": np.array([1, 2]), "widths": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "zero": np.array([0]),
        "one": np.array([1]),
    }  # fmt: skip
    used = {name for made in nodes for name in made.input}
    kept = {name: array for name, array in weights.items() if name in used}
    data = graph_of(nodes, {"x": (1, ["N", 9, 10, 3])}, ["y", "picked"], kept, opset)
    for batch in (1, 3):
        assert_equal_to_onnx_runtime(data, floats(batch, 9, 10, 3))


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 21, 23])
def test_detectors_with_suppression_in_the_graph(opset: int) -> None:
    """Raw predictions to the boxes, classes and scores that remain: shapes depend on contents."""
    squeeze = {"axes": [1]} if opset < 13 else {}
    squeezed = "columns" if opset < 13 else "columns first"
    nodes = [
        node("Slice", "raw zero four last", "centres"),
        node("Slice", "raw four end last", "logits"),
        node("Sigmoid", "logits", "likely"),
        node("Transpose", "likely", "scores", perm=[0, 2, 1]),
        node("Exp", "centres", "boxes"),
        node("NonMaxSuppression", "boxes scores most overlap least", "kept", center_point_box=1),
        node("Slice", "kept end_box three first", "columns"),
        node("Squeeze", squeezed, "picked", **squeeze),
        node("Gather", "boxes picked", "chosen", axis=1),
        node("GatherND", "scores kept", "y"),
    ]
    weights = {
        "zero": np.array([0]), "four": np.array([4]), "end": np.array([7]), "last": np.array([2]),
        "end_box": np.array([2]), "three": np.array([3]), "first": np.array([1]), "most": np.array([5]),
        "overlap": np.float32([0.4]), "least": np.float32([0.5]),
    }  # fmt: skip
    data = graph_of(nodes, {"raw": (1, [1, 40, 7])}, ["chosen", "picked", "y"], weights, opset)
    raw = floats(1, 40, 7)
    raw[..., 2:4] = np.abs(raw[..., 2:4])
    boxes, picked, _ = assert_equal_to_onnx_runtime(data, raw)
    assert 0 < len(picked) <= 15
    assert boxes.shape == (1, len(picked), 4)


# -- quantised networks ----------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """The first stages of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
        self.shortcut = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = functional.relu(self.body(x) + self.shortcut(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_quantised_resnets(form: str, per_channel: bool, opset: int, tmp_path: pathlib.Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    pictures = [floats(2, 3, 16, 16) for _ in range(4)]
    (tmp_path / "m.onnx").write_bytes(exported(Case(Residual, lambda n: (floats(n, 3, 16, 16),)), opset, False))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.items = iter([{"x0": picture} for picture in pictures])

        def get_next(self) -> Any:
            return next(self.items, None)

    quantize_static(
        str(tmp_path / "m.onnx"), str(tmp_path / "q.onnx"), Reader(), quant_format=QuantFormat[form],
        per_channel=per_channel, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        reduce_range=True,  # on CPUs without VNNI, ONNX Runtime's sums of two 8-bit products saturate
    )  # fmt: skip
    data = (tmp_path / "q.onnx").read_bytes()
    operators = {n.op_type for n in onnx.load_from_string(data).graph.node}
    assert operators & ({"DequantizeLinear"} if form == "QDQ" else {"QLinearConv"})
    session = onnxruntime.InferenceSession((tmp_path / "m.onnx").read_bytes())
    x = pictures[0]
    scale = np.abs(session.run(None, {"x0": x})[0]).max()
    assert_equal_to_onnx_runtime(data, x, tolerance=float(2 / 255 * max(scale, 1)), plain=True)


def test_weights_quantised_dynamically(tmp_path: pathlib.Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    (tmp_path / "m.onnx").write_bytes(exported(CASES["decoder"], 17, False))
    quantize_dynamic(str(tmp_path / "m.onnx"), str(tmp_path / "q.onnx"), reduce_range=True)
    data = (tmp_path / "q.onnx").read_bytes()
    assert "MatMulInteger" in {n.op_type for n in onnx.load_from_string(data).graph.node}
    assert_equal_to_onnx_runtime(data, *CASES["decoder"].inputs(2), tolerance=1e-3, plain=True)


@pytest.mark.parametrize("name", ["encoder", "decoder", "pyramid", "recurrent"])
def test_graphs_that_onnx_runtime_optimised(name: str, tmp_path: pathlib.Path) -> None:
    """What ONNX Runtime saves after its own passes holds operators of com.microsoft."""
    case = CASES[name]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "m.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(exported(case, 17, False), options)
    assert_equal_to_onnx_runtime((tmp_path / "m.onnx").read_bytes(), *case.inputs(2))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16])
def test_quantised_masks_of_infinity(kind: Any) -> None:
    """What the quantiser makes of a mask: an infinite scale, and NaN for -inf over it, which is the lowest integer."""
    zero = numpy_helper.from_array(np.asarray(np.iinfo(kind).max, kind), "zero")
    scale = numpy_helper.from_array(np.asarray(np.inf, np.float32), "scale")
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    ports = [helper.make_tensor_value_info(n, t, [3]) for n, t in (("x", TensorProto.FLOAT), ("y", zero.data_type))]
    graph = helper.make_graph([node], "mask", ports[:1], ports[1:], [scale, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = np.asarray([-np.inf, 0.0, np.nan], np.float32)
    assert_equal_to_onnx_runtime(model.SerializeToString(), x, plain=True)
