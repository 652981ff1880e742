"""Archives and headers that lie: zip slips, bombs, links, overlaps; safetensors offsets; NumPy objects; tar members."""

from __future__ import annotations

import io
import json
import pathlib
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zoonet.ops.errors import FormatError, UnsafeFileError, ZoonetError

Attack = Callable[..., ZoonetError]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


GOOD = npy(np.ones(3, np.float32))


def zipped(path: pathlib.Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# -- zip -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".keras"])
@pytest.mark.parametrize("name", ["../evil.npy", "/tmp/evil.npy", "a/../../evil.npy", "..\\evil.npy", "C:\\evil.npy"])
def test_members_outside_the_folder(tmp_path: pathlib.Path, attack: Attack, name: str, suffix: str) -> None:
    companion = {".npz": {}, ".pt": {"a/data.pkl": pickle.dumps({}, 2)}, ".keras": {"config.json": b"{}"}}[suffix]
    attack(zipped(tmp_path / f"slip{suffix}", {name: GOOD, **companion}), UnsafeFileError, "outside its folder")


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".keras"])
def test_bombs(tmp_path: pathlib.Path, attack: Attack, suffix: str) -> None:
    content = {
        ".npz": {"a.npy": npy(np.zeros(1 << 28, np.uint8))},
        ".pt": {"a/data.pkl": pickle.dumps({}, 2), "a/data/0": bytes(1 << 28)},
        ".keras": {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": bytes(1 << 28)},
    }[suffix]
    path = zipped(tmp_path / f"bomb{suffix}", content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    attack(path, UnsafeFileError, "zip bomb")


def test_a_member_larger_than_it_says(tmp_path: pathlib.Path, attack: Attack) -> None:
    path = zipped(tmp_path / "more.npz", {"a.npy": npy(np.zeros(1 << 24, np.uint8))}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    size = struct.pack("<I", (1 << 24) + 128)
    assert content.count(size) == 2
    small = npy(np.zeros(872, np.uint8))
    path.write_bytes(content.replace(size, struct.pack("<I", len(small))))
    attack(path, FormatError)


def test_links(tmp_path: pathlib.Path, attack: Attack) -> None:
    info = zipfile.ZipInfo("a.npy")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.npz", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    attack(tmp_path / "link.npz", UnsafeFileError, "symbolic link")


def test_members_that_share_their_bytes(tmp_path: pathlib.Path, attack: Attack) -> None:
    """A bomb without nesting: many entries of the directory point to one member."""
    path = zipped(tmp_path / "shared.npz", {"a.npy": GOOD, "b.npy": GOOD})
    content = bytearray(path.read_bytes())
    second = content.rindex(b"PK\x01\x02")
    content[second + 42 : second + 46] = struct.pack("<I", 0)  # the second entry now names the first member's place
    path.write_bytes(bytes(content))
    attack(path, FormatError)


def test_encrypted_duplicate_and_exotic_members(tmp_path: pathlib.Path, attack: Attack) -> None:
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("a.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", GOOD)
    attack(tmp_path / "twice.npz", FormatError, "two members")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        attack(zipped(tmp_path / "odd.npz", {"a.npy": GOOD}, method), FormatError, "stored or deflated")
    content = bytearray(zipped(tmp_path / "locked.npz", {"a.npy": GOOD}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "locked.npz").write_bytes(bytes(content))
    attack(tmp_path / "locked.npz", FormatError, "encrypted")


# -- NumPy -----------------------------------------------------------------------------------------------------------


class Evil:
    """What a pickle inside an array of objects would call."""

    def __reduce__(self) -> Any:
        return (exec, ("import pathlib; pathlib.Path('pwned').touch()",))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_objects(tmp_path: pathlib.Path, attack: Attack, suffix: str) -> None:
    path = tmp_path / f"objects{suffix}"
    array = np.array([Evil()], dtype=object)
    np.save(path, array, allow_pickle=True) if suffix == ".npy" else np.savez(path, a=array)
    attack(path, UnsafeFileError, "objects")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3-, }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
        "__import__('os').system('touch pwned')",
        "(" * 5000,
        "{'descr': '<f4'}",
        "\0" * 50,
    ],
)
def test_headers_of_arrays(tmp_path: pathlib.Path, attack: Attack, header: str) -> None:
    text = header.encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    attack(tmp_path / "a.npy", FormatError, "a.npy")
    assert not pathlib.Path("pwned").exists()


# -- safetensors -----------------------------------------------------------------------------------------------------


def tensor(start: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, Any] = {
    "overlap": {"a": tensor(0, 16, [4]), "b": tensor(8, 24, [4])},
    "hole": {"a": tensor(0, 8, [2]), "b": tensor(16, 32, [4])},
    "outside": {"a": tensor(0, 1 << 40, [1 << 38])},
    "negative offset": {"a": tensor(-16, 0, [4])},
    "backwards": {"a": tensor(16, 0, [4])},
    "negative shape": {"a": tensor(0, 16, [-4])},
    "wrong size": {"a": tensor(0, 32, [4])},
    "float shape": {"a": tensor(0, 16, [4.0])},
    "boolean shape": {"a": tensor(0, 4, [True])},
    "unknown dtype": {"a": tensor(0, 16, [4], "PYOBJECT")},
    "no offsets": {"a": {"dtype": "F32", "shape": [4]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}},
    "text offsets": {"a": {"dtype": "F32", "shape": [4], "data_offsets": ["0", "16"]}},
    "list": [1, 2],
    "metadata not text": {"__metadata__": {"a": 1}, "a": tensor(0, 32, [8])},
    "huge offsets": {"a": tensor(1 << 70, (1 << 70) + 32, [8])},
    "many dimensions": {"a": tensor(0, 32, [1] * 1000 + [8])},
}


@pytest.mark.parametrize("name", HEADERS)
def test_safetensors_headers(tmp_path: pathlib.Path, attack: Attack, name: str) -> None:
    text = json.dumps(HEADERS[name]).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(32))
    attack(tmp_path / "a.safetensors", FormatError, "a.safetensors")


