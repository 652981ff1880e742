"""Boxes: conversions, areas, the family of IoU measures and their losses, by the names of `torchvision.ops`.

A box is four numbers on the last axis: corners (x1, y1, x2, y2) with x1 < x2 and y1 < y2, or what a format says.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

from zoonet.ops.elementary import atan
from zoonet.ops.elementwise import add, cast, clip, divide, maximum, minimum, multiply, square, subtract
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.gradients import stop_gradient
from zoonet.ops.joining import stack
from zoonet.ops.losses import reduce_loss
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import fixed, float_values, sample
from zoonet.ops.shapes import expand_dims
from zoonet.ops.slicing import index
from zoonet.ops.types import INTEGER, Array, TensorType, int64, kind_of

__all__ = [
    "box_area",
    "box_convert",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "remove_small_boxes",
]

_FORMATS = ("xyxy", "xywh", "cxcywh")


def check_boxes(name: str, boxes: Array) -> None:
    """Raise ShapeError unless the last axis has the four numbers of a box."""
    if not boxes.shape or boxes.shape[-1] != 4:
        raise ShapeError(f"{name} takes boxes", expected="[..., 4]", received=list(boxes.shape))


def _columns(name: str, boxes: Array) -> tuple[Array, Array, Array, Array]:
    """The four numbers of each box; narrow integers as int32, so that areas do not overflow."""
    check_boxes(name, boxes)
    if kind_of(boxes.dtype) <= INTEGER and boxes.dtype.itemsize < 4:
        boxes = cast(boxes, "int32")
    first, second, third, fourth = (index(boxes, (Ellipsis, i)) for i in range(4))
    return first, second, third, fourth


def _corners(name: str, boxes: Array, fmt: str) -> tuple[Array, Array, Array, Array]:
    """x1, y1, x2, y2 of boxes in a format."""
    if fmt not in _FORMATS:
        raise ArgumentError(f"{name}: unknown format of boxes", expected=" or ".join(_FORMATS), received=repr(fmt))
    a, b, c, d = _columns(name, boxes)
    if fmt == "xyxy":
        return a, b, c, d
    if fmt == "cxcywh":
        half_width, half_height = multiply(c, 0.5), multiply(d, 0.5)
        return subtract(a, half_width), subtract(b, half_height), add(a, half_width), add(b, half_height)
    return a, b, add(a, c), add(b, d)


# Corners that never coincide: the measures bend where they do.
BOXES = float_values([[1.12, 2.07, 4.31, 7.53], [0.57, 1.19, 6.71, 3.29], [3.17, 3.61, 8.37, 9.73]])
OTHERS = float_values(
    [[0.11, 1.53, 5.23, 6.17], [2.03, 2.59, 3.47, 8.59], [20.1, 21.3, 23.7, 22.9], [0.67, 0.97, 6.13, 3.23]]
)
TARGETS = float_values([[0.11, 1.53, 5.23, 6.17], [0.67, 0.97, 6.13, 3.23], [20.1, 21.3, 23.7, 22.9]])
WHOLE = fixed([[1, 2, 4, 7], [0, 1, 6, 3]], "int64")


@composite(
    samples=[
        sample(BOXES, "xyxy", "xywh"),
        sample(BOXES, "xyxy", "cxcywh"),
        sample(BOXES, "xywh", "xyxy"),
        sample(float_values([[[1.0, 2.0, 4.0, 7.0]]]), "cxcywh", "xyxy"),
        sample(BOXES, "cxcywh", "xywh"),
        sample(BOXES, "xywh", "cxcywh"),
        sample(WHOLE, "xywh", "xyxy"),
    ]
)
def box_convert(boxes: Array, in_fmt: str, out_fmt: str) -> Array:
    """Boxes [..., 4] from one format to another, same shape.

    Formats: "xyxy" (corners), "xywh" (corner, width, height), "cxcywh" (center, width, height), which gives integers as
    float32. Raises ShapeError or ArgumentError. Source: torchvision.ops.box_convert.
    """
    x1, y1, x2, y2 = _corners("box_convert", boxes, in_fmt)
    if out_fmt == "xyxy":
        return stack([x1, y1, x2, y2], -1)
    width, height = subtract(x2, x1), subtract(y2, y1)
    if out_fmt == "xywh":
        return stack([x1, y1, width, height], -1)
    if out_fmt == "cxcywh":
        return stack([multiply(add(x1, x2), 0.5), multiply(add(y1, y2), 0.5), width, height], -1)
    raise ArgumentError("box_convert: unknown format", expected=" or ".join(_FORMATS), received=repr(out_fmt))


@composite(samples=[sample(BOXES), sample(BOXES, "xywh"), sample(BOXES, "cxcywh"), sample(WHOLE)])
def box_area(boxes: Array, fmt: str = "xyxy") -> Array:
    """Areas of boxes [..., 4] in a format (see `box_convert`) -> [...]. Raises ShapeError or ArgumentError."""
    if fmt in ("xywh", "cxcywh"):
        _, _, width, height = _columns("box_area", boxes)
        return multiply(width, height)
    x1, y1, x2, y2 = _corners("box_area", boxes, fmt)
    return multiply(subtract(x2, x1), subtract(y2, y1))


@composite(samples=[sample(BOXES, (5, 6)), sample(OTHERS, (30, 4)), sample(WHOLE, (3, 3))])
def clip_boxes_to_image(boxes: Array, size: Sequence[int]) -> Array:
    """Corners of boxes [..., 4] moved into an image of size (height, width) -> same. Raises ShapeError."""
    check_boxes("clip_boxes_to_image", boxes)
    if len(size) != 2:
        raise ArgumentError("clip_boxes_to_image: wrong size", expected="(height, width)", received=size)
    height, width = size
    limits = (width, height, width, height)
    return stack([clip(index(boxes, (Ellipsis, i)), 0, limit) for i, limit in enumerate(limits)], -1)


@op(differentiable=False, samples=[sample(BOXES, 3.0), sample(OTHERS, 1.5), sample(WHOLE, 3)])
def remove_small_boxes(xp: Any, boxes: Array, min_size: float) -> Array:
    """Indices (int64) of the boxes [N, 4] of which no side is shorter than min_size, [n]: n depends on the contents.

    Raises ShapeError. Source: torchvision.ops.remove_small_boxes.
    """
    return xp.nonzero((boxes[:, 2:] - boxes[:, :2] >= min_size).all(1))[0]


@remove_small_boxes.type
def _(boxes: TensorType, min_size: float) -> TensorType:
    check_boxes("remove_small_boxes", boxes)
    if boxes.ndim != 2:
        raise ShapeError("remove_small_boxes takes a list of boxes", expected="[N, 4]", received=list(boxes.shape))
    return TensorType((None,), int64)


# -- intersection over union -------------------------------------------------------------------------------------


class _Pair:
    """What the measures read of two arrays of corners that broadcast: intersection, union, and the box around both."""

    def __init__(self, first: tuple[Array, ...], second: tuple[Array, ...]) -> None:
        self.first, self.second = first, second
        (x1, y1, x2, y2), (u1, v1, u2, v2) = first, second
        self.areas = multiply(subtract(x2, x1), subtract(y2, y1)), multiply(subtract(u2, u1), subtract(v2, v1))
        width = clip(subtract(minimum(x2, u2), maximum(x1, u1)), 0)
        height = clip(subtract(minimum(y2, v2), maximum(y1, v1)), 0)
        self.intersection = multiply(width, height)
        self.union = subtract(add(*self.areas), self.intersection)
        self.width = subtract(maximum(x2, u2), minimum(x1, u1))
        self.height = subtract(maximum(y2, v2), minimum(y1, v1))

    def iou(self, eps: float = 0.0) -> Array:
        return divide(self.intersection, add(self.union, eps) if eps else self.union)

    def uncovered(self, eps: float = 0.0) -> Array:
        """The part of the box around both that is in neither."""
        area = multiply(self.width, self.height)
        return divide(subtract(area, self.union), add(area, eps) if eps else area)

    def distance(self, eps: float) -> Array:
        """The squared distance of the centers over the squared diagonal of the box around both."""
        (x1, y1, x2, y2), (u1, v1, u2, v2) = self.first, self.second
        apart = add(square(subtract(add(x1, x2), add(u1, u2))), square(subtract(add(y1, y2), add(v1, v2))))
        return divide(multiply(apart, 0.25), add(add(square(self.width), square(self.height)), eps))

    def aspect(self, iou: Array, eps: float) -> Array:
        """The penalty for different ratios of width to height; its weight is a constant to gradients."""
        angles = [atan(divide(subtract(x2, x1), subtract(y2, y1))) for x1, y1, x2, y2 in (self.first, self.second)]
        v = multiply(square(subtract(*angles)), 4 / pi**2)
        return multiply(stop_gradient(divide(v, add(add(subtract(1, iou), v), eps))), v)


def _all_pairs(name: str, boxes1: Array, boxes2: Array, fmt: str = "xyxy") -> _Pair:
    for boxes in (boxes1, boxes2):
        if len(boxes.shape) < 2:
            raise ShapeError(f"{name} takes lists of boxes", expected="[..., N, 4]", received=list(boxes.shape))
    first = tuple([expand_dims(column, -1) for column in _corners(name, boxes1, fmt)])
    return _Pair(first, tuple([expand_dims(column, -2) for column in _corners(name, boxes2, fmt)]))


def _one_by_one(name: str, boxes1: Array, boxes2: Array) -> _Pair:
    if tuple(boxes1.shape) != tuple(boxes2.shape):
        raise ShapeError(f"{name} compares boxes one by one", expected=list(boxes1.shape), received=list(boxes2.shape))
    return _Pair(_corners(name, boxes1, "xyxy"), _corners(name, boxes2, "xyxy"))


@composite(
    samples=[
        sample(BOXES, OTHERS),
        sample(BOXES, OTHERS, "xywh"),
        sample(BOXES, OTHERS, "cxcywh"),
        sample(WHOLE, WHOLE),
        sample(float_values([[[1.31, 2.21, 4.41, 7.07]], [[2.17, 2.09, 3.11, 8.03]]]), OTHERS),
    ]
)
def box_iou(boxes1: Array, boxes2: Array, fmt: str = "xyxy") -> Array:
    """Intersection over union of all pairs. boxes1: [..., N, 4]; boxes2: [..., M, 4], floats or integers in a format
    (see `box_convert`) -> [..., N, M], floating.

    Raises ShapeError or ArgumentError. Source: torchvision.ops.box_iou.
    """
    return _all_pairs("box_iou", boxes1, boxes2, fmt).iou()


@composite(samples=[sample(BOXES, OTHERS), sample(WHOLE, WHOLE)])
def generalized_box_iou(boxes1: Array, boxes2: Array) -> Array:
    """IoU of all pairs less the uncovered part of the smallest box around both.

    boxes1: [..., N, 4]; boxes2: [..., M, 4] -> [..., N, M]. Raises ShapeError.
    Source: arXiv:1902.09630, torchvision.ops.generalized_box_iou.
    """
    pair = _all_pairs("generalized_box_iou", boxes1, boxes2)
    return subtract(pair.iou(), pair.uncovered())


@composite(samples=[sample(BOXES, OTHERS), sample(WHOLE, WHOLE)])
def distance_box_iou(boxes1: Array, boxes2: Array, eps: float = 1e-7) -> Array:
    """IoU of all pairs less the squared distance of centers over the squared diagonal of the box around both.

    boxes1: [..., N, 4]; boxes2: [..., M, 4] -> [..., N, M]. eps: added to the divisor. Raises ShapeError.
    Source: arXiv:1911.08287, torchvision.ops.distance_box_iou.
    """
    pair = _all_pairs("distance_box_iou", boxes1, boxes2)
    return subtract(pair.iou(), pair.distance(eps))


@composite(samples=[sample(BOXES, OTHERS), sample(WHOLE, WHOLE)])
def complete_box_iou(boxes1: Array, boxes2: Array, eps: float = 1e-7) -> Array:
    """`distance_box_iou` less a penalty for different ratios of width to height, of which the weight has no gradient.

    boxes1: [..., N, 4]; boxes2: [..., M, 4] -> [..., N, M]. eps: added to divisors. Raises ShapeError.
    Source: arXiv:1911.08287, torchvision.ops.complete_box_iou.
    """
    pair = _all_pairs("complete_box_iou", boxes1, boxes2)
    iou = pair.iou()
    return subtract(subtract(iou, pair.distance(eps)), pair.aspect(iou, eps))


LOSSES = [sample(BOXES, TARGETS), sample(BOXES, TARGETS, "mean"), sample(BOXES, TARGETS, "sum")]


@composite(samples=LOSSES)
def generalized_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - GIoU of boxes one by one. Two arrays [..., 4] of one shape -> [...] for "none", else [] ("mean", "sum").

    eps: added to divisors. Raises ShapeError or ArgumentError. Source: torchvision.ops.generalized_box_iou_loss.
    """
    pair = _one_by_one("generalized_box_iou_loss", boxes1, boxes2)
    return reduce_loss("generalized_box_iou_loss", add(subtract(1, pair.iou(eps)), pair.uncovered(eps)), reduction)


def _distance_loss(pair: _Pair, eps: float) -> Any:
    return add(subtract(1, pair.iou(eps)), pair.distance(eps))


@composite(samples=LOSSES)
def distance_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - DIoU of boxes one by one. Two arrays [..., 4] of one shape -> [...] for "none", else [] ("mean", "sum").

    eps: added to divisors. Raises ShapeError or ArgumentError. Source: torchvision.ops.distance_box_iou_loss.
    """
    pair = _one_by_one("distance_box_iou_loss", boxes1, boxes2)
    return reduce_loss("distance_box_iou_loss", _distance_loss(pair, eps), reduction)


@composite(samples=LOSSES)
def complete_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - CIoU of boxes one by one. Two arrays [..., 4] of one shape -> [...] for "none", else [] ("mean", "sum").

    The weight of the penalty for different ratios has no gradient. eps: added to divisors. Raises ShapeError or
    ArgumentError. Source: arXiv:1911.08287, torchvision.ops.complete_box_iou_loss.
    """
    pair = _one_by_one("complete_box_iou_loss", boxes1, boxes2)
    loss = add(_distance_loss(pair, eps), pair.aspect(pair.iou(eps), eps))
    return reduce_loss("complete_box_iou_loss", loss, reduction)
