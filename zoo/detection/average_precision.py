"""Average precision as COCO and Pascal VOC define it, on arrays.

Sources: the evaluation of pycocotools (crowds, areas, interpolation at 101 recalls); VOCdevkit's VOCevaldet.m
(difficult objects; the 11-point rule of 2007 and the area under the curve since 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError

Array = np.ndarray[Any, Any]

#: COCO's thresholds of IoU, recalls, sizes in square pixels, and numbers of detections in a picture.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LIMITS = (1, 10, 100)


@dataclass(frozen=True)
class Truth:
    """The objects of one picture: boxes (n, 4), corners in pixels; labels (n,), classes from 0.

    crowd: (n,), boxes around many objects, of which any number may be found. difficult: (n,), objects that need not be
    found. areas: (n,) in square pixels, of the boxes where None.
    """

    boxes: Array
    labels: Array
    crowd: Array | None = None
    difficult: Array | None = None
    areas: Array | None = None


@dataclass(frozen=True)
class Found:
    """The detections in one picture: boxes (n, 4), scores (n,), labels (n,)."""

    boxes: Array
    scores: Array
    labels: Array


def overlaps(boxes: Array, others: Array, crowd: Array | None = None) -> Array:
    """IoU of boxes (n, 4) with others (m, 4), in float64; where others are crowds, the part of the box in them."""
    boxes, others = boxes.astype(np.float64).reshape(-1, 4), others.astype(np.float64).reshape(-1, 4)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    sides, other_sides = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    own = sides.prod(1)[:, None]
    union = own + other_sides.prod(1)[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    result: Array = np.where(shared > 0, shared / np.where(shared > 0, union, 1), 0.0)
    return result


# -- COCO --------------------------------------------------------------------------------------------------------------


@dataclass
class CocoCurves:
    """precision: (thresholds, recalls, classes, areas, limits); recall: (thresholds, classes, areas, limits).

    -1 where a class has no objects. scores: the score at each place of precision.
    """

    precision: Array
    recall: Array
    scores: Array

    def mean(self, threshold: float | None = None, area: str = "all", limit: int = 100) -> float:
        """Average precision over classes and recalls, at one threshold or over all; -1 without objects."""
        return self._mean(self.precision, threshold, area, limit)

    def mean_recall(self, area: str = "all", limit: int = 100) -> float:
        """The greatest recall, averaged over classes and thresholds."""
        return self._mean(self.recall, None, area, limit)

    def of_class(self, label: int, threshold: float | None = None) -> float:
        """Average precision of one class; -1 without objects."""
        return self._mean(self.precision[:, :, label : label + 1], threshold, "all", LIMITS[-1])

    @staticmethod
    def _mean(values: Array, threshold: float | None, area: str, limit: int) -> float:
        values = values[..., list(AREAS).index(area), LIMITS.index(limit)]
        if threshold is not None:
            values = values[np.isclose(THRESHOLDS, threshold)]
        values = values[values > -1]
        return float(values.mean()) if values.size else -1.0


@dataclass
class _Matches:
    """One class in one picture. By area and threshold: which detections are matched, and which do not count."""

    scores: Array
    matched: Array
    ignored: Array
    objects: Array  # how many count, by area


def coco_curves(truths: Sequence[Truth], found: Sequence[Found], classes: int) -> CocoCurves:
    """Precision and recall by COCO's rules. truths, found: one per picture, in the same order."""
    _check(truths, found)
    shape = (len(THRESHOLDS), len(RECALLS), classes, len(AREAS), len(LIMITS))
    precision, scores = np.full(shape, -1.0), np.full(shape, -1.0)
    recall = np.full((shape[0], *shape[2:]), -1.0)
    by_class = _by_class(truths, found)
    for label in range(classes):
        matches = [_match(truths[i], found[i], label) for i in by_class.get(label, ())]
        for a in range(len(AREAS)):
            for m, limit in enumerate(LIMITS):
                curve = _curve(matches, a, limit)
                if curve is not None:
                    precision[:, :, label, a, m], recall[:, label, a, m], scores[:, :, label, a, m] = curve
    return CocoCurves(precision, recall, scores)


def _check(truths: Sequence[Truth], found: Sequence[Found]) -> None:
    if len(truths) != len(found):
        raise ArgumentError("detections are of other pictures", expected=len(truths), received=len(found))


def _by_class(truths: Sequence[Truth], found: Sequence[Found]) -> dict[int, list[int]]:
    """The pictures in which each class is, or was found."""
    result: dict[int, list[int]] = {}
    for i, (truth, each) in enumerate(zip(truths, found, strict=True)):
        for label in np.union1d(truth.labels, each.labels).tolist():
            result.setdefault(int(label), []).append(i)
    return result


