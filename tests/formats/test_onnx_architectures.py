"""Networks of many kinds, small and with random weights, as PyTorch writes them, and graphs as tf2onnx writes them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformer_oracles import drawn, transformers

from zoonet.formats import onnx as reader

RNG = np.random.default_rng(0)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
PATCHES = {**SIZES, "image_size": 32, "patch_size": 8}
DPT = {"backbone_out_indices": [0, 1], "neck_hidden_sizes": [8, 16], "reassemble_factors": [2, 1]}
DPT |= {"fusion_hidden_size": 8, "neck_ignore_stages": []}
SEGFORMER = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4], "depths": [1] * 4}
MOBILE = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 24, 24, 32], "num_attention_heads": 2}
SOUND = {**SIZES, "conv_dim": [16] * 2, "conv_stride": [5, 2], "conv_kernel": [10, 3], "vocab_size": 12}
SOUND |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
DEBERTA = {**SIZES, "vocab_size": 50, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}
#: The class of the network, its configuration, and what it takes: side of a picture, "tokens" or "sound".
NETWORKS: dict[str, tuple[dict[str, Any], int | str]] = {
    "ViTModel": (PATCHES, 32),
    "CLIPVisionModel": (PATCHES, 32),
    "SiglipVisionModel": (PATCHES, 32),
    "CLIPTextModel": ({**SIZES, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 2}, "tokens"),
    "YolosForObjectDetection": ({**PATCHES, "image_size": [32, 32], "num_detection_tokens": 5}, 32),
    "SegformerForSemanticSegmentation": ({**SEGFORMER, "decoder_hidden_size": 16}, 64),
    "DPTForDepthEstimation": ({**PATCHES, **DPT}, 32),
    "ConvNextV2Model": ({"hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4}, 32),
    "MobileViTModel": (MOBILE, 64),
    "SwinModel": (SWIN, 32),
    "Wav2Vec2ForCTC": (SOUND, "sound"),
    "DebertaV2Model": ({**DEBERTA, "max_position_embeddings": 16}, "tokens"),
    "AlbertModel": ({**SIZES, "vocab_size": 50, "embedding_size": 16}, "tokens"),
    "T5EncoderModel": (T5, "tokens"),
}


class FirstOutput(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[0]


def exported(network: torch.nn.Module, *inputs: torch.Tensor, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network.eval(), inputs, buffer, opset_version=17, dynamo=False, **options)
    return buffer.getvalue()


def assert_equal_to_onnx_runtime(data: bytes, *inputs: np.ndarray, tolerance: float = 1e-4) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options)
    expected = session.run(None, {port.name: x for port, x in zip(session.get_inputs(), inputs, strict=True)})
    ours = reader.from_bytes(data).run(inputs)
    for one, other in zip(ours, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        largest = max(float(np.abs(other).max(initial=0)), 1e-3)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * largest)


QUICK = ("CLIPTextModel", "ConvNextV2Model", "DebertaV2Model", "Wav2Vec2ForCTC")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in NETWORKS])
def test_networks_of_hugging_face(name: str) -> None:
    settings, taken = NETWORKS[name]
    kind = name.removesuffix("Model") if name != "T5EncoderModel" else "T5"
    config = kind.partition("For")[0] + "Config"
    network = drawn(getattr(transformers, name)(getattr(transformers, config)(**settings)))
    shape = (1, 400) if taken == "sound" else (2, 3, taken, taken)
    x = torch.tensor(RNG.integers(3, 40, (2, 9)) if taken == "tokens" else RNG.normal(size=shape).astype(np.float32))
    assert_equal_to_onnx_runtime(exported(FirstOutput(network), x), x.numpy())


class WithCache(torch.nn.Module):
    """GPT-2 that goes on from keys and values of earlier tokens."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 32}
        config = transformers.GPT2Config(**sizes, attn_implementation="eager")
        self.network = drawn(transformers.GPT2LMHeadModel(config))

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = transformers.DynamicCache()
        cache.update(keys, values, 0)
        result = self.network(tokens, past_key_values=cache, use_cache=True)
        [layer] = result.past_key_values.layers
        return result.logits, layer.keys, layer.values


