"""The loop behind `model.train`: epochs and steps, measuring, checkpoints, and going on from one."""

from __future__ import annotations

import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FileError, InputError, TrainingError
from zoonet.zoo.modules import assign
from zoonet.zoo.train import checkpoints
from zoonet.zoo.train.adapt import head_of, set_training, trainable
from zoonet.zoo.train.augment import mix
from zoonet.zoo.train.evaluate import collect
from zoonet.zoo.train.history import History
from zoonet.zoo.train.interrupts import interruptible
from zoonet.zoo.train.objective import first
from zoonet.zoo.train.progress import Reporter, reporter
from zoonet.zoo.train.range_test import find_rate
from zoonet.zoo.train.rundir import RunDirectory, latest_run, new_run
from zoonet.zoo.train.schedules import ReduceOnPlateau
from zoonet.zoo.train.settings import Settings, make_schedule, make_settings
from zoonet.zoo.train.setup import Parts, set_up
from zoonet.zoo.train.step import Gradients, added, clipped, finite, first_not_finite, one_hot
from zoonet.zoo.train.updates import Average, Updates, global_norm, layer_decay, no_decay

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = ["train"]

Array = Any
_SECONDS = 60.0  # between checkpoints, where save_every is not said
_GROWTH = 2000  # steps after which the loss is scaled by twice as much, in float16
_LARGER = ("accuracy", "top5", "f1", "auc", "r2")  # metrics of which more is better


def train(
    model: Model,
    source: Any,
    *,
    validation: Any = 0.2,
    out: str | os.PathLike[str] | None = None,
    run: str | os.PathLike[str] | bool | None = None,
    resume: bool = False,
    progress: bool | Callable[[dict[str, Any]], Any] = True,
    columns: tuple[str, str] | None = None,
    **given: Any,
) -> History:
    """See `Model.train`."""
    pretrained = model.card.notes != "random parameters"
    settings = make_settings(given, model.architecture, pretrained)
    if out is not None:
        _check_target(pathlib.Path(out))
    folder: RunDirectory | None = None
    if not (run is None or isinstance(run, bool | str | os.PathLike)):
        raise ArgumentError("run is wrong", expected="a folder, or False for none", received=repr(run))
    if not (isinstance(progress, bool) or callable(progress)):
        raise ArgumentError("progress is wrong", expected="True, False, or a function", received=repr(progress))
    if run is not False:
        name = pathlib.Path(model.card.name or model.architecture).stem.replace(os.sep, "-")
        chosen = run if isinstance(run, str | os.PathLike) else latest_run(name) if resume else new_run(name)
        folder = RunDirectory(chosen, resume=resume)
    elif resume:
        raise ArgumentError("a run without a directory cannot be resumed", fix="leave run out, or name it")
    before = model.network, model.task
    trainer: Trainer | None = None
    try:
        parts = set_up(model, source, validation, settings, columns, given.get("batch"))
        if out is not None:
            _try_target(model, pathlib.Path(out))
        with reporter(progress) as shown:
            for note in parts.notes:
                shown.note(note)
            trainer = Trainer(model, parts, settings, folder, shown)
            if resume:
                trainer.resume()
            before = model.network, model.task
            history = trainer.fit()
    finally:
        if trainer is not None:
            trainer.network.eval()
        model.network, model.task = before  # without the head for data or settings that were refused
        model.recompile()
        if folder is not None:
            folder.discard_if_empty()
    if out is not None:
        model.save(out)
    return history


def _check_target(out: pathlib.Path) -> None:
    """Complain about a folder that is not there before anything is read."""
    if not out.parent.is_dir():
        raise ArgumentError("the model cannot be saved there", expected="an existing folder", received=str(out.parent))


def _try_target(model: Model, out: pathlib.Path) -> None:
    """Save the model beside where it will be, so that what cannot be saved is said before it is trained."""
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".zoonet-") as folder:
            trial = pathlib.Path(folder) / out.name
            if out.is_dir():
                trial.mkdir()
            model.save(trial)
    except OSError as error:
        raise FileError("the model cannot be saved there", received=f"{out}: {error.strerror or error}") from None


