"""Keras models on the GPU: run on a stand-in for CuPy that refuses what CuPy refuses, and gives what NumPy gives."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402

from zoonet import ops, zoo  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


def model() -> Any:
    """Layers that make constants: states, causal masks, statistics in the configuration, lists of factors, keys."""
    pictures, ids = keras.Input((8, 8, 3)), keras.Input((6,), dtype="int32")
    x = L.Rescaling([0.5, 2.0, 1.0])(L.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 0.5, 2.0])(pictures))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", activation="relu")(L.Resizing(6, 6)(x)))
    x = L.Dropout(0.3)(L.Dense(4)(L.Flatten()(L.MaxPooling2D()(x))))
    y = L.Embedding(7, 4, mask_zero=True)(ids)
    y = L.GRU(4, return_sequences=True)(L.SimpleRNN(4, return_sequences=True)(y))
    y = L.Add()([y, L.MultiHeadAttention(2, 2, sliding_window=3)(y, y, use_causal_mask=True)])
    y = L.Bidirectional(L.LSTM(3))(L.Attention()([y, y], use_causal_mask=True))
    return keras_oracles.scrambled(keras.Model([pictures, ids], L.Concatenate()([x, y * 2.0])))


def test_a_model_on_the_stand_in(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keras_oracles.saved(model(), tmp_path, ".keras")
    generator = np.random.default_rng(0)
    arrays = [generator.random((2, 8, 8, 3), np.float32), generator.integers(0, 7, (2, 6)).astype(np.int32)]
    here = zoo.load(path)
    expected = here(*arrays)
    trained = here.network.train()(*arrays)
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.module())
    there = zoo.load(path, device="cuda")
    found = there(*arrays)
    assert isinstance(found, cupy_stand_in.ndarray)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-6)
    moved = [ops.to_device(array, "cuda") for array in arrays]
    np.testing.assert_allclose(there.network(*moved).get(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(there.network.train()(*moved).get(), trained, rtol=1e-4, atol=1e-5)
