"""What ResNet-50 needs at batch 8: bounded scratch in convolutions, values freed after use."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from zoonet import ops
from zoonet.zoo.modules import functional_call
from zoonet.zoo.resnet import RESNETS, ResNet

IMAGES = np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)


def peak_megabytes(run: Callable[[], object]) -> float:
    """The most that a call holds at one time beyond what it finds."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_inference_takes_less_than_half_a_gigabyte() -> None:
    network = ResNet(RESNETS["resnet50"])
    program = ops.compile(ops.trace(network, IMAGES))
    assert peak_megabytes(lambda: network(IMAGES)) < 300
    assert peak_megabytes(lambda: program(IMAGES)) < 300


def test_a_training_step_takes_less_than_a_gigabyte_and_a_half() -> None:
    network = ResNet(RESNETS["resnet50"]).train()
    classes = np.arange(8)

    def loss(parameters: dict[str, np.ndarray]) -> np.ndarray:
        return ops.cross_entropy(functional_call(network, parameters, IMAGES)[0], classes)

    assert peak_megabytes(lambda: ops.value_and_grad(loss)(network.parameters())) < 1200
