"""From a model, data and settings to everything that a run needs; whatever is wrong with them is said here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.zoo.classification import ImageClassification, floating_dtype
from zoonet.zoo.graphs import GraphNetwork
from zoonet.zoo.train import prepare
from zoonet.zoo.train.adapt import can_change_classes, ends_in_sigmoid, ends_in_softmax, trainable, with_classes
from zoonet.zoo.train.augment import Augmentation, make_augmentation
from zoonet.zoo.train.data import Data, fingerprint, open_data, split
from zoonet.zoo.train.files import validation_folder
from zoonet.zoo.train.loader import Loader
from zoonet.zoo.train.objective import Objective, make_objective
from zoonet.zoo.train.recompute import blocks_of
from zoonet.zoo.train.settings import Settings
from zoonet.zoo.train.texts import call_on_tokens, classes_second, open_texts, relabelled_task, takes_texts

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = ["Parts", "evaluation_loader", "set_up"]


@dataclass
class Parts:
    """Data, loaders and objective of a run. validation: None where nothing is measured. held: data that were given to
    measure on, apart from `data`.
    """

    data: Data
    training: Loader
    validation: Loader | None
    objective: Objective
    labels: tuple[str, ...] | None
    augmentation: Augmentation
    notes: list[str]
    skipped: list[str]
    held: Data | None = None

    @cached_property
    def fingerprint(self) -> str:
        """What tells these data from others."""
        return "".join(fingerprint(data) for data in (self.data, self.held) if data is not None)


def objective_for(model: Model, data: Data, loss: Any, smoothing: float) -> Objective:
    """The objective for a model and data, which knows how the network is called."""
    if loss == "auto" and _decides_by_one_output(model, data):
        loss, data = "bce", replace(data, labels=None)
    if loss == "auto" and gives_classes(model) and data.targets.dtype.kind == "f" and data.targets.ndim == 2:
        loss = "cross_entropy"  # against probabilities of classes
    ended = ends_in_sigmoid(model.network) if loss == "bce" else ends_in_softmax(model.network)
    objective = make_objective(loss, data, smoothing, ended)
    if not takes_texts(model):
        return objective
    classes = data.targets.ndim == 1
    return replace(objective, call=call_on_tokens, arrange=None if classes else classes_second)


def _decides_by_one_output(model: Model, data: Data) -> bool:
    """Whether a graph has one output for two classes, 0 and 1."""
    network, targets = model.network, data.targets
    if not isinstance(network, GraphNetwork) or network.classifies or getattr(network.config, "classes", 0) != 1:
        return False
    return targets.dtype.kind == "i" and targets.ndim == 1 and int(targets.max(initial=0)) == 1


def takes_pictures(model: Model) -> bool:
    """Whether a model's task is about pictures."""
    return isinstance(model.task, ImageClassification)


def gives_classes(model: Model) -> bool:
    """Whether a model is known to tell classes: of pictures, or by a softmax at its end."""
    return takes_pictures(model) or ends_in_softmax(model.network)


def _check_trainable(model: Model, settings: Settings, validation: Any) -> None:
    """Raise ArgumentError where such a model is not trained, or not in this way."""
    if model.task.name == "object-detection":
        raise ArgumentError(
            "detectors cannot be trained yet",
            expected="a classifier, a model on text, or one of arrays",
            received=model.architecture,
            fix="zoonet.zoo.train.open_boxes(data).crops() are objects for a classifier",
        )
    if settings.gradient_checkpointing:
        if isinstance(model.network, GraphNetwork):
            raise ArgumentError(
                "gradient checkpointing needs a network made of modules",
                received="an imported graph, which has no blocks",
                fix="leave out gradient_checkpointing, and make the batch smaller, with accumulate for the same step",
            )
        blocks_of(model.network, settings.gradient_checkpointing)
    trainable(model.network, settings.freeze)
    nothing = validation is None or (isinstance(validation, int | float) and validation == 0)
    if settings.patience is not None and nothing:
        raise ArgumentError(
            "patience needs data to measure on", received="validation=None", fix="give validation=…, data or a share"
        )


