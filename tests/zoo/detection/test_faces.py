"""Detectors of faces: the two files of one network agree, and faces are found; BlazeFace against PyTorch."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from zoonet import ops, zoo
from zoonet.zoo.detection.candidates import Candidates, Selection, select
from zoonet.zoo.detectors.blazeface import anchors_of
from zoonet.zoo.modules import value_and_grad

F = torch.nn.functional


def existing(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        pytest.skip(f"{path.name} is absent")
    return path


def test_ultra_light_files_agree(assets: pathlib.Path) -> None:
    folder = assets / "ultra-light-face"
    path = existing(folder / "version-RFB-320.onnx")
    x = np.random.default_rng(0).standard_normal((1, 3, 240, 320)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    expected = onnxruntime.InferenceSession(str(path), options).run(None, {"input": x})
    graph, module = zoo.load(path), zoo.load(folder / "version-RFB-320.pth")
    assert (module.architecture, module.labels, graph.labels) == ("ultralight_rfb_320", ("face",), ("face",))
    for ours in (graph(x), module(x), zoo.load(path, arch="ultralight_rfb_320")(x)):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    photo = existing(assets / "photos" / "grace_hopper.bmp")
    one, other = graph.run(photo), module.run(photo)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)


@pytest.mark.parametrize(
    ("weights", "photo", "faces"),
    [
        ("ultra-light-face/version-RFB-320.pth", "blazeface/1face.png", 1),
        ("ultra-light-face/version-RFB-320.onnx", "blazeface/3faces.png", 3),
        ("ultra-light-face/version-RFB-320.pth", "blazeface/4faces.png", 4),
        ("ultra-light-face/version-RFB-320.pth", "photos/grace_hopper.bmp", 1),
        ("blazeface/blazeface.pth", "blazeface/1face.png", 1),
        ("blazeface/blazeface.pth", "blazeface/3faces.png", 3),
        ("blazeface/blazeface.pth", "blazeface/4faces.png", 0),  # as the notebook of its author prints
        ("blazeface/blazeface.pth", "photos/grace_hopper.bmp", 1),
    ],
)
def test_faces_are_found(weights: str, photo: str, faces: int, assets: pathlib.Path) -> None:
    found = zoo.load(existing(assets / weights)).run(existing(assets / photo))
    assert [d.name for d in found] == ["face"] * faces
    if photo.endswith("hopper.bmp"):
        x1, y1, x2, y2 = found.boxes[0]
        assert x1 < 250 < x2  # between the eyes
        assert y1 < 200 < y2
    if "blazeface.pth" in weights and faces:
        assert found.keypoints.shape == (faces, 6, 2)
        face = found.keypoints[:, :4]
        inside = (face > found.boxes[:, None, :2]) & (face < found.boxes[:, None, 2:])
        assert inside.all()  # eyes, nose and mouth
        assert len(found.to_dict()["detections"][0]["keypoints"]) == 6
        assert found.plot().size == found.size


def blaze(state: dict[str, Any], x: Any) -> tuple[Any, Any]:
    """The network of arXiv:1907.05047 as hollance/BlazeFace-PyTorch wires it, written out with its parameters."""

    def conv(name: str, y: Any, **options: Any) -> Any:
        return F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def block(name: str, y: Any, stride: int) -> Any:
        inputs, outputs = state[f"{name}.convs.0.weight"].shape[0], state[f"{name}.convs.1.weight"].shape[0]
        z = F.pad(y, (0, 2, 0, 2)) if stride == 2 else y
        z = conv(f"{name}.convs.0", z, stride=stride, padding=0 if stride == 2 else 1, groups=inputs)
        y = F.max_pool2d(y, 2) if stride == 2 else y
        return F.relu(conv(f"{name}.convs.1", z) + F.pad(y, (0, 0, 0, 0, 0, outputs - inputs)))

    x = F.relu(conv("backbone1.0", F.pad(x, (1, 2, 1, 2)), stride=2))
    for k in range(2, 13):
        x = block(f"backbone1.{k}", x, 2 if k in (4, 7) else 1)
    y = x
    for k in range(5):
        y = block(f"backbone2.{k}", y, 2 if k == 0 else 1)
    heads = [
        torch.cat([conv(f"{name}_{s}", m).permute(0, 2, 3, 1).reshape(len(x), -1, n) for s, m in ((8, x), (16, y))], 1)
        for name, n in (("regressor", 16), ("classifier", 1))
    ]
    return heads[0], heads[1]


def test_blazeface_has_the_outputs_of_torch(assets: pathlib.Path) -> None:
    path = existing(assets / "blazeface" / "blazeface.pth")
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    expected = blaze(torch.load(path), x)
    for ours, theirs in zip(zoo.load(path)(x.numpy()), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    np.testing.assert_allclose(anchors_of(), np.load(assets / "blazeface" / "anchors.npy"), atol=1e-7)


def test_weighted_suppression_by_hand() -> None:
    """Boxes of weights 3/4 and 1/4 become one of a mean score; one elsewhere, and one of another class, stay."""
    boxes = np.array([[0, 0, 8, 8], [2, 0, 10, 8], [20, 20, 30, 30], [0, 0, 8, 8]], np.float32)
    points = boxes.reshape(4, 2, 2) + 1
    scores, labels = np.array([0.75, 0.25, 0.6, 0.3], np.float32), np.array([0, 0, 0, 1])
    candidates = Candidates(boxes, scores, labels, keypoints=points)
    found = select(candidates, Selection(conf=0.2, iou=0.3, suppression="weighted"), "")
    np.testing.assert_allclose(found.boxes, [[20, 20, 30, 30], [0.5, 0, 8.5, 8], [0, 0, 8, 8]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.6, 0.5, 0.3], rtol=1e-6)
    assert found.labels.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.keypoints[1], [[1.5, 1], [9.5, 9]], rtol=1e-6)
    merged = select(candidates, Selection(conf=0.2, iou=0.3, suppression="weighted", agnostic=True), "")
    assert merged.scores.tolist() == pytest.approx([0.6, 1.3 / 3])


def test_blazeface_blends_and_says_so_in_its_files(tmp_path: pathlib.Path) -> None:
    model = zoo.create("blazeface", seed=0)
    assert model.task.suppression == "weighted"
    model.save(tmp_path / "face.onnx")
    assert zoo.load(tmp_path / "face.onnx").task.suppression == "weighted"
    assert zoo.create("yolox_nano", seed=None).task.suppression == "hard"


def test_gradients_of_blazeface_are_those_of_torch() -> None:
    network = zoo.create("blazeface", seed=0).network.to(dtype=np.float64)
    state = {name: torch.tensor(p, requires_grad=True) for name, p in network.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 128, 128, generator=generator, dtype=torch.float64) * 2 - 1
    outputs = blaze(state, x)
    noise = [torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in outputs]
    sum((y * n).sum() for y, n in zip(outputs, noise, strict=True)).backward()

    def loss(pixels: Any) -> Any:
        boxes, scores = network(pixels)
        return ops.sum(boxes * noise[0].numpy()) + ops.sum(scores * noise[1].numpy())

    _, gradients, _ = value_and_grad(network, loss)(x.numpy())
    assert set(gradients) == set(state)
    for name, parameter in state.items():
        expected = parameter.grad.numpy()
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-9 * float(np.abs(expected).max()))


def test_gradients_of_ultra_light() -> None:
    """By differences along a random direction of all parameters, in float64."""
    rng = np.random.default_rng(0)
    network = zoo.create("ultralight_rfb_320", seed=0).network.to(dtype=np.float64)
    drawn = {name: p + rng.uniform(0.01, 0.05, p.shape) for name, p in network.named_parameters()}
    network.load_state_dict(drawn, strict=False)  # biases of 0 would leave numbers at the corner of a ReLU
    x = rng.uniform(-1, 1, (1, 3, 64, 96))
    noise = [rng.standard_normal(y.shape) for y in network(x)]

    def loss(pixels: Any) -> Any:
        scores, boxes = network(pixels)
        return ops.sum(scores * noise[0]) + ops.sum(boxes * noise[1])

    _, gradients, _ = value_and_grad(network, loss)(x)
    before = {name: p.copy() for name, p in network.named_parameters()}
    steps = {name: rng.standard_normal(p.shape) * (np.abs(p).mean() + 1e-3) for name, p in before.items()}
    assert set(gradients) == set(before)

    def moved(size: float) -> float:
        network.load_state_dict({n: before[n] + size * d for n, d in steps.items()}, strict=False)
        return float(loss(x))

    numeric = (moved(1e-7) - moved(-1e-7)) / 2e-7
    assert sum(float((g * steps[n]).sum()) for n, g in gradients.items()) == pytest.approx(numeric, rel=1e-4)
