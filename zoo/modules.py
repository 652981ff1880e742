"""Modules: plain objects that hold arrays, and the walk that finds, names, reads and replaces these arrays.

A module's parameters are the arrays among its attributes, those of the modules among its attributes, and those in
lists and dicts of either: `self.layer1 = [Block()]` with `Block.conv1.weight` is named "layer1.0.conv1.weight", as in
PyTorch checkpoints. Attributes whose name starts with "_" are private and not walked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, DTypeError, StateDictError
from zoonet.ops.operands import Traced
from zoonet.ops.types import as_dtype, is_floating

Array = Any
_generator: ContextVar[np.random.Generator | None] = ContextVar("generator")
_process_generator = np.random.default_rng(0)
_functional: ContextVar[bool] = ContextVar("functional", default=False)
_observer: ContextVar[Callable[[Module, tuple[Any, ...], dict[str, Any]], Any] | None] = ContextVar(
    "observer", default=None
)
_keys: ContextVar[_Keys | None] = ContextVar("keys", default=None)


@dataclass
class _Keys:
    """Where the keys of random modules come from, and how many were taken."""

    key: Array
    taken: int = 0


@contextmanager
def initialised_by(seed: int | np.random.Generator | None) -> Iterator[None]:
    """Modules made inside draw their parameters from this seed or NumPy generator.

    None leaves them zero, for parameters that will be loaded. Outside, they are drawn from one generator of the process
    that starts at seed 0.
    """
    generator = seed if seed is None or isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def drawing() -> bool:
    """False where parameters that are made now will be loaded: inside `initialised_by(None)`."""
    return _generator.get(_process_generator) is not None


@contextmanager
def observed_by(observer: Callable[[Module, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Calls of modules inside go through observer(module, inputs, keywords), which calls module.forward itself."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@contextmanager
def keyed_by(key: Array) -> Iterator[None]:
    """Modules called inside that are random (dropout) take their keys, one after the other, from this one."""
    token = _keys.set(_Keys(key))
    try:
        yield
    finally:
        _keys.reset(token)


def next_key() -> Array:
    """A key of its own for a call of a random module. Raises ArgumentError outside of `keyed_by`."""
    keys = _keys.get()
    if keys is None:
        raise ArgumentError(
            "a random layer needs a key in training", fix="call it in `with keyed_by(random_key(seed)):`"
        )
    keys.taken += 1
    return ops.random_fold_in(keys.key, np.int64(keys.taken - 1))


def keys_taken() -> int:
    """How many keys were taken inside `keyed_by`."""
    keys = _keys.get()
    return 0 if keys is None else keys.taken


def take_keys_again(taken: int) -> None:
    """The next key is again the one that followed so many: for a module that is called a second time."""
    keys = _keys.get()
    if keys is not None:
        keys.taken = taken


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one array: an attribute of a module, or an item of a list or dict in one."""

    module: Module
    container: Any
    key: Any
    is_buffer: bool

    def get(self) -> Array:
        """The array that is there now."""
        return vars(self.container)[self.key] if self.container is self.module else self.container[self.key]

    def set(self, value: Array) -> None:
        """Put an array there."""
        if self.container is self.module:
            setattr(self.module, self.key, value)
        else:
            self.container[self.key] = value


