"""Training in the style of Knet: batches and optimizers as lazy iterators, which one composes oneself.

    batches = minibatch(x, y, 64, shuffle=True)
    for loss in progress(adam(model, repeat(batches, 5), lr=1e-3)): ...
    for loss in converge(sgd(model, cycle(batches), lr=0.1)): ...

After each step the model has new weights; nothing is computed before it is asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError, TrainingError
from zoonet.ops.types import is_floating
from zoonet.zoo.modules import Module, assign
from zoonet.zoo.train.objective import Objective
from zoonet.zoo.train.optimizer import Optimizer
from zoonet.zoo.train.optimizer_table import OPTIMIZERS, make_optimizer
from zoonet.zoo.train.step import Gradients, first_not_finite
from zoonet.zoo.train.updates import Updates

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = [
    "Minibatch",
    "adadelta",
    "adagrad",
    "adam",
    "adamw",
    "converge",
    "goldensection",
    "hyperband",
    "minibatch",
    "minimize",
    "momentum",
    "nesterov",
    "progress",
    "repeat",
    "rmsprop",
    "sgd",
]

Array = Any
Item = TypeVar("Item")


class Minibatch:
    """Batches of arrays along their first axis; each iteration over it is an epoch, in a new order if it shuffles."""

    def __init__(self, arrays: tuple[Array, ...], size: int, shuffle: bool, partial: bool, seed: int) -> None:
        self.arrays, self.size, self.shuffle, self.partial = arrays, size, shuffle, partial
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.arrays[0]), self.size)
        return whole + bool(rest and self.partial)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.arrays[0])
        order = self._rng.permutation(count) if self.shuffle else np.arange(count)
        for number in range(len(self)):
            chosen = order[number * self.size : (number + 1) * self.size]
            batch = tuple([array[chosen] for array in self.arrays])
            yield batch if len(batch) > 1 else batch[0]


def minibatch(
    x: Array, y: Array = None, size: int = 100, *, shuffle: bool = False, partial: bool = False, seed: int = 0
) -> Minibatch:
    """Batches (x, y), or of x alone, of `size` samples. partial: a last batch that is not full is given too.

    Raises InputError where x and y differ in length, ArgumentError for a size below 1 or above the data.
    """
    try:
        arrays = tuple([np.asarray(a) if not ops.is_array(a) else a for a in ((x,) if y is None else (x, y))])
    except ValueError as error:
        raise InputError("minibatch takes arrays", expected="minibatch(x, y, size)", received=error) from None
    if any(a.ndim == 0 or len(a) != len(arrays[0]) for a in arrays):
        raise InputError(
            "the arrays of a minibatch differ in length",
            expected=f"{len(arrays[0]) if arrays[0].ndim else 1} samples each",
            received=", ".join(str(len(a)) if a.ndim else "a number" for a in arrays),
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= max(1, len(arrays[0])):
        raise ArgumentError("the size of a batch is wrong", expected=f"1 to {len(arrays[0])}", received=repr(size))
    return Minibatch(arrays, size, shuffle, partial, seed)


def repeat(data: Iterable[Item], times: int) -> Iterator[Item]:
    """The items of data, iterated anew `times` times: epochs, each shuffled by itself."""
    for _ in range(times):
        yield from data


def minimize(
    model: Model | Module,
    data: Iterable[tuple[Array, Array]],
    optimizer: str | Optimizer,
    *,
    loss: str | Callable[..., Any] = "auto",
    seed: int = 0,
    **numbers: Any,
) -> Iterator[float]:
    """The losses of steps, one for each batch (x, y) of data; a step is made when its loss is asked for.

    model: a `Model` or a `Module`, trained in place. loss: "cross_entropy", "mse", …, or a function (outputs, targets)
    -> number; by the targets' kind for "auto". numbers: fields of the optimizer, such as lr. Raises ArgumentError for
    those it has not, TrainingError for a loss that is no number.
    """
    network = model if isinstance(model, Module) else getattr(model, "network", None)
    if network is None:
        raise ArgumentError("this cannot be trained", expected="a Model or a Module", received=type(model).__name__)
    return _steps(model, network, data, make_optimizer(optimizer, **numbers), loss, ops.random_key(seed))


def _steps(
    model: Any, network: Module, data: Iterable[Any], rule: Optimizer, loss: str | Callable[..., Any], key: Array
) -> Iterator[float]:
    updates = Updates(rule, {n: a for n, a in network.named_parameters() if is_floating(a.dtype)})
    assign(network, updates.parameters)
    device = ops.device_of(next(iter(updates.parameters.values())))
    one = ops.to_device(np.ones((), np.float32), device)
    gradients: Gradients | None = None
    network.train()
    try:
        for number, batch in enumerate(data):
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise InputError("a batch is not a pair", expected="(inputs, targets)", received=type(batch).__name__)
            inputs, targets = (ops.to_device(a if ops.is_array(a) else np.asarray(a), device) for a in batch)
            if gradients is None:
                gradients = Gradients(network, _objective(loss, targets), device=device)
            step_key = ops.to_device(ops.random_fold_in(key, np.int64(number)), device)
            state = dict(network.named_buffers())
            value, found, new = gradients(updates.parameters, state, inputs, targets, step_key, one)
            if not math.isfinite(float(value)):
                where = first_not_finite(network, gradients.objective, inputs, step_key, found)
                raise TrainingError(
                    f"training stopped at step {number + 1}: the loss is {float(value)}",
                    received=f"the first that is not finite: {where}",
                    fix="a smaller lr",
                )
            updates.step(found)
            assign(network, new)
            if model is not network:
                model.recompile()
            yield float(value)
    finally:
        network.eval()
        assign(network, {name: ops.array_module(a).array(a) for name, a in updates.parameters.items()})


def _objective(loss: str | Callable[..., Any], targets: Array) -> Objective:
    if callable(loss):
        return Objective("own", function=loss)
    name = loss if loss != "auto" else "mse" if is_floating(targets.dtype) else "cross_entropy"
    if name not in ("cross_entropy", "mse", "l1", "huber", "bce"):
        raise ArgumentError("there is no such loss", expected="cross_entropy, mse, l1, huber or bce", received=name)
    return Objective(name, 1 if name == "cross_entropy" else 0)


def sgd(model: Model | Module, data: Iterable[Any], lr: float = 0.1, **options: Any) -> Iterator[float]:
    """Losses of plain gradient descent; see `minimize`."""
    return minimize(model, data, "sgd", lr=lr, **options)


def momentum(
    model: Model | Module, data: Iterable[Any], lr: float = 0.05, gamma: float = 0.95, **options: Any
) -> Iterator[float]:
    """Losses of gradient descent with momentum gamma; see `minimize`."""
    return minimize(model, data, "sgd", lr=lr, momentum=gamma, **options)


def nesterov(
    model: Model | Module, data: Iterable[Any], lr: float = 0.05, gamma: float = 0.95, **options: Any
) -> Iterator[float]:
    """Losses of gradient descent with Nesterov's momentum gamma; see `minimize`."""
    return minimize(model, data, "sgd", lr=lr, momentum=gamma, nesterov=True, **options)


