"""Detection: suppression of overlapping boxes, and pooling of regions, by the names of `torchvision.ops`.

Boxes are corners (x1, y1, x2, y2) on the last axis; see boxes.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import Any

import numpy as np

from zoonet.ops.boxes import check_boxes
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import fixed, float_values, sample
from zoonet.ops.scattering import check_indices
from zoonet.ops.types import FLOATING, INTEGER, Array, TensorType, int64, kind_of

__all__ = ["batched_nms", "nms", "soft_nms"]

#: Most pairs of boxes that are compared at one time.
_PAIRS = 1 << 17
#: Most bands that boxes are sorted into.
_BANDS = 256


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


def _threshold(threshold: float, dtype: Any) -> Any:
    """The largest number of the dtype that is not above the threshold: comparing with either gives the same."""
    rounded = dtype.type(threshold)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > threshold else rounded


def _descending(xp: Any, scores: Any) -> Any:
    """The order of scores from high to low: NaN first, of equal ones the first one first."""
    reverse = xp.argsort(scores[::-1], kind="stable" if xp is np else None)[::-1]
    return len(scores) - 1 - reverse


def _along(xp: Any, low: Any, high: Any, threshold: float) -> tuple[Any, Any]:
    """Centers of intervals, from 0, and how far from each the center of another may be.

    Two intervals whose IoU exceeds t have centers closer than (a + b) / 2 · (1 - t) / (1 + t), a and b being their
    lengths, of which neither exceeds the other by more than 1 / t.
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    centers, lengths = (low + high) / 2, high - low
    longest = lengths.max() if threshold == 0 else xp.minimum(lengths.max(), lengths / threshold)
    reach = (lengths + longest) * (0.5001 * (1 - threshold) / (1 + threshold))
    return centers - centers.min(), reach + xp.abs(centers) * 1e-12


def _bands(xp: Any, centers: Any, reach: Any) -> tuple[Any, int]:
    """Each interval's band of the axis, and how many there are: what overlaps lies in one or in neighbours."""
    extent, height = float(centers.max()), float(reach.max())
    height = max(height, extent / _BANDS)
    if not 3 * height < extent < 1e200:
        return xp.zeros(len(centers)), 1
    bands = xp.floor(centers / height)
    return bands, int(bands.max()) + 1


def _pairs(xp: Any, first: Any, counts: Any) -> tuple[Any, Any]:
    """Pairs (i, j) for j in first[i], …, first[i] + counts[i] - 1, as two arrays."""
    ends = xp.cumsum(counts)
    total = int(ends[-1])
    owners = xp.cumsum(xp.bincount(ends[:-1], minlength=total + 1)[:total])
    return owners, xp.arange(total) + (first + counts - ends)[owners]