class Module:
    """Base of layers and networks: subclasses set arrays and modules as attributes and define `forward`.

    buffers: names of attributes that hold state rather than parameters (running statistics); `forward` updates them
    by `assign_state`. optional: names of buffers that a checkpoint may lack. hidden: names of buffers that
    belong in no checkpoint. flat: names of attributes that are dicts of arrays whose keys are the arrays' whole names.
    data_dependent: what it computes may depend on the contents of its inputs, so that it cannot always be traced.
    """

    buffers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    data_dependent: bool = False
    training: bool = False

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The output for these inputs."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """`forward`, or what an observer makes of it."""
        observer = _observer.get()
        return self.forward(*inputs, **keywords) if observer is None else observer(self, inputs, keywords)

    def assign_state(self, **buffers: Array) -> None:
        """Assign buffers that `forward` computed anew.

        Within `functional_call` they may be traced values; elsewhere the arrays behind them are kept, and where there
        are none, TraceError is raised: the state would be lost to the trace, and the module of no more use.
        """
        for name, value in buffers.items():
            setattr(self, name, self.settled(name, value))

    def settled(self, name: str, value: Array) -> Array:
        """The value that a buffer of this name may keep; see `assign_state`."""
        if isinstance(value, Traced) and not _functional.get():
            return value.concrete(f"the new {name} of {type(self).__name__}, in training outside functional_call,")
        return value

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the module's own parameters anew; layers override this."""

    def _draw(self) -> None:
        """Draw them now, at the end of a constructor, unless `initialised_by(None)` leaves them zero."""
        rng = _generator.get(_process_generator)
        if rng is not None:
            self.reset(rng)

    # -- the walk ------------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) for this module and all below, each once, parents first."""
        seen: set[int] = set()
        for name, item in _walk(self, prefix):
            if isinstance(item, Module) and id(item) not in seen:
                seen.add(id(item))
                yield name, item

    def slots(self) -> dict[str, Slot]:
        """Where each array is, by name, in the order of PyTorch: parameters, then buffers, then modules below.

        A parameter that stands in two places has two names.
        """
        return {name: item for name, item in _walk(self, "") if isinstance(item, Slot)}

    def _named(self, buffers: bool) -> Iterator[tuple[str, Array]]:
        seen: set[int] = set()
        for name, slot in self.slots().items():
            array = slot.get()
            if slot.is_buffer == buffers and id(array) not in seen:
                seen.add(id(array))
                yield name, array

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """(name, array) for each parameter; one that stands in several places comes once, under its first name."""
        yield from self._named(buffers=False)

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """(name, array) for each array of state."""
        yield from self._named(buffers=True)

    def parameters(self) -> dict[str, Array]:
        """The parameters by name."""
        return dict(self.named_parameters())

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """All parameters and buffers that belong in a checkpoint, by name. The arrays are the module's own."""
        return {name: slot.get() for name, slot in self.slots().items() if slot.key not in slot.module.hidden}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True, prefix: str = "") -> None:
        """Take parameters and buffers from a mapping of names to arrays (or to lazy tensors with `.load()`).

        Floating arrays are cast to the dtype of the module's own. prefix: what stands before each name in `state`,
        such as "module."; names without it are left alone. strict=False takes what fits, and no more is asked.
        Raises StateDictError that lists missing and unexpected names and wrong shapes; the module is then unchanged.
        """
        slots = {n: s for n, s in self.slots().items() if s.key not in s.module.hidden}
        own = {name: slot.get() for name, slot in slots.items()}
        given = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        misfits = compare_shapes(own, given)
        fitting = [name for name in own if name in given and name not in misfits.wrong]
        source = {id(own[name]): name for name in reversed(fitting)}  # where a tied array is taken from
        missing = [
            name
            for name in misfits.missing
            if id(own[name]) not in source and slots[name].key not in slots[name].module.optional
        ]
        if strict and (missing or misfits.unexpected or misfits.wrong):
            raise misfits.error(type(self).__name__, missing)
        loaded = {key: _as_parameter(given[name], own[name], name) for key, name in source.items()}
        for name, slot in slots.items():
            if id(own[name]) in loaded:
                slot.set(loaded[id(own[name])])

    def train(self, mode: bool = True) -> Self:
        """Put this module and all below in training mode: batch norm uses the batch, dropout drops."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all below in inference mode, in which modules start."""
        return self.train(False)

    def initialise(self, seed: int | np.random.Generator = 0) -> Self:
        """Draw all parameters anew from a seed or a NumPy generator, layer by layer."""
        rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
        for _, module in reversed(list(self.named_modules())):
            module.reset(rng)  # parents last, so that a network's own scheme has the last word
        return self

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """Move every array to a device ('cpu', 'cuda', 'cuda:N') and cast the floating ones to a dtype.

        Raises DeviceError where there is no such device, DTypeError for a dtype that is not floating.
        """
        wanted = None if dtype is None else as_dtype(dtype)
        if wanted is not None and not is_floating(wanted):
            raise DTypeError("a module cannot have this dtype", expected="a floating dtype", received=wanted.name)
        moved: dict[int, Array] = {}
        slots = list(self.slots().values())
        kept = [slot.get() for slot in slots]  # alive while their ids are keys
        for slot, array in zip(slots, kept, strict=True):
            if id(array) not in moved:
                new = array if device is None else ops.to_device(array, device)
                moved[id(array)] = new.astype(wanted, copy=False) if wanted and is_floating(new.dtype) else new
            slot.set(moved[id(array)])
        return self

    def __repr__(self) -> str:
        count = sum(int(array.size) for _, array in self.named_parameters())
        return f"{type(self).__name__}({count:,} parameters)"


