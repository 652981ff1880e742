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
