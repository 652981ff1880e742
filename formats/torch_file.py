"""PyTorch files: zip (since 1.6), legacy (0.1.10 to 1.5), tar (before), and TorchScript archives. No torch needed.

zip     NAME/data.pkl, NAME/data/KEY for each storage, optionally NAME/byteorder, NAME/constants.pkl (TorchScript)
legacy  pickles one after the other: magic number, protocol, system, the object, keys of storages; then for
        each storage its number of elements (8 bytes) and its bytes
tar     members "storages", "tensors" and "pickle"
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoonet.formats.checkpoint import Array, Checkpoint
from zoonet.formats.files import ZipArchive, expansion_budget, map_file
from zoonet.formats.pickle_names import Allowance, Known, Resolver, brief
from zoonet.formats.pickles import Unpickler
from zoonet.formats.state_dicts import checkpoint_from_object, is_tensor
from zoonet.formats.torch_objects import (
    INERT,
    Storage,
    StorageType,
    storage_from_id,
    tensor_from_storage,
    torch_resolver,
)
from zoonet.formats.torch_writer import write
from zoonet.ops.errors import FormatError

if TYPE_CHECKING:
    from zoonet.formats.registry import Probe

__all__ = ["LegacyReader", "read", "recognise", "write"]

_MAGIC = 0x1950A86A20F9469CFC6C
_TAR_MEMBERS = ("storages", "pickle")


def recognise(probe: Probe) -> bool:
    """Whether the file is one of PyTorch's containers."""
    container = _container(probe.head)
    if container == "zip":
        return any(name.endswith("/data.pkl") or name == "data.pkl" for name in probe.members)
    return container is not None


def _container(head: bytes) -> str | None:
    """The container by its first bytes: zip (of whatever), legacy, tar, or None."""
    if head[:4] == b"PK\x03\x04":
        return "zip"
    # The magic number as pickled: as LONG1 of ten bytes after the opcodes of a protocol, or as text by protocol 1.
    binary = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
    if (head[:1] == b"\x80" and binary in head[:24]) or head.startswith(f"L{_MAGIC}L\n".encode()):
        return "legacy"
    if head[257:262] == b"ustar" or head[:100].rstrip(b"\0") in (b"sys_info", b"pickle", b"storages"):
        return "tar"
    return None


def read(path: Path, key: str | None = None) -> Checkpoint:
    """Read a PyTorch file lazily. key: the entry of a checkpoint to take, see `zoonet.formats.state_dicts`.

    metadata: "container" (zip, legacy, tar, torchscript), "unknown_classes" (objects of these are kept as what the
    pickle says of them: nothing was imported or run) and what the file holds besides weights.
    """
    unknown: set[str] = set()
    with path.open("rb") as stream:
        head = stream.read(512)
    container = _container(head)
    constants: dict[str, Any] = {}
    if container == "zip":
        container, value, constants, opcodes = _read_zip(path, unknown)
    elif container == "legacy":
        value, opcodes = LegacyReader(path.name, map_file(path), torch_resolver(unknown=unknown)).read()
    elif container == "tar":
        value, opcodes = _read_tar(path, unknown)
    else:
        raise FormatError(
            f"{path.name} is not a PyTorch file",
            expected="a zip archive, a legacy pickle or a tar archive",
            received=f"a file that starts with {head[:16]!r}",
        )
    checkpoint = checkpoint_from_object(value, "torch", path.name, opcodes, key)
    checkpoint.metadata["container"] = container
    if constants:
        checkpoint.metadata["constants"] = constants
    if unknown:
        checkpoint.metadata["unknown_classes"] = ", ".join(sorted(unknown)[:20]) + ", …" * (len(unknown) > 20)
    return checkpoint


def _storage_parts(identifier: Any, length: int) -> tuple[Any, ...]:
    """Check a persistent identifier ("storage", type, key, location, count, ...) and return what follows its name."""
    if not isinstance(identifier, tuple) or len(identifier) != length or identifier[0] != "storage":
        raise FormatError("the file refers to what is not a storage", received=brief(identifier))
    return identifier[1:]


