"""Train the digits model on scikit-learn's scans: `python -m zoonet.zoo.train_digits` writes data/digits.safetensors.

Every fifth scan is held out and never trained on. The others, and digits drawn from strokes, are warped anew for each
epoch. The seed is fixed: the same machine and NumPy give the same file again, others the same but for rounding.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ZoonetError
from zoonet.zoo import architectures
from zoonet.zoo.classification import ImageClassification
from zoonet.zoo.digit_samples import draw, warp
from zoonet.zoo.digits import DigitPreprocessing
from zoonet.zoo.ink import find_ink, fit_box
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import assign, value_and_grad

Array = np.ndarray[Any, Any]
EPOCHS, BATCH = 80, 64
DRAWN = 6000  # a quarter of them in each epoch
RATE, MOMENTUM, DECAY, SMOOTHING = 0.05, 0.9, 5e-4, 0.02
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


def training_step(model: Model, velocity: dict[str, Array], x: Array, labels: Array, rate: float) -> float:
    """One step of stochastic gradient descent with Nesterov momentum; returns the loss."""
    network = model.network

    def loss(x: Array, labels: Array) -> Any:
        return ops.cross_entropy(network(x), labels, label_smoothing=SMOOTHING)

    value, gradients, state = value_and_grad(network, loss)(x, labels)
    parameters = network.parameters()
    updated = {}
    for name, gradient in gradients.items():
        gradient = gradient + (DECAY * parameters[name] if parameters[name].ndim > 1 else 0)
        velocity[name] = MOMENTUM * velocity.get(name, 0) + gradient
        updated[name] = parameters[name] - np.float32(rate) * (gradient + MOMENTUM * velocity[name])
    assign(network, updated | state)
    return float(value)


def train(images: Array, targets: Array, *, epochs: int, seed: int, drawn: int = DRAWN) -> Model:
    """A digits model trained on scans, uint8 (N, 8, 8), and on `drawn` digits drawn from strokes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    preprocessing = DigitPreprocessing()
    network = architectures.build("digitnet", seed=seed)
    model = Model(network, "digitnet", ImageClassification(preprocessing, "0123456789"))
    written = [fit_box(find_ink(Image.fromarray(image).convert("RGB")), _BOX, _SIZE) for image in images]
    velocity: dict[str, Array] = {}
    digits = np.arange(drawn) % 10
    ink = np.stack([*written, *(draw(int(digit), rng, _SIZE, _BOX) for digit in digits)])
    labels = np.concatenate([targets, digits])
    per_epoch = (len(written) + drawn // 4) // BATCH
    steps, step, started = epochs * per_epoch, 0, time.perf_counter()
    network.train()
    for epoch in range(epochs):
        quarter = len(written) + rng.permutation(drawn)[: drawn // 4]
        order = rng.permutation(np.concatenate([np.arange(len(written)), quarter]))
        losses = []
        for chosen in order[: per_epoch * BATCH].reshape(per_epoch, BATCH):
            x = warp(ink[chosen], rng, preprocessing.box, preprocessing.size)[:, None]
            warm_up, cosine = min(1.0, (step + 1) / 100), (1 + math.cos(math.pi * step / steps)) / 2
            losses.append(training_step(model, velocity, x, labels[chosen], RATE * warm_up * cosine))
            step += 1
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {seconds:.0f} s", file=sys.stderr, flush=True)
    network.eval()
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
