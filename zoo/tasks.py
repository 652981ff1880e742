"""Tasks: what turns a network into a model that takes what people have and gives answers.

A task holds what belongs to it (preprocessing and labels, a tokenizer) and runs the network on inputs of its kind.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zoonet.ops.errors import ArgumentError, FormatError

if TYPE_CHECKING:
    from zoonet.ops.types import TensorType
    from zoonet.zoo.model import Model
    from zoonet.zoo.modules import Module

__all__ = ["ALIASES", "TASKS", "Task", "check_options", "has_option", "make_task", "task_class"]


class Task(Protocol):
    """One kind of task. name: its name in `TASKS` and in configuration files. unit: what it calls several inputs.

    Its class also has `from_config(config, network, architecture, file, **given)`: the task of a network as a
    configuration has it, or as the architecture usually has it where that is silent. given: objects in the place of
    what the configuration says (labels, preprocessing, tokenizer, …), by keywords of its own. file: where the
    configuration comes from, for messages. It raises FormatError for a malformed configuration, ArgumentError for given
    objects that do not fit the network.
    """

    name: str
    unit: str

    def to_config(self) -> dict[str, Any]:
        """Plain data from which `from_config` of the class makes the task again."""

    def run(self, model: Model, source: Any) -> Any:
        """The results for inputs as people have them; keyword arguments are the task's own."""

    def from_arguments(self, arguments: Sequence[str]) -> Any:
        """The source for `run` that arguments on a command line stand for. Raises as `run` does for bad ones."""

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arrays of a call, made to fit the network where that loses nothing. Raises InputError."""

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """The types of the usual inputs for one item."""


#: Where each task is: module of zoonet.zoo and class, imported when it is used.
TASKS = {
    "image-classification": ("classification", "ImageClassification"),
    "object-detection": ("detection.task", "ObjectDetection"),
    "arrays": ("arrays", "Arrays"),
    "text-embedding": ("text.tasks", "TextEmbedding"),
    "text-classification": ("text.tasks", "TextClassification"),
    "fill-mask": ("text.tasks", "FillMask"),
    "question-answering": ("text.spans", "QuestionAnswering"),
    "token-classification": ("text.spans", "TokenClassification"),
    "text-generation": ("text.generation", "TextGeneration"),
    "text-to-text": ("text.generation", "TextToText"),
}
#: Shorter names that are understood as well.
ALIASES = {"classification": "image-classification", "detection": "object-detection"}


def task_class(name: str) -> Any:
    """The class of a task by its name. Raises ArgumentError."""
    name = ALIASES.get(name, name)
    if name not in TASKS:
        raise ArgumentError("there is no such task", expected=", ".join(TASKS), received=repr(name))
    module, attribute = TASKS[name]
    return getattr(importlib.import_module(f"zoonet.zoo.{module}"), attribute)


def make_task(
    name: str, config: Mapping[str, Any], network: Module, architecture: str, file: str, given: Mapping[str, Any]
) -> Task:
    """The task of a name for a network, by `from_config` of its class; see `Task`.

    Items of `given` that are None are left out. Raises FormatError for an unknown name, ArgumentError for an unknown
    item.
    """
    name = ALIASES.get(name, name)
    if name not in TASKS:
        raise FormatError(f"{file} is of an unknown task", expected=", ".join(TASKS), received=repr(name))
    chosen = {key: value for key, value in given.items() if value is not None}
    cls = task_class(name)
    check_options(cls.from_config, chosen, f"the task {name}", fixed=4)
    result: Task = cls.from_config(config, network, architecture, file, **chosen)
    return result


def check_options(function: Any, options: Mapping[str, Any], what: str, fixed: int) -> None:
    """Raise ArgumentError for an option that the function has no parameter for. fixed: parameters before them."""
    known = list(inspect.signature(function).parameters)[fixed:]
    for key in options:
        if key not in known:
            raise ArgumentError(f"{what} has no option {key!r}", expected=", ".join(known) or "no options")


def has_option(function: Any, option: str) -> bool:
    """True if the function has a parameter of this name."""
    return option in inspect.signature(function).parameters
