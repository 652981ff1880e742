"""Normalisation and dropout: BatchNormalization, LayerNormalization, GroupNormalization, LRN, Dropout, …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import dtype_of, normalized_axis, scalar
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array


def along(parameter: Array, x: Array, axis: int = 1) -> Array:
    """A vector that broadcasts along an axis of x."""
    return ops.reshape(parameter, [-1 if i == axis else 1 for i in range(len(x.shape))])


def _others(x: Array, axis: int = 1) -> tuple[int, ...]:
    return tuple(i for i in range(len(x.shape)) if i != axis)


def batch_statistics(
    X: Array, scale: Array, B: Array, mean: Array, var: Array, epsilon: float, momentum: float
) -> tuple[Array, Array, Array, Array, Array]:
    """The output by the batch's own statistics, the running mean and variance after it, and its own."""
    axes = _others(X)
    wide = ops.cast(X, np.float32) if X.dtype.itemsize < 4 else X
    own_mean = ops.mean(wide, axes)
    own_var = ops.mean(ops.square(ops.subtract(wide, along(own_mean, X))), axes)
    y = ops.batch_norm(X, ops.cast(own_mean, mean.dtype), ops.cast(own_var, var.dtype), scale, B, epsilon)

    def moved(old: Array, new: Array) -> Array:
        kept = ops.multiply(old, number(momentum, old.dtype))
        return ops.add(kept, ops.multiply(ops.cast(new, old.dtype), number(1 - momentum, old.dtype)))

    return ops.cast(y, X.dtype), moved(mean, own_mean), moved(var, own_var), own_mean, own_var


