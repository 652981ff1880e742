"""Conversion of weights from one file format to another, tensor by tensor, and the proof that nothing changed."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.formats import Checkpoint, LazyTensor
from zoonet.formats.registry import writable
from zoonet.ops.errors import ArgumentError, DTypeError, UnsupportedFormatError
from zoonet.ops.types import DType, as_dtype, is_floating
from zoonet.weights import naming
from zoonet.zoo import architectures, graphs, keras_files, recognition, storage
from zoonet.zoo.benchmark import sample_inputs
from zoonet.zoo.model import Model
from zoonet.zoo.modules import compare_shapes
from zoonet.zoo.sources import locate

__all__ = ["Conversion", "convert"]

#: Models with more bytes than this are compared tensor by tensor, but not run.
RUN_LIMIT = 2 << 30
#: Largest relative difference of outputs that counts as equal, by the number of bytes of a weight.
TOLERANCES = {8: 1e-6, 4: 1e-4, 2: 5e-2, 1: 5e-1}
#: Formats that keep the names of tensors as they are.
_PLAIN = ("safetensors", "sharded", "torch", "npz")
#: Kinds of Keras files that keep a whole model's weights under other names.
_BETWEEN_KERAS = (("keras_h5", "keras"), ("keras_h5", "keras_weights"), ("keras", "keras_h5"))
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
    that were read back otherwise. absolute, relative: the
    largest difference of the outputs of both models on sample inputs, None where they could not run; relative to the
    largest output. tolerance: what relative may be.
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
    tolerance: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """False where tensors were read back otherwise, or outputs differ by more than the tolerance."""
        return not self.changed and (self.relative is None or self.relative <= self.tolerance)

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
            verdict = "agree" if self.relative <= self.tolerance else "DIFFER"
            lines.append(
                f"verified: outputs {verdict}, largest difference {self.absolute:.3g} (relative {self.relative:.3g}, "
                f"tolerance {self.tolerance:.3g})"
            )
        return "\n".join(lines + self.notes)

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "agrees": self.agrees}


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    arch: str | None = None,
    *,
    dtype: Any = None,
    verify: bool = True,
    tolerance: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    opset: int | None = None,
    names: str | None = None,
) -> Conversion:
    """Write the weights of a file (or a name) in the format that the suffix of `target` names.

    A target without suffix is a folder: model.safetensors and config.json, for a model on text with its tokenizer in
    Hugging Face's layout.
    A target that ends with .onnx gets the whole model as a graph (see `Model.save`), in this opset; the source is then
    anything that `load` takes.

    Tensors are read, cast and written one after the other, so memory is bounded by the largest. arch: the architecture
    of a bare state dict; recognised where None, and not needed. dtype: cast floating tensors to it. verify: read the
    target back and compare every tensor; where the architecture is known, also run both on the same sample input.
    tolerance: of the relative difference of outputs; by the dtype where None. progress: called with (done, total)
    tensors. names: those of another library, "torchvision", "timm", "hugging-face" or "keras", in its layouts: a bare
    state dict that it loads. Raises what `load` raises, UnsupportedFormatError where the target cannot hold the tensors
    or the library has no such network, DTypeError for a dtype that is not floating, ArgumentError.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and not is_floating(wanted):
        raise DTypeError("weights cannot be cast to this dtype", expected="a floating dtype", received=wanted.name)
    if names is not None:
        _check_names(names, target)
    if arch is None and names is None and _is_folder(target) and storage.is_text_model((found := locate(source)).path):
        from zoonet.zoo.text import conversion

        return conversion.convert(
            found.path, pathlib.Path(os.fsdecode(target)), dtype=wanted, verify=verify, tolerance=tolerance
        )
    if str(target).endswith(".onnx"):
        return _to_onnx(source, pathlib.Path(target), arch, wanted, verify, tolerance, opset)
    if opset is not None:
        raise ArgumentError("opset is an option of ONNX", expected="a target that ends with .onnx", received=target)
    found = locate(source)
    output, entry = writable(pathlib.Path(os.fsdecode(target)) / storage.WEIGHTS if _is_folder(target) else target)
    file = storage.weights_file(found.path)
    if file.exists() and output.exists() and os.path.samefile(file, output):
        raise ArgumentError("source and target are the same file", received=str(output), fix="name another target")
    checkpoint, config = storage.read_located(found, arch)
    report = Conversion(os.fspath(source), str(output), checkpoint.format, entry.name)
    report.architecture = architecture = arch or config.get("architecture") or recognition.only(checkpoint)
    if arch is not None and checkpoint.format == "onnx":
        network = architectures.fitted(arch, checkpoint)
        checkpoint = storage.in_names_of(arch, network, checkpoint, found.path)
    if architecture is None and (checkpoint.format, entry.name) in _BETWEEN_KERAS and graphs.importer_of(found.path):
        return _between_keras(found.path, output, wanted, verify, tolerance, report)
    if architecture is None and entry.name == "keras" and not isinstance(checkpoint.metadata.get("config"), dict):
        raise UnsupportedFormatError(
            f"{found.path.name} says nothing of layers of Keras, and no architecture of the zoo was recognised",
            expected="a network of the zoo, or a whole Keras model",
            fix="name the architecture (--arch resnet50), or write .safetensors"
            + _or_onnx(found.path)
            + "; .weights.h5 takes the weights alone",
        )
    only_by_name = architecture is None and (checkpoint.format, entry.name) == ("keras_weights", "keras_h5")
    if only_by_name:
        from zoonet.formats.keras.by_name import by_layers

        checkpoint = by_layers(checkpoint)
    if names is not None:
        if architecture is None:
            raise UnsupportedFormatError(
                f"the names of {found.path.name} are changed where its network is known",
                received=recognition.describe(checkpoint, list(checkpoint)),
                fix="name the architecture (--arch resnet50)",
            )
        checkpoint = naming.named(architecture, checkpoint, names)
    for_keras = architecture is not None and entry.name in keras_files.FORMATS
    keeps = entry.name in _PLAIN or for_keras
    model_config = _model_config(architecture, checkpoint, config, found.path) if keeps and names is None else None
    cast = {name: _cast(tensor, wanted) for name, tensor in checkpoint.items()}
    done = 0

    def counted(tensor: LazyTensor) -> LazyTensor:
        def load() -> Any:
            nonlocal done
            array = tensor.load()
            done += 1
            if progress is not None:
                progress(min(done, len(cast)), len(cast))
            return array

        return LazyTensor(tensor.shape, tensor.dtype, load, tensor.identity)

    metadata = {k: v for k, v in checkpoint.metadata.items() if not isinstance(v, LazyTensor)}
    written = Checkpoint({name: counted(tensor) for name, tensor in cast.items()}, metadata)
    if for_keras and model_config is not None and architecture is not None:
        network = architectures.fitted(architecture, checkpoint, storage.changes_of(architecture, config))
        model = storage.assemble(architecture, network, config, found.path.name)
        formats.write(keras_files.keras_checkpoint(model, written, model_config, entry.name), output)
        again = storage.read(output)[0]
        absent = [name for name in cast if name not in again]
        cast = {name: tensor for name, tensor in cast.items() if name in again}
    else:
        storage.write(written, model_config, output.parent if _is_folder(target) else output)
        again, absent = formats.read(output), []
    report.tensors, report.nbytes = len(cast), sum(tensor.nbytes for tensor in cast.values())
    report.lost = _lost(checkpoint, again)
    if architecture is None and entry.name != checkpoint.format and graphs.importer_of(found.path):
        report.lost.insert(0, "the graph: this format keeps weights alone")
    if only_by_name:
        report.lost.append("the order of layers, so that Keras takes them by names: load_weights(file, by_name=True)")
    if absent:
        report.lost.append(f"{len(absent)} tensors that Keras does not have: {', '.join(absent[:3])}, …")
    if found.path.is_dir() and storage.is_text_model(found.path):
        report.lost.append("the tokenizer and config.json; a target without suffix is a folder that keeps them")
    report.tolerance = tolerance if tolerance is not None else _tolerance(checkpoint, cast)
    if verify:
        _compare(cast, again, report)
        if architecture is not None and keeps and names != "keras":
            _run_both(found.path, output, architecture, report)
        elif checkpoint.format == entry.name and graphs.importer_of(found.path):
            _run_graphs(found.path, output, report)
    return report


