"""Sets of parameters as flat arrays, and optimizers that change them in place.

updates = Updates(AdamW(lr=1e-3), network.parameters(), groups=[no_decay()])
assign(network, updates.parameters)     # views of the flat arrays: the network sees each step
updates.step(gradients, factor=schedule(updates.steps))
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.devices import array_module
from zoonet.ops.errors import ArgumentError, StateDictError
from zoonet.ops.types import is_floating
from zoonet.zoo.train.optimizer import Optimizer

__all__ = ["Average", "Group", "Updates", "global_norm", "layer_decay", "matches", "no_decay"]

Array = Any
Names = str | Iterable[str] | Callable[[str], bool]
_CHUNK = 1 << 15  # numbers that are updated at once on the CPU, so that what a rule computes stays in the cache


def matches(patterns: Names) -> Callable[[str], bool]:
    """A test of parameter names: by shell patterns ("layer1.*"; a module's name stands for all below), or as given."""
    if callable(patterns):
        return patterns
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    return lambda name: any(fnmatch.fnmatchcase(name, p) or name.startswith(f"{p}.") for p in listed)


@dataclass(frozen=True)
class Group:
    """Parameters that are updated in another way than the rest.

    names: which, by patterns or a function of the name; or `vectors` for all with one axis or none (biases and norms).
    scale: factor of the learning rate. options: fields of the optimizer that differ, such as weight_decay=0.0.
    """

    names: Names = "*"
    scale: float = 1.0
    vectors: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, name: str, array: Array) -> bool:
        """Whether a parameter is in the group."""
        return matches(self.names)(name) and (array.ndim < 2 or not self.vectors)


def no_decay(names: Names = "*") -> Group:
    """The group of all biases and norms, without weight decay."""
    return Group(names, vectors=True, options={"weight_decay": 0.0})


def layer_decay(names: Sequence[str], decay: float) -> Callable[[str], float]:
    """Factors of the learning rate by depth: 1 for the last top-level part of a network, `decay` for the one before, …

    names: of parameters in the order of the network. A part is what stands before the first number or the second dot.
    """
    parts: dict[str, int] = {}
    for name in names:
        parts.setdefault(_part(name), len(parts))
    return lambda name: decay ** (len(parts) - 1 - parts[_part(name)])


def _part(name: str) -> str:
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if second.isdigit() else first