def test_a_decoder_with_a_cache() -> None:
    inputs = [RNG.integers(0, 50, (1, 3)), *(RNG.normal(size=(1, 4, 5, 8)).astype(np.float32) for _ in range(2))]
    names = ["tokens", "keys", "values"]
    axes = {"tokens": {1: "T"}, "keys": {2: "past"}, "values": {2: "past"}}
    data = exported(WithCache(), *map(torch.tensor, inputs), input_names=names, dynamic_axes=axes)
    assert_equal_to_onnx_runtime(data, *inputs)
    assert_equal_to_onnx_runtime(data, inputs[0][:, :1], inputs[1][:, :, :2], inputs[2][:, :, :2])


# -- as tf2onnx writes -----------------------------------------------------------------------------------------------


def model_of(nodes: list, inputs: list, outputs: list[str], weights: dict[str, Any], opset: int) -> bytes:
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "tf2onnx", inputs, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


def port(name: str, shape: list, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def convolution(opset: int) -> tuple[bytes, list[np.ndarray]]:
    """Channels last: a transpose at either end, SAME padding, a folded norm, Relu6, a mean over the picture."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        node("Conv", ["a", "k", "bias"], ["b"], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Clip", ["b", "zero", "six"], ["c"]),
        node("Pad", ["c", "pads"], ["p"]),
        node("Conv", ["p", "depthwise"], ["d"], group=4, auto_pad="VALID"),
        node("MaxPool", ["d"], ["m"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["t"], ["y"], axes=[1, 2], keepdims=0),
    ]
    weights = {"k": floats(4, 3, 3, 3), "bias": floats(4), "depthwise": floats(4, 1, 3, 3)}
    weights |= {"zero": np.float32(0), "six": np.float32(6), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    return model_of(nodes, [port("x", ["N", 11, 14, 3])], ["t", "y"], weights, opset), [floats(2, 11, 14, 3)]


def strided_slice(opset: int) -> tuple[bytes, list[np.ndarray]]:
    """StridedSlice: Slice, then Squeeze; the shape of the input cut up and put together again for a Reshape."""
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["shape32"], to=TensorProto.INT32),
        node("Slice", ["shape32", "0", "1", "0"], ["first"]),
        node("Squeeze", ["first", "0"], ["batch"]),
        node("Unsqueeze", ["batch", "0"], ["batch1"]),
        node("Concat", ["batch1", "rest"], ["target32"], axis=0),
        node("Cast", ["target32"], ["target"], to=TensorProto.INT64),
        node("Reshape", ["x", "target"], ["y"]),
        node("Slice", ["x", "from", "to", "axes", "steps"], ["z"]),
        node("Slice", ["x", "1", "2", "1"], ["w3"]),
        node("Squeeze", ["w3", "1"], ["w"]),
    ]
    weights = {"0": [0], "1": [1], "2": [2], "from": [-1, 0], "to": [-(1 << 31), 1 << 31], "axes": [1, 2]}
    arrays: dict[str, Any] = {name: np.array(array) for name, array in (weights | {"steps": [-1, 2]}).items()}
    arrays["rest"] = np.array([-1], np.int32)
    return model_of(nodes, [port("x", ["N", 3, 5])], ["y", "z", "w"], arrays, opset), [floats(2, 3, 5)]


def recurrent_loop(opset: int) -> tuple[bytes, list[np.ndarray]]:
    """tf.while_loop of a plain recurrent cell: a Loop with weights from outside and its steps stacked."""
    node = helper.make_node
    body = helper.make_graph(
        [
            node("Gather", ["time_major", "i"], ["step"], axis=0),
            node("MatMul", ["step", "kernel"], ["u"]),
            node("MatMul", ["h", "recurrent"], ["v"]),
            node("Add", ["u", "v"], ["uv"]),
            node("Tanh", ["uv"], ["next"]),
            node("Identity", ["next"], ["out"]),
            node("Add", ["i", "one"], ["j"]),
            node("Less", ["j", "length"], ["go_on"]),
        ],
        "body",
        [port("i", [], TensorProto.INT64), port("go", [], TensorProto.BOOL), port("h", ["N", 4])],
        [port("go_on", [], TensorProto.BOOL), port("next", ["N", 4]), port("out", ["N", 4])],
    )
    nodes = [
        node("Transpose", ["x"], ["time_major"], perm=[1, 0, 2]),
        node("Shape", ["time_major"], ["shape"]),
        node("Gather", ["shape", "zero"], ["length"]),
        node("Loop", ["most", "yes", "h0"], ["last", "steps"], body=body),
        node("Transpose", ["steps"], ["y"], perm=[1, 0, 2]),
    ]
    weights = {"kernel": floats(3, 4), "recurrent": floats(4, 4), "h0": np.zeros((2, 4), np.float32)}
    weights |= {"zero": np.array(0), "one": np.array(1), "most": np.array((1 << 63) - 1), "yes": np.array(True)}
    return model_of(nodes, [port("x", [2, "T", 3])], ["last", "y"], weights, opset), [floats(2, 5, 3)]


def detection(opset: int) -> tuple[bytes, list[np.ndarray]]:
    """Boxes suppressed in the graph, and gathered by what is left."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["scores"], ["by_class"], perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "by_class", "most", "overlap", "least"], ["kept"]),
        node("Gather", ["kept", "2"], ["places"], axis=1),
        node("Gather", ["boxes", "places"], ["chosen"], axis=1),
    ]
    weights = {"most": np.array([5]), "overlap": np.float32([0.4]), "least": np.float32([0.2]), "2": np.array(2)}
    corners = RNG.uniform(0, 4, (1, 30, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 1.5], -1)
    ports = [port("boxes", [1, "N", 4]), port("scores", [1, "N", 3])]
    scores = RNG.uniform(size=(1, 30, 3)).astype(np.float32)
    return model_of(nodes, ports, ["kept", "chosen"], weights, opset), [boxes, scores]


