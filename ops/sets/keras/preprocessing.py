"""Layers that turn numbers into categories. Those that take texts, or hash, are refused in `registry.find_layer`."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.ops.sets.keras.common import LARGEST_MASK, affordable
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array


def encoded(indices: Array, mode: str, depth: int, name: str) -> Array:
    """Indices as they are ("int"), as vectors of `depth` ("one_hot"), or those of an item together: whether each is
    there ("multi_hot"), or how often ("count").
    """
    if mode == "int":
        return ops.cast(indices, "int64")
    affordable(depth, LARGEST_MASK, name, "the number of categories")
    rank = len(indices.shape)
    if mode == "one_hot":
        if rank > 1 and int(indices.shape[-1]) == 1:
            indices = ops.squeeze(indices, -1)
        return ops.one_hot(ops.cast(indices, "int64"), depth, "float32", -1)
    vectors = ops.one_hot(ops.cast(indices, "int64"), depth, "float32", -1)
    if mode in ("multi_hot", "binary"):
        return ops.max(vectors, 1 if rank > 1 else 0)
    if mode == "count":
        return ops.sum(vectors, 1 if rank > 1 else 0)
    raise UnsupportedFormatError(f"{name}: this output_mode is not supported", expected="int, one_hot, multi_hot or "
                                 "count", received=mode)  # fmt: skip


@layer("CategoryEncoding")
def category_encoding(
    inputs: Array, /, num_tokens: int | None = None, output_mode: str = "multi_hot", sparse: bool = False
) -> Array:
    """Integers below num_tokens as vectors; see `encoded`."""
    if not isinstance(num_tokens, int):
        raise ArgumentError("CategoryEncoding: num_tokens is missing", expected="an integer", received=num_tokens)
    return encoded(inputs, output_mode, num_tokens, "CategoryEncoding")


@layer("Discretization")
def discretization(
    inputs: Array,
    /,
    bin_boundaries: tuple[float, ...] | None = None,
    num_bins: int | None = None,
    epsilon: float = 0.01,
    output_mode: str = "int",
    sparse: bool = False,
) -> Array:
    """The number of boundaries that a number reaches, int64 or encoded."""
    if bin_boundaries is None:
        raise UnsupportedFormatError(
            "Discretization without boundaries is not supported",
            expected="bin_boundaries in the configuration",
            fix="call adapt, or give bin_boundaries, and save the model again",
        )
    reached = ops.greater_equal(ops.expand_dims(inputs, -1), np.asarray(bin_boundaries, np.float32))
    places = ops.sum(ops.cast(reached, "int64"), -1)
    return encoded(places, output_mode, len(bin_boundaries) + 1, "Discretization")


@layer("IntegerLookup")
def integer_lookup(
    inputs: Array,
    /,
    vocabulary: tuple[int, ...] | None = None,
    max_tokens: int | None = None,
    num_oov_indices: int = 1,
    mask_token: int | None = None,
    oov_token: int = -1,
    vocabulary_dtype: str = "int64",
    idf_weights: Any = None,
    invert: bool = False,
    output_mode: str = "int",
    sparse: bool = False,
    pad_to_max_tokens: bool = False,
    vocabulary_size: int | None = None,
    oov_method: str = "farmhash",
    salt: Any = None,
) -> Array:
    """The place of an integer in the vocabulary, after one for what it does not have and, before that, the mask token.

    Encoded, the mask token has no place.
    """
    if vocabulary is None or num_oov_indices != 1 or invert or idf_weights is not None or pad_to_max_tokens:
        raise UnsupportedFormatError(
            "IntegerLookup is supported with a vocabulary in the configuration, one index for unknown numbers, and "
            "neither weights nor padding",
            received=f"vocabulary={str(vocabulary)[:40]}, num_oov_indices={num_oov_indices}, invert={invert}",
        )
    if mask_token is not None and output_mode != "int":
        raise UnsupportedFormatError("IntegerLookup with a mask token is supported for output_mode int only")
    first = 1 if mask_token is None else 2
    words = [token for token in vocabulary if token not in (mask_token, oov_token)]
    same = ops.equal(ops.expand_dims(inputs, -1), np.asarray(words, np.int64))
    places = ops.sum(ops.multiply(ops.cast(same, "int64"), np.arange(1, len(words) + 1)), -1)
    places = ops.where(ops.equal(places, 0), first - 1, ops.add(places, first - 1))
    if mask_token is not None:
        places = ops.where(ops.equal(inputs, mask_token), 0, places)
    return encoded(places, output_mode, len(words) + first, "IntegerLookup")
