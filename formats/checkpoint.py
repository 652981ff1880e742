"""Named lazy arrays: what every weights file becomes once read, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from zoonet.ops.errors import FormatError

Array = np.ndarray[Any, Any]


class LazyTensor:
    """One array of a file: its shape and dtype are known, its contents are read by `load()`.

    shape: tuple of non-negative ints. dtype: NumPy dtype (ml_dtypes for bfloat16, float8 and smaller).
    identity: two tensors with the same identity (not None) are one tensor under two names ("tied weights").
    """

    __slots__ = ("_load", "dtype", "identity", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        load: Callable[[], Array],
        identity: Hashable | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.identity = identity
        self._load = load

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the loaded array takes."""
        return self.size * self.dtype.itemsize

    def load(self) -> Array:
        """Return the array (`shape`, `dtype`, native byte order); nothing is cached.

        The array may be a read-only view of the mapped file: copy it before changing it.
        Raises FormatError where the file does not hold what it declares, also a shape that no array can have: an empty
        one may say any.
        """
        if 0 in self.shape and math.prod(n or 1 for n in self.shape) * self.dtype.itemsize >= 1 << 63:
            raise FormatError("a tensor of a shape that no array can have", received=self.shape)
        array = self._load()
        if array.shape != self.shape or array.dtype != self.dtype:
            raise FormatError(
                "a tensor does not have the shape and dtype that its file declares",
                expected=f"{self.dtype} {self.shape}",
                received=f"{array.dtype} {array.shape}",
                fix="the file is corrupt: obtain it again",
            )
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.load(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"LazyTensor(shape={self.shape}, dtype={self.dtype})"


def as_lazy(value: Any) -> LazyTensor:
    """Wrap an array (or anything that NumPy makes an array of) as a LazyTensor; a LazyTensor is returned as it is."""
    if isinstance(value, LazyTensor):
        return value
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise FormatError(
            "a value to write is not an array of numbers",
            expected="a numeric or boolean array",
            received=type(value).__name__,
        )
    native = array.dtype.newbyteorder("=")
    return LazyTensor(array.shape, native, lambda: array.astype(native, copy=False), identity=id(array))


class Checkpoint(Mapping[str, LazyTensor]):
    """A mapping from names to lazy arrays, in the order of the file, with what else the file says.

    metadata: plain data (numbers, strings, lists, dicts; LazyTensor where the file keeps arrays outside its
    weights, such as optimizer state). format: the name of the format it was read from.
    original_names: for names that reading changed (a prefix shared by all was dropped), the name in the file.
    """

    def __init__(
        self,
        tensors: Mapping[str, LazyTensor],
        metadata: Mapping[str, Any] | None = None,
        format: str = "",
        original_names: Mapping[str, str] | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.format = format
        self.original_names: dict[str, str] = dict(original_names or {})

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({len(self)} tensors, {self.nbytes} bytes, format={self.format!r})"

    @property
    def nbytes(self) -> int:
        """Bytes that all arrays take when loaded."""
        return sum(tensor.nbytes for tensor in self.values())

    def arrays(self) -> dict[str, Array]:
        """Load every tensor: name -> array."""
        return {name: tensor.load() for name, tensor in self.items()}

    def original(self) -> Checkpoint:
        """Return the same tensors under the names of the file."""
        tensors = {self.original_names.get(name, name): tensor for name, tensor in self.items()}
        return Checkpoint(tensors, self.metadata, self.format)

    def ties(self) -> list[list[str]]:
        """Groups of names that share one tensor in the file, such as an embedding and the output layer."""
        groups: dict[Hashable, list[str]] = {}
        for name, tensor in self.items():
            if tensor.identity is not None:
                groups.setdefault(tensor.identity, []).append(name)
        return [names for names in groups.values() if len(names) > 1]