def _by_name(name: str) -> Callable[..., Iterator[float]]:
    def optimizer(model: Model | Module, data: Iterable[Any], **options: Any) -> Iterator[float]:
        return minimize(model, data, name, **options)

    optimizer.__name__ = name
    optimizer.__doc__ = f"Losses of steps by {OPTIMIZERS[name].__name__}; see `minimize`."
    return optimizer


adam, adamw, adagrad, adadelta, rmsprop = map(_by_name, ("adam", "adamw", "adagrad", "adadelta", "rmsprop"))


def converge(losses: Iterable[float], alpha: float = 0.1) -> Iterator[float]:
    """The losses for as long as they fall: until the running mean of their differences from their own is above 0.

    alpha: weight of the newest in both running means. Raises ArgumentError for alpha outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ArgumentError("alpha is wrong", expected="above 0 to 1", received=alpha)

    def falling() -> Iterator[float]:
        mean, trend = math.inf, 0.0
        for loss in losses:
            mean = loss if math.isinf(mean) else mean
            trend = alpha * (loss - mean) + (1 - alpha) * trend
            mean = alpha * loss + (1 - alpha) * mean
            if trend > 0:
                return
            yield loss

    return falling()


def progress(items: Iterable[Item], *, title: str = "", show: bool = True) -> Iterator[Item]:
    """The items as they are, with a bar on standard error that shows how many, how fast, and the last number."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from zoonet.zoo.commands.output import console

    total = len(items) if isinstance(items, Sized) else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    output = console(stderr=True)
    with Progress(*columns, console=output, transient=True, disable=not (show and output.is_terminal)) as bar:
        task = bar.add_task(title, total=total, text="")
        began = time.perf_counter()
        for count, item in enumerate(items, start=1):
            yield item
            number = f"{item:.4g}  " if isinstance(item, float) else ""
            bar.update(task, advance=1, text=f"{number}{count / max(time.perf_counter() - began, 1e-9):.1f}/s")


