"""Weights in several files named by an index, as on Hugging Face: `model.safetensors.index.json` and its like.

The index is JSON: {"metadata": {"total_size": ...}, "weight_map": {"tensor name": "file in the same folder"}}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.formats.checkpoint import Checkpoint, LazyTensor
from zoonet.formats.files import atomic_path, check_relative_name
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import (
    ArgumentError,
    FormatError,
    MissingFileError,
    UnsafeFileError,
    UnsupportedFormatError,
)

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_MAX_INDEX = 256 << 20


def recognise(probe: Probe) -> bool:
    """Whether the file is JSON with a weight map."""
    start = probe.head.lstrip()
    return start.startswith(b"{") and (b'"weight_map"' in probe.head or probe.path.name.endswith(".index.json"))


def read(path: Path) -> Checkpoint:
    """Read all shards lazily. metadata: that of the index, and of the first shard under "shard_metadata"."""
    if path.stat().st_size > _MAX_INDEX:
        raise UnsafeFileError(f"{path.name}: too large for an index", expected=f"at most {_MAX_INDEX} bytes")
    index = parse_json_object(path.read_bytes(), path.name)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(f"{path.name}: an index must map tensor names to file names under 'weight_map'")
    shards: dict[str, Checkpoint] = {}
    tensors: dict[str, LazyTensor] = {}
    for name, file in weight_map.items():
        if file not in shards:
            shards[file] = _read_shard(path, file)
        if name not in shards[file]:
            raise FormatError(
                f"{path.name}: tensor {name!r} is not in {file!r}",
                fix="the shards and the index are not of one model: obtain them again",
            )
        tensors[name] = shards[file][name]
    metadata = dict(index["metadata"]) if isinstance(index.get("metadata"), dict) else {}
    first = next(iter(shards.values()), None)
    if first is not None and first.metadata:
        metadata["shard_metadata"] = first.metadata
    return Checkpoint(tensors, metadata, "sharded")


def _read_shard(index: Path, file: str) -> Checkpoint:
    from zoonet.formats import registry

    if ":" in file:  # a drive of Windows
        raise UnsafeFileError(f"{index.name}: a shard names a file outside its folder", received=repr(file[:200]))
    shard = index.parent / check_relative_name(file, f"{index.name}: a shard")
    if not os.path.exists(shard):  # also for a name that no file can have
        raise MissingFileError(
            f"{index.name}: its shard {file[:200]!r} is missing", fix="put all shards beside the index"
        )
    entry = registry.detect(shard)
    if entry.name not in ("safetensors", "torch"):
        raise UnsupportedFormatError(f"{index.name}: shard {file!r} is a {entry.name} file")
    checkpoint = entry.module.read(shard)
    return checkpoint.original()


def write(
    tensors: Mapping[str, LazyTensor],
    metadata: Mapping[str, Any],
    path: Path,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write `NAME.safetensors.index.json` and the shards `NAME-00001-of-0000N.safetensors`, the index last.

    max_shard_bytes: a shard holds at most this many bytes unless one tensor is larger.
    """
    from zoonet.formats import safetensors

    suffix = ".safetensors.index.json"
    if not path.name.endswith(suffix):
        raise UnsupportedFormatError(f"an index of shards is written as NAME{suffix}", received=path.name)
    if max_shard_bytes <= 0:
        raise ArgumentError("max_shard_bytes must be positive", received=max_shard_bytes)
    groups: list[dict[str, LazyTensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        if groups[-1] and filled + tensor.nbytes > max_shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.nbytes
    stem = path.name[: -len(suffix)]
    weight_map = {}
    for number, group in enumerate(groups, 1):
        file = f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        safetensors.write(group, {"format": "pt"}, path.with_name(file))
        weight_map.update(dict.fromkeys(group, file))
    kept = {
        **safetensors.header_metadata(metadata),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"metadata": kept, "weight_map": weight_map}, indent=2) + "\n", "utf-8")
