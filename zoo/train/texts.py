"""Texts as data: tokens with their mask for classifiers, windows of tokens for language models."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, InputError, MissingFileError
from zoonet.zoo.train.data import Data, open_data

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = ["call_on_tokens", "open_texts", "relabelled_task", "takes_texts"]

Array = Any
_LARGEST = 1 << 30  # bytes of a text
CONTEXT = 256  # tokens of a window, or of a text, at most


def takes_texts(model: Model) -> bool:
    """Whether a model's task is about texts."""
    return hasattr(model.task, "tokenizer")


def open_texts(model: Model, source: Any, columns: tuple[str, str] | None) -> Data:
    """Data for a model on text. Raises ArgumentError for a task that cannot be trained.

    Classification: labelled texts, as `open_data` finds them (a .csv with text and label, a folder of .txt per class,
    pairs). Generation: a .txt file, a folder of them, a text, or a list of texts, which become windows of tokens.
    """
    if model.task.name == "text-classification":
        return _classified(model, open_data(source, columns=columns))
    if model.task.name == "text-generation":
        return _windows(model, _read(source))
    raise ArgumentError(
        f"a model for {model.task.name} cannot be trained",
        expected="a model for classification, of pictures or texts, for generation, or on arrays",
    )


def call_on_tokens(network: Any, inputs: Array) -> Any:
    """A network on what `open_texts` makes of texts: tokens (N, T), or tokens and mask (N, 2, T)."""
    return network(inputs) if inputs.ndim == 2 else network(inputs[:, 0], inputs[:, 1])


def _limit(model: Model) -> int:
    return min(CONTEXT, int(getattr(model.network.config, "longest", CONTEXT)))  # type: ignore[attr-defined]


def _classified(model: Model, data: Data) -> Data:
    texts = [_text_of(item, data.name(i)) for i, item in enumerate(data.inputs)]
    found = model.task.tokenizer.batch(texts, max_tokens=_limit(model))  # type: ignore[attr-defined]
    return replace(data, inputs=np.stack([found.tokens, found.mask], 1), names=[text[:80] for text in texts])


def _text_of(item: Any, name: str) -> str:
    if isinstance(item, os.PathLike):
        return _read_file(pathlib.Path(item))
    if not isinstance(item, str):
        raise InputError(f"{name} is no text", expected="a text, or a .txt file", received=type(item).__name__)
    return item


def _windows(model: Model, texts: Sequence[str]) -> Data:
    """Inputs (N, T) and targets (N, T), the tokens that follow; texts are one after the other."""
    tokens = [token for text in texts for token in model.task.tokenizer.encode(text)]  # type: ignore[attr-defined]
    length = min(_limit(model), max(1, len(tokens) // 4))
    count = (len(tokens) - 1) // length
    if count < 2:
        raise InputError("the text is too short to train on", expected="at least nine tokens", received=len(tokens))
    array = np.array(tokens[: count * length + 1], np.int64)
    inputs, targets = array[:-1].reshape(count, length), array[1:].reshape(count, length)
    return Data(inputs, targets, source="the text")


def _read(source: Any) -> list[str]:
    if isinstance(source, str) and _is_path(source):
        source = pathlib.Path(source)
    if isinstance(source, os.PathLike):
        path = pathlib.Path(source)
        if not path.exists():
            raise MissingFileError("there is no such data", received=str(path), fix="check the path")
        files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"the folder {path} holds no texts", expected="files such as .txt")
        return [_read_file(file) for file in files]
    texts = [source] if isinstance(source, str) else source
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError("the data are no texts", expected="a .txt file, a folder of them, or texts")
    if isinstance(source, str) and len(source) < 256 and source.endswith(".txt"):
        raise MissingFileError("there is no such data", received=source, fix="check the path")
    return list(texts)


def _is_path(text: str) -> bool:
    try:
        return "\n" not in text and pathlib.Path(text).exists()
    except (OSError, ValueError):  # a text too long for a name, or with characters that no name has
        return False


def _read_file(path: pathlib.Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise FormatError(f"{path} is too large a text", expected=f"at most {_LARGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"the text {path} cannot be read", expected="UTF-8", received=error) from None


def relabelled_task(task: Any, labels: Sequence[str]) -> Any:
    """A copy of a task with other labels."""
    changed = copy(task)
    if hasattr(task, "tokenizer"):
        changed.settings = {**task.settings, "id2label": {str(i): label for i, label in enumerate(labels)}}
    else:
        changed.labels = tuple(labels)
    return changed


def classes_second(outputs: Any) -> Any:
    """Scores (N, T, classes) as (N, classes, T), the order of axes that losses take."""
    return ops.transpose(outputs, (0, 2, 1))
