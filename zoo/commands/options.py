"""Options that several commands have."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from zoonet.ops.errors import ArgumentError, FormatError

TASK_HELP = "What the model is for, where its file does not say."
PREPROCESSING_HELP = (
    "How pictures are prepared for a graph whose file does not say: JSON, or a .json file, such as "
    '{"resize": [32, 32], "crop": null, "mean": [0, 0, 0], "std": [1, 1, 1]}; then it takes pictures.'
)


SIZE_HELP = "Detectors: pixels of the network's input, a number or HEIGHTxWIDTH."


def size_of(text: str | None) -> int | tuple[int, int] | None:
    """A size as `SIZE_HELP` says. Raises ArgumentError."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isascii() and part.strip().isdigit() and len(part) < 9 for part in parts):
        raise ArgumentError("--size is wrong", expected="a number such as 384, or 384x640", received=text[:80])
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def purpose(task: str | None, preprocessing: str | None) -> dict[str, Any]:
    """The arguments of `zoo.load` that say what a model is for. Raises ArgumentError."""
    if preprocessing is None:
        return {"task": task}
    return {"task": task or "image-classification", "preprocessing": _preprocessing(preprocessing)}


def _preprocessing(text: str) -> Any:
    from zoonet.zoo.classification import preprocessing_of

    expected = 'JSON such as {"resize": [224, 224], "crop": null}, or a .json file'
    try:
        written = text if text.lstrip().startswith("{") else pathlib.Path(text).read_text(encoding="utf-8")
        config = json.loads(written)
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError("--preprocessing is wrong", expected=expected, received=error) from None
    if not isinstance(config, dict):
        raise ArgumentError("--preprocessing is wrong", expected=expected, received=text[:80])
    try:
        return preprocessing_of(config or {"kind": "image"}, "--preprocessing")
    except FormatError as error:
        raise ArgumentError("--preprocessing is wrong", expected=expected, received=error.received) from None