def _with(optimizer: Optimizer, options: Mapping[str, Any]) -> Optimizer:
    """The optimizer with other numbers. Raises ArgumentError for options that it does not have."""
    known = [item.name for item in fields(optimizer)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ArgumentError(f"{type(optimizer).__name__} has no {unknown[0]!r}", expected=", ".join(known))
    return replace(optimizer, **options)


@dataclass
class _Bucket:
    """Parameters of one group, dtype and device, one after the other in flat arrays."""

    optimizer: Optimizer
    scale: float
    places: dict[str, tuple[int, int, tuple[int, ...]]]
    flat: Array
    gradient: Array
    slots: dict[str, Any]  # by slot flat arrays, or by parameter their slots where the rule is not elementwise

    def views(self, flat: Array) -> dict[str, Array]:
        return {name: flat[start:stop].reshape(shape) for name, (start, stop, shape) in self.places.items()}


class Updates:
    """An optimizer over named parameters, which it holds in flat arrays and changes in place.

    parameters: floating arrays by name; they are copied. groups: the first that holds a parameter says how it differs;
    `scales`, a function of the name, multiplies the rates further. Raises ArgumentError where there is no parameter.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, Array],
        groups: Sequence[Group] = (),
        scales: Callable[[str], float] | None = None,
    ) -> None:
        if not parameters:
            raise ArgumentError("there is nothing to train", expected="at least one parameter", fix="freeze fewer")
        self.optimizer = optimizer
        self.steps = 0
        members: dict[Any, list[str]] = {}
        for name, array in parameters.items():
            group = next((i for i, g in enumerate(groups) if g.holds(name, array)), -1)
            scale = (groups[group].scale if group >= 0 else 1.0) * (scales(name) if scales else 1.0)
            members.setdefault((group, scale, str(array.dtype), ops.device_of(array)), []).append(name)
        own = {-1: optimizer, **{i: _with(optimizer, g.options) for i, g in enumerate(groups)}}
        self._buckets = [
            _bucket(own[key[0]], key[1], {n: parameters[n] for n in names}) for key, names in members.items()
        ]

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters by name, views of the flat arrays: they change with each step."""
        return {name: view for bucket in self._buckets for name, view in bucket.views(bucket.flat).items()}

    def step(self, gradients: Mapping[str, Array], factor: float = 1.0, clip: float = 1.0) -> None:
        """One step. factor: of the learning rate, from a schedule. clip: what the gradients are multiplied by."""
        self.steps += 1
        for bucket in self._buckets:
            xp = array_module(bucket.flat)
            xp.concatenate([gradients[name].reshape(-1) for name in bucket.places], out=bucket.gradient)
            share = -clip if bucket.optimizer.maximize else clip
            if share != 1.0:
                bucket.gradient *= share
            c = bucket.optimizer.coefficients(self.steps, bucket.optimizer.lr * factor * bucket.scale)
            if bucket.optimizer.elementwise:
                _update_flat(xp, bucket, c)
            else:
                _update_each(xp, bucket, c)

    def state(self) -> dict[str, Array]:
        """What is remembered between steps, as plain arrays by "slot/parameter", and "steps"."""
        found: dict[str, Array] = {"steps": np.array(self.steps, np.int64)}
        for bucket in self._buckets:
            if bucket.optimizer.elementwise:
                for slot, flat in bucket.slots.items():
                    found |= {f"{slot}/{name}": view for name, view in bucket.views(flat).items()}
            else:
                found |= {f"{slot}/{name}": a for name, slots in bucket.slots.items() for slot, a in slots.items()}
        return found

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave. Raises StateDictError where names or shapes are others."""
        own = self.state()
        for name, array in own.items():
            if name not in state or tuple(state[name].shape) != tuple(array.shape):
                raise StateDictError(
                    f"the optimizer's state does not fit at {name}",
                    expected=list(array.shape),
                    received=list(state[name].shape) if name in state else "nothing",
                    fix="resume with the same optimizer and the same trainable parameters",
                )
        self.steps = int(np.asarray(state["steps"]))
        for name, array in own.items():
            if name != "steps":
                array[...] = array_module(array).asarray(state[name])


def _bucket(optimizer: Optimizer, scale: float, arrays: dict[str, Array]) -> _Bucket:
    xp = array_module(*arrays.values())
    places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    start = 0
    for name, array in arrays.items():
        places[name] = (start, start + array.size, tuple(array.shape))
        start += array.size
    flat = xp.concatenate([array.reshape(-1) for array in arrays.values()])
    bucket = _Bucket(optimizer, scale, places, flat, xp.empty_like(flat), {})
    if optimizer.elementwise:
        bucket.slots = optimizer.start(xp, flat)
    else:
        bucket.slots = {name: optimizer.start(xp, view) for name, view in bucket.views(flat).items()}
    return bucket


def _update_flat(xp: Any, bucket: _Bucket, c: dict[str, float]) -> None:
    size = bucket.flat.size
    chunk = _CHUNK if xp is np else size
    with np.errstate(all="ignore"):
        for start in range(0, size, chunk or 1):
            part = slice(start, start + chunk)
            parameter = bucket.flat[part]
            slots = {slot: flat[part] for slot, flat in bucket.slots.items()}
            parameter[...], new = bucket.optimizer.update(xp, parameter, bucket.gradient[part], slots, c)
            for slot, value in new.items():
                slots[slot][...] = value


def _update_each(xp: Any, bucket: _Bucket, c: dict[str, float]) -> None:
    gradients = bucket.views(bucket.gradient)
    with np.errstate(all="ignore"):
        for name, parameter in bucket.views(bucket.flat).items():
            slots = bucket.slots[name]
            parameter[...], new = bucket.optimizer.update(xp, parameter, gradients[name], slots, c)
            for slot, value in new.items():
                slots[slot][...] = value


def global_norm(gradients: Mapping[str, Array]) -> float:
    """The norm of all gradients as one vector, as torch.nn.utils.clip_grad_norm_ measures it; inf or nan if one is."""
    total = 0.0
    for gradient in gradients.values():
        flat = gradient.reshape(-1)
        total += float(flat @ flat)
    return math.sqrt(total) if total >= 0 else math.nan


class Average:
    """A running mean of arrays, for weights that generalise better than the last (Polyak): m ← d · m + (1 - d) · w.

    warm_up: the decay is at most (1 + steps) / (10 + steps), so that early weights are forgotten.
    """

    def __init__(self, arrays: Mapping[str, Array], decay: float, *, warm_up: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError("the running mean cannot have this decay", expected="from 0 to below 1", received=decay)
        self.decay, self.warm_up, self.steps = decay, warm_up, 0
        self.arrays: dict[str, Array] = {name: array_module(a).array(a) for name, a in arrays.items()}

    def update(self, arrays: Mapping[str, Array]) -> None:
        """Take the arrays of a step; those that are not floating are copied."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warm_up else self.decay
        for name, mean in self.arrays.items():
            if is_floating(mean.dtype):
                mean += (1 - decay) * (arrays[name] - mean)
            else:
                mean[...] = arrays[name]