def resizing(opset: int) -> tuple[bytes, list[np.ndarray]]:
    """ResizeBilinear and ResizeNearestNeighbor, by sizes and by scales, old and new coordinates."""
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    old = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    new = {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    new = new if opset < 13 else {**new, "coordinate_transformation_mode": "half_pixel"}
    corners = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    kinds = (linear, old, new, corners)
    nodes = [helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2])]
    for i, attributes in enumerate(kinds):
        inputs = ["a", "roi", "roi", "sizes"] if i % 2 else ["a", "roi", "scales"]
        nodes.append(helper.make_node("Resize", inputs, [f"y{i}"], **attributes))
    empty = np.zeros(0, np.float32)
    weights = {"roi": empty, "scales": np.float32([1, 1, 2, 1.5]), "sizes": np.array([1, 2, 7, 3])}
    outputs = [f"y{i}" for i in range(len(kinds))]
    return model_of(nodes, [port("x", [1, 4, 6, 2])], outputs, weights, opset), [floats(1, 4, 6, 2)]


@pytest.mark.parametrize("opset", [11, 13, 15])
@pytest.mark.parametrize("make", [convolution, strided_slice, recurrent_loop, detection, resizing])
def test_graphs_as_tf2onnx_writes_them(make: Callable[[int], tuple[bytes, list[np.ndarray]]], opset: int) -> None:
    if make is strided_slice and opset < 13:
        pytest.skip("axes of Squeeze are an input since opset 13")
    data, inputs = make(opset)
    assert_equal_to_onnx_runtime(data, *inputs)
