"""Exported detectors of many conventions: recognised by metadata and outputs, decoded as their families define."""

from __future__ import annotations

import pathlib
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from zoonet import zoo
from zoonet.ops.errors import FormatError, InputError
from zoonet.zoo.cli import main

RNG = np.random.default_rng(0)
PICTURE = np.zeros((96, 96, 3), np.uint8)
CELLS = 12 * 12 + 6 * 6 + 3 * 3  # of an input of 96 pixels at strides 8, 16, 32


def export(
    path: pathlib.Path,
    outputs: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
    size: Any = 96,
    more: Any = (),
) -> pathlib.Path:
    """A graph whose outputs are constants (plus 0 times the input, so that it depends on it)."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["nothing"]),
    ]
    constants = {"zero": np.zeros((), np.float32)}
    for name, value in outputs.items():
        constants[f"{name}.value"] = value
        kind = TensorProto.FLOAT if value.dtype == np.float32 else TensorProto.INT64
        nodes += [
            helper.make_node("Cast", ["nothing"], [f"{name}.zero"], to=kind),
            helper.make_node("Add", [f"{name}.value", f"{name}.zero"], [name]),
        ]
    nodes += [helper.make_node(op, ["nothing"], [f"unused.{op}"]) for op in more]
    dims: list[Any] = [1, 3, size, size]
    infos = [
        helper.make_tensor_value_info(
            n, TensorProto.FLOAT if v.dtype == np.float32 else TensorProto.INT64, list(v.shape)
        )
        for n, v in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, dims)],
        infos,
        [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def rows(count: int, numbers: int) -> np.ndarray:
    """Nothing anywhere but in row 3: a box of 20×10 at (30, 40), class 1."""
    value = np.zeros((1, count, numbers), np.float32)
    value[0, 3, :4] = 30, 40, 20, 10
    return value


BOX = [20, 35, 40, 45]


def only(found: Any, label: int = 1, score: float = 0.8, rel: float = 1e-5) -> None:
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes, [BOX], atol=1e-4)
    assert found.labels.tolist() == [label]
    assert found.scores[0] == pytest.approx(score, rel=rel)


def test_yolov5_by_metadata(tmp_path: pathlib.Path) -> None:
    value = rows(3 * CELLS, 5 + 3)
    value[0, 3, 4:] = 0.9, 0.1, 0.8, 0.0
    metadata = {"stride": "32", "names": "{0: 'cat', 1: 'dog', 2: 'hen'}"}
    model = zoo.load(export(tmp_path / "v5.onnx", {"output0": value}, metadata))
    assert model.labels == ("cat", "dog", "hen")
    assert (model.preprocessing.pad, model.preprocessing.channels, model.preprocessing.center) == (114, "RGB", True)
    only(model.run(PICTURE), score=0.72)


V8 = {"stride": "32", "task": "detect", "imgsz": "[96, 96]", "names": "{0: 'cat', 1: 'dog', 2: 'hen'}"}


def test_yolov8_by_metadata_with_its_licence(tmp_path: pathlib.Path, capfd: Any) -> None:
    value = rows(CELLS, 4 + 3)
    value[0, 3, 4:] = 0.1, 0.8, 0.0
    turned = np.ascontiguousarray(value.transpose(0, 2, 1))
    licence = {"license": "AGPL-3.0 License (https://ultralytics.com/license)"}
    path = export(tmp_path / "v8.onnx", {"output0": turned}, V8 | licence)
    with pytest.warns(UserWarning, match=r"v8\.onnx says of itself that it is under AGPL-3\.0"):
        model = zoo.load(path)
    assert model.card.licence.startswith("AGPL-3.0")
    only(model.run(PICTURE))
    np.save(tmp_path / "p.npy", PICTURE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["run", str(path), str(tmp_path)]) == 2  # a folder without pictures
    assert "holds no pictures" in capfd.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.load(export(tmp_path / "own.onnx", {"output0": turned}, V8 | {"license": "MIT"}))


@pytest.mark.parametrize(
    ("task", "more", "extra"),
    [
        ("segment", 32, {}),
        ("pose", 6, {"kpt_shape": "[2, 3]"}),
        ("pose", 51, {}),
        ("obb", 1, None),
        ("classify", 0, None),
    ],
)
def test_yolov8_of_other_tasks_gives_its_boxes_or_is_refused(
    task: str, more: int, extra: dict[str, str] | None, tmp_path: pathlib.Path
) -> None:
    """What follows the scores, coefficients of masks or points, is not taken for scores of further classes."""
    value = rows(CELLS, 4 + 2 + more)
    value[0, 3, 5], value[0, 3, 6:] = 0.75, 0.9
    metadata = {"names": "{0: 'cat', 1: 'hen'}", "stride": "32", "task": task, **(extra or {})}
    path = export(tmp_path / "a.onnx", {"output0": value.transpose(0, 2, 1).copy()}, metadata)
    if extra is None:
        assert zoo.load(path).task.name == "arrays"
        with pytest.raises(FormatError, match="are not those of a detector"):
            zoo.load(path, task="detection")
        return
    found = zoo.load(path).run(PICTURE)
    assert [(d.name, round(d.score, 2)) for d in found] == [("hen", 0.75)]
    np.testing.assert_allclose(found.boxes, [[20, 35, 40, 45]], atol=1e-4)


def test_dynamic_sizes_come_from_metadata(tmp_path: pathlib.Path) -> None:
    value = np.zeros((1, 7, CELLS), np.float32)
    model = zoo.load(export(tmp_path / "v8.onnx", {"output0": value}, V8 | {"imgsz": "[96, 192]"}, size="n"))
    assert model.preprocessing.size == (96, 192)
    assert len(model.run(PICTURE)) == 0


def test_boxes_that_the_graph_has_suppressed(tmp_path: pathlib.Path) -> None:
    value = np.zeros((1, 300, 6), np.float32)
    value[0, :2] = [[*BOX, 0.8, 1], [*BOX, 0.7, 1]]
    model = zoo.load(export(tmp_path / "v10.onnx", {"output0": value}, V8))
    assert [d.name for d in model.run(PICTURE)] == ["dog", "dog"]


@pytest.mark.parametrize("decoded", [False, True])
def test_yolox_by_outputs(decoded: bool, tmp_path: pathlib.Path) -> None:
    """In units of a cell and logarithms, or, where the graph has an exponential, in pixels."""
    value = rows(CELLS, 5 + 3)
    if not decoded:
        value[0, 3, :4] = 30 / 8 - 3, 40 / 8, np.log(20 / 8), np.log(10 / 8)  # row 3 is column 3 of row 0
    value[0, 3, 4:] = 1.0, 0.1, 0.8, 0.0
    model = zoo.load(export(tmp_path / "x.onnx", {"output": value}, more=["Exp"] if decoded else []))
    assert (model.preprocessing.channels, model.preprocessing.scale, model.preprocessing.center) == ("BGR", 1.0, False)
    assert model.labels == ("class 0", "class 1", "class 2")
    only(model.run(PICTURE))
    named = zoo.load(tmp_path / "x.onnx", labels=["a", "b", "c"])
    assert named.run(PICTURE)[0].name == "b"


def test_yolov8_by_outputs(tmp_path: pathlib.Path) -> None:
    value = np.zeros((1, 4 + 80, CELLS), np.float32)
    value[0, :4, 3], value[0, 4 + 16, 3] = [30, 40, 20, 10], 0.8
    only(found := zoo.load(export(tmp_path / "m.onnx", {"o": value})).run(PICTURE), label=16)
    assert found[0].name == "dog"


def test_scores_and_boxes_in_fractions(tmp_path: pathlib.Path) -> None:
    scores, boxes = np.zeros((1, 50, 4), np.float32), np.zeros((1, 50, 4), np.float32)
    scores[0, :, 0], boxes[0, 7] = 1, np.array(BOX) / 96
    scores[0, 7] = 0.1, 0.1, 0.8, 0
    only(zoo.load(export(tmp_path / "s.onnx", {"boxes": boxes, "scores": scores})).run(PICTURE))


@pytest.mark.parametrize("classes", [3, 92])
def test_queries(classes: int, tmp_path: pathlib.Path) -> None:
    """RT-DETR's logits have a sigmoid each; DETR's 92 a softmax, whose last is no object."""
    logits, boxes = np.full((1, 5, classes), -9, np.float32), np.full((1, 5, 4), 0.5, np.float32)
    boxes[0, 2] = 30 / 96, 40 / 96, 20 / 96, 10 / 96
    if classes == 3:
        logits[0, 2, 1] = np.log(0.8 / 0.2)
    else:
        logits[0, :, 91] = 0
        logits[0, 2, [18, 91]] = np.log(0.8), np.log(0.2)
    model = zoo.load(export(tmp_path / "q.onnx", {"logits": logits, "pred_boxes": boxes}))
    found = model.run(PICTURE)
    only(found, label=1 if classes == 3 else 18, rel=0.02)
    assert classes == 3 or found[0].name == "dog"


def test_torchvision_exports(tmp_path: pathlib.Path) -> None:
    outputs = {
        "boxes": np.array([BOX], np.float32),
        "labels": np.array([18]),
        "scores": np.array([0.8], np.float32),
    }
    found = zoo.load(export(tmp_path / "t.onnx", outputs)).run(PICTURE)
    only(found, label=17)
    assert found[0].name == "dog"


def test_what_is_no_detector(tmp_path: pathlib.Path, capfd: Any) -> None:
    path = export(tmp_path / "c.onnx", {"scores": np.zeros((1, 1000), np.float32)})
    assert zoo.load(path).task.name == "arrays"
    for name in ("detection", "object-detection"):
        with pytest.raises(FormatError, match=r"outputs of c\.onnx are not those of.*scores: float32\[1, 1000\]"):
            zoo.load(path, task=name)
    detector = export(tmp_path / "d.onnx", {"o": np.zeros((1, 84, CELLS), np.float32)})
    assert zoo.load(detector, task="arrays").task.name == "arrays"
    assert main(["show", str(detector)]) == 0
    assert "object-detection" in capfd.readouterr().out


def test_a_decoder_of_ones_own(tmp_path: pathlib.Path) -> None:
    from zoonet.zoo.detection.candidates import Candidates

    class Own:
        classes = 2

        def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
            return [Candidates(np.array([BOX], np.float32), np.array([[0, 0.8]], np.float32))]

    path = export(tmp_path / "o.onnx", {"strange": np.zeros((1, 2, 3, 4), np.float32)})
    only(zoo.load(path, task="detection", decoder=Own(), labels=["a", "b"]).run(PICTURE))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: 'a', 1: 'b', 2: 'c'}", ("a", "b", "c")),
        ("['a', 'b', 'c']", ("a", "b", "c")),
        ("{0: 'a', 7: 'b', 2: 'c'}", None),
        ("__import__('os').system('true')", None),
        ("(" * 10_000, None),
    ],
)
def test_names_are_literals(names: str, expected: Any, tmp_path: pathlib.Path) -> None:
    value = np.zeros((1, 7, CELLS), np.float32)
    model = zoo.load(export(tmp_path / "m.onnx", {"o": value}, {"stride": "32", "names": names}))
    assert model.labels == expected if expected else model.task.name in ("arrays", "object-detection")


def test_scores_that_are_not_numbers(tmp_path: pathlib.Path) -> None:
    value = np.full((1, 84, CELLS), np.nan, np.float32)
    with pytest.raises(InputError, match="scores that are not numbers for array"):
        zoo.load(export(tmp_path / "m.onnx", {"o": value})).run(PICTURE)


def test_hostile_metadata(tmp_path: pathlib.Path) -> None:
    """Entries of a configuration of ours are none of an ONNX file's metadata."""
    value = np.zeros((1, 84, CELLS), np.float32)
    metadata = {"preprocessing": "{'size': 9}", "labels": "[1]", "conf": "2", "iou": "nan", "imgsz": "9" * 5000}
    model = zoo.load(export(tmp_path / "m.onnx", {"o": value}, metadata))
    assert (len(model.labels), model.task.conf) == (80, 0.25)


@pytest.mark.parametrize("declared", [3 * CELLS, "anchors"])
def test_yolov5_of_one_class_is_not_taken_for_finished_boxes(tmp_path: pathlib.Path, declared: Any) -> None:
    value = rows(3 * CELLS, 6)
    value[0, 3, 4:] = 0.8, 1.0
    path = export(tmp_path / "v5.onnx", {"output0": value}, {"stride": "32", "names": "{0: 'cat'}"})
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].CopyFrom(
        onnx.TensorShapeProto.Dimension(**{"dim_param" if isinstance(declared, str) else "dim_value": declared})
    )
    onnx.save(model, path)
    only(zoo.load(path).run(PICTURE), label=0)


def test_yolov5_with_the_maps_of_its_head_beside(tmp_path: pathlib.Path) -> None:
    value = rows(3 * CELLS, 5 + 3)
    value[0, 3, 4:] = 0.9, 0.1, 0.8, 0.0
    maps = {f"map{n}": np.zeros((1, 3, n, n, 8), np.float32) for n in (12, 6, 3)}
    only(zoo.load(export(tmp_path / "v5.onnx", {"output": value, **maps})).run(PICTURE), score=0.72)
