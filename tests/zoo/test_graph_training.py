"""Training of imported graphs: ten SGD steps on the same data as PyTorch have the same losses."""

from __future__ import annotations

import importlib
import pathlib
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_runtime import assert_equal, run, session_of
from resnet_parity import torchvision_and_timm

from zoonet import ops, zoo

RNG = np.random.default_rng(0)
RATE = 0.01


def exported(module: torch.nn.Module, inputs: tuple[Any, ...], path: pathlib.Path, **options: Any) -> pathlib.Path:
    """The module as ONNX with every layer as it is: nothing folded, dropout kept."""
    names = [f"x{i}" for i in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            inputs,
            str(path),
            opset_version=17,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
            **options,
        )
    return path


def losses_of(network: Any, batches: list[Any], trainable: Any = None) -> list[float]:
    """Losses of SGD on the imported network, which keeps what it learns."""
    from zoonet.zoo.modules import assign

    found = []
    for *inputs, target in batches:
        step = zoo.value_and_grad(network, lambda *a: ops.cross_entropy(network(*a[:-1]), a[-1]), trainable=trainable)
        value, gradients, state = step(*inputs, target)
        parameters = network.parameters()
        assign(network, {name: parameters[name] - RATE * g for name, g in gradients.items()} | state)
        found.append(float(value))
    return found


def losses_of_torch(module: torch.nn.Module, batches: list[Any]) -> list[float]:
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], RATE)
    found = []
    for *inputs, target in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(*map(torch.from_numpy, inputs)), torch.from_numpy(target))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_a_resnet_of_torchvision(tmp_path: pathlib.Path) -> None:
    torchvision_and_timm()
    torchvision = importlib.import_module("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5)
    path = exported(theirs.eval(), (torch.randn(2, 3, 64, 64),), tmp_path / "resnet18.onnx")
    model = zoo.load(path)
    network = model.network.train()
    names = {name for name, _ in theirs.named_parameters()}
    assert set(network.parameters()) == names
    x, target = RNG.normal(size=(8, 3, 64, 64)).astype(np.float32), RNG.integers(0, 5, 8)
    batches = [(x[: 7 + i % 2], target[: 7 + i % 2]) for i in range(10)]
    expected = losses_of_torch(theirs.train(), batches)
    np.testing.assert_allclose(losses_of(network, batches), expected, rtol=1e-3)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for name, value in network.state_dict().items():  # batch norm moved its statistics as PyTorch does
        np.testing.assert_allclose(value, state[name], rtol=2e-2, atol=5e-3, err_msg=name)
    with torch.no_grad():
        scores = theirs.eval()(torch.from_numpy(x)).numpy()
    network.eval()
    np.testing.assert_allclose(model(x), scores, rtol=2e-2, atol=2e-2 * np.abs(scores).max())
    model.save(tmp_path / "trained.onnx")  # and the trained state survives
    assert_equal(model(x), run(session_of(tmp_path / "trained.onnx"), x)[0])
    assert_equal(model(x), zoo.load(tmp_path / "trained.onnx")(x))


class Encoder(torch.nn.Module):
    """A BERT-like classifier: embeddings, post-norm blocks with GELU, a pooled head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.words, self.positions = torch.nn.Embedding(30, 16), torch.nn.Embedding(12, 16)
        self.norm = torch.nn.LayerNorm(16)
        layer = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout, "gelu", batch_first=True)
        self.blocks = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pool, self.classes = torch.nn.Linear(16, 16), torch.nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(tokens) + self.positions(torch.arange(12)))
        return self.classes(torch.tanh(self.pool(self.blocks(x)[:, 0])))


@pytest.mark.parametrize(("frozen", "mode"), [(False, True), (True, True), (False, False)])
def test_an_encoder(frozen: bool, mode: bool, tmp_path: pathlib.Path) -> None:
    """mode: of the exported network; in inference mode PyTorch writes equal vectors once, which must not be tied."""
    torch.manual_seed(0)
    theirs = Encoder().train(mode)
    for parameter in theirs.words.parameters():
        parameter.requires_grad_(not frozen)
    path = exported(theirs, (torch.randint(0, 30, (2, 12)),), tmp_path / "encoder.onnx")
    network = zoo.load(path).network.train()
    trained = {name for name, p in theirs.named_parameters()}
    named = {name for name in network.parameters() if name in trained}
    assert "words.weight" in named
    tokens, target = RNG.integers(0, 30, (8, 12)), RNG.integers(0, 3, 8)
    before = network.parameters()["words.weight"].copy()
    batches = [(tokens[i % 3 : i % 3 + 5], target[i % 3 : i % 3 + 5]) for i in range(10)]
    found = losses_of(network, batches, (lambda name: name != "words.weight") if frozen else None)
    np.testing.assert_allclose(found, losses_of_torch(theirs.train(), batches), rtol=1e-3)
    assert np.array_equal(network.parameters()["words.weight"], before) == frozen


def test_dropout_follows_the_mode(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(50, 40), torch.nn.Dropout(0.25), torch.nn.Linear(40, 30, bias=False))
    path = exported(theirs.train(), (torch.randn(2, 50),), tmp_path / "m.onnx")
    assert [node.op_type for node in onnx.load(path).graph.node].count("Dropout") == 1
    network = zoo.load(path).network
    x = np.ones((200, 50), np.float32)
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    first = network.train()(x)
    second = network(x)
    assert np.abs(first - second).max() > 0.1  # each call has a key of its own
    np.testing.assert_allclose(np.mean(np.concatenate([first, second]), 0), expected[0], atol=0.1)
    assert "dropout_key" not in network.state_dict()
    value, gradients, state = zoo.value_and_grad(network, lambda a: ops.mean(network(a)))(x)
    assert set(state) == {"dropout_key"}
    assert np.isfinite(float(value))
    assert all(np.abs(g).max() > 0 for g in gradients.values())
    np.testing.assert_allclose(network.eval()(x), expected, rtol=1e-4, atol=1e-5)


def test_a_file_in_training_mode_can_be_put_in_inference_mode(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5)).train()
    path = exported(theirs, (torch.randn(4, 2, 5, 5),), tmp_path / "m.onnx")
    model = zoo.load(path)
    assert set(model.network.state) == {"1.running_mean", "1.running_var"}
    x = RNG.normal(size=(4, 2, 5, 5)).astype(np.float32)
    as_file = model(x)
    assert (as_file == 0).mean() > 0.2  # the file drops
    model.network.eval()
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.network(x), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "inference.onnx")
    np.testing.assert_allclose(run(session_of(tmp_path / "inference.onnx"), x)[0], expected, rtol=1e-4, atol=1e-5)
    model.network.train()(x)
    assert np.abs(model.network.state["1.running_mean"]).max() > 0
