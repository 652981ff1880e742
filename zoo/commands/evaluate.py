"""`zoonet eval`: how good a model is on data of your own."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoonet.zoo.commands.train import split_columns
from zoonet.zoo.storage import load


def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `zoonet list`, or a weights file or folder.")],
    data: Annotated[
        str, typer.Argument(help="A folder with a sub-folder per class, a .csv or .json list, or an .npz.")
    ],
    batch: Annotated[int, typer.Option(help="How many samples go through the network at once.")] = 32,
    columns: Annotated[str | None, typer.Option(help="Columns of a list: FILE,LABEL.")] = None,
    confusion: Annotated[str | None, typer.Option(help="Draw the confusion matrix into this picture.")] = None,
    mistakes: Annotated[str | None, typer.Option(help="Draw the worst mistakes into this picture.")] = None,
    workers: Annotated[int, typer.Option(help="Threads that prepare data.")] = 2,
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on your data: metrics, a table of classes, the worst mistakes."""
    loaded = load(model, arch, device=device)
    result = loaded.evaluate(data, batch=batch, columns=split_columns(columns), workers=workers)
    if confusion is not None:
        result.plot_confusion(confusion)
    if mistakes is not None and result.mistakes:
        result.plot_mistakes(mistakes)
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2) if as_json else result.text())
