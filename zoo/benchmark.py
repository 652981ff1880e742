"""How long a model takes on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.types import TensorType, is_floating
from zoonet.zoo.model import Model

__all__ = ["Benchmark", "benchmark", "sample_inputs"]


@dataclass(frozen=True)
class Benchmark:
    """Times of a network on arrays, in seconds: the first run, which compiles, and those that follow.

    inputs: types of the inputs. batch: the length of their first axis.
    """

    name: str
    device: str
    inputs: tuple[str, ...]
    batch: int
    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds of the median run."""
        return statistics.median(self.seconds)

    @property
    def per_second(self) -> float:
        """Items in a second, by the median."""
        return self.batch / self.median

    def __str__(self) -> str:
        return (
            f"{self.name} on {self.device}, {' and '.join(self.inputs)}\n"
            f"first run {self.first * 1e3:.1f} ms, with compiling; then the median of {len(self.seconds)} runs is "
            f"{self.median * 1e3:.2f} ms, the minimum {min(self.seconds) * 1e3:.2f} ms: {self.per_second:.1f} a second"
        )

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "median": self.median, "minimum": min(self.seconds), "per_second": self.per_second}


def benchmark(
    model: Model, *, batch: int = 1, rounds: int = 20, progress: Callable[[int, int], None] | None = None
) -> Benchmark:
    """Time the network of a model on its usual inputs, with `batch` items; nothing of pre- and postprocessing.

    Raises ArgumentError for a batch or a number of rounds below 1, InputError where the network takes no such batch.
    """
    for name, value in (("batch", batch), ("rounds", rounds)):
        if value < 1:
            raise ArgumentError(f"the {name} of a benchmark is too small", expected="1 or more", received=value)
    types = [
        TensorType((batch, *kind.shape[1:]) if kind.shape else (), kind.dtype)
        for kind in model.task.example(model.network)
    ]
    arrays = [ops.to_device(array, model.device) for array in sample_inputs(types)]
    seconds = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        model(*arrays)
        _wait_for(model.device)
        seconds.append(time.perf_counter() - start)
        if progress is not None:
            progress(number, rounds)
    return Benchmark(
        model.card.name or model.architecture,
        model.device,
        tuple(str(kind) for kind in types),
        batch,
        seconds[0],
        tuple(seconds[1:]),
    )


def sample_inputs(types: Any, seed: int = 0) -> list[Any]:
    """Arrays of the given types, always the same: normally distributed floats; integers 0 and 1."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=kind.shape).astype(kind.dtype)
        if is_floating(kind.dtype)
        else rng.integers(0, 2, kind.shape).astype(kind.dtype)
        for kind in types
    ]


def _wait_for(device: str) -> None:
    """Work on a GPU is only asked for when a call returns."""
    if device != "cpu":
        import cupy

        cupy.cuda.get_current_stream().synchronize()
