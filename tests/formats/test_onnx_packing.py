"""com.microsoft operators of packed transformers, position biases and decoding: torch, transformers, ONNX Runtime."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
import resnet_parity
import torch
import torch.nn.functional as F
from onnx import TensorProto
from onnx_node import RNG, compare, floats, node_model

from zoonet.formats.onnx import run_model

resnet_parity.torchvision_and_timm()

COUNTS = np.array([1, 4, 2], np.int32)
BATCH, LENGTH, HEADS, SIZE = 3, 4, 2, 4
WIDTH = HEADS * SIZE
#: As the documentation has them for these counts: real tokens first, then padding.
OFFSETS = np.array([[0, 4, 5, 6], [7, 8, 9, 1], [2, 3, 10, 11]], np.int32)
SUMS = np.array([0, 1, 5, 7], np.int32)
REAL = OFFSETS.reshape(-1)[:7]


def results(operator: str, inputs: list, outputs: int = 1, **attributes: object) -> list[np.ndarray]:
    return [np.asarray(y) for y in run_model(*node_model(operator, inputs, outputs, dict(attributes)))]


def attention_of_each_text(parts: list[np.ndarray], bias: np.ndarray) -> np.ndarray:
    """Torch's attention of the tokens of each text alone."""
    found = []
    for item, (begin, end) in enumerate(itertools.pairwise(SUMS)):
        q, k, v = (torch.tensor(x[begin:end]).reshape(end - begin, HEADS, -1).transpose(0, 1) for x in parts)
        mask = torch.tensor(bias[item, :, : end - begin, : end - begin])
        found.append(F.scaled_dot_product_attention(q, k, v, mask).transpose(0, 1).reshape(end - begin, -1))
    return torch.cat(found).numpy()


def test_padding_is_removed_and_restored() -> None:
    x = floats(BATCH, LENGTH, WIDTH)
    tokens, offsets, sums, longest = results("RemovePadding", [x, COUNTS], 4)
    np.testing.assert_array_equal(tokens, x.reshape(-1, WIDTH)[REAL])
    np.testing.assert_array_equal(offsets, OFFSETS)
    np.testing.assert_array_equal(sums, SUMS)
    assert longest.tolist() == [4]
    assert {offsets.dtype, sums.dtype, longest.dtype} == {np.dtype(np.int32)}
    (back,) = results("RestorePadding", [tokens, offsets])
    kept = np.arange(LENGTH) < COUNTS[:, None]
    np.testing.assert_array_equal(back, x * kept[..., None])


def test_packed_attention_equals_torch_on_each_text() -> None:
    x, weights, bias = floats(7, 6), floats(6, 2 * WIDTH + 6), floats(2 * WIDTH + 6)
    added = floats(BATCH, HEADS, LENGTH, LENGTH)
    sizes = [WIDTH, WIDTH, 6]
    (found,) = results(
        "PackedAttention", [x, weights, bias, OFFSETS, SUMS, added], num_heads=HEADS, qkv_hidden_sizes=sizes
    )
    parts = np.split(x @ weights + bias, [WIDTH, 2 * WIDTH], -1)
    np.testing.assert_allclose(found, attention_of_each_text(parts, added), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_packed_multi_head_attention_equals_torch_on_each_text(packed: bool) -> None:
    parts, bias = [floats(7, WIDTH) for _ in range(3)], floats(3 * WIDTH)
    given = [np.stack([x.reshape(7, HEADS, SIZE) for x in parts], 2), None, None] if packed else parts
    (found,) = results("PackedMultiHeadAttention", [*given, bias, OFFSETS, SUMS], num_heads=HEADS)
    biased = [x + b for x, b in zip(parts, np.split(bias, 3), strict=True)]
    none = np.zeros((BATCH, HEADS, LENGTH, LENGTH), np.float32)
    np.testing.assert_allclose(found, attention_of_each_text(biased, none), rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("both", [0, 1])
@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20)])
def test_relative_position_bias_equals_t5(both: int, buckets: int, most: int) -> None:
    attention = importlib.import_module("transformers.models.t5.modeling_t5").T5Attention
    table, queries, keys = floats(buckets, HEADS), 150, 170
    distances = torch.arange(keys) - torch.arange(queries)[:, None]
    chosen = attention._relative_position_bucket(distances, bool(both), buckets, most)
    expected = table[chosen.numpy()].transpose(2, 0, 1)[None]
    turned = table.T.reshape(buckets, HEADS)  # as ONNX Runtime's optimiser stores it
    inputs = [turned, np.array(queries), np.array(keys)]
    (found,) = results("RelativePositionBias", inputs, is_bidirectional=both, max_distance=most)
    np.testing.assert_array_equal(found, expected)


