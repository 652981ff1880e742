"""Training samples for pictures of digits: digits drawn from strokes, and warps that make every sample anew."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

Plane = np.ndarray[Any, Any]


def _stroke(text: str) -> tuple[bool, tuple[tuple[float, float], ...]]:
    """Whether a stroke is smooth, and the points that it passes through."""
    kind, *points = text.split()
    return kind == "~", tuple((float(x), float(y)) for x, y in (point.split(",") for point in points))


#: How digits are written: for each digit its variants, for each variant its strokes: "~" for a smooth curve or "/" for
#: straight lines, and the points x,y that it passes through, x to the right from 0 to 1, y down from 0 to 1.5.
STROKES = tuple(
    tuple(tuple(_stroke(text) for text in variant) for variant in digit)
    for digit in (
        (
            ("~ .5,0 .1,.3 0,.75 .1,1.2 .5,1.5 .9,1.2 1,.75 .9,.3 .5,0",),
            ("~ .6,0 .15,.2 0,.75 .15,1.3 .5,1.5 .85,1.3 1,.75 .85,.2 .4,.05",),
        ),
        (
            ("/ .5,0 .5,1.5",),
            ("/ .12,.35 .5,0 .5,1.5",),
            ("/ .2,.18 .5,0 .5,1.5", "/ .15,1.5 .85,1.5"),
            ("/ .1,.4 .5,0 .5,1.5", "/ .05,1.5 .95,1.5"),
        ),
        (
            ("~ .05,.35 .2,.05 .55,0 .9,.2 .9,.5 .6,.9 .05,1.5", "/ .05,1.5 1,1.5"),
            ("~ .05,.35 .25,.05 .6,0 .9,.25 .8,.65 .45,1.15 .1,1.45 0,1.3 .2,1.2 .6,1.42 1,1.45",),
            ("~ .05,.3 .35,0 .8,.1 .85,.5 .55,1.05 .2,1.45 0,1.3 .15,1.05 .5,1.2 1,1.45",),
            ("~ .1,.3 .5,0 .9,.3 .85,.8 .55,1.35 .2,1.5 0,1.3 .1,1 .45,.95 .75,1.2 1,1.5",),
        ),
        (
            ("~ .05,.2 .3,0 .65,0 .9,.2 .85,.5 .6,.68 .35,.7", "~ .35,.7 .7,.72 .95,.95 .95,1.2 .7,1.45 .35,1.5 0,1.3"),
            ("/ 0,0 .9,0 .42,.6", "~ .42,.6 .8,.7 .95,1 .8,1.35 .4,1.5 0,1.3"),
            ("~ .05,.15 .4,0 .75,.1 .8,.35 .5,.65 .4,.68 .55,.68 .95,.95 .85,1.35 .4,1.5 0,1.35",),
        ),
        (
            ("/ .7,1.5 .7,0 0,1.05 1,1.05",),
            ("/ .7,1.5 .7,0 .6,0 0,1 0,1.1 1,1.1",),
            ("/ .12,0 .05,.75 .95,.75", "/ .8,0 .75,1.5"),
            ("/ .35,0 0,.85 1,.85", "/ .7,.45 .65,1.5"),
            ("/ .1,0 .05,.7 .9,.6", "/ .8,-.05 .7,1.5"),
            ("/ .5,0 .05,.75 .95,.7", "/ .75,.1 .65,1.5"),
        ),
        (
            ("/ .9,0 .15,0 .1,.65", "~ .1,.65 .4,.5 .75,.55 .95,.85 .9,1.2 .6,1.47 .25,1.48 0,1.3"),
            ("/ .15,0 .1,.65", "~ .1,.65 .4,.5 .75,.55 .95,.85 .9,1.2 .6,1.47 .25,1.48 0,1.3", "/ .15,.02 1,-.03"),
            ("~ .95,.1 .5,0 .2,.2 .3,.55 .7,.8 .8,1.15 .5,1.45 .05,1.4",),
            ("/ 1,-.1 .2,.1 .1,.6", "~ .1,.6 .4,.55 .55,.8 .5,1.2 .2,1.5 -.05,1.4"),
        ),
        (
            ("~ .85,.15 .6,0 .3,.15 .08,.6 .05,1.05 .25,1.42 .55,1.5 .9,1.3 .95,1 .75,.72 .45,.68 .12,.95",),
            ("~ .7,0 .3,.45 .05,.95 .15,1.35 .5,1.5 .85,1.35 .9,1.05 .65,.8 .3,.85 .08,1.1",),
            ("~ .4,0 .1,.5 .05,1.1 .35,1.5 .8,1.4 1,.95 .8,.5 .5,.6 .35,1 .45,1.45",),
        ),
        (
            ("/ 0,0 1,0 .4,1.5",),
            ("/ 0,0 1,0 .4,1.5", "/ .3,.75 .9,.75"),
            ("/ 0,0 1,0", "~ 1,0 .6,.6 .4,1.1 .38,1.5"),
            ("/ 0,.25 0,0 1,0 .35,1.5",),
            ("~ 0,.3 .1,0 .5,.1 .9,0 .7,.6 .4,1.5",),
        ),
        (
            ("~ .5,.7 .15,.5 .12,.2 .5,0 .88,.2 .85,.5 .5,.7 .1,.95 .05,1.25 .5,1.5 .95,1.25 .9,.95 .5,.7",),
            ("~ .85,.25 .5,0 .15,.25 .5,.7 .9,1.15 .5,1.5 .1,1.15 .5,.7 .85,.25",),
            ("~ .9,0 .5,-.02 .2,.3 .5,.65 .9,1.1 .5,1.5 .1,1.15 .4,.7 .85,.2",),
        ),
        (
            ("~ .15,1.35 .4,1.5 .7,1.35 .92,.9 .95,.45 .75,.08 .45,0 .1,.2 .05,.5 .25,.78 .55,.82 .88,.55",),
            ("~ .9,.45 .55,.85 .15,.7 .05,.4 .25,.05 .65,0 .9,.3", "/ .92,.1 .85,1.5"),
            ("~ .3,1.5 .7,1.05 .95,.55 .85,.15 .5,0 .15,.15 .1,.45 .35,.7 .7,.65 .92,.4",),
            ("~ .85,.1 .4,0 .1,.25 .15,.6 .5,.7 .85,.5", "/ .85,.1 .85,1.5"),
            ("~ .85,.2 .45,0 .15,.25 .3,.6 .7,.5 .85,.2 .8,.9 .6,1.4 .3,1.5 .1,1.35",),
            ("~ .6,.1 .4,0 .25,.2 .35,.4 .6,.3 .6,.1 .55,.8 .5,1.5",),
        ),
    )
)


def draw(digit: int, rng: np.random.Generator, size: int = 48, box: int = 36) -> Plane:
    """A digit written with a random hand and pen: (size, size), 1 is ink."""
    variants = STROKES[digit]
    points = []
    for smooth, corners in variants[rng.integers(len(variants))]:
        path = np.array(corners) + rng.normal(0, 0.03, (len(corners), 2))
        points.append(_curve(path) if smooth else _lines(path))
    path = np.concatenate(points) * (box / 1.5) + (size - box) / 2 + (box / 6, 0)
    thick = box * np.exp(rng.uniform(np.log(0.02), np.log(0.11)))
    across, along = thick, max(0.6, thick * rng.choice([1.0, 1.0, rng.uniform(0.25, 1)]))
    x, y = (((np.arange(size)[:, None] - at) / width) ** 2 for at, width in zip(path.T, (across, along), strict=True))
    distance = np.sqrt(np.array([(x + row).min(1) for row in y]))
    result: Plane = np.clip((1 - distance) * along + 0.5, 0, 1).astype(np.float32)
    return result


def _lines(path: Plane) -> Plane:
    """Points along the straight lines between points."""
    parts = [np.linspace(a, b, 40) for a, b in pairwise(path)]
    return np.concatenate(parts)


def _curve(path: Plane) -> Plane:
    """Points along the Catmull-Rom spline through points."""
    padded = np.concatenate([2 * path[:1] - path[1:2], path, 2 * path[-1:] - path[-2:-1]])
    t = np.linspace(0, 1, 20)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(parts)


def warp(ink: Plane, rng: np.random.Generator, box: int, size: int, strength: float = 1) -> Plane:
    """A random affine map and bend of a digit, scaled to fit `box` again and centred, with a new width of strokes.

    ink: (H, W) from 0 to 1 -> (size, size). strength: how much of this is done, from 0 to 1.
    """
    angle, shear, stretch = (strength * rng.normal(0, deviation) for deviation in (0.13, 0.2, 0.22))
    stretch = math.exp(stretch)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, c, d = cos * stretch, shear - sin, sin * stretch, cos  # (x, y) of the digit goes to (a x + b y, c x + d y)
    y, x = np.nonzero(ink > 0.5)
    u, v = a * x + b * y, c * x + d * y
    left, right, top, bottom = u.min(), u.max(), v.min(), v.max()
    scale = box / (max(right - left, bottom - top) + 1) * math.exp(strength * rng.normal(0, 0.04))
    aside = rng.normal(0, 0.6, 2) / scale
    u, v = bends(rng, size) * np.float32(strength / scale)
    place = (np.arange(size) - (size - 1) / 2) / scale
    u += (place + ((left + right) / 2 + aside[0])).astype(np.float32)
    v += (place + ((top + bottom) / 2 + aside[1])).astype(np.float32)[:, None]
    det = a * d - b * c
    sampled = sample_bilinear(ink, (d / det) * u - (b / det) * v, (a / det) * v - (c / det) * u)
    threshold = 0.475 + strength * rng.uniform(-0.275, 0.275)
    sharpness = math.exp(rng.uniform(math.log(4), math.log(20)))
    sampled -= threshold
    sampled *= -sharpness
    weight = 1 / (1 + np.exp(sampled))
    paper = 1 / (1 + math.exp(sharpness * threshold))
    weight = (weight - paper) / max(float(weight.max()) - paper, 0.2) + rng.normal(0, 0.03, weight.shape)
    result: Plane = weight.clip(0, 1).astype(np.float32)
    return result


def bends(rng: np.random.Generator, size: int) -> Plane:
    """Smooth random displacements (2, size, size), about a pixel."""
    coarse = rng.normal(0, 1, (2, 4, 4))
    ramp = _ramp(size)
    result: Plane = ramp @ (coarse * rng.uniform(0, 1.1)).astype(np.float32) @ ramp.T
    return result


@cache
def _ramp(size: int) -> Plane:
    """The weights of 4 points in a row at each of `size` places between them, linearly: (size, 4)."""
    position = np.linspace(0, 3, size)
    return np.clip(1 - abs(position[:, None] - np.arange(4)), 0, 1).astype(np.float32)


def sample_bilinear(ink: Plane, x: Plane, y: Plane) -> Plane:
    """ink (H, W) at positions x, y, float32 of one shape -> float32 of this shape, zero outside."""
    height, width = ink.shape
    flat = np.zeros((height + 3, width + 3), np.float32)
    flat[1:-2, 1:-2] = ink
    flat = flat.reshape(-1)
    x, y = x.clip(-1, width) + 1, y.clip(-1, height) + 1
    left, top = x.astype(np.int32), y.astype(np.int32)
    right, down = x - left.astype(np.float32), y - top.astype(np.float32)
    start = top * (width + 3) + left
    upper, lower = (flat.take(start + row) * (1 - right) + flat.take(start + row + 1) * right for row in (0, width + 3))
    result: Plane = upper + (lower - upper) * down
    return result
