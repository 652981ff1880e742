"""Settings of a training run: what can be said, what is usual where nothing is said, and what is refused."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.train import schedules
from zoonet.zoo.train.augment import AUGMENTATIONS, Augmentation
from zoonet.zoo.train.optimizer import Optimizer
from zoonet.zoo.train.optimizer_table import make_optimizer
from zoonet.zoo.train.updates import Names

__all__ = ["RECIPES", "Recipe", "Settings", "make_schedule", "make_settings"]


@dataclass(frozen=True)
class Recipe:
    """What is usual for a kind of network: used where settings are silent."""

    optimizer: Optimizer
    batch: int = 32
    schedule: str = "cosine"
    warm_up: float = 1.0
    augment: str = "none"
    label_smoothing: float = 0.0
    backbone_lr: float = 1.0
    clip: float | None = None


_ADAMW, _SGD = make_optimizer("adamw", lr=1e-3, weight_decay=0.02), make_optimizer("sgd", momentum=0.9, nesterov=True)
_PLAIN = Recipe(make_optimizer("adam", lr=1e-3))
_PICTURES = Recipe(replace(_ADAMW, lr=2e-3), augment="standard", label_smoothing=0.1, clip=5.0)
#: (pattern of an architecture, whether it starts from pretrained weights) -> recipe. The first that fits decides.
RECIPES: tuple[tuple[str, bool, Recipe], ...] = (
    ("digitnet", True, Recipe(replace(_SGD, lr=0.01, weight_decay=5e-4), 64, augment="shift")),
    ("digitnet", False, Recipe(replace(_SGD, lr=0.05, weight_decay=5e-4), 64, augment="shift", label_smoothing=0.02)),
    *(
        entry
        for depth in (20, 32, 44, 56, 110)
        for entry in (
            (f"resnet{depth}", True, Recipe(replace(_SGD, lr=0.01, weight_decay=1e-4), 64, augment="small")),
            (f"resnet{depth}", False, Recipe(replace(_SGD, lr=0.1, weight_decay=1e-4), 128, augment="small")),
        )
    ),
    ("graph", True, _PLAIN),
    ("graph", False, _PLAIN),
    ("own", True, _PLAIN),
    ("own", False, _PLAIN),
    ("*", True, replace(_PICTURES, augment="light", backbone_lr=0.2)),
    ("*", False, _PICTURES),
)


def recipe_for(architecture: str, pretrained: bool) -> Recipe:
    """The usual settings for an architecture."""
    return next(
        recipe
        for pattern, starts, recipe in RECIPES
        if starts == pretrained and fnmatch.fnmatchcase(architecture, pattern)
    )


@dataclass(frozen=True)
class Settings:
    """How to train. None stands for what the recipe of the network has.

    epochs: passes over the data. batch: samples per step. optimizer: a name or an `Optimizer`. lr: its learning rate,
    or "auto" to measure one (a range test). weight_decay: of matrices; biases and norms have none. schedule: "cosine",
    "constant", "linear", "polynomial", "onecycle", "step", "exponential", "plateau", or a function of the step that
    gives a factor. warm_up: epochs in which the rate rises.
    freeze: what is not trained: "backbone" (all but the head), or patterns of parameter names. backbone_lr: factor of
    the rate of all but the head. layer_decay: factor of the rate per level of depth. head: "new" draws the last layer
    anew, "keep" refuses other classes, "auto" draws it if the classes differ.
    augment: a name ("none", "light", "standard", "strong", "small", "shift"), an `Augmentation`, or a function (array,
    NumPy generator) -> array. preprocessed: the data are arrays as the network takes them, also where it is for
    pictures. label_smoothing: the share of a target that is spread over all classes.
    loss: "auto" (cross entropy for classes, mse for numbers), "cross_entropy", "mse", "l1", "huber", "bce", or a
    function (outputs, targets) -> number, written in zoonet.ops.
    clip: largest norm of the gradients; clip_value: largest number in them. accumulate: batches per step. ema: decay of
    a running mean of the weights, which is then measured and kept. precision: "float32", or "bfloat16" or "float16" to
    compute in (parameters stay as they are; float16 scales the loss). gradient_checkpointing:
    the blocks of the network (or the modules that fit patterns of names) are computed again for their gradients, which
    takes a third more time and far less memory.
    balance: classes are drawn equally often. last: "keep", "drop" or "pad" an unfull batch. corrupt: "skip" or "raise"
    for files that cannot be read. metric: what decides which epoch was best, such as "accuracy" or "loss". patience:
    epochs without a better one after which training stops. seed: of everything random. workers: threads that prepare
    data. save_every: steps between checkpoints, beside one per epoch; None for about one a minute.
    """

    epochs: int = 10
    batch: int | None = None
    optimizer: str | Optimizer | None = None
    lr: float | str | None = None
    weight_decay: float | None = None
    schedule: str | schedules.Schedule | None = None
    warm_up: float | None = None
    freeze: Names | None = None
    backbone_lr: float | None = None
    layer_decay: float | None = None
    head: str = "auto"
    augment: str | Augmentation | Callable[..., Any] | None = None
    preprocessed: bool = False
    label_smoothing: float | None = None
    loss: str | Callable[..., Any] = "auto"
    clip: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    ema: float | None = None
    precision: str = "float32"
    gradient_checkpointing: bool | Names = False
    balance: bool = False
    last: str = "keep"
    corrupt: str = "skip"
    metric: str | None = None
    patience: int | None = None
    seed: int = 0
    workers: int = 2
    save_every: int | None = None

    def to_config(self) -> dict[str, Any]:
        """Plain data that tells these settings from others; functions by their names."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{k: _plain(v) for k, v in asdict(value).items()}}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def make_settings(given: Mapping[str, Any], architecture: str, pretrained: bool) -> Settings:
    """Settings from keywords, completed by the recipe. Raises ArgumentError naming what is unknown or out of range."""
    known = [field.name for field in fields(Settings)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ArgumentError(
                f"train has no setting {name!r}",
                fix=f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}",
            )
    settings = Settings(**{name: v.item() if isinstance(v, np.generic) else v for name, v in given.items()})
    _check(settings)
    recipe = recipe_for(architecture, pretrained)
    optimizer = recipe.optimizer if settings.optimizer is None else make_optimizer(settings.optimizer)
    if isinstance(settings.lr, int | float):
        optimizer = replace(optimizer, lr=float(settings.lr))
    if settings.weight_decay is not None:
        optimizer = replace(optimizer, weight_decay=float(settings.weight_decay))
    usual: dict[str, Any] = {
        "batch": recipe.batch,
        "schedule": recipe.schedule,
        "warm_up": min(recipe.warm_up, settings.epochs / 5),
        "augment": recipe.augment,
        "label_smoothing": recipe.label_smoothing,
        "backbone_lr": recipe.backbone_lr,
        "clip": recipe.clip,
    }
    filled = {name: value for name, value in usual.items() if getattr(settings, name) is None}
    return replace(
        settings,
        optimizer=optimizer,
        lr="auto" if settings.lr == "auto" else optimizer.lr,
        weight_decay=optimizer.weight_decay,
        **filled,
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _names(value: Any) -> bool:
    if value is None or isinstance(value, str) or callable(value):
        return True
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(name, str) for name in value)


