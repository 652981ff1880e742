"""The ONNX graph that is being written: nodes, initializers, names, and sizes that are known only when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.tensors import dtype_number
from zoonet.formats.onnx.writing.draft import tensor
from zoonet.formats.onnx.writing.sizes import (
    Dimension,
    Number,
    Size,
    Tensor,
    formula_for,
    fraction_for,
    varying,
)
from zoonet.ops.errors import FormatError, UnsupportedFormatError
from zoonet.ops.types import DType, int64

__all__ = ["LAST", "Builder", "Operand"]

#: What nodes read: a tensor, the name of one, or None for an optional input that is left out.
Operand = Tensor | str | None
#: The end of a slice that goes as far as the axis does.
LAST = np.iinfo(np.int64).max
#: Constants of at most so many bytes are shared where they are equal.
_SHARED = 1 << 12


class Builder:
    """Collects the nodes and initializers of one graph.

    opset: that of ai.onnx. operator: the zoonet operator that is being written, for messages and names. outputs: what
    its results are to be.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.operator = ""
        self.outputs: tuple[Tensor, ...] = ()
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}
        self._shared: dict[Any, str] = {}
        self._sources: dict[tuple[int, ...], tuple[str, int]] = {}
        self._symbols: list[tuple[int, ...]] = []
        self._sizes: dict[Any, str] = {}

    # -- names and nodes -----------------------------------------------------------------------------------------

    def unique(self, wanted: str) -> str:
        """A name that is not taken yet: the wanted one, or that with a number."""
        name = wanted
        while not name or name in self._names:
            self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name = f"{wanted}_{self._counts[wanted]}"
        self._names.add(name)
        return name

    def require(self, opset: int, what: str = "") -> None:
        """Raise UnsupportedFormatError if the operator being written, or `what` of it, needs a newer opset."""
        if self.opset < opset:
            raise UnsupportedFormatError(
                f"the operator {self.operator}{what and ' with ' + what} cannot be written in this opset of ONNX",
                expected=f"opset {opset} or newer",
                received=self.opset,
                fix=f"opset={opset}",
            )

    def refuse(self, why: str, fix: str | None = None) -> UnsupportedFormatError:
        """The error for an operator, or a use of one, that has no counterpart in ONNX."""
        return UnsupportedFormatError(f"the operator {self.operator} cannot be written as ONNX: {why}", fix=fix)

    def many(self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any) -> list[str]:
        """Append a node with several outputs; their names."""
        from onnx import helper

        label = self.unique(f"{self.operator or 'shape'}/{op_type}")
        names = [self.unique(f"{label}.{i}" if outputs > 1 else f"{label}.out") for i in range(outputs)]
        given = [i.name if isinstance(i, Tensor) else i or "" for i in inputs]
        while given and not given[-1]:
            given.pop()
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, given, names, name=label, **kept))
        return names

    def node(self, op_type: str, *inputs: Operand, **attributes: Any) -> str:
        """Append a node; the name of its output. Attributes that are None are left out."""
        return self.many(op_type, *inputs, outputs=1, **attributes)[0]

    # -- constants -----------------------------------------------------------------------------------------------

    def initializer(self, array: Any, name: str) -> str:
        """A weight as an initializer under this name, or one like it."""
        dtype_number(array.dtype)
        chosen = self.unique(name)
        self.initializers[chosen] = array
        return chosen

    def constant(self, value: Any, dtype: DType | None = None) -> str:
        """An array or number as a constant; equal small ones are one."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= _SHARED else None
        if key is not None and key in self._shared:
            return self._shared[key]
        if key is None:  # a weight that the function closes over
            return self.initializer(array, "constant")
        # a node and no initializer, so that whoever reads the model takes it for no weight
        from onnx import helper

        name = self.unique("constant")
        self.constants.append(helper.make_node("Constant", [], [name], name=name, value=tensor("", array)))
        if key is not None:
            self._shared[key] = name
        return name

    def ints(self, numbers: Iterable[Dimension]) -> str:
        """A list of integers as a tensor int64 [n]; computed when the graph runs where they depend on sizes."""
        items = list(numbers)
        if all(isinstance(n, int) for n in items):
            return self.constant(np.asarray(items, np.int64))
        parts: list[str] = []
        fixed: list[int] = []
        for n in items:
            if isinstance(n, Size):
                if fixed:
                    parts.append(self.constant(np.asarray(fixed, np.int64)))
                    fixed = []
                parts.append(self.size(n))
            else:
                fixed.append(n)
        if fixed:
            parts.append(self.constant(np.asarray(fixed, np.int64)))
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    # -- sizes ---------------------------------------------------------------------------------------------------

    def know(self, tensor: Tensor, is_input: bool = False) -> Tensor:
        """Remember that a tensor has axes from which sizes can be read."""
        for axis, n in enumerate(tensor.shape):
            if isinstance(n, Size) and n.values not in self._sources:
                self._sources[n.values] = (tensor.name, axis)
                if is_input:
                    self._symbols.append(n.values)
        return tensor

    def size(self, size: Dimension) -> str:
        """A size as a tensor int64 [1]. Raises TraceError if it follows from no size that is known."""
        if isinstance(size, int):
            return self.constant(np.asarray([size], np.int64))
        if size.values not in self._sizes:
            self._sizes[size.values] = self._computed_size(size)
        return self._sizes[size.values]

    def _computed_size(self, size: Size) -> str:
        operator, self.operator = self.operator, "size"
        try:
            if size.values in self._sources:
                name, axis = self._sources[size.values]
                return self.node("Gather", self._shape(name), self.constant([axis], int64), axis=0)
            formula = formula_for(size.values, self._symbols)
            if formula is None:
                raise varying(f"a size in {operator}", str(size.values))
            first, *rest = [self.size(Size(source)) for source in formula.sources]
            for other in rest:
                first = self.node("Add" if formula.is_sum else "Mul", first, other)
            if formula.factor != 1:
                first = self.node("Mul", first, self.constant([formula.factor], int64))
            if formula.shift:
                first = self.node("Add", first, self.constant([formula.shift], int64))
            if formula.divisor != 1:
                first = self.node("Div", first, self.constant([formula.divisor], int64))
            if formula.offset:
                first = self.node("Add", first, self.constant([formula.offset], int64))
            return first
        finally:
            self.operator = operator

    def _shape(self, name: str) -> str:
        key = ("shape", name)
        if key not in self._sizes:
            self._sizes[key] = self.node("Shape", name)
        return self._sizes[key]

    def number(self, value: float | Size | Number, dtype: DType) -> str:
        """A number as a tensor of no axes. Raises TraceError where it depends on sizes in a way that is not known."""
        if isinstance(value, Size):
            if value.values in self._sources or formula_for(value.values, self._symbols) is not None:
                return self.cast(self.node("Squeeze", self.size(value), self.constant([0], int64)), dtype)
            value = Number(tuple(map(float, value.values)))
        if not isinstance(value, Number):
            return self.constant(np.asarray(value, dtype))
        known = [*self._symbols, *(v for v in self._sources if v not in self._symbols)]
        products = [tuple(a * b for a, b in zip(x, y, strict=True)) for x in self._symbols for y in self._symbols]
        for sizes in [*known, *products]:
            found = fraction_for(value.values, sizes)
            if found is not None:
                y = self.cast(self.node("Squeeze", self.size(Size(sizes)), self.constant([0], int64)), dtype)
                b = self.constant(np.asarray(found.b, dtype))
                y = self.node("Div", b, y) if found.inverse_size else self.node("Mul", b, y)
                if found.a:
                    y = self.node("Add", y, self.constant(np.asarray(found.a, dtype)))
                return self.node("Reciprocal", y) if found.inverse else y
        raise varying(f"a number in {self.operator}", str(value.values))

    # -- what many operators need --------------------------------------------------------------------------------

    def cast(self, x: Operand, dtype: DType) -> str:
        """x cast to a dtype, if it is not known to have it."""
        if isinstance(x, Tensor) and x.dtype == dtype:
            return x.name
        return self.node("Cast", x, to=dtype_number(dtype))

    def operand(self, value: Any, dtype: DType) -> str:
        """An operand of an elementwise operator, a tensor or a number, in a dtype."""
        return self.cast(value, dtype) if isinstance(value, Tensor) else self.number(value, dtype)

    def reduce(self, op_type: str, x: Operand, axes: Sequence[int], keepdims: bool) -> str:
        """A reduction over axes (not empty), written as the opset has it."""
        axes = [int(a) for a in axes]
        if op_type == "ReduceSum" or self.opset >= 18:
            return self.node(op_type, x, self.ints(axes), keepdims=int(keepdims))
        return self.node(op_type, x, axes=axes, keepdims=int(keepdims))

    def reshape(self, x: Operand, shape: Sequence[Dimension], old: Sequence[Dimension] | None = None) -> str:
        """x in another shape. old: its shape, where that is known, so that sizes can be copied."""
        shape = tuple(shape)
        if old is not None and shape == tuple(old):
            return x.name if isinstance(x, Tensor) else str(x)
        free = [i for i, n in enumerate(shape) if isinstance(n, Size)]
        if 0 in shape:
            if free:
                self.require(14, "an empty axis beside one of free size")
                return self.node("Reshape", x, self.ints(shape), allowzero=1)
            self.require(14, "an empty axis")
            return self.node("Reshape", x, self.constant(np.asarray(shape, np.int64)), allowzero=1)
        written: list[Dimension] = list(shape)
        copied = [i for i in free if old is not None and i < len(old) and old[i] == shape[i]]
        for i in copied:
            written[i] = 0
        rest = [i for i in free if i not in copied]
        if rest:
            written[rest[-1]] = -1
        return self.node("Reshape", x, self.ints(written))

    def unsqueeze(self, x: Operand, axes: Sequence[int]) -> str:
        """x with axes of size 1 added."""
        return self.node("Unsqueeze", x, self.ints(axes))

    def squeeze(self, x: Operand, axes: Sequence[int]) -> str:
        """x without axes of size 1."""
        return self.node("Squeeze", x, self.ints(axes))

    def expand(self, x: Operand, shape: Sequence[Dimension]) -> str:
        """x broadcast to a shape."""
        return self.node("Expand", x, self.ints(shape))

    def transpose(self, x: Operand, axes: Sequence[int]) -> str:
        """x with its axes permuted."""
        return self.node("Transpose", x, perm=list(axes))

    def slice(self, x: Operand, starts: Any, ends: Any, axes: Sequence[int], steps: Any = None) -> str:
        """Slices of some axes."""
        return self.node(
            "Slice", x, self.ints(starts), self.ints(ends), self.ints(axes), None if steps is None else self.ints(steps)
        )

    def full(self, shape: Sequence[Dimension], value: Any, dtype: DType) -> str:
        """A tensor of one number; an initializer where it is small and of fixed shape."""
        fixed = [n for n in shape if isinstance(n, int)]
        if len(fixed) == len(shape) and prod(fixed) <= 1024 and not isinstance(value, Size | Number):
            return self.constant(np.full(tuple(fixed), value, dtype))
        return self.expand(self.number(value, dtype), shape)

    def range(self, size: Dimension) -> str:
        """0, 1, … below a size, int64 [size]."""
        if isinstance(size, int):
            return self.constant(np.arange(size, dtype=np.int64))
        key = ("range", size.values)
        if key not in self._sizes:
            end = self.node("Squeeze", self.size(size), self.constant([0], int64))
            self._sizes[key] = self.node("Range", self.constant(0, int64), end, self.constant(1, int64))
        return self._sizes[key]

    def varying_constant(self, arrays: Sequence[Any]) -> str:
        """A constant that is another one at other sizes: one number throughout, or numbers that rise evenly.

        Raises TraceError for any other.
        """
        first = arrays[0]
        shapes = list(zip(*(a.shape for a in arrays), strict=True)) if len({a.ndim for a in arrays}) == 1 else None
        if shapes is None or any(a.size == 0 or a.dtype != first.dtype for a in arrays):
            raise varying("a constant", str(tuple(first.shape)))
        shape: list[Dimension] = [int(s[0]) if len(set(s)) == 1 else Size(tuple(map(int, s))) for s in shapes]
        flat = [np.asarray(a).reshape(-1) for a in arrays]
        if all((f == f[0]).all() for f in flat):
            values = [f[0].item() for f in flat]
            value = values[0] if len(set(values)) == 1 else Number(tuple(values))
            if isinstance(value, Number) and all(float(v).is_integer() for v in values):
                value = Size(tuple(int(v) for v in values))
            return self.full(shape, value, first.dtype)
        for axis, n in enumerate(shape):
            if isinstance(n, Size):
                found = self._rising(arrays, axis)
                if found is not None:
                    start, step = found
                    line = self.cast(self.range(n), first.dtype)
                    if step != 1:
                        line = self.node("Mul", line, self.constant(np.asarray(step, first.dtype)))
                    if start != 0:
                        line = self.node("Add", line, self.number(start, first.dtype))
                    after = len(shape) - axis - 1
                    line = self.unsqueeze(line, range(1, after + 1)) if after else line
                    return (
                        self.expand(line, shape)
                        if any(m != 1 for i, m in enumerate(shape) if i != axis)
                        else (self.unsqueeze(line, range(axis)) if axis else line)
                    )
        raise varying("a constant", f"an array {first.dtype}{list(first.shape)} that is another one at other sizes")

    @staticmethod
    def _rising(arrays: Sequence[Any], axis: int) -> tuple[Any, Any] | None:
        """(start, step) of arrays that rise evenly along an axis and are equal along the others."""
        starts, steps = [], []
        for array in arrays:
            line = np.moveaxis(np.asarray(array), axis, 0).reshape(array.shape[axis], -1)
            if line.dtype.kind not in "iuf" or len(line) < 2 or (line != line[:, :1]).any():
                return None
            column = line[:, 0]
            step = column[1] - column[0]
            if not np.array_equal(column, (column[0] + step * np.arange(len(column))).astype(column.dtype)):
                return None
            starts.append(column[0].item())
            steps.append(step.item())
        if len(set(steps)) > 1:
            return None
        if len(set(starts)) == 1:
            return starts[0], steps[0]
        if all(float(s).is_integer() for s in starts):
            return Size(tuple(int(s) for s in starts)), steps[0]
        return None

    # -- the end -------------------------------------------------------------------------------------------------

    def rename(self, names: dict[str, str]) -> None:
        """Give tensors other names, wherever they stand."""
        for node in self.nodes:
            node.input[:] = [names.get(n, n) for n in node.input]
            node.output[:] = [names.get(n, n) for n in node.output]

    def drop_unused(self, outputs: Sequence[str]) -> None:
        """Leave out nodes and initializers that no output needs."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = [n for n in self.constants if n.output[0] in needed] + kept[::-1]
        self.initializers = {name: array for name, array in self.initializers.items() if name in needed}

    def check_names(self, names: Sequence[str]) -> None:
        """Raise FormatError if names are given twice."""
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise FormatError(
                "two inputs or outputs have one name", received=twice[0], fix="give each a name of its own"
            )
