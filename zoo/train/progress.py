"""What is shown while training: a live line in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Reporter", "reporter"]


class Reporter:
    """Takes what happens: `start` of an epoch, each `step`, the `end` of an epoch, and other `note`s. Shows nothing."""

    def start(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """An epoch of so many steps begins, or goes on after some."""

    def step(self, record: dict[str, Any], samples: int) -> None:
        """A step was made."""

    def end(self, record: dict[str, Any], epochs: int) -> None:
        """An epoch was finished."""

    def note(self, text: str) -> None:
        """Something to tell."""


class Calls(Reporter):
    """Gives each record of a step and of an epoch to a function."""

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self.function = function

    def step(self, record: dict[str, Any], samples: int) -> None:
        """See `Reporter`."""
        self.function(record)

    def end(self, record: dict[str, Any], epochs: int) -> None:
        """See `Reporter`."""
        self.function(record)


_SECONDS = 30.0  # between lines within an epoch


class Lines(Reporter):
    """A line per epoch, and now and then one within an epoch, on standard error."""

    def __init__(self) -> None:
        self.began = self.shown = time.perf_counter()
        self.done, self.steps, self.all, self.of = 0, 0, 0, ""
        self.samples = 0

    def start(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """See `Reporter`."""
        if not self.all:
            self.began = self.shown = time.perf_counter()
            self.all = steps * (epochs - epoch + 1) - done
        self.of, self.steps = f"epoch {epoch}/{epochs}, step {{}}/{steps}", done

    def step(self, record: dict[str, Any], samples: int) -> None:
        """See `Reporter`."""
        self.done, self.steps, self.samples = self.done + 1, self.steps + 1, self.samples + samples
        now = time.perf_counter()
        if now - self.shown >= _SECONDS:
            self.shown = now
            rate = f"lr {record['lr']:.2e}, {self.samples / (now - self.began):.0f} samples/s"
            self.note(f"{self.of.format(self.steps)}: loss {record['loss']:.4f}, {rate}{self._left()}")

    def end(self, record: dict[str, Any], epochs: int) -> None:
        """See `Reporter`."""
        self.shown = time.perf_counter()
        self.note(line(record, epochs) + (self._left() if record["epoch"] < epochs else ""))

    def _left(self) -> str:
        """How long it will take, after the steps so far."""
        if not self.done:
            return ""
        seconds = round((time.perf_counter() - self.began) / self.done * max(self.all - self.done, 0))
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02}:{seconds:02} left"

    def note(self, text: str) -> None:
        """See `Reporter`."""
        print(text, file=sys.stderr, flush=True)


class Live(Reporter):
    """A bar with loss, metric, learning rate, samples per second and time left, and a line per finished epoch."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.task: Any = None
        self.began, self.samples, self.loss = time.perf_counter(), 0, 0.0
        self.measured = ""

    def start(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """See `Reporter`."""
        if self.task is None:
            self.task = self.bar.add_task("", total=steps * epochs, text="")
        self.bar.update(self.task, description=f"epoch {epoch}/{epochs}", completed=(epoch - 1) * steps + done)
        self.began, self.samples = time.perf_counter(), 0

    def step(self, record: dict[str, Any], samples: int) -> None:
        """See `Reporter`."""
        self.samples += samples
        self.loss = 0.9 * self.loss + 0.1 * record["loss"] if self.loss else record["loss"]
        rate = self.samples / max(time.perf_counter() - self.began, 1e-9)
        text = f"loss {self.loss:.4f}{self.measured}  lr {record['lr']:.2e}  {rate:.0f}/s"
        self.bar.update(self.task, advance=1, text=text)

    def end(self, record: dict[str, Any], epochs: int) -> None:
        """See `Reporter`."""
        shown = [name for name in record if name.startswith("val_") and name != "val_loss"][:1]
        self.measured = "".join(f"  {name.removeprefix('val_')} {record[name]:.4g}" for name in shown)
        self.note(line(record, epochs))

    def note(self, text: str) -> None:
        """See `Reporter`."""
        self.bar.console.print(text, markup=False, highlight=False)


def line(record: dict[str, Any], epochs: int) -> str:
    """An epoch in a line."""
    measured = ", ".join(
        f"{name.removeprefix('val_')} {value:.4g}"
        for name, value in record.items()
        if name.startswith("val_") and name != "val_loss"
    )
    text = f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.4f}"
    if "val_loss" in record:
        text += f", validation loss {record['val_loss']:.4f}" + (f", {measured}" if measured else "")
    rate = f"lr {record['lr']:.2e}, {record['samples_per_second']:.0f} samples/s, {record['seconds']:.1f} s"
    return f"{text}, {rate}"


@contextmanager
def reporter(progress: bool | Callable[[dict[str, Any]], Any]) -> Iterator[Reporter]:
    """The reporter for a choice: False for none, True for what the terminal takes, or a function of records."""
    if callable(progress):
        yield Calls(progress)
    elif not progress:
        yield Reporter()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from zoonet.zoo.commands.output import console

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console(stderr=True), transient=True) as bar:
            yield Live(bar)
