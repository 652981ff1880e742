"""npz and npy files against NumPy, and pickled arrays against pickle."""

from __future__ import annotations

import pathlib
import pickle

import ml_dtypes
import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError

ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(3, dtype=np.float16),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "big endian": np.arange(3, dtype=">i4"),
    "complex": np.array([1 + 2j]),
    "bool": np.array([True, False]),
    "scalar": np.array(7, np.uint8),
    "empty": np.zeros((0, 4)),
    "conv/kernel:0": np.ones((1, 1, 2), np.int64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy_is_read(tmp_path: pathlib.Path, save: object) -> None:
    save(tmp_path / "a.npz", **ARRAYS, labels=np.array(["cat", "dog"]))  # type: ignore[operator]
    checkpoint = formats.read(tmp_path / "a.npz")
    assert list(checkpoint) == list(ARRAYS)
    assert checkpoint.metadata == {"labels": ["cat", "dog"]}
    for name, array in ARRAYS.items():
        loaded = checkpoint[name].load()
        assert loaded.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded, array)


def test_npz_is_read_by_numpy(tmp_path: pathlib.Path) -> None:
    formats.write(ARRAYS, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert list(loaded) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)


def test_npy(tmp_path: pathlib.Path, assets: pathlib.Path) -> None:
    anchors = assets / "blazeface" / "anchors.npy"
    np.testing.assert_array_equal(formats.read(anchors)["anchors"].load(), np.load(anchors), strict=True)
    formats.write({"a": ARRAYS["fortran"]}, tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ARRAYS["fortran"])
    with pytest.raises(UnsupportedFormatError, match="one array"):
        formats.write(ARRAYS, tmp_path / "b.npy")


def test_arrays_that_are_refused(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UnsafeFileError, match="objects"):
        formats.read(tmp_path / "objects.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(UnsafeFileError, match="objects"):
        formats.read(tmp_path / "objects.npy")
    np.savez(tmp_path / "bfloat16.npz", a=np.zeros(3, ml_dtypes.bfloat16))
    with pytest.raises(UnsupportedFormatError, match="not of numbers"):
        formats.read(tmp_path / "bfloat16.npz")
    np.save(tmp_path / "structured.npy", np.zeros(2, [("x", "f4"), ("y", "i4")]))
    with pytest.raises(UnsupportedFormatError, match="not of numbers"):
        formats.read(tmp_path / "structured.npy")
    with pytest.raises(UnsupportedFormatError, match="bfloat16"):
        formats.write({"a": np.zeros(3, ml_dtypes.bfloat16)}, tmp_path / "a.npz")


def test_pickled_arrays_of_python_2(assets: pathlib.Path) -> None:
    path = assets / "gomoku" / "best_policy_6_6_4.model"
    with path.open("rb") as stream:
        expected = pickle.load(stream, encoding="latin1")
    checkpoint = formats.read(path)
    assert checkpoint.format == "pickle"
    assert list(checkpoint) == [str(index) for index in range(len(expected))]
    for index, array in enumerate(expected):
        np.testing.assert_array_equal(checkpoint[str(index)].load(), array, strict=True)


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_of_every_protocol(tmp_path: pathlib.Path, protocol: int) -> None:
    value = {"weights": [ARRAYS["float"], ARRAYS["fortran"], ARRAYS["big endian"]], "note": "x", "lr": np.float32(0.5)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    checkpoint = formats.read(tmp_path / "a.pkl", format="pickle")
    assert set(checkpoint) == {"weights.0", "weights.1", "weights.2"}
    for index, name in enumerate(("float", "fortran", "big endian")):
        np.testing.assert_array_equal(checkpoint[f"weights.{index}"].load(), ARRAYS[name])
    assert checkpoint.metadata == {"note": "x", "lr": 0.5}


def test_a_pickle_of_objects_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(pathlib.PurePath("x")))
    with pytest.raises(UnsafeFileError, match="neither a tensor nor a plain container"):
        formats.read(tmp_path / "a.pkl")


def test_truncated_npy(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(100))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-1])
    with pytest.raises(FormatError, match="size"):
        formats.read(tmp_path / "a.npy")
