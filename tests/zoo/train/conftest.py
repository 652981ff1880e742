"""Small data that several tests of training share."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from PIL import Image
from train_data import shapes

from zoonet import zoo
from zoonet.zoo.model import Model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder per class: disc, bar, cross; 16 pictures each."""
    root = tmp_path_factory.mktemp("shapes")
    for number, (picture, kind) in enumerate(zip(*shapes(48), strict=True)):
        target = root / ("disc", "bar", "cross")[kind]
        target.mkdir(exist_ok=True)
        Image.fromarray(picture).save(target / f"{number}.png")
    return root


@pytest.fixture
def small() -> Any:
    """A function that makes a small model for pictures: small(seed, classes)."""

    def make(seed: int = 0, classes: int = 10) -> Model:
        preprocessing = zoo.ImagePreprocessing(resize=(16, 16), crop=None)
        return zoo.create("resnet20", seed=seed, classes=classes, width=4, preprocessing=preprocessing)

    return make
