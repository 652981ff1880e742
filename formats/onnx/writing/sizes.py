"""Traces of one function at several sizes of its inputs, merged: what differs between them depends on the sizes.

A trace has concrete shapes. A function that is traced at several sizes gives as many graphs of equal structure; an
integer that is equal in all of them is fixed, any other is a `Size`, known by its value in each trace. Two sizes
with the same values in every trace are the same size, because each free size is varied on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from zoonet.ops.errors import TraceError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.types import DType, Slice

__all__ = ["Dimension", "Number", "Points", "Size", "Tensor", "aligned", "fraction_for", "merged"]


@dataclass(frozen=True)
class Size:
    """An integer that depends on the sizes of the inputs. values: what it is in each trace."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Number:
    """A floating number that depends on the sizes of the inputs. values: what it is in each trace."""

    values: tuple[float, ...]


#: The size of an axis.
Dimension = int | Size


def dimension_of(values: Sequence[int]) -> Dimension:
    """An integer from what it is in each trace."""
    return int(values[0]) if len(set(values)) == 1 else Size(tuple(map(int, values)))


@dataclass(frozen=True)
class Tensor:
    """A value of the ONNX graph: its name, its sizes and its data type."""

    name: str
    shape: tuple[Dimension, ...]
    dtype: DType

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Points:
    """Free sizes by name, and what each is in every trace: all at their first value, then one after the other at its
    further ones, then all at their last.

    choices: three sizes or more for each name. A dimension is written as an int, a name, or names and ints joined by
    "+".
    """

    def __init__(self, choices: dict[str, tuple[int, ...]]) -> None:
        first = {name: values[0] for name, values in choices.items()}
        self.points = [first]
        for name, values in choices.items():
            self.points += [{**first, name: value} for value in values[1:]]
        if len(choices) > 1:
            self.points.append({name: values[-1] for name, values in choices.items()})

    def at(self, dimension: int | str, point: dict[str, int]) -> int:
        """A dimension at one of the points."""
        if isinstance(dimension, int):
            return dimension
        return sum(int(term) if term.isdigit() else point[term] for term in names_in(dimension, all_terms=True))

    def values(self, dimension: int | str) -> tuple[int, ...]:
        """A dimension at all points."""
        return tuple([self.at(dimension, point) for point in self.points])


def names_in(dimension: int | str, all_terms: bool = False) -> list[str]:
    """The names that a dimension is a sum of."""
    if isinstance(dimension, int):
        return []
    terms = [term.strip() for term in dimension.split("+")]
    return terms if all_terms else [term for term in terms if not term.isdigit()]


def merged(items: Sequence[Any], value: Callable[[tuple[Value, ...]], Any], where: str) -> Any:
    """One argument of a node from that of each trace: values by `value`, integers that differ as `Size`.

    Raises TraceError where the traces differ in another way.
    """
    first = items[0]
    if isinstance(first, Value):
        return value(tuple(items))
    if isinstance(first, tuple) and all(isinstance(i, tuple) and len(i) == len(first) for i in items):
        return tuple([merged(parts, value, where) for parts in zip(*items, strict=True)])
    if all(type(i) is type(first) and i == first for i in items):
        return first
    if all(isinstance(i, int) and not isinstance(i, bool) for i in items):
        return Size(tuple(items))
    if all(isinstance(i, int | float) and not isinstance(i, bool) for i in items):
        return Number(tuple(items))
    if all(isinstance(i, Slice) for i in items):
        parts = [merged([getattr(i, part) for i in items], value, where) for part in ("start", "stop", "step")]
        return Slice(*parts)
    raise varying(where, f"{items[0]!r} or {next(i for i in items if i != first)!r}")


def varying(where: str, received: str) -> TraceError:
    """The error for a function that does something else at another size."""
    return TraceError(
        f"{where} depends on the size of an input in a way that one graph cannot express",
        expected="the same operators at every size",
        received=received,
        fix="fix the size: leave the axis out of `dynamic`",
    )


