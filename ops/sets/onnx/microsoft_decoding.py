"""com.microsoft: the attention of one step of generation.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ShapeError
from zoonet.ops.sets.onnx.attention import heads_of, joined_heads
from zoonet.ops.sets.onnx.common import affordable
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
