"""`zoonet convert`: weights from one file format to another, or a whole model to ONNX."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoonet.zoo.commands.output import progress_bar


def convert(
    source: Annotated[
        str, typer.Argument(help="A name from `zoonet list`, a weights file or folder, org/name, or a URL.")
    ],
    target: Annotated[
        str, typer.Argument(help="The file to write; its suffix names the format. A folder for a model on text.")
    ],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Cast floating tensors: float32, float16, bfloat16.")] = None,
    verify: Annotated[bool, typer.Option(help="Read the result back, and run both where the network is known.")] = True,
    tolerance: Annotated[float | None, typer.Option(help="Of the relative difference of outputs.")] = None,
    opset: Annotated[int | None, typer.Option(help="Of a target that ends with .onnx: 13 or newer.")] = None,
    names: Annotated[str | None, typer.Option(help="torchvision, timm, hugging-face or keras.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert weights, and show that the outputs agree; status 1 where they do not."""
    from zoonet.zoo.conversion import convert as convert_weights  # brings both libraries of file formats

    with progress_bar("tensors") as progress:
        report = convert_weights(
            source,
            target,
            arch,
            dtype=dtype,
            verify=verify,
            tolerance=tolerance,
            progress=progress,
            opset=opset,
            names=names,
        )
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if as_json else report)
    if not report.agrees:
        raise typer.Exit(1)
