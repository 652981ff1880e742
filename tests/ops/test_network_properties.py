"""Pooling, convolution, products, normalisation, resizing and attention against torch: values and gradients.

Hypothesis chooses shapes and options, those that torch refuses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from zoonet import ops

SOME = settings(max_examples=60, deadline=None, derandomize=True)
FEWER = settings(max_examples=30, deadline=None, derandomize=True)
Draw = Callable[[st.SearchStrategy[Any]], Any]


def numbers(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Distinct numbers, so that a maximum is one place."""
    count = int(np.prod(shape))
    return generator.permutation(np.linspace(-2, 2, count)).reshape(shape) if count else np.zeros(shape)


def check(
    ours: Callable[..., Any], theirs: Callable[..., Any], arrays: Sequence[np.ndarray], rtol: float = 1e-9
) -> None:
    """One result and the gradients of all arrays, under a random projection, are torch's; or both refuse."""
    leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    try:
        expected = theirs(*leaves)
    except (RuntimeError, ValueError):
        with pytest.raises(ops.ZoonetError):
            ours(*arrays)
        return
    value, pullback = ops.vjp(ours, *arrays)
    assert value.shape == tuple(expected.shape)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=rtol, atol=rtol)
    weights = np.random.default_rng(1).normal(size=value.shape)
    wanted = torch.autograd.grad(expected, leaves, torch.from_numpy(weights), allow_unused=True)
    for gradient, reference in zip(pullback(weights), wanted, strict=True):
        known = np.zeros(gradient.shape) if reference is None else reference.numpy()
        np.testing.assert_allclose(gradient, known, rtol=rtol * 10, atol=rtol * 10)


