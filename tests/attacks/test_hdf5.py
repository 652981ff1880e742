"""HDF5 files that reach for other files, never end, or claim more than they hold; Keras archives around them."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError, ZoonetError

Attack = Callable[..., ZoonetError]


def external_link(file: h5py.File, folder: pathlib.Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    file["weights"] = h5py.ExternalLink(str(folder / "other.h5"), "secret")


def external_storage(file: h5py.File, folder: pathlib.Path) -> None:
    (folder / "secret").write_bytes(bytes(12))
    file.create_dataset("weights", (3,), "f4", external=[(str(folder / "secret"), 0, 12)])


def external_storage_of_a_device(file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("weights", (3,), "f4", external=[("/dev/zero", 0, 12)])


def virtual_dataset(file: h5py.File, folder: pathlib.Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (3,))
    file.create_virtual_dataset("weights", layout)


def soft_link(file: h5py.File, folder: pathlib.Path) -> None:
    file["weights"] = h5py.SoftLink("/weights")


def root_inside_itself(file: h5py.File, folder: pathlib.Path) -> None:
    file.create_group("inner")["again"] = file["/"]


def deep_groups(file: h5py.File, folder: pathlib.Path) -> None:
    group = file
    for _ in range(300):
        group = group.create_group("g")
    group["weights"] = np.ones(3)


def exponential_groups(file: h5py.File, folder: pathlib.Path) -> None:
    """2^40 paths through 40 groups."""
    below = file.create_group("g0")
    below["weights"] = np.ones(3)
    for level in range(1, 40):
        group = file.create_group(f"g{level}")
        group["left"] = group["right"] = below
        below = group


def enormous_chunked(file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("weights", (1 << 20, 1 << 20), "f8", chunks=(1 << 10, 1 << 10))


def enormous_contiguous(file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("weights", (1 << 40,), "f8")


def bomb(file: h5py.File, folder: pathlib.Path) -> None:
    data = np.zeros((64, 1 << 20), np.float32)
    file.create_dataset("weights", data=data, chunks=(1, 1 << 20), compression="gzip", compression_opts=9)


def unknown_filter(file: h5py.File, folder: pathlib.Path) -> None:
    kinds, shape, dtype = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5s.create_simple((8,)), h5py.h5t.IEEE_F32LE
    kinds.set_chunk((8,))
    kinds.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"weights", dtype, shape, kinds)


def references(file: h5py.File, folder: pathlib.Path) -> None:
    file["target"] = np.ones(3)
    file.create_dataset("weights", data=np.array([file["target"].ref], dtype=h5py.ref_dtype))


def named_type(file: h5py.File, folder: pathlib.Path) -> None:
    file["weights"] = np.dtype("f4")


ATTACKS = [
    (external_link, UnsafeFileError, "link to elsewhere"),
    (external_storage, UnsafeFileError, "from other files"),
    (external_storage_of_a_device, UnsafeFileError, "from other files"),
    (virtual_dataset, UnsafeFileError, "from other files"),
    (soft_link, UnsafeFileError, "link to elsewhere"),
    (root_inside_itself, UnsafeFileError, "contains itself"),
    (deep_groups, UnsafeFileError, "nested too deeply"),
    (exponential_groups, UnsafeFileError, "more objects than the file can hold"),
    (enormous_chunked, UnsafeFileError, "beyond measure"),
    (enormous_contiguous, UnsafeFileError, "beyond measure"),
    (bomb, UnsafeFileError, "beyond measure"),
    (unknown_filter, UnsupportedFormatError, "unknown filter"),
    (references, UnsupportedFormatError, "not of numbers"),
    (named_type, UnsupportedFormatError, "neither a group nor a dataset"),
]


def build(make: Callable[..., None], path: pathlib.Path, dialect: str) -> None:
    """An HDF5 file with the attack in a place where the reader of a dialect looks."""
    with h5py.File(path, "w", libver="latest") as file:
        if dialect == "legacy":
            file.attrs["layer_names"] = np.array([b"layer"])
            file.create_group("layer").attrs["weight_names"] = np.array([b"weights"])
            make(file["layer"], path.parent)
        else:
            file.create_group("layers").create_group("dense")
            variables = file["layers/dense"].create_group("vars")
            variables["0"] = np.ones(3)
            make(variables, path.parent)


@pytest.mark.parametrize(("make", "error", "message"), ATTACKS, ids=[row[0].__name__ for row in ATTACKS])
@pytest.mark.parametrize("dialect", ["legacy", "weights", "archive"])
def test_attacks(
    tmp_path: pathlib.Path, attack: Attack, dialect: str, make: Any, error: type[ZoonetError], message: str
) -> None:
    path = tmp_path / ("a.h5" if dialect == "legacy" else "a.weights.h5")
    build(make, path, dialect)
    if dialect == "archive":
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": []}}')
            archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
            archive.write(path, "model.weights.h5")
        path = tmp_path / "a.keras"
    attack(path, error, message)


def test_configurations_that_are_no_json(tmp_path: pathlib.Path, attack: Attack) -> None:
    for text in ("[" * 100_000, "{", '{"a": ' * 20_000, "\ud800".encode("utf-8", "surrogatepass")):
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.writestr("config.json", text)
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
        attack(tmp_path / "a.keras", FormatError)


@pytest.mark.parametrize("size", [0, 8, 2**64 - 16, 2**64 - 1])
def test_heaps_that_never_end(tmp_path: pathlib.Path, attack: Attack, size: int) -> None:
    """The HDF5 library reads a heap for ever if its free space has no size."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["layer"]  # texts of any length lie in a heap
        file.create_group("layer").attrs["weight_names"] = ["layer/kernel"]
        file["layer/layer/kernel"] = np.ones(3)
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16
    while content[place : place + 2] != b"\0\0":
        place += 16 + (int.from_bytes(content[place + 8 : place + 16], "little") + 7) // 8 * 8
    content[place + 8 : place + 16] = size.to_bytes(8, "little")
    path.write_bytes(bytes(content))
    attack(path, FormatError, "HDF5 file is damaged: a heap")