def _key(value: Any) -> str:
    """The key of an object in the file: a string, or a number that stands for one."""
    if not isinstance(value, (str, int)):
        raise FormatError("the file has a key that is not a string", received=brief(value))
    return str(value)


def _read_zip(path: Path, unknown: set[str]) -> tuple[str, Any, dict[str, Any], int]:
    """The container, the object, constants beside it (tensors by name), and the number of opcodes."""
    archive = ZipArchive(path)
    pickles = [name for name in archive.names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{path.name}: a PyTorch archive has one data.pkl", received=f"{len(pickles)}")
    root = pickles[0].removesuffix("data.pkl")
    big_endian = False
    if root + "byteorder" in archive:
        order = archive.read(root + "byteorder").tobytes().strip()
        if order not in (b"little", b"big"):
            raise FormatError(f"{path.name}: unknown byte order", received=repr(order[:20]))
        big_endian = order == b"big"
    budget = expansion_budget(path.stat().st_size)

    torchscript = root + "constants.pkl" in archive
    resolve = torch_resolver((*INERT, "__torch__.") if torchscript else INERT, unknown)

    def load(member: str, folder: str) -> tuple[Any, int, bool]:
        stored = _Stored(archive, root + folder, budget, big_endian)
        unpickler = Unpickler(archive.read(member).data, resolve, stored)
        return unpickler.load(), unpickler.opcodes, bool(stored.storages)

    value, opcodes, has_storages = load(pickles[0], "data/")
    if not torchscript:
        return "zip", value, {}, opcodes
    found, more, _ = load(root + "constants.pkl", "constants/")
    if not isinstance(found, (tuple, list)):
        raise FormatError(f"{path.name}: the constants of its code are no tuple", received=brief(found))
    constants = {f"CONSTANTS.c{place}": constant for place, constant in enumerate(found) if is_tensor(constant)}
    if constants and not has_storages:  # a frozen module has all its weights among the constants of its code
        value, constants = constants, {}
    return "torchscript", value, constants, opcodes + more


class _Stored:
    """The storages of an archive, by the persistent identifiers of a pickle. folder: where their members lie."""

    def __init__(self, archive: ZipArchive, folder: str, budget: int, big_endian: bool) -> None:
        self.storages: dict[tuple[str, StorageType], Storage] = {}
        self._archive = archive
        self._folder = folder
        self._budget = budget
        self._big_endian = big_endian

    def __call__(self, identifier: Any) -> Storage:
        kind, key, _location, count = _storage_parts(identifier, 5)
        storage = storage_from_id(kind, key, count, self._budget, self._big_endian)
        known = self.storages.setdefault((storage.key, kind), storage)
        if known.read is None:
            archive, member = self._archive, self._folder + storage.key
            if archive.size(member) < storage.nbytes:
                raise FormatError(
                    f"{archive.path.name}: storage {storage.key!r} is shorter than declared",
                    expected=f"{storage.nbytes} bytes",
                    received=f"{archive.size(member)}",
                )
            known.read = lambda: archive.read(member)
        return known


class LegacyReader:
    """Reads the legacy format: the storages' bytes come after the object that refers to them.

    name: of the file, for messages. data: its bytes. resolve: see `torch_resolver`.
    """

    def __init__(self, name: str, data: Array, resolve: Resolver) -> None:
        self._name = name
        self._data = data
        self._budget = expansion_budget(self._data.size)
        self._storages: dict[str, Storage] = {}
        self._views: dict[tuple[str, str, int, int], Storage] = {}
        self._resolve = resolve
        self._position = 0
        self._opcodes = 0

    def read(self) -> tuple[Any, int]:
        """Return the object and the number of opcodes."""
        if self._pickle() != _MAGIC or self._pickle() != 1001:
            raise FormatError(f"{self._name}: unknown version of PyTorch's legacy format")
        self._pickle()  # sizes of C types on the writer's machine: nothing here depends on them
        value = self._pickle()
        keys = self._pickle()
        if not isinstance(keys, list):
            raise FormatError(f"{self._name}: the list of storages is missing")
        for key in keys:
            self._place(_key(key))
        missing = [key for key, storage in self._storages.items() if storage.read is None]
        if missing:
            raise FormatError(f"{self._name}: storage {missing[0]!r} has no data", fix="obtain the file again")
        return value, self._opcodes

    def _pickle(self) -> Any:
        unpickler = Unpickler(self._data.data, self._resolve, self._persistent_load, self._position)
        value = unpickler.load()
        self._position = unpickler.position
        self._opcodes += unpickler.opcodes
        return value

    def _persistent_load(self, identifier: Any) -> Any:
        if isinstance(identifier, tuple) and len(identifier) >= 2 and identifier[0] == "module":
            return identifier[1]
        kind, key, _location, count, view = _storage_parts(identifier, 6)
        storage = storage_from_id(kind, key, count, self._budget)
        storage = self._storages.setdefault(storage.key, storage)
        if view is None:
            return storage
        if not isinstance(view, tuple) or len(view) != 3:
            raise FormatError(f"{self._name}: a view of a storage has not three parts")
        return self._view(storage, *view)

    def _view(self, storage: Storage, key: Any, offset: Any, count: Any) -> Storage:
        item = storage.dtype.itemsize
        valid = isinstance(key, (str, int)) and type(offset) is int and type(count) is int
        if not valid or offset < 0 or count < 0:
            raise FormatError(f"{self._name}: a view of a storage has an invalid place")
        if (offset + count) * item > storage.nbytes:
            raise FormatError(f"{self._name}: a view reaches beyond its storage {storage.key!r}")

        def read() -> Array:
            return storage.content()[offset * item : (offset + count) * item]

        view = Storage(str(key), storage.dtype, count * item, storage.budget, read)
        return self._views.setdefault((storage.key, view.key, offset, count), view)

    def _place(self, key: str) -> None:
        storage = self._storages.get(key)
        if storage is None or storage.read is not None:
            raise FormatError(f"{self._name}: data of an unknown storage {key!r}")
        header = self._data[self._position : self._position + 8].tobytes()
        start = self._position + 8
        count = struct.unpack("<q", header)[0] if len(header) == 8 else -1
        if count * storage.dtype.itemsize != storage.nbytes or start + storage.nbytes > self._data.size:
            raise FormatError(
                f"{self._name}: the data of storage {key!r} are truncated or corrupt",
                expected=f"{storage.nbytes} bytes at {start}",
                received=f"a file of {self._data.size} bytes",
                fix="obtain the file again",
            )
        content = self._data[start : start + storage.nbytes]
        storage.read = lambda: content
        self._position = start + storage.nbytes


def _read_tar(path: Path, unknown: set[str]) -> tuple[Any, int]:
    import tarfile

    members: dict[str, Array] = {}
    data = map_file(path)
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.name in ("storages", "tensors", "pickle") and member.isreg() and not member.issparse():
                    content = data[member.offset_data : member.offset_data + member.size]
                    if content.size != member.size:
                        raise FormatError(f"{path.name}: member {member.name!r} is truncated")
                    members.setdefault(member.name, content)
                if len(members) == 3:
                    break
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path.name}: the tar archive is broken", received=str(error)[:200]) from error
    missing = [name for name in _TAR_MEMBERS if name not in members]
    if missing:
        raise FormatError(f"{path.name}: a tar archive of PyTorch has a member {missing[0]!r}")
    return _TarReader(path.name, members, expansion_budget(data.size), unknown).read()


