"""The task of detection: results, options, letterboxes, suppression, drawing, and bad input."""

from __future__ import annotations

import io
import itertools
import json
import pathlib
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, FileError, InputError, MissingFileError, UnsafeFileError
from zoonet.zoo.cli import main
from zoonet.zoo.detection.candidates import Candidates, Selection, class_indices, select
from zoonet.zoo.detection.drawing import class_color, draw_boxes, ink_on
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing, resized_bilinear
from zoonet.zoo.detection.results import Detections
from zoonet.zoo.detection.terminal import in_terminal, kind_of_terminal

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "hen")


class FixedDecoder:
    """A box in the middle of each input, of half its size, and one of another class within it."""

    classes = 3

    def __call__(self, outputs: tuple[Any, ...], size: tuple[int, int]) -> list[Candidates]:
        h, w = size
        boxes = np.array([[w / 4, h / 4, 3 * w / 4, 3 * h / 4], [w / 4, h / 4, 3 * w / 4, h / 2]], np.float32)
        scores = np.array([[0.9, 0.1, 0.0], [0.0, 0.0, 0.6]], np.float32)
        return [Candidates(boxes, scores) for _ in outputs[0]]


@pytest.fixture(scope="module")
def model() -> Any:
    made = zoo.create("yolox_nano", classes=3, labels=NAMES, seed=0)
    made.task.preprocessing = DetectionPreprocessing(size=(64, 64), channels="BGR", scale=1.0)
    made.task.decoder = FixedDecoder()
    return made


# -- results -----------------------------------------------------------------------------------------------------------


def test_boxes_are_in_pixels_of_the_picture(model: Any) -> None:
    """A picture of 100×50 lies in rows 16 to 48 of 64: the box, rows 16 to 48 too, is all of its height."""
    found = model.run(np.zeros((50, 100, 3), np.uint8))
    assert found.size == (100, 50)
    assert [d.name for d in found] == ["cat", "hen"]
    np.testing.assert_allclose(found.boxes, [[25, 0, 75, 50], [25, 0, 75, 25]], atol=1e-4)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.names == NAMES
    assert [found.names[i] for i in found.labels] == ["cat", "hen"]
    assert (str(found[0]), [d.label for d in found[:1]]) == ("cat 90.0% at 25, 0, 75, 50", [0])
    with pytest.raises(IndexError):
        found[2]
    tall = model.run(np.zeros((50, 20, 3), np.uint8), conf=0.7)
    np.testing.assert_allclose(tall.boxes, [[0, 12.5, 20, 37.5]], atol=1e-4)


