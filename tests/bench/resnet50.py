"""ResNet-50 forward and training step by zoonet, PyTorch and ONNX Runtime, in turn in one process on the same input.

Run: python tests/bench/resnet50.py [--threads 2] [--rounds 11] [--size 224] [--spin]

Prints Markdown tables of medians and minima, the largest difference of outputs, and zoonet's peak memory.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]

MEMORY = """
import sys
import numpy as np
from zoonet import ops, zoo
network = zoo.create("resnet50").network
size = int(sys.argv[1])
program = ops.compile(ops.trace(network, ops.tensor_type((8, 3, size, size))))
program(np.zeros((8, 3, size, size), np.float32))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def onnx_session(network: Any, x: Any, threads: int, spin: bool, folder: str) -> Any:
    """An ONNX Runtime session of a torch network."""
    import onnxruntime
    import torch

    path = os.path.join(folder, f"resnet50-{len(x)}.onnx")
    torch.onnx.export(network, (torch.from_numpy(x),), path, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def forward(batch: int, size: int, threads: int, rounds: int, spin: bool) -> None:
    """Print the comparison of inference."""
    import numpy as np
    import resnet_parity
    import torch
    from compare import compare, report

    from zoonet import ops

    theirs, ours, x = resnet_parity.pair("resnet50", size, batch)
    program = ops.compile(ops.trace(ours, ops.tensor_type(x.shape)))
    tensor = torch.from_numpy(x)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        theirs.run(tensor, False)  # in evaluation mode from now on
        session = onnx_session(theirs.network, x, threads, spin, folder)
        contenders: dict[str, Callable[[], object]] = {
            "zoonet": lambda: program(x),
            "torch": lambda: theirs.run(tensor, False),
            "onnxruntime": lambda: session.run(None, {"x": x}),
        }
        outputs = [np.asarray(run()).reshape(batch, -1) for run in contenders.values()]
        seconds = compare(contenders, rounds)
    print(report(f"ResNet-50 forward, batch {batch}, {size}×{size}, float32, {threads} thread(s)", seconds))
    differences = (f"{resnet_parity.relative(outputs[0], other):.1e}" for other in outputs[1:])
    print(f"largest relative difference of outputs: {' (torch), '.join(differences)} (onnxruntime)\n")


def training(size: int, threads: int, rounds: int) -> None:
    """Print the comparison of a training step: forward, cross entropy, backward, plain SGD; batch 8."""
    import numpy as np
    import resnet_parity
    import torch
    from compare import compare, report

    from zoonet import ops
    from zoonet.zoo.modules import assign, value_and_grad

    theirs, ours, x = resnet_parity.pair("resnet50", size, 8)
    labels = np.arange(8) * 100
    ours.train()
    step = value_and_grad(ours, lambda x: ops.cross_entropy(ours(x), labels))
    optimizer = torch.optim.SGD(theirs.network.parameters(), lr=1e-3)
    tensor, targets = torch.from_numpy(x), torch.from_numpy(labels)

    def zoonet_step() -> None:
        _, gradients, state = step(x)
        parameters = ours.parameters()
        assign(ours, {name: parameters[name] - np.float32(1e-3) * g for name, g in gradients.items()} | state)

    def torch_step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs.run(tensor, True), targets).backward()
        optimizer.step()

    seconds = compare({"zoonet": zoonet_step, "torch": torch_step}, rounds, 1)
    print(report(f"ResNet-50 training step, batch 8, {size}×{size}, float32, {threads} thread(s)", seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--training-size", type=int, default=128)
    parser.add_argument("--spin", action="store_true", help="let idle threads spin, the libraries' default")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # before NumPy is imported
    if not options.spin:  # threads of one library that spin slow down the next
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    sys.path.append(str(ROOT))
    import torch

    torch.set_num_threads(options.threads)
    for batch in (1, 8):
        forward(batch, options.size, options.threads, options.rounds, options.spin)
    training(options.training_size, options.threads, max(3, options.rounds // 2))
    peak = int(
        subprocess.run([sys.executable, "-c", MEMORY, str(options.size)], capture_output=True, check=True).stdout
    )
    print(f"zoonet's peak memory, forward at batch 8: {peak / 1e6:.2f} GB, interpreter and weights included")


if __name__ == "__main__":
    main()
