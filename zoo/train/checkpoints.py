"""Checkpoints of a run: everything that it goes on from, bit for bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import formats
from zoonet.ops.errors import ArgumentError, StateDictError
from zoonet.zoo.modules import assign

if TYPE_CHECKING:
    from zoonet.zoo.train.rundir import RunDirectory
    from zoonet.zoo.train.trainer import Trainer

__all__ = ["resume", "save"]

Array = Any
_STEP = ("step", "epoch", "loss", "lr")  # columns of the steps' records
#: Attributes of a trainer that are kept as they are.
_NUMBERS = ("epoch", "position", "total", "count", "scale", "rate_scale", "best", "waited")
_FREE = ("epochs", "workers", "save_every", "patience")  # settings that may change when a run goes on


def save(trainer: Trainer, folder: RunDirectory) -> None:
    """Write everything that the run goes on from."""
    arrays = {f"weights/{name}": array for name, array in trainer.state().items()}
    arrays |= {f"optimizer/{name}": array for name, array in trainer.updates.state().items()}
    if trainer.average is not None:
        arrays |= {f"average/{name}": array for name, array in trainer.average.arrays.items()}
    steps = [[r[name] for name in _STEP] for r in trainer.history.steps]
    arrays["steps"] = np.array(steps, np.float64).reshape(-1, len(_STEP))
    folder.write_checkpoint(arrays, _facts(trainer))


def _facts(trainer: Trainer) -> dict[str, Any]:
    return {
        "version": 1,
        "architecture": trainer.model.architecture,
        "data": trainer.parts.fingerprint,
        "settings": trainer.settings.to_config(),
        **{name: getattr(trainer, name) for name in _NUMBERS},
        "plateau": getattr(trainer.schedule, "state", None),
        "averaged": trainer.average.steps if trainer.average else 0,
        "history": trainer.history.to_dict(),
    }


def resume(trainer: Trainer, folder: RunDirectory) -> None:
    """Put a trainer where a checkpoint was. Raises ArgumentError or StateDictError where it is of another run."""
    arrays, facts = folder.read_checkpoint()
    _compare(trainer, folder, facts)
    weights = {n.removeprefix("weights/"): a for n, a in arrays.items() if n.startswith("weights/")}
    if {n: a.shape for n, a in weights.items()} != {n: tuple(a.shape) for n, a in trainer.state().items()}:
        raise StateDictError(
            f"the run {folder.path} is of another network", fix="resume with the model that it began with"
        )
    for name, view in trainer.updates.parameters.items():
        view[...] = trainer.on_device(weights[name])
    trained = trainer.updates.parameters
    assign(trainer.network, {n: trainer.on_device(a) for n, a in weights.items() if n not in trained})
    trainer.updates.load_state({n.removeprefix("optimizer/"): a for n, a in arrays.items() if "optimizer/" in n})
    if trainer.average is not None:
        trainer.average.steps = facts["averaged"]
        for name in trainer.average.arrays:
            trainer.average.arrays[name] = trainer.on_device(arrays[f"average/{name}"])
    for name in _NUMBERS:
        setattr(trainer, name, facts[name])
    if facts["plateau"] is not None:
        trainer.schedule.state = facts["plateau"]
    _resume_history(trainer, folder, arrays["steps"], facts["history"])
    done = trainer.updates.steps + 1
    trainer.shown.note(f"going on in {folder.path} from epoch {trainer.epoch + 1}, step {done}")


def _resume_history(trainer: Trainer, folder: RunDirectory, steps: Array, facts: dict[str, Any]) -> None:
    history = trainer.history
    history.epochs = facts["epochs"]
    history.steps = [
        {n: int(v) if n in ("step", "epoch") else float(v) for n, v in zip(_STEP, row, strict=True)} for row in steps
    ]
    history.best_epoch, history.skipped = facts["best_epoch"], facts["skipped"]
    history.stopped = facts["stopped"] if trainer.settings.patience is not None else ""
    best = folder.path / "best.safetensors"
    if history.best_epoch and best.is_file():
        saved = formats.read(best)
        trainer.best_state = {
            name: trainer.on_device(np.array(saved[name].load())) if name in saved else array
            for name, array in trainer.state().items()
        }


def _compare(trainer: Trainer, folder: RunDirectory, facts: dict[str, Any]) -> None:
    if facts.get("architecture") != trainer.model.architecture:
        raise StateDictError(
            f"the run {folder.path} is of another model",
            expected=facts.get("architecture"),
            received=trainer.model.architecture,
            fix="resume with the model that it began with",
        )
    if facts.get("data") != trainer.parts.fingerprint:
        raise ArgumentError(
            f"the run {folder.path} was on other data", fix="resume with the same data, or start a new run"
        )
    own: dict[str, Any] = json.loads(json.dumps(trainer.settings.to_config()))
    before: dict[str, Any] = facts["settings"]
    free = {*_FREE, *(("warm_up",) if own["epochs"] != before["epochs"] else ())}  # it follows from epochs
    changed = [name for name, value in before.items() if name not in free and own.get(name) != value]
    if changed:
        raise ArgumentError(
            f"the run {folder.path} had other settings",
            expected=", ".join(f"{n}={before[n]!r}" for n in changed[:3]),
            received=", ".join(f"{n}={own.get(n)!r}" for n in changed[:3]),
            fix="resume with the same settings; " + ", ".join(_FREE) + " may change",
        )
