"""An autoencoder: pictures of one bright spot, 64 pixels each, through three numbers and back.

python examples/autoencoder.py
"""

from __future__ import annotations

import numpy as np

from zoonet import ops, zoo
from zoonet.zoo.layers import Linear, Sequential


def spots(count: int, seed: int = 0) -> np.ndarray:
    """Pictures (count, 64) of 8×8 pixels."""
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(1, 6, (2, count, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4).reshape(count, 64).astype(np.float32)


def main() -> float:
    """Train, print, and give the share of the variance of new pictures that comes back."""
    with zoo.initialised_by(0):
        encode = Sequential(Linear(64, 32), ops.relu, Linear(32, 3))
        decode = Sequential(Linear(3, 32), ops.relu, Linear(32, 64))
    model = zoo.wrap(Sequential(encode, decode))
    x = spots(1000)
    model.train((x, x), epochs=40, lr=0.005, run=False, progress=False)  # what goes in is what comes out
    new = spots(200, seed=1)
    result = model.evaluate((new, new))
    print(result)
    return result["r2"]


if __name__ == "__main__":
    main()
