"""Pictures with the boxes that people drew: COCO's JSON, Pascal VOC's XML, and YOLO's text files.

Boxes become corners in pixels, from 0 at the left edge of the first pixel to the width at the right edge of the last.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from zoonet.ops.errors import FormatError, InputError, MissingFileError, UnsafeFileError
from zoonet.zoo.detection.average_precision import Truth
from zoonet.zoo.detection.results import VOC_TO_COCO
from zoonet.zoo.pictures import SUFFIXES

_MAX_LABELS, _MAX_JSON = 16 << 20, 4 << 30


@dataclass(frozen=True)
class Annotated:
    """One picture: what `find_pictures` takes, and a function from its upright (width, height) to its objects."""

    picture: Any
    truth: Callable[[tuple[int, int]], Truth]


def find_annotated(data: Any, annotations: Any, labels: Sequence[str]) -> list[Annotated]:
    """The annotated pictures that a source stands for, in order.

    data: a folder of pictures; a folder with JPEGImages and Annotations (VOC), or with images and labels (YOLO); the
    path of COCO's JSON; or a list of pairs of a picture and a dict of boxes (n, 4, corners in pixels) and labels (n,
    names or indices), with crowd and difficult where there are such. annotations: a folder of .txt or .xml files, or a
    .json, where they are not found from data. labels: the model's; names in the files are those, or numbers of YOLO.
    Raises MissingFileError, FormatError or InputError.
    """
    if isinstance(data, str | os.PathLike):
        path = pathlib.Path(data)
        notes = None if annotations is None else pathlib.Path(annotations)
        for each in (path, notes):
            if each is not None and not each.exists():
                raise MissingFileError("there are no such data", received=str(each), fix="check the path")
        found = _from_path(path, notes, labels)
    elif isinstance(data, Sequence):
        found = [_given(item, labels) for item in data]
    else:
        raise InputError(
            "data are wrong", expected="a folder, COCO's JSON, or a list of pairs", received=type(data).__name__
        )
    if not found:
        raise InputError("there are no annotated pictures", received=str(data)[:200])
    return found


def _from_path(path: pathlib.Path, notes: pathlib.Path | None, labels: Sequence[str]) -> list[Annotated]:
    if path.is_file() and path.suffix.lower() == ".json":
        return _coco(path, path.parent, labels)
    if notes is not None and notes.is_file():
        return _coco(notes, path, labels)
    if not path.is_dir():
        raise InputError("data are wrong", expected="a folder of pictures, or COCO's JSON", received=str(path))
    pictures, notes = annotation_folders(path, notes)
    found = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    result = []
    for picture in found:
        base = notes / picture.relative_to(pictures)
        if base.with_suffix(".xml").is_file():
            result.append(Annotated(picture, _voc(base.with_suffix(".xml"), labels)))
        elif base.with_suffix(".txt").is_file():
            result.append(Annotated(picture, _yolo(base.with_suffix(".txt"), labels)))
    if found and not result:
        raise MissingFileError(
            f"no picture in {pictures} has annotations",
            expected=f"such as {(notes / found[0].relative_to(pictures)).with_suffix('.txt')} or .xml",
            fix="name their folder: annotations='…', or --annotations",
        )
    return result


def annotation_folders(path: pathlib.Path, notes: pathlib.Path | None) -> tuple[pathlib.Path, pathlib.Path]:
    """Where pictures are, and where their annotations are under the same relative names."""
    if notes is not None:
        return path, notes
    for pictures, labels in (("JPEGImages", "Annotations"), ("images", "labels")):
        if (path / pictures).is_dir() and (path / labels).is_dir():
            return path / pictures, path / labels
    parts = path.parts
    for pictures, labels in (("images", "labels"), ("JPEGImages", "Annotations")):
        for i in range(len(parts) - 1, -1, -1):
            beside = pathlib.Path(*parts[:i], labels, *parts[i + 1 :])
            if parts[i] == pictures and beside.is_dir():
                return path, beside
    return path, _beside(path) or path


def _beside(path: pathlib.Path) -> pathlib.Path | None:
    """For pictures in root/images/split: root/…/labels/split, that of detection first where there are several."""
    if path.parent.name != "images":
        return None
    found = [p / "labels" / path.name for p in sorted(path.parent.parent.iterdir()) if p.is_dir()]
    return min((p for p in found if p.is_dir()), key=lambda p: "detect" not in p.parent.parent.name, default=None)


# -- one file each ---------------------------------------------------------------------------------------------------


def read_text(path: pathlib.Path, most: int = _MAX_JSON) -> str:
    """The text of a file of annotations. Raises UnsafeFileError above `most` bytes, FormatError."""
    try:
        if path.stat().st_size > most:
            raise UnsafeFileError(f"{path} is too large", expected=f"at most {most:,} bytes")
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read", received=str(error)) from None


def _yolo(path: pathlib.Path, labels: Sequence[str]) -> Callable[[tuple[int, int]], Truth]:
    """Lines of a class and a box (center x, y, width, height) or a polygon, in fractions of the picture."""

    def truth(size: tuple[int, int]) -> Truth:
        boxes, classes = [], []
        for number, line in enumerate(read_text(path, _MAX_LABELS).splitlines(), 1):
            if not line.strip():
                continue
            try:
                first, *values = [float(part) for part in line.split()]
            except ValueError:
                values, first = [], -1.0
            fits = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
            if (
                not fits
                or not all(map(math.isfinite, values))
                or not first.is_integer()
                or not 0 <= first < len(labels)
            ):
                raise FormatError(
                    f"{path}, line {number}: not an object",
                    expected=f"a class from 0 to {len(labels) - 1}, and x, y, width, height or a polygon in fractions",
                    received=line[:80],
                )
            classes.append(int(first))
            boxes.append(_fractions(values, size))
        return Truth(np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64))

    return truth


def _fractions(values: Sequence[float], size: tuple[int, int]) -> list[float]:
    width, height = size
    if len(values) == 4:
        x, y, w, h = values
        return [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    return [min(values[::2]) * width, min(values[1::2]) * height, max(values[::2]) * width, max(values[1::2]) * height]


def _voc(path: pathlib.Path, labels: Sequence[str]) -> Callable[[tuple[int, int]], Truth]:
    """<object>s with <name>, <bndbox> and perhaps <difficult>; VOC counts pixels from 1, the last one included."""

    def truth(_size: tuple[int, int]) -> Truth:
        text = read_text(path, _MAX_LABELS)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UnsafeFileError(f"{path} defines entities", expected="plain XML")
        try:
            objects = ElementTree.fromstring(text).findall("object")
        except (ElementTree.ParseError, RecursionError) as error:
            raise FormatError(f"{path} is not XML", received=str(error)) from None
        boxes, classes, difficult = [], [], []
        for item in objects:
            name = (item.findtext("name") or "").strip()
            try:
                x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax"))
            except ValueError:
                raise FormatError(f"{path}: an object {name!r} has no box", expected="xmin, ymin, xmax, ymax") from None
            label = _class_of(name, labels)
            if label is not None:
                boxes.append([x1 - 1, y1 - 1, x2, y2])
                classes.append(label)
                difficult.append((item.findtext("difficult") or "0").strip() == "1")
        return Truth(
            np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64), None, np.array(difficult, bool)
        )

    return truth


def _class_of(name: str, labels: Sequence[str]) -> int | None:
    """The index of a class by its name; None for one that the model does not know."""
    for each in (name, name.lower(), VOC_TO_COCO.get(name.lower(), "")):
        if each in labels:
            return labels.index(each)
    back = {other: own for own, other in VOC_TO_COCO.items()}.get(name.lower(), "")
    return labels.index(back) if back in labels else None


def _given(item: Any, labels: Sequence[str]) -> Annotated:
    """A pair of a picture and its objects."""
    try:
        picture, objects = item
        boxes = np.asarray(objects["boxes"], np.float64).reshape(-1, 4)
        names = list(objects["labels"])
        flags = {k: np.asarray(objects[k], bool) for k in ("crowd", "difficult") if objects.get(k) is not None}
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InputError(
            "an item of the data is wrong",
            expected="(picture, {'boxes': (n, 4) corners, 'labels': n names or indices})",
            received=repr(item)[:100],
        ) from None
    classes = [_class_of(n, labels) if isinstance(n, str) else int(n) for n in names]
    wrong = [n for n, c in zip(names, classes, strict=True) if c is None or not 0 <= c < len(labels)]
    if wrong or len(classes) != len(boxes) or any(len(flag) != len(boxes) for flag in flags.values()):
        raise InputError(
            "the boxes and labels of a picture do not fit",
            expected=f"as many labels of the model as boxes ({len(boxes)})",
            received=repr(wrong[:5]) if wrong else f"{len(classes)} labels",
        )
    truth = Truth(boxes, np.array(classes, np.int64), flags.get("crowd"), flags.get("difficult"))
    return Annotated(picture, lambda _size: truth)


# -- COCO --------------------------------------------------------------------------------------------------------------


def _coco(path: pathlib.Path, folder: pathlib.Path, labels: Sequence[str]) -> list[Annotated]:
    """Pictures and annotations of a COCO JSON, in the order of their numbers."""
    try:
        content = json.loads(read_text(path, _MAX_JSON))
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = sorted(((i["id"], str(i["file_name"])) for i in content["images"]), key=lambda pair: pair[0])
        truths = _coco_truths(content["annotations"], names, labels)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not COCO's JSON",
            expected='an object of "images", "annotations" and "categories"',
            received=f"{type(error).__name__}: {error}"[:200],
        ) from None
    known = [name for name in names.values() if _class_of(name, labels) is not None]
    if not known:
        raise InputError(
            f"the model knows no class of {path.name}",
            expected=", ".join(labels[:8]),
            received=", ".join(list(names.values())[:8]),
        )
    places = _places(folder, path.stem)
    empty = Truth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool), None, np.zeros(0))
    return [Annotated(_located(name, places), _constant(truths.get(number, empty))) for number, name in images]


def _constant(truth: Truth) -> Callable[[tuple[int, int]], Truth]:
    return lambda _size: truth


def _coco_truths(annotations: Any, names: Mapping[Any, str], labels: Sequence[str]) -> dict[Any, Truth]:
    rows: dict[Any, list[tuple[list[float], int, bool, float]]] = {}
    for each in annotations:
        label = _class_of(names[each["category_id"]], labels)
        if label is None:
            continue
        x, y, w, h = (float(n) for n in each["bbox"])
        row = ([x, y, x + w, y + h], label, bool(each.get("iscrowd", 0)), float(each.get("area", w * h)))
        rows.setdefault(each["image_id"], []).append(row)
    return {
        number: Truth(
            np.array([r[0] for r in found]),
            np.array([r[1] for r in found], np.int64),
            np.array([r[2] for r in found], bool),
            None,
            np.array([r[3] for r in found]),
        )
        for number, found in rows.items()
    }


def _places(folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """Where the pictures of a JSON may be: in its folder, beside it, and in a folder of the split's name."""
    split = stem.rpartition("_")[2]
    roots = (folder, folder.parent)
    return [place for root in roots for place in (root, root / "images", root / split, root / "images" / split)]


def _located(name: str, places: Sequence[pathlib.Path]) -> pathlib.Path:
    relative = pathlib.PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise UnsafeFileError("a picture of the JSON is outside of its folder", received=name[:200])
    for place in places:
        if (place / relative).is_file():
            return place / relative
    raise MissingFileError(
        f"the picture {name[:200]} of the JSON is not there",
        expected="in " + ", ".join(map(str, places[:4])),
        fix="give the folder of pictures as data, and the JSON as annotations",
    )
