"""`zoonet eval`: how good a detector is on annotated pictures."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoonet.zoo.commands.output import progress_bar
from zoonet.zoo.storage import load


def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `zoonet list`, or a weights file.")],
    data: Annotated[str, typer.Argument(help="A folder of pictures, of VOC or YOLO, or COCO's JSON.")],
    annotations: Annotated[str | None, typer.Option(help="Where the boxes are: a folder, or COCO's JSON.")] = None,
    conf: Annotated[float, typer.Option(help="The least score that counts.")] = 0.001,
    iou: Annotated[float | None, typer.Option(help="Boxes that overlap a better one by more go.")] = None,
    batch: Annotated[int, typer.Option(help="How many pictures go through the network at once.")] = 8,
    confusion: Annotated[str | None, typer.Option(help="Draw the confusion of classes into this picture.")] = None,
    curves: Annotated[str | None, typer.Option(help="Draw precision over recall into this picture.")] = None,
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    task: Annotated[str | None, typer.Option(help="What the model is for, where its file does not say.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a detector: COCO's and VOC's average precision, and a table of classes."""
    loaded = load(model, arch, task=task, device=device)
    with progress_bar("pictures") as progress:
        result = loaded.evaluate(data, annotations=annotations, conf=conf, iou=iou, batch=batch, progress=progress)
    if confusion is not None:
        result.plot_confusion(confusion)
    if curves is not None:
        result.plot_curves(curves)
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2) if as_json else result.text())
