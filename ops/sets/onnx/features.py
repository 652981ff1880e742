"""ai.onnx.ml: scaling, encoding and linear models, as converters from scikit-learn write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import STRING, concrete
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

ML = "ai.onnx.ml"


@onnx_operator("Scaler", domain=ML)
def scaler(X: Array, /, offset: Sequence[float] | None = None, scale: Sequence[float] | None = None) -> Array:
    """(X - offset) · scale in float32; one number for each feature, or one for all."""
    moved = ops.subtract(ops.cast(X, np.float32), np.asarray(offset or (0.0,), np.float32))
    return ops.multiply(moved, np.asarray(scale or (1.0,), np.float32))


@onnx_operator("Normalizer", domain=ML)
def normalizer(X: Array, /, norm: str = "MAX") -> Array:
    """Each row by its largest absolute value, its sum of absolute values or its length; rows of zeros stay."""
    x = ops.cast(X, np.float32)
    norms = {
        "MAX": lambda: ops.max(ops.abs(x), -1, True),
        "L1": lambda: ops.sum(ops.abs(x), -1, True),
        "L2": lambda: ops.sqrt(ops.sum(ops.square(x), -1, True)),
    }
    if norm not in norms:
        raise ArgumentError("Normalizer: unknown norm", expected=", ".join(norms), received=norm)
    size = norms[norm]()
    return ops.divide(x, ops.where(ops.equal(size, number(0, size.dtype)), ops.ones_like(size), size))


@onnx_operator("Binarizer", domain=ML)
def binarizer(X: Array, /, threshold: float = 0.0) -> Array:
    """1 where X is above the threshold, 0 elsewhere."""
    return ops.cast(ops.greater(X, number(threshold, X.dtype)), X.dtype)


@onnx_operator("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(X: Array, Y: Array, /) -> Array:
    """The columns of X at the indices Y."""
    data = ops.expand_dims(X, 0) if len(X.shape) == 1 else X
    indices = ops.reshape(Y, (-1,))
    if data.dtype == STRING:
        return np.take(data, np.asarray(indices), axis=-1)
    return ops.take(data, indices, len(data.shape) - 1)


@onnx_operator("FeatureVectorizer", domain=ML, variadic=True)
def feature_vectorizer(X: Sequence[Array], /, inputdimensions: Sequence[int] | None = None) -> Array:
    """The inputs side by side in float32, each cut or padded with zeros to its number of columns."""
    columns = []
    for position, x in enumerate(X):
        rows = ops.cast(ops.reshape(x, (x.shape[0], -1)) if len(x.shape) > 1 else ops.expand_dims(x, 0), np.float32)
        wanted = inputdimensions[position] if inputdimensions else rows.shape[1]
        if wanted > rows.shape[1]:
            rows = ops.pad(rows, ((0, 0), (0, wanted - rows.shape[1])))
        columns.append(ops.index(rows, (slice(None), slice(0, wanted))))
    return ops.concat(columns, 1)


@onnx_operator("Imputer", domain=ML)
def imputer(
    X: Array,
    /,
    imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Array:
    """X with one value (NaN too) replaced by others, one for each feature or one for all."""
    if imputed_value_floats:
        values, gap = np.asarray(imputed_value_floats).astype(X.dtype), replaced_value_float
        missing = ops.isnan(X) if np.isnan(gap) else ops.equal(X, number(gap, X.dtype))
    else:
        values = np.asarray(imputed_value_int64s or (0,)).astype(X.dtype)
        missing = ops.equal(X, number(replaced_value_int64, X.dtype))
    return ops.where(missing, values, X)


@onnx_operator("OneHotEncoder", domain=ML)
def one_hot_encoder(
    X: Array, /, cats_int64s: Sequence[int] | None = None, cats_strings: Sequence[str] | None = None, zeros: int = 1
) -> Array:
    """1 on a new last axis where X is that category; unknown ones are all zeros, or an error where zeros is 0."""
    if cats_strings:
        known = concrete(X, "the strings to encode")
        hot = np.stack([known == text for text in cats_strings], -1)
    else:
        whole = ops.cast(X, np.int64)
        hot = ops.equal(ops.expand_dims(whole, -1), np.asarray(cats_int64s or (), np.int64))
    if not zeros and not bool(np.asarray(concrete(hot, "categories").any(-1)).all()):
        raise ArgumentError("OneHotEncoder: a value is in no category")
    return ops.cast(hot, np.float32)


def encoded(X: Array, keys: Sequence[Any], values: Sequence[Any], default: Any, dtype: Any) -> Array:
    """Each element's value in a table, the default where it has none."""
    data = concrete(X, "the values to encode")
    table = dict(zip([k.item() if hasattr(k, "item") else k for k in keys], values, strict=False))
    nan = next((v for k, v in table.items() if isinstance(k, float) and np.isnan(k)), default)
    flat = [
        nan if isinstance(item, float) and np.isnan(item) else table.get(item, default)
        for item in data.reshape(-1).tolist()
    ]
    return np.asarray(flat, dtype).reshape(data.shape)


@onnx_operator("LabelEncoder", since=1, domain=ML)
def label_encoder_1(
    X: Array, /, classes_strings: Sequence[str] = (), default_int64: int = -1, default_string: str = "_Unused"
) -> Array:
    """Strings as their places in a list, or places as strings."""
    places = range(len(classes_strings))
    if X.dtype == STRING:
        return encoded(X, classes_strings, list(places), default_int64, np.int64)
    return encoded(X, list(places), classes_strings, default_string, object)


