"""Data and settings in the forms that people happen to have, and what is refused before any step is taken."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from train_data import shapes

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, FileError, InputError, MissingFileError, UnsupportedFormatError
from zoonet.zoo.cli import main
from zoonet.zoo.layers import Linear, Sequential
from zoonet.zoo.train.augment import Augmentation
from zoonet.zoo.train.data import open_data

QUIET: dict[str, Any] = {"progress": False, "run": False, "epochs": 1}


def test_prepared_arrays_are_measured_as_they_are(small: Any) -> None:
    x = np.random.default_rng(0).normal(size=(24, 3, 16, 16)).astype(np.float32)
    y = np.arange(24) % 2
    history = small().train((x, y), preprocessed=True, validation=(x[:6], y[:6]), **QUIET)
    assert history.skipped == []
    model = small(classes=2)
    result = model.evaluate((x, y), preprocessed=True)
    assert result.count == 24
    np.testing.assert_allclose(result["accuracy"], np.mean(np.asarray(model(x)).argmax(1) == y))


def test_one_hot_rows_are_classes(small: Any) -> None:
    x, y = shapes(24)
    losses = [
        small(classes=3).train((x, targets), seed=1, validation=None, **QUIET)["loss"]
        for targets in (y, np.eye(3)[y], np.eye(3, dtype=np.int64)[y])
    ]
    assert losses[0] == losses[1] == losses[2]


def test_whole_floats_and_columns_of_them_are_classes(small: Any) -> None:
    x, y = shapes(24)
    columns = (y, y.astype(np.float64), y.astype(np.float32)[:, None])
    losses = [small(classes=3).train((x, c), seed=1, validation=None, **QUIET)["loss"] for c in columns]
    assert losses[0] == losses[1] == losses[2]
    model = small(classes=3)
    assert model.evaluate((x, y.astype(np.float32)))["accuracy"] == model.evaluate((x, y))["accuracy"]


def test_rows_of_probabilities_are_soft_labels_as_torch_s(small: Any) -> None:
    x, y = shapes(24)
    soft = (0.7 * np.eye(3)[y] + 0.1).astype(np.float32)
    model = small(classes=3)
    scores = torch.from_numpy(np.asarray(model(np.stack([model.preprocessing(Image.fromarray(p)) for p in x]))))
    expected = float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(soft)))
    result = model.evaluate((x, soft))
    assert result["loss"] == pytest.approx(expected, rel=1e-5)
    assert result["accuracy"] == model.evaluate((x, y))["accuracy"]
    assert result.confusion.sum() == 24
    augment = Augmentation(mixup=0.4)
    history = small(classes=10).train((x, soft), batch=8, balance=True, augment=augment, **QUIET | {"epochs": 6})
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert 0 <= history.best["val_accuracy"] <= 1
    own = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]), {"w": np.zeros((3, 3), np.float32)})
    assert own.train((soft, soft), loss="cross_entropy", validation=None, **QUIET)["loss"][-1] < 1.1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.linspace(0, 1, 24), "numbers"),
        (np.full((24, 3), 0.5), "sum to 1"),
        (np.tile([1.5, -0.5, 0.0], (24, 1)), "from 0 to 1"),
        (np.arange(24.0) % 2 - 1, "from 0"),
    ],
)
def test_numbers_for_a_classifier_of_pictures_are_refused(small: Any, targets: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        small(classes=3).train((shapes(24)[0], targets), validation=None, **QUIET)
    assert "classes=1" in str(caught.value) or "classes from 0" in str(caught.value)


def test_a_network_of_pictures_is_trained_on_numbers_if_it_is_asked_for(small: Any) -> None:
    x, y = shapes(24)
    history = small(classes=1).train((x, y / 3 + 0.1), loss="mse", lr=0.003, **QUIET | {"epochs": 3})
    assert "val_rmse" in history.epochs[-1]
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_numbers_for_a_network_of_one_s_own_are_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    for y in (x @ [1.0, 2.0, 3.0], np.round(x @ [1.0, 2.0, 3.0]), x[:, :2] * 1.0):
        width = 1 if y.ndim == 1 else 2
        model = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]), {"w": np.zeros((3, width), np.float32)})
        history = model.train((x, y), lr=0.1, batch=16, **QUIET | {"epochs": 8})
        assert {"val_rmse", "val_r2"} <= set(history.epochs[-1])
        assert history.epochs[-1]["loss"] < 0.2 * history.epochs[0]["loss"]


def test_numbers_of_numpy_and_no_validation(small: Any) -> None:
    history = small().train(shapes(24), lr=np.float32(0.01), batch=np.int64(8), validation=0, **QUIET)
    assert [step["step"] for step in history.steps] == [1, 2, 3]
    assert history.epochs[0]["lr"] <= 0.011
    assert "val_loss" not in history.epochs[0]


def test_lists_of_pairs_and_by_class(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    files = {kind: sorted(map(str, (folder / kind).iterdir())) for kind in ("bar", "disc")}
    (tmp_path / "by_class.json").write_text(json.dumps(files))
    (tmp_path / "pairs.json").write_text(json.dumps([[f, kind] for kind, names in files.items() for f in names]))
    for name in ("by_class.json", "pairs.json"):
        data = open_data(tmp_path / name)
        assert [str(p) for p in data.inputs] == files["bar"] + files["disc"]
        assert data.counts() == {"bar": 16, "disc": 16}
    data = open_data([np.zeros((4, 3), np.float32), np.arange(4)])
    assert data.targets.tolist() == [0, 1, 2, 3]


def test_cells_of_several_lines(tmp_path: pathlib.Path) -> None:
    (tmp_path / "texts.csv").write_bytes(b'text,label\n"two\nlines",a\r\n"a\x0bb \xe2\x80\xa8c",b\n')
    data = open_data(tmp_path / "texts.csv")
    assert data.inputs == ["two\nlines", "a\x0bb \u2028c"]
    assert data.labels == ("a", "b")


def test_each_picture_left_out_is_told(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    for name in ("x", "y"):
        (tmp_path / "data" / "bar" / f"{name}.png").write_bytes(b"none")
    model = small()
    history = model.train(tmp_path / "data", **QUIET)
    assert len(history.skipped) == 2
    result = model.evaluate(tmp_path / "data")
    assert result.count == 48
    assert len(result.skipped) == 2
    assert "2 samples could not be read" in result.text()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"out": "m.xyz"}, UnsupportedFormatError, "m.xyz"),
        ({"out": "nowhere/m.safetensors"}, ArgumentError, "existing folder"),
        ({"out": "/proc/m.safetensors"}, FileError, "cannot be saved"),
        ({"metric": "recal"}, ArgumentError, "accuracy"),
        ({"validation": 5}, ArgumentError, "between 0 and 1"),
    ],
)
def test_told_before_any_step(given: Any, error: Any, text: str, small: Any, tmp_path: pathlib.Path) -> None:
    if not given.get("out", "/").startswith("/"):
        given = {"out": tmp_path / given["out"]}
    seen: list[Any] = []
    with pytest.raises(error, match=text):
        small().train(shapes(24), **{**QUIET, "progress": seen.append}, **given)
    assert not [record for record in seen if "step" in record]
    assert list(tmp_path.iterdir()) == []


def test_one_picture_of_many_kinds(tmp_path: pathlib.Path, small: Any) -> None:
    rng = np.random.default_rng(0)
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for number, mode in enumerate(("RGB", "L", "RGBA", "P", "CMYK", "1", "LA", "I;16")):
            array = rng.integers(0, 255, (9, 7 + number, 3), np.uint8)
            image = Image.fromarray(array[..., 0].astype(np.uint16)) if mode == "I;16" else Image.fromarray(array)
            image = image if mode == "I;16" else image.convert(mode)
            image.save(tmp_path / kind / f"{number}.{'tif' if mode == 'CMYK' else 'png'}")
        Image.new("RGB", (1, 1)).save(tmp_path / kind / "tiny.png")
    history = small().train(tmp_path, **QUIET)
    assert history.skipped == []


def test_parts_and_a_class_named_train(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    vehicles, parts = tmp_path / "vehicles", tmp_path / "parts"
    for name, kind in (("bus", "bar"), ("train", "disc")):
        shutil.copytree(folder / kind, vehicles / name)
        shutil.copytree(folder / kind, parts / "train" / name)
        (parts / "val" / name).mkdir(parents=True)
        shutil.copy(next((folder / kind).iterdir()), parts / "val" / name)
    assert open_data(vehicles).counts() == {"bus": 16, "train": 16}
    assert open_data(parts).counts() == {"bus": 16, "train": 16}
    model = small()
    model.train(parts, **QUIET)
    assert model.evaluate(parts).count == 2
    assert model.evaluate(vehicles).count == 32


def test_what_cannot_be_trained_leaves_the_model_alone(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rows = np.zeros((4, 3), np.float32)
    model = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]), {"w": np.zeros((3, 2), np.float32)})
    for call in (model.train, model.evaluate):
        with pytest.raises(InputError, match="arrays, and the data are files"):
            call(folder)
    with pytest.raises(ArgumentError, match="schedule"):
        model.train((rows, [0, 1, 0, 1]), schedule=lambda step: "x", **QUIET)
    (tmp_path / "list.csv").write_text("file,label\na.png,b\n")
    with pytest.raises(ArgumentError, match="columns is wrong"):
        open_data(tmp_path / "list.csv", columns="file")  # type: ignore[arg-type]
    assert main(["train", "digits", str(folder), "--plot", str(tmp_path / "no" / "c.png")]) == 2
    with pytest.raises(ArgumentError, match="detectors cannot be trained"):
        zoo.create("yolox_nano").train(folder, **QUIET)


class Tensor:
    """As those of other libraries, which are no arrays until they are asked."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def numpy(self) -> np.ndarray:
        return np.asarray(self.values)


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: [{"x": a, "y": b} for a, b in zip(x, y, strict=True)],
        lambda x, y: [{"Image": a, "label": int(b), "id": 1} for a, b in zip(x, y, strict=True)],
        lambda x, y: ((Tensor(a), Tensor(b)) for a, b in zip(x, y, strict=True)),
        lambda x, y: torch.utils.data.TensorDataset(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)),
        lambda x, y: (torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)),
    ],
)
def test_samples_of_other_libraries(form: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32), np.arange(6) % 3
    data = open_data(form(x, y))
    np.testing.assert_array_equal(np.stack(list(data.inputs)), x)
    np.testing.assert_array_equal(data.targets, y)


