"""Evaluation on annotated pictures in the layouts that people have, and of the real models."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, FormatError, InputError, MissingFileError, UnsafeFileError, ZoonetError
from zoonet.zoo.cli import main
from zoonet.zoo.detection.annotations import find_annotated

LABELS = ("person", "airplane", "tv")
OBJECTS = [(0, (10, 20, 30, 60)), (2, (0, 0, 80, 40))]  # in a picture of 80×100


def picture(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 100), "grey").save(path)


def yolo(folder: pathlib.Path) -> None:
    picture(folder / "images" / "val" / "a.jpg")
    picture(folder / "images" / "val" / "empty.jpg")
    picture(folder / "images" / "val" / "unlabelled.jpg")
    labels = folder / "labels" / "val"
    labels.mkdir(parents=True)
    lines = [f"{k} {(a + c) / 160} {(b + d) / 200} {(c - a) / 80} {(d - b) / 100}" for k, (a, b, c, d) in OBJECTS]
    (labels / "a.txt").write_text("\n".join(lines))
    (labels / "empty.txt").write_text("")


def voc(folder: pathlib.Path) -> None:
    picture(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations").mkdir()
    names = {0: "person", 2: "tvmonitor"}
    objects = "".join(
        f"<object><name>{names[k]}</name><difficult>{k // 2}</difficult>"
        f"<bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for k, (a, b, c, d) in OBJECTS
    )
    (folder / "Annotations" / "a.xml").write_text(
        f"<annotation>{objects}<object><name>alien</name><bndbox><xmin>1"
        "</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>"
    )


def coco(folder: pathlib.Path) -> None:
    picture(folder / "val" / "a.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 72, "name": "tv"}, {"id": 99, "name": "alien"}],
        "annotations": [
            {
                "image_id": 7,
                "category_id": {0: 1, 2: 72}[k],
                "bbox": [a, b, c - a, d - b],
                "area": 11,
                "iscrowd": k // 2,
            }
            for k, (a, b, c, d) in OBJECTS
        ]
        + [{"image_id": 7, "category_id": 99, "bbox": [0, 0, 1, 1]}],
    }
    (folder / "instances_val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("layout", "where", "notes"),
    [
        (yolo, "", None),
        (yolo, "images/val", None),
        (yolo, "images/val", "labels/val"),
        (voc, "", None),
        (coco, "instances_val.json", None),
        (coco, "val", "instances_val.json"),
    ],
)
def test_layouts(layout: Any, where: str, notes: str | None, tmp_path: pathlib.Path) -> None:
    layout(tmp_path)
    found = find_annotated(tmp_path / where, None if notes is None else tmp_path / notes, LABELS)
    assert len(found) == (2 if layout is yolo else 1)
    truth = found[0].truth((80, 100))
    assert truth.labels.tolist() == [k for k, _ in OBJECTS]
    np.testing.assert_allclose(truth.boxes, [box for _, box in OBJECTS], atol=1e-9)
    if layout is coco:
        assert truth.crowd is not None
        assert truth.areas is not None
        assert (truth.crowd.tolist(), truth.areas.tolist()) == ([False, True], [11, 11])
    if layout is voc:
        assert truth.difficult is not None
        assert truth.difficult.tolist() == [False, True]


def test_polygons_and_lists(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("1 0.1 0.5 0.4 0.2 0.3 0.9\n")
    truth = find_annotated(tmp_path, None, LABELS)[0].truth((100, 10))
    np.testing.assert_allclose(truth.boxes, [[10, 2, 40, 9]])
    items = [(np.zeros((5, 5, 3), np.uint8), {"boxes": [[0, 1, 2, 3]], "labels": ["aeroplane"], "crowd": [True]})]
    assert find_annotated(items, None, LABELS)[0].truth((5, 5)).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.txt", "9 0.5 0.5 0.1 0.1", FormatError, r"line 1: not an object: expected a class from 0 to 2"),
        ("a.txt", "0 0.5 0.5 0.1", FormatError, "line 1: not an object"),
        ("a.txt", "0 0.5 0.5 nan 0.1", FormatError, "line 1: not an object"),
        ("a.txt", "inf 0.5 0.5 0.2 0.1", FormatError, "line 1: not an object"),
        ("a.txt", "person", FormatError, "line 1: not an object"),
        ("a.xml", "<annotation><object>", FormatError, "is not XML"),
        ("a.xml", "<annotation><object><name>person</name></object></annotation>", FormatError, "has no box"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', UnsafeFileError, "defines entities"),
        ("a.json", "[1]", FormatError, "is not COCO's JSON"),
        ("a.json", '{"images": [], "categories": [], "annotations": []}', InputError, "knows no class"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "../x.jpg"}], '
            '"categories": [{"id": 1, "name": "tv"}], "annotations": []}',
            UnsafeFileError,
            "outside of its folder",
        ),
        ("a.csv", "", MissingFileError, "has annotations: expected such as .*a.txt"),
    ],
)
def test_bad_annotations(name: str, text: str, error: type[ZoonetError], message: str, tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        find_annotated(tmp_path / "a.json" if name == "a.json" else tmp_path, None, LABELS)[0].truth((80, 100))


def test_bad_data(tmp_path: pathlib.Path, digits: Any) -> None:
    with pytest.raises(MissingFileError, match="no such data"):
        find_annotated(tmp_path / "absent", None, LABELS)
    with pytest.raises(InputError, match="labels of a picture do not fit"):
        find_annotated([(np.zeros((5, 5)), {"boxes": [[0, 1, 2, 3]], "labels": ["alien"]})], None, LABELS)
    with pytest.raises(InputError, match="an item of the data is wrong"):
        find_annotated(["a.jpg"], None, LABELS)
    model = zoo.create("yolox_nano", classes=3, labels=LABELS)
    voc(tmp_path)
    strange = zoo.create("yolox_nano", labels=["red cell", "platelet"], seed=None)
    strange.task.preprocessing = type(strange.preprocessing)(size=(32, 32))
    with pytest.raises(InputError, match="no picture has an object of a class that the model knows: expected red cell"):
        strange.evaluate(tmp_path)
    with pytest.raises(ArgumentError, match="has no option 'colour'"):
        model.evaluate(tmp_path, colour=1)


@pytest.mark.parametrize(
    ("weights", "least"), [("yolox-nano/yolox_nano.onnx", 0.53), ("yolo-fastest/yolo-fastest-1.1-xl.weights", 0.53)]
)
def test_real_models(weights: str, least: float, assets: pathlib.Path, tmp_path: pathlib.Path, capfd: Any) -> None:
    """AP50 on the 27 photos, of which another evaluator said 0.534 and 0.536."""
    data = assets / "coco-permissive"
    if not (assets / weights).exists() or not data.exists():
        pytest.skip("weights or photos are absent")
    pytest.importorskip("matplotlib")
    curves, confusion = tmp_path / "curves.png", tmp_path / "confusion.png"
    labels = str(data / "object_detection" / "labels" / "val2017")
    pictures = ["--curves", str(curves), "--confusion", str(confusion)]
    named = ["--annotations", labels] if "yolox" in weights else []  # found where they are not named
    command = ["eval", str(assets / weights), str(data / "images" / "val2017"), *named, "--json"]
    status = main([*command, *pictures])
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["pictures"], result["objects"]) == (27, 173)
    assert result["metrics"]["AP50"] >= least
    assert next(row for row in result["classes"] if row["label"] == "person")["objects"] == 85
    assert curves.read_bytes()[:4] == confusion.read_bytes()[:4] == b"\x89PNG"
