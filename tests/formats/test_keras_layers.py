"""Every layer of the Keras set against Keras: outputs and gradients of models that Keras saved, in both formats."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
from keras_oracles import floats, fresh  # noqa: E402, F401

pytestmark = pytest.mark.filterwarnings("ignore")
L = keras.layers

Case = tuple[Callable[[], Any], tuple[int, ...]]
FIRST = {"data_format": "channels_first"}


def integers(*shape: int, high: int = 7) -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).integers(0, high, shape).astype(np.int32)


def of(class_name: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """A layer made when it is needed."""
    return lambda: getattr(L, class_name)(*args, **kwargs)


LAYERS: dict[str, Case] = {
    # dense
    "dense": (of("Dense", 5), (3,)),
    "dense of a sequence, without bias": (of("Dense", 5, use_bias=False, activation="gelu"), (4, 3)),
    "einsum": (of("EinsumDense", "abc,cde->abde", (None, 2, 5), bias_axes="de", activation="relu"), (4, 3)),
    # convolutions
    "conv1d same": (of("Conv1D", 4, 3, padding="same", activation="relu"), (9, 3)),
    "conv1d causal, dilated": (of("Conv1D", 4, 3, padding="causal", dilation_rate=2), (9, 3)),
    "conv1d strided": (of("Conv1D", 4, 4, strides=3, padding="same"), (11, 3)),
    "conv2d valid": (of("Conv2D", 4, 3), (7, 6, 3)),
    "conv2d same, strided": (of("Conv2D", 4, (3, 2), strides=(2, 3), padding="same"), (8, 9, 3)),
    "conv2d same, stride 2 of an odd size": (of("Conv2D", 4, 3, strides=2, padding="same"), (7, 7, 3)),
    "conv2d dilated": (of("Conv2D", 4, 3, dilation_rate=(2, 1), padding="same"), (8, 7, 3)),
    "conv2d groups": (of("Conv2D", 6, 3, groups=3, use_bias=False), (7, 7, 3)),
    "conv2d channels first": (of("Conv2D", 4, 3, padding="same", strides=2, **FIRST), (3, 8, 7)),
    "conv3d": (of("Conv3D", 4, (2, 3, 1), padding="same", strides=(1, 2, 1)), (5, 6, 4, 2)),
    "conv3d channels first": (of("Conv3D", 4, 2, **FIRST), (2, 5, 6, 4)),
    "conv1d transposed": (of("Conv1DTranspose", 4, 3, strides=2, padding="same"), (5, 3)),
    "conv1d transposed valid": (of("Conv1DTranspose", 4, 2, strides=3), (5, 3)),
    "conv2d transposed same": (of("Conv2DTranspose", 4, 3, strides=2, padding="same"), (5, 4, 3)),
    "conv2d transposed, even kernel": (of("Conv2DTranspose", 4, 4, strides=2, padding="same"), (5, 4, 3)),
    "conv2d transposed, stride above the kernel": (of("Conv2DTranspose", 4, 2, strides=3, padding="same"), (5, 4, 3)),
    "conv2d transposed valid": (of("Conv2DTranspose", 4, 3, strides=2), (5, 4, 3)),
    "conv2d transposed, output padding": (
        of("Conv2DTranspose", 4, 3, strides=2, padding="same", output_padding=1),
        (5, 4, 3),
    ),
    "conv2d transposed, dilated": (of("Conv2DTranspose", 4, 3, dilation_rate=2), (5, 4, 3)),
    "conv2d transposed channels first": (of("Conv2DTranspose", 4, 3, strides=2, padding="same", **FIRST), (3, 5, 4)),
    "conv3d transposed": (of("Conv3DTranspose", 4, 3, strides=2, padding="same"), (3, 4, 2, 3)),
    "separable conv1d": (of("SeparableConv1D", 4, 3, depth_multiplier=2, padding="same"), (9, 3)),
    "separable conv2d": (of("SeparableConv2D", 4, 3, depth_multiplier=2, strides=2, padding="same"), (9, 8, 3)),
    "separable conv2d channels first": (of("SeparableConv2D", 4, 3, **FIRST), (3, 9, 8)),
    "depthwise conv1d": (of("DepthwiseConv1D", 3, depth_multiplier=2), (9, 3)),
    "depthwise conv2d": (of("DepthwiseConv2D", 3, depth_multiplier=2, strides=2, padding="same"), (9, 8, 3)),
    "depthwise conv2d dilated": (of("DepthwiseConv2D", 3, dilation_rate=2, activation="relu6"), (9, 8, 3)),
    "depthwise conv2d channels first": (of("DepthwiseConv2D", 3, **FIRST), (3, 9, 8)),
    # pooling
    **{
        f"{kind.lower()} pooling {rank}d {padding}": (
            of(f"{kind}Pooling{rank}D", 3, strides=2, padding=padding),
            (*(7, 5, 9)[:rank], 2),
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
        for padding in ("valid", "same")
    },
    "max pooling, usual strides": (of("MaxPooling2D"), (7, 6, 2)),
    "average pooling channels first": (of("AveragePooling2D", 2, padding="same", **FIRST), (2, 7, 5)),
    **{
        f"global {kind.lower()} pooling {rank}d": (
            of(f"Global{kind}Pooling{rank}D", keepdims=rank == 2),
            (*(7, 6, 5)[:rank], 2),
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    "adaptive average pooling": (of("AdaptiveAveragePooling2D", (3, 2)), (7, 6, 2)),
    "adaptive max pooling": (of("AdaptiveMaxPooling1D", 3), (7, 2)),
    "global average pooling channels first": (of("GlobalAveragePooling2D", **FIRST), (2, 7, 6)),
    # normalisation
    "batch normalisation": (of("BatchNormalization", epsilon=1e-2), (5, 4, 3)),
    "batch normalisation along axis 1": (of("BatchNormalization", axis=1, scale=False), (3, 5, 4)),
    "batch normalisation of vectors": (of("BatchNormalization", center=False), (6,)),
    "layer normalisation": (of("LayerNormalization"), (5, 4)),
    "layer normalisation over axes": (of("LayerNormalization", axis=[1, 2], scale=False), (5, 4)),
    "group normalisation": (of("GroupNormalization", 2), (5, 4, 6)),
    "group normalisation, each channel": (of("GroupNormalization", -1), (5, 4, 6)),
    "group normalisation along axis 1": (of("GroupNormalization", 3, axis=1), (6, 5, 4)),
    "unit normalisation": (of("UnitNormalization"), (5, 4)),
    "rms normalisation": (of("RMSNormalization", epsilon=1e-4), (5, 4)),
    "normalisation, given": (of("Normalization", mean=[1.0, 2.0, 3.0], variance=[4.0, 0.5, 2.0]), (5, 3)),
    "normalisation, adapted": (of("Normalization"), (5, 3)),
    "normalisation, inverted": (of("Normalization", invert=True, mean=2.0, variance=3.0), (5, 3)),
    "rescaling": (of("Rescaling", 1 / 127.5, offset=-1), (5, 3)),
    "rescaling by lists": (of("Rescaling", [0.5, 2.0, 1.5], offset=[1.0, 0.0, -1.0]), (5, 3)),
    # activations as layers
    "activation": (of("Activation", "tanh"), (5, 3)),
    "relu": (of("ReLU", max_value=1.0, negative_slope=0.1, threshold=0.2), (5, 3)),
    "relu with a slope": (of("ReLU", negative_slope=0.2), (5, 3)),
    "leaky relu": (of("LeakyReLU", 0.15), (5, 3)),
    "elu": (of("ELU", 0.7), (5, 3)),
    "prelu": (of("PReLU"), (5, 3)),
    "prelu, shared": (of("PReLU", shared_axes=[1, 2]), (5, 4, 3)),
    "softmax": (of("Softmax", axis=1), (5, 3)),
    "softmax over two axes": (of("Softmax", axis=[1, 2]), (5, 3)),
    # shapes
    "flatten": (of("Flatten"), (5, 4, 3)),
    "flatten channels first": (of("Flatten", **FIRST), (3, 5, 4)),
    "reshape": (of("Reshape", (6, -1)), (5, 4, 3)),
    "permute": (of("Permute", (3, 1, 2)), (5, 4, 3)),
    "repeat vector": (of("RepeatVector", 4), (3,)),
    "zero padding 1d": (of("ZeroPadding1D", (1, 2)), (5, 3)),
    "zero padding 2d": (of("ZeroPadding2D", ((1, 2), (0, 3))), (5, 4, 3)),
    "zero padding 2d channels first": (of("ZeroPadding2D", (1, 2), **FIRST), (3, 5, 4)),
    "zero padding 3d": (of("ZeroPadding3D", 1), (5, 4, 3, 2)),
    "cropping 1d": (of("Cropping1D", (1, 2)), (5, 3)),
    "cropping 2d": (of("Cropping2D", ((1, 2), (0, 1))), (5, 4, 3)),
    "cropping 3d": (of("Cropping3D", 1), (5, 4, 3, 2)),
    "up sampling 1d": (of("UpSampling1D", 3), (5, 3)),
    "up sampling 2d": (of("UpSampling2D", (2, 3)), (5, 4, 3)),
    "up sampling 2d, linear": (of("UpSampling2D", (2, 3), interpolation="bilinear"), (5, 4, 3)),
    "up sampling 2d channels first": (of("UpSampling2D", 2, **FIRST), (3, 5, 4)),
    "up sampling 3d": (of("UpSampling3D", 2), (3, 4, 2, 2)),
    "resizing": (of("Resizing", 7, 5), (9, 6, 3)),
    "resizing, nearest": (of("Resizing", 12, 5, interpolation="nearest"), (9, 6, 3)),
    "resizing, cropped": (of("Resizing", 8, 4, crop_to_aspect_ratio=True), (9, 9, 3)),
    "resizing, padded": (of("Resizing", 8, 4, pad_to_aspect_ratio=True, fill_value=0.5), (9, 9, 3)),
    "resizing channels first": (of("Resizing", 4, 3, **FIRST), (3, 9, 6)),
    "resizing, antialiased": (of("Resizing", 4, 3, antialias=True), (9, 7, 3)),
    "resizing, cubic, antialiased": (of("Resizing", 4, 3, interpolation="bicubic", antialias=True), (9, 7, 3)),
    "centre crop": (of("CenterCrop", 4, 3), (9, 6, 3)),
    "centre crop of a smaller picture": (of("CenterCrop", 9, 8), (6, 5, 3)),
    # what acts in training only
    "dropout": (of("Dropout", 0.4), (5, 3)),
    "spatial dropout": (of("SpatialDropout2D", 0.4), (5, 4, 3)),
    "alpha dropout": (of("AlphaDropout", 0.4), (5, 3)),
    "gaussian dropout": (of("GaussianDropout", 0.4), (5, 3)),
    "gaussian noise": (of("GaussianNoise", 0.4), (5, 3)),
    "activity regularisation": (of("ActivityRegularization", 0.1), (5, 3)),
    "identity": (of("Identity"), (5, 3)),
    # recurrent
    "simple rnn": (of("SimpleRNN", 4), (6, 3)),
    "simple rnn, sequences": (of("SimpleRNN", 4, return_sequences=True, activation="relu", use_bias=False), (6, 3)),
    "lstm": (of("LSTM", 4), (6, 3)),
    "lstm, sequences": (of("LSTM", 4, return_sequences=True), (6, 3)),
    "lstm, backwards": (of("LSTM", 4, return_sequences=True, go_backwards=True), (6, 3)),
    "lstm, other activations": (
        of("LSTM", 4, activation="softsign", recurrent_activation="hard_sigmoid", use_bias=False),
        (6, 3),
    ),
    "gru": (of("GRU", 4), (6, 3)),
    "gru, sequences, without bias": (of("GRU", 4, return_sequences=True, use_bias=False), (6, 3)),
    "gru, reset before": (of("GRU", 4, reset_after=False), (6, 3)),
    "gru, reset before, backwards": (of("GRU", 4, reset_after=False, go_backwards=True, return_sequences=True), (6, 3)),
    "gru, other activations": (of("GRU", 4, activation="relu", recurrent_activation="hard_sigmoid"), (6, 3)),
    "gru, other activations, reset before": (of("GRU", 4, reset_after=False, activation="softsign"), (6, 3)),
    **{
        f"bidirectional {mode}": (
            lambda mode=mode: L.Bidirectional(L.LSTM(4, return_sequences=True), merge_mode=mode),
            (6, 3),
        )
        for mode in ("concat", "sum", "mul", "ave")
    },
    "bidirectional gru, last": (lambda: L.Bidirectional(L.GRU(4)), (6, 3)),
    "bidirectional, two layers": (
        lambda: L.Bidirectional(L.LSTM(4), backward_layer=L.GRU(3, go_backwards=True)),
        (6, 3),
    ),
    "conv lstm 1d": (of("ConvLSTM1D", 2, 3, padding="same", return_sequences=True), (3, 5, 2)),
    "conv lstm 2d": (of("ConvLSTM2D", 2, 3, strides=2), (3, 6, 7, 2)),
    "conv lstm 2d channels first": (of("ConvLSTM2D", 2, (2, 3), return_sequences=True, **FIRST), (3, 2, 6, 7)),
    "conv lstm 3d": (of("ConvLSTM3D", 2, 2), (3, 3, 4, 3, 2)),
    "time distributed": (lambda: L.TimeDistributed(L.Conv2D(3, 2)), (3, 5, 4, 2)),
    "time distributed model": (
        lambda: L.TimeDistributed(keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)])),
        (3, 4),
    ),
    "rnn of a cell": (lambda: L.RNN(L.LSTMCell(4), return_sequences=True), (6, 3)),
    "bidirectional rnn of cells": (
        lambda: L.Bidirectional(L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)),
        (6, 3),
    ),
    "rnn of cells": (lambda: L.RNN([L.GRUCell(4), L.LSTMCell(5)]), (6, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, tmp_path: pathlib.Path) -> None:
    make, shape = LAYERS[name]
    model = keras_oracles.scrambled(keras.Sequential([keras.Input(shape), make()]))
    keras_oracles.check(model, [floats(2, *shape)], tmp_path)


ACTIVATIONS = """
    relu leaky_relu relu6 softmax celu elu selu softplus softsign squareplus soft_shrink sparse_plus silu gelu
    glu tanh tanh_shrink sigmoid sparse_sigmoid exponential hard_sigmoid hard_silu hard_tanh hard_shrink linear
    mish log_softmax log_sigmoid sparsemax
