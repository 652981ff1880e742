"""Detection against ONNX Runtime and torchvision at the sizes of real detectors, and on degenerate boxes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SHARED
from operator_oracles.detection import batched_nms, run_onnx

from zoonet import ops


@pytest.fixture(scope="module")
def vision() -> Any:
    """torchvision.ops; only what it writes in Python works without its compiled operators."""
    if not (SHARED / "oracles.py").exists():
        pytest.skip("the folder shared/ is absent")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SHARED))
        pytest.importorskip("oracles", reason="torchvision is not installed", exc_type=Exception)
    return pytest.importorskip("torchvision.ops")


def make_boxes(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Boxes around 100 objects, strewn over a picture, or of all sizes."""
    generator = np.random.default_rng(seed)
    centers, sizes = generator.uniform(0, 640, (count, 2)), generator.uniform(8, 60, (count, 2))
    if kind == "objects":
        centers = centers[generator.integers(0, min(count, 100), count)] + generator.normal(size=(count, 2)) * 4
        sizes = generator.uniform(30, 60, (count, 2))
    elif kind == "all sizes":
        sizes = np.exp(generator.uniform(-2, 6, (count, 2)))
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], 1).astype(np.float32)


def onnx_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    limit = np.array([len(boxes)])
    inputs = [boxes[None], scores.reshape(1, -1, len(boxes)), limit, np.array([threshold], np.float32)]
    return run_onnx("NonMaxSuppression", inputs, np.int64)


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["objects", "strewn", "all sizes"])
def test_nms_equals_onnx_runtime(kind: str, threshold: float) -> None:
    boxes = make_boxes(kind, 3000)
    scores = np.random.default_rng(1).permutation(3000).astype(np.float32)
    np.testing.assert_array_equal(ops.nms(boxes, scores, threshold), onnx_nms(boxes, scores, threshold)[:, 2])


def test_batched_nms_equals_onnx_runtime_class_by_class() -> None:
    count, classes = 400, 5
    boxes = np.tile(make_boxes("objects", count), (classes, 1))
    scores = np.random.default_rng(2).permutation(count * classes).astype(np.float32).reshape(classes, count)
    expected = onnx_nms(boxes[:count], scores, 0.4)
    expected = expected[:, 1] * count + expected[:, 2]
    groups = np.repeat(np.arange(classes) * 7 - 3, count)
    actual = ops.batched_nms(boxes, scores.ravel(), groups, 0.4)
    assert sorted(actual) == sorted(expected)
    assert (np.diff(scores.ravel()[actual]) < 0).all()


def test_groups_far_apart_and_coordinates_far_out_do_not_touch() -> None:
    boxes = np.array([[-1e6, 0, -1e6 + 8, 8], [1e6, 0, 1e6 + 8, 8]] * 40, np.float32)
    scores, groups = np.arange(80, dtype=np.float32), np.arange(80) // 4
    np.testing.assert_array_equal(ops.batched_nms(boxes, scores, groups, 0.5), batched_nms(boxes, scores, groups, 0.5))


def test_nms_takes_boxes_without_an_area_and_infinite_ones() -> None:
    inf, nan = np.inf, np.nan
    boxes = np.array(
        [[1, 1, 1, 5], [1, 1, 1, 5], [4, 4, 2, 2], [0, 0, inf, 9], [0, 0, inf, 9], [nan] * 4, [0, 0, 3e38, 3e38]],
        np.float32,
    )
    scores = np.array([1, 2, 3, 4, 5, 6, 7], np.float32)
    assert ops.nms(boxes, scores, 0.5).tolist() == [6, 5, 4, 3, 2, 1, 0]  # by hand: no IoU is above 0.5


def test_nms_of_equal_scores_keeps_the_first_and_of_nothing_is_nothing() -> None:
    boxes = np.array([[0, 0, 4, 4]] * 3 + [[9, 9, 10, 10]], np.float32)
    assert ops.nms(boxes, np.ones(4, np.float32), 0.5).tolist() == [0, 3]
    empty = ops.nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5)
    assert (empty.shape, empty.dtype) == ((0,), np.int64)


