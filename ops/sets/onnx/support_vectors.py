"""ai.onnx.ml: support vector machines, SVMClassifier and SVMRegressor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, ShapeError
from zoonet.ops.sets.onnx.common import concrete
from zoonet.ops.sets.onnx.features import ML, labelled, transformed
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

Matrix = np.ndarray[Any, Any]


def _rows(X: Array) -> Matrix:
    x: Matrix = concrete(X, "the features of a support vector machine")
    return (x.reshape(1, -1) if x.ndim == 1 else x.reshape(len(x), -1)).astype(np.float32)


def _matrix(values: Sequence[float], rows: int, what: str) -> Matrix:
    array = np.asarray(values, np.float32)
    if rows < 1 or array.size % rows or not array.size:
        raise FormatError(f"a support vector machine has {what} that do not fit", expected=f"{rows} rows")
    return array.reshape(rows, -1)


def kernel(x: Matrix, vectors: Matrix, kind: str, parameters: Sequence[float]) -> Matrix:
    """How near the rows of x (N, features) are to vectors (M, features): (N, M). parameters: gamma, coef0, degree."""
    if x.shape[1] != vectors.shape[1]:
        raise ShapeError("the features do not fit the support vectors", expected=vectors.shape[1], received=x.shape[1])
    gamma, offset, degree = (*parameters, 0.0, 0.0, 0.0)[:3]
    result: Matrix
    if kind == "RBF":
        squares = np.square(x).sum(1)[:, None] + np.square(vectors).sum(1) - 2 * x @ vectors.T
        result = np.exp(-gamma * np.maximum(squares, 0))
        return result
    result = x @ vectors.T
    if kind == "LINEAR":
        return result
    if kind == "POLY":
        return (gamma * result + offset) ** degree
    if kind == "SIGMOID":
        return np.tanh(gamma * result + offset)
    raise ArgumentError("unknown kernel_type", expected="LINEAR, POLY, RBF or SIGMOID", received=kind)


def _pairwise(nearness: Matrix, coefficients: Matrix, counts: Sequence[int], rho: Sequence[float]) -> Matrix:
    """Decisions between each pair of classes (N, pairs), above 0 for the first of the two."""
    ends = np.cumsum([0, *counts])
    parts = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
    columns: list[Matrix] = []
    for i, first in enumerate(parts):
        for j in range(i + 1, len(parts)):
            second = parts[j]
            score = nearness[:, first] @ coefficients[j - 1, first] + nearness[:, second] @ coefficients[i, second]
            columns.append(score + rho[len(columns)])
    return np.stack(columns, 1)


def _coupled(pairs: Matrix, classes: int) -> Matrix:
    """Probabilities of classes (N, classes) from those of pairs (N, pairs).

    Source: Wu, Lin and Weng, 2004, second method, with the stopping rule of libsvm.
    """
    r = np.zeros((len(pairs), classes, classes))
    upper = np.triu_indices(classes, 1)
    r[:, upper[0], upper[1]] = pairs
    r[:, upper[1], upper[0]] = 1 - pairs
    q = -r * r.swapaxes(1, 2)
    diagonal = np.arange(classes)
    q[:, diagonal, diagonal] = np.square(r).sum(1)
    p = np.full((len(pairs), classes), 1 / classes)
    for _ in range(max(100, classes)):
        slopes = np.einsum("nij,nj->ni", q, p)
        mean = (p * slopes).sum(1, keepdims=True)
        moving = np.abs(slopes - mean).max(1) >= 0.005 / classes
        if not moving.any():
            break
        for t in range(classes):
            own = q[:, t, t]
            step = np.where(moving, (mean[:, 0] - slopes[:, t]) / own, 0)
            total = 1 + step
            mean = ((mean[:, 0] + step * (step * own + 2 * slopes[:, t])) / total**2)[:, None]
            p[:, t] += step
            p /= total[:, None]
            slopes = (slopes + step[:, None] * q[:, t]) / total[:, None]
    return p


@onnx_operator("SVMClassifier", domain=ML)
def svm_classifier(
    X: Array,
    /,
    classlabels_ints: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Sequence[float] = (),
    kernel_params: Sequence[float] = (),
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Sequence[float] | None = None,
    prob_b: Sequence[float] | None = None,
    rho: Sequence[float] = (),
    support_vectors: Sequence[float] = (),
    vectors_per_class: Sequence[int] | None = None,
    outputs: int = 2,
) -> tuple[Any, ...]:
    """Classes by the votes of machines for each pair, with their decisions, or probabilities where these are known."""
    x = _rows(X)
    classes = len(classlabels_strings or classlabels_ints or ()) or 1
    counts = vectors_per_class or ()
    pairs = classes * (classes - 1) // 2
    known = bool(prob_a) and bool(counts)
    if counts:
        if len(counts) != classes or min(counts) < 0 or len(rho) < pairs or classes < 2:
            raise FormatError("SVMClassifier: vectors_per_class or rho do not fit the classes", expected=classes)
        vectors = _matrix(support_vectors, sum(counts), "support vectors")
        weights = _matrix(coefficients, classes - 1, "coefficients")
        if weights.shape[1] != len(vectors):
            raise FormatError("SVMClassifier: a coefficient for each vector", expected=len(vectors))
        scores = _pairwise(kernel(x, vectors, kernel_type, kernel_params), weights, counts, rho)
        first, second = np.triu_indices(classes, 1)
        winners = np.where(scores > 0, first, second)
        votes = np.stack([(winners == i).sum(1) for i in range(classes)], 1)
        best, strength = votes.argmax(1), votes.max(1)
    else:
        weights = _matrix(coefficients, classes, "coefficients")
        scores = kernel(x, weights, "LINEAR", ()) + (rho[0] if rho else 0.0)
        best, strength = scores.argmax(1), scores.max(1)
    if known:
        a, b = np.asarray(prob_a, np.float32), np.asarray(prob_b or (), np.float32)
        if len(a) < pairs or len(b) < pairs:
            raise FormatError("SVMClassifier: prob_a and prob_b do not fit", expected=pairs, received=(len(a), len(b)))
        chances = 1 / (1 + np.exp(np.clip(scores * a[:pairs] + b[:pairs], -80, 80)))
        scores = _coupled(np.clip(chances, 1e-7, 1 - 1e-7), classes)
    return _decided(scores.astype(np.float32), best, strength, post_transform, len(rho) == 1, known, {
        "ints": classlabels_ints, "strings": classlabels_strings, "positive": min(coefficients) >= 0,
    })  # fmt: skip


def _decided(
    scores: Matrix, best: Matrix, strength: Matrix, post: str, binary: bool, known: bool, labels: dict[str, Any]
) -> tuple[Any, ...]:
    """Labels and scores as ONNX Runtime makes them; of one score for two classes it makes two."""
    classes = len(labels["strings"] or labels["ints"] or ())
    chosen = best
    if binary and classes == 2 and not known and labels["positive"]:
        chosen = np.where(strength >= 0.5, 1, best)
    if scores.shape[1] == 1 and classes == 2 and post != "PROBIT":
        scores = np.concatenate([-scores, scores], 1)
    shown = transformed(scores, post)
    if classes < 2:
        return (np.where(strength > 0, 1, 0).astype(np.int64) if binary else best), shown
    return labelled(chosen, labels["ints"], labels["strings"]), shown


@onnx_operator("SVMRegressor", domain=ML)
def svm_regressor(
    X: Array,
    /,
    coefficients: Sequence[float] = (),
    kernel_params: Sequence[float] = (),
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Sequence[float] = (),
    support_vectors: Sequence[float] = (),
) -> Array:
    """The value (N, 1) of each row of X; with one_class 1 for those that belong, -1 for the others."""
    x = _rows(X)
    if n_supports > 0:
        vectors = _matrix(support_vectors, n_supports, "support vectors")
        weights = np.asarray(coefficients, np.float32)
        if len(weights) != len(vectors):
            raise FormatError("SVMRegressor: a coefficient for each vector", expected=len(vectors))
        y = kernel(x, vectors, kernel_type, kernel_params) @ weights[:, None]
    else:
        y = kernel(x, _matrix(coefficients, 1, "coefficients"), "LINEAR", ())
    y = (y + np.float32(rho[0] if rho else 0.0)).astype(np.float32)
    if one_class:
        return np.where(y > 0, np.float32(1), np.float32(-1))
    return ops.cast(transformed(y, post_transform), np.float32)
