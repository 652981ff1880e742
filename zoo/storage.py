"""Models in files: weights with the configuration that makes them run again."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from zoonet import formats
from zoonet.formats.registry import format_of_suffix
from zoonet.ops.errors import (
    FileError,
    FormatError,
    MissingFileError,
    StateDictError,
    UnsupportedFormatError,
)
from zoonet.zoo import architectures, graphs
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module, compare_shapes
from zoonet.zoo.sources import locate
from zoonet.zoo.tasks import make_task

if TYPE_CHECKING:
    from zoonet.formats import Checkpoint

WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: Formats that keep the names of parameters as they are.
_SAVED = ("safetensors", "sharded", "torch", "npz")


# -- writing -----------------------------------------------------------------------------------------------------


def configuration(model: Model) -> dict[str, Any]:
    """Everything of a model but its weights, as plain data for JSON."""
    return {
        "architecture": model.architecture,
        "configuration": architectures.changes(model.architecture, model.network),
        "task": model.task.name,
        **model.task.to_config(),
        "card": {key: value for key, value in vars(model.card).items() if value},
    }


def save(model: Model, path: pathlib.Path) -> None:
    """See `Model.save`."""
    if hasattr(model.task, "tokenizer"):
        from zoonet.zoo.text import loading

        loading.save(model, path)
        return
    if model.architecture == "own":
        write(formats.Checkpoint(_on_cpu(model.network)), None, path)
        return
    if model.architecture not in architectures.names():
        raise UnsupportedFormatError(
            f"a model of the kind {model.architecture!r} cannot be saved",
            expected="a network of the zoo",
            fix="its weights are in model.network.state_dict(), which formats.write takes",
        )
    write(formats.Checkpoint(_on_cpu(model.network)), configuration(model), path)


def save_beside(model: Model, path: pathlib.Path) -> None:
    """The weights of a model in path.safetensors, and the model as `save` writes it: there, or in the folder `path`
    for a model on text, or in path.onnx for a graph, where that can be written.
    """
    file = path.with_suffix(".safetensors")
    if not hasattr(model.task, "tokenizer") and model.architecture != "graph":
        save(model, file)
        return
    formats.write(formats.Checkpoint(_on_cpu(model.network)), file)
    with suppress(UnsupportedFormatError):
        model.save(path.with_suffix(".onnx") if model.architecture == "graph" else path)


def write(checkpoint: Checkpoint, config: Mapping[str, Any] | None, path: pathlib.Path) -> None:
    """Write weights, and the configuration in their header or beside them; see `Model.save`.

    config: None for weights of which no more is known. Its formats are those that keep the names of parameters;
    without it any. Raises UnsupportedFormatError or FileError.
    """
    from zoonet.formats.files import atomic_path

    is_folder = path.is_dir() or not path.suffix
    file = path / WEIGHTS if is_folder else path
    written = format_of_suffix(file)
    if config is None:
        formats.write(checkpoint, file)
        return
    if written is None or written.name not in _SAVED:
        raise UnsupportedFormatError(
            f"a model cannot be saved as {path.name!r}",
            expected="a name that ends with "
            + ", ".join(s for f in formats.FORMATS if f.name in _SAVED for s in f.suffixes)
            + ", or one without suffix for a folder",
        )
    content = {"zoonet": config}
    if written.name == "safetensors":
        checkpoint = formats.Checkpoint(checkpoint, {**checkpoint.metadata, "format": "pt", **content})
        if not is_folder:
            formats.write(checkpoint, file)
            return
    beside = path / CONFIG if is_folder else file.with_name(file.name + ".json")
    with _folder(path) if is_folder else nullcontext(), atomic_path(beside) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        formats.write(checkpoint, file)  # in here, so that the configuration is renamed only if this succeeds


@contextmanager
def _folder(path: pathlib.Path) -> Iterator[None]:
    """The folder exists inside, and is taken away again if it was made here and nothing could be written."""
    try:
        existed = path.is_dir()
        path.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        raise FileError(
            f"the folder {str(path)!r} cannot be made", received=error, fix="choose another place"
        ) from None
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                path.rmdir()
        raise


def _on_cpu(network: Module) -> dict[str, Any]:
    from zoonet import ops
    from zoonet.formats.checkpoint import as_lazy

    return {name: as_lazy(ops.to_device(array, "cpu")) for name, array in network.state_dict().items()}


# -- reading -----------------------------------------------------------------------------------------------------


def load(
    source: str | os.PathLike[str],
    arch: str | None = None,
    *,
    task: str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    **given: Any,
) -> Model:
    """A model that runs: from a name, a weights file, or a folder that `Model.save` wrote.

    source: an embedded model's name ("digits"), or a path. arch: the architecture of a bare state dict (its number of
    classes is taken from the tensors); recognised by names and shapes where None. task: what the network is for, where
    that is not what the file says. device: 'cpu', 'cuda', 'cuda:N'. dtype: a floating dtype to run in; that of the
    file, or float32, where None. given: what the task has, in the place of the file's or the architecture's own: labels
    and preprocessing for image classification. Raises UnknownModelError (suggests the nearest), MissingFileError,
    FormatError, StateDictError (what is missing, unexpected, of wrong shape), DeviceError or DTypeError.
    """
    from zoonet.ops.devices import module_for

    module_for(device)  # complains about a wrong device before the file is read
    found = locate(source)
    if arch is None and graphs.importer_of(found.path):
        return graphs.load(found.path, task=task, device=device, dtype=dtype, given=given)
    if arch is None and is_text_model(found.path):
        from zoonet.zoo.text import loading

        return loading.load(found.path, task=task, device=device, dtype=dtype, given=given)
    checkpoint, config = read(found.path)
    config = {**found.config, **config}
    path = found.path
    architecture = arch or config.get("architecture") or _recognised(checkpoint, path)
    network = _network(architecture, checkpoint, path, config.get("configuration") if arch is None else None)
    if dtype is not None:
        network.to(dtype=dtype)
    return assemble(architecture, network, config, path.name, task=task, device=device, given=given)


def assemble(
    architecture: str,
    network: Module,
    config: Mapping[str, Any],
    file: str,
    *,
    task: str | None = None,
    device: str = "cpu",
    given: Mapping[str, Any] | None = None,
) -> Model:
    """The model of a network and of what a configuration says of it; see `load`."""
    purpose = task or config.get("task") or architectures.task_of(architecture)
    made = make_task(purpose, config, network, architecture, file, given or {})
    return Model(network, architecture, made, card=read_card(config.get("card"), file), device=device)


def create(
    arch: str,
    *,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    preprocessing: Any = None,
    device: str = "cpu",
    **configuration: Any,
) -> Model:
    """A model with random parameters, to be trained: `create("resnet18", classes=10, seed=1)`.

    configuration: fields of the architecture's configuration (classes, channels, …). Raises UnknownModelError or
    ArgumentError.
    """
    if labels is not None:
        configuration.setdefault("classes", len(labels))
    network = architectures.build(arch, seed=seed, **configuration)
    given = {"labels": labels, "preprocessing": preprocessing}
    task = make_task(architectures.task_of(arch), {}, network, arch, arch, given)
    return Model(network, arch, task, card=Card(name=arch, notes="random parameters"), device=device)


def is_text_model(path: pathlib.Path) -> bool:
    """Whether a path is a folder in Hugging Face's layout, or a llama2.c checkpoint."""
    if path.is_dir() or path.suffix == ".bin":
        from zoonet.zoo.text import loading

        return loading.is_text_model(path)
    return False