def test_options(model: Any) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    assert len(model.run(picture, conf=0.05)) == 3
    assert len(model.run(picture, conf=0.05, multi_label=False)) == 2
    assert len(model.run(picture, conf=0.05, max_det=1)) == 1
    assert [d.name for d in model.run(picture, classes="hen")] == ["hen"]
    assert [d.name for d in model.run(picture, classes=[2, "dog"], conf=0.05)] == ["hen", "dog"]
    assert [d.name for d in model.run(picture, agnostic=True, conf=0.05, iou=0.45)] == ["cat"]
    soft = model.run(picture, agnostic=True, conf=0.05, suppression="soft")
    assert [d.name for d in soft] == ["cat", "hen"]
    assert soft.scores[1] == pytest.approx(0.6 * np.exp(-(0.5**2) / 0.5), rel=1e-5)
    assert len(model.run(picture, classes=[])) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conf": 1.5}, "conf is out of range"),
        ({"conf": float("nan")}, "conf is out of range"),
        ({"iou": "x"}, "iou is out of range"),
        ({"max_det": 0}, "max_det is wrong"),
        ({"top_k": 1.5}, "top_k is wrong"),
        ({"classes": "cow"}, "no such class.*0 to 2, or cat, dog, hen"),
        ({"classes": [3]}, "no such class"),
        ({"suppression": "medium"}, "no such suppression"),
        ({"batch": 0}, "batch is wrong"),
        ({"colour": 1}, "has no option 'colour'"),
    ],
)
def test_wrong_options(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.run(np.zeros((8, 8, 3), np.uint8), **options)


def test_many_pictures(model: Any, tmp_path: pathlib.Path) -> None:
    """Folders, patterns, lists, frames of a video; exchanged sizes in one batch."""
    for name, size in (("b.png", (30, 20)), ("a.jpg", (20, 30)), ("c.txt", None)):
        if size:
            Image.new("RGB", size).save(tmp_path / name)
        else:
            (tmp_path / name).write_text("no picture")
    for source in (tmp_path, str(tmp_path / "*"), [tmp_path / "a.jpg", tmp_path / "b.png"]):
        found = model.run(source)
        assert [(pathlib.Path(f.source).name, f.size) for f in found] in ([("a.jpg", (20, 30)), ("b.png", (30, 20))],)
    frames = model.run(np.zeros((5, 16, 24, 3), np.uint8), batch=2)
    assert [f.size for f in frames] == [(24, 16)] * 5
    with pytest.raises(MissingFileError, match="no picture fits the pattern"):
        model.run(str(tmp_path / "*.gif"))
    with (tmp_path / "a.jpg").open("rb") as file:
        opened = model.run(file)
    assert opened.plot().size == (20, 30)  # although the file is closed


def test_data_of_results(model: Any, tmp_path: pathlib.Path) -> None:
    Image.new("RGB", (100, 50), "white").save(tmp_path / "000000000139.jpg")
    found = model.run(tmp_path / "000000000139.jpg")
    assert json.loads(found.to_json())["detections"][0] == {
        "label": "cat", "score": 0.9, "index": 0, "box": [25.0, 0.0, 75.0, 50.0]
    }  # fmt: skip
    assert found.to_coco()[1] == {"image_id": 139, "category_id": 2, "bbox": [25.0, 0.0, 50.0, 25.0], "score": 0.6}
    assert found.to_coco("x", [5, 6, 7])[1]["category_id"] == 7
    with pytest.raises(ArgumentError, match="category_ids do not fit"):
        found.to_coco(category_ids=[1])
    assert [image.size for image in found.crop()] == [(50, 50), (50, 25)]
    assert found.text().splitlines()[1].split()[:2] == ["90.00%", "cat"]
    assert "<img src=" in found._repr_html_()
    found.save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.size == (100, 50)
    for path in ("out.xyz", "absent/out.png", "out"):
        with pytest.raises(FileError):
            found.save(tmp_path / path)


def test_coco_numbers() -> None:
    from zoonet.weights import label_names

    empty = np.zeros((1, 4), np.float32)
    for names in (label_names("coco-80"), [{"tv": "tvmonitor"}.get(n, n) for n in label_names("coco-80")]):
        found = Detections("a", (9, 9), empty, np.ones(1), np.array([79]), names)
        assert found.to_coco(1)[0]["category_id"] == 90  # a toothbrush


def test_command_line(model: Any, tmp_path: pathlib.Path, capfd: Any) -> None:
    model.save(tmp_path / "m.safetensors")  # with the decoder of YOLOX: random weights find what they find
    for name in ("a", "b"):
        Image.new("RGB", (40, 30), "blue").save(tmp_path / f"{name}.png")
    weights, pictures = str(tmp_path / "m.safetensors"), [str(tmp_path / f"{n}.png") for n in "ab"]
    assert main(["run", weights, *pictures, "--conf", "0", "--max-det", "3", "--save", str(tmp_path / "out")]) == 0
    assert len(capfd.readouterr().out.split("\n\n")) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert main(["run", weights, *pictures, "--save", str(tmp_path / "one.png")]) == 2
    assert "several pictures do not go into one file" in capfd.readouterr().err
    assert main(["run", weights, pictures[0], "--classes", "cow"]) == 2
    assert "no such class" in capfd.readouterr().err
    assert main(["run", weights, pictures[0], "--json", "--classes", "dog,hen", "--conf", "0", "--max-det", "2"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {d["label"] for d in found[0]["detections"]} <= {"dog", "hen"}
    assert main(["run", "digits", pictures[0], "--save", "x.png"]) == 2
    assert "expected a detector" in capfd.readouterr().err


# -- pictures that are unusual -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (3000, 1)),
        Image.new("L", (9, 7), 128),
        Image.new("RGBA", (9, 7), (1, 2, 3, 128)),
        Image.new("I;16", (9, 7), 40000),
        Image.new("P", (9, 7)),
        Image.new("CMYK", (9, 7)),
    ],
    ids=lambda image: f"{image.mode} {image.size}",
)
def test_unusual_pictures(model: Any, image: Image.Image) -> None:
    found = model.run(image)
    assert found.size == image.size
    for box in found.boxes.tolist():
        assert 0 <= box[0] < box[2] <= image.width
        assert 0 <= box[1] < box[3] <= image.height
    assert found.plot().size == image.size
    assert all(min(crop.size) >= 1 for crop in found.crop())


def test_animated_and_turned_pictures(model: Any, tmp_path: pathlib.Path) -> None:
    frames = [Image.new("RGB", (20, 10), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert model.run(tmp_path / "a.gif").size == (20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    Image.new("RGB", (20, 10)).save(tmp_path / "b.jpg", exif=exif)
    found = model.run(tmp_path / "b.jpg")
    assert found.size == (10, 20)
    assert found.plot().size == (10, 20)


def test_a_giant_picture_is_refused(model: Any) -> None:
    """A PNG of 20,000×20,000 zeros takes 50 kB as a file, and 1.2 GB in memory."""
    stream = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    with pytest.raises(UnsafeFileError, match="too large a picture"):
        model.run(stream.getvalue())


def test_scores_that_are_not_numbers() -> None:
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    with pytest.raises(InputError, match=r"scores that are not numbers for a\.jpg"):
        select(Candidates(boxes, np.array([[np.nan]], np.float32)), Selection(), "a.jpg")


def test_odd_boxes() -> None:
    """Without area, upside down, infinite or of no numbers: none is a detection."""
    boxes = np.array([[0, 0, 0, 9], [5, 5, 1, 1], [0, 0, np.inf, 9], [np.nan, 0, 1, 1], [0, 0, 3, 3]], np.float32)
    chosen = select(Candidates(boxes, np.full((5, 1), 0.9, np.float32)), Selection(), "")
    assert chosen.boxes.tolist() == [[0, 0, 3, 3]]
    nothing = select(Candidates(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32)), Selection(), "")
    assert nothing.boxes.shape == (0, 4)


# -- letterboxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"), [((37, 53), (20, 61)), ((8, 8), (8, 8)), ((5, 4), (50, 3)), ((1, 1), (4, 4))]
)
def test_resizing_is_that_of_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*source, 3), np.uint8)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, target, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized_bilinear(pixels, target), expected[0].permute(1, 2, 0).numpy(), atol=1e-3)
    if min(target) > 1:
        expected = torch.nn.functional.interpolate(planes, target, mode="bilinear", align_corners=True)
        ours = resized_bilinear(pixels, target, "corners")
        np.testing.assert_allclose(ours, expected[0].permute(1, 2, 0).numpy(), atol=1e-3)


