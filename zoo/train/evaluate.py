"""Measuring a model on data: metrics, a table of classes, the confusion matrix, and the worst mistakes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.results import printable
from zoonet.zoo.train import metrics
from zoonet.zoo.train.data import Data, classes_of
from zoonet.zoo.train.history import import_pyplot, save_figure
from zoonet.zoo.train.loader import Loader
from zoonet.zoo.train.objective import Objective, first

__all__ = ["Evaluation", "collect"]

Array = Any


@dataclass
class Mistake:
    """A sample that was taken for another class: its name and index, both labels, and the score of the wrong one."""

    name: str
    index: int
    truth: str
    predicted: str
    score: float


@dataclass
class Evaluation:
    """How a model does on data.

    metrics: loss and what else is measured, by name. table: per class label, count, precision, recall, f1; confusion:
    (classes, classes), rows are the truth; mistakes: the surest first; these are empty for numbers. skipped: samples
    that could not be read.
    """

    metrics: dict[str, float]
    count: int
    labels: tuple[str, ...] = ()
    table: list[dict[str, Any]] = field(default_factory=list)
    confusion: Array | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    _picture: Callable[[int], Any] | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> float:
        """A metric by name."""
        if name not in self.metrics:
            raise ArgumentError(f"{name!r} was not measured", expected=", ".join(self.metrics))
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "count": self.count,
            "metrics": {k: v if math.isfinite(v) else None for k, v in self.metrics.items()},
            "classes": self.table,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            "mistakes": [vars(m) for m in self.mistakes[:50]],
            "skipped": self.skipped,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def text(self) -> str:
        """Metrics, a line per class, and the worst mistakes."""
        lines = [f"{self.count} samples: " + ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())]
        if self.table:
            width = max(5, *(len(row["label"]) for row in self.table))
            lines.append(f"{'class':<{width}}  count  precision  recall     f1")
            lines += [
                f"{printable(r['label']):<{width}}  {r['count']:>5}  {r['precision']:>9.3f}  {r['recall']:>6.3f}"
                f"  {r['f1']:>5.3f}"
                for r in self.table
            ]
        if self.mistakes:
            lines.append("worst mistakes:")
            lines += [
                printable(f"  {m.name}: {m.predicted} ({m.score:.1%}), truly {m.truth}") for m in self.mistakes[:5]
            ]
        if self.skipped:
            several = "1 sample" if len(self.skipped) == 1 else f"{len(self.skipped)} samples"
            lines.append(f"{several} could not be read, the first: {printable(self.skipped[0])}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def plot_confusion(self, path: str | os.PathLike[str]) -> None:
        """Draw the confusion matrix. Needs matplotlib. Raises ArgumentError where there are no classes."""
        if self.confusion is None:
            raise ArgumentError("there is no confusion matrix", expected="classes")
        pyplot = import_pyplot()
        count = len(self.confusion)
        size = min(4 + 0.35 * count, 24)
        figure, axis = pyplot.subplots(figsize=(size, size))
        shares = self.confusion / np.maximum(self.confusion.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if count <= 30:
            for row, column in np.ndindex(count, count):
                if self.confusion[row, column]:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    text = str(self.confusion[row, column])
                    axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        if count <= 60:
            axis.set_xticks(range(count), self.labels, rotation=90)
            axis.set_yticks(range(count), self.labels)
        axis.set_xlabel("predicted")
        axis.set_ylabel("truth")
        save_figure(figure, path)

    def plot_mistakes(self, path: str | os.PathLike[str], count: int = 16) -> None:
        """Draw the worst mistakes with both labels. Needs matplotlib, and data that are pictures."""
        if self._picture is None or not self.mistakes:
            raise ArgumentError("there are no pictures of mistakes", expected="pictures, and at least one mistake")
        pyplot = import_pyplot()
        shown = self.mistakes[:count]
        columns = min(4, len(shown))
        rows = -(-len(shown) // columns)
        figure, axes = pyplot.subplots(rows, columns, figsize=(3 * columns, 3.3 * rows), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, mistake in zip(axes.flat, shown, strict=False):
            image = self._picture(mistake.index)
            axis.imshow(np.asarray(image), cmap="gray" if image.mode == "L" else None)
            axis.set_title(f"{mistake.predicted} {mistake.score:.0%}\ntruly {mistake.truth}", fontsize=9)
        save_figure(figure, path)


def collect(
    forward: Callable[[Array], Any],
    loader: Loader,
    objective: Objective,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Array, Array, list[int], float]:
    """Outputs (N, …), targets, indices and mean loss over all data."""
    outputs, targets, indices, total = [], [], [], 0.0
    for batch in loader.epoch():
        found = forward(batch.inputs)
        objective.check(found, batch.targets)
        device = ops.device_of(first(found))
        loss = objective.loss(found, ops.to_device(batch.targets, device), training=False)
        total += float(loss) * batch.count
        outputs.append(np.asarray(ops.to_device(first(found), "cpu")))
        targets.append(batch.targets)
        indices += list(batch.indices)
        if progress is not None:
            progress(len(indices), len(loader.data))
    if not outputs:
        raise InputError(f"nothing in {loader.data.source} can be read", expected="at least one sample")
    return np.concatenate(outputs), np.concatenate(targets), indices, total / len(indices)


def evaluation(
    found: tuple[Array, Array, list[int], float], data: Data, objective: Objective, labels: Sequence[str] | None
) -> Evaluation:
    """The Evaluation of what `collect` gave."""
    outputs, targets, indices, loss = found
    measured = objective.measure(outputs, targets, loss)
    result = Evaluation(measured, len(targets))
    if not objective.classes or outputs.ndim != 2:
        return result
    targets = classes_of(targets)
    count = outputs.shape[1]
    scores = objective.scores(outputs)
    predicted = scores.argmax(1)
    measured["auc"] = metrics.auc(scores, targets)
    result.labels = tuple(labels) if labels and len(labels) == count else tuple(map(str, range(count)))
    result.confusion = metrics.confusion_matrix(predicted, targets, count)
    result.table = metrics.class_table(result.confusion, result.labels)
    wrong = np.flatnonzero(predicted != targets)
    order = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
    result.mistakes = [
        Mistake(
            data.name(indices[i]),
            int(indices[i]),
            result.labels[int(targets[i])],
            result.labels[int(predicted[i])],
            float(scores[i, predicted[i]]),
        )
        for i in order
    ]
    return result
