"""Linear regression: the weights that made the data are found again.

python examples/linear_regression.py
"""

from __future__ import annotations

import numpy as np

from zoonet import ops, zoo


def main() -> float:
    """Train, print, and give the largest error of a weight."""
    rng = np.random.default_rng(0)
    truth = np.array([1.0, -2.0, 0.5], np.float32)
    x = rng.normal(size=(500, 3)).astype(np.float32)
    y = x @ truth + 3 + 0.1 * rng.normal(size=500).astype(np.float32)

    model = zoo.wrap(lambda p, x: ops.matmul(x, p["w"]) + p["b"], {"w": np.zeros(3, np.float32), "b": 0.0})
    history = model.train((x, y), epochs=40, lr=0.05, run=False, progress=False)

    found = model.network.values["w"]
    print(f"r2 {history.best['val_r2']:.4f}, weights {np.round(found, 3)}, bias {float(model.network.values['b']):.3f}")
    return float(np.abs(found - truth).max())


if __name__ == "__main__":
    main()
