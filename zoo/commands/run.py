"""`zoonet run`: a model on pictures, arrays, or whatever its task takes."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.commands.output import progress_bar
from zoonet.zoo.storage import load
from zoonet.zoo.tasks import has_option


def run(
    model: Annotated[
        str, typer.Argument(help="A name from `zoonet list`, a weights file or folder, org/name, or a URL.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Pictures or folders of them; .npy or .npz files for a graph."),
    ],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to print.")] = 5,
    batch: Annotated[int | None, typer.Option(help="How many inputs go through the network at once.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with one object per input.")] = False,
) -> None:
    """Run a model on inputs and print what it says of each."""
    for option, value in (("--top", top), ("--batch", batch)):
        if value is not None and value < 1:
            raise ArgumentError(f"{option} is too small", expected="a number from 1", received=value)
    loaded = load(model, arch, device=device)
    source = loaded.task.from_arguments(inputs)
    options: dict[str, Any] = {key: value for key, value in {"batch": batch}.items() if value is not None}
    with progress_bar(loaded.task.unit) as progress:
        if has_option(loaded.task.run, "progress"):
            options["progress"] = progress
        found = loaded.run(source, **options)
    results = found if isinstance(found, list) else [found]
    if as_json:
        print(json.dumps([result.to_dict(top) for result in results], ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(result.text(top) for result in results))