class Trainer:
    """One run: its state, and the loop that moves it on. folder: where it is kept, or None."""

    def __init__(
        self, model: Model, parts: Parts, settings: Settings, folder: RunDirectory | None, shown: Reporter
    ) -> None:
        self.model, self.parts, self.settings, self.folder, self.shown = model, parts, settings, folder, shown
        self.network = model.network
        self.history = History()
        self.history.skipped = list(parts.skipped)
        self.history.folder = folder.path if folder is not None else None
        self.names = trainable(self.network, settings.freeze)
        self.key = ops.random_key(settings.seed)
        self.per_epoch = math.ceil(len(parts.training) / settings.accumulate)
        self.metric = self._metric()
        self.epoch, self.position = 0, 0  # position: of the next batch in the epoch
        self.resumed = False
        self.interrupted: Callable[[], bool] = bool
        self.total, self.count = 0.0, 0  # of the losses of this epoch
        self.scale = 2.0**12 if settings.precision == "float16" else 1.0
        self.best: float | None = None
        self.best_state: dict[str, Array] = {}
        self.waited = 0
        self.gradients = Gradients(
            self.network, parts.objective, settings.precision, model.device, settings.gradient_checkpointing
        )
        self.schedule = make_schedule(settings, self.per_epoch, larger=self.metric in _LARGER)
        self._start(parts, settings)

    def _start(self, parts: Parts, settings: Settings) -> None:
        self._check_outputs()
        optimizer = settings.optimizer
        parameters = {n: a for n, a in self.network.named_parameters() if n in set(self.names)}
        head = set(head_of(self.network))
        depth = layer_decay([*parameters], settings.layer_decay) if settings.layer_decay else None

        def scale(name: str) -> float:
            backbone = 1.0 if name in head else float(settings.backbone_lr or 1.0)
            return backbone * (depth(name) if depth else 1.0)

        self.updates = Updates(optimizer, parameters, [no_decay()], scale)  # type: ignore[arg-type]
        assign(self.network, self.updates.parameters)
        set_training(self.network, self.names)
        self.rate_scale = 1.0
        self.average = Average(self.state(), settings.ema) if settings.ema else None

    def _metric(self) -> str:
        name = (self.settings.metric or self.parts.objective.metric).removeprefix("val_")
        if self.parts.validation is None and name != "loss":
            if self.settings.metric:
                raise ArgumentError("a metric needs validation data", received=name, fix="give validation=…")
            return "loss"
        return name

    def _check_outputs(self) -> None:
        """Run two samples, so that what does not fit is said before time is spent; nothing is changed."""
        loader = self.parts.training
        for batch in loader.epoch():
            self.network.eval()
            outputs = self.parts.objective.outputs(self.network, self.on_device(batch.inputs[:2]))
            self.parts.objective.check(outputs, batch.targets[:2])
            labels, y = getattr(self.model.task, "labels", None), first(outputs)
            if labels and self.parts.objective.classes and y.shape[1] != len(labels):
                raise InputError(
                    "the network has another number of classes than the data",
                    expected=f"{len(labels)} outputs, for {', '.join(labels[:5])}",
                    received=y.shape[1],
                    fix="make the network's last layer with this number of classes",
                )
            self._check_metric(outputs, batch.targets[:2])
            break

    def _check_metric(self, outputs: Any, targets: Array) -> None:
        """Complain about a metric that will not be measured."""
        y = np.asarray(ops.to_device(first(outputs), "cpu"))
        with np.errstate(all="ignore"):
            known = self.parts.objective.measure(y, targets, 0.0)
        if self.metric not in known:
            raise ArgumentError("there is no such metric", expected=", ".join(known), received=self.metric)

    def on_device(self, array: Array) -> Array:
        """An array where the model is."""
        return array if self.model.device == "cpu" else ops.to_device(array, self.model.device)

    def state(self) -> dict[str, Array]:
        """All arrays of the network, by name."""
        return {name: slot.get() for name, slot in self.network.slots().items()}

    def moving_state(self) -> dict[str, Array]:
        """The state that steps change: that of modules in training mode."""
        return {n: s.get() for n, s in self.network.slots().items() if s.is_buffer and s.module.training}

    # -- the loop ------------------------------------------------------------------------------------------------

    def fit(self) -> History:
        """Train to the end, or until patience runs out; the network then has the best weights."""
        try:
            if self.settings.lr == "auto" and not self.resumed:
                self.rate_scale = find_rate(self) / self.updates.optimizer.lr
                self.shown.note(f"learning rate found: {self.rate_scale * self.updates.optimizer.lr:.2e}")
            self._write_config()
            with interruptible() as self.interrupted:
                if not self.resumed:
                    self.save()  # so that a run can be resumed whenever it is killed
                while self.epoch < self.settings.epochs and not self.history.stopped:
                    self._epoch()
            if self.best_state:
                assign(self.network, self.best_state)
            elif self.average is not None:
                assign(self.network, self.average.arrays)
        finally:
            self.network.eval()
            self._own_arrays()
        self._describe()
        if self.folder is not None:
            self.folder.write_history(self.history)
        return self.history

    def _epoch(self) -> None:
        began, start = time.perf_counter(), self.position
        saved = began
        set_training(self.network, self.names)
        if not start:
            self.total, self.count = 0.0, 0
        before = self.count
        self.shown.start(self.epoch + 1, self.settings.epochs, self.per_epoch, start // self.settings.accumulate)
        for group in self._groups():
            self._step(group)
            self.position = group[-1].number + 1
            due = time.perf_counter() - saved > _SECONDS
            if self.settings.save_every is not None:
                due = self.updates.steps % self.settings.save_every == 0
            if due and not self.interrupted():
                self.save()
                saved = time.perf_counter()
            self._stop_if_interrupted()
        self.position = len(self.parts.training)
        seconds = time.perf_counter() - began
        self._finish_epoch(seconds, (self.count - before) / max(seconds, 1e-9))
        if self.epoch < self.settings.epochs and not self.history.stopped:
            self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        """After Ctrl-C, save and raise KeyboardInterrupt."""
        if not self.interrupted():
            return
        self.save()
        if self.folder is not None:
            self.shown.note(f"interrupted: saved in {self.folder.path}; resume=True goes on from there")
        raise KeyboardInterrupt

    def _groups(self) -> Iterator[list[Any]]:
        """The batches of the epoch that are left, as many at a time as make one step."""
        group: list[Any] = []
        for batch in self.parts.training.epoch(self.epoch, self.position):
            group.append(batch)
            if len(group) == self.settings.accumulate:
                yield group
                group = []
        if group:
            yield group

    def _step(self, group: list[Any]) -> None:
        """One update from the mean gradient of some batches."""
        total: dict[str, Array] = {}
        losses = 0.0
        parameters = self.updates.parameters
        for batch in group:
            place = self.epoch * len(self.parts.training) + batch.number
            key = ops.random_fold_in(self.key, np.int64(place))
            inputs, targets = self._mixed(batch.inputs, batch.targets, place)
            inputs, targets, key = self.on_device(inputs), self.on_device(targets), self.on_device(key)
            scale = self.on_device(np.asarray(self.scale, np.float32))
            value, gradients, state = self.gradients(parameters, self.moving_state(), inputs, targets, key, scale)
            loss = float(value)
            if not math.isfinite(loss):
                self._fail(f"the loss is {loss}", inputs, key, gradients)
            total = added(total, gradients)
            assign(self.network, state)
            losses += loss
            self.total += loss * batch.count
            self.count += batch.count
        share = 1.0 / len(group)
        if self.settings.clip_value is not None:
            total = clipped(total, self.settings.clip_value / share)
        norm = global_norm(total) * share
        if not math.isfinite(norm):
            if self.settings.precision == "float16" and self.scale > 1:
                self.scale /= 2  # the loss was scaled too much: this step is left out
                return
            self._fail("the gradient is not finite", inputs, key, total)
        if self.settings.clip is not None:
            share *= min(1.0, self.settings.clip / (norm + 1e-6))
        factor = self.schedule(self.updates.steps) * self.rate_scale
        self.updates.step(total, factor, share)
        if self.settings.precision == "float16" and self.updates.steps % _GROWTH == 0:
            self.scale *= 2
        if self.average is not None:
            self.average.update(self.state())
        record = {
            "step": self.updates.steps,
            "epoch": self.epoch + 1,
            "loss": losses / len(group),
            "lr": self.updates.optimizer.lr * factor,
        }
        self.history.steps.append(record)
        self.shown.step(record, sum(batch.count for batch in group))

    def _mixed(self, inputs: Array, targets: Array, place: int) -> tuple[Array, Array]:
        """The batch under MixUp and CutMix, where these are asked for."""
        augmentation, objective = self.parts.augmentation, self.parts.objective
        if not (augmentation.mixup or augmentation.cutmix) or objective.name != "cross_entropy":
            return inputs, targets
        soft = targets.dtype.kind == "f"
        if targets.ndim != (2 if soft else 1):
            return inputs, targets
        rng = np.random.default_rng([self.settings.seed, 3, place])
        rows = targets if soft else one_hot(targets, objective.classes, inputs.dtype)
        return mix(inputs, rows, augmentation, rng)

    def _fail(self, what: str, inputs: Array, key: Array, gradients: dict[str, Array]) -> None:
        where = first_not_finite(self.network, self.parts.objective, inputs, key, gradients)
        kept = ""
        if self.folder is not None and self.folder.has_checkpoint():
            kept = f"; the last good checkpoint is in {self.folder.path}"
        raise TrainingError(
            f"training stopped at step {self.updates.steps + 1} (epoch {self.epoch + 1}): {what}",
            expected="finite numbers",
            received=f"the first that is not: {where}",
            fix=f"a smaller lr, clip=1.0, or check the data{kept}",
        )

    def _finish_epoch(self, seconds: float, speed: float) -> None:
        record: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": self.total / max(self.count, 1),
            "lr": self.history.steps[-1]["lr"] if self.history.steps else 0.0,
            "seconds": round(seconds, 3),
            "samples_per_second": round(speed, 1),
        }
        if self.parts.validation is not None:
            record |= {f"val_{name}": value for name, value in self._measure().items()}
        self.history.epochs.append(record)
        self.epoch, self.position = self.epoch + 1, 0
        self._judge(record)
        self._note_skipped()
        self.shown.end(record, self.settings.epochs)
        if self.folder is not None:
            self.folder.write_history(self.history)
            self._save_model("last")
        self.save()

    def _measure(self) -> dict[str, float]:
        """The metrics of the validation data, by the running mean of the weights where there is one."""
        own, interrupted = self.state(), False

        def watch(_done: int, _all: int) -> None:
            nonlocal interrupted
            interrupted = self.interrupted()
            if interrupted:
                raise KeyboardInterrupt

        self.network.eval()
        if self.average is not None:
            assign(self.network, self.average.arrays)
        self.model.recompile()
        try:
            found = collect(self._forward, self.parts.validation, self.parts.objective, watch)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            assign(self.network, own)
            if interrupted:
                self._stop_if_interrupted()
            raise
        finally:
            assign(self.network, own)
        outputs, targets, _, loss = found
        return self.parts.objective.measure(outputs, targets, loss)

    def _forward(self, inputs: Array) -> Any:
        return self.parts.objective.outputs(self.model, inputs)

    def _judge(self, record: dict[str, Any]) -> None:
        """Keep the weights if they are the best yet, and stop if they have not been for long."""
        measured = self.parts.validation is not None
        key = f"val_{self.metric}" if measured else "loss"
        value = record[key]
        if isinstance(self.schedule, ReduceOnPlateau):
            self.schedule.measured(value)
        if not measured:
            return
        larger = self.metric in _LARGER
        better = self.best is None or (value > self.best if larger else value < self.best)
        if value == self.best and "val_loss" in record:
            better = record["val_loss"] < self.history.best["val_loss"]
        if better and not math.isnan(value):
            self.best, self.waited = value, 0
            self.history.best_epoch = record["epoch"]
            arrays = self.average.arrays if self.average is not None else self.state()
            self.best_state = {name: ops.array_module(a).array(a) for name, a in arrays.items()}
            if self.folder is not None:
                self._save_model("best")
        else:
            self.waited += 1
        if self.settings.patience is not None and self.waited >= self.settings.patience:
            self.history.stopped = f"{self.metric} was not better than in epoch {self.history.best_epoch}"

    def _note_skipped(self) -> None:
        skipped = self.parts.training.skipped | (self.parts.validation.skipped if self.parts.validation else {})
        for text in skipped.values():
            if text not in self.history.skipped:
                self.history.skipped.append(text)
                self.shown.note(f"left out: {text}")

    # -- keeping -------------------------------------------------------------------------------------------------

    def _save_model(self, name: str) -> None:
        """The model as a file: of the best weights, or of the last."""
        from zoonet.zoo.storage import save_beside

        assert self.folder is not None
        own = self.state()
        if self.average is not None:
            assign(self.network, self.average.arrays)
        try:
            self._describe()
            save_beside(self.model, self.folder.path / name)
        finally:
            assign(self.network, own)

    def _describe(self) -> None:
        """Say in the model's card how it was trained."""
        card, best = self.model.card, self.history.best
        if card.notes == "random parameters":
            card.notes = ""
        text = "trained with zoonet: " + ", ".join(f"{k} {v:.4g}" for k, v in best.items() if isinstance(v, float))
        kept = [part for part in card.notes.split("\n") if part and not part.startswith("trained with zoonet")]
        card.notes = "\n".join([*kept, text])
        if "val_accuracy" in best:
            card.accuracy = f"{100 * best['val_accuracy']:.2f} % on {len(self.parts.validation.data)} held-out samples"  # type: ignore[union-attr]

    def _write_config(self) -> None:
        if self.folder is None:
            return
        data = self.parts.data
        self.folder.write_config(
            {
                "architecture": self.model.architecture,
                "model": self.model.card.name,
                "settings": self.settings.to_config(),
                "data": {
                    "source": data.source,
                    "samples": len(data),
                    "classes": data.counts(),
                    "fingerprint": self.parts.fingerprint,
                },
                "trained": len(self.names),
            }
        )

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit, unless weights are no numbers any more."""
        if self.folder is not None and all(map(finite, self.updates.parameters.values())):
            checkpoints.save(self, self.folder)

    def resume(self) -> None:
        """Go on from the checkpoint. Raises ArgumentError or StateDictError where model, data or settings differ."""
        assert self.folder is not None
        if not self.folder.has_checkpoint():
            self.shown.note(f"nothing was saved in {self.folder.path} yet: beginning anew")
            return
        checkpoints.resume(self, self.folder)
        self.resumed = True

    def _own_arrays(self) -> None:
        """Give the network arrays of its own in the place of views of the flat ones."""
        assign(self.network, {name: ops.array_module(a).array(a) for name, a in self.state().items()})
