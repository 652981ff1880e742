"""Keras models in training: what is dropped inside layers, against Keras with the same masks; statistics; state."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
import torch  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

from zoonet import ops, zoo  # noqa: E402
from zoonet.ops.sets.keras import common, recurrent  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers


DROPPED: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "lstm, one mask for all gates": (lambda: L.LSTM(4, dropout=0.4), (5, 3)),
    "lstm, states": (lambda: L.LSTM(4, dropout=0.4, recurrent_dropout=0.3, return_sequences=True), (5, 3)),
    "gru": (lambda: L.GRU(4, dropout=0.4), (5, 3)),
    "gru, states": (lambda: L.GRU(4, dropout=0.4, recurrent_dropout=0.3), (5, 3)),
    "gru, reset before": (lambda: L.GRU(4, recurrent_dropout=0.3, reset_after=False, go_backwards=True), (5, 3)),
    "simple rnn": (lambda: L.SimpleRNN(4, dropout=0.4, recurrent_dropout=0.3), (5, 3)),
    "cell": (lambda: L.RNN(L.GRUCell(4, dropout=0.4, recurrent_dropout=0.3)), (5, 3)),
    "conv lstm": (lambda: L.ConvLSTM2D(2, 2, dropout=0.4, recurrent_dropout=0.3, padding="same"), (3, 4, 5, 2)),
    "conv lstm, channels first": (
        lambda: L.ConvLSTM1D(2, 2, dropout=0.4, recurrent_dropout=0.3, data_format="channels_first"),
        (3, 2, 6),
    ),
}


def masks_of(shape: tuple[int, ...], rate: float) -> np.ndarray[Any, Any]:
    """Masks that depend on shape and rate alone, so that both sides have the same."""
    generator = np.random.default_rng(int(1000 * rate) + sum(shape))
    return (generator.random(shape) >= rate).astype(np.float32)


@pytest.mark.parametrize("name", DROPPED)
def test_what_recurrent_layers_drop(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the masks act, with Keras's cell given the same ones; inference drops nothing."""
    make, shape = DROPPED[name]
    model = keras_oracles.scrambled(keras.Sequential([keras.Input(shape), make()]))
    x = floats(3, *shape)
    keras_oracles.check(model, [x], tmp_path)
    cell = model.layers[0].cell
    first = getattr(model.layers[0], "data_format", "") == "channels_first"

    def given(step: Any, rate: float) -> Any:
        size = tuple(step.shape)
        ordered = size if first or len(size) == 2 else (size[0], size[-1], *size[1:-1])
        count = getattr(cell, "dropout_mask_count", None)
        masks = masks_of((count or 1, *ordered), rate) / (1 - rate)
        masks = masks if first or len(size) == 2 else np.moveaxis(masks, 2, -1)
        tensors = [torch.tensor(mask.astype(np.float32)) for mask in masks]
        return tensors if count else tensors[0]

    monkeypatch.setattr(cell, "_create_dropout_mask", given)
    monkeypatch.setattr(recurrent, "kept", lambda key, shape, rate, like: masks_of(tuple(shape), rate))
    network = zoo.load(tmp_path / "model.keras").network.train()
    theirs = model(x, training=True).detach().numpy()
    keras_oracles.close(network(x), theirs, name)
    assert np.abs(theirs - model(x, training=False).detach().numpy()).max() > 1e-3, "something is dropped"


def test_dropout_in_recurrent_layers_is_keyed(tmp_path: pathlib.Path) -> None:
    """Each call draws anew; two layers draw apart; gradients are those of the numbers that were computed."""
    inputs = keras.Input((5, 3))
    layers = [L.LSTM(6, dropout=0.5, recurrent_dropout=0.5), L.LSTM(6, dropout=0.5, recurrent_dropout=0.5)]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    layers[1].set_weights(layers[0].get_weights())
    model.save(tmp_path / "a.keras")
    network = zoo.load(tmp_path / "a.keras").network
    x = floats(4, 5, 3)
    first, second = network(x)
    np.testing.assert_array_equal(first, second)
    network.train()
    outputs = [array for _ in range(2) for array in network(x)]
    for i in range(4):
        for j in range(i):
            assert np.abs(outputs[i] - outputs[j]).max() > 1e-3
    network.key = ops.random_key(3)
    again = network(x)[0]
    network.key = ops.random_key(3)
    np.testing.assert_array_equal(network(x)[0], again)


