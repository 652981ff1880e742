"""The generator against its published vectors, and what is drawn against the distributions it should have."""

from __future__ import annotations

import numpy as np
import pytest
from operator_oracles.random import philox_block
from scipy import stats

from zoonet import ops
from zoonet.ops.philox import philox, words

# Random123's kat_vectors, the lines "philox4x32 10": counter, key, result.
VECTORS = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""
VECTOR_ROWS = [[int(word, 16) for word in line.split()] for line in VECTORS.strip().splitlines()]
COUNT = 200_000


@pytest.mark.parametrize("row", VECTOR_ROWS)
def test_published_vectors(row: list[int]) -> None:
    counter, key, wanted = row[:4], row[4:6], row[6:]
    actual = philox(tuple(np.array([c], np.uint64) for c in counter), tuple(np.uint64(k) for k in key))
    assert [int(word[0]) for word in actual] == wanted
    assert philox_block(counter, key) == wanted


def test_streams_do_not_depend_on_how_they_are_cut() -> None:
    key = ops.random_key(3)
    long = words(np, key, 100_001)  # more than one chunk
    np.testing.assert_array_equal(long[:5], words(np, key, 5))
    block = philox_block((25_000, 0, 0, 0), (3, 0))
    assert int(long[100_000]) == block[0]


def test_keys() -> None:
    np.testing.assert_array_equal(ops.random_key(2**33 + 5), np.array([5, 2], np.uint32))
    np.testing.assert_array_equal(ops.random_key(-1), np.array([2**32 - 1] * 2, np.uint32))
    keys = ops.random_split(ops.random_key(0), 1000)
    folded = [ops.random_fold_in(ops.random_key(0), i) for i in range(1000)]
    assert len({tuple(k) for k in [*keys.tolist(), *(f.tolist() for f in folded)]}) == 2000
    for wrong in (1.5, 2**64, True, "a"):
        with pytest.raises(ops.ArgumentError, match="seed"):
            ops.random_key(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_uniform_numbers_are_uniform(dtype: str) -> None:
    drawn = ops.random_uniform(ops.random_key(1), (COUNT,), dtype=dtype).astype(np.float64)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    cells = np.histogram(drawn, 64, (0, 1))[0]
    assert stats.chisquare(cells).pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / np.sqrt(COUNT)
    scaled = ops.random_uniform(ops.random_key(1), (COUNT,), -3, 5, dtype).astype(np.float64)
    assert scaled.min() >= -3
    assert scaled.max() <= 5
    assert abs(scaled.mean() - 1) < 0.03


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_are_normal(dtype: str) -> None:
    drawn = ops.random_normal(ops.random_key(2), (COUNT + 1,), 1.0, 2.0, dtype)
    assert stats.kstest(drawn.astype(np.float64), "norm", (1.0, 2.0)).pvalue > 1e-3
    assert abs(stats.kurtosis(drawn.astype(np.float64))) < 0.05
    halves = drawn[: COUNT // 2], drawn[COUNT // 2 : COUNT]
    assert abs(np.corrcoef(*halves)[0, 1]) < 4 / np.sqrt(COUNT // 2)


def test_integers_choices_and_permutations() -> None:
    key = ops.random_key(4)
    integers = ops.random_integers(key, (COUNT,), -3, 7)
    assert stats.chisquare(np.bincount(integers + 3, minlength=10)).pvalue > 1e-3
    small = ops.random_integers(key, (1000,), -128, 128, "int8")
    assert (small.min(), small.max()) == (-128, 127)
    p = np.array([0.1, 0.5, 0.0, 0.4])
    with np.errstate(divide="ignore"):
        logits = np.broadcast_to(np.log(p), (COUNT, 4))
    counts = np.bincount(ops.random_categorical(key, logits), minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[p > 0], p[p > 0] * COUNT).pvalue > 1e-3
    drawn = ops.random_bernoulli(key, 0.3, (COUNT,))
    assert stats.binomtest(int(drawn.sum()), COUNT, 0.3).pvalue > 1e-3
    orders = [tuple(ops.random_permutation(k, 4)) for k in ops.random_split(key, 2400)]
    found = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(found) == 24
    assert stats.chisquare(found).pvalue > 1e-3


def test_dropout_keeps_the_mean_and_its_gradient_the_mask() -> None:
    key, x = ops.random_key(5), np.ones((COUNT,), np.float32)
    y, pullback = ops.vjp(lambda a: ops.dropout(a, key, 0.25), x)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 4 / 3, rtol=1e-6)
    assert stats.binomtest(int(kept.sum()), COUNT, 0.75).pvalue > 1e-3
    np.testing.assert_array_equal(pullback(np.ones_like(x))[0], y)
    assert ops.dropout(x, key, 0.25, False) is x
    assert not ops.dropout(x, key, 1.0).any()


def test_sixteen_bit_dropout_draws_the_same_mask() -> None:
    key = ops.random_key(6)
    half = ops.dropout(np.ones(1000, np.float16), key, 0.5)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half != 0, ops.dropout(np.ones(1000, np.float32), key, 0.5) != 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: ops.random_uniform(key[:1], (2,)),
        lambda key: ops.random_uniform(key.astype(np.int64), (2,)),
        lambda key: ops.random_uniform(key, (-2,)),
        lambda key: ops.random_uniform(key, (2,), dtype="int32"),
        lambda key: ops.random_integers(key, (2,), 3, 3),
        lambda key: ops.random_integers(key, (2,), 0, 300, "uint8"),
        lambda key: ops.random_bits(key, (2,), "int32"),
        lambda key: ops.random_bernoulli(key, np.zeros(3), (2,)),
        lambda key: ops.dropout(np.zeros(2), key, 1.5),
        lambda key: ops.dropout(np.zeros(2, int), key),
    ],
)
def test_wrong_arguments_are_refused(call: object) -> None:
    with pytest.raises(ops.OperatorError, match="expected"):
        call(ops.random_key(0))  # type: ignore[operator]