def test_mappings_by_their_keys() -> None:
    rows = [{"words": "good", "is": "yes"}, {"words": "bad", "is": "no"}]
    assert open_data(rows, columns=("words", "is")).labels == ("no", "yes")
    with pytest.raises(InputError, match=r"sample 0 lacks.*words, is"):
        open_data(rows)
    with pytest.raises(MissingFileError, match="no such data"):
        open_data("")


def test_one_hot_rows_for_a_graph_that_ends_in_a_softmax(tmp_path: pathlib.Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32), np.arange(40) % 3
    with zoo.initialised_by(0):
        network = Sequential(Linear(4, 3), lambda a: ops.softmax(a, 1))
    zoo.export(network, tmp_path / "net.onnx", x[:2])
    histories = [
        zoo.load(tmp_path / "net.onnx").train((x, targets), batch=8, **QUIET)
        for targets in (y, np.eye(3, dtype=np.float32)[y])
    ]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert "val_accuracy" in histories[1].columns


@pytest.mark.parametrize(
    "given", [{"freeze": 5}, {"metric": 5}, {"balance": "yes"}, {"preprocessed": 1}, {"progress": "x"}, {"run": 5}]
)
def test_settings_of_a_wrong_type(given: Any, small: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(given))} is wrong"):
        small().train(shapes(12), **{**QUIET, **given})


def test_the_area_under_the_curve_can_decide(small: Any) -> None:
    from sklearn.metrics import roc_auc_score

    x, y = shapes(24)
    model = small(classes=3)
    history = model.train((x, y), validation=(x, y), metric="auc", **QUIET)
    scores = np.stack([result.scores for result in model.run(list(x))])
    assert history["val_auc"][0] == pytest.approx(roc_auc_score(y, scores, multi_class="ovr"), abs=1e-6)
