"""Rotary position embeddings: features of queries and keys turned by angles that grow with the position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet.ops.elementwise import add, multiply, negative, subtract
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.operands import broadcast_shapes
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import reshape
from zoonet.ops.types import BOOL, INTEGER, Array, TensorType, as_dtype, is_floating, kind_of

__all__ = ["rotary_embedding", "rotary_tables"]


def _halves(x: Any, depth: int, interleaved: bool) -> tuple[Any, Any]:
    """Views of the two members of each rotated pair."""
    return (
        (x[..., : 2 * depth : 2], x[..., 1 : 2 * depth : 2])
        if interleaved
        else (x[..., :depth], x[..., depth : 2 * depth])
    )


@op(
    samples=[
        sample(floats(2, 3, 4, 6), floats(4, 3), floats(4, 3)),
        sample(floats(2, 3, 4, 6), floats(2, 1, 4, 3), floats(2, 1, 4, 3), True),
        sample(floats(3, 4, 7), floats(4, 2), floats(4, 2)),
        sample(floats(4, 5), floats(1, 1), floats(1, 1), True),
    ]
)
def rotary_embedding(xp: Any, x: Array, cos: Array, sin: Array, interleaved: bool = False) -> Array:
    """Pairs of features of x rotated by angles that depend on the position.

    x: (..., T, D), floating; cos, sin: broadcast to (..., T, R/2), R ≤ D -> as x. Feature i < R/2 is paired with
    i + R/2, or, interleaved, 2i with 2i + 1; features from R on stay as they are. Raises ShapeError, DTypeError.
    Source: Su et al. 2021 (arXiv:2104.09864); pairs as in Hugging Face's Llama, interleaved as in Meta's.
    """
    depth = cos.shape[-1]
    y = x.copy()
    (first, second), (out1, out2) = _halves(x, depth, interleaved), _halves(y, depth, interleaved)
    out1 *= cos
    out1 -= second * sin
    out2 *= cos
    out2 += first * sin
    return y


@rotary_embedding.type
def _(x: TensorType, cos: TensorType, sin: TensorType, interleaved: bool) -> TensorType:
    for label, operand in (("x", x), ("cos", cos), ("sin", sin)):
        if not is_floating(operand.dtype):
            raise DTypeError(
                f"rotary_embedding: {label} is not floating", expected="a floating dtype", received=operand.dtype.name
            )
    fits = cos.shape == sin.shape and 1 <= cos.ndim <= x.ndim and 2 * (cos.shape[-1] or 0) <= (x.shape[-1] or 0)
    if fits:
        rotated = (*x.shape[:-1], cos.shape[-1])
        fits = broadcast_shapes("rotary_embedding", cos.shape, rotated) == rotated
    if not fits:
        raise ShapeError(
            "rotary_embedding: cos and sin do not fit x",
            expected=f"one shape that broadcasts to {x.shape[:-1]} and at most {(x.shape[-1] or 0) // 2} angles",
            received=f"{cos.shape} and {sin.shape}",
        )
    return x


@rotary_embedding.vjp
def _(gy: Array, _y: Array, x: Array, cos: Array, sin: Array, interleaved: bool) -> Any:
    depth = cos.shape[-1]

    def correlate(swapped: bool) -> Any:
        (first, second), (g1, g2) = _halves(x, depth, interleaved), _halves(gy, depth, interleaved)
        if swapped:
            total = subtract(multiply(g2, first), multiply(g1, second))
        else:
            total = add(multiply(g1, first), multiply(g2, second))
        leading = len(total.shape) - len(cos.shape)
        axes = [i for i, n in enumerate(total.shape) if i < leading or (cos.shape[i - leading] == 1 and n != 1)]
        return reshape(sum_over(total, tuple(axes)) if axes else total, tuple(cos.shape))

    return (
        lambda: rotary_embedding(gy, cos, negative(sin), interleaved),
        lambda: correlate(False),
        lambda: correlate(True),
    )


@op(
    differentiable=False,
    samples=[
        sample(ints(5, low=0, high=50), 6),
        sample(ints(2, 3, low=0, high=50), 4, 500.0, None, 0.5),
        sample(ints(3, low=0, high=9), 4, 10000.0, (1.0, 0.25), 1.0, "float64"),
    ],
)
def rotary_tables(
    xp: Any,
    positions: Array,
    dimension: int,
    base: float = 10000.0,
    frequencies: Sequence[float] | None = None,
    attention_factor: float = 1.0,
    dtype: Any = "float32",
) -> tuple[Array, Array]:
    """cos and sin of position · frequency for `rotary_embedding`, times attention_factor.

    positions: (..., T), integers -> two of (..., T, dimension / 2). frequencies: dimension / 2 numbers (for scaled
    variants) in place of base ** (-2i / dimension). Angles are computed in float32, as checkpoints were trained.
    Raises DTypeError, ArgumentError.
    """
    rates = _frequencies(dimension, base, frequencies)
    angles = positions[..., None].astype(xp.float32) * xp.asarray(rates, xp.float32)
    return xp.cos(angles) * attention_factor, xp.sin(angles) * attention_factor


def _frequencies(dimension: int, base: float, frequencies: Sequence[float] | None) -> Any:
    if frequencies is not None:
        return np.asarray(frequencies, np.float32)
    exponents = np.arange(0, dimension, 2, dtype=np.float32) / np.float32(dimension)
    return np.float32(1) / np.float32(base) ** exponents


@rotary_tables.type
def _(
    positions: TensorType,
    dimension: int,
    base: float,
    frequencies: Sequence[float] | None,
    attention_factor: float,
    dtype: Any,
) -> tuple[TensorType, TensorType]:
    if kind_of(positions.dtype) not in (BOOL, INTEGER):
        raise DTypeError("rotary_tables: positions are not integers", received=positions.dtype.name)
    if dimension < 2 or dimension % 2 or not base > 0:
        raise ArgumentError(
            "rotary_tables: dimension or base is out of range",
            expected="an even dimension and a base above 0",
            received=f"{dimension} and {base}",
        )
    if frequencies is not None and len(frequencies) != dimension // 2:
        raise ArgumentError(
            "rotary_tables: frequencies do not fit the dimension",
            expected=f"{dimension // 2} numbers",
            received=len(frequencies),
        )
    table = TensorType((*positions.shape, dimension // 2), as_dtype(dtype))
    return table, table
