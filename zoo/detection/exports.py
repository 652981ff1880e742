"""Imported graphs that detect: their family, and so their decoding, told by their metadata and outputs."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import FormatError
from zoonet.zoo.detection.candidates import Decoder
from zoonet.zoo.detection.decoding import (
    FinishedDecoder,
    FractionsDecoder,
    QueriesDecoder,
    RowsDecoder,
    YoloDecoder,
    YoloxDecoder,
)
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing

if TYPE_CHECKING:
    from zoonet.formats.onnx import ValueInfo
    from zoonet.zoo.graphs import GraphConfig
    from zoonet.zoo.modules import Module

_STRIDES = ((8, 16, 32), (8, 16, 32, 64))


@dataclass(frozen=True)
class Recognised:
    """A detector in a graph: how its outputs are decoded, what it usually sees, its labels and thresholds."""

    decoder: Decoder
    preprocessing: DetectionPreprocessing
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, float] = (0.25, 0.45)


def is_detector(config: GraphConfig, metadata: Mapping[str, Any], operators: frozenset[str]) -> bool:
    """Whether a graph has the inputs and outputs of a detector. operators: the ONNX names of those that it uses."""
    return _find(config, metadata, operators) is not None


def recognised(network: Module, metadata: Mapping[str, Any], file: str, decoder: Decoder | None) -> Recognised:
    """What a graph's outputs mean. decoder: taken in the place of the recognised one.

    Warns where metadata says that the file's licence is the AGPL. Raises FormatError where nothing is recognised.
    """
    config: GraphConfig = network.config  # type: ignore[attr-defined]
    found = _find(config, metadata, network.operators)  # type: ignore[attr-defined]
    if "AGPL" in str(metadata.get("license", "")).upper():
        warnings.warn(
            f"{file} says of itself that it is under {metadata['license']}: that licence asks you to publish the "
            "source of what you build on it, services included",
            stacklevel=2,
        )
    if decoder is not None:
        usual = found.preprocessing if found else DetectionPreprocessing(size=_size(config, metadata))
        return Recognised(decoder, usual, found.labels if found else names_of(metadata))
    if found is None:
        raise FormatError(
            f"the outputs of {file} are not those of a detector that zoonet decodes",
            expected="YOLOX, YOLOv5 to v11, SSD-like scores and boxes, DETR-like logits and boxes, or torchvision's",
            received=", ".join(f"{port.name}: {port}" for port in config.outputs),
            fix="load it with task='arrays', or pass a decoder, load(…, decoder=…)",
        )
    return found


def names_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in metadata as ultralytics writes them: the text of a Python dict or list; empty where there are none.

    Only literals are read; nothing is evaluated.
    """
    text = metadata.get("names")
    if not isinstance(text, str) or len(text) > 1 << 20:
        return ()
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ()
    if isinstance(value, dict) and sorted(map(str, value)) == sorted(map(str, range(len(value)))):
        value = [value[key] for key in sorted(value, key=lambda k: int(k))]
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _find(config: GraphConfig, metadata: Mapping[str, Any], operators: frozenset[str]) -> Recognised | None:
    if len(config.inputs) != 1 or config.inputs[0].shape is None or len(config.inputs[0].shape) != 4:
        return None
    if config.inputs[0].shape[1] not in (3, None) and not isinstance(config.inputs[0].shape[1], str):
        return None
    outputs = {port.name: port for port in config.outputs}
    if any(port.shape is None for port in config.outputs):
        return None
    size = _size(config, metadata)
    if "names" in metadata and ("stride" in metadata or "task" in metadata):
        return _ultralytics(config, metadata, size)
    return (
        _finished(config, size)
        or _queries(outputs, config, size)
        or _fractions(config, size)
        or _grid(config, size, operators)
    )


