"""Files as hostile bytes: paths checked, files mapped, zip archives validated, writing atomic."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.errors import ArgumentError, FileError, FormatError, MissingFileError, UnsafeFileError

if TYPE_CHECKING:
    import zipfile

    from zoonet.formats.checkpoint import Array

# A compressed member may grow to this many times the whole file (plus a floor for small files): weights barely
# compress, so anything beyond is a bomb rather than a model.
_EXPANSION_LIMIT = 32
_EXPANSION_FLOOR = 16 << 20
_DESCRIPTORS = "/proc/self/fd"  # where Linux has the open files of a process, by number


def expansion_budget(file_size: int) -> int:
    """Bytes that reading a file of `file_size` bytes may produce in memory."""
    return _EXPANSION_LIMIT * file_size + _EXPANSION_FLOOR


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path of a readable, non-empty, regular file, or raise a clear error.

    Raises ArgumentError (not a path), MissingFileError, FileError (a folder, a device, no permission),
    FormatError (an empty file).
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError("a file is named by its path", expected="str or os.PathLike", received=type(path).__name__)
    file = Path(os.fsdecode(path))
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"no file at {str(file)!r}", fix="check the path") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {str(file)!r}", received=str(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{str(file)!r} is a folder", expected="a file", fix="name the weights file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{str(file)!r} is not a regular file", expected="a file on disk")
    if status.st_size == 0:
        raise FormatError(f"{str(file)!r} is empty", fix="obtain the file again: its download may have failed")
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise FileError(f"cannot read {str(file)!r}", received=str(error), fix="check its permissions") from error
    return file


def map_file(path: Path) -> Array:
    """Map a non-empty file read-only as uint8; views of it keep the mapping alive."""
    try:
        with path.open("rb") as stream:
            mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {str(path)!r}", received=str(error)) from error
    _MAPPINGS.add(mapping)
    return np.frombuffer(mapping, np.uint8)


#: Those whose views are still in use.
_MAPPINGS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def release_pages() -> None:
    """Let go of the memory that mapped files take: what is looked at again comes from the system's cache or the disk.

    For whoever walks over a file that is larger than the memory he may take.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapping in list(_MAPPINGS):
            mapping.madvise(mmap.MADV_DONTNEED)


