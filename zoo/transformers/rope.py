"""Frequencies of rotary position embeddings, and their scalings to texts longer than those of the training.

Source: Su et al. 2021 (arXiv:2104.09864); position interpolation (arXiv:2306.15595); NTK-aware and YaRN
(arXiv:2309.00071); LongRoPE (arXiv:2402.13753); Llama 3.1's scaling by wavelength. Fields as in Hugging Face's
configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet.ops.errors import FormatError, UnsupportedFormatError
from zoonet.zoo.transformers.configurations import count, number

Frequencies = tuple[tuple[float, ...], float]


def frequencies(size: int, rope: Mapping[str, Any], positions: int, length: int) -> Frequencies:
    """(angles per position of each of size / 2 pairs, factor of cos and sin) for a text of this length.

    rope: rope_theta, rope_type and the scaling's fields. positions: the longest text in training. Raises FormatError
    for fields that are wrong, UnsupportedFormatError for a scaling that is not known.
    """
    base, kind = number(rope, "rope_theta", 10000.0), rope.get("rope_type", rope.get("type", "default"))
    if base <= 1:
        raise FormatError("config.json: rope_theta is wrong", expected="a number above 1", received=base)
    factor = number(rope, "factor", 1.0)
    if factor < 1:
        raise FormatError("config.json: the rotary factor is wrong", expected="1 or more", received=factor)
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    rates = np.float32(1) / np.float32(base) ** exponents
    attention = 1.0
    if kind == "linear":
        rates = rates / np.float32(factor)
    elif kind == "dynamic":
        if length > positions and size > 2:
            grown = base * (factor * length / positions - (factor - 1)) ** (size / (size - 2))
            rates = np.float32(1) / np.float32(grown) ** exponents
    elif kind == "llama3":
        rates = _by_wavelength(rates, rope, factor)
    elif kind == "yarn":
        rates, attention = _yarn(rates, rope, size, base, factor, positions)
    elif kind == "longrope":
        rates, attention = _long(rates, rope, positions, length)
    elif kind != "default":
        raise UnsupportedFormatError(
            "config.json: a rotary scaling that is not known",
            expected="default, linear, dynamic, llama3, yarn or longrope",
            received=repr(kind)[:100],
        )
    return tuple(float(rate) for rate in rates), attention


def _by_wavelength(rates: Any, rope: Mapping[str, Any], factor: float) -> Any:
    """Long waves slowed by the factor, short ones kept, and a blend between."""
    low, high = number(rope, "low_freq_factor", 1.0), number(rope, "high_freq_factor", 4.0)
    if not 0 < low < high:
        raise FormatError("config.json: frequency factors are wrong", expected="0 < low < high", received=(low, high))
    original = count(rope, "original_max_position_embeddings", default=8192)
    share = (original * rates / (2 * math.pi) - low) / (high - low)  # 0: as slow as low, 1: as fast as high
    share = np.clip(share, 0, 1)
    return ((1 - share) * rates / factor + share * rates).astype(np.float32)


def _yarn(
    rates: Any, rope: Mapping[str, Any], size: int, base: float, factor: float, positions: int
) -> tuple[Any, float]:
    """Pairs that turn often kept, those that turn less than once interpolated, and a ramp between."""
    original = count(rope, "original_max_position_embeddings", default=positions)
    fast, slow = number(rope, "beta_fast", 32.0), number(rope, "beta_slow", 1.0)
    if not 0 < slow <= fast:
        raise FormatError("config.json: beta_fast and beta_slow are wrong", received=(fast, slow))

    def pair(turns: float) -> float:
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(fast), pair(slow)
    if rope.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    ramp = np.clip((np.arange(size // 2, dtype=np.float32) - first) / max(last - first, 0.001), 0, 1)
    attention = number(rope, "attention_factor", 0.0)
    if not attention:
        mscale, every = number(rope, "mscale", 0.0), number(rope, "mscale_all_dim", 0.0)
        attention = _mscale(factor, mscale) / _mscale(factor, every) if mscale and every else _mscale(factor, 1.0)
    return (rates / factor * ramp + rates * (1 - ramp)).astype(np.float32), attention


def _long(rates: Any, rope: Mapping[str, Any], positions: int, length: int) -> tuple[Any, float]:
    """A factor of its own for each pair: one list for texts as long as those of the training, one for longer ones."""
    original = count(rope, "original_max_position_embeddings", default=positions)
    name = "long_factor" if length > original else "short_factor"
    factors = rope.get(name)
    if not isinstance(factors, list) or not all(type(f) in (int, float) and 0 < f < math.inf for f in factors):
        raise FormatError(f"config.json: {name} is wrong", expected="positive numbers", received=repr(factors)[:100])
    if len(factors) != len(rates):
        raise FormatError(f"config.json: {name} does not fit", expected=f"{len(rates)} numbers", received=len(factors))
    factor = number(rope, "factor", positions / original)
    attention = number(rope, "attention_factor", 0.0)
    if not attention:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    return rates / np.array(factors, np.float32), attention


def _mscale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
