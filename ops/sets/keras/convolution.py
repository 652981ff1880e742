"""Convolutions with Keras's kernels: (kernel…, inputs, outputs), depthwise (kernel…, channels, multiplier)."""

from __future__ import annotations

from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.keras.activations import Activation, activate
from zoonet.ops.sets.keras.common import Sizes, from_first, per_axis, require_rank, require_shape, to_first
from zoonet.ops.sets.keras.registry import Weight, layer
from zoonet.ops.types import Array

_WEIGHTS = (Weight("kernel"), Weight("bias", when="use_bias"))
_DEPTHWISE = (Weight("depthwise_kernel"), Weight("bias", when="use_bias"))
_SEPARABLE = (Weight("depthwise_kernel"), Weight("pointwise_kernel"), Weight("bias", when="use_bias"))


def output_first(kernel: Array, outputs: int = -1) -> Array:
    """A kernel of Keras as (outputs, inputs, kernel…); outputs: its axis of outputs, the other one has inputs."""
    rank = len(kernel.shape) - 2
    last = (rank + 1, rank) if outputs == -1 else (rank, rank + 1)
    return ops.transpose(kernel, (*last, *range(rank)))


def convolve(
    x: Array, kernel: Array, bias: Array | None, strides: Sizes, padding: str, dilation: Sizes, groups: int, name: str
) -> Array:
    """A convolution of (N, C, …) by a kernel of Keras. padding: "valid", "same" or "causal" (one axis only)."""
    rank = len(x.shape) - 2
    dilations = per_axis(dilation, rank, name, "dilation_rate")
    if padding == "causal" and rank == 1:
        x, padding = ops.pad(x, ((0, 0), (0, 0), (dilations[0] * (int(kernel.shape[0]) - 1), 0))), "valid"
    if padding not in ("valid", "same"):
        raise ArgumentError(f"{name}: unknown padding", expected="valid, same, or causal on one axis", received=padding)
    steps = per_axis(strides, rank, name, "strides")
    return ops.conv(x, output_first(kernel), bias, steps, padding, dilations, groups)


def _declare_convolution(rank: int, *names: str) -> None:
    name = names[0]

    def conv(
        inputs: Array,
        kernel: Array,
        bias: Array | None = None,
        /,
        filters: int | None = None,
        kernel_size: Sizes = None,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
    ) -> Array:
        """Convolution: (N, spatial…, channels) or channels first, as data_format says; kernel: (size…, in, out)."""
        require_rank(inputs, rank + 2, name)
        sizes = (None,) * rank if kernel_size is None else per_axis(kernel_size, rank, name, "kernel_size")
        require_shape(kernel, (*sizes, None, filters), name, "kernel")
        x = to_first(inputs, data_format, name)
        y = convolve(x, kernel, bias, strides, padding, dilation_rate, groups, name)
        return activate(from_first(y, data_format, name), activation)

    layer(*names, weights=_WEIGHTS)(conv)


