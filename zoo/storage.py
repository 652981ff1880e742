"""Models in files: weights with the configuration that makes them run again."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from zoonet import formats
from zoonet.formats.registry import format_of_suffix
from zoonet.ops.errors import (
    ArgumentError,
    FileError,
    FormatError,
    MissingFileError,
    StateDictError,
    UnsupportedFormatError,
)
from zoonet.weights.families import family_of
from zoonet.weights.names import in_our_names
from zoonet.weights.source import WEIGHTS as FOLDER_WEIGHTS
from zoonet.zoo import architectures, graphs, hugging_face, keras_files, recognition
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module, compare_shapes
from zoonet.zoo.sources import Located, locate
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


def save(model: Model, path: pathlib.Path, **options: Any) -> None:
    """See `Model.save`. options: those of ONNX."""
    if path.suffix == ".onnx" and not path.is_dir():
        from zoonet.zoo import exporting

        exporting.save(model, path, **options)
        return
    if any(value is not None for value in options.values()):
        raise ArgumentError("opset and dynamic are options of ONNX", expected="a name that ends with .onnx")
    if hasattr(model.task, "has_tokenizer"):
        from zoonet.zoo.text import loading

        if loading.has_folder(model):
            loading.save(model, path)
            return
    if isinstance(model.network, graphs.GraphNetwork):
        _save_graph(model, model.network, path)
        return
    if model.architecture == "own":
        write(formats.Checkpoint(_on_cpu(model.network)), None, path)
        return
    if model.architecture not in architectures.names():
        raise UnsupportedFormatError(
            f"a model of the kind {model.architecture!r} cannot be saved",
            expected="a network of the zoo, or a name that ends with .onnx",
            fix="its weights are in model.network.state_dict(), which formats.write takes",
        )
    written = format_of_suffix(path)
    if written is not None and written.name in keras_files.FORMATS and not path.is_dir():
        parameters = _on_cpu(model.network)
        formats.write(keras_files.keras_checkpoint(model, parameters, configuration(model), written.name), path)
        return
    write(formats.Checkpoint(_on_cpu(model.network)), configuration(model), path)


def save_beside(model: Model, path: pathlib.Path) -> None:
    """The weights of a model in path.safetensors, and the model as `save` writes it: there, or in the folder `path`
    for a model on text, or in path.onnx for a graph, where that can be written.
    """
    file = path.with_suffix(".safetensors")
    is_graph = isinstance(model.network, graphs.GraphNetwork)
    if not hasattr(model.task, "tokenizer") and not is_graph:
        save(model, file)
        return
    formats.write(formats.Checkpoint(_on_cpu(model.network)), file)
    with suppress(UnsupportedFormatError):
        model.save(path.with_suffix(".onnx") if is_graph else path)


def _save_graph(model: Model, network: graphs.GraphNetwork, path: pathlib.Path) -> None:
    """A Keras model in the kind of file that it was read from or a newer one, or its weights alone."""
    written = format_of_suffix(path)
    checkpoint = network.checkpoint(written.name) if written is not None else None
    kinds = {"keras": (".keras", ".weights.h5"), "keras_h5": (".keras", ".h5", ".hdf5")}
    suffixes = kinds.get(checkpoint.format, ()) if checkpoint is not None else ()
    if checkpoint is None or written is None or not path.name.endswith(suffixes):
        raise UnsupportedFormatError(
            f"this graph cannot be saved as {path.name!r}",
            expected=f"a name that ends with {' or '.join(suffixes)}" if suffixes else "a network of the zoo",
            fix="its weights are in model.network.state_dict(), which formats.write takes",
        )
    from zoonet.zoo import exporting

    own = exporting.describe(model).get("zoonet")
    metadata = {key: value for key, value in checkpoint.metadata.items() if key != "zoonet"}
    metadata |= {} if own is None else {"zoonet": json.loads(own)}
    formats.write(formats.Checkpoint(checkpoint, metadata, checkpoint.format), path)


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
        with _folder(path) if is_folder else nullcontext():
            formats.write(checkpoint, file)
        return
    if written is None or written.name not in _SAVED:
        raise UnsupportedFormatError(
            f"a model cannot be saved as {path.name!r}",
            expected="a name that ends with "
            + ", ".join(s for f in formats.FORMATS if f.name in (*_SAVED, "onnx") for s in f.suffixes)
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

    source: a path, an embedded model's name ("digits"), a name of the catalog ("resnet50.tv_in1k"), a repository of the
    Hugging Face hub (hf://org/name[@revision], or org/name) or a file of one (hf://org/name/file), or a URL
    (https://host/file#sha256=…). What is not on this machine is downloaded and verified, once.
    arch: the architecture of a bare state dict (its number of classes is taken from the tensors; one without a last
    layer gives features); recognised by names and shapes where None. task: what the network is for, where that is not
    what the file says. device: 'cpu', 'cuda', 'cuda:N'. dtype: a floating dtype to run in; that of the file, or
    float32, where None. given: what the task has, in the place of the file's or the architecture's own: labels and
    preprocessing for image classification, tokenizer (or its path) for text. Raises UnknownModelError (suggests the
    nearest), MissingFileError, FormatError, StateDictError (what is missing, unexpected, of wrong shape), DeviceError
    or DTypeError; DownloadError, OfflineError, StorageError or IntegrityError where a download fails.
    """
    from zoonet.ops.devices import module_for

    module_for(device)  # complains about a wrong device before the file is read
    found = locate(source)
    if arch is None and graphs.importer_of(found.path):
        model = graphs.load(found.path, task=task, device=device, dtype=dtype, given=given, known=found.config)
        return _described(model, found)
    place = found.path
    if place.name == WEIGHTS and is_text_model(place.parent):
        place = place.parent  # the weights of a folder in Hugging Face's layout, named themselves
    if arch is None and is_text_model(place):
        from zoonet.zoo.text import loading

        return _described(loading.load(place, task=task, device=device, dtype=dtype, given=given), found)
    checkpoint, config = read_located(found, arch)
    path = found.path
    architecture = arch or config.get("architecture")
    changes = changes_of(architecture, config) if architecture is not None else None
    bare = not config and (architecture is not None or recognition.only(checkpoint) is None)
    headless = recognition.without_head(checkpoint, architecture) if bare else None
    if headless is not None:
        (architecture, checkpoint), changes = headless, {"classes": 0}
    architecture = architecture or _recognised(checkpoint, path)
    network = _network(architecture, checkpoint, path, changes)
    if dtype is not None:
        network.to(dtype=dtype)
    return assemble(architecture, network, config, path.name, task=task, device=device, given=given)


