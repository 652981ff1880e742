"""Sampling at arbitrary positions: grid_sample and affine_grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.comparisons import equal, greater_equal, isnan, less_equal, logical_and
from zoonet.ops.elementwise import abs, add, cast, clip, floor, multiply, remainder, round, subtract, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, sample
from zoonet.ops.shapes import expand_dims, reshape
from zoonet.ops.slicing import index
from zoonet.ops.types import Array, TensorType, is_floating, promote
from zoonet.ops.windows import spatial_rank

__all__ = ["affine_grid", "grid_sample"]

#: The coefficient of PyTorch's cubic kernel.
_CUBIC = -0.75


@op(name="grid_sample.gather", exact=True)
def gather(xp: Any, x: Array, cells: Array) -> Array:
    """Cells of every channel. x: (N, C, S); cells: (N, P), integers in 0 to S - 1 -> (N, C, P)."""
    result = xp.empty((*x.shape[:2], cells.shape[1]), x.dtype)
    for n in range(len(x)):
        xp.take(x[n], cells[n], axis=1, out=result[n])
    return result


@gather.type
def _(x: TensorType, cells: TensorType) -> TensorType:
    return TensorType((*x.shape[:2], cells.shape[1]), x.dtype)


@gather.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, cells: Array) -> Any:
    return scatter(gy, cells, _x.shape[2]), None


@op(name="grid_sample.scatter")
def scatter(xp: Any, gy: Array, cells: Array, size: int) -> Array:
    """The transpose of gather: (N, C, P) added at cells (N, P) -> (N, C, size)."""
    count, channels = gy.shape[:2]
    result = xp.empty((count, channels, size), gy.dtype)
    offsets = xp.arange(channels)[:, None] * size
    for n in range(count):
        places = (cells[n] + offsets).ravel()
        sums = xp.bincount(places, weights=gy[n].ravel(), minlength=channels * size)
        result[n] = sums.reshape(channels, size)
    return result


@scatter.type
def _(gy: TensorType, cells: TensorType, size: int) -> TensorType:
    return TensorType((*gy.shape[:2], size), gy.dtype)


@scatter.vjp
def _(gx: Array, _y: TensorType, _gy: TensorType, cells: Array, _size: int) -> Any:
    return gather(gx, cells), None


def _reflected(position: Array, size: int, align_corners: bool) -> Array:
    """Positions folded back into the input, about the border cells' centers or their outer edges."""
    low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    if span == 0:
        return multiply(position, 0.0)
    distance = abs(subtract(position, low))
    rest = remainder(distance, span)
    even = equal(remainder(floor(multiply(distance, 1 / span)), 2), 0)
    return add(where(even, rest, subtract(span, rest)), low)


def _padded(position: Array, size: int, padding_mode: str, align_corners: bool) -> Array:
    """Positions moved into the input as the padding mode says; "zeros" leaves them, within reach of it.

    One that is not a number is outside for "zeros", and 0 otherwise, as PyTorch has it.
    """
    low, high, unknown = (-4.0, size + 3.0, -4.0) if padding_mode == "zeros" else (0.0, size - 1.0, 0.0)
    if padding_mode == "reflection":
        position = _reflected(position, size, align_corners)
    return where(isnan(position), unknown, clip(position, low, high))


def _taps(position: Array, size: int, mode: str, padding_mode: str, align_corners: bool) -> list[tuple[Any, Any]]:
    """Pairs of a whole position and its weight (None for 1) along one axis, for positions in cells."""
    if mode == "bicubic":
        position = clip(position, -1e6, 1e6)  # keeps whole positions representable
        base = floor(position)
        fraction = subtract(position, base)
        distances = [add(fraction, 1.0), fraction, subtract(1.0, fraction), subtract(2.0, fraction)]
        weights = [_cubic(d, outer) for d, outer in zip(distances, (True, False, False, True), strict=True)]
        steps = [add(base, float(step)) for step in (-1, 0, 1, 2)]
        return [
            (_padded(step, size, padding_mode, align_corners), weight)
            for step, weight in zip(steps, weights, strict=True)
        ]
    position = _padded(position, size, padding_mode, align_corners)
    if mode == "nearest":
        return [(round(position), None)]
    base = floor(position)
    fraction = subtract(position, base)
    return [(base, subtract(1.0, fraction)), (add(base, 1.0), fraction)]


