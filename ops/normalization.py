"""Normalisation by statistics: over the batch, over a layer's features, over groups of channels, over neighbours.

Images are (N, C, ...): the channel axis is 1. All but `batch_norm` rest on `standardize`, which computes in blocks
and keeps for its gradient only the input and the statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import inf, prod
from typing import Any

from zoonet.ops.elementwise import abs, add, cast, divide, maximum, multiply, negative, pow, sqrt, square, subtract
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.reductions import max, normalize_axes, sum
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import float_values, floats, sample
from zoonet.ops.shapes import reshape
from zoonet.ops.standardization import require_eps, require_floating, standardize
from zoonet.ops.types import Array, TensorType

__all__ = [
    "batch_norm",
    "batch_norm_training",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
    "window_sum",
]


def _require_channels(name: str, x: Any, **parameters: Any) -> None:
    """Check that x is (N, C, ...) and that each parameter given has shape (C,)."""
    if len(x.shape) < 2:
        raise ShapeError(f"{name}: x has no channel axis", expected="(N, C, ...)", received=tuple(x.shape))
    require_floating(name, x=x, **parameters)
    for label, parameter in parameters.items():
        if parameter is not None and tuple(parameter.shape) != (x.shape[1],):
            raise ShapeError(
                f"{name}: {label} does not fit the channels of x",
                expected=f"shape ({x.shape[1]},)",
                received=tuple(parameter.shape),
            )


def _per_channel(parameter: Any, ndim: int) -> Any:
    """A vector of channels as an array that broadcasts against (N, C, ...)."""
    return None if parameter is None else reshape(parameter, (1, parameter.shape[0]) + (1,) * (ndim - 2))


# -- batch normalisation with given statistics ------------------------------------------------------------------------


@op(
    samples=[
        sample(floats(2, 3, 4, 2), floats(3), floats(3, low=0.5)),
        sample(floats(2, 3, 4), floats(3), floats(3, low=0.5), floats(3), floats(3), 1e-3),
        sample(floats(5, 2), floats(2), floats(2, low=0.5), None, floats(2)),
        sample(floats(0, 2, 3), floats(2), floats(2, low=0.5), floats(2)),
    ]
)
def batch_norm(
    xp: Any,
    x: Array,
    mean: Array,
    variance: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + eps) · weight + bias per channel, with given statistics: batch norm in inference.

    x: (N, C, ...), floating; the others (C,) -> as x. Raises ShapeError, DTypeError, ArgumentError (eps < 0).
    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), `torch.nn.functional.batch_norm` with training=False.
    """
    scale = 1 / xp.sqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    spread = (1, x.shape[1]) + (1,) * (x.ndim - 2)
    y = x * scale.reshape(spread).astype(x.dtype, copy=False)
    y += shift.reshape(spread).astype(x.dtype, copy=False)
    return y


@batch_norm.type
def _(
    x: TensorType,
    mean: TensorType,
    variance: TensorType,
    weight: TensorType | None,
    bias: TensorType | None,
    eps: float,
) -> TensorType:
    _require_channels("batch_norm", x, mean=mean, variance=variance, weight=weight, bias=bias)
    require_eps("batch_norm", eps)
    return x


@batch_norm.vjp
def _(
    gy: Array,
    _y: Array,
    x: Array,
    mean: Array,
    variance: Array,
    weight: Array | None,
    _bias: Array | None,
    eps: float,
) -> Any:
    ndim = len(x.shape)
    axes = (0, *range(2, ndim))
    rstd = divide(1.0, sqrt(add(variance, eps)))
    scale = rstd if weight is None else multiply(rstd, weight)

    @cache
    def total() -> Any:
        return sum(gy, axes)

    @cache
    def centred() -> Any:
        return sum(multiply(gy, subtract(x, _per_channel(mean, ndim))), axes)

    return (
        lambda: multiply(gy, _per_channel(scale, ndim)),
        lambda: negative(multiply(total(), scale)),
        lambda: multiply(multiply(centred(), scale), multiply(multiply(rstd, rstd), -0.5)),
        None if weight is None else lambda: multiply(centred(), rstd),
        None if _bias is None else total,
    )


# -- what networks call -----------------------------------------------------------------------------------------------


