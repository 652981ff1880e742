"""The promotion rule that types.py documents: against torch.promote_types where both have the dtypes, and its table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoonet import ops

INTEGERS = ["uint8", "int8", "int16", "int32", "int64"]
SHARED = ["bool", *INTEGERS, "float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
#: float16 has a complex companion in torch (complex32), not in NumPy; complex64 stands for it here.
ALL = [*SHARED, "uint16", "uint32", "uint64"]


def kind(name: str) -> int:
    return 0 if name == "bool" else 1 if "int" in name else 2 if "float" in name else 3


def operand(name: str) -> np.ndarray:
    return np.ones(2, ops.as_dtype(name))


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SHARED, SHARED)))
def test_promotion_equals_torch(first: str, second: str) -> None:
    wanted = torch.promote_types(getattr(torch, first), getattr(torch, second))
    name = {"complex32": "complex64"}.get(str(wanted).removeprefix("torch."), str(wanted).removeprefix("torch."))
    assert ops.promote([operand(first), operand(second)]).name == name
    assert ops.add(operand(first), operand(second)).dtype.name == name


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.sampled_from(ALL), min_size=1, max_size=4), data=st.data())
def test_the_highest_kind_decides_and_order_does_not_matter(names, data) -> None:
    result = ops.promote([operand(n) for n in names])
    assert kind(result.name) >= max(kind(n) for n in names)
    if not {"uint64"} & set(names):  # NumPy's table, which holds within a kind, joins uint64 and int64 in float64
        assert kind(result.name) == max(kind(n) for n in names)
    shuffled = data.draw(st.permutations(names))
    assert ops.promote([operand(n) for n in shuffled]) == result
    assert ops.promote([operand(n) for n in [*names, names[0]]]) == result


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("number", "weakest"), [(True, 0), (3, 1), (2.5, 2), (1j, 3)])
def test_python_numbers_are_weak(name: str, number: complex, weakest: int) -> None:
    result = ops.multiply(operand(name), number).dtype.name
    if kind(name) >= weakest:
        assert result == name
    elif weakest == 3:
        assert result == ("complex128" if name == "float64" else "complex64")
    else:
        assert result == {1: "int64", 2: "float32"}[weakest]
    if name in SHARED and name not in ("float16", "bfloat16"):
        by_torch = (torch.ones(2, dtype=getattr(torch, name)) * number).dtype
        assert result == str(by_torch).removeprefix("torch.")


@pytest.mark.parametrize("name", ALL)
def test_floating_functions_take_every_number(name: str) -> None:
    result = ops.exp(operand(name)).dtype.name
    assert result == ("float32" if kind(name) < 2 else name)
    if name in SHARED:
        assert result == str(torch.exp(torch.ones(2, dtype=getattr(torch, name))).dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", ["int64", "float32"])
def test_the_condition_of_where_takes_no_part(name: str) -> None:
    assert ops.where(np.array([1.0, 0.0]), operand(name), operand(name)).dtype.name == name


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bits_are_computed_in_32_and_rounded_once(name: str) -> None:
    x = np.array([256.0, 1.0, -3.0], ops.as_dtype(name))
    wanted = (x.astype(np.float32) / np.float32(3)).astype(x.dtype)
    np.testing.assert_array_equal(ops.divide(x, 3), wanted)
    total = np.full(1000, 0.1, x.dtype)
    assert ops.sum(total) == total.astype(np.float32).sum().astype(x.dtype)
