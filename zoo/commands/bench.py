"""`zoonet bench`: how long a model takes on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from zoonet.zoo.benchmark import benchmark
from zoonet.zoo.commands.output import progress_bar
from zoonet.zoo.sources import EMBEDDED
from zoonet.zoo.storage import create, load


def bench(
    model: Annotated[
        str, typer.Argument(help="A name or architecture from `zoonet list`, or a weights file or folder.")
    ],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    batch: Annotated[int, typer.Option(help="How many inputs go through the network at once.")] = 1,
    rounds: Annotated[int, typer.Option(help="How many runs are timed.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a network on arrays: the first run, then the median and the minimum of many."""
    from zoonet.zoo import architectures

    is_architecture = model in architectures.names() and model not in EMBEDDED
    loaded = create(model, device=device) if is_architecture else load(model, arch, device=device)
    with progress_bar("runs") as progress:
        found = benchmark(loaded, batch=batch, rounds=rounds, progress=progress)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else found)
