"""Boxes on pictures: colours by class, and text that can be read on any background."""

from __future__ import annotations

import colorsys
import os
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]


def class_color(index: int) -> Color:
    """A colour for a class: hues a golden angle apart, so that neighbours differ; bright, as boxes need to be."""
    hue = (0.02 + index * 0.6180339887) % 1.0
    lightness = (0.50, 0.62, 0.40)[index // 21 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(color: Color) -> Color:
    """Black or white, whichever can be read on the colour (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (n / 255 for n in color)]
    luminance = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def draw_boxes(
    image: Image,
    boxes: Any,
    texts: Sequence[str],
    colors: Sequence[Color],
    *,
    width: int | None = None,
    font_size: int | None = None,
    points: Any = None,
) -> Image:
    """A copy of a picture with boxes (n, 4) and the text of each; the first box is drawn last, over the others.

    width, font_size: in pixels; by the size of the picture where None. points: (n, K, 2) or None.
    """
    from PIL import ImageDraw

    result = image.convert("RGB") if image.mode != "RGB" else image.copy()
    side = (result.width * result.height) ** 0.5
    width = max(1 + (side >= 150), round(side / 260)) if width is None else width
    font = font_for("".join(texts), max(9, round(side / 42)) if font_size is None else font_size)
    draw = ImageDraw.Draw(result)
    texts = [_shown(draw, text, font, result.width - 2 * (width + 1)) for text in texts]
    order = range(len(texts) - 1, -1, -1)
    for i in order:
        _outline(draw, boxes[i], colors[i], width)
        for x, y in () if points is None else points[i].tolist():
            draw.ellipse((x - width, y - width, x + width, y + width), fill=colors[i], outline=ink_on(colors[i]))
    if font_size is None and draw.textbbox((0, 0), "Ag", font=font, anchor="la")[3] > 0.4 * result.height:
        return result  # text would hide the picture
    taken: list[tuple[float, float, float, float]] = []
    places = []
    for i in range(len(texts)):  # the best first, so that they get the best places
        place = _place(draw, boxes[i], texts[i], font, width, result.size, taken)
        taken.append(place)
        places.append(place)
    for i in order:
        left, top, right, bottom = places[i]
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colors[i])
        draw.text((left + width + 1, top + 1), texts[i], fill=ink_on(colors[i]), font=font, anchor="la")
    return result


#: Fonts with more characters than Pillow's own, in the order of trying; those that are installed.
_FONTS = (
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "arialuni.ttf",
    "msgothic.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "AppleSDGothicNeo.ttc",
    "Hiragino Sans GB.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "unifont.ttf",
    "arial.ttf",
)


def font_for(text: str, size: int) -> Any:
    """A font with most characters of a text: Pillow's own, else one that is installed or comes with matplotlib."""
    from PIL import ImageFont

    own = ImageFont.load_default(size)
    needed = "".join(sorted({c for c in text if ord(c) > 126}))
    best, least = own, len(_lacking(needed, own))
    for name in _FONTS if least else ():
        try:
            font = ImageFont.truetype(name, size)
        except (OSError, ImportError):
            font = _matplotlib_font(name, size)
        if font is not None and (count := len(_lacking(needed, font))) < least:
            best, least = font, count
        if not least:
            break
    return best


def _matplotlib_font(name: str, size: int) -> Any:
    from importlib.util import find_spec

    from PIL import ImageFont

    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        try:
            return ImageFont.truetype(os.path.join(folder, "mpl-data", "fonts", "ttf", name), size)
        except (OSError, ImportError):
            continue
    return None


def _lacking(text: str, font: Any) -> str:
    """The characters of a text that a font draws as it draws what no font has."""
    nothing = bytes(font.getmask("\U0010fffe"))
    return "".join(c for c in text if bytes(font.getmask(c)) == nothing)


def _shown(draw: Any, text: str, font: Any, room: float) -> str:
    """A text with what the font lacks in plain letters or as "?", on one line, cut to the room that there is."""
    text = " ".join(text.split())
    for c in _lacking("".join({c for c in text if ord(c) > 126}), font):
        plain = unicodedata.normalize("NFKD", c.casefold() if c.islower() else c).encode("ascii", "ignore").decode()
        text = text.replace(c, plain or "?")
    if draw.textlength(text, font=font) <= room:
        return text
    while text and draw.textlength(text + "...", font=font) > room:
        text = text[:-1]
    return text + "..."


def _outline(draw: Any, box: Any, color: Color, width: int) -> None:
    """A rectangle in the colour, with a thin line of the opposite lightness around it."""
    x1, y1, x2, y2 = (round(float(n)) for n in box)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    if width > 1 and x2 - x1 > 2 * width and y2 - y1 > 2 * width:
        inner = (x1 + width, y1 + width, x2 - width, y2 - width)
        draw.rectangle(inner, outline=ink_on(color), width=1)
    draw.rectangle((x1, y1, x2, y2), outline=color, width=width)


def _place(
    draw: Any, box: Any, text: str, font: Any, width: int, size: tuple[int, int], taken: Sequence[tuple[float, ...]]
) -> tuple[float, float, float, float]:
    """Where the text of a box goes: above it, inside it, or below it; the first free place in the picture."""
    _, _, right, bottom = draw.textbbox((0, 0), text, font=font, anchor="la")
    wide, high = right + 2 * (width + 1), bottom + 3
    x1, y1, x2, y2 = (float(n) for n in box)
    x = max(0.0, min(round(x1), size[0] - wide))
    others = max(0.0, min(round(x2) - wide, size[0] - wide))
    fits = [
        (x, y)
        for x, y in (
            (x, round(y1) - high),
            (x, round(y1)),
            (x, round(y2)),
            (others, round(y1) - high),
            (others, round(y2) - high),
            (x, round(y1) + high),
        )
        if 0 <= y <= size[1] - high
    ]
    for x_, y_ in fits:
        place = (x_, y_, x_ + wide, y_ + high)
        if not any(_overlap(place, other) for other in taken):
            return place
    x_, y_ = fits[0] if fits else (x, max(0.0, min(round(y1), size[1] - high)))
    return x_, y_, x_ + wide, y_ + high


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
