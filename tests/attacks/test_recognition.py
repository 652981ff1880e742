"""Files that mislead whoever looks for their network: loops, endless shapes and numbers, names without end."""

from __future__ import annotations

import json
import pathlib
import struct
import sys
import time
import zipfile

import pytest

from zoonet import formats
from zoonet.ops.errors import FormatError, ZoonetError
from zoonet.zoo.cli import main


def text(value: str) -> bytes:
    """A pickled string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def torch_file(path: pathlib.Path, pickle: bytes, storage: bytes = b"") -> pathlib.Path:
    """A zip archive of PyTorch around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/data/0", storage)
    return path


def empty_tensors(path: pathlib.Path, shapes: dict[str, list[int]]) -> pathlib.Path:
    """A safetensors file of tensors that hold nothing."""
    header = {n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    content = json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    return path


def doubled(levels: int) -> bytes:
    """Objects of unknown classes, each of which holds the one before twice."""
    result = b"\x80\x02cevil\nA\n)\x81q\x00"
    for level in range(levels):
        below = b"h" + bytes([level])
        put = b"q" + bytes([level + 1])
        result += b"cevil\nA\n)\x81" + put + b"}(" + text("a") + below + text("b") + below + b"ub"
    return result + b"."


PICKLES = {
    "an object that holds itself": b"\x80\x02}" + text("m") + b"cevil\nA\n)\x81q\x01}" + text("s") + b"h\x01sbs.",
    "a network that is its own part": b"\x80\x02cevil\nNet\n)\x81q\x01}"
    + text("_modules")
    + b"}"
    + text("sub")
    + b"h\x01ssb.",
    "objects that double": doubled(60),
    "an object as a key": b"\x80\x02}cevil\nA\n)\x81K\x01s.",
    "an unknown function of numpy": b"\x80\x02cnumpy.f2py\nrun_main\n)R.",
    "Python's own library": b"\x80\x02ccode\ninteract\n)R.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str, tmp_path: pathlib.Path, attack: object) -> None:
    attack(torch_file(tmp_path / "a.pt", PICKLES[name]), FormatError)  # type: ignore[operator]


def test_one_class_named_often(tmp_path: pathlib.Path) -> None:
    path = torch_file(tmp_path / "a.pt", b"\x80\x02" + b"(ievil\nA\n0" * 100_000 + b"}.")
    start = time.process_time()
    assert formats.read(path).metadata["unknown_classes"] == "evil.A"
    assert time.process_time() - start < 2


STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)RtR"
CALLED = b"csomebody_s\nfunction\n(" + text("touch executed") + b"tR"
#: What is put in the place of a number, a storage or a tensor, and the error.
UNKNOWN_FUNCTIONS = {
    "alone": CALLED,
    "in a dict": b"}" + text("w") + CALLED + b"s",
    "a class with a state": b"csomebody_s\nKind\n)\x81}" + text("w") + b"K\x01sb",
    "the name alone": b"csomebody_s\nfunction\n",
    "instead of a storage": TENSOR.replace(STORAGE, CALLED),
    "instead of the type of a storage": TENSOR.replace(b"ctorch\nFloatStorage\n", b"csomebody_s\nFloatStorage\n"),
    "instead of the key of a storage": TENSOR.replace(text("0"), CALLED),
    "instead of the size of a storage": TENSOR.replace(b"K\x04tQ", CALLED + b"tQ"),
    "instead of a shape": TENSOR.replace(b"(K\x04t", CALLED),
    "instead of a stride": TENSOR.replace(b"(K\x01t", b"(" + CALLED + b"t"),
    "instead of an offset": TENSOR.replace(b"K\x00(K", CALLED + b"(K"),
    "around a parameter": b"ctorch._utils\n_rebuild_parameter\n(" + CALLED + b"\x88NtR",
    "as a builder of tensors": b"ctorch._tensor\n_rebuild_from_type_v2\n(csomebody_s\nfunction\nctorch\nTensor\n"
    + TENSOR
    + b"\x85NtR",
}


@pytest.fixture
def somebody_s(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A package that could be imported, and says so if it is."""
    folder = tmp_path_factory.mktemp("packages")
    mark = folder / "imported"
    (folder / "somebody_s.py").write_text(f"open({str(mark)!r}, 'w')\ndef function(*_): pass\nclass Kind: pass\n")
    monkeypatch.syspath_prepend(str(folder))
    return mark


@pytest.mark.parametrize("name", UNKNOWN_FUNCTIONS)
def test_unknown_functions_make_no_tensors(
    name: str, tmp_path: pathlib.Path, attack: object, somebody_s: pathlib.Path
) -> None:
    path = torch_file(tmp_path / "a.pt", b"\x80\x02" + UNKNOWN_FUNCTIONS[name] + b".", bytes(16))
    attack(path, FormatError)  # type: ignore[operator]
    # and beside a tensor
    path = torch_file(tmp_path / "b.pt", b"\x80\x02}" + text("w") + TENSOR + b"s.", bytes(16))
    assert formats.read(path)["w"].load().tolist() == [0, 0, 0, 0]
    assert not somebody_s.exists()
    assert "somebody_s" not in sys.modules


def test_the_note_of_what_is_unknown(
    tmp_path: pathlib.Path, somebody_s: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = b"\x80\x02}(" + text("state_dict") + b"}" + text("w") + TENSOR + b"s" + text("args") + CALLED + b"u."
    path = torch_file(tmp_path / "a.pt", program, bytes(16))
    assert formats.read(path).metadata["unknown_classes"] == "somebody_s.function"
    assert main(["show", str(path)]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "somebody_s.function" in shown
    assert main(["convert", str(path), str(tmp_path / "b.safetensors")]) == 0
    assert not somebody_s.exists()


SHAPES = {
    "a wide resnet": {"bn1.weight": [2**40, 0], "layer1.0.conv1.weight": [2**50, 0], "layer1.0.bn3.weight": [2**50, 0]},
    "a wide mobilenet": {"features.0.0.weight": [2**30, 3, 0], "features.18.0.weight": [2**30, 2**30, 0]},
    "a wide first mobilenet": {"stage1.1.3.weight": [1, 0], "fc.weight": [1000, 2**40, 0]},
    "a large picture": {
        "blocks.0.attn.qkv.weight": [0],
        "pos_embed": [1, 2**50 + 1, 0],
        "patch_embed.proj.weight": [1, 2**40, 0],
    },
    "deep": {"layer1.0.conv1.weight": [0], "layer1.999.conv1.weight": [0], "layer9.999.conv1.weight": [0]},
    "many": {f"layer1.{i}.conv1.weight": [0] for i in range(25_000)},
    "one prefix without end": {"model." * 50_000 + "w": [0]},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "many" else n for n in SHAPES])
def test_shapes_are_looked_at_in_bounded_time(name: str, tmp_path: pathlib.Path) -> None:
    from zoonet.zoo import storage
    from zoonet.zoo.commands.show import file_facts

    path = empty_tensors(tmp_path / "a.safetensors", SHAPES[name])
    start = time.process_time()
    assert file_facts(path, None)["architecture"] is None
    with pytest.raises(ZoonetError):
        storage.load(path)
    with pytest.raises(ZoonetError):
        storage.load(path, "resnet50")
    assert time.process_time() - start < 6


def test_a_shape_that_no_array_has(tmp_path: pathlib.Path, attack: object) -> None:
    path = empty_tensors(tmp_path / "a.safetensors", {"w": [2**40, 2**40, 0]})
    attack(path, FormatError, "no array can have")  # type: ignore[operator]


def test_a_small_file_of_a_large_network(tmp_path: pathlib.Path, attack: object) -> None:
    (tmp_path / "a.bin").write_bytes(struct.pack("<7i", 16384, 65536, 256, 2, 2, 1 << 20, 1 << 20) + bytes(100))
    attack(tmp_path / "a.bin", FormatError, "expected 4501159346204 bytes")  # type: ignore[operator]
