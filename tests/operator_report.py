"""Print which checks the test matrix makes of each operator: `python tests/operator_report.py`, a Markdown table.

The rows come from the operators' registry and the table of oracles that tests/ops/test_matrix.py runs on, and a check
stands here only if the matrix makes it. The status is 1 if an operator has no sample or no oracle. Operators with a
dot in their name are parts of others' gradients and are checked with them.
"""

from __future__ import annotations

import sys

from operator_oracles import ORACLES

from zoonet.ops import REGISTRY, Op

COLUMNS = ("operator", "samples", "value against", "gradient", "gradient against", "second order against", "kernels")


def public() -> dict[str, Op[..., object]]:
    """The library's own operators that the matrix checks one by one."""
    return {n: o for n, o in REGISTRY.items() if o.__module__.startswith("zoonet.ops") and "." not in n}


def row(name: str, op: Op[..., object]) -> list[str]:
    """The cells of one operator."""
    oracle = ORACLES.get(name)
    gradient = against = order = "-"
    if op.differentiable:
        gradient = "rule" if op.vjp_rule else "of its body"
        checks = [("autograd", oracle and oracle.autograd), ("differences", oracle and oracle.differences)]
        against = ", ".join(check for check, made in checks if made) or "nothing"
        order = "differences" if oracle and oracle.second_order else "nothing"
    kernels = ", ".join(sorted({kernel.device for kernel in op.kernels})) or "-"
    return [name, str(len(op.samples)), oracle.by if oracle else "nothing", gradient, against, order, kernels]


def report() -> tuple[str, list[str]]:
    """The table with its summary, and the names of operators without a sample or an oracle."""
    rows = [row(name, op) for name, op in sorted(public().items())]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    sources = [cells[2] for cells in rows]
    counts = ", ".join(f"{sources.count(s)} {s}" for s in sorted(set(sources), key=lambda s: -sources.count(s)))
    smooth = [cells for cells in rows if cells[3] != "-"]
    lines += [
        "",
        f"{len(rows)} operators, {sum(int(cells[1]) for cells in rows)} samples. Values against: {counts}.",
        f"{len(smooth)} have a gradient: {sum('autograd' in c[4] for c in smooth)} against autograd, "
        f"{sum('differences' in c[4] for c in smooth)} against finite differences, "
        f"{sum(c[5] == 'differences' for c in smooth)} to the second order.",
    ]
    return "\n".join(lines), [cells[0] for cells in rows if cells[1] == "0" or cells[2] == "nothing"]


if __name__ == "__main__":
    text, missing = report()
    print(text)
    if missing:
        sys.exit(f"without a sample or an oracle: {', '.join(missing)}")
