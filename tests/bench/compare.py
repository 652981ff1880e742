"""Side-by-side timing: contenders run in turn in one process on the same input; ratios of medians and of minima."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def compare(contenders: dict[str, Callable[[], object]], rounds: int = 15, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each run by contender. Each round runs every contender once, so that noise falls on all alike."""
    for _ in range(warm_up):
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], subject: str = "zoonet") -> str:
    """A Markdown table: milliseconds, and how many times as long the subject takes as each contender."""
    ours = seconds[subject]
    lines = [
        f"### {title}",
        "",
        f"| | median ms | minimum ms | {subject} / it (medians) | {subject} / it (minima) |",
        "|---|---|---|---|---|",
    ]
    for name, runs in seconds.items():
        medians = statistics.median(ours) / statistics.median(runs)
        minima = min(ours) / min(runs)
        lines.append(
            f"| {name} | {statistics.median(runs) * 1e3:.1f} | {min(runs) * 1e3:.1f} | {medians:.2f} | {minima:.2f} |"
        )
    return "\n".join(lines) + "\n"
