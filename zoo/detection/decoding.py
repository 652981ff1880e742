"""Decoders: what the outputs of detectors mean, by the conventions of their families.

Boxes of candidates are corners in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.zoo.detection.candidates import Candidates

Array = np.ndarray[Any, Any]


def corners(boxes: Array) -> Array:
    """Boxes (…, 4) of center, width and height as corners."""
    half = boxes[..., 2:4] * 0.5
    result: Array = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    return result


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    result: Array = 0.5 * np.tanh(0.5 * x) + 0.5
    return result


def grid_cells(size: tuple[int, int], strides: Sequence[int]) -> tuple[Array, Array]:
    """Columns and rows of all cells (A, 2), finest stride first, and the stride of each (A, 1)."""
    cells, steps = [], []
    for stride in strides:
        height, width = size[0] // stride, size[1] // stride
        rows, columns = np.divmod(np.arange(height * width), max(width, 1))
        cells.append(np.stack([columns, rows], 1))
        steps.append(np.full((height * width, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


@dataclass(frozen=True)
class YoloxDecoder:
    """YOLOX: (N, cells, 5 + classes) of x, y, log width, log height in units of a cell, objectness, classes.

    Source: arXiv:2107.08430; the head of Megvii-BaseDetection/YOLOX without decode_in_inference.
    """

    classes: int
    strides: tuple[int, ...] = (8, 16, 32)

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        cells, steps = grid_cells(size, self.strides)
        raw = outputs[0].astype(np.float32, copy=False)
        result = []
        for each in raw:
            with np.errstate(over="ignore"):
                sides = np.exp(each[:, 2:4]) * steps
            boxes = corners(np.concatenate([(each[:, :2] + cells) * steps, sides], 1))
            result.append(Candidates(boxes, each[:, 4:5] * each[:, 5:]))
        return result


@dataclass(frozen=True)
class YoloDecoder:
    """YOLO exports that decode in the graph: rows of center x, y, width, height in pixels and scores.

    objectness: a score of the box stands before those of classes, which it multiplies (YOLOv5, v7; YOLOX exported with
    decode_in_inference). channels_first: (N, 4 + classes, boxes) as YOLOv8 and later write it, else (N, boxes, …).
    normalized: pixels are fractions of the input.
    """

    classes: int
    objectness: bool = True
    channels_first: bool = False
    normalized: bool = False

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        raw = outputs[0].astype(np.float32, copy=False)
        result = []
        for each in raw:
            rows = each.T if self.channels_first else each
            boxes = corners(rows[:, :4]) * (_sides(size) if self.normalized else np.float32(1))
            start = 5 if self.objectness else 4
            scores = rows[:, start : start + self.classes]
            result.append(Candidates(boxes, rows[:, 4:5] * scores if self.objectness else scores))
        return result


@dataclass(frozen=True)
class RowsDecoder:
    """Exports that suppress overlaps in the graph (YOLOv10 and later, nms=True): (N, n, 6) of corners, score, class."""

    classes: int

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        return [
            Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), suppressed=True)
            for rows in outputs[0].astype(np.float32, copy=False)
        ]


@dataclass(frozen=True)
class FractionsDecoder:
    """Scores (N, A, 1 + classes) with background first, and corners (N, A, 4) in fractions of the input.

    scores, boxes: which outputs they are.
    """

    classes: int
    scores: int = 0
    boxes: int = 1

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        pairs = zip(outputs[self.boxes], outputs[self.scores], strict=True)
        return [Candidates(boxes * _sides(size), scores[:, 1:]) for boxes, scores in pairs]


@dataclass(frozen=True)
class QueriesDecoder:
    """DETR-like: logits (N, queries, classes) and center, width, height (N, queries, 4) in fractions of the input.

    softmax: the logits are of classes and, last, of no object (DETR), else each has a sigmoid of its own (RT-DETR).
    logits, boxes: which outputs they are. The best `queries` pairs of query and class remain. No boxes overlap.
    """

    classes: int
    softmax: bool = False
    logits: int = 0
    boxes: int = 1

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        result = []
        for logits, boxes in zip(outputs[self.logits], outputs[self.boxes], strict=True):
            places = corners(boxes.astype(np.float32, copy=False)) * _sides(size)
            if self.softmax:
                powers = np.exp(logits - logits.max(-1, keepdims=True))
                scores = (powers / powers.sum(-1, keepdims=True))[:, : self.classes]
                result.append(Candidates(places, scores, best_only=True, suppressed=True))
                continue
            flat = sigmoid(logits.astype(np.float32, copy=False)).reshape(-1)
            best = np.argsort(-flat, kind="stable")[: len(boxes)]
            rows, labels = np.divmod(best, logits.shape[-1])
            result.append(Candidates(places[rows], flat[best], labels, suppressed=True))
        return result


@dataclass(frozen=True)
class FinishedDecoder:
    """torchvision's exports, which do everything in the graph: boxes (n, 4) in pixels, classes (n,), scores (n,).

    boxes, labels, scores: which outputs they are. Class 0 is the background.
    """

    classes: int
    boxes: int = 0
    labels: int = 1
    scores: int = 2

    def __call__(self, outputs: tuple[Array, ...], size: tuple[int, int]) -> list[Candidates]:
        """See `Decoder`."""
        labels = outputs[self.labels].astype(np.int64) - 1
        return [Candidates(outputs[self.boxes], outputs[self.scores], labels, suppressed=True)]


def _sides(size: tuple[int, int]) -> Array:
    height, width = size
    return np.array([width, height, width, height], np.float32)
