"""`zoo.list`, `zoo.load`, `zoo.create`, and what a Model does."""

from __future__ import annotations

import io
import pathlib
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import zoo

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "digit.png"


def torch_digits() -> Any:
    """The network of the digits model in PyTorch: an oracle that shares nothing with zoonet but the weights' names."""
    nn = torch.nn

    class DigitNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for n, (inputs, outputs) in enumerate(((1, 16), (16, 32), (32, 64)), start=1):
                setattr(self, f"conv{n}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
                setattr(self, f"bn{n}", nn.BatchNorm2d(outputs))
            self.fc = nn.Linear(576, 10)

        def forward(self, x: Any) -> Any:
            for n in (1, 2, 3):
                x = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(x))
                x = nn.functional.max_pool2d(torch.relu(x), 2)
            return self.fc(x.flatten(1))

    torch.manual_seed(0)
    return DigitNet().eval()


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).random((3, 1, 24, 24), np.float32)


# -- names -----------------------------------------------------------------------------------------------------------


def test_the_list_begins_with_what_is_in_the_package() -> None:
    names = zoo.list()
    assert names[0] == "digits"
    assert len(set(names)) == len(names)
    assert {"resnet18", "resnet50", "resnet152", "resnext50_32x4d", "resnet20", "resnet50.tv_in1k"} <= set(names)
    assert zoo.list("resnet*") == [name for name in names if name.lower().startswith("resnet")]
    assert "resnet50" not in zoo.list(pretrained=True)
    assert zoo.list(task="no such task") == []


def test_resnet50_comes_before_resnet101() -> None:
    names = zoo.list("resnet*_keras")
    assert names == ["resnet50_keras", "resnet101_keras", "resnet152_keras"]


def test_public_names() -> None:
    assert {"list", "load", "create", "Model", "Module"} <= set(zoo.__all__) <= set(dir(zoo))
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zoo.nothing  # noqa: B018


def test_loading_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys; from zoonet import zoo; zoo.load('digits'); print(*[m for m in sys.argv[1:] if m in sys.modules])"
    )
    heavy = ["h5py", "onnx", "requests", "cupy", "matplotlib", "rich", "typer", "torch", "tokenizers", "sklearn"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# -- running ---------------------------------------------------------------------------------------------------------


def test_the_network_gives_the_logits_of_pytorch(x: Any) -> None:
    model = zoo.load("digits")
    oracle = torch_digits()
    state = {name: torch.from_numpy(np.array(array)) for name, array in model.network.state_dict().items()}
    oracle.load_state_dict(state, strict=True)
    with torch.no_grad():
        expected = oracle(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)


def test_every_way_to_give_a_picture_gives_the_same_answer(digits: Any, tmp_path: pathlib.Path) -> None:
    image = Image.open(EXAMPLE).convert("RGB")
    array = np.asarray(image)
    expected = digits.run(EXAMPLE).scores
    sources = {
        "text": str(EXAMPLE),
        "bytes": EXAMPLE.read_bytes(),
        "open file": io.BytesIO(EXAMPLE.read_bytes()),
        "PIL": image,
        "(H, W, C)": array,
        "(C, H, W)": array.transpose(2, 0, 1),
        "floats": array / 255,
        "uint16": array.astype(np.uint16) * 257,
    }
    for name, source in sources.items():
        result = digits.run(source)
        np.testing.assert_allclose(result.scores, expected, atol=1e-6, err_msg=name)
        assert result.label == "4", name


def test_several_pictures_in_order(digits: Any, text_picture: Any, tmp_path: pathlib.Path) -> None:
    for digit in range(10):
        text_picture(str(digit), 80).save(tmp_path / f"{digit}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    results = digits.run(tmp_path, batch=3)
    assert [pathlib.Path(result.source).name for result in results] == [f"{digit}.png" for digit in range(10)]
    assert [result.label for result in results] == [str(digit) for digit in range(10)]
    again = digits.run([tmp_path / f"{digit}.png" for digit in reversed(range(10))])
    assert [result.label for result in again] == [str(digit) for digit in reversed(range(10))]
    assert len(digits.run([tmp_path / "3.png"])) == 1


def test_a_batch_is_an_array_of_four_axes(digits: Any, text_picture: Any) -> None:
    batch = np.stack([np.asarray(text_picture(text)) for text in "507"])
    assert [result.label for result in digits.run(batch)] == ["5", "0", "7"]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_the_size_of_batches_changes_nothing(digits: Any, text_picture: Any, batch: int) -> None:
    pictures = [text_picture(str(n % 10), 20 + n) for n in range(9)]
    seen: list[tuple[int, int]] = []
    results = digits.run(pictures, batch=batch, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose([r.scores for r in results], [digits.run(p).scores for p in pictures], atol=1e-5)
    assert seen == [(min(n + batch, 9), 9) for n in range(0, 9, batch)]


def test_a_picture_is_turned_as_its_exif_says(digits: Any, text_picture: Any) -> None:
    upright = text_picture("7", 80)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90° clockwise
    file = io.BytesIO()
    turned.save(file, "png", exif=exif)
    np.testing.assert_allclose(digits.run(file.getvalue()).scores, digits.run(upright).scores, atol=1e-6)


def test_threads_share_a_model(digits: Any, x: Any) -> None:
    expected = digits(x)
    answers: list[Any] = [None] * 4

    def work(position: int) -> None:
        for _ in range(5):
            answers[position] = digits(x)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-4), ("float16", 0.05), ("bfloat16", 0.3)])
