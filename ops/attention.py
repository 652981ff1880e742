"""Attention: scaled dot products in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod, sqrt
from typing import Any

from zoonet.ops.comparisons import equal, greater_equal, less_equal
from zoonet.ops.creation import full_like
from zoonet.ops.elementary import exp, tanh
from zoonet.ops.elementwise import add, divide, multiply, subtract, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.gradients import vjp
from zoonet.ops.linear import matmul
from zoonet.ops.operands import broadcast_shapes
from zoonet.ops.reductions import cumsum
from zoonet.ops.reductions import max as maximum_over
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import op
from zoonet.ops.samples import bools, fixed, floats, sample
from zoonet.ops.shapes import reshape, swapaxes
from zoonet.ops.types import Array, TensorType, bool_, is_floating

__all__ = ["attention_gradient", "scaled_dot_product_attention"]

#: Most scores that exist at one time, unless the keys of one query are more: 4 MB of float32 on the CPU.
_SCORES = {"numpy": 1 << 20, "cupy": 1 << 26}
#: Queries per block where a band limits the keys of each, so that keys outside are never multiplied.
_BAND_ROWS = 128


@dataclass(frozen=True)
class _Options:
    """The arguments of attention that are not arrays, resolved: keys from position - left to position + right."""

    scale: float
    left: int | None
    right: int | None
    offset: int
    softcap: float | None

    @property
    def banded(self) -> bool:
        return self.left is not None or self.right is not None

    def keys(self, start: int, stop: int, count: int) -> slice:
        """The keys that queries start to stop - 1 can see."""
        first = 0 if self.left is None else start + self.offset - self.left
        last = count if self.right is None else stop + self.offset + self.right
        first = first if first > 0 else 0
        return slice(first, count if last > count else last if last > first else first)


def _options(
    depth: int,
    is_causal: bool,
    scale: float | None,
    window: Sequence[int] | None,
    query_offset: int,
    softcap: float | None,
) -> _Options:
    left, right = (-1, -1) if window is None else window
    if is_causal:
        right = 0
    default = 1 / sqrt(depth) if depth else 1.0
    bounds = [None if n < 0 else n for n in (left, right)]
    return _Options(default if scale is None else scale, bounds[0], bounds[1], query_offset, softcap or None)


def _split_heads(array: Any, shared: int) -> Any:
    """(..., heads, positions, depth) as (batch, shared, heads / shared, positions, depth)."""
    *leading, positions, depth = array.shape
    heads = leading[-1] if leading else 1
    return array.reshape((prod(leading[:-1]), shared, heads // shared if shared else 1, positions, depth))


def _split_mask(xp: Any, mask: Any, query: Any, shared: int) -> Any:
    """The mask as (batch, shared, heads / shared, queries, keys), where axes that it has not are of size 1."""
    if mask is None:
        return None
    ndim = query.ndim if query.ndim > 2 else 3
    *leading, heads, queries, keys = (1,) * (ndim - mask.ndim) + mask.shape
    mask = mask.reshape((*leading, heads, queries, keys))
    batch = 1 if prod(leading) == 1 else prod(query.shape[:-3])
    if batch != prod(leading):  # several leading axes, some of them broadcast
        mask = xp.broadcast_to(mask, (*query.shape[:-3], heads, queries, keys))
    split = (1, 1) if heads == 1 else (shared, heads // shared)
    return mask.reshape((batch, *split, queries, keys))


def _meet(array: Any, *slices: slice) -> Any:
    """The part of a mask that meets a block of scores."""
    if array is None:
        return None
    return array[tuple([slice(None) if n == 1 else s for n, s in zip(array.shape, slices, strict=True)])]


def _blocks(xp: Any, query: Any, keys: int, options: _Options) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Slices of batch, shared heads, queries and keys whose scores fit in memory together."""
    batch, shared, group, queries, _ = query.shape
    limit = _SCORES[xp.__name__]
    wide = keys or 1
    rows = min(queries, _BAND_ROWS if options.banded else queries, max(1, limit // wide))
    if rows == 0 or group == 0:
        return
    heads = min(shared, max(1, limit // (wide * rows * group)))
    many = max(1, limit // (wide * rows * group * heads)) if heads == shared and heads else 1
    for b in range(0, batch, many):
        for h in range(0, shared, heads):
            for q in range(0, queries, rows):
                stop = min(q + rows, queries)
                yield slice(b, b + many), slice(h, h + heads), slice(q, stop), options.keys(q, stop, keys)


def _probabilities(
    xp: Any, query: Any, key: Any, mask: Any, options: _Options, rows: slice, columns: slice
) -> tuple[Any, Any]:
    """Softmax of a block's scores, 0 in rows that see no key, and the scores' slope under the soft cap (or None)."""
    scores = xp.matmul(query * xp.asarray(options.scale, query.dtype), key.swapaxes(-1, -2))
    slope = None
    if options.softcap is not None:
        scores /= options.softcap
        xp.tanh(scores, out=scores)
        slope = 1 - scores * scores
        scores *= options.softcap
    never = xp.asarray(-inf, scores.dtype)
    if mask is not None:
        scores += xp.where(mask, xp.zeros_like(never), never) if mask.dtype == bool_ else mask
    if options.banded:
        distance = xp.arange(columns.start, columns.stop) - options.offset
        distance = distance - xp.arange(rows.start, rows.stop)[:, None]
        seen = xp.ones(distance.shape, bool)
        if options.left is not None:
            seen &= distance >= -options.left
        if options.right is not None:
            seen &= distance <= options.right
        scores += xp.where(seen, xp.zeros_like(never), never)
    if scores.shape[-1]:
        top = scores.max(axis=-1, keepdims=True)
        scores -= xp.where(top == never, xp.zeros_like(never), top)
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= xp.where(total == 0, xp.ones_like(never), total)
    return scores, slope


_QKV = (floats(2, 4, 3, 5), floats(2, 4, 6, 5), floats(2, 4, 6, 2))


@op(
    samples=[
        sample(*_QKV),
        sample(*_QKV, bools(2, 1, 3, 6)),
        sample(*_QKV, floats(4, 3, 1), False, 0.3),
        sample(*_QKV, None, True),
        sample(floats(2, 4, 3, 2), floats(2, 2, 3, 2), floats(2, 2, 3, 3), floats(1, 4, 3, 3), True),
        sample(floats(1, 3, 5, 2), floats(1, 1, 8, 2), floats(1, 1, 8, 2), None, True, None, (2, 0), 3, 1.5),
        sample(floats(2, 1, 2, 4, 2), floats(2, 1, 1, 4, 2), floats(2, 1, 1, 4, 2), floats(2, 1, 1, 1, 4)),
        sample(floats(3, 2), floats(4, 2), floats(4, 2), fixed([[1, 0, 1, 1], [0] * 4, [0, 0, 0, 1]], "bool")),
        sample(floats(2, 4, 3), floats(2, 5, 3), floats(2, 5, 3), None, False, None, (1, 1)),
    ]
)
def scaled_dot_product_attention(
    xp: Any,
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: Sequence[int] | None = None,
    query_offset: int = 0,
    softcap: float | None = None,
) -> Array:
    """softmax(query · keyᵀ · scale + mask) · value, per head; 0 for a query that sees no key.

    query: (..., H, T, D), key: (..., H', S, D), value: (..., H', S, E), one floating dtype -> (..., H, T, E). H is a
    multiple of H': query head h uses key head h // (H / H'). mask: broadcasts to (..., H, T, S), bool (True: take
    part) or floating (added). is_causal: query i sees keys up to i + query_offset (with cached keys the offset is
    their number). window: (left, right), query i sees keys from i + query_offset - left to i + query_offset + right;
    -1: no bound. softcap: scores become softcap · tanh(scores / softcap) before the mask. scale: 1/√D by default.
    Memory is bounded: at most about a million scores exist at one time. Raises ShapeError, DTypeError, ArgumentError.
    Source: Vaswani et al. 2017 (arXiv:1706.03762), `torch.nn.functional.scaled_dot_product_attention`.
    """
    options = _options(query.shape[-1], is_causal, scale, window, query_offset, softcap)
    shared = key.shape[-3] if key.ndim > 2 else 1
    q, k, v = [_split_heads(a, shared) for a in (query, key, value)]
    added = _split_mask(xp, mask, query, shared)
    y = xp.zeros((*q.shape[:-1], v.shape[-1]), query.dtype)
    for b, h, rows, columns in _blocks(xp, q, k.shape[3], options):
        part = _meet(added, b, h, slice(None), rows, columns)
        weights, _ = _probabilities(xp, q[b, h, :, rows], k[b, h, :, columns], part, options, rows, columns)
        xp.matmul(weights, v[b, h, :, columns], out=y[b, h, :, rows])
    return y.reshape((*query.shape[:-1], v.shape[-1]))


@scaled_dot_product_attention.type
def _(
    query: TensorType,
    key: TensorType,
    value: TensorType,
    mask: TensorType | None,
    is_causal: bool,
    scale: float | None,
    window: Sequence[int] | None,
    query_offset: int,
    softcap: float | None,
) -> TensorType:
    name = "scaled_dot_product_attention"
    dtypes = {t.dtype for t in (query, key, value)}
    if len(dtypes) > 1 or not is_floating(query.dtype):
        raise DTypeError(
            f"{name}: operands differ in dtype or are not floating",
            expected="query, key and value of one floating dtype",
            received=", ".join(t.dtype.name for t in (query, key, value)),
        )
    if mask is not None and mask.dtype != bool_ and not is_floating(mask.dtype):
        raise DTypeError(f"{name}: the mask is of another kind", expected="bool or floating", received=mask.dtype.name)
    q, k, v = query.shape, key.shape, value.shape
    ranks = query.ndim == key.ndim == value.ndim and query.ndim >= 2
    agree = ranks and k[:-1] == v[:-1] and q[-1] == k[-1] and q[:-3] == k[:-3]
    if agree and query.ndim > 2:
        agree = q[-3] == k[-3] or (bool(k[-3]) and q[-3] % k[-3] == 0)
    if not agree:
        raise ShapeError(
            f"{name}: shapes do not agree",
            expected="query (..., H, T, D), key (..., H', S, D), value (..., H', S, E), H a multiple of H'",
            received=f"{q}, {k}, {v}",
        )
    scores = (*q[:-1], k[-2])
    if mask is not None and (mask.ndim > len(scores) or broadcast_shapes(name, mask.shape, scores) != scores):
        raise ShapeError(f"{name}: the mask does not broadcast to the scores", expected=scores, received=mask.shape)
    if window is not None and len(window) != 2:
        raise ArgumentError(f"{name}: window is not a pair", expected="(left, right)", received=window)
    if softcap is not None and softcap < 0:
        raise ArgumentError(f"{name}: softcap is negative", expected="a number above 0", received=softcap)
    return TensorType((*q[:-1], v[-1]), query.dtype)


@scaled_dot_product_attention.vjp
def _(gy: Array, _y: Array, query: Array, key: Array, value: Array, mask: Array | None, *options: Any) -> Any:
    gradients = attention_gradient(gy, query, key, value, mask, *options)
    return gradients if len(gradients) == 4 else (*gradients, None)


@op(
    samples=[
        sample(floats(2, 4, 3, 2), *_QKV),
        sample(floats(2, 4, 3, 2), *_QKV, bools(2, 1, 3, 6), True),
        sample(floats(2, 4, 3, 2), *_QKV, floats(4, 3, 1), False, 0.3),
        sample(
            floats(1, 4, 3, 2),
            floats(1, 4, 3, 2),
            floats(1, 2, 5, 2),
            floats(1, 2, 5, 2),
            floats(1, 1, 3, 5),
            True,
            None,
            (2, -1),
            2,
            1.5,
        ),
    ]
)
def attention_gradient(
    xp: Any,
    gy: Array,
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: Sequence[int] | None = None,
    query_offset: int = 0,
    softcap: float | None = None,
) -> tuple[Array, ...]:
    """The gradients of `scaled_dot_product_attention` by query, key, value, and the mask where that is floating.

    gy: as the result; the others as `scaled_dot_product_attention` takes them -> gradients of the operands' shapes.
    Scores are computed again, block by block. Raises what `scaled_dot_product_attention` raises.
    """
    options = _options(query.shape[-1], is_causal, scale, window, query_offset, softcap)
    shared = key.shape[-3] if key.ndim > 2 else 1
    q, k, v, g = [_split_heads(a, shared) for a in (query, key, value, gy)]
    added = _split_mask(xp, mask, query, shared)
    gq, gk, gv = [xp.zeros(a.shape, a.dtype) for a in (q, k, v)]
    learned = mask is not None and mask.dtype != bool_
    gmask = xp.zeros(added.shape, added.dtype) if learned else None
    for b, h, rows, columns in _blocks(xp, q, k.shape[3], options):
        qb, kb, vb, gb = q[b, h, :, rows], k[b, h, :, columns], v[b, h, :, columns], g[b, h, :, rows]
        part = _meet(added, b, h, slice(None), rows, columns)
        weights, slope = _probabilities(xp, qb, kb, part, options, rows, columns)
        gv[b, h, :, columns] += xp.matmul(weights.swapaxes(-1, -2), gb).sum(axis=2, keepdims=True)
        gscores = xp.matmul(gb, vb.swapaxes(-1, -2))
        gscores -= (gscores * weights).sum(axis=-1, keepdims=True)
        gscores *= weights
        if gmask is not None:
            target = _meet(gmask, b, h, slice(None), rows, columns)
            axes = tuple([i for i, n in enumerate(target.shape) if n == 1])
            target += gscores.sum(axis=axes, keepdims=True) if axes else gscores
        if slope is not None:
            gscores *= slope
        gscores *= options.scale
        xp.matmul(gscores, kb, out=gq[b, h, :, rows])
        gk[b, h, :, columns] += xp.matmul(gscores.swapaxes(-1, -2), qb).sum(axis=2, keepdims=True)
    results = gq.reshape(query.shape), gk.reshape(key.shape), gv.reshape(value.shape)
    return results if gmask is None else (*results, _fold_mask(gmask, query, mask))


def _fold_mask(gmask: Any, query: Any, mask: Any) -> Any:
    """The gradient of a mask split into heads, in the shape of the mask."""
    if gmask.size == mask.size:
        return gmask.reshape(mask.shape)
    ndim = query.ndim if query.ndim > 2 else 3
    full = (1,) * (ndim - mask.ndim) + mask.shape
    gmask = gmask.reshape((*query.shape[:-3], *full[-3:]))
    axes = tuple([i for i, n in enumerate(full) if n == 1])
    return gmask.sum(axis=axes, keepdims=True).reshape(mask.shape)


@attention_gradient.type
def _(gy: TensorType, *arguments: Any) -> tuple[TensorType, ...]:
    y = scaled_dot_product_attention.type_rule(*arguments)  # type: ignore[misc]
    if gy.shape != y.shape:  # type: ignore[union-attr]
        raise ShapeError("attention_gradient: gy is not as the result", expected=y, received=gy)
    query, key, value, mask = arguments[:4]
    return (query, key, value) if mask is None or mask.dtype == bool_ else (query, key, value, mask)


@attention_gradient.vjp
def _(g: Any, _y: Any, gy: Array, query: Array, key: Array, value: Array, mask: Array | None, *options: Any) -> Any:
    learned = mask is not None and mask.dtype != bool_
    operands = (gy, query, key, value, mask) if learned else (gy, query, key, value)

    def gradient(gy: Any, *given: Any) -> Any:
        def forward(*operands: Any) -> Any:
            return _in_operators(*operands, *(() if learned else (mask,)), *options)

        return vjp(forward, *given)[1](gy)

    gradients = vjp(gradient, *operands)[1](g)
    return gradients if learned else (*gradients, None)


def _in_operators(query: Any, key: Any, value: Any, mask: Any, *arguments: Any) -> Any:
    """Attention with all scores at one time, written in operators: what derivatives of gradients are taken of."""
    options = _options(query.shape[-1], *arguments)
    leading, (queries, depth) = query.shape[:-3], query.shape[-2:]
    shared = key.shape[-3] if len(key.shape) > 2 else 1
    group = prod(query.shape[-3:-2]) // shared
    q = reshape(query, (*leading, shared, group, queries, depth))
    k, v = [reshape(a, (*leading, shared, 1, *a.shape[-2:])) for a in (key, value)]
    scores = multiply(matmul(q, swapaxes(k, -1, -2)), options.scale)
    if options.softcap is not None:
        scores = multiply(tanh(divide(scores, options.softcap)), options.softcap)
    if mask is not None:
        full = (1,) * (len(leading) + 3 - len(mask.shape)) + tuple(mask.shape)
        split = (1, 1) if full[-3] == 1 else (shared, group)
        added = reshape(mask, (*full[:-3], *split, *full[-2:]))
        scores = where(added, scores, -inf) if mask.dtype == bool_ else add(scores, added)
    if options.banded:
        ones = full_like(scores, 1, "int64")
        distance = subtract(subtract(cumsum(ones, -1), cumsum(ones, -2)), options.offset)
        if options.left is not None:
            scores = where(greater_equal(distance, -options.left), scores, -inf)
        if options.right is not None:
            scores = where(less_equal(distance, options.right), scores, -inf)
    top = maximum_over(scores, -1, True)
    weights = exp(subtract(scores, where(equal(top, -inf), 0.0, top)))
    total = sum_over(weights, -1, True)
    y = matmul(divide(weights, where(equal(total, 0.0), 1.0, total)), v)
    return reshape(y, (*query.shape[:-1], value.shape[-1]))
