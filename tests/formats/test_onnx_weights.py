"""ONNX initializers against onnx.numpy_helper: every data type, both ways to store, external data."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zoonet import formats
from zoonet.ops.errors import FormatError, MissingFileError, UnsafeFileError, UnsupportedFormatError


def save(path: pathlib.Path, initializers: list[TensorProto]) -> None:
    onnx.save(helper.make_model(helper.make_graph([], "graph", [], [], initializers)), path)


@pytest.mark.parametrize("data_type", [*range(1, 8), *range(9, 25)])
def test_every_data_type(tmp_path: pathlib.Path, data_type: int) -> None:
    values = [1, 0, 1, 1, 0] if data_type == TensorProto.BOOL else [1, 2, 1, 1, 2]  # float8_e8m0 has no 0
    typed = helper.make_tensor("typed", data_type, (5,), values)
    raw = numpy_helper.from_array(numpy_helper.to_array(typed), "raw")
    save(tmp_path / "a.onnx", [typed, raw])
    checkpoint = formats.read(tmp_path / "a.onnx")
    for proto in (typed, raw):
        expected = numpy_helper.to_array(proto)
        array = checkpoint[proto.name].load()
        assert array.dtype == expected.dtype
        assert array.astype(np.complex128).tolist() == expected.astype(np.complex128).tolist() == values


@pytest.mark.parametrize("name", ["yolox-nano/yolox_nano.onnx", "ultra-light-face/version-RFB-320.onnx"])
@pytest.mark.parametrize("external", [False, True])
def test_real_files(assets: pathlib.Path, tmp_path: pathlib.Path, name: str, external: bool) -> None:
    path = assets / name
    expected = {proto.name: numpy_helper.to_array(proto) for proto in onnx.load(path).graph.initializer}
    if external:
        options = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 0}
        onnx.save(onnx.load(path), tmp_path / "a.onnx", **options)
        path = tmp_path / "a.onnx"
    checkpoint = formats.read(path)
    assert set(checkpoint) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(checkpoint[key].load(), array, strict=True)


def external_tensor(**entries: str) -> TensorProto:
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        proto.external_data.add(key=key, value=value)
    return proto


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"location": "../secret"}, UnsafeFileError),
        ({"location": "/etc/hostname"}, UnsafeFileError),
        ({"location": "link"}, UnsafeFileError),
        ({"location": "linked_folder/secret"}, UnsafeFileError),
        ({"location": ""}, UnsafeFileError),
        ({"location": "absent"}, MissingFileError),
        ({"location": "data", "offset": "-4"}, FormatError),
        ({"location": "data", "offset": "8"}, FormatError),
        ({"location": "data", "length": "99999999999999999999"}, FormatError),
        ({"location": "data", "offset": "x"}, FormatError),
        ({"location": "data", "length": "8"}, FormatError),
    ],
)
def test_external_data_stays_in_its_folder_and_file(
    tmp_path: pathlib.Path, entries: dict[str, str], error: type[Exception]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    (folder / "data").write_bytes(b"\0" * 16)
    os.symlink(tmp_path / "secret", folder / "link")
    os.symlink(tmp_path, folder / "linked_folder")
    save(folder / "a.onnx", [external_tensor(location="data")])
    assert formats.read(folder / "a.onnx")["w"].load().tolist() == [0, 0, 0, 0]
    save(folder / "a.onnx", [external_tensor(**entries)])
    with pytest.raises(error):
        formats.read(folder / "a.onnx")


def test_text_is_left_out_and_lies_are_refused(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a.onnx", [helper.make_tensor("labels", TensorProto.STRING, (1,), [b"cat"])])
    assert formats.read(tmp_path / "a.onnx").metadata["text_initializers"] == ["labels"]
    short = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40], raw_data=b"\0" * 16)
    save(tmp_path / "a.onnx", [short])
    with pytest.raises(FormatError, match="size"):
        formats.read(tmp_path / "a.onnx")
    save(tmp_path / "a.onnx", [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1], raw_data=b"")])
    with pytest.raises(FormatError, match="shape"):
        formats.read(tmp_path / "a.onnx")
    save(tmp_path / "a.onnx", [TensorProto(name="w", data_type=99, dims=[1], raw_data=b"\0")])
    with pytest.raises(UnsupportedFormatError, match="data type"):
        formats.read(tmp_path / "a.onnx")
