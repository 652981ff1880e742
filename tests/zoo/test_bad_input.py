"""Bad input: each one clear error that says what was expected or received, from Python and on the command line."""

from __future__ import annotations

import os
import pathlib
import pickle
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import zoo
from zoonet.ops.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    FileError,
    FormatError,
    InputError,
    MissingFileError,
    StateDictError,
    UnknownModelError,
    UnsafeFileError,
    UnsupportedFormatError,
    ZoonetError,
)
from zoonet.zoo.cli import main


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


class Hostile:
    """Unpickled by the pickle module, it would make a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The current folder, full of files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tiff"):
        image.save(f"good.{suffix}")
        content = pathlib.Path(f"good.{suffix}").read_bytes()
        pathlib.Path(f"half.{suffix}").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (30, 30), "teal").save("plain.png")
    contents = {
        "text.png": b"hello",
        "empty.png": b"",
        "start.png": png(10, 10)[:20],
        "bomb.png": png(60_000, 60_000),
        "large.png": png(12_000, 12_000, b"\0" * 1000),
        "zero.png": png(0, 10),
        "hostile.pt": pickle.dumps({"weight": Hostile()}, protocol=2),
        "empty.safetensors": b"",
        "text.safetensors": b"hello, this is no model",
    }
    for name, content in contents.items():
        pathlib.Path(name).write_bytes(content)
    pathlib.Path("folder").mkdir()
    zoo.load("digits").save("model.safetensors")
    whole = pathlib.Path("model.safetensors").read_bytes()
    for percent in (1, 10, 50, 90, 99):
        pathlib.Path(f"cut{percent}.safetensors").write_bytes(whole[: len(whole) * percent // 100])
    return tmp_path


# -- pictures --------------------------------------------------------------------------------------------------------

PICTURES: list[tuple[str, type[ZoonetError], str]] = [
    ("nothere.png", MissingFileError, "there is no such picture.*nothere.png"),
    ("folder", InputError, "holds no pictures"),
    ("text.png", FormatError, "not a picture.*expected PNG.*received a file that starts with b'hello'"),
    ("empty.png", FormatError, "not a picture.*an empty file"),
    ("start.png", FormatError, "truncated or corrupt"),
    ("half.png", FormatError, "truncated or corrupt"),
    ("half.jpg", FormatError, "truncated or corrupt"),
    ("half.webp", FormatError, "truncated or corrupt|not a picture"),
    ("half.bmp", FormatError, "truncated or corrupt"),
    ("half.gif", FormatError, "truncated or corrupt"),
    ("half.tiff", FormatError, "truncated or corrupt|not a picture"),
    ("bomb.png", UnsafeFileError, "too large a picture.*pixels"),
    ("large.png", FormatError, "truncated or corrupt"),
    ("zero.png", FormatError, "not a picture|no pixels"),
    ("plain.png", InputError, "no digit in the picture.*one colour"),
    ("nul\0byte.png", MissingFileError, "picture"),
    ("", MissingFileError, "an empty path"),
    ("a" * 5000, MissingFileError, "picture"),
]


@pytest.mark.parametrize(("name", "kind", "message"), PICTURES, ids=[name[:20] for name, _, _ in PICTURES])
def test_pictures(folder: pathlib.Path, digits: Any, name: str, kind: type[ZoonetError], message: str) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        digits.run(name)


ARRAYS: list[tuple[str, Any, str]] = [
    ("None", None, "expected a path, bytes, a PIL image, an array.*received NoneType"),
    ("a number", 5, "received int"),
    ("an empty list", [], "expected at least one; received an empty list"),
    ("an empty batch", np.zeros((0, 3, 8, 8)), "there is no picture"),
    ("a list with None", [np.eye(9), None], "received NoneType"),
    ("NaN", np.full((8, 8), np.nan, np.float32), "expected floats from 0 to 1.*nan"),
    ("infinity", np.full((8, 8), np.inf), "expected floats from 0 to 1"),
    ("floats above 1", np.full((8, 8), 200.0), "expected floats from 0 to 1; received float64 from 200 to 200"),
    ("negative integers", np.full((8, 8), -3), "expected integers from 0 to 255"),
    ("integers above 255", np.full((8, 8), 256), "expected integers from 0 to 255"),
    ("complex", np.eye(9) * 1j, "expected real numbers"),
    ("texts", np.array([["a", "b"]]), "expected real numbers"),
    ("one axis", np.zeros(9), r"expected shape \(H, W\).*received shape \(9,\)"),
    ("five axes", np.zeros((1, 1, 1, 8, 8)), "expected shape"),
    ("no pixels", np.zeros((0, 8)), "expected shape"),
    ("seven channels", np.zeros((8, 8, 7)), "1 to 4 channels"),
]


@pytest.mark.parametrize(("source", "message"), [row[1:] for row in ARRAYS], ids=[row[0] for row in ARRAYS])
def test_arrays_that_are_no_pictures(digits: Any, source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        digits.run(source)


INPUTS: list[tuple[str, Any, str]] = [
    ("no batch axis", np.zeros((1, 24, 24), np.float32), r"expected shape \(N, 1, .*add the batch axis"),
    ("wrong channels", np.zeros((1, 3, 24, 24), np.float32), r"expected shape \(N, 1, .*received shape \(1, 3, 24, 24"),
    ("wrong size", np.zeros((1, 1, 32, 32), np.float32), r"cannot take an input of shape \[1, 1, 32, 32\]"),
    ("too small", np.zeros((1, 1, 2, 2), np.float32), r"cannot take an input of shape"),
    ("no pictures", np.zeros((0, 1, 24, 24), np.float32), "expected shape"),
    ("integers", np.zeros((1, 1, 24, 24), np.uint8), "expected float32.*received uint8.*model.run"),
    ("complex", np.zeros((1, 1, 24, 24), np.complex64), "expected float32.*received complex64"),
    ("a path", "picture.png", "use model.run"),
    ("ragged lists", [[1.0], [1.0, 2.0]], "expected an array"),
]


@pytest.mark.parametrize(("x", "message"), [row[1:] for row in INPUTS], ids=[row[0] for row in INPUTS])
def test_arrays_for_the_network(digits: Any, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        digits(x)


# -- weights ---------------------------------------------------------------------------------------------------------

SOURCES: list[tuple[str, Any, type[ZoonetError], str]] = [
    ("unknown name", "digit", UnknownModelError, "no model and no file named 'digit'.*did you mean digits"),
    ("mistyped", "resnet5O.tv_in1k", UnknownModelError, "did you mean resnet50.tv_in1k"),
    ("nonsense", "qqqqqqqq", UnknownModelError, "zoonet list"),
    ("long", "a" * 5000, UnknownModelError, "^.{,200}$"),
    ("empty", "", ArgumentError, "a name or a path"),
    ("None", None, ArgumentError, "a name or a path.*None"),
    ("missing file", "nothere.safetensors", MissingFileError, "no such weights file.*nothere"),
    ("missing path", pathlib.Path("nothere"), MissingFileError, "no such weights file"),
    ("folder", "folder", MissingFileError, "holds no model: expected model.safetensors"),
    ("picture", "good.png", UnsupportedFormatError, "in no format that zoonet reads"),
    ("empty file", "empty.safetensors", FormatError, "empty"),
    ("text", "text.safetensors", FormatError, "text.safetensors"),
    *((f"cut at {n} %", f"cut{n}.safetensors", FormatError, "expected .*received") for n in (1, 10, 50, 90, 99)),
    ("hostile pickle", "hostile.pt", UnsafeFileError, "neither a tensor nor a plain container"),
]


@pytest.mark.parametrize(("source", "kind", "message"), [row[1:] for row in SOURCES], ids=[row[0] for row in SOURCES])
def test_weights(folder: pathlib.Path, source: Any, kind: type[ZoonetError], message: str) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        zoo.load(source)
    assert not pathlib.Path("pwned").exists()


def test_a_file_without_permission(folder: pathlib.Path) -> None:
    for name in ("model.safetensors", "good.png"):
        pathlib.Path(name).chmod(0)
    if os.access("model.safetensors", os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(FileError, match=r"model\.safetensors"):
        zoo.load("model.safetensors")
    with pytest.raises(FileError, match=r"good\.png"):
        zoo.load("digits").run("good.png")


def test_weights_of_another_architecture() -> None:
    """Missing, unexpected and wrong shapes are told apart, with both shapes, and the right architecture is named."""
    with pytest.raises(StateDictError) as caught:
        zoo.load("digits", arch="resnet18")
    text = str(caught.value)
    assert "do not fit resnet18" in text
    assert "95 missing: layer1.0.conv1.weight" in text
    assert "12 unexpected: conv2.weight" in text
    assert "6 of wrong shape: conv1.weight (expected [64, 1, 7, 7], received [16, 1, 3, 3])" in text
    assert "these are the weights of digitnet" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv2.weight": None}, "1 missing: conv2.weight"),
        ({"conv9.weight": np.zeros(3, np.float32)}, "1 unexpected: conv9.weight"),
        ({"fc.bias": np.zeros(7, np.float32)}, r"1 of wrong shape: fc.bias \(expected \[10\], received \[7\]\)"),
        ({"fc.bias": np.zeros(10, np.int64)}, "fc.bias has the wrong kind of numbers"),
    ],
    ids=["missing", "unexpected", "shape", "integers"],
)
def test_state_dicts_that_nearly_fit(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    state = {**zoo.load("digits").network.state_dict(), **changes}
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: array for name, array in state.items() if array is not None})
    with pytest.raises(StateDictError, match=message):
        zoo.load(path, arch="digitnet")


def test_weights_of_no_architecture(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.zeros(3, np.float32), b=np.zeros(4, np.float32))
    with pytest.raises(StateDictError, match=r"2 tensors\) fit no architecture.*received a, b.*arch="):
        zoo.load(path)


ARGUMENTS: list[tuple[str, Callable[[], Any], type[ZoonetError], str]] = [
    ("arch", lambda: zoo.load("digits", arch="resnet51"), UnknownModelError, "did you mean"),
    ("arch type", lambda: zoo.load("digits", arch=5), ArgumentError, "named by a string"),  # type: ignore[arg-type]
    ("device", lambda: zoo.load("digits", device="foo"), DeviceError, "expected 'cpu', 'cuda' or 'cuda:N'"),
    ("device type", lambda: zoo.load("digits", device=0), DeviceError, "received 0"),  # type: ignore[arg-type]
    ("dtype", lambda: zoo.load("digits", dtype="int32"), DTypeError, "expected a floating dtype; received int32"),
    ("no dtype", lambda: zoo.load("digits", dtype="float31"), DTypeError, "float31"),
    ("labels", lambda: zoo.load("digits", labels=["a"]), ArgumentError, "expected 10 labels; received 1"),
    ("top", lambda: zoo.load("digits").run(np.eye(9)).top(0), ArgumentError, "expected an integer from 1"),
    ("top type", lambda: zoo.load("digits").run(np.eye(9)).top("x"), ArgumentError, "received 'x'"),
    ("batch", lambda: zoo.load("digits").run(np.eye(9), batch=0), ArgumentError, "expected a positive number"),
    ("classes", lambda: zoo.create("resnet18", classes=0), ArgumentError, "positive integer"),
    ("option", lambda: zoo.create("resnet18", depth=3), ArgumentError, "no option 'depth'"),
    ("both", lambda: zoo.create("resnet18", classes=3, labels=["a"]), ArgumentError, "expected 3 labels"),
    ("pattern", lambda: zoo.list(5), ArgumentError, "a shell pattern"),  # type: ignore[arg-type]
    ("summary", lambda: zoo.load("digits").summary((1, 1, 3, 3)), InputError, "cannot take an input of shape"),
]


@pytest.mark.parametrize(("call", "kind", "message"), [row[1:] for row in ARGUMENTS], ids=[row[0] for row in ARGUMENTS])
def test_arguments(call: Callable[[], Any], kind: type[ZoonetError], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_cuda_without_a_gpu() -> None:
    try:
        zoo.load("digits", device="cuda")
    except DeviceError as error:
        message = str(error)
    else:
        pytest.skip("there is a GPU")
    assert "cuda" in message
    assert "Fix: " in message


# -- saving ----------------------------------------------------------------------------------------------------------

PLACES: list[tuple[str, type[ZoonetError], str]] = [
    ("nowhere/model.safetensors", FileError, "no folder 'nowhere' to write to"),
    ("nowhere/model", FileError, "cannot be made"),
    ("good.png/model.safetensors", FileError, "cannot write"),
    ("good.png/model", FileError, "cannot be made"),
    ("model.foo", UnsupportedFormatError, "cannot be saved.*expected a name that ends with .safetensors"),
    ("model.pkl", UnsupportedFormatError, "cannot be saved"),
    ("model.weights", UnsupportedFormatError, "cannot be saved"),
    ("", ArgumentError, "a path"),
]


@pytest.mark.parametrize(("path", "kind", "message"), PLACES, ids=[row[0] for row in PLACES])
def test_saving_where_it_cannot_be(
    folder: pathlib.Path, digits: Any, path: str, kind: type[ZoonetError], message: str
) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(kind, match=f"(?s){message}"):
        digits.save(path)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["model.safetensors", "model.npz", "model.pt", "model"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "over an older one"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: pathlib.Path, name: str, existing: bool) -> None:
    """A limit on the size of files stands in for the disk; it holds for a process, so there is one of its own."""
    path = tmp_path / name
    if existing:
        zoo.create("digitnet", seed=5).save(path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code = (
        "import resource, signal, sys\n"
        "from zoonet import zoo\n"
        "from zoonet.ops.errors import FileError\n"
        "model = zoo.load('digits')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: model.save(sys.argv[1])\n"
        "except FileError as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert name in done.stdout
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert path.exists() == existing


# -- the command line ------------------------------------------------------------------------------------------------

COMMANDS = [
    ("run digit good.png", "did you mean digits"),
    ("run digits nothere.png", "no such picture"),
    ("run digits good.png nothere.png", "no such picture"),
    ("run digits folder", "holds no pictures"),
    ("run digits text.png", "not a picture"),
    ("run digits half.jpg", "truncated or corrupt"),
    ("run digits bomb.png", "too large a picture"),
    ("run digits zero.png", "not a picture"),
    ("run digits plain.png", "no digit in the picture"),
    ("run digits", "Missing argument"),
    ("run", "Missing argument"),
    ("run nothere.safetensors good.png", "no such weights file"),
    ("run folder good.png", "holds no model"),
    ("run cut50.safetensors good.png", "expected"),
    ("run hostile.pt good.png", "neither a tensor nor a plain container"),
    ("run digits good.png --arch resnet18", "95 missing"),
    ("run digits good.png --arch resnet19", "did you mean"),
    ("run digits good.png --device foo", "expected 'cpu', 'cuda' or 'cuda:N'; received 'foo'"),
    ("run digits good.png --top 0", "--top is too small: expected a number from 1; received 0"),
    ("run digits good.png --batch 0", "--batch is too small"),
    ("run digits good.png --batch x", "--batch"),
    ("run digits good.png --nonsense", "No such option"),
    ("show nothere", "no model and no file named 'nothere'"),
    ("show nothere.safetensors", "no such weights file"),
    ("show folder", "holds no model"),
    ("show good.png", "in no format"),
    ("show cut50.safetensors", "expected"),
    ("show digits --arch resnet18", "95 missing"),
    ("show", "Missing argument"),
    ("list nothing*", "no model fits"),
    ("list --task nothing", "no model fits"),
    ("bench digits --batch 0", "batch of a benchmark is too small"),
    ("bench digits --rounds 0", "rounds of a benchmark is too small"),
    ("bench nothere", "no model and no file named 'nothere'"),
    ("frobnicate", "No such command"),
]


@pytest.mark.parametrize(("command", "message"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_commands(folder: pathlib.Path, capfd: pytest.CaptureFixture[str], command: str, message: str) -> None:
    started = time.perf_counter()
    assert main(command.split()) == 2
    assert time.perf_counter() - started < 5
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("zoonet: ")
    assert message in err
    assert "Traceback" not in err
    assert not pathlib.Path("pwned").exists()


def test_a_command_as_a_program(folder: pathlib.Path) -> None:
    command = [sys.executable, "-m", "zoonet.zoo.cli", "run", "digits", "text.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zoonet: text.png is not a picture")
    assert done.stderr.count("\n") == 1
