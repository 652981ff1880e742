"""Matrix products, attention and rotary embeddings as ONNX nodes."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import LAST, Builder
from zoonet.formats.onnx.writing.sizes import Dimension, Size, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.types import bool_, float32, int64, is_floating


@emitter("matmul")
def _(b: Builder, x: Tensor, y: Tensor) -> str:
    return b.node("MatMul", b.cast(x, b.outputs[0].dtype), b.cast(y, b.outputs[0].dtype))


@emitter("linear")
def _(b: Builder, x: Tensor, weight: Tensor, bias: Tensor | None) -> str:
    dtype = b.outputs[0].dtype
    given, matrix = b.cast(x, dtype), b.cast(weight, dtype)
    added = None if bias is None else b.cast(bias, dtype)
    if x.ndim == 2 and weight.ndim == 2 and is_floating(dtype):
        return b.node("Gemm", given, matrix, added, transB=1)
    turned = b.transpose(matrix, [1, 0]) if weight.ndim == 2 else matrix
    y = b.node("MatMul", given, turned)
    return y if added is None else b.node("Add", y, added)


@emitter("einsum")
def _(b: Builder, equation: str, *operands: Tensor) -> str:
    if "..." in equation and len({o.ndim for o in operands}) > 1:
        raise b.refuse("ellipses that stand for different numbers of axes", "write the axes out")
    return b.node("Einsum", *[b.cast(o, b.outputs[0].dtype) for o in operands], equation=equation)


# -- attention ---------------------------------------------------------------------------------------------------


class _Attention:
    """Scaled dot products of heads in groups: query (…, H', G, T, D), key and value (…, H', 1, S, ·)."""

    def __init__(
        self,
        b: Builder,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
        window: Any,
        query_offset: Any,
        softcap: float | None,
    ) -> None:
        self.b, self.dtype = b, query.dtype
        self.query, self.key, self.value, self.mask = query, key, value, mask
        self.scale = 1 / sqrt(max(int(query.shape[-1]), 1)) if scale is None else scale  # type: ignore[arg-type]
        self.softcap = softcap or None
        left, right = (-1, -1) if window is None else window
        self.left, self.right = left, 0 if is_causal else right
        self.offset = query_offset
        heads, shared = (query.shape[-3], key.shape[-3]) if query.ndim > 2 else (1, 1)
        if not isinstance(heads, int) or not isinstance(shared, int):
            heads, shared = 1, 1  # as many of one as of the other
        self.group = heads // shared if shared else 1
        self.grouped = self.group != 1

    def number(self, value: float) -> str:
        return self.b.constant(np.asarray(value, self.dtype))

    def split(self, x: Tensor) -> str:
        """(…, H, N, D) as (…, H', G, N, D) where several heads share a key; as it is otherwise."""
        if not self.grouped:
            return x.name
        *leading, heads, count, depth = x.shape
        shared = self.key.shape[-3]
        assert isinstance(shared, int)
        assert isinstance(heads, int)
        return self.b.reshape(x, [*leading, shared, heads // shared, count, depth])

    def split_mask(self, mask: Tensor) -> str:
        if not self.grouped or mask.ndim < 3:
            return mask.name
        return self.split(mask) if mask.shape[-3] != 1 else self.b.unsqueeze(mask, [mask.ndim - 3])

    def weights(self) -> tuple[str, str | None]:
        """Softmax of the scores (0 in rows that see no key), and the slope of the soft cap."""
        b = self.b
        query, key = self.split(self.query), self.split(self.key)
        rank = self.query.ndim + self.grouped
        turned = b.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
        scores = b.node("MatMul", b.node("Mul", query, self.number(self.scale)), turned)
        slope = None
        if self.softcap is not None:
            share = b.node("Tanh", b.node("Div", scores, self.number(self.softcap)))
            slope = b.node("Sub", self.number(1), b.node("Mul", share, share))
            scores = b.node("Mul", share, self.number(self.softcap))
        never = self.number(-np.inf)
        if self.mask is not None:
            mask = self.split_mask(self.mask)
            if self.mask.dtype == bool_:
                scores = b.node("Where", mask, scores, never)
            else:
                scores = b.node("Add", scores, b.cast(Tensor(mask, (), self.mask.dtype), self.dtype))
        seen = self._band()
        if seen is not None:
            scores = b.node("Where", seen, scores, never)
        y = b.node("Softmax", scores, axis=-1)
        if self.mask is not None or (self.left is not None and self.left >= 0):  # a row may see nothing
            y = b.node("Where", b.node("IsNaN", y), self.number(0), y)
        return y, slope

    def _band(self) -> str | None:
        """Which keys lie in the window of which query, (T, S); None where all do."""
        if self.left < 0 and self.right < 0:
            return None
        b = self.b
        rows, columns = self.query.shape[-2], self.key.shape[-2]
        keys = b.range(columns)
        queries = b.range(rows)
        if self.offset != 0:
            queries = b.node("Add", queries, b.number(self.offset, int64))
        distance = b.node("Sub", b.unsqueeze(keys, [0]), b.unsqueeze(queries, [1]))
        parts = []
        if self.right >= 0:
            parts.append(b.node("LessOrEqual", distance, b.constant(self.right, int64)))
        if self.left >= 0:
            parts.append(b.node("GreaterOrEqual", distance, b.constant(-self.left, int64)))
        return parts[0] if len(parts) == 1 else b.node("And", *parts)

    def joined(self, x: str, like: Tensor, depth: Dimension) -> str:
        """(…, H', G, N, D) as (…, H, N, D)."""
        return self.b.reshape(x, [*like.shape[:-1], depth]) if self.grouped else x


@emitter("scaled_dot_product_attention")
def _(b: Builder, query: Tensor, key: Tensor, value: Tensor, *options: Any) -> str:
    attention = _Attention(b, query, key, value, *options)
    weights, _ = attention.weights()
    y = b.node("MatMul", weights, attention.split(value))
    return attention.joined(y, query, value.shape[-1])


@emitter("attention_gradient")
def _(b: Builder, gy: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Any, *options: Any) -> tuple[str, ...]:
    attention = _Attention(b, query, key, value, mask, *options)
    weights, slope = attention.weights()
    rank = query.ndim + attention.grouped
    swap = [*range(rank - 2), rank - 1, rank - 2]
    given = attention.split(gy)

    def shared(x: str, like: Tensor) -> str:
        if not attention.grouped:
            return x
        return b.reshape(b.reduce("ReduceSum", x, [rank - 3], True), like.shape)

    gvalue = shared(b.node("MatMul", b.transpose(weights, swap), given), value)
    gweights = b.node("MatMul", given, b.transpose(attention.split(value), swap))
    total = b.reduce("ReduceSum", b.node("Mul", gweights, weights), [rank - 1], True)
    gscores = b.node("Mul", b.node("Sub", gweights, total), weights)
    outer = gscores
    if slope is not None:
        gscores = b.node("Mul", gscores, slope)
    gscores = b.node("Mul", gscores, attention.number(attention.scale))
    gquery = attention.joined(b.node("MatMul", gscores, attention.split(key)), query, query.shape[-1])
    gkey = shared(b.node("MatMul", b.transpose(gscores, swap), attention.split(query)), key)
    if len(b.outputs) == 3:
        return gquery, gkey, gvalue
    return gquery, gkey, gvalue, _mask_gradient(b, attention, outer, mask, query, key)


def _mask_gradient(b: Builder, attention: _Attention, scores: str, mask: Tensor, query: Tensor, key: Tensor) -> str:
    whole = (*query.shape[:-1], key.shape[-2])
    joined = b.reshape(scores, whole) if attention.grouped else scores
    leading = len(whole) - mask.ndim
    axes = [i for i, n in enumerate(whole) if i < leading or (mask.shape[i - leading] == 1 and n != 1)]
    summed = b.reduce("ReduceSum", joined, axes, True) if axes else joined
    return b.squeeze(summed, range(leading)) if leading else summed


# -- rotary embeddings -------------------------------------------------------------------------------------------


@emitter("rotary_tables")
def _(
    b: Builder, positions: Tensor, dimension: int, base: float, frequencies: Any, factor: float, dtype: Any
) -> tuple[str, str]:
    if frequencies is None:
        exponents = np.arange(0, dimension, 2, dtype=np.float32) / np.float32(dimension)
        rates = np.float32(1) / np.float32(base) ** exponents
    else:
        rates = np.asarray(frequencies, np.float32)
    angles = b.node("Mul", b.unsqueeze(b.cast(positions, float32), [positions.ndim]), b.constant(rates, float32))
    tables = []
    for op_type in ("Cos", "Sin"):
        table = b.node(op_type, angles)
        if factor != 1:
            table = b.node("Mul", table, b.constant(np.float32(factor)))
        tables.append(b.cast(table, b.outputs[0].dtype) if b.outputs[0].dtype != float32 else table)
    return tables[0], tables[1]


@emitter("rotary_embedding")
def _(b: Builder, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> str:
    depth, width, last = cos.shape[-1], x.shape[-1], x.ndim - 1
    if isinstance(depth, Size) or isinstance(width, Size):
        raise b.refuse("features of free size")
    cosine, sine = b.cast(cos, x.dtype), b.cast(sin, x.dtype)
    if interleaved:
        first = b.slice(x, [0], [2 * depth], [last], [2])
        second = b.slice(x, [1], [2 * depth], [last], [2])
    else:
        first = b.slice(x, [0], [depth], [last])
        second = b.slice(x, [depth], [2 * depth], [last])
    turned1 = b.node("Sub", b.node("Mul", first, cosine), b.node("Mul", second, sine))
    turned2 = b.node("Add", b.node("Mul", second, cosine), b.node("Mul", first, sine))
    if interleaved:
        pair = b.node("Concat", b.unsqueeze(turned1, [last + 1]), b.unsqueeze(turned2, [last + 1]), axis=last + 1)
        parts = [b.reshape(pair, [*x.shape[:-1], 2 * depth])]
    else:
        parts = [turned1, turned2]
    if width > 2 * depth:
        parts.append(b.slice(x, [2 * depth], [LAST], [last]))
    return parts[0] if len(parts) == 1 else b.node("Concat", *parts, axis=last)
