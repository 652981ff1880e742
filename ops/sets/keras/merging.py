"""Layers that take several tensors and give one, and how masks of several tensors become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import composite
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array

__all__ = ["any_mask", "concatenated_mask", "embedding_mask", "masking_mask"]


def _same_rank(inputs: Sequence[Array]) -> list[Array]:
    """Arrays of lower rank get axes after the first."""
    rank = max(len(x.shape) for x in inputs)
    return [
        ops.reshape(x, (*x.shape[:1], *(1,) * (rank - len(x.shape)), *x.shape[1:])) if len(x.shape) < rank else x
        for x in inputs
    ]


def _declare_merge(name: str, function: Callable[[list[Array]], Array]) -> None:
    @layer(name)
    def merge(inputs: Sequence[Array], /) -> Array:
        """Arrays combined element by element, with broadcasting."""
        return function(_same_rank(inputs))


def _subtract(inputs: list[Array]) -> Array:
    if len(inputs) != 2:
        raise ArgumentError("Subtract takes two inputs", expected=2, received=len(inputs))
    return ops.subtract(*inputs)


for _name, _function in {
    "Add": lambda inputs: reduce(ops.add, inputs),
    "Subtract": _subtract,
    "Multiply": lambda inputs: reduce(ops.multiply, inputs),
    "Average": lambda inputs: ops.divide(reduce(ops.add, inputs), float(len(inputs))),
    "Maximum": lambda inputs: reduce(ops.maximum, inputs),
    "Minimum": lambda inputs: reduce(ops.minimum, inputs),
}.items():
    _declare_merge(_name, _function)


@layer("Concatenate")
def concatenate(inputs: Sequence[Array], /, axis: int = -1) -> Array:
    """Arrays one after the other along an axis."""
    return ops.concat(tuple(inputs), axis)


@layer("Dot")
def dot(inputs: Sequence[Array], /, axes: Any, normalize: bool = False) -> Array:
    """Products of two arrays summed over one axis of each, for each item by itself; vectors give (N, 1).

    axes: one axis for both, or one for each; 0 is the batch. normalize: by lengths along the axes, for cosines.
    """
    if len(inputs) != 2:
        raise ArgumentError("Dot takes two inputs", expected=2, received=len(inputs))
    ranks = [len(x.shape) for x in inputs]
    given = (axes, axes) if isinstance(axes, int) else tuple(axes)
    places = [axis % rank for axis, rank in zip(given, ranks, strict=True)]
    if 0 in places:
        raise ArgumentError("Dot cannot sum over the batch", expected="axes other than 0", received=axes)
    arrays = [ops.normalize(x, 2.0, place, 1e-6) if normalize else x for x, place in zip(inputs, places, strict=True)]
    (x, y), (a, b) = arrays, places
    if int(x.shape[a]) != int(y.shape[b]):
        raise ShapeError("Dot: sizes differ", expected=list(x.shape), received=f"{list(y.shape)} for axes {axes}")
    x, y = ops.moveaxis(x, a, -1), ops.moveaxis(y, b, 1)
    left, right = tuple(x.shape[1:-1]), tuple(y.shape[2:])
    product = ops.matmul(
        ops.reshape(x, (x.shape[0], math.prod(left), x.shape[-1])),
        ops.reshape(y, (y.shape[0], y.shape[1], math.prod(right))),
    )
    return ops.reshape(product, (x.shape[0], *((*left, *right) or (1,))))


# -- masks -------------------------------------------------------------------------------------------------------


@composite(inline=True, exact=True, name="keras.mask.embedding", differentiable=False)
def embedding_mask(inputs: Array) -> Array:
    """Where integers are not 0."""
    return ops.not_equal(inputs, 0)


@composite(inline=True, exact=True, name="keras.mask.masking", differentiable=False)
def masking_mask(inputs: Array, mask_value: float = 0.0) -> Array:
    """Steps with a feature that is not mask_value."""
    return ops.any(ops.not_equal(inputs, mask_value), -1)


@composite(inline=True, exact=True, name="keras.mask.any", differentiable=False)
def any_mask(masks: Sequence[Array]) -> Array:
    """Where one of the masks is true."""
    return reduce(ops.logical_or, masks)


@composite(inline=True, exact=True, name="keras.mask.concatenate", differentiable=False)
def concatenated_mask(inputs: Sequence[Array], masks: Sequence[Array], known: Sequence[int], axis: int = -1) -> Array:
    """The mask of arrays concatenated along an axis. masks: those of the arrays whose numbers are in `known`."""
    found = dict(zip(known, masks, strict=True))
    wide = []
    for position, x in enumerate(inputs):
        mask = found.get(position)
        if mask is None:
            wide.append(ops.ones_like(x, dtype="bool"))
        elif len(mask.shape) < len(x.shape):
            wide.append(ops.logical_or(ops.expand_dims(mask, -1), ops.zeros_like(x, dtype="bool")))
        else:
            wide.append(mask)
    return ops.any(ops.concat(tuple(wide), axis), -1)