def _is_array(value: object) -> bool:
    return isinstance(value, Traced) or (ops.is_array(value) and not isinstance(value, np.generic))


def _walk(module: Module, prefix: str, above: tuple[int, ...] = ()) -> Iterator[tuple[str, Module | Slot]]:
    """The module, its slots (parameters first), then the same for the modules below."""
    if id(module) in above:
        raise ArgumentError(
            f"the module {prefix!r} holds itself",
            expected="modules that form a tree",
            fix="give the attribute that points back a name that starts with '_'",
        )
    yield prefix, module
    start = f"{prefix}." if prefix else ""
    below: list[tuple[str, Any]] = []
    found: list[tuple[str, Slot]] = []
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if name in module.flat:
            found += [(start + key, Slot(module, value, key, name in module.buffers)) for key in value]
        elif _is_array(value):
            found.append((start + name, Slot(module, module, name, name in module.buffers)))
        elif isinstance(value, Module | list | tuple | dict):
            below.append((start + name, value))
    yield from sorted(found, key=lambda item: item[1].is_buffer)
    for name, value in below:
        yield from _walk_value(module, name, value, (*above, id(module)))


def _walk_value(module: Module, name: str, value: Any, above: tuple[int, ...]) -> Iterator[tuple[str, Module | Slot]]:
    if isinstance(value, Module):
        yield from _walk(value, name, above)
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if _is_array(item) and not isinstance(value, tuple):
                yield f"{name}.{key}", Slot(module, value, key, False)
            else:
                yield from _walk_value(module, f"{name}.{key}", item, above)


def _as_parameter(value: Any, old: Array, name: str) -> Array:
    """A loaded array with the dtype and device of the one that it replaces, and memory of its own."""
    array = value.load() if hasattr(value, "load") else value
    if not ops.is_array(array):
        array = np.asarray(array)
    if is_floating(array.dtype) != is_floating(old.dtype):
        raise StateDictError(f"{name} has the wrong kind of numbers", expected=old.dtype, received=array.dtype)
    array = array.astype(old.dtype)
    return array if ops.device_of(old) == ops.device_of(array) else ops.to_device(array, ops.device_of(old))


# -- what does not fit -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Misfits:
    """How the names and shapes of a state dict differ from a network's."""

    missing: list[str]
    unexpected: list[str]
    wrong: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> (expected shape, received shape)

    def error(self, network: str, missing: list[str] | None = None) -> StateDictError:
        """The StateDictError that lists them. missing: those that matter, where not all do."""
        lines = []
        for title, names in (
            ("missing", self.missing if missing is None else missing),
            ("unexpected", self.unexpected),
        ):
            if names:
                lines.append(f"{len(names)} {title}: {_some(names)}")
        if self.wrong:
            shapes = [f"{n} (expected {list(e)}, received {list(r)})" for n, (e, r) in self.wrong.items()]
            lines.append(f"{len(shapes)} of wrong shape: {_some(shapes)}")
        return StateDictError("the weights do not fit " + network + "\n  " + "\n  ".join(lines))


