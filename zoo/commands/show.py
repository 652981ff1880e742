"""`zoonet show`: what is known of a model, or what a weights file holds."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Any

import typer

from zoonet import formats
from zoonet.ops.errors import ArgumentError, ZoonetError
from zoonet.zoo import architectures, graphs, recognition
from zoonet.zoo.commands.card import catalog_entry, catalog_facts
from zoonet.zoo.commands.output import console, facts_text, plain
from zoonet.zoo.results import printable
from zoonet.zoo.sources import EMBEDDED, resolved, runs
from zoonet.zoo.storage import (
    changes_of,
    create,
    is_darknet,
    is_text_model,
    load,
    read,
    read_card,
    weights_file,
)
from zoonet.zoo.summary import Summary


def show(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="A name from `zoonet list`, or a weights file.")],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print every layer, its shape and its cost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model: card, classes, preprocessing, size; with --layers its layers; for a weights file its tensors."""
    facts: dict[str, Any]
    path = pathlib.Path(name)
    is_file = name not in EMBEDDED and path.exists()
    if is_file and is_darknet(path):
        facts = model_facts(load(name, arch))
    elif is_file:
        facts = file_facts(path, arch)
    elif name in EMBEDDED:
        facts = model_facts(load(name, arch))
    elif (entry := catalog_entry(name)) is not None and (entry.name == name or name not in architectures.names()):
        facts = catalog_facts(entry)
    elif name in architectures.names():
        facts = architecture_facts(name)
    else:
        resolved(name)  # says what is near, where the name is no reference
        facts = {"name": name, **file_facts(_downloaded(name), arch)}
        is_file = True
    summary = None
    if layers:
        summary = _summary(name, None if is_file else facts["architecture"], arch)
    if as_json:
        print(
            json.dumps(plain(facts) | ({"summary": summary.to_dict()} if summary else {}), indent=2, ensure_ascii=False)
        )
        return
    tensors = facts.pop("tensors", None)
    print(facts_text(facts))
    if summary:
        print(f"\n{summary}")
    elif tensors:
        print()
        console().print(_table(tensors))


def _table(tensors: list[dict[str, Any]]) -> Any:
    """One line for each tensor; where the terminal is narrow, long names go on in the next line and numbers stay."""
    from rich.table import Table

    rows = [
        (printable(t["name"]), t["dtype"], "×".join(map(str, t["shape"])) or "-", f"{t['bytes']:,}") for t in tensors
    ]
    table = Table(box=None, pad_edge=False)
    table.add_column("tensor", overflow="fold")
    for column, title in enumerate(("dtype", "shape", "bytes"), start=1):
        width = max(len(title), *(len(row[column]) for row in rows))
        table.add_column(title, no_wrap=True, min_width=width, justify="right" if title == "bytes" else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _summary(name: str, architecture: str | None, arch: str | None) -> Summary:
    """The layers of a model; what is known only from the catalog is made without weights where that can be."""
    known = architectures.names()
    made = next((found for found in (name, architecture) if found in known), None)
    if architecture is None or name in EMBEDDED or made is None:
        return load(name, arch).summary()
    return create(made, seed=None).summary()


_PLAIN = str | int | float | bool


def _downloaded(name: str) -> pathlib.Path:
    """Where the weights of a reference are on this machine; nothing is downloaded."""
    from zoonet import weights

    path = weights.cached(name)
    if path is None:
        raise ArgumentError(f"{name} is not on this machine", fix=f"`zoonet download {name}`, then show it")
    return path


def model_facts(model: Any) -> dict[str, Any]:
    """What a model says of itself."""
    summary = model.summary()
    return {
        **vars(model.card),
        "architecture": model.architecture,
        "task": model.task.name,
        "classes": len(model.labels) if hasattr(model.task, "labels") else None,
        "input": list(model.input_shape),
        **model.task.to_config(),
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "flops": summary.flops,
    }


def architecture_facts(name: str) -> dict[str, Any]:
    """What is known of an architecture, and the names of its weights in the catalog."""
    from zoonet import weights

    named = [entry.name for entry in weights.entries() if runs(entry) and entry.architecture == name]
    default = catalog_entry(name)
    known = f"`{name}` alone is {default.name}" if default else ""
    return {
        **model_facts(create(name, seed=None)),
        "notes": f"an architecture, for weights of your own: --arch {name}",
        "weights": (*named, *([known] if known else [])),
    }


def file_facts(path: pathlib.Path, arch: str | None) -> dict[str, Any]:
    """What a weights file (or the folder of one) holds, told from its header and its configuration."""
    checkpoint, config = read(path)
    described = formats.describe(weights_file(path))
    named = arch or str(config.get("architecture", ""))
    one = named or recognition.only(checkpoint)
    looks, classes = "", None
    if one:
        network = architectures.fitted(one, checkpoint, changes_of(one, config))
        classes = getattr(network.config, "classes", None)  # type: ignore[attr-defined]
    if not named:
        looks = recognition.describe(checkpoint, [tensor.name for tensor in described.tensors])
    return {
        **(vars(read_card(config["card"], path.name)) if "card" in config else {}),
        "file": described.path,
        "format": described.format,
        "file size": described.file_size,
        "architecture": one,
        "classes": classes,
        **graph_facts(path),
        "looks like": looks,
        **folder_facts(path),
        "tensors in all": len(described.tensors),
        "numbers": described.parameters,
        "bytes": described.nbytes,
        **{key: config[key] for key in ("task", "labels", "preprocessing") if key in config},
        "metadata": {k: v for k, v in described.metadata.items() if k != "zoonet" and isinstance(v, _PLAIN)},
        "tensors": [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes} for t in described.tensors
        ],
    }


def graph_facts(path: pathlib.Path) -> dict[str, Any]:
    """The inputs and outputs of a file that holds a graph, or why it cannot run; nothing for other files."""
    if graphs.importer_of(path) is None:
        return {}
    try:
        model = graphs.load(path, task=None, device="cpu", dtype=None, given={})
        ports = model.network.config  # type: ignore[attr-defined]
        facts: dict[str, Any] = {
            "task": model.task.name,
            "inputs": {port.name: str(port) for port in ports.inputs},
            "outputs": {port.name: str(port) for port in ports.outputs},
            **({} if model.task.name == "arrays" else model.task.to_config()),
            **({"notes": model.card.notes} if model.card.notes else {}),
        }
    except ZoonetError as error:
        return {"cannot run": str(error)}
    return facts


def folder_facts(path: pathlib.Path) -> dict[str, Any]:
    """Kind and task of a folder in Hugging Face's layout or a llama2.c checkpoint; nothing for other files."""
    if is_text_model(path):
        from zoonet.zoo.text import loading

        return {**loading.describe(path), "looks like": ""}
    return {}