def goldensection(
    function: Callable[[Array], float], n: int, *, step: float = 0.1, growth: float = (1 + math.sqrt(5)) / 2
) -> tuple[float, Array]:
    """(least value, where) of a function of n numbers, by golden section searches in all directions at once, as Knet's.

    The search starts at zeros with steps of one, and goes each time where most gain is expected; no point is asked for
    twice. It is for few evaluations of a costly function, such as a loss by the logarithms of learning rate and weight
    decay. step: stop where steps are smaller. growth: of steps that lead down; others shrink by it and turn round.
    Where the function is nan it is not gone. Raises ArgumentError for n, step or growth out of range.
    """
    if not isinstance(n, int) or n < 1 or not step > 0 or not 1 < growth < math.inf:
        raise ArgumentError(
            "goldensection is asked for the impossible", expected="n from 1, step above 0, growth above 1"
        )
    known: list[tuple[Array, float]] = []

    def value(x: Array) -> float:
        for point, found in known:
            if np.allclose(point, x, rtol=1e-8, atol=1e-12):
                return found
        known.append((x, float(function(x.copy()))))
        return known[-1][1]

    x, steps, gains = np.zeros(n), np.ones(n), np.full(n, math.inf)
    best = value(x)
    best = math.inf if math.isnan(best) else best
    while np.abs(steps).max() >= step:
        axis = int(gains.argmax())
        trial = x.copy()
        trial[axis] += steps[axis]
        found = value(trial)
        if found < best:
            gains[axis], steps[axis] = growth * (best - found), growth * steps[axis]
            x, best = trial, found
            settled = np.abs(steps) < step * growth  # elsewhere: they are worth another try
            steps[settled] = np.copysign(step * growth, steps[settled])
            gains[settled] = np.maximum(gains[settled], 0)
        else:
            lost = gains[axis] if math.isnan(found) or math.isinf(best) else found - best
            gains[axis], steps[axis] = lost / growth, -steps[axis] / growth
            if abs(steps[axis]) < step:
                gains[axis] = -1
    return best, x


def hyperband(
    configuration: Callable[[], Any], loss: Callable[[Any, int], float], *, most: int = 27, reduction: int = 3
) -> tuple[float, Any]:
    """(least loss, its configuration), by Hyperband (Li et al., 2018).

    configuration: draws one at random. loss: of a configuration after so many units (epochs). most: units that one may
    have. reduction: of the candidates from round to round. Raises ArgumentError for most or reduction out of range.
    """
    if not isinstance(most, int) or most < 1 or not isinstance(reduction, int) or reduction < 2:
        raise ArgumentError("hyperband is asked for the impossible", expected="most from 1, reduction from 2")
    rounds = 0
    while reduction ** (rounds + 1) <= most:
        rounds += 1
    best: tuple[float, Any] = (math.inf, None)
    for bracket in range(rounds, -1, -1):
        count = math.ceil((rounds + 1) / (bracket + 1) * reduction**bracket)
        units = most / reduction**bracket
        candidates = [configuration() for _ in range(count)]
        for halving in range(bracket + 1):
            amount = max(1, round(units * reduction**halving))
            losses = [float(loss(candidate, amount)) for candidate in candidates]
            losses = [math.inf if math.isnan(number) else number for number in losses]
            order = sorted(range(len(candidates)), key=lambda i, found=losses: found[i])  # type: ignore[misc]
            if losses[order[0]] < best[0] or best[1] is None:
                best = (losses[order[0]], candidates[order[0]])
            kept = max(1, len(candidates) // reduction)
            candidates = [candidates[i] for i in order[:kept]]
    return best