"""


def test_activations(tmp_path: pathlib.Path) -> None:
    """Every activation by name, in one model with an output for each."""
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, [L.Activation(name)(inputs) for name in ACTIVATIONS.split()])
    keras_oracles.check(model, [2 * floats(3, 4, 6)], tmp_path)


def model_of(*shapes: tuple[int, ...], dtype: str = "float32") -> Callable[[Callable[..., Any]], Any]:
    """Decorator: a functional model from what a function makes of inputs of these shapes."""

    def build(function: Callable[..., Any]) -> Any:
        inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
        return keras_oracles.scrambled(keras.Model(inputs, function(*inputs)))

    return build


MERGES = {
    "add": of("Add"),
    "subtract": of("Subtract"),
    "multiply": of("Multiply"),
    "average": of("Average"),
    "maximum": of("Maximum"),
    "minimum": of("Minimum"),
    "concatenate": of("Concatenate", axis=1),
    "dot": of("Dot", axes=2),
    "dot of two axes": of("Dot", axes=(1, 1)),
    "cosines": of("Dot", axes=-1, normalize=True),
}


@pytest.mark.parametrize("name", MERGES)
def test_merge(name: str, tmp_path: pathlib.Path) -> None:
    model = model_of((5, 4), (5, 4))(lambda a, b: MERGES[name]()([a, b]))
    keras_oracles.check(model, [floats(2, 5, 4), floats(2, 5, 4, seed=3)], tmp_path)


def test_merges_of_several_and_with_broadcasting(tmp_path: pathlib.Path) -> None:
    model = model_of((5, 4), (5, 4), (1, 4), (4,))(
        lambda a, b, c, d: [L.Add()([a, b, c]), L.Multiply()([a, d]), L.Concatenate()([a, b]), L.Dot(axes=1)([d, d])]
    )
    keras_oracles.check(model, [floats(2, 5, 4), floats(2, 5, 4), floats(2, 1, 4), floats(2, 4)], tmp_path)


ATTENTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "attention": lambda q, v: L.Attention()([q, v]),
    "attention, scaled, causal": lambda q, v: L.Attention(use_scale=True)([q, v], use_causal_mask=True),
    "attention, concat": lambda q, v: L.Attention(score_mode="concat", use_scale=True)([q, v, v]),
    "attention, scores": lambda q, v: L.Attention()([q, v], return_attention_scores=True),
    "additive": lambda q, v: L.AdditiveAttention()([q, v]),
    "additive, without scale": lambda q, v: L.AdditiveAttention(use_scale=False)([q, v]),
    "multi-head": lambda q, v: L.MultiHeadAttention(2, 3)(q, v),
    "multi-head, value_dim, key, output": lambda q, v: L.MultiHeadAttention(2, 3, value_dim=5, output_shape=7)(q, v, v),
    "multi-head, causal, scores": lambda q, v: L.MultiHeadAttention(2, 3, use_bias=False, dropout=0.1)(
        q, v, use_causal_mask=True, return_attention_scores=True
    ),
    "multi-head, gate, window": lambda q, v: L.MultiHeadAttention(2, 3, use_gate=True, sliding_window=3)(q, v),
    "grouped": lambda q, v: L.GroupQueryAttention(3, 4, 2)(q, v),
    "grouped, gate, window": lambda q, v: L.GroupQueryAttention(3, 4, 2, use_gate=True, sliding_window=3)(q, v),
    "grouped, causal": lambda q, v: L.GroupQueryAttention(3, 4, 1, use_bias=False)(q, v, use_causal_mask=True),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name: str, tmp_path: pathlib.Path) -> None:
    model = model_of((5, 4), (6, 4))(ATTENTIONS[name])
    keras_oracles.check(model, [floats(2, 5, 4), floats(2, 6, 4, seed=3)], tmp_path)


def test_masks_that_are_given(tmp_path: pathlib.Path) -> None:
    def function(x: Any, mask: Any, of_heads: Any) -> list[Any]:
        attention = L.MultiHeadAttention(2, 3)
        return [
            attention(x, x, attention_mask=mask),
            attention(x, x, attention_mask=of_heads),
            L.Softmax()(x, mask=mask[:, :, :4]),
        ]

    masks = [(np.random.default_rng(i).random(shape) > 0.3).astype(np.float32) for i, shape in
             enumerate(((2, 6, 6), (2, 2, 6, 6)))]  # fmt: skip
    model = model_of((6, 4), (6, 6), (2, 6, 6))(function)
    keras_oracles.check(model, [floats(2, 6, 4), *masks], tmp_path, gradients=False)


def test_cubic_enlargement(tmp_path: pathlib.Path) -> None:
    """By torch's antialiased filter: Keras's torch backend takes another cubic than TensorFlow and JAX."""
    import torch

    model = keras.Sequential([keras.Input((5, 4, 3)), L.UpSampling2D((2, 3), interpolation="bicubic")])
    x = floats(2, 5, 4, 3)
    picture = torch.tensor(x).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(picture, (10, 12), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    read = keras_oracles.load(keras_oracles.saved(model, tmp_path, ".keras"))
    keras_oracles.close(keras_oracles.run(read, x)[0], expected.numpy(), "cubic")


def test_attention_over_pictures(tmp_path: pathlib.Path) -> None:
    model = model_of((3, 4, 6))(lambda x: L.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x))
    keras_oracles.check(model, [floats(2, 3, 4, 6)], tmp_path)


MASKED: dict[str, Callable[[Any], Any]] = {
    "lstm": lambda x: L.LSTM(4)(x),
    "lstm, sequences": lambda x: L.LSTM(4, return_sequences=True)(x),
    "gru, zeros": lambda x: L.GRU(4, return_sequences=True, zero_output_for_mask=True)(x),
    "gru, reset before, backwards": lambda x: L.GRU(4, reset_after=False, go_backwards=True)(x),
    "simple rnn after dropout": lambda x: L.SimpleRNN(4)(L.Dropout(0.5)(L.Dense(3)(x))),
    "bidirectional": lambda x: L.Bidirectional(L.LSTM(4, return_sequences=True))(x),
    "stacked": lambda x: L.GRU(3)(L.Bidirectional(L.LSTM(4, return_sequences=True))(x)),
    "average": lambda x: L.GlobalAveragePooling1D()(x),
    "attention": lambda x: L.Attention()([x, x]),
    "multi-head": lambda x: L.GlobalAveragePooling1D()(L.MultiHeadAttention(2, 3)(x, x)),
    "grouped": lambda x: L.GlobalAveragePooling1D()(L.GroupQueryAttention(3, 2, 1)(x, x)),
    "sum": lambda x: L.GlobalAveragePooling1D()(L.Add()([x, L.Dense(5)(x)])),
    "concatenated": lambda x: L.GlobalAveragePooling1D()(L.Concatenate()([x, L.Dense(5)(x)])),
    "normalised": lambda x: L.LSTM(3)(L.LayerNormalization()(L.BatchNormalization()(x))),
    "time distributed": lambda x: L.LSTM(3)(L.TimeDistributed(L.Dense(4))(x)),
    "spatial dropout": lambda x: L.LSTM(3)(L.SpatialDropout1D(0.3)(x)),
    "cells in both directions": lambda x: L.Bidirectional(L.RNN(L.LSTMCell(3), return_sequences=True))(x),
    "with a first state": lambda x: L.LSTM(5)(L.GRU(5, return_sequences=True)(x, initial_state=x[:, 0])),
    "lost in a convolution": lambda x: L.LSTM(3)(L.Conv1D(4, 1)(x)),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_embeddings(name: str, tmp_path: pathlib.Path) -> None:
    """Zeros at the end and in the middle of sequences are masked."""
    model = model_of((6,), dtype="int32")(lambda x: MASKED[name](L.Embedding(7, 5, mask_zero=True)(x)))
    ids = np.array([[1, 2, 3, 4, 5, 6], [3, 1, 0, 0, 0, 0], [2, 0, 4, 5, 0, 0], [6, 6, 6, 0, 1, 0]], np.int32)
    keras_oracles.check(model, [ids], tmp_path)


def test_masks_end_at_operations(tmp_path: pathlib.Path) -> None:
    """Keras hands masks on through layers, and not through operations of keras.ops."""
    model = model_of((6,), dtype="int32")(
        lambda x: [
            L.LSTM(4)(operation(L.Embedding(7, 5, mask_zero=True)(x)))
            for operation in (keras.ops.relu, keras.ops.exp, keras.ops.layer_normalization, lambda y: y * 2.0)
        ]
    )
    keras_oracles.check(model, [np.array([[1, 2, 3, 0, 0, 0], [3, 1, 0, 4, 0, 0]], np.int32)], tmp_path)


def test_masking_of_features(tmp_path: pathlib.Path) -> None:
    model = model_of((6, 3))(lambda x: L.LSTM(4, return_sequences=True)(L.Masking(mask_value=-1.0)(x)))
    x = floats(3, 6, 3)
    x[0, 4:], x[1, 2] = -1, -1
    keras_oracles.check(model, [x], tmp_path)


def test_states_of_convolutions_and_both_directions(tmp_path: pathlib.Path) -> None:
    def function(x: Any, pictures: Any) -> list[Any]:
        both = L.Bidirectional(L.LSTM(3, return_sequences=True, return_state=True), merge_mode=None)(x)
        backwards = L.GRU(3, go_backwards=True, return_sequences=True, return_state=True)(x)
        return [*both, *backwards, *L.ConvLSTM2D(2, 3, return_state=True, padding="same")(pictures)]

    model = model_of((6, 4), (3, 6, 5, 2))(function)
    keras_oracles.check(model, [floats(2, 6, 4), floats(2, 3, 6, 5, 2)], tmp_path)


def test_states_are_given_and_taken(tmp_path: pathlib.Path) -> None:
    def function(x: Any, h: Any, c: Any) -> list[Any]:
        encoded, *states = L.LSTM(4, return_sequences=True, return_state=True)(x, initial_state=[h, c])
        decoded = L.LSTM(4)(encoded, initial_state=states)
        both = L.Bidirectional(L.GRU(4, return_state=True))(x, initial_state=[h, c])
        return [decoded, *states, *both, L.GRU(4, reset_after=False)(x, initial_state=h)]

    model = model_of((6, 3), (4,), (4,))(function)
    keras_oracles.check(model, [floats(2, 6, 3), floats(2, 4), floats(2, 4, seed=3)], tmp_path)


def test_operations_in_the_place_of_layers(tmp_path: pathlib.Path) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [
            2.0 * x + 1.0,
            1.0 - x,
            x * y - y / 3.0,
            keras.ops.mean(x, axis=1),
            keras.ops.concatenate([x, y], axis=-1),
            x[:, 1:, :2],
            keras.ops.reshape(x, (-1, 20)),
            keras.ops.expand_dims(keras.ops.sum(x, axis=-1), 1),
            keras.ops.matmul(x, keras.ops.transpose(y, (0, 2, 1))),
            keras.ops.sigmoid(-x) ** 2,
            keras.ops.maximum(x, 0.5),
            x[:, 0],
            x[..., None],
            keras.ops.split(x, 2, axis=-1)[1],
            keras.ops.split(x, [1, 3], axis=1)[1],
            keras.ops.stack([x, y], axis=1),
            keras.ops.norm(x, axis=-1),
            keras.ops.repeat(x, 2, axis=1),
            keras.ops.tile(x, (1, 2, 1)),
            keras.ops.pad(x, ((0, 0), (1, 1), (0, 0))),
            keras.ops.where(x > 0, x, 0.5),
            keras.ops.take(x, [0, 2], axis=1),
            keras.ops.flip(x, 1),
            keras.ops.roll(x, 1, axis=1),
            keras.ops.cumsum(x, axis=1),
            keras.ops.moveaxis(keras.ops.swapaxes(x, 1, 2), 1, 2),
            keras.ops.one_hot(keras.ops.argmax(x, axis=-1), 4),
            keras.ops.clip(keras.ops.leaky_relu(x, 0.1), -1, 1),
            keras.ops.gelu(x),
            keras.ops.softmax(x, axis=1),
            keras.ops.log(keras.ops.abs(x) + 1) * keras.ops.rsqrt(x * x + 1),
        ]

    model = model_of((5, 4), (5, 4))(function)
    keras_oracles.check(model, [floats(2, 5, 4), floats(2, 5, 4, seed=3)], tmp_path)


def test_categories(tmp_path: pathlib.Path) -> None:
    whole, several, floating = keras.Input((1,), dtype="int32"), keras.Input((3,), dtype="int32"), keras.Input((3,))
    bins = {"bin_boundaries": [-0.5, 0.0, 0.5]}
    outputs = [
        L.CategoryEncoding(7, "one_hot")(whole),
        L.CategoryEncoding(7, "one_hot")(several),
        L.CategoryEncoding(7, "multi_hot")(several),
        L.CategoryEncoding(7, "count")(several),
        L.Discretization(**bins)(floating),
        L.Discretization(**bins, output_mode="one_hot")(floating),
        L.Discretization(**bins, output_mode="multi_hot")(floating),
    ]
    x = floats(4, 3)
    x[0] = [-0.5, 0.0, 0.5]
    inputs = [integers(4, 1), integers(4, 3), x]
    keras_oracles.check(keras.Model([whole, several, floating], outputs), inputs, tmp_path, gradients=False)


def test_integer_lookup(tmp_path: pathlib.Path) -> None:
    """By the examples of Keras's documentation: the installed Keras has the layer with TensorFlow only."""
    from zoonet.ops.sets.keras import find_layer

    lookup = find_layer("IntegerLookup").op
    x = np.array([[12, 1138, 42], [42, 1000, 36]])
    words = (12, 36, 1138, 42)
    np.testing.assert_array_equal(lookup(x, vocabulary=words), [[1, 3, 4], [4, 0, 2]])
    masked = lookup(x, vocabulary=words, mask_token=1000)
    np.testing.assert_array_equal(masked, [[2, 4, 5], [5, 0, 3]])
    one_hot = lookup(np.array([12, 36, 1138, 42, 7]), vocabulary=words, output_mode="one_hot")
    np.testing.assert_array_equal(one_hot, np.eye(5)[[1, 2, 3, 4, 0]])
    multi_hot = lookup(np.array([[12, 1138, 42, 42], [42, 7, 36, 7]]), vocabulary=words, output_mode="multi_hot")
    np.testing.assert_array_equal(multi_hot, [[0, 1, 0, 1, 1], [1, 0, 1, 0, 1]])