def test_gated_relative_position_bias_by_its_definition() -> None:
    x, bias, positions = floats(BATCH, LENGTH, WIDTH), floats(WIDTH), floats(1, HEADS, LENGTH, LENGTH)
    weight, shift, eco = floats(SIZE, 8), floats(8), floats(1, HEADS, 1, 1)
    query = torch.tensor(x + bias).reshape(BATCH, LENGTH, HEADS, SIZE).transpose(1, 2)
    linear = F.linear(query, torch.tensor(weight.T), torch.tensor(shift))
    u, r = torch.sigmoid(linear.view(BATCH, HEADS, LENGTH, 2, 4).sum(-1)).chunk(2, -1)
    expected = ((u * (r * torch.tensor(eco) - 1.0) + 2.0) * torch.tensor(positions)).numpy()
    rest = [bias, positions, weight, shift, eco]
    (found,) = results("GatedRelativePositionBias", [x, *rest], num_heads=HEADS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    packed = x.reshape(-1, WIDTH)[REAL]
    (found,) = results("GatedRelativePositionBias", [packed, *rest, OFFSETS], num_heads=HEADS)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)  # the text without padding


@pytest.mark.slow  # as above
def test_rotary_embedding_of_gemma_equals_transformers() -> None:
    gemma = importlib.import_module("transformers.models.gemma.modeling_gemma")
    angles = torch.tensor(floats(BATCH, LENGTH, SIZE))
    q, k = torch.tensor(floats(BATCH, HEADS, LENGTH, SIZE)), torch.tensor(floats(BATCH, 1, LENGTH, SIZE))
    expected = gemma.apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    inputs = [x.numpy() for x in (angles, q, gemma.rotate_half(q), k, gemma.rotate_half(k))]
    for found, other in zip(results("GemmaRotaryEmbedding", inputs, 2), expected, strict=True):
        np.testing.assert_allclose(found, other.numpy(), rtol=1e-5, atol=1e-6)


def test_product_and_gelu_equal_torch() -> None:
    x, w, b = floats(2, 3, 4), floats(4, 5), floats(5)
    expected = F.gelu(torch.tensor(x @ w + b), approximate="tanh").numpy()
    np.testing.assert_allclose(results("GemmFastGelu", [x, w, b])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "size", "step"), [(-1, 3, 2), (1, 2, 1), (0, 2, 3)])
def test_slices_of_a_tensor(dim: int, size: int, step: int) -> None:
    compare("UnfoldTensor", [floats(2, 5, 8)], dim=dim, size=size, step=step)


@pytest.mark.parametrize("shape", [(5, 7), (9, 4), (1, 6, 6), (1, 1)])
def test_dynamic_time_warping(shape: tuple) -> None:
    compare("DynamicTimeWarping", [floats(*shape)], [TensorProto.INT32], 0)
    compare("DynamicTimeWarping", [RNG.integers(0, 3, shape).astype(np.float32)], [TensorProto.INT32], 0)


@pytest.mark.parametrize(
    ("source", "tokens", "start", "predicted"),
    [
        ([2, 3, 4, 5, 6], [9, 3], 0, None),
        ([2, 3, 4, 5, 6], [9], 1, [3, 4, 8, 6, 1]),
        ([2, 3, 4, 5, 6], [9], 0, [2, 3, 4, 5, 6, 1]),
        ([2, 3, 2, 3, 4], [2, 3], 0, None),
        ([2, 3, 2, 4, 3, 5], [7, 2, 4], 0, [8, 1, 1, 1, 1, 1, 1]),
        ([1, 5, 2, 5, 3], [7, 2, 5], 0, None),
        ([1, 2, 3], [2, 3], 0, None),
    ],
)
def test_where_predictions_leave_the_source(source: list, tokens: list, start: int, predicted: list | None) -> None:
    inputs = [np.array(source), np.array(tokens), np.array(start)]
    inputs += [] if predicted is None else [np.array(predicted)]
    compare("BifurcationDetector", inputs, [TensorProto.INT64, TensorProto.INT64], 0)
