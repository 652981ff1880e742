"""Operations of keras.ops in the place of layers: models with an output for each, saved by Keras, compared with it."""

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
K = keras.ops


def elementary(x: Any, y: Any) -> list[Any]:
    half, positive = K.tanh(x) * 0.9, K.abs(x) + 0.5
    return [
        *(K.expm1(x), K.log1p(positive), K.log2(positive), K.log10(positive), K.tan(half), K.arcsin(half)),
        *(K.arccos(half), K.arctan(x), K.arctan2(x, y), K.sinh(x), K.cosh(x), K.arcsinh(x), K.arccosh(positive + 1)),
        *(K.arctanh(half), K.reciprocal(positive), K.logaddexp(x, y), K.hypot(x, y), K.divide_no_nan(x, y)),
        *(K.trunc(x), K.fmod(x, 0.7), K.copy(x), K.full_like(x, 2.0) * y),
    ]


def activated(x: Any, y: Any) -> list[Any]:
    return [
        *(K.selu(x), K.softsign(x), K.log_sigmoid(x), K.hard_tanh(x), K.tanh_shrink(x), K.sparse_plus(x)),
        *(K.sparse_sigmoid(x), K.celu(x, 0.7), K.glu(x, axis=-1), K.soft_shrink(x, 0.3), K.hard_shrink(x, 0.3)),
        *(K.threshold(x, 0.1, 0.2), K.squareplus(x, 3), K.sparsemax(x, axis=1), keras.activations.relu(x, max_value=1)),
    ]


def products(x: Any, y: Any) -> list[Any]:
    square = K.matmul(x, K.transpose(y, (0, 2, 1)))
    heads = [K.reshape(z, (-1, 5, 2, 2)) for z in (x, y)]
    return [
        *(K.einsum("bij,bkj->bik", x, y), K.einsum("bij->bj", x), K.dot(x, np.ones((4, 3), np.float32))),
        *(K.tensordot(x, np.ones((5, 4, 2), np.float32), axes=[[1, 2], [0, 1]]), K.tril(square, 1), K.triu(square, -1)),
        *(K.diagonal(square, 1, 1, 2), K.dot_product_attention(heads[0], heads[1], heads[0])),
        *(K.dot_product_attention(heads[0], heads[1], heads[0], scale=0.3, is_causal=True), K.outer(x, floats(2))),
    ]


def selected(x: Any, y: Any) -> list[Any]:
    values, places = K.top_k(x, 2)
    return [
        *(K.sort(x, axis=1), K.argsort(x, axis=1), values, places, K.take_along_axis(x, K.argsort(y, axis=1), axis=1)),
        *(K.cumprod(x, axis=1), *K.unstack(x, 5, axis=1), K.slice(x, (0, 1, 0), (2, 2, 4)), K.ravel(x)),
        *(K.hstack([x, y]), K.vstack([x, y]), x[:, ::2, -1], x[:, None, 1:], x[..., :2], x[:, -1]),
    ]


def reduced(x: Any, y: Any) -> list[Any]:
    four = np.arange(1, 5, dtype=np.float32)
    return [
        *(K.amax(x, axis=1), K.amin(x, axis=(1, 2)), K.average(x, axis=1), K.average(x, axis=2, weights=four)),
        *(*K.moments(x, axes=[1]), K.normalize(x, axis=-1), K.normalize(x, axis=1, order=1)),
        *(K.layer_normalization(x, axis=-1), K.layer_normalization(x, four, four, epsilon=1e-3)),
        *(K.rms_normalization(x, axis=-1), K.rms_normalization(x, four, epsilon=1e-3)),
        *(K.batch_normalization(x, four, four, axis=-1), K.batch_normalization(x, four, four, -1, four, four)),
        *(K.cast(K.isnan(x), "float32"), K.cast(K.logical_xor(x > 0, y > 0), "float32"), K.ptp(x, axis=1)),
    ]


