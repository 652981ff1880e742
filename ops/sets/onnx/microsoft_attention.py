"""com.microsoft: the fused attention of transformers, its rotary positions, and the embedding that they begin with.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError, UnsupportedFormatError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.attention import heads_of, joined_heads, rotated
from zoonet.ops.sets.onnx.common import affordable, scalar
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.sets.onnx.windows import shifted
from zoonet.ops.types import Array


def refused(operator: str, **given: Any) -> None:
    """Raise UnsupportedFormatError for an input or attribute that only other devices of ONNX Runtime know."""
    for name, value in given.items():
        if value is not None and not (isinstance(value, int | str) and value in (0, "NONE")):
            raise UnsupportedFormatError(
                f"{operator}: {name} is not supported", fix="export the model for ONNX Runtime's CPU provider"
            )


@dataclass(frozen=True)
class Options:
    """How scores are made. bias: what is added to them, broadcasting to (batch, heads, queries, keys); allowed: the
    keys that count. sink: (heads,), one more score in the sum of the softmax."""

    scale: float | None = None
    bias: tuple[Array, ...] = ()
    allowed: Array | None = None
    softcap: float = 0.0
    sink: Array | None = None


def attended(query: Array, key: Array, value: Array, options: Options) -> tuple[Array, Array, Array]:
    """softmax(query · keyᵀ · scale) · value of (batch, heads, length, size); scores and probabilities in float32."""
    kind = np.float64 if query.dtype == np.float64 else np.float32
    scale = options.scale or 1.0 / math.sqrt(query.shape[-1])
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = ops.repeat(key, group, 1), ops.repeat(value, group, 1)
    wide = ops.matmul(ops.cast(query, kind), ops.swapaxes(ops.cast(key, kind), -1, -2))
    scores = ops.multiply(wide, number(scale, wide.dtype))
    if options.softcap:
        cap = number(options.softcap, scores.dtype)
        scores = ops.multiply(ops.tanh(ops.divide(scores, cap)), cap)
    for bias in options.bias:
        scores = ops.add(scores, ops.cast(bias, kind))
    if options.allowed is not None:
        scores = ops.where(options.allowed, scores, number(float(np.finfo(kind).min), scores.dtype))
    if options.sink is None:
        weights = ops.softmax(scores, -1)
    else:
        column = ops.broadcast_to(ops.reshape(ops.cast(options.sink, kind), (1, -1, 1, 1)), (*scores.shape[:-1], 1))
        whole = ops.softmax(ops.concat([scores, column], -1), -1)
        weights = ops.index(whole, (Ellipsis, slice(0, scores.shape[-1])))
    return ops.cast(ops.matmul(weights, ops.cast(value, kind)), value.dtype), scores, weights


def causal_keys(queries: int, past: Any, keys: int, window: int = -1) -> Array:
    """Which keys a query at position past + i sees: those up to it, and of these the last `window`.

    past: () or (batch,) -> (1 or batch, 1, queries, keys).
    """
    position = ops.add(ops.reshape(past, (-1, 1, 1, 1)), np.arange(queries).reshape(-1, 1))
    seen = ops.less_equal(np.arange(keys), position)
    if window > 0:
        seen = ops.logical_and(seen, ops.greater(np.arange(keys), ops.subtract(position, np.asarray(window))))
    return seen


def masked(mask: Array, batch: int, queries: int, keys: int, past: int, value: float, dtype: Any) -> Array:
    """A mask in any of the forms that Attention takes, as what is added to scores."""
    shape = tuple(mask.shape)
    place = np.arange(keys)
    if shape in ((batch,), (2 * batch,)):  # where keys end, and where they begin
        ends = ops.reshape(ops.index(mask, slice(0, batch)), (-1, 1, 1, 1))
        kept = ops.less(place, ends)
        if shape[0] == 2 * batch:
            starts = ops.reshape(ops.index(mask, slice(batch, None)), (-1, 1, 1, 1))
            kept = ops.logical_and(kept, ops.greater_equal(place, starts))
    elif shape == (batch, keys):
        kept = ops.greater(ops.reshape(mask, (batch, 1, 1, keys)), np.asarray(0, mask.dtype))
    elif shape == (batch, queries, keys):
        kept = ops.greater(ops.expand_dims(mask, 1), np.asarray(0, mask.dtype))
    elif len(shape) == 4 and shape[0] in (1, batch) and shape[1] == 1 and min(shape[2:]) >= keys:
        part = ops.index(mask, (slice(None), slice(None), slice(past, past + queries), slice(0, keys)))
        kept = ops.greater(part, np.asarray(0, mask.dtype))
    else:
        raise ShapeError(
            "the mask of attention does not fit",
            expected=f"({batch},), ({2 * batch},), ({batch}, {keys}) or ({batch}, {queries}, {keys})",
            received=shape,
        )
    return ops.where(kept, number(0, dtype), number(value, dtype))


def _projected(
    projection: Array, num_heads: int, sizes: Sequence[int] | None, past: Array | None
) -> tuple[Array, Array, Array, int]:
    """Heads of queries, keys and values from their common projection, after those of the past, and its length."""
    width = projection.shape[-1]
    parts = tuple(sizes) if sizes else (width // 3,) * 3
    if len(parts) != 3 or sum(parts) != width or parts[0] != parts[1] or min(parts) < 1:
        raise ShapeError("Attention: the sizes of queries, keys and values do not fit", expected=width, received=parts)
    query, key, value = (
        heads_of(part, num_heads) for part in ops.split(projection, (parts[0], parts[0] + parts[1]), -1)
    )
    if past is None:
        return query, key, value, 0
    key = ops.concat([ops.index(past, 0), key], 2)
    value = ops.concat([ops.index(past, 1), value], 2)
    return query, key, value, int(past.shape[3])


def _self_attention(
    projection: Array,
    mask: Array | None,
    past: Array | None,
    added: Array | None,
    *,
    num_heads: int = 0,
    sizes: Sequence[int] | None,
    scale: float | None,
    hidden: float,
    unidirectional: int,
) -> tuple[Array, ...]:
    query, key, value, before = _projected(projection, num_heads, sizes, past)
    batch, _, queries, _ = query.shape
    keys = key.shape[2]
    bias = [] if mask is None else [masked(mask, batch, queries, keys, before, hidden, np.float32)]
    bias += [] if added is None else [added]
    seen = causal_keys(queries, np.asarray(before), keys) if unidirectional else None
    y, _, _ = attended(query, key, value, Options(scale, tuple(bias), seen))
    present = ops.stack([key, value], 0) if tuple(key.shape) == tuple(value.shape) else None
    return joined_heads(y), present


@declared("Attention")
def attention(
    input: Array,
    weights: Array,
    bias: Array | None = None,
    mask_index: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    past_sequence_length: Array | None = None,
    /,
    num_heads: int = 0,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    past_present_share_buffer: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    rotary_embedding_dim: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Self-attention of input (batch, length, width) with its projection; keys and values stacked as the present."""
    refused("Attention", past_present_share_buffer=past_present_share_buffer, do_rotary=do_rotary)
    projection = ops.matmul(input, weights)
    return _self_attention(
        projection if bias is None else ops.add(projection, bias), mask_index, past, attention_bias,
        num_heads=num_heads, sizes=qkv_hidden_sizes, scale=scale, hidden=mask_filter_value,
        unidirectional=unidirectional,
    )  # fmt: skip


