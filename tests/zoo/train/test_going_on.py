"""Runs that are broken off go on bit for bit, and what is refused leaves no trace."""

from __future__ import annotations

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

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.layers import Linear, Sequential
from zoonet.zoo.train.data import Data, fingerprint

QUIET: dict[str, Any] = {"progress": False}


def state(model: zoo.Model) -> dict[str, np.ndarray]:
    return {name: np.array(a) for name, a in model.network.state_dict().items()}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return list(first) == list(second) and all(np.array_equal(first[n], second[n]) for n in first)


class Killed(BaseException):
    """In the place of SIGKILL: nothing of zoonet's catches it."""


def killed_at(step: int) -> Any:
    def watch(record: dict[str, Any]) -> None:
        if record.get("step") == step:
            raise Killed

    return watch


@pytest.mark.parametrize(("batch", "accumulate", "workers"), [(1, 1, 2), (2, 3, 0)])
def test_batches_that_cannot_be_read_keep_their_places(
    folder: pathlib.Path, small: Any, tmp_path: pathlib.Path, batch: int, accumulate: int, workers: int
) -> None:
    """Pictures that break while they are decoded leave whole batches out; the run goes on after the right ones."""
    data = tmp_path / "data"
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        content = path.read_bytes()
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(content[: len(content) // 2] if number % 3 else content)
    options = {"epochs": 2, "batch": batch, "accumulate": accumulate, "workers": workers, "augment": "shift"}
    options |= {"save_every": 1, "validation": None}
    whole = small()
    expected = whole.train(data, run=False, **options, **QUIET)
    assert len(expected.skipped) == 32
    for step in (3, 7):
        with pytest.raises(Killed):
            small().train(data, run=tmp_path / "run", progress=killed_at(step), resume=step > 3, **options)
    resumed = small()
    history = resumed.train(data, run=tmp_path / "run", resume=True, **options, **QUIET)
    assert history.steps == expected.steps
    assert same(state(resumed), state(whole))


def test_a_run_that_is_killed_in_its_first_step_goes_on(tmp_path: pathlib.Path) -> None:
    """With the settings that are usual, long before a checkpoint is due."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from zoonet import ops, zoo\n"
        "def f(p, x): return x @ p['w']\n"
        "m = zoo.wrap(f, {'w': np.ones((3, 2), np.float32)})\n"
        "x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)\n"
        "def kill(record):\n"
        "    if 'resume' not in sys.argv: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"m.train((x, x[:, 0] > 0), batch=8, epochs=2, run={str(tmp_path / 'run')!r}, progress=kill,"
        " resume='resume' in sys.argv)\n"
        f"np.save({str(tmp_path / 'w.npy')!r}, m.network.weights['w'])\n"
    )
    assert subprocess.run([sys.executable, str(script)], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    assert subprocess.run([sys.executable, str(script), "resume"], check=False).returncode == 0
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    model = zoo.wrap(lambda p, x: x @ p["w"], {"w": np.ones((3, 2), np.float32)})
    model.train((x, x[:, 0] > 0), batch=8, epochs=2, run=False, **QUIET)
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), model.network.weights["w"])  # type: ignore[attr-defined]


def test_a_run_that_was_killed_before_it_saved_anything_begins_anew(
    folder: pathlib.Path, small: Any, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    whole, resumed = small(), small()
    whole.train(folder, epochs=1, batch=8, run=False, **QUIET)
    resumed.train(folder, epochs=1, batch=8, run=run, resume=True, **QUIET)
    assert same(state(resumed), state(whole))


def test_ctrl_c_while_measuring(small: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops at once; the epoch's steps are kept, and measured when the run goes on."""
    from zoonet.zoo.train.trainer import Trainer

    options: dict[str, Any] = {"epochs": 2, "batch": 8, "ema": 0.9, "validation": shapes(40)}
    calls: list[int] = []
    forward = Trainer._forward

    def interrupt(self: Trainer, inputs: Any) -> Any:
        calls.append(len(inputs))
        os.kill(os.getpid(), signal.SIGINT)
        return forward(self, inputs)

    monkeypatch.setattr(Trainer, "_forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small().train(shapes(48), run=tmp_path / "run", **options, **QUIET)
    assert calls == [8]
    monkeypatch.undo()
    whole, resumed = small(), small()
    history = resumed.train(shapes(48), run=tmp_path / "run", resume=True, **options, **QUIET)
    expected = whole.train(shapes(48), run=False, **options, **QUIET)
    assert history["val_loss"] == expected["val_loss"]
    assert len(history.steps) == len(expected.steps) == 12
    assert same(state(resumed), state(whole))


def test_after_ctrl_c_the_model_runs(folder: pathlib.Path, small: Any) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record.get("step") == 3:
            os.kill(os.getpid(), signal.SIGINT)

    model = small()
    picture = folder / "disc" / "0.png"
    model.run(picture)
    with pytest.raises(KeyboardInterrupt):
        model.train(folder, epochs=2, batch=8, run=False, progress=interrupt)
    assert not model.network.training
    assert all(a.base is None or a.flags.owndata for a in state(model).values())
    scores = ops.softmax(model.network(model.preprocessing(Image.open(picture))[None]), 1)
    np.testing.assert_allclose(model.run(picture).scores, scores[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": "nolayer"}, "freeze fits no parameter"),
        ({"batch": 1000}, "larger than the data"),
        ({"metric": "precisoin"}, "no such metric"),
        ({"patience": 3, "validation": None}, "patience needs data"),
        ({"schedule": lambda _step: "x"}, "schedule"),
        ({"gradient_checkpointing": "nolayer"}, "nolayer|fits no"),
    ],
)
def test_what_is_refused_leaves_the_head(
    folder: pathlib.Path, small: Any, options: dict[str, Any], message: str
) -> None:
    model = small()
    network, labels, before = model.network, model.labels, state(model)
    with pytest.raises((ArgumentError, InputError), match=message):
        model.train(folder, epochs=1, run=False, **QUIET, **options)
    assert model.network is network
    assert model.labels == labels
    assert same(state(model), before)
    assert not model.network.training
    assert len(model.run(folder / "disc" / "0.png").scores) == 10


def test_what_is_refused_leaves_the_head_of_a_graph(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 4)).astype(np.float32)
    with zoo.initialised_by(0):
        network = Sequential(Linear(4, 8), ops.relu, Linear(8, 3))
    zoo.export(network, tmp_path / "net.onnx", x[:2])
    model = zoo.load(tmp_path / "net.onnx")
    before, outputs = state(model), model(x)
    with pytest.raises(ArgumentError, match="larger than the data"):
        model.train((x, np.arange(24) % 5), batch=999, run=False, **QUIET)
    assert same(state(model), before)
    np.testing.assert_array_equal(model(x), outputs)
    model.train((x, np.arange(24) % 5), epochs=1, run=False, **QUIET)
    assert np.shape(model(x)) == (24, 5)


def test_a_plateau_of_the_accuracy_is_where_it_does_not_rise(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a metric's name, what is measured is the accuracy: as long as it rises, the rate stays."""
    from zoonet.zoo.train.trainer import Trainer

    accuracies = iter([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6])
    monkeypatch.setattr(Trainer, "_measure", lambda _self: {"loss": 1.0, "accuracy": next(accuracies)})
    history = small().train(shapes(24), epochs=12, batch=12, lr=0.01, schedule="plateau", run=False, **QUIET)
    assert history["lr"][:10] == [pytest.approx(0.01)] * 10
    assert history["lr"][-1] == pytest.approx(0.003)


def test_pictures_and_lists_in_memory_are_told_apart() -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    others = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    targets = np.array([0, 1])
    assert fingerprint(Data(pictures, targets)) == fingerprint(Data([p.copy() for p in pictures], targets))
    assert fingerprint(Data(pictures, targets)) != fingerprint(Data(others, targets))
    assert fingerprint(Data([[1, 2], [3, 4]], targets)) != fingerprint(Data([[1, 2], [3, 5]], targets))


def test_other_data_to_measure_on_are_other_data(small: Any, tmp_path: pathlib.Path) -> None:
    options: dict[str, Any] = {"batch": 8, "run": tmp_path / "run", **QUIET}
    x, y = shapes(36)
    small().train((x, y), validation=(x[:12], y[:12]), epochs=1, **options)
    with pytest.raises(ArgumentError, match="other data"):
        small().train((x, y), validation=(x[12:24], y[12:24]), epochs=2, resume=True, **options)
    assert len(small().train((x, y), validation=(x[:12], y[:12]), epochs=2, resume=True, **options)) == 2
