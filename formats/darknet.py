"""Darknet .weights files, which are float32 numbers without names: the .cfg beside them gives names and shapes.

    int32 major, minor, revision; "seen": int64 where 10 * major + minor >= 2, else int32
    for each layer its parameters: convolutional: biases, [scales, means, variances,] weights (out, in / groups, h, w);
    connected: biases, weights (out, in), [scales, means, variances]

Source: `load_weights_upto` in `src/parser.c` of AlexeyAB/darknet. Tensors are named "<layer>.<role>", for example
"0.weights" and "0.scales", the layers numbered from 0 as darknet does (the section [net] not counted).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.darknet_cfg import Layer, layers_of, parse_cfg
from zoonet.formats.files import atomic_path, check_path, map_file, view_as
from zoonet.ops.errors import ArgumentError, FormatError, MissingFileError, UnsafeFileError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

_FLOAT = np.dtype("<f4")
_MAX_CFG = 4 << 20


def recognise(probe: Probe) -> bool:
    """Whether the header is a plausible version; the numbers themselves have no signature."""
    if len(probe.head) < 16 or probe.path.suffix.lower() != ".weights":
        return False
    major, minor, _ = struct.unpack("<3i", probe.head[:12])
    return bool(0 <= major < 2000 and 0 <= minor < 2000)


def read(
    path: Path, cfg: str | os.PathLike[str] | None = None, layers: int | None = None, text: str | None = None
) -> Checkpoint:
    """Read a .weights file with its .cfg.

    cfg: path of the .cfg; where None, the file of the same stem beside the weights. layers: how many first layers
    the file holds, for partial files such as `darknet53.conv.74`; all where None. text: of a .cfg, in the place of cfg.
    metadata: "major", "minor", "revision", "seen", "cfg" (its text), "network" (the options of [net]) and "layers" (for
    each: type, line, options as text, input_shape and output_shape as (channels, height, width)).
    Raises MissingFileError without a .cfg, FormatError where the number of floats does not fit it.
    """
    text = _cfg_text(path, cfg) if text is None else text
    sections = parse_cfg(text)
    structure = layers_of(sections)
    data = map_file(path)
    head = data[:20].tobytes()
    if len(head) < 16:
        raise FormatError(f"{path.name}: too short for a darknet file", received=f"{data.size} bytes")
    major, minor, revision = struct.unpack("<3i", head[:12])
    wide = major * 10 + minor >= 2 and len(head) == 20
    (seen,) = struct.unpack("<q", head[12:20]) if wide else struct.unpack("<i", head[12:16])
    transposed = major > 1000 or minor > 1000
    tensors = _tensors(path.name, data[20 if wide else 16 :], structure[:layers], transposed)
    metadata = {
        "major": major,
        "minor": minor,
        "revision": revision,
        "seen": seen,
        "cfg": text,
        "network": dict(sections[0].options),
        "layers": [_describe(layer) for layer in structure],
    }
    return Checkpoint(tensors, metadata, "darknet")


def _describe(layer: Layer) -> dict[str, Any]:
    return {
        "type": layer.section.kind,
        "line": layer.section.line,
        "options": dict(layer.section.options),
        "input_shape": layer.input_shape,
        "output_shape": layer.output_shape,
    }


def _cfg_text(path: Path, cfg: str | os.PathLike[str] | None) -> str:
    if cfg is None and not path.with_suffix(".cfg").is_file():
        raise MissingFileError(
            f"{path.name} holds numbers without names: its .cfg is needed",
            expected=f"{path.with_suffix('.cfg').name!r} beside it",
            fix="put it there, or name it: cfg='...'",
        )
    file = check_path(path.with_suffix(".cfg") if cfg is None else cfg)
    if file.stat().st_size > _MAX_CFG:
        raise UnsafeFileError(f"{file.name}: too large for a cfg", expected=f"at most {_MAX_CFG} bytes")
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{file.name} is not text", received=str(error)) from error


def _tensors(name: str, data: Array, layers: list[Layer], transposed: bool) -> dict[str, LazyTensor]:
    available = data.size // 4
    total = sum(math.prod(shape) for layer in layers for _, shape in layer.parameters)
    tensors: dict[str, LazyTensor] = {}
    position = 0
    for layer in layers:
        for role, shape in layer.parameters:
            count = math.prod(shape)
            if position + count > available:
                raise FormatError(
                    f"{name}: the file ends inside layer {layer.index} [{layer.section.kind}], in its {role}",
                    expected=f"{total} floats",
                    received=f"{available}",
                    fix="the file is truncated, or the cfg is of another network",
                )
            flip = transposed and layer.section.kind == "connected" and role == "weights"
            tensors[f"{layer.index}.{role}"] = _tensor(data[4 * position : 4 * (position + count)], shape, flip)
            position += count
    if 4 * position != data.size:
        raise FormatError(
            f"{name}: the file is longer than its cfg says",
            expected=f"{total} floats",
            received=f"{available} and {data.size % 4} bytes",
            fix="use the cfg of this network",
        )
    return tensors


def _tensor(data: Array, shape: tuple[int, ...], flip: bool) -> LazyTensor:
    stored = shape[::-1] if flip else shape

    def load() -> Array:
        array = view_as(data, _FLOAT, stored)
        return np.ascontiguousarray(array.T) if flip else array

    return LazyTensor(shape, _FLOAT.newbyteorder("="), load)


def _pictures_seen(value: Any) -> int:
    """The count of the header, which other formats keep as text; 0 for what is none."""
    text = str(value)
    return int(text) if text.isdecimal() and len(text) <= 18 else 0


def write(
    tensors: Mapping[str, LazyTensor],
    metadata: Mapping[str, Any],
    path: Path,
    cfg: str | os.PathLike[str] | None = None,
) -> None:
    """Write a .weights file, and its .cfg beside it unless one is there.

    cfg: path of the .cfg; where None, the text in metadata["cfg"]. Tensors are converted to float32.
    Raises ArgumentError without a cfg, FormatError where names and shapes are not those of the cfg.
    """
    text = metadata.get("cfg") if cfg is None else _cfg_text(path, cfg)
    if not isinstance(text, str):
        raise ArgumentError("darknet weights are written with a cfg", fix="name it: cfg='...'")
    parameters = {
        f"{layer.index}.{role}": shape for layer in layers_of(parse_cfg(text)) for role, shape in layer.parameters
    }
    if set(parameters) != set(tensors):
        missing, unexpected = sorted(set(parameters) - set(tensors)), sorted(set(tensors) - set(parameters))
        raise FormatError(
            "the tensors are not those of the cfg",
            received=f"missing {missing[:5]}, unexpected {unexpected[:5]}",
        )
    for name, shape in parameters.items():
        if tensors[name].shape != shape:
            raise FormatError(
                f"tensor {name!r} has not the shape of the cfg", expected=shape, received=tensors[name].shape
            )
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<3iq", 0, 2, 5, _pictures_seen(metadata.get("seen"))))
        for name in parameters:
            stream.write(np.ascontiguousarray(tensors[name].load(), _FLOAT).reshape(-1).view(np.uint8).data)
    beside = path.with_suffix(".cfg")
    if not beside.exists():
        with atomic_path(beside) as temporary:
            temporary.write_text(text, "utf-8")