def _described(model: Model, found: Located) -> Model:
    """A model whose card has what is known from where it was found."""
    known = {key: value for key, value in vars(read_card(found.config.get("card"), model.card.name)).items() if value}
    model.card = replace(model.card, **known)
    return model


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
    seed: int | None = 0,
    labels: Sequence[str] | None = None,
    preprocessing: Any = None,
    tokenizer: Any = None,
    device: str = "cpu",
    **configuration: Any,
) -> Model:
    """A model with random parameters, to be trained: `create("resnet18", classes=10, seed=1)`.

    seed: of the parameters; None leaves them zero, which takes no memory. tokenizer: of a network on text, a
    `Tokenizer` or the path of its files; without one it takes token numbers alone. configuration: fields of the
    architecture's configuration (classes, channels, …). Raises UnknownModelError or ArgumentError.
    """
    if labels is not None:
        configuration.setdefault("classes", len(labels))
    network = architectures.build(arch, seed=seed, **configuration)
    given = {"labels": labels, "preprocessing": preprocessing, "tokenizer": tokenizer}
    task = make_task(architectures.task_of(arch), {}, network, arch, arch, given)
    return Model(network, arch, task, card=Card(name=arch, notes="random parameters"), device=device)


def is_text_model(path: pathlib.Path) -> bool:
    """Whether a path is a folder in Hugging Face's layout, or a llama2.c checkpoint."""
    if path.is_dir() or path.suffix == ".bin":
        from zoonet.zoo.text import loading

        return loading.is_text_model(path)
    return False


def is_darknet(path: pathlib.Path) -> bool:
    """Whether a path is a .cfg or .weights file of darknet."""
    if path.suffix.lower() not in (".cfg", ".weights"):
        return False
    from zoonet.zoo.detectors import darknet_files

    return darknet_files.is_darknet(path)


def changes_of(architecture: str, config: Mapping[str, Any]) -> Any:
    """In what a configuration says that its network differs from its architecture; None where another one is asked."""
    return config.get("configuration") if config.get("architecture") == architecture else None


def embedded_card(name: str) -> Card:
    """The card of an embedded model, from the header of its file."""
    path = locate(name).path
    return read_card(read(path)[1].get("card"), path.name)


def weights_file(path: pathlib.Path) -> pathlib.Path:
    """The file itself, or that of a folder (an index, where there are several). Raises MissingFileError without one."""
    if not path.is_dir():
        return path
    found = next((path / name for name in FOLDER_WEIGHTS if (path / name).is_file()), None)
    if found is None:
        raise MissingFileError(f"the folder {path} holds no model", expected=" or ".join(FOLDER_WEIGHTS))
    return found


