"""LeNet on MNIST: 8,000 digits to train on, 2,000 to measure; and its loss beside PyTorch's, step by step.

    python tests/recipes/mnist.py ../shared/assets/mnist-t10k

prints the accuracy reached and, where PyTorch is installed, the largest difference of the first 50 losses.
"""

from __future__ import annotations

import gzip
import importlib.util
import pathlib
import sys
from typing import Any

import numpy as np

from zoonet import ops, zoo
from zoonet.zoo.layers import Conv2d, Linear
from zoonet.zoo.train import SGD, Adam

EPOCHS, BATCH = 14, 64
OPTIMIZER = SGD(0.02, momentum=0.9, nesterov=True, weight_decay=5e-4)


class LeNet(zoo.Module):
    """LeNet-5 (LeCun et al., 1998): (N, 1, 28, 28) -> scores (N, 10). smooth: with tanh and means, as it was then;
    otherwise with ReLU and maxima."""

    def __init__(self, smooth: bool = False) -> None:
        self.conv1, self.conv2 = Conv2d(1, 6, 5, bias=True), Conv2d(6, 16, 5, padding=0, bias=True)
        self.fc1, self.fc2, self.fc3 = Linear(400, 120), Linear(120, 84), Linear(84, 10)
        self._bend, self._pool = (ops.tanh, ops.avg_pool) if smooth else (ops.relu, ops.max_pool)

    def forward(self, x: Any) -> Any:
        x = self._pool(self._bend(self.conv1(x)), 2, 2)  # (N, 6, 14, 14)
        x = self._pool(self._bend(self.conv2(x)), 2, 2)  # (N, 16, 5, 5)
        x = ops.reshape(x, (x.shape[0], -1))
        return self.fc3(self._bend(self.fc2(self._bend(self.fc1(x)))))


def read(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, float32 (10000, 1, 28, 28), normalised, and classes (10000,)."""
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    x = np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return (x - 0.1307) / 0.3081, np.frombuffer(labels, np.uint8).astype(np.int64)


def train(x: np.ndarray, y: np.ndarray, epochs: int = EPOCHS, **options: Any) -> tuple[zoo.Model, Any]:
    """A LeNet trained on the first 8,000, and its history."""
    with zoo.initialised_by(0):
        model = zoo.wrap(LeNet(), shape=(1, 28, 28))
    settings = {"optimizer": OPTIMIZER, "augment": "shift", "run": False, **options}
    history = model.train((x[:8000], y[:8000]), validation=(x[8000:], y[8000:]), epochs=epochs, batch=BATCH, **settings)
    return model, history


def losses_beside_torch(
    x: np.ndarray,
    y: np.ndarray,
    optimizer: str = "sgd",
    dtype: str = "float32",
    smooth: bool = False,
    steps: int = 50,
) -> tuple[list[float], list[float]]:
    """The losses of the first steps by zoonet's trainer and by PyTorch, from the same weights on the same batches.

    optimizer: "sgd", the recipe's own, or "adam".
    In float32 with ReLU and maxima, a number that is rounded to the other side of zero (4e-7 was seen) sends a gradient
    elsewhere, and Adam makes a whole step of it where a unit is rarely active: PyTorch with oneDNN then differs by 2 %
    from PyTorch without it, or in float64. SGD at a moderate rate, a smooth network, and float64 are well conditioned.
    """
    import torch

    from zoonet.zoo.train.data import Data
    from zoonet.zoo.train.loader import Loader

    with zoo.initialised_by(0):
        model = zoo.wrap(LeNet(smooth).to(dtype=dtype))
    x = x.astype(dtype)
    t, f = torch.nn, torch.nn.functional
    bend, pool = (torch.tanh, f.avg_pool2d) if smooth else (torch.relu, f.max_pool2d)

    class Theirs(t.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = t.Conv2d(1, 6, 5, padding=2), t.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = t.Linear(400, 120), t.Linear(120, 84), t.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = pool(bend(self.conv2(pool(bend(self.conv1(x)), 2))), 2)
            return self.fc3(bend(self.fc2(bend(self.fc1(x.flatten(1))))))

    theirs = Theirs().to(getattr(torch, dtype))
    theirs.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in model.network.state_dict().items()})
    samples = steps * BATCH
    groups = [  # as in the trainer, biases do not decay
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": OPTIMIZER.weight_decay},
        {"params": [p for p in theirs.parameters() if p.ndim < 2]},
    ]
    ours, oracle = {
        "sgd": (OPTIMIZER, torch.optim.SGD(groups, OPTIMIZER.lr, momentum=OPTIMIZER.momentum, nesterov=True)),
        "adam": (Adam(1e-3), torch.optim.Adam(theirs.parameters(), 1e-3)),
    }[optimizer]
    history = model.train(
        (x[:samples], y[:samples]),
        validation=None,
        epochs=1,
        batch=BATCH,
        optimizer=ours,
        schedule="constant",
        warm_up=0,
        run=False,
        progress=False,
    )
    order = Loader(Data(x[:samples], y[:samples]), lambda i, _: x[i], BATCH).order(0).reshape(steps, BATCH)
    expected = []
    for batch in order:
        oracle.zero_grad()
        loss = f.cross_entropy(theirs(torch.from_numpy(x[batch])), torch.from_numpy(y[batch]))
        loss.backward()
        oracle.step()
        expected.append(float(loss.detach()))
    return [record["loss"] for record in history.steps], expected


def main(folder: str) -> float:
    """Train and print the accuracy, and losses beside PyTorch's."""
    x, y = read(pathlib.Path(folder))
    if importlib.util.find_spec("torch") is not None:
        ours, theirs = losses_beside_torch(x, y)
        gap = np.max(np.abs(np.array(ours) / np.array(theirs) - 1))
        span = f"{ours[0]:.4f} to {ours[-1]:.4f}"
        print(f"the first {len(ours)} losses, from {span}, differ from PyTorch's by {gap:.1e} at most")
    model, history = train(x, y)
    accuracy: float = model.evaluate((x[8000:], y[8000:]))["accuracy"]
    print(f"{history}\nLeNet on 2,000 held-out digits of MNIST: {100 * accuracy:.2f} %")
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
