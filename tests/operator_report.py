"""Print which checks the test matrix makes of each operator: `python tests/operator_report.py` (a Markdown table)."""

from __future__ import annotations

from operator_oracles import ORACLES

from zoonet.ops import REGISTRY, Op


def row(name: str, op: Op[..., object]) -> list[str]:
    oracle = ORACLES.get(name)
    against = "none" if oracle is None else "torch" if oracle.uses_torch else "other"
    if not op.differentiable:
        gradient = order = "has none"
    else:
        rule = "rule" if op.vjp_rule else "from its body"
        gradient = f"{rule}: autograd, differences" if oracle and oracle.autograd else f"{rule}: differences"
        order = "differences" if oracle and oracle.second_order else "not defined at the samples"
    kernels = ", ".join(sorted({kernel.device for kernel in op.kernels})) or "-"
    return [name, str(len(op.samples)), against, gradient, order, kernels]


def main() -> None:
    rows = [row(name, op) for name, op in sorted(REGISTRY.items()) if "." not in name]
    print("| operator | samples | value against | gradient against | second order against | kernels |")
    print("|---|---|---|---|---|---|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    smooth = [cells for cells in rows if cells[3] != "has none"]
    print(f"\n{len(rows)} operators, {sum(int(cells[1]) for cells in rows)} samples; ", end="")
    print(f"{sum(cells[2] == 'torch' for cells in rows)} against torch, ", end="")
    print(f"{sum(cells[2] == 'other' for cells in rows)} against another oracle, ", end="")
    print(
        f"{len(smooth)} with a gradient, {sum(cells[4] == 'differences' for cells in smooth)} checked to second order"
    )


if __name__ == "__main__":
    main()
