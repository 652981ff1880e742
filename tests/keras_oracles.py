"""Keras as an oracle: models with random weights, saved by Keras, read by zoonet, compared in outputs and gradients."""

from __future__ import annotations

import os
import pathlib
import warnings
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch

from zoonet import ops
from zoonet.formats import keras as keras_files
from zoonet.ops.tracing import evaluate_graph
from zoonet.zoo import graphs
from zoonet.zoo.modules import value_and_grad

FORMATS = (".keras", ".h5")
TOLERANCE = 1e-4


def floats(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Names of layers begin anew in each test; a module that imports this has it."""
    keras.utils.clear_session(free_memory=False)


def scrambled(model: Any, seed: int = 0) -> Any:
    """The model with random weights; variances are positive, counters stay."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path or not variable.dtype.startswith("float"):
            continue
        shape = tuple(variable.shape)
        fan = max(1, int(np.prod(shape[:-1])))
        values = generator.standard_normal(shape) / np.sqrt(fan if len(shape) > 1 else 4)
        if "variance" in variable.path:
            values = np.abs(values) + 0.5
        if variable.path.endswith("gamma"):
            values = values + 1
        variable.assign(values.astype(np.float32))
    return model


def saved(model: Any, folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """The path of the model in a file of this suffix, written by Keras."""
    path = folder / f"model{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    return path


def outputs_of(model: Any, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """The inputs as torch has them, and what Keras computes."""
    given = [torch.tensor(x, requires_grad=x.dtype == np.float32) for x in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = model(given[0] if len(given) == 1 else given, training=False)
    return given, keras.tree.flatten(result)


def close(ours: Any, theirs: Any, what: str, tolerance: float = TOLERANCE, least: float = 1e-3) -> float:
    """Assert that the largest difference is within the tolerance, relative to the largest number (or `least`).

    The relative difference is returned.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} and not {theirs.shape}"
    largest = np.abs(theirs).max(initial=0.0)
    difference = np.abs(ours - theirs).max(initial=0.0)
    assert difference <= tolerance * max(largest, least), f"{what}: off by {difference} of {largest}"
    return float(difference / max(largest, least))


def check(
    model: Any, inputs: list[Any], folder: pathlib.Path, formats: tuple[str, ...] = FORMATS, gradients: bool = True
) -> tuple[float, float | None]:
    """Save, read and compare with Keras: outputs in each format; gradients of inputs and weights in the first.

    The largest relative differences of outputs and of gradients are returned.
    """
    worst, of_gradients = 0.0, None
    given, theirs = outputs_of(model, inputs)
    expected = [y.detach().numpy() for y in theirs]
    for number, suffix in enumerate(formats):
        path = saved(model, folder, suffix)
        loaded = graphs.load(path, task=None, device="cpu", dtype=None, given={})
        results = loaded(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        assert len(results) == len(expected)
        for y, wanted, port in zip(results, expected, loaded.network.config.outputs, strict=True):
            worst = max(worst, close(y, wanted, f"{suffix}: {port}"))
            if port.shape is not None:
                assert len(port.shape) == y.ndim
                assert all(n in (None, m) for n, m in zip(port.shape, y.shape, strict=True)), (port, y.shape)
        if gradients and number == 0:
            of_gradients = compare_gradients(model, given, theirs, inputs, loaded.network)
    return worst, of_gradients


def compare_gradients(model: Any, given: list[Any], theirs: list[Any], inputs: list[Any], network: Any) -> float | None:
    """Gradients of a weighted sum of the outputs, by the weights and by floating inputs; the largest difference."""
    generator = np.random.default_rng(7)
    factors = [generator.standard_normal(tuple(y.shape)).astype(np.float32) for y in theirs]
    differentiable = [(y, f) for y, f in zip(theirs, factors, strict=True) if y.requires_grad]
    if not differentiable:
        return None
    worst = 0.0
    for variable in model.trainable_variables:
        variable.value.grad = None
    sum((y * torch.tensor(f)).sum() for y, f in differentiable).backward()

    def loss(*arrays: Any) -> Any:
        results = network(*arrays)
        results = results if isinstance(results, tuple) else (results,)
        total: Any = 0.0
        for y, factor in zip(results, factors, strict=True):
            total = ops.add(total, ops.sum(ops.multiply(y, factor)))
        return total

    _, gradients, _ = value_and_grad(network, loss)(*inputs)
    ours = dict(network.named_parameters())
    for variable in model.trainable_variables:
        value, gradient = variable.value.detach().numpy(), variable.value.grad
        name = next(n for n, array in ours.items() if array.shape == value.shape and np.array_equal(array, value))
        wanted = np.zeros_like(value) if gradient is None else gradient.numpy()
        worst = max(worst, close(gradients[name], wanted, f"gradient of {name}", 2e-4, 1e-2))
    places = [i for i, x in enumerate(inputs) if x.dtype == np.float32 and given[i].grad is not None]
    if places:
        by_inputs = ops.grad(loss, argnums=tuple(places))(*inputs)
        for place, gradient in zip(places, by_inputs, strict=True):
            worst = max(worst, close(gradient, given[place].grad.numpy(), f"gradient of input {place}", 2e-4))
    return worst


def load(path: pathlib.Path) -> Any:
    """The model that zoonet reads."""
    return keras_files.load(path)


def run(model: Any, *inputs: Any) -> tuple[Any, ...]:
    """The outputs of a model that zoonet read."""
    return evaluate_graph(model.graph, *inputs)
