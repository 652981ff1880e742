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
    at = descended(
        x,
        _roots(place, targets, is_leaf),
        modes=np.where(is_leaf, "", np.asarray(modes)),
        columns=columns,
        thresholds=np.asarray(values, x.dtype if x.dtype.kind == "f" else np.float32),
        children=targets,
        track=np.asarray(missing or [0] * count, bool),
    )
    return at, place


def descended(
    x: np.ndarray[Any, Any],
    roots: Any,
    modes: np.ndarray[Any, Any],
    columns: np.ndarray[Any, Any],
    thresholds: np.ndarray[Any, Any],
    children: Sequence[np.ndarray[Any, Any]],
    track: np.ndarray[Any, Any],
    members: Sequence[np.ndarray[Any, Any]] = (),
) -> np.ndarray[Any, Any]:
    """The leaf (mode "") of each row of x in each tree, (rows, trees). members: the sets of nodes that ask for one,
    whose thresholds are the set's place in it. Raises FormatError for a cycle."""
    at = np.broadcast_to(roots, (len(x), len(roots))).copy()
    rows = np.broadcast_to(np.arange(len(x))[:, None], at.shape)
    for _ in range(len(modes) + 1):
        kinds = modes[at]
        moving = kinds != ""
        if not moving.any():
            return at
        seen, limits = x[rows, columns[at]], thresholds[at]
        holds = np.zeros(at.shape, bool)
        for mode, compare in _COMPARISONS.items():
            chosen = kinds == mode
            if chosen.any():
                holds = np.where(chosen, compare(seen, limits), holds)
        chosen = kinds == "BRANCH_MEMBER"
        for place in np.unique(limits[chosen]).astype(int):
            asked = chosen & (limits == place)
            holds[asked] = np.isin(seen[asked], members[place])
        holds |= np.isnan(seen) & track[at]
        at = np.where(moving, np.where(holds, children[0][at], children[1][at]), at)
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


def aggregated(values: np.ndarray[Any, Any], present: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Weights of leaves (rows, trees, targets), those that are present, over the trees: (rows, targets)."""
    total: np.ndarray[Any, Any]
    if kind in ("SUM", "AVERAGE"):
        total = values.sum(1) / (values.shape[1] if kind == "AVERAGE" else 1)
    elif kind in ("MIN", "MAX"):
        gap = np.inf if kind == "MIN" else -np.inf
        held = np.where(present, values, gap)
        total = np.where(present.any(1), held.min(1) if kind == "MIN" else held.max(1), 0)
    else:
        raise ArgumentError("unknown aggregate_function", expected="SUM, AVERAGE, MIN, MAX", received=kind)
    return total


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
    y = aggregated(values, present, options["aggregate_function"])
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


_MODES = (*_COMPARISONS, "BRANCH_MEMBER")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def _child(ids: Sequence[int], leaf: Sequence[int], nodes: int, leaves: int) -> np.ndarray[Any, Any]:
    """Children of nodes, where leaves are numbered after the nodes."""
    child, is_leaf = np.asarray(ids, np.int64), np.asarray(leaf, bool)
    limit = np.where(is_leaf, leaves, nodes)
    if len(child) != nodes or len(is_leaf) != nodes or (child < 0).any() or (child >= limit).any():
        raise FormatError("a tree's node has a child that is not there", expected=f"{nodes} nodes, {leaves} leaves")
    return np.concatenate([np.where(is_leaf, child + nodes, child), np.arange(nodes, nodes + leaves)])


def _members(values: Any, count: int) -> list[np.ndarray[Any, Any]]:
    """The sets of nodes that ask for membership, which NaN divides."""
    array = concrete(values, "membership values").reshape(-1) if values is not None else np.zeros(0)
    ends = np.flatnonzero(np.isnan(array.astype(np.float64)))
    sets = [part[~np.isnan(part.astype(np.float64))] for part in np.split(array, ends)]
    if len(sets) < count:
        raise FormatError("a tree ensemble lacks membership values", expected=count, received=len(sets))
    return sets


@onnx_operator("TreeEnsemble", since=5, domain=ML)
def tree_ensemble(
    X: Array,
    /,
    leaf_targetids: Sequence[int],
    leaf_weights: Array,
    nodes_falseleafs: Sequence[int],
    nodes_falsenodeids: Sequence[int],
    nodes_featureids: Sequence[int],
    nodes_modes: Array,
    nodes_splits: Array,
    nodes_trueleafs: Sequence[int],
    nodes_truenodeids: Sequence[int],
    tree_roots: Sequence[int],
    aggregate_function: int = 1,
    membership_values: Array | None = None,
    n_targets: int | None = None,
    nodes_hitrates: Array | None = None,
    nodes_missing_value_tracks_true: Sequence[int] | None = None,
    post_transform: int = 0,
) -> Array:
    """Targets (N, n_targets): leaves that the rows of X (N, features) reach in each tree, joined by their targets."""
    x = concrete(X, "the features of a tree ensemble")
    weights = concrete(leaf_weights, "the weights of leaves").reshape(-1)
    splits = concrete(nodes_splits, "the splits of nodes").reshape(-1)
    kinds = concrete(nodes_modes, "the modes of nodes").reshape(-1).astype(int)
    nodes, count, targets = len(splits), len(weights), n_targets or 1
    features, roots = np.asarray(nodes_featureids, np.int64), np.asarray(tree_roots, np.int64)
    to = np.asarray(leaf_targetids, np.int64)
    track = np.asarray(nodes_missing_value_tracks_true or [0] * nodes, bool)
    sound = len(kinds) == len(features) == len(track) == nodes > 0 and len(to) == count > 0 and len(roots) > 0
    if x.ndim != 2 or not sound:
        raise FormatError("a tree ensemble has attributes of different lengths, or X no rows", received=x.shape)
    ranges = ((features, x.shape[1]), (kinds, len(_MODES)), (to, targets), (roots, nodes))
    if any((values < 0).any() or (values >= limit).any() for values, limit in ranges):
        raise FormatError("a tree ensemble names a feature, mode, target or root that is not there")
    asks = kinds == len(_MODES) - 1
    thresholds = np.where(asks, np.cumsum(asks) - 1, splits)
    padding = np.zeros(count)
    at = descended(
        x,
        roots,
        modes=np.asarray([*(_MODES[kind] for kind in kinds), *[""] * count]),
        columns=np.concatenate([features, padding.astype(np.int64)]),
        thresholds=np.concatenate([thresholds, padding]).astype(x.dtype),
        children=[
            _child(nodes_truenodeids, nodes_trueleafs, nodes, count),
            _child(nodes_falsenodeids, nodes_falseleafs, nodes, count),
        ],
        track=np.concatenate([track, padding.astype(bool)]),
        members=_members(membership_values, int(asks.sum())) if asks.any() else (),
    )
    reached = at - nodes
    values = np.zeros((*reached.shape, targets))
    np.put_along_axis(values, to[reached][..., None], weights[reached][..., None].astype(np.float64), 2)
    given = np.zeros(values.shape, bool)
    np.put_along_axis(given, to[reached][..., None], True, 2)
    names = ("AVERAGE", "SUM", "MIN", "MAX")
    if not 0 <= aggregate_function < len(names) or not 0 <= post_transform < len(_TRANSFORMS):
        raise ArgumentError("TreeEnsemble: unknown aggregate_function or post_transform")
    y = aggregated(values, given, names[aggregate_function]).astype(weights.dtype)
    return transformed(y, _TRANSFORMS[post_transform])
