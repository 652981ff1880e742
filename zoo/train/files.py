"""Data in files: a folder per class, and lists of files and labels, or of numbers."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, FormatError, InputError, MissingFileError
from zoonet.zoo.pictures import SUFFIXES
from zoonet.zoo.train.data import TRAINING, VALIDATION, Data

__all__ = ["pair_of", "read_folder", "read_list", "validation_folder"]

_FILE = ("file", "path", "filename", "file_name", "filepath", "image", "image_path", "picture", "img")
_TEXT = ("text", "sentence", "review")
_INPUT = ("x", "input", "inputs")
_LABEL = ("label", "class", "target", "category", "y", "labels", "species")
_TEXTS = frozenset((".txt", ".md"))
_LARGEST = 1 << 30  # bytes of a list


def validation_folder(path: Any) -> pathlib.Path | None:
    """The part of a folder that is meant for measuring, where it has parts: flowers/train and flowers/val."""
    try:
        if not isinstance(path, str | pathlib.Path) or not pathlib.Path(path).is_dir():
            return None
    except (OSError, ValueError):  # a text, and no path
        return None
    found = {p.name.lower(): p for p in pathlib.Path(path).iterdir() if p.is_dir()}
    if not any(name in found and _has_parts(found[name]) for name in TRAINING):
        return None
    return next((found[name] for name in VALIDATION if name in found), None)


def read_folder(path: pathlib.Path) -> Data:
    """Pictures (or texts) in one sub-folder per class, which gives the label. Raises InputError."""
    below = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    for part in below:
        if part.name.lower() in TRAINING and _has_parts(part):
            return read_folder(part)
    names = {p.name.lower() for p in below}
    if {"jpegimages", "annotations"} <= names or {"images", "labels"} <= names:
        names_below = ", ".join(p.name for p in below)
        raise _boxes(f"the folder {path} holds", "a sub-folder of pictures for each class", names_below, "folder")
    found = {folder.name: _files(folder) for folder in below}
    found = {name: files for name, files in found.items() if files}
    if not found:
        loose = _files(path)
        raise InputError(
            f"the folder {path} has no classes",
            expected="a sub-folder of pictures for each class",
            received=f"{len(loose)} pictures without a class" if loose else "no pictures",
            fix="sort the pictures into sub-folders named by class, or give a .csv of files and labels",
        )
    kinds = {file.suffix.lower() in _TEXTS for files in found.values() for file in files}
    if len(kinds) > 1:
        raise InputError(f"the folder {path} mixes pictures and texts", fix="keep one kind")
    labels = tuple(found)
    inputs = [file for files in found.values() for file in files]
    targets = np.array([i for i, files in enumerate(found.values()) for _ in files], np.int64)
    return Data(inputs, targets, labels, [str(file) for file in inputs], str(path))


def _has_parts(folder: pathlib.Path) -> bool:
    """Whether a folder holds folders and no pictures of its own, which a class named "train" would."""
    inside = list(folder.iterdir())
    kinds = SUFFIXES | _TEXTS
    return any(p.is_dir() for p in inside) and not any(p.suffix.lower() in kinds and p.is_file() for p in inside)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    kinds = SUFFIXES | _TEXTS
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and not p.name.startswith("."))


def read_list(path: pathlib.Path, columns: tuple[str, str] | None = None) -> Data:
    """A .csv, .tsv, .json or .jsonl list: files (relative to the list) or texts with labels, or rows of numbers.

    columns: those of the file (or text) and of the label; found by their usual names where None. A table without files
    is one of numbers: all columns but the label's are inputs. Raises FormatError or InputError naming row and column.
    """
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path.name} holds no rows", expected="a header and at least one row")
    names = list(rows[0])
    if columns is not None:
        if isinstance(columns, str) or len(columns) != 2:
            raise ArgumentError("columns is wrong", expected='("file", "label"), say', received=repr(columns))
        for column in columns:
            if column not in names:
                raise InputError(f"{path.name} has no column {column!r}", expected=", ".join(names))
        file_column, label_column = columns
    else:
        file_column = _column(names, (*_FILE, *_TEXT)) or ""
        label_column = _column(names, _LABEL) or ""
        if not label_column:
            raise InputError(
                f"{path.name} has no column of labels",
                expected="a column named " + ", ".join(_LABEL[:5]),
                received=", ".join(map(str, names[:10])),
                fix='name the columns: columns=("file", "label")',
            )
    if not file_column:
        return _table(path, rows, label_column)
    inputs = [_cell(path, row, number, file_column) for number, row in enumerate(rows)]
    texts = file_column.lower() in _TEXT
    data = _labelled(path, rows, label_column)
    if texts:
        return replace(data, inputs=inputs)
    files = [path.parent / name for name in map(str, inputs)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise MissingFileError(
            f"{path.name} names {len(missing)} file{'s' * (len(missing) > 1)} that cannot be found",
            received=str(missing[0]),
            fix="paths in a list are relative to it",
        )
    return replace(data, inputs=files, names=[str(file) for file in files])


def pair_of(row: Mapping[str, Any], position: int, columns: tuple[str, str] | None) -> tuple[Any, Any]:
    """Input and target of a sample that is a mapping, by these keys or the usual ones. Raises InputError."""
    names = list(row)
    found = columns or (_column(names, (*_INPUT, *_FILE, *_TEXT)), _column(names, _LABEL))
    if None in found or not set(found) <= set(names):
        raise InputError(
            f"sample {position} lacks an input or a target",
            expected="keys such as image and label, text and label, x and y",
            received=", ".join(map(str, names[:10])),
            fix='name them: columns=("image", "label")',
        )
    return row[found[0]], row[found[1]]  # type: ignore[index]


def _boxes(what: str, expected: str, received: str, kind: str) -> InputError:
    """The complaint about annotated pictures in the place of classes of pictures."""
    return InputError(
        f"{what} boxes in pictures, not classes of pictures",
        expected=expected,
        received=received[:200],
        fix=f"zoonet.zoo.train.open_boxes({kind}).crops() are its objects as data; model.evaluate takes detectors",
    )


def _rows(path: pathlib.Path) -> list[Mapping[str, Any]]:
    kind = path.suffix.lower()
    if kind not in (".csv", ".tsv", ".json", ".jsonl"):
        raise FormatError(
            f"{path.name} is no data that can be read",
            expected="a folder, or a .csv, .tsv, .json, .jsonl or .npz file",
            received=kind or "no suffix",
        )
    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path.name} is too large", expected=f"at most {_LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
        if kind in (".csv", ".tsv"):
            return _from_csv(path, text, "\t" if kind == ".tsv" else ",")
        content = json.loads(text) if kind == ".json" else [json.loads(row) for row in text.splitlines() if row.strip()]
    except OSError as error:
        raise FormatError(f"{path} cannot be read", received=error) from None
    except (ValueError, RecursionError, csv.Error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path.name} is malformed", received=error) from None
    if isinstance(content, dict) and {"images", "annotations"} <= set(content):
        raise _boxes(f"{path.name} is COCO's list of", "files and labels", ", ".join(map(str, content)), "file")
    if isinstance(content, dict) and all(isinstance(v, str | int) for v in content.values()):
        content = [{"file": name, "label": label} for name, label in content.items()]
    if isinstance(content, dict) and all(isinstance(files, list) for files in content.values()):
        content = [(file, label) for label, files in content.items() for file in files]
    if isinstance(content, list) and all(isinstance(row, list | tuple) and len(row) == 2 for row in content):
        content = [{"file": file, "label": label} for file, label in content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise FormatError(f"{path.name} is no list", expected='objects such as {"file": "a.jpg", "label": "rose"}')
    return content


def _from_csv(path: pathlib.Path, text: str, delimiter: str) -> list[Mapping[str, Any]]:
    if delimiter == "," and ";" in (first := text.partition("\n")[0]) and "," not in first:
        delimiter = ";"
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Mapping[str, Any]] = []
    for row in reader:
        if None in row or None in row.values():
            raise FormatError(
                f"{path.name}, line {reader.line_num}: a wrong number of columns",
                expected=len(reader.fieldnames or ()),
                received=delimiter.join(str(v) for v in row.values())[:80],
            )
        rows.append({str(key).strip(): value for key, value in row.items()})
    return rows


def _column(names: Sequence[str], usual: Sequence[str]) -> str | None:
    lower = {str(name).strip().lower(): name for name in names}
    return next((lower[name] for name in usual if name in lower), None)


def _cell(path: pathlib.Path, row: Mapping[str, Any], number: int, column: str) -> Any:
    value = row.get(column)
    if value is None or value == "":
        raise InputError(f"{path.name}, row {number + 1} has no {column}", received=str(dict(row))[:80])
    return value


def _labelled(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], column: str) -> Data:
    """Targets of a column: numbers where all are floats with a point, otherwise labels."""
    cells = [_cell(path, row, number, column) for number, row in enumerate(rows)]
    if any(isinstance(cell, dict | list) for cell in cells):
        raise InputError(
            f"{path.name}: labels of a wrong type", expected="texts or numbers", received=str(cells[0])[:80]
        )
    texts = [str(cell).strip() for cell in cells]
    numbers = [_number(text) for text in texts]
    if all(n is not None for n in numbers) and any("." in text or "e" in text.lower() for text in texts):
        return Data((), np.array(numbers, np.float32), source=path.name)
    labels = sorted(set(texts), key=lambda t: (0, int(t), "") if t.isdecimal() else (1, 0, t))
    places = {label: i for i, label in enumerate(labels)}
    return Data((), np.array([places[t] for t in texts], np.int64), tuple(labels), source=path.name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _table(path: pathlib.Path, rows: Sequence[Mapping[str, Any]], label: str) -> Data:
    """Rows of numbers: float32 (N, columns)."""
    names = [name for name in rows[0] if name != label]
    values = np.empty((len(rows), len(names)), np.float32)
    for number, row in enumerate(rows):
        for position, name in enumerate(names):
            found = _number(str(row.get(name)))
            if found is None:
                raise InputError(
                    f"{path.name}, row {number + 1}, column {name!r} is no number",
                    expected="a column of files (file, path, image), or numbers",
                    received=repr(row.get(name))[:80],
                )
            values[number, position] = found
    if not names:
        raise InputError(f"{path.name} has no column beside {label!r}", expected="a column of files, or numbers")
    return replace(_labelled(path, rows, label), inputs=values)
