"""Print conversions between all formats: `python tests/conversion_table.py [NETWORK...]`, a Markdown table per network.

The rows are the formats converted from, the columns those converted to. A cell is the largest difference of the
outputs of the converted file from those of the network it began with, relative to the largest output: as zoonet loads
the file, without being told its architecture, and as ONNX Runtime runs .onnx and Keras .keras and .h5. In brackets
what the conversion said is lost. The status is 1 if a difference exceeds 1e-4 or a conversion fails.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
import warnings
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

from zoonet import zoo
from zoonet.ops.errors import ZoonetError

warnings.simplefilter("ignore")
TOLERANCE = 1e-4
NETWORKS = ("digits", "resnet20", "mobilenet_v2")
#: A name for each format that whole networks are converted from and to; one without suffix is a folder.
FORMATS = {
    "safetensors": "m.safetensors",
    "sharded": "m.safetensors.index.json",
    ".pt": "m.pt",
    ".npz": "m.npz",
    ".keras": "m.keras",
    ".h5": "m.h5",
    ".weights.h5": "m.weights.h5",
    ".onnx": "m.onnx",
    "folder": "m",
}


def network(name: str) -> zoo.Model:
    """The model, where its weights are in the package, or with random parameters and statistics of few classes."""
    if name == "digits":
        return zoo.load(name)
    model = zoo.create(name, seed=1, classes=7)
    rng = np.random.default_rng(2)
    for label, slot in model.network.slots().items():
        if label.endswith("running_mean"):
            slot.set(rng.uniform(-0.1, 0.1, slot.get().shape).astype(np.float32))
        elif label.endswith("running_var"):
            slot.set(rng.uniform(0.1, 0.2, slot.get().shape).astype(np.float32))
    return model


def example(model: zoo.Model) -> np.ndarray[Any, Any]:
    """A small input: (2, channels, height, width) of float32."""
    shape = model.input_shape
    return np.random.default_rng(3).standard_normal((2, *shape[-3:])).astype(np.float32)


def foreign(path: pathlib.Path, x: Any) -> Any:
    """The outputs as the library that owns the format has them; None where it does not run the file."""
    if path.suffix == ".onnx":
        from onnx_runtime import run, session_of

        return run(session_of(path), x)[0]
    if path.suffix == ".keras" or (path.suffix == ".h5" and not path.name.endswith(".weights.h5")):
        import keras

        model = keras.saving.load_model(path, compile=False)
        return keras.ops.convert_to_numpy(model(x.transpose(0, 2, 3, 1), training=False))
    return None


def difference(path: pathlib.Path, x: Any, expected: Any) -> float:
    """The largest difference of a file's outputs, by zoonet and by the owner of its format."""
    found = [np.asarray(zoo.load(path)(x)), foreign(path, x)]
    return max(float(np.abs(y - expected).max() / np.abs(expected).max()) for y in found if y is not None)


def cell(source: pathlib.Path, target: pathlib.Path, x: Any, expected: Any) -> tuple[str, bool]:
    """What stands in the table for one conversion, and whether it is good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = zoo.convert(source, target)
        found = difference(target, x, expected)
    except ZoonetError as error:
        return f"no: {error.message.splitlines()[0]}", False
    lost = f" ({'; '.join(report.lost)})" if report.lost else ""
    return f"{found:.0e}{lost}", report.agrees and found <= TOLERANCE


def main(arguments: list[str]) -> int:
    """Print the tables; 1 if a cell is not good."""
    good = []
    for name in arguments or NETWORKS:
        model = network(name)
        x = example(model)
        expected = np.asarray(model(x))
        assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max(), "constant outputs"
        print(f"{name}:\n\n| from \\ to | {' | '.join(FORMATS)} |\n|{'---|' * (len(FORMATS) + 1)}")
        with tempfile.TemporaryDirectory() as folder:
            first = pathlib.Path(folder) / "first.safetensors"
            model.save(first)
            for source, file in FORMATS.items():
                start = pathlib.Path(folder) / source.strip(".") / file
                start.parent.mkdir()
                zoo.convert(first, start, verify=False)
                cells = []
                for target, other in FORMATS.items():
                    text, passed = cell(start, start.parent / f"to-{target.strip('.')}" / other, x, expected)
                    cells.append(text)
                    good.append(passed)
                print(f"| {source} | {' | '.join(cells)} |", flush=True)
        print()
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
