"""Conversion of models on text to folders in Hugging Face's layout."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.ops.errors import ArgumentError, DTypeError
from zoonet.ops.types import as_dtype, is_floating
from zoonet.zoo import frameworks
from zoonet.zoo.model import Model
from zoonet.zoo.storage import weights_file
from zoonet.zoo.text import loading
from zoonet.zoo.verification import TOLERANCES, Conversion, ask_witness, compare_outputs


def convert(
    source: pathlib.Path,
    folder: pathlib.Path,
    *,
    dtype: Any = None,
    verify: bool = True,
    tolerance: float | None = None,
) -> Conversion:
    """Write a text model, weights and tokenizer, as a folder that transformers loads; see `zoonet.zoo.convert`."""
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and not is_floating(wanted):
        raise DTypeError("weights cannot be cast to this dtype", expected="a floating dtype", received=wanted.name)
    if folder.exists() and os.path.samefile(source if source.is_dir() else source.parent, folder):
        raise ArgumentError("source and target are the same folder", received=str(folder), fix="name another target")
    model = loading.load(source, task=None, device="cpu", dtype=wanted, given={})
    model.save(folder)
    kind = "safetensors" if source.is_dir() else formats.detect(source).name
    report = Conversion(str(source), str(folder), kind, "folder", model.architecture)
    if not model.task.has_tokenizer:  # type: ignore[attr-defined]
        report.lost.append("the tokenizer: there is none beside the source, so the target takes token numbers alone")
    parameters = dict(model.network.named_parameters())
    report.tensors, report.nbytes = len(parameters), sum(int(array.nbytes) for array in parameters.values())
    report.tolerance = TOLERANCES[wanted.itemsize if wanted else 4] if tolerance is None else tolerance
    if verify:
        _compare(model, source, folder, report)
    return report


def _compare(model: Model, source: pathlib.Path, folder: pathlib.Path, report: Conversion) -> None:
    """Every parameter read back, and the outputs of both on the same tokens."""
    again = loading.load(folder, task=None, device="cpu", dtype=None, given={})
    read = dict(again.network.named_parameters())
    for name, array in model.network.named_parameters():
        if name not in read or read[name].astype(array.dtype).tobytes() != array.tobytes():
            report.relative = report.absolute = float("inf")
            report.notes.append(f"{name} was not read back as it was written")
            return
    report.compared = len(read)
    first = loading.load(source, task=None, device="cpu", dtype=np.float32, given={})
    vocabulary: int = first.network.config.vocabulary  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)  # an encoder–decoder takes two texts
    tokens = [rng.integers(0, vocabulary, kind.shape) for kind in first.task.example(first.network)]
    ours, theirs = [np.asarray(m.network(*tokens), np.float64) for m in (first, again)]
    compare_outputs(ours, theirs, report)
    ask_witness(frameworks.of_source(weights_file(source), first.architecture, 0), tokens, ours, report)