def test_other_dtypes(digits: Any, x: Any, dtype: str, tolerance: float) -> None:
    model = zoo.load("digits", dtype=dtype)
    y = model(x)
    assert y.dtype.name == dtype
    np.testing.assert_allclose(y.astype(np.float64), digits(x), atol=tolerance)
    assert model.run(EXAMPLE).label == "4"


def test_replaced_parameters_are_noticed(x: Any) -> None:
    model = zoo.load("digits")
    before = model(x)
    model.network.fc.bias = model.network.fc.bias + np.float32(1)
    np.testing.assert_allclose(model(x), before + 1, atol=1e-5)


# -- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["m.safetensors", "m.npz", "m.pt", "m.pth", "m.bin", "m.tar", "m.safetensors.index.json", "folder"]
)
def test_round_trips(digits: Any, x: Any, tmp_path: pathlib.Path, name: str) -> None:
    digits.save(tmp_path / name)
    again = zoo.load(tmp_path / name)
    np.testing.assert_array_equal(again(x), digits(x))
    assert (again.architecture, again.labels, again.card) == (digits.architecture, digits.labels, digits.card)
    assert again.preprocessing == digits.preprocessing
    assert again.run(EXAMPLE).label == "4"
    again.save(tmp_path / name)  # over itself
    np.testing.assert_array_equal(zoo.load(str(tmp_path / name))(x), digits(x))


def test_other_libraries_read_what_is_saved(digits: Any, tmp_path: pathlib.Path) -> None:
    from safetensors.numpy import load_file

    names = [tmp_path / f"m.{suffix}" for suffix in ("safetensors", "npz", "pt")]
    for name in names:
        digits.save(name)
    with np.load(names[1]) as archive:
        states: list[Any] = [load_file(names[0]), dict(archive), torch.load(names[2], weights_only=True)]
    for state in states:
        assert set(state) == set(digits.network.state_dict())
        for name, array in digits.network.state_dict().items():
            np.testing.assert_array_equal(np.asarray(state[name]), array, err_msg=name)


@pytest.mark.parametrize("arch", [None, "digitnet"])
def test_a_bare_state_dict_of_pytorch(x: Any, tmp_path: pathlib.Path, arch: str | None) -> None:
    oracle = torch_digits()
    torch.save(oracle.state_dict(), tmp_path / "weights.pth")
    model = zoo.load(tmp_path / "weights.pth", arch=arch)
    assert model.architecture == "digitnet"
    assert model.labels == tuple("0123456789")
    with torch.no_grad():
        np.testing.assert_allclose(model(x), oracle(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_the_number_of_classes_is_read_off_the_tensors(tmp_path: pathlib.Path) -> None:
    made = zoo.create("resnet20", classes=7, channels=1, seed=4)
    np.savez(tmp_path / "w.npz", **made.network.state_dict())
    model = zoo.load(tmp_path / "w.npz", arch="resnet20")
    assert model.labels == tuple(f"class {n}" for n in range(7))
    x = np.random.default_rng(1).random((2, 1, 32, 32), np.float32)
    np.testing.assert_array_equal(model(x), made(x))
    named = zoo.load(tmp_path / "w.npz", arch="resnet20", labels=list("abcdefg"))
    assert named.labels == tuple("abcdefg")


def test_an_architecture_is_recognised_by_names_and_shapes(tmp_path: pathlib.Path) -> None:
    made = zoo.create("resnet18", classes=5, seed=1)
    np.savez(tmp_path / "w.npz", **made.network.state_dict())
    assert zoo.load(tmp_path / "w.npz").architecture == "resnet18"


def test_seeds() -> None:
    first, second, other = (zoo.create("digitnet", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.network.conv1.weight, second.network.conv1.weight)  # type: ignore[attr-defined]
    assert not np.array_equal(first.network.conv1.weight, other.network.conv1.weight)  # type: ignore[attr-defined]


# -- description -----------------------------------------------------------------------------------------------------


def test_summary_by_hand(digits: Any) -> None:
    """The totals of three convolutions and a linear layer, counted by hand."""
    summary = digits.summary()
    convolutions = 24 * 24 * 16 * 9 + 12 * 12 * 32 * 16 * 9 + 6 * 6 * 64 * 32 * 9
    assert summary.multiply_adds == convolutions + 576 * 10
    assert summary.parameters == (16 * 9 + 32 * 16 * 9 + 64 * 32 * 9) + 2 * (16 + 32 + 64) + 576 * 10 + 10
    assert summary.output_shape == (1, 10)
    assert [row.name for row in summary.rows] == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc"]
    assert digits.summary((5, 1, 24, 24)).multiply_adds == 5 * summary.multiply_adds
    assert "29,178 parameters" in str(summary)
    assert str(summary).splitlines()[3].split() == ["conv1", "Conv2d", "1×16×24×24", "144", "82.94", "k"]
    assert "<pre>" in summary._repr_html_()


def test_a_model_says_what_it_is(digits: Any) -> None:
    assert repr(digits) == (
        "<Model digits: digitnet, image-classification, 10 classes, 29,178 parameters, input 1×24×24, cpu>"
    )
