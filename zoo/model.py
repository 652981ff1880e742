"""The facade's `Model`: a network with its task and card, and the plans that it runs by."""

from __future__ import annotations

import os
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError, ShapeError, TraceError
from zoonet.ops.operands import Traced
from zoonet.ops.types import TensorType
from zoonet.zoo.modules import Module
from zoonet.zoo.summary import Summary, summarize
from zoonet.zoo.tasks import Task, check_options

if TYPE_CHECKING:
    from zoonet.zoo.train.history import History

Array = Any
_PLANS = 4  # compiled input signatures that are kept; each holds its own folded weights


@dataclass
class Card:
    """What is known of weights: where they come from, on what terms, and how good they are."""

    name: str = ""
    source: str = ""
    licence: str = ""
    accuracy: str = ""
    notes: str = ""


class Model:
    """A network with what it needs to take what people have and give answers.

    network: a Module in inference mode. architecture: its name in the table. task: what it is for, with preprocessing,
    labels and the like. card: what is known of the weights.
    """

    def __init__(
        self,
        network: Module,
        architecture: str,
        task: Task,
        *,
        card: Card | None = None,
        device: str = "cpu",
    ) -> None:
        self.network = network
        self.architecture = architecture
        self.task = task
        self.card = card or Card(name=architecture)
        self.device = device
        self._plans: OrderedDict[Any, tuple[list[Array], Callable[..., Any]]] = OrderedDict()
        self._lock = threading.RLock()
        if device != "cpu":
            network.to(device)

    @property
    def preprocessing(self) -> Any:
        """What turns an input into arrays. Raises ArgumentError for a task that has none."""
        return self._of_task("preprocessing")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes. Raises ArgumentError for a task that has none."""
        return tuple(self._of_task("labels"))

    def _of_task(self, name: str) -> Any:
        if not hasattr(self.task, name):
            raise ArgumentError(f"a model for {self.task.name} has no {name}")
        return getattr(self.task, name)

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, source: Any, **options: Any) -> Any:
        """Answers for one input or several, as the task takes and gives them.

        Image classification: source is a path, bytes, a PIL image, an array (H, W), (H, W, C) or (C, H, W), a folder, a
        batch array, or a list of these; options are batch (how many go through the network at once) and progress
        (called with (done, total)); one `Classification`, or `Results`, a list of them, for several.
        Object detection: the same sources; options are conf, iou, classes, max_det, size and more, see
        `ObjectDetection.run`; one `Detections`, or `Results`.
        Raises MissingFileError, FormatError (not a picture, truncated), InputError or ArgumentError.
        """
        check_options(self.task.run, options, f"run of a model for {self.task.name}", fixed=2)
        return self.task.run(self, source, **options)

    def stream(self, source: Any, **options: Any) -> Iterator[Any]:
        """The answer piece by piece, for tasks that write one: `for piece in model.stream("Once")`.

        options: as for `run`. Raises ArgumentError for a task that gives its answer at once.
        """
        stream = self._of_task("stream")
        check_options(stream, options, f"stream of a model for {self.task.name}", fixed=2)
        pieces: Iterator[Any] = stream(self, source, **options)
        return pieces

    def __call__(self, *inputs: Array) -> Any:
        """The network on arrays, preprocessed already; for pictures (N, channels, H, W) -> scores (N, classes).

        Floats are cast to the network's dtype. It is compiled once per shape; parameters that are assigned anew
        afterwards are noticed, those whose array is changed in place are not until `recompile()`.
        Raises InputError for other shapes and dtypes.
        """
        if any(isinstance(x, Traced) for x in inputs):
            return self.network(*inputs)
        arrays = self.task.check(self.network, inputs)
        if self.device != "cpu":
            arrays = tuple([ops.to_device(x, self.device) if ops.is_array(x) else x for x in arrays])
        if not all(ops.is_array(x) and x.dtype != object for x in arrays):
            return self.network(*arrays)  # sequences and strings have no plan
        try:
            return self._plan(tuple([TensorType(x.shape, x.dtype) for x in arrays]))(*arrays)
        except MemoryError as error:
            raise ShapeError(f"{self.architecture} needs more memory than there is: {error}") from error

    def _plan(self, signature: tuple[TensorType, ...]) -> Callable[..., Any]:
        """The compiled network for input types, made on first use and again once parameters were replaced."""
        with self._lock:
            arrays = [slot.get() for slot in self.network.slots().values()]
            key = (signature, getattr(self.network, "as_file", True))  # an imported graph may be put in another mode
            if key in self._plans:
                self._plans.move_to_end(key)
                used, program = self._plans[key]
                if len(used) == len(arrays) and all(a is b for a, b in zip(used, arrays, strict=True)):
                    return program
            program = self._compiled(signature)
            self._plans[key] = arrays, program
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
            return program

    def _compiled(self, signature: tuple[TensorType, ...]) -> Callable[..., Any]:
        training = [module for _, module in self.network.named_modules() if module.training]
        if training:
            self.network.eval()
        try:
            return ops.compile(ops.trace(self.network, *signature, name=self.architecture), device=self.device)
        except TraceError:
            if not self.network.data_dependent:
                raise
            for slot in self.network.slots().values():  # views of a mapped file, which compiling would have copied
                array = slot.get()
                if isinstance(array, np.ndarray) and not array.flags.aligned:
                    slot.set(array.copy())
            return self.network
        except ShapeError as error:
            shapes = " and ".join(str(list(kind.shape)) for kind in signature)
            raise InputError(f"{self.architecture} cannot take an input of shape {shapes}", fix=str(error)) from None
        finally:
            for module in training:
                module.training = True

    def recompile(self) -> None:
        """Forget the compiled plans, after arrays of the network were changed in place."""
        with self._lock:
            self._plans.clear()

    # -- training ------------------------------------------------------------------------------------------------

    def train(
        self,
        data: Any,
        *,
        validation: Any = 0.2,
        out: str | os.PathLike[str] | None = None,
        run: str | os.PathLike[str] | bool | None = None,
        resume: bool = False,
        progress: bool | Callable[[dict[str, Any]], Any] = True,
        columns: tuple[str, str] | None = None,
        **settings: Any,
    ) -> History:
        """Train on data, in place: `history = model.train("flowers/", epochs=5)`; the best weights are kept.

        data: a folder with a sub-folder per class, a .csv or .json list, arrays (inputs, targets), or pairs; see
        `zoonet.zoo.train.data.open_data`. The last layer is made anew where the classes are others than the model's.
        validation: data to measure on, the share of the data that is held back for it (a folder "val" beside "train" is
        taken first), or None. out: where the model is saved in the end. run: the directory of checkpoints, metrics and
        models, "runs/NAME-1" or the next number where None, False for none. resume: go on with a run that was broken
        off; the result is bit for bit that of the unbroken run. progress: True, False, or a function of each record.
        columns: of a list, for file and label. settings: epochs, batch, lr, optimizer, freeze, augment, patience, …:
        see `zoonet.zoo.train.settings.Settings`.
        Ctrl-C saves and raises KeyboardInterrupt. Raises InputError, ArgumentError, FormatError or FileError for
        what is wrong with data, settings or places, before time is spent; TrainingError where the loss is no number.
        """
        from zoonet.zoo.train.trainer import train

        return train(
            self,
            data,
            validation=validation,
            out=out,
            run=run,
            resume=resume,
            progress=progress,
            columns=columns,
            **settings,
        )

    def evaluate(self, data: Any, **options: Any) -> Any:
        """How good the model is on data with answers, as the task measures it.

        Classification and arrays: data as for `train`, of a folder with "train" and "val" the latter; options are
        batch, columns (of a list), corrupt ("skip" or "raise" for samples that cannot be read), loss and, for pictures,
        preprocessed (as for `train`), workers and progress (called with (done, total)); an `Evaluation` with metrics, a
        table of classes, the confusion matrix and the worst mistakes.
        Object detection: annotated pictures (a folder of pictures with annotations beside them, VOC's or YOLO's
        folders, COCO's JSON, or pairs of a picture and a dict of boxes and labels); options are annotations (where they
        are, if not found), conf, iou, max_det, size, batch; a `DetectionEvaluation`.
        Raises MissingFileError, FormatError, InputError where the data have classes that the model does not know, or
        ArgumentError for a task that cannot be measured.
        """
        evaluate = self._of_task("evaluate")
        check_options(evaluate, options, f"evaluate of a model for {self.task.name}", fixed=2)
        return evaluate(self, data, **options)

    # -- description ---------------------------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the usual first input, without the batch axis."""
        return self.task.example(self.network)[0].shape[1:]

    def summary(self, shape: tuple[int, ...] | None = None) -> Summary:
        """Layers, shapes, parameters and operations for a shape of the first input; the usual one where None."""
        types = self.task.example(self.network)
        if shape is not None:
            types = (TensorType(tuple(shape), types[0].dtype), *types[1:])
        return summarize(self.network, types, self.architecture)

    def __repr__(self) -> str:
        count = sum(int(a.size) for _, a in self.network.named_parameters())
        name = self.card.name or self.architecture
        classes = f", {len(self.labels)} classes" if hasattr(self.task, "labels") else ""
        return (
            f"<Model {name}: {self.architecture}, {self.task.name}{classes}, {count:,} parameters, "
            f"input {'×'.join(map(str, self.input_shape))}, {self.device}>"
        )

    # -- saving --------------------------------------------------------------------------------------------------

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        opset: int | None = None,
        dynamic: Mapping[str, Mapping[int, str]] | None = None,
    ) -> None:
        """Write weights and configuration so that `zoo.load(path)` runs them again, elsewhere and without `arch`.

        path: a name that ends with .safetensors (one file), with another suffix of a format that can be written
        (.npz, .pt, .pth; the configuration lies beside it, in `<path>.json`), or without suffix: a folder with
        model.safetensors and config.json. A name that ends with .onnx is written as a graph that any ONNX runtime runs,
        in inference mode; above 2 GB its weights lie beside it, in `<path>.data`. For ONNX alone, opset: its version,
        13 or newer (17 if None); dynamic: the axes that may have any size, by input, in the place of batch and
        sequence: {"input": {0: "batch", 2: "height", 3: "width"}}. Written atomically. Raises UnsupportedFormatError,
        TraceError (other sizes cannot be free) or FileError.
        """
        from zoonet.zoo.storage import save

        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ArgumentError("save takes a path", expected="such as 'model.safetensors'", received=repr(path))
        save(self, pathlib.Path(os.fsdecode(path)), opset=opset, dynamic=dynamic)
