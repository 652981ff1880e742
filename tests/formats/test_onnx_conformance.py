"""The backend suite of the installed onnx package, case by case, with the suite's own tolerances.

`python tests/onnx_suite.py` prints tables by kind and by operator.
"""

from __future__ import annotations

import unittest

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx_suite import KINDS, cases, run
from scipy import stats

from zoonet.formats.onnx import Backend

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_official_runner_takes_the_backend() -> None:
    """What anyone runs against a backend. It compares random numbers one by one, which only its own generator gives,
    and fails on a sequence that holds a number, whose length it asks for."""
    runner = onnx.backend.test.BackendTest(Backend, "zoonet")
    for pattern in ("bernoulli", "training_dropout", "test_loop16_seq_none", "_cuda$"):
        runner.exclude(pattern)
    suite = unittest.TestSuite()
    for title, group in runner.test_cases.items():
        if "RealModel" not in title:  # these are downloaded
            suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(group))
    result = unittest.TestResult()
    suite.run(result)
    assert [str(case) for case, _ in (*result.failures, *result.errors)] == []
    assert result.testsRun - len(result.skipped) > 2000


def drawn(operator: str, *inputs: np.ndarray, **attributes: object) -> np.ndarray:
    node = onnx.helper.make_node(operator, [f"x{i}" for i in range(len(inputs))], ["y"], **attributes)
    return np.asarray(Backend.run_node(node, list(inputs))[0], np.float64)


def test_random_numbers_are_distributed_as_they_should_be() -> None:
    """Means and spreads within five standard errors; the distributions by Kolmogorov's and Smirnov's test."""
    size = [100, 200]
    normal = drawn("RandomNormal", shape=size, mean=3.0, scale=2.0, seed=1.0)
    assert stats.kstest(normal.ravel(), "norm", (3.0, 2.0)).pvalue > 1e-4
    uniform = drawn("RandomUniform", shape=size, low=-1.0, high=3.0, seed=2.0)
    assert stats.kstest(uniform.ravel(), "uniform", (-1.0, 4.0)).pvalue > 1e-4
    like = drawn("RandomNormalLike", np.zeros(size, np.float32), seed=3.0)
    assert stats.kstest(like.ravel(), "norm").pvalue > 1e-4
    chance = np.full(size, 0.3, np.float32)
    assert abs(drawn("Bernoulli", chance, seed=4.0).mean() - 0.3) < 5 * np.sqrt(0.21 / 20000)
    logits = np.log(np.float32([[0.2, 0.5, 0.3]]))
    counts = np.bincount(drawn("Multinomial", logits, sample_size=20000, seed=5.0).astype(int).ravel(), minlength=3)
    np.testing.assert_allclose(counts / 20000, [0.2, 0.5, 0.3], atol=0.02)
    kept = drawn("Dropout", np.ones(size, np.float32), np.float32(0.25), np.array(True), seed=6)
    assert set(np.unique(kept.astype(np.float32))) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((kept == 0).mean() - 0.25) < 5 * np.sqrt(0.1875 / 20000)
