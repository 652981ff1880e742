"""The table of formats; detection by content; `read`, `write` and `describe`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

from zoonet.formats.checkpoint import Checkpoint, LazyTensor, as_lazy
from zoonet.formats.files import ZipArchive, check_path
from zoonet.ops.errors import ArgumentError, FormatError, UnsafeFileError, UnsupportedFormatError, ZoonetError


class Probe:
    """What detection may look at: the path, the size, the first bytes, the members of a zip archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as stream:
            self.head = stream.read(4096)

    @cached_property
    def members(self) -> list[str]:
        """Member names where the file is a zip archive, else an empty list."""
        return ZipArchive(self.path).names if self.head[:4] == b"PK\x03\x04" else []


class FormatModule(Protocol):
    """What the module of a format defines; one that cannot be written defines no `write`."""

    def recognise(self, probe: Probe) -> bool:
        """Whether the content is in this format."""

    def read(self, path: Path, **options: Any) -> Checkpoint:
        """Read the file."""


@dataclass(frozen=True)
class Format:
    """One line of the table: name, module of zoonet.formats, file suffixes (the first is the usual one)."""

    name: str
    module_name: str
    suffixes: tuple[str, ...]

    @property
    def module(self) -> FormatModule:
        """The module, imported on first use."""
        return cast(FormatModule, importlib.import_module(f"zoonet.formats.{self.module_name}"))


# Detection asks from the top: formats with a signature first, those known by arithmetic alone last.
FORMATS: tuple[Format, ...] = (
    Format("safetensors", "safetensors", (".safetensors",)),
    Format("sharded", "sharded", (".index.json",)),
    Format("torch", "torch_file", (".pt", ".pth", ".bin", ".th", ".ckpt", ".tar")),
    Format("keras", "keras_zip", (".keras",)),
    Format("keras_h5", "keras_h5", (".h5", ".hdf5")),
    Format("keras_weights", "keras_weights", (".weights.h5",)),
    Format("npz", "numpy_files", (".npz", ".npy")),
    Format("onnx", "onnx_weights", (".onnx",)),
    Format("pickle", "pickled", (".pkl", ".pickle", ".model")),
    Format("llama2c", "llama2c", ()),
    Format("darknet", "darknet", (".weights",)),
)

_WEB_PAGE = (b"<!doctype", b"<html")
_NOT_WEIGHTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    *((start, "a web page", "download the file itself, not the page that shows it") for start in _WEB_PAGE),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"bzh", "a bzip2 archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"gguf", "a GGUF file", "GGUF is not read yet: use the safetensors release of this model"),
)


def format_named(name: str) -> Format:
    """Return the format called `name`, or raise ArgumentError."""
    for entry in FORMATS:
        if entry.name == name:
            return entry
    raise ArgumentError(
        f"no format is called {name!r}", expected="one of " + ", ".join(entry.name for entry in FORMATS)
    )


def format_of_suffix(path: Path) -> Format | None:
    """Return the format with the longest suffix that `path` ends with, or None."""
    name = path.name.lower()
    matches = [(len(suffix), entry) for entry in FORMATS for suffix in entry.suffixes if name.endswith(suffix)]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def detect(path: str | os.PathLike[str]) -> Format:
    """Return the format of a file, found from its content.

    A broken file that no format recognises counts as what its suffix says, so that reading it names the damage.
    Raises MissingFileError, FileError, FormatError, UnsupportedFormatError.
    """
    file = check_path(path)
    probe = Probe(file)
    for entry in FORMATS:
        if entry.module.recognise(probe):
            return entry
    start = probe.head.lstrip().lower()
    for signature, what, fix in _NOT_WEIGHTS:
        if start.startswith(signature):
            raise UnsupportedFormatError(f"{file.name} is {what}", fix=fix)
    by_suffix = format_of_suffix(file)
    if by_suffix is not None:
        return by_suffix
    raise UnsupportedFormatError(
        f"{file.name} is in no format that zoonet reads",
        expected="one of " + ", ".join(entry.name for entry in FORMATS),
        received=f"a file that starts with {probe.head[:16]!r}",
    )


