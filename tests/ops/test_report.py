"""The coverage report is complete, and says of each operator what its oracle is."""

from __future__ import annotations

from operator_report import COLUMNS, report

from zoonet.ops import REGISTRY


def test_the_report_has_every_operator_once_and_none_without_a_check() -> None:
    text, missing = report()
    assert missing == []
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    own = {n for n, op in REGISTRY.items() if op.__module__.startswith("zoonet.ops") and "." not in n}
    assert sorted(row[0] for row in rows) == sorted(own)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    known = {row[0]: row[1:] for row in rows}
    assert known["conv"][1:5] == ["torch", "rule", "autograd, differences", "differences"]
    assert known["argmax"][1:5] == ["NumPy", "-", "-", "-"]


def test_operators_of_other_packages_are_not_in_the_report() -> None:
    text, _ = report()
    assert "test_declaration" not in text