def test_letterbox() -> None:
    image = Image.fromarray(np.full((50, 100, 3), (10, 20, 30), np.uint8))
    array, place = DetectionPreprocessing(size=(64, 64), channels="BGR", scale=1.0, pad=7).placed(image)
    assert array.shape == (3, 64, 64)
    assert (array[:, 32, 32].tolist(), array[0, 0, 0], place.top) == ([30, 20, 10], 7, 16)
    array, place = DetectionPreprocessing(size=(64, 64), center=False).placed(image)
    assert (place.left, place.top) == (0, 0)
    assert array[2, 63, 0] == pytest.approx(114 / 255)
    array, place = DetectionPreprocessing(size=(64, 32), keep=False).placed(image)
    assert (place.scale_x, place.scale_y) == (0.32, 1.28)
    points = RNG.random((5, 4)) * 30
    moved = points * np.tile([place.scale_x, place.scale_y], 2)
    np.testing.assert_allclose(place.to_picture(moved), points, rtol=1e-5)


def test_configuration_round_trip() -> None:
    made = DetectionPreprocessing(size=None, shorter=100, pad=(1.0, 2.0, 3.0), mean=(0.1, 0.2, 0.3))
    assert DetectionPreprocessing.from_config(json.loads(json.dumps(made.to_config()))) == made
    for wrong in ({"size": (0, 5)}, {"channels": "CMY"}, {"sampling": "x"}, {"pad": (1.0,)}, {"std": (0, 1, 1)}):
        with pytest.raises(ArgumentError):
            DetectionPreprocessing(**wrong)


