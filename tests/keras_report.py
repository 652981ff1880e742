"""Print how far Keras models that zoonet reads are from Keras: `python tests/keras_report.py`, a Markdown table.

The rows are the layers of tests/formats/test_keras_layers.py and the networks of test_keras_applications.py beside it,
with random weights, saved by Keras as .keras and .h5; differences are relative to the largest number. The status is 1
if one exceeds the tolerance. `--layers` leaves out the networks, which take a minute.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import tempfile
import warnings
from typing import Any

import keras_oracles
import numpy as np

warnings.simplefilter("ignore")
FOLDER = pathlib.Path(__file__).parent / "formats"


def module(name: str) -> Any:
    """A test module, whose tables are read."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def row(name: str, model: Any, x: Any, folder: pathlib.Path, gradients: bool) -> bool:
    """Print one row; whether it is within the tolerance."""
    try:
        outputs, slopes = keras_oracles.check(keras_oracles.scrambled(model), [x], folder, gradients=gradients)
    except AssertionError as error:
        print(f"| {name} | {error} | |")
        return False
    print(f"| {name} | {outputs:.1e} | {'-' if slopes is None else f'{slopes:.1e}'} |", flush=True)
    return True


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a row is out of tolerance."""
    import keras

    print("| layer or network | outputs, both formats | gradients |\n|---|---|---|")
    good = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for label, (make, shape) in module("test_keras_layers").LAYERS.items():
            x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
            good.append(row(label, keras.Sequential([keras.Input(shape), make()]), x, folder, True))
        networks = module("test_keras_applications")
        for label, size, scales in [] if "--layers" in arguments else [*networks.QUICK, *networks.SLOW]:
            build = getattr(keras.applications, label)
            model = build(weights=None, input_shape=(size, size, 3), classes=11, classifier_activation=None)
            x = np.random.default_rng(3).standard_normal((2, size, size, 3)).astype(np.float32)
            good.append(row(label, model, np.abs(x) * 100 if scales else x, folder, False))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