def _check_names(names: str, target: object) -> None:
    """Raise ArgumentError unless the target is a file that keeps names as they are."""
    if names not in naming.VOCABULARIES:
        raise ArgumentError(
            "no such vocabulary of names", expected=", ".join(naming.VOCABULARIES), received=repr(names)[:100]
        )
    if writable(os.fspath(target))[1].name not in _PLAIN:  # type: ignore[call-overload]
        raise ArgumentError(
            "names are an option of files that keep them", expected=".safetensors, .pt or .npz", received=target
        )


def _between_keras(
    path: pathlib.Path,
    output: pathlib.Path,
    dtype: DType | None,
    verify: bool,
    tolerance: float | None,
    report: Conversion,
) -> Conversion:
    """A whole Keras model in the other kind of file, or the weights of a legacy one as Keras 3 has them."""
    model = graphs.load(path, task=None, device="cpu", dtype=None, given={})
    network = model.network
    assert isinstance(network, graphs.GraphNetwork), "what an importer makes"
    checkpoint = network.checkpoint(report.target_format)
    assert checkpoint is not None, "Keras files are written back"
    cast = {name: _cast(tensor, dtype) for name, tensor in checkpoint.items()}
    formats.write(Checkpoint(cast, checkpoint.metadata), output)
    report.tensors, report.nbytes = len(cast), sum(tensor.nbytes for tensor in cast.values())
    of_training = "what it was compiled with and the state of an optimizer"
    drawn = "how weights are drawn, penalised and bounded in training, "
    report.lost = [of_training if report.source_format == "keras" else drawn + of_training]
    report.tolerance = tolerance if tolerance is not None else _tolerance(checkpoint, cast)
    if verify:
        _compare(cast, formats.read(output), report)
        if report.target_format in ("keras", "keras_h5"):
            _difference(_outputs(model), _outputs(storage.load(output, dtype=np.float32)), report)
    return report


