"""`zoonet show`: what is known of a model, or what a weights file holds."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Any

import typer

from zoonet import formats
from zoonet.ops.errors import UnknownModelError, ZoonetError
from zoonet.zoo import architectures, graphs
from zoonet.zoo.commands.output import console
from zoonet.zoo.results import printable
from zoonet.zoo.sources import EMBEDDED
from zoonet.zoo.storage import create, is_darknet, load, read, read_card, weights_file


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
    elif name in architectures.names():
        facts = model_facts(create(name, seed=None)) | {
            "notes": f"an architecture, for weights of your own: --arch {name}"
        }
    else:
        facts = catalog_facts(name)
    summary = None
    if layers:
        model = load(name, arch) if is_file or name in EMBEDDED else create(facts["architecture"], seed=None)
        summary = model.summary()
    if as_json:
        print(json.dumps(facts | ({"summary": summary.to_dict()} if summary else {}), indent=2, ensure_ascii=False))
        return
    tensors = facts.pop("tensors", None)
    shown = {key: value for key, value in facts.items() if value not in ("", None, {})}
    print("\n".join(f"{key + ':':<16}{printable(_text(value))}" for key, value in shown.items()))
    if summary:
        print(f"\n{summary}")
    elif tensors:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for title in ("tensor", "dtype", "shape"):
            table.add_column(title, no_wrap=True)
        table.add_column("bytes", justify="right")
        for tensor in tensors:
            shape = "×".join(map(str, tensor["shape"])) or "-"
            table.add_row(printable(tensor["name"]), tensor["dtype"], shape, f"{tensor['bytes']:,}")
        print()
        console().print(table)


_PLAIN = str | int | float | bool


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


def file_facts(path: pathlib.Path, arch: str | None) -> dict[str, Any]:
    """What a weights file (or the folder of one) holds, told from its header and its configuration."""
    checkpoint, config = read(path)
    described = formats.describe(weights_file(path))
    named = arch or str(config.get("architecture", ""))
    found = [named] if named else architectures.recognise(checkpoint)
    looks, classes = "", None
    if len(found) == 1:
        classes = getattr(architectures.fitted(found[0], checkpoint).config, "classes", None)  # type: ignore[attr-defined]
    elif found:
        looks = " or ".join(found)
    else:
        near = architectures.closest(checkpoint)
        looks = "no architecture of the zoo" + (f"; nearest {near}" if near else "")
    return {
        **(vars(read_card(config["card"], path.name)) if "card" in config else {}),
        "file": described.path,
        "format": described.format,
        "file size": described.file_size,
        "architecture": found[0] if len(found) == 1 else None,
        "classes": classes,
        **graph_facts(path),
        "looks like": looks,
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
        }
    except ZoonetError as error:
        return {"cannot run": str(error)}
    return facts


def catalog_facts(name: str) -> dict[str, Any]:
    """What the catalog says of weights; nothing is downloaded."""
    from zoonet import weights

    try:
        entry = weights.find(name)
    except UnknownModelError:
        load(name)  # says what is near; a name that neither knows cannot load
        raise
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "task": entry.task,
        "parameters": entry.parameters,
        "accuracy": ", ".join(f"{m.value:g} % {m.name} on {m.dataset}" for m in entry.metrics),
        "licence": entry.licence,
        "source": entry.sources[0].file_name,
        "citation": entry.citation,
        "note": entry.note,
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        texts = list(map(str, value))
        return ", ".join(texts[:10]) + (f", … ({len(texts)} in all)" if len(texts) > 10 else "")
    if isinstance(value, dict):
        text = ", ".join(
            f"{key}={item:.6g}" if isinstance(item, float) else f"{key}={item}" for key, item in value.items()
        )
        return text if len(text) <= 500 else text[:500] + " …"
    return f"{value:,}" if isinstance(value, int) else str(value)
