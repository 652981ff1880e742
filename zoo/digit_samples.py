"""Training samples for pictures of digits: scans and drawn digits, warped, thickened, thinned and blurred anew each time."""

from __future__ import annotations

from typing import Any

import numpy as np

Plane = np.ndarray[Any, Any]

# How digits are written: for each digit its variants, for each variant its strokes, for each stroke whether it is a
# smooth curve, and points (x, y) it passes through, x to the right from 0 to 1, y down from 0 to 1.5.
_SIX = (True, ((0.85, 0.15), (0.6, 0), (0.3, 0.15), (0.08, 0.6), (0.05, 1.05), (0.25, 1.42), (0.55, 1.5), (0.9, 1.3),
               (0.95, 1), (0.75, 0.72), (0.45, 0.68), (0.12, 0.95)))  # fmt: skip
_SIX_STRAIGHT = (True, ((0.7, 0), (0.3, 0.45), (0.05, 0.95), (0.15, 1.35), (0.5, 1.5), (0.85, 1.35), (0.9, 1.05),
                        (0.65, 0.8), (0.3, 0.85), (0.08, 1.1)))  # fmt: skip
_BELLY = (True, ((0.1, 0.65), (0.4, 0.5), (0.75, 0.55), (0.95, 0.85), (0.9, 1.2), (0.6, 1.47), (0.25, 1.48), (0, 1.3)))


def _turned(stroke: tuple[bool, tuple[tuple[float, float], ...]]) -> tuple[bool, tuple[tuple[float, float], ...]]:
    return stroke[0], tuple((1 - x, 1.5 - y) for x, y in stroke[1])