def _or_onnx(path: pathlib.Path) -> str:
    return " or .onnx" if graphs.importer_of(path) else ""


def _is_folder(target: object) -> bool:
    """Whether this names a folder: one that is there, or a path without suffix."""
    if not isinstance(target, str | os.PathLike) or not os.fspath(target):
        return False
    path = pathlib.Path(os.fsdecode(target))
    return not path.suffix or path.is_dir()


def _to_onnx(
    source: str | os.PathLike[str],
    target: pathlib.Path,
    arch: str | None,
    dtype: DType | None,
    verify: bool,
    tolerance: float | None,
    opset: int | None,
) -> Conversion:
    """Write a whole model as a graph, load the graph and compare weights and outputs."""
    found = locate(source)
    if found.path.exists() and target.exists() and os.path.samefile(found.path, target):
        raise ArgumentError("source and target are the same file", received=str(target), fix="name another target")
    model = storage.load(source, arch, dtype=dtype)
    model.save(target, opset=opset)
    again = storage.load(target)
    written: Any = again.network.state_dict()
    report = Conversion(os.fspath(source), str(target), _format_of(found.path), "onnx", model.architecture)
    report.tensors, report.nbytes = len(written), sum(int(array.nbytes) for array in written.values())
    own = model.network.state_dict()
    given = dict(model.network.named_parameters()).keys() | dict(model.network.named_buffers()).keys()
    unread = [name for name in own if name in given and name not in written]
    if unread:
        report.lost.append(f"what the outputs do not depend on: {', '.join(unread[:5])}{', …' * (len(unread) > 5)}")
    largest = max((a.dtype.itemsize for a in written.values()), default=4)
    smallest = min((a.dtype.itemsize for a in written.values() if is_floating(a.dtype)), default=largest)
    report.tolerance = tolerance if tolerance is not None else TOLERANCES.get(smallest, TOLERANCES[4])
    if verify:
        same = [name for name in written if name in own and np.array_equal(own[name], written[name], equal_nan=True)]
        report.compared, report.changed = len(same), sorted(set(written).difference(same))
        if report.nbytes > RUN_LIMIT:
            report.notes.append(f"outputs are not compared: the weights are larger than {RUN_LIMIT >> 30} GiB")
        else:
            original = model if dtype is None else storage.load(source, arch)  # and not what the cast left of it
            _difference(_outputs(original), _outputs(again), report)
    return report


