"""A multi-layer perceptron: two spirals, which no straight line tells apart.

python examples/mlp.py
"""

from __future__ import annotations

import numpy as np

from zoonet import ops, zoo
from zoonet.zoo.layers import Linear, Sequential


def spirals(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 2) of two spirals around each other, and which of them they are of."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    angle = np.sqrt(rng.uniform(0.05, 1, count)) * 3 * np.pi
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * (angle * (1 - 2 * classes))[:, None] / 8
    return (points + 0.02 * rng.normal(size=points.shape)).astype(np.float32), classes


def main() -> float:
    """Train, print, and give the accuracy on points that were held back."""
    with zoo.initialised_by(0):
        network = Sequential(Linear(2, 64), ops.tanh, Linear(64, 64), ops.tanh, Linear(64, 2))
    model = zoo.wrap(network, labels=("one", "other"))
    history = model.train(spirals(1000), epochs=60, lr=0.01, batch=32, run=False, progress=False)
    print(history)
    return history.best["val_accuracy"]


if __name__ == "__main__":
    main()
