"""Data to train on: samples with targets, from folders, lists, arrays, and whatever can be indexed or iterated.

data = open_data("flowers/")          # a folder per class
train, validation = split(data, 0.2)  # stratified
"""

from __future__ import annotations

import math
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError, MissingFileError

__all__ = ["Data", "fingerprint", "open_data", "split"]

Array = Any
#: Names of sub-folders that hold data for training, and for measuring.
TRAINING, VALIDATION = ("train", "training"), ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Data:
    """Samples and their targets.

    inputs: one item per sample: a path, a picture as `model.run` takes it, a text, or an array. targets: int64 (N,)
    indices into `labels`, or floats (N, …); None where there are none. labels: names of the classes, or None.
    names: what to call each sample in messages. source: what it was read from.
    """

    inputs: Any
    targets: Array
    labels: tuple[str, ...] | None = None
    names: Sequence[str] | None = None
    source: str = "data"

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, index: int) -> str:
        """What to call a sample in messages."""
        return self.names[index] if self.names is not None else f"{self.source}[{index}]"

    def take(self, indices: Iterable[int]) -> Data:
        """The data of these samples, in this order."""
        chosen = [int(i) for i in indices]
        inputs = self.inputs[chosen] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in chosen]
        names = [self.name(i) for i in chosen]
        return replace(self, inputs=inputs, targets=None if self.targets is None else self.targets[chosen], names=names)

    def relabelled(self, labels: Sequence[str]) -> Data:
        """The same with indices into these labels. Raises InputError where a class of the data is not among them."""
        if self.labels is None or tuple(labels) == self.labels:
            return self
        unknown = [label for label in self.labels if label not in labels]
        if unknown:
            raise InputError(
                f"{self.source} has classes that the model does not have",
                expected=", ".join(list(labels)[:10]),
                received=", ".join(unknown[:10]),
            )
        places = np.array([list(labels).index(label) for label in self.labels], np.int64)
        return replace(self, targets=places[self.targets], labels=tuple(labels))

    def counts(self) -> dict[str, int]:
        """How many samples each class has."""
        if self.labels is None:
            return {}
        found = np.bincount(classes_of(self.targets), minlength=len(self.labels))
        return dict(zip(self.labels, map(int, found), strict=True))


def open_data(source: Any, *, columns: tuple[str, str] | None = None, labels: Sequence[str] | None = None) -> Data:
    """Data from what people have.

    source: a folder with a sub-folder of pictures (or .txt files) per class; a .csv, .tsv, .json or .jsonl list of
    files and labels, or of numbers; an .npz file with x and y; a pair (inputs, targets); a mapping with x and y; an
    indexable or iterable of pairs, or of mappings such as {"image": …, "label": …}. columns: the columns of a list (or
    the keys of mappings) for the file and the label. labels: names of the classes 0, 1, … for integer targets. String
    targets become indices into the sorted names.
    Raises MissingFileError, FormatError or InputError, which say what is wrong with the data.
    """
    if isinstance(source, Data):
        data = source
    elif isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise MissingFileError("there is no such data", received="''", fix='"." is this folder')
        data = _from_path(pathlib.Path(source), columns)
    else:
        data = _from_objects(source, columns)
    if labels is not None and data.labels is None and data.targets is not None:
        data = _named(data, labels)
    if not len(data):
        raise InputError(f"{data.source} holds nothing to train on", expected="at least one sample")
    return data


def _from_path(path: pathlib.Path, columns: tuple[str, str] | None) -> Data:
    from zoonet.zoo.train import files

    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise MissingFileError("there is no such data", received=repr(str(path)), fix=str(error)) from None
    if not exists:
        raise MissingFileError("there is no such data", received=str(path), fix="check the path")
    if is_folder:
        return files.read_folder(path)
    if path.suffix.lower() == ".npz":
        from zoonet import formats

        arrays = {name: np.asarray(tensor.load()) for name, tensor in formats.read(path, format="npz").items()}
        return replace(_from_objects(arrays), source=path.name)
    return files.read_list(path, columns)


