"""Dense layers, embeddings and what only acts in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoonet import ops
from zoonet.ops.sets.keras.activations import Activation, activate
from zoonet.ops.sets.keras.common import floating, kept, probability, require_shape
from zoonet.ops.sets.keras.registry import Weight, layer, training
from zoonet.ops.types import Array

_SCALE = Weight("kernel_scale", when="quantized", trainable=False)
_WEIGHTS = (Weight("kernel"), Weight("bias", when="use_bias"), _SCALE)


def _product_of_int8(x: Array, kernel: Array, scale: Array, of_inputs: bool) -> Array:
    """x · kernel / scale for a kernel of int8; of_inputs: x is rounded to int8 too, row by row.

    Gradients are those of the product without rounding, as in Keras.
    """
    wide = ops.cast(kernel, x.dtype)
    product = ops.matmul(x, ops.divide(wide, scale))
    if not of_inputs:
        return product
    factor = ops.divide(127.0, ops.add(ops.max(ops.abs(x), -1, True), 1e-7))
    rounded = ops.clip(ops.round(ops.multiply(x, factor)), -127.0, 127.0)
    exact = ops.divide(ops.matmul(rounded, wide), ops.multiply(scale, factor))
    return ops.add(product, ops.stop_gradient(ops.subtract(exact, product)))


@layer("Dense", weights=_WEIGHTS, masks=True)
def dense(
    inputs: Array,
    kernel: Array,
    bias: Array | None = None,
    kernel_scale: Array | None = None,
    /,
    units: int | None = None,
    activation: Activation = None,
    use_bias: bool = True,
    quantized: str | None = None,
) -> Array:
    """x · kernel + bias along the last axis; kernel: (inputs, units).

    quantized: "int8" for a kernel of int8 with a scale for each unit, and inputs that are rounded; "int8 weights" where
    these are not.
    """
    require_shape(kernel, (inputs.shape[-1], units), "Dense", "kernel")
    if kernel_scale is not None:
        y = _product_of_int8(floating(inputs), kernel, kernel_scale, quantized == "int8")
        return activate(y if bias is None else ops.add(y, bias), activation)
    return activate(ops.linear(floating(inputs, kernel.dtype), ops.transpose(kernel), bias), activation)


@layer("EinsumDense", weights=[Weight("kernel"), Weight("bias", when="bias_axes")])
def einsum_dense(
    inputs: Array,
    kernel: Array,
    bias: Array | None = None,
    /,
    equation: str = "",
    output_shape: Any = None,
    activation: Activation = None,
    bias_axes: str | None = None,
) -> Array:
    """A product of x and kernel in Einstein's notation, plus a bias along bias_axes."""
    y = ops.einsum(equation, floating(inputs, kernel.dtype), kernel)
    return activate(y if bias is None else ops.add(y, bias), activation)


@layer("Embedding", weights=["embeddings", Weight("embeddings_scale", when="quantized", trainable=False)])
def embedding(
    inputs: Array,
    embeddings: Array,
    embeddings_scale: Array | None = None,
    /,
    input_dim: int | None = None,
    output_dim: int | None = None,
    mask_zero: bool = False,
    input_length: Any = None,
    quantized: str | None = None,
) -> Array:
    """Rows of a table: integers (…) -> (…, output_dim). mask_zero: 0 is masked in what follows.

    quantized: the table is of int8, with a scale for each row.
    """
    require_shape(embeddings, (input_dim, output_dim), "Embedding", "embeddings")
    places = ops.cast(inputs, "int32")
    if embeddings_scale is None:
        return ops.embedding(places, embeddings)
    rows = ops.cast(ops.take(embeddings, places, 0), embeddings_scale.dtype)
    return ops.divide(rows, ops.expand_dims(ops.take(embeddings_scale, places, 0), -1))


@layer("ReversibleEmbedding", weights=["embeddings", Weight("reverse_embeddings", when="tie_weights=False")])
def reversible_embedding(
    inputs: Array,
    embeddings: Array,
    reverse_embeddings: Array | None = None,
    /,
    input_dim: int | None = None,
    output_dim: int | None = None,
    mask_zero: bool = False,
    tie_weights: bool = True,
    reverse_dtype: str | None = None,
    logit_soft_cap: float | None = None,
    reverse: bool = False,
) -> Array:
    """Rows of a table, or in reverse the product with it: (…, output_dim) -> (…, input_dim)."""
    if not reverse:
        return embedding(inputs, embeddings, None, input_dim, output_dim, mask_zero)
    table = ops.transpose(embeddings) if reverse_embeddings is None else reverse_embeddings
    if reverse_dtype is not None:
        inputs, table = ops.cast(inputs, reverse_dtype), ops.cast(table, reverse_dtype)
    y = ops.matmul(inputs, table)
    return y if logit_soft_cap is None else ops.multiply(ops.tanh(ops.divide(y, logit_soft_cap)), logit_soft_cap)


@layer("Identity", "InputLayer", masks=True)
def identity(inputs: Array, /) -> Array:
    """The input."""
    return inputs


# -- what acts in training only --------------------------------------------------------------------------------


@layer("Dropout", masks=True)
def dropout(inputs: Array, /, rate: float = 0.5, noise_shape: Any = None) -> Array:
    """The input; in training, zeros with probability `rate` and the rest scaled up."""
    return inputs