_KINDS = ("cosine", "constant", "linear", "polynomial", "onecycle", "step", "exponential", "plateau")
_LOSSES = ("auto", "cross_entropy", "mse", "l1", "huber", "bce")


def _check(s: Settings) -> None:
    positive, share, whole = "a number above 0", "a number from 0 to below 1", "an integer from 1"
    checks: dict[str, tuple[bool, str]] = {
        "epochs": (_count(s.epochs), whole),
        "batch": (s.batch is None or _count(s.batch), whole),
        "accumulate": (_count(s.accumulate), whole),
        "patience": (s.patience is None or _count(s.patience), whole),
        "save_every": (s.save_every is None or _count(s.save_every), whole),
        "lr": (s.lr is None or s.lr == "auto" or (_number(s.lr) and float(s.lr) > 0), positive + ", or 'auto'"),
        "clip": (s.clip is None or (_number(s.clip) and s.clip > 0), positive),
        "clip_value": (s.clip_value is None or (_number(s.clip_value) and s.clip_value > 0), positive),
        "warm_up": (s.warm_up is None or (_number(s.warm_up) and s.warm_up >= 0), "a number of epochs from 0"),
        "weight_decay": (s.weight_decay is None or (_number(s.weight_decay) and s.weight_decay >= 0), "from 0"),
        "backbone_lr": (s.backbone_lr is None or (_number(s.backbone_lr) and s.backbone_lr > 0), positive),
        "layer_decay": (s.layer_decay is None or (_number(s.layer_decay) and 0 < s.layer_decay <= 1), "above 0 to 1"),
        "ema": (s.ema is None or (_number(s.ema) and 0 <= s.ema < 1), share),
        "label_smoothing": (
            s.label_smoothing is None or (_number(s.label_smoothing) and 0 <= s.label_smoothing < 1),
            share,
        ),
        "head": (s.head in ("auto", "new", "keep"), "'auto', 'new' or 'keep'"),
        "loss": (callable(s.loss) or s.loss in _LOSSES, ", ".join(_LOSSES) + ", or a function"),
        "schedule": (s.schedule is None or callable(s.schedule) or s.schedule in _KINDS, ", ".join(_KINDS)),
        "precision": (s.precision in ("float32", "bfloat16", "float16"), "float32, bfloat16 or float16"),
        "freeze": (_names(s.freeze), "'backbone', patterns of names, or a function of a name"),
        "metric": (s.metric is None or isinstance(s.metric, str), "a name such as 'accuracy' or 'loss'"),
        "balance": (isinstance(s.balance, bool), "True or False"),
        "preprocessed": (isinstance(s.preprocessed, bool), "True or False"),
        "seed": (isinstance(s.seed, int) and not isinstance(s.seed, bool) and s.seed >= 0, "an integer from 0"),
        "augment": (
            s.augment is None
            or isinstance(s.augment, Augmentation)
            or callable(s.augment)
            or s.augment in AUGMENTATIONS,
            ", ".join(AUGMENTATIONS) + ", an Augmentation, or a function",
        ),
    }
    for name, (holds, expected) in checks.items():
        if not holds:
            raise ArgumentError(f"{name} is wrong", expected=expected, received=repr(getattr(s, name)))


