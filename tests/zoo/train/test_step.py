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
from zoonet.zoo.layers import BatchNorm2d, Linear
from zoonet.zoo.modules import next_key
from zoonet.zoo.train.objective import Objective
from zoonet.zoo.train.recompute import blocks_of
from zoonet.zoo.train.step import Gradients
from zoonet.zoo.train.texts import classes_second

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


TOKENS = np.random.default_rng(0).integers(1, 50, (4, 64))
TEXT = np.stack([TOKENS, (np.arange(64) < np.array([64, 50, 9, 3])[:, None]).astype(np.int64)], 1)  # tokens and mask
SMALL: dict[str, Any] = {"width": 32, "layers": 4, "heads": 4, "vocabulary": 50}


def on_masked_tokens(network: Any, inputs: Any) -> Any:
    return network(inputs[:, 0], inputs[:, 1])


def written_by_t5(network: Any, inputs: Any) -> Any:
    return network(inputs[:, 0], inputs[:, 0], inputs[:, 1], inputs[:, 1])


class Keyed(zoo.Module):
    """A block of a user's own, which takes its mask as a keyword."""

    def __init__(self) -> None:
        self.first, self.norm, self.second = Linear(64, 256), BatchNorm2d(256), Linear(256, 64)

    def forward(self, x: Any, *, mask: dict[str, Any], scale: float = 1.0) -> tuple[Any, Any]:
        y = self.norm(self.first(x)[:, :, None, None])[:, :, 0, 0]
        y = ops.dropout(ops.relu(y), next_key(), 0.5) * scale
        return x + self.second(y) * mask["keep"], mask["keep"]


class Own(zoo.Module):
    def __init__(self) -> None:
        self.start, self.one, self.two, self.three = Linear(192, 64), Keyed(), Keyed(), Keyed()
        self.head = Linear(64, 5)

    def forward(self, x: Any) -> Any:
        x = self.start(x)
        keep = ops.sigmoid(x)
        for block in (self.one, self.two, self.three):
            x, keep = block(x, mask={"keep": keep}, scale=2.0)
        return self.head(x)


CHECKPOINTED: dict[str, tuple[dict[str, Any], Any, np.ndarray, np.ndarray]] = {
    "resnet20": ({"classes": 5}, None, X, Y),
    "mobilenet_v2": ({"classes": 5, "dropout": 0.2, "width": 0.5}, None, X, Y),
    "vit_tiny_patch16_224": ({"classes": 5, "width": 48, "patch": 4, "size": 32}, None, X, Y),
    "bert-base-uncased": (SMALL | {"hidden": 64, "positions": 64, "embedding": 32}, on_masked_tokens, TEXT, TOKENS % 5),
    "gpt2": (SMALL | {"hidden": 64, "positions": 64}, on_masked_tokens, TEXT, TOKENS),
    "llama-2-7b": (
        SMALL | {"hidden": 64, "key_value_heads": 2, "window": 8, "full_layers": 2},
        on_masked_tokens,
        TEXT,
        TOKENS,
    ),
    "t5-small": (SMALL | {"hidden": 64, "decoder_layers": 3, "head_size": 8}, written_by_t5, TEXT, TOKENS),
    "own": ({}, None, np.random.default_rng(2).standard_normal((256, 192), np.float32), np.arange(256) % 5),
}


def checkpointed(name: str) -> tuple[Any, Objective, np.ndarray, np.ndarray]:
    options, call, x, y = CHECKPOINTED[name]
    with zoo.initialised_by(0):
        network: Any = Own() if name == "own" else architectures.build(name, seed=0, **options)
    classes = None if y.ndim == 1 else classes_second
    return network.train(), Objective("cross_entropy", 50, call=call, arrange=classes), x, y


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "mobilenet_v2" else []) for n in CHECKPOINTED]
)
def test_checkpointing_gives_the_same_bit_for_bit_in_less_memory(name: str) -> None:
    network, objective, x, y = checkpointed(name)
    peaks, results = [], []
    for checkpointing in (False, True):
        step = Gradients(network, objective, checkpointing=checkpointing)
        tracemalloc.start()
        results.append(step.function(network.parameters(), dict(network.named_buffers()), x, y, KEY, ONE))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    (loss, found, state), (same, again, new) = results
    assert float(loss) == float(same)
    for first, second in ((found, again), (state, new)):
        assert first.keys() == second.keys()
        for key, array in first.items():
            np.testing.assert_array_equal(second[key], array, err_msg=key)
    assert peaks[1] < 0.95 * peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "vit_tiny_patch16_224"])
def test_checkpointing_in_a_compiled_step(name: str) -> None:
    network, objective, x, y = checkpointed(name)
    x, y = np.concatenate([x] * 4), np.concatenate([y] * 4)
    peaks, results = [], []
    for checkpointing in (False, True):
        step = Gradients(network, objective, checkpointing=checkpointing)
        arguments = (network.parameters(), dict(network.named_buffers()), x, y, KEY, ONE)
        tracemalloc.start()
        step(*arguments)  # a program's buffers stay, and count
        assert all(isinstance(program, Program) for program in step._programs.values())
        tracemalloc.reset_peak()
        results.append(step(*arguments))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    (loss, found, state), (same, again, new) = results
    assert float(loss) == pytest.approx(float(same), rel=1e-6)
    for first, second in ((found, again), (state, new)):
        assert first.keys() == second.keys()
        for key, array in first.items():
            np.testing.assert_allclose(second[key], array, rtol=1e-3, atol=1e-5, err_msg=key)
    assert peaks[1] < 0.75 * peaks[0]


def test_blocks_can_be_named_and_those_that_look_at_contents_are_kept() -> None:
    class Careful(Keyed):
        def forward(self, x: Any, *, mask: dict[str, Any], scale: float = 1.0) -> tuple[Any, Any]:
            return super().forward(x, mask=mask, scale=scale if float(ops.mean(x)) < 9 else 0.0)

    network, objective, x, y = checkpointed("own")
    assert blocks_of(network) == [network.one, network.two, network.three]
    assert blocks_of(network, ["t*", "one.first"]) == [network.one.first, network.two, network.three]
    with pytest.raises(ArgumentError, match=r"expected names such as start, one"):
        blocks_of(network, "layer1.*")
    with zoo.initialised_by(1):
        network.two = Careful().train()
    arguments = (network.parameters(), dict(network.named_buffers()), x, y, KEY, ONE)
    plain, again = (Gradients(network, objective, checkpointing=c).function(*arguments) for c in (False, True))
    for name, gradient in plain[1].items():
        np.testing.assert_array_equal(again[1][name], gradient)


def test_checkpointing_through_train_and_where_there_are_no_blocks() -> None:
    x, y = shapes(24)
    models = []
    for checkpointing in (False, True):
        models.append(zoo.create("resnet20", width=4, preprocessing=zoo.ImagePreprocessing(resize=(16, 16), crop=None)))
        models[-1].train((x, y), epochs=1, batch=8, run=False, progress=False, gradient_checkpointing=checkpointing)
    for name, array in models[0].network.state_dict().items():
        np.testing.assert_allclose(models[1].network.state_dict()[name], array, rtol=1e-4, atol=1e-6)
    with pytest.raises(ArgumentError, match="no blocks"):
        zoo.create("digitnet").train((x, y), epochs=1, run=False, progress=False, gradient_checkpointing=True)


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
