"""Losses, by the names and definitions of `torch.nn.functional`.

reduction: "none" for one loss per element (or per sample), "sum" or "mean" of them. Inputs are floating.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.activations import log_sigmoid, log_softmax, sigmoid
from zoonet.ops.comparisons import equal, less, not_equal
from zoonet.ops.elementary import exp, log
from zoonet.ops.elementwise import (
    abs,
    add,
    cast,
    clip,
    divide,
    maximum,
    multiply,
    negative,
    pow,
    square,
    subtract,
    where,
)
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.reductions import mean, sum
from zoonet.ops.registry import REGISTRY, composite, op
from zoonet.ops.samples import fixed, float_values, floats, ints, sample
from zoonet.ops.types import FLOATING, INTEGER, Array, TensorType, as_dtype, kind_of

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "class_targets",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]


def reduce_loss(name: str, loss: Array, reduction: str) -> Array:
    """The losses as `reduction` says: "none", "sum" or "mean". Raises ArgumentError for others, naming the operator."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum(loss)
    if reduction == "mean":
        return mean(loss)
    raise ArgumentError(f"{name}: unknown reduction", expected="'none', 'sum' or 'mean'", received=repr(reduction))


def _require_same_shape(name: str, input: Array, target: Array) -> None:
    """Broadcasting a target is refused: it is nearly always a mistake, and the mean hides it."""
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(
            f"{name}: input and target differ in shape",
            expected=list(input.shape),
            received=list(target.shape),
            fix="reshape or broadcast the target first",
        )


def _floating(target: Array, input: Array) -> Array:
    """Integer or bool labels in the input's dtype: beside Python numbers alone they would become float32."""
    return target if kind_of(target.dtype) >= FLOATING else cast(target, input.dtype)


# -- classes -----------------------------------------------------------------------------------------------------


@op(
    differentiable=False,
    samples=[
        sample(fixed([2, 0, 1], "int64"), 3),
        sample(fixed([2, 0, 1, 2], "int64"), 3, 1, 0.1, "float64"),
        sample(ints(2, 3, high=4), 4),
        sample(fixed(2, "int64"), 3),
    ],
)
def class_targets(
    xp: Any,
    target: Array,
    classes: int,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    dtype: Any = "float32",
) -> Array:
    """The distribution over classes that cross entropy compares with: (1 - s) · [c = target] + s / classes.

    target: [N, ...] integers below `classes`, or ignore_index, whose distribution is 0 -> [N, classes, ...] in `dtype`;
    [] -> [classes]. s: label_smoothing, 0 to 1.
    Raises DTypeError, or ArgumentError for a class out of range (on the GPU such a class gives NaN).
    """
    axis = 1 if target.ndim else 0
    column = (1,) * axis + (classes,) + (1,) * (target.ndim - axis)
    target = target.astype(np.int64)
    ignored = target == ignore_index
    known = ignored | ((target >= 0) & (target < classes))
    if xp is np and not known.all():
        raise ArgumentError(
            "a target is not a class",
            expected=f"0 to {classes - 1}, or ignore_index {ignore_index}",
            received=target[~known].reshape(-1)[0],
        )
    hits = xp.expand_dims(xp.where(ignored, -1, target), axis) == xp.reshape(xp.arange(classes), column)
    targets = xp.where(hits, 1 - label_smoothing + label_smoothing / classes, label_smoothing / classes)
    targets = targets.astype(np.float32 if np.dtype(dtype).itemsize <= 4 else np.float64)
    if label_smoothing:
        targets *= xp.expand_dims(~ignored, axis)
    return targets if xp is np else targets * xp.expand_dims(xp.where(known, 1, xp.nan), axis)


@class_targets.type
def _(target: TensorType, classes: int, ignore_index: int, label_smoothing: float, dtype: Any) -> TensorType:
    if kind_of(target.dtype) != INTEGER:
        raise DTypeError("class targets are integers", received=target.dtype.name)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError("label_smoothing is out of range", expected="0 to 1", received=label_smoothing)
    axis = 1 if target.ndim else 0
    return TensorType((*target.shape[:axis], classes, *target.shape[axis:]), as_dtype(dtype))


def _class_column(name: str, weight: Array, input: Array, axis: int) -> Array:
    """Class weights in a shape that broadcasts to the input."""
    classes = input.shape[axis]
    if tuple(weight.shape) != (classes,):
        raise ShapeError(f"{name}: class weights do not fit", expected=[classes], received=list(weight.shape))
    return REGISTRY["reshape"](weight, (1,) * axis + (classes,) + (1,) * (len(input.shape) - axis - 1))