def per_axis(draw: Draw, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


def image(draw: Draw, rank: int, channels: int, largest: int = 9) -> np.ndarray:
    sizes = per_axis(draw, rank, 1, largest if rank < 3 else 5)
    return numbers(np.random.default_rng(draw(st.integers(0, 99))), draw(st.integers(1, 3)), channels, *sizes)


MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVG = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
LP = {1: functional.lp_pool1d, 2: functional.lp_pool2d, 3: functional.lp_pool3d}
CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def every_window_has_a_cell(size: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    starts = range(-padding, size, stride)
    return all(any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts)


@SOME
@given(st.data(), st.integers(1, 3))
def test_max_pool(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    x, kernel, stride = image(draw, rank, 2), per_axis(draw, rank, 1, 4), per_axis(draw, rank, 1, 3)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)  # torch takes no more
    dilation, ceil = per_axis(draw, rank, 1, 2), draw(st.booleans())
    for axis in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        assume(every_window_has_a_cell(*axis))  # torch's gradient writes anywhere otherwise
    check(
        lambda a: ops.max_pool(a, kernel, stride, padding, dilation, ceil),
        lambda a: MAX[rank](a, kernel, stride, padding, dilation, ceil_mode=ceil),
        [x],
    )
    try:
        _, places = MAX[rank](torch.from_numpy(x), kernel, stride, padding, dilation, ceil, return_indices=True)
    except RuntimeError:
        return
    found = ops.max_pool_with_indices(x, kernel, stride, padding, dilation, ceil)[1]
    np.testing.assert_array_equal(found, places.numpy())


@SOME
@given(st.data(), st.integers(1, 3))
def test_avg_pool(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    x, kernel, stride = image(draw, rank, 2), per_axis(draw, rank, 1, 4), per_axis(draw, rank, 1, 3)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    ceil, include = draw(st.booleans()), draw(st.booleans())
    divisor = draw(st.sampled_from([None, 3])) if rank > 1 else None
    options = {} if rank == 1 else {"divisor_override": divisor}
    assume(rank < 3 or all(n >= k for n, k in zip(x.shape[2:], kernel, strict=True)))  # torch takes no less there
    check(
        lambda a: ops.avg_pool(a, kernel, stride, padding, ceil, include, divisor),
        lambda a: AVG[rank](a, kernel, stride, padding, ceil, include, **options),
        [x],
    )


@FEWER
@given(st.data(), st.integers(1, 3))
def test_lp_and_adaptive_pool(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    x, size, p = image(draw, rank, 2), per_axis(draw, rank, 1, 6), draw(st.sampled_from([1.0, 2.0, 3.0]))
    kernel, stride = per_axis(draw, rank, 1, 3), per_axis(draw, rank, 1, 3)
    positive = np.abs(x) + 0.1
    if rank > 1:  # torch's lp_pool1d takes one number; with ceil_mode torch's sums are scaled up at the border
        check(lambda a: ops.lp_pool(a, p, kernel, stride), lambda a: LP[rank](a, p, kernel, stride), [positive])
    average = getattr(functional, f"adaptive_avg_pool{rank}d")
    largest = getattr(functional, f"adaptive_max_pool{rank}d")
    check(lambda a: ops.adaptive_avg_pool(a, size), lambda a: average(a, size), [x])
    check(lambda a: ops.adaptive_max_pool(a, size), lambda a: largest(a, size), [x])


@SOME
@given(st.data(), st.integers(1, 3))
def test_conv(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    groups, inner, outer = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x, kernel = image(draw, rank, groups * inner), per_axis(draw, rank, 1, 4)
    weight = numbers(np.random.default_rng(2), groups * outer, inner, *kernel)
    bias = numbers(np.random.default_rng(3), groups * outer)
    stride, dilation = per_axis(draw, rank, 1, 3), per_axis(draw, rank, 1, 3)
    pairs = tuple(per_axis(draw, 2, 0, 3) for _ in range(rank))
    flat = [n for pair in reversed(pairs) for n in pair]
    check(
        lambda a, w, b: ops.conv(a, w, b, stride, pairs, dilation, groups),
        lambda a, w, b: CONV[rank](functional.pad(a, flat), w, b, stride, 0, dilation, groups),
        [x, weight, bias],
    )


@SOME
@given(st.data(), st.integers(1, 3))
def test_conv_transpose(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    groups, inner, outer = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x, kernel = image(draw, rank, groups * inner, 5), per_axis(draw, rank, 1, 4)
    weight = numbers(np.random.default_rng(2), groups * inner, outer, *kernel)
    bias = numbers(np.random.default_rng(3), groups * outer)
    stride, dilation, padding = per_axis(draw, rank, 1, 3), per_axis(draw, rank, 1, 3), per_axis(draw, rank, 0, 2)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, kernel, extra, strict=True)
    ]
    assume(min(sizes) > 0)
    check(
        lambda a, w, b: ops.conv_transpose(a, w, b, stride, padding, extra, groups, dilation),
        lambda a, w, b: CONV_TRANSPOSE[rank](a, w, b, stride, padding, extra, groups, dilation),
        [x, weight, bias],
    )


@SOME
@given(st.data())
def test_matmul_broadcasts(data: st.DataObject) -> None:
    draw, generator = data.draw, np.random.default_rng(4)
    rows, inner, columns = per_axis(draw, 3, 0, 3)
    batch = per_axis(draw, draw(st.integers(0, 3)), 1, 3)

    def stack(matrix: tuple[int, int], vector: tuple[int]) -> np.ndarray:
        if draw(st.integers(0, 4)) == 0:
            return numbers(generator, *vector)
        leading = batch[draw(st.integers(0, len(batch))) :]
        return numbers(generator, *(1 if draw(st.booleans()) else n for n in leading), *matrix)

    x, y = stack((rows, inner), (inner,)), stack((inner, columns), (inner,))
    check(ops.matmul, torch.matmul, [x, y])


@SOME
@given(st.data())
def test_einsum(data: st.DataObject) -> None:
    """Random equations: repeated letters within a term, letters summed over, Ellipsis, sizes of 1 and 0."""
    draw, generator = data.draw, np.random.default_rng(5)
    sizes = {letter: draw(st.integers(0, 3)) for letter in "abcd"}
    batch = per_axis(draw, draw(st.integers(0, 2)), 1, 3)
    terms, arrays = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.text("abcd", min_size=0, max_size=3))
        dotted = draw(st.booleans())
        leading = batch[draw(st.integers(0, len(batch))) :] if dotted else ()
        terms.append(("..." if dotted else "") + letters)
        arrays.append(numbers(generator, *leading, *(sizes[letter] for letter in letters)))
    equation = ",".join(terms)
    if draw(st.booleans()):
        used = sorted(set("".join(terms)) - {"."})
        kept = draw(st.lists(st.sampled_from(used), unique=True)) if used else []
        equation += "->" + ("..." if any("." in term for term in terms) else "") + "".join(kept)
    check(lambda *a: ops.einsum(equation, *a), lambda *a: torch.einsum(equation, *a), arrays)


@FEWER
@given(st.data(), st.booleans(), st.integers(0, 3))
def test_normalisation(data: st.DataObject, affine: bool, rank: int) -> None:
    draw, generator = data.draw, np.random.default_rng(6)
    channels, groups = draw(st.sampled_from([2, 4, 6])), draw(st.sampled_from([1, 2]))
    x = numbers(generator, draw(st.integers(2, 3)), channels, *per_axis(draw, rank, 1, 4))
    scale = [numbers(generator, channels), numbers(generator, channels)] if affine else []
    statistics = numbers(generator, channels), np.abs(numbers(generator, channels)) + 0.1
    mean, variance = map(torch.from_numpy, statistics)
    check(
        lambda a, *s: ops.batch_norm(a, *statistics, *s),
        lambda a, *s: functional.batch_norm(a, mean, variance, *s),
        [x, *scale],
    )
    if x.size // channels > 1:
        check(
            lambda a, *s: ops.batch_norm_training(a, *(s or (None, None)), *statistics)[0],
            lambda a, *s: functional.batch_norm(a, mean.clone(), variance.clone(), *s, training=True),
            [x, *scale],
            1e-7,
        )
        check(
            lambda a, *s: ops.group_norm(a, groups, *s),
            lambda a, *s: functional.group_norm(a, groups, *s),
            [x, *scale],
            1e-7,
        )
    axes = draw(st.integers(1, x.ndim))
    last = x.shape[-axes:]
    scale = [numbers(generator, *last), numbers(generator, *last)] if affine else []
    check(
        lambda a, *s: ops.layer_norm(a, last, *s), lambda a, *s: functional.layer_norm(a, last, *s), [x, *scale], 1e-7
    )
    check(
        lambda a, *s: ops.rms_norm(a, last, *s, eps=1e-6),
        lambda a, *s: functional.rms_norm(a, last, *s, eps=1e-6),
        [x, *scale[:1]],
        1e-7,
    )
    if rank and x[0, 0].size > 1:
        scale = [numbers(generator, channels), numbers(generator, channels)] if affine else []
        check(
            lambda a, *s: ops.instance_norm(a, *s),
            lambda a, *s: functional.instance_norm(a, None, None, *s),
            [x, *scale],
            1e-7,
        )
        size = draw(st.integers(1, 5))
        check(
            lambda a: ops.local_response_norm(a, size, 0.5, 0.75, 2.0),
            lambda a: functional.local_response_norm(a, size, 0.5, 0.75, 2.0),
            [x],
        )


@FEWER
@given(st.data(), st.integers(1, 3))
def test_interpolate(data: st.DataObject, rank: int) -> None:
    draw = data.draw
    x, size = image(draw, rank, 2, 6), per_axis(draw, rank, 1, 9)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    mode = draw(st.sampled_from(["nearest", "nearest-exact", linear, "area"] + ["bicubic"] * (rank == 2)))
    corners = draw(st.booleans()) if mode in (linear, "bicubic") else False
    antialias = draw(st.booleans()) if rank == 2 and mode in (linear, "bicubic") and not corners else False
    given = corners if mode in (linear, "bicubic") else None
    check(
        lambda a: ops.interpolate(a, size, None, mode, corners, antialias),
        lambda a: functional.interpolate(a, size, None, mode, given, antialias=antialias),
        [x],
        1e-6,
    )


@FEWER
@given(st.data())
def test_attention(data: st.DataObject) -> None:
    draw, generator = data.draw, np.random.default_rng(7)
    batch, heads, group = per_axis(draw, 3, 1, 3)
    queries, keys, depth, width = draw(st.integers(1, 5)), draw(st.integers(1, 5)), *per_axis(draw, 2, 1, 4)
    query = numbers(generator, batch, heads * group, queries, depth)
    key, value = numbers(generator, batch, heads, keys, depth), numbers(generator, batch, heads, keys, width)
    kind = draw(st.sampled_from(["none", "causal", "bool", "float"]))
    scale = draw(st.sampled_from([None, 0.3]))
    mask = None
    if kind == "bool":
        mask = generator.random((queries, keys)) < 0.7
        mask[:, 0] = True
    if kind == "float":
        mask = generator.normal(size=(batch, 1, queries, keys))
    given = None if mask is None else torch.from_numpy(mask)
    check(
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, mask, kind == "causal", scale),
        lambda q, k, v: functional.scaled_dot_product_attention(
            q, k, v, given, is_causal=kind == "causal", scale=scale, enable_gqa=True
        ),
        [query, key, value],
    )
