"""From the object that a PyTorch (or other pickled) file holds to named tensors: wrappers, nesting, prefixes.

The rule, in this order:
1. A dict whose values are tensors is a state dict.
2. A dict with an entry of `WRAPPER_KEYS` that holds tensors is a checkpoint: the first such entry is taken, again
   by this rule, and the rest (epoch, optimizer state, hyperparameters, other state dicts) becomes metadata, with
   "state_dict_key" naming the entry and "other_state_dicts" the further ones. `key` chooses another.
3. So is a dict with exactly one entry that holds tensors, if that entry is a dict with dotted names, or itself a
   checkpoint.
4. Any other nesting of dicts, lists and modules is flattened, the parts of a name joined by dots; what is not a
   tensor, and the states of optimizers beside it, become metadata.
5. Prefixes that wrappers put before every name (`module.` by DataParallel, `_orig_mod.` by torch.compile, and, inside
   a checkpoint, `model.` by Lightning) are dropped if all names share them; `Checkpoint.original_names` keeps the
   names of the file, `metadata["prefix"]` what was dropped. A bare state dict keeps `model.`: there it is a real
   name. The counter of an AveragedModel becomes metadata.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import Checkpoint, LazyTensor, as_lazy
from zoonet.formats.pickle_names import Inert
from zoonet.ops.errors import ArgumentError, FormatError, UnsafeFileError

WRAPPER_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params_ema",
    "params",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema",
)
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_CHECKPOINT_PREFIXES = (*_WRAPPER_PREFIXES, "model.")
_DERIVED = "_flat_weights"  # in TorchScript, a second list of the parameters of a recurrent layer
_AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel, beside "module."
_MAX_DEPTH = 64
_MOST_ENTRIES = 4  # one inside the other, until the weights
_MOST_WRAPPERS = 16
_MOST_WORDS = 1 << 20


def checkpoint_from_object(value: Any, format: str, file_name: str, opcodes: int, key: str | None = None) -> Checkpoint:
    """Apply the rule of this module to what a file holds.

    opcodes: how many opcodes the pickle took; it bounds how large a structure may unfold, since a few bytes of
    pickle can describe billions of items.

    key: the entry (dotted where nested) to take the weights from, instead of the rule's choice.
    Raises FormatError where there is no tensor, ArgumentError where `key` names nothing.
    """
    walker = _Walker(8 * opcodes + 10_000)
    metadata: dict[str, Any] = {}
    taken = []
    selected = value
    if key is not None:
        for part in key.split("."):
            selected = _enter(selected, part, key, metadata, walker)
        taken = [key]
    else:
        while len(taken) < _MOST_ENTRIES:
            found = _wrapped(selected, walker)
            if found is None:
                break
            selected = _enter(selected, found, found, metadata, walker)
            taken.append(found)
    tensors: dict[str, LazyTensor] = {}
    rest = walker.flatten(selected, tensors)
    if not tensors and walker.holds_tensors(selected):  # the state of an optimizer, and nothing besides
        walker.skips_optimizers = False
        rest = walker.flatten(selected, tensors)
    if isinstance(rest, dict):
        metadata.update(rest)
    elif rest is not None:
        metadata["value"] = rest
    if not tensors and not _is_empty(selected):
        raise FormatError(f"{file_name} holds no tensors", received=type(value).__name__)
    averaged = tensors.get(_AVERAGED)
    if averaged is not None and averaged.ndim == 0 and len(tensors) > 1:
        others = {name: tensor for name, tensor in tensors.items() if name != _AVERAGED}
        if all(name.startswith("module.") for name in others):
            tensors, metadata[_AVERAGED] = others, averaged.load().item()
    if taken:
        metadata["state_dict_key"] = ".".join(taken)
    prefix, names = strip_prefix(tensors, _CHECKPOINT_PREFIXES if taken else _WRAPPER_PREFIXES)
    if prefix:
        metadata["prefix"] = prefix
    return Checkpoint(
        {new: tensors[old] for new, old in names.items()},
        metadata,
        format,
        {new: old for new, old in names.items() if new != old},
    )


def strip_prefix(names: Iterable[str], prefixes: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Drop prefixes that all names share: return what was dropped and {new name: old name}."""
    result = {name: name for name in names}
    dropped = ""
    for _ in range(_MOST_WRAPPERS if result else 0):
        for prefix in prefixes:
            if all(name.startswith(prefix) and len(name) > len(prefix) for name in result):
                dropped += prefix
                result = {name[len(prefix) :]: old for name, old in result.items()}
                break
        else:
            break
    return dropped, result


def _enter(value: Any, part: str, key: str, metadata: dict[str, Any], walker: _Walker) -> Any:
    """Step into one entry of a dict and put the others into the metadata."""
    if not isinstance(value, dict) or part not in value:
        raise ArgumentError(f"the file has no entry {key!r}", expected="one of " + _names(value), received=repr(part))
    others = [str(name) for name, other in value.items() if name != part and walker.holds_tensors(other)]
    others = [name for name in others if name in WRAPPER_KEYS]
    if others:
        metadata.setdefault("other_state_dicts", []).extend(others)
    metadata.update((str(name), walker.plain(other)) for name, other in value.items() if name != part)
    return value[part]


def _names(value: Any) -> str:
    return ", ".join(repr(name) for name in list(value)[:20]) if isinstance(value, dict) else "nothing"