def transposed_padding(
    kernel: int, stride: int, dilation: int, padding: str, extra: int | None
) -> tuple[tuple[int, int], int]:
    """What a transposed convolution cuts (before, after) and adds after, on one axis.

    The result has stride · size ("same") or (size - 1) · stride + max(kernel, stride) ("valid") positions; with `extra`
    (Keras's output_padding) as many more than the least that the strides allow.
    """
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        return (0, 0), max(stride - reach, 0) if extra is None else extra
    total = stride + reach - 2 if extra is None else reach + reach % 2 - 2 + extra
    left = min(total // 2 + total % 2, reach - 1)
    before, after = reach - 1 - left, reach - 1 - (total - left)
    return (before, max(after, 0)), max(-after, 0)


def _declare_transposed(rank: int, *names: str) -> None:
    name = names[0]

    def conv_transpose(
        inputs: Array,
        kernel: Array,
        bias: Array | None = None,
        /,
        filters: int | None = None,
        kernel_size: Sizes = None,
        strides: Sizes = 1,
        padding: str = "valid",
        output_padding: Sizes = None,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Activation = None,
        use_bias: bool = True,
        groups: int = 1,
    ) -> Array:
        """Transposed convolution; kernel: (size…, out, in). Positions are those of TensorFlow and JAX."""
        require_rank(inputs, rank + 2, name)
        require_shape(kernel, (*(None,) * rank, filters, None), name, "kernel")
        if padding not in ("valid", "same") or groups != 1:
            raise ArgumentError(
                f"{name}: unknown padding or groups", expected="valid or same, 1 group", received=f"{padding}, {groups}"
            )
        x = to_first(inputs, data_format, name)
        extra = (None,) * rank if output_padding is None else per_axis(output_padding, rank, name, "output_padding")
        steps = per_axis(strides, rank, name, "strides")
        dilations = per_axis(dilation_rate, rank, name, "dilation_rate")
        sizes = tuple(int(n) for n in kernel.shape[:rank])
        plans = [
            transposed_padding(k, s, d, padding, e) for k, s, d, e in zip(sizes, steps, dilations, extra, strict=True)
        ]
        y = ops.conv_transpose(
            x,
            output_first(kernel),
            bias,
            steps,
            tuple([cut for cut, _ in plans]),
            tuple([added for _, added in plans]),
            1,
            dilations,
        )
        return activate(from_first(y, data_format, name), activation)

    layer(*names, weights=_WEIGHTS)(conv_transpose)


def depthwise(
    x: Array, kernel: Array, bias: Array | None, strides: Sizes, padding: str, dilation: Sizes, name: str
) -> Array:
    """Each channel of (N, C, …) convolved by its own kernels: (size…, C, multiplier) -> (N, C · multiplier, …)."""
    *sizes, channels, multiplier = [int(n) for n in kernel.shape]
    merged = ops.reshape(kernel, (*sizes, 1, channels * multiplier))
    return convolve(x, merged, bias, strides, padding, dilation, channels, name)


def _declare_depthwise(rank: int, *names: str) -> None:
    name = names[0]

    def depthwise_conv(
        inputs: Array,
        depthwise_kernel: Array,
        bias: Array | None = None,
        /,
        kernel_size: Sizes = None,
        strides: Sizes = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Activation = None,
        use_bias: bool = True,
    ) -> Array:
        """Convolution within each channel; depthwise_kernel: (size…, channels, depth_multiplier)."""
        require_rank(inputs, rank + 2, name)
        require_shape(depthwise_kernel, (*(None,) * (rank + 1), depth_multiplier), name, "depthwise_kernel")
        x = to_first(inputs, data_format, name)
        y = depthwise(x, depthwise_kernel, bias, strides, padding, dilation_rate, name)
        return activate(from_first(y, data_format, name), activation)

    layer(*names, weights=_DEPTHWISE)(depthwise_conv)


def _declare_separable(rank: int, *names: str) -> None:
    name = names[0]

    def separable_conv(
        inputs: Array,
        depthwise_kernel: Array,
        pointwise_kernel: Array,
        bias: Array | None = None,
        /,
        filters: int | None = None,
        kernel_size: Sizes = None,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: Activation = None,
        use_bias: bool = True,
    ) -> Array:
        """Convolution within each channel, then one of size 1 across; the bias comes after both."""
        require_rank(inputs, rank + 2, name)
        require_shape(depthwise_kernel, (*(None,) * (rank + 1), depth_multiplier), name, "depthwise_kernel")
        require_shape(pointwise_kernel, (*(1,) * rank, None, filters), name, "pointwise_kernel")
        x = to_first(inputs, data_format, name)
        y = depthwise(x, depthwise_kernel, None, strides, padding, dilation_rate, name)
        y = convolve(y, pointwise_kernel, bias, 1, "valid", 1, 1, name)
        return activate(from_first(y, data_format, name), activation)

    layer(*names, weights=_SEPARABLE)(separable_conv)


for _rank in (1, 2, 3):
    _declare_convolution(_rank, f"Conv{_rank}D", f"Convolution{_rank}D")
    _declare_transposed(_rank, f"Conv{_rank}DTranspose", f"Convolution{_rank}DTranspose")
_declare_transposed(2, "Deconvolution2D")
for _rank in (1, 2):
    _declare_depthwise(_rank, f"DepthwiseConv{_rank}D")
    _declare_separable(_rank, f"SeparableConv{_rank}D", f"SeparableConvolution{_rank}D")

__all__: list[Any] = ["convolve", "output_first", "transposed_padding"]
