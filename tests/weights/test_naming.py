"""Names of one library made those of another: the other library loads the file and gives the same outputs."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch
from resnet_parity import relative

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.zoo.cli import main

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

X = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)


def networks(case: str) -> tuple[torch.nn.Module, torch.nn.Module, str, Any]:
    """A network of one library, the same of another without its weights, the other's name, what gives its scores."""
    import timm
    import torchvision
    import transformers

    if case == "resnet":
        config = transformers.ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic")
        config.num_labels = 5
        other = transformers.ResNetForImageClassification(config)
        return torchvision.models.resnet18(num_classes=5), other, "hugging-face", lambda x: other(x).logits
    if case == "mobilenet_v2":
        other = timm.create_model("mobilenetv2_100", num_classes=5)
        return torchvision.models.mobilenet_v2(num_classes=5), other, "timm", other
    size = {"image_size": 64, "patch_size": 16, "num_labels": 5}
    if case == "vit":
        options = {"img_size": 64, "num_classes": 5}
        first = timm.create_model("deit_tiny_patch16_224", **options)
        sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "layer_norm_eps": 1e-6}
        other = transformers.ViTForImageClassification(transformers.ViTConfig(**size, **sizes))
        return first, other, "hugging-face", lambda x: other(x).logits
    first = timm.create_model("vit_base_patch16_224", img_size=64, num_classes=5)
    other = torchvision.models.VisionTransformer(64, 16, 12, 12, 768, 3072, num_classes=5)
    return first, other, "torchvision", other


@pytest.mark.parametrize("case", ["resnet", "mobilenet_v2", "vit", pytest.param("vit_base", marks=pytest.mark.slow)])
def test_another_library_loads_them(case: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    first, other, vocabulary, run = networks(case)
    for module in first.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(first.state_dict(), tmp_path / "a.pth")
    arch = {"vit": "deit_tiny_patch16_224", "vit_base": "vit_base_patch16_224"}.get(case)
    report = zoo.convert(tmp_path / "a.pth", tmp_path / "b.pth", arch, names=vocabulary, verify=arch is None)
    assert report.agrees
    assert not report.lost
    if arch is None:  # the library that the weights are of is installed, and was asked
        assert report.originals.keys() == {"torchvision"}
        assert report.originals["torchvision"] <= 1e-5
    if case == "vit":  # transformers has other names in memory than in files
        zoo.convert(tmp_path / "a.pth", tmp_path / "model.safetensors", arch, names=vocabulary, verify=False)
        other.config.save_pretrained(tmp_path)
        found = type(other).from_pretrained(tmp_path).state_dict()
        torch.save(found, tmp_path / "b.pth")
        other.load_state_dict(found)
    else:
        other.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True))
    other.eval()
    first.eval()
    if case == "vit":  # and those are read too
        model = zoo.load(tmp_path / "b.pth", arch)
        assert relative(model.network(X), first(torch.from_numpy(X)).detach().numpy()) <= 1e-5
    assert relative(run(torch.from_numpy(X)).detach().numpy(), first(torch.from_numpy(X)).detach().numpy()) <= 1e-5
    if arch is None:
        back = {"resnet": "torchvision", "mobilenet_v2": "torchvision"}[case]
        zoo.convert(tmp_path / "b.pth", tmp_path / "c.pth", names=back)
        again = torch.load(tmp_path / "c.pth", weights_only=True)
        assert set(again) == set(first.state_dict())
        assert all(torch.equal(again[name], tensor) for name, tensor in first.state_dict().items())


def test_networks_that_a_library_has_not(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torchvision

    torch.save(torchvision.models.mobilenet_v3_small(num_classes=5).state_dict(), tmp_path / "a.pth")
    with pytest.raises(UnsupportedFormatError, match="timm has no network of which mobilenet_v3_small has the arrays"):
        zoo.convert(tmp_path / "a.pth", tmp_path / "b.pth", names="timm")
    with pytest.raises(ArgumentError, match="no such vocabulary"):
        zoo.convert(tmp_path / "a.pth", tmp_path / "b.pth", names="nobody")
    with pytest.raises(ArgumentError, match="files that keep them"):
        zoo.convert(tmp_path / "a.pth", tmp_path / "b.keras", names="keras")
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(UnsupportedFormatError, match="where its network is known"):
        zoo.convert(tmp_path / "x.pth", tmp_path / "b.pth", names="timm")
    assert main(["convert", str(tmp_path / "a.pth"), str(tmp_path / "c.npz"), "--names", "torchvision"]) == 0
    assert "outputs agree" in capfd.readouterr().out
    assert not (tmp_path / "b.pth").exists()
