"""`zoonet eval`: how good a model is on data with answers."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.commands.options import PREPROCESSING_HELP, SIZE_HELP, TASK_HELP, purpose, size_of
from zoonet.zoo.commands.output import progress_bar
from zoonet.zoo.commands.train import split_columns
from zoonet.zoo.storage import load
from zoonet.zoo.tasks import has_option
from zoonet.zoo.train.history import check_picture

_DATA = (
    "Pictures: a folder with a sub-folder per class, or a .csv or .json list of files and labels. Detectors: a folder "
    "of pictures, of VOC or YOLO, or COCO's JSON. Arrays: an .npz of x and y."
)


def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `zoonet list`, or a weights file or folder.")],
    data: Annotated[str, typer.Argument(help=_DATA)],
    batch: Annotated[int | None, typer.Option(help="How many samples go through the network at once.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns of a list: FILE,LABEL.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that prepare data.")] = None,
    annotations: Annotated[str | None, typer.Option(help="Where boxes are: a folder, or COCO's JSON.")] = None,
    conf: Annotated[float | None, typer.Option(help="Detectors: the least score that counts.")] = None,
    iou: Annotated[float | None, typer.Option(help="Detectors: boxes that overlap a better one by more go.")] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    confusion: Annotated[str | None, typer.Option(help="Draw the confusion of classes into this picture.")] = None,
    mistakes: Annotated[str | None, typer.Option(help="Draw the worst mistakes into this picture.")] = None,
    curves: Annotated[str | None, typer.Option(help="Detectors: draw precision over recall into this picture.")] = None,
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    preprocessing: Annotated[str | None, typer.Option(help=PREPROCESSING_HELP)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model on your data: metrics, a table of classes, the worst mistakes."""
    for path in (confusion, mistakes, curves):
        if path is not None:
            check_picture(path)
    loaded = load(model, arch, device=device, **purpose(task, preprocessing))
    given: dict[str, Any] = {
        "batch": batch,
        "columns": split_columns(columns),
        "workers": workers,
        "annotations": annotations,
        "conf": conf,
        "iou": iou,
        "size": size_of(size),
    }
    options = {name: value for name, value in given.items() if value is not None}
    with progress_bar(loaded.task.unit) as progress:
        if has_option(getattr(loaded.task, "evaluate", print), "progress"):
            options["progress"] = progress
        result = loaded.evaluate(data, **options)
    for option, path in (("confusion", confusion), ("mistakes", mistakes), ("curves", curves)):
        if path is None:
            continue
        if not hasattr(result, f"plot_{option}"):
            raise ArgumentError(f"--{option} cannot be drawn for {loaded.task.name}")
        if option != "mistakes" or result.mistakes:
            getattr(result, f"plot_{option}")(path)
    print(json.dumps(result.to_dict(), ensure_ascii=False, indent=2) if as_json else result.text())