@pytest.mark.parametrize("size", [8, 20, 47])
def test_superblocks_that_end_early(tmp_path: pathlib.Path, attack: Attack, size: int) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layer"] = np.ones(3)
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:size])
    attack(tmp_path / "a.h5", FormatError, "truncated")


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("length", [0, 11, 13, 2**20, 2**32 - 1])
@pytest.mark.parametrize("heap", ["own", "none", "outside"])
def test_lengths_of_texts(tmp_path: pathlib.Path, attack: Attack, version: str, length: int, heap: str) -> None:
    """The HDF5 library makes room for as many bytes as a text is said to have, before it looks for the text."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.attrs["layer_names"] = ["first_layer1"]
        group = file.create_group("first_layer1")
        group.attrs["weight_names"] = [b"kernel"]
        group["kernel"] = np.ones(3)
    content = bytearray(path.read_bytes())
    place = content.index((12).to_bytes(4, "little") + content.index(b"GCOL").to_bytes(8, "little"))
    content[place : place + 4] = length.to_bytes(4, "little")
    if heap != "own":
        address = 96 if heap == "none" else len(content)
        content[place + 4 : place + 12] = address.to_bytes(8, "little")
    with_checksums(content, b"OHDR")
    path.write_bytes(bytes(content))
    attack(path, FormatError, "the HDF5 file is damaged: (a text|it points)")


def with_checksums(content: bytearray, signature: bytes) -> None:
    """Give object headers of version 2 the checksums that the HDF5 library expects (lookup3 of Jenkins, 2006)."""
    place = content.find(signature)
    while place >= 0:
        flags = content[place + 5]
        start = place + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
        width = 1 << (flags & 3)
        end = start + width + int.from_bytes(content[start : start + width], "little")
        content[end : end + 4] = lookup3(bytes(content[place:end])).to_bytes(4, "little")
        place = content.find(signature, end)


def lookup3(data: bytes) -> int:
    """The hash that ends blocks of HDF5 files."""
    words = np.frombuffer(data + bytes(-len(data) % 12), "<u4").astype(object).reshape(-1, 3)
    state = [0xDEADBEEF + len(data)] * 3
    for row in words[:-1]:
        state = [(value + int(word)) % 2**32 for value, word in zip(state, row, strict=True)]
        for step, by in enumerate((4, 6, 8, 16, 19, 4)):
            one, other, third = (step % 3, (step + 2) % 3, (step + 1) % 3)
            state[one] = ((state[one] - state[other]) ^ turned(state[other], by)) % 2**32
            state[other] = (state[other] + state[third]) % 2**32
    state = [(value + int(word)) % 2**32 for value, word in zip(state, words[-1], strict=True)]
    for step, by in enumerate((14, 11, 25, 16, 4, 14, 24)):
        one, other = (step + 2) % 3, (step + 1) % 3
        state[one] = ((state[one] ^ state[other]) - turned(state[other], by)) % 2**32
    return state[2]


def turned(word: int, by: int) -> int:
    """32 bits, turned to the left."""
    return (word << by | word >> 32 - by) % 2**32
