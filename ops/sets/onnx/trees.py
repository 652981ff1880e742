"""ai.onnx.ml: ensembles of decision trees, evaluated for all rows and trees at once, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, ShapeError
from zoonet.ops.sets.onnx.common import concrete
from zoonet.ops.sets.onnx.features import ML, labelled, transformed
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array

_COMPARISONS = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}


def leaves(
    x: np.ndarray[Any, Any],
    trees: Sequence[int],
    nodes: Sequence[int],
    features: Sequence[int],
    modes: Sequence[str],
    values: Any,
    yes: Sequence[int],
    no: Sequence[int],
    missing: Sequence[int] | None,
) -> tuple[np.ndarray[Any, Any], dict[tuple[int, int], int]]:
    """The leaf of each row in each tree, (rows, trees), and the place of each node by (tree, node)."""
    count = len(nodes)
    lengths = {len(trees), len(features), len(modes), len(values), len(yes), len(no), len(missing or nodes)}
    if lengths != {count} or not count:
        raise FormatError("a tree ensemble has attributes of different lengths", received=sorted(lengths))
    place = {key: i for i, key in enumerate(zip(trees, nodes, strict=True))}
    is_leaf = np.asarray([mode == "LEAF" for mode in modes])
    unknown = sorted(set(modes) - _COMPARISONS.keys() - {"LEAF"})
    if unknown:
        raise ArgumentError("unknown mode of a tree's node", expected=", ".join(_COMPARISONS), received=unknown[0])
    columns = np.where(is_leaf, 0, np.asarray(features))
    if columns.min() < 0 or columns.max() >= x.shape[1]:
        raise ShapeError(
            "a tree asks for a feature that is not there",
            expected=f"up to {x.shape[1] - 1}",
            received=int(columns.max()),
        )
    try:
        targets = [
            np.asarray([i if is_leaf[i] else place[trees[i], child[i]] for i in range(count)]) for child in (yes, no)
        ]
    except KeyError as error:
        raise FormatError("a tree's node has a child that is not there", received=error) from None
    thresholds = np.asarray(values, x.dtype if x.dtype.kind == "f" else np.float32)
    kinds = np.asarray(modes)
    track = np.asarray(missing or [0] * count, bool)
    current = _roots(place, targets, is_leaf)
    at = np.broadcast_to(current, (len(x), len(current))).copy()
    for _ in range(count):
        moving = ~is_leaf[at]
        if not moving.any():
            return at, place
        rows = np.broadcast_to(np.arange(len(x))[:, None], at.shape)
        seen, limits = x[rows, columns[at]], thresholds[at]
        holds = np.zeros(at.shape, bool)
        for mode, compare in _COMPARISONS.items():
            chosen = kinds[at] == mode
            if chosen.any():
                holds = np.where(chosen, compare(seen, limits), holds)
        holds |= np.isnan(seen) & track[at]
        at = np.where(moving, np.where(holds, targets[0][at], targets[1][at]), at)
    raise FormatError("a tree has a cycle")


def _roots(place: dict[tuple[int, int], int], targets: Any, is_leaf: Any) -> np.ndarray[Any, Any]:
    """The node of each tree that is no node's child; the first one where there are several."""
    children = {int(t[i]) for t in targets for i in range(len(is_leaf)) if not is_leaf[i]}
    roots: dict[int, int] = {}
    for (tree, _), position in place.items():
        if position not in children:
            roots.setdefault(tree, position)
    if set(roots) != {tree for tree, _ in place}:
        raise FormatError("a tree has a cycle", expected="a node that is no node's child")
    return np.asarray(list(roots.values()))


