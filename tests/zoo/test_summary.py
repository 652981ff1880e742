"""Sizes and costs against those that torchvision publishes with its weights (GMACs, named GFLOPS there)."""

from __future__ import annotations

import pytest

from zoonet import zoo
from zoonet.ops.errors import InputError


@pytest.mark.parametrize(
    ("name", "parameters", "billions"),
    [
        ("resnet18", 11_689_512, 1.814),
        ("resnet34", 21_797_672, 3.664),
        ("resnet50", 25_557_032, 4.089),
        ("resnet101", 44_549_160, 7.801),
        ("resnet152", 60_192_808, 11.514),
        ("resnext50_32x4d", 25_028_904, 4.230),
        ("wide_resnet50_2", 68_883_240, 11.398),
    ],
)
def test_published_numbers(name: str, parameters: int, billions: float) -> None:
    summary = zoo.create(name).summary()
    assert summary.parameters == parameters
    assert summary.multiply_adds / 1e9 == pytest.approx(billions, abs=0.0011)
    assert 2 * summary.multiply_adds < summary.flops < 2.02 * summary.multiply_adds


def test_layers_by_hand() -> None:
    summary = zoo.create("resnet18").summary()
    rows = {row.name: row for row in summary.rows}
    assert rows["conv1"].shape == (1, 64, 112, 112)
    assert rows["conv1"].parameters == 64 * 3 * 7 * 7
    assert rows["conv1"].multiply_adds == 64 * 3 * 7 * 7 * 112 * 112
    assert rows["layer2.0.downsample.0"].shape == (1, 128, 28, 28)
    assert rows["layer4.1.bn2"].parameters == 2 * 512
    assert rows["fc"].multiply_adds == 512 * 1000
    assert sum(row.parameters for row in rows.values()) == summary.parameters
    text = str(summary)
    assert "layer4.1.conv2" in text
    assert "11,689,512" in text


def test_other_inputs() -> None:
    model = zoo.create("resnet18")
    assert model.summary((2, 3, 64, 64)).output_shape == (2, 1000)
    with pytest.raises(InputError, match="cannot take an input"):
        model.summary((1, 1, 224, 224))