def _match(truth: Truth, found: Found, label: int) -> _Matches:
    """Give each detection, best first, the free object that it overlaps most.

    An object that counts goes before one that does not, and of equal ones the last; a crowd is always free.
    """
    mine = truth.labels == label
    boxes = truth.boxes[mine].astype(np.float64).reshape(-1, 4)
    crowd = np.zeros(len(boxes), bool) if truth.crowd is None else truth.crowd[mine].astype(bool)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if truth.areas is None else truth.areas[mine]
    limits = np.array(list(AREAS.values()))
    aside = crowd[None] | (areas[None] < limits[:, :1]) | (areas[None] > limits[:, 1:])  # (areas, objects)
    own = np.nonzero(found.labels == label)[0]
    own = own[np.argsort(-found.scores[own], kind="stable")][: LIMITS[-1]]
    own_boxes = found.boxes[own].astype(np.float64).reshape(-1, 4)
    ious = overlaps(own_boxes, boxes, crowd)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[None, :, None]
    shape = (len(AREAS), len(THRESHOLDS))
    taken = np.zeros((*shape, len(boxes)), bool)
    matched, ignored = np.zeros((*shape, len(own)), bool), np.zeros((*shape, len(own)), bool)
    rows, columns = np.indices(shape)
    for d in range(len(own) if len(boxes) else 0):
        iou = ious[d]
        if iou.max() < THRESHOLDS[0]:
            continue
        free = (iou >= least) & (crowd | ~taken)
        worth = np.where(free, iou + 2.0 * ~aside[:, None], -1.0)[..., ::-1]  # reversed: argmax takes the first
        best = len(boxes) - 1 - worth.argmax(-1)
        hit = free[rows, columns, best]
        matched[..., d] = hit
        ignored[..., d] = hit & aside[rows, best]
        taken[rows, columns, best] |= hit
    sides = (own_boxes[:, 2:] - own_boxes[:, :2]).prod(1)
    outside = (sides[None] < limits[:, :1]) | (sides[None] > limits[:, 1:])
    ignored |= ~matched & outside[:, None]
    return _Matches(found.scores[own], matched, ignored, (~aside).sum(1))


def _curve(matches: Sequence[_Matches], area: int, limit: int) -> tuple[Array, Array, Array] | None:
    """Precision (thresholds, recalls), recall (thresholds,) and scores of a class; None where it has no objects."""
    objects = sum(int(m.objects[area]) for m in matches)
    if not objects:
        return None
    scores = np.concatenate([m.scores[:limit] for m in matches])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([m.matched[area, :, :limit] for m in matches], 1)[:, order]
    ignored = np.concatenate([m.ignored[area, :, :limit] for m in matches], 1)[:, order]
    right = (matched & ~ignored).cumsum(1).astype(float)
    wrong = (~matched & ~ignored).cumsum(1).astype(float)
    recall = right / objects
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    values, at = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros((len(THRESHOLDS), len(RECALLS)))
    ordered = scores[order]
    for t in range(len(THRESHOLDS)):
        places = np.searchsorted(recall[t], RECALLS, side="left")
        inside = places < len(ordered)
        values[t, inside], at[t, inside] = precision[t, places[inside]], ordered[places[inside]]
    return values, recall[:, -1] if len(ordered) else np.zeros(len(THRESHOLDS)), at


# -- Pascal VOC ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class as more detections are taken, best first; objects: how many count."""

    precision: Array
    recall: Array
    scores: Array
    objects: int

    def average(self, style: str = "voc10") -> float:
        """Average precision; nan without objects. style: "voc07" (11 recalls) or "voc10" (area under the curve)."""
        if style not in ("voc07", "voc10"):
            raise ArgumentError(
                "there is no such average precision", expected="'voc07' or 'voc10'", received=repr(style)
            )
        if not self.objects:
            return float("nan")
        if style == "voc07":
            points = np.arange(11) / 10
            best = [self.precision[self.recall >= p - 1e-12].max(initial=0.0) for p in points]
            return float(np.mean(best))
        recall = np.concatenate([[0.0], self.recall, [1.0]])
        precision = np.concatenate([[0.0], self.precision, [0.0]])
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(((recall[1:] - recall[:-1]) * envelope[1:]).sum())


def voc_curve(truths: Sequence[Truth], found: Sequence[Found], label: int, threshold: float = 0.5) -> Curve:
    """Precision and recall of a class by VOC's rules.

    Each detection, best first, is compared with the object that it overlaps most: it is right if that is free and IoU
    is at least the threshold, wrong if it is taken or too far, and does not count if that is difficult.
    """
    _check(truths, found)
    right, wrong, scores, objects = [], [], [], 0
    for truth, each in zip(truths, found, strict=True):
        mine, own = truth.labels == label, each.labels == label
        boxes = truth.boxes[mine]
        difficult = np.zeros(len(boxes), bool) if truth.difficult is None else truth.difficult[mine].astype(bool)
        objects += int((~difficult).sum())
        order = np.argsort(-each.scores[own], kind="stable")
        ious = overlaps(each.boxes[own][order], boxes)
        taken = np.zeros(len(boxes), bool)
        for d in range(len(order)):
            best = int(ious[d].argmax()) if len(boxes) else -1
            hit = best >= 0 and ious[d, best] >= threshold
            aside = hit and difficult[best]
            first = hit and not aside and not taken[best]
            right.append(first)
            wrong.append(not aside and not first)
            if first:
                taken[best] = True
        scores.append(each.scores[own][order])
    joined = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-joined, kind="stable")
    hits, misses = (np.array(v, bool)[order].cumsum().astype(float) for v in (right, wrong))
    precision = hits / np.maximum(hits + misses, np.finfo(float).tiny)
    return Curve(precision, hits / objects if objects else np.zeros(len(hits)), joined[order], objects)
