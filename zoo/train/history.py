"""What happened in a training run: a record per epoch and per step, to print, plot and write."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from zoonet.ops.errors import ArgumentError, FileError

__all__ = ["History", "import_pyplot"]

#: The endings of pictures that matplotlib writes without further libraries.
_ENDINGS = ("eps", "jpeg", "jpg", "pdf", "pgf", "png", "ps", "raw", "rgba", "svg", "svgz", "tif", "tiff", "webp")

Record = dict[str, Any]


class History:
    """The records of a run.

    epochs: one dict per epoch: epoch, loss (of training), lr, seconds, samples_per_second, and val_… of each metric.
    steps: one dict per step: step, epoch, loss, lr. best_epoch: the one whose weights were kept, or 0. folder: the run
    directory, or None. skipped: samples that could not be read, and why. stopped: why training ended early, or "".
    """

    def __init__(self, epochs: Sequence[Record] = (), steps: Sequence[Record] = ()) -> None:
        self.epochs: list[Record] = list(epochs)
        self.steps: list[Record] = list(steps)
        self.best_epoch = 0
        self.folder: pathlib.Path | None = None
        self.skipped: list[str] = []
        self.stopped = ""

    @property
    def best(self) -> Record:
        """The record of the best epoch (the last one where nothing was measured), or an empty one."""
        found = [record for record in self.epochs if record["epoch"] == self.best_epoch]
        return found[0] if found else (self.epochs[-1] if self.epochs else {})

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, key: str) -> list[Any]:
        """A column: history["val_accuracy"] is its number in each epoch."""
        if not any(key in record for record in self.epochs):
            raise ArgumentError(f"the history has no {key!r}", expected=", ".join(self.columns))
        return [record.get(key) for record in self.epochs]

    @property
    def columns(self) -> list[str]:
        """The names of what was recorded per epoch."""
        return list(dict.fromkeys(key for record in self.epochs for key in record))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "skipped": self.skipped,
            "stopped": self.stopped,
        }

    def __repr__(self) -> str:
        if not self.epochs:
            return "<History: nothing yet>"
        columns = self.columns
        rows = [columns, *[[_short(record.get(c)) for c in columns] for record in self.epochs]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        if self.best_epoch:
            lines.append(f"best: epoch {self.best_epoch}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw loss, metrics and learning rate into a picture (.png, .svg, .pdf). Needs matplotlib.

        Raises ArgumentError where there is nothing to draw, FileError where it cannot be written.
        """
        if not self.epochs:
            raise ArgumentError("there is nothing to plot", expected="at least one epoch")
        pyplot = import_pyplot()
        numbers = [c for c in self.columns if c.startswith("val_") and c not in ("val_loss", "val_seconds")]
        figure, axes = pyplot.subplots(1, 3 if numbers else 2, figsize=(15 if numbers else 10, 4), squeeze=False)
        loss, rate = axes[0][0], axes[0][-1]
        epochs = self["epoch"]
        if self.steps:
            per_epoch = max(1, len(self.steps) / max(1, len(self.epochs)))
            positions = [record["step"] / per_epoch for record in self.steps]
            loss.plot(positions, [record["loss"] for record in self.steps], linewidth=0.4, alpha=0.5)
            rate.plot(positions, [record["lr"] for record in self.steps])
        else:
            rate.plot(epochs, self["lr"])
        dots = {"marker": "o", "markersize": 3}  # one epoch is a dot, and no line
        loss.plot(epochs, self["loss"], label="training", **dots)
        if "val_loss" in self.columns:
            loss.plot(epochs, self["val_loss"], label="validation", **dots)
        loss.legend()
        if numbers:
            shares = [c for c in numbers if c in ("val_accuracy", "val_f1", "val_top5", "val_auc", "val_r2")]
            for name in shares or numbers[:1]:
                axes[0][1].plot(epochs, self[name], label=name.removeprefix("val_"), **dots)
            axes[0][1].legend()
            axes[0][1].set_title("validation")
        loss.set_title("loss")
        rate.set_title("learning rate")
        for axis in axes[0]:
            axis.set_xlabel("epoch")
        save_figure(figure, path)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row per epoch."""
        pathlib.Path(path).write_text(as_csv(self.epochs, self.columns), encoding="utf-8")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure of matplotlib and close it. Raises FileError."""
    figure.tight_layout()
    try:
        figure.savefig(os.fspath(path), dpi=120)
    except (OSError, ValueError) as error:
        raise FileError(f"the picture {os.fspath(path)!r} cannot be written", received=error) from None
    finally:
        import_pyplot().close(figure)


def import_pyplot() -> Any:
    """matplotlib's pyplot, drawing into files. Raises ArgumentError where it is not installed."""
    try:
        import matplotlib

        if not os.environ.get("DISPLAY") and "ipykernel" not in __import__("sys").modules:
            matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ArgumentError("plots need matplotlib", fix='pip install matplotlib, or "zoonet[plot]"') from None
    return pyplot


def check_picture(path: str | os.PathLike[str]) -> None:
    """Complain about a plot that cannot be drawn before there is anything to draw."""
    ending = pathlib.Path(path).suffix.removeprefix(".").lower()
    if ending and ending not in _ENDINGS:
        raise ArgumentError(
            "no picture can be drawn with this ending", expected=", ".join(_ENDINGS), received=str(path)
        )
    import_pyplot()
    folder = pathlib.Path(path).parent
    if not folder.is_dir():
        raise ArgumentError("the picture cannot be drawn there", expected="an existing folder", received=str(folder))


def as_csv(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Records as lines of CSV with a header."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def as_jsonl(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as lines of JSON; numbers that are none are null."""
    return "".join(json.dumps({k: _finite(v) for k, v in record.items()}) + "\n" for record in records)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
