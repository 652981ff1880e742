"""Training: optimizers, schedules, data, metrics, and the loop behind `model.train`. Each part can be used alone.

    from zoonet.zoo.train import AdamW, Updates, minibatch, converge, sgd

Everything is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

#: The public names of each module.
_MODULES = {
    "optimizer": "Optimizer",
    "optimizer_table": "OPTIMIZERS make_optimizer",
    "optimizers": "Adadelta Adagrad Adam AdamW Lion NAdam RAdam RMSprop SGD",
    "tensor_optimizers": "Adafactor LAMB Muon",
    "schedules": "Chain Constant Cosine CosineRestarts Exponential Linear MultiStep OneCycle Polynomial "
    "ReduceOnPlateau Step WarmUp",
    "updates": "Average Group Updates global_norm layer_decay no_decay",
    "boxes": "Boxes open_boxes",
    "data": "Data open_data split",
    "loader": "Batch Loader",
    "augment": "AUGMENTATIONS Augmentation",
    "evaluate": "Evaluation",
    "history": "History",
    "settings": "RECIPES Recipe Settings",
    "step": "Gradients",
    "objective": "Objective",
    "loops": "adadelta adagrad adam adamw converge goldensection hyperband minibatch minimize momentum nesterov "
    "progress repeat rmsprop sgd",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoonet.zoo.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"zoonet.zoo.train.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