# -- suppression -------------------------------------------------------------------------------------------------------


def random_boxes(count: int, spread: float, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centers, half = RNG.random((count, 2)) * spread, RNG.random((count, 2)) * 20 + 2
    boxes = np.concatenate([centers - half, centers + half], 1).astype(np.float32)
    return boxes, RNG.random(count).astype(np.float32), RNG.integers(0, groups, count)


@pytest.mark.parametrize(("count", "spread", "groups"), [(3000, 60, 1), (3000, 300, 5), (50, 30, 2)])
@pytest.mark.parametrize("most", [1, 20, 10_000])
def test_the_first_ones_are_those_of_greedy_choice(count: int, spread: float, groups: int, most: int) -> None:
    boxes, scores, labels = random_boxes(count, spread, groups)
    chosen = select(Candidates(boxes, scores, labels), Selection(conf=0.1, iou=0.4, max_det=most), "")
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= np.float32(0.1)]
    kept: list[int] = []
    for i in order:
        if len(kept) == most:
            break
        same = [k for k in kept if labels[k] == labels[i]]
        others = boxes[same] if same else np.zeros((0, 4), np.float32)
        low, high = np.maximum(others[:, :2], boxes[i, :2]), np.minimum(others[:, 2:], boxes[i, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        areas = (others[:, 2:] - others[:, :2]).prod(1)
        if not (shared / (areas + (boxes[i, 2:] - boxes[i, :2]).prod() - shared) > 0.4).any():
            kept.append(i)
    np.testing.assert_array_equal(chosen.boxes, boxes[kept])
    np.testing.assert_array_equal(chosen.labels, labels[kept])


@pytest.mark.parametrize("spread", [0.0, 600.0])
def test_many_overlapping_boxes_take_bounded_time(spread: float) -> None:
    """25,000 boxes, in one place or scattered; the bound is generous for slow machines, tests/bench measures it."""
    boxes, scores, labels = random_boxes(25_000, spread, 1)
    start = time.perf_counter()
    chosen = select(Candidates(boxes, scores, labels), Selection(conf=0.0), "")
    assert time.perf_counter() - start < 2
    assert 1 <= len(chosen.scores) <= 300


def test_top_k() -> None:
    boxes, scores, labels = random_boxes(500, 1e5, 3)
    chosen = select(Candidates(boxes, scores, labels), Selection(conf=0.0, top_k=10), "")
    np.testing.assert_array_equal(np.sort(chosen.scores), np.sort(scores)[-10:])


def test_class_indices() -> None:
    assert class_indices(None, NAMES) is None
    assert class_indices(np.array([1, 0]), NAMES) == (1, 0)
    assert class_indices(["2", "cat"], NAMES) == (2, 0)


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["white", "black", (128, 128, 128)])
def test_text_can_be_read_on_any_background(color: Any) -> None:
    """The label has its own ground, in the colour of the class, and ink of another lightness."""
    image = Image.new("RGB", (200, 120), color)
    drawn = np.asarray(draw_boxes(image, np.array([[20, 40, 180, 110]]), ["dog 0.9"], [class_color(1)]))
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) == 1  # the original is not drawn on
    label = drawn[22:38, 22:60].reshape(-1, 3).astype(int)
    for wanted in (class_color(1), ink_on(class_color(1))):
        assert np.abs(label - wanted).max(1).min() < 40  # letters are antialiased


