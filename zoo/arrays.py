"""The task of a graph that says nothing of its purpose: arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.types import TensorType, float32, is_floating
from zoonet.zoo.graphs import named_arrays
from zoonet.zoo.modules import Module
from zoonet.zoo.results import printable

if TYPE_CHECKING:
    from zoonet.formats.onnx import ValueInfo
    from zoonet.zoo.model import Model
    from zoonet.zoo.train.evaluate import Evaluation


class Outputs(dict[str, Any]):
    """The outputs of a graph by name, in the order of the graph; prints types, shapes and ranges."""

    source = "arrays"

    def __repr__(self) -> str:
        return self.text()

    def text(self, top: int = 5) -> str:
        """A line per output: name, dtype, shape, least and largest number. top: has no meaning here."""
        return "\n".join(f"{printable(name)}: {_described(value)}" for name, value in self.items())

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Plain data for JSON: nested lists by name. top: has no meaning here."""
        return {name: _plain(value) for name, value in self.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "dtype"):
        array = ops.to_device(value, "cpu")
        return array.astype(np.float32).tolist() if array.dtype.kind == "V" else array.tolist()
    return value


def _described(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else repr(value)
    kind = "string" if value.dtype == object else value.dtype.name
    text = f"{kind}{list(value.shape)}"
    if value.size == 0 or value.dtype == object:
        return text
    return f"{text}, {_number(value.min())} to {_number(value.max())}"


def _number(value: Any) -> str:
    return f"{value.item():.6g}" if isinstance(value.item(), float) else str(value.item())


class Measured:
    """A task on arrays: how good its model is on inputs with targets."""

    def evaluate(
        self,
        model: Model,
        data: Any,
        *,
        batch: int = 32,
        columns: tuple[str, str] | None = None,
        corrupt: str = "skip",
        loss: str | Callable[..., Any] = "auto",
        workers: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """See `Model.evaluate`."""
        from zoonet.zoo.train.measure import evaluate

        return evaluate(model, data, batch, columns, corrupt, loss, workers, progress)


class Arrays(Measured):
    """Arrays in, arrays out, by the names that the graph gives them."""

    name = "arrays"
    unit = "arrays"

    def __init__(self, inputs: tuple[ValueInfo, ...], outputs: tuple[ValueInfo, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs

    @classmethod
    def from_config(cls, config: Mapping[str, Any], network: Module, architecture: str, file: str) -> Self:
        """See `Task`."""
        ports: Any = getattr(network, "config", None)
        if not hasattr(ports, "inputs"):
            raise ArgumentError(f"{file} holds no graph", received=type(network).__name__, fix="leave task out")
        return cls(ports.inputs, ports.outputs)

    def to_config(self) -> dict[str, Any]:
        """Plain data: the types of inputs and outputs by name."""
        return {
            "inputs": {port.name: str(port) for port in self.inputs},
            "outputs": {port.name: str(port) for port in self.outputs},
        }

    def run(self, model: Model, source: Any) -> Outputs:
        """The outputs by name. source: an array, a list of them in the graph's order, a dict by name, or the path of
        an .npy or .npz file. Raises InputError for inputs that do not fit.
        """
        source = named_arrays(source)
        if isinstance(source, Mapping):
            wanted = [port.name for port in self.inputs]
            unknown = [name for name in source if name not in wanted]
            missing = [name for name in wanted if name not in source]
            if unknown or missing:
                raise InputError(
                    f"the model has no input {unknown[0]!r}" if unknown else f"the input {missing[0]!r} is missing",
                    expected=self._expected(),
                    received=", ".join(map(str, source)) or "nothing",
                )
            values = [source[name] for name in wanted]
        else:
            values = list(source) if isinstance(source, list | tuple) and len(self.inputs) != 1 else [source]
        results = model(*values)
        results = results if isinstance(results, tuple) else (results,)
        return Outputs({port.name: _on_cpu(value) for port, value in zip(self.outputs, results, strict=True)})

    def from_arguments(self, arguments: Sequence[str]) -> Any:
        """Arrays from .npy and .npz files: one file with all of them by name, or one file per input."""
        return named_arrays(arguments[0]) if len(arguments) == 1 else [named_arrays(path) for path in arguments]

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """One value per input of the graph, of the types and shapes that it declares. Raises InputError.

        Floats are cast where the network was put in a precision that its file does not say.
        """
        if len(inputs) != len(self.inputs):
            raise InputError("the model got a wrong number of inputs", expected=self._expected(), received=len(inputs))
        precision = getattr(network, "precision", None)
        if precision is not None:
            inputs = tuple([ops.cast(x, precision) if _is_float(x) else x for x in inputs])
        return tuple([port.check(value) for port, value in zip(_ports(self, network), inputs, strict=True)])

    def _expected(self) -> str:
        return ", ".join(f"{port.name}: {port}" for port in self.inputs)

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """The declared types; sizes that may vary are 1, and 224 for the height and width of a picture."""
        return tuple([TensorType(usual(port.shape or ()), port.dtype or float32) for port in _ports(self, network)])


def _ports(task: Arrays, network: Module) -> tuple[ValueInfo, ...]:
    """The inputs as the network has them now, which may be in another precision than its file."""
    return getattr(network, "ports", task.inputs)


def _is_float(value: Any) -> bool:
    return ops.is_array(value) and value.dtype != object and is_floating(value.dtype)


def usual(shape: tuple[int | str | None, ...]) -> tuple[int, ...]:
    """A declared shape with sizes where they may vary: 1, and 224 for the height and width of a picture."""
    picture = len(shape) == 4
    return tuple([n if isinstance(n, int) else 224 if picture and axis > 1 else 1 for axis, n in enumerate(shape)])


def _on_cpu(value: Any) -> Any:
    return ops.to_device(value, "cpu") if ops.is_array(value) and value.dtype != object else value
