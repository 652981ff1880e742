"""Buckets of the distances between positions, by which relative biases of attention are looked up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def distance_bucket(distance: Any, buckets: int, furthest: int, two_sided: bool) -> np.ndarray[Any, Any]:
    """The bucket of each distance (key's position minus query's), integers of any shape -> int64.

    Half of the buckets of a side are for one distance each; the others grow in proportion to it, up to `furthest`.
    two_sided: half of all are for keys behind the query. Source: T5 (Raffel et al., 2020), as in transformers.
    """
    distance = np.asarray(distance, np.int64)
    first = np.zeros_like(distance)
    if two_sided:
        buckets //= 2
        first, distance = np.where(distance > 0, buckets, 0), np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    single = buckets // 2
    share = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(single))
    share = share / np.float32(math.log(furthest / single)) * np.float32(buckets - single)
    wide = np.minimum(single + share.astype(np.int64), buckets - 1)
    result: np.ndarray[Any, Any] = first + np.where(distance < single, distance, wide)
    return result
