"""Decoders as data, so that a model that is saved as a graph is decoded again as its network was."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from zoonet.ops.errors import FormatError
from zoonet.zoo.detection.candidates import Decoder

#: Where each kind is: module of zoonet.zoo and class, a dataclass of plain fields.
_KINDS = {
    "yolox": ("detection.decoding", "YoloxDecoder"),
    "yolo": ("detection.decoding", "YoloDecoder"),
    "rows": ("detection.decoding", "RowsDecoder"),
    "fractions": ("detection.decoding", "FractionsDecoder"),
    "queries": ("detection.decoding", "QueriesDecoder"),
    "finished": ("detection.decoding", "FinishedDecoder"),
    "darknet": ("detectors.darknet", "DarknetDecoder"),
    "blazeface": ("detectors.blazeface", "BlazeFaceDecoder"),
    "retinanet": ("detectors.retinanet", "RetinaNetDecoder"),
    "fcos": ("detectors.fcos", "FCOSDecoder"),
    "ssd": ("detectors.ssdlite", "SSDDecoder"),
}
_LARGEST = 1 << 24


def decoder_config(decoder: Decoder) -> dict[str, Any] | None:
    """Plain data from which `decoder_from` makes the decoder again; None for one that is not of zoonet."""
    for kind, (module, name) in _KINDS.items():
        if type(decoder).__name__ == name and type(decoder).__module__ == f"zoonet.zoo.{module}":
            return {"kind": kind, **asdict(decoder)}  # type: ignore[call-overload]
    return None


def decoder_from(config: Mapping[str, Any], file: str) -> Decoder:
    """The inverse of `decoder_config`. Raises FormatError for an unknown kind, and for fields that do not fit."""
    options = dict(config)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FormatError(f"the decoder in {file} is unknown", expected=", ".join(_KINDS), received=repr(kind)[:100])
    module, name = _KINDS[kind]
    cls = getattr(importlib.import_module(f"zoonet.zoo.{module}"), name)
    values = {key: _plain(value, file) for key, value in options.items()}
    known = {field.name for field in fields(cls)}
    if not set(values) <= known or "classes" not in values:
        raise FormatError(f"the decoder in {file} is malformed", expected=sorted(known), received=sorted(values))
    result: Decoder = cls(**values)
    return result


def _plain(value: Any, file: str) -> Any:
    """Numbers, and tuples of them. Raises FormatError for anything else."""
    if isinstance(value, list) and len(value) <= 1024:
        return tuple(_plain(item, file) for item in value)
    if isinstance(value, bool) or (isinstance(value, int) and 0 <= value <= _LARGEST):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise FormatError(f"the decoder in {file} is malformed", expected="numbers and lists", received=repr(value)[:100])
