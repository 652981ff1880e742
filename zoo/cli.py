"""The command line, `zoonet list | show | run | train | eval | convert | bench | download | cache | mirror`.

Every failure that the library foresees is one message and status 2.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def application() -> typer.Typer:
    """The commands; typer and rich are imported here, when a command runs."""
    import typer

    from zoonet.zoo import commands

    app = typer.Typer(
        name="zoonet",
        help="Standard neural networks to load, run, train, save and convert.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def print_version(asked: bool) -> None:
        if asked:
            print(f"zoonet {version()}")
            raise typer.Exit

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ) -> None:
        pass

    app.command("list")(commands.list_models)
    app.command("show")(commands.show)
    app.command("run")(commands.run)
    app.command("train")(commands.train)
    app.command("eval")(commands.evaluate)
    app.command("convert")(commands.convert)
    app.command("bench")(commands.bench)
    app.command("download")(commands.download)
    app.add_typer(commands.cache.application(), name="cache")
    app.add_typer(commands.mirror.application(), name="mirror")
    return app


def version() -> str:
    """The installed version."""
    from importlib import metadata

    try:
        return metadata.version("zoonet")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "of a checkout"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 (interrupted, or the reader of our output is gone) or 2 (bad input)."""
    from zoonet.ops.errors import ZoonetError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without block characters, a file name that is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            status = application()(arguments, prog_name="zoonet", standalone_mode=False)
        sys.stdout.flush()
    except ZoonetError as error:
        return _fail(f"zoonet: {error}")
    except MemoryError:
        return _fail("zoonet: there is not enough memory. Fix: make --batch smaller")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that flushing at exit is silent
        return 1
    except OSError as error:
        return _fail(f"zoonet: {error}")
    except KeyboardInterrupt:
        return _fail("zoonet: interrupted", 1)
    except Exception as error:
        # typer raises the errors of click, or of its own copy of it, by version: no such option, a missing argument
        if type(error).__name__ == "Abort":
            return _fail("zoonet: interrupted", 1)
        if type(error).__name__ == "NoArgsIsHelpError":
            return _fail(str(error))
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "zoonet"
        message = error.format_message().rstrip(".")
        return _fail(f"zoonet: {message}{'' if message.endswith('?') else '.'} Try `{path} --help`.")
    return status if isinstance(status, int) else 0


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line for people: of a licence, or of a file without a published hash."""
    _say(f"zoonet: warning: {message}")


def _fail(message: str, status: int = 2) -> int:
    _say(message)
    return status


def _say(message: str) -> None:
    from zoonet.zoo.results import printable

    print("\n".join(map(printable, message.split("\n"))), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
