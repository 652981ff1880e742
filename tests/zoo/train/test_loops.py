"""Training by hand: lazy iterators in the style of Knet, and search for hyperparameters."""

from __future__ import annotations

import math
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest
import torch

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, InputError, TrainingError
from zoonet.zoo.train.loops import (
    adam,
    converge,
    goldensection,
    hyperband,
    minibatch,
    minimize,
    momentum,
    nesterov,
    progress,
    repeat,
    rmsprop,
    sgd,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)).astype(np.float32)
Y = (X @ [1, -1, 2, 0.5] + 0.1).astype(np.float32)


def regression() -> zoo.Model:
    return zoo.wrap(
        lambda p, x: ops.matmul(x, p["w"]) + p["b"], {"w": np.zeros(4, np.float32), "b": np.zeros((), np.float32)}
    )


def test_minibatches() -> None:
    batches = minibatch(X, Y, 40)
    assert len(batches) == 2
    assert [len(x) for x, _ in batches] == [40, 40]
    np.testing.assert_array_equal(next(iter(batches))[0], X[:40])
    assert [len(x) for x, _ in minibatch(X, Y, 40, partial=True)] == [40, 40, 10]
    shuffled = minibatch(X, Y, 90, shuffle=True)
    (first, targets), (second, _) = (next(iter(shuffled)) for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(np.sort(first, 0), np.sort(X, 0))
    np.testing.assert_allclose(first @ np.float32([1, -1, 2, 0.5]) + 0.1, targets, rtol=1e-5, atol=1e-5)
    assert next(iter(minibatch(X, size=3))).shape == (3, 4)
    with pytest.raises(InputError, match="90"):
        minibatch(X, Y[:3])
    with pytest.raises(ArgumentError, match="size"):
        minibatch(X, Y, 100)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda m, d: sgd(m, d, lr=0.05), lambda p: torch.optim.SGD(p, 0.05)),
        (lambda m, d: momentum(m, d, lr=0.02, gamma=0.9), lambda p: torch.optim.SGD(p, 0.02, 0.9)),
        (lambda m, d: nesterov(m, d, lr=0.02, gamma=0.9), lambda p: torch.optim.SGD(p, 0.02, 0.9, nesterov=True)),
        (lambda m, d: adam(m, d, lr=0.1), lambda p: torch.optim.Adam(p, 0.1)),
        (lambda m, d: rmsprop(m, d, lr=0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    ],
)
def test_losses_are_torch_s(ours: Any, theirs: Any) -> None:
    model = regression()
    batches = minibatch(X, Y, 30)
    found = list(ours(model, repeat(batches, 5)))
    w, b = torch.zeros(4, requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = theirs([w, b])
    expected = []
    for x, y in repeat(batches, 5):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(torch.from_numpy(x) @ w + b, torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(model.network.values["w"], w.detach().numpy(), rtol=1e-4)


def test_steps_are_made_when_they_are_asked_for() -> None:
    model = regression()
    losses = sgd(model, cycle(minibatch(X, Y, 30)), lr=0.05)
    assert not model.network.values["w"].any()
    first = next(losses)
    after = model.network.values["w"].copy()
    assert after.any()
    assert sum(1 for _ in islice(losses, 9)) == 9
    assert next(losses) < first
    losses.close()  # type: ignore[attr-defined]
    assert model.run(X).shape == (90,)
    assert not np.array_equal(model.network.values["w"], after)


def test_convergence() -> None:
    model = regression()
    losses = list(converge(sgd(model, cycle(minibatch(X, Y, 30)), lr=0.1)))
    assert 20 < len(losses) < 5000
    assert losses[-1] < 1e-3
    assert list(converge([3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0], alpha=0.5)) == [3.0, 2.0, 1.0, 2.0]
    assert list(progress(iter([1.0, 2.0]))) == [1.0, 2.0]


def test_goldensection_finds_minima() -> None:
    calls = []

    def bowl(x: np.ndarray) -> float:
        calls.append(x)
        return math.nan if abs(x).max() > 20 else (x[0] - 3) ** 2 + 2 * (x[1] + 1.5) ** 2

    least, where = goldensection(bowl, 2, step=0.01)
    asked = calls[:]
    np.testing.assert_allclose(where, [3, -1.5], atol=0.05)
    assert least == pytest.approx(bowl(where))
    assert len(asked) < 120
    # by hand: the next step is where most gain is expected, it grows or turns by the golden ratio g, from 1
    g = (1 + math.sqrt(5)) / 2
    expected = [(0, 0), (1, 0), (1, 1), (1 + g, 0), (1 + g + g * g, 0), (1 + g, -1 / g)]
    np.testing.assert_allclose(asked[:6], expected, atol=1e-12)
    assert len({tuple(np.round(x, 6)) for x in asked}) == len(asked)
    # along an oblique valley, an axis that was settled moves again after the other has
    least, where = goldensection(lambda x: (x[0] - x[1]) ** 2 + 0.1 * (x[0] + x[1] - 8) ** 2, 2, step=0.001)
    assert least < 1e-4
    np.testing.assert_allclose(where, [4, 4], atol=0.05)


def test_hyperband_spends_what_the_paper_says() -> None:
    spent: list[tuple[float, int]] = []
    rng = np.random.default_rng(1)

    def loss(x: float, units: int) -> float:
        spent.append((x, units))
        return abs(x - 0.3) + 1 / units

    least, best = hyperband(lambda: rng.random(), loss, most=27, reduction=3)
    assert abs(best - 0.3) < 0.05
    assert least == pytest.approx(abs(best - 0.3) + 1 / 27)
    # table 1 of the paper at R = 27, eta = 3: (n, r) by bracket
    counts = [(sum(1 for _, u in spent if u == units)) for units in (1, 3, 9, 27)]
    assert counts == [27, 9 + 12, 3 + 4 + 6, 1 + 1 + 2 + 4]


def test_what_cannot_be_trained_says_why() -> None:
    with pytest.raises(ArgumentError, match="no such optimizer"):
        minimize(regression(), minibatch(X, Y, 10), "adamm")
    with pytest.raises(ArgumentError, match="Model or a Module"):
        sgd(lambda x: x, minibatch(X, Y, 10))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pair"):
        next(sgd(regression(), minibatch(X, size=10)))
    with pytest.raises(TrainingError, match="step"):
        list(sgd(regression(), repeat(minibatch(X, Y, 10), 20), lr=1e20))
