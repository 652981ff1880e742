"""Layers around layers, states of cells, and structures of inputs and outputs, against Keras."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import zoo  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers
IDS = np.array([[1, 2, 3, 4, 5, 6], [3, 1, 0, 0, 0, 0], [2, 0, 4, 5, 0, 0]], np.int32)


def test_states_of_stacked_cells(tmp_path: pathlib.Path) -> None:
    x, h, c, k = keras.Input((5, 3)), keras.Input((3,)), keras.Input((3,)), keras.Input((2,))
    given = L.RNN([L.LSTMCell(3), L.SimpleRNNCell(2)], return_state=True)(x, initial_state=[[h, c], [k]])
    taken = L.RNN([L.GRUCell(3), L.LSTMCell(2)], return_state=True, return_sequences=True, go_backwards=True)(x)
    model = keras_oracles.scrambled(keras.Model([x, h, c, k], [*keras.tree.flatten(given), *keras.tree.flatten(taken)]))
    keras_oracles.check(model, [floats(2, 5, 3), floats(2, 3), floats(2, 3, seed=2), floats(2, 2)], tmp_path)


def test_the_last_layer_of_a_sequential_model_may_give_several(tmp_path: pathlib.Path) -> None:
    layer = L.Bidirectional(L.LSTM(3, return_state=True), name="both")
    model = keras_oracles.scrambled(keras.Sequential([keras.Input((5, 3)), layer]))
    keras_oracles.check(model, [floats(2, 5, 3)], tmp_path)
    ports = keras_oracles.load(tmp_path / "model.keras").outputs
    assert [port.name for port in ports] == ["both", "both_1", "both_2", "both_3", "both_4"]


def test_each_step_has_its_own_statistics_in_training(tmp_path: pathlib.Path) -> None:
    """Keras 3 calls the layer inside TimeDistributed once for each step; masked steps do not count."""
    inside = keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization(momentum=0.6)])
    x, ids = keras.Input((3, 4)), keras.Input((6,), dtype="int32")
    masked = L.TimeDistributed(L.BatchNormalization(momentum=0.7))(L.Embedding(7, 5, mask_zero=True)(ids))
    model = keras_oracles.scrambled(keras.Model([x, ids], [L.TimeDistributed(inside)(x), masked]))
    inputs = [floats(3, 3, 4), np.maximum(IDS, [[1], [0], [0]])]
    keras_oracles.check(model, inputs, tmp_path)
    network = zoo.load(tmp_path / "model.keras").network.train()
    for ours, theirs in zip(network(*inputs), model(inputs, training=True), strict=True):
        keras_oracles.close(ours, theirs.detach().numpy(), "training")
    for variable in model.non_trainable_variables:
        value = variable.value.detach().numpy()
        found = [np.asarray(a) for n, a in network.state.items() if n.endswith(variable.name)]
        assert any(a.shape == value.shape and np.allclose(a, value, rtol=1e-4, atol=1e-5) for a in found)


def test_masks_of_sequences_of_sequences(tmp_path: pathlib.Path) -> None:
    ids = keras.Input((3, 6), dtype="int32")
    model = keras.Model(ids, L.TimeDistributed(L.LSTM(4))(L.Embedding(7, 5, mask_zero=True)(ids)))
    keras_oracles.check(keras_oracles.scrambled(model), [np.stack([IDS, IDS[::-1], IDS], 1)], tmp_path)


def test_wrappers_and_layers_of_two_uses(tmp_path: pathlib.Path) -> None:
    """SpectralNormalization outside of training, Pipeline, ReversibleEmbedding, LoRA (merged in .keras files)."""
    ids, x = keras.Input((6,), dtype="int32"), keras.Input((8, 8, 3))
    tied, apart = L.ReversibleEmbedding(7, 5), L.ReversibleEmbedding(7, 5, tie_weights=False, logit_soft_cap=2.0)
    dense, table = L.Dense(4), L.Embedding(7, 4)
    outputs = [
        tied(L.Dense(5)(tied(ids)), reverse=True),
        apart(apart(ids), reverse=True),
        L.SpectralNormalization(L.Conv2D(4, 3))(x),
        L.Pipeline([L.RandomFlip(), L.Rescaling(0.5, 1.0)])(x),
        dense(table(ids)),
    ]
    model = keras.Model([ids, x], outputs)
    dense.enable_lora(2), table.enable_lora(2)
    inputs = [IDS, floats(3, 8, 8, 3)]
    keras_oracles.check(keras_oracles.scrambled(model), inputs, tmp_path, (".keras",), gradients=False)
    notes = keras_oracles.load(tmp_path / "model.keras").notes
    assert notes == ["kernels that Keras divides by their norm in training, and not here: spectral_normalization"]


def test_structures_by_name(tmp_path: pathlib.Path) -> None:
    """Keras flattens dicts by sorted names, also where a model inside lists them in another order."""

    def inner() -> Any:
        a, b = keras.Input((4,), name="b"), keras.Input((3,), name="a")
        return keras.Model({"b": a, "a": b}, {"y": L.Dense(2)(a), "x": L.Dense(5)(b)})

    p, q = keras.Input((4,)), keras.Input((3,))
    result = inner()({"b": p, "a": q})
    model = keras_oracles.scrambled(keras.Model([p, q], [result["y"], result["x"]]))
    keras_oracles.check(model, [floats(2, 4), floats(2, 3)], tmp_path)
    model = keras_oracles.scrambled(inner())
    network = zoo.load(keras_oracles.saved(model, tmp_path, ".keras"))
    theirs = model({"a": floats(2, 3), "b": floats(2, 4)})
    x, y = network(floats(2, 3), floats(2, 4))
    keras_oracles.close(x, theirs["x"].detach().numpy(), "x")
    keras_oracles.close(y, theirs["y"].detach().numpy(), "y")