def plain_nms(boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, threshold: float) -> list[int]:
    """The definition in the boxes' precision, as torchvision has it: each box against all that are left."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        shared = np.maximum(sides, 0).prod(1)
        with np.errstate(all="ignore"):
            iou = shared / (areas[best] + areas[left] - shared)
        left = left[~((iou.astype(np.float64) > threshold) & (groups[left] == groups[best]))]
    return kept


def layouts(count: int) -> dict[str, np.ndarray]:
    """Boxes that are hard to sort into places: of all shapes and sizes, nested, in chains, equal, far out, rounded."""
    generator = np.random.default_rng(count)
    places = generator.uniform(0, 640, (count, 2))
    line = np.arange(count)[:, None] * 0.3 * np.ones(2)
    sizes = {
        "strewn": (places, generator.uniform(100, 400, (count, 2))),
        "all sizes": (places, np.exp(generator.uniform(-2, 6, (count, 2)))),
        "wide and tall": (places, np.where(generator.random((count, 1)) < 0.5, [600.0, 4.0], [4.0, 600.0])),
        "concentric": (np.full((count, 2), 320.0), np.exp(generator.uniform(0, 6, (count, 2)))),
        "nested": (places / 10, np.exp(generator.uniform(0, 6, (count, 1)) + generator.normal(size=(count, 2)) * 0.05)),
        "chain": (line, np.full((count, 2), 10.0)),
        "flat chain": (line * [1, 0], np.full((count, 2), 10.0)),
        "grid": (np.stack(np.divmod(np.arange(count), 20), 1) * 12.0, np.full((count, 2), 16.0)),
        "one place": (320 + generator.normal(size=(count, 2)), 100 + generator.normal(size=(count, 2))),
        "equal": (np.full((count, 2), 30.0), np.full((count, 2), 20.0)),
    }
    found = {name: np.concatenate([c - s / 2, c + s / 2], 1) for name, (c, s) in sizes.items()}
    return found | {"far out": found["strewn"] * 1e-3 + 5000, "rounded": np.round(found["all sizes"])}


@pytest.mark.parametrize("name", list(layouts(2)))
def test_nms_equals_its_definition(name: str) -> None:
    generator = np.random.default_rng(6)
    for count in (1, 2, 60, 600):
        for dtype in (np.float32, np.float64) if count < 600 else (np.float32,):
            boxes = layouts(count)[name].astype(dtype)
            scores = np.round(generator.random(count), 2).astype(np.float32)  # some are equal
            groups, one = generator.integers(-2, 3, count), np.zeros(count, np.int64)
            for threshold in (0.0, 0.01, 0.03, 0.3, 0.45, 0.7, 0.9, 0.999999, 1.0) if count < 600 else (0.3, 0.5, 0.8):
                assert ops.nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, one, threshold)
                expected = plain_nms(boxes, scores, groups, threshold)
                assert ops.batched_nms(boxes, scores, groups, threshold).tolist() == expected


def test_nms_of_scores_of_all_kinds() -> None:
    """By hand: NaN of either sign first, then from high to low, zeros of either sign alike."""
    boxes = np.arange(9, dtype=np.float32)[:, None] * 10 + np.array([0, 0, 5, 5], np.float32)
    scores = np.array([-1, -0.0, 0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-40, -2], np.float32)
    for dtype in (np.float32, np.float64):
        assert ops.nms(boxes, scores.astype(dtype), 0.5).tolist() == [5, 6, 3, 7, 1, 2, 0, 8, 4]


def test_groups_of_any_numbers() -> None:
    boxes, scores = np.array([[0, 0, 4, 4]] * 5, np.float32), np.arange(5, dtype=np.float32)
    groups = np.array([-(2**62), 2**62, 2**62, 0, -(2**62)])
    assert ops.batched_nms(boxes, scores, groups, 0.5).tolist() == [4, 3, 2]


@pytest.mark.parametrize("kind", ["objects", "strewn", "all sizes"])
def test_nms_of_25000_boxes_is_fast(kind: str) -> None:
    boxes = make_boxes(kind, 25000)
    scores = np.random.default_rng(3).uniform(size=25000).astype(np.float32)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        ops.nms(boxes, scores, 0.5)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3  # 0.02 to 0.03 s on an idle core; the bound catches what compares each with each


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b, s: ops.nms(b[:, :3], s, 0.5), r"expected \[\.\.\., 4\]; received \[3, 3\]"),
        (lambda b, s: ops.nms(b, s[:2], 0.5), r"expected \[N, 4\] and \[N\]; received \[3, 4\] and \[2\]"),
        (lambda b, s: ops.nms(b, s, 1.5), "expected 0 to 1; received 1.5"),
        (lambda b, s: ops.nms(b, s, np.nan), "expected 0 to 1; received nan"),
        (lambda b, s: ops.batched_nms(b, s, s, 0.5), "integer"),
        (lambda b, s: ops.soft_nms(b, s, method="hard"), "'gaussian' or 'linear'; received 'hard'"),
        (lambda b, s: ops.box_convert(b, "xyxy", "yxyx"), "received 'yxyx'"),
        (lambda b, s: ops.roi_align(s.reshape(1, 1, 1, 3), b, 2), r"expected \[K, 5\]; received \[3, 4\]"),
        (lambda b, s: ops.roi_align(s.reshape(1, 1, 1, 3), np.ones((1, 5)), 2), "expected 0 to 0 in column 0"),
        (lambda b, s: ops.generalized_box_iou_loss(b, b[:1]), r"expected \[3, 4\]; received \[1, 4\]"),
    ],
)
def test_wrong_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ops.OperatorError, match=message):
        call(make_boxes("strewn", 3), np.ones(3, np.float32))


def test_a_single_pair_by_hand() -> None:
    """[0, 0, 4, 4] and [2, 2, 6, 4]: 4 shared, 20 in the union, 24 around both; centers 2 and 1 apart, diagonal² 52."""
    first, second = np.array([[0.0, 0, 4, 4]]), np.array([[2.0, 2, 6, 4]])
    assert ops.box_iou(first, second).item() == pytest.approx(0.2)
    assert ops.generalized_box_iou(first, second).item() == pytest.approx(0.2 - 4 / 24)
    assert ops.distance_box_iou(first, second).item() == pytest.approx(0.2 - 5 / 52)
    v = 4 / np.pi**2 * (np.pi / 4 - np.arctan(2)) ** 2
    assert ops.complete_box_iou(first, second).item() == pytest.approx(0.2 - 5 / 52 - v * v / (0.8 + v))


@pytest.mark.parametrize("name", ["box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou"])
def test_measures_equal_torchvision(vision: Any, name: str) -> None:
    first, second = make_boxes("objects", 60), make_boxes("strewn", 50)
    expected = getattr(vision, name)(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(getattr(ops, name)(first, second), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"])
def test_losses_and_their_gradients_equal_torchvision(vision: Any, name: str, reduction: str) -> None:
    first, second = make_boxes("objects", 80), make_boxes("objects", 80, 1)
    first[:20] = second[:20] + 1.5
    leaf = torch.from_numpy(first).double().requires_grad_()
    expected = getattr(vision, name)(leaf, torch.from_numpy(second).double(), reduction)
    expected.sum().backward()
    operator = getattr(ops, name)
    wide = second.astype(np.float64)
    value, gradient = ops.value_and_grad(lambda b: ops.sum(operator(b, wide, reduction)))(first.astype(np.float64))
    np.testing.assert_allclose(value, expected.sum().item(), rtol=1e-9)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-7, atol=1e-10)


def test_conversions_equal_torchvision(vision: Any) -> None:
    boxes = make_boxes("strewn", 30)
    formats = ("xyxy", "xywh", "cxcywh")
    for source in formats:
        for target in formats:
            expected = vision.box_convert(torch.from_numpy(boxes), source, target)
            np.testing.assert_allclose(ops.box_convert(boxes, source, target), expected.numpy(), rtol=1e-5, atol=1e-4)
    clipped = vision.clip_boxes_to_image(torch.from_numpy(boxes), (300, 400))
    np.testing.assert_array_equal(ops.clip_boxes_to_image(boxes, (300, 400)), clipped.numpy())
    kept = vision.remove_small_boxes(torch.from_numpy(boxes), 20.0)
    np.testing.assert_array_equal(ops.remove_small_boxes(boxes, 20.0), kept.numpy())


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2])
def test_roi_align_equals_torchvision(vision: Any, ratio: int, aligned: bool) -> None:
    """Values and gradients of fractional regions. Those outside are in the matrix: torchvision's Python reads there."""
    generator = np.random.default_rng(4)
    x = generator.normal(size=(2, 3, 20, 24))
    corners = np.concatenate(
        [np.maximum(make_boxes("strewn", 30) / 18, 0), [[5, 6, 5.5, 6.5], [9, 9, 9.25, 30], [0, 0, 47, 39]]]
    )
    boxes = np.concatenate([generator.integers(0, 2, (33, 1)), corners], 1)
    leaf = torch.from_numpy(x).requires_grad_()
    reference = vision.roi_align.__globals__["_roi_align"].__wrapped__  # its definition in Python
    expected = reference(leaf, torch.from_numpy(boxes), 0.5, 5, 4, ratio, aligned)
    weight = generator.normal(size=expected.shape)
    (expected * torch.from_numpy(weight)).sum().backward()
    value, pullback = ops.vjp(lambda v: ops.roi_align(v, boxes, (5, 4), 0.5, ratio, aligned), x)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pullback(weight)[0], leaf.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_roi_pool_equals_onnx_runtime() -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(2, 3, 20, 24)).astype(np.float32)
    boxes = np.concatenate([generator.integers(0, 2, (30, 1)), make_boxes("strewn", 30) / 16], 1).astype(np.float32)
    expected = run_onnx("MaxRoiPool", [x, boxes], np.float32, pooled_shape=[4, 5], spatial_scale=0.5)
    np.testing.assert_array_equal(ops.roi_pool(x, boxes, (4, 5), 0.5), expected)


def test_regions_of_lists_of_boxes() -> None:
    rows = ops.batch_boxes([np.ones((1, 4), np.float32), np.zeros((0, 4), np.float32), np.full((2, 4), 3, np.float32)])
    assert rows.tolist() == [[0, 1, 1, 1, 1], [2, 3, 3, 3, 3], [2, 3, 3, 3, 3]]