class _TarReader:
    """Reads the three members of a tar file of PyTorch before 0.1.10."""

    def __init__(self, name: str, members: dict[str, Array], budget: int, unknown: set[str]) -> None:
        self._name = name
        self._members = members
        self._budget = budget
        general = torch_resolver(unknown=unknown)
        self._resolve: Resolver = lambda module, name: self._by_value(general(module, name))
        self._objects: dict[str, Any] = {}
        self._opcodes = 0
        self._allowance = Allowance(sum(member.size for member in members.values()))

    def read(self) -> tuple[Any, int]:
        """Return the object and the number of opcodes."""
        self._read_storages()
        if "tensors" in self._members:
            self._read_tensors()
        value, _ = self._pickle(self._members["pickle"], 0)
        return value, self._opcodes

    def _pickle(self, data: Array, position: int) -> tuple[Any, int]:
        unpickler = Unpickler(data.data, self._resolve, self._persistent_load, position, self._allowance)
        value = unpickler.load()
        self._opcodes += unpickler.opcodes
        return value, unpickler.position

    def _persistent_load(self, identifier: Any) -> Any:
        if isinstance(identifier, tuple) and identifier:
            return identifier[0]
        try:
            return self._objects[_key(identifier)]
        except KeyError:
            raise FormatError(f"{self._name}: a reference to an unknown object {_key(identifier)[:50]!r}") from None

    def _header(self, data: Array, position: int) -> tuple[tuple[Any, ...], int]:
        parts, position = self._pickle(data, position)
        if not isinstance(parts, tuple) or len(parts) != 3:
            raise FormatError(f"{self._name}: an entry has not three parts")
        return parts, position

    def _count(self, data: Array) -> tuple[int, int]:
        count, position = self._pickle(data, 0)
        if type(count) is not int or not 0 <= count <= data.size:
            raise FormatError(f"{self._name}: an invalid number of entries", received=repr(count)[:50])
        return count, position

    def _by_value(self, target: Any) -> Any:
        """Some writers put a storage's identifier itself where PyTorch puts a reference to it: look it up."""
        if not isinstance(target, Known) or not target.name.startswith("torch._utils._rebuild_tensor"):
            return target

        def build(storage: Any, *rest: Any) -> Any:
            if isinstance(storage, tuple):
                storage = self._objects.get(_key(_storage_parts(storage, 5)[1]))
            return target.build(storage, *rest)

        return Known(target.name, build)

    def _read_storages(self) -> None:
        data = self._members["storages"]
        number, position = self._count(data)
        for _ in range(number):
            (key, _location, kind), position = self._header(data, position)
            (count,) = _numbers(data, position, 1, self._name)
            storage = storage_from_id(kind, key, count, self._budget)
            content = data[position + 8 : position + 8 + storage.nbytes]
            if content.size != storage.nbytes:
                raise FormatError(f"{self._name}: the data of storage {key!r} are truncated")
            storage.read = content.view
            position += 8 + storage.nbytes
            self._objects[storage.key] = storage
        if position < data.size:
            views, _ = self._pickle(data, position)
            for view in views if isinstance(views, list) else ():
                self._add_view(view)

    def _add_view(self, view: Any) -> None:
        if not isinstance(view, tuple) or len(view) != 4:
            raise FormatError(f"{self._name}: a view of a storage has not four parts")
        target, root, offset, count = view
        storage = self._objects.get(_key(root))
        valid = type(offset) is int and type(count) is int and offset >= 0 and count >= 0
        if not isinstance(storage, Storage) or not valid:
            raise FormatError(f"{self._name}: a view of an unknown storage {_key(root)[:50]!r}")
        item = storage.dtype.itemsize
        content = storage.content()[offset * item : (offset + count) * item]
        if content.size != count * item:
            raise FormatError(f"{self._name}: a view reaches beyond its storage")
        self._objects[_key(target)] = Storage(_key(target), storage.dtype, count * item, self._budget, content.view)

    def _read_tensors(self) -> None:
        data = self._members["tensors"]
        number, position = self._count(data)
        for _ in range(number):
            (key, storage_key, _kind), position = self._header(data, position)
            rank = struct.unpack("<i", _bytes(data, position, 4, self._name))[0]
            if not 0 <= rank <= 64:
                raise FormatError(f"{self._name}: a tensor of invalid rank", received=rank)
            numbers = _numbers(data, position + 8, 2 * rank + 1, self._name)
            position += 8 + 8 * len(numbers)
            storage = self._objects.get(_key(storage_key))
            shape, strides, offset = numbers[:rank], numbers[rank:-1], numbers[-1]
            self._objects[_key(key)] = tensor_from_storage(storage, offset, shape, strides)


def _bytes(data: Array, position: int, count: int, name: str) -> bytes:
    content = data[position : position + count].tobytes()
    if len(content) != count:
        raise FormatError(f"{name}: the file is truncated", expected=f"{count} bytes at {position}")
    return content


def _numbers(data: Array, position: int, count: int, name: str) -> tuple[int, ...]:
    return struct.unpack(f"<{count}q", _bytes(data, position, 8 * count, name))
