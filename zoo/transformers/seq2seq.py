"""What encoder–decoders share: a decoder whose encoder has read, as generation takes it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from zoonet import ops
from zoonet.zoo.transformers.blocks import Cache

Array = np.ndarray[Any, Any]


def place_of(network: Any) -> str:
    """The device of a network's parameters."""
    for _, array in network.named_parameters():
        if ops.device_of(array) != "cpu":
            return f"cuda:{getattr(getattr(array, 'device', None), 'id', 0)}"
        break
    return "cpu"


class EncoderDecoder(Protocol):
    """What generation needs of an encoder–decoder."""

    @property
    def positions(self) -> int | None:
        """The longest text of the decoder in tokens, or None."""

    def encode(self, tokens: Any, mask: Any = None) -> Any:
        """(N, M), mask (N, M) -> memory (N, M, width)."""

    def decode(
        self,
        tokens: Any,
        memory: Any,
        memory_mask: Any = None,
        mask: Any = None,
        positions: Any = None,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Any:
        """(N, T), memory (N, M, width) -> scores (N, T, vocabulary)."""


class Reading:
    """An encoder–decoder that has read texts: a `Decoder` for generation. tokens: (N, M); mask: (N, M), True: text."""

    def __init__(self, network: EncoderDecoder, tokens: Array, mask: Array) -> None:
        self._network = network
        self.device = place_of(network)
        self._mask = None if np.asarray(mask).all() else ops.to_device(np.asarray(mask), self.device)
        self._memory = network.encode(ops.to_device(tokens, self.device), self._mask)

    @property
    def positions(self) -> int | None:
        """The longest text of the decoder in tokens, or None."""
        return self._network.positions

    def forward(
        self, tokens: Any, mask: Any = None, positions: Any = None, cache: Cache | None = None, last: bool = False
    ) -> Any:
        """(N, T) -> (N, T, V)."""
        return self._network.decode(tokens, self._memory, self._mask, mask, positions, cache, last)


def seen(mask: Any) -> Any:
    """A mask (N, S) of positions that take part as attention takes it, (N, 1, 1, S)."""
    return None if mask is None else ops.cast(mask, "bool")[:, None, None, :]


def counted(tokens: Any, start: int = 0) -> Any:
    """The positions of tokens (N, T) from `start` on, (T,).

    Counted by operators on the tokens, each of which equals itself: a trace has them at any length.
    """
    return ops.cumsum(ops.cast(tokens[0] == tokens[0], "int64"), 0) + (start - 1)