def embedded_card(name: str) -> Card:
    """The card of an embedded model, from the header of its file."""
    path = locate(name).path
    return read_card(read(path)[1].get("card"), path.name)


def weights_file(path: pathlib.Path) -> pathlib.Path:
    """The file itself, or that of a folder. Raises MissingFileError for a folder without one."""
    if not path.is_dir():
        return path
    if not (path / WEIGHTS).exists():
        raise MissingFileError(f"the folder {path} holds no model", expected=WEIGHTS)
    return path / WEIGHTS


def read(path: pathlib.Path) -> tuple[Checkpoint, Mapping[str, Any]]:
    """The weights of a file or folder, and its configuration (empty where it has none)."""
    beside = path / CONFIG if path.is_dir() else path.with_name(path.name + ".json")
    file = weights_file(path)
    checkpoint = formats.read(file)
    found: Any = checkpoint.metadata.get("zoonet")
    if found is None and beside.is_file():
        found = _read_config(beside)
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise _malformed(file) from None
    if found is None:
        return checkpoint, {}
    shapes = {"architecture": str, "task": str, "preprocessing": dict, "labels": list, "card": dict}
    if not isinstance(found, dict) or any(k in found and not isinstance(found[k], t) for k, t in shapes.items()):
        raise _malformed(file)
    if not all(isinstance(label, str) for label in found.get("labels", [])):
        raise _malformed(file)
    return checkpoint, found


def _read_config(path: pathlib.Path) -> Any:
    try:
        if path.stat().st_size > 64 << 20:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path} cannot be read", received=error) from None
    except (ValueError, RecursionError):
        raise _malformed(path) from None
    return content.get("zoonet") if isinstance(content, dict) else None


def _malformed(path: pathlib.Path) -> FormatError:
    return FormatError(
        f"the configuration in {path} is malformed",
        expected='a JSON object with "architecture", "preprocessing", "labels", "card"',
        fix='name the architecture, load(path, arch="…"), on a file without configuration',
    )


def _recognised(checkpoint: Checkpoint, path: pathlib.Path) -> str:
    found = architectures.recognise(checkpoint)
    if len(found) == 1:
        return found[0]
    if found:
        raise StateDictError(
            f"the weights in {path.name} fit several architectures: {', '.join(found)}",
            fix=f'choose one, zoo.load("{path.name}", arch="{found[0]}") or --arch {found[0]}',
        )
    near = architectures.closest(checkpoint)
    raise StateDictError(
        f"the weights in {path.name} ({len(checkpoint)} tensors) fit no architecture of the zoo",
        received=", ".join(list(checkpoint)[:3]) + (", …" if len(checkpoint) > 3 else ""),
        fix=(f"the nearest is {near}: " if near else "name it: ")
        + f'zoo.load("{path.name}", arch="{near or "resnet50"}") or --arch says what does not fit',
    )


def _network(architecture: str, checkpoint: Checkpoint, path: pathlib.Path, changes: Any = None) -> Module:
    changes = changes if isinstance(changes, dict) else None
    network = architectures.fitted(architecture, checkpoint, changes)
    try:
        network.load_state_dict(checkpoint)
    except StateDictError as error:
        misfits = compare_shapes(network.state_dict(), checkpoint)
        if not (misfits.missing or misfits.unexpected or misfits.wrong):
            raise
        others = architectures.recognise(checkpoint)
        hint = f"\n  Fix: these are the weights of {' or '.join(others)}" if others else ""
        message = error.message.replace(type(network).__name__, architecture, 1)
        raise StateDictError(f"{path.name}: {message}{hint}") from None
    return network


def read_card(config: Any, name: str) -> Card:
    """The card in a configuration, whatever that holds; named after the file where it has no name."""
    known = {field.name for field in fields(Card)}
    entries = {k: v for k, v in (config or {}).items() if k in known and isinstance(v, str)}
    return Card(**{"name": name, **entries})
