"""Pictures with boxes as data: VOC's and YOLO's folders, COCO's JSON, checked against the pictures, and cut out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.zoo.detection.annotations import Annotated, annotation_folders, find_annotated, read_text
from zoonet.zoo.detection.average_precision import Truth
from zoonet.zoo.pictures import find_pictures
from zoonet.zoo.train.data import Data

__all__ = ["Boxes", "open_boxes"]

Array = Any
_ROUNDING = 2.0  # pixels by which a box may end beyond its picture, as rounding and counting from 1 make it


@dataclass(frozen=True)
class Boxes:
    """Pictures and the objects in them, (picture, {"boxes", "labels", "difficult", "crowd"}) each, as detectors'
    `model.evaluate` takes them.

    pictures: paths, or what else `find_pictures` takes. truths: boxes (n, 4) as corners in pixels, and classes (n,).
    """

    pictures: Sequence[Any]
    truths: Sequence[Truth]
    labels: tuple[str, ...]
    source: str = "data"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Array]]:
        truth = self.truths[index]
        objects = {"boxes": truth.boxes, "labels": truth.labels, "difficult": truth.difficult, "crowd": truth.crowd}
        return self.pictures[index], {name: value for name, value in objects.items() if value is not None}

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Array]]]:
        return (self[i] for i in range(len(self)))

    def counts(self) -> dict[str, int]:
        """How many objects each class has."""
        found = np.concatenate([t.labels for t in self.truths]) if self.truths else np.zeros(0, np.int64)
        return dict(zip(self.labels, map(int, np.bincount(found, minlength=len(self.labels))), strict=True))

    def crops(self, least: int = 8) -> Data:
        """The objects cut out of their pictures, as data for a classifier: `model.train(boxes.crops())`.

        least: pixels that a box must have in width and height. Raises InputError where there is none.
        """
        inputs, targets, names = [], [], []
        for picture, truth in zip(self.pictures, self.truths, strict=True):
            image = find_pictures(picture)[0].open("RGB")
            for number, (box, label) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
                left, top, right, bottom = (round(float(n)) for n in box)
                if min(right - left, bottom - top) >= least:
                    inputs.append(image.crop((left, top, right, bottom)))
                    targets.append(int(label))
                    names.append(f"{picture}, box {number}")
        if not inputs:
            raise InputError(
                f"{self.source} has no box large enough", expected=f"at least {least} pixels wide and high"
            )
        return Data(inputs, np.array(targets, np.int64), self.labels, names, self.source)


def open_boxes(
    source: Any, *, annotations: Any = None, labels: Sequence[str] | None = None, outside: str = "raise"
) -> Boxes:
    """The annotated pictures of a folder (VOC, YOLO), of COCO's JSON, or of pairs; see `find_annotated`.

    annotations: where boxes are, if not found from source. labels: names of the classes; those of the files where None,
    which YOLO's files have in a classes.txt only. outside: "raise" for boxes that lie outside of their picture, or
    "clip". Raises InputError, FormatError or MissingFileError.
    """
    if outside not in ("raise", "clip"):
        raise ArgumentError("outside is wrong", expected="'raise' or 'clip'", received=repr(outside))
    names = tuple(labels) if labels is not None else _labels(source, annotations)
    found = find_annotated(source, annotations, names)
    truths = [_inside(item, outside) for item in found]
    if not any(len(truth.labels) for truth in truths):
        raise InputError("there are no boxes", expected=f"boxes of {', '.join(names[:8])}", received=str(source)[:200])
    return Boxes([item.picture for item in found], truths, names, str(source)[:200])


def _inside(item: Annotated, outside: str) -> Truth:
    """The objects of a picture, whose boxes lie in it."""
    image = find_pictures(item.picture)[0].open("RGB")
    truth = item.truth(image.size)
    low, high = np.zeros(4), np.array([*image.size, *image.size], np.float64)
    boxes = np.asarray(truth.boxes, np.float64).reshape(-1, 4)
    name = str(item.picture)[:200]
    empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    beyond = (
        ((boxes < low - _ROUNDING) | (boxes > high + _ROUNDING)).any(1) if outside == "raise" else np.zeros(0, bool)
    )
    for wrong, what in ((empty, "has no area"), (beyond, "lies outside of the picture")):
        if wrong.any():
            raise InputError(
                f"{name}: a box {what}",
                expected=f"corners x1 < x2 up to {image.width} and y1 < y2 up to {image.height}",
                received=[round(float(n), 1) for n in boxes[wrong][0]],
                fix="correct the annotation" + (', or outside="clip"' if what.startswith("lies") else ""),
            )
    clipped = np.clip(boxes, low, high)
    kept = (clipped[:, 2:] > clipped[:, :2]).all(1)
    flags = [None if flag is None else flag[kept] for flag in (truth.crowd, truth.difficult, truth.areas)]
    return Truth(clipped[kept], truth.labels[kept], *flags)


def _labels(source: Any, annotations: Any) -> tuple[str, ...]:
    """The names of classes that files of annotations give."""
    path = pathlib.Path(source) if isinstance(source, str | pathlib.Path) else None
    if path is None:
        raise ArgumentError("the classes are not known", fix='name them: labels=("cat", "dog")')
    given = None if annotations is None else pathlib.Path(annotations)
    for file in (given, path):
        if file is not None and file.suffix.lower() == ".json" and file.is_file():
            return _categories(file)
    pictures, notes = annotation_folders(path, given)
    found: set[str] = set()
    for file in sorted(notes.rglob("*.xml")) if notes.is_dir() else ():
        found |= _names(file)
    if found:
        return tuple(sorted(found))
    for place in (path, path.parent, notes, notes.parent, pictures):
        if (place / "classes.txt").is_file():
            return tuple(line.strip() for line in read_text(place / "classes.txt").splitlines() if line.strip())
    raise InputError(
        f"nothing in {path} names the classes",
        expected="VOC's .xml, COCO's .json, or YOLO's .txt with a classes.txt",
        fix='name them: labels=("cat", "dog")',
    )


def _categories(path: pathlib.Path) -> tuple[str, ...]:
    try:
        categories = json.loads(read_text(path))["categories"]
        return tuple(str(c["name"]) for c in sorted(categories, key=lambda c: c["id"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not COCO's JSON", received=f"{type(error).__name__}: {error}"[:200]) from None


def _names(path: pathlib.Path) -> set[str]:
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise FormatError(f"{path} defines entities", expected="plain XML")
    try:
        return {(item.findtext("name") or "").strip() for item in ElementTree.fromstring(text).findall("object")}
    except (ElementTree.ParseError, RecursionError) as error:
        raise FormatError(f"{path} is not XML", received=str(error)) from None