def test_colours_of_classes_differ() -> None:
    colors = [class_color(k) for k in range(80)]
    assert len(set(colors)) == 80
    assert min(np.abs(np.subtract(a, b)).sum() for a, b in itertools.pairwise(colors)) > 100
    for color in colors:  # contrast of WCAG: 4.5 is asked of text
        linear = ((np.array([color, ink_on(color)]) / 255 + 0.055) / 1.055) ** 2.4
        light = linear @ [0.2126, 0.7152, 0.0722]
        assert (light.max() + 0.05) / (light.min() + 0.05) > 4.4


def test_boxes_at_the_edges_and_labels_longer_than_the_picture() -> None:
    boxes = np.array([[0, 0, 50, 40], [-5, -5, 60, 60], [49, 39, 50, 40], [10, 10, 10, 10]], np.float32)
    colors = [class_color(k) for k in range(4)]
    assert draw_boxes(Image.new("L", (50, 40)), boxes, ["a very long label"] * 4, colors).size == (50, 40)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_pictures_in_the_terminal() -> None:
    image = Image.new("RGB", (120, 61), (250, 0, 0))
    assert kind_of_terminal(io.StringIO(), {"TERM": "xterm-kitty"}) is None
    assert kind_of_terminal(Terminal(), {"TERM": "xterm"}) is None
    assert kind_of_terminal(Terminal(), {"TERM": "xterm-kitty"}) == "kitty"
    assert kind_of_terminal(Terminal(), {"TERM": "xterm", "TERM_PROGRAM": "iTerm.app"}) == "iterm"
    assert kind_of_terminal(Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor"}) == "blocks"
    assert kind_of_terminal(Terminal(), {"TERM": "xterm", "COLORTERM": "truecolor", "NO_COLOR": "1"}) is None
    lines = in_terminal(image, "blocks").split("\n")
    assert len(lines) == 16  # 60×30 or 31 pixels, two in a character
    assert lines[0].count("▀") == 60
    assert "38;2;250;0;0" in lines[0]
    assert in_terminal(image, "kitty").startswith("\033_Gf=100,a=T,m=0;")
    assert in_terminal(image, "iterm").startswith("\033]1337;File=inline=1")


def test_gradients_reach_the_detector() -> None:
    """Of the head's scores by the first weights, by finite differences."""
    network = zoo.create("yolox_nano", classes=2, labels=["a", "b"], seed=3).network
    x = RNG.random((1, 3, 32, 32)).astype(np.float64)
    network.to(dtype=np.float64)
    weight = network.backbone.backbone.stem.conv.conv.weight

    def loss(w: Any) -> Any:
        outputs, _ = zoo.functional_call(network, {"backbone.backbone.stem.conv.conv.weight": w}, x)
        return ops.sum(ops.square(outputs))

    ours = ops.grad(loss)(weight)
    for index in ((0, 0, 1, 1), (3, 5, 0, 2)):
        step = np.zeros_like(weight)
        step[index] = 1e-5
        numeric = (loss(weight + step) - loss(weight - step)) / 2e-5
        assert ours[index] == pytest.approx(float(numeric), rel=1e-4, abs=1e-9)