#: Layers that change pictures at random; the others are in test_keras_augmentation.py.
UNCHANGED = "RandomErasing RandomGaussianBlur RandomPerspective RandomElasticTransform MixUp CutMix RandAugment AugMix"


def test_pictures_that_only_keras_changes(tmp_path: pathlib.Path) -> None:
    inputs = keras.Input((8, 8, 3))
    outputs = [getattr(L, name)()(inputs) for name in UNCHANGED.split()]
    x = 50 * np.abs(floats(2, 8, 8, 3))
    keras_oracles.check(keras.Model(inputs, outputs), [x], tmp_path, gradients=False)
    notes = keras_oracles.load(tmp_path / "model.keras").notes
    assert len(notes) == 1
    assert notes[0].startswith("layers that change pictures in Keras's training, and not here: random_erasing, ")


def test_integers_become_floats_in_rescaling(tmp_path: pathlib.Path) -> None:
    model = model_of((8, 8, 3), dtype="uint8")(lambda x: L.Conv2D(2, 3)(L.Rescaling(1 / 255)(x)))
    keras_oracles.check(model, [integers(2, 8, 8, 3, high=255).astype(np.uint8)], tmp_path)


def test_layer_normalization_of_one_axis_in_the_middle(tmp_path: pathlib.Path) -> None:
    """By the formula: Keras's torch backend cannot run it."""
    model = keras_oracles.scrambled(keras.Sequential([L.LayerNormalization(axis=1)]))
    layer = model.layers[0]
    layer.build((None, 5, 4))
    keras_oracles.scrambled(layer)
    x, gamma, beta = floats(2, 5, 4), *(np.asarray(w)[:, None] for w in layer.get_weights())
    from zoonet.ops.sets.keras import find_layer

    y = find_layer("LayerNormalization").op(x, gamma[:, 0], beta[:, 0], axis=1)
    centred = x - x.mean(1, keepdims=True)
    np.testing.assert_allclose(
        y, centred / np.sqrt(x.var(1, keepdims=True) + 1e-3) * gamma + beta, rtol=1e-4, atol=1e-5
    )


def test_average_pooling_counts_no_padding_of_one_side(tmp_path: pathlib.Path) -> None:
    """By the formula: Keras's torch backend counts other cells where the padding is not the same on both sides."""
    model = keras.Sequential([keras.Input((6, 2)), L.AveragePooling1D(3, strides=2, padding="same")])
    x = floats(1, 6, 2)
    y = keras_oracles.load(keras_oracles.saved(model, tmp_path, ".keras"))
    expected = [x[0, 0:3].mean(0), x[0, 2:5].mean(0), x[0, 4:6].mean(0)]
    np.testing.assert_allclose(keras_oracles.run(y, x)[0][0], expected, rtol=1e-5)
