"""Einstein summation, over matrix products: any number of operands, diagonals, ellipsis, implicit output."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.ops.elementwise import multiply
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.linear import matmul
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import composite
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import broadcast_to, reshape, transpose
from zoonet.ops.slicing import index
from zoonet.ops.types import Array, TensorType, promote

__all__ = ["einsum"]

#: An operand on its way: a label for each axis, no label twice. Axes of an ellipsis have negative integers as labels.
Labels = tuple[Any, ...]


@composite(
    exact=False,
    samples=[
        sample("ij,jk->ik", floats(2, 3), floats(3, 4)),
        sample("bhqd,bhkd->bhqk", floats(2, 3, 4, 5), floats(2, 3, 2, 5)),
        sample("ij", floats(2, 3)),
        sample("ji", floats(2, 3)),
        sample("ii", floats(3, 3)),
        sample("iji->ji", floats(3, 2, 3)),
        sample("i,j", floats(2), floats(3)),
        sample("i,i->", floats(3), floats(3)),
        sample("...ij,...jk->...ik", floats(2, 1, 3, 4), floats(5, 4, 2)),
        sample("...i->...", floats(2, 3, 4)),
        sample("i...,i...->...", floats(3, 2), floats(3, 1)),
        sample("ab,bc,cd->ad", floats(2, 3), floats(3, 4), floats(4, 2)),
        sample("ijk,ljk,k -> il", floats(2, 3, 4), floats(3, 3, 4), floats(4)),
        sample("bij,kj->bk", floats(2, 3, 4), floats(5, 4)),
        sample("ij,ij->ij", floats(2, 3), floats(2, 3)),
        sample("ij,jk", ints(2, 3), ints(3, 2)),
    ],
)
def einsum(equation: str, *operands: Array) -> Array:
    """Sums of products as an equation says: "bij,bjk->bik" is a batched matrix product.

    equation: for each operand a letter per axis, then optionally "->" and the letters of the result; without it the
    result has the letters that occur once, in alphabetical order, after the axes of "...". A letter twice in one
    operand takes the diagonal; "..." stands for axes that broadcast. operands: numbers -> promoted dtype.
    Raises ArgumentError for an equation that is not well formed or does not fit the number of operands, ShapeError
    where the shapes do not fit it. Source: numpy.einsum, torch.einsum.
    """
    terms, output = parse_equation(equation, [tuple(x.shape) for x in operands])
    sizes = label_sizes(equation, terms, [tuple(x.shape) for x in operands])
    work = [_simplified(x, labels, sizes) for x, labels in zip(operands, terms, strict=True)]
    for first, second in _order(terms, output, sizes):
        right, left = work.pop(max(first, second)), work.pop(min(first, second))
        needed = set(output).union(*(labels for _, labels in work))
        work.append(_contract(left, right, needed))
    return _arranged(*work[0], output, sizes)


@einsum.type
def _(equation: str, *operands: TensorType) -> TensorType:
    shapes: list[Any] = [x.shape for x in operands]
    terms, output = parse_equation(equation, shapes)
    sizes = label_sizes(equation, terms, shapes)
    return TensorType(tuple(sizes[label] for label in output), promote(operands))


def _refuse(equation: str, reason: str, received: Any = None) -> ArgumentError:
    return ArgumentError(
        f"einsum: {reason}",
        expected="an equation such as 'bij,bjk->bik'",
        received=repr(equation) if received is None else received,
    )


def parse_equation(equation: str, shapes: list[tuple[int, ...]]) -> tuple[list[Labels], Labels]:
    """Labels of every operand and of the result, for operands of these shapes. Raises ArgumentError or ShapeError."""
    if not isinstance(equation, str):
        raise _refuse(equation, "the equation is not a string", type(equation).__name__)
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(shapes):
        raise _refuse(equation, "the number of operands differs", f"{len(shapes)} operands for {equation!r}")
    terms = [_labels(equation, text, len(shape)) for text, shape in zip(texts, shapes, strict=True)]
    every = [label for labels in terms for label in labels]
    ellipsis = tuple(sorted({label for label in every if isinstance(label, int)}))
    if not arrow:
        letters = sorted({label for label in every if isinstance(label, str)})
        return terms, (*ellipsis, *[label for label in letters if every.count(label) == 1])
    output = _split(equation, right, ellipsis)
    if len(set(output)) != len(output) or not set(output) <= set(every):
        raise _refuse(equation, "a letter of the result occurs twice, or in no operand")
    return terms, output


def _split(equation: str, text: str, ellipsis: Labels) -> Labels:
    before, dots, after = text.partition("...")
    if not all(c.isascii() and c.isalpha() for c in before + after):
        raise _refuse(equation, "the equation has other characters than letters, ',', '...' and '->'")
    return (*before, *(ellipsis if dots else ()), *after)


def _labels(equation: str, text: str, ndim: int) -> Labels:
    extra = ndim - len(text.replace("...", "", 1))
    if extra < 0 or (extra > 0 and "..." not in text):
        raise ShapeError(
            "einsum: the letters do not fit an operand", expected=f"as many axes as {text!r}", received=f"{ndim} axes"
        )
    return _split(equation, text, tuple(range(-extra, 0)))


def label_sizes(equation: str, terms: list[Labels], shapes: list[tuple[int, ...]]) -> dict[Any, int]:
    """The size of every label; 1 broadcasts. Raises ShapeError where sizes differ."""
    sizes: dict[Any, int] = {}
    for labels, shape in zip(terms, shapes, strict=True):
        for label, size in zip(labels, shape, strict=True):
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                raise ShapeError(
                    f"einsum: sizes do not fit {equation!r}",
                    expected=f"one size for each letter; {label if isinstance(label, str) else '...'!r} has {known}",
                    received=size,
                )
            sizes[label] = known if size == 1 else size
    return sizes


def _simplified(x: Array, labels: Labels, sizes: dict[Any, int]) -> tuple[Array, Labels]:
    """x with diagonals taken and without axes of size 1 that only broadcast."""
    kept = [axis for axis, label in enumerate(labels) if x.shape[axis] == sizes[label]]
    if len(kept) != len(labels):
        x = reshape(x, tuple(x.shape[axis] for axis in kept))
        labels = tuple(labels[axis] for axis in kept)
    for label in [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
        while labels.count(label) > 1:
            x, labels = _diagonal(x, labels, label)
    return x, labels


def _diagonal(x: Array, labels: Labels, label: Any) -> tuple[Array, Labels]:
    """The first two axes of a label made one: every (n + 1)-th element of the two laid out as one axis."""
    first = labels.index(label)
    second = labels.index(label, first + 1)
    rest = [axis for axis in range(len(labels)) if axis not in (first, second)]
    size = x.shape[first]
    x = reshape(transpose(x, (*rest, first, second)), (*[x.shape[axis] for axis in rest], size * size))
    return index(x, (Ellipsis, slice(None, None, size + 1))), (*[labels[axis] for axis in rest], label)


def _order(terms: list[Labels], output: Labels, sizes: dict[Any, int]) -> list[tuple[int, int]]:
    """Pairs of operands to contract, the result going to the end of the list."""
    if len(terms) <= 2:
        return [(0, 1)] * (len(terms) - 1)
    numbers = {label: number for number, label in enumerate(sizes)}
    arguments: list[Any] = []
    for labels in terms:
        unique = list(dict.fromkeys(labels))
        arguments += [np.broadcast_to(0.0, [sizes[label] for label in unique]), [numbers[label] for label in unique]]
    path = np.einsum_path(*arguments, [numbers[label] for label in output], optimize="greedy")[0]
    pairs: list[tuple[int, int]] = []
    for step in path[1:]:
        if len(step) == 1:
            continue
        remaining = sorted(step)
        pairs.append((remaining[0], remaining[1]))
        left = len(terms) - len(pairs)  # operands after the contraction; the newest is the last
        for taken, position in enumerate(remaining[2:]):
            pairs.append((position - 2 - taken, left - 1 - taken))
    return pairs


def _contract(left: tuple[Array, Labels], right: tuple[Array, Labels], needed: set[Any]) -> tuple[Array, Labels]:
    """One operand for two: labels that nothing else needs are summed, in a matrix product where both have them."""
    (x, x_labels), (y, y_labels) = (
        _summed(*operand, needed | set(other[1])) for operand, other in ((left, right), (right, left))
    )
    shared = [label for label in x_labels if label in y_labels]
    stack = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    rows = [label for label in x_labels if label not in shared]
    columns = [label for label in y_labels if label not in shared]
    sizes = dict(zip(x_labels + y_labels, (*x.shape, *y.shape), strict=True))

    def count(labels: list[Any]) -> int:
        return prod(sizes[label] for label in labels)

    outer = tuple(sizes[label] for label in stack)
    x = reshape(_permuted(x, x_labels, (*stack, *rows, *inner)), (*outer, count(rows), count(inner)))
    y = reshape(_permuted(y, y_labels, (*stack, *inner, *columns)), (*outer, count(inner), count(columns)))
    product = matmul(x, y) if inner else multiply(x, y) if not stack else multiply(_column(x), _row(y))
    labels = (*stack, *rows, *columns)
    return reshape(product, tuple(sizes[label] for label in labels)), labels


def _column(x: Array) -> Array:
    return reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1], 1))


def _row(y: Array) -> Array:
    return reshape(y, (*y.shape[:-2], 1, y.shape[-2] * y.shape[-1]))


def _permuted(x: Array, labels: Labels, wanted: Labels) -> Array:
    return x if labels == wanted else transpose(x, tuple(labels.index(label) for label in wanted))


def _summed(x: Array, labels: Labels, needed: set[Any]) -> tuple[Array, Labels]:
    axes = tuple(axis for axis, label in enumerate(labels) if label not in needed)
    if not axes:
        return x, labels
    return sum_over(x, axes), tuple(label for label in labels if label in needed)


def _arranged(x: Array, labels: Labels, output: Labels, sizes: dict[Any, int]) -> Array:
    x, labels = _summed(x, labels, set(output))
    wanted = tuple(label for label in output if label in labels)
    x = _permuted(x, labels, wanted)
    shape = tuple(sizes[label] for label in output)
    return x if tuple(x.shape) == shape else broadcast_to(x, shape)
