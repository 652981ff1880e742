"""Geometry of sliding windows, shared by convolution, pooling, unfold and fold: plain numbers, no arrays.

On each axis, output position o and kernel tap t meet at input position o·stride + t·dilation − before. Padding is
never materialised: `Windows.taps` clips each tap's range to the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

from zoonet.ops.errors import ArgumentError, ShapeError

#: One number for all spatial axes, or one per axis.
PerAxis: TypeAlias = "int | Sequence[int]"
#: "same", "valid", one number for all axes, or per axis a number or a pair (before, after).
Padding: TypeAlias = "str | int | Sequence[int | Sequence[int]]"
Pairs: TypeAlias = "tuple[tuple[int, int], ...]"
Slices: TypeAlias = "tuple[slice, ...]"


@dataclass(frozen=True)
class Windows:
    """Windows over spatial axes: sizes of input, kernel and output, strides, dilations and padding before."""

    input: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    output: tuple[int, ...]

    def overlap(self, axis: int, tap: int, start: int = 0, stop: int | None = None) -> tuple[slice, slice]:
        """Output and input positions that a tap joins on an axis, for outputs from start to stop.

        The output slice counts from start. Both are empty where the tap lies in the padding throughout.
        """
        stride, shift = self.stride[axis], tap * self.dilation[axis] - self.before[axis]
        stop = self.output[axis] if stop is None else stop
        low = min(max(start, -(shift // stride)), stop)
        high = max(low, min(stop, (self.input[axis] - 1 - shift) // stride + 1))
        if low == high:
            return slice(0, 0), slice(0, 0)
        first = low * stride + shift
        return slice(low - start, high - start), slice(first, first + (high - low - 1) * stride + 1, stride)

    def taps(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[tuple[int, ...], Slices, Slices]]:
        """Every tap with the slices of output and input that it joins; start and stop limit the first output axis."""
        axes = []
        for axis, size in enumerate(self.kernel):
            limits = (start, stop) if axis == 0 else (0, None)
            axes.append([(t, *self.overlap(axis, t, *limits)) for t in range(size)])
        for combination in product(*axes):
            yield (
                tuple([c[0] for c in combination]),
                tuple([c[1] for c in combination]),
                tuple([c[2] for c in combination]),
            )


def per_axis(name: str, parameter: str, value: PerAxis, rank: int, least: int = 1) -> tuple[int, ...]:
    """One integer per spatial axis, each at least `least`. Raises ArgumentError naming operator and parameter."""
    values = (value,) * rank if isinstance(value, int) else value
    valid = isinstance(values, list | tuple) and len(values) == rank
    if not valid or not all(isinstance(v, int) and v >= least for v in values):
        raise ArgumentError(
            f"{name}: {parameter} does not fit",
            expected=f"an integer of at least {least}, or {rank} of them",
            received=value,
        )
    return tuple(values)


def _pair(item: Any) -> tuple[int, int] | None:
    if isinstance(item, int):
        return item, item
    if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(n, int) for n in item):
        return item[0], item[1]
    return None


def padding_pairs(
    name: str,
    padding: Padding,
    input: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """Padding as (before, after) pairs. "same" gives ceil(input / stride) outputs, the odd cell at the end.

    Raises ArgumentError naming the operator.
    """
    rank = len(input)
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        totals = [
            max(((n + s - 1) // s - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(input, kernel, stride, dilation, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    items = (padding,) * rank if isinstance(padding, int) else padding
    pairs = [_pair(item) for item in items] if isinstance(items, list | tuple) and len(items) == rank else [None]
    found = tuple(pair for pair in pairs if pair is not None and min(pair) >= 0)
    if len(found) != rank:
        raise ArgumentError(
            f"{name}: padding does not fit",
            expected=f"'same', 'valid', a number >= 0, or {rank} of numbers and (before, after) pairs",
            received=padding,
        )
    return found


def spatial_rank(name: str, ndim: int) -> int:
    """The number of spatial axes of an array (N, C, spatial...). Raises ShapeError unless 1, 2 or 3."""
    if not 3 <= ndim <= 5:
        raise ShapeError(
            f"{name}: wrong number of axes",
            expected="(N, C, L), (N, C, H, W) or (N, C, D, H, W)",
            received=f"{ndim} axes",
            fix="add an axis for the batch with expand_dims" if ndim == 2 else None,
        )
    return ndim - 2


def sliding_windows(
    name: str,
    input: Sequence[int],
    kernel: Sequence[int],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool = False,
) -> tuple[Windows, Pairs]:
    """Windows over an input of these spatial sizes, and their padding as pairs.

    ceil_mode: a last window may reach beyond the padding if it starts inside the input or the padding before it.
    Raises ArgumentError for wrong arguments, ShapeError where the window is larger than the padded input.
    """
    rank = len(input)
    strides = per_axis(name, "stride", stride, rank)
    dilations = per_axis(name, "dilation", dilation, rank)
    pairs = padding_pairs(name, padding, input, kernel, strides, dilations)
    sizes = []
    for n, k, s, d, (before, after) in zip(input, kernel, strides, dilations, pairs, strict=True):
        room = n + before + after - d * (k - 1) - 1
        size = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if size < 1:
            raise ShapeError(
                f"{name}: the window is larger than the padded input",
                expected=f"at least {d * (k - 1) + 1} on each such axis",
                received=f"{n} + padding {before} + {after}",
                fix="a larger input, more padding or a smaller kernel",
            )
        if ceil_mode and (size - 1) * s >= n + before:
            size -= 1
        sizes.append(size)
    before_all = tuple(before for before, _ in pairs)
    return Windows(tuple(input), tuple(kernel), strides, dilations, before_all, tuple(sizes)), pairs