STROKES: tuple[tuple[tuple[tuple[bool, tuple[tuple[float, float], ...]], ...], ...], ...] = (
    (
        ((True, ((0.5, 0), (0.1, 0.3), (0, 0.75), (0.1, 1.2), (0.5, 1.5), (0.9, 1.2), (1, 0.75), (0.9, 0.3), (0.5, 0))),),
        ((True, ((0.6, 0), (0.15, 0.2), (0, 0.75), (0.15, 1.3), (0.5, 1.5), (0.85, 1.3), (1, 0.75), (0.85, 0.2), (0.4, 0.05))),),
    ),
    (
        ((False, ((0.5, 0), (0.5, 1.5))),),
        ((False, ((0.12, 0.35), (0.5, 0), (0.5, 1.5))),),
        ((False, ((0.2, 0.18), (0.5, 0), (0.5, 1.5))), (False, ((0.15, 1.5), (0.85, 1.5)))),
        ((False, ((0.1, 0.4), (0.5, 0), (0.5, 1.5))), (False, ((0.05, 1.5), (0.95, 1.5)))),
    ),
    (
        ((True, ((0.05, 0.35), (0.2, 0.05), (0.55, 0), (0.9, 0.2), (0.9, 0.5), (0.6, 0.9), (0.05, 1.5))), (False, ((0.05, 1.5), (1, 1.5)))),
        ((True, ((0.05, 0.35), (0.25, 0.05), (0.6, 0), (0.9, 0.25), (0.8, 0.65), (0.45, 1.15), (0.1, 1.45), (0, 1.3), (0.2, 1.2), (0.6, 1.42), (1, 1.45))),),
    ),
    (
        ((True, ((0.05, 0.2), (0.3, 0), (0.65, 0), (0.9, 0.2), (0.85, 0.5), (0.6, 0.68), (0.35, 0.7))),
         (True, ((0.35, 0.7), (0.7, 0.72), (0.95, 0.95), (0.95, 1.2), (0.7, 1.45), (0.35, 1.5), (0, 1.3)))),
        ((False, ((0, 0), (0.9, 0), (0.42, 0.6))), (True, ((0.42, 0.6), (0.8, 0.7), (0.95, 1), (0.8, 1.35), (0.4, 1.5), (0, 1.3)))),
        ((True, ((0.05, 0.15), (0.4, 0), (0.75, 0.1), (0.8, 0.35), (0.5, 0.65), (0.4, 0.68), (0.55, 0.68), (0.95, 0.95), (0.85, 1.35), (0.4, 1.5), (0, 1.35))),),
    ),
    (
        ((False, ((0.7, 1.5), (0.7, 0), (0, 1.05), (1, 1.05))),),
        ((False, ((0.7, 1.5), (0.7, 0), (0.6, 0), (0, 1), (0, 1.1), (1, 1.1))),),
        ((False, ((0.12, 0), (0.05, 0.75), (0.95, 0.75))), (False, ((0.8, 0), (0.75, 1.5)))),
        ((False, ((0.35, 0), (0, 0.85), (1, 0.85))), (False, ((0.7, 0.45), (0.65, 1.5)))),
    ),
    (
        ((False, ((0.9, 0), (0.15, 0), (0.1, 0.65))), _BELLY),
        ((False, ((0.15, 0), (0.1, 0.65))), _BELLY, (False, ((0.15, 0.02), (1, -0.03)))),
    ),
    ((_SIX,), (_SIX_STRAIGHT,)),
    (
        ((False, ((0, 0), (1, 0), (0.4, 1.5))),),
        ((False, ((0, 0), (1, 0), (0.4, 1.5))), (False, ((0.3, 0.75), (0.9, 0.75)))),
        ((False, ((0, 0), (1, 0))), (True, ((1, 0), (0.6, 0.6), (0.4, 1.1), (0.38, 1.5)))),
        ((False, ((0, 0.25), (0, 0), (1, 0), (0.35, 1.5))),),
    ),
    (
        ((True, ((0.5, 0.7), (0.15, 0.5), (0.12, 0.2), (0.5, 0), (0.88, 0.2), (0.85, 0.5), (0.5, 0.7), (0.1, 0.95), (0.05, 1.25), (0.5, 1.5), (0.95, 1.25), (0.9, 0.95), (0.5, 0.7))),),
        ((True, ((0.85, 0.25), (0.5, 0), (0.15, 0.25), (0.5, 0.7), (0.9, 1.15), (0.5, 1.5), (0.1, 1.15), (0.5, 0.7), (0.85, 0.25))),),
    ),
    (
        (_turned(_SIX),),
        ((True, ((0.9, 0.45), (0.55, 0.85), (0.15, 0.7), (0.05, 0.4), (0.25, 0.05), (0.65, 0), (0.9, 0.3))), (False, ((0.92, 0.1), (0.85, 1.5)))),
        (_turned(_SIX_STRAIGHT),),
    ),
)  # fmt: skip


def draw(digit: int, rng: np.random.Generator, size: int = 48, box: int = 36) -> Plane:
    """A digit written with a random hand and pen: (size, size), 1 is ink."""
    variants = STROKES[digit]
    points = []
    for smooth, corners in variants[rng.integers(len(variants))]:
        path = np.array(corners) + rng.normal(0, 0.03, (len(corners), 2))
        points.append(_curve(path) if smooth else _lines(path))
    path = np.concatenate(points) * (box / 1.5) + (size - box) / 2
    path[:, 0] += box / 6
    thick = box * np.exp(rng.uniform(np.log(0.02), np.log(0.11)))
    across, along = thick, max(0.6, thick * rng.choice([1.0, 1.0, rng.uniform(0.25, 1)]))
    y, x = np.mgrid[0:size, 0:size]
    squared = ((x.reshape(-1, 1) - path[:, 0]) / across) ** 2 + ((y.reshape(-1, 1) - path[:, 1]) / along) ** 2
    distance = np.sqrt(squared.min(1))
    return np.clip((1 - distance) * along + 0.5, 0, 1).reshape(size, size).astype(np.float32)


def _lines(path: Plane) -> Plane:
    """Points along the straight lines between points."""
    parts = [np.linspace(a, b, 40) for a, b in zip(path[:-1], path[1:], strict=True)]
    return np.concatenate(parts)


