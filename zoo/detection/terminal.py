"""A picture in the terminal, where it shows one: by kitty's or iTerm2's protocol, or as coloured half blocks."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_CHUNK = 4096  # kitty takes base64 in pieces of this length


def kind_of_terminal(stream: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> str | None:
    """How a terminal shows pictures: "kitty", "iterm", "blocks", or None where it does not, or is no terminal."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty() or environment.get("TERM", "dumb") == "dumb" or "NO_COLOR" in environment:
        return None
    if environment.get("TERM") == "xterm-kitty" or environment.get("TERM_PROGRAM") == "ghostty":
        return "kitty"
    if environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm"):
        return "iterm"
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return "blocks" if unicode and environment.get("COLORTERM") in ("truecolor", "24bit") else None


def in_terminal(image: Image, kind: str, columns: int = 60) -> str:
    """The text that shows a picture, at most `columns` wide, on a terminal of a kind."""
    small = image.convert("RGB")
    if kind == "blocks":
        small.thumbnail((columns, 2 * columns))
        return _blocks(np.asarray(small))
    small.thumbnail((10 * columns, 10 * columns))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    if kind == "iterm":
        return f"\033]1337;File=inline=1;size={len(stream.getvalue())}:{data}\a"
    pieces = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    heads = [("f=100,a=T," if i == 0 else "") + f"m={int(i < len(pieces) - 1)}" for i in range(len(pieces))]
    return "".join(f"\033_G{head};{piece}\033\\" for head, piece in zip(heads, pieces, strict=True))


def _blocks(pixels: Any) -> str:
    """Two pixels in each character: the upper half block's colour, and that behind it."""
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = [
            "\033[38;2;{};{};{}m\033[48;2;{};{};{}m▀".format(*above, *below)
            for above, below in zip(upper, lower, strict=True)
        ]
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines)
