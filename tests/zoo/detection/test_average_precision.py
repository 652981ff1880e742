"""Average precision: COCO's by pycocotools on random pictures, VOC's by the definition written out."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from zoonet.zoo.detection.average_precision import AREAS, LIMITS, Found, Truth, coco_curves, overlaps, voc_curve
from zoonet.zoo.detection.evaluation import DetectionEvaluation

CLASSES = 4


def boxes(rng: np.random.Generator, count: int, largest: float) -> np.ndarray:
    low = rng.uniform(0, 200, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, largest, (count, 2))], 1)


def random_case(seed: int, pictures: int = 12) -> tuple[list[Truth], list[Found]]:
    """Detections near objects and elsewhere, of equal scores now and then; crowds, difficult ones, empty pictures."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 9))
        real = boxes(rng, count, 150)
        labels = rng.integers(0, CLASSES - (seed % 2), count)
        areas = (real[:, 2:] - real[:, :2]).prod(1) * rng.uniform(0.3, 1, count)
        truths.append(Truth(real, labels, rng.random(count) < 0.2, rng.random(count) < 0.2, areas))
        near = np.repeat(real, rng.integers(0, 4, count), 0) + rng.normal(0, 6, 4)
        near += rng.normal(0, 4, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        noise = boxes(rng, int(rng.integers(0, 120 if seed == 3 else 8)), 120)
        every = np.concatenate([near, noise])
        scores = np.round(rng.random(len(every)), 2 if seed % 3 else 6)
        found.append(Found(every, scores, rng.integers(0, CLASSES, len(every))))
    return truths, found


def pycocotools_curves(truths: list[Truth], found: list[Found]) -> Any:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, results = [], []
    for i, (truth, each) in enumerate(zip(truths, found, strict=True)):
        for k in range(len(truth.labels)):
            x1, y1, x2, y2 = truth.boxes[k].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(truth.labels[k]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(truth.areas[k]),
                    "iscrowd": int(truth.crowd[k]),
                }
            )
        for box, score, label in zip(each.boxes.tolist(), each.scores, each.labels, strict=True):
            x1, y1, x2, y2 = box
            results.append(
                {"image_id": i, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = coco.COCO()
        truth_set.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)],
        }
        truth_set.createIndex()
        run = cocoeval.COCOeval(truth_set, truth_set.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


@pytest.mark.parametrize("seed", range(6))
def test_coco_equals_pycocotools(seed: int) -> None:
    truths, found = random_case(seed)
    expected = pycocotools_curves(truths, found)
    ours = coco_curves(truths, found, CLASSES)
    np.testing.assert_allclose(ours.precision, expected.eval["precision"], atol=1e-6)
    np.testing.assert_allclose(ours.recall, expected.eval["recall"], atol=1e-6)
    np.testing.assert_allclose(ours.scores, expected.eval["scores"], atol=1e-6)
    numbers = list(DetectionEvaluation(truths, found, [str(k) for k in range(CLASSES)]).metrics.values())
    np.testing.assert_allclose(numbers[:12], expected.stats, atol=1e-6)
    assert expected.stats[1] > 0.01


def test_overlaps_equal_pycocotools() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    first, second, crowd = boxes(rng, 9, 90), boxes(rng, 7, 90), rng.random(7) < 0.5

    def sides(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:, :2], values[:, 2:] - values[:, :2]], 1)

    expected = mask.iou(sides(first), sides(second), crowd.astype(np.uint8).tolist())
    np.testing.assert_allclose(overlaps(first, second, crowd), expected, atol=1e-12)


def test_shape_and_absent_classes() -> None:
    truths, found = random_case(1)  # the last class has no objects
    curves = coco_curves(truths, found, CLASSES)
    assert curves.precision.shape == (10, 101, CLASSES, len(AREAS), len(LIMITS))
    assert (curves.precision[:, :, -1] == -1).all()
    assert curves.of_class(CLASSES - 1) == -1
    nothing = coco_curves(
        [Truth(np.zeros((0, 4)), np.zeros(0, int))], [Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))], 2
    )
    assert nothing.mean() == -1


def devkit(truths: list[Truth], found: list[Found], label: int) -> tuple[float, float]:
    """VOCevaldet.m and VOCap.m, one detection at a time: AP of 2007 and since 2010."""
    detections = [
        (each.scores[k], i, each.boxes[k])
        for i, each in enumerate(found)
        for k in range(len(each.labels))
        if each.labels[k] == label
    ]
    detections.sort(key=lambda d: -d[0])
    gone: set[tuple[int, int]] = set()
    marks = []
    for _, i, box in detections:
        best, at = 0.0, -1
        for k in range(len(truths[i].labels)):
            if truths[i].labels[k] != label:
                continue
            other = truths[i].boxes[k]
            w, h = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
            if w > 0 and h > 0:
                union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - w * h
                if w * h / union > best:
                    best, at = w * h / union, k
        if best < 0.5:
            marks.append((0, 1))
        elif not truths[i].difficult[at]:
            marks.append((0, 1) if (i, at) in gone else (1, 0))
            gone.add((i, at))
        else:
            marks.append((0, 0))
    objects = sum(int(((t.labels == label) & ~t.difficult).sum()) for t in truths)
    hits, misses = np.cumsum(marks, 0).T
    recall, precision = hits / objects, hits / np.maximum(hits + misses, 1)
    seven = sum(
        max([p for p, r in zip(precision, recall, strict=True) if r >= t - 1e-12], default=0)
        for t in np.arange(11) / 10
    )
    r, p = [0, *recall, 1], [0, *precision, 0]
    for k in range(len(p) - 2, -1, -1):
        p[k] = max(p[k], p[k + 1])
    return seven / 11, sum((r[k] - r[k - 1]) * p[k] for k in range(1, len(r)))


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_voc(seed: int) -> None:
    truths, found = random_case(seed)
    for label in range(CLASSES):
        seven, ten = devkit(truths, found, label)
        curve = voc_curve(truths, found, label)
        assert curve.average("voc07") == pytest.approx(seven, abs=1e-9)
        assert curve.average("voc10") == pytest.approx(ten, abs=1e-9)


def test_confusion_by_hand() -> None:
    square = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], float)
    truth = Truth(square, np.array([0, 1, 1]))
    shifted = np.array([[1, 0, 11, 10], [20, 20, 30, 30], [80, 80, 90, 90], [0, 0, 10, 9]], float)
    found = Found(shifted, np.array([0.9, 0.8, 0.7, 0.1]), np.array([0, 0, 1, 1]))
    counts = DetectionEvaluation([truth], [found], ["a", "b"]).confusion()
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
