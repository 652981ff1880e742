"""How good a detector is on annotated pictures: COCO's and VOC's numbers, a table of classes, curves and confusion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, FileError, InputError
from zoonet.zoo.detection.annotations import find_annotated
from zoonet.zoo.detection.average_precision import (
    CocoCurves,
    Curve,
    Found,
    Truth,
    coco_curves,
    overlaps,
    voc_curve,
)
from zoonet.zoo.results import printable

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

Array = np.ndarray[Any, Any]
#: COCO's twelve numbers: name, and what of the curves it is.
_NUMBERS: dict[str, Callable[[CocoCurves], float]] = {
    "AP": lambda c: c.mean(),
    "AP50": lambda c: c.mean(0.5),
    "AP75": lambda c: c.mean(0.75),
    "APsmall": lambda c: c.mean(area="small"),
    "APmedium": lambda c: c.mean(area="medium"),
    "APlarge": lambda c: c.mean(area="large"),
    "AR1": lambda c: c.mean_recall(limit=1),
    "AR10": lambda c: c.mean_recall(limit=10),
    "AR100": lambda c: c.mean_recall(limit=100),
    "ARsmall": lambda c: c.mean_recall("small"),
    "ARmedium": lambda c: c.mean_recall("medium"),
    "ARlarge": lambda c: c.mean_recall("large"),
}


class DetectionEvaluation:
    """Numbers of a detector on annotated pictures.

    truths, found: the objects and the detections of each picture. labels: the names of the classes. metrics: COCO's
    twelve numbers (AP is the mean over IoU 0.50 to 0.95; -1 where there are no such objects), and VOC's AP of both
    styles. Boxes without area count in neither.
    """

    def __init__(self, truths: Sequence[Truth], found: Sequence[Found], labels: Sequence[str]) -> None:
        self.truths = list(truths)
        self.found = list(found)
        self.labels = tuple(labels)
        self.curves = coco_curves(self.truths, self.found, len(self.labels))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """COCO's numbers by name, and "VOC07" and "VOC10": mean average precision at IoU 0.5."""
        return {name: number(self.curves) for name, number in _NUMBERS.items()} | {
            "VOC07": self.voc("voc07"),
            "VOC10": self.voc("voc10"),
        }

    @cached_property
    def voc_curves(self) -> list[Curve]:
        """Precision and recall of each class at IoU 0.5."""
        return [voc_curve(self.truths, self.found, label) for label in range(len(self.labels))]

    def voc(self, style: str = "voc10") -> float:
        """Mean average precision at IoU 0.5 over the classes that have objects; -1 without any."""
        values = [curve.average(style) for curve in self.voc_curves if curve.objects]
        return float(np.mean(values)) if values else -1.0

    def classes(self) -> list[dict[str, Any]]:
        """A row per class that has objects: label, objects, AP, AP50, AP75, VOC10, and precision, recall and score
        where their harmonic mean at IoU 0.5 is greatest."""
        rows = []
        for label, curve in enumerate(self.voc_curves):
            if not curve.objects:
                continue
            both = 2 * curve.precision * curve.recall / np.maximum(curve.precision + curve.recall, 1e-12)
            best = int(both.argmax()) if len(both) else None
            rows.append(
                {
                    "label": self.labels[label],
                    "objects": curve.objects,
                    "AP": self.curves.of_class(label),
                    "AP50": self.curves.of_class(label, 0.5),
                    "AP75": self.curves.of_class(label, 0.75),
                    "VOC10": curve.average(),
                    "precision": 0.0 if best is None else float(curve.precision[best]),
                    "recall": 0.0 if best is None else float(curve.recall[best]),
                    "score": 0.0 if best is None else float(curve.scores[best]),
                }
            )
        return rows

    def confusion(self, conf: float = 0.25, iou: float = 0.5) -> Array:
        """Counts (classes + 1, classes + 1): row the truth, column what was found; the last is nothing.

        Boxes of any class are matched by IoU, greatest first. conf: least score.
        """
        count = len(self.labels)
        result = np.zeros((count + 1, count + 1), np.int64)
        for truth, found in zip(self.truths, self.found, strict=True):
            counted = np.ones(len(truth.labels), bool) if truth.crowd is None else ~truth.crowd
            boxes, labels = truth.boxes[counted], truth.labels[counted]
            sure = found.scores >= conf
            own, own_labels = found.boxes[sure], found.labels[sure]
            ious = overlaps(own, boxes)
            order = np.argsort(-ious, axis=None, kind="stable")[: int((ious >= iou).sum())]
            taken, matched = np.zeros(len(boxes), bool), np.zeros(len(own), bool)
            for d, t in zip(*np.unravel_index(order, ious.shape), strict=True) if ious.size else ():
                if not taken[t] and not matched[d]:
                    taken[t] = matched[d] = True
                    result[labels[t], own_labels[d]] += 1
            result[:, count] += np.bincount(labels[~taken], minlength=count + 1)
            result[count] += np.bincount(own_labels[~matched], minlength=count + 1)
        return result

    # -- description ---------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The numbers, and a table of the classes."""
        objects = sum(len(truth.labels) for truth in self.truths)
        lines = [f"{len(self.truths)} pictures, {objects} objects"]
        lines += [f"{name:<9} {value:7.4f}" for name, value in self.metrics.items()]
        rows = self.classes()
        width = max([5, *(len(printable(row["label"])) for row in rows)])
        lines += ["", f"{'class':<{width}}  objects      AP    AP50    AP75  precision  recall"]
        lines += [
            f"{printable(row['label']):<{width}}  {row['objects']:7d}  {row['AP']:6.3f}  {row['AP50']:6.3f}  "
            f"{row['AP75']:6.3f}  {row['precision']:9.3f}  {row['recall']:6.3f}"
            for row in rows
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: {"pictures", "objects", "metrics", "classes"}."""
        return {
            "pictures": len(self.truths),
            "objects": sum(len(truth.labels) for truth in self.truths),
            "metrics": self.metrics,
            "classes": self.classes(),
        }

    def plot_curves(self, path: str | os.PathLike[str], most: int = 10) -> None:
        """Draw precision over recall at IoU 0.5, of the classes with most objects and of the mean. Needs matplotlib."""
        figure = _figure(7, 5)
        axes = figure.subplots()
        known = [label for label, curve in enumerate(self.voc_curves) if curve.objects]
        for label in sorted(known, key=lambda k: -self.voc_curves[k].objects)[:most]:
            curve = self.voc_curves[label]
            axes.plot(curve.recall, curve.precision, lw=1, label=f"{self.labels[label]} {curve.average():.2f}")
        if known:
            mean = self.curves.precision[0, :, known, 0, -1].mean(0)
            axes.plot(np.linspace(0, 1, 101), mean, lw=3, color="black", label=f"mean {self.metrics['AP50']:.2f}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02), title="IoU 0.5")
        axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", fontsize=8, title="AP50")
        _write(figure, path)

    def plot_confusion(self, path: str | os.PathLike[str], conf: float = 0.25, iou: float = 0.5) -> None:
        """Draw `confusion` of the classes that occur. Needs matplotlib."""
        counts = self.confusion(conf, iou)
        shown = np.nonzero(counts.sum(0) + counts.sum(1))[0]
        counts = counts[np.ix_(shown, shown)]
        names = [(*self.labels, "nothing")[k] for k in shown]
        size = min(max(4.5, 2 + 0.32 * len(names)), 24)
        figure = _figure(size, size)
        axes = figure.subplots()
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(counts), strict=True) if len(names) <= 60 else ():
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(xlabel="found", ylabel="truth", title=f"score from {conf:g}, IoU from {iou:g}")
        _write(figure, path)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ArgumentError("plots need matplotlib", fix='pip install matplotlib, or "zoonet[plot]"') from None
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise FileError(f"the picture {path} cannot be written", received=str(error)) from None


def evaluate(
    model: Model,
    data: Any,
    *,
    annotations: Any,
    batch: int,
    progress: Callable[[int, int], None] | None,
    options: Mapping[str, Any],
) -> DetectionEvaluation:
    """See `ObjectDetection.evaluate`. options: others of `ObjectDetection.run`."""
    if not isinstance(batch, int) or batch < 1:
        raise ArgumentError("batch is wrong", expected="a positive number of pictures", received=batch)
    items = find_annotated(data, annotations, model.labels)
    truths, found = [], []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        results = model.run([item.picture for item in part], batch=batch, **options)
        for item, result in zip(part, results, strict=True):
            truths.append(item.truth(result.size))
            found.append(Found(result.boxes, result.scores, result.labels))
        if progress is not None:
            progress(len(truths), len(items))
    if not any(len(truth.labels) for truth in truths):
        raise InputError(
            "there is nothing to measure: no picture has an object of a class that the model knows",
            expected=", ".join(model.labels[:8]),
            received=str(data)[:200],
            fix="give the model the labels of the data, load(…, labels=[…]), if its classes are these",
        )
    return DetectionEvaluation(truths, found, model.labels)