def _table(
    strings: Sequence[str] | None, ints: Sequence[int] | None, floats: Sequence[float] | None, tensor: Any = None
) -> tuple[Sequence[Any], Any]:
    if tensor is not None:
        array = concrete(tensor, "a table of LabelEncoder")
        return list(array.reshape(-1)), array.dtype
    if strings:
        return strings, object
    return (ints, np.int64) if ints else ([np.float32(n) for n in floats or ()], np.float32)


@onnx_operator("LabelEncoder", since=2, domain=ML)
def label_encoder_2(
    X: Array,
    /,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
) -> Array:
    """Each element's value in a table, the default where it has none."""
    keys, _ = _table(keys_strings, keys_int64s, keys_floats)
    values, dtype = _table(values_strings, values_int64s, values_floats)
    default = {object: default_string, np.int64: default_int64}.get(dtype, default_float)
    return encoded(X, keys, values, default, dtype)


@onnx_operator("LabelEncoder", since=4, domain=ML)
def label_encoder_4(
    X: Array,
    /,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Array | None = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Array | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Array | None = None,
) -> Array:
    """As version 2, with tables and defaults as tensors too."""
    keys, _ = _table(keys_strings, keys_int64s, keys_floats, keys_tensor)
    values, dtype = _table(values_strings, values_int64s, values_floats, values_tensor)
    default: Any = {"O": default_string, "i": default_int64}.get(np.dtype(dtype).kind, default_float)
    if default_tensor is not None:
        default = concrete(default_tensor, "the default of LabelEncoder").reshape(-1)[0]
    return encoded(X, keys, values, default, dtype)


def transformed(scores: Array, post_transform: str) -> Array:
    """Scores through the transform of a classifier or regressor."""
    if post_transform == "NONE":
        return scores
    if post_transform == "LOGISTIC":
        return ops.sigmoid(scores)
    if post_transform == "SOFTMAX":
        return ops.softmax(scores, -1)
    if post_transform == "SOFTMAX_ZERO":
        zero = ops.equal(scores, number(0, scores.dtype))
        powers = ops.where(zero, ops.zeros_like(scores), ops.exp(ops.subtract(scores, ops.max(scores, -1, True))))
        return ops.divide(powers, ops.sum(powers, -1, True))
    if post_transform == "PROBIT":
        return probit(scores)
    raise ArgumentError(
        "unknown post_transform", expected="NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO, PROBIT", received=post_transform
    )


def probit(x: Array) -> Array:
    """√2 erf⁻¹(2 x - 1), by Winitzki's approximation (2008) of relative error 2e-3, which ONNX Runtime takes too."""
    kind, a = x.dtype, 0.147
    y = ops.subtract(ops.multiply(x, number(2, kind)), number(1, kind))
    logarithm = ops.log(ops.subtract(number(1, kind), ops.square(y)))
    half = ops.add(ops.multiply(logarithm, number(0.5, kind)), number(2 / (np.pi * a), kind))
    inner = ops.sqrt(ops.subtract(ops.square(half), ops.multiply(logarithm, number(1 / a, kind))))
    size = ops.sqrt(ops.subtract(inner, half))
    return ops.multiply(ops.copysign(size, y), number(1.41421356, kind))


@onnx_operator("LinearRegressor", domain=ML)
def linear_regressor(
    X: Array,
    /,
    coefficients: Sequence[float] = (),
    intercepts: Sequence[float] | None = None,
    post_transform: str = "NONE",
    targets: int = 1,
) -> Array:
    """X W' + b in float32, through a transform."""
    weight = np.asarray(coefficients, np.float32).reshape(targets, -1)
    y = ops.matmul(ops.cast(X, np.float32), weight.T)
    return transformed(ops.add(y, np.asarray(intercepts, np.float32)) if intercepts else y, post_transform)


def labelled(index: Any, ints: Sequence[int] | None, strings: Sequence[str] | None) -> Array:
    """Classes by their index."""
    places = concrete(index, "the classes chosen")
    return np.asarray(strings, object)[places] if strings else np.asarray(ints, np.int64)[places]


@onnx_operator("LinearClassifier", domain=ML)
def linear_classifier(
    X: Array,
    /,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float] = (),
    intercepts: Sequence[float] | None = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
    outputs: int = 2,
) -> tuple[Any, ...]:
    """The class of the highest score, and the scores of all."""
    classes = len(classlabels_strings or classlabels_ints or ())
    x = ops.cast(X if len(X.shape) > 1 else ops.expand_dims(X, 0), np.float32)
    rows = len(intercepts or ()) or len(coefficients) // max(x.shape[1], 1)
    if not rows or len(coefficients) < rows * x.shape[1]:
        raise ShapeError(
            "LinearClassifier: coefficients do not fit", expected=(rows, x.shape[1]), received=len(coefficients)
        )
    weight = np.asarray(coefficients[: rows * x.shape[1]], np.float32).reshape(rows, x.shape[1])
    scores = ops.matmul(x, weight.T)
    if intercepts:
        scores = ops.add(scores, np.asarray(intercepts, np.float32))
    if len(weight) == 1 and classes == 2:
        if post_transform == "LOGISTIC":
            positive = ops.sigmoid(scores)
            scores, post_transform = (
                ops.concat([ops.subtract(number(1, positive.dtype), positive), positive], 1),
                "NONE",
            )
        else:
            scores = ops.concat([ops.negative(scores), scores], 1)
    best = ops.argmax(scores, 1)
    return labelled(best, classlabels_ints, classlabels_strings), transformed(scores, post_transform)
