"""Train the digits model on scikit-learn's scans: `python -m zoonet.zoo.train_digits` writes data/digits.safetensors.

Every fifth scan is held out and never trained on. The others, and digits drawn from strokes, are warped anew for each
epoch. The seed is fixed: the same machine and NumPy give the same file again, others the same but for rounding.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, ZoonetError
from zoonet.zoo.digit_samples import draw, warp
from zoonet.zoo.digits import DigitPreprocessing
from zoonet.zoo.ink import find_ink, fit_box
from zoonet.zoo.model import Card, Model
from zoonet.zoo.storage import create
from zoonet.zoo.train.optimizers import SGD

Array = np.ndarray[Any, Any]
EPOCHS, BATCH = 52, 64
DRAWN = 3000
RATE, DECAY = 0.05, 5e-4
HELD_OUT = 5  # every fifth scan
_BOX, _SIZE = 36, 48  # resolution of the samples before they are warped
TARGET = pathlib.Path(__file__).parent / "data" / "digits.safetensors"


def scans() -> tuple[Array, Array]:
    """The 1,797 scans of scikit-learn: uint8 (N, 8, 8), light ink on black paper, and their digits (N,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ArgumentError(
            "training the digits model needs the scans in scikit-learn",
            received="no module sklearn",
            fix='pip install scikit-learn, or the extra: pip install "zoonet[test]"',
        ) from None
    data = load_digits()
    return (data.images * (255 / 16)).round().astype(np.uint8), data.target


def train(images: Array, targets: Array, *, epochs: int, seed: int, drawn: int = DRAWN) -> Model:
    """A digits model trained on scans, uint8 (N, 8, 8), and on `drawn` digits drawn from strokes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    preprocessing = DigitPreprocessing()
    model = create("digitnet", seed=seed)

    def written(image: Array) -> Array:
        return fit_box(find_ink(Image.fromarray(image).convert("RGB")), _BOX, _SIZE)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(written, images))
    digits = np.arange(drawn) % 10
    ink = np.stack([*found, *(draw(int(digit), rng, _SIZE, _BOX) for digit in digits)])
    labels = np.concatenate([targets, digits])

    def warped(sample: Array, rng: np.random.Generator) -> Array:
        return warp(sample, rng, preprocessing.box, preprocessing.size)[None]

    model.train(
        (ink, labels),
        validation=None,
        run=False,
        preprocessed=True,
        augment=warped,
        epochs=epochs,
        batch=BATCH,
        optimizer=SGD(RATE, DECAY, momentum=0.9, nesterov=True),
        label_smoothing=0.02,
        last="drop",
        seed=seed,
    )
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure on the scans that were held out, and write the weights."""
    parser = argparse.ArgumentParser(prog="python -m zoonet.zoo.train_digits", description=main.__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, default=TARGET, help="default: the file in the package")
    options = parser.parse_args(arguments)
    images, targets = scans()
    test = np.arange(len(images)) % HELD_OUT == HELD_OUT - 1
    model = train(images[~test], targets[~test], epochs=options.epochs, seed=options.seed)
    answers = np.array([result.index for result in model.run(list(images[test]), batch=128)])
    right = int((answers == targets[test]).sum())
    model.card = Card(
        name="digits",
        source="trained by python -m zoonet.zoo.train_digits on the Optical Recognition of Handwritten Digits data set "
        "(E. Alpaydin and C. Kaynak, UCI, 1998), as in scikit-learn's load_digits, and on strokes drawn by the script",
        licence="Apache-2.0 (data: CC BY 4.0)",
        accuracy=f"{100 * right / test.sum():.2f} % top-1 ({right} of {test.sum()} held-out scans), held out: every "
        f"scan of load_digits whose index leaves {HELD_OUT - 1} when divided by {HELD_OUT}",
        notes="one digit per picture, of any size and colour, dark on light or light on dark",
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    model.save(options.output)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, accuracy {model.card.accuracy}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ZoonetError as error:
        sys.exit(f"train_digits: {error}")
