"""Batches of data, shuffled by a seed and prepared ahead by threads; the same whatever the number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError, ZoonetError
from zoonet.zoo.train.data import Data, class_weights

__all__ = ["Batch", "Loader"]

Array = Any
_AHEAD = 3  # batches that are prepared before they are asked for


@dataclass(frozen=True)
class Batch:
    """inputs: (B, …). targets: (B, …), or None. indices: of the samples. count: of them, the rest being padding.

    number: its place in the epoch, from 0; batches of which no sample could be read are not given, but counted.
    """

    inputs: Array
    targets: Array
    indices: Sequence[int]
    count: int
    number: int = 0


@dataclass
class Loader:
    """Batches of data, epoch by epoch.

    prepare: a function (sample's index, random generator) -> array; the generator depends on seed, epoch and sample
    only, and is None where nothing is shuffled. last: what becomes of a last batch that is not full: "keep" (but a
    single sample of a shuffled epoch is left out: batch norm needs two), "drop", or "pad" with its first samples.
    balance: each class is drawn equally often. corrupt: "skip" leaves samples out that cannot be read and notes them in
    `skipped`; "raise" raises. workers: threads; 0 prepares when asked.
    Raises ArgumentError for arguments out of range, InputError where nothing can be read.
    """

    data: Data
    prepare: Callable[[int, np.random.Generator | None], Array]
    batch: int = 32
    seed: int = 0
    shuffle: bool = True
    last: str = "keep"
    balance: bool = False
    corrupt: str = "skip"
    workers: int = 2
    skipped: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = {
            "batch": (isinstance(self.batch, int) and self.batch > 0, "a positive number of samples"),
            "workers": (isinstance(self.workers, int) and 0 <= self.workers <= 256, "a number of threads from 0"),
            "last": (self.last in ("keep", "drop", "pad"), "'keep', 'drop' or 'pad'"),
            "corrupt": (self.corrupt in ("skip", "raise"), "'skip' or 'raise'"),
            "seed": (isinstance(self.seed, int) and self.seed >= 0, "an integer from 0"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ArgumentError(f"{name} is wrong", expected=expected, received=repr(getattr(self, name)))
        if self.last == "drop" and self.batch > len(self.data):
            raise ArgumentError(
                "a batch is larger than the data",
                expected=f"at most {len(self.data)}",
                received=self.batch,
                fix="make batch smaller, or last='keep'",
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        whole, rest = divmod(len(self.data), self.batch)
        lone = rest == 1 and whole and self.shuffle and self.last == "keep"
        return whole + (1 if rest and self.last != "drop" and not lone else 0)

    def order(self, epoch: int) -> Array:
        """The samples of an epoch in order."""
        count = len(self.data)
        if not self.shuffle:
            return np.arange(count)
        rng = np.random.default_rng([self.seed, 1, epoch])
        if self.balance:
            return rng.choice(count, count, p=class_weights(self.data.targets))
        return rng.permutation(count)

    def epoch(self, number: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `start` on."""
        order = self.order(number)
        groups = [order[i * self.batch : (i + 1) * self.batch] for i in range(start, len(self))]
        if not self.workers:
            for place, group in enumerate(groups, start):
                yield from self._assemble(place, group, [self._prepared(i, number) for i in group])
            return
        with ThreadPoolExecutor(self.workers, thread_name_prefix="zoonet-data") as pool:
            waiting: deque[tuple[int, Array, list[Future[Any]]]] = deque()
            try:
                for place, group in enumerate(groups, start):
                    waiting.append((place, group, [pool.submit(self._prepared, i, number) for i in group]))
                    if len(waiting) > _AHEAD:
                        yield from self._next(waiting)
                while waiting:
                    yield from self._next(waiting)
            finally:
                for _, _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _next(self, waiting: deque[tuple[int, Array, list[Future[Any]]]]) -> Iterator[Batch]:
        place, group, futures = waiting.popleft()
        yield from self._assemble(place, group, [future.result() for future in futures])

    def _prepared(self, index: int, epoch: int) -> Any:
        """The sample's array, or the error that reading it gave."""
        rng = np.random.default_rng([self.seed, 2, epoch, int(index)]) if self.shuffle else None
        try:
            return self.prepare(int(index), rng)
        except ZoonetError as error:
            if self.corrupt == "raise":
                raise
            return error

    def _assemble(self, place: int, group: Array, arrays: list[Any]) -> Iterator[Batch]:
        for index, array in zip(group, arrays, strict=True):
            if isinstance(array, ZoonetError):
                self.skipped[int(index)] = str(array)
        if len(self.skipped) == len(self.data):
            raise InputError(f"nothing in {self.data.source} can be read", received=next(iter(self.skipped.values())))
        kept = [i for i, array in enumerate(arrays) if not isinstance(array, ZoonetError)]
        if not kept:
            return
        indices, count = [int(group[i]) for i in kept], len(kept)
        chosen = [arrays[i] for i in kept]
        if self.last == "pad":
            missing = self.batch - count
            indices += [indices[i % count] for i in range(missing)]
            chosen += [chosen[i % count] for i in range(missing)]
        shapes = {np.shape(array) for array in chosen}
        if len(shapes) > 1:
            raise InputError(
                "samples of a batch differ in shape",
                expected=list(np.shape(chosen[0])),
                received=next(list(s) for s in shapes if s != np.shape(chosen[0])),
                fix="give preprocessing that makes all one size, or batch=1",
            )
        targets = None if self.data.targets is None else self.data.targets[indices]
        yield Batch(np.stack(chosen), targets, indices, count, place)
