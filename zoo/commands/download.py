"""`zoonet download`: weights onto this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from zoonet.zoo.sources import download as bring


def download(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Names from `zoonet list`, org/name on Hugging Face, or URLs."),
    ],
) -> None:
    """Download weights and verify them. Later runs need no network. Prints where they are."""
    for name in names:
        print(bring(name))
