"""The card of weights in the catalog: what is known of them without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoonet import weights
from zoonet.ops.errors import UnknownModelError
from zoonet.zoo.commands.output import size_text
from zoonet.zoo.listing import where_cached
from zoonet.zoo.sources import classifies_pictures, runs

if TYPE_CHECKING:
    from zoonet.weights import Entry, Preprocessing

#: What `zoonet run` takes for a task.
_INPUTS = {
    "image-classification": "PICTURE…",
    "object-detection": "PICTURE…",
    "text-embedding": '"a text" "another"',
    "text-classification": '"a text"',
    "text-generation": '"the start of a text"',
    "fill-mask": '"a text with a [MASK]."',
    "question-answering": "QUESTION CONTEXT",
    "token-classification": '"a text with names"',
    "text-to-text": '"translate English to German: a text"',
    "replaced-tokens": '"a text"',
}


def catalog_entry(name: str) -> Entry | None:
    """The entry of a name, or the default one of an architecture; None where the catalog has none."""
    try:
        return weights.find(name)
    except UnknownModelError:
        return None


def catalog_facts(entry: Entry) -> dict[str, Any]:
    """What the catalog says of an entry, in the order in which it is shown; tuples are lists of lines."""
    measured = list(dict.fromkeys(metric.source for metric in entry.metrics if metric.source != entry.origin))
    return {
        "name": entry.name,
        "task": entry.task,
        "architecture": "graph" if entry.format == "onnx" else entry.architecture,
        "parameters": entry.parameters,
        "accuracy": tuple(metric.text for metric in entry.metrics),
        "measured by": ", ".join(measured),
        "preprocessing": _preprocessing(entry.preprocessing),
        "labels": _labels(entry.labels),
        "inputs": tuple(map(_input, entry.configuration.get("inputs", ()))),
        "licence": _with_note(entry.licence, entry.licence_note),
        "warning": entry.warning,
        "format": f"{entry.format}, names of {entry.vocabulary}",
        "size": f"{entry.size:,} bytes" if entry.size else size_text(entry.bytes_or_estimate),
        "sources": tuple(map(str, entry.sources)),
        "verified by": _check(entry),
        "further files": ", ".join(item.name for item in entry.companions),
        "cached": _cached(entry),
        "origin": entry.origin,
        "citation": entry.citation,
        "note": entry.note,
        "run": _usage(entry),
    }


def _cached(entry: Entry) -> str:
    path = weights.cached(entry, link=False)
    if path is not None:
        return str(path)
    if where_cached(entry) == "package":
        return "in an installed package"
    others = weights.of_other_frameworks(entry.sources, entry.expected)
    return f"{others[0]}, if its hash is right" if others else "no"


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _preprocessing(given: Preprocessing | None) -> str:
    """In words: "shorter side to 256, bilinear; centre 224×224; (x·1/255 − mean) / std; …"."""
    if given is None:
        return ""
    size = given.size if isinstance(given.size, int) or given.size is None else f"{given.size[0]}×{given.size[1]}"
    words = {
        "shorter": f"shorter side to {size}",
        "exact": f"to {size}",
        "letterbox": f"into {size}, the rest {given.pad:g}",
    }
    steps = [f"{words[given.resize]}, {given.interpolation}"] if size is not None else []
    if given.crop is not None:
        steps.append(f"centre {given.crop[0]}×{given.crop[1]}")
    steps.append({"rgb": "RGB", "bgr": "BGR", "grey": "grey"}[given.channels])
    scale = f"1/{1 / given.scale:g}" if 0 < given.scale < 1 else f"{given.scale:g}"
    steps.append(f"times {scale}, minus {_numbers(given.mean)}, over {_numbers(given.std)}")
    if given.inside:
        steps.append(f"inside the network: {given.inside}")
    return "; ".join(steps)


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _input(text: str) -> str:
    """An input of a graph, such as "image tensor(float) [?, 3, 416, 416]" for a batch of any size."""
    return text.replace("None", "?").removesuffix(" []")


def _labels(name: str) -> str:
    if not name:
        return ""
    names = weights.label_names(name)
    return f"{len(names)} of {name}: {', '.join(names[:3])}" + (", …" if len(names) > 3 else "")


def _check(entry: Entry) -> str:
    hashes = [f"sha256 {text}{'…' if len(text) < 64 else ''}" for text in entry.sha256]
    hashes += [f"md5 {text}" for text in entry.md5]
    return _with_note(" or ".join(hashes), entry.hash_origin) if hashes else "no published hash"


def _usage(entry: Entry) -> str:
    if not runs(entry):
        return "zoonet has no network for these weights yet"
    is_plain_graph = entry.format == "onnx" and not classifies_pictures(entry)
    inputs = "FILE.npz" if is_plain_graph else _INPUTS.get(entry.task, "INPUT…")
    return f"zoonet run {entry.name} {inputs}"
