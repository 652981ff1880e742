"""Conversion of weights from one file format to another, tensor by tensor, and the proof that nothing changed."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.formats import Checkpoint, LazyTensor
from zoonet.formats.files import release_pages
from zoonet.formats.registry import Format, writable
from zoonet.ops.errors import ArgumentError, DTypeError, UnsupportedFormatError
from zoonet.ops.types import DType, as_dtype, is_floating
from zoonet.weights import naming
from zoonet.zoo import architectures, frameworks, graphs, keras_files, recognition, storage
from zoonet.zoo.modules import compare_shapes
from zoonet.zoo.sources import Located, locate
from zoonet.zoo.verification import (
    PLAIN,
    RUN_LIMIT,
    TOLERANCES,
    Conversion,
    ask_witness,
    compare_graphs,
    compare_networks,
    compare_outputs,
    compare_tensors,
    inputs_of,
    lost_from,
    outputs_of,
    tolerance_of,
)

__all__ = ["Conversion", "convert"]

#: Kinds of Keras files that keep a whole model's weights under other names.
_BETWEEN_KERAS = (("keras_h5", "keras"), ("keras_h5", "keras_weights"), ("keras", "keras_h5"))


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
    wanted = _floating(dtype)
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
    found, into_folder = locate(source), _is_folder(target)
    output, entry = writable(pathlib.Path(os.fsdecode(target)) / storage.WEIGHTS if into_folder else target)
    file = storage.weights_file(found.path)
    if file.exists() and output.exists() and os.path.samefile(file, output):
        raise ArgumentError("source and target are the same file", received=str(output), fix="name another target")
    asked = _Asked(found, output, entry, into_folder, arch, wanted, verify, tolerance, progress, names)
    return _convert_weights(asked, os.fspath(source))


@dataclass(frozen=True)
class _Asked:
    """What was asked for. output: the file to write, of the format `entry`; in a folder of its own with into_folder."""

    found: Located
    output: pathlib.Path
    entry: Format
    into_folder: bool
    arch: str | None
    dtype: DType | None
    verify: bool
    tolerance: float | None
    progress: Callable[[int, int], None] | None
    names: str | None


def _floating(dtype: Any) -> DType | None:
    """The dtype to cast to, or None. Raises DTypeError for one that is not floating."""
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and not is_floating(wanted):
        raise DTypeError("weights cannot be cast to this dtype", expected="a floating dtype", received=wanted.name)
    return wanted


def _convert_weights(asked: _Asked, source: str) -> Conversion:
    """Read, rename, cast, write, read back; see `convert`."""
    path, entry = asked.found.path, asked.entry
    checkpoint, config = storage.read_located(asked.found, asked.arch)
    report = Conversion(source, str(asked.output), checkpoint.format, entry.name)
    architecture = asked.arch or config.get("architecture") or recognition.only(checkpoint)
    report.architecture = architecture
    if asked.arch is not None and checkpoint.format == "onnx":
        network = architectures.fitted(asked.arch, checkpoint)
        checkpoint = storage.in_names_of(asked.arch, network, checkpoint, path)
    if architecture is None and (checkpoint.format, entry.name) in _BETWEEN_KERAS and graphs.importer_of(path):
        return _between_keras(asked, report)
    checkpoint = _in_names_of_target(asked, checkpoint, architecture, report)
    for_keras = architecture is not None and entry.name in keras_files.FORMATS
    keeps = entry.name in PLAIN or for_keras
    model_config = None
    if keeps and asked.names is None and architecture is not None:
        model_config = _model_config(architecture, checkpoint, config, path)
    cast: Mapping[str, LazyTensor] = {name: _cast(tensor, asked.dtype) for name, tensor in checkpoint.items()}
    metadata = {key: value for key, value in checkpoint.metadata.items() if not isinstance(value, LazyTensor)}
    written = Checkpoint(_counted(cast, asked.progress), metadata)
    if for_keras and model_config is not None and architecture is not None:
        again = _write_for_keras(asked, architecture, config, model_config, written)
    else:
        storage.write(written, model_config, asked.output.parent if asked.into_folder else asked.output)
        again = formats.read(asked.output)
    report.lost = lost_from(checkpoint, again) + report.lost
    if architecture is None and entry.name != checkpoint.format and graphs.importer_of(path):
        report.lost.insert(0, "the graph: this format keeps weights alone")
    if for_keras:
        cast = _that_keras_has(cast, again, report)
    if path.is_dir() and storage.is_text_model(path):
        report.lost.append("the tokenizer and config.json; a target without suffix is a folder that keeps them")
    report.tensors, report.nbytes = len(cast), sum(tensor.nbytes for tensor in cast.values())
    report.tolerance = asked.tolerance if asked.tolerance is not None else tolerance_of(checkpoint, cast)
    if asked.verify:
        compare_tensors(cast, again, report)
        if architecture is not None and keeps and asked.names != "keras":
            compare_networks(path, asked.output, architecture, report)
        elif checkpoint.format == entry.name and graphs.importer_of(path):
            compare_graphs(path, asked.output, report)
    return report


def _in_names_of_target(
    asked: _Asked, checkpoint: Checkpoint, architecture: str | None, report: Conversion
) -> Checkpoint:
    """The tensors as the target is to name them. Raises UnsupportedFormatError where it cannot hold or name them."""
    path, kind = asked.found.path, asked.entry.name
    if architecture is None and kind == "keras" and not isinstance(checkpoint.metadata.get("config"), dict):
        raise UnsupportedFormatError(
            f"{path.name} says nothing of layers of Keras, and no architecture of the zoo was recognised",
            expected="a network of the zoo, or a whole Keras model",
            fix="name the architecture (--arch resnet50), or write .safetensors"
            + (" or .onnx" if graphs.importer_of(path) else "")
            + "; .weights.h5 takes the weights alone",
        )
    if architecture is None and (checkpoint.format, kind) == ("keras_weights", "keras_h5"):
        from zoonet.formats.keras.by_name import by_layers

        checkpoint = by_layers(checkpoint)
        report.lost.append("the order of layers, so that Keras takes them by names: load_weights(file, by_name=True)")
    if asked.names is None:
        return checkpoint
    if architecture is None:
        raise UnsupportedFormatError(
            f"the names of {path.name} are changed where its network is known",
            received=recognition.describe(checkpoint, list(checkpoint)),
            fix="name the architecture (--arch resnet50)",
        )
    return naming.named(architecture, checkpoint, asked.names)


def _counted(
    tensors: Mapping[str, LazyTensor], progress: Callable[[int, int], None] | None
) -> Mapping[str, LazyTensor]:
    """Tensors that let go of the memory of those before them, and tell how many of them were loaded."""
    done = 0

    def counted(tensor: LazyTensor) -> LazyTensor:
        def load() -> Any:
            nonlocal done
            release_pages()
            array = tensor.load()
            done += 1
            if progress is not None:
                progress(min(done, len(tensors)), len(tensors))
            return array

        return LazyTensor(tensor.shape, tensor.dtype, load, tensor.identity)

    return {name: counted(tensor) for name, tensor in tensors.items()}


def _write_for_keras(
    asked: _Asked, architecture: str, config: Mapping[str, Any], model_config: Mapping[str, Any], written: Checkpoint
) -> Checkpoint:
    """Write a network of the zoo as Keras loads it; return what is read back, under the zoo's names."""
    network = architectures.fitted(architecture, written, storage.changes_of(architecture, config))
    model = storage.assemble(architecture, network, config, asked.found.path.name)
    formats.write(keras_files.keras_checkpoint(model, written, model_config, asked.entry.name), asked.output)
    return storage.read(asked.output)[0]


