"""Suppression in the pipeline against plain loops: decaying scores, and limits that keep what comes first."""

from __future__ import annotations

import numpy as np
import pytest

from zoonet.zoo.detection.candidates import Candidates, Selection, select


def some(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(4, 40, (count, 2))], 1).astype(np.float32)
    scores = np.round(generator.random(count), 2).astype(np.float32)  # some are equal
    return boxes, scores, generator.integers(0, 3, count)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.maximum(sides, 0).prod())
    return shared / (float((one[2:] - one[:2]).prod()) + float((other[2:] - other[:2]).prod()) - shared)


def decayed(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, conf: float) -> list[tuple[int, float]]:
    """arXiv:1704.04503 with Gaussian decay, sigma 0.5, within groups."""
    left, found = dict(enumerate(scores.astype(float))), []
    while left and max(left.values()) > conf:
        best = max(left, key=lambda k: (left[k], -k))
        found.append((best, left.pop(best)))
        for k in left:
            if groups[k] == groups[best]:
                left[k] *= np.exp(-(iou(boxes[k], boxes[best]) ** 2) / 0.5)
    return found


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("most", [7, 300])
def test_soft_suppression_equals_its_definition(most: int, agnostic: bool) -> None:
    boxes, scores, labels = some(120, 3)
    chosen = Selection(conf=0.05, suppression="soft", max_det=most, agnostic=agnostic)
    found = select(Candidates(boxes, scores, labels), chosen, "")
    expected = decayed(boxes, scores, labels * (not agnostic), 0.05)[:most]
    assert len(found.scores) == len(expected)
    np.testing.assert_allclose(found.scores, [score for _, score in expected], rtol=1e-4)
    np.testing.assert_array_equal(found.boxes, boxes[[k for k, _ in expected]])


@pytest.mark.parametrize("most", [1, 5, 40])
def test_fewer_detections_are_the_first_of_all(most: int) -> None:
    boxes, scores, labels = some(2000, 4)
    candidates = Candidates(boxes, scores, labels)
    everything = select(candidates, Selection(conf=0.0, iou=0.3, max_det=2000), "")
    first = select(candidates, Selection(conf=0.0, iou=0.3, max_det=most), "")
    assert len(everything.scores) > 40
    np.testing.assert_array_equal(first.boxes, everything.boxes[:most])
    kept = everything.boxes[everything.labels == 0]
    assert max(iou(kept[0], other) for other in kept[1:]) <= 0.3