def compare_shapes(own: Mapping[str, Any], given: Mapping[str, Any]) -> Misfits:
    """Compare two mappings from names to anything with a shape."""
    return Misfits(
        [name for name in own if name not in given],
        [name for name in given if name not in own],
        {
            name: (tuple(own[name].shape), tuple(given[name].shape))
            for name in own
            if name in given and tuple(own[name].shape) != tuple(given[name].shape)
        },
    )


def sizes(shapes: Mapping[str, Any], **axes: tuple[str, int]) -> dict[str, Any]:
    """Sizes read off the arrays of a state dict: keyword=(name, axis); those whose array is absent are left out.

    So are sizes that no network has: an empty array may say any.
    """
    found = {}
    for keyword, (name, axis) in axes.items():
        shape = tuple(shapes[name].shape) if name in shapes else ()
        if len(shape) > axis and 0 < shape[axis] <= 1 << 24:
            found[keyword] = int(shape[axis])
    return found


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" … and {len(names) - limit} more" if len(names) > limit else "")


# -- functions of parameters -------------------------------------------------------------------------------------


def functional_call(
    module: Module, values: Mapping[str, Array], *inputs: Any, function: Callable[..., Any] | None = None
) -> tuple[Any, dict[str, Array]]:
    """The module as a function: (outputs, new state) with these arrays or traced values in the place of its own.

    values: by name, parameters and buffers; those not named keep the module's own. function: what is called on the
    inputs, such as a loss that calls the module; the module itself if None. new state: the buffers that the call
    assigned, by name. The module itself is as before afterwards, whatever happens, so a whole training step can be
    traced. Not for use from several threads at once on one module. Raises StateDictError for unknown names and wrong
    shapes.
    """
    slots = module.slots()
    before = {name: slot.get() for name, slot in slots.items()}
    misfits = compare_shapes(before, values)
    if misfits.unexpected or misfits.wrong:
        raise misfits.error(type(module).__name__, [])
    tied = {id(before[name]): value for name, value in values.items()}
    placed = {name: tied.get(id(array), array) for name, array in before.items()}
    token = _functional.set(True)
    try:
        for name, slot in slots.items():
            slot.set(placed[name])
        outputs = (function or module)(*inputs)
        after = {name: slot.get() for name, slot in slots.items() if slot.is_buffer}
    finally:
        _functional.reset(token)
        for name, slot in slots.items():
            slot.set(before[name])
    return outputs, {name: array for name, array in after.items() if array is not placed[name]}


def value_and_grad(
    module: Module, loss: Callable[..., Array], *, trainable: Callable[[str], bool] | None = None
) -> Callable[..., tuple[Array, dict[str, Array], dict[str, Array]]]:
    """A function of `loss`'s arguments that gives (value, gradients by parameter name, new state).

    loss: a function that calls the module and returns one floating number. trainable: which parameters, by name, are
    differentiated; all if None. The module is not changed: `assign` keeps the new state.
    """

    def differentiated(*arguments: Any) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        parameters = {n: p for n, p in module.named_parameters() if trainable is None or trainable(n)}

        def scalar(values: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            return functional_call(module, values, *arguments, function=loss)

        (value, state), gradients = ops.value_and_grad(scalar, has_aux=True)(parameters)
        return value, gradients, state

    return differentiated


def assign(module: Module, values: Mapping[str, Array]) -> None:
    """Put arrays in the place of a module's own, by name, as they are. Raises StateDictError where they do not fit."""
    slots = module.slots()
    before = {name: slot.get() for name, slot in slots.items()}
    misfits = compare_shapes(before, values)
    if misfits.unexpected or misfits.wrong:
        raise misfits.error(type(module).__name__, [])
    tied = {id(before[name]): value for name, value in values.items()}
    for name, slot in slots.items():
        slot.set(tied.get(id(before[name]), before[name]))