def _from_objects(source: Any, columns: tuple[str, str] | None = None) -> Data:
    if isinstance(source, Mapping):
        missing = [key for key in ("x", "y") if key not in source]
        if missing:
            raise InputError(
                "the data lack a part", expected="arrays named x and y", received=", ".join(map(str, source))
            )
        source = (source["x"], source["y"])
    if isinstance(source, list) and len(source) == 2 and all(ops.is_array(part) and part.ndim for part in source):
        source = tuple(source)
    if isinstance(source, tuple) and len(source) == 2 and not _is_pair(source):
        return _from_pair(*source)
    if ops.is_array(source) or isinstance(source, bytes | int | float):
        raise InputError(
            "the data have no targets",
            expected="a folder, a list of files, (inputs, targets), or pairs",
            received=f"an array of shape {source.shape}" if ops.is_array(source) else type(source).__name__,
            fix="give a pair: (inputs, targets)",
        )
    return _from_pairs(source, columns)


def _is_pair(source: tuple[Any, Any]) -> bool:
    """Whether two things are two samples (each an input with its target) and not inputs with their targets."""
    return all(isinstance(item, tuple) and len(item) == 2 and np.ndim(item[1]) == 0 for item in source)


def _from_pair(inputs: Any, targets: Any) -> Data:
    for what, value in (("inputs", inputs), ("targets", targets)):
        if not hasattr(value, "__len__") or isinstance(value, str):
            raise InputError(
                f"the {what} are not several", expected="an array or a list", received=type(value).__name__
            )
    if len(inputs) != len(targets):
        raise InputError("inputs and targets differ in number", expected=len(inputs), received=len(targets))
    return _with_targets(_plain(inputs), _plain(targets))


def _plain(item: Any) -> Any:
    """An array of NumPy's in the place of one elsewhere: on a device, or a tensor of another library."""
    if ops.is_array(item):
        return ops.to_device(item, "cpu")
    item = item.detach().cpu() if hasattr(item, "detach") and hasattr(item, "cpu") else item
    return np.asarray(item.numpy()) if hasattr(item, "numpy") else item


def _pair(item: Any, position: int, columns: tuple[str, str] | None) -> tuple[Any, Any]:
    """A sample as input and target."""
    if isinstance(item, Mapping):
        from zoonet.zoo.train.files import pair_of

        return pair_of(item, position, columns)
    if not isinstance(item, tuple | list) or len(item) != 2:
        received = f"{type(item).__name__} of {len(item)}" if hasattr(item, "__len__") else type(item).__name__
        raise InputError(f"sample {position} is not a pair", expected="(input, target)", received=received)
    return item[0], item[1]


def _from_pairs(source: Any, columns: tuple[str, str] | None) -> Data:
    try:
        if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            items = [source[i] for i in range(len(source))]
        else:
            items = list(source)
    except TypeError:
        raise InputError(
            "the data are of no kind that can be trained on",
            expected="a path, (inputs, targets), or pairs of them",
            received=type(source).__name__,
        ) from None
    if not items:
        raise InputError("the data hold nothing to train on", expected="at least one sample", received="none")
    pairs = [_pair(item, position, columns) for position, item in enumerate(items)]
    return _with_targets([_plain(item) for item, _ in pairs], [_plain(target) for _, target in pairs])


