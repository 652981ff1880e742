"""The CIFAR ResNet-20 goes on training from its real weights: its loss stays low.

    python tests/recipes/cifar.py ../shared/assets

The pictures are tiles of photos, labelled by what the network itself is sure of, since the assets hold no CIFAR.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
from PIL import Image

from zoonet import zoo

SURE, MOST = 0.9, 60


def tiles(model: zoo.Model, photos: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Square tiles of photos, uint8 (N, 32, 32, 3), of which the model is sure, at most 60 of a class; its classes."""
    rng = np.random.default_rng(0)
    found = []
    for path in sorted(photos.rglob("*.jpg")):
        with Image.open(path) as image:
            image = image.convert("RGB")
        for _ in range(24):
            side = int(rng.integers(min(image.size) // 3, min(image.size)))
            left, top = rng.integers(image.width - side + 1), rng.integers(image.height - side + 1)
            found.append(np.asarray(image.resize((32, 32), box=(left, top, left + side, top + side))))
    x = np.stack(found)
    results = model.run(x, batch=128)
    kept, counts = [], np.zeros(10, int)
    for index, result in enumerate(results):
        if result.score > SURE and counts[result.index] < MOST:
            kept.append(index)
            counts[result.index] += 1
    return x[kept], np.array([results[i].index for i in kept])


def main(assets: str, **options: Any) -> tuple[float, Any, Any]:
    """Train on; the loss before, the history, and that of a network from scratch."""
    folder = pathlib.Path(assets)
    model = zoo.load(folder / "resnet-cifar10" / "resnet20-12fca82f.th", arch="resnet20")
    x, y = tiles(model, folder / "coco-permissive" / "images")
    before = model.evaluate((x, y))["loss"]
    settings = {"epochs": 3, "batch": 32, "augment": "shift", "head": "keep", "run": False, **options}
    history = model.train((x, y), freeze="*bn*", lr=1e-3, **settings)  # tiles have other statistics than CIFAR
    other = zoo.create("resnet20")
    scratch = other.train((x, y), **{**settings, "run": False, "head": "auto"})
    print(f"{len(x)} tiles; loss before {before:.3f}\ngoing on:\n{history}\nfrom scratch:\n{scratch}")
    return before, history, scratch


if __name__ == "__main__":
    main(*sys.argv[1:])
