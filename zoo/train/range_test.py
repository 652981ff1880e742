"""The learning rate range test (Smith, 2017): raise the rate each step, and take one before the loss falls fastest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from zoonet import ops
from zoonet.ops.errors import TrainingError
from zoonet.zoo.modules import assign
from zoonet.zoo.train.updates import Updates, global_norm

if TYPE_CHECKING:
    from zoonet.zoo.train.trainer import Trainer

__all__ = ["choose_rate", "find_rate"]

_FIRST, _LAST, _STEPS = 1e-6, 1.0, 60


def find_rate(trainer: Trainer) -> float:
    """A learning rate for the trainer's optimizer, by steps that are undone. Raises TrainingError where none serves."""
    kept = {name: ops.array_module(a).array(a) for name, a in trainer.state().items()}
    settings = trainer.settings
    trial = Updates(trainer.updates.optimizer, trainer.updates.parameters)
    assign(trainer.network, trial.parameters)
    rates: list[float] = []
    losses: list[float] = []
    loader = trainer.parts.training
    one = trainer.on_device(np.ones((), np.float32))
    batches = (batch for epoch in range(_STEPS) for batch in loader.epoch(epoch))
    for step, batch in zip(range(_STEPS), batches, strict=False):
        rate = _FIRST * (_LAST / _FIRST) ** (step / (_STEPS - 1))
        key = trainer.on_device(ops.random_fold_in(trainer.key, np.int64(step)))
        inputs, targets = trainer.on_device(batch.inputs), trainer.on_device(batch.targets)
        with np.errstate(all="ignore"):
            state = trainer.moving_state()
            loss, gradients, state = trainer.gradients(trial.parameters, state, inputs, targets, key, one)
        norm = global_norm(gradients)
        if not math.isfinite(float(loss)) or not math.isfinite(norm) or (losses and float(loss) > 4 * min(losses)):
            break
        rates.append(rate)
        losses.append(float(loss))
        share = min(1.0, settings.clip / (norm + 1e-6)) if settings.clip else 1.0
        trial.step(gradients, rate / trial.optimizer.lr, share)
        assign(trainer.network, state)
    assign(trainer.network, kept)
    for name, view in trainer.updates.parameters.items():
        view[...] = kept[name]
    assign(trainer.network, trainer.updates.parameters)
    if len(rates) < 5:
        raise TrainingError("no learning rate was found", expected="a loss that falls", fix="give lr as a number")
    return choose_rate(rates, losses)


def choose_rate(rates: list[float], losses: list[float]) -> float:
    """A third of the rate at which the smoothed loss is least, and no more than where it falls fastest times three."""
    smooth, mean = [], 0.0
    for position, loss in enumerate(losses, start=1):
        mean = 0.8 * mean + 0.2 * loss
        smooth.append(mean / (1 - 0.8**position))
    least = int(np.argmin(smooth))
    slopes = np.gradient(np.array(smooth[: max(least, 2) + 1]), np.log(rates[: max(least, 2) + 1]))
    return float(min(rates[least] / 3, 3 * rates[int(np.argmin(slopes))]))
