"""safetensors against the safetensors package: every dtype, metadata, shards."""

from __future__ import annotations

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from zoonet import formats
from zoonet.ops.errors import FormatError, MissingFileError, UnsafeFileError, UnsupportedFormatError

TORCH_DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_every_dtype_of_torch_is_read(tmp_path: pathlib.Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in TORCH_DTYPES:
        random = torch.randint(0, 2 if dtype == torch.bool else 120, (3, 8), generator=generator, dtype=torch.uint8)
        tensors[str(dtype)] = random.to(dtype) if dtype.itemsize > 1 or dtype == torch.bool else random.view(dtype)
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "note": "é"})
    checkpoint = formats.read(tmp_path / "a.safetensors")
    assert checkpoint.metadata == {"format": "pt", "note": "é"}
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        array = checkpoint[name].load()
        assert array.shape == (3, 8)
        assert f"torch.{array.dtype.name}" == name
        assert array.tobytes() == raw_bytes(tensor)


def test_every_dtype_of_torch_is_written(tmp_path: pathlib.Path) -> None:
    arrays = {
        name: np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name, name))
        for name in (str(dtype).removeprefix("torch.") for dtype in TORCH_DTYPES)
    }
    arrays["scalar"] = np.array(2.5, np.float32)
    arrays["empty"] = np.zeros((0, 4), np.float64)
    formats.write(arrays, tmp_path / "a.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert tuple(loaded[name].shape) == array.shape
        assert str(loaded[name].dtype) == f"torch.{array.dtype.name}"
        assert raw_bytes(loaded[name]) == array.tobytes()


def test_packed_four_bit_floats(tmp_path: pathlib.Path) -> None:
    """Two elements to a byte, the low half first: 0x21 is 0.5 (code 1), then 1.0 (code 2) in e2m1."""
    header = b'{"w":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x21\xf7")
    tensor = formats.read(tmp_path / "a.safetensors")["w"]
    np.testing.assert_array_equal(tensor.load().astype(np.float32), [[0.5, 1.0], [6.0, -6.0]])
    formats.write({"w": tensor}, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes()[-2:] == b"\x21\xf7"


def test_real_file_equals_the_safetensors_package(assets: pathlib.Path) -> None:
    path = assets / "torch-files" / "mnist.safetensors"
    expected = safetensors.numpy.load_file(path)
    checkpoint = formats.read(path)
    assert set(checkpoint) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint[name].load(), array, strict=True)


def test_arrays_are_views_of_the_file(tmp_path: pathlib.Path) -> None:
    formats.write({"a": np.arange(8, dtype=np.float32)}, tmp_path / "a.safetensors")
    array = formats.read(tmp_path / "a.safetensors")["a"].load()
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_metadata_survives_writing(tmp_path: pathlib.Path) -> None:
    tensors = {"a": formats.as_lazy(np.zeros(2))}
    metadata = {"format": "pt", "epochs": 3, "labels": ["cat", "dog"], "optimizer": tensors["a"]}
    formats.write(formats.Checkpoint(tensors, metadata), tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "epochs": "3", "labels": '["cat", "dog"]'}


def test_dtypes_that_the_format_lacks(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="complex128"):
        formats.write({"a": np.zeros(2, np.complex128)}, tmp_path / "a.safetensors")


def test_shards_are_written_and_read(tmp_path: pathlib.Path) -> None:
    arrays = {f"layer.{i}": np.full((100,), i, np.float32) for i in range(5)}
    formats.write(arrays, tmp_path / "model.safetensors.index.json", max_shard_bytes=900)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    merged = {name: array for shard in shards for name, array in safetensors.numpy.load_file(shard).items()}
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2000
    assert set(index["weight_map"]) == set(merged) == set(arrays)
    checkpoint = formats.read(tmp_path / "model.safetensors.index.json")
    assert list(checkpoint) == list(arrays)
    for name, array in merged.items():
        np.testing.assert_array_equal(checkpoint[name].load(), array)


def test_shards_of_pytorch_files(tmp_path: pathlib.Path) -> None:
    torch.save({"model.a": torch.ones(2)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"model.b": torch.zeros(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    index = {
        "weight_map": {
            "model.a": "pytorch_model-00001-of-00002.bin",
            "model.b": "pytorch_model-00002-of-00002.bin",
        }
    }
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    checkpoint = formats.read(tmp_path / "pytorch_model.bin.index.json")
    assert {name: tensor.load().tolist() for name, tensor in checkpoint.items()} == {
        "model.a": [1.0, 1.0],
        "model.b": [0.0, 0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("../outside.safetensors", UnsafeFileError),
        ("/etc/passwd", UnsafeFileError),
        ("sub/../../outside.safetensors", UnsafeFileError),
        ("..\\outside.safetensors", UnsafeFileError),
        ("C:/outside.safetensors", UnsafeFileError),
        ("absent.safetensors", MissingFileError),
        ("index.json", FormatError),
        (3, FormatError),
    ],
)
def test_shard_names_stay_in_the_folder(tmp_path: pathlib.Path, file: object, error: type[Exception]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    formats.write({"w": np.zeros(2)}, tmp_path / "outside.safetensors")
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": file}}))
    (folder / "index.json").write_text("{}")
    with pytest.raises(error):
        formats.read(folder / "m.safetensors.index.json")
