"""com.microsoft: layers that optimisers and quantisers make of others, and a rule of generation.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import affordable, concrete, integers
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.sets.onnx.microsoft_attention import embed_layer_norm
from zoonet.ops.sets.onnx.normalization import dropout
from zoonet.ops.sets.onnx.quantization import dequantized, dynamic_quantize
from zoonet.ops.sets.onnx.recurrent import LstmCell, Options, recurrent
from zoonet.ops.sets.onnx.windows import conv_transpose
from zoonet.ops.types import Array

#: The sixteen numbers of a 4-bit type of bitsandbytes, by its number: FP4 and NF4 (arXiv:2305.14314, appendix E).
_FOUR_BITS = {
    0: [0.0, 0.00520833, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25],
    1: [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
}  # fmt: skip
_FOUR_BITS[0] += [-value for value in _FOUR_BITS[0]]


@declared("MatMulBnb4")
def matmul_bnb4(
    A: Array,
    B: Array,
    absmax: Array,
    /,
    K: int,
    N: int,
    block_size: int,
    quant_type: int,
    training_mode: int = 0,
    transB: int = 1,
) -> Array:
    """A (…, K) times the transpose of a weight (N, K) of 4-bit numbers, in blocks with a largest value each."""
    if quant_type not in _FOUR_BITS or min(K, N, block_size) < 1:
        raise ArgumentError("MatMulBnb4: unknown quant_type, or impossible sizes", received=(quant_type, K, N))
    affordable((N, K), A.dtype, "MatMulBnb4")
    blocks = -(-N * K // block_size)
    if tuple(B.shape) != ((N * K + 1) // 2,) or tuple(absmax.shape) != (blocks,):
        raise ShapeError(
            "MatMulBnb4: shapes do not fit",
            expected=[(N * K + 1) // 2, blocks],
            received=[*B.shape, *absmax.shape],
        )
    nibbles = ops.bitwise_and(  # the first number stands in the higher bits
        ops.bitwise_right_shift(ops.expand_dims(B, -1), np.array([4, 0], np.uint8)), np.asarray(15, np.uint8)
    )
    codes = ops.index(ops.reshape(nibbles, (-1,)), slice(0, N * K))
    values = ops.take(np.asarray(_FOUR_BITS[quant_type], np.float32), ops.cast(codes, np.int64))
    scales = ops.index(ops.repeat(absmax, block_size, 0), slice(0, N * K))
    weight = ops.cast(ops.reshape(ops.multiply(values, ops.cast(scales, np.float32)), (N, K)), A.dtype)
    return ops.matmul(A, ops.swapaxes(weight, 0, 1) if transB else weight)


@declared("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None,
    sequence_lens: Array | None,
    initial_h: Array | None,
    initial_c: Array | None,
    P: Array | None,
    W_scale: Array,
    W_zero_point: Array,
    R_scale: Array,
    R_zero_point: Array,
    /,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """An LSTM whose weights (directions, size, 4 · hidden) are quantised; inputs and states are, for each product."""

    def real(weight: Array, scale: Array, zero: Array) -> Array:
        shape = (weight.shape[0], 1, -1)
        scale, zero = ops.reshape(scale, shape), ops.reshape(zero, shape)
        whole = ops.subtract(ops.cast(weight, np.int32), ops.cast(zero, np.int32))
        return ops.swapaxes(ops.multiply(ops.cast(whole, np.float32), scale), 1, 2)

    def rounding(x: Array) -> Array:
        whole, scale, zero = dynamic_quantize(x)
        return dequantized(whole, scale, zero, 1)

    options = Options(activations or (), activation_alpha or (), activation_beta or (), clip, direction, 0)
    weights = real(W, W_scale, W_zero_point), real(R, R_scale, R_zero_point)
    cell = LstmCell(*weights, P, bool(input_forget), options, rounding)
    return recurrent(X, weights[0], B, sequence_lens, [initial_h, initial_c], options, cell)


@declared("QEmbedLayerNormalization")
def qembed_layer_norm(
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None,
    word_scale: Array,
    position_scale: Array,
    segment_scale: Array | None,
    gamma_scale: Array,
    beta_scale: Array,
    word_zero: Array,
    position_zero: Array,
    segment_zero: Array | None,
    gamma_zero: Array,
    beta_zero: Array,
    /,
    epsilon: float = 1e-12,
    outputs: int = 2,
) -> tuple[Array, ...]:
    """EmbedLayerNormalization of quantised tables."""
    segments = None
    if segment_embedding is not None and segment_scale is not None:
        segments = dequantized(segment_embedding, segment_scale, segment_zero, 1)
    result: tuple[Array, ...] = embed_layer_norm(
        input_ids, segment_ids, dequantized(word_embedding, word_scale, word_zero, 1),
        dequantized(position_embedding, position_scale, position_zero, 1), segments,
        dequantized(gamma, gamma_scale, gamma_zero, 0), dequantized(beta, beta_scale, beta_zero, 0), mask, None,
        epsilon, 0, outputs,
    )  # fmt: skip
    return result


@declared("BiasDropout")
def bias_dropout(
    data: Array,
    bias: Array,
    residual: Array | None = None,
    ratio: Any = None,
    training_mode: Any = None,
    /,
    seed: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Dropout of data plus a bias, plus a residual; and the mask of what is kept."""
    y, mask = dropout(ops.add(data, bias), ratio, training_mode, seed, 2)
    return (y if residual is None else ops.add(y, residual)), mask


