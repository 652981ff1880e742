"""`zoonet train`: a model on data of your own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoonet.ops.errors import ArgumentError
from zoonet.zoo import architectures
from zoonet.zoo.commands.options import PREPROCESSING_HELP, TASK_HELP, purpose
from zoonet.zoo.commands.output import console
from zoonet.zoo.sources import EMBEDDED
from zoonet.zoo.storage import create, load
from zoonet.zoo.train.history import check_picture

_NAMES = "A name from `zoonet list`, a weights file or folder, or an architecture, which starts from random weights."
_DATA = (
    "A folder with a sub-folder of pictures per class, a .csv or .json list of files and labels, or an .npz of x, y."
)


def train(
    model: Annotated[str, typer.Argument(help=_NAMES)],
    data: Annotated[str, typer.Argument(help=_DATA)],
    out: Annotated[
        str | None, typer.Option(help="Where the trained model is saved, such as flowers.safetensors.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 10,
    batch: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate, or auto.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam, adamw, …")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, constant, onecycle, step, plateau, …")] = None,
    warm_up: Annotated[float | None, typer.Option(help="Epochs in which the learning rate rises.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of matrices; biases and norms have none.")] = None,
    freeze: Annotated[str | None, typer.Option(help="backbone, or patterns of parameter names, with commas.")] = None,
    backbone_lr: Annotated[float | None, typer.Option(help="Factor of the rate of all but the head.")] = None,
    head: Annotated[str | None, typer.Option(help="auto, new or keep: whether the last layer is drawn anew.")] = None,
    loss: Annotated[str | None, typer.Option(help="auto, cross_entropy, mse, l1, huber or bce.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of a target spread over all classes.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Batches per step.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradients.")] = None,
    balance: Annotated[bool, typer.Option("--balance", help="Draw classes equally often.")] = False,
    corrupt: Annotated[str | None, typer.Option(help="skip or raise, for files that cannot be read.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, light, standard, strong, small or shift.")] = None,
    validation: Annotated[str | None, typer.Option(help="Data to measure on, a share of the data, or none.")] = None,
    metric: Annotated[str | None, typer.Option(help="What tells the best epoch, such as accuracy or loss.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without progress after which training stops.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of a running mean of the weights.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="What is computed in: float32, bfloat16 or float16; weights stay as they are.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Compute blocks twice: less memory, a third more time."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Threads that prepare data.")] = 2,
    columns: Annotated[str | None, typer.Option(help="Columns of a list: FILE,LABEL.")] = None,
    run: Annotated[str | None, typer.Option(help="Folder of checkpoints and metrics; default runs/NAME-N.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints, beside one per epoch.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    plot: Annotated[str | None, typer.Option(help="Draw the curves into this picture.")] = None,
    arch: Annotated[str | None, typer.Option(help="The architecture of a bare weights file.")] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    preprocessing: Annotated[str | None, typer.Option(help=PREPROCESSING_HELP)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Train a model on your data and keep the best weights."""
    if plot is not None:
        check_picture(plot)
    given = purpose(task, preprocessing)
    if _is_architecture(model):
        given.pop("task")
        loaded = create(model, seed=max(seed, 0), device=device, **given)
    else:
        loaded = load(model, arch, device=device, **given)
    optional: dict[str, Any] = {
        "batch": batch,
        "lr": _rate(lr),
        "optimizer": optimizer,
        "schedule": schedule,
        "warm_up": warm_up,
        "weight_decay": weight_decay,
        "freeze": freeze.split(",") if freeze and freeze != "backbone" else freeze,
        "backbone_lr": backbone_lr,
        "head": head,
        "loss": loss,
        "label_smoothing": label_smoothing,
        "accumulate": accumulate,
        "clip": clip,
        "balance": balance or None,
        "corrupt": corrupt,
        "augment": augment,
        "metric": metric,
        "save_every": save_every,
        "patience": patience,
        "ema": ema,
        "precision": precision,
        "gradient_checkpointing": gradient_checkpointing or None,
    }
    history = loaded.train(
        data,
        validation=_validation(validation),
        out=out,
        run=run,
        resume=resume,
        columns=split_columns(columns),
        epochs=epochs,
        seed=seed,
        workers=workers,
        **{name: value for name, value in optional.items() if value is not None},
    )
    print(history)
    if history.stopped:
        print(f"stopped early: {history.stopped}")
    if plot is not None:
        history.plot(plot)
    console(stderr=True).print(f"run: {history.folder}" + (f", model: {out}" if out else ""))


def _is_architecture(name: str) -> bool:
    return name in architectures.names() and name not in EMBEDDED


def _rate(text: str | None) -> float | str | None:
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentError("--lr is wrong", expected="a number above 0, or auto", received=repr(text)) from None


def _validation(text: str | None) -> Any:
    if text is None:
        return 0.2
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def split_columns(text: str | None) -> tuple[str, str] | None:
    """FILE,LABEL as a pair. Raises ArgumentError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise ArgumentError("--columns is wrong", expected="FILE,LABEL", received=repr(text))
    return parts[0], parts[1]
