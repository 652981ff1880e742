"""Pickles of a few bytes that grow where they are called with, named or told of: all is refused at once.

A tuple of tuples that hold each other twice has a billion parts for whoever prints it; what stands in the memo once can
be copied by a million calls.
"""

from __future__ import annotations

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable

import pytest
import torch

from zoonet import formats
from zoonet.ops.errors import FormatError, UnsafeFileError, ZoonetError

Attack = Callable[..., ZoonetError]
#: 2**60 parts in tuples, and in lists.
TUPLES = b"K\x01K\x02\x86" + b"2\x86" * 60
LISTS = b"](K\x01K\x01e" + b"q\x070](h\x07h\x07e" * 60


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def parts(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


STORAGE = parts(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), b"K\x04") + b"Q"
DTYPE = named("numpy", "dtype") + parts(text("f4")) + b"R"
ARRAY = named("numpy.core.multiarray", "_reconstruct") + parts(b"N", b"N", b"N") + b"R"


def tensor(
    storage: bytes = STORAGE, offset: bytes = b"K\x00", shape: bytes = parts(b"K\x04"), strides: bytes = parts(b"K\x01")
) -> bytes:
    return named("torch._utils", "_rebuild_tensor_v2") + parts(storage, offset, shape, strides, b"\x89", b"}") + b"R"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + parts(*arguments) + b"R"


def in_zip(program: bytes, path: pathlib.Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", b"\0" * 16)


UNFOLDING: dict[str, Callable[[bytes], bytes]] = {
    "an identifier": lambda bomb: bomb + b"Q",
    "the class of a storage": lambda bomb: parts(text("storage"), bomb, text("0"), text("cpu"), b"K\x04") + b"Q",
    "the key of a storage": lambda bomb: (
        parts(text("storage"), named("torch", "FloatStorage"), bomb, text("cpu"), b"K\x04") + b"Q"
    ),
    "the size of a storage": lambda bomb: (
        parts(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), bomb) + b"Q"
    ),
    "a storage": lambda bomb: tensor(storage=bomb),
    "an offset": lambda bomb: tensor(offset=bomb),
    "a shape": lambda bomb: tensor(shape=bomb),
    "a size": lambda bomb: tensor(shape=parts(bomb)),
    "strides": lambda bomb: tensor(strides=bomb),
    "a dtype of torch": lambda bomb: call(
        "torch._utils", "_rebuild_tensor_v3", STORAGE, b"K\x00", b")", b")", b"\x89", b"}", bomb
    ),
    "a function": lambda bomb: call("torch._tensor", "_rebuild_from_type_v2", bomb, bomb, bomb, bomb),
    "a torch.Size": lambda bomb: call("torch", "Size", bomb),
    "an encoding": lambda bomb: call("_codecs", "encode", text("a"), bomb),
    "a dtype": lambda bomb: call("numpy", "dtype", bomb),
    "the state of a dtype": lambda bomb: DTYPE + parts(b"K\x03", bomb, bomb, bomb, bomb) + b"b",
    "the shape of an array": lambda bomb: ARRAY + parts(b"K\x01", bomb, DTYPE, b"\x89", text("abcd")) + b"b",
    "a member of a class": lambda bomb: call("builtins", "getattr", named("pathlib", "Path"), bomb),
    "a global": lambda bomb: bomb + bomb + b"\x93",
}


@pytest.mark.parametrize("bomb", [TUPLES, LISTS], ids=["tuples", "lists"])
@pytest.mark.parametrize("place", UNFOLDING)
def test_messages_do_not_unfold_what_they_show(place: str, bomb: bytes, tmp_path: pathlib.Path, attack: Attack) -> None:
    in_zip(b"\x80\x04" + UNFOLDING[place](bomb) + b".", tmp_path / "a.pt")
    attack(tmp_path / "a.pt", FormatError)


def test_devices_and_layouts_of_anything_are_told_in_short(tmp_path: pathlib.Path) -> None:
    program = b"\x80\x04}" + text("w") + tensor() + b"s"
    for name, value in (
        ("device", call("torch", "device", TUPLES)),
        ("size", call("torch.serialization", "_get_layout", LISTS)),
    ):
        program += text(name) + value + b"s"
    in_zip(program + b".", tmp_path / "a.pt")
    assert formats.read(tmp_path / "a.pt").metadata["device"] == "tuple of 2: tuple, tuple"