@declared("ConvTransposeWithDynamicPads")
def conv_transpose_with_pads(
    X: Array,
    W: Array,
    Pads: Array | None = None,
    B: Array | None = None,
    /,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """ConvTranspose whose padding is an operand."""
    pads = None if Pads is None else integers(Pads, "the pads of ConvTransposeWithDynamicPads")
    return conv_transpose(X, W, B, auto_pad, dilations, group, kernel_shape, output_padding, None, pads, strides)


@declared("NGramRepeatBlock")
def n_gram_repeat_block(input_ids: Array, scores: Array, /, ngram_size: int) -> Array:
    """Scores (batch, words), -inf for each word that would repeat a run of ngram_size words of input_ids."""
    words = concrete(input_ids, "the words of NGramRepeatBlock")
    if words.ndim != 2 or ngram_size < 1 or len(words) != scores.shape[0]:
        raise ArgumentError("NGramRepeatBlock: impossible ngram_size or shapes", received=(ngram_size, words.shape))
    blocked = np.zeros(tuple(scores.shape), bool)
    for row, text in enumerate(words):
        last = text[len(text) - ngram_size + 1 :]
        for start in range(len(text) - ngram_size + 1):
            word = text[start + ngram_size - 1]
            if (text[start : start + ngram_size - 1] == last).all() and 0 <= word < blocked.shape[1]:
                blocked[row, word] = True
    return ops.where(blocked, number(-np.inf, scores.dtype), scores)


@declared("GatedRMSNorm")
def gated_rms_norm(X: Array, scale: Array, gate: Array, /, activation: str = "silu", epsilon: float = 1e-5) -> Array:
    """The RMS norm of groups of X (…, groups · size) with a scale (size,), times the activation of a gate like X."""
    if activation not in ("silu", "swish", "sigmoid"):
        raise ArgumentError("GatedRMSNorm: unknown activation", expected="silu, swish or sigmoid", received=activation)
    size = scale.shape[0]
    groups = ops.cast(ops.reshape(X, (*X.shape[:-1], -1, size)), np.float32)
    y = ops.reshape(ops.rms_norm(groups, (size,), ops.cast(scale, np.float32), epsilon), tuple(X.shape))
    wide = ops.cast(gate, np.float32)
    return ops.cast(ops.multiply(y, ops.sigmoid(wide) if activation == "sigmoid" else ops.silu(wide)), X.dtype)


@declared("ScaledSiLU")
def scaled_silu(X: Array, scale: Array | None = None, /, alpha: float = 1.0) -> Array:
    """SiLU of scale · X."""
    factor = number(alpha, X.dtype) if scale is None else ops.cast(scale, X.dtype)
    return ops.silu(ops.multiply(X, factor))
