"""PyTorch files against torch.load, tensor by tensor: all containers, dtypes, views, wrappers; and writing."""

from __future__ import annotations

import argparse
import collections
import decimal
import enum
import functools
import io
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from zoonet import formats
from zoonet.ops.errors import ArgumentError, FormatError, UnsafeFileError, UnsupportedFormatError


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of what torch.load returns, by dotted name."""
    if isinstance(value, torch.Tensor):
        yield name, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield from flatten(item, f"{name}.{key}" if name else str(key))


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    dtype = np.dtype(getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."), None) or str(tensor.dtype)[6:])
    return np.frombuffer(tensor.flatten().view(torch.uint8).numpy().tobytes(), dtype).reshape(tuple(tensor.shape))


def assert_equals_torch(path: pathlib.Path) -> int:
    """Compare a file with torch.load; return the number of tensors."""
    expected = dict(flatten(torch.load(path, weights_only=True, map_location="cpu")))
    checkpoint = formats.read(path)
    key = checkpoint.metadata.get("state_dict_key")
    for name, tensor in checkpoint.items():
        original = checkpoint.original_names.get(name, name)
        array = as_numpy(expected[f"{key}.{original}" if key else original])
        loaded = tensor.load()
        assert loaded.dtype == array.dtype == tensor.dtype
        assert loaded.shape == array.shape
        assert loaded.tobytes() == array.tobytes(), name
    if key is None:
        assert len(checkpoint) == len(expected)
    else:
        assert len(checkpoint) == sum(name.startswith(f"{key}.") for name in expected)
    return len(checkpoint)


def test_real_files_equal_torch(assets: pathlib.Path) -> None:
    counts = {}
    for path in sorted((assets / "torch-files").glob("*.pt")):
        if "broken" not in path.name:
            counts[path.name] = assert_equals_torch(path)
    assert len(counts) >= 48
    assert all(counts.values())
    assert assert_equals_torch(assets / "resnet-cifar10" / "resnet20-12fca82f.th") == 97
    assert assert_equals_torch(assets / "mobilenet025-imagenet" / "mobilenetV1X0.25_pretrain.tar") == 164
    assert assert_equals_torch(assets / "ultra-light-face" / "version-RFB-320.pth") == 244
    assert assert_equals_torch(assets / "blazeface" / "blazeface.pth") == 74


def test_real_checkpoints_keep_what_else_they_say(assets: pathlib.Path) -> None:
    resnet = formats.read(assets / "resnet-cifar10" / "resnet20-12fca82f.th")
    assert resnet.metadata["best_prec1"] == pytest.approx(91.78)
    assert resnet.metadata["prefix"] == "module."
    assert "conv1.weight" in resnet
    assert "module.conv1.weight" in resnet.original()
    mobilenet = formats.read(assets / "mobilenet025-imagenet" / "mobilenetV1X0.25_pretrain.tar")
    assert mobilenet.metadata["best_acc1"] == pytest.approx(46.58, abs=0.01)
    assert mobilenet.metadata["epoch"] == 18


def test_tar_files_of_the_assets(assets: pathlib.Path) -> None:
    """torch.load does not read these tar files: the values are those that their names and writers state."""
    folder = assets / "torch-files"
    prefix = "src__pytorch__tests__reader__test_data__tar_"
    matrix = formats.read(folder / f"{prefix}2d_tensor.tar")["matrix"].load()
    np.testing.assert_array_equal(matrix, np.arange(1, 13, dtype=np.float32).reshape(3, 4), strict=True)
    mixed = formats.read(folder / f"{prefix}multi_dtype.tar").arrays()
    assert {name: (str(array.dtype), array.tolist()) for name, array in mixed.items()} == {
        "float_tensor": ("float32", [1.5, 2.5, 3.5]),
        "double_tensor": ("float64", [1.111, 2.222]),
        "int_tensor": ("int64", [10, 20, 30, 40]),
    }
    for name in ("float32", "float64", "int64", "weight_bias"):
        assert formats.read(folder / f"{prefix}{name}.tar").metadata["container"] == "tar"


def old_tar(path: pathlib.Path) -> None:
    """Write the tar format as PyTorch 0.1 did: a tensor, a transposed view of it, and a view of its storage."""

    class Reference:
        def __init__(self, key: str) -> None:
            self.key = key

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> str | None:
            return value.key if isinstance(value, Reference) else None

    def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))

    def dump(value: Any) -> bytes:
        return pickle.dumps(value, protocol=2)

    data = np.arange(6, dtype="<f4")
    storages = dump(1) + dump((7, "cpu", torch.FloatStorage)) + struct.pack("<q", 6) + data.tobytes()
    storages += dump([(8, 7, 2, 3)])

    def tensor(key: int, storage: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> bytes:
        numbers = struct.pack(f"<{2 * len(shape) + 1}q", *shape, *strides, offset)
        return dump((key, storage, torch.FloatTensor)) + struct.pack("<ii", len(shape), 0) + numbers

    tensors = dump(3) + tensor(1, 7, (2, 3), (3, 1), 0) + tensor(2, 7, (3, 2), (1, 3), 0)
    tensors += tensor(3, 8, (2,), (1,), 1)
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"w": Reference("1"), "t": Reference("2"), "v": Reference("3")})
    with tarfile.open(path, "w:") as archive, warnings.catch_warnings():
        add(archive, "sys_info", dump({"protocol_version": 1000, "little_endian": True}))
        add(archive, "pickle", stream.getvalue())
        add(archive, "tensors", tensors)
        add(archive, "storages", storages)


def test_tar_files_of_old_pytorch(tmp_path: pathlib.Path) -> None:
    old_tar(tmp_path / "old.pth")
    expected = torch.load(tmp_path / "old.pth", weights_only=False)
    checkpoint = formats.read(tmp_path / "old.pth")
    assert set(checkpoint) == set(expected) == {"w", "t", "v"}
    for name, tensor in expected.items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.numpy(), strict=True)


ALL_DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


def everything() -> dict[str, Any]:
    """Tensors of every dtype, and views that share, skip, repeat, conjugate and negate."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    complex_base = torch.randn(3, 4, dtype=torch.complex64)
    tensors: dict[str, Any] = {str(dtype): torch.randint(0, 2, (2, 3)).to(dtype) for dtype in ALL_DTYPES}
    return tensors | {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "rows": base[2:5],
        "columns": base[:, ::3],
        "expanded": torch.ones(3, 1).expand(3, 5),
        "scalar": torch.tensor(3.5),
        "scalar.view": base[3, 4],
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": complex_base.conj(),
        "negative": torch.randn(3, 4, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "buffer": torch.nn.Buffer(torch.randn(4)),
    }


@pytest.mark.parametrize(
    ("zipped", "protocol"), [(True, 2), (True, 3), (True, 4), (True, 5), (False, 1), (False, 2), (False, 4), (False, 5)]
)
def test_every_dtype_and_view(tmp_path: pathlib.Path, protocol: int, zipped: bool) -> None:
    value = everything()
    path = tmp_path / "a.pt"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    checkpoint = formats.read(path)
    assert set(checkpoint) == set(value)
    for name, tensor in value.items():
        array = checkpoint[name].load()
        expected = as_numpy(tensor)
        assert array.dtype == expected.dtype, name
        assert array.shape == expected.shape, name
        assert array.tobytes() == expected.tobytes(), name
    assert [group for group in checkpoint.ties() if "base" in group] == [["base", "tied"]]


def test_big_endian_files(tmp_path: pathlib.Path) -> None:
    """Made from a little-endian file by swapping the storages and the marker, as torch's writer does there."""
    source = {"f": torch.randn(3, 4), "i": torch.arange(5), "c": torch.randn(3, dtype=torch.complex64)}
    torch.save(source, tmp_path / "little.pt")
    units = {"f": 4, "i": 8, "c": 4}
    with zipfile.ZipFile(tmp_path / "little.pt") as little, zipfile.ZipFile(tmp_path / "big.pt", "w") as big:
        names = iter(units)
        for entry in little.infolist():
            content = little.read(entry)
            if "/data/" in entry.filename:
                content = np.frombuffer(content, f"<u{units[next(names)]}").byteswap().tobytes()
            big.writestr(entry.filename, b"big" if entry.filename.endswith("byteorder") else content)
    expected = torch.load(tmp_path / "big.pt", weights_only=True)
    checkpoint = formats.read(tmp_path / "big.pt")
    for name, tensor in source.items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.numpy(), strict=True)
        np.testing.assert_array_equal(checkpoint[name].load(), expected[name].numpy())


