"""The parts of finding ink, against SciPy and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet.zoo import ink, train_digits

ndimage = pytest.importorskip("scipy.ndimage")


@pytest.mark.parametrize("shape", [(9, 9), (1, 12), (40, 23)])
@pytest.mark.parametrize("reach", [3, 4, 7])
def test_an_opening_is_scipy_s(shape: tuple[int, int], reach: int) -> None:
    frame = reach // 2
    plane = np.random.default_rng(0).random([n + 2 * frame for n in shape]).astype(np.float32)
    lowest = ndimage.minimum_filter(plane, reach, mode="nearest")
    expected = ndimage.maximum_filter(lowest, reach, mode="nearest")[frame:-frame, frame:-frame]
    np.testing.assert_array_equal(ink._opening(plane, reach), expected)


def test_a_blur_is_scipy_s() -> None:
    plane = np.random.default_rng(0).random((7, 12)).astype(np.float32)
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(ink._blur(plane), ndimage.convolve(plane, weights, mode="nearest"), rtol=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5])
def test_pieces_of_a_mask_are_scipy_s(share: float) -> None:
    mask = np.random.default_rng(0).random((40, 64)) < share
    ours, theirs = ink._label(mask), ndimage.label(mask, np.ones((3, 3)))[0]
    pairs = set(zip(ours.reshape(-1).tolist(), theirs.reshape(-1).tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) > 2
    assert (0, 0) in pairs


def test_paper_is_the_quadratic_surface_under_the_ink() -> None:
    y, x = np.mgrid[-1:1:60j, -1:1:80j]
    paper = (0.6 + 0.1 * x - 0.05 * y + 0.08 * x * x - 0.03 * x * y + 0.02 * y * y).astype(np.float32)
    picture = paper.copy()
    picture[20:40, 30:36] = 0.1
    direction, framed = ink._on_paper(picture, 5)
    assert direction == -1
    np.testing.assert_array_equal(framed[5:-5, 5:-5], picture)
    y, x = (np.arange(-5, n + 5) * 2 / (n - 1) - 1 for n in (60, 80))
    y = y[:, None]
    expected = 0.6 + 0.1 * x - 0.05 * y + 0.08 * x * x - 0.03 * x * y + 0.02 * y * y
    for part in (np.s_[:5], np.s_[-5:], np.s_[:, :5], np.s_[:, -5:]):
        np.testing.assert_allclose(framed[part], expected[part], atol=2e-6)


def shape_of(kind: str) -> Any:
    """A mask of 100 × 100 pixels with a square turned a bit, a ring, or an upright stroke."""
    y, x = np.mgrid[-50:50, -50:50]
    turned = np.maximum(abs(x + 0.2 * y), abs(y - 0.2 * x)) < 38
    distance = np.hypot(x, y)
    return {"sheet": turned, "ring": (distance < 40) & (distance > 30), "stroke": abs(x) < 6}[kind]


@pytest.mark.parametrize(("kind", "expected"), [("sheet", True), ("ring", False), ("stroke", False)])
def test_a_sheet_is_told_from_strokes(kind: str, expected: bool) -> None:
    assert ink._Found(shape_of(kind).astype(np.float32), 1.0).is_sheet() is expected


def test_tiny_pictures_searched_coarsely_give_what_the_fine_search_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Image.fromarray(image).convert("RGB") for image in train_digits.scans()[0][:40]]
    found = [ink.find_ink(picture) for picture in pictures]
    monkeypatch.setattr(ink, "_TINY", 0)
    for picture, before in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(ink.find_ink(picture), before)
