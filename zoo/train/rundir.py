"""The directory of a run: configuration, metrics, checkpoints and models, each written atomically.

config.json               settings, data, versions
metrics.csv, metrics.jsonl  a row per epoch;  steps.csv  a row per step
checkpoint.safetensors    everything to go on from: weights, optimizer, running mean, position, history
best.safetensors, last.safetensors  models for zoo.load
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet import formats, ops
from zoonet.ops.errors import ArgumentError, FileError, FormatError, MissingFileError
from zoonet.zoo.train.history import History, as_csv, as_jsonl

__all__ = ["RunDirectory", "latest_run", "new_run"]

CHECKPOINT, CONFIG = "checkpoint.safetensors", "config.json"
RUNS = "runs"


def new_run(name: str, under: str = RUNS) -> pathlib.Path:
    """The path runs/name-1, or with the next free number."""
    base = pathlib.Path(under)
    numbers = [number for number, _ in _numbered(base, name)]
    return base / f"{name}-{max(numbers, default=0) + 1}"


def latest_run(name: str, under: str = RUNS) -> pathlib.Path:
    """The newest run of a name that has a checkpoint, or else the newest that was begun. Raises MissingFileError."""
    begun = [(number, path) for number, path in _numbered(pathlib.Path(under), name) if _begun(path)]
    found = [(number, path) for number, path in begun if (path / CHECKPOINT).is_file()] or begun
    if not found:
        raise MissingFileError(
            "there is no run to resume", expected=f"{under}/{name}-… with {CHECKPOINT}", fix='name it: run="folder"'
        )
    return max(found)[1]


def _numbered(base: pathlib.Path, name: str) -> list[tuple[int, pathlib.Path]]:
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    if not base.is_dir():
        return []
    return [(int(m[1]), p) for p in base.iterdir() if p.is_dir() and (m := pattern.fullmatch(p.name))]


def _begun(path: pathlib.Path) -> bool:
    """Whether a folder is that of a run, perhaps of one that was killed before its first step."""
    return (path / CHECKPOINT).is_file() or (
        path.is_dir() and all(p.name == CONFIG or p.name.startswith(".") for p in path.iterdir())
    )


def environment() -> dict[str, str]:
    """Versions of what computes."""
    from zoonet.zoo.cli import version

    return {
        "zoonet": version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "command": " ".join(sys.argv)[:1000],
    }


class RunDirectory:
    """The files of a run. Raises FileError where the folder cannot be made or written, before anything is trained.

    resume: there must be a checkpoint, or the folder of a run that was killed before it wrote one.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool) -> None:
        self.path = pathlib.Path(path)
        if resume and not self.has_checkpoint() and not _begun(self.path):
            raise MissingFileError(
                f"the run {self.path} has no checkpoint", expected=CHECKPOINT, fix="train without resume"
            )
        if not resume and (self.path / CHECKPOINT).exists():
            raise ArgumentError(
                f"the folder {self.path} holds a run already", fix="resume=True goes on with it; or name another run"
            )
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".{os.getpid()}.probe"
            probe.write_bytes(b"")
            probe.unlink()
            for cut_off in (
                self.path.glob(".*.safetensors.*.tmp") if resume else ()
            ):  # by a kill in the midst of writing
                cut_off.unlink()
        except OSError as error:
            raise FileError(
                f"the run directory {str(path)!r} cannot be written",
                received=error.strerror or error,
                fix="choose another one: run=…",
            ) from None

    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / CHECKPOINT).is_file()

    def discard_if_empty(self) -> None:
        """Remove the folders that were made for a run of which nothing came."""
        with contextlib.suppress(OSError):
            for path in self._made:
                path.rmdir()

    def write_text(self, name: str, text: str) -> None:
        """A file, whole or as it was. Raises FileError."""
        from zoonet.formats.files import atomic_path

        with atomic_path(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Settings, data and environment."""
        content = {**config, "environment": environment()}
        self.write_text(CONFIG, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")

    def write_history(self, history: History) -> None:
        """The metrics so far."""
        self.write_text("metrics.csv", as_csv(history.epochs, history.columns))
        self.write_text("metrics.jsonl", as_jsonl(history.epochs))
        self.write_text("steps.csv", as_csv(history.steps, ["step", "epoch", "loss", "lr"]))

    def write_checkpoint(self, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Everything to go on from, in one file, so that it is there whole or not at all."""
        cpu = {name: ops.to_device(array, "cpu") for name, array in arrays.items()}
        metadata = {"zoonet_training": json.dumps(facts, ensure_ascii=False)}
        formats.write(formats.Checkpoint(_lazy(cpu), metadata), self.path / CHECKPOINT)

    def read_checkpoint(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arrays and the facts of the last checkpoint. Raises FormatError."""
        checkpoint = formats.read(self.path / CHECKPOINT)
        facts: Any = checkpoint.metadata.get("zoonet_training")
        try:
            facts = json.loads(facts) if isinstance(facts, str) else facts
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            raise FormatError(f"{self.path / CHECKPOINT} is no checkpoint of a training run")
        return {name: np.array(tensor.load()) for name, tensor in checkpoint.items()}, facts


def _lazy(arrays: Mapping[str, Any]) -> dict[str, Any]:
    from zoonet.formats.checkpoint import as_lazy

    return {name: as_lazy(array) for name, array in arrays.items()}