def _cubic(distance: Array, outer: bool) -> Array:
    """Keys' kernel at distances in 1 to 2 (outer) or 0 to 1, by Horner's rule."""
    coefficients = (_CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC) if outer else (_CUBIC + 2, -_CUBIC - 3, 0.0, 1.0)
    result: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        result = add(multiply(distance, result), coefficient)
    return result


@composite(
    samples=[
        sample(floats(2, 3, 4, 5), floats(2, 3, 2, 2, low=-0.95, high=0.95)),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-1.6, high=1.6), "bilinear", "zeros", True),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-1.9, high=1.9), "bilinear", "border"),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-2.7, high=2.7), "bilinear", "reflection"),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-2.7, high=2.7), "bilinear", "reflection", True),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-1.4, high=1.4), "nearest"),
        sample(floats(1, 2, 4, 5), floats(1, 3, 4, 2, low=-1.9, high=1.9), "nearest", "border", True),
        sample(floats(1, 2, 5, 6), floats(1, 3, 4, 2, low=-1.4, high=1.4), "bicubic"),
        sample(floats(1, 2, 5, 6), floats(1, 3, 4, 2, low=-1.9, high=1.9), "bicubic", "border", True),
        sample(floats(1, 2, 5, 6), floats(1, 3, 4, 2, low=-1.9, high=1.9), "bicubic", "reflection"),
        sample(floats(1, 2, 3, 4, 5), floats(1, 2, 3, 2, 3, low=-1.4, high=1.4)),
        sample(floats(1, 2, 3, 4, 5), floats(1, 2, 3, 2, 3, low=-1.4, high=1.4), "nearest", "reflection"),
    ]
)
def grid_sample(
    x: Array, grid: Array, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> Array:
    """x sampled at the positions of a grid, with gradients for both.

    x: (N, C, spatial...); grid: (N, out..., r), floating, r = number of spatial axes, whose last axis has the
    position along the last spatial axis first (x, y, z), -1 to 1 across the input -> (N, C, out...). mode:
    "bilinear" (trilinear in 3-d), "nearest" (ties to even) or "bicubic". padding_mode: "zeros", "border" or
    "reflection" for positions outside. align_corners: ±1 are the centers of the border cells, else their outer edges.
    Raises ShapeError, DTypeError or ArgumentError where the arguments do not fit.
    Source: torch.nn.functional.grid_sample; ONNX GridSample, opset 20.
    """
    spatial = tuple(x.shape[2:])
    points = prod(grid.shape[1:-1])
    axes = []
    for axis, size in enumerate(spatial):
        position = reshape(index(grid, (Ellipsis, len(spatial) - 1 - axis)), (grid.shape[0], points))
        if align_corners:
            position = multiply(add(position, 1.0), (size - 1) / 2)
        else:
            position = subtract(multiply(add(position, 1.0), size / 2), 0.5)
        axes.append(_taps(position, size, mode, padding_mode, align_corners))
    flat = reshape(x, (*x.shape[:2], prod(spatial)))
    result: Any = None
    for corner in product(*axes):
        cells: Any = 0
        weight: Any = None
        for (place, factor), size in zip(corner, spatial, strict=True):
            cells = add(multiply(cells, size), cast(clip(place, 0.0, size - 1.0), "int64"))
            if padding_mode == "zeros":
                inside = logical_and(greater_equal(place, 0.0), less_equal(place, size - 1.0))
                factor = where(inside, 1.0 if factor is None else factor, 0.0)
            if factor is not None:
                weight = factor if weight is None else multiply(weight, factor)
        term = gather(flat, cells)
        if weight is not None:
            term = multiply(term, expand_dims(weight, 1))
        result = term if result is None else add(result, term)
    return reshape(result, (*x.shape[:2], *grid.shape[1:-1]))


@grid_sample.type
def _(x: TensorType, grid: TensorType, mode: str, padding_mode: str, align_corners: bool) -> TensorType:
    rank = spatial_rank("grid_sample", x.ndim)
    if grid.ndim != x.ndim or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
        raise ShapeError(
            "grid_sample: the grid does not fit",
            expected=f"({x.shape[0]}, {'out, ' * rank}{rank})",
            received=list(grid.shape),
        )
    if not is_floating(x.dtype) or not is_floating(grid.dtype):
        raise DTypeError("grid_sample takes floats", received=f"{x.dtype.name} and {grid.dtype.name}")
    if 0 in x.shape[2:]:
        raise ShapeError("grid_sample: x has no cells", received=list(x.shape))
    for parameter, value, allowed in (
        ("mode", mode, ("bilinear", "nearest", "bicubic")),
        ("padding_mode", padding_mode, ("zeros", "border", "reflection")),
    ):
        if value not in allowed:
            raise ArgumentError(f"grid_sample: unknown {parameter}", expected=" or ".join(allowed), received=value)
    weighted = mode != "nearest" or padding_mode == "zeros"
    return TensorType((*x.shape[:2], *grid.shape[1:-1]), promote((x, grid)) if weighted else x.dtype)


def _base_grid(xp: Any, spatial: Sequence[int], align_corners: bool, dtype: Any) -> Array:
    """Homogeneous coordinates (P, r + 1) of all cells, the last axis first."""
    lines = []
    for n in spatial:
        edge = 1.0 if align_corners else (n - 1) / n
        lines.append(np.linspace(-edge, edge, n) if n > 1 else np.zeros(1))
    mesh = np.meshgrid(*lines, indexing="ij")
    columns = [*[m.ravel() for m in reversed(mesh)], np.ones(prod(spatial))]
    return xp.asarray(np.stack(columns, axis=1), dtype=dtype)


@op(
    samples=[
        sample(floats(2, 2, 3), (2, 3, 4, 5)),
        sample(floats(1, 2, 3), (1, 1, 3, 2), True),
        sample(floats(2, 3, 4), (2, 1, 2, 3, 4)),
    ]
)
def affine_grid(xp: Any, theta: Array, size: Sequence[int], align_corners: bool = False) -> Array:
    """Grids for grid_sample that apply affine maps. theta: (N, r, r + 1), floating -> (N, spatial..., r).

    size: (N, C, spatial...) of the image to be sampled. align_corners: as for grid_sample. Raises ShapeError or
    DTypeError where theta does not fit the size. Source: torch.nn.functional.affine_grid.
    """
    spatial = tuple(size[2:])
    base = _base_grid(xp, spatial, align_corners, theta.dtype)
    return xp.matmul(base, theta.swapaxes(1, 2)).reshape(theta.shape[0], *spatial, len(spatial))


@affine_grid.type
def _(theta: TensorType, size: Sequence[int], align_corners: bool) -> TensorType:
    rank = spatial_rank("affine_grid", len(size))
    if theta.shape != (size[0], rank, rank + 1):
        raise ShapeError(
            "affine_grid: theta does not fit", expected=[size[0], rank, rank + 1], received=list(theta.shape)
        )
    if not is_floating(theta.dtype):
        raise DTypeError("affine_grid takes floats", received=theta.dtype.name)
    return TensorType((size[0], *size[2:], rank), theta.dtype)


@affine_grid.vjp
def _(gy: Array, _y: TensorType, _theta: TensorType, _size: Any, align_corners: bool) -> Any:
    return affine_grid_gradient(gy, align_corners)


@op(name="affine_grid.gradient")
def affine_grid_gradient(xp: Any, gy: Array, align_corners: bool) -> Array:
    """The gradient of affine_grid by theta: (N, spatial..., r) -> (N, r, r + 1)."""
    spatial = gy.shape[1:-1]
    base = _base_grid(xp, spatial, align_corners, gy.dtype)
    return xp.matmul(gy.reshape(gy.shape[0], prod(spatial), len(spatial)).swapaxes(1, 2), base)


@affine_grid_gradient.type
def _(gy: TensorType, align_corners: bool) -> TensorType:
    return TensorType((gy.shape[0], gy.ndim - 2, gy.ndim - 1), gy.dtype)


@affine_grid_gradient.vjp
def _(gt: Array, _t: TensorType, _gy: TensorType, align_corners: bool) -> Any:
    return affine_grid(gt, (_gy.shape[0], 1, *_gy.shape[1:-1]), align_corners)
