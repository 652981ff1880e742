"""Real ONNX models, made by others, against ONNX Runtime.

`python tests/onnx_models.py` prints a table: opset, nodes, the largest difference of the outputs, what they say, and
the milliseconds that reading and a run take, ONNX Runtime's beside them.
"""

from __future__ import annotations

import importlib.util
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "assets"
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class RealModel:
    """A file, what to give it, and what its outputs say: compared beside the numbers."""

    name: str
    path: pathlib.Path
    feeds: dict[str, np.ndarray]
    meaning: Callable[[list[np.ndarray]], Any]


def picture(name: str, size: tuple[int, int], letterbox: bool = False) -> np.ndarray:
    """A photo as RGB (height, width, 3), float32."""
    from PIL import Image

    with Image.open(SHARED / "photos" / name) as opened:
        image = opened.convert("RGB")
        if not letterbox:
            return np.asarray(image.resize(size), np.float32)
        scale = min(size[0] / image.width, size[1] / image.height)
        small = np.asarray(image.resize((int(image.width * scale), int(image.height * scale))), np.float32)
    canvas = np.full((size[1], size[0], 3), 114, np.float32)
    canvas[: small.shape[0], : small.shape[1]] = small
    return canvas


def suppressed(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, overlap: float) -> list[tuple[Any, ...]]:
    """Class, score and box of those that remain, best first: greedy suppression by class."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = np.prod(np.maximum(high - low, 0))
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            if classes[i] == classes[j] and shared > overlap * (sum(areas) - shared):
                break
        else:
            kept.append(int(i))
    return [(int(classes[i]), round(float(scores[i]), 3), np.round(boxes[i], 1).tolist()) for i in kept]


def yolox_boxes(outputs: list[np.ndarray]) -> list[tuple[Any, ...]]:
    """Objects: the grid of strides 8, 16, 32 decoded."""
    (raw,) = outputs
    grids, strides = [], []
    for stride in (8, 16, 32):
        cells = 416 // stride
        rows, columns = np.mgrid[:cells, :cells]
        grids.append(np.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(np.full((cells * cells, 1), stride))
    grid, stride = np.concatenate(grids), np.concatenate(strides)
    centre, half = (raw[0, :, :2] + grid) * stride, np.exp(raw[0, :, 2:4]) * stride / 2
    scores = raw[0, :, 4:5] * raw[0, :, 5:]
    best = scores.max(1)
    sure = best > 0.4
    boxes = np.concatenate([centre - half, centre + half], 1)
    return suppressed(boxes[sure], best[sure], scores.argmax(1)[sure], 0.45)


def face_boxes(outputs: list[np.ndarray]) -> list[tuple[Any, ...]]:
    """Faces, in pixels of 320 × 240."""
    scores, boxes = sorted(outputs, key=lambda y: y.shape[-1])
    sure = scores[0, :, 1] > 0.7
    pixels = boxes[0, sure] * [320, 240, 320, 240]
    return suppressed(pixels, scores[0, sure, 1], np.zeros(sure.sum(), int), 0.3)


def best(outputs: list[np.ndarray]) -> list[int]:
    """The class of each item."""
    return [int(n) for n in outputs[0].reshape(-1, outputs[0].shape[-1]).argmax(-1)]


def text_area(outputs: list[np.ndarray]) -> list[int]:
    """Where letters stand: top, left, bottom, right."""
    rows, columns = np.nonzero(outputs[0][0, 0] > 0.3)
    return [int(n) for n in (rows.min(), columns.min(), rows.max(), columns.max())]


def models() -> Iterator[RealModel]:
    """Those that are there."""
    if SHARED.is_dir():
        dog = picture("dog.jpg", (416, 416), letterbox=True)[..., ::-1]
        yolox = {"images": np.ascontiguousarray(dog.transpose(2, 0, 1)[None])}
        yield RealModel("YOLOX-nano", SHARED / "yolox-nano" / "yolox_nano.onnx", yolox, yolox_boxes)
        face = (picture("grace_hopper.bmp", (320, 240)) - 127) / 128
        faces = {"input": face.transpose(2, 0, 1)[None].astype(np.float32)}
        yield RealModel("RFB-320 faces", SHARED / "ultra-light-face" / "version-RFB-320.onnx", faces, face_boxes)
    yield from packaged()


def packaged() -> Iterator[RealModel]:
    """Those that Python packages carry."""
    for package, pattern, feeds in (
        ("magika", "models/*/model.onnx", {"bytes": RNG.integers(0, 257, (2, 2048)).astype(np.int32)}),
        ("silero_vad", "data/silero_vad.onnx", _sound(True)),
        ("silero_vad", "data/silero_vad_half.onnx", _sound(False)),
        ("rapidocr_onnxruntime", "models/*_det_*.onnx", {"x": _text()}),
        ("rapidocr_onnxruntime", "models/*_rec_*.onnx", {"x": _text()[:, :, 44:92, 10:202]}),
        ("rapidocr_onnxruntime", "models/*_cls_*.onnx", {"x": _text()[:, :, 44:92, 10:202]}),
    ):
        spec = importlib.util.find_spec(package)
        folders = (spec.submodule_search_locations or []) if spec is not None else []
        for folder in folders:
            for path in sorted(pathlib.Path(folder).glob(pattern)):
                name = path.stem if path.stem != "model" else package
                given = {key: np.array(value, order="C") for key, value in feeds.items()}
                yield RealModel(name, path, given, text_area if "_det_" in name else best)


def _sound(rate: bool) -> dict[str, np.ndarray]:
    wave = {"input": (RNG.normal(size=(1, 576)) * 0.1).astype(np.float32), "state": np.zeros((2, 1, 128), np.float32)}
    return {**wave, "sr": np.array(16000)} if rate else wave


def _text() -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (224, 160), "white")
    ImageDraw.Draw(page).text((20, 50), "Hello 123", "black", ImageFont.load_default(36))
    return (np.asarray(page, np.float32) / 255 - 0.5).transpose(2, 0, 1)[None] / 0.5


@dataclass(frozen=True)
class Result:
    """ONNX Runtime's outputs and zoonet's, and milliseconds: to read, to run, and for ONNX Runtime to run."""

    expected: list[np.ndarray]
    outputs: list[np.ndarray]
    nodes: int
    opset: int
    times: tuple[float, float, float]

    @property
    def difference(self) -> float:
        """The largest difference, relative to the largest number of its output."""
        pairs = zip(self.outputs, self.expected, strict=True)
        return max(float(np.abs(a - b).max(initial=0)) / max(float(np.abs(b).max(initial=0)), 1e-6) for a, b in pairs)


def run(model: RealModel) -> Result:
    """The model in both."""
    from zoonet import zoo
    from zoonet.formats import onnx as reader

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model.path), options)
    expected = session.run(None, model.feeds)
    start = time.perf_counter()
    loaded = zoo.load(model.path)
    read = time.perf_counter() - start
    arguments = [model.feeds[port.name] for port in session.get_inputs()]
    outputs = loaded(*arguments)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    seconds = [_best(lambda: loaded(*arguments)), _best(lambda: session.run(None, model.feeds))]
    imported = reader.load(model.path)
    times = (read * 1e3, seconds[0] * 1e3, seconds[1] * 1e3)
    return Result(expected, outputs, len(imported.graph.nodes), imported.opsets[""], times)


def _best(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    print(f"{'model':<34}{'opset':>6}{'nodes':>7}{'difference':>12}{'read':>8}{'run':>9}{'ORT':>9}  says")
    for model in models():
        result = run(model)
        ours, theirs = model.meaning(result.outputs), model.meaning(result.expected)
        read, ran, other = result.times
        says = "the same" if ours == theirs else f"{ours} and not {theirs}"
        print(
            f"{model.name:<34}{result.opset:>6}{result.nodes:>7}{result.difference:>12.1e}"
            f"{read:>8.1f}{ran:>9.1f}{other:>9.1f}  {says}: {str(ours)[:60]}"
        )


if __name__ == "__main__":
    main()
