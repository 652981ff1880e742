"""SSDLite, RetinaNet and FCOS: outputs, gradients, anchors and detections of torchvision for its random weights."""

from __future__ import annotations

import importlib
import pathlib
import re
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import ops, zoo
from zoonet.zoo import architectures
from zoonet.zoo.detection.candidates import Selection, select
from zoonet.zoo.modules import value_and_grad

RNG = np.random.default_rng(0)
SLOW = pytest.mark.slow
NAMES = (
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    pytest.param("retinanet_resnet50_fpn", marks=SLOW),
    pytest.param("retinanet_resnet50_fpn_v2", marks=SLOW),
)


@pytest.fixture(scope="module")
def detection() -> Any:
    resnet_parity.torchvision_and_timm()
    return importlib.import_module("torchvision.models.detection")


def theirs(detection: Any, name: str) -> Any:
    torch.manual_seed(0)
    network = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=7)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training, with scores that are not all alike
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    for head in ("cls_logits", "bbox_reg", "bbox_ctrness"):
        for branch in (network.head.classification_head, network.head.regression_head):
            if hasattr(branch, head):
                torch.nn.init.normal_(getattr(branch, head).weight, 0, 0.05)
                torch.nn.init.normal_(getattr(branch, head).bias, 0, 0.5)
    return network.eval()


def ours(network: Any, name: str) -> Any:
    state = {n: p.detach().numpy() for n, p in network.state_dict().items()}
    result = architectures.fitted(name, state)
    result.load_state_dict(state)
    return result


