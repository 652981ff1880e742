"""What transformers are made of: one attention, one block, and a cache of keys and values.

A block's layers have roles (query, up, …); a table of names says where each stands in a family's checkpoints, so
that loading is the identity. Source: Vaswani et al. 2017 (arXiv:1706.03762).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from zoonet import ops
from zoonet.ops.devices import array_module
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.types import INTEGER, kind_of
from zoonet.zoo.layers import Linear, constant, undrawn
from zoonet.zoo.modules import Array, Module

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": ops.gelu,
    "gelu_new": partial(ops.gelu, approximate="tanh"),
    "gelu_fast": partial(ops.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(ops.gelu, approximate="tanh"),
    "relu": ops.relu,
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The function that a configuration names. Raises ArgumentError for one that is not known."""
    if name not in ACTIVATIONS:
        raise ArgumentError("no such activation", expected=", ".join(ACTIVATIONS), received=repr(name))
    return ACTIVATIONS[name]


def place(root: Module, name: str, module: Module) -> Module:
    """Put a module below another one under a dotted name, making plain modules on the way; returns it."""
    *path, last = name.split(".")
    for part in path:
        if part not in vars(root):
            setattr(root, part, Module())
        root = vars(root)[part]
    setattr(root, last, module)
    return module


class RMSNorm(Module):
    """x over the root of its mean square (Zhang and Sennrich, 2019): (…, features) -> the same."""

    def __init__(self, features: int, *, eps: float = 1e-6) -> None:
        self.eps = eps
        self.weight = constant(1, features)

    def reset(self, rng: np.random.Generator) -> None:
        """Weight one."""
        self.weight = np.ones_like(self.weight)

    def forward(self, x: Array) -> Array:
        """(…, features) -> (…, features)."""
        return ops.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Conv1D(Module):
    """y = x · weight + bias, GPT-2's linear layer: (…, inputs) -> (…, outputs). weight: (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.weight = undrawn(inputs, outputs)
        self.bias = undrawn(outputs) if bias else None
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """Normal with deviation 0.02, as GPT-2; bias zero."""
        self.weight = rng.standard_normal(self.weight.shape, np.float32) * np.float32(0.02)
        self.bias = None if self.bias is None else np.zeros(self.bias.shape, np.float32)

    def forward(self, x: Array) -> Array:
        """(…, inputs) -> (…, outputs)."""
        y = ops.matmul(x, self.weight)
        return y if self.bias is None else y + self.bias


class Cache:
    """Keys and values of the positions seen so far, in arrays with room for more, at most `capacity` positions.

    No step copies what is kept: the arrays are made for `capacity` at once where that is little, and doubled when they
    are full where it is much. Not traced: for decoding step by step. length: positions that every layer holds.
    """

    _ROOM = 1024

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._arrays: dict[int, tuple[Array, Array]] = {}

    def append(self, layer: int, key: Array, value: Array) -> tuple[Array, Array]:
        """Keep (N, H, T, D) behind what is kept; returns views (N, H, length + T, D). Raises InputError if full."""
        stop = self.length + key.shape[2]
        if stop > self.capacity:
            raise InputError("the cache is full", expected=f"at most {self.capacity} positions", received=stop)
        kept = self._arrays.get(layer)
        if kept is None or kept[0].shape[2] < stop:
            room = min(self.capacity, max(2 * stop, self._ROOM))
            made = [array_module(a).zeros((*a.shape[:2], room, a.shape[-1]), a.dtype) for a in (key, value)]
            if kept is not None:
                for new, old in zip(made, kept, strict=True):
                    new[:, :, : self.length] = old[:, :, : self.length]
            self._arrays[layer] = (made[0], made[1])
        keys, values = self._arrays[layer]
        keys[:, :, self.length : stop], values[:, :, self.length : stop] = key, value
        return keys[:, :, :stop], values[:, :, :stop]

    def kept(self, layer: int) -> tuple[Array, Array] | None:
        """The keys and values that are kept, views (N, H, length, D); None before the first `append`."""
        if layer not in self._arrays:
            return None
        keys, values = self._arrays[layer]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def advance(self, count: int) -> None:
        """All layers have taken `count` more positions."""
        self.length += count

    def reorder(self, rows: Array) -> None:
        """Row i becomes what row rows[i] was: for beam search. The number of rows may change."""
        for layer, arrays in self._arrays.items():
            self._arrays[layer] = tuple(a[rows] for a in arrays)


@dataclass(frozen=True)
class Context:
    """What attention is told beside its input.

    mask: bool, broadcasts to (N, H, T, S), True: take part. causal: no key after its query. window: (left, right).
    rotation: cos and sin that broadcast to (N, H, T, D / 2), for queries and keys. cache: keys of earlier positions.
    """

    mask: Array | None = None
    causal: bool = False
    window: tuple[int, int] | None = None
    rotation: tuple[Array, Array] | None = None
    cache: Cache | None = None


@dataclass(frozen=True)
class BlockConfig:
    """A block's sizes and kinds. names: role -> dotted name; a role that is absent is a layer that is absent.

    Roles: query, key, value (or query_key_value), output, norm1, up, gate, down, norm2, query_norm, key_norm.
    """

    width: int
    heads: int
    hidden: int
    activation: str
    norm: Callable[[int], Module]
    names: Mapping[str, str]
    key_value_heads: int
    head_size: int
    pre_norm: bool
    linear: Callable[..., Module] = Linear
    projection_bias: bool = True
    output_bias: bool = True
    hidden_bias: bool = True


def check_heads(width: int, heads: int, shared: int | None = None) -> None:
    """Raise ArgumentError where heads do not divide the width, or heads of keys and values those of queries."""
    if width % heads:
        raise ArgumentError("heads do not divide the width", expected=f"a multiple of {heads}", received=width)
    if shared and heads % shared:
        raise ArgumentError("key-value heads do not divide heads", expected=f"a multiple of {shared}", received=heads)


class Block(Module):
    """Attention, then two layers at each position, each with a residual: (N, T, width) -> (N, T, width)."""

    def __init__(self, config: BlockConfig, layer: int = 0) -> None:
        self._config, self._layer, self._activation = config, layer, activation(config.activation)
        inner, shared = config.heads * config.head_size, config.key_value_heads * config.head_size
        width, hidden, linear = config.width, config.hidden, config.linear
        sizes = {
            "query": (width, inner, config.projection_bias),
            "key": (width, shared, config.projection_bias),
            "value": (width, shared, config.projection_bias),
            "query_key_value": (width, inner + 2 * shared, config.projection_bias),
            "output": (inner, width, config.output_bias),
            "gate": (width, hidden, config.hidden_bias),
            "up": (width, hidden, config.hidden_bias),
            "down": (hidden, width, config.hidden_bias),
        }
        self._roles: dict[str, Module] = {}  # private: the same modules stand under their own names
        for role, name in config.names.items():
            if role in sizes:
                inputs, outputs, bias = sizes[role]
                module = linear(inputs, outputs, bias=bias)
            else:
                module = config.norm(config.head_size if role in ("query_norm", "key_norm") else width)
            self._roles[role] = place(self, name, module)

    def forward(self, x: Array, context: Context) -> Array:
        """(N, T, width) -> (N, T, width)."""
        norm1, norm2 = self._roles["norm1"], self._roles["norm2"]
        if self._config.pre_norm:
            x = x + self.attend(norm1(x), context)
            return x + self.feed_forward(norm2(x))
        x = norm1(x + self.attend(x, context))
        return norm2(x + self.feed_forward(x))

    def feed_forward(self, x: Array) -> Array:
        """(N, T, width) -> (N, T, width), each position alone."""
        roles = self._roles
        y = self._activation(roles["gate" if "gate" in roles else "up"](x))  # (N, T, hidden)
        if "gate" in roles:
            y = y * roles["up"](x)
        return roles["down"](y)

    def attend(self, x: Array, context: Context) -> Array:
        """(N, T, width) -> (N, T, width): each position a mixture of the values of those that it sees."""
        config, roles = self._config, self._roles
        inner, shared = config.heads * config.head_size, config.key_value_heads * config.head_size
        if "query_key_value" in roles:
            y = roles["query_key_value"](x)  # (N, T, inner + 2 · shared)
            parts = y[..., :inner], y[..., inner : inner + shared], y[..., inner + shared :]
        else:
            parts = roles["query"](x), roles["key"](x), roles["value"](x)
        query, key, value = [self._split(part) for part in parts]  # (N, H, T, D)
        if "query_norm" in roles:
            query, key = roles["query_norm"](query), roles["key_norm"](key)
        if context.rotation is not None:
            query, key = [ops.rotary_embedding(a, *context.rotation) for a in (query, key)]
        offset = 0
        if context.cache is not None:
            offset = context.cache.length
            key, value = context.cache.append(self._layer, key, value)  # (N, H', offset + T, D)
        y = ops.scaled_dot_product_attention(
            query, key, value, context.mask, context.causal, None, context.window, offset
        )  # (N, H, T, D)
        batch, length = x.shape[:2]
        return roles["output"](ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (batch, length, inner)))

    def _split(self, x: Array) -> Array:
        """(N, T, H · D) -> (N, H, T, D)."""
        batch, length = x.shape[:2]
        return ops.transpose(ops.reshape(x, (batch, length, -1, self._config.head_size)), (0, 2, 1, 3))


def check_tokens(tokens: Array, vocabulary: int, limit: int | None) -> None:
    """Raise InputError where (N, T) token numbers are no integers, beyond the vocabulary, or too many positions."""
    if len(tokens.shape) != 2 or tokens.shape[1] == 0 or kind_of(tokens.dtype) != INTEGER:
        raise InputError(
            "a transformer takes token numbers",
            expected="integers of shape (N, T), T at least 1",
            received=f"{tokens.dtype}{list(tokens.shape)}",
        )
    if limit is not None and tokens.shape[1] > limit:
        raise InputError(
            "the text is too long for the model",
            expected=f"at most {limit} tokens",
            received=tokens.shape[1],
            fix="truncate it, or split it into parts",
        )
    if ops.is_array(tokens) and tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary):
        raise InputError(
            "a token is outside the vocabulary",
            expected=f"0 to {vocabulary - 1}",
            received=f"{int(tokens.min())} to {int(tokens.max())}",
            fix="use the tokenizer that belongs to the model",
        )