def _kept(key: Array, inputs: Array, rate: float, noise_shape: Any) -> Array:
    given = tuple(inputs.shape) if noise_shape is None else tuple(noise_shape)
    return kept(key, tuple([m if n is None else n for n, m in zip(given, inputs.shape, strict=True)]), rate, inputs)


@training("Dropout")
def dropout_training(inputs: Array, random_key: Array, /, rate: float = 0.5, noise_shape: Any = None) -> Array:
    """Zeros with probability `rate`, the same ones along axes of size 1 in noise_shape; the rest by 1 / (1 - rate)."""
    rate = probability(rate, "Dropout")
    return ops.multiply(inputs, ops.multiply(_kept(random_key, inputs, rate, noise_shape), 1.0 / (1.0 - rate)))


def _declare_spatial_dropout(rank: int) -> None:
    name = f"SpatialDropout{rank}D"

    @layer(name, masks=True)
    def spatial_dropout(inputs: Array, /, rate: float = 0.5, data_format: str | None = None) -> Array:
        """The input; in training whole channels are dropped."""
        return inputs

    @training(name)
    def spatial_dropout_training(
        inputs: Array, random_key: Array, /, rate: float = 0.5, data_format: str | None = None
    ) -> Array:
        """Whole channels become zero with probability `rate`."""
        if data_format == "channels_first":
            shape = (*inputs.shape[:2], *(1,) * rank)
        else:
            shape = (inputs.shape[0], *(1,) * rank, inputs.shape[-1])
        rate = probability(rate, name)
        return ops.multiply(inputs, ops.multiply(_kept(random_key, inputs, rate, shape), 1.0 / (1.0 - rate)))


for _rank in (1, 2, 3):
    _declare_spatial_dropout(_rank)


@layer("AlphaDropout", masks=True)
def alpha_dropout(inputs: Array, /, rate: float = 0.5, noise_shape: Any = None) -> Array:
    """The input; in training, dropout that keeps mean and variance of self-normalising networks."""
    return inputs


@training("AlphaDropout")
def alpha_dropout_training(inputs: Array, random_key: Array, /, rate: float = 0.5, noise_shape: Any = None) -> Array:
    """Dropped numbers become SELU's limit, and all are scaled back to mean 0 and variance 1. Source: Klambauer 2017."""
    rate, limit = probability(rate, "AlphaDropout"), -1.6732632423543772 * 1.0507009873554805
    chosen = _kept(random_key, inputs, rate, noise_shape)
    scale = ((1 - rate) * (1 + rate * limit**2)) ** -0.5
    mixed = ops.add(ops.multiply(inputs, chosen), ops.multiply(ops.subtract(1.0, chosen), limit))
    return ops.add(ops.multiply(mixed, scale), -scale * limit * rate)


@layer("GaussianDropout", masks=True)
def gaussian_dropout(inputs: Array, /, rate: float = 0.5) -> Array:
    """The input; in training times normal numbers of mean 1."""
    return inputs


@training("GaussianDropout")
def gaussian_dropout_training(inputs: Array, random_key: Array, /, rate: float = 0.5) -> Array:
    """x times normal numbers of mean 1 and deviation √(rate / (1 - rate))."""
    rate = probability(rate, "GaussianDropout")
    shape = tuple(int(n) for n in inputs.shape)
    return ops.multiply(inputs, ops.random_normal(random_key, shape, 1.0, (rate / (1 - rate)) ** 0.5, inputs.dtype))


@layer("GaussianNoise", masks=True)
def gaussian_noise(inputs: Array, /, stddev: float = 1.0) -> Array:
    """The input; in training plus normal numbers."""
    return inputs


@training("GaussianNoise")
def gaussian_noise_training(inputs: Array, random_key: Array, /, stddev: float = 1.0) -> Array:
    """x plus normal numbers of this deviation."""
    shape = tuple(int(n) for n in inputs.shape)
    return ops.add(inputs, ops.random_normal(random_key, shape, 0.0, float(stddev), inputs.dtype))


# -- layers that keras.applications brings along ---------------------------------------------------------------


@layer("LayerScale", weights=["gamma"])
def layer_scale(inputs: Array, gamma: Array, /, init_values: float = 1e-6, projection_dim: int | None = None) -> Array:
    """x · gamma along the last axis. Source: Touvron et al., 2021, in Keras's ConvNeXt."""
    require_shape(gamma, (projection_dim,), "LayerScale", "gamma")
    return ops.multiply(inputs, gamma)


@layer("CustomScaleLayer")
def scaled_sum(inputs: Sequence[Array], /, scale: float = 1.0) -> Array:
    """x + scale · y: how InceptionResNetV2 of keras.applications adds its branches."""
    return ops.add(inputs[0], ops.multiply(inputs[1], float(scale)))


@layer("StochasticDepth")
def stochastic_depth(inputs: Array, /, drop_path_rate: float = 0.0) -> Array:
    """The input; in training, whole items become zero."""
    return inputs


@training("StochasticDepth")
def stochastic_depth_training(inputs: Array, random_key: Array, /, drop_path_rate: float = 0.0) -> Array:
    """Whole items become zero with probability drop_path_rate, the others are scaled up. Source: Huang et al., 2016."""
    rate = probability(drop_path_rate, "StochasticDepth")
    shape = (inputs.shape[0], *(1,) * (len(inputs.shape) - 1))
    return ops.multiply(inputs, ops.multiply(_kept(random_key, inputs, rate, shape), 1.0 / (1.0 - rate)))
