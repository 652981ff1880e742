"""Pickles that would run code or exhaust memory, in every place where a file can carry a pickle."""

from __future__ import annotations

import contextlib
import io
import pathlib
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from zoonet.formats.pickle_names import resolver
from zoonet.formats.pickles import Unpickler
from zoonet.ops.errors import FormatError, UnsafeFileError, ZoonetError

Attack = Callable[..., ZoonetError]
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOL = b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}q\x00(X\r\x00\x00\x00little_endianq\x01\x88u."


def in_zip(program: bytes, path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", b"\0" * 64)


def in_torchscript(program: bytes, path: pathlib.Path) -> None:
    in_zip(program, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", program)


def in_legacy(program: bytes, path: pathlib.Path) -> None:
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + program + b"\x80\x02].")


def in_legacy_system(program: bytes, path: pathlib.Path) -> None:
    path.write_bytes(MAGIC + PROTOCOL + program + b"\x80\x02}." + b"\x80\x02].")


def in_legacy_keys(program: bytes, path: pathlib.Path) -> None:
    path.write_bytes(MAGIC + PROTOCOL + SYSTEM + b"\x80\x02}." + program)


def in_tar(program: bytes, path: pathlib.Path, member: str = "pickle") -> None:
    contents = {"storages": b"\x80\x02K\x00.\x80\x02].", "tensors": b"\x80\x02K\x00.", "pickle": b"\x80\x02}."}
    contents[member] = program
    with tarfile.open(path, "w:") as archive:
        for name in ("pickle", "tensors", "storages"):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents[name])
            archive.addfile(entry, io.BytesIO(contents[name]))


def in_tar_storages(program: bytes, path: pathlib.Path) -> None:
    in_tar(program, path, "storages")


def bare(program: bytes, path: pathlib.Path) -> None:
    path.write_bytes(program if program.startswith(b"\x80") else b"\x80\x02" + program)


CARRIERS = [
    in_zip,
    in_torchscript,
    in_legacy,
    in_legacy_system,
    in_legacy_keys,
    in_tar,
    in_tar_storages,
    bare,
]


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


COMMAND = text("touch executed")
CALLS = {
    "REDUCE": b"\x80\x02cos\nsystem\n" + COMMAND + b"\x85R.",
    "REDUCE of posix": b"\x80\x02cposix\nsystem\n" + COMMAND + b"\x85R.",
    "REDUCE of Python 2": b"\x80\x02c__builtin__\neval\n" + COMMAND + b"\x85R.",
    "REDUCE of subprocess": b"\x80\x02csubprocess\nPopen\n(" + COMMAND + b"tR.",
    "GLOBAL alone": b"\x80\x02cos\nsystem\n.",
    "INST": b"\x80\x02(" + COMMAND + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + COMMAND + b"o.",
    "NEWOBJ": b"\x80\x02cos\n_wrap_close\n" + COMMAND + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + COMMAND + b"\x85}\x92.",
    "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + COMMAND + b"\x85R.",
    "STACK_GLOBAL, dotted": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + COMMAND + b"\x85R.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "BUILD of a class of Python": b"\x80\x02ccode\nInteractiveInterpreter\n)\x81}"
    + text("__class__")
    + COMMAND
    + b"sb.",
    "BUILD of a dict": b"\x80\x02}}" + text("__setstate__") + COMMAND + b"sb.",
    "BUILD of a list": b"\x80\x02]}b.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"Pos.system\n.",
    "BINPERSID": b"\x80\x02" + COMMAND + b"Q.",
    "BINPERSID of a tuple": b"\x80\x02(" + text("module") + b"cos\nsystem\n" + COMMAND + COMMAND + b"tQ.",
    "in a state dict": b"\x80\x02}" + text("state_dict") + b"}" + text("w") + b"cos\nsystem\n" + COMMAND + b"\x85Rss.",
    "in a key": b"\x80\x02}cos\nsystem\n" + COMMAND + b"\x85RK\x01s.",
    "in arguments": b"\x80\x02ccollections\nOrderedDict\ncos\nsystem\n" + COMMAND + b"\x85R\x85R.",
    "rebuilt by os.system": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n"
    + COMMAND
    + b"\x85NtR.",
    "rebuilt by another builder": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(c_codecs\nencode\nctorch\nTensor\n"
    + COMMAND
    + b"\x85NtR.",
    "_reconstructor": b"\x80\x02ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "calling a string": b"\x80\x02" + COMMAND + b")R.",
    "calling a module": b"\x80\x02ctorch\nload\n" + COMMAND + b"\x85R.",
    "hub": b"\x80\x02ctorch.hub\nload\n" + COMMAND + b"\x85R.",
    "pickle in pickle": b"\x80\x02cpickle\nloads\nC\x01.\x85R.",
    "getattr": b"\x80\x02cbuiltins\ngetattr\n(cos\nenviron\n" + text("clear") + b"tR.",
    "getattr of a list": b"\x80\x02cbuiltins\ngetattr\n(]" + text("clear") + b"tR.",
    "getattr of a builder": b"\x80\x02cbuiltins\ngetattr\n(ctorch._utils\n_rebuild_tensor_v2\n"
    + text("__globals__")
    + b"tR.",
    "getattr of getattr": b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\ngetattr\n" + text("__self__") + b"tR.",
    "calling an attribute": b"\x80\x02cbuiltins\ngetattr\n(csomebody\nThing\n" + text("run") + b"tR)R.",
    "import": b"\x80\x02cbuiltins\n__import__\n" + text("antigravity") + b"\x85R.",
    "partial": b"\x80\x02cfunctools\npartial\n(cos\nsystem\n" + COMMAND + b"tR.",
    "numpy runstring": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(" + COMMAND + b"}tR.",
    "numpy load": b"\x80\x02cnumpy\nload\n" + COMMAND + b"\x85R.",
    "codec": b"\x80\x02c_codecs\nencode\n(" + COMMAND + text("zlib_codec") + b"tR.",
    "object array": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K\x01\x85"
    b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR\x89](cos\nsystem\n" + COMMAND + b"\x85Retb.",
    "object scalar": b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR"
    b"C\x01.tR.",
}


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_called(
    name: str, carrier: Callable[[bytes, pathlib.Path], None], tmp_path: pathlib.Path, attack: Attack
) -> None:
    carrier(CALLS[name], tmp_path / "a.pt")
    attack(tmp_path / "a.pt", FormatError)
    assert not pathlib.Path("executed").exists()


