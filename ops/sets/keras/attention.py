"""Attention layers."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.ops.sets.keras.common import LARGEST_MASK, affordable, dropped
from zoonet.ops.sets.keras.registry import Weight, layer
from zoonet.ops.types import Array


def _causal(queries: int, keys: int) -> Any:
    affordable(queries * keys, LARGEST_MASK, "attention", "the causal mask")
    return np.tril(np.ones((queries, keys), bool))


def _scores_to_output(
    scores: Array,
    value: Array,
    q_mask: Array | None,
    v_mask: Array | None,
    causal: bool,
    random_key: Array | None,
    dropout: float,
) -> tuple[Array, Array]:
    """Softmax over keys with masked ones far below, times values; rows of masked queries become 0.

    random_key: for the dropout of the softmax in training.
    """
    allowed: Any = None if v_mask is None else ops.expand_dims(v_mask, -2)
    if causal:
        lower = _causal(int(scores.shape[-2]), int(scores.shape[-1]))
        allowed = lower[None] if allowed is None else ops.logical_and(allowed, lower)
    if allowed is not None:
        scores = ops.where(allowed, scores, ops.subtract(scores, 65504.0 if scores.dtype.itemsize == 2 else 1e9))
    weights = dropped(random_key, ops.softmax(scores, -1), dropout)
    y = ops.matmul(weights, value)
    return (y if q_mask is None else ops.where(ops.expand_dims(q_mask, -1), y, 0.0)), weights


def _outputs(options: Any) -> int:
    return 2 if options.get("return_attention_scores") else 1


def _given(results: tuple[Array, Array], with_scores: bool) -> Any:
    return results if with_scores else results[0]


def _query_value_key(inputs: Sequence[Array], name: str) -> tuple[Array, Array, Array]:
    if len(inputs) not in (2, 3):
        raise ArgumentError(f"{name} takes [query, value] or [query, value, key]", received=f"{len(inputs)} inputs")
    return inputs[0], inputs[1], inputs[-1] if len(inputs) == 3 else inputs[1]


@layer(
    "Attention",
    weights=[
        Weight("scale", when="use_scale"),
        Weight("concat_score_weight", when="score_mode=concat"),
    ],
    outputs=_outputs,
    draws=["dropout"],
)
def attention(
    inputs: Sequence[Array],
    scale: Array | None = None,
    concat_score_weight: Array | None = None,
    query_mask: Array | None = None,
    value_mask: Array | None = None,
    random_key: Array | None = None,
    /,
    use_scale: bool = False,
    score_mode: str = "dot",
    dropout: float = 0.0,
    causal: bool = False,
    use_causal_mask: bool = False,
    return_attention_scores: bool = False,
) -> Any:
    """Softmax(query · keyᵀ) · value; score_mode "concat": of sums of tanh. causal is use_causal_mask in tf.keras."""
    query, value, key = _query_value_key(inputs, "Attention")
    if score_mode == "dot":
        scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
        scores = scores if scale is None else ops.multiply(scores, scale)
    elif concat_score_weight is not None:
        total = ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3))
        total = total if scale is None else ops.multiply(total, scale)
        scores = ops.multiply(ops.sum(ops.tanh(total), -1), concat_score_weight)
    else:
        raise ArgumentError("Attention: unknown score_mode", expected="dot or concat", received=score_mode)
    causal = use_causal_mask or causal
    results = _scores_to_output(scores, value, query_mask, value_mask, causal, random_key, dropout)
    return _given(results, return_attention_scores)


@layer("AdditiveAttention", weights=[Weight("scale", when="use_scale")], outputs=_outputs, draws=["dropout"])
def additive_attention(
    inputs: Sequence[Array],
    scale: Array | None = None,
    query_mask: Array | None = None,
    value_mask: Array | None = None,
    random_key: Array | None = None,
    /,
    use_scale: bool = True,
    dropout: float = 0.0,
    causal: bool = False,
    use_causal_mask: bool = False,
    return_attention_scores: bool = False,
) -> Any:
    """Softmax(Σ scale · tanh(query + key)) · value. Source: Bahdanau et al., 2014."""
    query, value, key = _query_value_key(inputs, "AdditiveAttention")
    total = ops.tanh(ops.add(ops.expand_dims(query, -2), ops.expand_dims(key, -3)))
    scores = ops.sum(total if scale is None else ops.multiply(total, scale), -1)
    causal = use_causal_mask or causal
    results = _scores_to_output(scores, value, query_mask, value_mask, causal, random_key, dropout)
    return _given(results, return_attention_scores)


def _projected(x: Array, kernel: Array, bias: Array | None) -> Array:
    """(…, features) · (features, heads, size) -> (…, heads, size)."""
    y = ops.tensordot(x, kernel, ((len(x.shape) - 1,), (0,)))
    return y if bias is None else ops.add(y, bias)


def _allowed(
    shape: tuple[int, int],
    masks: tuple[Array | None, Array | None, Array | None],
    attention_mask: Array | None,
    causal: bool,
    sliding_window: int | None,
) -> Any:
    """Which keys each query sees, (N or 1, queries, keys), from all masks; None for all."""
    query_mask, value_mask, key_mask = masks
    parts: list[Any] = []
    if query_mask is not None:
        parts.append(ops.expand_dims(query_mask, -1))
    parts += [ops.expand_dims(mask, -2) for mask in (value_mask, key_mask) if mask is not None]
    if causal:
        parts.append(_causal(*shape)[None])
    if sliding_window is not None:
        affordable(shape[0] * shape[1], LARGEST_MASK, "attention", "the sliding window")
        distance = np.arange(shape[0])[:, None] - np.arange(shape[1])
        parts.append((np.abs(distance) < sliding_window)[None])
    if attention_mask is not None:
        parts.append(ops.cast(attention_mask, "bool"))
    result: Any = None
    for part in parts:
        result = part if result is None else ops.logical_and(result, part)
    return result


def _masked_softmax(scores: Array, allowed: Any, axes: tuple[int, ...], zeros: bool) -> Array:
    """Softmax over the last axes without what is not allowed.

    A query that may see nothing gets zeros, or the average of all where Keras takes its fused attention.
    """
    if allowed is not None:
        scores = ops.where(allowed, scores, -3e4 if scores.dtype.itemsize == 2 else -1e9)
    if len(axes) == 1:
        weights = ops.softmax(scores, axes[0])
    else:
        weights = ops.exp(ops.subtract(scores, ops.logsumexp(scores, axes, True)))
    return ops.where(allowed, weights, 0.0) if allowed is not None and zeros else weights


def _projections(*names: str, underscore: bool = False) -> list[Weight]:
    """Kernel and bias of each dense layer inside."""
    weights = []
    for name in names:
        when = "use_gate" if name == "gate" else None
        folder = f"{'_' if underscore or name == 'gate' else ''}{name}_dense/vars"
        weights.append(Weight(f"{name}_kernel", when=when, path=f"{folder}/0"))
        weights.append(Weight(f"{name}_bias", when=f"use_bias&{when}" if when else "use_bias", path=f"{folder}/1"))
    return weights


@layer(
    "MultiHeadAttention",
    weights=_projections("query", "key", "gate", "value", "output"),
    masks=True,
    outputs=_outputs,
    draws=["dropout"],
)
def multi_head_attention(
    query: Array,
    value: Array,
    key: Array | None = None,
    query_kernel: Array | None = None,
    query_bias: Array | None = None,
    key_kernel: Array | None = None,
    key_bias: Array | None = None,
    gate_kernel: Array | None = None,
    gate_bias: Array | None = None,
    value_kernel: Array | None = None,
    value_bias: Array | None = None,
    output_kernel: Array | None = None,
    output_bias: Array | None = None,
    query_mask: Array | None = None,
    value_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    random_key: Array | None = None,
    /,
    num_heads: int = 1,
    key_dim: int = 1,
    value_dim: int | None = None,
    dropout: float = 0.0,
    use_bias: bool = True,
    output_shape: Any = None,
    attention_axes: Any = None,
    sliding_window: int | None = None,
    flash_attention: bool | None = None,
    use_gate: bool = False,
    use_causal_mask: bool = False,
    return_attention_scores: bool = False,
) -> Any:
    """Softmax(q · kᵀ / √key_dim) · v in each head. query: (N, T, F); value and key: (N, S, F) -> (N, T, F).

    Kernels: (features, heads, size), and (heads, size, features…) for the output. attention_axes: what is attended
    over where the inputs have more axes. Source: Vaswani et al., 2017.
    """
    rank = len(query.shape)
    axes = tuple(range(1, rank - 1)) if attention_axes is None else attention_axes
    axes = tuple(sorted(a % rank for a in ((axes,) if isinstance(axes, int) else axes)))
    q = _projected(query, query_kernel, query_bias)
    k = _projected(value if key is None else key, key_kernel, key_bias)
    v = _projected(value, value_kernel, value_bias)
    letters = iter(string.ascii_lowercase)
    names = {axis: next(letters) for axis in range(rank - 1)}
    targets = {axis: next(letters) for axis in axes}
    head, size = next(letters), next(letters)
    sources = [names[axis] for axis in axes]
    of_query = "".join(targets.get(axis, names[axis]) for axis in range(rank - 1)) + head
    of_key = "".join(names.values()) + head
    batch = "".join(name for axis, name in names.items() if axis not in axes)
    of_scores = batch + head + "".join(targets.values()) + "".join(sources)
    scores = ops.einsum(f"{of_query}{size},{of_key}{size}->{of_scores}", ops.multiply(q, key_dim**-0.5), k)
    allowed = None
    if len(axes) == 1 or attention_mask is not None:
        shape = (int(query.shape[1]), int(value.shape[1]))
        allowed = _allowed(shape, (query_mask, value_mask, key_mask), attention_mask, use_causal_mask, sliding_window)
    elif use_causal_mask or query_mask is not None or value_mask is not None or sliding_window is not None:
        raise UnsupportedFormatError("MultiHeadAttention over several axes takes no masks but attention_mask")
    if allowed is not None:
        for _ in range(len(scores.shape) - len(allowed.shape)):
            allowed = ops.expand_dims(allowed, -2 * len(axes) - 1)
    last = tuple(range(len(scores.shape) - len(axes), len(scores.shape)))
    weights = _masked_softmax(scores, allowed, last, zeros=dropout > 0 or return_attention_scores or rank != 3)
    y = ops.einsum(f"{of_scores},{of_key}{size}->{of_query}{size}", dropped(random_key, weights, dropout), v)
    if gate_kernel is not None:
        y = ops.multiply(y, ops.sigmoid(_projected(query, gate_kernel, gate_bias)))
    y = ops.tensordot(y, output_kernel, ((rank - 1, rank), (0, 1)))
    return _given((y if output_bias is None else ops.add(y, output_bias), weights), return_attention_scores)


@layer(
    "GroupQueryAttention",
    "GroupedQueryAttention",
    weights=_projections("query", "key", "gate", "value", "output", underscore=True),
    masks=True,
    outputs=_outputs,
    draws=["dropout"],
)
def group_query_attention(
    query: Array,
    value: Array,
    key: Array | None = None,
    query_kernel: Array | None = None,
    query_bias: Array | None = None,
    key_kernel: Array | None = None,
    key_bias: Array | None = None,
    gate_kernel: Array | None = None,
    gate_bias: Array | None = None,
    value_kernel: Array | None = None,
    value_bias: Array | None = None,
    output_kernel: Array | None = None,
    output_bias: Array | None = None,
    query_mask: Array | None = None,
    value_mask: Array | None = None,
    key_mask: Array | None = None,
    attention_mask: Array | None = None,
    random_key: Array | None = None,
    /,
    head_dim: int = 1,
    num_query_heads: int = 1,
    num_key_value_heads: int = 1,
    dropout: float = 0.0,
    use_bias: bool = True,
    sliding_window: int | None = None,
    flash_attention: bool | None = None,
    use_gate: bool = False,
    use_causal_mask: bool = False,
    return_attention_scores: bool = False,
) -> Any:
    """Multi-head attention in which groups of query heads share heads of keys and values. Source: Ainslie, 2023."""
    source = value if key is None else key
    repeats = num_query_heads // num_key_value_heads
    q = _projected(query, query_kernel, query_bias)
    k = ops.repeat(_projected(source, key_kernel, key_bias), repeats, 2)
    v = ops.repeat(_projected(value, value_kernel, value_bias), repeats, 2)
    scores = ops.einsum("bquh,bkuh->buqk", ops.multiply(q, head_dim**-0.5), k)
    shape = (int(query.shape[1]), int(value.shape[1]))
    allowed = _allowed(shape, (query_mask, value_mask, key_mask), attention_mask, use_causal_mask, sliding_window)
    if allowed is not None and len(allowed.shape) == 3:
        allowed = ops.expand_dims(allowed, -3)
    weights = _masked_softmax(scores, allowed, (3,), zeros=dropout > 0 or return_attention_scores)
    y = ops.einsum("buqk,bkuh->bquh", dropped(random_key, weights, dropout), v)
    if gate_kernel is not None:
        y = ops.multiply(y, ops.sigmoid(_projected(query, gate_kernel, gate_bias)))
    y = ops.tensordot(y, output_kernel, ((2, 3), (0, 1)))
    return _given((y if output_bias is None else ops.add(y, output_bias), weights), return_attention_scores)