def test_deflated_archives_and_files_without_checksums(tmp_path: pathlib.Path) -> None:
    source = {"w": torch.randn(50, 50)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(source, tmp_path / "unchecked.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(source, tmp_path / "a.pt")
    deflated = zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.pt") as plain, deflated:
        for entry in plain.infolist():
            deflated.writestr(entry.filename, plain.read(entry))
    for name in ("unchecked.pt", "deflated.pt"):
        np.testing.assert_array_equal(formats.read(tmp_path / name)["w"].load(), source["w"].numpy())


def test_a_flipped_bit_is_noticed(tmp_path: pathlib.Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    place = content.find(np.ones(10, "<f4").tobytes())
    content[place + 100] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        formats.read(tmp_path / "a.pt")["w"].load()


WEIGHTS = collections.OrderedDict({"conv.weight": torch.randn(2, 3), "conv.bias": torch.zeros(2)})
RENAMED = {f"model.{name}": tensor for name, tensor in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("value", "prefix", "expected"),
    [
        (WEIGHTS, None, {}),
        ({"state_dict": WEIGHTS, "epoch": 3}, None, {"epoch": 3, "state_dict_key": "state_dict"}),
        ({"model": WEIGHTS, "args": None}, None, {"args": None, "state_dict_key": "model"}),
        ({"model": {"state_dict": WEIGHTS}}, None, {"state_dict_key": "model.state_dict"}),
        ({"net": WEIGHTS, "acc": 95.5}, None, {"acc": 95.5, "state_dict_key": "net"}),
        ({"params_ema": WEIGHTS, "params": WEIGHTS}, None, {"other_state_dicts": ["params"]}),
        ({"ema": WEIGHTS, "model": None}, None, {"state_dict_key": "ema"}),
        ({"weights_of_mine": WEIGHTS, "config": {"a": 1}}, None, {"config": {"a": 1}}),
        ({f"module.{k}": v for k, v in WEIGHTS.items()}, "module.", {}),
        ({f"_orig_mod.module.{k}": v for k, v in WEIGHTS.items()}, "_orig_mod.module.", {}),
        ({"state_dict": RENAMED, "pytorch-lightning_version": "2.1"}, "model.", {"pytorch-lightning_version": "2.1"}),
        # timm: arguments, optimizer state and an averaged copy beside the weights
        (
            {"state_dict": WEIGHTS, "state_dict_ema": WEIGHTS, "args": argparse.Namespace(lr=0.1, model="vit")},
            None,
            {"args": {"lr": 0.1, "model": "vit"}, "other_state_dicts": ["state_dict_ema"]},
        ),
        ({"checkpoint": {"trainer": {"model": WEIGHTS}}, "step": 1}, None, {"step": 1}),
        # mmcv: `meta` beside the weights
        ({"meta": {"mmcv_version": "1.3", "CLASSES": ("a",)}, "state_dict": WEIGHTS}, None, {}),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrappers_and_prefixes(
    tmp_path: pathlib.Path, value: Any, prefix: str | None, expected: dict[str, Any], zipped: bool
) -> None:
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.numpy())
    assert checkpoint.metadata.get("prefix") == prefix
    assert list(checkpoint.original()) == [(prefix or "") + name for name in WEIGHTS]
    assert {name: checkpoint.metadata[name] for name in expected} == expected


def test_a_bare_state_dict_keeps_the_prefix_model(tmp_path: pathlib.Path) -> None:
    torch.save(RENAMED, tmp_path / "a.bin")
    assert list(formats.read(tmp_path / "a.bin")) == list(RENAMED)


def test_other_entries_are_chosen_by_key(tmp_path: pathlib.Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in WEIGHTS.items()}
    torch.save({"state_dict": WEIGHTS, "deep": {"state_dict_ema": averaged}}, tmp_path / "a.ckpt")
    checkpoint = formats.read(tmp_path / "a.ckpt", key="deep.state_dict_ema")
    np.testing.assert_array_equal(checkpoint["conv.bias"].load(), [1.0, 1.0])
    with pytest.raises(ArgumentError, match="no entry 'absent'"):
        formats.read(tmp_path / "a.ckpt", key="absent")


def test_metadata_is_plain_data(tmp_path: pathlib.Path) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    value = {
        "state_dict": WEIGHTS,
        "size": torch.Size([1, 2]),
        "device": torch.device("cuda:1"),
        "dtype": torch.bfloat16,
        "path": pathlib.PurePosixPath("/data/run"),
        "numpy": np.float64(0.5),
        "array": np.arange(3),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "complex": 1 + 2j,
        "default": collections.defaultdict(list, a=[1]),
        "optimizer": optimizer.state_dict(),
        "loss": torch.tensor(0.25),
    }
    torch.save(value, tmp_path / "a.pt")
    metadata = formats.read(tmp_path / "a.pt").metadata
    assert metadata["size"] == [1, 2]
    assert metadata["device"] == "cuda:1"
    assert metadata["dtype"] == "torch.bfloat16"
    assert metadata["path"] == "/data/run"
    assert metadata["numpy"] == 0.5
    assert metadata["array"].load().tolist() == [0, 1, 2]
    assert metadata["set"] == [1, 2]
    assert metadata["bytes"] == b"\x00\xff"
    assert metadata["complex"] == 1 + 2j
    assert metadata["default"] == {"a": [1]}
    assert metadata["loss"] == 0.25
    assert metadata["optimizer"]["param_groups"][0]["lr"] == 0.001


def test_what_pickles_of_checkpoints_hold_besides(tmp_path: pathlib.Path) -> None:
    """Arrays of text, dates and objects, as label encoders and tables leave them."""
    value = {
        "state_dict": WEIGHTS,
        "classes": np.array(["cat", "dog"]),
        "bytes": np.array([b"ab"]),
        "objects": np.array(["a", None], object),
        "day": np.datetime64("2020-01-02"),
        "days": np.array(["2020-01-02", "NaT"], "M8[D]"),
    }
    torch.save(value, tmp_path / "a.pt")
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == list(WEIGHTS)
    assert {name: checkpoint.metadata[name] for name in value if name != "state_dict"} == {
        "classes": ["cat", "dog"],
        "bytes": [b"ab"],
        "objects": ["a", None],
        "day": "2020-01-02",
        "days": ["2020-01-02", "NaT"],
    }


def test_averaged_models(tmp_path: pathlib.Path) -> None:
    """Their counter stands beside the names of the wrapped network."""
    module = torch.nn.Linear(2, 3)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    torch.save(averaged.state_dict(), tmp_path / "a.pt")
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == list(module.state_dict())
    assert checkpoint.metadata["n_averaged"] == 1
    torch.save({"n_averaged": torch.tensor(1), "weight": torch.ones(2)}, tmp_path / "a.pt")
    assert list(formats.read(tmp_path / "a.pt")) == ["n_averaged", "weight"]


def test_states_of_optimizers_are_no_weights(tmp_path: pathlib.Path) -> None:
    """Beside several networks, as in self-distillation; alone they are all there is."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    value = {"student": WEIGHTS, "teacher": WEIGHTS, "optimizers": [optimizer.state_dict()]}
    torch.save(value, tmp_path / "a.pt")
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == [f"{who}.{name}" for who in ("student", "teacher") for name in WEIGHTS]
    assert checkpoint.metadata["optimizers"][0]["state"][0]["exp_avg"].load().shape == (2,)
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    assert "optimizer.state.0.exp_avg" in formats.read(tmp_path / "a.pt")


class Activated(torch.nn.Module):
    """A module whose attribute is a function of PyTorch itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = torch.nn.Linear(2, 3), torch.relu


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_modules_with_functions_of_torch(tmp_path: pathlib.Path, zipped: bool) -> None:
    module = Activated()
    torch.save(module, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert list(formats.read(tmp_path / "a.pt")) == list(module.state_dict())


@pytest.mark.parametrize("protocol", range(6))
def test_tensors_pickled_without_torch(tmp_path: pathlib.Path, protocol: int) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    value = {**WEIGHTS, "half": torch.ones(2).half(), "view": table[1:, ::2], "parameter": torch.nn.Parameter(table)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    checkpoint = formats.read(tmp_path / "a.pkl")
    assert checkpoint.format == "pickle"
    assert list(checkpoint) == list(value)
    for name, tensor in value.items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.detach().numpy(), strict=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_of_torch(tmp_path: pathlib.Path, zipped: bool) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 2))
    torch.save(module, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.numpy())


class Block(torch.nn.Module):
    """A module with a child, a tied weight, a buffer, and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 4)
        self.output = torch.nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("positions", torch.arange(7))
        self.sizes = [1, 2, 3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.embedding(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript(tmp_path: pathlib.Path, traced: bool) -> None:
    module = Block()
    script = torch.jit.trace(module, torch.tensor([1, 2])) if traced else torch.jit.script(module)
    script.save(tmp_path / "a.pt")
    expected = torch.jit.load(tmp_path / "a.pt").state_dict()
    checkpoint = formats.read(tmp_path / "a.pt")
    assert checkpoint.metadata["container"] == "torchscript"
    assert set(checkpoint) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(checkpoint[name].load(), tensor.numpy(), strict=True)


class Shifted(torch.nn.Module):
    """A parameter, and a constant of the traced code."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight + torch.tensor([1.0, 2.0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_that_was_frozen(tmp_path: pathlib.Path) -> None:
    """Freezing makes the weights constants of the code; those of a module that has others are metadata."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()).eval()
    torch.jit.freeze(torch.jit.script(module)).save(tmp_path / "a.pt")
    found = {tensor.load().tobytes() for tensor in formats.read(tmp_path / "a.pt").values()}
    assert found >= {tensor.numpy().tobytes() for tensor in module.state_dict().values()}
    torch.jit.trace(module, torch.zeros(1, 3)).save(tmp_path / "a.pt")
    assert "constants" not in formats.read(tmp_path / "a.pt").metadata

    traced = torch.jit.trace_module(Shifted(), {"forward": torch.zeros(2)})
    traced.save(tmp_path / "a.pt")
    checkpoint = formats.read(tmp_path / "a.pt")
    assert list(checkpoint) == ["weight"]
    assert [constant.load().tolist() for constant in checkpoint.metadata["constants"].values()] == [[1.0, 2.0]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_recurrent_layers_of_torchscript(tmp_path: pathlib.Path) -> None:
    script = torch.jit.script(torch.nn.LSTM(4, 3))
    script.save(tmp_path / "a.pt")
    assert set(formats.read(tmp_path / "a.pt")) == set(script.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_refused(tmp_path: pathlib.Path) -> None:
    weight = torch.randn(3, 4)
    refused = {
        "quantised": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "sparse": weight.to_sparse(),
        "sparse csr": weight.to_sparse_csr(),
        "meta": torch.ones(2, device="meta"),
        "nested": torch.nested.nested_tensor([weight, weight]),
        "nested jagged": torch.nested.nested_tensor([weight, weight], layout=torch.jagged),
        "complex32": torch.ones(2).to(torch.complex32),
    }
    for kind, tensor in refused.items():
        torch.save({"w": tensor}, tmp_path / "a.pt")
        with pytest.raises(UnsupportedFormatError, match=kind.partition(" ")[0]):
            formats.read(tmp_path / "a.pt")


def test_a_tensor_expanded_beyond_measure(tmp_path: pathlib.Path) -> None:
    torch.save({"w": torch.ones(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    with pytest.raises(UnsafeFileError, match="beyond measure"):
        formats.read(tmp_path / "a.pt")


def test_files_without_tensors(tmp_path: pathlib.Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(FormatError, match="no tensors"):
        formats.read(tmp_path / "a.pt")
    torch.save({}, tmp_path / "a.pt")
    assert len(formats.read(tmp_path / "a.pt")) == 0


def test_bare_tensors_and_lists(tmp_path: pathlib.Path) -> None:
    torch.save(torch.ones(2), tmp_path / "a.pt")
    assert formats.read(tmp_path / "a.pt")["tensor"].load().tolist() == [1.0, 1.0]
    torch.save([torch.ones(2), {"x": torch.zeros(1)}], tmp_path / "a.pt")
    assert set(formats.read(tmp_path / "a.pt")) == {"0", "1.x"}


def test_written_files_load_in_torch(tmp_path: pathlib.Path) -> None:
    names = [str(dtype).removeprefix("torch.") for dtype in ALL_DTYPES]
    arrays: dict[str, np.ndarray] = {
        name: np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name, name)) for name in names
    }
    arrays |= {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "long": np.arange(70_000, dtype=np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">i4"),
        "naïve.ключ": np.ones(1),
    }
    arrays["tied"] = arrays["long"]
    formats.write(arrays, tmp_path / "a.pt")
    for mapped in (False, True):
        loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mapped)
        assert list(loaded) == list(arrays)
        assert loaded["tied"].data_ptr() == loaded["long"].data_ptr()
        for name, array in arrays.items():
            native = array.astype(array.dtype.newbyteorder("="), order="C")
            assert as_numpy(loaded[name]).dtype == native.dtype, name
            assert tuple(loaded[name].shape) == array.shape
            assert as_numpy(loaded[name]).tobytes() == native.tobytes(), name
    assert zipfile.ZipFile(tmp_path / "a.pt").testzip() is None
    assert formats.read(tmp_path / "a.pt").ties() == [["long", "tied"]]


def test_ties_survive_a_round_trip(tmp_path: pathlib.Path) -> None:
    torch.save(everything(), tmp_path / "a.pt")
    formats.write(formats.read(tmp_path / "a.pt"), tmp_path / "b.pt")
    loaded = torch.load(tmp_path / "b.pt", weights_only=True)
    assert loaded["base"].data_ptr() == loaded["tied"].data_ptr()
    assert loaded["base"].data_ptr() != loaded["rows"].data_ptr()


def test_a_truncated_file_is_named(tmp_path: pathlib.Path) -> None:
    torch.save({"weight": torch.ones(100)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole.pt").read_bytes()
    for percent in range(20, 100, 10):
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(FormatError, match=r"cut\.pt"):
            formats.read(tmp_path / "cut.pt")


class Settings:
    """What a training script defines itself, and pickles beside its weights."""

    def __init__(self) -> None:
        self.rate, self.steps = 0.1, [1, 2]


class Net(torch.nn.Module):
    """A network that is pickled whole."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = torch.nn.Linear(2, 3), torch.nn.ReLU()
        self.register_buffer("hidden", torch.ones(1), persistent=False)


Point = collections.namedtuple("Point", "x y")
Shade = enum.Enum("Shade", "DARK LIGHT")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_of_unknown_classes_are_data(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, protocol: int
) -> None:
    library = types.ModuleType("somebody")
    monkeypatch.setitem(sys.modules, "somebody", library)
    for kind in (Settings, Net, Point, Shade):
        monkeypatch.setattr(kind, "__module__", "somebody")
        setattr(library, kind.__name__, kind)
    weight = torch.arange(6.0).reshape(2, 3)
    content = {
        "state_dict": {"w": weight},
        "settings": Settings(),
        "place": Point(1, 2),
        "shade": Shade.LIGHT,
        "kind": Net,
        "counts": collections.Counter("aab"),
        "last": collections.deque([1, 2]),
        "by": collections.defaultdict(int, {1: 2}),
        "other": [slice(1, 2), decimal.Decimal("1.5"), functools.partial(torch.nn.ReLU, True)],
    }
    options = {"_use_new_zipfile_serialization": not legacy, "pickle_protocol": protocol}
    torch.save(content, tmp_path / "c.pt", **options)
    del sys.modules["somebody"]
    found = formats.read(tmp_path / "c.pt")
    assert "somebody" not in sys.modules
    np.testing.assert_array_equal(found["w"].load(), weight.numpy())
    assert found.metadata["settings"] == {"rate": 0.1, "steps": [1, 2]}
    assert found.metadata["place"] == {"class": "somebody.Point", "arguments": [1, 2]}
    assert found.metadata["shade"] in [{"class": "somebody.Shade", "arguments": [member]} for member in (2, "LIGHT")]
    assert (found.metadata["counts"], found.metadata["last"]) == ({"a": 2, "b": 1}, [1, 2])
    names = ", ".join(f"somebody.{name}" for name in ("Net", "Point", "Settings", "Shade"))
    assert found.metadata["unknown_classes"] == names
    sys.modules["somebody"] = library
    network = Net()
    torch.save({"model": network, "epoch": 1}, tmp_path / "n.pt", **options)
    whole = formats.read(tmp_path / "n.pt")
    assert {name: tensor.load().tolist() for name, tensor in whole.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


def test_whole_networks_of_torchvision(tmp_path: pathlib.Path) -> None:
    import resnet_parity

    resnet_parity.torchvision_and_timm()
    import timm
    import torchvision

    for network in (torchvision.models.vit_b_16(), timm.create_model("mobilenetv3_small_100")):
        torch.save(network, tmp_path / "n.pt")
        found = formats.read(tmp_path / "n.pt")
        assert set(found) == set(network.state_dict())