def _format_of(path: pathlib.Path) -> str:
    if path.is_dir():
        return "folder"
    return "darknet" if storage.is_darknet(path) else formats.detect(path).name


def _model_config(
    architecture: str | None, checkpoint: Checkpoint, config: Mapping[str, Any], path: pathlib.Path
) -> dict[str, Any] | None:
    """What makes the target run again without naming the architecture; None where that is not known."""
    if architecture is None:
        return None
    # Its arrays are zeros, which take no memory.
    network = architectures.fitted(architecture, checkpoint, storage.changes_of(architecture, config))
    misfits = compare_shapes(network.state_dict(), checkpoint)
    if misfits.wrong or misfits.unexpected:
        raise misfits.error(architecture)
    return storage.configuration(storage.assemble(architecture, network, config, path.name))


def _cast(tensor: LazyTensor, dtype: DType | None) -> LazyTensor:
    if dtype is None or not is_floating(tensor.dtype) or tensor.dtype == dtype:
        return tensor
    return LazyTensor(tensor.shape, dtype, lambda: tensor.load().astype(dtype), tensor.identity)


def _tolerance(checkpoint: Checkpoint, cast: Mapping[str, LazyTensor]) -> float:
    kept = all(tensor.dtype == checkpoint[name].dtype for name, tensor in cast.items())
    smallest = min((t.dtype.itemsize for t in cast.values() if is_floating(t.dtype)), default=4)
    return TOLERANCES[4] if kept else TOLERANCES[smallest]


def _lost(checkpoint: Checkpoint, again: Checkpoint) -> list[str]:
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


def _compare(cast: Mapping[str, LazyTensor], again: Checkpoint, report: Conversion) -> None:
    if report.target_format == "npz" and again.format == "npy":  # it has no name for its array
        again = Checkpoint(dict(zip(cast, again.values(), strict=False)))
    if report.target_format not in (*_PLAIN, *keras_files.FORMATS) and set(again) != set(cast):
        report.notes.append("not verified: the target names its tensors otherwise")
        return
    report.compared = 0
    for name, tensor in cast.items():
        ours, theirs = tensor.load(), again[name].load() if name in again else None
        if theirs is None or ours.shape != theirs.shape or ours.tobytes() != theirs.astype(ours.dtype).tobytes():
            report.relative = report.absolute = float("inf")
            report.notes.append(f"{name} was not read back as it was written")
            return
        report.compared += 1


def _run_both(source: pathlib.Path, output: pathlib.Path, architecture: str | None, report: Conversion) -> None:
    if report.nbytes > RUN_LIMIT:
        report.notes.append(f"outputs are not compared: the weights are larger than {RUN_LIMIT >> 30} GiB")
        return
    first = storage.load(source, architecture, dtype=np.float32)
    second = storage.load(output, architecture, dtype=np.float32)
    _difference(_outputs(first), _outputs(second), report)


def _run_graphs(source: pathlib.Path, output: pathlib.Path, report: Conversion) -> None:
    """A file may hold layers that zoonet does not run: a copy of its weights is a conversion all the same."""
    try:
        _run_both(source, output, None, report)
    except UnsupportedFormatError as error:
        report.notes.append(f"outputs are not compared: {error.message}")


def _difference(ours: Any, theirs: Any, report: Conversion) -> None:
    largest = float(np.abs(ours).max(initial=0.0))
    difference = float(np.abs(ours - theirs).max(initial=0.0)) if np.isfinite(theirs).all() else float("inf")
    report.absolute, report.relative = difference, difference / largest if largest else difference


def _outputs(model: Model) -> Any:
    """The network's outputs on a sample input that is the same for every model of an architecture."""
    result = model(*sample_inputs(model.task.example(model.network)))
    return np.asarray(result[0] if isinstance(result, tuple) else result, np.float64)
