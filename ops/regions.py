"""Pooling of regions of interest: roi_align and roi_pool, by the names of `torchvision.ops`.

Regions are rows (n, x1, y1, x2, y2): the number of an image in the batch, and corners in the coordinates of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from zoonet.ops.boxes import check_boxes
from zoonet.ops.comparisons import greater_equal
from zoonet.ops.creation import full
from zoonet.ops.elementwise import maximum, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.indexing import take
from zoonet.ops.joining import concat
from zoonet.ops.registry import REGISTRY, composite, op
from zoonet.ops.samples import distinct, fixed, floats, sample
from zoonet.ops.types import FLOATING, INTEGER, Array, TensorType, int64, is_floating, kind_of

__all__ = ["batch_boxes", "roi_align", "roi_pool", "roi_pool_indices"]


@composite(
    samples=[
        sample([floats(2, 4), floats(0, 4), floats(1, 4)]),
        sample([fixed([[1, 2, 3, 4]], "int64"), floats(1, 4)]),
    ]
)
def batch_boxes(boxes: Sequence[Array]) -> Array:
    """Regions [K, 5] from one list of boxes [L, 4] per image: the image's number before each box.

    Boxes are promoted to one dtype, at least float32. Raises ShapeError.
    """
    if not boxes:
        raise ShapeError("batch_boxes needs one list of boxes per image", expected="one or more", received=0)
    rows = []
    for number, each in enumerate(boxes):
        check_boxes("batch_boxes", each)
        if len(each.shape) != 2:
            raise ShapeError("batch_boxes takes lists of boxes", expected="[L, 4]", received=list(each.shape))
        first = REGISTRY["multiply"](REGISTRY["index"](each, (slice(None), slice(0, 1))), 0)
        rows.append(concat([REGISTRY["add"](first, float(number)), each], 1))
    return concat(rows, 0)


def _check(name: str, x: TensorType, boxes: TensorType, output_size: Any, spatial_scale: float) -> tuple[int, int]:
    if x.ndim != 4:
        raise ShapeError(f"{name} takes feature maps", expected="[N, C, H, W]", received=list(x.shape))
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ShapeError(
            f"{name} takes regions (image, x1, y1, x2, y2)",
            expected="[K, 5]",
            received=list(boxes.shape),
            fix="join lists of boxes [L, 4] of each image by batch_boxes",
        )
    if not is_floating(x.dtype):
        raise DTypeError(f"{name} takes floats", received=x.dtype.name)
    if not INTEGER <= kind_of(boxes.dtype) <= FLOATING:
        raise DTypeError(f"{name}: regions are not real numbers", received=boxes.dtype.name)
    if not spatial_scale > 0:
        raise ArgumentError(f"{name}: spatial_scale is not positive", expected="above 0", received=spatial_scale)
    return _size(name, output_size)


def _size(name: str, output_size: Any) -> tuple[int, int]:
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ArgumentError(f"{name}: wrong output_size", expected="(height, width)", received=output_size)
    return int(sizes[0]), int(sizes[1])


def _regions(name: str, boxes: Any, images: int) -> tuple[list[int], Any]:
    """The image of each region, and corners as rows, on the host: they decide which slices are read."""
    boxes = np.asarray(boxes.get() if hasattr(boxes, "get") else boxes, np.promote_types(boxes.dtype, np.float32))
    numbers = boxes[:, 0]
    if not ((numbers >= 0) & (numbers < images)).all():
        wrong = numbers[~((numbers >= 0) & (numbers < images))][0]
        raise ArgumentError(f"{name}: no such image", expected=f"0 to {images - 1} in column 0", received=wrong)
    if not np.isfinite(boxes).all():
        raise ArgumentError(f"{name}: a region is not finite", expected="numbers", received="inf or nan")
    return numbers.astype(int).tolist(), boxes[:, 1:]


def _weights(start: Any, length: Any, bins: int, samples: int, size: int) -> list[tuple[int, Any]]:
    """For each region the first cell that it reads along an axis, and weights (bins, cells) from there on.

    start, length: of the regions, in cells. Each bin is the mean over evenly spaced samples, between the centers of
    two cells each; samples more than one cell outside count 0.
    """
    result = []
    for first, whole in zip(start, length, strict=True):
        count = samples if samples > 0 else max(int(np.ceil(whole / bins)), 0)
        step = whole / bins
        places = first + (np.arange(bins)[:, None] + (np.arange(count) + first.dtype.type(0.5)) / max(count, 1)) * step
        inside = (places >= -1) & (places <= size)
        places = np.clip(places, 0, size - 1)
        low = places.astype(int)
        fraction = places - low
        begin = int(low.min(initial=size - 1))
        end = min(int(low.max(initial=begin)) + 2, size)
        matrix = np.zeros((bins, end - begin), places.dtype)
        rows = np.broadcast_to(np.arange(bins)[:, None], low.shape)
        np.add.at(matrix, (rows, low - begin), (1 - fraction) * inside)
        np.add.at(matrix, (rows, np.minimum(low + 1, size - 1) - begin), fraction * inside)
        result.append((begin, matrix / max(count, 1)))
    return result


def _aligned(name: str, shape: Any, boxes: Any, sizes: Any, scale: float, samples: int, aligned: bool) -> Any:
    """For each region its image, the slices of rows and columns that it reads, and the weights of both."""
    images, corners = _regions(name, boxes, shape[0])
    corners = corners * corners.dtype.type(scale) - corners.dtype.type(0.5 if aligned else 0.0)
    axes = []
    for axis in (1, 0):  # y, then x
        length = corners[:, axis + 2] - corners[:, axis]
        if not aligned:
            length = np.maximum(length, 1)
        axes.append(_weights(corners[:, axis], length, sizes[1 - axis], samples, shape[3 - axis]))
    for image, (top, down), (left, across) in zip(images, *axes, strict=True):
        rows, columns = slice(top, top + down.shape[1]), slice(left, left + across.shape[1])
        yield image, rows, columns, down, across


REGIONS = fixed(
    [[0, 1, 2, 9, 11], [1, 0, 0, 6, 4], [0, 3, 3, 4, 4], [1, -6, 5, 30, 30], [0, 40, 40, 50, 60], [1, 5, 4, 5, 4]],
    "int64",
)


@op(
    samples=[
        sample(floats(2, 3, 7, 6), REGIONS, 2, 0.6),
        sample(floats(2, 2, 7, 6), REGIONS, (3, 2), 0.6, 2),
        sample(floats(2, 1, 7, 6), REGIONS, (2, 3), 0.55, -1, True),
        sample(floats(2, 2, 7, 6), REGIONS, 3, 0.45, 3, True),
        sample(floats(2, 2, 4, 4), fixed(np.zeros((0, 5)), "int64"), 2),
    ]
)
def roi_align(
    xp: Any,
    x: Array,
    boxes: Array,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    """Regions of feature maps as maps of one size: each cell is the mean of bilinear samples in its part of the region.

    x: [N, C, H, W], floating; boxes: [K, 5] regions (see `batch_boxes`) -> [K, C, height, width], x's dtype.
    spatial_scale: from the boxes' coordinates to x's. sampling_ratio: samples per cell and axis; below 1 as many as
    the region has cells of x. aligned: centers of cells are at whole coordinates plus ½, else at whole ones, and
    regions are at least one cell wide. Boxes get no gradient, as in torchvision.
    Raises ShapeError, DTypeError or ArgumentError.
    Source: arXiv:1703.06870, torchvision.ops.roi_align.
    """
    sizes = _size("roi_align", output_size)
    result = xp.empty((len(boxes), x.shape[1], *sizes), x.dtype)
    parts = _aligned("roi_align", x.shape, boxes, sizes, spatial_scale, sampling_ratio, aligned)
    for k, (image, rows, columns, down, across) in enumerate(parts):
        down, across = xp.asarray(down, x.dtype), xp.asarray(across, x.dtype)
        result[k] = down @ (x[image, :, rows, columns] @ across.T)
    return result


@roi_align.type
def _(
    x: TensorType,
    boxes: TensorType,
    output_size: Any,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> TensorType:
    sizes = _check("roi_align", x, boxes, output_size, spatial_scale)
    if 0 in x.shape[2:]:
        raise ShapeError("roi_align: x has no cells", received=list(x.shape))
    return TensorType((boxes.shape[0], x.shape[1], *sizes), x.dtype)


@roi_align.vjp
def _(
    gy: Array,
    _y: TensorType,
    _x: TensorType,
    boxes: Array,
    _output_size: Any,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    return roi_align_gradient(gy, boxes, _x.shape, spatial_scale, sampling_ratio, aligned), None


@op(name="roi_align.gradient")
def roi_align_gradient(
    xp: Any,
    gy: Array,
    boxes: Array,
    shape: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Array:
    """The gradient of roi_align by x, of this shape."""
    result = xp.zeros(tuple(shape), gy.dtype)
    parts = _aligned("roi_align", shape, boxes, gy.shape[2:], spatial_scale, sampling_ratio, aligned)
    for k, (image, rows, columns, down, across) in enumerate(parts):
        down, across = xp.asarray(down, gy.dtype), xp.asarray(across, gy.dtype)
        result[image, :, rows, columns] += down.T @ (gy[k] @ across)
    return result


@roi_align_gradient.type
def _(gy: TensorType, boxes: TensorType, shape: Sequence[int], *_rest: Any) -> TensorType:
    return TensorType(tuple(shape), gy.dtype)


@roi_align_gradient.vjp
def _(
    gx: Array,
    _y: TensorType,
    _gy: TensorType,
    boxes: Array,
    _shape: Any,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    return roi_align(gx, boxes, tuple(_gy.shape[2:]), spatial_scale, sampling_ratio, aligned), None


# -- the largest of each part ------------------------------------------------------------------------------------


def _edges(first: int, last: int, bins: int, size: int) -> list[tuple[int, int]]:
    """Where the bins of a region from cell first to last begin and end, within 0 to size; they may overlap."""
    step = np.float32(max(last - first + 1, 1)) / np.float32(bins)
    begins = np.floor(np.arange(bins, dtype=np.float32) * step).astype(int) + first
    ends = np.ceil(np.arange(1, bins + 1, dtype=np.float32) * step).astype(int) + first
    return list(zip(np.clip(begins, 0, size).tolist(), np.clip(ends, 0, size).tolist(), strict=True))


ROI_POOL = [
    sample(distinct(2, 3, 7, 6), REGIONS, 2, 0.6),
    sample(distinct(2, 2, 7, 6), REGIONS, (3, 2)),
    sample(distinct(2, 2, 4, 4), fixed(np.zeros((0, 5)), "int64"), 2),
]


@op(differentiable=False, samples=ROI_POOL)
def roi_pool_indices(
    xp: Any, x: Array, boxes: Array, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Array:
    """Where in the flattened x the maxima of `roi_pool` stand, -1 for parts without a cell.

    Arguments and errors as for `roi_pool` -> [K, C, height, width] int64.
    """
    sizes = _size("roi_pool", output_size)
    count, channels, height, width = x.shape
    result = xp.full((len(boxes), channels, *sizes), -1, np.int64)
    images, corners = _regions("roi_pool", boxes, count)
    scaled = corners * corners.dtype.type(spatial_scale)
    cells = (np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)).astype(int).tolist()  # halves away from 0
    planes = xp.arange(channels) * (height * width)
    for k, (image, (x1, y1, x2, y2)) in enumerate(zip(images, cells, strict=True)):
        down, across = _edges(y1, y2, sizes[0], height), _edges(x1, x2, sizes[1], width)
        for (i, (top, bottom)), (j, (left, right)) in product(enumerate(down), enumerate(across)):
            if top < bottom and left < right:
                place = x[image, :, top:bottom, left:right].reshape(channels, -1).argmax(1)
                row, column = place // (right - left), place % (right - left)
                start = image * channels * height * width
                result[k, :, i, j] = start + planes + (top + row) * width + left + column
    return result


@roi_pool_indices.type
def _(x: TensorType, boxes: TensorType, output_size: Any, spatial_scale: float) -> TensorType:
    sizes = _check("roi_pool", x, boxes, output_size, spatial_scale)
    return TensorType((boxes.shape[0], x.shape[1], *sizes), int64)


@composite(samples=ROI_POOL)
def roi_pool(x: Array, boxes: Array, output_size: int | Sequence[int], spatial_scale: float = 1.0) -> Array:
    """Regions of feature maps as maps of one size: each cell is the maximum of its part of the region, or 0.

    x: [N, C, H, W], floating; boxes: [K, 5] regions (see `batch_boxes`), whose corners are rounded to whole cells, both
    of which belong to it -> [K, C, height, width], x's dtype. spatial_scale: from the boxes' coordinates to x's.
    Raises ShapeError, DTypeError or ArgumentError. Source: arXiv:1504.08083, torchvision.ops.roi_pool.
    """
    indices = roi_pool_indices(x, boxes, output_size, spatial_scale)
    if 0 in x.shape:
        return full(indices.shape, 0, x.dtype)
    return where(greater_equal(indices, 0), take(x, maximum(indices, 0)), 0.0)
