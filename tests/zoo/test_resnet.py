"""ResNets against torchvision, timm, keras.applications and the paper's CIFAR networks, on random weights."""

from __future__ import annotations

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import ops
from zoonet.ops.errors import ArgumentError, StateDictError, UnknownModelError
from zoonet.zoo import architectures
from zoonet.zoo.resnet import RESNETS

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
#: Networks whose comparison takes seconds.
LARGE = ("resnet152", "resnet200d", "resnext101", "wide_resnet", "resnet101_keras")
TOLERANCE = 1e-4


def sized(name: str) -> object:
    marks = [pytest.mark.slow] if name.startswith(LARGE) else []
    return pytest.param(name, 32 if name in CIFAR else 64, marks=marks, id=name)


@pytest.mark.parametrize(("name", "size"), [sized(name) for name in RESNETS])
def test_outputs_and_gradients(name: str, size: int) -> None:
    if name.endswith("_keras"):
        pytest.importorskip("keras")
    found = resnet_parity.compare(name, size)
    assert found.outputs <= TOLERANCE
    assert found.gradients <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnet50d", "resnet26t", "resnext50_32x4d", "resnet50_keras"]
)
def test_outputs_and_gradients_at_224(name: str) -> None:
    """In float32, rounding may decide which of two values wins in a window of the pool, and rounding differs from
    processor to processor: gradients then agree for another picture. In float64 they agree for the first.
    """
    for seed in (1, 2, 3):
        found = resnet_parity.compare(name, 224, 1, seed)
        assert found.outputs <= TOLERANCE
        if found.gradients <= TOLERANCE:
            break
    assert found.gradients <= TOLERANCE
    if not name.endswith("_keras"):
        exact = resnet_parity.compare(name, 224, 1, double=True)
        assert exact.outputs <= 1e-10
        assert exact.gradients <= 1e-10


@pytest.mark.parametrize(("name", "size"), [("resnet18", 97), ("resnet50d", 75), ("resnet34d", 65), ("resnet20", 40)])
def test_sizes_that_strides_do_not_divide(name: str, size: int) -> None:
    assert resnet_parity.compare(name, size, 1).outputs <= TOLERANCE


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("resnet50", 64), ("resnet26t", 64), ("resnet20", 32)])
def test_training_mode(name: str, size: int) -> None:
    outputs, statistics = resnet_parity.training_step(name, size)
    assert outputs <= TOLERANCE
    assert statistics <= TOLERANCE


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d"])
def test_names_and_shapes_are_torchvision_s(name: str) -> None:
    import torchvision

    ours = architectures.build(name, seed=0).state_dict()
    theirs = getattr(torchvision.models, name)(weights=None)
    assert list(ours) == list(theirs.state_dict())
    theirs.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in ours.items()}, strict=True)


@pytest.mark.parametrize(
    ("name", "classes", "channels"), [("resnet18", 7, 1), ("resnet50d", 3, 4), ("resnet20", 100, 3)]
)
def test_classes_and_channels_follow_the_weights(name: str, classes: int, channels: int) -> None:
    state = architectures.build(name, seed=0, classes=classes, channels=channels).state_dict()
    assert architectures.recognise(state) == [name]
    network = architectures.fitted(name, state)
    network.load_state_dict(state)
    assert network(np.zeros((1, channels, 64, 64), np.float32)).shape == (1, classes)


def test_the_same_seed_draws_the_same_weights() -> None:
    first, again, other = (architectures.build("resnet18", seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(np.array_equal(first[n], again[n]) for n in first)
    assert not np.array_equal(first["layer1.0.conv1.weight"], other["layer1.0.conv1.weight"])
    deviation = first["layer4.1.conv2.weight"].std()  # He et al.: √(2 / (512 · 3 · 3))
    assert deviation == pytest.approx((2 / 4608) ** 0.5, rel=0.01)


def test_what_cannot_be_built_says_why() -> None:
    with pytest.raises(UnknownModelError, match="resnet50"):
        architectures.build("resnet-50")
    with pytest.raises(ArgumentError, match="classes"):
        architectures.build("resnet18", classes=0)
    with pytest.raises(ArgumentError, match="no option"):
        architectures.build("resnet18", num_classes=10)
    network = architectures.build("resnet18")
    with pytest.raises(StateDictError, match=r"layer1\.0\.conv3\.weight"):
        network.load_state_dict(architectures.build("resnet50", seed=0).state_dict())


def test_batch_norms_disappear_into_convolutions() -> None:
    network = architectures.build("resnet50", seed=0)
    program = ops.compile(ops.trace(network, ops.tensor_type((1, 3, 64, 64))))
    kinds = [node.op.name for node in program.graph.nodes]
    assert kinds.count("conv") == 53
    assert not any("norm" in kind for kind in kinds)