def _loss_of_classes(
    name: str, scores: Array, target: Array, weight: Any, ignore_index: int, smoothing: float, reduction: str
) -> Array:
    axis = 1 if len(scores.shape) > 1 else 0
    expected = (*scores.shape[:axis], *scores.shape[axis + 1 :])
    if not scores.shape or tuple(target.shape) != expected:
        raise ShapeError(
            f"{name}: target does not fit the input",
            expected=f"classes of shape {list(expected)} for an input of shape {list(scores.shape)}",
            received=list(target.shape),
        )
    classes = scores.shape[axis]
    targets = class_targets(target, classes, ignore_index, smoothing, scores.dtype)
    column = None if weight is None else _class_column(name, weight, scores, axis)
    weighted = targets if column is None else multiply(targets, column)
    counted = where(not_equal(weighted, 0), scores, 0.0)  # a class of no weight may have the logarithm of 0
    loss = negative(sum(multiply(weighted, counted), axis))
    if reduction != "mean":
        return reduce_loss(name, loss, reduction)
    if column is None:
        return divide(sum(loss), sum(not_equal(cast(target, "int64"), ignore_index)))
    hard = class_targets(target, classes, ignore_index, 0.0, scores.dtype) if smoothing else targets
    return divide(sum(loss), sum(multiply(hard, column)))


CLASSES = fixed([2, 0, 1, 2], "int64")
IGNORING = fixed([2, -100, 1, -100], "int64")
MAPS = fixed([[[0, 1], [2, 2]], [[1, 1], [0, -100]]], "int64")


