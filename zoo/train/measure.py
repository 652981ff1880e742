"""What is behind `model.evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.train import prepare
from zoonet.zoo.train.data import open_data
from zoonet.zoo.train.evaluate import Evaluation, collect, evaluation
from zoonet.zoo.train.files import validation_folder
from zoonet.zoo.train.setup import evaluation_loader, objective_for, readable, takes_pictures, with_classes_of_rows
from zoonet.zoo.train.texts import open_texts, takes_texts

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = ["evaluate"]


def evaluate(
    model: Model,
    source: Any,
    batch: int,
    columns: tuple[str, str] | None,
    corrupt: str,
    loss: str | Callable[..., Any],
    workers: int,
    progress: Callable[[int, int], None] | None,
    preprocessed: bool = False,
) -> Evaluation:
    """See `Model.evaluate`."""
    if corrupt not in ("skip", "raise"):
        raise ArgumentError("corrupt is wrong", expected="'skip' or 'raise'", received=repr(corrupt))
    skipped: list[str] = []
    source = validation_folder(source) or source
    opened = open_texts(model, source, columns) if takes_texts(model) else open_data(source, columns=columns)
    pictures = takes_pictures(model) and not preprocessed
    data = readable(with_classes_of_rows(model, opened, loss), pictures, corrupt, skipped)
    if not pictures and not takes_texts(model):
        prepare.check_arrays(data)
    labels = tuple(model.labels) if hasattr(model.task, "labels") else data.labels
    if labels is not None and data.labels is not None:
        data = data.relabelled(labels)
    objective = objective_for(model, data, loss, 0.0)
    loader = evaluation_loader(model, data, batch, corrupt, workers, preprocessed)
    result = evaluation(
        collect(lambda x: objective.outputs(model, x), loader, objective, progress), data, objective, labels
    )
    if isinstance(loader.prepare, prepare.Pictures):
        result._picture = loader.prepare.image
    result.skipped = [*skipped, *loader.skipped.values()]
    return result
