"""`zoonet list`: the models that there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from zoonet.ops.errors import UnknownModelError
from zoonet.zoo.commands.output import count_text, size_text, width
from zoonet.zoo.listing import Listed, listed, tasks

#: From this width on, each line names its task; below, tasks are headings.
_ROOM_FOR_TASKS = 110
_OWN = "your own weights (--arch)"


def list_models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'resnet*'.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only this task, such as image-classification.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only names that have weights.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List models: those with weights first, then architectures that --arch takes for your own weights."""
    found = listed(pattern, task=task, pretrained=pretrained)
    if not found:
        raise UnknownModelError(
            "no model fits",
            received=f"pattern {pattern!r}" + (f", task {task!r}" if task else ""),
            fix="`zoonet list` without a pattern prints all"
            if task is None or task in (known := tasks())
            else f"the tasks are {', '.join(known)}",
        )
    if as_json:
        print(json.dumps([vars(entry) for entry in found], indent=2))
    else:
        print_table(found)


def print_table(found: Sequence[Listed]) -> None:
    """One line per name, two where the name is too long; tasks are headings where the terminal is narrow."""
    wide = width() >= _ROOM_FOR_TASKS
    rows = [_row(entry, wide) for entry in found]
    columns = list(zip(_TITLES, *rows, strict=True))
    sizes = [max(map(len, column)) for column in columns]
    shown = [index for index, size in enumerate(sizes) if index and (wide or index > 1) and size]
    room = max(20, width() - sum(sizes[index] + 1 for index in shown))
    sizes[0] = min(sizes[0], room)
    print(_line(_TITLES, sizes, shown))
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        groups.setdefault("" if wide else row[1], []).append(row)
    for heading, members in groups.items():
        if heading:
            print(heading)
        for row in members:
            if len(row[0]) > room:
                print(row[0])
                row = ("", *row[1:])
            print(_line(row, sizes, shown))


_TITLES = ("name", "task", "params", "accuracy", "size", "licence", "cached")
_SHORT = {"box mAP": "mAP", "perplexity": "ppl"}
_RIGHT = (2, 4)  # columns of numbers


def _row(entry: Listed, wide: bool) -> tuple[str, ...]:
    accuracy, _, metric = entry.accuracy.replace(" % ", " ").partition(" ")
    return (
        ("" if wide else "  ") + entry.name,
        entry.task if entry.weights else _OWN,
        count_text(entry.parameters),
        f"{float(accuracy):.1f} {_SHORT.get(metric, metric)}" if accuracy else "",
        size_text(entry.size),
        entry.licence.partition(" (")[0],
        "yes" if entry.cached else "",
    )


def _line(row: Sequence[str], sizes: Sequence[int], shown: Sequence[int]) -> str:
    cells = [row[index].rjust(sizes[index]) if index in _RIGHT else row[index].ljust(sizes[index]) for index in shown]
    return " ".join([row[0].ljust(sizes[0]), *cells]).rstrip()