@pytest.mark.parametrize("size", [1 << 30, 1 << 63, (1 << 64) - 1, 0, 1])
def test_safetensors_header_sizes(tmp_path: pathlib.Path, attack: Attack, size: int) -> None:
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", size) + b'{"a":' + b" " * 1000)
    attack(tmp_path / "a.safetensors", FormatError)


def test_a_real_header_of_a_gigabyte(tmp_path: pathlib.Path, attack: Attack) -> None:
    with (tmp_path / "a.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", 1 << 30) + b'{"a":')
        stream.truncate(8 + (1 << 30))  # sparse
    attack(tmp_path / "a.safetensors", FormatError)


def test_safetensors_json_bombs(tmp_path: pathlib.Path, attack: Attack) -> None:
    for text in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a":{"a":1,"a":2}}',
        b"9" * 100_000,
        b'{"a": NaN}',
        b"\xff\xfe{}",
    ):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
        attack(tmp_path / "a.safetensors", FormatError)


# -- tar -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_tar_members_that_are_no_files(tmp_path: pathlib.Path, attack: Attack, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    attack(tmp_path / "a.tar", FormatError)


def test_a_tar_of_enormous_members(tmp_path: pathlib.Path, attack: Attack) -> None:
    member = tarfile.TarInfo("pickle")
    member.size = 1 << 40
    with (tmp_path / "a.tar").open("wb") as stream:
        stream.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    attack(tmp_path / "a.tar", FormatError)


@pytest.mark.parametrize(
    "file",
    ["../a.safetensors", "/etc/hostname", "a.index.json", "..\\a", "C:a", "", ".", "a\0b", "a" * 5000, "b/../../a"],
)
def test_shards_that_are_no_files_beside_the_index(file: str, tmp_path: pathlib.Path, attack: Attack) -> None:
    (tmp_path / "a.index.json").write_text(json.dumps({"weight_map": {"w": file}}))
    attack(tmp_path / "a.index.json")
