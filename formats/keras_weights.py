"""Keras 3 weights (.weights.h5): an HDF5 tree of the model's objects, `layers/conv2d/vars/0` and so on.

Other HDF5 files that hold numeric datasets are read the same way: each dataset is a tensor named by its path.
Source: `H5IOStore` in `saving_lib.py` of Keras.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.files import atomic_path
from zoonet.formats.hdf5 import SIGNATURE, Hdf5File, create_dataset
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import UnsupportedFormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_OPTIMIZER = "optimizer/"


def recognise(probe: Probe) -> bool:
    """Whether the file is HDF5 (asked after Keras's legacy files)."""
    return probe.head.startswith(SIGNATURE)


def read(path: Path) -> Checkpoint:
    """Read a Keras 3 weights file; see `read_tree`."""
    tensors, metadata = read_tree(path, path.name)
    return Checkpoint(tensors, metadata, "keras_weights")


def read_tree(source: Path | Array, name: str) -> tuple[dict[str, LazyTensor], dict[str, Any]]:
    """Read the tree of a Keras 3 weights file, on disk or in memory: tensors by path, numbers in numeric order.

    metadata: "names" (path of an object -> the name of the layer) and "optimizer" (path -> LazyTensor), where present.
    """
    file = Hdf5File(source, name)
    tensors: dict[str, LazyTensor] = {}
    optimizer: dict[str, LazyTensor] = {}
    for path in sorted(file.datasets, key=_natural):
        if path.startswith(_OPTIMIZER):
            if file.is_numeric(path):
                optimizer[path.removeprefix(_OPTIMIZER)] = file.tensor(path)
        else:
            tensors[path] = file.tensor(path)
    names = {}
    for path in sorted(file.groups, key=_natural):
        if path == "vars" or path.endswith("/vars"):
            layer = file.attributes(path).get("name")
            if isinstance(layer, str):
                names[path.removesuffix("vars").removesuffix("/")] = layer
    metadata: dict[str, Any] = {"names": names} if names else {}
    own = file.attributes("").get("zoonet")
    if isinstance(own, str):
        metadata["zoonet"] = parse_json_object(own, f"{name}: zoonet")
    if optimizer:
        metadata["optimizer"] = optimizer
    return tensors, metadata


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts layer_2 before layer_10."""
    return [(int(part), "") if part.isdecimal() and len(part) < 19 else (-1, part) for part in re.split(r"(\d+)", path)]


def write(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write a file that Keras 3 loads by `load_weights`. Names are paths such as "layers/dense/vars/0".

    Raises UnsupportedFormatError for other names.
    """
    with atomic_path(path, named=True) as temporary:
        write_tree(tensors, metadata, temporary)


def write_tree(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], path: Path) -> None:
    """Write the HDF5 tree itself, not atomically."""
    import h5py

    for name in tensors:
        if not re.fullmatch(r"(?:[^/]+/)*vars/[^/]+", name) or {".", ".."} & set(name.split("/")):
            raise UnsupportedFormatError(
                f"Keras 3 weights are named by the model's tree: {name!r} is not such a name",
                expected="names such as 'layers/dense/vars/0'",
                fix="write legacy .h5, or map the names first",
            )
    names, own = metadata.get("names"), metadata.get("zoonet")
    with h5py.File(path, "w") as file:
        if isinstance(own, dict):
            file.attrs["zoonet"] = json.dumps(own)
        for name, tensor in tensors.items():
            create_dataset(file, name, tensor)
        for group, layer in names.items() if isinstance(names, dict) else ():
            if isinstance(group, str) and isinstance(layer, str):
                file.require_group(f"{group}/vars" if group else "vars").attrs["name"] = layer
