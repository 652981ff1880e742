"""Attributes of HDF5 objects that h5py writes in each of its ways."""

from __future__ import annotations

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from zoonet.formats.hdf5 import Hdf5File
from zoonet.ops.errors import UnsupportedFormatError

TEXTS: dict[str, Any] = {
    "one": "text",
    "empty": "",
    "foreign": "Größe 尺寸",
    "many": ["a", "", "third " * 50],
    "table": [["a", "b"], ["c", "d"]],
    "fixed": np.array([b"abc", b"de"]),
    "long": "x" * 60_000,
    "number": 3.5,
}


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
def test_texts_of_groups(tmp_path: pathlib.Path, version: str, track_order: bool) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
        group = file.create_group("group", track_order=track_order)
        for key, value in TEXTS.items():
            group.create_group(key)  # what is written between attributes parts the header
            group.attrs[key] = value
        group.attrs["one"] = "another text"
        del group.attrs["fixed"]
        group.attrs["kind"] = np.dtype("f4").type(1)
    found = Hdf5File(tmp_path / "a.h5", "a.h5").attributes("group")
    wanted = {**TEXTS, "one": "another text", "kind": 1.0}
    del wanted["fixed"]
    assert found == wanted


def test_many_attributes_in_continued_headers(tmp_path: pathlib.Path) -> None:
    wanted = {f"{'name' * (index % 7)}{index}": "v" * index for index in range(300)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key in wanted:
            file.attrs[key] = "first"
        for key, value in wanted.items():
            file.attrs[key] = value
    assert Hdf5File(tmp_path / "a.h5", "a.h5").attributes("") == wanted


def test_attributes_of_other_kinds_are_left_out(tmp_path: pathlib.Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["text"] = "a"
        file.attrs["reference"] = file.ref
        file.attrs.create("rows", [np.ones(2), np.ones(3)], dtype=h5py.vlen_dtype(np.float64))
        file.attrs["pair"] = np.array(("a", 1), [("text", h5py.string_dtype()), ("number", np.float64)])
    assert Hdf5File(tmp_path / "a.h5", "a.h5").attributes("") == {"text": "a"}


def test_texts_apart_from_their_object(tmp_path: pathlib.Path) -> None:
    """More than eight attributes go to a heap of their own in files of the newest version."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        for index in range(9):
            file.attrs[f"name{index}"] = "text"
    with pytest.raises(UnsupportedFormatError, match="default settings of h5py"):
        Hdf5File(tmp_path / "a.h5", "a.h5").attributes("")


@pytest.mark.parametrize("version", ["earliest", "v108", "v110", "latest"])
def test_texts_of_datasets(tmp_path: pathlib.Path, version: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
        data = file.create_dataset("data", data=np.array([0x3F80, 0xC000], "<u2").view("V2"))
        data.attrs["dtype"] = "bfloat16"
    assert Hdf5File(tmp_path / "a.h5", "a.h5").tensor("data").load().astype(np.float32).tolist() == [1, -2]
