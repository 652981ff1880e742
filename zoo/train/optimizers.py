"""Optimizers that change each number by itself: SGD, Adam and its kin, and what came before them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.train.optimizer import Array, Numbers, Optimizer, Slots, moments

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Lion", "NAdam", "RAdam", "RMSprop"]


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as torch.optim.SGD. The first step is not dampened."""

    lr: float = 0.01
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (not self.momentum or self.dampening):
            raise ArgumentError("Nesterov momentum needs momentum and no dampening", received=self)

    def start(self, xp: Any, parameter: Array) -> Slots:
        """A velocity, if there is momentum."""
        return {"velocity": xp.zeros_like(parameter)} if self.momentum else {}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The share of the gradient in the velocity."""
        return {"rate": rate, "share": 1.0 if step == 1 else 1.0 - self.dampening}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · v, v ← momentum · v + g."""
        gradient = self._decayed(parameter, gradient)
        if not self.momentum:
            return parameter - c["rate"] * gradient, {}
        velocity = self.momentum * slots["velocity"] + c["share"] * gradient
        change = gradient + self.momentum * velocity if self.nesterov else velocity
        return parameter - c["rate"] * change, {"velocity": velocity}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015), as torch.optim.Adam; decay is added to the gradient."""

    slots: ClassVar[tuple[str, ...]] = ("first", "second")

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False
    decoupled: bool = False

    def start(self, xp: Any, parameter: Array) -> Slots:
        """First and second moment."""
        return {n: xp.zeros_like(parameter) for n in (*self.slots, *(("largest",) if self.amsgrad else ()))}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The corrections of the moments' bias."""
        first, second = self.betas
        return {
            "rate": rate,
            "size": rate / (1 - first**step),
            "root": math.sqrt(1 - second**step),
            "kept": 1 - rate * self.weight_decay if self.decoupled else 1.0,
        }

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · m̂ / (√v̂ + eps)."""
        if self.decoupled:
            parameter = parameter * c["kept"] if self.weight_decay else parameter
        else:
            gradient = self._decayed(parameter, gradient)
        new = moments(slots, gradient, self.betas)
        second = new["second"]
        if self.amsgrad:
            second = new["largest"] = xp.maximum(slots["largest"], second)
        return parameter - c["size"] * new["first"] / (xp.sqrt(second) / c["root"] + self.eps), new


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), as torch.optim.AdamW."""

    weight_decay: float = 0.01
    decoupled: bool = True


@dataclass(frozen=True)
class NAdam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016), as torch.optim.NAdam."""

    slots: ClassVar[tuple[str, ...]] = ("first", "second")

    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum_decay: float = 4e-3
    decoupled: bool = False

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The momenta of this step and the next, and their products."""

        now, following = (_nesterov(self.betas[0], self.momentum_decay, number) for number in (step, step + 1))
        products = _nesterov_products(self.betas[0], self.momentum_decay)
        while len(products) <= step:
            momentum = _nesterov(self.betas[0], self.momentum_decay, len(products))
            products.append(float(np.float32(products[-1]) * np.float32(momentum)))  # torch keeps it in float32
        product = products[step]
        return {
            "of_gradient": rate * (1 - now) / (1 - product),
            "of_first": rate * following / (1 - product * following),
            "root": math.sqrt(1 - self.betas[1] ** step),
            "kept": 1 - rate * self.weight_decay if self.decoupled else 1.0,
        }

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - (a · g + b · m) / (√v̂ + eps)."""
        if self.decoupled:
            parameter = parameter * c["kept"]
        else:
            gradient = self._decayed(parameter, gradient)
        new = moments(slots, gradient, self.betas)
        size = xp.sqrt(new["second"]) / c["root"] + self.eps
        return parameter - c["of_gradient"] * gradient / size - c["of_first"] * new["first"] / size, new


def _nesterov(beta: float, decay: float, step: int) -> float:
    """NAdam's momentum at a step."""
    return beta * (1.0 - 0.5 * math.pow(0.96, step * decay))


@cache
def _nesterov_products(beta: float, decay: float) -> list[float]:
    """Products of the momenta of the first 0, 1, 2, … steps, as far as they were asked for."""
    return [1.0]


