"""Logistic regression: three clouds of points, told apart by straight lines.

python examples/logistic_regression.py
"""

from __future__ import annotations

import numpy as np

from zoonet import ops, zoo


def main() -> float:
    """Train, print, and give the accuracy on points that were held back."""
    rng = np.random.default_rng(0)
    classes = np.arange(600) % 3
    centres = np.array([[0, 3], [-3, -2], [3, -2]])
    x = (centres[classes] + rng.normal(size=(600, 2))).astype(np.float32)

    parameters = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32)}
    model = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]) + p["b"], parameters)
    history = model.train((x, classes), epochs=20, lr=0.05, run=False, progress=False)

    print(history)
    print(model.evaluate((x, classes)))
    return history.best["val_accuracy"]


if __name__ == "__main__":
    main()
