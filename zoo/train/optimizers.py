"""Optimizers: how a step changes one array, given its gradient and what is remembered of earlier steps.

Each is a frozen set of numbers and one rule over arrays (NumPy, CuPy, or traced values, with `xp` the module of their
functions). What depends on the step's number alone is computed beforehand as plain floats, `coefficients`, so that the
rule has no conditions and can be traced. `zoo/train/updates.py` applies rules in place to whole sets of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

from zoonet.ops.errors import ArgumentError

__all__ = [
    "LAMB",
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "make_optimizer",
]

Array = Any
Slots = dict[str, Array]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Optimizer:
    """Base of optimizers. lr: learning rate, at least 0. weight_decay: at least 0.

    A subclass names its `slots` (arrays like the parameter, zero at first) and defines `update`. elementwise: whether
    each number is changed by itself, so that many parameters can be updated as one flat array.
    Raises ArgumentError for numbers out of range.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = True
    #: Fields that must lie in [0, 1).
    fractions: ClassVar[tuple[str, ...]] = ("momentum", "alpha", "rho")

    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or value is None or isinstance(value, str):
                continue
            numbers = value if isinstance(value, tuple) else (value,)
            bounded = field.name in (*self.fractions, "betas")
            for number in numbers:
                good = isinstance(number, int | float) and math.isfinite(number)
                if not good or (number < 0 and field.name != "beta2_decay") or (bounded and number >= 1):
                    raise ArgumentError(
                        f"{type(self).__name__} cannot have this {field.name}",
                        expected="a number from 0 to below 1" if bounded else "a finite number from 0",
                        received=repr(value),
                    )

    def start(self, xp: Any, parameter: Array) -> Slots:
        """What is remembered of a parameter before the first step."""
        return {name: xp.zeros_like(parameter) for name in self.slots}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The numbers of a step, counted from 1, at a learning rate; a rule takes them from its last argument."""
        return {"rate": rate}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """The new parameter and slots. Nothing is changed in place."""
        raise NotImplementedError

    def apply(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: Mapping[str, Slots],
        coefficients: Mapping[str, Any],
        xp: Any = None,
    ) -> tuple[dict[str, Array], dict[str, Slots]]:
        """A step as a function of arrays by name, (new parameters, new state), which can be traced.

        xp: what has the functions; zoonet.ops, for arrays and traced values alike, if None.
        """
        if xp is None:
            from zoonet import ops

            xp = ops
        new = {
            name: self.update(xp, array, gradients[name], state[name], dict(coefficients))
            for name, array in parameters.items()
        }
        return {name: pair[0] for name, pair in new.items()}, {name: pair[1] for name, pair in new.items()}

    def _decayed(self, parameter: Array, gradient: Array) -> Array:
        return gradient + self.weight_decay * parameter if self.weight_decay else gradient


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
        new = _moments(slots, gradient, self.betas)
        second = new["second"]
        if self.amsgrad:
            second = new["largest"] = xp.maximum(slots["largest"], second)
        change = new["first"] / (xp.sqrt(second) / c["root"] + self.eps)
        return parameter - c["size"] * change, new


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
            products.append(products[-1] * _nesterov(self.betas[0], self.momentum_decay, len(products)))
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
        new = _moments(slots, gradient, self.betas)
        change = c["of_gradient"] * gradient + c["of_first"] * new["first"]
        return parameter - change / (xp.sqrt(new["second"]) / c["root"] + self.eps), new


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
        new = _moments(slots, gradient, self.betas)
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
        return parameter - c["rate"] * (gradient / (xp.sqrt(total) + self.eps)), {"total": total}


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
        square = slots["square"] + (1 - self.alpha) * (gradient * gradient - slots["square"])
        new = {"square": square}
        if self.centered:
            new["mean"] = slots["mean"] + (1 - self.alpha) * (gradient - slots["mean"])
            square = square - new["mean"] * new["mean"]
        change = gradient / (xp.sqrt(square + self.eps) if self.tensorflow else xp.sqrt(square) + self.eps)
        if not self.momentum:
            return parameter - c["rate"] * change, new
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


@dataclass(frozen=True)
class LAMB(Optimizer):
    """LAMB (You et al., 2020): Adam's step, scaled for each parameter to the parameter's norm, as timm's Lamb.

    Parameters without weight decay are not scaled.
    """

    slots: ClassVar[tuple[str, ...]] = ("first", "second")
    elementwise: ClassVar[bool] = False

    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The corrections of the moments' bias."""
        return {"rate": rate, "of_first": 1 - self.betas[0] ** step, "root": math.sqrt(1 - self.betas[1] ** step)}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · |p| / |u| · u."""
        new = _moments(slots, gradient, self.betas)
        change = (new["first"] / c["of_first"]) / (xp.sqrt(new["second"]) / c["root"] + self.eps)
        if not self.weight_decay:
            return parameter - c["rate"] * change, new
        change = change + self.weight_decay * parameter
        size, own = xp.sqrt(xp.sum(parameter * parameter)), xp.sqrt(xp.sum(change * change))
        one = xp.ones_like(size)
        trust = xp.where((size > 0) & (own > 0), size / xp.where(own > 0, own, one), one)
        return parameter - c["rate"] * (trust * change), new


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern, 2018), as torch.optim.Adafactor: second moments by rows and columns."""

    elementwise: ClassVar[bool] = False

    lr: float = 0.01
    beta2_decay: float = -0.8
    eps: tuple[float, float] | None = None
    clip: float = 1.0

    def start(self, xp: Any, parameter: Array) -> Slots:
        """Rows and columns of a matrix (of the last two axes), or all of a vector."""
        if parameter.ndim < 2:
            return {"square": xp.zeros_like(parameter)}
        return {"rows": xp.zeros_like(parameter[..., :1]), "columns": xp.zeros_like(parameter[..., :1, :])}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The share of the new squares, and the bound of the rate."""
        kept = 1 - rate * self.weight_decay
        return {"share": step**self.beta2_decay, "rate": min(rate, 1 / math.sqrt(step)), "kept": kept}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · rms(p) · g / √v, the change clipped by its root mean square."""
        import numpy as np

        from zoonet.ops.types import as_dtype

        tiny = self.eps[0] if self.eps else float(np.finfo(as_dtype(parameter.dtype)).eps)
        least = self.eps[1] if self.eps else 1e-3
        size = xp.sqrt(xp.mean(parameter * parameter))
        scale = xp.maximum(size, xp.zeros_like(size) + least) * c["rate"]
        squares = gradient * gradient
        share = c["share"]
        if parameter.ndim < 2:
            estimate = slots["square"] + share * (squares - slots["square"])
            new = {"square": estimate}
        else:
            rows = slots["rows"] + share * (xp.mean(squares, axis=-1, keepdims=True) - slots["rows"])
            columns = slots["columns"] + share * (xp.mean(squares, axis=-2, keepdims=True) - slots["columns"])
            new = {"rows": rows, "columns": columns}
            mean = xp.mean(rows, axis=-2, keepdims=True)
            estimate = rows * columns / xp.maximum(mean, xp.zeros_like(mean) + tiny)
        change = gradient / xp.sqrt(xp.maximum(estimate, xp.zeros_like(estimate) + tiny * tiny))
        norm = xp.sqrt(xp.mean(change * change)) / self.clip
        kept = parameter * c["kept"] if self.weight_decay else parameter
        return kept - scale / xp.maximum(norm, xp.ones_like(norm)) * change, new


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan, 2024), as torch.optim.Muon, in the parameter's own precision: orthogonal steps for matrices.

    Kernels of convolutions count as matrices (outputs, rest). Vectors, for which it is not meant, are moved by AdamW at
    the rate `vector_scale` · lr. match_adam: step sizes like AdamW's, so that its rates and decay can be kept (Liu et
    al., 2025).
    """

    elementwise: ClassVar[bool] = False

    lr: float = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    iterations: int = 5
    match_adam: bool = False
    vector_scale: float = 1.0

    def start(self, xp: Any, parameter: Array) -> Slots:
        """A velocity for matrices, AdamW's moments for vectors."""
        return {n: xp.zeros_like(parameter) for n in (("velocity",) if parameter.ndim > 1 else ("first", "second"))}

    def _for_vectors(self) -> AdamW:
        return AdamW(lr=self.lr * self.vector_scale, weight_decay=0.0)

    def coefficients(self, step: int, rate: float) -> Numbers:
        """What weight decay keeps, and AdamW's numbers."""
        return self._for_vectors().coefficients(step, rate * self.vector_scale) | {
            "rate": rate,
            "kept": 1 - rate * self.weight_decay,
        }

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """p ← p - rate · orthogonalised(v)."""
        if parameter.ndim < 2:
            return self._for_vectors().update(xp, parameter, gradient, slots, c)
        velocity = self.momentum * slots["velocity"] + (1 - self.momentum) * gradient
        change = (1 - self.momentum) * gradient + self.momentum * velocity if self.nesterov else velocity
        rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
        change = _orthogonalised(xp, xp.reshape(change, (rows, columns)), self.iterations)
        scale = 0.2 * math.sqrt(max(rows, columns)) if self.match_adam else math.sqrt(max(1.0, rows / columns))
        change = xp.reshape(change, tuple(parameter.shape))
        return parameter * c["kept"] - c["rate"] * scale * change, {"velocity": velocity}


