"""Pictures with boxes as data, and graphs made classifiers of pictures on the command line."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from train_data import shapes

from zoonet.ops.errors import FormatError, InputError
from zoonet.zoo.cli import main
from zoonet.zoo.train import open_boxes, open_data

XML = "<annotation>{}</annotation>"
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


@pytest.fixture
def voc(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two pictures of 40×30, each with a red square of 10 and a green one of 12 pixels."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    for number in range(2):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[4:14, 5:15, 0] = 255
        pixels[10:22, 20:32, 1] = 255
        Image.fromarray(pixels).save(tmp_path / "voc" / "JPEGImages" / f"{number}.png")
        text = XML.format(OBJECT.format("red", 6, 5, 15, 14) + OBJECT.format("green", 21, 11, 32, 22))
        (tmp_path / "voc" / "Annotations" / f"{number}.xml").write_text(text)
    return tmp_path / "voc"


def test_voc(voc: pathlib.Path) -> None:
    boxes = open_boxes(voc)
    assert boxes.labels == ("green", "red")
    assert boxes.counts() == {"green": 2, "red": 2}
    picture, objects = boxes[0]
    assert picture == voc / "JPEGImages" / "0.png"
    assert objects["boxes"].tolist() == [[5, 4, 15, 14], [20, 10, 32, 22]]
    assert objects["labels"].tolist() == [1, 0]
    data = boxes.crops()
    assert data.counts() == {"green": 2, "red": 2}
    assert [np.asarray(image).mean((0, 1)).tolist() for image in data.inputs[:2]] == [[255, 0, 0], [0, 255, 0]]
    with pytest.raises(InputError, match="open_boxes"):
        open_data(voc)


def test_coco(voc: pathlib.Path) -> None:
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(2)]
    annotations = [{"image_id": n, "category_id": 7, "bbox": [5, 4, 10, 10], "iscrowd": 0, "id": n} for n in range(2)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "red"}]}
    (voc / "JPEGImages" / "coco.json").write_text(json.dumps(content))
    boxes = open_boxes(voc / "JPEGImages" / "coco.json")
    with pytest.raises(InputError, match=r"coco\.json is COCO's list of boxes.*open_boxes\(file\)"):
        open_data(voc / "JPEGImages" / "coco.json")
    assert [objects["boxes"].tolist() for _, objects in boxes] == [[[5, 4, 15, 14]]] * 2
    (voc / "JPEGImages" / "coco.json").write_text("[]")
    with pytest.raises(FormatError, match="COCO"):
        open_boxes(voc / "JPEGImages" / "coco.json")


@pytest.mark.parametrize(
    ("corners", "text"), [((30, 5, 60, 20), "outside"), ((-9, 5, 8, 20), "outside"), ((20, 9, 19, 12), "no area")]
)
def test_boxes_that_do_not_lie_in_the_picture(corners: Any, text: str, voc: pathlib.Path) -> None:
    (voc / "Annotations" / "1.xml").write_text(XML.format(OBJECT.format("red", *corners)))
    with pytest.raises(InputError, match=rf"1\.png: a box .*{text}"):
        open_boxes(voc)
    if text == "outside":
        clipped = open_boxes(voc, outside="clip")[1][1]["boxes"]
        assert clipped.min() >= 0
        assert clipped[:, 2].max() <= 40


def test_a_graph_is_trained_on_a_folder(folder: pathlib.Path, tmp_path: pathlib.Path, capfd: Any) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Flatten(), torch.nn.Linear(196, 5))
    torch.onnx.export(net, (torch.zeros(1, 3, 16, 16),), str(tmp_path / "net.onnx"), dynamo=False)
    source, out, run = str(tmp_path / "net.onnx"), str(tmp_path / "out.onnx"), str(tmp_path / "run")
    options = ["--epochs", "1", "--batch", "1", "--out", out, "--run", run]
    assert main(["train", source, str(folder), *options]) == 2
    assert "--preprocessing" in capfd.readouterr().err
    preprocessing = tmp_path / "p.json"
    preprocessing.write_text('{"resize": [16, 16], "crop": null}')
    assert main(["train", source, str(folder), *options, "--preprocessing", str(preprocessing)]) == 0
    capfd.readouterr()
    assert main(["eval", out, str(folder), "--batch", "1"]) == 0
    assert "48 samples" in capfd.readouterr().out
    assert main(["eval", out, str(folder), "--preprocessing", '{"size": 3}']) == 2
    assert "--preprocessing is wrong" in capfd.readouterr().err


def test_the_seed_draws_the_first_weights(tmp_path: pathlib.Path) -> None:
    from zoonet import formats

    x, y = shapes(12, size=32)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        where = ["--run", str(tmp_path / name), "--out", str(tmp_path / f"{name}.safetensors"), "--validation", "0"]
        assert (
            main(
                ["train", "resnet20", str(tmp_path / "d.npz"), "--epochs", "1", "--lr", "1e-9", "--seed", seed, *where]
            )
            == 0
        )
    first, second, other = (formats.read(tmp_path / f"{n}.safetensors")["conv1.weight"].load() for n in "abc")
    np.testing.assert_array_equal(first, second)
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 0.01
