"""Keras 3 models (.keras): a zip archive of config.json, metadata.json and model.weights.h5, and perhaps assets.

The configuration is returned as parsed JSON; nothing that it names is imported or run.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.formats.checkpoint import Checkpoint, LazyTensor
from zoonet.formats.files import ZipArchive, atomic_path, temporary_path
from zoonet.formats.json_data import parse_json_object
from zoonet.formats.keras_weights import read_tree, write_tree
from zoonet.ops.errors import ArgumentError, UnsafeFileError, UnsupportedFormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_JSON = 64 << 20


def recognise(probe: Probe) -> bool:
    """Whether the file is a zip archive with a configuration and weights of Keras."""
    return _CONFIG in probe.members and (_METADATA in probe.members or _WEIGHTS in probe.members)


def read(path: Path) -> Checkpoint:
    """Read a .keras file; tensors are named as in its weights file, "layers/conv2d/vars/0".

    metadata: "config" and "keras_metadata" (parsed JSON), "assets" (names of further members), "zoonet" (what zoonet
    wrote), and those of `zoonet.formats.keras_weights`.
    """
    archive = ZipArchive(path)
    metadata: dict[str, Any] = {}
    for key, member in (("config", _CONFIG), ("keras_metadata", _METADATA)):
        if member in archive:
            if archive.size(member) > _MAX_JSON:
                raise UnsafeFileError(f"{path.name}: {member} is too large", expected=f"at most {_MAX_JSON} bytes")
            metadata[key] = parse_json_object(archive.read(member).tobytes(), f"{path.name}: {member}")
    if "zoonet" in metadata.get("keras_metadata", {}):
        metadata["zoonet"] = metadata["keras_metadata"].pop("zoonet")
    assets = [name for name in archive.names if name not in (_CONFIG, _METADATA, _WEIGHTS)]
    if _WEIGHTS not in archive:
        raise UnsupportedFormatError(f"{path.name}: no {_WEIGHTS} in the archive", received=", ".join(assets)[:200])
    if assets:
        metadata["assets"] = assets
    tensors, more = read_tree(archive.read(_WEIGHTS), f"{path.name}: {_WEIGHTS}")
    return Checkpoint(tensors, {**metadata, **more}, "keras")


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write a .keras file that Keras loads by `load_model`.

    metadata: "config" (required: the model's configuration as Keras serialises it), "keras_metadata" (optional).
    Raises ArgumentError without a configuration, UnsupportedFormatError for names that are not of the model's tree.
    """
    config = metadata.get("config")
    if not isinstance(config, dict):
        raise ArgumentError(
            "a .keras file needs the model's configuration",
            expected="metadata['config'], a dict",
            received=type(config).__name__,
            fix="write .weights.h5 for weights alone",
        )
    described = metadata.get("keras_metadata")
    if not isinstance(described, dict):
        described = {"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}
    if isinstance(metadata.get("zoonet"), dict):
        described = {**described, "zoonet": metadata["zoonet"]}
    with atomic_path(path) as temporary, temporary_path(path.parent, path.name, named=True) as weights:
        write_tree(tensors, {key: value for key, value in metadata.items() if key != "zoonet"}, weights)
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            archive.writestr(zipfile.ZipInfo(_METADATA), json.dumps(described))
            archive.writestr(zipfile.ZipInfo(_CONFIG), json.dumps(config))
            entry = zipfile.ZipInfo(_WEIGHTS)
            entry.file_size = weights.stat().st_size
            with weights.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
