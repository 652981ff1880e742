"""What is trained for: the loss of outputs against targets, and the metrics that tell how good they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import InputError
from zoonet.ops.types import is_floating
from zoonet.zoo.train import metrics
from zoonet.zoo.train.data import Data, classes_of

__all__ = ["Objective", "make_objective"]

Array = Any
_TINY = 1e-12
_RANKED = 20  # classes up to which their scores are sorted after each epoch, for the area under the curve
_NEAR = 1e-7  # how near to 0 and 1 probabilities count, as Keras's do


@dataclass(frozen=True)
class Objective:
    """The loss, and what is measured.

    name: of the loss. classes: the number of classes, or 0. smoothing: of labels. probabilities: the network's outputs
    are probabilities already, as those of a graph that ends in a softmax (a sigmoid, for "bce"). function: a loss given
    by the user. call: how the network is called on a batch, where not simply on its array. arrange: brings outputs to
    the axes of losses.
    """

    name: str
    classes: int = 0
    smoothing: float = 0.0
    probabilities: bool = False
    function: Callable[..., Any] | None = None
    call: Callable[[Any, Array], Any] | None = None
    arrange: Callable[[Any], Any] | None = None

    def outputs(self, network: Any, inputs: Array) -> Any:
        """What a network (or a model) gives for a batch."""
        found = network(inputs) if self.call is None else self.call(network, inputs)
        return found if self.arrange is None else self.arrange(first(found))

    @property
    def metric(self) -> str:
        """What usually decides which epoch was best."""
        return "accuracy" if self.classes else "loss"

    def loss(self, outputs: Any, targets: Array, *, training: bool = True) -> Any:
        """One number. outputs: the network's, the first of several unless the user's own function takes them."""
        if self.function is not None:
            return self.function(outputs, targets)
        y = first(outputs)
        if self.name == "cross_entropy":
            if self.probabilities:
                y = ops.log(ops.maximum(y, np.asarray(_TINY, y.dtype)))
            if is_floating(targets.dtype):
                targets = ops.cast(targets, y.dtype)
            return ops.cross_entropy(y, targets, label_smoothing=self.smoothing if training else 0.0)
        if tuple(y.shape) != tuple(targets.shape):
            y = ops.reshape(y, tuple(targets.shape))
        targets = ops.cast(targets, y.dtype) if targets.dtype != y.dtype else targets
        if self.name == "bce" and self.probabilities:
            y = ops.clip(y, _NEAR, 1 - _NEAR)
            y = ops.log(y) - ops.log(1 - y)
        return _LOSSES[self.name](y, targets)

    def check(self, outputs: Any, targets: Array) -> None:
        """Raise InputError where the network's outputs cannot be compared with the targets."""
        if self.function is not None:
            return
        y = first(outputs)
        shape, wanted = tuple(y.shape), tuple(targets.shape)
        if self.name == "cross_entropy" and targets.dtype.kind == "f":
            if shape != wanted:
                raise InputError(
                    "outputs and probabilities of classes differ in shape", expected=list(wanted), received=list(shape)
                )
        elif self.name == "cross_entropy":
            if len(shape) < 2 or shape[0] != wanted[0] or shape[2:] != wanted[1:]:
                raise InputError(
                    "the network's outputs are no scores of classes",
                    expected=f"shape [{', '.join(map(str, (wanted[0], 'classes', *wanted[1:])))}]",
                    received=list(shape),
                    fix="give single samples if the data come in batches, or a loss for such outputs, loss=function",
                )
            if targets.size and int(targets.max()) >= shape[1]:
                raise InputError(
                    "the network has too few classes",
                    expected=f"classes below {shape[1]}",
                    received=int(targets.max()),
                    fix="make the network's last layer larger" + (", or loss='bce'" if shape[1] == 1 else ""),
                )
        elif int(np.prod(shape)) != int(np.prod(wanted)):
            raise InputError("outputs and targets differ in shape", expected=list(wanted), received=list(shape))

    def measure(self, outputs: Array, targets: Array, loss: float) -> dict[str, float]:
        """Metrics of all outputs (N, …) against all targets."""
        found = {"loss": loss}
        targets = classes_of(targets) if self.classes else targets
        if self.classes and outputs.ndim == 2:
            found["accuracy"] = metrics.accuracy(outputs, targets)
            if outputs.shape[1] > 5:
                found["top5"] = metrics.top_k_accuracy(outputs, targets, 5)
            if outputs.shape[1] <= _RANKED:
                found["auc"] = metrics.auc(self.scores(outputs), targets)
            found["f1"] = metrics.f1(metrics.confusion_matrix(outputs.argmax(1), targets, outputs.shape[1]))
        elif self.classes:
            found["accuracy"] = float(np.mean(outputs.argmax(1) == targets))
            found["perplexity"] = metrics.perplexity(loss)
        elif self.name == "bce":
            limit = 0.5 if self.probabilities else 0.0
            found["accuracy"] = float(np.mean((outputs.reshape(targets.shape) > limit) == (targets > 0.5)))
        elif self.function is None:
            found |= metrics.regression(outputs.reshape(targets.shape), targets)
        return found

    def scores(self, outputs: Array) -> Array:
        """Probabilities (N, classes) of outputs."""
        if self.probabilities:
            return outputs.astype(np.float64)
        powers = np.exp(outputs.astype(np.float64) - outputs.max(1, keepdims=True))
        result: Array = powers / powers.sum(1, keepdims=True)
        return result


_LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "mse": ops.mse_loss,
    "l1": ops.l1_loss,
    "huber": ops.huber_loss,
    "bce": ops.binary_cross_entropy_with_logits,
}


def first(outputs: Any) -> Any:
    """The first of several outputs."""
    if isinstance(outputs, dict):
        return next(iter(outputs.values()))
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def make_objective(
    loss: str | Callable[..., Any], data: Data, smoothing: float, probabilities: bool = False
) -> Objective:
    """The objective of a loss's name or function for data. Raises InputError where targets are of the wrong type."""
    if callable(loss):
        return Objective(getattr(loss, "__name__", "own"), function=loss)
    whole = data.targets.dtype.kind in "iu"
    soft = data.targets.ndim == 2 and not whole and loss == "cross_entropy"
    name = loss if loss != "auto" else "cross_entropy" if whole else "mse"
    if name == "cross_entropy":
        if soft:
            return Objective(name, data.targets.shape[1], smoothing, probabilities)
        if not whole:
            raise InputError(
                "classes are needed for cross entropy",
                expected="labels, or integers",
                received=f"targets of {data.targets.dtype}",
                fix="give integer targets, or loss='mse'",
            )
        classes = len(data.labels) if data.labels is not None else int(data.targets.max(initial=0)) + 1
        return Objective(name, classes, smoothing, probabilities)
    if data.labels is not None:
        raise InputError(
            f"the loss {name} needs numbers", expected="numbers", received=f"labels such as {data.labels[0]!r}"
        )
    return Objective(name, probabilities=probabilities)
