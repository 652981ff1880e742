"""Every ResNet of the zoo against the network it stands for: torchvision, timm, keras.applications, or the paper's own.

    python tests/resnet_parity.py [PATTERN]

prints a Markdown table: parameters, and the largest relative error of outputs and of parameter gradients.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch
from torch.nn import functional

from zoonet import ops
from zoonet.zoo import architectures
from zoonet.zoo.modules import Module, functional_call, value_and_grad

State = dict[str, np.ndarray[Any, Any]]


def torchvision_and_timm() -> None:
    """Make both importable beside a CPU build of torch. Raises ImportError where one is absent."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared" / "oracles.py"
    if "torchvision" not in sys.modules and path.exists():
        sys.path.append(str(path.parent))
        importlib.import_module("oracles")
    importlib.import_module("torchvision")
    importlib.import_module("timm")


class CifarBlock(torch.nn.Module):
    """Section 4.2 of arXiv:1512.03385, shortcut of option A, as akamaster/pytorch_resnet_cifar10 names its parts."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.changes, self.margin = stride != 1, width // 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.changes:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.margin, self.margin))
        return torch.relu(y + x)


class CifarResNet(torch.nn.Module):
    """ResNet of 6n + 2 layers for 32×32 pictures."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False), torch.nn.BatchNorm2d(16)
        inputs = 16
        for stage, width in enumerate((16, 32, 64), start=1):
            strides = [1 if stage == 1 else 2, *[1] * (count - 1)]
            blocks = [CifarBlock(inputs if i == 0 else width, width, s) for i, s in enumerate(strides)]
            setattr(self, f"layer{stage}", torch.nn.Sequential(*blocks))
            inputs = width
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


@dataclass
class Oracle:
    """A network made by others.

    tensors: its parameters and statistics by our names and in our layout, sharing its memory. gradients: those of the
    last backward pass, alike. run: (N, 3, H, W) to scores, in training mode or not. momentum: sets how much of its
    old statistics a batch norm keeps.
    """

    source: str
    network: Any
    tensors: dict[str, torch.Tensor]
    gradients: Callable[[], State]
    run: Callable[[torch.Tensor, bool], torch.Tensor]
    momentum: Callable[[float], None]

    def state(self) -> State:
        """A copy of the tensors."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.tensors.items()}


def torch_oracle(source: str, network: torch.nn.Module) -> Oracle:
    def momentum(kept: float) -> None:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1 - kept

    return Oracle(
        source,
        network,
        dict(network.state_dict()),
        lambda: {n: p.grad.numpy().copy() for n, p in network.named_parameters() if p.grad is not None},
        lambda x, training: network.train(training)(x),
        momentum,
    )


KERAS_PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
KERAS_PARTS |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def keras_name(layer: str, part: str) -> str:
    """conv3_block2_1_conv/kernel -> layer2.1.conv1.weight; part 0 of a block is the projection."""
    if layer == "predictions":
        return f"fc.{KERAS_PARTS[part]}"
    if not (found := re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", layer)):
        return f"{layer.replace('conv1_', '').replace('conv', 'conv1').replace('bn', 'bn1')}.{KERAS_PARTS[part]}"
    stage, block, number, kind = found.groups()
    place = f"downsample.{'01'[kind == 'bn']}" if number == "0" else f"{kind}{number}"
    return f"layer{int(stage) - 1}.{int(block) - 1}.{place}.{KERAS_PARTS[part]}"


def keras_oracle(name: str, size: int) -> Oracle:
    import keras

    network = {
        "resnet50_keras": keras.applications.ResNet50,
        "resnet101_keras": keras.applications.ResNet101,
        "resnet152_keras": keras.applications.ResNet152,
    }[name](weights=None, input_shape=(size, size, 3), classifier_activation=None)
    variables = {keras_name(layer.name, v.name): v.value for layer in network.layers for v in layer.weights}

    def momentum(kept: float) -> None:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = kept

    return Oracle(
        "keras.applications",
        network,
        {name: our_layout(value.data) for name, value in variables.items()},
        lambda: {n: our_layout(v.grad).numpy() for n, v in variables.items() if v.grad is not None},
        lambda x, training: network(x.permute(0, 2, 3, 1), training=training),
        momentum,
    )


def our_layout(tensor: torch.Tensor) -> torch.Tensor:
    """(H, W, in, out) -> (out, in, H, W), and (in, out) -> (out, in)."""
    return tensor.permute(*range(tensor.ndim - 1, -1, -1)[:2], *range(tensor.ndim - 2)) if tensor.ndim > 1 else tensor


def oracle(name: str, size: int) -> Oracle:
    """The network that a name of the zoo stands for, with random weights."""
    if name.endswith("_keras"):
        return keras_oracle(name, size)
    if name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"):
        return torch_oracle("arXiv:1512.03385", CifarResNet(int(name[6:])))
    torchvision_and_timm()
    import timm
    import torchvision

    if hasattr(torchvision.models, name):
        return torch_oracle("torchvision", getattr(torchvision.models, name)(weights=None))
    return torch_oracle("timm", timm.create_model(name, pretrained=False))


def condition(network: Oracle, x: torch.Tensor, seed: int = 0) -> None:
    """Draw weights so that outputs depend on all of them, and rounding seldom moves a value across the kink of a ReLU.

    Batch norms get the statistics of x, and shifts of five to seven deviations, seven to ten in large pictures, whose
    more numerous values reach further: to either side within a block, and up at its end, where sums could be near 0
    otherwise.
    """
    shift = 3.5 if x.shape[-1] <= 64 else 5.0
    generator = torch.Generator().manual_seed(seed)
    last = "bn3" if any(".bn3." in name for name in network.tensors) else "bn2"
    for name, tensor in network.tensors.items():
        if tensor.ndim > 1:
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim == 4:  # a filter does not see what all its inputs share
                drawn -= drawn.mean(tuple(range(1, tensor.ndim)), keepdim=True)
            tensor.copy_(drawn * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(0.5 + 0.2 * drawn)
        elif name.endswith("bias"):
            side = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
            ends_block = f".{last}." in name or ".downsample." in name
            tensor.copy_(shift * (1 if ends_block else side))
    network.momentum(0.0)
    with torch.no_grad():
        network.run(x, True)
        for name, mean in network.tensors.items():
            if name.endswith("running_mean"):  # with the exact mean, gradients of scales would vanish
                deviation = network.tensors[name.replace("mean", "var")].sqrt()
                mean += 0.5 * deviation * torch.randn(mean.shape, generator=generator)
    network.momentum(0.9)


def relative(actual: Any, expected: Any) -> float:
    """The largest difference over the largest expected magnitude."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))


