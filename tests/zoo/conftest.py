"""Pictures and models that several tests of the zoo share."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from zoonet import zoo


@pytest.fixture(scope="session")
def digits() -> Any:
    """The embedded model; tests that change it load their own."""
    return zoo.load("digits")


@pytest.fixture(scope="session")
def text_picture() -> Any:
    """A function that writes a digit in PIL's own font: text_picture("4", size, ink, paper, mode)."""

    def picture(text: str, size: int = 60, ink: Any = "black", paper: Any = "white", mode: str = "RGB") -> Image.Image:
        image = Image.new(mode, (int(size * 1.3), int(size * 1.5)), paper)
        ImageDraw.Draw(image).text((size * 0.3, size * 0.1), text, fill=ink, font=ImageFont.load_default(size))
        return image

    return picture


@pytest.fixture
def picture(tmp_path: pathlib.Path) -> pathlib.Path:
    """A picture file of coloured noise."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    return path
