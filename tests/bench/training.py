"""Steps per second of training beside PyTorch (eager): MLP, LeNet and ResNet-18 at 64 pixels, and peak memory.

    python tests/bench/training.py [--threads 2] [--rounds 11]

prints a Markdown table. A step is forward, cross entropy, backward, and an update by momentum or Adam.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
CASES = ("mlp", "lenet", "resnet18")


def networks(case: str) -> tuple[Any, Any, Any, Any]:
    """Ours, torch's with the same weights, inputs and targets."""
    import numpy as np
    import torch

    from zoonet import ops
    from zoonet.zoo import architectures, initialised_by
    from zoonet.zoo.layers import Conv2d, Linear, Sequential

    rng = np.random.default_rng(0)
    t = torch.nn

    class Flatten:
        def __call__(self, x: Any) -> Any:
            return ops.reshape(x, (x.shape[0], -1))

    def pool(x: Any) -> Any:
        return ops.max_pool(x, 2, 2)

    with initialised_by(0):
        if case == "mlp":
            x = rng.standard_normal((64, 64), np.float32)
            ours: Any = Sequential(Linear(64, 64), ops.relu, Linear(64, 64), ops.relu, Linear(64, 10))
            theirs: Any = t.Sequential(t.Linear(64, 64), t.ReLU(), t.Linear(64, 64), t.ReLU(), t.Linear(64, 10))
        elif case == "lenet":
            x = rng.standard_normal((64, 1, 28, 28), np.float32)
            convs = (Conv2d(1, 6, 5, bias=True), Conv2d(6, 16, 5, padding=0, bias=True))
            ours = Sequential(
                convs[0], ops.relu, pool, convs[1], ops.relu, pool, Flatten(),
                Linear(400, 120), ops.relu, Linear(120, 84), ops.relu, Linear(84, 10),
            )  # fmt: skip
            theirs = t.Sequential(
                t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.MaxPool2d(2), t.Conv2d(6, 16, 5), t.ReLU(), t.MaxPool2d(2),
                t.Flatten(), t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10),
            )  # fmt: skip
        else:
            import resnet_parity

            resnet_parity.torchvision_and_timm()
            import torchvision

            x = rng.standard_normal((16, 3, 64, 64), np.float32)
            ours = architectures.build("resnet18", seed=0, classes=10)
            theirs = torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict({n: torch.from_numpy(np.array(a)) for n, a in ours.state_dict().items()})
    return ours.train(), theirs.train(), x, rng.integers(0, 10, len(x))


def our_step(network: Any, x: Any, targets: Any, optimizer: str) -> Callable[[], float]:
    """A step as `model.train` makes it."""
    import numpy as np

    from zoonet import ops
    from zoonet.zoo.modules import assign
    from zoonet.zoo.train.objective import Objective
    from zoonet.zoo.train.optimizer_table import make_optimizer
    from zoonet.zoo.train.step import Gradients
    from zoonet.zoo.train.updates import Updates

    options = {"lr": 1e-3, "momentum": 0.9} if optimizer == "sgd" else {"lr": 1e-3}
    updates = Updates(make_optimizer(optimizer, **options), network.parameters())
    assign(network, updates.parameters)
    gradients = Gradients(network, Objective("cross_entropy", 10))
    key, one = ops.random_key(0), np.float32(1)

    def step() -> float:
        value, found, state = gradients(updates.parameters, dict(network.named_buffers()), x, targets, key, one)
        updates.step(found)
        assign(network, state)
        return float(value)

    return step


def torch_step(network: Any, x: Any, targets: Any, optimizer: str) -> Callable[[], float]:
    import torch

    rule = (
        torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        if optimizer == "sgd"
        else torch.optim.Adam(network.parameters(), lr=1e-3)
    )
    inputs, classes = torch.from_numpy(x), torch.from_numpy(targets)

    def step() -> float:
        rule.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs), classes)
        loss.backward()
        rule.step()
        return float(loss.detach())

    return step


def peak(case: str, which: str) -> None:
    """Print the peak memory of ten steps in this process, in MB."""
    ours, theirs, x, targets = networks(case)
    step = our_step(ours, x, targets, "sgd") if which == "zoonet" else torch_step(theirs, x, targets, "sgd")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10):
        step()
    print(round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "WHICH"))
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # before NumPy is imported
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads of one library that spin slow down the next
    sys.path.append(str(ROOT))
    if options.peak:
        peak(*options.peak)
        return
    import torch
    from compare import compare

    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), float32; steps per second, medians\n")
    print("| network | optimizer | zoonet | PyTorch | zoonet / PyTorch | growth of memory in MB: zoonet, PyTorch |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        grown = [
            subprocess.run(
                [sys.executable, __file__, "--peak", case, which], capture_output=True, check=True, text=True
            ).stdout.strip()
            for which in ("zoonet", "torch")
        ]
        for optimizer in ("sgd", "adam"):
            ours, theirs, x, targets = networks(case)
            steps = {
                "zoonet": our_step(ours, x, targets, optimizer),
                "torch": torch_step(theirs, x, targets, optimizer),
            }
            seconds = {name: median(found) for name, found in compare(steps, options.rounds, 2).items()}
            speed = {name: 1 / value for name, value in seconds.items()}
            print(
                f"| {case} | {optimizer} | {speed['zoonet']:.1f} | {speed['torch']:.1f} "
                f"| {speed['zoonet'] / speed['torch']:.2f} | {', '.join(grown)} |",
                flush=True,
            )


def median(seconds: Any) -> float:
    import statistics

    return statistics.median(seconds)


if __name__ == "__main__":
    main()