@composite(
    samples=[
        sample(floats(4, 3), CLASSES),
        sample(floats(4, 3), IGNORING, floats(3, low=0.5), -100, "sum"),
        sample(floats(4, 3), CLASSES, floats(3, low=0.5), 0, "mean"),
        sample(floats(2, 3, 2, 2), MAPS, None, -100, "none"),
        sample(floats(3), fixed(1, "int64")),
    ]
)
def nll_loss(
    input: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Minus the log-probability of the target class, times its weight.

    input: [N, C, ...] or [C] log-probabilities; target: [N, ...] or [] integer classes; weight: [C] -> [N, ...] for
    "none", else []; "mean" divides by the weights of the targets. Targets equal to ignore_index count 0.
    Raises ShapeError, DTypeError or ArgumentError (a target that is not a class).
    Source: `torch.nn.functional.nll_loss`.
    """
    return _loss_of_classes("nll_loss", input, target, weight, ignore_index, 0.0, reduction)


@composite(
    samples=[
        sample(floats(4, 3), CLASSES),
        sample(floats(4, 3), IGNORING, floats(3, low=0.5), -100, "mean", 0.1),
        sample(floats(4, 3), CLASSES, floats(3, low=0.5), 0, "sum", 0.2),
        sample(floats(2, 3, 2, 2), MAPS, None, -100, "none", 0.1),
        sample(floats(3), fixed(1, "int64")),
        sample(floats(4, 3), floats(4, 3, low=0.0, high=1.0), floats(3, low=0.5), -100, "mean", 0.1),
        sample(floats(2, 3, 2), floats(2, 3, 2, low=0.0, high=1.0), None, -100, "none"),
        sample(floats(3), floats(3, low=0.0, high=1.0), None, -100, "sum"),
    ]
)
def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """The cross entropy of softmax(input) against classes or probabilities.

    input: [N, C, ...] or [C] logits; target: [N, ...] integer classes, or floating probabilities of the input's shape;
    weight: [C] per class -> [N, ...] for "none", else []. "mean" divides by the weights of the target classes, with
    probabilities by the number of samples. Targets equal to ignore_index count 0. label_smoothing mixes the target
    with the uniform distribution (arXiv:1512.00567).
    Raises ShapeError, DTypeError or ArgumentError (a target that is not a class, smoothing outside 0 to 1).
    """
    axis = 1 if len(input.shape) > 1 else 0
    scores = log_softmax(input, axis)
    if kind_of(target.dtype) != FLOATING:
        return _loss_of_classes("cross_entropy", scores, target, weight, ignore_index, label_smoothing, reduction)
    _require_same_shape("cross_entropy", input, target)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError("label_smoothing is out of range", expected="0 to 1", received=label_smoothing)
    if label_smoothing:
        target = add(multiply(target, 1 - label_smoothing), label_smoothing / input.shape[axis])
    if weight is not None:
        target = multiply(target, _class_column("cross_entropy", weight, input, axis))
    loss = negative(sum(multiply(target, scores), axis))
    return reduce_loss("cross_entropy", loss, reduction)


# -- two classes -------------------------------------------------------------------------------------------------

PROBABILITIES = floats(3, 4, low=0.1, high=0.9)


@composite(
    samples=[
        sample(floats(3, 4), PROBABILITIES),
        sample(floats(3, 4), PROBABILITIES, floats(4, low=0.5), "sum"),
        sample(floats(3, 4), PROBABILITIES, None, "none", floats(4, low=0.5)),
        sample(float_values([-1000.0, 1000.0, 30.0]), float_values([0.0, 1.0, 0.0])),
    ]
)
def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """-(pos_weight · t · log σ(x) + (1 - t) · log(1 - σ(x))), without overflow.

    input, target: any one shape; weight and pos_weight (of the positive term) broadcast to it -> that shape for "none",
    else []. Raises ShapeError if shapes differ. Source: `torch.nn.functional.binary_cross_entropy_with_logits`.
    """
    _require_same_shape("binary_cross_entropy_with_logits", input, target)
    target = _floating(target, input)
    likelihood = log_sigmoid(input)
    if pos_weight is not None:
        likelihood = multiply(likelihood, add(multiply(subtract(pos_weight, 1), target), 1))
    loss = subtract(multiply(subtract(1, target), input), likelihood)
    if weight is not None:
        loss = multiply(loss, weight)
    return reduce_loss("binary_cross_entropy_with_logits", loss, reduction)


@op(promotes="floating", name="binary_log_loss", samples=[sample(PROBABILITIES, PROBABILITIES)])
def _binary_log_loss(xp: Any, x: Array, target: Array) -> Array:
    """-(t · log x + (1 - t) · log(1 - x)) with logarithms not below -100. Operands broadcast, floating.

    Its gradient divides by at least 1e-12, so that it is finite at 0 and 1. Source: `torch.nn.BCELoss`.
    """
    positive, negated = xp.maximum(xp.log(x), -100), xp.maximum(xp.log1p(-x), -100)
    return (target - 1) * negated - target * positive


@_binary_log_loss.vjp
def _(gy: Array, _y: Array, x: Array, target: Array) -> Any:
    def gradient_by_x() -> Array:
        divisor = maximum(multiply(x, subtract(1, x)), 1e-12)
        return multiply(gy, divide(subtract(x, target), divisor))

    def gradient_by_target() -> Array:
        return multiply(gy, subtract(clip(log(subtract(1, x)), -100), clip(log(x), -100)))

    return gradient_by_x, gradient_by_target


@composite(
    samples=[
        sample(PROBABILITIES, PROBABILITIES),
        sample(PROBABILITIES, PROBABILITIES, floats(4, low=0.5), "sum"),
        sample(PROBABILITIES, PROBABILITIES, None, "none"),
    ]
)
def binary_cross_entropy(input: Array, target: Array, weight: Array | None = None, reduction: str = "mean") -> Array:
    """-(t · log p + (1 - t) · log(1 - p)) with logarithms not below -100.

    input (probabilities), target: any one shape; weight broadcasts to it -> that shape for "none", else [].
    Raises ShapeError if shapes differ. `binary_cross_entropy_with_logits` is more accurate on logits.
    Source: `torch.nn.functional.binary_cross_entropy`.
    """
    _require_same_shape("binary_cross_entropy", input, target)
    loss = _binary_log_loss(input, target)
    if weight is not None:
        loss = multiply(loss, weight)
    return reduce_loss("binary_cross_entropy", loss, reduction)


@composite(
    samples=[
        sample(floats(3, 4), fixed([[1.0, 0.0, 0.0, 1.0]] * 3, "float64")),
        sample(floats(3, 4), PROBABILITIES, -1.0, 1.5, "mean"),
        sample(floats(3, 4), PROBABILITIES, 0.5, 2.0, "sum"),
    ]
)
def sigmoid_focal_loss(
    input: Array, target: Array, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Array:
    """Binary cross entropy times (1 - p_t)^gamma, weighted alpha for positives and 1 - alpha for negatives.

    input (logits), target: any one shape -> that shape for "none", else []. A negative alpha means no such weight.
    Raises ShapeError if shapes differ. Source: arXiv:1708.02002, torchvision.ops.sigmoid_focal_loss.
    """
    _require_same_shape("sigmoid_focal_loss", input, target)
    target = _floating(target, input)
    p = sigmoid(input)
    loss = binary_cross_entropy_with_logits(input, target, None, "none")
    missed = subtract(add(p, target), multiply(multiply(p, target), 2))  # 1 - p_t
    loss = multiply(loss, pow(missed, gamma))
    if alpha >= 0:
        loss = multiply(loss, add(multiply(target, 2 * alpha - 1), 1 - alpha))
    return reduce_loss("sigmoid_focal_loss", loss, reduction)


# -- regression --------------------------------------------------------------------------------------------------


@composite(
    samples=[
        sample(floats(3, 4), floats(3, 4)),
        sample(floats(3, 4), floats(3, 4), "sum"),
        sample(floats(3), floats(3), "none"),
    ]
)
def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """(input - target)². Any one shape -> that shape for "none", else []. Raises ShapeError if shapes differ.

    Source: `torch.nn.functional.mse_loss`.
    """
    _require_same_shape("mse_loss", input, target)
    return reduce_loss("mse_loss", square(subtract(input, target)), reduction)


@composite(
    samples=[
        sample(floats(3, 4), floats(3, 4)),
        sample(floats(3, 4), floats(3, 4), "sum"),
        sample(floats(3), floats(3), "none"),
    ]
)
def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """|input - target|. Any one shape -> that shape for "none", else []. Raises ShapeError if shapes differ.

    Source: `torch.nn.functional.l1_loss`.
    """
    _require_same_shape("l1_loss", input, target)
    return reduce_loss("l1_loss", abs(subtract(input, target)), reduction)


def _quadratic_then_linear(input: Array, target: Array, bend: float, scale: float) -> Array:
    """scale · (½ d² where |d| < bend, bend · (|d| - ½ bend) elsewhere)."""
    distance = subtract(input, target)
    size = abs(distance)
    inner = multiply(square(distance), 0.5 * scale)
    return where(less(size, bend), inner, multiply(subtract(size, 0.5 * bend), bend * scale))


@composite(
    samples=[
        sample(floats(3, 4), floats(3, 4)),
        sample(floats(3, 4), floats(3, 4), "sum", 0.3),
        sample(floats(3), floats(3), "none", 0.0),
    ]
)
def smooth_l1_loss(input: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """½ d² / beta where |d| < beta, |d| - ½ beta elsewhere, with d = input - target; |d| for beta 0.

    Any one shape -> that shape for "none", else []. Raises ShapeError if shapes differ, ArgumentError for a negative
    beta. Source: arXiv:1504.08083.
    """
    if beta < 0:
        raise ArgumentError("smooth_l1_loss: beta is negative", expected="0 or more", received=beta)
    if beta == 0:
        return l1_loss(input, target, reduction)
    _require_same_shape("smooth_l1_loss", input, target)
    return reduce_loss("smooth_l1_loss", _quadratic_then_linear(input, target, beta, 1 / beta), reduction)


@composite(
    samples=[
        sample(floats(3, 4), floats(3, 4)),
        sample(floats(3, 4), floats(3, 4), "sum", 0.3),
        sample(floats(3), floats(3), "none", 2.0),
    ]
)
def huber_loss(input: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Array:
    """½ d² where |d| < delta, delta · (|d| - ½ delta) elsewhere, with d = input - target.

    Any one shape -> that shape for "none", else []. Raises ShapeError if shapes differ, ArgumentError unless delta > 0.
    Source: `torch.nn.functional.huber_loss`.
    """
    if delta <= 0:
        raise ArgumentError("huber_loss: delta is not positive", expected="a number above 0", received=delta)
    _require_same_shape("huber_loss", input, target)
    return reduce_loss("huber_loss", _quadratic_then_linear(input, target, delta, 1.0), reduction)


@composite(
    samples=[
        sample(floats(3, 4), PROBABILITIES),
        sample(floats(3, 4), PROBABILITIES, "batchmean"),
        sample(floats(3, 4), floats(3, 4), "sum", True),
        sample(floats(3), float_values([0.1, 0.4, 0.5]), "none"),
    ]
)
def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """target · (log(target) - input), 0 where the target is 0: the terms of the Kullback-Leibler divergence.

    input: log-probabilities, target: probabilities (logarithms of them with log_target) of one shape -> that shape for
    "none", else []. "batchmean" divides the sum by the size of the first axis, which is the divergence's definition.
    Raises ShapeError if shapes differ. Source: `torch.nn.functional.kl_div`.
    """
    _require_same_shape("kl_div", input, target)
    if log_target:
        loss = multiply(exp(target), subtract(target, input))
    else:
        logarithm = log(where(equal(target, 0), 1, target))
        loss = multiply(target, subtract(logarithm, input))
    if reduction == "batchmean":
        return divide(sum(loss), input.shape[0] if input.shape else 1)
    return reduce_loss("kl_div", loss, reduction)
