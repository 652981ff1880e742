"""The task of image classification: pictures in, a `Classification` each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, InputError, ZoonetError
from zoonet.ops.types import DType, TensorType, float32, is_floating
from zoonet.zoo.architectures import defaults
from zoonet.zoo.digits import DigitPreprocessing
from zoonet.zoo.modules import Module
from zoonet.zoo.pictures import Source, find_pictures, is_several
from zoonet.zoo.preprocessing import ImagePreprocessing
from zoonet.zoo.results import Classification, Results

if TYPE_CHECKING:
    from zoonet.zoo.model import Model
    from zoonet.zoo.train.evaluate import Evaluation


class Preprocessing(Protocol):
    """What turns a picture into a network's input."""

    @property
    def mode(self) -> str:
        """The PIL mode of the pictures that it takes: "RGB" or "L"."""

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of every result, or None where it depends on the picture."""

    def __call__(self, image: Any) -> np.ndarray[Any, Any]:
        """A PIL image of `mode` -> float32 (channels, height, width)."""

    def to_config(self) -> dict[str, Any]:
        """Plain data for a configuration file."""


def softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Probabilities over the last axis, in float64."""
    scores = scores.astype(np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: np.ndarray[Any, Any] = powers / powers.sum(axis=-1, keepdims=True)
    return result


class ImageClassification:
    """Pictures in, the scores of classes out.

    preprocessing: what turns a picture into the network's input. labels: one per output of the network.
    """

    name = "image-classification"
    unit = "pictures"

    def __init__(self, preprocessing: Preprocessing, labels: Sequence[str]) -> None:
        self.preprocessing = preprocessing
        self.labels = tuple(labels)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        network: Module,
        architecture: str,
        file: str,
        preprocessing: Preprocessing | None = None,
        labels: Sequence[str] | None = None,
    ) -> Self:
        """See `Task`. The number of labels must be that of the network's classes."""
        usual = defaults(architecture)
        config_of_network: Any = getattr(network, "config", None)
        if not hasattr(config_of_network, "classes"):
            raise ArgumentError(f"{file}: the network does not classify pictures", received=type(network).__name__)
        classes: int = config_of_network.classes
        if preprocessing is None:
            preprocessing = preprocessing_of(config.get("preprocessing"), file) or usual.preprocessing
        if labels is None:
            labels = config.get("labels") or default_labels(usual.labels.get(classes), classes)
        if len(labels) != classes:
            raise ArgumentError(f"{file}: the labels do not fit", expected=f"{classes} labels", received=len(labels))
        return cls(preprocessing, labels)

    def to_config(self) -> dict[str, Any]:
        """Plain data: preprocessing with its kind, and labels."""
        kind = next(name for name, found in _PREPROCESSINGS.items() if isinstance(self.preprocessing, found))
        return {"preprocessing": {"kind": kind, **self.preprocessing.to_config()}, "labels": list(self.labels)}

    def run(
        self, model: Model, source: Any, *, batch: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> Classification | Results:
        """Classify one picture or several, `batch` at a time; one result for one picture, Results for several.

        source: see `find_pictures`. progress: called with (done, total) after each batch. Raises InputError,
        FormatError or MissingFileError for bad input.
        """
        if not isinstance(batch, int) or batch < 1:
            raise ArgumentError("batch is wrong", expected="a positive number of pictures", received=batch)
        self._check_classes()
        sources = find_pictures(source)
        results = Results()
        for group, inputs in _batches(sources, self.preprocessing, batch):
            scores = softmax(ops.to_device(model(inputs), "cpu"))
            if not np.isfinite(scores).all():
                raise InputError(
                    f"the network gives scores that are not numbers for {group[0].name}",
                    expected="finite numbers",
                    fix="check the weights",
                )
            results += [Classification(s.name, row, self.labels) for s, row in zip(group, scores, strict=True)]
            if progress is not None:
                progress(len(results), len(sources))
        return results if is_several(source) else results[0]

    def evaluate(
        self,
        model: Model,
        data: Any,
        *,
        batch: int = 32,
        columns: tuple[str, str] | None = None,
        corrupt: str = "skip",
        loss: str | Callable[..., Any] = "auto",
        workers: int = 2,
        progress: Callable[[int, int], None] | None = None,
        preprocessed: bool = False,
    ) -> Evaluation:
        """See `Model.evaluate`."""
        from zoonet.zoo.train.measure import evaluate

        self._check_classes()
        return evaluate(model, data, batch, columns, corrupt, loss, workers, progress, preprocessed)

    def _check_classes(self) -> None:
        if not self.labels:
            raise InputError(
                "the network has no last layer, so it knows no classes",
                fix="model(x) gives its features, model.train(folder) a last layer for the classes of the folder",
            )

    def from_arguments(self, arguments: Sequence[str]) -> list[str]:
        """The paths of all pictures, those in folders included."""
        return [source.name for path in arguments for source in find_pictures(path)]

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """One array (N, channels, H, W) in the network's floating dtype."""
        if len(inputs) != 1:
            raise InputError("the model takes one array", received=f"{len(inputs)} inputs")
        return (checked_pictures(network, inputs[0]),)

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """One picture; of 224 pixels where its size does not follow from the preprocessing."""
        shape = self.preprocessing.shape or (network.config.channels, 224, 224)  # type: ignore[attr-defined]
        return (TensorType((1, *shape), floating_dtype(network)),)


def floating_dtype(network: Module) -> DType:
    """The dtype of a network's parameters; float32 where it has none."""
    found: DType = next((a.dtype for _, a in network.named_parameters() if is_floating(a.dtype)), float32)
    return found


def checked_pictures(network: Module, x: Any) -> Any:
    """An array of preprocessed pictures (N, channels, H, W) in the network's dtype. Raises InputError."""
    try:
        array = x if ops.is_array(x) else np.asarray(x)
    except (TypeError, ValueError) as error:
        raise InputError("the model cannot take this input", expected="an array", received=str(error)) from None
    channels = getattr(getattr(network, "config", None), "channels", None)
    if array.ndim != 4 or 0 in array.shape or (channels and array.shape[1] != channels):
        raise InputError(
            "the model cannot take this array",
            expected=f"shape (N, {channels or 'channels'}, height, width)",
            received=f"shape {array.shape}",
            fix="add the batch axis, x[None]" if array.ndim == 3 else "use model.run for pictures",
        )
    dtype = floating_dtype(network)
    if not is_floating(array.dtype):
        raise InputError(
            "the model cannot take this array",
            expected=f"{dtype} (preprocessed)",
            received=array.dtype,
            fix="use model.run for pictures, or cast it",
        )
    return array.astype(dtype, copy=False)


def default_labels(list_name: str | None, classes: int) -> tuple[str, ...]:
    """The labels of a named list, or "class 0", "class 1", … where there is none."""
    if list_name is not None:
        from zoonet.weights import label_names

        return label_names(list_name)
    return tuple(f"class {index}" for index in range(classes))


_PREPROCESSINGS: dict[str, Any] = {"image": ImagePreprocessing, "digit": DigitPreprocessing}


def preprocessing_of(config: Any, file: str) -> Any:
    """The preprocessing that a configuration describes, or None for none. Raises FormatError if it is malformed."""
    if not config:
        return None
    if not isinstance(config, Mapping):
        raise FormatError(
            f"the preprocessing in {file} is malformed", expected="an object", received=repr(config)[:100]
        )
    options = dict(config)
    kind = _PREPROCESSINGS.get(options.pop("kind", "image"))
    if kind is None:
        raise FormatError(f"the preprocessing in {file} is of an unknown kind", received=config.get("kind"))
    try:
        return kind.from_config(options)
    except (ZoonetError, TypeError, ValueError) as error:
        raise FormatError(f"the preprocessing in {file} is malformed", received=error) from None


def _batches(
    sources: list[Source], preprocessing: Preprocessing, batch: int
) -> Iterator[tuple[list[Source], np.ndarray[Any, Any]]]:
    """Groups of at most `batch` pictures and their arrays; pictures of a batch have one size."""
    group: list[Source] = []
    arrays: list[np.ndarray[Any, Any]] = []
    for source in sources:
        array = _array(source, preprocessing)
        if arrays and (len(arrays) == batch or array.shape != arrays[0].shape):
            yield group, np.stack(arrays)
            group, arrays = [], []
        group.append(source)
        arrays.append(array)
    yield group, np.stack(arrays)


def _array(source: Source, preprocessing: Preprocessing) -> np.ndarray[Any, Any]:
    image = source.open(preprocessing.mode)
    try:
        return preprocessing(image)
    except InputError as error:  # of one picture among several
        raise InputError(
            f"{source.name}: {error.message}", expected=error.expected, received=error.received, fix=error.fix
        ) from None
