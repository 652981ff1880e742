"""The proof of a conversion: what was lost, what was read back equal, and how far outputs differ."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoonet.formats import Checkpoint, LazyTensor
from zoonet.formats.files import release_pages
from zoonet.ops.errors import UnsupportedFormatError
from zoonet.ops.types import is_floating
from zoonet.zoo import frameworks, keras_files, storage
from zoonet.zoo.benchmark import sample_inputs
from zoonet.zoo.model import Model

__all__ = [
    "PLAIN",
    "RUN_LIMIT",
    "TOLERANCES",
    "Conversion",
    "ask_witness",
    "compare_graphs",
    "compare_networks",
    "compare_outputs",
    "compare_tensors",
    "inputs_of",
    "lost_from",
    "outputs_of",
    "tolerance_of",
]

#: Models with more bytes than this are compared tensor by tensor, but not run.
RUN_LIMIT = 2 << 30
#: Elements of two arrays that are compared at a time.
_PIECE = 1 << 20
#: Largest relative difference of outputs that counts as equal, by the number of bytes of a weight.
TOLERANCES = {8: 1e-6, 4: 1e-4, 2: 5e-2, 1: 5e-1}
#: Formats that keep the names of tensors as they are.
PLAIN = ("safetensors", "sharded", "torch", "npz")
#: Metadata that describes the source's container, and means nothing elsewhere.
_OF_THE_FILE = (
    *("zoonet", "format", "container", "prefix", "state_dict_key", "total_size", "shard_metadata", "vocabulary"),
    "unknown_classes",
    *("ir_version", "opsets", "producer"),
)
#: Metadata that describes a network of the zoo in Keras's words, besides zoonet's own.
_OF_KERAS = (
    "config",
    "keras_metadata",
    "model_config",
    "keras_version",
    "backend",
    "names",
    "layer_names",
    "weight_names",
)


@dataclass
class Conversion:
    """What a conversion did.

    tensors, nbytes: how many were written. lost: what the target cannot hold. compared: tensors read back and found
    equal to the source's (after the cast, if there was one); None if nothing was verified. changed: those of a graph
    that were read back otherwise. absolute, relative: the largest difference of the outputs of both models on sample
    inputs, None where they could not run; relative to the largest output. originals: by the name of a library that was
    installed and ran its own file (the source's, or the target's) the relative difference of its outputs. tolerance:
    what these may be.
    """

    source: str
    target: str
    source_format: str
    target_format: str
    architecture: str | None = None
    tensors: int = 0
    nbytes: int = 0
    lost: list[str] = field(default_factory=list)
    compared: int | None = None
    changed: list[str] = field(default_factory=list)
    absolute: float | None = None
    relative: float | None = None
    originals: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """False where tensors changed, or outputs differ by more than the tolerance or are not numbers."""
        found = [*self.originals.values(), *([] if self.relative is None else [self.relative])]
        return not self.changed and all(difference <= self.tolerance for difference in found)

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.source_format}) -> {self.target} ({self.target_format})"]
        what = f"{self.tensors} tensors, {self.nbytes:,} bytes"
        lines.append(what + (f", architecture {self.architecture}" if self.architecture else ""))
        lines += [f"lost: {item}" for item in self.lost]
        if self.changed:
            more = ", …" * (len(self.changed) > 5)
            lines.append(f"CHANGED: not read back as written: {', '.join(self.changed[:5])}{more}")
        if self.compared is not None:
            lines.append(f"verified: {self.compared} tensors read back equal")
        if self.relative is not None:
            lines.append(
                f"verified: outputs {self._verdict(self.relative)}, largest difference {self.absolute:.3g} (relative "
                f"{self.relative:.3g}, tolerance {self.tolerance:.3g})"
            )
        for library, difference in self.originals.items():
            lines.append(f"verified: {library}'s outputs {self._verdict(difference)} (relative {difference:.3g})")
        return "\n".join(lines + self.notes)

    __repr__ = __str__

    def _verdict(self, difference: float) -> str:
        return "agree" if difference <= self.tolerance else "DIFFER"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "agrees": self.agrees}


def tolerance_of(checkpoint: Checkpoint, cast: Mapping[str, LazyTensor]) -> float:
    """The relative difference that outputs may have: by the smallest dtype of what was cast."""
    kept = all(tensor.dtype == checkpoint[name].dtype for name, tensor in cast.items())
    smallest = min((t.dtype.itemsize for t in cast.values() if is_floating(t.dtype)), default=4)
    return TOLERANCES[4] if kept else TOLERANCES[smallest]


def lost_from(checkpoint: Checkpoint, again: Checkpoint) -> list[str]:
    """What the target, read again, does not have of the source."""
    lost, metadata = [], []
    known = (*_OF_THE_FILE, *_OF_KERAS) if "zoonet" in checkpoint.metadata else _OF_THE_FILE
    for key, value in checkpoint.metadata.items():
        if key == "properties" and isinstance(value, dict) and "zoonet" in value:
            continue  # of ONNX: the configuration, which is kept, and the same in words for others
        if _holds_arrays(value):
            if not _holds_arrays(again.metadata.get(key)):
                lost.append(f"{key!r} (arrays outside of the weights, such as the state of an optimizer)")
        elif key not in known and value not in (None, "", {}, []) and key not in again.metadata:
            metadata.append(key)
    if metadata:
        lost.append("metadata " + ", ".join(metadata))
    kept = [set(names) for names in again.ties()]
    lost += [
        f"that {' and '.join(names)} are one tensor: it is written {len(names)} times"
        for names in checkpoint.ties()
        if not any(set(names) <= group for group in kept)
    ]
    return lost


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_arrays, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_arrays, value))
    return isinstance(value, LazyTensor | np.ndarray)


def compare_tensors(cast: Mapping[str, LazyTensor], again: Checkpoint, report: Conversion) -> None:
    """Compare every tensor that was written with what is read back, bit by bit, and report it."""
    if report.target_format == "npz" and again.format == "npy":  # it has no name for its array
        again = Checkpoint(dict(zip(cast, again.values(), strict=False)))
    if report.target_format not in (*PLAIN, *keras_files.FORMATS) and set(again) != set(cast):
        report.notes.append("not verified: the target names its tensors otherwise")
        return
    report.compared = 0
    for name, tensor in cast.items():
        key = name
        if name not in again and report.target_format == "keras_h5":
            key = "/".join(name.rsplit(".", 1))  # a layer and its weight
        release_pages()
        ours, theirs = tensor.load(), again[key].load() if key in again else None
        if theirs is None or not _same_bits(ours, theirs):
            report.relative = report.absolute = float("inf")
            report.notes.append(f"{name} was not read back as it was written")
            return
        report.compared += 1


def _same_bits(ours: Any, theirs: Any) -> bool:
    """Whether two arrays are equal bit by bit, in shape too; looked at piece by piece, so that none is copied whole."""
    if ours.shape != theirs.shape:
        return False
    first, second = (np.ascontiguousarray(array).reshape(-1) for array in (ours, theirs))
    return all(
        first[start : start + _PIECE].tobytes() == second[start : start + _PIECE].astype(first.dtype).tobytes()
        for start in range(0, first.size, _PIECE)
    )


def compare_networks(source: pathlib.Path, output: pathlib.Path, architecture: str | None, report: Conversion) -> None:
    """Run the networks of both files on the same sample input, in float32, and report how far outputs differ.

    So do the libraries that own the files, where they are installed.
    """
    if report.nbytes > RUN_LIMIT:
        report.notes.append(f"outputs are not compared: the weights are larger than {RUN_LIMIT >> 30} GiB")
        return
    first = storage.load(source, architecture, dtype=np.float32)
    second = storage.load(output, architecture, dtype=np.float32)
    ours, theirs = outputs_of(first), outputs_of(second)
    compare_outputs(ours, theirs, report)
    classes = getattr(getattr(first.network, "config", None), "classes", 0)
    if architecture is not None:
        origin = frameworks.of_source(storage.weights_file(source), architecture, classes)
        ask_witness(origin, inputs_of(second), theirs, report)
        ask_witness(frameworks.of_target(output), inputs_of(first), ours, report)


def compare_graphs(source: pathlib.Path, output: pathlib.Path, report: Conversion) -> None:
    """A file may hold layers that zoonet does not run: a copy of its weights is a conversion all the same."""
    try:
        compare_networks(source, output, None, report)
    except UnsupportedFormatError as error:
        report.notes.append(f"outputs are not compared: {error.message}")


def compare_outputs(ours: Any, theirs: Any, report: Conversion) -> None:
    """Report the largest difference of two arrays of outputs, absolute and relative to the largest of ours."""
    report.absolute, report.relative = _difference(ours, theirs)


def ask_witness(witness: frameworks.Witness | None, inputs: Sequence[Any], ours: Any, report: Conversion) -> None:
    """Report how far the outputs of another library for these inputs are from ours."""
    if witness is None:
        return
    library, run = witness
    try:
        with warnings.catch_warnings(action="ignore"):
            theirs = np.asarray(run(inputs), np.float64)
    except Exception as error:  # what another library cannot run says nothing of the conversion
        report.notes.append(f"{library} could not run it: {type(error).__name__}: {error}"[:300])
        return
    if ours.shape != theirs.shape:
        report.notes.append(f"{library} gives something else: outputs {theirs.shape} where ours are {ours.shape}")
        return
    report.originals[library] = _difference(ours, theirs)[1]


def _difference(ours: Any, theirs: Any) -> tuple[float, float]:
    """The largest, absolute and relative to the largest of ours; infinite where theirs are not numbers."""
    largest = float(np.abs(ours).max(initial=0.0))
    difference = float(np.abs(ours - theirs).max(initial=0.0)) if np.isfinite(theirs).all() else float("inf")
    return difference, difference / largest if largest else difference


def inputs_of(model: Model) -> list[Any]:
    """Sample inputs that are the same for every model of an architecture."""
    return sample_inputs(model.task.example(model.network))


def outputs_of(model: Model) -> Any:
    """The network's outputs on its sample inputs, the first of several, in float64."""
    result = model(*inputs_of(model))
    return np.asarray(result[0] if isinstance(result, tuple) else result, np.float64)
