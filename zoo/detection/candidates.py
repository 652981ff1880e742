"""From the candidates of a network to detections: confidence, classes, suppression of overlaps, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.suppression import descending, soften

Array = np.ndarray[Any, Any]
SUPPRESSIONS = ("hard", "soft", "weighted", "none")
_SIGMA = 0.5  # of soft suppression, as its paper has it


@dataclass
class Candidates:
    """What a network proposes for one picture, in pixels of its input.

    boxes: (A, 4) corners. scores: (A, C), a score of each class, or (A,) with labels (A,), the class of each.
    best_only: a box can have one class only, else every class that is confident enough. keypoints: (A, K, 2) or None.
    suppressed: the network leaves no overlapping boxes itself.
    """

    boxes: Array
    scores: Array
    labels: Array | None = None
    best_only: bool = False
    keypoints: Array | None = None
    suppressed: bool = False


class Decoder(Protocol):
    """What makes candidates of a network's outputs."""

    @property
    def classes(self) -> int:
        """The number of classes; 0 where only the network knows it."""

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """The candidates of each picture. outputs: arrays on the CPU. size: (height, width) of the input."""


@dataclass(frozen=True)
class Selection:
    """How detections are chosen among candidates.

    conf: least score. iou: boxes that overlap one of higher score by more go. classes: indices of the classes that
    are kept, or None. max_det: most detections. agnostic: boxes of different classes suppress each other.
    suppression: "hard", "soft" (scores decay with overlap, Bodla et al., 2017; then conf decides), "weighted" (a box
    that is kept becomes the mean, weighted by score, of itself and what it suppresses, as in BlazeFace) or "none".
    top_k: candidates of the highest scores that take part in suppression. multi_label: a box may have several classes.
    Raises ArgumentError for other values.
    """

    conf: float = 0.25
    iou: float = 0.45
    classes: tuple[int, ...] | None = None
    max_det: int = 300
    agnostic: bool = False
    suppression: str = "hard"
    top_k: int = 30_000
    multi_label: bool = True

    def __post_init__(self) -> None:
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
                raise ArgumentError(f"{name} is out of range", expected="a number from 0 to 1", received=repr(value))
        for name in ("max_det", "top_k"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{name} is wrong", expected="an integer from 1", received=repr(value))
        if self.suppression not in SUPPRESSIONS:
            raise ArgumentError(
                "there is no such suppression", expected=", ".join(SUPPRESSIONS), received=repr(self.suppression)
            )


@dataclass
class Selected:
    """Detections in pixels of the input: boxes (n, 4), scores (n,), labels (n,), keypoints (n, K, 2) or None."""

    boxes: Array
    scores: Array
    labels: Array
    keypoints: Array | None


def class_indices(classes: Any, names: Sequence[str]) -> tuple[int, ...] | None:
    """Classes given as indices or names, or one of these, as indices. Raises ArgumentError for unknown ones."""
    if classes is None:
        return None
    if isinstance(classes, str | int | np.integer):
        classes = [classes]
    result = []
    try:
        items = list(classes)
    except TypeError:
        raise ArgumentError("classes are wrong", expected="names or indices", received=repr(classes)) from None
    for item in items:
        index = names.index(item) if isinstance(item, str) and item in names else item
        if isinstance(index, str) and index.isdigit():
            index = int(index)
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < len(names):
            known = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise ArgumentError(
                "the model has no such class", expected=f"0 to {len(names) - 1}, or {known}", received=repr(item)
            )
        result.append(int(index))
    return tuple(result)


def select(candidates: Candidates, selection: Selection, source: str) -> Selected:
    """The detections among candidates, best first. source: the picture's name, for messages.

    Raises InputError where scores are not numbers.
    """
    rows, labels, scores = _confident(candidates, selection, source)
    if selection.classes is not None:
        wanted = np.isin(labels, np.array(selection.classes, np.int64))
        rows, labels, scores = rows[wanted], labels[wanted], scores[wanted]
    boxes = candidates.boxes[rows].astype(np.float32, copy=False)
    usable = np.isfinite(boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not usable.all():
        rows, labels, scores, boxes = rows[usable], labels[usable], scores[usable], boxes[usable]
    if len(scores) > selection.top_k:
        best = np.argpartition(-scores, selection.top_k - 1)[: selection.top_k]
        best.sort()
        rows, labels, scores, boxes = rows[best], labels[best], scores[best], boxes[best]
    points = None if candidates.keypoints is None else candidates.keypoints[rows]
    kept, scores_kept = _suppressed(candidates, selection, boxes, scores, labels)
    kept, scores_kept = kept[: selection.max_det], scores_kept[: selection.max_det].astype(np.float32, copy=False)
    found = Selected(boxes[kept], scores_kept, labels[kept], None if points is None else points[kept])
    if selection.suppression == "weighted" and not candidates.suppressed:
        return _blended(found, selection, boxes, scores, labels, points)
    return found


def _blended(
    found: Selected, selection: Selection, boxes: Array, scores: Array, labels: Array, points: Array | None
) -> Selected:
    """Detections as means, weighted by score, of all candidates that they suppress; their scores are plain means.

    Source: the blending of arXiv:1907.05047, as hollance/BlazeFace-PyTorch has it.
    """
    groups = np.zeros_like(labels) if selection.agnostic else labels
    left = {group: np.nonzero(groups == group)[0] for group in np.unique(groups).tolist()}
    for k in range(len(found.boxes)):
        group = 0 if selection.agnostic else int(found.labels[k])
        near = left[group]
        iou = np.asarray(ops.box_iou(found.boxes[k : k + 1], boxes[near]))[0]
        members = (iou > selection.iou) | (boxes[near] == found.boxes[k]).all(1)
        some, left[group] = near[members], near[~members]
        if len(some) > 1:
            weights = scores[some] / max(float(scores[some].sum()), 1e-12)
            found.boxes[k] = weights @ boxes[some]
            found.scores[k] = scores[some].mean()
            if points is not None and found.keypoints is not None:
                found.keypoints[k] = np.tensordot(weights, points[some], 1)
    order = np.argsort(-found.scores, kind="stable")
    keypoints = None if found.keypoints is None else found.keypoints[order]
    return Selected(found.boxes[order], found.scores[order], found.labels[order], keypoints)


def _confident(candidates: Candidates, selection: Selection, source: str) -> tuple[Array, Array, Array]:
    """Rows, classes and scores of the candidates of at least the wanted confidence."""
    scores = candidates.scores
    if np.isnan(scores).any():
        raise InputError(
            f"the network gives scores that are not numbers for {source}",
            expected="finite numbers",
            fix="check the weights",
        )
    if candidates.labels is not None:
        rows = np.nonzero(scores >= selection.conf)[0]
        return rows, candidates.labels[rows].astype(np.int64), scores[rows]
    if candidates.best_only or not selection.multi_label:
        labels = scores.argmax(1) if scores.size else np.zeros(len(scores), np.int64)
        best = scores[np.arange(len(scores)), labels] if scores.size else np.zeros(0, np.float32)
        rows = np.nonzero(best >= selection.conf)[0]
        return rows, labels[rows], best[rows]
    rows, labels = np.nonzero(scores >= selection.conf)
    return rows, labels, scores[rows, labels]


def _suppressed(
    candidates: Candidates, selection: Selection, boxes: Array, scores: Array, labels: Array
) -> tuple[Array, Array]:
    """Indices of the boxes that remain, and their scores, best first."""
    groups = np.zeros_like(labels) if selection.agnostic else labels
    if candidates.suppressed or selection.suppression == "none":
        order = descending(np, scores)
        return order, scores[order]
    if selection.suppression == "soft":
        return _softly(selection, boxes, scores, groups)
    kept = _best_kept(boxes, scores, groups, selection)
    return kept, scores[kept]


def _best_kept(boxes: Array, scores: Array, groups: Array, selection: Selection) -> Array:
    """What suppression keeps, best first: at least the max_det first of it, or all.

    Whether a box is kept depends on those of higher score alone: so the best are enough, if enough of them are kept.
    """
    order: Array = descending(np, scores)
    some = 4 * selection.max_det
    while True:
        part = order[:some]
        kept: Array = part[ops.batched_nms(boxes[part], scores[part], groups[part], float(selection.iou))]
        if len(kept) >= selection.max_det or some >= len(order):
            return kept
        some *= 8


def _softly(selection: Selection, boxes: Array, scores: Array, groups: Array) -> tuple[Array, Array]:
    """The max_det boxes of the highest scores after Gaussian decay within their groups, best first."""

    def decay(iou: Array) -> Array:
        result: Array = np.exp(-(iou**2) / _SIGMA)
        return result

    groups = np.unique(groups, return_inverse=True)[1]
    kept, decayed = soften(np, boxes, scores, groups, decay, float(selection.conf), selection.max_det)
    return kept, decayed
