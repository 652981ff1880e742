"""`zoonet list`: the models that there are."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoonet.ops.errors import UnknownModelError
from zoonet.zoo.commands.output import console
from zoonet.zoo.listing import Listed, listed


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
            fix="`zoonet list` without a pattern prints all",
        )
    if as_json:
        print(json.dumps([vars(entry) for entry in found], indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("weights")
    table.add_column("parameters", justify="right")
    table.add_column("accuracy")
    for entry in found:
        table.add_row(entry.name, entry.weights or "your own (--arch)", _count(entry), entry.accuracy or "-")
    console().print(table)


def _count(entry: Listed) -> str:
    return f"{entry.parameters / 1e6:.{1 if entry.parameters > 1e6 else 2}f} M" if entry.parameters else "-"
