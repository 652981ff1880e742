"""The table from operators of zoonet to nodes of ONNX: one function per operator, declared by `@emitter`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["EMITTERS", "emitter"]

#: By the name of an operator: what writes it. Called with a `Builder` and the operator's arguments in order, operands
#: as `Tensor` (numbers and None as they are), sizes among plain data as `Size`; it returns the name of the result,
#: or a tuple of names (None for one that ONNX cannot give). What the results are to be stands in `builder.outputs`.
EMITTERS: dict[str, Callable[..., Any]] = {}


def emitter(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare what writes these operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            EMITTERS[name] = function
        return function

    return register