def _size(config: GraphConfig, metadata: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the input: as declared, else as metadata says, else 640."""
    shape = config.inputs[0].shape or ()
    declared = [n for n in shape[2:] if isinstance(n, int) and n > 0]
    if len(declared) == 2:
        return declared[0], declared[1]
    numbers = [int(n) for n in re.findall(r"\d+", str(metadata.get("imgsz", "")))[:2] if 0 < int(n[:6]) <= 1 << 14]
    return (numbers[0], numbers[-1]) if numbers else (640, 640)


def _ultralytics(config: GraphConfig, metadata: Mapping[str, Any], size: tuple[int, int]) -> Recognised | None:
    """YOLOv5 and later, told by metadata: pictures are RGB, 0 to 1, in the middle of grey padding.

    Of networks that also give masks or points the boxes are read; those that give turned boxes or no boxes are not.
    """
    shape = config.outputs[0].shape or ()
    labels = names_of(metadata)
    more = _further(metadata)
    usual = DetectionPreprocessing(size=size)
    if len(shape) != 3 or not labels or more is None:
        return None
    classes = len(labels)
    if shape[2] == 6 + more and shape[1] != classes + 4 + more and _is_finished(metadata, classes, shape[1], size):
        return Recognised(RowsDecoder(classes), usual, labels)
    if shape[2] == classes + 5 + more:
        return Recognised(YoloDecoder(classes), usual, labels)
    if shape[1] == classes + 4 + more:
        return Recognised(YoloDecoder(classes, objectness=False, channels_first=True), usual, labels)
    return None


def _further(metadata: Mapping[str, Any]) -> int | None:
    """How many numbers follow the scores of a box: of its mask or its points; None where it is no upright box."""
    task = str(metadata.get("task", "detect"))
    if task == "pose":
        points = [int(n[:4]) for n in re.findall(r"\d+", str(metadata.get("kpt_shape", "[17, 3]")))[:2]]
        return points[0] * points[1] if len(points) == 2 else None
    return {"detect": 0, "segment": 32}.get(task)


def _is_finished(metadata: Mapping[str, Any], classes: int, rows: int | str | None, size: tuple[int, int]) -> bool:
    """Whether rows of six are corners, score and class, not a cell's box, objectness and score of its only class."""
    told = str(metadata.get("end2end", metadata.get("nms", "")))
    if told in ("True", "False") or classes != 1:
        return told != "False"
    return isinstance(rows, int) and rows not in [3 * _cells(size, strides) for strides in _STRIDES]


def _cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum((size[0] // s) * (size[1] // s) for s in strides)


def _grid(config: GraphConfig, size: tuple[int, int], operators: frozenset[str]) -> Recognised | None:
    """One output of a row per cell: YOLOX, whose rows are as many as cells; YOLOv5, with three per cell; YOLOv8."""
    shape = config.outputs[0].shape or ()
    raw = [len(port.shape or ()) for port in config.outputs[1:]]  # old exports of YOLOv5 give the maps of the head too
    if len(shape) != 3 or set(raw) - {5} or size[0] % 32 or size[1] % 32:
        return None
    for strides in _STRIDES:
        cells = _cells(size, strides)
        last, middle = shape[2], shape[1]
        if middle == cells and isinstance(last, int) and last > 5:
            usual = yolox_preprocessing(size)
            if "Exp" in operators:  # sizes are exponentials, and nothing else in YOLOX is: decoded in the graph
                return Recognised(YoloDecoder(last - 5), usual)
            return Recognised(YoloxDecoder(last - 5, strides), usual)
        if middle == 3 * cells and isinstance(last, int) and last > 5:
            return Recognised(YoloDecoder(last - 5), DetectionPreprocessing(size=size))
        if last == cells and isinstance(middle, int) and middle > 4:
            decoder = YoloDecoder(middle - 4, objectness=False, channels_first=True)
            return Recognised(decoder, DetectionPreprocessing(size=size))
    return None


def yolox_preprocessing(size: tuple[int, int]) -> DetectionPreprocessing:
    """What YOLOX sees: BGR from 0 to 255, at the top left of grey padding."""
    return DetectionPreprocessing(size=size, center=False, channels="BGR", scale=1.0)


def _last_of(port: ValueInfo, rank: int) -> int | None:
    """The last size of an output of a rank; None where it is unknown or the rank another."""
    shape = port.shape or ()
    return shape[-1] if len(shape) == rank and isinstance(shape[-1], int) else None


def _fractions(config: GraphConfig, size: tuple[int, int]) -> Recognised | None:
    """Two outputs: scores (N, A, 1 + classes) and corners (N, A, 4) of many anchors, as of ultra-light faces."""
    if len(config.outputs) != 2:
        return None
    by_name = {port.name.lower(): i for i, port in enumerate(config.outputs)}
    if not {"scores", "boxes"} <= set(by_name):
        return None
    scores, boxes = by_name["scores"], by_name["boxes"]
    classes = _last_of(config.outputs[scores], 3)
    if classes is None or classes < 2 or _last_of(config.outputs[boxes], 3) != 4:
        return None
    labels = ("face",) if classes == 2 else ()
    return Recognised(FractionsDecoder(classes - 1, scores, boxes), face_preprocessing(size), labels, (0.7, 0.3))


def face_preprocessing(size: tuple[int, int]) -> DetectionPreprocessing:
    """What the ultra-light face detector sees: stretched RGB, (pixel − 127) / 128."""
    middle, range_ = (127.0,) * 3, (128.0,) * 3
    return DetectionPreprocessing(size=size, keep=False, scale=1.0, mean=middle, std=range_)


def _queries(outputs: Mapping[str, ValueInfo], config: GraphConfig, size: tuple[int, int]) -> Recognised | None:
    """The outputs that transformers' exports of DETR and RT-DETR name: logits and pred_boxes."""
    if not {"logits", "pred_boxes"} <= set(outputs):
        return None
    classes, order = _last_of(outputs["logits"], 3), list(outputs)
    if classes is None or _last_of(outputs["pred_boxes"], 3) != 4:
        return None
    logits, boxes = order.index("logits"), order.index("pred_boxes")
    if classes == 92:  # COCO's 91 numbers and no object: DETR
        from zoonet.weights import label_names

        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        usual = DetectionPreprocessing(size=size, keep=False, mean=mean, std=std)
        return Recognised(QueriesDecoder(91, True, logits, boxes), usual, label_names("coco-91"))
    return Recognised(QueriesDecoder(classes, False, logits, boxes), DetectionPreprocessing(size=size, keep=False))


def _finished(config: GraphConfig, size: tuple[int, int]) -> Recognised | None:
    """torchvision's exports: boxes (n, 4), whole labels (n,) and scores (n,), in whatever order."""
    if len(config.outputs) != 3:
        return None
    places: dict[str, int] = {}
    for i, port in enumerate(config.outputs):
        shape = port.shape or ()
        if len(shape) == 2 and shape[1] == 4:
            places["boxes"] = i
        elif len(shape) == 1 and port.dtype is not None:
            places["labels" if port.dtype.kind == "i" else "scores"] = i
    if len(places) != 3:
        return None
    from zoonet.weights import label_names

    usual = DetectionPreprocessing(size=size, keep=False)
    return Recognised(FinishedDecoder(0, **places), usual, label_names("coco-91")[1:])