def _with_targets(inputs: Sequence[Any], targets: Any) -> Data:
    try:
        array = np.asarray(ops.to_device(targets, "cpu") if ops.is_array(targets) else targets)
    except ValueError as error:
        raise InputError("the targets differ in shape", received=error) from None
    if array.dtype.kind in "USO" and array.size and all(isinstance(t, str) for t in array.reshape(-1).tolist()):
        if array.ndim != 1:
            raise InputError("the labels are not one per sample", received=f"shape {array.shape}")
        labels, indices = np.unique(array.astype(str), return_inverse=True)
        return Data(inputs, indices.astype(np.int64), tuple(map(str, labels)))
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        raise InputError(
            "the targets are of a wrong type",
            expected="labels (strings), classes (integers) or numbers (floats)",
            received=array.dtype if array.dtype != object else "a mixture",
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            where = int(np.argwhere(~np.isfinite(array))[0][0])
            raise InputError("a target is no number", expected="finite numbers", received=f"nan or inf at {where}")
        return Data(inputs, array)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.size and array.min() < 0:
        raise InputError("a class is negative", expected="classes from 0", received=int(array.min()))
    return Data(inputs, array.astype(np.int64))


def _named(data: Data, labels: Sequence[str]) -> Data:
    if data.targets.dtype.kind != "i" or data.targets.ndim != 1:
        return data
    largest = int(data.targets.max(initial=0))
    if largest >= len(labels):
        raise InputError("a class has no label", expected=f"classes below {len(labels)}", received=largest)
    return replace(data, labels=tuple(labels))


def split(data: Data, share: float, seed: int = 0, *, stratified: bool = True) -> tuple[Data, Data]:
    """Data for training and for measuring, of which each class gives the same share (at least one sample of two).

    The samples are drawn by a seed. stratified=False draws without regard to classes. Raises ArgumentError for a share
    that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ArgumentError("the share for validation is wrong", expected="between 0 and 1", received=share)
    rng = np.random.default_rng([seed, 0x5B117])
    chosen: list[int] = []
    for members in _classes(data) if stratified else [np.arange(len(data))]:
        order = rng.permutation(members)
        count = max(1, round(share * len(order))) if len(order) > 1 else 0
        chosen += order[:count].tolist()
    if not chosen or len(chosen) == len(data):
        raise InputError(
            f"{data.source} has too few samples to hold some back",
            expected="at least two samples of a class",
            received=len(data),
            fix="give validation data, or validation=None to train without",
        )
    kept = np.setdiff1d(np.arange(len(data)), chosen)
    return data.take(kept), data.take(sorted(chosen))


def _classes(data: Data) -> list[np.ndarray[Any, Any]]:
    if data.targets is None or (data.targets.ndim == 1) != (data.targets.dtype.kind == "i"):
        return [np.arange(len(data))]
    classes = classes_of(data.targets)
    return [np.flatnonzero(classes == c) for c in np.unique(classes)]


def classes_of(targets: Array) -> Array:
    """Classes as they are, and of rows of probabilities (N, classes) the likeliest."""
    return targets.argmax(1) if targets.dtype.kind == "f" and targets.ndim == 2 else targets


_ENDS = 32 << 10


def fingerprint(data: Data) -> str:
    """A hash of names, targets, labels, arrays, pictures and the ends of files, which tells when data have changed."""
    import hashlib

    digest = hashlib.sha256(repr((len(data), data.labels)).encode())
    if data.targets is not None:
        digest.update(np.ascontiguousarray(data.targets).tobytes())
    for index, item in enumerate(data.inputs):
        if isinstance(item, str | os.PathLike):
            path = pathlib.Path(item)
            digest.update(f"{path.name}:{path.stat().st_size if path.is_file() else 0}".encode(errors="replace"))
            digest.update(_ends(path))
        else:
            digest.update(_content(item) or data.name(index).encode(errors="replace"))
    return digest.hexdigest()


def _content(item: Any) -> bytes:
    """The numbers of an array, a list, a picture; nothing where there are none."""
    if isinstance(item, bytes):
        return item
    try:
        array = np.ascontiguousarray(ops.to_device(item, "cpu") if ops.is_array(item) else item)
    except Exception:  # decoders raise almost anything on hostile bytes
        return b""
    return b"" if array.dtype.kind == "O" else array.tobytes()


def _ends(path: pathlib.Path) -> bytes:
    """The first and last bytes of a file, by which one sees that it is another one of the same size."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        start = file.read(_ENDS)
        file.seek(max(file.tell(), path.stat().st_size - _ENDS))
        return start + file.read(_ENDS)


def class_weights(targets: Array) -> Array:
    """A probability per sample with which each class is drawn equally often."""
    classes = classes_of(targets).tolist()
    counts = Counter(classes)
    weights = np.array([1 / counts[t] for t in classes])
    return weights / math.fsum(weights)
