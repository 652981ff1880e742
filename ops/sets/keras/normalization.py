"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ShapeError, UnsupportedFormatError
from zoonet.ops.sets.keras.common import along, axes_of, floating
from zoonet.ops.sets.keras.registry import Weight, layer, training
from zoonet.ops.types import Array

_GAMMA, _BETA = Weight("gamma", when="scale"), Weight("beta", when="center")
_STATISTICS = (Weight("moving_mean", trainable=False), Weight("moving_variance", trainable=False))


def _single_axis(axis: Any, rank: int) -> int:
    axes = axes_of(axis, rank, "BatchNormalization")
    if len(axes) != 1:
        raise UnsupportedFormatError("BatchNormalization over several axes is not supported", received=axis)
    return axes[0]


@layer(
    "BatchNormalization",
    "BatchNormalizationV1",
    "BatchNormalizationV2",
    "SyncBatchNormalization",
    weights=[_GAMMA, _BETA, *_STATISTICS],
    masks=True,
)
def batch_normalization(
    inputs: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    moving_mean: Array | None = None,
    moving_variance: Array | None = None,
    mask: Array | None = None,
    /,
    axis: Any = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    renorm: bool = False,
) -> Array:
    """(x - moving_mean) / sqrt(moving_variance + epsilon) · gamma + beta, for each position of the axis."""
    _refuse_renorm(renorm)
    position = _single_axis(axis, len(inputs.shape))
    x = ops.moveaxis(floating(inputs), position, 1)
    y = ops.batch_norm(x, moving_mean, moving_variance, gamma, beta, epsilon)
    return ops.moveaxis(y, 1, position)


def _refuse_renorm(renorm: bool) -> None:
    if renorm:
        raise UnsupportedFormatError(
            "BatchNormalization with renorm is not supported", expected="renorm=False", received=renorm
        )


@training("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization")
def batch_normalization_training(
    inputs: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    moving_mean: Array | None = None,
    moving_variance: Array | None = None,
    mask: Array | None = None,
    /,
    axis: Any = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    renorm: bool = False,
) -> tuple[Array, Array, Array]:
    """As in inference but by the statistics of the batch; also the moving ones after it (with the biased variance).

    mask: positions that count, of one axis less than the inputs.
    """
    _refuse_renorm(renorm)
    x = floating(inputs)
    rank = len(x.shape)
    position = _single_axis(axis, rank)
    others = tuple(i for i in range(rank) if i != position)
    if mask is None:
        mean, variance = ops.mean(x, others), ops.var(x, others)
    else:
        counted = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        spread = ops.add(counted, ops.zeros_like(x))
        total = ops.add(ops.sum(spread, others), 1e-7)
        mean = ops.divide(ops.sum(ops.multiply(x, spread), others), total)
        centred = ops.multiply(ops.square(ops.subtract(x, along(mean, (position,), rank))), spread)
        variance = ops.divide(ops.sum(centred, others), total)
    y = ops.batch_norm(ops.moveaxis(x, position, 1), mean, variance, gamma, beta, epsilon)

    def moved(old: Any, new: Array) -> Array:
        kept = ops.multiply(old, momentum)
        return ops.stop_gradient(ops.add(kept, ops.multiply(ops.cast(new, old.dtype), 1.0 - momentum)))

    return ops.moveaxis(y, 1, position), moved(moving_mean, mean), moved(moving_variance, variance)


