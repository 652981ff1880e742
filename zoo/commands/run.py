"""`zoonet run`: a model on pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.commands.output import progress_bar
from zoonet.zoo.storage import load


def run(
    model: Annotated[str, typer.Argument(help="A name from `zoonet list`, or a weights file or folder.")],
    inputs: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Pictures, or folders of pictures.")],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to print.")] = 5,
    batch: Annotated[int, typer.Option(help="How many pictures go through the network at once.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with one object per picture.")] = False,
) -> None:
    """Run a model on pictures and print the best classes of each."""
    from zoonet.zoo.pictures import find_pictures

    for option, value in (("--top", top), ("--batch", batch)):
        if value < 1:
            raise ArgumentError(f"{option} is too small", expected="a number from 1", received=value)
    sources = [source for path in inputs for source in find_pictures(Path(path))]
    network = load(model, arch, device=device)
    with progress_bar("pictures") as progress:
        results = network.run([source.name for source in sources], batch=batch, progress=progress)
    if as_json:
        print(json.dumps([result.to_dict(top) for result in results], ensure_ascii=False, indent=2))
    else:
        print("\n\n".join(result.text(top) for result in results))
