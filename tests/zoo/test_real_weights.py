"""Weights and photos that others made: the networks reproduce PyTorch's logits on them and name what is shown."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import zoo

torch = pytest.importorskip("torch")
nn = torch.nn

CIFAR = pathlib.Path("resnet-cifar10", "resnet20-12fca82f.th")
MOBILENET = pathlib.Path("mobilenet025-imagenet", "mobilenetV1X0.25_pretrain.tar")
PHOTOS = ("cat_720p.jpg", "dog.jpg", "hot_dog.jpg", "owl.jpg", "parrot.jpg", "pets.jpg")
MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


# -- oracles: the same networks in PyTorch ---------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.more:  # option A: every second pixel, and channels of zeros on both sides
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return torch.relu(x + y)


class CifarResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            blocks = [Block(inputs if n == 0 else outputs, outputs, 2 if stage > 1 and n == 0 else 1) for n in range(3)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def separable(inputs: int, outputs: int, stride: int) -> Any:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    norms = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
    return nn.Sequential(depthwise, norms[0], nn.LeakyReLU(0.1), pointwise, norms[1], nn.LeakyReLU(0.1))


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        sizes = ((8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
        self.stage1 = nn.Sequential(first, *(separable(*size) for size in sizes))
        self.stage2 = nn.Sequential(separable(64, 128, 2), *(separable(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(separable(128, 256, 2), separable(256, 256, 1))
        self.fc = nn.Linear(256, 1000)

    def forward(self, x: Any) -> Any:
        return self.fc(self.stage3(self.stage2(self.stage1(x))).mean((2, 3)))


def load_into(network: Any, path: pathlib.Path) -> Any:
    state = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()}, strict=True)
    return network.eval()


def normalised(image: Any) -> Any:
    """What torchvision's ToTensor and Normalize make of a PIL image."""
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / STD


def imagenet_input(path: pathlib.Path) -> Any:
    """What torchvision's Resize(256), CenterCrop(224), ToTensor and Normalize make of a photo."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([int(side * scale + 1e-9) for side in image.size], Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    return normalised(image.crop((left, top, left + 224, top + 224)))


def existing(path: pathlib.Path) -> pathlib.Path:
    if not path.exists():
        pytest.skip(f"{path.name} is absent")
    return path


# -- ResNet-20 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [None, "resnet20"])
def test_resnet20_gives_the_logits_of_pytorch_on_photos(assets: pathlib.Path, arch: str | None) -> None:
    path = existing(assets / CIFAR)
    model = zoo.load(path, arch=arch)
    assert model.architecture == "resnet20"
    images = [Image.open(assets / "photos" / name).convert("RGB").resize((32, 32)) for name in PHOTOS]
    x = torch.stack([normalised(image) for image in images])
    with torch.no_grad():
        expected = load_into(CifarResNet(), path)(x).numpy()
    np.testing.assert_allclose(model(x.numpy()), expected, rtol=1e-4, atol=1e-4)
    for image, logits in zip(images, expected, strict=True):  # pictures of 32×32 need no resizing
        result = model.run(image)
        np.testing.assert_allclose(result.scores, torch.softmax(torch.tensor(logits), 0).numpy(), atol=1e-5)


@pytest.mark.parametrize(("photo", "label"), [("cat_720p.jpg", "cat"), ("owl.jpg", "bird"), ("parrot.jpg", "bird")])
def test_resnet20_names_the_animals(assets: pathlib.Path, photo: str, label: str) -> None:
    assert zoo.load(existing(assets / CIFAR)).run(assets / "photos" / photo).label == label


# -- MobileNet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [None, "mobilenetv1_025"])
def test_mobilenet_gives_the_logits_of_pytorch_on_photos(assets: pathlib.Path, arch: str | None) -> None:
    path = existing(assets / MOBILENET)
    model = zoo.load(path, arch=arch)
    x = torch.stack([imagenet_input(assets / "photos" / name) for name in PHOTOS])
    with torch.no_grad():
        expected = load_into(MobileNet(), path)(x)
    np.testing.assert_allclose(model(x.numpy()), expected.numpy(), rtol=1e-4, atol=1e-4)
    results = model.run([assets / "photos" / name for name in PHOTOS], batch=4)
    scores = np.stack([result.scores for result in results])
    np.testing.assert_allclose(scores, torch.softmax(expected, 1).numpy(), atol=2e-3)  # the resizing included


def test_mobilenet_names_the_animals(assets: pathlib.Path) -> None:
    """Labels in the order of the list beside the photos, whose first line is a background that the network lacks."""
    model = zoo.load(existing(assets / MOBILENET))
    lines = (assets / "photos" / "imagenet_labels.txt").read_text().splitlines()[1:]
    assert len(model.labels) == len(lines) == 1000
    tops = {name: {p.label for p in model.run(assets / "photos" / name).top(5)} for name in PHOTOS}
    assert tops["cat_720p.jpg"] >= {"Egyptian cat", "tiger cat", "tabby"}
    assert "macaw" in tops["parrot.jpg"]
    assert "hotdog" in tops["hot_dog.jpg"]
    assert tops["dog.jpg"] & {"malamute", "Siberian husky", "Eskimo dog", "dogsled"}
    assert tops["pets.jpg"] & {"American Staffordshire terrier", "Staffordshire bullterrier", "whippet"}
    assert tops["owl.jpg"] & {"great grey owl", "ruffed grouse", "partridge"}  # as PyTorch says: a bird, at width 0.25


# -- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_runs_them(assets: pathlib.Path) -> None:
    weights = existing(assets / CIFAR)
    command = [sys.executable, "-m", "zoonet.zoo.cli", "run", str(weights), str(assets / "photos" / "cat_720p.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[-1] == "cat"