def test_rates_of_what_is_dropped(tmp_path: pathlib.Path) -> None:
    """The share of zeros, and a mean that stays: a SimpleRNN of one step is x · mask."""
    model = keras.Sequential([keras.Input((1, 200)), L.SimpleRNN(200, "linear", dropout=0.3)])
    model.set_weights([np.eye(200, dtype=np.float32), np.zeros((200, 200)), np.zeros(200)])
    model.save(tmp_path / "a.keras")
    network = zoo.load(tmp_path / "a.keras").network.train()
    y = network(np.ones((50, 1, 200), np.float32))
    assert abs((y == 0).mean() - 0.3) < 0.02
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)


ATTENTIONS: dict[str, Callable[[Any], Any]] = {
    "attention": lambda x: L.Attention(dropout=0.4)([x, x]),
    "additive": lambda x: L.AdditiveAttention(dropout=0.4)([x, x]),
    "multi-head": lambda x: L.MultiHeadAttention(2, 3, dropout=0.4)(x, x),
    "grouped": lambda x: L.GroupQueryAttention(3, 4, 2, dropout=0.4)(x, x),
}


@pytest.fixture
def same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's dropout and ours take the same masks."""

    def theirs(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
        return inputs * torch.tensor(masks_of(tuple(inputs.shape), rate) / np.float32(1 - rate))

    monkeypatch.setattr(keras.src.backend.random, "dropout", theirs)
    monkeypatch.setattr(common, "kept", lambda key, shape, rate, like: masks_of(tuple(shape), rate))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_what_attention_drops(name: str, tmp_path: pathlib.Path, same_masks: None) -> None:
    inputs = keras.Input((5, 4))
    model = keras_oracles.scrambled(keras.Model(inputs, ATTENTIONS[name](inputs)))
    path = keras_oracles.saved(model, tmp_path, ".keras")
    x = floats(2, 5, 4)
    network = zoo.load(path).network
    keras_oracles.close(network(x), model(x, training=False).detach().numpy(), "inference")
    theirs = model(x, training=True).detach().numpy()
    keras_oracles.close(network.train()(x), theirs, "training")
    assert np.abs(theirs - model(x, training=False).detach().numpy()).max() > 1e-3


def test_stateful_layers_begin_at_zero(tmp_path: pathlib.Path) -> None:
    """As Keras's first call after loading, and it is said; Keras's second call goes on from there."""
    layers = [L.LSTM(3, stateful=True, return_sequences=True, name="first"), L.GRU(2, stateful=True, name="second")]
    model = keras_oracles.scrambled(keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), *layers]))
    x = floats(2, 4, 3)
    for suffix in (".keras", ".h5"):
        path = keras_oracles.saved(model, tmp_path, suffix)
        loaded = keras.models.load_model(path)
        expected = loaded(x).detach().numpy()
        with pytest.warns(UserWarning, match="first, second: stateful in Keras; here each call begins with states of"):
            ours = zoo.load(path)
        keras_oracles.close(ours(x), expected, suffix)
        keras_oracles.close(ours(x), expected, suffix)
        assert np.abs(loaded(x).detach().numpy() - expected).max() > 1e-3
        loaded.layers[0].reset_state(), loaded.layers[1].reset_state()
        keras_oracles.close(ours(x), loaded(x).detach().numpy(), "after reset_state")
        assert "stateful" in ours.card.notes


def test_statistics_of_a_shared_layer_move_with_each_call(tmp_path: pathlib.Path) -> None:
    inputs, normalise = keras.Input((6,)), L.BatchNormalization(momentum=0.6, name="bn")
    other = L.Dense(6)(inputs)
    model = keras_oracles.scrambled(keras.Model(inputs, L.Add()([normalise(inputs), normalise(other)])))
    network = zoo.load(keras_oracles.saved(model, tmp_path, ".keras")).network.train()
    x = floats(5, 6)
    keras_oracles.close(network(x), model(x, training=True).detach().numpy(), "outputs")
    for role in ("moving_mean", "moving_variance"):
        expected = getattr(normalise, role).value.detach().numpy()
        keras_oracles.close(network.state[f"bn/{role}"], expected, role)
