"""What zoonet writes as ONNX, measured: every network of the zoo against ONNX Runtime.

    python tests/onnx_export_report.py [PATTERN]

prints a Markdown table: nodes, size, and the largest relative differences of outputs, of ONNX Runtime and of our own
import of the file.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
import onnx
from onnx_runtime import session_of

from zoonet import zoo
from zoonet.zoo import architectures

SPATIAL = {"input": {0: "batch", 2: "height", 3: "width"}}
#: Networks for pictures of one size; besides them those whose padding depends on whether a side is odd ("same").
FIXED = ("digit", "vit", "deit")


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference over the largest number."""
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())


def row(name: str, model: Any, folder: pathlib.Path, opset: int) -> str:
    """A line of the first table."""
    path, rng = folder / "m.onnx", np.random.default_rng(0)
    if hasattr(model.task, "has_tokenizer"):
        model.save(path, opset=opset)
        x: tuple[Any, ...] = (rng.integers(0, model.network.config.vocabulary, (2, 9)), np.ones((2, 9), np.int64))
        x = (*x, np.zeros((2, 9), np.int64))
        expected = model.network(*x[: len(session_of(path).get_inputs())])
    else:
        fixed = name.startswith(FIXED)
        model.save(path, opset=opset, dynamic=None if fixed else SPATIAL)
        x = (rng.normal(size=(2, *(model.input_shape if fixed else (3, 64, 64)))).astype(np.float32),)
        expected = model(*x)
    session = session_of(path)
    ports = [port.name for port in session.get_inputs()]
    found = session.run(None, dict(zip(ports, x, strict=False)))[0]
    again = zoo.load(path).network(*x[: len(ports)])
    nodes = len(onnx.load(path).graph.node)
    size = path.stat().st_size / 1e6
    errors = f"{difference(found, expected):.1e} | {difference(again, expected):.1e}"
    return f"| {name} | {opset} | {nodes} | {size:.1f} | {errors} |"


def other_row(name: str, folder: pathlib.Path, opset: int) -> str:
    """A line for a detector or a network on text, as test_export_of_all.py has them."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "zoo"))
    import test_export_of_all as others

    detects = architectures.task_of(name) == "object-detection"
    path = folder / "m.onnx"
    found = others.outputs_of(*(others.detector(name) if detects else others.on_text(name)), path)
    ours, theirs, again = map(list, zip(*found, strict=True)) if name.startswith("rtdetr") else found[0]
    measured = others.difference_of_queries if name.startswith("rtdetr") else difference
    label = name if detects else f"{name} (small)"
    errors = f"{measured(theirs, ours):.1e} | {measured(again, ours):.1e}"
    return f"| {label} | {opset} | {len(onnx.load(path).graph.node)} | {path.stat().st_size / 1e6:.1f} | {errors} |"


def encoders() -> list[tuple[str, Any]]:
    """Small encoders of each family, as the tests have them."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent / "zoo" / "text"))
    import test_exporting

    made = [(family, head) for family in test_exporting.FAMILIES for head in test_exporting.TASKS]
    return [(f"{family} ({head})", test_exporting.encoder(family, head)) for family, head in made]


def main(pattern: str = "*") -> None:
    """Print the tables."""
    print("| network | opset | nodes | MB | ONNX Runtime | imported again |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in architectures.names(pattern):
            if architectures.task_of(name) == "image-classification":
                print(row(name, zoo.create(name, seed=0), pathlib.Path(folder), 17), flush=True)
            else:
                print(other_row(name, pathlib.Path(folder), 17), flush=True)
        for name, model in encoders() if pattern == "*" else []:
            print(row(name, model, pathlib.Path(folder), 17), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