@composite(
    samples=[
        sample(floats(3, 2, 2, 3), floats(2), floats(2), floats(2), floats(2, low=0.5)),
        sample(floats(4, 3), None, None, floats(3), floats(3, low=0.5), 0.3, 1e-3),
        sample(floats(2, 2, 3), floats(2), None, floats(2), floats(2, low=0.5), 1.0),
    ]
)
def batch_norm_training(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array,
    running_variance: Array,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Batch norm in training: x is normalised by its own statistics per channel, and running ones move towards them.

    x: (N, C, ...), floating, more than one element per channel; the other arrays (C,) -> (y, new running mean, new
    running variance). y uses the biased variance, the running one the unbiased: new = (1 - momentum)·old +
    momentum·batch. Raises ShapeError, DTypeError, ArgumentError. Source: Ioffe and Szegedy 2015
    (arXiv:1502.03167), `torch.nn.functional.batch_norm` with training=True.
    """
    _require_channels(
        "batch_norm_training",
        x,
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_variance=running_variance,
    )
    ndim = len(x.shape)
    axes = (0, *range(2, ndim))
    count = prod(x.shape[i] for i in axes)
    if count < 2:
        raise ShapeError(
            "batch_norm_training needs more than one element per channel",
            expected="N · (product of the axes after C) > 1",
            received=tuple(x.shape),
            fix="use a larger batch, or batch_norm with fixed statistics",
        )
    y, center, variance = standardize(x, _per_channel(weight, ndim), _per_channel(bias, ndim), axes, eps)

    def moved(old: Any, new: Any, correction: float) -> Any:
        new = cast(reshape(new, old.shape), old.dtype)
        return add(multiply(old, 1 - momentum), multiply(new, momentum * correction))

    return y, moved(running_mean, center, 1.0), moved(running_variance, variance, count / (count - 1))


def _over_trailing(
    name: str,
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any,
    bias: Any,
    eps: float,
    centered: bool,
) -> Any:
    """`standardize` over the trailing axes that normalized_shape names, as rows."""
    trailing = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    shape = tuple(x.shape)
    require_floating(name, x=x, weight=weight, bias=bias)
    if not trailing or shape[len(shape) - len(trailing) :] != trailing:
        raise ShapeError(
            f"{name}: normalized_shape is not the end of the shape of x", expected=trailing, received=shape
        )
    for label, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and tuple(parameter.shape) != trailing:
            raise ShapeError(
                f"{name}: {label} does not fit normalized_shape",
                expected=trailing,
                received=tuple(parameter.shape),
            )
    features = prod(trailing)
    rows = prod(shape[: len(shape) - len(trailing)])
    scale, shift = [None if p is None else reshape(p, (1, features)) for p in (weight, bias)]
    return reshape(standardize(reshape(x, (rows, features)), scale, shift, (1,), eps, centered)[0], shape)


@composite(
    samples=[
        sample(floats(2, 3, 4), 4),
        sample(floats(2, 3, 4), (3, 4), floats(3, 4), floats(3, 4), 1e-3),
        sample(floats(5, 4), (4,), floats(4)),
        sample(floats(0, 4), (4,), floats(4), floats(4)),
    ]
)
def layer_norm(
    x: Array,
    normalized_shape: int | Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """x normalised over its trailing axes, of sizes normalized_shape, times weight plus bias.

    x: (..., *normalized_shape), floating; weight, bias: normalized_shape -> as x. Raises ShapeError, DTypeError.
    Source: Ba, Kiros and Hinton 2016 (arXiv:1607.06450), `torch.nn.functional.layer_norm`.
    """
    return _over_trailing("layer_norm", x, normalized_shape, weight, bias, eps, True)


@composite(
    samples=[
        sample(floats(2, 3, 4), 4, floats(4)),
        sample(floats(2, 3, 4), (3, 4), None, 1e-3),
    ]
)
def rms_norm(x: Array, normalized_shape: int | Sequence[int], weight: Array | None = None, eps: float = 1e-6) -> Array:
    """x divided by the root of its mean square over its trailing axes, times weight.

    x: (..., *normalized_shape), floating; weight: normalized_shape -> as x. Raises ShapeError, DTypeError.
    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), `torch.nn.functional.rms_norm`.
    """
    return _over_trailing("rms_norm", x, normalized_shape, weight, None, eps, False)


@composite(
    samples=[
        sample(floats(2, 6, 3), 3, floats(6), floats(6)),
        sample(floats(2, 4, 2, 3), 2, floats(4), None, 1e-3),
        sample(floats(3, 4), 1),
    ]
)
def group_norm(
    x: Array, groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """x normalised per picture over groups of consecutive channels, then times weight plus bias per channel.

    x: (N, C, ...), floating, C a multiple of groups; weight, bias: (C,) -> as x. Raises ShapeError, DTypeError,
    ArgumentError. Source: Wu and He 2018 (arXiv:1803.08494), `torch.nn.functional.group_norm`.
    """
    _require_channels("group_norm", x, weight=weight, bias=bias)
    pictures, channels, *rest = x.shape
    if groups < 1 or channels % groups:
        raise ArgumentError(
            "group_norm: channels do not divide into groups",
            expected=f"a divisor of {channels}",
            received=groups,
        )
    parts = (channels // groups, prod(rest))
    scale, shift = [None if p is None else reshape(p, (1, groups, parts[0], 1)) for p in (weight, bias)]
    y = standardize(reshape(x, (pictures, groups, *parts)), scale, shift, (2, 3), eps)[0]
    return reshape(y, tuple(x.shape))


@composite(samples=[sample(floats(2, 3, 4), floats(3), floats(3)), sample(floats(2, 2, 3, 2), None, None, 1e-3)])
def instance_norm(x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5) -> Array:
    """x normalised per picture and channel, then times weight plus bias per channel.

    x: (N, C, ...), floating; weight, bias: (C,) -> as x. Raises ShapeError, DTypeError. Source: Ulyanov, Vedaldi
    and Lempitsky 2016 (arXiv:1607.08022), `torch.nn.functional.instance_norm`.
    """
    return group_norm(x, x.shape[1] if len(x.shape) > 1 else 1, weight, bias, eps)


@op(samples=[sample(floats(2, 5, 3), 1, 1, 2), sample(floats(4, 2), 0, 2, 0), sample(floats(2, 3), -1, 5, 1)])
def window_sum(xp: Any, x: Array, axis: int, before: int, after: int) -> Array:
    """Sums over a window that slides along an axis: of element i, elements i - before to i + after that exist.

    x: any shape -> as x. Raises ShapeError for an axis that x does not have, ArgumentError for a negative extent.
    """
    size = x.shape[axis]
    result = x.copy()
    moved, source = xp.moveaxis(result, axis, 0), xp.moveaxis(x, axis, 0)
    for offset in range(1, size):
        if offset <= before:
            moved[offset:] += source[: size - offset]
        if offset <= after:
            moved[: size - offset] += source[offset:]
    return result


@window_sum.type
def _(x: TensorType, axis: int, before: int, after: int) -> TensorType:
    normalize_axes("window_sum", x.ndim, axis)
    if before < 0 or after < 0:
        raise ArgumentError("window_sum: an extent is negative", expected="at least 0", received=(before, after))
    return x


@window_sum.vjp
def _(gy: Array, _y: Array, _x: Array, axis: int, before: int, after: int) -> Any:
    return window_sum(gy, axis, after, before)


@composite(
    samples=[
        sample(floats(2, 6, 3), 3, 0.5, 0.75, 2.0),
        sample(floats(2, 5, 2, 2), 4, 0.1),
    ]
)
def local_response_norm(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """x / (k + alpha/size · sum of squares over `size` neighbouring channels) ** beta.

    x: (N, C, ...), floating -> as x. The window of channel c is c - size//2 to c + (size - 1)//2. Raises ShapeError,
    DTypeError, ArgumentError. Source: Krizhevsky, Sutskever and Hinton 2012, `torch.nn.functional.local_response_norm`.
    """
    _require_channels("local_response_norm", x)
    if size < 1:
        raise ArgumentError("local_response_norm: size is too small", expected="at least 1", received=size)
    squares = window_sum(square(x), 1, size // 2, (size - 1) // 2)
    return divide(x, pow(add(multiply(squares, alpha / size), k), beta))


@composite(
    samples=[
        sample(floats(2, 3, 4)),
        sample(floats(2, 3), 1.0, -1),
        sample(floats(3, 4), inf, 0),
        sample(floats(2, 5), 3.0, 1),
        sample(float_values([[3.0, 4.0], [5.0, -12.0]]), 2.0, -1, 7.0),  # rows of norms 5 and 13
    ]
)
def normalize(x: Array, p: float = 2.0, axis: int | Sequence[int] = 1, eps: float = 1e-12) -> Array:
    """x divided by its p-norm over axes, or by eps where that is larger.

    x: any shape, floating; p: above 0, may be infinite -> as x. The gradient is finite at zero vectors. Raises
    ShapeError, DTypeError, ArgumentError. Source: `torch.nn.functional.normalize`.
    """
    require_floating("normalize", x=x)
    if not p > 0:
        raise ArgumentError("normalize: p is not a norm's order", expected="a number above 0", received=p)
    if p == inf:
        return divide(x, maximum(max(abs(x), axis, True), eps))
    powers: dict[float, Callable[[Any], Any]] = {1.0: abs, 2.0: square}
    total = sum(powers.get(p, lambda a: pow(abs(a), p))(x), axis, True)
    least = eps**p if eps**p > 1e-37 else 1e-37  # stays above 0 in float32
    bounded = maximum(total, least)
    return divide(x, bounded if p == 1 else sqrt(bounded) if p == 2 else pow(bounded, 1 / p))
