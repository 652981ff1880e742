"""Fine-tuning MobileNet ×0.25 from ImageNet on blood cells cut from microscope pictures, beside training from scratch.

    python tests/recipes/blood_cells.py ../shared/assets /tmp/cells

cuts the cells out of the annotated pictures, one folder per class, and prints the accuracy of three ways of training at
equal steps: from ImageNet's weights, from these with a frozen backbone, and from scratch.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from zoonet import zoo

EPOCHS, BATCH, SIZE = 6, 16, 96
MOST = 80  # cells of a class


def cut_cells(pictures: pathlib.Path, target: pathlib.Path) -> dict[str, int]:
    """Cut the annotated cells out of BCCD's pictures into target/CLASS; how many of each."""
    counts: dict[str, int] = {}
    for path in sorted((pictures / "Annotations").glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        taken: dict[str, int] = {}
        for number, item in enumerate(root.iter("object")):
            kind = item.findtext("name") or ""
            box = [int(item.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
            wide = min(box[2] - box[0], box[3] - box[1]) >= 12
            if not wide or counts.get(kind, 0) >= MOST or taken.get(kind, 0) >= 2:
                continue
            with Image.open(pictures / "JPEGImages" / f"{path.stem}.jpg") as image:
                cell = image.crop(box)
            (target / kind).mkdir(parents=True, exist_ok=True)
            cell.convert("RGB").save(target / kind / f"{path.stem}-{number}.png")
            counts[kind] = counts.get(kind, 0) + 1
            taken[kind] = taken.get(kind, 0) + 1
    return counts


def models(assets: pathlib.Path) -> dict[str, tuple[zoo.Model, dict[str, Any]]]:
    """The starting points, and settings of each."""
    preprocessing = zoo.ImagePreprocessing(resize=(SIZE, SIZE), crop=None)
    weights = assets / "mobilenet025-imagenet" / "mobilenetV1X0.25_pretrain.tar"
    return {
        "pretrained": (zoo.load(weights, preprocessing=preprocessing), {}),
        "frozen backbone": (zoo.load(weights, preprocessing=preprocessing), {"freeze": "backbone"}),
        "from scratch": (zoo.create("mobilenetv1_025", preprocessing=preprocessing, slope=0.1), {}),
    }


def compare(assets: pathlib.Path, cells: pathlib.Path, epochs: int = EPOCHS, **options: Any) -> dict[str, Any]:
    """The best record of each way."""
    found = {}
    for name, (model, settings) in models(assets).items():
        history = model.train(cells, epochs=epochs, batch=BATCH, validation=0.3, run=False, **settings, **options)
        found[name] = history.best
    return found


def main(assets: str, target: str) -> None:
    """Cut the cells, train three times, and print the figures."""
    counts = cut_cells(pathlib.Path(assets) / "blood-cells", pathlib.Path(target))
    print(counts)
    for name, best in compare(pathlib.Path(assets), pathlib.Path(target)).items():
        print(f"{name}: accuracy {best['val_accuracy']:.3f}, loss {best['val_loss']:.3f} (epoch {best['epoch']})")


if __name__ == "__main__":
    main(*sys.argv[1:])
