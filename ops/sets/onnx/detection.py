"""NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.sets.onnx.common import concrete, scalar
from zoonet.ops.sets.onnx.registry import declare
from zoonet.ops.types import Array


def non_max_suppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Any = None,
    iou_threshold: Any = None,
    score_threshold: Any = None,
    /,
    center_point_box: int = 0,
) -> Array:
    """(count, 3) of batch, class and box: those kept of boxes (N, boxes, 4) by scores (N, classes, boxes)."""
    most = 0 if max_output_boxes_per_class is None else int(scalar(max_output_boxes_per_class, "a number of boxes"))
    overlap = 0.0 if iou_threshold is None else float(scalar(iou_threshold, "the iou_threshold"))
    places, values = concrete(boxes, "boxes to suppress"), concrete(scores, "scores of boxes")
    if center_point_box:
        centre, half = places[..., :2], places[..., 2:] / 2
        corners = np.concatenate([centre - half, centre + half], -1)
    else:  # (y1, x1, y2, x2), corners in any order
        low, high = np.minimum(places[..., :2], places[..., 2:]), np.maximum(places[..., :2], places[..., 2:])
        corners = np.concatenate([low, high], -1)
    found = [np.zeros((0, 3), np.int64)]
    for image, of_class in np.ndindex(values.shape[:2]) if most > 0 else ():
        row = values[image, of_class]
        kept = np.arange(len(row))
        if score_threshold is not None:
            kept = np.flatnonzero(row > float(scalar(score_threshold, "the score_threshold")))
        chosen = kept[np.asarray(ops.nms(corners[image, kept], row[kept], overlap))][:most]
        found.append(np.stack([np.full_like(chosen, image), np.full_like(chosen, of_class), chosen], 1))
    return np.concatenate(found).astype(np.int64)


declare("NonMaxSuppression", non_max_suppression, (10, 11))
