"""Operators of com.microsoft against ONNX Runtime; those that it has on GPUs alone against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx_node import RNG, bytes_, compare, floats, node_model, scale

from zoonet.formats.onnx import run_model
from zoonet.ops.errors import UnsupportedFormatError, ZoonetError

# -- attention -----------------------------------------------------------------------------------------------------

MASKS = {
    "none": None,
    "ends": np.array([3, 5], np.int32),
    "ends and starts": np.array([4, 5, 1, 0], np.int32),
    "keys": np.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], np.int32),
    "queries and keys": (RNG.random((2, 5, 5)) < 0.7).astype(np.int32),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("unidirectional", [0, 1])
def test_attention(mask: str, unidirectional: int) -> None:
    inputs = [floats(2, 5, 8), floats(8, 24, scale=0.4), floats(24), MASKS[mask]]
    compare("Attention", inputs, num_heads=2, unidirectional=unidirectional)


def test_attention_with_past_bias_sizes_and_scale() -> None:
    past = floats(2, 2, 2, 3, 4)
    inputs = [floats(2, 5, 8), floats(8, 24, scale=0.4), floats(24)]
    compare("Attention", [*inputs, None, past], 2, num_heads=2, unidirectional=1)
    mask = np.array([[1, 1, 0, 1, 1, 1, 1, 0], [1] * 8], np.int32)
    compare("Attention", [*inputs, mask, past], 2, num_heads=2)
    compare("Attention", [*inputs, None, None, floats(2, 2, 5, 5)], num_heads=2, scale=0.3)
    compare("Attention", [*inputs, None, None, floats(1, 1, 5, 5)], num_heads=2)
    sized = [floats(2, 5, 8), floats(8, 8 + 8 + 6, scale=0.4), floats(22)]
    compare("Attention", sized, num_heads=2, qkv_hidden_sizes=[8, 8, 6])


def test_quantised_attention() -> None:
    for unidirectional, mask in ((0, None), (1, None), (0, MASKS["keys"]), (0, MASKS["ends"])):
        inputs = [bytes_(2, 5, 8), bytes_(8, 24, dtype=np.int8), floats(24), scale(0.01), scale(0.02), mask]
        zeros = [np.uint8(120), np.int8(3)]
        compare("QAttention", [*inputs, *zeros], num_heads=2, unidirectional=unidirectional)
    columns = [bytes_(2, 5, 8), bytes_(8, 24, dtype=np.int8), floats(24), scale(0.01), np.abs(floats(24, scale=0.02))]
    past = floats(2, 2, 2, 3, 4)
    zeros = [None, np.uint8(120), np.zeros(24, np.int8)]
    compare("QAttention", [*columns, *zeros, past], 2, num_heads=2, unidirectional=1)


@pytest.mark.parametrize("mask", ["none", "ends", "keys"])
def test_multi_head_attention(mask: str) -> None:
    inputs = [floats(2, 4, 8), floats(2, 5, 8), floats(2, 5, 6), floats(22), MASKS[mask]]
    compare("MultiHeadAttention", inputs, num_heads=2)
    compare("MultiHeadAttention", [*inputs[:3], None, inputs[4], floats(2, 2, 4, 5)], num_heads=2, scale=0.5)


def test_multi_head_attention_packed_and_with_past() -> None:
    packed = floats(2, 4, 2, 3, 4)  # for GPUs alone in ONNX Runtime: the same apart
    apart = [packed[:, :, :, i].reshape(2, 4, 8) for i in range(3)]
    whole, parts = (run_model(*node_model("MultiHeadAttention", x, 1, {"num_heads": 2})) for x in ([packed], apart))
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-6, atol=1e-6)
    query, packed = floats(2, 4, 8), floats(2, 5, 2, 2, 4)
    apart = [packed[:, :, :, i].reshape(2, 5, 8) for i in range(2)]
    pairs = ([query, packed], [query, *apart])
    whole, parts = (run_model(*node_model("MultiHeadAttention", x, 1, {"num_heads": 2})) for x in pairs)
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-6, atol=1e-6)
    compare("MultiHeadAttention", [floats(2, 4, 8), floats(2, 2, 5, 4), floats(2, 2, 5, 4)], num_heads=2)
    query, key, value = floats(2, 4, 8), floats(2, 4, 8), floats(2, 4, 8)
    past = [floats(2, 2, 3, 4), floats(2, 2, 3, 4)]
    compare("MultiHeadAttention", [query, key, value, None, None, None, *past], 3, num_heads=2)
    inputs = [query, key, value, floats(24), None, floats(1, 2, 4, 7), *past]
    compare("MultiHeadAttention", inputs, 3, num_heads=2, unidirectional=1)


def grouped(batch: int, length: int, past: int, total: int, lengths: list[int], buffer: int = 0) -> list:
    """Inputs of GroupQueryAttention: 4 heads of queries, 2 of keys, size 16."""
    caches: list = [None, None]
    if past or buffer:
        caches = [floats(batch, 2, buffer or past, 16), floats(batch, 2, buffer or past, 16)]
    projected = [floats(batch, length, 64), floats(batch, length, 32), floats(batch, length, 32)]
    return [*projected, *caches, np.asarray(lengths, np.int32) - 1, np.int32(total)]


def caches(pairs: int = 8) -> list:
    """Cosines and sines (16, pairs)."""
    angles = np.outer(np.arange(16), 1.0 / 100.0 ** (np.arange(pairs) / pairs))
    return [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1},
        {"local_window_size": 3},
        {"softcap": 2.0},
        {"smooth_softmax": 1},
        {"scale": 0.2},
        {"causal": 0},
    ],
)
def test_group_query_attention(attributes: dict) -> None:
    rotary = caches() if "do_rotary" in attributes else []
    options = {"num_heads": 4, "kv_num_heads": 2, **attributes}
    compare("GroupQueryAttention", [*grouped(2, 6, 0, 6, [6, 6]), *rotary], 3, **options)
    if attributes.get("causal") != 0:
        compare("GroupQueryAttention", [*grouped(2, 1, 5, 6, [6, 6]), *rotary], 3, **options)


def test_group_query_attention_of_items_that_differ_in_length() -> None:
    lengths = [4, 6]

    def defined(output: int, x: np.ndarray) -> np.ndarray:
        axis = 1 if output == 0 else 2
        return np.concatenate([np.take(x[b], range(n), axis - 1).reshape(-1) for b, n in enumerate(lengths)])

    compare("GroupQueryAttention", grouped(2, 6, 0, 6, lengths), 3, rows=defined, num_heads=4, kv_num_heads=2)
    inputs = [*grouped(2, 1, 5, 6, lengths, buffer=9), *caches()]

    def cached(output: int, x: np.ndarray) -> np.ndarray:
        return x if output == 0 else np.concatenate([x[b, :, :n].reshape(-1) for b, n in enumerate(lengths)])

    compare("GroupQueryAttention", inputs, 3, rows=cached, num_heads=4, kv_num_heads=2, do_rotary=1)


def test_group_query_attention_packed_with_bias_and_sinks() -> None:
    query, key, value, *rest = grouped(1, 5, 0, 5, [5])
    packed = [np.concatenate([query, key, value], -1), None, None, *rest]
    compare("GroupQueryAttention", packed, 3, num_heads=4, kv_num_heads=2)
    extra = [None, None, None, floats(1, 4, 5, 5), floats(4)]
    compare("GroupQueryAttention", [*packed, *extra], 3, num_heads=4, kv_num_heads=2)
    chunk = grouped(1, 3, 4, 7, [7])
    compare("GroupQueryAttention", [*chunk, *caches()], 3, num_heads=4, kv_num_heads=2, do_rotary=1)
    places = np.array([[4, 5, 6]], np.int64)
    compare("GroupQueryAttention", [*chunk, *caches(), places], 3, num_heads=4, kv_num_heads=2, do_rotary=1)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved: int) -> None:
    places = np.array([[3, 1, 0, 7], [2, 2, 9, 15]], np.int64)
    for positions in (places, np.array([5], np.int64)):
        inputs = [positions, *caches(4)]
        compare("RotaryEmbedding", [floats(2, 4, 24), *inputs], interleaved=interleaved)
        compare("RotaryEmbedding", [floats(2, 3, 4, 8), *inputs], interleaved=interleaved)
        partial = {"num_heads": 2, "rotary_embedding_dim": 8}
        compare("RotaryEmbedding", [floats(2, 4, 24), *inputs], interleaved=interleaved, **partial)


def test_embed_layer_norm() -> None:
    words = RNG.integers(0, 11, (2, 4)).astype(np.int32)
    kinds = RNG.integers(0, 2, (2, 4)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    tables = [floats(11, 6), floats(9, 6), floats(2, 6), floats(6), floats(6)]
    types = [TensorProto.FLOAT, TensorProto.INT32]
    compare("EmbedLayerNormalization", [words, kinds, *tables, mask], types, epsilon=1e-5)
    compare("EmbedLayerNormalization", [words, None, *tables[:2], None, *tables[3:]], types)
    places = RNG.integers(0, 9, (2, 4)).astype(np.int32)
    all_outputs = [*types, TensorProto.FLOAT]
    compare("EmbedLayerNormalization", [words, kinds, *tables, mask, places], all_outputs)


def test_what_only_other_devices_know_is_refused_by_name() -> None:
    inputs = [floats(2, 5, 8), floats(8, 24), floats(24)]
    model, feeds = node_model("Attention", inputs, 1, {"num_heads": 2, "do_rotary": 1})
    with pytest.raises(UnsupportedFormatError, match="do_rotary"):
        run_model(model, feeds)
    model, feeds = node_model("GroupQueryAttention", grouped(1, 5, 0, 5, [5]), 1, {"num_heads": 3, "kv_num_heads": 2})
    with pytest.raises(ZoonetError, match="heads"):
        run_model(model, feeds)


# -- quantised numbers ---------------------------------------------------------------------------------------------

QUANTISED = [np.uint8, np.int8]


@pytest.mark.parametrize("dtype", QUANTISED)
def test_quantised_elementwise(dtype: Any) -> None:
    kind = [helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
    x, y, zero = bytes_(2, 3, 4, 4, dtype=dtype), bytes_(3, 1, 4, dtype=dtype), dtype(5)
    for operator in ("QLinearAdd", "QLinearMul"):
        compare(operator, [x, scale(), zero, y, scale(0.03), dtype(0), scale(0.06), zero], kind, 1)
    compare("QLinearSigmoid", [x, scale(), zero, scale(1 / 256), dtype(0)], kind, 1)
    compare("QLinearLeakyRelu", [x, scale(), zero, scale(0.03), zero], kind, 1, alpha=0.3)
    compare("QLinearConcat", [scale(0.05), zero, x, scale(), zero, x, scale(0.04), dtype(0)], kind, 1, axis=1)
    condition = RNG.random((2, 3, 4, 4)) < 0.5
    triples = [x, scale(), zero, x[::-1], scale(0.01), dtype(0), scale(0.03), zero]
    compare("QLinearWhere", [condition, *triples], kind, 1)
    for axis, opset in ((-1, 13), (1, 13), (1, 12)):
        compare("QLinearSoftmax", [x, scale(), zero, scale(1 / 256), dtype(0)], kind, 1, axis=axis, opset=opset)


@pytest.mark.parametrize("last", [0, 1])
def test_quantised_pictures(last: int) -> None:
    kind = [TensorProto.UINT8]
    x = bytes_(2, 5, 6, 4) if last else bytes_(2, 4, 5, 6)
    zeros = [scale(), np.uint8(9), scale(0.03), np.uint8(4)]
    compare("QLinearGlobalAveragePool", [x, *zeros], kind, 1, channels_last=last)
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "channels_last": last}
    for counted in (0, 1):
        compare("QLinearAveragePool", [x, *zeros], kind, 1, count_include_pad=counted, **window)
    weight = bytes_(6, 2, 3, 3, dtype=np.int8)
    weights = [weight, np.abs(floats(6, scale=0.01)) + 0.001, np.zeros(6, np.int8)]
    inputs = [x, scale(), np.uint8(9), *weights, scale(0.5), np.uint8(100), np.arange(6, dtype=np.int32) * 100]
    compare("QLinearConv", inputs, kind, 1, group=2, pads=[1, 1, 1, 1], channels_last=last)


def test_quantised_products() -> None:
    a, b = bytes_(2, 3, 8), bytes_(8, 5, dtype=np.int8)
    zeros = [np.uint8(100), np.int8(2)]
    compare("MatMulIntegerToFloat", [a, b, scale(), scale(0.01), *zeros, floats(5)])
    columns = [np.abs(floats(5, scale=0.01)), np.zeros(5, np.int8)]
    compare("MatMulIntegerToFloat", [a, b, scale(), columns[0], zeros[0], columns[1]])
    compare("DynamicQuantizeMatMul", [floats(2, 3, 8), b, scale(0.01), zeros[1], floats(5)], tolerance=1e-4)
    gemm = [a[0], scale(), zeros[0], b.T.copy(), scale(0.01), zeros[1], np.arange(5, dtype=np.int32)]
    compare("QGemm", gemm, transB=1)
    compare("QGemm", [*gemm, scale(0.4), np.uint8(80)], [TensorProto.UINT8], 1, transB=1, alpha=0.5)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["none", "packed", "floats"])
def test_products_with_weights_of_few_bits(bits: int, zeros: str) -> None:
    if bits == 8 and zeros == "floats":
        pytest.skip("ONNX Runtime does not have it")
    rows, columns, block = 6, 80, 32
    blocks, blob = 3, block * bits // 8
    inputs = [floats(2, 3, columns), bytes_(rows, blocks, blob), np.abs(floats(rows, blocks, scale=0.1))]
    if zeros == "packed":
        inputs.append(bytes_(rows, -(-blocks * bits // 8)))
    elif zeros == "floats":
        inputs.append((RNG.random((rows, blocks)) * 2**bits).astype(np.float32))
    else:
        inputs.append(None)
    options = {"K": columns, "N": rows, "bits": bits, "block_size": block}
    compare("MatMulNBits", [*inputs, None, floats(rows)], tolerance=1e-3, **options)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("with_zeros", [False, True])
def test_tables_of_few_bits(bits: int, with_zeros: bool) -> None:
    data, scales = bytes_(7, 80 * bits // 8), np.abs(floats(7, 3, scale=0.1))
    zeros = bytes_(7, 2 if bits == 4 else 3) if with_zeros else None
    indices = np.array([[3, 0, -1], [6, 6, 2]], np.int64)
    compare("GatherBlockQuantized", [data, indices, scales, zeros], bits=bits, block_size=32)


@pytest.mark.parametrize("kind", [0, 1])
def test_products_with_weights_of_bitsandbytes(kind: int) -> None:
    packed, largest = bytes_(6 * 40 // 2), np.abs(floats(-(-6 * 40 // 16)))
    compare(
        "MatMulBnb4", [floats(2, 3, 40), packed, largest], K=40, N=6, block_size=16, quant_type=kind, tolerance=1e-4
    )


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_quantised_lstm(direction: str, kind: Any) -> None:
    """Inputs and states are rounded before each product; ONNX Runtime does so for each thread's items of a batch.

    Weights are small, as sums of two products saturate on some CPUs.
    """
    both = 1 + (direction == "bidirectional")
    zero = 0 if kind is np.int8 else 31
    weights = [(RNG.integers(-60, 61, (both, n, 20)) + zero).clip(0 if zero else -60, 60).astype(kind) for n in (3, 5)]
    scales = [np.full(both, 0.01, np.float32), np.full(both, zero, kind)] * 2
    inputs = [floats(4, 1, 3), *weights, floats(both, 40), None, None, None, None, *scales]
    compare("DynamicQuantizeLSTM", inputs, 3, tolerance=1e-5, hidden_size=5, direction=direction)


def test_quantised_embed_layer_norm() -> None:
    words = RNG.integers(0, 11, (2, 4)).astype(np.int32)
    kinds = RNG.integers(0, 2, (2, 4)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
    tables = [bytes_(n, 6) for n in (11, 9, 2)]
    scales, zeros = [scale(0.02)] * 5, [np.uint8(128)] * 5
    inputs = [words, kinds, *tables, bytes_(6), bytes_(6), mask, *scales, *zeros]
    compare("QEmbedLayerNormalization", inputs, [TensorProto.FLOAT, TensorProto.INT32], 1e-4)


# -- others --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [0, 1])
def test_group_norm_equals_torch(last: int) -> None:
    x, gamma, beta = floats(2, 8, 3, 4), floats(8), floats(8)
    normal = torch.nn.functional.group_norm(torch.tensor(x), 4, torch.tensor(gamma), torch.tensor(beta), 1e-4)
    expected = torch.nn.functional.silu(normal).numpy()
    given = x.transpose(0, 2, 3, 1) if last else x
    options = {"groups": 4, "activation": 1, "epsilon": 1e-4, "channels_last": last}
    (y,) = run_model(*node_model("GroupNorm", [given, gamma, beta], 1, options))
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2) if last else y, expected, rtol=1e-4, atol=1e-5)
    skip = floats(2, 8)
    parts = given - (skip[:, None, None] if last else skip[:, :, None, None])
    y, total = run_model(*node_model("SkipGroupNorm", [parts, gamma, beta, skip], 2, options))
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2) if last else y, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(total, given, rtol=1e-5, atol=1e-5)


def test_convolution_with_channels_last_equals_torch() -> None:
    x, weight, bias = floats(2, 5, 6, 4), floats(6, 2, 3, 3), floats(6)
    expected = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(weight), torch.tensor(bias), 2, 1, groups=2
    )
    expected = expected.permute(0, 2, 3, 1).numpy()
    options = {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 2}
    (y,) = run_model(*node_model("NhwcConv", [x, weight, bias], 1, options))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    added = floats(*expected.shape)
    fused = {**options, "activation": "Relu"}
    (y,) = run_model(*node_model("NhwcFusedConv", [x, weight, bias, added], 1, fused))
    np.testing.assert_allclose(y, np.maximum(expected + added, 0), rtol=1e-4, atol=1e-5)


def test_others() -> None:
    matrix = floats(2, 4, 4) + 3 * np.eye(4, dtype=np.float32)
    compare("Inverse", [matrix], tolerance=1e-4)
    compare("Trilu", [matrix, np.int64(1)], upper=0)
    for metric in ("sqeuclidean", "euclidean"):
        compare("CDist", [floats(3, 5), floats(4, 5)], metric=metric, tolerance=1e-4)
    compare("ExpandDims", [floats(3, 5), np.int32(-1)])
    compare("Range", [np.float32(1), np.float32(4), np.float32(0.5)])
    compare("Range", [np.float32(1), np.float32(4)])
    compare("Pad", [floats(2, 3), np.array([1, 0, 0, 2], np.int64), np.float32(7)])
    compare("Unique", [np.float32([2, 1, 1, 3, 4, 3])], [TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64])
    compare("GridSample", [floats(1, 2, 4, 5), floats(1, 3, 3, 2, scale=0.5)], tolerance=1e-4)
    compare("NhwcMaxPool", [bytes_(1, 6, 5, 3)], [TensorProto.UINT8], kernel_shape=[3, 2], pads=[1, 0, 1, 1])
    types = [TensorProto.FLOAT, TensorProto.FLOAT]
    compare("SimplifiedLayerNormalization", [floats(2, 3, 8), floats(8)], types, domain="", axis=-1, epsilon=1e-5)


def test_repeated_words_and_dynamic_padding() -> None:
    words = np.array([[1, 2, 3, 1, 2], [4, 4, 4, 0, 4]])
    for size in (1, 2, 3):
        compare("NGramRepeatBlock", [words, floats(2, 6)], ngram_size=size)
    inputs = [floats(1, 3, 4, 5), floats(3, 2, 3, 3), np.array([1, 0, 0, 1]), floats(2)]
    compare("ConvTransposeWithDynamicPads", inputs, strides=[2, 2], output_padding=[1, 1], tolerance=1e-4)
    data, bias, residual = floats(2, 3, 4), floats(4), floats(2, 3, 4)
    y, mask = run_model(*node_model("BiasDropout", [data, bias, residual], [TensorProto.FLOAT, TensorProto.BOOL], {}))
    np.testing.assert_allclose(y, data + bias + residual, rtol=1e-6)
    assert mask.all()


def test_operators_of_the_first_converters() -> None:
    x = floats(1, 3, 6, 7)
    for operator in ("Affine", "ParametricSoftplus", "ScaledTanh"):
        compare(operator, [x], domain="", version=9, alpha=0.5, beta=1.5)
    compare("Scale", [x], domain="", version=9, scale=2.5)
    compare("ImageScaler", [x], domain="", version=9, scale=2.0, bias=[0.1, 0.2, -1.0])
    compare("Crop", [x], domain="", version=9, border=[1, 2, 1, 0])
    compare("Crop", [x], domain="", version=9, border=[1, 2, 0, 0], scale=[3, 4])


def test_softmax_of_a_sum_equals_torch() -> None:
    x = floats(2, 3, 4, 5)
    for bias, inner in ((floats(2, 1, 1, 5), 1), (floats(4, 5), 0)):
        (y,) = run_model(*node_model("BiasSoftmax", [x, bias], 1, {"axis": 3, "is_inner_broadcast": inner}))
        expected = torch.softmax(torch.tensor(x + bias), -1).numpy()
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    (y,) = run_model(
        *node_model("BiasSoftmax", [x, floats(2, 5)[:1].repeat(2, 0)], 1, {"axis": 3, "is_inner_broadcast": 1})
    )
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-5)


def test_fourier_transforms_equal_torch() -> None:
    x = floats(3, 8)
    expected = torch.view_as_real(torch.fft.rfft(torch.tensor(x))).numpy()
    (y,) = run_model(*node_model("Rfft", [x], 1, {"signal_ndim": 1}))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    (back,) = run_model(*node_model("Irfft", [y], 1, {"signal_ndim": 1}))
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-5)


def test_finiteness_by_definition() -> None:
    for wrong, options, expected in (
        (np.inf, {}, False),
        (np.nan, {}, False),
        (1.0, {}, True),
        (np.nan, {"isinf_only": 1}, True),
        (np.inf, {"isnan_only": 1}, True),
    ):
        model, feeds = node_model("IsAllFinite", [floats(3), np.float32([0, wrong])], [TensorProto.BOOL], options)
        assert run_model(model, feeds)[0] == expected