@declared("QAttention")
def qattention(
    input: Array,
    weight: Array,
    bias: Array,
    input_scale: Array,
    weight_scale: Array,
    mask_index: Array | None = None,
    input_zero_point: Array | None = None,
    weight_zero_point: Array | None = None,
    past: Array | None = None,
    /,
    num_heads: int = 0,
    do_rotary: int = 0,
    mask_filter_value: float = -10000.0,
    past_present_share_buffer: int = 0,
    scale: float | None = None,
    unidirectional: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Attention of a quantised input and projection."""
    refused("QAttention", past_present_share_buffer=past_present_share_buffer, do_rotary=do_rotary)
    sums = ops.matmul(shifted(input, input_zero_point, -2), shifted(weight, weight_zero_point, -1))
    real = ops.multiply(ops.cast(sums, input_scale.dtype), ops.multiply(input_scale, weight_scale))
    return _self_attention(
        ops.add(real, bias), mask_index, past, None, num_heads=num_heads, sizes=None, scale=scale,
        hidden=mask_filter_value, unidirectional=unidirectional,
    )  # fmt: skip


def _separate(
    query: Array, key: Array | None, value: Array | None, bias: Array | None, heads: int
) -> tuple[Array, Array, Array]:
    """Heads of queries, keys and values, as MultiHeadAttention takes them: apart, packed, or as the past has them."""
    if len(query.shape) == 5:  # (batch, length, heads, 3, size)
        query, key, value = (ops.index(query, (slice(None), slice(None), slice(None), i)) for i in range(3))
    elif key is not None and len(key.shape) == 5:
        key, value = (ops.index(key, (slice(None), slice(None), slice(None), i)) for i in range(2))
    else:
        if key is None or value is None:
            raise ShapeError("MultiHeadAttention lacks keys or values", fix="give them, or a packed query")
        ready = len(key.shape) == 4  # (batch, heads, length, size) from an earlier call
        if bias is not None:
            q, k = query.shape[-1], query.shape[-1]
            biases = ops.split(bias, (q, q + k), 0)
            query = ops.add(query, biases[0])
            if not ready:
                key, value = ops.add(key, biases[1]), ops.add(value, biases[2])
        return heads_of(query, heads), heads_of(key, heads), heads_of(value, heads)
    triple = [query, key, value]
    if bias is not None:
        biases = ops.split(bias, 3, 0)
        triple = [
            ops.add(x, ops.reshape(b, (x.shape[2], x.shape[3]))) if len(x.shape) == 4 else ops.add(x, b)
            for x, b in zip(triple, biases, strict=True)
        ]
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) if len(x.shape) == 4 else heads_of(x, heads) for x in triple)
    return q, k, v


@declared("MultiHeadAttention")
def multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    bias: Array | None = None,
    key_padding_mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Array | None = None,
    cache_indirection: Array | None = None,
    /,
    num_heads: int = 0,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
    unidirectional: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Attention of projected queries, keys and values, to which the bias of their projection may still be added."""
    refused("MultiHeadAttention", past_sequence_length=past_sequence_length, cache_indirection=cache_indirection)
    q, k, v = _separate(query, key, value, bias, num_heads)
    before = 0
    if past_key is not None and past_value is not None:
        before = past_key.shape[2]
        k, v = ops.concat([past_key, k], 2), ops.concat([past_value, v], 2)
    batch, _, queries, _ = q.shape
    keys = k.shape[2]
    added = []
    if key_padding_mask is not None:
        mask = key_padding_mask
        if tuple(mask.shape) == (batch, keys - before) and before:
            mask = ops.concat([np.ones((batch, before), mask.dtype), mask], 1)
        added.append(masked(mask, batch, queries, keys, before, mask_filter_value, np.float32))
    if attention_bias is not None:
        added.append(attention_bias)
    seen = causal_keys(queries, np.asarray(before), keys) if unidirectional else None
    y, _, weights = attended(q, k, v, Options(scale, tuple(added), seen))
    return joined_heads(y), k, v, ops.cast(weights, y.dtype)


def appended(past: Array | None, new: Array, start: Array, count: Array, total: int) -> Array:
    """The cache (batch, heads, total, size): the first `start` of the past, then `count` of the new, then zeros."""
    before = 0 if past is None else past.shape[2]
    zeros = ops.zeros((*new.shape[:2], 1, new.shape[3]), new.dtype)
    whole = ops.concat([*([] if past is None else [past]), new, zeros], 2)
    place = np.arange(total)
    added = ops.subtract(place, start)  # (batch, total)
    source = ops.where(
        ops.less(added, np.asarray(0)),
        place,
        ops.where(ops.less(added, count), ops.add(added, np.asarray(before)), np.asarray(before + new.shape[2])),
    )
    return ops.take_along_axis(whole, ops.reshape(source, (-1, 1, total, 1)), 2)


@declared("GroupQueryAttention")
def group_query_attention(
    query: Array,
    key: Array | None,
    value: Array | None,
    past_key: Array | None,
    past_value: Array | None,
    seqlens_k: Array,
    total_sequence_length: Array,
    cos_cache: Array | None = None,
    sin_cache: Array | None = None,
    position_ids: Array | None = None,
    attention_bias: Array | None = None,
    head_sink: Array | None = None,
    k_scale: Array | None = None,
    v_scale: Array | None = None,
    q_norm_weight: Array | None = None,
    k_norm_weight: Array | None = None,
    query_seqlens: Array | None = None,
    /,
    kv_num_heads: int = 0,
    num_heads: int = 0,
    causal: int = 1,
    do_rotary: int = 0,
    k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE",
    kv_cache_bit_width: int = 0,
    local_window_size: int = -1,
    q_norm_epsilon: float | None = None,
    qk_norm_epsilon: float = 1e-6,
    qk_output: int = 0,
    rotary_interleaved: int = 0,
    scale: float | None = None,
    sliding_window_cache: int = 0,
    smooth_softmax: int = -1,
    softcap: float = 0.0,
    v_quant_type: str = "NONE",
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Attention whose keys are shared by groups of heads, with a cache: item b has seqlens_k[b] + 1 keys in all."""
    refused(
        "GroupQueryAttention", k_scale=k_scale, v_scale=v_scale, k_quant_type=k_quant_type, v_quant_type=v_quant_type,
        sliding_window_cache=sliding_window_cache,
    )  # fmt: skip
    if key is None or value is None:
        size = query.shape[-1] // max(num_heads + 2 * kv_num_heads, 1)
        query, key, value = ops.split(query, (num_heads * size, (num_heads + kv_num_heads) * size), -1)
    q, k, v = heads_of(query, num_heads), heads_of(key, kv_num_heads), heads_of(value, kv_num_heads)
    if num_heads % kv_num_heads:
        raise ArgumentError(
            "GroupQueryAttention: kv_num_heads does not divide num_heads", received=(num_heads, kv_num_heads)
        )
    if q_norm_weight is not None and k_norm_weight is not None:
        q = ops.rms_norm(q, (q.shape[-1],), q_norm_weight, q_norm_epsilon or qk_norm_epsilon)
        k = ops.rms_norm(k, (k.shape[-1],), k_norm_weight, k_norm_epsilon or qk_norm_epsilon)
    length = q.shape[2]
    whole = ops.add(ops.reshape(ops.cast(seqlens_k, np.int64), (-1, 1)), np.asarray(1))  # (batch, 1)
    count = ops.minimum(whole, np.asarray(length))
    if query_seqlens is not None:
        count = ops.reshape(ops.cast(query_seqlens, np.int64), (-1, 1))
    start = ops.subtract(whole, count)
    if do_rotary:
        if cos_cache is None or sin_cache is None:
            raise ArgumentError("GroupQueryAttention: do_rotary needs cos_cache and sin_cache")
        positions = ops.add(start, np.arange(length)) if position_ids is None else position_ids
        q = rotated(q, ops.take(cos_cache, positions, 0), ops.take(sin_cache, positions, 0), rotary_interleaved)
        k = rotated(k, ops.take(cos_cache, positions, 0), ops.take(sin_cache, positions, 0), rotary_interleaved)
    total = int(scalar(total_sequence_length, "the total_sequence_length"))
    room = max(total, 0 if past_key is None else int(past_key.shape[2]))
    affordable((*k.shape[:2], room, k.shape[3]), k.dtype, "GroupQueryAttention")
    present = [appended(past, new, start, count, room) for past, new in ((past_key, k), (past_value, v))]
    seen = ops.less(np.arange(room), ops.reshape(whole, (-1, 1, 1, 1)))
    if causal:
        seen = causal_keys(length, start, room, local_window_size)
    sink = head_sink if head_sink is not None or smooth_softmax != 1 else np.zeros(num_heads, np.float32)
    added = []
    if attention_bias is not None:
        short = room - attention_bias.shape[-1]
        added.append(ops.pad(attention_bias, ((0, 0),) * 3 + ((0, short),)) if short > 0 else attention_bias)
    y, scores, weights = attended(q, present[0], present[1], Options(scale, tuple(added), seen, softcap, sink))
    shown = ops.cast(scores if qk_output == 1 else weights, y.dtype)
    return joined_heads(y), *present, shown


@declared("RotaryEmbedding")
def rotary_embedding(
    input: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    /,
    interleaved: int = 0,
    is_packed_batching: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
) -> Array:
    """Pairs of each head's elements turned by the angles of their positions: (batch, length), or where they begin."""
    refused("RotaryEmbedding", is_packed_batching=is_packed_batching)
    if scale != 1.0:
        raise UnsupportedFormatError("RotaryEmbedding: scale is not supported", expected=1.0, received=scale)
    heads = num_heads
    if len(input.shape) == 3 and not heads:
        heads = input.shape[-1] // (rotary_embedding_dim or 2 * cos_cache.shape[-1])
    x = heads_of(input, heads, "RotaryEmbedding")
    positions = position_ids
    if tuple(positions.shape) == (1,):
        steps = ops.add(positions, np.arange(x.shape[2]))
        positions = ops.broadcast_to(ops.expand_dims(steps, 0), (x.shape[0], x.shape[2]))
    y = rotated(x, ops.take(cos_cache, positions, 0), ops.take(sin_cache, positions, 0), interleaved)
    return joined_heads(y) if len(input.shape) == 3 else y


@declared("EmbedLayerNormalization")
def embed_layer_norm(
    input_ids: Array,
    segment_ids: Array | None,
    word_embedding: Array,
    position_embedding: Array,
    segment_embedding: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    /,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """The layer norm of the sum of a text's embeddings, the number of words of each item, and that sum."""
    batch, length = input_ids.shape
    if position_ids is None:
        places = ops.index(position_embedding, slice(0, length))
    else:
        places = ops.take(position_embedding, position_ids, 0)
    total = ops.add(ops.take(word_embedding, input_ids, 0), places)
    if segment_ids is not None and segment_embedding is not None:
        total = ops.add(total, ops.take(segment_embedding, segment_ids, 0))
    if mask is None:
        words = ops.zeros((batch,), np.int32)
    else:
        words = ops.cast(ops.sum(ops.cast(ops.equal(mask, np.asarray(1, mask.dtype)), np.int32), 1), np.int32)
    return ops.layer_norm(total, tuple(gamma.shape), gamma, beta, epsilon), words, total
