"""Optimizers whose step depends on a whole parameter: on its norm, its rows and columns, its singular values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoonet.ops import cast
from zoonet.ops.types import as_dtype
from zoonet.zoo.train.optimizer import Array, Numbers, Optimizer, Slots, moments
from zoonet.zoo.train.optimizers import AdamW

__all__ = ["LAMB", "Adafactor", "Muon"]

_FLOAT = np.float32


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
        new = moments(slots, gradient, self.betas)
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
    """Muon (Jordan, 2024), as torch.optim.Muon: orthogonal steps for matrices.

    Kernels of convolutions count as matrices (outputs, rest). Vectors, for which it is not meant, are moved by AdamW at
    the rate `vector_scale` · lr. match_adam: step sizes like AdamW's, so that its rates and decay can be kept (Liu et
    al., 2025). bfloat16: steps are made orthogonal in bfloat16 whatever the parameter's dtype, as torch does it; False
    does it in the parameter's own.
    """

    elementwise: ClassVar[bool] = False

    lr: float = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    iterations: int = 5
    match_adam: bool = False
    vector_scale: float = 1.0
    bfloat16: bool = True

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
        velocity = _between(slots["velocity"], gradient, 1 - self.momentum)
        change = _between(gradient, velocity, self.momentum) if self.nesterov else velocity
        rows, columns = parameter.shape[0], math.prod(parameter.shape[1:])
        change = _orthogonalised(xp, xp.reshape(change, (rows, columns)), self.iterations, self.bfloat16)
        scale = 0.2 * math.sqrt(max(rows, columns)) if self.match_adam else math.sqrt(max(1.0, rows / columns))
        change = xp.reshape(change, tuple(parameter.shape))
        return parameter * c["kept"] - c["rate"] * scale * change, {"velocity": velocity}


def _between(start: Array, stop: Array, share: float) -> Array:
    """start + share · (stop - start), rounded once as torch.lerp does it in float32, where it counts.

    A last bit that differs would be rounded the other way in bfloat16 now and then.
    """
    if as_dtype(start.dtype) != np.float32:
        return start + share * (stop - start) if share < 0.5 else stop - (1 - share) * (stop - start)
    base, factor = (start, _FLOAT(share)) if share < 0.5 else (stop, _FLOAT(share) - _FLOAT(1))
    return cast(cast(base, "float64") + float(factor) * cast(stop - start, "float64"), "float32")


def _orthogonalised(xp: Any, matrix: Array, iterations: int, bfloat16: bool) -> Array:
    """A matrix of nearly the same singular vectors whose singular values are about one, by Newton and Schulz.

    bfloat16: each result is rounded to it. Products are summed in float32, and a sum of two terms is rounded once, as
    torch's processors do it: otherwise one number in ten thousand would be rounded the other way.
    """
    wide = "float64" if bfloat16 else matrix.dtype

    def rounded(array: Array) -> Array:
        return cast(cast(cast(array, "float32"), "bfloat16"), "float32") if bfloat16 else array

    def joined(first: float, array: Array, second: float, product: Array) -> Array:
        if not bfloat16:
            return first * array + second * product
        term = cast(product if second == 1 else _FLOAT(second) * product, wide)
        return rounded(float(_FLOAT(first)) * cast(array, wide) + term)

    tall = matrix.shape[0] > matrix.shape[1]
    x = rounded(xp.transpose(matrix) if tall else matrix)
    norm = rounded(xp.sqrt(xp.sum(x * x)))
    x = rounded(x / xp.maximum(norm, xp.zeros_like(norm) + 1e-7))
    for _ in range(iterations):
        gram = rounded(xp.matmul(x, xp.transpose(x)))
        factor = joined(-4.7750, gram, 2.0315, xp.matmul(gram, gram))
        x = joined(3.4445, x, 1, xp.matmul(factor, x))
    x = cast(x, matrix.dtype)
    return xp.transpose(x) if tall else x
