"""The task of object detection: pictures in, `Detections` each out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, FormatError, InputError, ZoonetError
from zoonet.ops.types import TensorType
from zoonet.zoo.architectures import defaults
from zoonet.zoo.classification import checked_pictures, default_labels, floating_dtype
from zoonet.zoo.detection.candidates import SUPPRESSIONS, Candidates, Decoder, Selection, class_indices, select
from zoonet.zoo.detection.decoders import decoder_config, decoder_from
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing, Placement
from zoonet.zoo.detection.results import Detections
from zoonet.zoo.modules import Module
from zoonet.zoo.pictures import Source, find_pictures, is_several
from zoonet.zoo.results import Results

if TYPE_CHECKING:
    from zoonet.zoo.detection.evaluation import DetectionEvaluation
    from zoonet.zoo.model import Model

Array = np.ndarray[Any, Any]


class ObjectDetection:
    """Pictures in, boxes out.

    preprocessing: what turns a picture into the network's input. labels: the names of the classes. decoder: what makes
    candidates of the network's outputs. conf, iou, suppression: what `run` does where it is not told any.
    """

    name = "object-detection"
    unit = "pictures"

    def __init__(
        self,
        preprocessing: DetectionPreprocessing,
        labels: Sequence[str],
        decoder: Decoder,
        *,
        conf: float = 0.25,
        iou: float = 0.45,
        suppression: str = "hard",
    ) -> None:
        self.preprocessing = preprocessing
        self.labels = tuple(labels)
        self.decoder = decoder
        self.conf = conf
        self.iou = iou
        self.suppression = suppression

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        network: Module,
        architecture: str,
        file: str,
        preprocessing: DetectionPreprocessing | None = None,
        labels: Sequence[str] | None = None,
        decoder: Decoder | None = None,
    ) -> Self:
        """See `Task`. decoder: for a graph whose outputs are not recognised."""
        given, listed, saved = (config.get(key) for key in ("preprocessing", "labels", "decoder"))
        is_own = isinstance(given, Mapping) and given.get("kind") == "detection"  # and not of another task
        own = _preprocessing_of(given, file) if is_own else None
        labels = labels or (listed if isinstance(listed, list) else None)
        thresholds = getattr(network, "thresholds", (0.25, 0.45))
        if hasattr(network, "decoder"):
            decoder, usual = decoder or network.decoder, network.preprocessing  # type: ignore[attr-defined]
        elif decoder is None and isinstance(saved, Mapping) and own is not None:
            decoder, usual = decoder_from(saved, file), own
        else:
            from zoonet.zoo.detection.exports import recognised

            found = recognised(network, config, file, decoder)
            decoder, usual, thresholds = found.decoder, found.preprocessing, found.thresholds
            labels = labels or found.labels
        preprocessing = _fitted(preprocessing or own or usual, network)
        labels = labels or usual_labels(architecture, decoder.classes)
        if decoder.classes and len(labels) != decoder.classes:
            raise ArgumentError(
                f"{file}: the labels do not fit", expected=f"{decoder.classes} labels", received=len(labels)
            )
        conf, iou = (_threshold(config, key, value) for key, value in zip(("conf", "iou"), thresholds, strict=True))
        suppression = config.get("suppression", getattr(network, "suppression", "hard"))
        suppression = suppression if suppression in SUPPRESSIONS else "hard"
        return cls(preprocessing, labels, decoder, conf=conf, iou=iou, suppression=suppression)

    def to_config(self) -> dict[str, Any]:
        """Plain data: preprocessing, labels, thresholds, and the decoder, for a network that is saved as a graph."""
        config: dict[str, Any] = {
            "preprocessing": {"kind": "detection", **self.preprocessing.to_config()},
            "labels": list(self.labels),
            "conf": self.conf,
            "iou": self.iou,
            "suppression": self.suppression,
        }
        decoder = decoder_config(self.decoder)
        return config | ({} if decoder is None else {"decoder": decoder})

    def run(
        self,
        model: Model,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        classes: Any = None,
        max_det: int = 300,
        agnostic: bool = False,
        suppression: str | None = None,
        top_k: int = 30_000,
        multi_label: bool = True,
        size: int | Sequence[int] | None = None,
        batch: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> Detections | Results:
        """Find objects in one picture or several; `Detections` for one picture, Results (a list) for several.

        source: see `find_pictures`. conf: least score; usually 0.25, and what the weights say. iou: a box that overlaps
        one of the same class and higher score by more is dropped; usually 0.45. classes: names or indices, only these.
        max_det: most objects in a picture. agnostic: boxes of different classes suppress each other. suppression:
        "hard", "soft", "weighted" or "none" (see `Selection`); usually "hard". top_k: candidates that take part in it.
        multi_label: a box may have several classes, else its best one only. batch: pictures at a time. progress: called
        with (done, total).
        size: of the network's input, pixels or (height, width), where it takes others than its usual one: larger ones
        show smaller objects and take longer. One number is the shorter side for RetinaNet and FCOS; for darknet's
        networks, which see a picture in its own proportions, it is the side of a square of as many pixels, while
        (height, width) stretches the picture, as darknet does to the size in the .cfg.
        Raises InputError, FormatError, MissingFileError or ArgumentError.
        """
        if not isinstance(batch, int) or batch < 1:
            raise ArgumentError("batch is wrong", expected="a positive number of pictures", received=batch)
        selection = Selection(
            self.conf if conf is None else conf,
            self.iou if iou is None else iou,
            class_indices(classes, self.labels),
            max_det,
            agnostic,
            self.suppression if suppression is None else suppression,
            top_k,
            bool(multi_label),
        )
        sources = find_pictures(source)
        results = Results()
        preprocessing = self._preprocessing(model.network, size)
        for group, placements, inputs in _batches(sources, preprocessing, self._most(model, batch)):
            candidates = self.candidates(model, inputs)
            for each, placement, found in zip(group, placements, candidates, strict=True):
                results.append(self._detections(each, placement, found, selection))
            if progress is not None:
                progress(len(results), len(sources))
        return results if is_several(source) else results[0]

    def evaluate(
        self,
        model: Model,
        data: Any,
        *,
        annotations: Any = None,
        conf: float = 0.001,
        iou: float | None = None,
        max_det: int = 100,
        size: int | Sequence[int] | None = None,
        batch: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> DetectionEvaluation:
        """COCO's and VOC's average precision on annotated pictures; see `find_annotated` for data and annotations.

        conf, iou, max_det, size, batch, progress: as for `run`. Raises as `find_annotated` and `run` do.
        """
        from zoonet.zoo.detection.evaluation import evaluate

        options = {"conf": conf, "iou": iou, "max_det": max_det, "size": size}
        return evaluate(model, data, annotations=annotations, batch=batch, progress=progress, options=options)

    def candidates(self, model: Model, inputs: Array) -> list[Candidates]:
        """What the network proposes for preprocessed pictures (N, C, H, W), before suppression."""
        outputs = model(inputs)
        arrays = tuple([ops.to_device(x, "cpu") for x in (outputs if isinstance(outputs, tuple) else (outputs,))])
        found = self.decoder(arrays, (inputs.shape[2], inputs.shape[3]))
        if len(found) != len(inputs):
            raise InputError("the network gives boxes for other pictures", expected=len(inputs), received=len(found))
        return found

    def _detections(self, source: Source, place: Placement, found: Candidates, selection: Selection) -> Detections:
        chosen = select(found, selection, source.name)
        boxes = place.clipped(place.to_picture(chosen.boxes))
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # not in the padding alone
        labels = chosen.labels[inside]
        if len(labels) and int(labels.max()) >= len(self.labels):
            raise InputError(
                "the network names a class without a label",
                expected=f"classes below {len(self.labels)}",
                received=int(labels.max()),
                fix="give all labels, load(…, labels=[…])",
            )
        points = chosen.keypoints
        if points is not None:
            points = place.to_picture(points[inside])
        size = (place.width, place.height)
        scores = chosen.scores[inside]
        return Detections(
            source.name, size, boxes[inside], scores, labels, self.labels, lambda: source.open("RGB"), points
        )

    def _preprocessing(self, network: Module, size: int | Sequence[int] | None) -> DetectionPreprocessing:
        """The preprocessing for inputs of a size. Raises ArgumentError where the network does not take it."""
        if size is None:
            return self.preprocessing
        result = self.preprocessing.of_size(size)
        if result.size is None or result.size == self.preprocessing.size:
            return result
        ports = _ports(network)
        declared = (ports[0].shape or ())[2:] if ports else ()
        multiple = getattr(network, "size_multiple", max(getattr(self.decoder, "strides", (1,))))
        other = [n for n, side in zip(declared, result.size, strict=False) if isinstance(n, int) and n != side]
        if multiple is None or other:
            raise ArgumentError(
                "the network takes inputs of one size",
                expected="{} (height), {} (width)".format(*(declared or self.preprocessing.size or ())),
                received=f"size={size!r}",
                fix="leave size out" + (", or export the graph with free height and width" if ports else ""),
            )
        if any(side % multiple for side in result.size):
            near = [max(multiple, round(side / multiple) * multiple) for side in result.size]
            raise ArgumentError(
                "the network does not take inputs of this size",
                expected=f"multiples of {multiple}, such as {near[0] if near[0] == near[1] else tuple(near)}",
                received=f"size={size!r}",
            )
        return result

    def _most(self, model: Model, batch: int) -> int:
        """The batch size, or that of a graph which takes no other."""
        fixed = getattr(self.decoder, "most", None) or _fixed_batch(model.network)
        return fixed or batch

    def from_arguments(self, arguments: Sequence[str]) -> list[str]:
        """The paths of all pictures, those in folders included."""
        return [source.name for path in arguments for source in find_pictures(Path(path))]

    def free_axes(self) -> dict[int, str]:
        """The axes of the input that may have any size in an exported graph, with their names."""
        return {0: "batch"} if self.preprocessing.size is not None else {0: "batch", 2: "height", 3: "width"}

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """One array (N, channels, H, W) in the network's floating dtype."""
        if len(inputs) != 1:
            raise InputError("the model takes one array", received=f"{len(inputs)} inputs")
        ports = _ports(network)
        if ports:
            return (ports[0].check(inputs[0]),)
        return (checked_pictures(network, inputs[0]),)

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """One picture; where its size depends on the picture, of the network's own size, or of a square one."""
        own = self.preprocessing
        side = -(-round(own.area**0.5) // own.multiple) * own.multiple or 640
        height, width = getattr(network, "input_size", (side, side)) if own.size is None else own.size
        shape = (len(own.mean), height, width)
        return (TensorType((1, *shape), floating_dtype(network)),)


def usual_labels(architecture: str, classes: int) -> tuple[str, ...]:
    """The names of classes that weights of an architecture mean if they say nothing, by their number."""
    named = defaults(architecture).labels.get(classes)
    return default_labels(named or {80: "coco-80"}.get(classes), classes)


def _threshold(config: Mapping[str, Any], key: str, usual: float) -> float:
    value = config.get(key, usual)
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else usual


def _preprocessing_of(config: Any, file: str) -> DetectionPreprocessing:
    """The preprocessing that a configuration describes. Raises FormatError if it is malformed."""
    try:
        return DetectionPreprocessing.from_config({key: value for key, value in config.items() if key != "kind"})
    except (ZoonetError, TypeError, ValueError) as error:
        raise FormatError(f"the preprocessing in {file} is malformed", received=error) from None


def _fitted(preprocessing: DetectionPreprocessing, network: Module) -> DetectionPreprocessing:
    """The preprocessing, for the size that a graph declares where it would follow from the picture."""
    declared = [n for port in _ports(network)[:1] for n in (port.shape or ())[2:] if isinstance(n, int)]
    return preprocessing.of_size(declared) if preprocessing.size is None and len(declared) == 2 else preprocessing


def _ports(network: Module) -> Sequence[Any]:
    """The inputs that an imported graph declares."""
    return getattr(getattr(network, "config", None), "inputs", None) or ()


def _fixed_batch(network: Module) -> int | None:
    ports = _ports(network)
    first = ports[0].shape[0] if ports and ports[0].shape else None
    return first if isinstance(first, int) else None


_Group = tuple[list[Source], list[Placement], Array]


def _batches(sources: list[Source], preprocessing: DetectionPreprocessing, batch: int) -> Iterator[_Group]:
    """Groups of at most `batch` pictures of one input size, where each lies in its input, and their arrays."""
    group: list[Source] = []
    places: list[Placement] = []
    arrays: list[Array] = []
    for source in sources:
        array, place = preprocessing.placed(source.open(preprocessing.mode))
        if arrays and (len(arrays) == batch or array.shape != arrays[0].shape):
            yield group, places, np.stack(arrays)
            group, places, arrays = [], [], []
        group.append(source)
        places.append(place)
        arrays.append(array)
    yield group, places, np.stack(arrays)
