"""`zoonet mirror`: a directory of weights for networks that are closed."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from zoonet import weights
from zoonet.zoo.downloads import download_bar
from zoonet.zoo.sources import check_downloadable


def application() -> typer.Typer:
    """The commands below `zoonet mirror`."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.callback()(_group)
    app.command("export")(export)
    return app


def _group() -> None:
    """Fill a mirror for closed networks. ZOONET_MIRROR names it, or the URL of a web server over it."""


def export(
    folder: Annotated[pathlib.Path, typer.Argument(metavar="DIR", help="The directory; made if it is not there.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from `zoonet list`, org/name, or URLs.")],
) -> None:
    """Put weights into a directory. What is not on this machine yet is downloaded first."""
    for name in names:
        check_downloadable(name)
    with download_bar() as progress:
        written = weights.mirror.export(folder, names, progress)
    for file in written:
        print(file)
