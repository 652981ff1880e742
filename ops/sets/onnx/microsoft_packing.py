"""com.microsoft: transformers that leave padding out, and the position biases of T5 and WavLM.

Tokens are packed: those of all texts one after another, without padding. token_offset (batch, length) says where each
of them stands in the padded texts, first the real ones, then the padding.

Source: ONNX Runtime's documentation of contributed operators; ONNX Runtime's CPU provider has none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.buckets import distance_bucket
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.attention import heads_of, joined_heads
from zoonet.ops.sets.onnx.common import affordable, integers, scalar
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.sets.onnx.microsoft_attention import Options, attended
from zoonet.ops.types import Array


@declared("RemovePadding")
def remove_padding(input: Array, sequence_token_count: Array, /, outputs: int = 4) -> tuple[Any, ...]:
    """input (batch, length, width) without padding on the right; offsets of tokens, sums of lengths, the longest."""
    counts = np.asarray(integers(sequence_token_count, "the number of tokens"), np.int64)
    batch, length, width = input.shape
    if counts.shape != (batch,) or (counts < 0).any() or (counts > length).any():
        raise ShapeError(
            "RemovePadding: numbers of tokens do not fit",
            expected=f"{batch} of 0 to {length}",
            received=counts.tolist(),
        )
    padding = (np.arange(length) >= counts[:, None]).reshape(-1)
    offsets = np.argsort(padding, kind="stable")
    tokens = ops.take(ops.reshape(input, (batch * length, width)), offsets[: counts.sum()], 0)
    sums = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    longest = np.asarray([counts.max(initial=0)], np.int32)
    return tokens, offsets.reshape(batch, length).astype(np.int32), sums, longest


@declared("RestorePadding")
def restore_padding(input: Array, token_offset: Array, /) -> Array:
    """Packed tokens (count, width) at their places in (batch, length, width), zeros elsewhere."""
    batch, length = token_offset.shape
    count, width = input.shape
    if count > batch * length:
        raise ShapeError("more tokens than the padded texts have", expected=f"up to {batch * length}", received=count)
    affordable((batch, length, width), input.dtype, "RestorePadding")
    whole = ops.concat([input, ops.zeros((batch * length - count, width), input.dtype)], 0)
    return ops.reshape(ops.take(whole, ops.argsort(ops.reshape(token_offset, (-1,))), 0), (batch, length, width))


def _packed_attention(
    parts: Sequence[Array], heads: int, offsets: Array, sums: Array, bias: Array | None, scale: float | None
) -> Array:
    """Attention of packed queries, keys and values, each text by itself -> (count, width of values)."""
    query, key, value = (heads_of(restore_padding(part, offsets), heads) for part in parts)
    lengths = ops.subtract(ops.index(sums, slice(1, None)), ops.index(sums, slice(0, -1)))
    seen = ops.less(np.arange(key.shape[2]), ops.reshape(lengths, (-1, 1, 1, 1)))
    y, _, _ = attended(query, key, value, Options(scale, () if bias is None else (bias,), seen))
    joined = joined_heads(y)
    flat = ops.reshape(joined, (joined.shape[0] * joined.shape[1], joined.shape[2]))
    return ops.take(flat, ops.index(ops.reshape(offsets, (-1,)), slice(0, parts[0].shape[0])), 0)


@declared("PackedAttention")
def packed_attention(
    input: Array,
    weights: Array,
    bias: Array,
    token_offset: Array,
    cumulative_sequence_length: Array,
    attention_bias: Array | None = None,
    /,
    num_heads: int = 0,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float | None = None,
) -> Array:
    """Self-attention of packed tokens (count, width) with its projection."""
    projection = ops.add(ops.matmul(input, weights), bias)
    width = projection.shape[-1]
    sizes = tuple(qkv_hidden_sizes) if qkv_hidden_sizes else (width // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != width:
        raise ShapeError("PackedAttention: sizes of queries, keys and values", expected=width, received=sizes)
    parts = ops.split(projection, (sizes[0], sizes[0] + sizes[1]), -1)
    return _packed_attention(parts, num_heads, token_offset, cumulative_sequence_length, attention_bias, scale)


@declared("PackedMultiHeadAttention")
def packed_multi_head_attention(
    query: Array,
    key: Array | None,
    value: Array | None,
    bias: Array | None,
    token_offset: Array,
    cumulative_sequence_length: Array,
    attention_bias: Array | None = None,
    /,
    num_heads: int = 0,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
) -> Array:
    """Attention of packed queries, keys and values (count, width), or of all in one (count, heads, 3, size)."""
    if key is None or value is None:
        if len(query.shape) != 4 or query.shape[2] != 3:
            raise ShapeError(
                "PackedMultiHeadAttention lacks keys or values",
                expected="them, or a query (count, heads, 3, size)",
                received=tuple(query.shape),
            )
        count, heads, _, size = query.shape
        query, key, value = (
            ops.reshape(ops.index(query, (slice(None), slice(None), i)), (count, heads * size)) for i in range(3)
        )
    parts: list[Array] = [query, key, value]
    if bias is not None:
        ends = (query.shape[-1], query.shape[-1] + key.shape[-1])
        parts = [ops.add(x, b) for x, b in zip(parts, ops.split(bias, ends, 0), strict=True)]
    return _packed_attention(parts, num_heads, token_offset, cumulative_sequence_length, attention_bias, scale)


@declared("RelativePositionBias")
def relative_position_bias(
    bias_table: Array, query_length: Array, key_length: Array, /, is_bidirectional: int = 0, max_distance: int = 128
) -> Array:
    """T5's bias of each head for the distance of a key from a query -> (1, heads, queries, keys).

    bias_table: declared (buckets, heads), its elements in the order of (heads, buckets).
    """
    count, heads = bias_table.shape
    queries, keys = (int(scalar(n, "a length of RelativePositionBias")) for n in (query_length, key_length))
    affordable((heads, queries, keys), np.dtype(np.int64), "RelativePositionBias")
    exact = count // (4 if is_bidirectional else 2)
    if exact < 1 or max_distance <= exact:
        raise ArgumentError(
            "RelativePositionBias: buckets and max_distance do not fit",
            expected=f"some buckets, and a distance above {exact}",
            received=(count, max_distance),
        )
    distance = np.arange(keys) - np.arange(queries)[:, None]
    buckets = distance_bucket(distance, count, max_distance, bool(is_bidirectional))
    return ops.expand_dims(ops.take(ops.reshape(bias_table, (heads, count)), buckets, 1), 0)


@declared("GatedRelativePositionBias")
def gated_relative_position_bias(
    query_layer: Array,
    query_bias: Array,
    rel_pos: Array,
    weight: Array,
    bias: Array,
    eco_a: Array,
    token_offset: Array | None = None,
    /,
    num_heads: int = 0,
) -> Array:
    """WavLM's position bias, times a gate that each query computes -> (batch, heads, length, length)."""
    query = ops.add(query_layer, query_bias)
    if token_offset is not None:
        query = restore_padding(query, token_offset)
    gates = ops.add(ops.matmul(heads_of(query, num_heads, "GatedRelativePositionBias"), weight), bias)
    pairs = ops.reshape(gates, (*gates.shape[:-1], 2, gates.shape[-1] // 2))
    update, reset = ops.split(ops.sigmoid(ops.sum(pairs, -1)), 2, -1)
    one, two = number(1, update.dtype), number(2, update.dtype)
    gate = ops.add(ops.multiply(update, ops.subtract(ops.multiply(reset, eco_a), one)), two)
    return ops.multiply(gate, rel_pos)


@declared("GemmaRotaryEmbedding")
def gemma_rotary_embedding(
    emb: Array, q: Array, q_rot: Array, k: Array, k_rot: Array, /, outputs: int = 2
) -> tuple[Array, ...]:
    """Queries and keys (batch, heads, length, size) turned by the angles emb (batch, length, size)."""
    cos, sin = (ops.expand_dims(ops.cast(f(emb), q.dtype), 1) for f in (ops.cos, ops.sin))
    turned = [ops.add(ops.multiply(x, cos), ops.multiply(half, sin)) for x, half in ((q, q_rot), (k, k_rot))]
    return turned[0], turned[1]
