"""Metrics: how good predictions are. Plain functions of NumPy arrays, by scikit-learn's definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet.ops.errors import InputError

__all__ = [
    "accuracy",
    "auc",
    "class_table",
    "confusion_matrix",
    "f1",
    "perplexity",
    "precision_recall_f1",
    "regression",
    "top_k_accuracy",
]

Array = np.ndarray[Any, Any]


def _same_length(first: Array, second: Array) -> None:
    if len(first) != len(second) or not len(first):
        raise InputError("predictions and targets differ in number", expected=len(second), received=len(first))


def accuracy(scores: Array, targets: Array) -> float:
    """The share of samples whose best class is right. scores: (N, classes). targets: int (N,)."""
    _same_length(scores, targets)
    return float(np.mean(scores.argmax(1) == targets))


def top_k_accuracy(scores: Array, targets: Array, k: int = 5) -> float:
    """The share of samples whose class is among the k best."""
    _same_length(scores, targets)
    better = (scores > np.take_along_axis(scores, targets[:, None], 1)).sum(1)
    return float(np.mean(better < k))


def confusion_matrix(predicted: Array, targets: Array, classes: int) -> Array:
    """How often a class (row) was taken for another (column): int64 (classes, classes)."""
    _same_length(predicted, targets)
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(confusion: Array) -> tuple[Array, Array, Array]:
    """Precision, recall and F1 per class; 0 where they are not defined."""
    right = np.diag(confusion).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(right / confusion.sum(0))
        recall = np.nan_to_num(right / confusion.sum(1))
        both = np.nan_to_num(2 * precision * recall / (precision + recall))
    return precision, recall, both


def f1(confusion: Array) -> float:
    """The mean F1 of the classes that occur, in truth or in predictions."""
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(precision_recall_f1(confusion)[2][occurs].mean())


def auc(scores: Array, targets: Array) -> float:
    """The area under the ROC curve. scores: (N,) for targets 0 and 1, or probabilities (N, classes): the mean of each
    class against the rest. nan where only one class occurs.
    """
    if scores.ndim == 2 and scores.shape[1] == 2:
        return auc(scores[:, 1], targets)
    if scores.ndim == 2:
        found = [auc(scores[:, c], (targets == c).astype(int)) for c in range(scores.shape[1])]
        return float(np.mean(found))
    _same_length(scores, targets)
    positive = int(targets.sum())
    negative = len(targets) - positive
    if not positive or not negative:
        return math.nan
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # ties share their mean rank
    total = float(ranks[places][targets == 1].sum())
    return (total - positive * (positive + 1) / 2) / (positive * negative)


def perplexity(loss: float) -> float:
    """e to the mean cross-entropy; inf where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def regression(predicted: Array, targets: Array) -> dict[str, float]:
    """mse, rmse, mae and r2 of numbers (N, …)."""
    _same_length(predicted, targets)
    if predicted.shape != targets.shape:
        raise InputError("predictions and targets differ in shape", expected=targets.shape, received=predicted.shape)
    errors = predicted.astype(float) - targets.astype(float)
    mse = float(np.mean(errors**2))
    spread = ((targets - targets.mean(0)) ** 2).reshape(len(targets), -1).sum(0)
    residual = (errors**2).reshape(len(targets), -1).sum(0)
    r2 = float(np.mean(1 - residual / spread)) if (spread > 0).all() else math.nan
    return {"mse": mse, "rmse": math.sqrt(mse), "mae": float(np.mean(np.abs(errors))), "r2": r2}


def class_table(confusion: Array, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row per class: label, count, precision, recall, f1."""
    precision, recall, both = precision_recall_f1(confusion)
    return [
        {
            "label": label,
            "count": int(confusion[i].sum()),
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(both[i]),
        }
        for i, label in enumerate(labels)
    ]
