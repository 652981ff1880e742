"""Draw examples/digit.png, a picture as of a pen on paper, and examples/digits.png, the figure of the README.

python examples/draw_digits.py
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoonet import zoo
from zoonet.zoo.digit_samples import draw

FOLDER = pathlib.Path(__file__).parent
Colour = tuple[int, int, int]


def photo(digit: int, ink: Colour, paper: Colour, seed: int, *, size: int = 160, part: float = 0.6) -> Image.Image:
    """A digit drawn with a random hand somewhere on paper that is lit from one side and grainy."""
    rng = np.random.default_rng(seed)
    box = int(part * size)
    weight = np.zeros((size, size), np.float32)
    top, left = rng.integers(0, size - box + 1, 2)
    weight[top : top + box, left : left + box] = draw(digit, rng, box, int(0.8 * box))
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    light = 0.85 + rng.uniform(-0.3, 0.3) * x + rng.uniform(-0.3, 0.3) * y
    colours = np.array(paper) + (np.array(ink) - np.array(paper)) * weight[:, :, None]
    pixels = colours * light[:, :, None] + rng.normal(0, 3, (size, size, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def figure(model: Any, pictures: list[Image.Image], tile: int = 96) -> Image.Image:
    """A column for each picture: the picture, what the network sees of it, and the answer."""
    result = Image.new("RGB", (len(pictures) * (tile + 8) - 8, 2 * tile + 8 + 28), "white")
    pen = ImageDraw.Draw(result)
    for column, picture in enumerate(pictures):
        left = column * (tile + 8)
        seen = Image.fromarray((255 * model.preprocessing(picture)[0]).astype(np.uint8))
        result.paste(picture.resize((tile, tile), Image.Resampling.LANCZOS), (left, 0))
        result.paste(seen.resize((tile, tile), Image.Resampling.NEAREST), (left, tile + 8))
        best = model.run(picture).top(1)[0]
        pen.text((left + 8, 2 * tile + 12), str(best), fill="black", font=ImageFont.load_default(18))
    return result


PICTURES = (
    (0, (250, 250, 240), (30, 60, 45), 1),
    (1, (200, 30, 40), (60, 160, 70), 2),
    (2, (40, 40, 40), (200, 200, 205), 4),
    (3, (255, 210, 60), (60, 40, 110), 5),
    (4, (30, 50, 140), (240, 232, 210), 3),
    (5, (20, 110, 60), (250, 245, 250), 6),
    (6, (90, 60, 30), (225, 190, 150), 8),
    (7, (230, 230, 255), (20, 20, 30), 9),
    (8, (150, 150, 150), (235, 235, 230), 10),
    (9, (250, 120, 160), (50, 50, 60), 11),
)

if __name__ == "__main__":
    drawn = [photo(*parameters) for parameters in PICTURES]
    drawn[4].save(FOLDER / "digit.png", optimize=True)
    figure(zoo.load("digits"), drawn).quantize(128).save(FOLDER / "digits.png", optimize=True)