def test_real_pickles_of_dangerous_objects(tmp_path: pathlib.Path, attack: Attack) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return os.system, ("touch executed",)

    for protocol in range(6):
        in_zip(pickle.dumps({"state_dict": {"w": [Evil()]}}, protocol), tmp_path / "a.pt")
        attack(tmp_path / "a.pt", UnsafeFileError, "neither a tensor nor a plain container")
    assert not pathlib.Path("executed").exists()


def nested(opening: bytes, count: int, closing: bytes) -> bytes:
    return b"\x80\x02" + opening * count + b"N" + closing * count + b"."


def doubling(levels: int, join: bytes) -> bytes:
    """Each level holds the one before it twice: 2**levels items from a few bytes."""
    program = b"\x80\x02]"
    for _ in range(levels):
        program += b"2" + join
    return program + b"."


BOMBS = {
    "tuples in tuples, twice each": doubling(60, b"\x86"),
    "lists in lists, twice each": b"\x80\x02]q\x00"
    + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    + b".",
    "tuples as a key": doubling(60, b"\x86")[:-1].replace(b"\x80\x02", b"\x80\x02}", 1) + b"K\x01s.",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "a dict that holds itself": b"\x80\x02}q\x00" + text("a") + b"h\x00s.",
    "deep lists": nested(b"]", 100_000, b"a"),
    "deep tuples": b"\x80\x02N" + b"\x85" * 100_000 + b".",
    "deep dicts": b"\x80\x02" + (b"}" + text("a")) * 50_000 + b"N" + b"s" * 50_000 + b".",
    "text of 4 GiB": b"\x80\x02X\xff\xff\xff\xffa.",
    "text of 2**63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"a.",
    "bytes of 2**63 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"a.",
    "bytearray of 2**40 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
    "a frame of 2**63 bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
    "an integer of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f\x00.",
    "an integer of negative size": b"\x80\x02\x8b\xff\xff\xff\xff\x00.",
    "an integer of a million digits": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "bytes(10**12)": b"\x80\x02cbuiltins\nbytes\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
    "bytearray(10**12)": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.",
    "list(range)": b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\nJ\xff\xff\xff\x7f\x85R\x85R.",
    "a memo of large index": b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xfe.",
    "an empty stack": b"\x80\x020.",
    "a mark that is missing": b"\x80\x02t.",
    "a mark as a value": b"\x80\x02(a.",
    "a mark as the result": b"\x80\x02(.",
    "an endless line": b"\x80\x02c" + b"a" * 100_000,
    "an unknown protocol": b"\x80\x63N.",
    "no STOP": b"\x80\x02N",
    "two results": b"\x80\x02NN.",
    "an odd number of items": b"\x80\x02}(Nu.",
    "append to a number": b"\x80\x02K\x01Na.",
    "set items of a list": b"\x80\x02]NNs.",
    "a set of lists": b"\x80\x04\x8f(]\x90.",
    "text that is not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "an array of 2**60 elements": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR("
    b"K\x01\x8a\x08" + struct.pack("<q", 2**60) + b"\x85cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tR\x89C\x01atb.",
    "a dtype of 2**30 bytes": b"\x80\x02cnumpy\ndtype\n(" + text("S1073741824") + b"K\x00K\x01tR.",
}


