"""Imported graphs that are trained, measured: ten SGD steps of networks that PyTorch exported, against PyTorch's own.

    python tests/onnx_training_report.py [PATTERN]

prints a Markdown table: who wrote the file, its opset, its parameters, the first and the last loss, and the largest
relative difference of a loss, in float32 and in float64. Dropout is left out, as each library draws numbers of its own.
"""

from __future__ import annotations

import copy
import fnmatch
import importlib
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from zoonet import ops, zoo

STEPS = 10


def exported(module: nn.Module, inputs: tuple[Any, ...], path: pathlib.Path, **options: Any) -> pathlib.Path:
    """The module as ONNX with every layer as it is: nothing folded, dropout kept."""
    names = [f"x{i}" for i in range(len(inputs))]
    options = {"opset_version": 17, "dynamo": False, **options}
    if options["dynamo"]:
        options["dynamic_shapes"] = tuple({0: torch.export.Dim("batch")} for _ in inputs)
    else:
        options |= {
            "training": torch.onnx.TrainingMode.PRESERVE,
            "do_constant_folding": False,
            "dynamic_axes": {name: {0: "batch"} for name in names},
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, inputs, str(path), input_names=names, verbose=False, **options)
    return path


def losses_of(network: Any, batches: Sequence[Any], rate: float = 0.01, trainable: Any = None) -> list[float]:
    """Losses of SGD on the imported network, which keeps what it learns."""
    from zoonet.zoo.modules import assign

    found = []
    for *inputs, target in batches:
        step = zoo.value_and_grad(network, lambda *a: ops.cross_entropy(network(*a[:-1]), a[-1]), trainable=trainable)
        value, gradients, state = step(*inputs, target)
        parameters = network.parameters()
        assign(network, {name: parameters[name] - rate * g for name, g in gradients.items()} | state)
        found.append(float(value))
    return found


def losses_of_torch(module: nn.Module, batches: Sequence[Any], rate: float = 0.01) -> list[float]:
    """Losses of SGD in PyTorch."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], rate)
    found = []
    for *inputs, target in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(*map(torch.from_numpy, inputs)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


class Encoder(nn.Module):
    """A BERT-like classifier: embeddings, post-norm blocks with GELU, a pooled head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(30, 16), nn.Embedding(12, 16)
        self.norm = nn.LayerNorm(16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout, "gelu", batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool, self.classes = nn.Linear(16, 16), nn.Linear(16, 3)
        for parameter in self.blocks.parameters():  # equal layers would be written once by the newer exporter
            nn.init.normal_(parameter, 0, 0.2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(tokens) + self.positions(torch.arange(12)))
        return self.classes(torch.tanh(self.pool(self.blocks(x)[:, 0])))


class Recurrent(nn.Module):
    """A bidirectional LSTM, or GRU, of two layers over vectors, and a linear head on its last step."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layers = kind(6, 8, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0][:, -1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 20), nn.PReLU(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4),
        nn.Hardswish(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def resnet18() -> nn.Module:
    from resnet_parity import torchvision_and_timm

    torchvision_and_timm()
    made: nn.Module = importlib.import_module("torchvision").models.resnet18(num_classes=3)
    return made


def floats(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: rng.normal(size=shape).astype(np.float32)


def tokens(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda rng: rng.integers(0, 30, shape)


@dataclass(frozen=True)
class Case:
    """A network and how it is exported. inputs: eight of them. rate: of the steps; ResNet-18's losses depend on the
    last digits of float32 (PyTorch's own, too) where it learns fast.
    """

    name: str
    network: Callable[[], nn.Module]
    inputs: Callable[[np.random.Generator], Any]
    opset: int
    dynamo: bool = False
    rate: float = 0.01


CASES = [
    *(Case("mlp", mlp, floats(8, 12), opset) for opset in (7, 9, 11, 13, 17, 20)),
    Case("mlp", mlp, floats(8, 12), 18, dynamo=True),
    *(Case("cnn", cnn, floats(8, 3, 16, 16), opset) for opset in (9, 11, 13, 17, 20)),
    *(Case("lstm", lambda: Recurrent(nn.LSTM), floats(8, 7, 6), opset, rate=0.1) for opset in (9, 13, 17)),
    *(Case("gru", lambda: Recurrent(nn.GRU), floats(8, 7, 6), opset, rate=0.1) for opset in (9, 17)),
    *(Case("encoder", Encoder, tokens(8, 12), opset) for opset in (14, 17, 20)),
    Case("encoder", Encoder, tokens(8, 12), 18, dynamo=True),
    *(Case("resnet18", resnet18, floats(8, 3, 64, 64), opset, rate=2e-4) for opset in (9, 17)),
]


def losses(case: Case, path: pathlib.Path, dtype: str) -> tuple[list[float], list[float], int]:
    """Ten losses of zoonet and of PyTorch in a dtype, from the same file and batches of two sizes; the parameters."""
    torch.manual_seed(0)
    theirs = case.network().eval() if case.dynamo else case.network().train()
    rng = np.random.default_rng(0)
    x, target = case.inputs(rng), rng.integers(0, 3, 8)
    reference = copy.deepcopy(theirs).train().to(getattr(torch, dtype))
    exported(theirs, (torch.from_numpy(x),), path, opset_version=case.opset, dynamo=case.dynamo)
    network = zoo.load(path, dtype=dtype).network.train()
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    batches = [(x[: 7 + i % 2], target[: 7 + i % 2]) for i in range(STEPS)]
    count = sum(parameter.size for parameter in network.parameters().values())
    return losses_of(network, batches, case.rate), losses_of_torch(reference, batches, case.rate), count


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference."""
    return float(np.max(np.abs(np.subtract(ours, theirs)) / np.abs(theirs)))


def main(pattern: str = "*") -> None:
    """Print the table."""
    print("| network | exporter | opset | parameters | first loss | last | float32 | float64 |\n" + "|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            if not fnmatch.fnmatchcase(case.name, pattern):
                continue
            single = losses(case, pathlib.Path(folder) / f"{number}.onnx", "float32")
            double = losses(case, pathlib.Path(folder) / f"{number}d.onnx", "float64")
            exporter = "torch.export" if case.dynamo else "TorchScript"
            errors = f"{difference(*single[:2]):.1e} | {difference(*double[:2]):.1e}"
            first, last = single[0][0], single[0][-1]
            print(f"| {case.name} | {exporter} | {case.opset} | {single[2]} | {first:.4f} | {last:.4f} | {errors} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
