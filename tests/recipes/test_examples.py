"""The short examples learn what they say."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def result(name: str) -> Any:
    """What an example's main gives."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main()


def test_linear_regression() -> None:
    assert result("linear_regression") < 0.02  # four standard errors, 0.1 / √400 each


@pytest.mark.parametrize(
    ("name", "least"), [("logistic_regression", 0.97), ("mlp", 0.98), ("autoencoder", 0.95)], ids=lambda v: str(v)
)
def test_examples(name: str, least: float) -> None:
    assert result(name) >= least
