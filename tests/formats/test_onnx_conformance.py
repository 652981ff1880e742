"""The backend suite of the installed onnx package, case by case, with the suite's own tolerances.

`python tests/onnx_suite.py` prints tables by kind and by operator.
"""

from __future__ import annotations

import pytest
from onnx_suite import KINDS, cases, run

#: Cases that cannot pass, and why. What passes all the same fails here.
EXPECTED: dict[str, str] = {}


@pytest.mark.parametrize("name", sorted(cases()))
def test_case(name: str, request: pytest.FixtureRequest) -> None:
    if name in EXPECTED:
        request.applymarker(pytest.mark.xfail(reason=EXPECTED[name], strict=True))
    run(cases()[name])


def test_every_case_is_there() -> None:
    count = {kind: sum(name.startswith(f"{kind}/") for name in cases()) for kind in KINDS}
    assert count["node"] >= 1884
    assert count["simple"] >= 23
    assert count["pytorch-converted"] >= 82
    assert count["pytorch-operator"] >= 35
    assert EXPECTED.keys() <= cases().keys()
