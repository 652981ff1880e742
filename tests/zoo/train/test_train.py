"""`model.train` and `model.evaluate` from end to end."""

from __future__ import annotations

import csv
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from train_data import shapes

from zoonet import formats, zoo
from zoonet.ops.errors import ArgumentError, FileError, FormatError, InputError, MissingFileError, TrainingError
from zoonet.zoo.cli import main
from zoonet.zoo.layers import BatchNorm2d

QUIET: dict[str, Any] = {"progress": False}


def state(model: zoo.Model) -> dict[str, np.ndarray]:
    return {name: np.array(a) for name, a in model.network.state_dict().items()}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return list(first) == list(second) and all(np.array_equal(first[n], second[n]) for n in first)


def test_the_line(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    model = small()
    out = tmp_path / "shapes.safetensors"
    history = model.train(folder, epochs=12, batch=8, lr=0.05, out=out, run=tmp_path / "run", **QUIET)
    assert model.labels == ("bar", "cross", "disc")
    assert max(history["val_accuracy"]) >= 0.8
    assert history.best["val_accuracy"] == max(history["val_accuracy"])
    loaded = zoo.load(out)
    picture = folder / "disc" / "0.png"
    assert loaded.labels == model.labels
    assert loaded.run(picture).scores == pytest.approx(model.run(picture).scores, abs=1e-6)
    assert same(state(loaded), state(zoo.load(tmp_path / "run" / "best.safetensors")))
    assert "accuracy" in loaded.card.notes or "%" in loaded.card.accuracy
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [float(r["val_accuracy"]) for r in rows] == pytest.approx(history["val_accuracy"])
    assert [json.loads(r)["loss"] for r in (tmp_path / "run" / "metrics.jsonl").open()] == history["loss"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["optimizer"]["kind"] == "SGD"
    assert config["data"]["classes"] == {"bar": 16, "cross": 16, "disc": 16}
    assert config["environment"]["numpy"] == np.__version__
    result = loaded.evaluate(folder)
    assert result["accuracy"] >= 0.8
    assert result.confusion.sum() == 48
    assert sum(row["count"] for row in result.table) == 48
    assert len(result.mistakes) == round(48 * (1 - result["accuracy"]))
    assert "disc" in result.text()


def test_a_broken_run_goes_on_bit_for_bit(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    """Killed with SIGKILL at any time, in a process of its own."""
    options = {
        "epochs": 4,
        "batch": 8,
        "augment": "strong",
        "ema": 0.9,
        "save_every": 1,
        "accumulate": 2,
        "optimizer": "adamw",
    }
    whole = small()
    expected = whole.train(folder, run=tmp_path / "whole", **options, **QUIET)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from zoonet import zoo\n"
        "p = zoo.ImagePreprocessing(resize=(16, 16), crop=None)\n"
        'm = zoo.create("resnet20", seed=0, classes=10, width=4, preprocessing=p)\n'
        f"m.train({str(folder)!r}, run={str(tmp_path / 'broken')!r}, progress=print, **{options!r},"
        ' resume="resume" in sys.argv)\n'
        f"m.save({str(tmp_path / 'broken.safetensors')!r})\n"
    )
    records = 0
    for attempt in range(3):
        arguments = [sys.executable, "-u", str(script), *(["resume"] if attempt else [])]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in process.stdout:
            records += 1
            if attempt < 2 and records in (4, 9):
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        process.wait()
    assert process.returncode == 0
    found = zoo.load(tmp_path / "broken.safetensors")
    assert same(state(found), state(whole))
    steps = [(tmp_path / name / "steps.csv").read_text() for name in ("whole", "broken")]
    assert steps[0] == steps[1]
    assert len(expected.steps) == len(steps[1].splitlines()) - 1


def test_ctrl_c_saves_first(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record.get("step") == 3:
            os.kill(os.getpid(), signal.SIGINT)

    options = {"epochs": 2, "batch": 8}
    before = signal.getsignal(signal.SIGINT)
    model = small()
    with pytest.raises(KeyboardInterrupt):
        model.train(folder, run=tmp_path / "run", progress=interrupt, **options)
    assert signal.getsignal(signal.SIGINT) is before
    resumed, whole = small(), small()
    history = resumed.train(folder, run=tmp_path / "run", resume=True, **options, **QUIET)
    expected = whole.train(folder, run=False, **options, **QUIET)
    assert [s["loss"] for s in history.steps] == [s["loss"] for s in expected.steps]
    assert same(state(resumed), state(whole))


def test_a_full_disk_loses_nothing(
    folder: pathlib.Path, small: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"epochs": 2, "batch": 8, "save_every": 1, "run": tmp_path / "run"}

    def fill(record: dict[str, Any]) -> None:
        if record.get("step") == 4:

            def full(_descriptor: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(FileError, match="No space left"):
        small().train(folder, progress=fill, **options)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint.safetensors", "config.json"]
    (tmp_path / "run" / ".checkpoint.safetensors.abcdefgh.tmp").write_bytes(b"cut off by a kill")
    resumed, whole = small(), small()
    resumed.train(folder, resume=True, **options, **QUIET)
    assert not list((tmp_path / "run").glob(".*"))
    whole.train(folder, **{**options, "run": False}, **QUIET)
    assert same(state(resumed), state(whole))


def test_threads_and_seeds(folder: pathlib.Path, small: Any) -> None:
    options = {"epochs": 2, "batch": 8, "augment": "standard", "run": False, **QUIET}
    models = [small() for _ in range(4)]
    for model, workers, seed in zip(models, (0, 1, 5, 2), (0, 0, 0, 1), strict=True):
        model.train(folder, workers=workers, seed=seed, **options)
    assert same(state(models[0]), state(models[1]))
    assert same(state(models[0]), state(models[2]))
    assert not same(state(models[0]), state(models[3]))


def test_frozen_backbone_and_new_head(folder: pathlib.Path, small: Any) -> None:
    model = small()
    before = state(model)
    model.train(folder, epochs=1, batch=8, freeze="backbone", run=False, **QUIET)
    after = state(model)
    assert after["linear.weight"].shape == (3, before["linear.weight"].shape[1])
    assert all(np.array_equal(after[n], before[n]) for n in before if not n.startswith("linear"))
    model.train(folder, epochs=1, batch=8, freeze=["conv1", "layer1.*"], run=False, **QUIET)
    kept = [n for n in before if n.startswith(("conv1", "layer1")) and "num_batches" not in n]
    assert all(np.array_equal(state(model)[n], before[n]) for n in kept)
    assert not np.array_equal(state(model)["layer2.0.conv1.weight"], before["layer2.0.conv1.weight"])
    assert all(not m.training for _, m in model.network.named_modules() if isinstance(m, BatchNorm2d))


def test_same_classes_keep_the_head(folder: pathlib.Path, small: Any) -> None:
    model = small()
    model.train(folder, epochs=1, batch=8, run=False, lr=1e-9, **QUIET)
    before = state(model)["linear.weight"]
    model.train(folder, epochs=1, batch=8, run=False, lr=1e-9, **QUIET)
    np.testing.assert_allclose(state(model)["linear.weight"], before, atol=1e-5)
    model.train(folder, epochs=1, batch=8, run=False, lr=1e-9, head="new", seed=5, **QUIET)
    assert np.abs(state(model)["linear.weight"] - before).max() > 1e-2


def test_nan_says_where_and_keeps_the_checkpoint(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    model = small()
    with pytest.raises(TrainingError, match=r"step \d+ \(epoch \d+\).*the (output of the layer|gradient of)") as caught:
        model.train(folder, epochs=3, batch=8, lr=1e30, warm_up=0, save_every=1, run=tmp_path / "run", **QUIET)
    assert str(tmp_path / "run") in str(caught.value)
    kept = formats.read(tmp_path / "run" / "checkpoint.safetensors")
    assert all(np.isfinite(np.asarray(t.load(), float)).all() for n, t in kept.items() if n.startswith("weights/"))
    with pytest.raises(TrainingError, match="the loss is") as caught:
        small().train(folder, epochs=3, batch=8, lr=1e30, warm_up=0, run=False, **QUIET)
    assert "last good" not in str(caught.value)


def test_early_stopping_plateau_and_found_rate(folder: pathlib.Path, small: Any) -> None:
    history = small().train(
        folder, epochs=30, batch=8, lr=1e-7, patience=2, schedule="plateau", metric="loss", run=False, **QUIET
    )
    assert len(history) < 30
    assert "loss" in history.stopped
    model = small()
    history = model.train(folder, epochs=1, batch=8, lr="auto", schedule="constant", warm_up=0, run=False, **QUIET)
    assert 1e-4 < history["lr"][0] < 0.5


def test_command_line(folder: pathlib.Path, tmp_path: pathlib.Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "digits.safetensors"
    start = tmp_path / "start.safetensors"
    zoo.create("resnet20", preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None)).save(start)
    assert main(["train", str(start), str(folder), "--epochs", "1", "--batch", "8", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "val_accuracy" in printed.out
    assert "epoch 1/1: loss" in printed.err
    assert (tmp_path / "runs" / "resnet20-1" / "best.safetensors").exists()
    confusion, mistakes = tmp_path / "confusion.png", tmp_path / "mistakes.png"
    pytest.importorskip("matplotlib")
    arguments = ["eval", str(out), str(folder), "--json", "--confusion", str(confusion), "--mistakes", str(mistakes)]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 48
    assert Image.open(confusion).size[0] > 100
    assert main(["train", str(start), str(folder), "--lr", "-1"]) == 2
    assert "lr is wrong" in capsys.readouterr().err


def test_every_setting_of_the_command_line(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    start, run = tmp_path / "start.safetensors", tmp_path / "run"
    zoo.create("resnet20", preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None)).save(start)
    numbers = {"epochs": 1, "batch": 4, "lr": 0.01, "warm_up": 0.5, "weight_decay": 0.001, "backbone_lr": 0.1}
    numbers |= {"label_smoothing": 0.2, "accumulate": 2, "clip": 3.0, "save_every": 2, "patience": 3, "ema": 0.9}
    words = {"schedule": "linear", "head": "new", "loss": "cross_entropy", "metric": "loss", "corrupt": "raise"}
    said: dict[str, Any] = {**numbers, **words, "balance": True, "augment": "light", "seed": 7, "workers": 1}
    options = [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in said.items()]
    assert main(["train", str(start), str(folder), "--run", str(run), *options]) == 0
    kept = json.loads((run / "config.json").read_text())["settings"]
    assert {key: kept[key] for key in said} == said


def test_bad_input(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "disc").mkdir(parents=True)
    picture = folder / "disc" / "0.png"
    for number in range(3):
        (tmp_path / "one" / "disc" / f"{number}.png").write_bytes(picture.read_bytes())
    for kind in ("a", "b"):
        (tmp_path / "corrupt" / kind).mkdir(parents=True)
        (tmp_path / "corrupt" / kind / "x.png").write_bytes(b"no picture")
    (tmp_path / "list.csv").write_text("picture,kind\na.png,1\n")
    (tmp_path / "gone.csv").write_text("file,label\na.png,1\nb.png,2\n")
    (tmp_path / "file").write_text("")
    x, y = shapes(9)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (tmp_path / "none", {}, MissingFileError, "no such data"),
        (tmp_path / "empty", {}, InputError, "no classes"),
        (tmp_path / "one", {}, InputError, "one class only"),
        (tmp_path / "corrupt", {}, FormatError, "2 of 2 pictures"),
        (tmp_path / "list.csv", {}, InputError, "no column of labels"),
        (tmp_path / "gone.csv", {}, MissingFileError, "2 files that cannot be found"),
        (tmp_path / "list.csv", {"columns": ("picture", "label")}, InputError, "no column 'label'"),
        (folder, {"lr": 0}, ArgumentError, "lr is wrong"),
        (folder, {"lr": -1.0}, ArgumentError, "lr is wrong"),
        (folder, {"epochs": 0}, ArgumentError, "epochs is wrong"),
        (folder, {"batch": 1000}, ArgumentError, "larger than the data"),
        (folder, {"epoch": 3}, ArgumentError, "did you mean epochs"),
        (folder, {"augment": "much"}, ArgumentError, "augment"),
        (folder, {"freeze": "nothing.*"}, ArgumentError, "freeze fits no parameter"),
        (folder, {"validation": 1.5}, ArgumentError, "share"),
        (folder, {"run": tmp_path / "file"}, FileError, "cannot be written"),
        (folder, {"run": tmp_path / "new", "resume": True}, MissingFileError, "no checkpoint"),
        (folder, {"out": tmp_path / "no" / "x.safetensors"}, ArgumentError, "cannot be saved there"),
        (folder, {"metric": "precisoin"}, ArgumentError, "no such metric"),
        ((x, y[:-1]), {}, InputError, "differ in number"),
        ((x, y + 0.5), {}, InputError, "classes"),
        ((x, np.zeros(9, np.int64)), {}, InputError, "one class only"),
        ((x, y - 1), {}, InputError, "negative"),
        ((x, [None] * 9), {}, InputError, "wrong type"),
        ((x, y * 10**9), {}, InputError, "not numbered from 0"),
        (x, {}, InputError, "no targets"),
        ([], {}, InputError, "nothing to train on"),
        ([(x[0], 1), x[1]], {}, InputError, "not a pair"),
    ]
    for source, options, error, message in cases:
        with pytest.raises(error, match=message):
            small().train(source, **{"run": False, **QUIET, "epochs": 1, **options})
    with pytest.raises(InputError, match="cross"):
        small().evaluate(folder)


def test_resume_with_another_model_or_data(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    options = {"batch": 8, "run": run, **QUIET}
    small().train(folder, epochs=1, **options)
    with pytest.raises(ArgumentError, match="holds a run already"):
        small().train(folder, epochs=1, **options)
    with pytest.raises(ArgumentError, match="other data"):
        small().train(shapes(12), epochs=1, resume=True, **options)
    with pytest.raises(ArgumentError, match=r"other settings.*seed"):
        small().train(folder, epochs=1, resume=True, seed=3, **options)
    other = zoo.create("resnet32", preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None))
    with pytest.raises(Exception, match="another model"):
        other.train(folder, epochs=1, resume=True, **options)
    assert len(small().train(folder, epochs=2, resume=True, **options)) == 2


def test_a_changed_picture_of_the_same_size_is_other_data(
    folder: pathlib.Path, small: Any, tmp_path: pathlib.Path
) -> None:
    for path in folder.glob("*/*.png"):
        target = tmp_path / "data" / path.parent.name / f"{path.stem}.bmp"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)
    options = {"batch": 8, "run": tmp_path / "run", **QUIET}
    small().train(tmp_path / "data", epochs=1, **options)
    size = target.stat().st_size
    Image.new("RGB", Image.open(target).size, "red").save(target)
    assert target.stat().st_size == size
    with pytest.raises(ArgumentError, match="other data"):
        small().train(tmp_path / "data", epochs=2, resume=True, **options)


def test_what_is_refused_leaves_no_folder_behind(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ArgumentError, match="freeze fits no"):
        small().train(folder, run=tmp_path / "runs" / "one", freeze="nothing", **QUIET)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(ArgumentError, match="freeze fits no"):
        small().train(folder, run=tmp_path / "kept", freeze="nothing", **QUIET)
    assert (tmp_path / "kept").is_dir()


@pytest.mark.parametrize("command", [["train", "--plot"], ["eval", "--confusion"], ["eval", "--mistakes"]])
def test_a_picture_that_cannot_be_drawn_is_said_first(
    command: list[str], folder: pathlib.Path, tmp_path: pathlib.Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command[0], "digits", str(folder), command[1], "curves.foo"]) == 2
    assert "no picture can be drawn with this ending" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_cannot_be_read_are_left_out(folder: pathlib.Path, small: Any, tmp_path: pathlib.Path) -> None:
    data = tmp_path / "data"
    for path in sorted(folder.rglob("*.png"))[::2]:
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(path.read_bytes())
    (data / "disc" / "bad.png").write_bytes(b"no picture")
    cut = (folder / "bar" / "1.png").read_bytes()
    (data / "bar" / "cut.png").write_bytes(cut[: len(cut) // 2])
    history = small().train(data, epochs=1, batch=8, run=False, validation=None, **QUIET)
    assert len(history.skipped) == 2
    assert "bad.png" in history.skipped[0]
    assert "cut.png" in history.skipped[1]
    assert small().train(data, epochs=1, batch=8, run=False, **QUIET)["loss"]
    with pytest.raises(FormatError, match=r"bad\.png"):
        small().train(data, epochs=1, corrupt="raise", run=False, **QUIET)
    (data / "disc" / "bad.png").unlink()
    with pytest.raises(FormatError, match=r"cut\.png"):
        small().train(data, epochs=1, corrupt="raise", run=False, **QUIET)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_sixteen_bits(folder: pathlib.Path, small: Any, precision: str) -> None:
    model = small()
    history = model.train(folder, epochs=6, batch=8, lr=0.05, precision=precision, run=False, **QUIET)
    plain = small().train(folder, epochs=6, batch=8, lr=0.05, run=False, **QUIET)
    assert {a.dtype for _, a in model.network.named_parameters()} == {np.dtype(np.float32)}
    assert history["loss"] != plain["loss"]
    np.testing.assert_allclose(history["loss"][0], plain["loss"][0], rtol=0.05)
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_curves(tmp_path: pathlib.Path, folder: pathlib.Path, small: Any) -> None:
    pytest.importorskip("matplotlib")
    history = small().train(folder, epochs=2, batch=8, run=False, **QUIET)
    history.plot(tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 500
    with pytest.raises(ArgumentError, match="val_accuracy"):
        history["accuracy"]
    assert "val_accuracy" in repr(history)
