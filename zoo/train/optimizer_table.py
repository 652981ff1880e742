"""Every optimizer by its name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.train.optimizer import Optimizer
from zoonet.zoo.train.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Lion, NAdam, RAdam, RMSprop
from zoonet.zoo.train.tensor_optimizers import LAMB, Adafactor, Muon

__all__ = ["OPTIMIZERS", "make_optimizer"]

#: Every optimizer by the name that settings and the command line use.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in (SGD, Adam, AdamW, NAdam, RAdam, Adagrad, Adadelta, RMSprop, Lion, LAMB, Adafactor, Muon)
}


def make_optimizer(optimizer: str | Optimizer, **numbers: Any) -> Optimizer:
    """An optimizer by name with these numbers, or the given one with them changed. Raises ArgumentError."""
    if isinstance(optimizer, str):
        if optimizer.lower() not in OPTIMIZERS:
            raise ArgumentError("there is no such optimizer", expected=", ".join(OPTIMIZERS), received=repr(optimizer))
        cls = OPTIMIZERS[optimizer.lower()]
    elif isinstance(optimizer, Optimizer):
        cls = type(optimizer)
    else:
        raise ArgumentError("this is no optimizer", expected="a name or an Optimizer", received=repr(optimizer))
    known = [field.name for field in fields(cls)]
    for name in numbers:
        if name not in known:
            raise ArgumentError(f"{cls.__name__} has no {name!r}", expected=", ".join(known))
    return cls(**numbers) if isinstance(optimizer, str) else replace(optimizer, **numbers)
