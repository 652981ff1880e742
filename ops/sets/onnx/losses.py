"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss."""

from __future__ import annotations

from zoonet import ops
from zoonet.ops.sets.onnx.registry import declare
from zoonet.ops.types import Array

#: An index that no class has, where a node ignores none.
_NOTHING = -(1 << 40)


def _ignored(ignore_index: int | None) -> int:
    return _NOTHING if ignore_index is None else ignore_index


def nll_loss(
    input: Array,
    target: Array,
    weight: Array | None = None,
    /,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    """Minus the log-probabilities (N, C, …) of the classes (N, …), weighted by class."""
    return ops.cast(ops.nll_loss(input, target, weight, _ignored(ignore_index), reduction), input.dtype)


def cross_entropy(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    /,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Cross entropy of scores (N, C, …) and classes (N, …), and the log-probabilities."""
    log_prob = ops.log_softmax(scores, 1)
    return nll_loss(log_prob, labels, weights, ignore_index, reduction), log_prob


declare("NegativeLogLikelihoodLoss", nll_loss, (12, 13, 22))
declare("SoftmaxCrossEntropyLoss", cross_entropy, (12, 13))
