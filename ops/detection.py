"""Detection: suppression of overlapping boxes, and pooling of regions, by the names of `torchvision.ops`.

Boxes are corners (x1, y1, x2, y2) on the last axis; see boxes.py.
"""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np

from zoonet.ops.boxes import check_boxes
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import fixed, float_values, sample
from zoonet.ops.scattering import check_indices
from zoonet.ops.suppression import descending, greedy, soften
from zoonet.ops.types import FLOATING, INTEGER, Array, TensorType, int64, kind_of

__all__ = ["batched_nms", "nms", "soft_nms"]


def _check_scored(name: str, boxes: TensorType, scores: TensorType) -> None:
    check_boxes(name, boxes)
    if boxes.ndim != 2 or scores.shape != boxes.shape[:1]:
        raise ShapeError(
            f"{name} takes a list of boxes and a score of each",
            expected="[N, 4] and [N]",
            received=f"{list(boxes.shape)} and {list(scores.shape)}",
            fix="give boxes of several images or classes a number each and use batched_nms",
        )
    for what, dtype in (("boxes", boxes.dtype), ("scores", scores.dtype)):
        if not INTEGER <= kind_of(dtype) <= FLOATING:
            raise DTypeError(f"{name}: {what} are not real numbers", received=dtype.name)


def _check_fraction(name: str, parameter: str, value: float) -> None:
    if isnan(value) or not 0 <= value <= 1:
        raise ArgumentError(f"{name}: {parameter} is out of range", expected="0 to 1", received=value)


def _numbers(xp: Any, groups: Any) -> Any:
    """Groups as integers from 0, not many more than there are."""
    groups = groups.astype(np.int64)
    if not len(groups):
        return groups
    low, high = int(groups.min()), int(groups.max())
    return groups - low if high - low < 1 << 20 else xp.unique(groups, return_inverse=True)[1].reshape(-1)


def _suppress(xp: Any, boxes: Any, scores: Any, groups: Any, threshold: float) -> Any:
    order = descending(xp, scores)
    if not boxes.size:
        return order
    boxes = boxes.take(order, 0)
    if boxes.dtype.kind in "iu":
        boxes = boxes.astype(np.float64)
    groups = None if groups is None else _numbers(xp, groups).take(order)
    return order[greedy(xp, boxes, groups, threshold)]


SCATTERED = float_values(
    [
        [0.0, 0.0, 10.0, 10.0],
        [1.0, 1.0, 11.0, 11.0],
        [0.0, 0.0, 10.0, 5.0],
        [20.0, 20.0, 30.0, 30.0],
        [19.0, 20.0, 30.0, 29.0],
        [5.0, 5.0, 5.0, 9.0],
        [2.0, 2.0, 12.0, 12.0],
        [0.0, 0.0, 10.0, 10.0],
    ]
)
SCORES = float_values([0.5, 0.75, 0.625, 0.25, 0.875, 0.125, 0.4375, 0.5])
CLASSES = fixed([0, 0, 3, 3, 3, 0, 1, 1], "int64")


@op(
    differentiable=False,
    samples=[
        sample(SCATTERED, SCORES, 0.5),
        sample(SCATTERED, SCORES, 0.0),
        sample(SCATTERED, SCORES, 1.0),
        sample(fixed([[0, 0, 4, 4], [0, 0, 4, 3], [8, 8, 9, 9]], "int32"), fixed([1, 2, 0], "int64"), 0.7),
        sample(SCATTERED, SCORES, 0.3),
    ],
)
def nms(xp: Any, boxes: Array, scores: Array, iou_threshold: float) -> Array:
    """Indices (int64) of the boxes that remain where boxes overlap, in the order of scores from high to low.

    The box of highest score (of equal ones the first) is kept, all that overlap it by an IoU above iou_threshold go,
    and so on. boxes: [N, 4] corners; scores: [N]; real numbers -> [n], where n depends on the contents. A box without
    an area, or with an infinite one, is kept. Raises ShapeError, DTypeError, or ArgumentError for a threshold outside
    0 to 1. Source: torchvision.ops.nms.
    """
    return _suppress(xp, boxes, scores, None, iou_threshold)


