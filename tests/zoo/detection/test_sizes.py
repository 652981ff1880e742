"""Detectors at other sizes of input than their usual one: as networks that are made for these."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
from onnx_runtime import assert_equal, session_of
from PIL import Image

from zoonet import zoo
from zoonet.ops.errors import ArgumentError
from zoonet.zoo.cli import main
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.detectors.darknet import Darknet, DarknetConfig
from zoonet.zoo.detectors.pyramid import PREPROCESSING

RNG = np.random.default_rng(0)
SLOW = pytest.mark.slow
PHOTO = Image.fromarray(RNG.integers(0, 256, (75, 100, 3), np.uint8))
CFG = """[net]
width={1}
height={0}
[convolutional]
filters=8
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky
[convolutional]
filters=16
size=1
stride=2
activation=linear
[yolo]
anchors=10,14, 23,27
classes=3
num=2
"""


def written(folder: pathlib.Path, size: tuple[int, int]) -> Any:
    """A darknet network whose .cfg has a size; its weights are those of any other size."""
    (folder / "net.cfg").write_text(CFG.format(*size))
    numbers = np.random.default_rng(1).uniform(0.1, 1, 8 * 4 + 8 * 27 + 16 + 16 * 8) - 0.05
    (folder / "net.weights").write_bytes(np.array([0, 2, 5, 0, 0], "<i4").tobytes() + numbers.astype("<f4").tobytes())
    return zoo.load(folder / "net.weights")


@pytest.mark.parametrize("size", [96, (32, 128), (64, 64)])
def test_darknet_is_as_if_its_cfg_had_the_size(size: Any, tmp_path: pathlib.Path) -> None:
    model = written(tmp_path, (64, 64))
    found = model.run(PHOTO, size=size, conf=0.0)
    own = None if isinstance(size, int) else size  # a height and a width stretch the picture, as darknet does
    expected = written(tmp_path, size if own else (size, size)).run(PHOTO, size=own, conf=0.0)
    assert len(found) > 5
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert model.run(PHOTO, conf=0.0).scores.tolist() == model.run(PHOTO, size=64, conf=0.0).scores.tolist()


@pytest.mark.parametrize(
    ("picture", "inner", "outer"),
    [
        ((75, 100), (55, 73), (56, 76)),  # √(64·64 / (75·100)) = 0.739
        ((100, 75), (73, 55), (76, 56)),
        ((64, 64), (64, 64), (64, 64)),
        ((50, 50), (64, 64), (64, 64)),
        ((20, 2000), (2, 256), (4, 256)),  # at most four times the longer side of the cfg
        ((1, 1), (64, 64), (64, 64)),
    ],
)
def test_darknet_sees_as_many_pixels_as_its_cfg_has(
    picture: tuple[int, int], inner: tuple[int, int], outer: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    """In the picture's own proportions, at the top left of grey: sizes by hand, pixels by torch."""
    torch = pytest.importorskip("torch")
    pixels = RNG.integers(0, 256, (*picture, 3), np.uint8)
    array, place = written(tmp_path, (64, 64)).preprocessing.placed(Image.fromarray(pixels))
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = np.full((3, *outer), 0.5, np.float32)
    scaled = torch.nn.functional.interpolate(planes, size=inner, mode="bilinear", align_corners=False)
    expected[:, : inner[0], : inner[1]] = scaled[0].numpy() / 255
    np.testing.assert_allclose(array, expected, atol=1e-5)
    corner = np.array([inner[1], inner[0]], np.float32)
    np.testing.assert_allclose(place.to_picture(corner), [picture[1], picture[0]], rtol=1e-6)


def test_boxes_of_padded_pictures_lie_in_the_picture(tmp_path: pathlib.Path) -> None:
    model = written(tmp_path, (64, 64))
    for size in (None, 96, (32, 64)):
        boxes = model.run(PHOTO, conf=0.0, size=size).boxes
        assert boxes[:, :2].min() >= 0
        assert boxes[:, 2].max() <= 100
        assert boxes[:, 3].max() <= 75


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("channels=3", "channels=3\nletter_box=1"),
        ("width=64", "width=66"),  # no multiple of the head's cells
        ("[yolo]", "[connected]\noutput=16\nactivation=linear\n[yolo]"),
        ("stride=2\nactivation=linear", "stride=2\npadding=3\nactivation=linear"),  # grows not as the input does
    ],
)
def test_darknets_that_keep_the_size_of_their_cfg(before: str, after: str, tmp_path: pathlib.Path) -> None:
    text = CFG.format(64, 64).replace("[net]", "[net]\nchannels=3").replace(before, after, 1)
    own = Darknet(DarknetConfig(text)).preprocessing
    assert own.size == (64, 66 if "66" in after else 64)
    assert own.keep == ("letter_box" in after)


