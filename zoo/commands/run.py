"""`zoonet run`: a model on pictures, texts, arrays, or whatever its task takes."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from zoonet.ops.errors import ArgumentError
from zoonet.zoo.commands.options import PREPROCESSING_HELP, SIZE_HELP, TASK_HELP, purpose, size_of
from zoonet.zoo.commands.output import progress_bar, shown
from zoonet.zoo.results import Results
from zoonet.zoo.storage import load
from zoonet.zoo.tasks import has_option


def run(
    model: Annotated[
        str, typer.Argument(help="A name from `zoonet list`, a weights file or folder, org/name, or a URL.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures or folders of them; texts, or - for standard input; .npy or .npz files for a graph.",
        ),
    ],
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    preprocessing: Annotated[str | None, typer.Option(help=PREPROCESSING_HELP)] = None,
    tokenizer: Annotated[str | None, typer.Option(help="The tokenizer's files, for a model on text.")] = None,
    top: Annotated[int, typer.Option(help="How many classes or answers to print.")] = 5,
    batch: Annotated[int | None, typer.Option(help="How many inputs go through the network at once.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Writing: at most this many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Writing: 0 the likeliest token, 1 draws.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Writing: draw among this many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Writing: draw among tokens of this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Writing: no token below this share of the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Writing: above 1 repeats less.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(help="Writing: above 0 repeats less.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Writing: end before this text; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Writing: of the draws.")] = None,
    beams: Annotated[int | None, typer.Option(help="Writing: search the likeliest text with this many.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Writing: each text is said to a chat model.")] = False,
    system: Annotated[str | None, typer.Option(help="Writing: with --chat, what stands before.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Writing: print the text while it is written.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    conf: Annotated[float | None, typer.Option(help="Detectors: the least score, 0 to 1.")] = None,
    iou: Annotated[float | None, typer.Option(help="Detectors: boxes that overlap a better one by more go.")] = None,
    classes: Annotated[str | None, typer.Option(help="Detectors: only these, names or numbers with commas.")] = None,
    max_det: Annotated[int | None, typer.Option(help="Detectors: most objects in a picture.")] = None,
    size: Annotated[str | None, typer.Option(help=SIZE_HELP)] = None,
    save: Annotated[str | None, typer.Option(help="Detectors: write the picture with its boxes, or a folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array with one object per input.")] = False,
) -> None:
    """Run a model on inputs and print what it says of each."""
    for option, value in (("--top", top), ("--batch", batch)):
        if value is not None and value < 1:
            raise ArgumentError(f"{option} is too small", expected="a number from 1", received=value)
    if stream and as_json:
        raise ArgumentError("--stream prints text", fix="choose --stream or --json")
    given = {
        "batch": batch,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "stop": stop or None,
        "seed": seed,
        "beams": beams,
        "chat": chat or None,
        "system": system,
        "conf": conf,
        "iou": iou,
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
        "max_det": max_det,
        "size": size_of(size),
    }
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    loaded = load(model, arch, device=device, tokenizer=tokenizer, **purpose(task, preprocessing))
    source = loaded.task.from_arguments(inputs)
    if save is not None and loaded.task.name != "object-detection":
        raise ArgumentError("--save writes boxes on pictures", expected="a detector", received=loaded.task.name)
    if stream:
        _print_pieces(loaded, source, options)
        return
    with progress_bar(loaded.task.unit) as progress:
        if has_option(loaded.task.run, "progress"):
            options["progress"] = progress
        if has_option(loaded.task.run, "top"):
            options["top"] = top
        found = loaded.run(source, **options)
    results = found if type(found) in (list, Results) else [found]
    if save is not None:
        _save(results, pathlib.Path(save))
    if as_json:
        print(json.dumps([result.to_dict(top) for result in results], ensure_ascii=False, indent=2))
        return
    print("\n\n".join(shown(result.text(top)) for result in results))
    if len(results) == 1 and hasattr(results[0], "plot"):
        _show(results[0])


def _save(results: Sequence[Any], path: pathlib.Path) -> None:
    """Write the one picture to a file, or several, and any to a path without suffix, into a folder by their names."""
    if len(results) == 1 and path.suffix and not path.is_dir():
        results[0].save(path)
        return
    if path.suffix and not path.is_dir():
        raise ArgumentError(
            "several pictures do not go into one file", expected="a folder", received=str(path), fix="--save out/"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError("the folder cannot be made", received=error) from None
    taken: set[str] = set()
    for result in results:
        stem = pathlib.Path(result.source).stem or "picture"
        name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(results) + 2))) if n not in taken)
        taken.add(name)
        result.save(path / f"{name}.png")


def _show(result: Any) -> None:
    """The picture with its boxes, where the terminal shows pictures."""
    from zoonet.zoo.detection.terminal import in_terminal, kind_of_terminal

    kind = kind_of_terminal()
    if kind is not None:
        print(in_terminal(result.plot(), kind))


def _print_pieces(model: Any, source: list[str], options: dict[str, Any]) -> None:
    """Each text and its continuation, piece by piece; the answer alone of what answers."""
    for number, text in enumerate(source):
        pieces = model.stream(text, **options)  # complains before anything is printed
        print("\n" * (number > 0) + ("" if model.task.answers(options) else shown(text)), end="", flush=True)
        for piece in pieces:
            print(shown(piece), end="", flush=True)
        print()