@pytest.mark.parametrize("carrier", [in_zip, in_legacy, in_tar, bare], ids=lambda carrier: carrier.__name__)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_broken_programs(
    name: str, carrier: Callable[[bytes, pathlib.Path], None], tmp_path: pathlib.Path, attack: Attack
) -> None:
    carrier(BOMBS[name], tmp_path / "a.pt")
    attack(tmp_path / "a.pt", FormatError)


def tensor(
    storage: bytes = b"ctorch\nFloatStorage\n",
    key: bytes = text("0"),
    count: int = 16,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 2),
    strides: tuple[int, ...] = (2, 1),
) -> bytes:
    """A state dict with one tensor of the given geometry over the 64 bytes of storage 0."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    reference = b"(" + text("storage") + storage + key + text("cpu") + number(count) + b"tQ"
    sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
    rest = number(offset) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + rest + b"s."


GEOMETRIES = {
    "storage of negative size": tensor(count=-1),
    "storage of 2**62 elements": tensor(count=2**62),
    "storage larger than its member": tensor(count=17),
    "storage that is absent": tensor(key=text("7")),
    "storage outside the folder": tensor(key=text("../../etc/passwd")),
    "storage of an unknown class": tensor(storage=b"ctorch\nFloat\n"),
    "storage of a dtype": tensor(storage=b"ctorch\nfloat32\n"),
    "storage key of a list": tensor(key=b"]"),
    "offset beyond": tensor(offset=13),
    "offset negative": tensor(offset=-1),
    "offset huge": tensor(offset=2**62),
    "shape beyond": tensor(shape=(5, 4), strides=(4, 1)),
    "shape negative": tensor(shape=(-2, 2)),
    "shape huge": tensor(shape=(2**61, 2**61)),
    "shape huge, strides of zero": tensor(shape=(2**31, 2**31), strides=(0, 0)),
    "strides beyond": tensor(strides=(20, 1)),
    "strides negative": tensor(strides=(-2, 1)),
    "strides missing": tensor(strides=(1,)),
    "rank of 100": tensor(shape=(1,) * 100, strides=(1,) * 100),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_is_checked(name: str, tmp_path: pathlib.Path, attack: Attack) -> None:
    in_zip(GEOMETRIES[name], tmp_path / "a.pt")
    attack(tmp_path / "a.pt", FormatError)
    in_legacy(GEOMETRIES[name], tmp_path / "a.pt")
    attack(tmp_path / "a.pt", FormatError)


def test_the_corpus_is_well_made(tmp_path: pathlib.Path) -> None:
    """The same program with a harmless geometry is read: the attacks fail for what they attack."""
    from zoonet import formats

    in_zip(tensor(), tmp_path / "a.pt")
    assert formats.read(tmp_path / "a.pt")["w"].load().tolist() == [[0, 0], [0, 0]]


def test_every_opcode_is_known_or_refused() -> None:
    """No opcode byte runs anything or fails in a way of its own, whatever stands on the stack."""
    resolve = resolver({})
    for opcode in range(256):
        for stack in (b"", b"(", b"N", b"]N", b"}NN", b"(NN", b"\x8f(K\x01", b"NN"):
            for rest in (b".", b"\0" * 20 + b".", b"1\n2\n.", b"\xff" * 20):
                with contextlib.suppress(FormatError):
                    Unpickler(b"\x80\x04" + stack + bytes([opcode]) + rest, resolve).load()