def damage(path: Path) -> FormatError | None:
    """What shows that a file did not arrive as it was sent: it is empty, a web page, or of a format and cut; or None.

    Contents of no known format show nothing, nor does what a format asks for and cannot be had (data beside the file).
    """
    try:
        probe = Probe(check_path(path))
        if probe.head.lstrip().lower().startswith(_WEB_PAGE):
            return UnsupportedFormatError(f"{path.name} is a web page")
        entry = next((entry for entry in FORMATS if entry.module.recognise(probe)), None)
        if entry is not None:
            entry.module.read(path)
    except (UnsupportedFormatError, UnsafeFileError):
        return None
    except FormatError as error:
        return error
    except (ZoonetError, RecursionError):
        return None
    return None


def read(path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Checkpoint:
    """Read a weights file of any format in the table; arrays are loaded when asked for.

    format: name of the format; found from the content where None. options: what the format's own reader takes
    (torch: key; darknet: cfg; llama2c: tokenizer).
    Raises MissingFileError, FormatError (corrupt), UnsupportedFormatError, UnsafeFileError, ArgumentError.
    """
    entry = detect(path) if format is None else format_named(format)
    file = check_path(path)
    try:
        return entry.module.read(file, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ArgumentError(f"the reader of {entry.name} files does not take this option", received=error) from error
    except RecursionError as error:
        raise FormatError(f"{file.name}: nested too deeply to be a weights file") from error
    except FormatError as error:
        if file.name in error.message:
            raise
        named = f"{file.name}: {error.message}"
        raise type(error)(named, expected=error.expected, received=error.received, fix=error.fix) from error


def writable(path: str | os.PathLike[str], format: str | None = None) -> tuple[Path, Format]:
    """The path, and the format that a file there is written in: the one named, or that of the suffix.

    Raises ArgumentError for what is no path, UnsupportedFormatError for a suffix or format that is not written.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ArgumentError("a file is named by its path", expected="such as 'model.safetensors'", received=repr(path))
    file = Path(os.fsdecode(path))
    entry = format_of_suffix(file) if format is None else format_named(format)
    if entry is None or not hasattr(entry.module, "write"):
        raise UnsupportedFormatError(
            f"cannot write {file.name!r}: " + (f"{entry.name} files are only read" if entry else "unknown suffix"),
            expected="a name that ends with "
            + ", ".join(s for e in FORMATS if hasattr(e.module, "write") for s in e.suffixes),
        )
    return file, entry


def write(
    checkpoint: Checkpoint | Mapping[str, Any],
    path: str | os.PathLike[str],
    format: str | None = None,
    **options: Any,
) -> None:
    """Write named arrays to a file, atomically: a failure leaves what stood at `path` untouched.

    checkpoint: a Checkpoint (its metadata is kept as far as the format can) or a mapping from names to arrays.
    format: name of the format; by the suffix of `path` where None. options: what the format's own writer takes.
    Raises UnsupportedFormatError (suffix unknown, format or dtype not writable), FileError, MissingFileError.
    """
    file, entry = writable(path, format)
    tensors: dict[str, LazyTensor] = {}
    for name, value in checkpoint.items():
        if not isinstance(name, str):
            raise ArgumentError("tensors are named by strings", received=repr(name))
        tensors[name] = as_lazy(value)
    metadata = checkpoint.metadata if isinstance(checkpoint, Checkpoint) else {}
    module: Any = entry.module  # it has `write`, or `writable` had refused
    module.write(tensors, metadata, file, **options)


@dataclass(frozen=True)
class TensorDescription:
    """One line of a description: name, shape, dtype name, bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class Description:
    """What a weights file holds, told without reading its arrays.

    parameters: number of elements of all tensors. nbytes: their bytes in memory. file_size: bytes on disk.
    ties: groups of names that share one tensor.
    """

    path: str
    format: str
    file_size: int
    tensors: tuple[TensorDescription, ...]
    metadata: dict[str, Any]
    ties: tuple[tuple[str, ...], ...]
    parameters: int
    nbytes: int


def describe(path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Description:
    """Describe a weights file: names, shapes, dtypes, sizes, metadata and totals; no array is loaded.

    Raises what `read` raises.
    """
    checkpoint = read(path, format, **options)
    tensors = tuple(
        TensorDescription(name, tensor.shape, str(tensor.dtype), tensor.nbytes) for name, tensor in checkpoint.items()
    )
    return Description(
        path=os.fsdecode(path),
        format=checkpoint.format,
        file_size=os.stat(path).st_size,
        tensors=tensors,
        metadata=checkpoint.metadata,
        ties=tuple(tuple(group) for group in checkpoint.ties()),
        parameters=sum(tensor.size for tensor in checkpoint.values()),
        nbytes=checkpoint.nbytes,
    )
