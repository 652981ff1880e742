"""Training samples for pictures of digits: scans and drawn digits, warped, thickened, thinned and blurred anew each time."""

from __future__ import annotations

from typing import Any

import numpy as np

Plane = np.ndarray[Any, Any]


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
    weight = np.clip(weight / np.maximum(weight.max(-1, keepdims=True), 0.3) + rng.normal(0, 0.03, weight.shape), 0, 1)
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