@dataclass(frozen=True)
class RAdam(Optimizer):
    """Rectified Adam (Liu et al., 2020), as torch.optim.RAdam."""

    slots: ClassVar[tuple[str, ...]] = ("first", "second")

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled: bool = False

    def coefficients(self, step: int, rate: float) -> Numbers:
        """Whether, and how much, the step is rectified: `plain` or `adaptive` is zero."""
        first, second = self.betas
        last = 2 / (1 - second) - 1
        correction = 1 - second**step
        length = last - 2 * step * second**step / correction
        size = rate / (1 - first**step)
        kept = 1 - rate * self.weight_decay if self.decoupled else 1.0
        if length <= 5:
            return {"plain": size, "adaptive": 0.0, "kept": kept}
        rectified = (length - 4) * (length - 2) * last / ((last - 4) * (last - 2) * length)
        return {"plain": 0.0, "adaptive": size * math.sqrt(rectified * correction), "kept": kept}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · m̂, with Adam's denominator once its variance is known."""
        if self.decoupled:
            parameter = parameter * c["kept"]
        else:
            gradient = self._decayed(parameter, gradient)
        new = moments(slots, gradient, self.betas)
        return parameter - new["first"] * (c["plain"] + c["adaptive"] / (xp.sqrt(new["second"]) + self.eps)), new


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011), as torch.optim.Adagrad."""

    lr: float = 0.01
    lr_decay: float = 0.0
    initial: float = 0.0
    eps: float = 1e-10

    def start(self, xp: Any, parameter: Array) -> Slots:
        """The sum of squares."""
        return {"total": xp.zeros_like(parameter) + self.initial}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The rate, decayed."""
        return {"rate": rate / (1 + (step - 1) * self.lr_decay)}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · g / (√Σg² + eps)."""
        gradient = self._decayed(parameter, gradient)
        total = slots["total"] + gradient * gradient
        return parameter - c["rate"] * gradient / (xp.sqrt(total) + self.eps), {"total": total}


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """Adadelta (Zeiler, 2012), as torch.optim.Adadelta."""

    slots: ClassVar[tuple[str, ...]] = ("square", "change")

    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · g · √(change + eps) / √(square + eps)."""
        gradient = self._decayed(parameter, gradient)
        square = self.rho * slots["square"] + (1 - self.rho) * gradient * gradient
        change = xp.sqrt(slots["change"] + self.eps) / xp.sqrt(square + self.eps) * gradient
        total = self.rho * slots["change"] + (1 - self.rho) * change * change
        return parameter - c["rate"] * change, {"square": square, "change": total}


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop (Hinton, 2012), as torch.optim.RMSprop.

    tensorflow: the form of TensorFlow 1, which EfficientNets and MobileNets were trained with: squares start at one,
    eps stands under the root, and the rate goes into the momentum.
    """

    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    tensorflow: bool = False

    def start(self, xp: Any, parameter: Array) -> Slots:
        """Squares, and mean and velocity where they are used."""
        zeros = xp.zeros_like(parameter)
        slots = {"square": zeros + 1 if self.tensorflow else zeros}
        if self.centered:
            slots["mean"] = xp.zeros_like(parameter)
        if self.momentum:
            slots["velocity"] = xp.zeros_like(parameter)
        return slots

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · g / (√square + eps)."""
        gradient = self._decayed(parameter, gradient)
        if self.tensorflow:
            square = slots["square"] + (1 - self.alpha) * (gradient * gradient - slots["square"])
        else:
            square = self.alpha * slots["square"] + (1 - self.alpha) * gradient * gradient
        new = {"square": square}
        if self.centered:
            new["mean"] = slots["mean"] + (1 - self.alpha) * (gradient - slots["mean"])
            square = square - new["mean"] * new["mean"]
        size = xp.sqrt(square + self.eps) if self.tensorflow else xp.sqrt(square) + self.eps
        if not self.momentum:
            return parameter - c["rate"] * gradient / size, new
        change = gradient / size
        if self.tensorflow:
            new["velocity"] = self.momentum * slots["velocity"] + c["rate"] * change
            return parameter - new["velocity"], new
        new["velocity"] = self.momentum * slots["velocity"] + change
        return parameter - c["rate"] * new["velocity"], new


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al., 2023): the sign of a momentum; decay is decoupled."""

    slots: ClassVar[tuple[str, ...]] = ("first",)

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)

    def coefficients(self, step: int, rate: float) -> Numbers:
        """What weight decay keeps."""
        return {"rate": rate, "kept": 1 - rate * self.weight_decay}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · sign(β₁m + (1 - β₁)g)."""
        kept, following = self.betas
        change = xp.sign(kept * slots["first"] + (1 - kept) * gradient)
        first = following * slots["first"] + (1 - following) * gradient
        return parameter * c["kept"] - c["rate"] * change, {"first": first}
