"""com.microsoft: the attention of one step of generation, and what is done with its tokens.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.attention import heads_of, joined_heads
from zoonet.ops.sets.onnx.common import affordable, concrete, integers, normalized_axis, scalar
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.sets.onnx.microsoft_attention import Options, appended, attended, masked, refused
from zoonet.ops.types import Array


@declared("DecoderMaskedMultiHeadAttention")
def decoder_masked_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    mask_index: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Array | None = None,
    beam_width: Array | None = None,
    cache_indirection: Array | None = None,
    bias: Array | None = None,
    /,
    num_heads: int = 1,
    mask_filter_value: float = -10000.0,
    output_qk: int = 0,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Attention of one new token: to a ready cache (key and value (batch, heads, length, size)), or to earlier tokens
    in a buffer of fixed length, of which past_sequence_length are filled."""
    refused("DecoderMaskedMultiHeadAttention", cache_indirection=cache_indirection, output_qk=output_qk)
    if key is not None and value is not None and len(key.shape) == 4:
        if bias is not None:
            query = ops.add(query, ops.index(bias, slice(0, query.shape[-1])))
        keys, values, seen = key, value, None
    else:
        if past_key is None or past_value is None or past_sequence_length is None or not past_present_share_buffer:
            raise ShapeError(
                "DecoderMaskedMultiHeadAttention lacks the buffer of earlier keys and values",
                expected="past_key, past_value and past_sequence_length, with past_present_share_buffer=1",
            )
        if key is None or value is None:
            query, key, value = ops.split(query, 3, -1)
        if bias is not None:
            parts = ops.split(bias, (query.shape[-1], query.shape[-1] + key.shape[-1]), 0)
            query, key, value = (ops.add(x, part) for x, part in zip((query, key, value), parts, strict=True))
        room = int(past_key.shape[2])
        affordable((*past_key.shape[:2], room + 1, past_key.shape[3]), past_key.dtype, "the buffer of attention")
        start = ops.reshape(ops.cast(past_sequence_length, np.int64), (1, 1))
        new = heads_of(key, num_heads), heads_of(value, num_heads)
        keys = appended(past_key, new[0], start, np.asarray(1), room)
        values = appended(past_value, new[1], start, np.asarray(1), room)
        seen = ops.less_equal(np.arange(room), ops.reshape(start, (1, 1, 1, 1)))
    q = heads_of(query, num_heads)
    added = [] if attention_bias is None else [_filled(attention_bias, keys.shape[2])]
    if mask_index is not None:
        mask = _filled(mask_index, keys.shape[2])
        added.append(masked(mask, q.shape[0], 1, keys.shape[2], 0, mask_filter_value, np.float32))
    y, _, _ = attended(q, keys, values, Options(scale, tuple(added), seen))
    return joined_heads(y), keys, values


def _filled(x: Array, length: int) -> Array:
    """x with zeros at the end of its last axis, as long as the buffer is; what is added there has no meaning."""
    short = length - x.shape[-1]
    return ops.pad(x, (*[(0, 0)] * (len(x.shape) - 1), (0, short))) if short > 0 else x


@declared("UnfoldTensor")
def unfold_tensor(input: Array, /, size: int, dim: int = -1, step: int = 1) -> Array:
    """All slices of `size` along an axis, `step` apart; what is in a slice becomes a new last axis."""
    axis = normalized_axis(dim, len(input.shape), "UnfoldTensor")
    length = input.shape[axis]
    if not 1 <= size <= length or step < 1:
        raise ArgumentError(
            "UnfoldTensor: slices do not fit", expected=f"a size of 1 to {length}, a step", received=(size, step)
        )
    count = (length - size) // step + 1
    affordable((*input.shape[:axis], count, size, *input.shape[axis + 1 :]), input.dtype, "UnfoldTensor")
    places = np.arange(count)[:, None] * step + np.arange(size)
    return ops.moveaxis(ops.take(input, places, axis), axis + 1, -1)


@declared("DynamicTimeWarping")
def dynamic_time_warping(input: Array, /) -> Array:
    """The cheapest path through a matrix of costs (rows, columns) from corner to corner -> int32 (2, steps).

    Among equal ways a step down comes last and a diagonal one before it, as Whisper's alignment has them.
    """
    costs = concrete(input, "the costs of DynamicTimeWarping").astype(np.float32)
    costs = costs[0] if costs.ndim == 3 and costs.shape[0] == 1 else costs
    if costs.ndim != 2 or 0 in costs.shape:
        raise ShapeError("DynamicTimeWarping takes a matrix of costs", received=tuple(input.shape))
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    total[0, 0] = 0
    moves = np.full((rows + 1, columns + 1), 2, np.int8)  # 0: both, 1: a row back, 2: a column back
    moves[1:, 0] = 1
    for j in range(1, columns + 1):
        for i in range(1, rows + 1):
            both, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            best = 0 if both < up and both < left else 1 if up < both and up < left else 2
            moves[i, j] = best
            total[i, j] = costs[i - 1, j - 1] + (both, up, left)[best]
    path = []
    i, j = rows, columns
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        move = moves[i, j]
        i, j = i - (move != 2), j - (move != 1)
    return np.asarray(path[::-1], np.int32).T


@declared("BifurcationDetector")
def bifurcation_detector(
    src_tokens: Array,
    cur_tokens: Array,
    prev_suffix_match_idx: Array,
    pred_tokens: Array | None = None,
    /,
    max_ngram_size: int = 3,
    min_ngram_size: int = 1,
    outputs: int = 2,
) -> tuple[Array, ...]:
    """Aggressive decoding: the tokens with those predicted up to where they leave the source, and where the longest
    n-gram at the end of the tokens goes on in the source; -1 if it is not there once."""
    source, tokens = integers(src_tokens, "the source"), list(integers(cur_tokens, "the tokens"))
    if pred_tokens is not None:
        predicted = integers(pred_tokens, "the predicted tokens")
        start = int(scalar(prev_suffix_match_idx, "the earlier match"))
        if not 0 <= start <= len(source) or len(predicted) != len(source) + 1 - start:
            raise ShapeError(
                "BifurcationDetector: predicted tokens do not fit",
                expected=f"{len(source)} + 1 - {start}",
                received=len(predicted),
            )
        pairs = zip(predicted, source[start:], strict=False)
        same = next((i for i, (one, other) in enumerate(pairs) if one != other), len(source) - start)
        tokens += predicted[: same + 1]
    match = -1
    for size in range(min_ngram_size, max_ngram_size + 1):
        if not 0 < size <= len(tokens):
            break
        gram = tuple(tokens[-size:])
        places = [i for i in range(len(source) - size + 1) if source[i : i + size] == gram]
        if len(places) != 1:
            if not places:
                break
            continue
        match = places[0] + size
        break
    return np.asarray(tokens, np.int64), np.asarray(match, np.int64)
