"""What transformers are made of: one attention, one block, and a cache of keys and values.

A block's layers have roles (query, up, …); a table of names says where each stands in a family's checkpoints, so
that loading is the identity. Source: Vaswani et al. 2017 (arXiv:1706.03762).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

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


def beside(constant: Array, other: Array) -> Array:
    """A constant on the device of another array; as it is where that is traced, since compiling moves constants."""
    if not ops.is_array(other) or ops.device_of(other) == "cpu":
        return constant
    return ops.to_device(constant, f"cuda:{getattr(getattr(other, 'device', None), 'id', 0)}")


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
        self._memory: dict[int, tuple[Array, Array]] = {}

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

    def memory(self, layer: int, make: Callable[[], tuple[Array, Array]]) -> tuple[Array, Array]:
        """Keys and values (N, H, S, D) of an encoder's output: made the first time, kept afterwards."""
        if layer not in self._memory:
            self._memory[layer] = make()
        return self._memory[layer]

    def advance(self, count: int) -> None:
        """All layers have taken `count` more positions."""
        self.length += count

    def reorder(self, rows: Array) -> None:
        """Row i becomes what row rows[i] was: for beam search. The number of rows may change."""
        for kept in (self._arrays, self._memory):
            for layer, (keys, values) in kept.items():
                kept[layer] = keys[beside(rows, keys)], values[beside(rows, keys)]


@dataclass(frozen=True)
class Context:
    """What attention is told beside its input.

    mask: bool, broadcasts to (N, H, T, S), True: take part. causal: no key after its query. window: (left, right).
    rotation: cos and sin that broadcast to (N, H, T, D / 2), for queries and keys. cache: keys of earlier positions.
    bias: what is added to the scores of queries start to stop, (1, H, stop - start, S). memory: (N, M, width), what a
    decoder's blocks look at beside their own input; memory_mask: bool, (N, 1, 1, M).
    """

    mask: Array | None = None
    causal: bool = False
    window: tuple[int, int] | None = None
    rotation: tuple[Array, Array] | None = None
    cache: Cache | None = None
    bias: Callable[[int, int], Array] | None = None
    memory: Array | None = None
    memory_mask: Array | None = None


@dataclass(frozen=True)
class BlockConfig:
    """A block's sizes and kinds. names: role -> dotted name; a role that is absent is a layer that is absent.

    Roles: query, key, value (or query_key_value), output, norm1, up, gate, down, norm2, query_norm, key_norm; and for
    attention to a memory memory_query, memory_key, memory_value (or memory_query_key_value), memory_output,
    memory_norm. scale: of the scores, 1 / √head_size where None. joined: makes layers of the role query_key_value.
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
    scale: float | None = None
    joined: Callable[..., Module] | None = None


def check_heads(width: int, heads: int, shared: int | None = None) -> None:
    """Raise ArgumentError where heads do not divide the width, or heads of keys and values those of queries."""
    if width % heads:
        raise ArgumentError("heads do not divide the width", expected=f"a multiple of {heads}", received=width)
    if shared and heads % shared:
        raise ArgumentError("key-value heads do not divide heads", expected=f"a multiple of {shared}", received=heads)


#: Scores with a bias that exist at one time.
_SCORES = 1 << 22


class Block(Module):
    """Attention, then two layers at each position, each with a residual: (N, T, width) -> (N, T, width).

    With the roles of a memory, attention to that comes between.
    """

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
        self._roles: dict[str, Any] = {}  # private: the same modules stand under their own names
        for role, name in config.names.items():
            kind = role.removeprefix("memory_")
            if kind in sizes:
                inputs, outputs, bias = sizes[kind]
                make = config.joined if kind == "query_key_value" and config.joined else linear
                module = make(inputs, outputs, bias=bias)
            else:
                module = config.norm(config.head_size if role in ("query_norm", "key_norm") else width)
            self._roles[role] = place(self, name, module)

    def forward(self, x: Array, context: Context) -> Array:
        """(N, T, width) -> (N, T, width)."""
        steps = [("norm1", self.attend), ("norm2", lambda x, _: self.feed_forward(x))]
        if "memory_norm" in self._roles:
            steps.insert(1, ("memory_norm", self.attend_memory))
        for norm, layer in steps:
            if self._config.pre_norm:
                x = x + layer(self._roles[norm](x), context)
            else:
                x = self._roles[norm](x + layer(x, context))
        return x

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
        if "query_key_value" in roles:
            inner, shared = config.heads * config.head_size, config.key_value_heads * config.head_size
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
        if context.bias is not None:
            y = self._biased(query, key, value, context, offset)
        else:
            y = ops.scaled_dot_product_attention(
                query, key, value, context.mask, context.causal, config.scale, context.window, offset
            )  # (N, H, T, D)
        return roles["output"](self._merge(y))

    def attend_memory(self, x: Array, context: Context) -> Array:
        """(N, T, width) -> (N, T, width): each position a mixture of the memory's values."""
        config, roles, memory = self._config, self._roles, context.memory
        inner, joined = config.heads * config.head_size, roles.get("memory_query_key_value")

        def keys_and_values() -> tuple[Array, Array]:
            if joined is None:
                parts = roles["memory_key"](memory), roles["memory_value"](memory)
            else:
                y = joined.part(memory, inner, 3 * inner)
                parts = y[..., :inner], y[..., inner:]
            return self._split(parts[0]), self._split(parts[1])

        query = self._split(roles["memory_query"](x) if joined is None else joined.part(x, 0, inner))
        cache = context.cache
        key, value = keys_and_values() if cache is None else cache.memory(self._layer, keys_and_values)
        y = ops.scaled_dot_product_attention(query, key, value, context.memory_mask, False, config.scale)
        return roles["memory_output"](self._merge(y))

    def _biased(self, query: Array, key: Array, value: Array, context: Context, offset: int) -> Array:
        """Attention with a bias, some queries at a time, so that memory does not grow with T · S."""
        assert context.bias is not None
        length, seen = query.shape[2], key.shape[2]
        rows = max(1, _SCORES // (self._config.heads * seen))
        parts = []
        for start in range(0, length, rows):
            stop = min(start + rows, length)
            added = context.bias(start, stop)  # (1, H, stop - start, S)
            if context.mask is not None:
                added = ops.where(context.mask, added, np.float32(-np.inf).astype(added.dtype))
            part = query[:, :, start:stop]
            parts.append(
                ops.scaled_dot_product_attention(
                    part, key, value, added, context.causal, self._config.scale, context.window, offset + start
                )
            )
        return parts[0] if len(parts) == 1 else ops.concat(parts, 2)

    def _split(self, x: Array) -> Array:
        """(N, T, H · D) -> (N, H, T, D)."""
        batch, length = x.shape[:2]
        return ops.transpose(ops.reshape(x, (batch, length, -1, self._config.head_size)), (0, 2, 1, 3))

    def _merge(self, x: Array) -> Array:
        """(N, H, T, D) -> (N, T, H · D)."""
        batch, heads, length, size = x.shape
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * size))


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