def weights_of_leaves(
    place: dict[tuple[int, int], int], count: int, trees: Any, nodes: Any, ids: Any, weights: Any, width: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights (nodes, width) of each node, and which of them it has."""
    table, given = np.zeros((count, width)), np.zeros((count, width), bool)
    try:
        for tree, node, target, weight in zip(trees, nodes, ids, weights, strict=True):
            table[place[tree, node], target] += weight
            given[place[tree, node], target] = True
    except (KeyError, IndexError, ValueError) as error:
        raise FormatError("a tree ensemble has weights for a node or class that is not there", received=error) from None
    return table, given


def _numbers(values: Any, tensor: Any) -> Any:
    return concrete(tensor, "the numbers of a tree ensemble").reshape(-1) if tensor is not None else values or ()


def _evaluate(X: Array, options: dict[str, Any]) -> tuple[np.ndarray[Any, Any], dict[tuple[int, int], int]]:
    x = concrete(X, "the features of a tree ensemble")
    x = x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(1, -1)
    return leaves(
        x if x.dtype.kind == "f" else x.astype(np.float32),
        trees=options["nodes_treeids"],
        nodes=options["nodes_nodeids"],
        features=options["nodes_featureids"],
        modes=options["nodes_modes"],
        values=_numbers(options["nodes_values"], options.get("nodes_values_as_tensor")),
        yes=options["nodes_truenodeids"],
        no=options["nodes_falsenodeids"],
        missing=options["nodes_missing_value_tracks_true"],
    )


def classified(X: Array, options: dict[str, Any]) -> tuple[Any, ...]:
    """Classes and scores of a TreeEnsembleClassifier."""
    names, ints, post = options["classlabels_strings"], options["classlabels_int64s"], options["post_transform"]
    classes = len(names or ints or ())
    at, place = _evaluate(X, options)
    ids = options["class_ids"]
    weights = _numbers(options["class_weights"], options.get("class_weights_as_tensor"))
    table, _ = weights_of_leaves(
        place, len(options["nodes_nodeids"]), options["class_treeids"], options["class_nodeids"], ids, weights, classes
    )
    scores = table[at].sum(1)
    base = np.asarray(_numbers(options["base_values"], options.get("base_values_as_tensor")), np.float64)
    binary = classes == 2 and len(set(ids)) == 1
    if len(base) == classes:
        scores = scores + base
    elif len(base) == 1 and binary:
        scores[:, ids[0]] += base[0]
    if not binary:
        best = scores.argmax(1)
        return labelled(best, ints, names), transformed(scores.astype(np.float32), post)
    score = scores[:, ids[0]].astype(np.float32)
    positive = all(w >= 0 for w in weights) and post == "NONE"
    if positive:
        pair = np.stack([1 - score, score], 1)
        best = (score > 0.5).astype(np.int64)
    elif post == "LOGISTIC":
        probability = np.asarray(ops.sigmoid(score))
        pair, best, post = np.stack([1 - probability, probability], 1), (score > 0).astype(np.int64), "NONE"
    else:
        pair, best = np.stack([-score, score], 1), (score > 0).astype(np.int64)
    return labelled(best, ints, names), transformed(pair, post)


def regressed(X: Array, options: dict[str, Any]) -> Array:
    """Targets of a TreeEnsembleRegressor."""
    at, place = _evaluate(X, options)
    table, given = weights_of_leaves(
        place,
        len(options["nodes_nodeids"]),
        options["target_treeids"],
        options["target_nodeids"],
        options["target_ids"],
        _numbers(options["target_weights"], options.get("target_weights_as_tensor")),
        options["n_targets"] or 1,
    )
    values, present = table[at], given[at]  # (rows, trees, targets)
    kind = options["aggregate_function"]
    if kind in ("SUM", "AVERAGE"):
        y = values.sum(1) / (at.shape[1] if kind == "AVERAGE" else 1)
    elif kind in ("MIN", "MAX"):
        gap = np.inf if kind == "MIN" else -np.inf
        held = np.where(present, values, gap)
        y = held.min(1) if kind == "MIN" else held.max(1)
        y = np.where(present.any(1), y, 0)
    else:
        raise ArgumentError("unknown aggregate_function", expected="SUM, AVERAGE, MIN, MAX", received=kind)
    base = np.asarray(_numbers(options["base_values"], options.get("base_values_as_tensor")), np.float64)
    y = y + base if len(base) else y
    return transformed(y.astype(np.float32), options["post_transform"])


def tree_classifier_1(
    X: Array,
    /,
    base_values: Sequence[float] | None = None,
    class_ids: Sequence[int] = (),
    class_nodeids: Sequence[int] = (),
    class_treeids: Sequence[int] = (),
    class_weights: Sequence[float] | None = None,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    nodes_falsenodeids: Sequence[int] = (),
    nodes_featureids: Sequence[int] = (),
    nodes_hitrates: Sequence[float] | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] = (),
    nodes_nodeids: Sequence[int] = (),
    nodes_treeids: Sequence[int] = (),
    nodes_truenodeids: Sequence[int] = (),
    nodes_values: Sequence[float] | None = None,
    post_transform: str = "NONE",
    outputs: int = 2,
) -> tuple[Any, ...]:
    """The class of the highest sum of leaves, and the sums through a transform."""
    return classified(X, {k: v for k, v in locals().items() if k not in ("X", "outputs")})


def tree_classifier_3(
    X: Array,
    /,
    base_values: Sequence[float] | None = None,
    base_values_as_tensor: Array | None = None,
    class_ids: Sequence[int] = (),
    class_nodeids: Sequence[int] = (),
    class_treeids: Sequence[int] = (),
    class_weights: Sequence[float] | None = None,
    class_weights_as_tensor: Array | None = None,
    classlabels_int64s: Sequence[int] | None = None,
    classlabels_strings: Sequence[str] | None = None,
    nodes_falsenodeids: Sequence[int] = (),
    nodes_featureids: Sequence[int] = (),
    nodes_hitrates: Sequence[float] | None = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] = (),
    nodes_nodeids: Sequence[int] = (),
    nodes_treeids: Sequence[int] = (),
    nodes_truenodeids: Sequence[int] = (),
    nodes_values: Sequence[float] | None = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
    outputs: int = 2,
) -> tuple[Any, ...]:
    """As version 1, with numbers of 64 bits as tensors too."""
    return classified(X, {k: v for k, v in locals().items() if k not in ("X", "outputs")})


def tree_regressor_1(
    X: Array,
    /,
    aggregate_function: str = "SUM",
    base_values: Sequence[float] | None = None,
    n_targets: int | None = None,
    nodes_falsenodeids: Sequence[int] = (),
    nodes_featureids: Sequence[int] = (),
    nodes_hitrates: Sequence[float] | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] = (),
    nodes_nodeids: Sequence[int] = (),
    nodes_treeids: Sequence[int] = (),
    nodes_truenodeids: Sequence[int] = (),
    nodes_values: Sequence[float] | None = None,
    post_transform: str = "NONE",
    target_ids: Sequence[int] = (),
    target_nodeids: Sequence[int] = (),
    target_treeids: Sequence[int] = (),
    target_weights: Sequence[float] | None = None,
) -> Array:
    """The sum, mean, least or largest of the leaves that a row reaches."""
    return regressed(X, {k: v for k, v in locals().items() if k != "X"})


def tree_regressor_3(
    X: Array,
    /,
    aggregate_function: str = "SUM",
    base_values: Sequence[float] | None = None,
    base_values_as_tensor: Array | None = None,
    n_targets: int | None = None,
    nodes_falsenodeids: Sequence[int] = (),
    nodes_featureids: Sequence[int] = (),
    nodes_hitrates: Sequence[float] | None = None,
    nodes_hitrates_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    nodes_modes: Sequence[str] = (),
    nodes_nodeids: Sequence[int] = (),
    nodes_treeids: Sequence[int] = (),
    nodes_truenodeids: Sequence[int] = (),
    nodes_values: Sequence[float] | None = None,
    nodes_values_as_tensor: Array | None = None,
    post_transform: str = "NONE",
    target_ids: Sequence[int] = (),
    target_nodeids: Sequence[int] = (),
    target_treeids: Sequence[int] = (),
    target_weights: Sequence[float] | None = None,
    target_weights_as_tensor: Array | None = None,
) -> Array:
    """As version 1, with numbers of 64 bits as tensors too."""
    return regressed(X, {k: v for k, v in locals().items() if k != "X"})


onnx_operator("TreeEnsembleClassifier", since=1, domain=ML)(tree_classifier_1)
onnx_operator("TreeEnsembleRegressor", since=1, domain=ML)(tree_regressor_1)
for _version in (3, 5):
    onnx_operator("TreeEnsembleClassifier", since=_version, domain=ML)(tree_classifier_3)
    onnx_operator("TreeEnsembleRegressor", since=_version, domain=ML)(tree_regressor_3)