def aligned(graphs: Sequence[Graph]) -> Iterator[tuple[Node, ...]]:
    """Nodes that correspond, in order. Raises TraceError where the graphs differ in structure."""
    counts = [len(graph.nodes) for graph in graphs]
    if len(set(counts)) > 1:
        raise varying("the traced function", f"{min(counts)} to {max(counts)} operators")
    for nodes in zip(*(graph.nodes for graph in graphs), strict=True):
        if len({node.op.name for node in nodes}) > 1:
            raise varying("the traced function", " or ".join(sorted({node.op.name for node in nodes})))
        yield nodes


@dataclass(frozen=True)
class Formula:
    """factor · product(sources) + offset, the sum of sources + offset, or (source + shift) // divisor + offset.

    sources: values of known sizes.
    """

    sources: tuple[tuple[int, ...], ...]
    factor: int = 1
    divisor: int = 1
    offset: int = 0
    is_sum: bool = False
    shift: int = 0


def formula_for(values: tuple[int, ...], known: Sequence[tuple[int, ...]]) -> Formula | None:
    """How a size follows from known ones: the first formula that gives its values in every trace."""
    for source in known:
        found = _affine(values, source)
        if found is not None:
            return Formula((source,), found[0], 1, found[1])
    for i, first in enumerate(known):
        for second in known[i:]:
            product = tuple([a * b for a, b in zip(first, second, strict=True)])
            found = _affine(values, product)
            if found is not None:
                return Formula((first, second), found[0], 1, found[1])
            total = tuple([a + b for a, b in zip(first, second, strict=True)])
            offsets = {v - t for v, t in zip(values, total, strict=True)}
            if len(offsets) == 1:
                return Formula((first, second), 1, 1, offsets.pop(), True)
    for source in known:
        for divisor, shift in ((d, s) for d in range(2, 33) for s in range(d)):
            offsets = {v - (s + shift) // divisor for v, s in zip(values, source, strict=True)}
            if len(offsets) == 1:
                return Formula((source,), 1, divisor, offsets.pop(), shift=shift)
    return None


def _affine(values: tuple[int, ...], source: tuple[int, ...]) -> tuple[int, int] | None:
    pairs = sorted(set(zip(source, values, strict=True)))
    if len({s for s, _ in pairs}) != len(pairs) or len(pairs) < 2:
        return None
    (s0, v0), (s1, v1) = pairs[0], pairs[-1]
    factor, rest = divmod(v1 - v0, s1 - s0)
    if rest or factor == 0 or any(v != factor * (s - s0) + v0 for s, v in pairs):
        return None
    return factor, v0 - factor * s0


@dataclass(frozen=True)
class Fraction:
    """A number that follows from a size s: a + b · s, with the size inverted (b / s), the whole inverted, or both."""

    a: float
    b: float
    inverse_size: bool
    inverse: bool


def fraction_for(values: tuple[float, ...], sizes: tuple[int, ...]) -> Fraction | None:
    """How a number follows from a size, in every trace: means divide by it, variances multiply by s / (s - 1)."""
    if 0 in sizes or 0 in values or len(set(sizes)) < 2:
        return None
    for inverse, inverse_size in ((False, True), (False, False), (True, True), (True, False)):
        left = [1 / v if inverse else float(v) for v in values]
        right = [1 / s if inverse_size else float(s) for s in sizes]
        first, last = min(range(len(sizes)), key=sizes.__getitem__), max(range(len(sizes)), key=sizes.__getitem__)
        b = (left[last] - left[first]) / (right[last] - right[first])
        a = left[first] - b * right[first]
        if abs(a) < 1e-9 * abs(left[first]):
            a = 0.0
        if all(isclose(a + b * r, v, rel_tol=1e-7) for r, v in zip(right, left, strict=True)):
            return Fraction(a, b, inverse_size, inverse)
    return None