def test_darknets_that_are_too_large_are_refused() -> None:
    with pytest.raises(ArgumentError, match="sizes from 1 to 16384; received"):
        _ = Darknet(DarknetConfig(CFG.format(64, 2_000_000))).preprocessing


@pytest.mark.parametrize(
    "name", ["yolox_nano", pytest.param("rtdetr_r18vd", marks=SLOW), "ssdlite320_mobilenet_v3_large"]
)
def test_networks_that_are_made_for_a_size(name: str) -> None:
    options: dict[str, Any] = {"classes": 3, "labels": ["a", "b", "c"], "seed": 0}
    found = zoo.create(name, **options).run(PHOTO, size=128, conf=0.0, max_det=20)
    expected = zoo.create(name, size=128, **options).run(PHOTO, conf=0.0, max_det=20)
    assert len(found) == 20
    np.testing.assert_array_equal(found.boxes, expected.boxes)


@pytest.mark.parametrize(("size", "picture"), [(200, (250, 333)), (500, (60, 90)), (64, (1000, 100))])
def test_one_number_is_the_shorter_side_of_torchvision(size: int, picture: tuple[int, int]) -> None:
    """The longer one is at most 1333 / 800 of it, unlike torchvision's 1333 pixels for any min_size."""
    resnet_parity.torchvision_and_timm()
    torch = pytest.importorskip("torch")
    transform = pytest.importorskip("torchvision.models.detection.transform").GeneralizedRCNNTransform
    longest = round(size * 1333 / 800)
    pixels = RNG.integers(0, 256, (*picture, 3), np.uint8)
    own = PREPROCESSING.of_size(size)
    array, place = own.placed(Image.fromarray(pixels))
    theirs = transform(size, longest, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images, _ = theirs([torch.from_numpy(pixels).permute(2, 0, 1) / 255])
    assert array.shape == tuple(images.tensors.shape[1:])
    down, across = images.image_sizes[0]
    assert (round(place.scale_y * picture[0]), round(place.scale_x * picture[1])) == (down, across)


def test_a_tuple_is_the_whole_input_of_torchvisions() -> None:
    own = PREPROCESSING.of_size((64, 160))
    array, place = own.placed(Image.new("RGB", (320, 320), "white"))
    assert array.shape == (3, 64, 160)
    assert (place.scale_x, place.scale_y, place.left, place.top) == (0.2, 0.2, 0, 0)
    np.testing.assert_allclose(array[:, :, 64:], 0, atol=1e-6)  # padding


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (100, "expected multiples of 32, such as 96; received size=100"),
        ((64, 100), r"such as \(64, 96\)"),
        (0, "from 1 to 16384; received 0"),
        (1 << 20, "from 1 to 16384"),
        ("64", "from 1 to 16384; received '64'"),
        (64.0, "from 1 to 16384"),
        (True, "from 1 to 16384"),
        ((1, 2, 3), "from 1 to 16384"),
        ([], "from 1 to 16384"),
    ],
)
def test_wrong_sizes(size: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        zoo.create("yolox_nano", seed=0).run(PHOTO, size=size)


def test_networks_of_one_size(tmp_path: pathlib.Path) -> None:
    model = zoo.create("blazeface", seed=0)
    assert model.run(PHOTO, size=128).size == (100, 75)
    with pytest.raises(ArgumentError, match=r"takes inputs of one size: expected 128 \(height\), 128 \(width\)"):
        model.run(PHOTO, size=256)
    head = "[net]\nheight=32\nwidth=64\nchannels=1\n[connected]\noutput=8\nactivation=linear\n[yolo]\nanchors=9,9\n"
    (tmp_path / "v1.cfg").write_text(head + "classes=3\nnum=1\n")
    count = 8 + 8 * 32 * 64
    (tmp_path / "v1.weights").write_bytes(np.array([0, 2, 5, 0, 0] + [0] * count, "<i4").tobytes())
    with pytest.raises(ArgumentError, match=r"takes inputs of one size: expected 32 \(height\), 64 \(width\)"):
        zoo.load(tmp_path / "v1.weights").run(PHOTO, size=64)


FIXED, FREE = {"input": {0: "batch"}}, {"input": {0: "batch", 2: "height", 3: "width"}}


def test_graphs(tmp_path: pathlib.Path) -> None:
    model = written(tmp_path, (64, 64))
    model.save(tmp_path / "fixed.onnx", dynamic=FIXED)
    model.save(tmp_path / "free.onnx")
    free, fixed = zoo.load(tmp_path / "free.onnx"), zoo.load(tmp_path / "fixed.onnx")
    for size in (None, 96, (96, 128)):
        expected = model.run(PHOTO, size=size, conf=0.0).boxes
        np.testing.assert_allclose(free.run(PHOTO, size=size, conf=0.0).boxes, expected, atol=1e-2)
    expected = model.run(PHOTO, size=(64, 64), conf=0.0).boxes
    np.testing.assert_allclose(fixed.run(PHOTO, conf=0.0).boxes, expected, atol=1e-2)
    np.testing.assert_array_equal(fixed.run(PHOTO, size=64, conf=0.0).boxes, fixed.run(PHOTO, conf=0.0).boxes)
    with pytest.raises(
        ArgumentError, match=r"expected 64 \(height\), 64 .*export the graph with free height and width"
    ):
        fixed.run(PHOTO, size=96)


def test_graphs_of_pools_whose_padding_would_depend_on_the_size(tmp_path: pathlib.Path) -> None:
    """Windows that end beyond odd sizes, and would not beyond even ones, in one graph, as ONNX Runtime runs it."""
    pools = "[maxpool]\nsize=2\nstride=2\n[maxpool]\nsize=3\nstride=2\n[maxpool]\nsize=2\nstride=1\n[yolo]"
    text = CFG.format(32, 32).replace("[yolo]", pools)
    network = Darknet(DarknetConfig(text))
    (tmp_path / "net.cfg").write_text(text)
    numbers = np.random.default_rng(1).uniform(0.05, 0.95, sum(a.size for a in network.state_dict().values()))
    (tmp_path / "net.weights").write_bytes(np.array([0, 2, 5, 0, 0], "<i4").tobytes() + numbers.astype("<f4").tobytes())
    model = zoo.load(tmp_path / "net.cfg")
    model.save(tmp_path / "free.onnx", dynamic=FREE)
    session = session_of(tmp_path / "free.onnx")
    for size in ((32, 32), (48, 64), (80, 112), (64, 16)):
        x = RNG.random((1, 3, *size)).astype(np.float32)
        assert_equal(model(x), session.run(None, {"input": x})[0])


@SLOW
def test_graphs_of_yolox(tmp_path: pathlib.Path) -> None:
    model = zoo.create("yolox_nano", classes=3, labels=["a", "b", "c"], size=64, seed=0)
    model.save(tmp_path / "free.onnx", dynamic=FREE)
    expected = model.run(PHOTO, size=(96, 128), conf=0.0, max_det=20).boxes
    free = zoo.load(tmp_path / "free.onnx")
    np.testing.assert_allclose(free.run(PHOTO, size=(96, 128), conf=0.0, max_det=20).boxes, expected, atol=1e-2)
    with pytest.raises(ArgumentError, match="expected multiples of 32, such as 96"):
        free.run(PHOTO, size=100)


def test_of_size_keeps_the_rest() -> None:
    own = DetectionPreprocessing(size=(64, 64), keep=False, channels="BGR", pad=7.0)
    assert own.of_size([32, 96]) == DetectionPreprocessing(size=(32, 96), keep=False, channels="BGR", pad=7.0)


def test_command_line(tmp_path: pathlib.Path, capfd: Any) -> None:
    model = written(tmp_path, (64, 64))
    PHOTO.save(tmp_path / "photo.png")
    weights, picture = str(tmp_path / "net.weights"), str(tmp_path / "photo.png")
    expected = model.run(PHOTO, size=(96, 128), conf=0.0).scores
    assert main(["run", weights, picture, "--conf", "0", "--size", "96x128", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)[0]["detections"]
    np.testing.assert_allclose([d["score"] for d in found], expected, atol=1e-6)
    for size, message in (("96x", "--size is wrong"), ("big", "--size is wrong"), ("98x96", "expected multiples of 4")):
        assert main(["run", weights, picture, "--size", size]) == 2
        assert message in capfd.readouterr().err
    assert main(["run", "digits", picture, "--size", "32"]) == 2
    assert "has no option 'size'" in capfd.readouterr().err


@SLOW
def test_yolo_fastest_at_384(assets: pathlib.Path, capfd: Any) -> None:
    """AP50 of the 27 photos, stretched, rises from 0.54 at 320 pixels."""
    path, data = assets / "yolo-fastest" / "yolo-fastest-1.1-xl.weights", assets / "coco-permissive"
    if not path.exists() or not data.exists():
        pytest.skip("weights or photos are absent")
    assert main(["eval", str(path), str(data / "images" / "val2017"), "--size", "384x384", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["metrics"]["AP50"] > 0.56
