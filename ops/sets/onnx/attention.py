"""Attention and what belongs to it: RotaryEmbedding, LinearAttention, CausalConvWithState."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import dtype_of
from zoonet.ops.sets.onnx.control import call
from zoonet.ops.sets.onnx.elementwise import softmax
from zoonet.ops.sets.onnx.registry import Subgraph, onnx_operator
from zoonet.ops.types import Array


def heads_of(x: Array, count: int | None, operator: str = "Attention") -> Array:
    """(batch, length, heads · size) -> (batch, heads, length, size); four axes stay."""
    if len(x.shape) == 4:
        return x
    if not count or x.shape[-1] % count:
        raise ArgumentError(
            f"{operator}: the number of heads does not fit", expected=f"a divisor of {x.shape[-1]}", received=count
        )
    return ops.transpose(ops.reshape(x, (x.shape[0], x.shape[1], count, x.shape[2] // count)), (0, 2, 1, 3))


def joined_heads(y: Array) -> Array:
    """(batch, heads, length, size) -> (batch, length, heads · size)."""
    turned = ops.transpose(y, (0, 2, 1, 3))
    return ops.reshape(turned, (*turned.shape[:2], turned.shape[2] * turned.shape[3]))


def _grouped(x: Array, count: int) -> Array:
    """Heads of keys or values repeated for as many heads of queries."""
    return x if x.shape[1] == count else ops.repeat(x, count // x.shape[1], 1)


def _allowed(q: int, k: int, offset: Any, causal: bool, left: int, right: int) -> Array | None:
    """Which keys (…, q, k) each query may see by its position offset + i; None for all."""
    position = ops.add(ops.reshape(offset, (-1, 1, 1, 1)), np.arange(q).reshape(-1, 1))
    keys = np.arange(k)
    limits = []
    if causal:
        limits.append(ops.less_equal(keys, position))
    if right >= 0:
        limits.append(ops.less_equal(keys, ops.add(position, np.asarray(right))))
    if left >= 0:
        limits.append(ops.greater_equal(keys, ops.subtract(position, np.asarray(left))))
    return functools.reduce(ops.logical_and, limits) if limits else None


def _bias(mask: Array, total: int, dtype: Any) -> Array:
    """A mask as what is added to scores; shorter ones hide the keys beyond them."""
    if mask.dtype == np.bool_:
        mask = ops.where(mask, number(0.0, dtype), number(-math.inf, dtype))
    short = total - mask.shape[-1]
    if short > 0 and mask.shape[-1] != 1:
        mask = ops.pad(mask, (*[(0, 0)] * (len(mask.shape) - 1), (0, short)), "constant", -math.inf)
    return ops.cast(mask, dtype)


def probabilities(scores: Array) -> Array:
    """softmax over the last axis; 0 where every score is -inf."""
    empty = ops.equal(ops.max(scores, -1, True), number(-math.inf, scores.dtype))
    safe = ops.where(empty, ops.zeros_like(scores), scores)
    return ops.where(empty, ops.zeros_like(scores), softmax(safe, -1))


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    bias: Array | None,
    allowed: list[Array | None],
    scale: float,
    softcap: float,
    precision: Any,
    mode: int,
) -> tuple[Array, Array]:
    """softmax(scores) · value, and the scores at the stage that mode asks for."""
    dtype = query.dtype
    root = number(math.sqrt(scale), dtype)
    scores = ops.matmul(ops.multiply(query, root), ops.multiply(ops.swapaxes(key, -1, -2), root))
    stages = [scores]
    if softcap:
        cap = number(softcap, dtype)
        scores = ops.multiply(ops.tanh(ops.divide(scores, cap)), cap)
    stages.append(scores)
    hidden = number(-math.inf, dtype)
    for mask in allowed:
        if mask is not None:
            scores = ops.where(mask, scores, hidden)
    if bias is not None:
        scores = ops.add(scores, bias)
    stages.append(scores)
    weights = ops.cast(probabilities(ops.cast(scores, precision)), dtype)
    stages.append(weights)
    return ops.matmul(weights, value), stages[mode]


def _attention(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None,
    past_key: Array | None,
    past_value: Array | None,
    valid: Array | None,
    **options: Any,
) -> tuple[Array, ...]:
    three = len(Q.shape) == 3
    query, key, value = (
        heads_of(Q, options["q_num_heads"]),
        heads_of(K, options["kv_num_heads"]),
        heads_of(V, options["kv_num_heads"]),
    )
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        key, value = ops.concat([past_key, key], 2), ops.concat([past_value, value], 2)
    heads, length, total = query.shape[1], query.shape[2], key.shape[2]
    if not key.shape[1] or heads % key.shape[1]:
        raise ShapeError("Attention: heads of keys do not divide those of queries", received=(heads, key.shape[1]))
    offset: Any = np.asarray([past])
    allowed: list[Array | None] = []
    if valid is not None:
        counts = ops.reshape(ops.cast(valid, np.int64), (-1,))
        if past_key is None:
            offset = ops.subtract(counts, np.asarray(length))
        allowed.append(ops.less(np.arange(total), ops.reshape(counts, (-1, 1, 1, 1))))
    windows = (options.get("left_window_size", -1), options.get("right_window_size", -1))
    allowed.append(_allowed(length, total, offset, bool(options["is_causal"]), *windows))
    scale = options["scale"]
    precision = options["softmax_precision"]
    y, shown = attend(
        query,
        _grouped(key, heads),
        _grouped(value, heads),
        bias=None if attn_mask is None else _bias(attn_mask, total, query.dtype),
        allowed=allowed,
        scale=1.0 / math.sqrt(query.shape[-1]) if scale is None else scale,
        softcap=options["softcap"],
        precision=query.dtype if precision is None else dtype_of(precision),
        mode=options["qk_matmul_output_mode"],
    )
    return (joined_heads(y) if three else y), key, value, shown


@onnx_operator("Attention", since=23)
def attention_23(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    /,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Scaled dot-product attention with cache, grouped heads, masks and soft cap."""
    return _attention(
        Q, K, V, attn_mask, past_key, past_value, None, is_causal=is_causal, kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads, qk_matmul_output_mode=qk_matmul_output_mode, scale=scale, softcap=softcap,
        softmax_precision=softmax_precision,
    )  # fmt: skip


