"""Training on arrays of another module than NumPy: a stand-in as strict as CuPy."""

from __future__ import annotations

import sys
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

from zoonet import zoo
from zoonet.zoo.train.loops import adam, minibatch

X = np.random.default_rng(0).random((24, 1, 24, 24), np.float32)
Y = np.arange(24) % 3


def trained(device: str, **options: Any) -> zoo.Model:
    model = zoo.create("digitnet", classes=3, seed=0, device=device)
    settings = {
        "epochs": 2,
        "lr": 1e-3,
        "batch": 8,
        "preprocessed": True,
        "augment": "none",
        "run": False,
        "progress": False,
    }
    model.train((X, Y), **{**settings, **options})
    return model


@pytest.mark.parametrize(
    "options",
    [{"ema": 0.9, "clip": 1.0, "clip_value": 0.1}, {"optimizer": "lamb", "accumulate": 2}, {"optimizer": "adafactor"}],
    ids=["sgd", "lamb", "adafactor"],
)
def test_training_stays_on_the_device(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = trained("cpu", **options)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.module())
    there = trained("cuda", **options)
    for name, array in there.network.state_dict().items():
        assert isinstance(array, cupy_stand_in.ndarray), name
        np.testing.assert_allclose(array.get(), here.network.state_dict()[name], rtol=2e-2, atol=5e-3)


def test_loops_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.module())
    model = zoo.create("digitnet", classes=3, seed=0, device="cuda")
    losses = list(adam(model, minibatch(X, Y, 8)))
    assert np.isfinite(losses).all()
    assert all(isinstance(a, cupy_stand_in.ndarray) for _, a in model.network.named_parameters())