def _moments(slots: Slots, gradient: Array, betas: tuple[float, float]) -> Slots:
    """Running means of the gradient and of its square."""
    first, second = betas
    return {
        "first": first * slots["first"] + (1 - first) * gradient,
        "second": second * slots["second"] + (1 - second) * gradient * gradient,
    }


def _orthogonalised(xp: Any, matrix: Array, iterations: int) -> Array:
    """A matrix of nearly the same singular vectors whose singular values are about one, by Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = xp.transpose(matrix) if tall else matrix
    norm = xp.sqrt(xp.sum(x * x))
    x = x / xp.maximum(norm, xp.zeros_like(norm) + 1e-7)
    for _ in range(iterations):
        gram = xp.matmul(x, xp.transpose(x))
        x = 3.4445 * x + xp.matmul(-4.7750 * gram + 2.0315 * xp.matmul(gram, gram), x)
    return xp.transpose(x) if tall else x


#: Every optimizer by the name that settings and the command line use.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in (SGD, Adam, AdamW, NAdam, RAdam, Adagrad, Adadelta, RMSprop, Lion, LAMB, Adafactor, Muon)
}


def make_optimizer(optimizer: str | Optimizer, **numbers: Any) -> Optimizer:
    """An optimizer by name with these numbers, or the given one with them changed. Raises ArgumentError."""
    from dataclasses import replace

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