def make_schedule(settings: Settings, steps_per_epoch: int, *, larger: bool = False) -> Any:
    """The factor of the learning rate by step, warm-up included; a `ReduceOnPlateau` for "plateau".

    larger: whether more is better of what is measured after each epoch.
    """
    total = max(1, settings.epochs * steps_per_epoch)
    warm = min(round((settings.warm_up or 0) * steps_per_epoch), total - 1)
    rest = total - warm
    kind = settings.schedule
    if kind == "plateau":
        return schedules.ReduceOnPlateau(0.3, max(1, (settings.patience or 6) // 2), larger=larger)
    if callable(kind):
        after: schedules.Schedule = kind
        if not isinstance(after(0), int | float | np.number):
            raise ArgumentError(
                "schedule is wrong", expected="a function of the step that gives a factor", received=repr(after(0))[:80]
            )
    elif kind == "onecycle":
        return schedules.OneCycle(total)
    else:
        kinds: dict[str, schedules.Schedule] = {
            "cosine": schedules.Cosine(rest, 0.01),
            "linear": schedules.Linear(rest, 1.0, 0.01),
            "polynomial": schedules.Polynomial(rest + 1, 0.9),
            "step": schedules.Step(max(1, rest // 3)),
            "exponential": schedules.Exponential(0.01 ** (1 / rest)),
            "constant": schedules.Constant(),
        }
        after = kinds[str(kind)]
    return schedules.WarmUp(warm, after, 1 / max(warm, 1)) if warm else after