def batch_norm_14(
    X: Array,
    scale: Array,
    B: Array,
    input_mean: Array,
    input_var: Array,
    /,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """(X - mean) / sqrt(var + epsilon) · scale + B; in training mode by the batch, and new running statistics."""
    if not training_mode:
        return (ops.cast(ops.batch_norm(X, input_mean, input_var, scale, B, epsilon), X.dtype),)
    return batch_statistics(X, scale, B, input_mean, input_var, epsilon, momentum)[:3]


def batch_norm_7(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    /,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 14; a node that names more than one output trains. spatial 0: statistics for each position."""
    if outputs > 1:
        if not spatial:
            raise ArgumentError("BatchNormalization trains with spatial=1 only", received=spatial)
        return batch_statistics(X, scale, B, mean, var, epsilon, momentum)
    if spatial:
        return (ops.batch_norm(X, mean, var, scale, B, epsilon),)
    root = ops.sqrt(ops.add(var, number(epsilon, var.dtype)))
    return (ops.add(ops.multiply(ops.divide(ops.subtract(X, mean), root), scale), B),)


def batch_norm_1(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    /,
    consumed_inputs: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 7, which is told apart from inference by the number of outputs as well."""
    if outputs > 1 and not is_test:
        return batch_statistics(X, scale, B, mean, var, epsilon, momentum)
    return (ops.batch_norm(X, mean, var, scale, B, epsilon),)


def batch_norm_9(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    /,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 14; a node that names more than one output trains."""
    if outputs > 1:
        return batch_statistics(X, scale, B, mean, var, epsilon, momentum)
    return (ops.batch_norm(X, mean, var, scale, B, epsilon),)


declare("BatchNormalization", batch_norm_1, (1, 6))
declare("BatchNormalization", batch_norm_7, (7,))
declare("BatchNormalization", batch_norm_9, (9,))
declare("BatchNormalization", batch_norm_14, (14, 15))


def instance_norm(input: Array, scale: Array, B: Array, /, epsilon: float = 1e-5) -> Array:
    """Each channel of each item, less its mean and by its standard deviation."""
    return ops.instance_norm(input, scale, B, epsilon)


declare("InstanceNormalization", instance_norm, (1, 6, 22))


@onnx_operator("GroupNormalization", since=18)
def group_norm_18(X: Array, scale: Array, bias: Array, /, epsilon: float = 1e-5, num_groups: int = 1) -> Array:
    """Groups of channels normalised together; scale and bias for each group."""
    each = X.shape[1] // num_groups
    return ops.group_norm(X, num_groups, ops.repeat(scale, each), ops.repeat(bias, each), epsilon)


@onnx_operator("GroupNormalization", since=21)
def group_norm(
    X: Array, scale: Array, bias: Array, /, epsilon: float = 1e-5, num_groups: int = 1, stash_type: int = 1
) -> Array:
    """Groups of channels normalised together; scale and bias for each channel."""
    return ops.group_norm(X, num_groups, scale, bias, epsilon)


@onnx_operator("LayerNormalization", since=17)
def layer_norm(
    X: Array,
    Scale: Array,
    B: Array | None = None,
    /,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """The axes from `axis` on normalised together; also the mean and the inverse of the standard deviation."""
    first = normalized_axis(axis, len(X.shape), "LayerNormalization")
    axes = tuple(range(first, len(X.shape)))
    shape = tuple(X.shape[first:])
    if outputs == 1 and tuple(Scale.shape) == shape and (B is None or tuple(B.shape) == shape):
        return (ops.cast(ops.layer_norm(X, shape, Scale, B, epsilon), X.dtype),)
    wide = ops.cast(X, dtype_of(stash_type))
    mean = ops.mean(wide, axes, True)
    centred = ops.subtract(wide, mean)
    variance = ops.mean(ops.square(centred), axes, True)
    inverse = ops.reciprocal(ops.sqrt(ops.add(variance, number(epsilon, wide.dtype))))
    y = ops.multiply(ops.cast(ops.multiply(centred, inverse), X.dtype), Scale)
    return (y if B is None else ops.add(y, B)), mean, inverse


@onnx_operator("SimplifiedLayerNormalization")
def simplified_layer_norm(
    X: Array, scale: Array, /, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1, outputs: int = 1
) -> tuple[Array, ...]:
    """RMSNormalization as ONNX Runtime named it before opset 23; also the inverse of the root mean square."""
    y = rms_norm(X, scale, axis, epsilon, stash_type)
    if outputs == 1:
        return (y,)
    first = normalized_axis(axis, len(X.shape), "SimplifiedLayerNormalization")
    wide = ops.cast(X, dtype_of(stash_type))
    square = ops.mean(ops.square(wide), tuple(range(first, len(X.shape))), True)
    return y, ops.reciprocal(ops.sqrt(ops.add(square, number(epsilon, wide.dtype))))


@onnx_operator("RMSNormalization", since=23)
def rms_norm(X: Array, scale: Array, /, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Array:
    """The axes from `axis` on divided by the root of their mean square, times scale."""
    first = normalized_axis(axis, len(X.shape), "RMSNormalization")
    wide = ops.cast(X, dtype_of(stash_type))
    square = ops.mean(ops.square(wide), tuple(range(first, len(X.shape))), True)
    root = ops.sqrt(ops.add(square, number(epsilon, wide.dtype)))
    y = ops.cast(ops.divide(wide, root), X.dtype)
    return ops.cast(ops.multiply(y, scale), scale.dtype)


def local_response_norm(
    X: Array, /, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1
) -> Array:
    """Each element by a power of the mean square of `size` channels around its own."""
    return ops.local_response_norm(X, size, alpha, beta, bias)


declare("LRN", local_response_norm, (1, 13))


def lp_norm(input: Array, /, axis: int = -1, p: int = 2) -> Array:
    """The input by its p-norm (1 or 2) along an axis; zero where that is zero."""
    if p not in (1, 2):
        raise ArgumentError("LpNormalization knows the norms 1 and 2", received=p)
    norm = ops.norm(input, float(p), (axis,), True)
    zero = ops.equal(norm, number(0, input.dtype))
    return ops.where(zero, ops.zeros_like(input), ops.divide(input, ops.where(zero, ops.ones_like(norm), norm)))


declare("LpNormalization", lp_norm, (1, 22))


def mean_variance_norm(X: Array, /, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """X less its mean over the axes, by its standard deviation (plus 1e-9)."""
    chosen = tuple(axes)
    centred = ops.subtract(X, ops.mean(X, chosen, True))
    deviation = ops.sqrt(ops.subtract(ops.mean(ops.square(X), chosen, True), ops.square(ops.mean(X, chosen, True))))
    return ops.divide(centred, ops.add(deviation, number(1e-9, X.dtype)))


declare("MeanVarianceNormalization", mean_variance_norm, (9, 13))


def dropout_7(data: Array, /, ratio: float = 0.5, outputs: int = 1) -> tuple[Array, ...]:
    """The data as they are: inference. The mask keeps all."""
    return data, ops.ones(tuple(data.shape), np.bool_)


def dropout_1(
    data: Array,
    /,
    consumed_inputs: Sequence[int] | None = None,
    is_test: int = 0,
    ratio: float = 0.5,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """As version 7; with is_test 0, elements are dropped."""
    if is_test or outputs == 1:
        return data, ops.ones_like(data)
    y, mask = dropped(data, ratio, None)
    return y, ops.cast(mask, data.dtype)


def dropped(data: Array, ratio: float, seed: int | None) -> tuple[Array, Array]:
    """The data with each element zero at the probability `ratio` and scaled otherwise, and which are kept."""
    from zoonet.ops.sets.onnx.random import key_of

    mask = ops.random_bernoulli(key_of(seed), np.asarray(1.0 - ratio, np.float32), tuple(data.shape))
    scale = number(1.0 / (1.0 - ratio) if ratio < 1.0 else 0.0, data.dtype)
    return ops.where(mask, ops.multiply(data, scale), ops.zeros_like(data)), mask


def dropout(
    data: Array,
    ratio: Any = None,
    training_mode: Any = None,
    /,
    seed: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """The data as they are, or in training mode with elements dropped; and the mask of those kept."""
    training = training_mode is not None and bool(scalar(training_mode, "the training_mode of Dropout"))
    probability = 0.5 if ratio is None else float(scalar(ratio, "the ratio of Dropout"))
    if not 0.0 <= probability <= 1.0:
        raise ArgumentError("Dropout: ratio is no probability", expected="0 to 1", received=probability)
    if not training or probability == 0.0:
        return data, ops.ones(tuple(data.shape), np.bool_)
    return dropped(data, probability, seed)


declare("Dropout", dropout_1, (1, 6))
declare("Dropout", dropout_7, (7, 10))
declare("Dropout", dropout, (12, 13, 22))