@nms.type
def _(boxes: TensorType, scores: TensorType, iou_threshold: float) -> TensorType:
    _check_scored("nms", boxes, scores)
    _check_fraction("nms", "iou_threshold", iou_threshold)
    return TensorType((None,), int64)


@op(
    differentiable=False,
    samples=[sample(SCATTERED, SCORES, CLASSES, 0.5), sample(SCATTERED, SCORES, CLASSES, 0.0)],
)
def batched_nms(xp: Any, boxes: Array, scores: Array, idxs: Array, iou_threshold: float) -> Array:
    """`nms` within each group of boxes: a box is suppressed only by one of the same class, image or both.

    idxs: [N] integers, the group of each box; the rest as for `nms`. The order is that of scores over all groups.
    Raises ShapeError, DTypeError or ArgumentError. Source: torchvision.ops.batched_nms, which for few boxes moves the
    groups apart in the boxes' precision; here groups never touch.
    """
    return _suppress(xp, boxes, scores, idxs, iou_threshold)


@batched_nms.type
def _(boxes: TensorType, scores: TensorType, idxs: TensorType, iou_threshold: float) -> TensorType:
    _check_scored("batched_nms", boxes, scores)
    _check_fraction("batched_nms", "iou_threshold", iou_threshold)
    check_indices("batched_nms", idxs)
    if idxs.shape != scores.shape:
        raise ShapeError("batched_nms: idxs do not fit", expected=list(scores.shape), received=list(idxs.shape))
    return TensorType((None,), int64)


@op(
    differentiable=False,
    samples=[
        sample(SCATTERED, SCORES),
        sample(SCATTERED, SCORES, 0.3, 0.2, 0.25),
        sample(SCATTERED, SCORES, 0.5, 0.4, 0.1, "linear"),
    ],
)
def soft_nms(
    xp: Any,
    boxes: Array,
    scores: Array,
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    score_threshold: float = 0.001,
    method: str = "gaussian",
) -> tuple[Array, Array]:
    """Indices (int64) of boxes and their decayed scores, from high to low.

    The box of highest score is taken; each other's score is multiplied by exp(-IoU² / sigma) ("gaussian"), or by
    1 - IoU where the IoU exceeds iou_threshold ("linear"); those not above score_threshold go; and so on.
    boxes: [N, 4] corners; scores: [N], floating -> [n] and [n], where n depends on the contents.
    Raises ShapeError, DTypeError or ArgumentError. Source: arXiv:1704.04503.
    """

    def decay(iou: Any) -> Any:
        return xp.exp(-(iou**2) / sigma) if method == "gaussian" else xp.where(iou > iou_threshold, 1 - iou, 1)

    return soften(xp, boxes, scores, None, decay, score_threshold, len(scores))


@soft_nms.type
def _(
    boxes: TensorType,
    scores: TensorType,
    sigma: float,
    iou_threshold: float,
    score_threshold: float,
    method: str,
) -> tuple[TensorType, TensorType]:
    _check_scored("soft_nms", boxes, scores)
    _check_fraction("soft_nms", "iou_threshold", iou_threshold)
    if kind_of(scores.dtype) != FLOATING:
        raise DTypeError("soft_nms changes scores", expected="floats", received=scores.dtype.name)
    if method not in ("gaussian", "linear"):
        raise ArgumentError("soft_nms: unknown method", expected="'gaussian' or 'linear'", received=repr(method))
    if not sigma > 0:
        raise ArgumentError("soft_nms: sigma is not positive", expected="a number above 0", received=sigma)
    return TensorType((None,), int64), TensorType((None,), scores.dtype)