def read(path: pathlib.Path, arch: str | None = None) -> tuple[Checkpoint, Mapping[str, Any]]:
    """The weights of a file or folder, and its configuration (empty where it has none).

    arch: the architecture, where it is known; darknet's weights need it or a .cfg.
    """
    if is_darknet(path):
        from zoonet.zoo.detectors import darknet_files
        from zoonet.zoo.detectors.darknet import DARKNETS

        known = arch in DARKNETS and arch != "darknet"
        return (darknet_files.read_known(path, str(arch)), {}) if known else darknet_files.read(path)
    beside = path / CONFIG if path.is_dir() else path.with_name(path.name + ".json")
    file = weights_file(path)
    checkpoint = formats.read(file)
    properties = checkpoint.metadata.get("properties")  # of ONNX
    found: Any = (properties if isinstance(properties, dict) else checkpoint.metadata).get("zoonet")
    if found is None or checkpoint.format not in keras_files.FORMATS:  # ours say themselves which parameter is which
        checkpoint = in_our_names(checkpoint)
    if found is None and checkpoint.format not in (*keras_files.FORMATS, "onnx", "llama2c"):
        checkpoint = recognition.unwrapped(checkpoint)
    if found is None and beside.is_file():
        found = _read_config(beside)
    if found is None and (path.is_dir() or file.name == WEIGHTS):
        found = hugging_face.configuration_of(file.parent) or None
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise _malformed(file) from None
    if found is None:
        return checkpoint, {}
    shapes = {
        "architecture": str,
        "configuration": dict,
        "task": str,
        "preprocessing": dict,
        "labels": list,
        "card": dict,
    }
    if not isinstance(found, dict) or any(k in found and not isinstance(found[k], t) for k, t in shapes.items()):
        raise _malformed(file)
    if not all(isinstance(label, str) for label in found.get("labels", [])):
        raise _malformed(file)
    if "tensors" in found and checkpoint.format in keras_files.FORMATS:
        checkpoint = keras_files.restored(checkpoint, found["tensors"])
    return checkpoint, found


def read_located(found: Located, arch: str | None = None) -> tuple[Checkpoint, Mapping[str, Any]]:
    """As `read`; what a file says of itself goes before what is known of it from elsewhere."""
    checkpoint, config = read(found.path, arch or found.config.get("architecture"))
    cards = [value for value in (found.config.get("card"), config.get("card")) if value]
    merged = {key: value for card in cards for key, value in card.items() if value}
    return checkpoint, {**found.config, **config, **({"card": merged} if merged else {})}


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
    one = recognition.only(checkpoint)
    if one is not None:
        return one
    found = architectures.recognise(checkpoint)
    if found:
        raise StateDictError(
            f"the weights in {path.name} fit several architectures: {', '.join(found)}",
            fix=f'choose one, zoo.load("{path.name}", arch="{found[0]}") or --arch {found[0]}',
        )
    small = len(checkpoint) <= architectures.MOST_ARRAYS
    body, kin = (recognition.body_of(checkpoint), family_of(checkpoint)) if small else (None, None)
    if body is not None:
        raise StateDictError(
            f"the weights in {path.name} have no classes, and arrays that the network does not know",
            received=str(body),
            fix="take a file with the last layer; or remove the other arrays to load a network that gives features",
        )
    if kin is not None:
        raise StateDictError(
            f"the weights in {path.name} do not say which network they are of",
            expected="config.json beside them, in a folder in Hugging Face's layout",
            received=str(kin),
            fix="load the folder that has both",
        )
    near = architectures.closest(checkpoint)
    raise StateDictError(
        f"the weights in {path.name} ({len(checkpoint)} tensors) fit no architecture of the zoo",
        received=", ".join(list(checkpoint)[:3]) + (", …" if len(checkpoint) > 3 else ""),
        fix=(f"the nearest is {near}: " if near else "name it: ")
        + f'zoo.load("{path.name}", arch="{near or "resnet50"}") or --arch says what does not fit',
    )


def _network(architecture: str, checkpoint: Checkpoint, path: pathlib.Path, changes: Any) -> Module:
    network = architectures.fitted(architecture, checkpoint, changes)
    state = in_names_of(architecture, network, checkpoint, path)
    try:
        network.load_state_dict(state)
    except StateDictError as error:
        misfits = compare_shapes(network.state_dict(), checkpoint)
        if not (misfits.missing or misfits.unexpected or misfits.wrong):
            raise
        others = architectures.recognise(checkpoint)
        hint = f"\n  Fix: these are the weights of {' or '.join(others)}" if others else ""
        message = error.message.replace(type(network).__name__, architecture, 1)
        raise StateDictError(f"{path.name}: {message}{hint}") from None
    return network


def in_names_of(architecture: str, network: Module, checkpoint: Checkpoint, path: pathlib.Path) -> Checkpoint:
    """The weights under the names of a network, where they are of an exported graph that has lost them; else as is."""
    missing = compare_shapes(network.state_dict(), checkpoint).missing
    if checkpoint.format != "onnx" or all(name.endswith("num_batches_tracked") for name in missing):
        return checkpoint
    from zoonet.formats.checkpoint import as_lazy
    from zoonet.zoo.folded_weights import state_from_onnx

    made = make_task(architectures.task_of(architecture), {}, network, architecture, architecture, {})
    state = state_from_onnx(network, weights_file(path), made.example(network)[0].shape)
    tensors = {name: as_lazy(array) for name, array in state.items()}
    return formats.Checkpoint(tensors, checkpoint.metadata, checkpoint.format)


def read_card(config: Any, name: str) -> Card:
    """The card in a configuration, whatever that holds; named after the file where it has no name."""
    known = {field.name for field in fields(Card)}
    entries = {k: v for k, v in (config or {}).items() if k in known and isinstance(v, str)}
    return Card(**{"name": name, **entries})
