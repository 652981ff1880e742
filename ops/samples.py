"""Sample calls: each operator carries a few, and the test matrix runs every check on every one of them.

A sample is written with specifications of arrays, not arrays: the matrix makes them in the dtype that it tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops.types import DType, as_dtype, float64

__all__ = ["sample"]


@dataclass(frozen=True)
class ArraySpec:
    """An array to be made: its shape, its kind of contents, and the range that they are drawn from."""

    shape: tuple[int, ...]
    kind: str = "floats"
    low: float = -2.0
    high: float = 2.0
    dtype: str | None = None
    values: Any = None

    def make(self, generator: np.random.Generator, floating: DType = float64) -> np.ndarray[Any, Any]:
        """The array. Those of kind "floats" without a dtype of their own get the dtype `floating`."""
        dtype = as_dtype(self.dtype) if self.dtype else floating
        if self.values is not None:
            return np.asarray(self.values).astype(dtype)
        if self.kind == "ints":
            return generator.integers(int(self.low), int(self.high), self.shape).astype(dtype)
        if self.kind == "bools":
            return generator.random(self.shape) < 0.5
        if self.kind == "distinct":
            spaced = np.linspace(self.low, self.high, int(np.prod(self.shape, dtype=int)))
            return generator.permutation(spaced).reshape(self.shape).astype(dtype)
        drawn = generator.uniform(self.low, self.high, self.shape)
        if self.kind == "complexes":
            return (drawn + 1j * generator.uniform(self.low, self.high, self.shape)).astype(dtype)
        return drawn.astype(dtype)


def floats(*shape: int, low: float = -2.0, high: float = 2.0) -> ArraySpec:
    """Uniform floats in [low, high), in the dtype that is tested."""
    return ArraySpec(shape, "floats", low, high)


def distinct(*shape: int, low: float = -2.0, high: float = 2.0) -> ArraySpec:
    """Evenly spaced floats in random order: no ties, for operators that choose among elements."""
    return ArraySpec(shape, "distinct", low, high)


def float_values(values: Any) -> ArraySpec:
    """These floats, in the dtype that is tested."""
    return ArraySpec(tuple(np.shape(values)), "floats", values=values)


def ints(*shape: int, low: int = 0, high: int = 5, dtype: str = "int64") -> ArraySpec:
    """Integers in [low, high)."""
    return ArraySpec(shape, "ints", low, high, dtype)


def bools(*shape: int) -> ArraySpec:
    """Fair coin flips."""
    return ArraySpec(shape, "bools", dtype="bool")


def complexes(*shape: int, dtype: str = "complex128") -> ArraySpec:
    """Complex numbers with uniform parts."""
    return ArraySpec(shape, "complexes", dtype=dtype)


def fixed(values: Any, dtype: str) -> ArraySpec:
    """These values in this dtype, whatever dtype is tested."""
    return ArraySpec(tuple(np.shape(values)), "fixed", values=values, dtype=dtype)


@dataclass(frozen=True)
class Sample:
    """The arguments of one call, with ArraySpec in the place of arrays."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def make(self, seed: int = 0, floating: DType = float64) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with arrays made; the same seed gives the same arrays."""
        generator = np.random.default_rng(seed)

        def build(argument: Any) -> Any:
            if isinstance(argument, ArraySpec):
                return argument.make(generator, floating)
            if isinstance(argument, list | tuple):
                return type(argument)(build(item) for item in argument)
            return argument

        return build(self.args), {key: build(value) for key, value in self.kwargs.items()}


def sample(*args: Any, **kwargs: Any) -> Sample:
    """A sample call with these arguments."""
    return Sample(args, kwargs)
