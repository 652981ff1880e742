"""More operators of com.microsoft against ONNX Runtime: mixtures of experts, regions, masked windows."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx_node import RNG, bytes_, compare, floats, node_model

from zoonet.formats.onnx import run_model
from zoonet.ops.errors import ZoonetError

EXPERTS, WIDTH, HIDDEN = 4, 16, 32


def experts(first: int = HIDDEN) -> list[np.ndarray]:
    """Inputs of MoE: 2 texts of 3 tokens, the router, two layers."""
    weights = [floats(EXPERTS, first, WIDTH, scale=0.3), floats(EXPERTS, first)]
    weights += [floats(EXPERTS, WIDTH, HIDDEN, scale=0.3), floats(EXPERTS, WIDTH)]
    return [floats(2, 3, WIDTH), floats(6, EXPERTS), *weights]


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize(("k", "normalised"), [(1, 0), (2, 0), (3, 1)])
def test_experts(activation: str, k: int, normalised: int) -> None:
    options = {"k": k, "activation_type": activation, "normalize_routing_weights": normalised}
    compare("MoE", experts(), tolerance=1e-4, **options)
    packed = [x.reshape(6, WIDTH) if i == 0 else x for i, x in enumerate(experts())]
    compare("MoE", [*packed[:3], None, packed[4]], tolerance=1e-4, **options)


@pytest.mark.parametrize("extra", [{}, {"swiglu_limit": 0.5, "activation_alpha": 1.702, "activation_beta": 1.0}])
def test_gated_experts_in_each_layout(extra: dict) -> None:
    """ONNX Runtime's CPU provider knows rows that take turns; other layouts are the same rows in another order."""
    inputs = experts(2 * HIDDEN)
    options = {"k": 2, "activation_type": "swiglu", **extra}
    compare("MoE", inputs, tolerance=1e-4, swiglu_fusion=1, **options)
    (expected,) = run_model(*node_model("MoE", inputs, 1, {**options, "swiglu_fusion": 1}))
    weight, bias = inputs[2:4]
    gates, linear = (weight[:, ::2], bias[:, ::2]), (weight[:, 1::2], bias[:, 1::2])
    joined = [np.concatenate(pair, 1) for pair in zip(gates, linear, strict=True)]
    (y,) = run_model(*node_model("MoE", [*inputs[:2], *joined, *inputs[4:]], 1, {**options, "swiglu_fusion": 2}))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    apart = [np.ascontiguousarray(x) for x in (*inputs[:2], *gates, *inputs[4:], *linear)]
    (y,) = run_model(*node_model("MoE", apart, 1, {**options, "swiglu_fusion": 0}))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [0, 16])
@pytest.mark.parametrize("zeros", [False, True])
def test_experts_of_few_bits(bits: int, block: int, zeros: bool) -> None:
    def layer(rows: int, columns: int) -> list[np.ndarray]:
        scales = (EXPERTS, rows, columns // block) if block else (EXPERTS, rows)
        weights = [bytes_(EXPERTS, rows, columns * bits // 8), np.abs(floats(*scales, scale=0.4 / 2**bits))]
        return [*weights, floats(EXPERTS, rows)]

    def points(rows: int, columns: int) -> np.ndarray:
        return bytes_(EXPERTS, rows, -(-columns // block * bits // 8)) if block else bytes_(EXPERTS, rows * bits // 8)

    start = [floats(6, WIDTH), floats(6, EXPERTS), *layer(2 * HIDDEN, WIDTH), *layer(WIDTH, HIDDEN), None, None, None]
    start += [points(2 * HIDDEN, WIDTH), points(WIDTH, HIDDEN), None] if zeros else [None] * 3
    options = {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "expert_weight_bits": bits}
    options |= {"block_size": block} if block else {}
    for mixing in (None, np.abs(floats(6, EXPERTS))):
        for normalised in (0, 1):
            inputs = [*start, mixing]
            compare("QMoE", inputs, tolerance=2e-3, normalize_routing_weights=normalised, **options)


def test_experts_that_do_not_fit() -> None:
    inputs = experts()
    for wrong, options in (
        ([inputs[0], floats(5, EXPERTS), *inputs[2:]], {}),
        (inputs, {"k": 9}),
        (inputs, {"activation_type": "relu6"}),
        (inputs, {"use_sparse_mixer": 1}),
    ):
        with pytest.raises(ZoonetError):
            run_model(*node_model("MoE", wrong, 1, options))


def test_products_of_int16() -> None:
    a, b = (RNG.integers(-200, 200, shape).astype(np.int16) for shape in ((2, 3, 4), (4, 5)))
    compare("MatMulInteger16", [a, b], [TensorProto.INT32], 0)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 9), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
        ((2, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 0, 1]}),
        ((1, 2, 4, 5, 6), {"kernel_shape": [2, 2, 3], "strides": [1, 2, 1]}),
    ],
)
def test_masked_windows(shape: tuple, options: dict) -> None:
    mask = (RNG.random((1, 1, *shape[2:])) < 0.8).astype(np.int32)
    compare("MaxpoolWithMask", [floats(*shape), mask], **options)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (7, 1)])
def test_cropped_regions(mode: str, size: tuple) -> None:
    regions = np.float32([[0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], [-0.3, 0.4, 0.5, 1.4], [0.8, 0.7, 0.2, 0.1]])
    inputs = [floats(2, 3, 6, 9), regions, np.int32([0, 1, 1, 0]), np.int32(size)]
    compare("CropAndResize", inputs, mode=mode, extrapolation_value=2.5)


@pytest.mark.parametrize("activation", ["silu", "swish", "sigmoid"])
def test_gated_norm(activation: str) -> None:
    compare("GatedRMSNorm", [floats(2, 3, 8), floats(4), floats(2, 3, 8)], activation=activation)
    compare("GatedRMSNorm", [floats(3, 4), floats(4), floats(3, 4)], epsilon=0.1)


def test_scaled_silu() -> None:
    compare("ScaledSiLU", [floats(2, 3)], alpha=1.7)
    compare("ScaledSiLU", [floats(2, 3), np.float32(0.6)], alpha=1.7)


@pytest.mark.parametrize("filled", [0, 3, 5])
def test_one_step_of_decoding(filled: int) -> None:
    """What the buffer holds behind the new token is zero here, and left as it is by ONNX Runtime."""
    token, buffer = [floats(2, 1, 8) for _ in range(3)], [floats(2, 2, 6, 4) for _ in range(2)]
    for past in buffer:
        past[:, :, filled:] = 0
    mask = (RNG.random((2, filled + 1)) < 0.7).astype(np.int32)
    mask[:, -1] = 1
    for chosen, bias in ((None, None), (mask, floats(24))):
        inputs = [*token, chosen, None, *buffer, np.int32([filled]), None, None, bias]
        compare("DecoderMaskedMultiHeadAttention", inputs, 3, num_heads=2, past_present_share_buffer=1)
    cross = [token[0], *buffer, np.int32([[1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 0]])]
    compare("DecoderMaskedMultiHeadAttention", cross, num_heads=2)
    compare("DecoderMaskedMultiHeadAttention", cross[:3], num_heads=2, scale=0.3)
