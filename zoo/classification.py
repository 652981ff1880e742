"""The task of image classification: pictures in, a `Classification` each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.pictures import Source, find_pictures, is_several
from zoonet.zoo.results import Classification, Results


class Preprocessing(Protocol):
    """What turns a picture into a network's input."""

    @property
    def mode(self) -> str:
        """The PIL mode of the pictures that it takes: "RGB" or "L"."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every result, or None where it depends on the picture."""

    def __call__(self, image: Any) -> np.ndarray[Any, Any]:
        """A PIL image of `mode` -> float32 (channels, height, width)."""

    def to_config(self) -> dict[str, Any]:
        """Plain data for a configuration file."""


def softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities over the last axis, in float64."""
    scores = scores.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: np.ndarray[Any, Any] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def classify(
    call: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    preprocessing: Preprocessing,
    labels: Sequence[str],
    source: Any,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Classification | Results:
    """Run a network over pictures, `batch` at a time; one result for one picture, Results for several.

    call: the network, float32 (N, channels, H, W) -> scores (N, classes). source: see `find_pictures`. progress:
    called with (done, total) after each batch. Raises InputError, FormatError or MissingFileError for bad input.
    """
    if not isinstance(batch, int) or batch < 1:
        raise ArgumentError("batch is wrong", expected="a positive number of pictures", received=batch)
    sources = find_pictures(source)
    results = Results()
    for group, inputs in _batches(sources, preprocessing, batch):
        scores = softmax(call(inputs))
        if not np.isfinite(scores).all():
            raise InputError(
                f"the network gives scores that are not numbers for {group[0].name}",
                expected="finite numbers",
                fix="check the weights",
            )
        results += [Classification(s.name, row, labels) for s, row in zip(group, scores, strict=True)]
        if progress is not None:
            progress(len(results), len(sources))
    return results if is_several(source) else results[0]


def _batches(
    sources: list[Source], preprocessing: Preprocessing, batch: int
) -> Iterator[tuple[list[Source], np.ndarray[Any, Any]]]:
    """Groups of at most `batch` pictures and their arrays; pictures of a batch have one size."""
    group: list[Source] = []
    arrays: list[np.ndarray[Any, Any]] = []
    for source in sources:
        array = preprocessing(source.open(preprocessing.mode))
        if arrays and (len(arrays) == batch or array.shape != arrays[0].shape):
            yield group, np.stack(arrays)
            group, arrays = [], []
        group.append(source)
        arrays.append(array)
    yield group, np.stack(arrays)
