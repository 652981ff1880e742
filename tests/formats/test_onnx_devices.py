"""The suite of the onnx package on a stand-in for the GPU: operands, constants and results stay on the device."""

from __future__ import annotations

import sys
from typing import Any

import cupy_stand_in
import numpy as np
import pytest
from onnx_suite import cases, compare, data_sets, model_of

from zoonet.formats.onnx import Backend


def lowered(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [lowered(item) for item in value]
    if isinstance(value, np.ndarray):
        assert value.dtype == object, "a result left the device"
    return value.get() if hasattr(value, "get") and hasattr(value, "dtype") else value


#: Some of everything by default, all of it in the slow tests.
NAMES = [name for name in cases() if not name.startswith("light/")]


@pytest.mark.parametrize(
    "names", [pytest.param(NAMES[::8], id="some"), pytest.param(NAMES, id="all", marks=pytest.mark.slow)]
)
def test_cases_on_the_device(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy_stand_in.module())
    assert failures_of(names) == {}


@pytest.mark.cuda
def test_cases_on_a_gpu() -> None:
    assert failures_of(NAMES) == {}


def failures_of(names: list[str]) -> dict[str, str]:
    failures = {}
    for name in names:
        case = cases()[name]
        try:
            model = model_of(case)
            prepared = Backend.prepare(model, "CUDA")
            for inputs, expected in data_sets(case, model):
                compare(expected, lowered(list(prepared.run(inputs))), case)
        except Exception as error:
            failures[name] = f"{type(error).__name__}: {error}"
    return failures