LONG_LIST = b"(" + b"N" * 200_000 + b"l"
LONG_TUPLE = b"(" + b"K\x01" * 100_000 + b"t"


def repeated(first: bytes, function: bytes, arguments: bytes, count: int = 20_000) -> bytes:
    """A list of results of a function (memo 1), each time of the same value (memo 0)."""
    return first + b"q\x00" + function + b"q\x01](" + (b"h\x01" + arguments + b"R") * count + b"e"


BIG_ENDIAN = DTYPE + parts(b"K\x03", text(">"), b"N", b"N", b"N", b"K\x00", b"K\x00", b"K\x00") + b"bq\x02"
COPYING = {
    "a list of a list": repeated(LONG_LIST, named("builtins", "list"), b"h\x00\x85"),
    "a set of a tuple": repeated(LONG_TUPLE, named("builtins", "set"), b"h\x00\x85"),
    "a size": repeated(LONG_TUPLE, named("torch", "Size"), b"h\x00\x85"),
    "arguments": repeated(LONG_TUPLE, named("torch", "device"), b"h\x00"),
    "text to bytes": repeated(text("x" * 1_000_000), named("_codecs", "encode"), b"h\x00" + text("latin1") + b"\x86"),
    "arrays of the other byte order": repeated(
        b"B" + struct.pack("<I", 1_000_000) + b"\0" * 1_000_000,
        BIG_ENDIAN + named("numpy._core.numeric", "_frombuffer"),
        parts(b"h\x00", b"h\x02", parts(b"J" + struct.pack("<i", 250_000)), text("C")),
    ),
    "keys": LONG_TUPLE + b"q\x00}" + b"h\x00Ns" * 20_000,
    "names of classes": text("m" * 1_000_000)
    + b"q\x00]("
    + b"".join(b"h\x00" + text(f"a{place}") + b"\x93" for place in range(20_000))
    + b"e",
}


@pytest.mark.parametrize("name", COPYING)
def test_a_value_is_not_copied_without_end(name: str, tmp_path: pathlib.Path, attack: Attack) -> None:
    in_zip(b"\x80\x04" + COPYING[name] + b".", tmp_path / "a.pt")
    attack(tmp_path / "a.pt", UnsafeFileError)


def test_a_prefix_repeated_without_end(tmp_path: pathlib.Path, attack: Attack) -> None:
    """It is dropped a few times, and then is a name."""
    in_zip(b"\x80\x04}" + text("module." * 100_000 + "x") + tensor(strides=parts(b"K\x01")) + b"s.", tmp_path / "a.pt")
    (name,) = formats.read(tmp_path / "a.pt")
    assert name.startswith("module.module.")
    assert name.endswith(".x")


def test_many_buffers_that_are_not_kept(tmp_path: pathlib.Path) -> None:
    """Each buffer is looked up among the names of those that are not persistent."""
    buffers = b"(" + b"".join(text(f"a{place}") + b"N" for place in range(20_000)) + b"u"
    hidden = b"(" + b"".join(text(f"b{place}") for place in range(20_000)) + b"l"
    state = b"}" + text("_modules") + b"}s" + text("_buffers") + b"}" + buffers + b"s"
    state += text("_parameters") + b"}" + text("w") + tensor() + b"ss" + text("_non_persistent_buffers_set") + hidden
    in_zip(b"\x80\x04" + named("torch.nn", "Linear") + b")R" + state + b"sb.", tmp_path / "a.pt")
    assert list(formats.read(tmp_path / "a.pt")) == ["w"]


class Names:
    """What pickles as a call of PyTorch's reader of storages."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Callable[..., object], tuple[bytes]]:
        return torch.storage._load_from_bytes, (self.content,)  # type: ignore[attr-defined]


class Dangerous:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        import os

        return os.system, ("touch executed",)


@pytest.mark.parametrize("depth", [1, 2])
def test_pickles_inside_the_bytes_of_a_storage(depth: int, tmp_path: pathlib.Path, attack: Attack) -> None:
    """Those that `pickle.dump` makes of a tensor: read by the same rules, and only one inside the other."""
    value: object = Dangerous()
    for _ in range(depth):
        inner = io.BytesIO()
        torch.save(value, inner, _use_new_zipfile_serialization=False)
        value = Names(inner.getvalue())
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": value}))
    error = attack(tmp_path / "a.pkl", UnsafeFileError)
    assert "system" in str(error) or "_load_from_bytes" in str(error)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": Names(b"junk")}))
    attack(tmp_path / "a.pkl", FormatError)