def view_as(data: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Interpret bytes (uint8, exactly the size that `dtype` and `shape` take) as an array in native byte order.

    The result shares memory with `data` where alignment and byte order allow. Booleans are normalised: a byte
    other than 0 or 1 would be an invalid value.
    """
    if dtype == np.bool_:
        return np.not_equal(data, 0).reshape(shape)
    array = np.frombuffer(data, dtype=dtype).reshape(shape) if data.size else np.empty(shape, dtype)
    if not dtype.isnative:
        return array.astype(dtype.newbyteorder("="))
    return array if array.flags.aligned else array.copy()


def check_relative_name(name: str, what: str) -> PurePosixPath:
    """Return a file name that stays inside its folder, or raise UnsafeFileError."""
    parts = PurePosixPath(name)
    unsafe = parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name
    if unsafe or not parts.parts:
        raise UnsafeFileError(
            f"{what} names a file outside its folder",
            expected="a relative name without '..'",
            received=repr(name[:200]),
            fix="do not trust this file",
        )
    return parts


class ZipArchive:
    """A zip archive whose members were checked: names, sizes, places; nothing is ever extracted to disk.

    names: member names in order. Raises FormatError for a broken archive, UnsafeFileError for names that leave
    the folder, links, and sizes out of proportion to the file.
    """

    def __init__(self, path: Path) -> None:
        import zipfile

        self.path = path
        self._data = map_file(path)
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
            EOFError,
        ) as error:
            raise FormatError(
                f"{path.name}: the zip archive is broken", received=str(error), fix="obtain the file again"
            ) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._verified: set[str] = set()
        for member in members:
            self._check_member(member)
            self._members[member.filename] = member
        if sum(member.file_size for member in members) > expansion_budget(self._data.size):
            raise UnsafeFileError(
                f"{path.name}: the archive would grow beyond measure (a zip bomb)",
                expected=f"at most {expansion_budget(self._data.size)} bytes",
                received=f"{sum(member.file_size for member in members)} bytes",
            )
        self._check_overlaps()

    def _check_member(self, member: zipfile.ZipInfo) -> None:
        check_relative_name(member.filename, f"{self.path.name}: a member of the archive")
        if member.filename in self._members:
            raise FormatError(f"{self.path.name}: two members are named {member.filename!r}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsafeFileError(f"{self.path.name}: member {member.filename!r} is a symbolic link")
        if member.flag_bits & 0x1:
            raise FormatError(f"{self.path.name}: member {member.filename!r} is encrypted")
        if member.compress_type not in (0, 8):
            raise FormatError(
                f"{self.path.name}: member {member.filename!r} is compressed by method {member.compress_type}",
                expected="stored or deflated",
            )
        if member.compress_type == 0 and member.compress_size != member.file_size:
            raise FormatError(f"{self.path.name}: member {member.filename!r} declares two different sizes")

    def _check_overlaps(self) -> None:
        end, last = 0, ""
        for member in sorted(self._members.values(), key=lambda member: member.header_offset):
            if member.header_offset < 0:
                raise FormatError(f"{self.path.name}: member {member.filename!r} starts before the file")
            if member.header_offset < end:
                raise UnsafeFileError(f"{self.path.name}: members {last!r} and {member.filename!r} overlap")
            end, last = member.header_offset + 30 + member.compress_size, member.filename
        if end > self._data.size:
            raise FormatError(f"{self.path.name}: member {last!r} ends after the file", fix="obtain the file again")

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Uncompressed size of a member in bytes."""
        return self._member(name).file_size

    def read(self, name: str) -> Array:
        """Return the bytes of a member (uint8): a view of the mapped file where it is stored, else inflated."""
        member = self._member(name)
        raw = self._raw(member)
        content = raw if member.compress_type == 0 else self._inflate(raw, member)
        # PyTorch writes 0 where it was told not to compute checksums.
        if member.CRC != 0 and name not in self._verified:
            if zlib.crc32(content.data) != member.CRC:
                raise FormatError(f"{self.path.name}: member {name!r} is damaged (CRC)", fix="obtain the file again")
            self._verified.add(name)
        return content

    def read_start(self, name: str, count: int) -> bytes:
        """Return at most `count` first bytes of a member, unverified."""
        member = self._member(name)
        raw = self._raw(member)
        if member.compress_type == 0:
            return raw[:count].tobytes()
        try:
            return zlib.decompressobj(-15).decompress(raw.data, count)
        except zlib.error as error:
            raise FormatError(f"{self.path.name}: member {name!r} is corrupt", received=str(error)) from error

    def _raw(self, member: zipfile.ZipInfo) -> Array:
        """The bytes of a member as they stand in the file."""
        name = member.filename
        start = member.header_offset
        header = self._data[start : start + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise FormatError(f"{self.path.name}: member {name!r} has no header where the directory says")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start += 30 + name_length + extra_length
        raw = self._data[start : start + member.compress_size]
        if raw.size != member.compress_size:
            raise FormatError(
                f"{self.path.name}: member {name!r} is truncated",
                expected=f"{member.compress_size} bytes",
                received=f"{raw.size}",
                fix="obtain the file again",
            )
        return raw

    def _inflate(self, raw: Array, member: zipfile.ZipInfo) -> Array:
        inflater = zlib.decompressobj(-15)
        try:
            # One byte more than declared shows a member that is larger than it says, without inflating it.
            content = inflater.decompress(raw.data, member.file_size + 1)
        except zlib.error as error:
            raise FormatError(
                f"{self.path.name}: member {member.filename!r} is corrupt", received=str(error)
            ) from error
        if len(content) != member.file_size:
            raise FormatError(
                f"{self.path.name}: member {member.filename!r} has not the size that it declares",
                expected=f"{member.file_size} bytes",
                received=f"{len(content)} or more",
            )
        return np.frombuffer(content, np.uint8)

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._members[name]
        except KeyError:
            raise FormatError(f"{self.path.name}: the archive has no member {name!r}") from None


@contextlib.contextmanager
def temporary_path(folder: Path, name: str, *, named: bool = False) -> Iterator[Path]:
    """Give the path of a new file in `folder`, removed in the end. Raises MissingFileError, FileError.

    Where the system can, the file has no name there until it is published, so that not even a killed process leaves it.
    named: it has one, for libraries that write nothing else (HDF5).
    """
    unnamed = None if named else _unnamed_file(folder)
    if unnamed is not None:
        try:
            yield Path(f"{_DESCRIPTORS}/{unnamed}")
        finally:
            os.close(unnamed)
        return
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:100]}.", suffix=".tmp")
    except FileNotFoundError as error:
        raise MissingFileError(f"no folder {str(folder)!r} to write to", fix="create it first") from error
    except (OSError, ValueError) as error:
        raise FileError(f"cannot write in {str(folder)!r}", received=str(error)) from error
    os.close(descriptor)
    try:
        yield Path(temporary)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _unnamed_file(folder: Path) -> int | None:
    """The descriptor of a new file without a name, None where the system or the folder has no such files."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(_DESCRIPTORS):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def atomic_path(path: Path, *, named: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it is flushed to disk and renamed to `path`.

    On failure the temporary file is removed and what stood at `path` stays. Raises MissingFileError where the
    folder does not exist, FileError where it cannot be written. named: see `temporary_path`.
    """
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder", fix="add a file name")
    with temporary_path(path.parent, path.name, named=named) as temporary:
        try:
            yield temporary
            _publish(temporary, path)
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"cannot write {str(path)!r}", received=str(error)) from error


def _publish(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
    if str(temporary.parent) == _DESCRIPTORS:
        temporary = _named(temporary, path)
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # a folder cannot be opened for fsync on every system
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _named(unnamed: Path, path: Path) -> Path:
    """Give a file without a name one beside `path`."""
    name = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    descriptors = os.open(_DESCRIPTORS, os.O_RDONLY)
    try:  # with a descriptor of the folder Python calls linkat, which follows the link to the file itself
        os.link(unnamed.name, name, src_dir_fd=descriptors, follow_symlinks=True)
    finally:
        os.close(descriptors)
    return name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