@dataclass(frozen=True)
class Parity:
    """Largest relative errors of outputs and of parameter gradients; a gradient's is over its tensor's largest."""

    source: str
    parameters: int
    outputs: float
    gradients: float


def pair(name: str, size: int, batch: int, seed: int = 1) -> tuple[Oracle, Module, State]:
    """The oracle, conditioned; our network with the same weights, loaded by the same names; pictures of a seed."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 3, size, size), np.float32)
    theirs = oracle(name, size)
    condition(theirs, torch.from_numpy(x))
    ours = architectures.build(name)
    ours.load_state_dict(theirs.state())
    return theirs, ours, x


def compare(name: str, size: int = 64, batch: int = 2, seed: int = 1, double: bool = False) -> Parity:
    """Outputs and gradients of sum(outputs · fixed noise) in evaluation mode, for pictures of this size and seed.

    double: in float64, for an oracle of PyTorch.
    """
    theirs, ours, x = pair(name, size, batch, seed)
    if double:
        theirs.network.double()
        ours.to(dtype=np.float64)
        x = x.astype(np.float64)
    y = theirs.run(torch.from_numpy(x), False)
    noise = np.random.default_rng(2).standard_normal(y.shape, np.float32).astype(x.dtype)
    (y * torch.from_numpy(noise)).sum().backward()
    expected = theirs.gradients()

    outputs = ops.compile(ops.trace(ours, ops.tensor_type(x.shape, x.dtype)))(x)
    _, gradients, _ = value_and_grad(ours, lambda x: ops.sum(ours(x) * noise))(x)
    assert gradients.keys() == expected.keys()
    return Parity(
        theirs.source,
        sum(int(p.size) for _, p in ours.named_parameters()),
        relative(outputs, y.detach().numpy()),
        max(relative(gradients[n], expected[n]) for n in expected),
    )


def training_step(name: str, size: int = 64, batch: int = 4) -> tuple[float, float]:
    """In training mode, the relative errors of the outputs and of the new statistics of batch norms."""
    theirs, ours, x = pair(name, size, batch)
    ours.train()
    outputs, statistics = functional_call(ours, {}, x)
    expected = theirs.run(torch.from_numpy(x), True).detach().numpy()
    moved = {n: a for n, a in theirs.state().items() if "running" in n or "num_batches" in n}
    assert statistics.keys() == moved.keys()
    return relative(outputs, expected), max(relative(statistics[n], moved[n]) for n in moved)


def main(pattern: str = "*") -> None:
    print("| network | oracle | parameters | outputs | gradients |\n|---|---|---|---|---|")
    names = [n for n in architectures.names(pattern) if architectures.find(n)[0].__name__ == "ResNet"]
    for name in names:
        size = 32 if name.removeprefix("resnet") in ("20", "32", "44", "56", "110") else 64
        p = compare(name, size)
        print(f"| {name} | {p.source} | {p.parameters:,} | {p.outputs:.1e} | {p.gradients:.1e} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