def _curve(path: Plane) -> Plane:
    """Points along the Catmull-Rom spline through points."""
    padded = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    t = np.linspace(0, 1, 20)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(parts)


def warp(ink: Plane, rng: np.random.Generator, box: int, size: int) -> Plane:
    """Random affine maps and bends of digits, each scaled to fit `box` again and centred, with new stroke widths.

    ink: (N, H, H) from 0 to 1 -> (N, size, size).
    """
    count, height, width = ink.shape
    angle = rng.normal(0, 0.13, count)
    shear = rng.normal(0, 0.2, count)
    stretch = np.exp(rng.normal(0, 0.22, count))
    cos, sin = np.cos(angle), np.sin(angle)
    # columns: where (x, y) of the digit go
    matrix = np.stack([np.stack([cos * stretch, -sin + shear], -1), np.stack([sin * stretch, cos], -1)], -2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    points = np.stack([x - width / 2 + 0.5, y - height / 2 + 0.5]).reshape(2, -1)
    moved = (matrix @ points).reshape(count, 2, height * width)
    solid = (ink > 0.5).reshape(count, 1, -1)
    low = np.where(solid, moved, np.inf).min(-1)
    high = np.where(solid, moved, -np.inf).max(-1)
    extent = (high - low).max(-1) + 1
    scale = box / extent * np.exp(rng.normal(0, 0.04, count))
    centre = (low + high) / 2 + rng.normal(0, 0.6, (count, 2)) / scale[:, None]
    v, u = np.mgrid[0:size, 0:size].astype(np.float32)
    grid = np.stack([u, v]).reshape(2, -1) - (size - 1) / 2
    grid = grid[None] + bends(rng, count, size).reshape(count, 2, -1)
    at = np.linalg.inv(matrix) @ (grid / scale[:, None, None] + centre[:, :, None])
    sampled = sample_bilinear(ink, at[:, 0] + width / 2 - 0.5, at[:, 1] + height / 2 - 0.5)
    threshold = rng.uniform(0.2, 0.75, (count, 1))
    sharpness = np.exp(rng.uniform(np.log(4), np.log(20), (count, 1)))
    weight = 1 / (1 + np.exp(-sharpness * (sampled - threshold)))
    paper = 1 / (1 + np.exp(sharpness * threshold))
    weight = (weight - paper) / np.maximum(weight.max(-1, keepdims=True) - paper, 0.2)
    weight = np.clip(weight + rng.normal(0, 0.03, weight.shape), 0, 1)
    return weight.reshape(count, size, size).astype(np.float32)


def bends(rng: np.random.Generator, count: int, size: int) -> Plane:
    """Smooth random displacements (count, 2, size, size), about a pixel."""
    coarse = rng.normal(0, 1, (count, 2, 4, 4)).astype(np.float32)
    position = np.linspace(0, 3, size)
    low = np.minimum(position.astype(int), 2)
    ramp = np.zeros((size, 4), np.float32)
    ramp[np.arange(size), low] = 1 - (position - low)
    ramp[np.arange(size), low + 1] += position - low
    strength = rng.uniform(0, 1.1, (count, 1, 1, 1))
    return (ramp @ coarse @ ramp.T) * strength


def sample_bilinear(ink: Plane, x: Plane, y: Plane) -> Plane:
    """ink (N, H, W) at positions x, y (N, K) -> (N, K), zero outside."""
    count, height, width = ink.shape
    padded = np.pad(ink, ((0, 0), (1, 2), (1, 2)))
    x, y = np.clip(x, -1, width) + 1, np.clip(y, -1, height) + 1
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, down = x - left, y - top
    flat = padded.reshape(count, -1)
    start = top * (width + 3) + left
    corner = [np.take_along_axis(flat, start + o, 1) for o in (0, 1, width + 3, width + 4)]
    upper = corner[0] * (1 - right) + corner[1] * right
    lower = corner[2] * (1 - right) + corner[3] * right
    return upper * (1 - down) + lower * down
