"""The facade: load, create, list and run models.

    from zoonet import zoo
    model = zoo.load("digits")
    model.run("picture.png").top(3)

Everything is imported on first use, so that `import zoonet.zoo` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoonet.zoo.conversion import Conversion as Conversion
    from zoonet.zoo.conversion import convert as convert
    from zoonet.zoo.detection.results import Detections as Detections
    from zoonet.zoo.exporting import export as export
    from zoonet.zoo.listing import list as list
    from zoonet.zoo.model import Card as Card
    from zoonet.zoo.model import Model as Model
    from zoonet.zoo.modules import Module as Module
    from zoonet.zoo.modules import functional_call as functional_call
    from zoonet.zoo.modules import initialised_by as initialised_by
    from zoonet.zoo.modules import value_and_grad as value_and_grad
    from zoonet.zoo.preprocessing import ImagePreprocessing as ImagePreprocessing
    from zoonet.zoo.results import Classification as Classification
    from zoonet.zoo.results import Prediction as Prediction
    from zoonet.zoo.results import Results as Results
    from zoonet.zoo.sources import download as download
    from zoonet.zoo.storage import create as create
    from zoonet.zoo.storage import load as load

#: Where each public name is.
_HOMES = {
    "Card": "model",
    "Detections": "detection.results",
    "Classification": "results",
    "Conversion": "conversion",
    "ImagePreprocessing": "preprocessing",
    "Model": "model",
    "Module": "modules",
    "Prediction": "results",
    "Results": "results",
    "convert": "conversion",
    "create": "storage",
    "download": "sources",
    "export": "exporting",
    "functional_call": "modules",
    "initialised_by": "modules",
    "list": "listing",
    "load": "storage",
    "value_and_grad": "modules",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoonet.zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"zoonet.zoo.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:  # type: ignore[valid-type]
    return sorted({*globals(), *_HOMES})