def _wrapped(value: Any, walker: _Walker, depth: int = 1) -> str | None:
    """The entry of a checkpoint that holds its weights, or None."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return None
    for name in WRAPPER_KEYS:
        inner = value.get(name)
        if isinstance(inner, (dict, Inert)) and walker.holds_tensors(inner):
            # A module tree written as nested dicts may have a part called "model" beside other parts with weights.
            siblings = [other for other in value if other != name and "." in other and is_tensor(value[other])]
            if not siblings:
                return name
    holding: list[str] = [name for name, inner in value.items() if walker.holds_tensors(inner)]
    if len(holding) == 1:
        inner = value[holding[0]]
        dotted = isinstance(inner, dict) and any(isinstance(name, str) and "." in name for name in inner)
        if dotted or (depth < _MOST_ENTRIES and _wrapped(inner, walker, depth + 1) is not None):
            return holding[0]
    return None


def _is_optimizer(value: Any) -> bool:
    """Whether a value is the state of an optimizer of PyTorch, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and _is_optimizer(item) for item in value)
    return isinstance(value, dict) and len(value) == 2 and "state" in value and "param_groups" in value


def is_tensor(value: Any) -> bool:
    """Whether a value of the file is an array of numbers."""
    return isinstance(value, LazyTensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc")


def _is_empty(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple)) and not value


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """Named parts of a container, or None for what is not one."""
    if isinstance(value, dict):
        return [(str(name), item) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(value)]
    if isinstance(value, Inert):
        return _parts_of_object(value)
    return None


def _parts_of_object(value: Inert) -> list[tuple[str, Any]]:
    state = value.state if isinstance(value.state, dict) else {}
    if "_modules" not in state:
        parts = [pair for part in (state, value.items, value.elements) for pair in _children(part) or ()]
        return [(name, item) for name, item in parts if name != _DERIVED]
    skipped = state.get("_non_persistent_buffers_set")
    names = skipped if isinstance(skipped, (set, list, tuple)) else ()
    hidden = {name for name in names if isinstance(name, str)}
    parts = []
    for group in ("_parameters", "_buffers", "_modules"):
        entries = state.get(group)
        if isinstance(entries, dict):
            parts.extend((str(name), item) for name, item in entries.items() if name not in hidden)
    return parts


class _Walker:
    """Walks the object of a file with bounded depth and a bounded number of steps."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._items = 0
        self._holds: dict[int, bool] = {}
        self._words_left = _MOST_WORDS
        self.skips_optimizers = True

    def _count(self, depth: int) -> None:
        self._items += 1
        if depth > _MAX_DEPTH or self._items > self._budget:
            raise UnsafeFileError(
                "the file describes a structure too deep or too large to be weights",
                expected=f"at most {_MAX_DEPTH} levels and {self._budget} items",
            )

    def holds_tensors(self, value: Any, depth: int = 0) -> bool:
        """Whether a tensor is anywhere inside; each object is looked at once."""
        if is_tensor(value):
            return True
        known = self._holds.get(id(value))
        if known is not None:
            return known
        children = _children(value)
        if children is None:
            return False
        self._count(depth)
        self._holds[id(value)] = False
        result = any(self.holds_tensors(child, depth + 1) for _, child in children)
        self._holds[id(value)] = result
        return result

    def flatten(self, value: Any, tensors: dict[str, LazyTensor], name: str = "", depth: int = 0) -> Any:
        """Collect tensors under dotted names; return what else there is, as plain data (None for nothing)."""
        self._count(depth)
        if is_tensor(value):
            unique = name or "tensor"
            if unique in tensors:
                raise FormatError(f"two tensors of the file are named {unique!r}")
            tensors[unique] = as_lazy(value)
            return None
        children = _children(value)
        skipped = depth and self.skips_optimizers and _is_optimizer(value)
        if children is None or skipped or not self.holds_tensors(value):
            return None if isinstance(value, Inert) and value.state is not None else self.plain(value, depth)
        rest = {}
        for part, child in children:
            other = self.flatten(child, tensors, f"{name}.{part}" if name else part, depth + 1)
            if other is not None:
                rest[part] = other
        return None if isinstance(value, Inert) else rest or None

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Plain data for metadata: containers, numbers, strings, LazyTensor for arrays with axes, dicts for objects."""
        self._count(depth)
        if is_tensor(value):
            tensor = as_lazy(value)
            return tensor if tensor.ndim else tensor.load().item()
        if isinstance(value, np.ndarray):
            return self._words(value)
        if isinstance(value, dict):
            return {
                name if isinstance(name, (str, int, float)) else str(name): self.plain(item, depth + 1)
                for name, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted((self.plain(item, depth + 1) for item in value), key=repr)
        if isinstance(value, Inert):
            return self._plain_object(value, depth)
        return value if isinstance(value, (str, bytes, int, float, complex, type(None))) else str(value)

    def _words(self, value: np.ndarray[Any, Any]) -> Any:
        """An array of text or dates as lists of strings, unless there are more of them than metadata is for."""
        self._words_left -= value.size
        if self._words_left < 0:
            return f"an array of {value.dtype} {value.shape}"
        return value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()

    def _plain_object(self, value: Inert, depth: int) -> Any:
        if value.class_name.startswith("pathlib."):
            return str(PurePosixPath(*(part for part in value.arguments if isinstance(part, str))))
        if isinstance(value.state, dict) or value.items:
            state = value.state if isinstance(value.state, dict) else {}
            return {**self.plain(state, depth + 1), **self.plain(value.items, depth + 1)}
        if value.elements:
            return self.plain(value.elements, depth + 1)
        return {"class": value.class_name, "arguments": self.plain(list(value.arguments), depth + 1)}