def seldom(x: Any, y: Any) -> list[Any]:
    gap = x / K.relu(y)  # infinite where y is negative
    return [
        *(K.cbrt(K.square(x)), K.real(x), K.conj(x), K.deg2rad(x), K.rad2deg(x), K.exp2(x), K.fabs(x), K.sinc(x)),
        *(K.fliplr(x), K.flipud(x), K.rot90(x, 1, (1, 2)), K.rot90(x, 2, (1, 2)), K.rot90(x, 3, (1, 2))),
        *(K.isneginf(gap), K.isposinf(gap), K.signbit(x), K.round(x, 1), K.isclose(x, y, atol=0.3), K.isreal(x)),
        *(K.fmax(x, y), K.fmin(x, y), K.logaddexp2(x, y), K.inner(x, np.ones((3, 4), np.float32)), K.diff(x, axis=1)),
        *(K.nansum(x, axis=1), K.nanprod(x, axis=1), K.nanmax(x, axis=1), K.nanmin(x, axis=2), K.nanmean(x)),
        *(K.median(x, axis=1), K.median(x, axis=(1, 2), keepdims=True), K.median(x), K.trace(x, axis1=1, axis2=2)),
        *(K.append(x, y, axis=1), K.append(x, y), K.dstack([x, y]), K.kron(x, y), K.diff(x, n=2)),
        *(K.array_split(x, 2, axis=1), K.trapezoid(x), K.select([x > 1, x < 0], [x, y], 0.5)),
        *(K.digitize(x, np.array([-1.0, 0.0, 1.0], np.float32)), K.saturate_cast(x * 300, "uint8")),
        K.multi_hot(K.cast(K.abs(x[..., 0]), "int32"), 4),
        K.bitwise_and(K.argmax(x, axis=1), K.argmin(y, axis=1)),
        K.nan_to_num(K.where(y > 0.5, np.float32("nan"), x)),
    ]


@pytest.mark.parametrize("function", [elementary, activated, products, selected, reduced, seldom])
def test_operations(function: Callable[..., list[Any]], tmp_path: pathlib.Path) -> None:
    inputs = [keras.Input((5, 4)), keras.Input((5, 4))]
    model = keras.Model(inputs, function(*inputs))
    keras_oracles.check(model, [floats(2, 5, 4), floats(2, 5, 4, seed=3)], tmp_path)


def test_operations_on_pictures(tmp_path: pathlib.Path) -> None:
    pictures = keras.Input((6, 5, 4))
    red = pictures[..., :3]
    kernel = floats(3, 3, 4, 6)
    model = keras.Model(
        pictures,
        [
            *(K.max_pool(pictures, 2), K.max_pool(pictures, (3, 2), 1, "same"), K.average_pool(pictures, 2)),
            *(K.conv(pictures, kernel, padding="same"), K.conv(pictures, floats(2, 2, 4, 3), strides=2)),
            *(K.image.resize(pictures, (9, 4)), K.image.resize(red, (3, 8), interpolation="nearest")),
            *(K.image.rgb_to_grayscale(red), K.image.pad_images(red, 1, 2, target_height=9, target_width=9)),
            *(K.image.crop_images(red, 1, 0, bottom_cropping=2, target_width=3),),
            *(K.image.rgb_to_hsv(K.sigmoid(red)), K.image.hsv_to_rgb(K.sigmoid(red))),
            *(K.image.extract_patches(pictures, 2), K.image.extract_patches(red, (3, 2), strides=2, padding="same")),
            *(K.depth_to_space(pictures, 2), K.space_to_depth(pictures[:, :, :4], 2)),
            *(K.depthwise_conv(pictures, floats(2, 2, 4, 2)), K.depthwise_conv(red, floats(3, 3, 3, 1), 2, "same")),
            K.separable_conv(pictures, floats(2, 2, 4, 2), floats(1, 1, 8, 3), padding="same"),
        ],
    )
    keras_oracles.check(model, [floats(2, 6, 5, 4)], tmp_path)