@onnx_operator("Attention", since=24)
def attention_24(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    /,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 23; nonpad_kv_seqlen: how many keys of each item are valid."""
    return _attention(
        Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen, is_causal=is_causal,
        kv_num_heads=kv_num_heads, q_num_heads=q_num_heads, qk_matmul_output_mode=qk_matmul_output_mode, scale=scale,
        softcap=softcap, softmax_precision=softmax_precision,
    )  # fmt: skip


@onnx_operator("Attention", since=25)
def attention_25(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    /,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 24, with windows around each query's position."""
    return _attention(
        Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen, is_causal=is_causal,
        kv_num_heads=kv_num_heads, q_num_heads=q_num_heads, qk_matmul_output_mode=qk_matmul_output_mode, scale=scale,
        softcap=softcap, softmax_precision=softmax_precision, left_window_size=left_window_size,
        right_window_size=right_window_size,
    )  # fmt: skip


@onnx_operator("FlexAttention", domain="ai.onnx.preview")
def flex_attention(
    Q: Array,
    K: Array,
    V: Array,
    /,
    prob_mod: Subgraph | None = None,
    scale: float | None = None,
    score_mod: Subgraph | None = None,
    softmax_precision: int | None = None,
) -> Array:
    """Attention whose scores and probabilities (batch, heads, queries, keys) sub-graphs may change."""
    shapes = tuple(Q.shape), tuple(K.shape), tuple(V.shape)
    fits = all(len(shape) == 4 for shape in shapes) and shapes[1][:3] == shapes[2][:3]
    if not fits or not shapes[1][1] or shapes[0][1] % shapes[1][1] or shapes[0][3] != shapes[1][3]:
        raise ShapeError(
            "FlexAttention: shapes do not agree", expected="(batch, heads, length, size) of each", received=shapes
        )
    kind = dtype_of(softmax_precision) if softmax_precision is not None else np.dtype(np.float32)
    if softmax_precision is None and Q.dtype == np.float64:
        kind = Q.dtype
    root = number(math.sqrt(1.0 / math.sqrt(Q.shape[-1]) if scale is None else scale), Q.dtype)
    keys = ops.multiply(_grouped(K, Q.shape[1]), root)
    scores = ops.cast(ops.matmul(ops.multiply(Q, root), ops.swapaxes(keys, -1, -2)), kind)
    if score_mod is not None:
        scores = _modified(score_mod, scores)
    weights = probabilities(scores)
    if prob_mod is not None:
        weights = _modified(prob_mod, weights)
    return ops.cast(ops.matmul(weights, ops.cast(_grouped(V, Q.shape[1]), kind)), V.dtype)


def _modified(graph: Subgraph, x: Array) -> Array:
    results = call(graph, x)
    if len(results) != 1 or tuple(results[0].shape) != tuple(x.shape):
        raise ShapeError(
            "FlexAttention: a sub-graph changes the shape",
            expected=list(x.shape),
            received=[list(y.shape) for y in results],
        )
    y: Array = ops.cast(results[0], x.dtype)
    return y


@onnx_operator("RotaryEmbedding", since=23)
def rotary_embedding(
    X: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    /,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """X with pairs of each head's first elements turned by the angle of their position."""
    x = heads_of(X, num_heads, "RotaryEmbedding")
    size = rotary_embedding_dim or x.shape[-1]
    cos, sin = cos_cache, sin_cache
    if position_ids is not None:
        cos, sin = ops.take(cos, position_ids, 0), ops.take(sin, position_ids, 0)
    if cos.shape[-1] != size // 2:
        raise ShapeError("RotaryEmbedding: the cache does not fit", expected=size // 2, received=cos.shape[-1])
    y = rotated(x, cos, sin, interleaved)
    return joined_heads(y) if len(X.shape) == 3 else y


def rotated(x: Array, cos: Array, sin: Array, interleaved: int) -> Array:
    """Heads (batch, heads, length, size) with pairs of their first elements turned by angles (batch, length, pairs)."""
    size = 2 * cos.shape[-1]
    if size > x.shape[-1]:
        raise ShapeError("rotary positions turn more elements than there are", expected=x.shape[-1], received=size)
    cos, sin = ops.expand_dims(cos, 1), ops.expand_dims(sin, 1)  # (batch, 1, length, size / 2)
    turned, rest = (x, None) if size == x.shape[-1] else ops.split(x, (size,), -1)
    if interleaved:
        pairs = ops.reshape(turned, (*turned.shape[:-1], size // 2, 2))
        first, second = ops.index(pairs, (Ellipsis, 0)), ops.index(pairs, (Ellipsis, 1))
    else:
        first, second = ops.split(turned, 2, -1)
    real = ops.subtract(ops.multiply(cos, first), ops.multiply(sin, second))
    imaginary = ops.add(ops.multiply(sin, first), ops.multiply(cos, second))
    if interleaved:
        y = ops.reshape(ops.stack([real, imaginary], -1), tuple(turned.shape))
    else:
        y = ops.concat([real, imaginary], -1)
    return y if rest is None else ops.concat([y, rest], -1)


@onnx_operator("LinearAttention", since=27)
def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    /,
    chunk_size: int = 64,
    kv_num_heads: int = 1,
    q_num_heads: int = 1,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Attention by a state that each step updates; see the specification for the four rules. State in float32."""
    if update_rule not in ("linear", "gated", "delta", "gated_delta"):
        raise ArgumentError("LinearAttention: unknown update_rule", received=update_rule)
    dtype = query.dtype
    wide = np.float64 if dtype == np.float64 else np.float32
    q = ops.cast(heads_of(query, q_num_heads, "LinearAttention"), wide)
    k = ops.cast(heads_of(key, kv_num_heads, "LinearAttention"), wide)
    v = ops.cast(heads_of(value, kv_num_heads, "LinearAttention"), wide)
    batch, heads, steps, size = k.shape
    factor = scale or 1.0 / math.sqrt(query.shape[-1] // q_num_heads)
    gates = None
    if "gated" in update_rule and decay is not None:
        gates = ops.exp(ops.cast(heads_of(decay, kv_num_heads, "LinearAttention"), wide))  # (B, H, T, d or 1)
    rates = None
    if "delta" in update_rule and beta is not None:
        rates = ops.cast(ops.transpose(beta, (0, 2, 1)), wide)  # (B, H or 1, T)
    shape = (batch, heads, size, v.shape[-1])
    state = ops.zeros(shape, wide) if past_state is None else ops.cast(past_state, wide)
    results = []
    for t in range(steps):
        k_t, v_t = (ops.index(x, (slice(None), slice(None), t)) for x in (k, v))
        if gates is not None:
            state = ops.multiply(state, ops.expand_dims(ops.index(gates, (slice(None), slice(None), t)), -1))
        if rates is not None:
            known = ops.squeeze(ops.matmul(ops.expand_dims(k_t, -2), state), -2)
            v_t = ops.multiply(ops.subtract(v_t, known), ops.expand_dims(ops.index(rates, (Ellipsis, t)), -1))
        state = ops.add(state, ops.multiply(ops.expand_dims(k_t, -1), ops.expand_dims(v_t, -2)))
        q_t = ops.index(q, (slice(None), slice(None), slice(t, t + 1)))
        results.append(ops.matmul(q_t, _grouped(state, q_num_heads)))
    y = ops.multiply(ops.concat(results, 2), number(factor, np.dtype(wide)))
    return ops.cast(joined_heads(y), dtype), ops.cast(state, dtype if past_state is None else past_state.dtype)


@onnx_operator("CausalConvWithState", since=27)
def causal_conv(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    past_state: Array | None = None,
    /,
    activation: str = "none",
    outputs: int = 1,
) -> tuple[Array, ...]:
    """A depthwise convolution that sees only what came before, and the last inputs as the state of the next call."""
    kernel = weight.shape[-1]
    if past_state is None:
        past_state = ops.zeros((*input.shape[:2], kernel - 1), input.dtype)
    whole = ops.concat([past_state, input], -1)
    y = ops.conv(whole, weight, bias, groups=input.shape[1])
    if activation in ("silu", "swish"):
        y = ops.silu(y)
    elif activation != "none":
        raise ArgumentError("CausalConvWithState: unknown activation", received=activation)
    return y, ops.index(whole, (Ellipsis, slice(whole.shape[-1] - kernel + 1, None)))
