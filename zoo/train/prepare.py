"""How samples become arrays: pictures by preprocessing, with augmentation in training; arrays as they are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import InputError
from zoonet.ops.types import DType, is_floating
from zoonet.zoo.pictures import find_pictures
from zoonet.zoo.preprocessing import ImagePreprocessing
from zoonet.zoo.train.augment import Augmentation
from zoonet.zoo.train.data import Data

__all__ = ["Arrays", "Pictures", "unreadable"]

Array = Any
Generator = np.random.Generator
CACHE = 256 << 20  # bytes of decoded pictures that are kept


class Pictures:
    """prepare(index, generator) -> float32 (channels, H, W), for a model that takes pictures.

    generator: for augmentation; None prepares as `model.run` does. Up to `CACHE` bytes are kept between epochs: arrays
    where augmentation changes only these, decoded pictures elsewhere.
    """

    def __init__(self, data: Data, preprocessing: Any, augmentation: Augmentation) -> None:
        self.data, self.preprocessing, self.augmentation = data, preprocessing, augmentation
        self._whole = preprocessing  # what follows a random cut: resizing to the network's size
        shape = preprocessing.shape
        cuts = isinstance(preprocessing, ImagePreprocessing) and shape is not None
        if cuts:
            self._whole = replace(preprocessing, resize=shape[1:], crop=None)
        self._given = augmentation if cuts else replace(augmentation, crop=None)
        self._kept: dict[int, Any] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def image(self, index: int) -> Any:
        """The decoded picture of a sample. Raises FormatError, InputError or MissingFileError."""
        sources = find_pictures(self.data.inputs[index])
        if len(sources) != 1:
            raise InputError(f"{self.data.name(index)} is not one picture", received=f"{len(sources)}")
        return sources[0].open(self.preprocessing.mode)

    def _remembered(self, index: int, make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        found = self._kept.get(index)
        if found is None:
            found = make()
            with self._lock:
                if self._bytes + size(found) <= CACHE and index not in self._kept:
                    self._kept[index] = found
                    self._bytes += size(found)
        return found

    def __call__(self, index: int, rng: Generator | None) -> Array:
        """The sample's array."""
        try:
            if rng is None or not self._given.changes_pictures:
                array = self._remembered(
                    index, lambda: self.preprocessing(self.image(index)), lambda found: int(found.nbytes)
                )
                return array if rng is None else self._given.array(array, rng)
            image = self._remembered(
                index, lambda: self.image(index), lambda found: found.width * found.height * len(found.getbands())
            )
            prepared = self._whole if self._given.crop is not None else self.preprocessing
            return self._given.array(prepared(self._given.picture(image, rng)), rng)
        except InputError as error:
            name = self.data.name(index)
            if error.message.startswith(name):
                raise
            raise InputError(f"{name}: {error.message}", expected=error.expected, received=error.received) from None


class Arrays:
    """prepare(index, generator) -> the sample as an array in the network's dtype; integers stay integers."""

    def __init__(self, data: Data, dtype: DType, augmentation: Augmentation) -> None:
        self.data, self.dtype, self.augmentation = data, dtype, augmentation

    def __call__(self, index: int, rng: Generator | None) -> Array:
        """The sample's array."""
        item = self.data.inputs[index]
        try:
            array = np.asarray(ops.to_device(item, "cpu") if ops.is_array(item) else item)
        except ValueError as error:
            raise InputError(f"{self.data.name(index)} is no array", received=error) from None
        if array.dtype.kind in "OUSmMV" and not is_floating(array.dtype):
            raise InputError(f"{self.data.name(index)} is no array of numbers", received=array.dtype)
        if array.dtype.kind == "f" or is_floating(array.dtype):
            array = array.astype(self.dtype, copy=False)
        if rng is not None and (array.ndim == 3 or self.augmentation.function is not None):
            array = self.augmentation.array(array, rng)
        return array


def check_arrays(data: Data) -> None:
    """Raise InputError where the samples are files, which only models for pictures and texts take."""
    item = data.inputs[0]
    if isinstance(item, str | os.PathLike):
        raise InputError(
            "the model takes arrays, and the data are files",
            expected="arrays",
            received=str(item)[:200],
            fix='say what it is: zoo.load(path, task="image-classification", preprocessing=…), or --preprocessing',
        )


def unreadable(data: Data) -> dict[int, str]:
    """Files among pictures whose beginning shows that they cannot be read, and why; nothing is decoded."""
    from PIL import Image

    found: dict[int, str] = {}
    for index, item in enumerate(data.inputs):
        if not isinstance(item, str | os.PathLike):
            continue
        try:
            with Image.open(item):
                pass
        except Exception as error:  # decoders raise almost anything on hostile bytes
            found[index] = f"{item}: {type(error).__name__}: {error}"
    return found


Prepare = Callable[[int, Generator | None], Array]
