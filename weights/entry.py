"""One entry of the catalog: a weights file with everything that belongs to it, and how it is read from TOML.

An entry is data. Unknown keys, wrong types, malformed hashes and sources are errors that name the file, the
entry and the key, so that a catalog edited by hand fails where the mistake is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from zoonet.ops.errors import FormatError
from zoonet.weights.integrity import Expected
from zoonet.weights.source import Source

FORMATS = ("safetensors", "torch", "keras-h5", "onnx", "darknet")
VOCABULARIES = ("torchvision", "timm", "keras", "hugging-face", "yolox", "darknet", "onnx")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the input array, as data.

    size: target of the resize, one number, or (height, width). resize: "shorter" (shorter side becomes size,
    aspect kept), "exact" (both sides), "letterbox" (fits inside, the rest filled with pad). crop: centre crop
    (height, width) or None. Then value * scale, minus mean, divided by std, per channel in the order of
    channels ("rgb", "bgr" or "grey"). inside: steps that the network itself does (so the input stays 0-255).
    """

    size: int | tuple[int, int] | None = None
    resize: str = "shorter"
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: str = "rgb"
    pad: float = 0.0
    inside: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A published number: `value` of `name` (such as "top-1", in percent) on `dataset`, read in `source`."""

    name: str
    value: float
    dataset: str
    source: str

    @property
    def text(self) -> str:
        """Such as "76.13 % top-1 on ImageNet-1K"; errors and perplexities are no shares."""
        unit = "" if self.name == "perplexity" or "error" in self.name else " %"
        return f"{self.value:g}{unit} {self.name} on {self.dataset}"


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that lies beside the weights in every one of its sources, such as a tokenizer."""

    name: str
    expected: Expected
    required: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A pretrained weights file and what is known of it. An empty field means: not known.

    name: `arch.tag`, unique without regard to case. architecture, configuration: the network that takes the
    weights. sources: where the file is, in the order in which they are tried. size: bytes; size_mib:
    published rounded size in MiB, shown but never checked. format: container (FORMATS). vocabulary: whose
    parameter names (VOCABULARIES). labels: name of a list for `label_names`. origin: where these facts were
    read.
    """

    name: str
    architecture: str
    task: str
    sources: tuple[Source, ...]
    format: str
    vocabulary: str
    origin: str
    configuration: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    companions: tuple[Companion, ...] = ()
    sha256: tuple[str, ...] = ()
    md5: tuple[str, ...] = ()
    hash_origin: str = ""
    size: int | None = None
    size_mib: float | None = None
    parameters: int | None = None
    preprocessing: Preprocessing | None = None
    labels: str = ""
    metrics: tuple[Metric, ...] = ()
    licence: str = "unknown"
    licence_note: str = ""
    citation: str = ""
    note: str = ""
    default: bool = False

    @property
    def tag(self) -> str:
        """The part of the name after the architecture, or "" for a name without one."""
        return self.name[len(self.family) + 1 :]

    @property
    def family(self) -> str:
        """The name without its tag: what a user writes to get the default weights.

        Entries that are named after their repository on the Hugging Face hub have no tags, and dots of their own
        ("Qwen2.5-0.5B-Instruct").
        """
        if self.vocabulary == "hugging-face" and not self.name.startswith(f"{self.architecture}."):
            return self.name
        return self.name.rpartition(".")[0] or self.name

    @property
    def file_name(self) -> str:
        """Name of the weights file, from its first source."""
        return self.sources[0].file_name

    @property
    def expected(self) -> Expected:
        """Size and hashes that the file must have."""
        return Expected(sha256=self.sha256, md5=self.md5, size=self.size)

    @property
    def bytes_or_estimate(self) -> int | None:
        """Size in bytes for display: exact, else from the published MiB, else None."""
        if self.size is not None:
            return self.size
        return round(self.size_mib * 2**20) if self.size_mib is not None else None

    @property
    def warning(self) -> str:
        """What a user must be told before using the weights, or ""."""
        if is_copyleft(self.licence):
            return (
                f"{self.name} is licensed {self.licence}: software that uses it, also over a network, "
                "may have to be published under the same licence"
            )
        if "NC" in self.licence.upper().split("-"):
            return f"{self.name} is licensed {self.licence}: not for commercial use"
        return ""


def is_copyleft(licence: str) -> bool:
    """Whether a licence reaches the software around the weights (the AGPL and the GPL)."""
    return re.match(r"(AGPL|GPL)\b", licence, re.IGNORECASE) is not None


_SCALARS: dict[str, tuple[type, ...]] = {
    "architecture": (str,),
    "task": (str,),
    "format": (str,),
    "vocabulary": (str,),
    "origin": (str,),
    "hash_origin": (str,),
    "size": (int,),
    "size_mib": (float, int),
    "parameters": (int,),
    "labels": (str,),
    "licence": (str,),
    "licence_note": (str,),
    "citation": (str,),
    "note": (str,),
    "default": (bool,),
}
_REQUIRED = ("architecture", "task", "sources", "format", "vocabulary", "origin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def parse_entry(name: str, table: Mapping[str, Any], where: str) -> Entry:
    """Entry from its TOML table. where: file name for messages.

    Raises FormatError that names the key: unknown, missing, of the wrong type or malformed.
    """
    reader = _Reader(table, f"{where}, entry {name!r}")
    if not _NAME.fullmatch(name):
        raise reader.error("name", "letters, digits and . _ + - only", name)
    known = {item.name for item in fields(Entry)}
    for key in table:
        if key not in known or key == "name":
            raise reader.error(key, "one of " + ", ".join(sorted(known - {"name"})), "an unknown key")
    for key in _REQUIRED:
        if not table.get(key):
            raise reader.error(key, "a value", "nothing")
    values: dict[str, Any] = {key: reader.scalar(key, types) for key, types in _SCALARS.items() if key in table}
    for key, choices in (("format", FORMATS), ("vocabulary", VOCABULARIES)):
        if values[key] not in choices:
            raise reader.error(key, "one of " + ", ".join(choices), repr(values[key]))
    if "configuration" in table:
        values["configuration"] = MappingProxyType(dict(reader.table("configuration")))
    expected = reader.expected(table)
    entry = Entry(
        name=name,
        sources=tuple(reader.source(text) for text in reader.strings("sources")),
        sha256=expected.sha256,
        md5=expected.md5,
        companions=reader.companions(),
        preprocessing=reader.preprocessing(),
        metrics=reader.metrics(),
        **values,
    )
    if entry.default and is_copyleft(entry.licence):
        raise reader.error("default", "false, because copyleft weights are never a default", "true")
    return entry


class _Reader:
    """Typed access to one TOML table, with errors that name the place."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self.data = table
        self.where = where

    def error(self, key: str, expected: str, received: object) -> FormatError:
        return FormatError(
            f"catalog {self.where}, key {key!r} is wrong",
            expected=expected,
            received=received,
            fix="correct the catalog file",
        )

    def scalar(self, key: str, types: tuple[type, ...]) -> object:
        value = self.data[key]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise self.error(key, " or ".join(kind.__name__ for kind in types), repr(value))
        if isinstance(value, (int, float)) and value < 0:
            raise self.error(key, "a number not below zero", value)
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        value = self.data[key]
        if not isinstance(value, dict):
            raise self.error(key, "a table", repr(value))
        return value

    def strings(self, key: str, data: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        value = (self.data if data is None else data).get(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.error(key, "a list of strings", repr(value))
        return tuple(value)

    def source(self, text: str) -> Source:
        try:
            return Source.parse(text)
        except ValueError as error:
            raise self.error("sources", "https://…, hf://org/name@revision/file or package://…", error) from None

    def expected(self, data: Mapping[str, Any]) -> Expected:
        size = data.get("size")
        try:
            return Expected(sha256=self.strings("sha256", data), md5=self.strings("md5", data), size=size)
        except ValueError as error:
            raise self.error("sha256 or md5", "lower-case hexadecimal digits", error) from None

    def companions(self) -> tuple[Companion, ...]:
        items = self.data.get("companions", [])
        if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
            raise self.error("companions", "a list of tables with a name", repr(items))
        for item in items:
            if unknown := set(item) - {"name", "sha256", "md5", "size", "required"}:
                raise self.error("companions", "name, sha256, md5, size, required", sorted(unknown))
        return tuple(Companion(item["name"], self.expected(item), bool(item.get("required", False))) for item in items)

    def preprocessing(self) -> Preprocessing | None:
        if "preprocessing" not in self.data:
            return None
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.table("preprocessing").items()
        }
        choices = {
            "resize": ("shorter", "exact", "letterbox"),
            "interpolation": ("nearest", "bilinear", "bicubic"),
            "channels": ("rgb", "bgr", "grey"),
        }
        for key, allowed in choices.items():
            if key in values and values[key] not in allowed:
                raise self.error(f"preprocessing.{key}", "one of " + ", ".join(allowed), repr(values[key]))
        try:
            return Preprocessing(**values)
        except TypeError as error:
            raise self.error("preprocessing", "keys of Preprocessing", error) from None

    def metrics(self) -> tuple[Metric, ...]:
        items = self.data.get("metrics", [])
        if not isinstance(items, list):
            raise self.error("metrics", "a list of tables", repr(items))
        try:
            return tuple(
                Metric(**{"source": self.data["origin"], **item, "value": float(item["value"])}) for item in items
            )
        except (TypeError, KeyError, ValueError) as error:
            raise self.error("metrics", "tables of name, value, dataset and source", error) from None
