"""Schedules: the learning rate of each step, as a factor of the optimizer's own, by torch.optim.lr_scheduler's names.

A schedule is a plain function of the number of steps made so far, so it needs no saving; `ReduceOnPlateau` alone
depends on a measured number and has a state.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zoonet.ops.errors import ArgumentError

__all__ = [
    "Chain",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "WarmUp",
]

#: Steps made so far -> factor of the learning rate.
Schedule = Callable[[int], float]


def _check(what: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ArgumentError("the schedule is wrong", expected=expected, received=what)


@dataclass(frozen=True)
class Constant:
    """`factor` for the first `steps` steps, then 1, as ConstantLR; always 1 by default."""

    factor: float = 1.0
    steps: int = 0

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return self.factor if step < self.steps else 1.0


@dataclass(frozen=True)
class Step:
    """Times `gamma` every `size` steps, as StepLR."""

    size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check(self, self.size > 0, "size above 0")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return float(self.gamma ** (step // self.size))


@dataclass(frozen=True)
class MultiStep:
    """Times `gamma` at each of the milestones, as MultiStepLR."""

    milestones: Sequence[int]
    gamma: float = 0.1

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return float(self.gamma ** bisect.bisect_right(sorted(self.milestones), step))


@dataclass(frozen=True)
class Exponential:
    """Times `gamma` each step, as ExponentialLR."""

    gamma: float

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return float(self.gamma**step)


@dataclass(frozen=True)
class Cosine:
    """From 1 to `minimum` in `steps` along half a cosine, and back up after that, as CosineAnnealingLR."""

    steps: int
    minimum: float = 0.0

    def __post_init__(self) -> None:
        _check(self, self.steps > 0, "steps above 0")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return _cosine(1.0, self.minimum, step / self.steps)


@dataclass(frozen=True)
class CosineRestarts:
    """A cosine of `period` steps, again and again, each `growth` times as long, as CosineAnnealingWarmRestarts."""

    period: int
    growth: int = 1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        _check(self, self.period > 0 and self.growth >= 1, "period above 0 and growth from 1")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        period = self.period
        while self.growth > 1 and step >= period:
            step, period = step - period, period * self.growth
        return _cosine(1.0, self.minimum, step % period / period)


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in `steps` along a line, as LinearLR."""

    steps: int
    start: float = 1 / 3
    end: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.steps > 0, "steps above 0")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return self.start + (self.end - self.start) * min(step, self.steps) / self.steps


@dataclass(frozen=True)
class Polynomial:
    """(1 - step / steps) to a power, as PolynomialLR."""

    steps: int
    power: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.steps > 0, "steps above 0")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        return float((1 - min(step, self.steps) / self.steps) ** self.power)


@dataclass(frozen=True)
class OneCycle:
    """Up to 1 and down (Smith & Topin, 2018), as OneCycleLR: the optimizer's rate is its max_lr.

    rise: share of the steps that goes up. start: 1 / start is the first factor. end: the last is 1 / (start · end).
    linear: along lines, not cosines. three_phases: down to the first factor at the pace of the rise, then to the last.
    """

    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4
    linear: bool = False
    three_phases: bool = False

    def __post_init__(self) -> None:
        _check(self, self.steps > 0 and 0 <= self.rise <= 1, "steps above 0 and rise from 0 to 1")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        first, last = 1 / self.start, 1 / self.start / self.end
        top = self.rise * self.steps - 1
        turns = [(top, first, 1.0), (self.steps - 1.0, 1.0, last)]
        if self.three_phases:
            turns = [(top, first, 1.0), (2 * self.rise * self.steps - 2, 1.0, first), (self.steps - 1.0, first, last)]
        begin = 0.0
        for end, low, high in turns:
            if step <= end or end == turns[-1][0]:
                share = min((step - begin) / (end - begin), 1.0) if end > begin else 1.0
                return low + (high - low) * share if self.linear else _cosine(low, high, share)
            begin = end
        return last


@dataclass(frozen=True)
class WarmUp:
    """From `start` to 1 along a line in `steps`, then another schedule from its beginning, as SequentialLR of both."""

    steps: int
    then: Schedule = Constant()
    start: float = 0.01

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        if step < self.steps:
            return self.start + (1 - self.start) * step / self.steps
        return self.then(step - self.steps)


@dataclass(frozen=True)
class Chain:
    """One schedule after the other, each from its beginning, as SequentialLR. milestones: where the next one starts."""

    schedules: Sequence[Schedule]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        fits = len(self.schedules) == len(self.milestones) + 1 and list(self.milestones) == sorted(self.milestones)
        _check(self, fits, "one rising milestone between each two schedules")

    def __call__(self, step: int) -> float:
        """The factor of a step."""
        position = bisect.bisect_right(list(self.milestones), step)
        return self.schedules[position](step - (self.milestones[position - 1] if position else 0))


class ReduceOnPlateau:
    """Times `factor` when a measured number has not improved for `patience` measurements, as ReduceLROnPlateau.

    Call `measured(number)` after each epoch; the schedule itself gives the factor of now. larger: larger is better.
    threshold: by what share of the best (or by how much, if absolute) a number must be better to count.
    """

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 10,
        *,
        larger: bool = False,
        threshold: float = 1e-4,
        absolute: bool = False,
        cooldown: int = 0,
        minimum: float = 0.0,
    ) -> None:
        _check(factor, 0 < factor < 1, "a factor between 0 and 1")
        self.factor, self.patience, self.larger = factor, patience, larger
        self.threshold, self.absolute, self.cooldown, self.minimum = threshold, absolute, cooldown, minimum
        self.state: dict[str, float] = {"factor": 1.0, "best": math.nan, "bad": 0, "cooling": 0}

    def measured(self, number: float) -> None:
        """Take a measurement."""
        state = self.state
        best = state["best"]
        change = (self.threshold if self.absolute else self.threshold * best) * (1 if self.larger else -1)
        first = math.isnan(best) and not math.isnan(number)
        if first or (number > best + change if self.larger else number < best + change):
            state["best"], state["bad"] = number, 0
        else:
            state["bad"] += 1
        if state["cooling"] > 0:
            state["cooling"], state["bad"] = state["cooling"] - 1, 0
        if state["bad"] > self.patience:
            state["factor"] = max(state["factor"] * self.factor, self.minimum)
            state["cooling"], state["bad"] = self.cooldown, 0

    def __call__(self, step: int) -> float:
        """The factor of now, whatever the step."""
        return self.state["factor"]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