@pytest.mark.parametrize("name", NAMES)
def test_outputs_anchors_and_detections(name: str, detection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = theirs(detection, name)
    network = ours(original, name)
    size = (320, 320) if "ssd" in name else (96, 160)
    x = torch.rand(1, 3, *size) * 2 - 1
    caught: dict[str, Any] = {}
    original.head.register_forward_hook(lambda _m, _i, out: caught.update(out))
    generator = original.anchor_generator
    generator.register_forward_hook(lambda _m, _i, out: caught.update(anchors=out))
    module = importlib.import_module(type(original).__module__)

    def batched_nms(boxes: Any, scores: Any, labels: Any, threshold: float) -> Any:
        """The one of torchvision needs its compiled operators; that of zoonet is tested against it elsewhere."""
        return torch.from_numpy(ops.batched_nms(boxes.numpy(), scores.numpy(), labels.numpy(), threshold))

    monkeypatch.setattr(module.box_ops, "batched_nms", batched_nms)
    original.transform.forward = lambda images, targets=None: (
        importlib.import_module("torchvision.models.detection.image_list").ImageList(x, [size]), targets
    )  # fmt: skip
    original.transform.postprocess = lambda result, sizes, originals: result
    with torch.no_grad():
        wanted = original([x[0]])[0]
    proper = (wanted["boxes"][:, 2:] > wanted["boxes"][:, :2]).all(1)  # torchvision keeps boxes without area
    wanted = {key: value[proper] for key, value in wanted.items()}
    outputs = network(x.numpy())
    for value, key in zip(outputs, ("cls_logits", "bbox_regression", "bbox_ctrness"), strict=False):
        expected = caught[key].numpy()
        assert resnet_parity.relative(value, expected) <= 1e-4, key
    _anchors(name, size, caught["anchors"][0].numpy())
    found = network.decoder(outputs, size)[0]
    most = min(len(wanted["scores"]), 20)
    conf = float(wanted["scores"][most - 1]) if most else 1.0
    chosen = select(found, Selection(conf=max(conf - 1e-5, 0), iou=network.thresholds[1]), "")
    assert most >= 5
    np.testing.assert_allclose(chosen.scores[:most], wanted["scores"][:most].numpy(), atol=1e-4)
    for k in range(most):  # scores may be equal but for rounding
        same = np.abs(chosen.scores - float(wanted["scores"][k])) < 1e-4
        same &= chosen.labels == int(wanted["labels"][k])
        near = np.abs(chosen.boxes[same] - wanted["boxes"][k].numpy()).max(1)
        assert near.min() < 0.05


@SLOW
def test_frozen_norms_of_published_weights(detection: Any, tmp_path: pathlib.Path) -> None:
    """torchvision loads RetinaNet's first weights into frozen batch norms, and sets their eps to 0."""
    utils = importlib.import_module("torchvision.models.detection._utils")
    misc = importlib.import_module("torchvision.ops.misc")
    extract = importlib.import_module("torchvision.models.detection.backbone_utils")._resnet_fpn_extractor
    blocks = importlib.import_module("torchvision.ops.feature_pyramid_network").LastLevelP6P7(256, 256)
    body = importlib.import_module("torchvision.models").resnet50(norm_layer=misc.FrozenBatchNorm2d)
    original = detection.RetinaNet(extract(body, 3, returned_layers=[2, 3, 4], extra_blocks=blocks), 5)
    utils.overwrite_eps(original, 0.0)
    torch.nn.init.uniform_(body.bn1.running_var, 1e-5, 1e-4)  # so that an eps of 1e-5 would show
    torch.save(original.state_dict(), tmp_path / "w.pth")
    model = zoo.load(tmp_path / "w.pth")
    assert (model.architecture, model.network.config.eps) == ("retinanet_resnet50_fpn", 0.0)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = original.eval().head(list(original.backbone(x).values()))
    scale = float(expected["cls_logits"].abs().max())
    np.testing.assert_allclose(model(x.numpy())[0], expected["cls_logits"].numpy(), atol=2e-4 * scale)


def _anchors(name: str, size: tuple[int, int], expected: Any) -> None:
    from zoonet.zoo.detectors import fcos, pyramid, retinanet, ssdlite

    if "ssd" in name:
        anchors = ssdlite.anchors_of(size)
    elif "fcos" in name:
        anchors = pyramid.anchors_of(size, fcos._SIDES, (1.0,))
    else:
        anchors = pyramid.anchors_of(size, retinanet._SIDES, retinanet._RATIOS)
    np.testing.assert_allclose(anchors, expected, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str, detection: Any) -> None:
    """Of a sum over the head's outputs, by the head's parameters and some of the body's."""
    original = theirs(detection, name)
    network = ours(original, name)
    x = torch.rand(1, 3, 64, 64)
    maps = list(original.backbone(x).values())
    outputs = original.head(maps)
    keys = [key for key in ("cls_logits", "bbox_regression", "bbox_ctrness") if key in outputs]
    noise = {key: torch.randn(outputs[key].shape) for key in keys}
    sum((outputs[key] * noise[key]).sum() for key in keys).backward()

    def loss(pixels: Any) -> Any:
        pairs = zip(network(pixels), keys, strict=True)
        return sum(ops.sum(value * noise[key].numpy()) for value, key in pairs)

    chosen = [n for n, p in original.named_parameters() if p.grad is not None][:: 9 if "ssd" in name else 5]
    _, gradients, _ = value_and_grad(network, loss, trainable=lambda n: n in chosen)(x.numpy())
    parameters = dict(original.named_parameters())
    largest = max(float(parameters[n].grad.abs().max()) for n in chosen)
    for n in chosen:
        expected = parameters[n].grad.numpy()
        scale = max(float(np.abs(expected).max()), 1e-3 * largest)
        assert float(np.abs(gradients[n] - expected).max()) / scale <= 2e-3, n


@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", pytest.param("retinanet_resnet50_fpn", marks=SLOW)])
def test_they_run_on_pictures(name: str) -> None:
    model = zoo.create(name, classes=3, labels=["nothing", "cat", "dog"], seed=0)
    model.task.preprocessing = type(model.preprocessing)(size=(64, 96))
    found = model.run(np.zeros((30, 50, 3), np.uint8), conf=0.0, max_det=5)
    assert found.size == (50, 30)
    assert found.names == ("nothing", "cat", "dog")


def test_resizing_of_torchvision() -> None:
    """GeneralizedRCNNTransform: 800 for the shorter side, at most 1333, sides padded to multiples of 32."""
    from PIL import Image

    from zoonet.zoo.detectors.pyramid import PREPROCESSING

    pixels = RNG.integers(0, 256, (48, 100, 3), np.uint8)
    array, place = PREPROCESSING.placed(Image.fromarray(pixels))
    assert array.shape == (3, 640, 1344)
    assert (place.scale_x, place.scale_y) == (13.33, 639 / 48)
    assert np.abs(array[:, 639:]).max() < 1e-5
    assert np.abs(array[:, :, 1333:]).max() < 1e-5


def old(name: str) -> str:
    """The names of torchvision before 0.13, as `_load_from_state_dict` of the pyramid and the heads maps them."""
    name = re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", name)
    return re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", name)


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fcos_resnet50_fpn"])
def test_old_names(name: str, tmp_path: pathlib.Path) -> None:
    state = architectures.build(name, classes=3).state_dict()
    rename = old if "retina" in name else lambda n: re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", n)
    np.savez(tmp_path / "w.npz", **{rename(n): a for n, a in state.items()})
    model = zoo.load(tmp_path / "w.npz")
    assert (model.architecture, len(model.labels)) == (name, 3)
