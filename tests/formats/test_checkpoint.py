"""Reading, detecting, describing and writing files of any format: what all formats have in common."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import (
    ArgumentError,
    FileError,
    FormatError,
    MissingFileError,
    UnsupportedFormatError,
    ZoonetError,
)

ARRAYS = {"conv/weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "conv/bias": np.array([1.5, -2.0])}


def test_import_is_light() -> None:
    code = (
        "import sys, zoonet.formats; "
        "print([m for m in ('h5py','onnx','zipfile','tarfile','torch','safetensors') if m in sys.modules])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.safetensors", "safetensors"),
        ("a.safetensors.index.json", "sharded"),
        ("a.pt", "torch"),
        ("a.npz", "npz"),
        ("a.h5", "keras_h5"),
    ],
)
def test_written_files_are_detected_by_content_and_read_back(tmp_path: pathlib.Path, name: str, expected: str) -> None:
    formats.write(ARRAYS, tmp_path / name)
    if expected != "sharded":  # an index names its shards, so it keeps its name
        (tmp_path / name).rename(tmp_path / "renamed.xyz")
        name = "renamed.xyz"
    checkpoint = formats.read(tmp_path / name)
    assert checkpoint.format == expected
    assert set(checkpoint) == set(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(checkpoint[key].load(), array)
        assert checkpoint[key].dtype == array.dtype
    assert not [file for file in os.listdir(tmp_path) if file.endswith(".tmp")]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without names")
def test_a_killed_writer_leaves_nothing(tmp_path: pathlib.Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from zoonet.formats.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "a.pt").write_bytes(b"as it was")
    path = os.pathsep.join(entry for entry in sys.path if entry)
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "a.pt"], env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == -9
    assert os.listdir(tmp_path) == ["a.pt"]
    assert (tmp_path / "a.pt").read_bytes() == b"as it was"


def test_writing_where_files_have_names(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems that have no files without."""
    monkeypatch.setattr("zoonet.formats.files._unnamed_file", lambda _folder: None)
    for name in ("a.safetensors", "a.h5"):
        formats.write(ARRAYS, tmp_path / name)
        assert set(formats.read(tmp_path / name)) == set(ARRAYS)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.safetensors"]


def test_pages_of_a_mapped_file_are_let_go(tmp_path: pathlib.Path) -> None:
    """What was read stays what it is, and comes back when it is looked at again."""
    from zoonet.formats.files import release_pages

    formats.write(ARRAYS, tmp_path / "a.safetensors")
    arrays = formats.read(tmp_path / "a.safetensors").arrays()
    release_pages()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], array)


def test_describe_counts_without_loading(tmp_path: pathlib.Path) -> None:
    formats.write(formats.Checkpoint({k: formats.as_lazy(v) for k, v in ARRAYS.items()}), tmp_path / "a.safetensors")
    description = formats.describe(tmp_path / "a.safetensors")
    assert description.format == "safetensors"
    assert description.parameters == 26
    assert description.nbytes == 24 * 4 + 2 * 8
    assert description.file_size == (tmp_path / "a.safetensors").stat().st_size
    assert {(t.name, t.shape, t.dtype, t.nbytes) for t in description.tensors} == {
        ("conv/weight", (2, 3, 4), "float32", 96),
        ("conv/bias", (2,), "float64", 16),
    }


def test_describe_a_huge_sparse_file_at_once(tmp_path: pathlib.Path) -> None:
    """A file of 40 GB (sparse on disk) is described without touching its data."""
    size = 40 << 30
    header = b'{"w":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size // 4, size)
    header += b" " * (-len(header) % 8)
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        try:
            stream.truncate(8 + len(header) + size)
        except OSError:
            pytest.skip("the file system has no sparse files")
    assert formats.describe(path).parameters == size // 4


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz", ".h5"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: pathlib.Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    formats.write(ARRAYS, path)
    before = path.read_bytes()

    def fail() -> np.ndarray:
        raise OSError("disk on fire")

    broken = formats.LazyTensor((2,), np.dtype("f4"), fail)
    with pytest.raises(FileError, match="disk on fire"):
        formats.write({**ARRAYS, "z/last": broken}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_can_be_rewritten_from_itself(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    formats.write(ARRAYS, path)
    formats.write(formats.read(path), path)
    np.testing.assert_array_equal(formats.read(path)["conv/bias"].load(), ARRAYS["conv/bias"])


def test_a_tensor_that_lies_about_its_shape_is_caught() -> None:
    tensor = formats.LazyTensor((3,), np.dtype("f4"), lambda: np.zeros(2, np.float32))
    with pytest.raises(FormatError, match="shape"):
        tensor.load()


def test_paths_that_are_no_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(MissingFileError):
        formats.read(tmp_path / "absent.pt")
    with pytest.raises(FileError, match="folder"):
        formats.read(tmp_path)
    (tmp_path / "empty.pt").touch()
    with pytest.raises(FormatError, match="empty"):
        formats.read(tmp_path / "empty.pt")
    with pytest.raises(ArgumentError):
        formats.read(3)  # type: ignore[arg-type]
    with pytest.raises(ZoonetError):
        formats.read("nul\0byte")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="regular"):
        formats.read(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"\x1f\x8b\x08\x00aaaa", "gzip"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"hello, world, this is no model", "no format"),
    ],
)
def test_files_that_are_something_else(tmp_path: pathlib.Path, content: bytes, said: str) -> None:
    (tmp_path / "file.xyz").write_bytes(content)
    with pytest.raises(UnsupportedFormatError, match=said):
        formats.read(tmp_path / "file.xyz")


def test_writing_what_cannot_be_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="unknown suffix"):
        formats.write(ARRAYS, tmp_path / "a.unknown")
    with pytest.raises(UnsupportedFormatError, match="only read"):
        formats.write(ARRAYS, tmp_path / "a.pkl")
    with pytest.raises(ArgumentError, match="no format is called"):
        formats.write(ARRAYS, tmp_path / "a.pt", format="pytorch")
    with pytest.raises(MissingFileError):
        formats.write(ARRAYS, tmp_path / "nowhere" / "a.pt")
    (tmp_path / "b.pt").mkdir()
    with pytest.raises(FileError, match="folder"):
        formats.write(ARRAYS, tmp_path / "b.pt")
    with pytest.raises(FormatError):
        formats.write({"a": object()}, tmp_path / "a.pt")
    with pytest.raises(ArgumentError):
        formats.write({1: np.zeros(2)}, tmp_path / "a.pt")  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == ["b.pt"]


def test_unknown_options_are_refused(tmp_path: pathlib.Path) -> None:
    formats.write(ARRAYS, tmp_path / "a.pt")
    with pytest.raises(ArgumentError, match="option"):
        formats.read(tmp_path / "a.pt", nonsense=1)


def test_new_files_follow_the_umask_and_old_ones_keep_their_mode(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.npz"
    formats.write(ARRAYS, path)
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o600)
    formats.write(ARRAYS, path)
    assert path.stat().st_mode & 0o777 == 0o600
