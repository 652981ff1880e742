"""YOLOX: the module, the exported graph and ONNX Runtime agree; the parameter names of the original."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from zoonet import ops, zoo
from zoonet.ops.errors import StateDictError
from zoonet.zoo.cli import main
from zoonet.zoo.detectors.yolox import YOLOX, YOLOXConfig
from zoonet.zoo.modules import value_and_grad

NANO = pathlib.Path("yolox-nano", "yolox_nano.onnx")


@pytest.fixture(scope="module")
def path(assets: pathlib.Path) -> pathlib.Path:
    if not (assets / NANO).exists():
        pytest.skip("yolox_nano.onnx is absent")
    return assets / NANO


# -- real weights ------------------------------------------------------------------------------------------------------


def test_module_graph_and_onnx_runtime_agree(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    x = (np.random.default_rng(0).random((1, 3, 416, 416)) * 255).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(path)).run(None, {"images": x})[0]
    graph, module = zoo.load(path), zoo.load(path, arch="yolox_nano")
    assert (graph.task.name, module.task.name) == ("object-detection", "object-detection")
    np.testing.assert_allclose(graph(x), expected, atol=1e-4)
    np.testing.assert_allclose(module(x), expected, atol=1e-4)
    module.save(tmp_path / "nano.safetensors")
    again = zoo.load(tmp_path / "nano.safetensors")
    assert again.architecture == "yolox_nano"
    np.testing.assert_array_equal(again(x), module(x))
    np.testing.assert_array_equal(again.run(x[0].astype(np.uint8)).boxes, module.run(x[0].astype(np.uint8)).boxes)


def test_the_wrong_size_is_named(path: pathlib.Path) -> None:
    with pytest.raises(StateDictError, match=r"convolutions of yolox_nano\.onnx are not those of YOLOX"):
        zoo.load(path, arch="yolox_tiny")


def test_dog(path: pathlib.Path, assets: pathlib.Path, tmp_path: pathlib.Path, capfd: Any) -> None:
    """Boxes as one sees them in the picture, by hand."""
    photo = assets / "photos" / "dog.jpg"
    found = zoo.load(path).run(photo, conf=0.5)
    visible = {"dog": (128, 222, 314, 541), "bicycle": (119, 121, 568, 434), "car": (469, 76, 692, 167)}
    assert sorted(d.name for d in found) == sorted(visible)
    for each in found:
        iou = ops.box_iou(np.array([each.box], np.float32), np.array([visible[each.name]], np.float32))
        assert iou.item() > 0.7
        assert each.score > 0.5
    out = tmp_path / "out.png"
    assert main(["run", str(path), str(photo), "--conf", "0.5", "--save", str(out)]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 4
    assert out.read_bytes()[:4] == b"\x89PNG"


# -- the original's structure, in PyTorch ------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Any) -> Any:
        return nn.functional.silu(self.bn(self.conv(x)))


class Cross(nn.Module):
    """CSPLayer of arXiv:2107.08430's code: two 1×1 branches, bottlenecks on the first."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2, self.conv3 = Block(inputs, half, 1), Block(inputs, half, 1), Block(2 * half, outputs, 1)
        self.m = nn.Sequential(
            *(nn.ModuleDict({"conv1": Block(half, half, 1), "conv2": Block(half, half, 3)}) for _ in range(count))
        )
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        y = self.conv1(x)
        for block in self.m:
            z = block["conv2"](block["conv1"](y))
            y = y + z if self.shortcut else z
        return self.conv3(torch.cat((y, self.conv2(x)), 1))


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_stage_has_the_outputs_and_gradients_of_torch(shortcut: bool) -> None:
    from zoonet.zoo.detectors.yolox import CSPLayer

    torch.manual_seed(0)
    theirs = Cross(8, 12, 2, shortcut).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    ours = CSPLayer(YOLOXConfig(), 8, 12, 2, shortcut)
    ours.load_state_dict({n: p.detach().numpy() for n, p in theirs.state_dict().items()})
    x = torch.randn(2, 8, 6, 5)
    expected = theirs(x)
    (expected**2).sum().backward()
    value, gradients, _ = value_and_grad(ours, lambda a: ops.sum(ops.square(ours(a))))(x.numpy())
    np.testing.assert_allclose(value, (expected**2).sum().item(), rtol=1e-4)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("yolox_nano", 0.91),
        ("yolox_tiny", 5.06),
        ("yolox_s", 8.97),
        ("yolox_m", 25.3),
        ("yolox_l", 54.2),
        ("yolox_x", 99.1),
    ],
)
def test_sizes_as_published(name: str, millions: float) -> None:
    """The table in the README of Megvii-BaseDetection/YOLOX."""
    from zoonet.zoo import architectures

    assert architectures.parameters(name) / 1e6 == pytest.approx(millions, rel=0.006)


def test_names_of_checkpoints() -> None:
    """Names as in the .pth files, among them those that the ONNX export keeps."""
    names = set(YOLOX(YOLOXConfig(0.33, 0.25, depthwise=True)).state_dict())
    assert names > {
        "backbone.backbone.stem.conv.conv.weight",
        "backbone.backbone.dark2.0.dconv.bn.running_mean",
        "backbone.backbone.dark3.1.m.2.conv2.pconv.conv.weight",
        "backbone.backbone.dark5.1.conv2.bn.weight",
        "backbone.lateral_conv0.conv.weight",
        "backbone.C3_n4.conv3.bn.bias",
        "head.cls_convs.2.1.dconv.conv.weight",
        "head.obj_preds.0.bias",
        "head.stems.1.bn.num_batches_tracked",
    }
    model = zoo.create("yolox_nano", classes=3, labels=["a", "b", "c"], seed=1)
    found = model.run(np.zeros((30, 40, 3), np.uint8), conf=0.0, max_det=5)
    assert set(found.labels.tolist()) <= {0, 1, 2}
    assert found.names == ("a", "b", "c")
