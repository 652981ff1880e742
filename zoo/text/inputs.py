"""Arrays of token numbers that a network is called on, checked before it computes with them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import InputError
from zoonet.ops.types import BOOL, INTEGER, kind_of
from zoonet.zoo.modules import Module

#: Arguments of a network's forward that are arrays, and that whose shape each has.
_SHAPED_AS = {
    "tokens": "tokens",
    "mask": "tokens",
    "token_types": "tokens",
    "positions": "tokens",
    "written": "written",
    "written_mask": "written",
}


def check_inputs(network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arrays of a call by the names of the network's arguments. Raises InputError where they do not fit."""
    parameters = inspect.signature(network.forward).parameters
    names = [name for name in parameters if name in _SHAPED_AS]
    needed = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    if not len(needed) <= len(inputs) <= len(names):
        rest = [f"[{name}]" for name in names[len(needed) :]]
        expected = ", ".join([*needed, *rest])
        raise InputError("the model takes other arrays", expected=expected, received=f"{len(inputs)} of them")
    arrays = dict(zip(names, [x if ops.is_array(x) else np.asarray(x) for x in inputs], strict=False))
    limits = _limits(network)
    for name, array in arrays.items():
        kinds = (INTEGER, BOOL) if "mask" in name else (INTEGER,)
        if array.ndim != 2 or kind_of_array(array) not in kinds:
            received = f"{array.dtype}{list(array.shape)}"
            raise InputError(f"the model takes token numbers: {name}", expected="integers (N, T)", received=received)
        wanted = arrays[_SHAPED_AS[name]].shape
        if array.shape != wanted or array.size == 0 or array.shape[0] != arrays["tokens"].shape[0]:
            expected = f"one row per text, at least one token, and the shape of {_SHAPED_AS[name]}"
            raise InputError(f"{name} is of a wrong shape", expected=expected, received=list(array.shape))
        if name in limits:
            _check_range(name, array, limits[name])
    return tuple(arrays.values())


def kind_of_array(array: Any) -> Any:
    """The kind of an array's numbers; None for strings and objects."""
    return kind_of(array.dtype) if array.dtype.kind in "biufcV" else None


def _limits(network: Module) -> dict[str, int]:
    """What the numbers of each array are below."""
    config: Any = network.config  # type: ignore[attr-defined]
    limits = {
        "tokens": config.vocabulary,
        "written": getattr(config, "written", config.vocabulary),
        "token_types": getattr(config, "token_types", 1 << 31),
        "positions": getattr(network, "positions", None) or 1 << 31,
    }
    return {name: int(limit) for name, limit in limits.items()}


def _check_range(name: str, array: Any, limit: int) -> None:
    least, most = int(array.min()), int(array.max())
    if least < 0 or most >= limit:
        fix = "use the tokenizer that belongs to the model" if name in ("tokens", "written") else None
        received = f"{least} to {most}"
        raise InputError(
            f"{name} has numbers that there are not", expected=f"0 to {limit - 1}", received=received, fix=fix
        )
