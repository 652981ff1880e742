"""Darknet's files: a .cfg, the .weights of it, and a list of names, found from any of the first two."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.ops.errors import FormatError, MissingFileError, UnsafeFileError
from zoonet.zoo.detectors.darknet import DARKNETS, Darknet, DarknetConfig
from zoonet.zoo.detectors.darknet_configurations import filled
from zoonet.zoo.modules import initialised_by

_MAX_TEXT = 4 << 20


def is_darknet(path: pathlib.Path) -> bool:
    """Whether a path is a .cfg or a .weights file of darknet."""
    if path.is_dir():
        return False
    suffix = path.suffix.lower()
    return suffix == ".cfg" or (suffix == ".weights" and formats.detect(path).name == "darknet")


def read(path: pathlib.Path) -> tuple[formats.Checkpoint, dict[str, Any]]:
    """The tensors of a .cfg or .weights file, with its partner; and its configuration, with the names beside it.

    Raises MissingFileError where the partner is absent or several could be meant, FormatError, UnsupportedFormatError.
    """
    cfg, weights = partners(path)
    text = _text(cfg)
    with initialised_by(None):
        network = Darknet(DarknetConfig(text))
    checkpoint = formats.read(weights, format="darknet", text=text)
    _check_finite(checkpoint, weights.name)
    config: dict[str, Any] = {
        "architecture": "darknet",
        "configuration": {"cfg": text, "classes": network.config.classes},
        "card": {
            "name": weights.name,
            "notes": f"darknet network of {cfg.name}, {len(checkpoint.metadata['layers'])} layers",
        },
    }
    labels = names_beside(cfg, network.config.classes)
    if labels is not None:
        config["labels"] = list(labels)
    if not network.is_detector:
        config |= {"task": "image-classification", "preprocessing": _classifier_preprocessing(network)}
    return checkpoint, config


def _check_finite(checkpoint: formats.Checkpoint, name: str) -> None:
    for role, tensor in checkpoint.items():
        if not np.isfinite(tensor.load()).all():
            raise FormatError(
                f"{name}: {role} holds numbers that are not finite",
                expected="float32 weights of the network in the .cfg",
                fix="the file is damaged, or the cfg is of another network",
            )


def _classifier_preprocessing(network: Darknet) -> dict[str, Any]:
    """What darknet's classifiers see: the shorter side scaled to the input, its centre, from 0 to 1."""
    height, width = network.input_size
    return {
        "resize": min(height, width),
        "crop": [height, width],
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
        "scale": 1 / 255,
    }


def partners(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(.cfg, .weights) of which one is given."""
    if path.suffix.lower() == ".cfg":
        return path, _partner(path, ".weights")
    return _partner(path, ".cfg"), path


def _partner(path: pathlib.Path, suffix: str) -> pathlib.Path:
    """The file with the same stem, with a stem that continues or begins it (x_final, x_10000), or the only one."""
    exact = path.with_suffix(suffix)
    if exact.is_file():
        return exact
    beside = sorted(p for p in path.parent.iterdir() if p.suffix.lower() == suffix and p.is_file())
    stem = _base(path.stem)
    alike = [p for p in beside if _base(p.stem) == stem]
    found = alike or beside
    if len(found) == 1:
        return found[0]
    what = "holds no weights" if suffix == ".weights" else "holds numbers without names"
    raise MissingFileError(
        f"{path.name} {what}: its {suffix} is needed",
        expected=f"{exact.name!r} beside it",
        received=", ".join(p.name for p in found[:5]) or f"no {suffix} file there",
        fix=f"put it there, or give one of them the name {exact.name!r}",
    )


def _base(stem: str) -> str:
    """A stem without what darknet adds while it trains."""
    return re.sub(r"([_-](final|last|best|\d+))+$", "", stem.lower())


def names_beside(cfg: pathlib.Path, classes: int) -> tuple[str, ...] | None:
    """The list of as many names as classes beside a .cfg: of its own stem first, then any .names; None without one."""
    own = cfg.with_suffix(".names")
    others = sorted(p for p in cfg.parent.glob("*.names") if p != own)
    for path in [own, *others]:
        names = read_names(path) if path.is_file() else ()
        if len(names) == classes:
            return names
    return None


def _text(path: pathlib.Path) -> str:
    """The text of a .cfg or .names file. Raises UnsafeFileError for one that is too large, FormatError for no text."""
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise UnsafeFileError(f"{path.name} is too large", expected=f"at most {_MAX_TEXT} bytes")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is not text", received=str(error)) from None
    except OSError as error:
        raise FormatError(f"{path.name} cannot be read", received=str(error)) from None


def read_names(path: pathlib.Path) -> tuple[str, ...]:
    """The lines of a .names file. Raises UnsafeFileError for one that is too large, FormatError for what is no text."""
    names = [line.strip() for line in _text(path).splitlines()]
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def read_known(path: pathlib.Path, architecture: str) -> formats.Checkpoint:
    """The tensors of a .weights file without a .cfg, of an architecture in the table."""
    config = DARKNETS[architecture]
    return formats.read(path, format="darknet", text=filled(config.cfg, config.classes))