def set_up(
    model: Model, source: Any, validation: Any, settings: Settings, columns: Any, asked_batch: int | None
) -> Parts:
    """Open the data, fit the model's head to them, and make loaders. Raises for whatever is wrong with any of these."""
    _check_trainable(model, settings, validation)
    notes: list[str] = []

    def opened(what: Any) -> Data:
        return open_texts(model, what, columns) if takes_texts(model) else open_data(what, columns=columns)

    skipped: list[str] = []
    pictures = takes_pictures(model) and not settings.preprocessed
    data = readable(with_classes_of_rows(model, opened(source), settings.loss), pictures, settings.corrupt, skipped)
    measured = _validation(source, validation, opened)
    if measured is not None:
        measured = readable(with_classes_of_rows(model, measured, settings.loss), pictures, settings.corrupt, skipped)
    if skipped:
        several = "1 picture" if len(skipped) == 1 else f"{len(skipped)} pictures"
        notes.append(f"left out, for they cannot be read: {several}, the first: {skipped[0]}")
    _check(model, data)
    if not pictures and not takes_texts(model):
        prepare.check_arrays(data)
    objective = objective_for(model, data, settings.loss, settings.label_smoothing or 0.0)
    labels = fit_head(model, data, objective, settings, notes)
    if labels is not None:
        data = data.relabelled(labels)
        measured = measured.relabelled(labels) if measured is not None else None
    whole, held = data, measured
    if measured is None and isinstance(validation, float) and validation:
        data, measured = split(data, validation, settings.seed, stratified=bool(objective.classes))
        notes.append(f"{len(data)} samples to train on, {len(measured)} held back to measure")
    if asked_batch is not None and asked_batch > len(data):
        raise ArgumentError(
            "batch is larger than the data",
            expected=f"at most {len(data)}",
            received=asked_batch,
            fix="make it smaller",
        )
    batch = min(settings.batch or 1, len(data))
    augmentation = make_augmentation(settings.augment)
    training = Loader(
        data,
        _prepare(model, data, augmentation, settings.preprocessed),
        batch,
        settings.seed,
        last=settings.last,
        balance=settings.balance and bool(objective.classes),
        corrupt=settings.corrupt,
        workers=settings.workers,
    )
    checked = (
        None
        if measured is None
        else evaluation_loader(model, measured, batch, settings.corrupt, settings.workers, settings.preprocessed)
    )
    return Parts(whole, training, checked, objective, labels, augmentation, notes, skipped, held)


def _prepare(model: Model, data: Data, augmentation: Augmentation, preprocessed: bool) -> Callable[..., Any]:
    if takes_pictures(model) and not preprocessed:
        return prepare.Pictures(data, model.preprocessing, augmentation)
    return prepare.Arrays(data, floating_dtype(model.network), augmentation)


def evaluation_loader(
    model: Model, data: Data, batch: int, corrupt: str, workers: int, preprocessed: bool = False
) -> Loader:
    """All samples in order, prepared as `model.run` prepares them."""
    preparing = _prepare(model, data, Augmentation(), preprocessed)
    return Loader(data, preparing, batch, shuffle=False, corrupt=corrupt, workers=workers)


def _validation(source: Any, validation: Any, opened: Callable[[Any], Data]) -> Data | None:
    """The data that are given for measuring, or that lie in a folder beside those for training."""
    if validation is None or (isinstance(validation, int | float) and validation == 0):
        return None
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise ArgumentError("the share for validation is wrong", expected="between 0 and 1", received=validation)
        folder = validation_folder(source)
        return opened(folder) if folder is not None else None
    return opened(validation)


def with_classes_of_rows(model: Model, data: Data, loss: Any) -> Data:
    """The data with integers in the place of classes in another form, where classes are wanted.

    These are one-hot rows (N, classes), and floats (N,) or (N, 1) that are whole. Rows of probabilities stay. Raises
    InputError for other floats.
    """
    targets = data.targets
    if targets is None or (loss != "cross_entropy" and (loss != "auto" or not gives_classes(model))):
        return data
    if targets.ndim == 2 and targets.shape[1] > 1:
        if np.isin(targets, (0, 1)).all() and (targets.sum(1) == 1).all():
            return replace(data, targets=targets.argmax(1).astype(np.int64))
        if targets.dtype.kind == "f":
            _check_probabilities(targets)
        return data
    if targets.dtype.kind != "f" or targets.ndim > 2:
        return data
    column = targets.reshape(-1)
    if (column != np.floor(column)).any():
        raise InputError(
            "the targets are numbers, and classes are needed",
            expected="labels, whole numbers from 0, or rows of probabilities",
            received=f"{float(column[column != np.floor(column)][0]):.6g}",
            fix=_NUMBERS,
        )
    if column.size and column.min() < 0:
        raise InputError("a class is negative", expected="classes from 0", received=float(column.min()))
    return replace(data, targets=column.astype(np.int64))


