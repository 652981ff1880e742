"""Detectors that are saved, as weights or as graphs, find the same again."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from zoonet import zoo
from zoonet.ops.errors import FormatError
from zoonet.zoo.detection.decoders import decoder_config, decoder_from

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (50, 70, 3), np.uint8)
REAL = {
    "yolo-fastest/yolo-fastest-1.1-xl.weights": "darknet",
    "ultra-light-face/version-RFB-320.pth": "ultralight_rfb_320",
    "blazeface/blazeface.pth": "blazeface",
}


def same(first: Any, second: Any) -> None:
    assert first.names == second.names
    assert first.labels.tolist() == second.labels.tolist()
    np.testing.assert_allclose(first.boxes, second.boxes, atol=0.01)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)


@pytest.mark.parametrize("weights", REAL)
def test_real_weights_as_graphs(weights: str, assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    if not (assets / weights).exists():
        pytest.skip(f"{weights} is absent")
    model = zoo.load(assets / weights)
    assert model.architecture == REAL[weights]
    photo = assets / ("photos/dog.jpg" if "yolo" in weights else "photos/grace_hopper.bmp")
    found = model.run(photo)
    assert len(found) >= 1
    model.save(tmp_path / "m.onnx")
    again = zoo.load(tmp_path / "m.onnx")
    assert again.task.name == "object-detection"
    same(again.run(photo), found)
    x = model.preprocessing(found.picture)[None]
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    expected = session.run(None, {session.get_inputs()[0].name: x})
    outputs = model(x)
    for ours, theirs in zip(outputs if isinstance(outputs, tuple) else (outputs,), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * max(1.0, float(np.abs(theirs).max())))


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
@pytest.mark.parametrize("name", ["yolox_nano", "ssdlite320_mobilenet_v3_large", "yolov4-tiny"])
def test_networks(name: str, suffix: str, tmp_path: pathlib.Path) -> None:
    labels = ["nothing", "cat", "dog"]
    model = zoo.create(name, classes=3, labels=labels, seed=1)
    model.task.preprocessing = type(model.preprocessing)(size=(64, 96), channels="BGR")
    path = tmp_path / f"m{suffix}"
    model.save(path)
    again = zoo.load(path)
    assert again.task.preprocessing == model.task.preprocessing
    assert again.labels == tuple(labels)
    same(again.run(PHOTO, conf=0.001, max_det=20), model.run(PHOTO, conf=0.001, max_det=20))


@pytest.mark.parametrize(
    ("weights", "arch"),
    [
        ("yolo-fastest/yolo-fastest-1.1-xl.weights", None),
        ("yolo-fastest/yolo-fastest-1.1-xl.cfg", None),
        ("yolox-nano/yolox_nano.onnx", "yolox_nano"),
    ],
)
def test_conversion(weights: str, arch: str | None, assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What is written runs without its source: structure, labels and preprocessing are in the file."""
    if not (assets / weights).exists():
        pytest.skip(f"{weights} is absent")
    report = zoo.convert(assets / weights, tmp_path / "w.safetensors", arch)
    assert report.agrees
    assert report.architecture == (arch or "darknet")
    photo = assets / "photos" / "dog.jpg"
    same(zoo.load(tmp_path / "w.safetensors").run(photo), zoo.load(assets / weights, arch=arch).run(photo))


def test_yolox_checkpoints_as_published(tmp_path: pathlib.Path) -> None:
    """A .pth holds the state dict under "model", with numbers of the training beside it."""
    state = {n: torch.from_numpy(a.copy()) for n, a in zoo.create("yolox_nano", seed=2).network.state_dict().items()}
    torch.save({"start_epoch": 300, "model": state, "optimizer": {"state": {}}}, tmp_path / "yolox_nano.pth")
    model = zoo.load(tmp_path / "yolox_nano.pth")
    assert (model.architecture, model.labels[16]) == ("yolox_nano", "dog")


def test_decoders_as_data() -> None:
    for name in ("yolov3-tiny", "yolox_s", "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "rtdetr_r18vd", "blazeface"):
        decoder = zoo.create(name, seed=None).task.decoder
        config = json.loads(json.dumps(decoder_config(decoder)))
        assert decoder_from(config, "x") == decoder


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "os.system", "classes": 3},
        {"kind": ["yolox"], "classes": 3},
        {"kind": "yolox"},
        {"kind": "yolox", "classes": -1},
        {"kind": "yolox", "classes": 3, "strides": "8"},
        {"kind": "yolox", "classes": 3, "colour": 1},
        {"kind": "yolox", "classes": 1e999},
        {"kind": "yolox", "classes": {}},
    ],
)
def test_malformed_decoders(config: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FormatError, match="the decoder in x"):
        decoder_from(config, "x")
    zoo.create("yolox_nano", seed=None).save(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    entry = next(e for e in proto.metadata_props if e.key == "zoonet")
    entry.value = json.dumps(json.loads(entry.value) | {"decoder": config})
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(FormatError):
        zoo.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("source", ["yolo-fastest-1.1-xl.cfg", "yolo-fastest-1.1-xl.weights"])
@pytest.mark.parametrize("target", ["y.onnx", "y.safetensors"])
def test_a_darknet_network_is_converted(assets: pathlib.Path, tmp_path: pathlib.Path, source: str, target: str) -> None:
    report = zoo.convert(assets / "yolo-fastest" / source, tmp_path / target)
    assert report.source_format == "darknet"
    assert report.compared == 414
    assert report.relative is not None
    assert report.relative < 1e-5
