"""Layers: modules of one operator each, with PyTorch's parameter names, shapes and initialisation.

Initial values follow torch.nn: weights and biases of Conv2d and Linear uniform in ±1/√fan_in, which is He et al.
(2015) with a = √5; Embedding standard normal; norms one and zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.windows import Padding
from zoonet.zoo.modules import Array, Module, drawing, next_key


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> Array:
    """Float32 array of this shape, uniform in ±bound."""
    return (rng.random(shape, np.float32) * 2 - 1) * np.float32(bound)


def kaiming_normal(rng: np.random.Generator, shape: tuple[int, ...], fan: int) -> Array:
    """Float32 array of this shape, normal with deviation √(2 / fan), for layers before a ReLU (He et al., 2015)."""
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan))


def undrawn(*shape: int) -> Array:
    """A float32 zero of this shape that takes no memory (and cannot be written to), until it is drawn or loaded."""
    return np.broadcast_to(np.float32(0), shape)


def constant(value: float, *shape: int) -> Array:
    """A float32 array of one number; it takes no memory (and cannot be written to) where it will be loaded."""
    array = np.broadcast_to(np.float32(value), shape)
    return array.copy() if drawing() else array


class Conv2d(Module):
    """Convolution of pictures: (N, inputs, H, W) -> (N, outputs, H', W').

    weight: (outputs, inputs / groups, kernel, kernel); bias: (outputs,) or None. padding: rows and columns of zeros
    on each side, or as `ops.conv` takes it; half the (dilated) kernel if None, so that stride 1 keeps the size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: Padding | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        if inputs % groups or outputs % groups:
            raise ArgumentError(
                "Conv2d: groups do not divide the channels",
                expected=f"multiples of {groups}",
                received=f"{inputs} and {outputs}",
            )
        self.stride = stride
        self.padding: Padding = dilation * (kernel - 1) // 2 if padding is None else padding
        self.dilation = dilation
        self.groups = groups
        self.weight = undrawn(outputs, inputs // groups, kernel, kernel)
        self.bias = undrawn(outputs) if bias else None
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        self.weight = uniform(rng, self.weight.shape, bound)
        if self.bias is not None:
            self.bias = uniform(rng, self.bias.shape, bound)

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H', W')."""
        return ops.conv(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Linear(Module):
    """y = x · weightᵀ + bias: (…, inputs) -> (…, outputs). weight: (outputs, inputs); bias: (outputs,) or None."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.weight = undrawn(outputs, inputs)
        self.bias = undrawn(outputs) if bias else None
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        self.weight = uniform(rng, self.weight.shape, bound)
        if self.bias is not None:
            self.bias = uniform(rng, self.bias.shape, bound)

    def forward(self, x: Array) -> Array:
        """(…, inputs) -> (…, outputs)."""
        return ops.linear(x, self.weight, self.bias)


class Identity(Module):
    """x."""

    def forward(self, x: Array) -> Array:
        """The input."""
        return x


def linear_or_none(inputs: int, classes: int) -> Module:
    """The last layer of a classifier; for no classes nothing, so that the network gives its features, as in timm."""
    return Linear(inputs, classes) if classes else Identity()


class BatchNorm2d(Module):
    """Batch normalisation over (N, H, W) of each channel (Ioffe & Szegedy, 2015): (N, C, H, W) -> the same.

    In training it uses the batch's mean and variance, and assigns new running statistics:
    running ← (1 − momentum) · running + momentum · batch, with the unbiased variance, as PyTorch does.
    """

    buffers = ("running_mean", "running_var", "num_batches_tracked")
    optional = ("num_batches_tracked",)

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.eps = eps
        self.momentum = momentum
        self._fill(channels)

    def _fill(self, channels: int) -> None:
        self.weight, self.bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        self.running_mean, self.running_var = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self.num_batches_tracked = np.zeros((), np.int64)

    def reset(self, rng: np.random.Generator) -> None:
        """Weight and variance one, bias, mean and count zero."""
        self._fill(self.weight.shape[0])

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        if not self.training:
            return ops.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        y, mean, variance = ops.batch_norm_training(
            x, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        count = ops.add(self.num_batches_tracked, 1)
        self.assign_state(running_mean=mean, running_var=variance, num_batches_tracked=count)
        return y


class Dropout(Module):
    """Zeros with probability p in training, the rest divided by 1 - p (Srivastava et al., 2014). Keys: `keyed_by`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Array) -> Array:
        """Any shape -> the same."""
        return ops.dropout(x, next_key(), self.p) if self.training and self.p else x


class LayerNorm(Module):
    """Layer normalisation over the last axis (Ba et al., 2016): (…, features) -> the same."""

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight, self.bias = constant(1, features), constant(0, features)

    def reset(self, rng: np.random.Generator) -> None:
        """Weight one, bias zero."""
        self.weight, self.bias = np.ones_like(self.weight), np.zeros_like(self.bias)

    def forward(self, x: Array) -> Array:
        """(…, features) -> (…, features)."""
        return ops.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Embedding(Module):
    """Rows of a table by index: integers (…) -> (…, features). weight: (entries, features), standard normal."""

    def __init__(self, entries: int, features: int) -> None:
        self.weight = undrawn(entries, features)
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the table anew."""
        self.weight = rng.standard_normal(self.weight.shape, np.float32)

    def forward(self, indices: Array) -> Array:
        """Integers (…) -> (…, features)."""
        return ops.embedding(indices, self.weight)


class Sequential(Module):
    """Modules (or functions) one after the other; their names are "0", "1", … as in torch.nn.Sequential."""

    def __init__(self, *layers: Any) -> None:
        for position, layer in enumerate(layers):
            setattr(self, str(position), layer)
        self._layers = layers

    def forward(self, x: Any) -> Any:
        """The last layer's output."""
        for layer in self._layers:
            x = layer(x)
        return x

    def __getitem__(self, position: int) -> Any:
        return self._layers[position]

    def __len__(self) -> int:
        return len(self._layers)