class _Candidates:
    """Boxes that may still be kept, sorted by group, band of one axis and center along the other.

    rank: the place of each in the order of scores.
    """

    def __init__(self, xp: Any, corners: list[Any], rank: Any, groups: Any, threshold: float) -> None:
        self.xp, self.threshold = xp, threshold
        spans = [_along(xp, corners[axis], corners[axis + 2], threshold) for axis in (0, 1)]
        shares = [float(reach.mean()) / max(float(centers.max()), 1e-300) for centers, reach in spans]
        axis = int(shares[1] < shares[0])
        other = 1 - axis
        centers, reach = spans[axis]
        bands, count = _bands(xp, *spans[other])
        step = float(centers.max()) + 2 * float(reach.max()) + 1
        keys = centers if count == 1 else centers + bands * step
        if groups is not None:
            keys = keys + groups * (float(count + 1) * step)  # a band is empty between groups
        reach = reach + keys * 1e-12
        self.moves = (-step, 0.0, step) if count > 1 else (0.0,)
        order = xp.argsort(keys)
        across = [corners[other], corners[other + 2], corners[axis], corners[axis + 2]]
        areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
        self.columns = [column[order] for column in (*across, areas, keys, reach, rank)]

    def __len__(self) -> int:
        return len(self.columns[0])

    def keep(self, chosen: Any) -> None:
        self.columns = [column[chosen] for column in self.columns]

    def leaders(self) -> tuple[Any, Any, Any]:
        """Places of the boxes of highest scores, as many as may be compared at once, with the ranges near each.

        best: (n,); first and counts of the ranges: (bands, n).
        """
        xp, (keys, reach, rank) = self.xp, self.columns[5:]
        best = xp.argsort(rank)[: max(64, _PAIRS // 32)]
        low, high = keys[best] - reach[best], keys[best] + reach[best]
        first = xp.stack([xp.searchsorted(keys, low + move) for move in self.moves])
        counts = xp.stack([xp.searchsorted(keys, high + move, "right") for move in self.moves]) - first
        many = max(1, int(xp.searchsorted(xp.cumsum(counts.sum(0)), _PAIRS)))
        return best[:many], first[:, :many], counts[:, :many]

    def overlaps(self, best: Any, first: Any, counts: Any) -> tuple[Any, Any]:
        """Pairs (i, place) of a leader best[i] and a box of lower score that it overlaps by more than the threshold."""
        xp, (low, high, start, stop, areas, _, _, rank) = self.xp, self.columns
        i, j = _pairs(xp, first.reshape(-1), counts.reshape(-1))
        i = i % len(best)
        near = (xp.minimum(high[best][i], high[j]) > xp.maximum(low[best][i], low[j])) & (rank[best][i] < rank[j])
        i, j = i[near], j[near]
        k = best[i]
        across = xp.minimum(high[k], high[j]) - xp.maximum(low[k], low[j])
        along = xp.maximum(xp.minimum(stop[k], stop[j]) - xp.maximum(start[k], start[j]), 0)
        intersection = across * along
        iou = intersection / (areas[k] + areas[j] - intersection)
        over = iou > _threshold(self.threshold, iou.dtype)
        return i[over], j[over]


def _resolve(xp: Any, count: int, above: Any, below: Any) -> Any:
    """Which of `count` boxes greedy choice keeps, where above[p] suppresses below[p] if it is itself kept.

    In each round the boxes that no undecided one is above are kept, and what they suppress goes.
    """
    kept = xp.ones(count, bool)
    while len(above):
        blocked = xp.zeros(count, bool)
        blocked[below] = True
        free = ~blocked[above]
        gone = xp.zeros(count, bool)
        gone[below[free]] = True
        kept &= ~gone
        open_ = ~(free | gone[above] | gone[below])
        above, below = above[open_], below[open_]
    return kept


def _rounds(xp: Any, candidates: _Candidates) -> Iterator[Any]:
    """Ranks of kept boxes: the boxes of highest scores decide among themselves, then suppress others, and so on."""
    while len(candidates):
        best, first, counts = candidates.leaders()
        i, j = candidates.overlaps(best, first, counts)
        place = xp.full(len(candidates), -1)
        place[best] = xp.arange(len(best))
        among = place[j] >= 0
        kept = _resolve(xp, len(best), i[among], place[j[among]])
        yield candidates.columns[-1][best[kept]]
        left = xp.ones(len(candidates), bool)
        left[best] = False
        left[j[kept[i]]] = False
        candidates.keep(left)


def _suppress(xp: Any, boxes: Any, scores: Any, groups: Any, threshold: float) -> Any:
    order = _descending(xp, scores)
    if not boxes.size:
        return order
    boxes = boxes[order]
    if boxes.dtype.kind in "iu":
        boxes = boxes.astype(np.float64)
    corners = [boxes[:, i] for i in range(4)]
    areas = (corners[2] - corners[0]) * (corners[3] - corners[1])
    proper = (corners[2] > corners[0]) & (corners[3] > corners[1]) & (areas > 0) & (areas < xp.inf)
    rank = xp.nonzero(proper)[0]
    kept = ~proper  # a box without an area overlaps nothing
    if len(rank):
        if groups is not None:
            groups = xp.unique(groups, return_inverse=True)[1].reshape(-1)[order][rank]
        candidates = _Candidates(xp, [c[rank] for c in corners], rank, groups, threshold)
        for ranks in _rounds(xp, candidates):
            kept[ranks] = True
    return order[kept]


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
    dtype = scores.dtype
    x1, y1, x2, y2 = (boxes[:, i] for i in range(4))
    areas = (x2 - x1) * (y2 - y1)
    left, current = xp.arange(len(scores)), scores
    chosen, values = [], []
    while True:
        alive = current > score_threshold
        left, current = left[alive], current[alive]
        if not len(left):
            break
        top = int(current.argmax())
        best = left[top]
        chosen.append(left[top : top + 1])
        values.append(current[top : top + 1])
        others = xp.arange(len(left)) != top
        left, current = left[others], current[others]
        width = xp.minimum(x2[left], x2[best]) - xp.maximum(x1[left], x1[best])
        height = xp.minimum(y2[left], y2[best]) - xp.maximum(y1[left], y1[best])
        shared = xp.maximum(width, 0) * xp.maximum(height, 0)
        iou = xp.where(shared > 0, shared / xp.where(shared > 0, areas[left] + areas[best] - shared, 1), 0)
        factor = xp.exp(-(iou**2) / sigma) if method == "gaussian" else xp.where(iou > iou_threshold, 1 - iou, 1)
        current = current * factor.astype(dtype)
    if not chosen:
        return xp.empty(0, np.int64), xp.empty(0, dtype)
    return xp.concatenate(chosen), xp.concatenate(values)


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