def _that_keras_has(cast: Mapping[str, LazyTensor], again: Checkpoint, report: Conversion) -> Mapping[str, LazyTensor]:
    """The tensors that have a place in a Keras file; the report names the others."""
    absent = [name for name in cast if name not in again]
    if absent:
        named = ", ".join(absent[:3]) + ", …" * (len(absent) > 3)
        report.lost.append(f"{len(absent)} tensors that Keras does not have: {named}")
    return {name: tensor for name, tensor in cast.items() if name in again}


def _check_names(names: str, target: object) -> None:
    """Raise ArgumentError unless the target is a file that keeps names as they are."""
    if names not in naming.VOCABULARIES:
        raise ArgumentError(
            "no such vocabulary of names", expected=", ".join(naming.VOCABULARIES), received=repr(names)[:100]
        )
    if writable(os.fspath(target))[1].name not in PLAIN:  # type: ignore[call-overload]
        raise ArgumentError(
            "names are an option of files that keep them", expected=".safetensors, .pt or .npz", received=target
        )


def _between_keras(asked: _Asked, report: Conversion) -> Conversion:
    """A whole Keras model in the other kind of file, or the weights of a legacy one as Keras 3 has them."""
    model = graphs.load(asked.found.path, task=None, device="cpu", dtype=None, given={})
    network = model.network
    assert isinstance(network, graphs.GraphNetwork), "what an importer makes"
    checkpoint = network.checkpoint(report.target_format)
    assert checkpoint is not None, "Keras files are written back"
    cast = {name: _cast(tensor, asked.dtype) for name, tensor in checkpoint.items()}
    formats.write(Checkpoint(cast, checkpoint.metadata), asked.output)
    report.tensors, report.nbytes = len(cast), sum(tensor.nbytes for tensor in cast.values())
    of_training = "what it was compiled with and the state of an optimizer"
    drawn = "how weights are drawn, penalised and bounded in training, "
    report.lost = [of_training if report.source_format == "keras" else drawn + of_training]
    report.tolerance = asked.tolerance if asked.tolerance is not None else tolerance_of(checkpoint, cast)
    if asked.verify:
        compare_tensors(cast, formats.read(asked.output), report)
        if report.target_format in ("keras", "keras_h5"):
            again = storage.load(asked.output, dtype=np.float32)
            compare_outputs(outputs_of(model), outputs_of(again), report)
    return report


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
            expected = outputs_of(original)
            compare_outputs(expected, outputs_of(again), report)
            ask_witness(frameworks.of_target(target), inputs_of(model), expected, report)
    return report


def _format_of(path: pathlib.Path) -> str:
    if path.is_dir():
        return "folder"
    return "darknet" if storage.is_darknet(path) else formats.detect(path).name


def _model_config(
    architecture: str, checkpoint: Checkpoint, config: Mapping[str, Any], path: pathlib.Path
) -> dict[str, Any]:
    """What makes the target run again without naming the architecture. Raises StateDictError for wrong shapes."""
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