@layer("LayerNormalization", weights=[_GAMMA, _BETA], masks=True)
def layer_normalization(
    inputs: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    /,
    axis: Any = -1,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    rms_scaling: bool = False,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta, with the statistics of the axes together."""
    if rms_scaling:
        raise UnsupportedFormatError("LayerNormalization with rms_scaling is not supported", received=rms_scaling)
    x = floating(inputs)
    rank = len(x.shape)
    axes = axes_of(axis, rank, "LayerNormalization")
    sizes = tuple([int(x.shape[a]) for a in axes])  # weights of axes in another order are read as if in this one
    gamma, beta = (v if v is None or tuple(v.shape) == sizes else ops.reshape(v, sizes) for v in (gamma, beta))
    if axes == tuple(range(axes[0], rank)):
        return ops.layer_norm(x, tuple(x.shape[axes[0] :]), gamma, beta, epsilon)
    mean = ops.mean(x, axes, True)
    centred = ops.subtract(x, mean)
    y = ops.multiply(centred, ops.rsqrt(ops.add(ops.mean(ops.square(centred), axes, True), epsilon)))
    y = y if gamma is None else ops.multiply(y, along(gamma, axes, rank))
    return y if beta is None else ops.add(y, along(beta, axes, rank))


@layer("GroupNormalization", weights=[_GAMMA, _BETA], masks=True)
def group_normalization(
    inputs: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    /,
    groups: int = 32,
    axis: int = -1,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
) -> Array:
    """Groups of channels normalised with all positions of an item together; groups -1: each channel by itself."""
    x = floating(inputs)
    position = axes_of(axis, len(x.shape), "GroupNormalization")[0]
    count = int(x.shape[position]) if groups == -1 else groups
    if count < 1 or int(x.shape[position]) % count:
        raise ShapeError(
            "GroupNormalization: groups do not divide the channels", expected=x.shape[position], received=groups
        )
    y = ops.group_norm(ops.moveaxis(x, position, 1), count, gamma, beta, epsilon)
    return ops.moveaxis(y, 1, position)


@layer("RMSNormalization", weights=["scale"])
def rms_normalization(inputs: Array, scale: Array, /, axis: Any = -1, epsilon: float = 1e-6) -> Array:
    """x / sqrt(mean(x²) + epsilon) · scale, with the mean over the axes."""
    x = floating(inputs)
    rank = len(x.shape)
    axes = axes_of(axis, rank, "RMSNormalization")
    root = ops.rsqrt(ops.add(ops.mean(ops.square(x), axes, True), epsilon))
    return ops.multiply(ops.multiply(x, root), along(scale, axes, rank))


@layer("UnitNormalization", masks=True)
def unit_normalization(inputs: Array, /, axis: Any = -1) -> Array:
    """x by its Euclidean length along the axes."""
    x = floating(inputs)
    return ops.normalize(x, 2.0, axes_of(axis, len(x.shape), "UnitNormalization"), 1e-12)


@layer(
    "Normalization",
    weights=[
        Weight("adapted_mean", when="mean=None", trainable=False),
        Weight("adapted_variance", when="mean=None", trainable=False),
        Weight("count", when="mean=None", trainable=False),
    ],
    masks=True,
)
def normalization(
    inputs: Array,
    adapted_mean: Array | None = None,
    adapted_variance: Array | None = None,
    count: Array | None = None,
    /,
    axis: Any = -1,
    mean: Any = None,
    variance: Any = None,
    invert: bool = False,
) -> Array:
    """(x - mean) / sqrt(variance), at least 1e-7, or the reverse; statistics of the file or of the configuration."""
    x = floating(inputs)
    rank = len(x.shape)
    axes = () if axis is None else axes_of(axis, rank, "Normalization")
    statistics = []
    for given, stored in ((mean, adapted_mean), (variance, adapted_variance)):
        if stored is not None:
            statistics.append(along(stored, axes, rank))
            continue
        array = np.asarray(given, np.float32)
        array = np.broadcast_to(array, tuple(int(x.shape[a]) for a in axes[-array.ndim :]) if array.ndim else ())
        shape = dict(zip(axes[len(axes) - array.ndim :], array.shape, strict=True))
        statistics.append(ops.reshape(array, [shape.get(i, 1) for i in range(rank)]))
    centre, deviation = statistics[0], ops.maximum(ops.sqrt(statistics[1]), 1e-7)
    if invert:
        return ops.add(centre, ops.multiply(x, deviation))
    return ops.divide(ops.subtract(x, centre), deviation)


@layer("Rescaling", masks=True)
def rescaling(inputs: Array, /, scale: Any = 1.0, offset: Any = 0.0) -> Array:
    """x · scale + offset; scale and offset are numbers, or lists that broadcast."""
    x = floating(inputs)
    factor, shift = (np.asarray(v, x.dtype) if isinstance(v, tuple) else float(v) for v in (scale, offset))
    return ops.add(ops.multiply(x, factor), shift)


@layer("ActivityRegularization", masks=True)
def activity_regularization(inputs: Array, /, l1: float = 0.0, l2: float = 0.0) -> Array:
    """The input: what it adds to a loss belongs to training in Keras."""
    return inputs


@layer("Masking", masks=True)
def masking(inputs: Array, /, mask_value: float = 0.0) -> Array:
    """Steps all of whose features are mask_value become 0, and are masked in what follows."""
    kept = ops.any(ops.not_equal(inputs, mask_value), -1, True)
    return ops.where(kept, inputs, ops.zeros_like(inputs))
