"""MobileNets against torchvision on random weights, and v1 against the definition written in PyTorch."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch
from resnet_parity import relative

from zoonet import ops, zoo
from zoonet.zoo import architectures
from zoonet.zoo.modules import functional_call, keyed_by, value_and_grad

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

NAMES = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")


def pair(name: str, x: np.ndarray, **options: Any) -> tuple[torch.nn.Module, zoo.Module]:
    """torchvision's network with random weights and the batch norms' statistics of x, and ours with the same."""
    import torchvision

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None, **options)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    theirs.train()
    with torch.no_grad():
        theirs(torch.from_numpy(x))
        for tensor_name, mean in theirs.state_dict().items():
            if tensor_name.endswith("running_mean"):  # with the exact mean, gradients of scales would vanish
                mean += 0.2 * torch.randn(mean.shape)
    theirs.eval()
    renamed = {"num_classes": "classes", "width_mult": "width"}
    ours = architectures.build(name, **{renamed[k]: v for k, v in options.items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({n: t.numpy() for n, t in theirs.state_dict().items()})
    return theirs, ours


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 64, 64), np.float32)
    theirs, ours = pair(name, x)
    y = theirs(torch.from_numpy(x))
    assert relative(ops.compile(ops.trace(ours, ops.tensor_type(x.shape)))(x), y.detach().numpy()) <= 1e-4
    theirs.double()
    ours.to(dtype="float64")
    x = x.astype(np.float64)
    y = theirs(torch.from_numpy(x))
    noise = np.random.default_rng(2).standard_normal(y.shape)
    (y * torch.from_numpy(noise)).sum().backward()
    outputs, gradients, _ = value_and_grad(ours, lambda x: ops.sum(ours(x) * noise))(x)
    assert float(outputs) == pytest.approx(float((y.detach() * torch.from_numpy(noise)).sum()), rel=1e-9)
    limit = 1e-9 if name == "mobilenet_v2" else 1e-5  # torch has a float32 sixth in the slope of its hardswish
    for parameter, tensor in theirs.named_parameters():
        assert relative(gradients[parameter], tensor.grad.numpy()) <= limit, parameter


def test_weights_of_timm(tmp_path: pathlib.Path) -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv2_100", num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    model = zoo.load(tmp_path / "m.pth")
    assert model.architecture == "mobilenet_v2"
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 64), np.float32)
    assert relative(model(x), theirs(torch.from_numpy(x)).detach().numpy()) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_training_mode(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 3, 64, 64), np.float32)
    theirs, ours = pair(name, x)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1 if name == "mobilenet_v2" else 0.01
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for _, layer in ours.named_modules():
        if isinstance(layer, zoo.Module) and type(layer).__name__ == "Dropout":
            layer.p = 0.0
    theirs.train()
    y, statistics = functional_call(ours.train(), {}, x)
    assert relative(y, theirs(torch.from_numpy(x)).detach().numpy()) <= 1e-3
    expected = {n: t.numpy() for n, t in theirs.state_dict().items() if n in statistics}
    assert len(expected) == sum("running" in n or "tracked" in n for n in theirs.state_dict())
    assert max(relative(statistics[n], expected[n]) for n in expected) <= 1e-4


@pytest.mark.parametrize(("name", "width"), [("mobilenet_v2", 0.35), ("mobilenet_v3_small", 0.75)])
def test_widths_and_classes(name: str, width: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 64), np.float32)
    theirs, ours = pair(name, x, width_mult=width, num_classes=7)
    assert relative(ours(x), theirs(torch.from_numpy(x)).detach().numpy()) <= 1e-4


def test_recognised_by_names_and_shapes() -> None:
    for name in (*NAMES, "mobilenetv1_025", "mobilenetv1_050", "mobilenetv1"):
        state = architectures.build(name, seed=0, classes=5, channels=1).state_dict()
        assert architectures.recognise(state) == [name]


def test_dropout_takes_keys() -> None:
    network = architectures.build("mobilenet_v3_small", seed=0, classes=3).train()
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 32), np.float32)
    network.classifier[3].bias = np.zeros(3, np.float32)  # type: ignore[attr-defined]
    with keyed_by(ops.random_key(0)):
        first = functional_call(network, {}, x)[0]
    with keyed_by(ops.random_key(0)):
        again = functional_call(network, {}, x)[0]
    with keyed_by(ops.random_key(1)):
        other = functional_call(network, {}, x)[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(zoo_error(), match="key"):
        network(x)


def zoo_error() -> type[Exception]:
    from zoonet.ops.errors import ArgumentError

    return ArgumentError


def test_v1_with_a_limit_is_the_definition() -> None:
    network = architectures.build("mobilenetv1_050", seed=0, classes=4)
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 64), np.float32) * 4
    state = {n: torch.from_numpy(np.array(a)) for n, a in network.state_dict().items()}
    y = torch.from_numpy(x)
    f = torch.nn.functional
    for stage, strides in (("stage1", (2, 1, 2, 1, 2, 1)), ("stage2", (2, 1, 1, 1, 1, 1)), ("stage3", (2, 1))):
        for block, stride in enumerate(strides):
            layers = (0, 3) if (stage, block) != ("stage1", 0) else (0,)
            for layer in layers:
                weight = state[f"{stage}.{block}.{layer}.weight"]
                groups = weight.shape[0] if weight.shape[1] == 1 else 1
                y = f.conv2d(y, weight, None, stride if layer == 0 else 1, weight.shape[2] // 2, groups=groups)
                p = f"{stage}.{block}.{layer + 1}."
                y = f.relu6(f.batch_norm(y, *(state[p + n] for n in ("running_mean", "running_var", "weight", "bias"))))
    expected = f.linear(y.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    assert relative(network(x), expected.numpy()) <= 1e-4