_NUMBERS = "for numbers, give loss='mse', and a network with as many outputs: zoo.create(name, classes=1)"


def _check_probabilities(rows: Any) -> None:
    """Raise InputError where rows are no probabilities."""
    wrong = np.flatnonzero(((rows < 0) | (rows > 1)).any(1))
    if len(wrong):
        expected, row = "rows of probabilities, each from 0 to 1", rows[wrong[0]]
    else:
        wrong = np.flatnonzero(np.abs(rows.sum(1) - 1) > 1e-3)
        if not len(wrong):
            return
        expected, row = "rows of probabilities that sum to 1", rows[wrong[0]]
    raise InputError(
        "the targets are no probabilities of classes", expected=expected, received=row[:5].tolist(), fix=_NUMBERS
    )


def readable(data: Data, pictures: bool, corrupt: str, skipped: list[str]) -> Data:
    """The data without files that show at once that they are no pictures, which are added to `skipped`.

    Raises InputError where there are no targets, FormatError where such files may not be skipped, or all are such.
    """
    if data.targets is None:
        raise InputError(f"{data.source} has no targets", fix="give (inputs, targets)")
    bad = prepare.unreadable(data) if pictures else {}
    if not bad:
        return data
    if corrupt == "raise" or len(bad) == len(data):
        raise FormatError(
            f"{len(bad)} of {len(data)} pictures in {data.source} cannot be read",
            received=next(iter(bad.values())),
            fix="remove them" + (', or corrupt="skip"' if corrupt == "raise" else ""),
        )
    skipped += bad.values()
    return data.take(i for i in range(len(data)) if i not in bad)


def _check(model: Model, data: Data) -> None:
    if data.labels is not None or (data.targets.dtype.kind == "i" and data.targets.ndim == 1):
        classes = np.unique(data.targets)
        if len(classes) < 2:
            raise InputError(
                f"{data.source} has one class only",
                expected="samples of at least two classes",
                received=repr(data.labels[int(classes[0])]) if data.labels else int(classes[0]),
                fix="add a folder (or labels) for another class",
            )


def fit_head(
    model: Model, data: Data, objective: Objective, settings: Settings, notes: list[str]
) -> tuple[str, ...] | None:
    """Give the model a head for the classes of the data; the labels that targets are to be indices of."""
    if not objective.classes or data.targets.ndim != (2 if data.targets.dtype.kind == "f" else 1):
        return None
    pictures = hasattr(model.task, "labels")
    most = max(1000, 2 * len(data), int(getattr(getattr(model.network, "config", None), "classes", 0) or 0))
    if data.labels is None and objective.classes > most:
        raise InputError(
            "the classes are not numbered from 0",
            expected=f"integers below {most}",
            received=objective.classes - 1,
            fix="give them as strings, or numbers in order",
        )
    own = tuple(model.labels) if hasattr(model.task, "labels") else None
    config = getattr(model.network, "config", None)
    have = len(own) if own is not None else int(getattr(config, "classes", 0) or 0)
    labels = data.labels or (own if own and objective.classes == have else None)
    same = objective.classes == have and (data.labels is None or own is None or set(data.labels) == set(own))
    keeps = settings.head == "keep" or (same and settings.head == "auto")
    if not pictures and settings.head == "auto" and (not have or (objective.classes <= have and data.labels is None)):
        keeps = True  # nothing is known of what the network's outputs stand for
    if keeps:
        if own is not None and data.labels is not None:
            data.relabelled(own)  # complains where a class is unknown
            return own
        if have and objective.classes > have:
            raise InputError("the data have more classes than the network", expected=have, received=objective.classes)
        return data.labels if own is None else own
    labels = labels if labels is not None else tuple(f"class {i}" for i in range(objective.classes))
    if not can_change_classes(model.network):
        if own is not None:
            model.task = relabelled_task(model.task, labels)
        return labels
    model.network = with_classes(model.network, len(labels), settings.seed)
    if own is not None:
        model.task = relabelled_task(model.task, labels)
    elif isinstance(model.network, GraphNetwork):
        model.task = type(model.task).from_config({}, model.network, model.architecture, "the model")  # type: ignore[attr-defined]
    model.recompile()
    notes.append(f"a new last layer for {len(labels)} classes: {_some(labels)}")
    return labels


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:6]) + (f", … ({len(labels)} in all)" if len(labels) > 6 else "")
