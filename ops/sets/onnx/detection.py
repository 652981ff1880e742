"""NonMaxSuppression, RoiAlign."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.common import affordable, concrete, scalar
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
    if places.ndim != 3 or places.shape[2] != 4 or values.ndim != 3 or places.shape[:2] != values.shape[::2]:
        raise ShapeError(
            "NonMaxSuppression: boxes and scores do not fit",
            expected="boxes (N, boxes, 4) and scores (N, classes, boxes)",
            received=f"{places.shape} and {values.shape}",
        )
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


def roi_align(
    X: Array,
    rois: Array,
    batch_indices: Array,
    /,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """X averaged at points of a grid of cells in each region (x1, y1, x2, y2)."""
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise ArgumentError(
            "RoiAlign: unknown coordinate_transformation_mode",
            expected="half_pixel or output_half_pixel",
            received=coordinate_transformation_mode,
        )
    boxes = ops.concat([ops.cast(ops.expand_dims(batch_indices, 1), rois.dtype), rois], 1)
    size, aligned = (output_height, output_width), coordinate_transformation_mode == "half_pixel"
    return _pooled(X, boxes, size, spatial_scale, sampling_ratio, aligned, mode)


def roi_align_10(
    X: Array,
    rois: Array,
    batch_indices: Array,
    /,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Array:
    """As version 16, with corners of cells at whole numbers."""
    boxes = ops.concat([ops.cast(ops.expand_dims(batch_indices, 1), rois.dtype), rois], 1)
    return _pooled(X, boxes, (output_height, output_width), spatial_scale, sampling_ratio, False, mode)


def _pooled(x: Array, boxes: Array, size: tuple[int, int], scale: float, ratio: int, aligned: bool, mode: str) -> Array:
    if mode == "avg":
        return ops.roi_align(x, boxes, size, scale, ratio or -1, aligned)
    if mode != "max":
        raise ArgumentError("RoiAlign: unknown mode", expected="avg or max", received=mode)
    affordable((boxes.shape[0], x.shape[1], *size), x.dtype, "RoiAlign")
    flat = ops.reshape(x, (*x.shape[:2], -1))
    regions = concrete(boxes, "regions of interest").astype(np.float32)
    if not np.isfinite(regions).all() or ((regions[:, 0] < 0) | (regions[:, 0] >= x.shape[0])).any():
        raise ArgumentError("RoiAlign: a region is not finite, or of an image that is not there")
    results = []
    for image, *corners in regions.tolist():
        cells, weights = _samples(corners, size, tuple(x.shape[2:]), scale, ratio, aligned)
        read = ops.take(ops.index(flat, int(image)), cells, 1)  # (channels, bins, 4 corners of each sample)
        results.append(ops.max(ops.multiply(read, weights.astype(x.dtype)), -1))
    y = ops.stack(results, 0) if results else ops.zeros((0, x.shape[1], size[0] * size[1]), x.dtype)
    return ops.reshape(y, (len(results), x.shape[1], *size))


def _samples(
    corners: list[float], size: tuple[int, int], spatial: tuple[int, ...], scale: float, ratio: int, aligned: bool
) -> tuple[Any, Any]:
    """The cells of a plane and their bilinear weights, (bins, 4 · samples), that a region's bins are the maximum of.

    By the specification the largest product of one cell and its weight counts, not the largest sample.
    """
    lines = []
    for axis in (1, 0):  # y, then x
        low, high = (corners[axis + end] * scale - (0.5 if aligned else 0.0) for end in (0, 2))
        extent = high - low if aligned else max(high - low, 1.0)
        bins, cells = size[1 - axis], spatial[1 - axis]
        count = ratio if ratio > 0 else max(math.ceil(extent / bins), 1)
        affordable((bins * count, 4), np.dtype(np.float64), "RoiAlign")
        at = low + (np.arange(bins)[:, None] + (np.arange(count) + 0.5) / count) * (extent / bins)
        inside = (at >= -1) & (at <= cells)
        at = np.clip(at, 0, cells - 1)
        first = at.astype(np.int64)
        share = at - first
        places = np.stack([first, np.minimum(first + 1, cells - 1)], -1)
        lines.append((places, np.stack([1 - share, share], -1) * inside[..., None]))
    (rows, down), (columns, across) = lines  # (bins, samples, 2)
    spread = np.newaxis
    cells = rows[:, spread, :, spread, :, spread] * spatial[1] + columns[spread, :, spread, :, spread, :]
    weights = down[:, spread, :, spread, :, spread] * across[spread, :, spread, :, spread, :]
    shape = (size[0] * size[1], -1)
    return cells.reshape(shape), weights.reshape(shape)


declare("RoiAlign", roi_align_10, (10,))
declare("RoiAlign", roi_align, (16, 22))
