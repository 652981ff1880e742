"""A training step as one function: against PyTorch, compiled and not, and with blocks that are computed twice."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from train_data import shapes

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError
from zoonet.ops.execute import Program
from zoonet.zoo import architectures
from zoonet.zoo.layers import Linear
from zoonet.zoo.train.objective import Objective
from zoonet.zoo.train.step import Gradients

KEY, ONE = ops.random_key(0), np.float32(1)
X, Y = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32), np.arange(8) % 5


def gradients(network: Any, objective: Objective | None = None, **options: Any) -> tuple[Any, Gradients]:
    step = Gradients(network, objective or Objective("cross_entropy", 5), **options)
    return step(network.parameters(), dict(network.named_buffers()), X, Y, KEY, ONE), step


def test_it_is_compiled_and_equals_the_function() -> None:
    network = architectures.build("resnet20", seed=0, classes=5).train()
    (loss, found, state), step = gradients(network)
    (program,) = step._programs.values()
    assert isinstance(program, Program)
    expected = step.function(network.parameters(), dict(network.named_buffers()), X, Y, KEY, ONE)
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-6)
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-3, atol=1e-5)
    assert state.keys() == expected[2].keys()
    moved = step(network.parameters(), state, X, Y, KEY, ONE)[2]  # state is an input, not a constant
    assert int(moved["bn1.num_batches_tracked"]) == 2


def test_what_looks_at_contents_or_draws_numbers_is_not_compiled() -> None:
    class Careful(zoo.Module):
        def __init__(self) -> None:
            self.fc = Linear(3 * 32 * 32, 5)

        def forward(self, x: Any) -> Any:
            return self.fc(ops.reshape(x, (len(x), -1))) * (1.0 if float(ops.mean(x)) < 9 else 0.0)

    class Noisy(Careful):
        def forward(self, x: Any) -> Any:
            return self.fc(ops.reshape(x, (len(x), -1)) + rng.normal(size=1).astype(np.float32))

    rng = np.random.default_rng(0)
    for kind in (Careful, Noisy):
        with zoo.initialised_by(0):
            network = kind()
        (loss, _, _), step = gradients(network)
        (program,) = step._programs.values()
        assert not isinstance(program, Program)
        assert np.isfinite(float(loss))
    losses = {float(gradients(network)[0][0]) for _ in range(3)}
    assert len(losses) == 3


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v3_small"])
def test_checkpointing_gives_the_same_in_less_memory(name: str) -> None:
    options = {"dropout": 0.0} if name.startswith("mobile") else {}
    network = architectures.build(name, seed=0, classes=5, **options).train()
    peaks, results = [], []
    for checkpointing in (False, True):
        step = Gradients(network, Objective("cross_entropy", 5), checkpointing=checkpointing)
        arguments = (network.parameters(), dict(network.named_buffers()), X, Y, KEY, ONE)
        tracemalloc.start()
        results.append(step(*arguments))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    (loss, found, state), (same, again, new) = results
    assert float(loss) == float(same)
    for first, second in ((found, again), (state, new)):
        assert first.keys() == second.keys()
        for key, array in first.items():
            np.testing.assert_allclose(second[key], array, rtol=1e-5, atol=1e-7, err_msg=key)
    assert peaks[1] < 0.9 * peaks[0]


def test_checkpointing_through_train_and_where_there_are_no_blocks() -> None:
    x, y = shapes(24)
    models = []
    for checkpointing in (False, True):
        models.append(zoo.create("resnet20", width=4, preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None)))
        models[-1].train((x, y), epochs=1, batch=8, run=False, progress=False, checkpointing=checkpointing)
    for name, array in models[0].network.state_dict().items():
        np.testing.assert_allclose(models[1].network.state_dict()[name], array, rtol=1e-4, atol=1e-6)
    with pytest.raises(ArgumentError, match="no blocks"):
        zoo.create("digitnet").train((x, y), epochs=1, run=False, progress=False, checkpointing=True)


@pytest.mark.parametrize(
    ("name", "theirs", "targets"),
    [
        ("mse", torch.nn.functional.mse_loss, np.linspace(-1, 1, 12).reshape(4, 3)),
        ("l1", torch.nn.functional.l1_loss, np.linspace(-1, 1, 12).reshape(4, 3)),
        ("huber", torch.nn.functional.huber_loss, np.linspace(-3, 3, 12).reshape(4, 3)),
        ("bce", torch.nn.functional.binary_cross_entropy_with_logits, np.arange(12).reshape(4, 3) % 2 * 1.0),
        ("cross_entropy", torch.nn.functional.cross_entropy, np.array([0, 2, 1, 1])),
    ],
)
def test_losses_are_torch_s(name: str, theirs: Any, targets: np.ndarray) -> None:
    scores = np.random.default_rng(0).normal(size=(4, 3))
    objective = Objective(name, 3 if name == "cross_entropy" else 0, smoothing=0.1)
    ours = objective.loss(scores, targets, training=False)
    assert float(ours) == pytest.approx(float(theirs(torch.from_numpy(scores), torch.from_numpy(targets))), rel=1e-9)
    if name == "cross_entropy":
        smooth = theirs(torch.from_numpy(scores), torch.from_numpy(targets), label_smoothing=0.1)
        assert float(objective.loss(scores, targets)) == pytest.approx(float(smooth), rel=1e-9)
        probabilities = Objective(name, 3, probabilities=True)
        powers = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        assert float(probabilities.loss(powers, targets)) == pytest.approx(float(ours), rel=1e-9)
