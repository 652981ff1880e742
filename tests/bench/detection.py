"""A detector's steps apart: preprocessing, network (beside ONNX Runtime), decoding and NMS (beside a plain one).

Run: python tests/bench/detection.py [--threads 1] [--rounds 11]

Prints Markdown tables of medians and minima for yolox-nano at 416 and yolo-fastest at 320 pixels on a photo, and for
NMS of 25,000 boxes: scattered, in clusters as detectors propose them, and all in one place.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
from typing import Any

TESTS = pathlib.Path(__file__).resolve().parents[1]
ASSETS = TESTS.parents[1] / "shared" / "assets"


def session_of(path: pathlib.Path, threads: int) -> Any:
    """An ONNX Runtime session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def plain_nms(boxes: Any, scores: Any, threshold: float) -> Any:
    """What torchvision's CPU kernel does, a box at a time, in NumPy; its compiled one needs a matching PyTorch."""
    import numpy as np

    order, kept = np.argsort(-scores, kind="stable"), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.maximum(sides, 0).prod(1)
        order = order[shared / (areas[best] + areas[order] - shared) <= threshold]
    return np.array(kept)


def detector(name: str, path: pathlib.Path, side: int, threads: int, rounds: int) -> None:
    """Print the steps of a detector on a photo, put into a square."""
    import numpy as np
    from compare import compare, report
    from PIL import Image

    from zoonet import zoo
    from zoonet.zoo.detection.candidates import Selection, select

    model = zoo.load(path)
    with Image.open(ASSETS / "photos" / "dog.jpg") as file:
        image = file.convert("RGB")
    preprocessing = model.preprocessing.of_size((side, side))
    x = preprocessing(image)[None]
    with tempfile.TemporaryDirectory() as folder:
        exported = path if path.suffix == ".onnx" else pathlib.Path(folder, "model.onnx")
        if exported is not path:
            model.save(exported)
        session = session_of(exported, threads)
        port = session.get_inputs()[0].name
        network = compare({"zoonet": lambda: model(x), "onnxruntime": lambda: session.run(None, {port: x})}, rounds)
    print(report(f"{name}, network, {threads} thread(s)", network))
    outputs = model(x)
    arrays = tuple(map(np.asarray, outputs if isinstance(outputs, tuple) else (outputs,)))
    size = (x.shape[2], x.shape[3])

    def decode(conf: float) -> Any:
        return select(model.task.decoder(arrays, size)[0], Selection(conf=conf), "")

    steps = {
        "preprocessing": lambda: preprocessing(image),
        "decoding and NMS, conf 0.25": lambda: decode(0.25),
        "decoding and NMS, conf 0.001": lambda: decode(0.001),
        "run, of the picture": lambda: model.run(image, size=(side, side)),
    }
    print(report(f"{name}, steps", compare(steps, rounds), "run, of the picture"))


def suppression(rounds: int) -> None:
    """Print NMS of 25,000 boxes: of the operator, which keeps all that remain, and of the pipeline, which keeps 300."""
    import numpy as np
    from compare import compare, report

    from zoonet import ops
    from zoonet.zoo.detection.candidates import Candidates, Selection, select

    rng, count = np.random.default_rng(0), 25_000
    near = rng.integers(0, 60, count)
    spread, shape = rng.random((count, 2)) * 640, np.exp(rng.standard_normal((count, 2)) * 0.1)
    clusters = (rng.random((60, 2)) * 600)[near] + rng.standard_normal((count, 2)) * 8
    sides = (rng.random((60, 2)) * 120 + 20)[near] * shape
    layouts = {
        "scattered": (spread, sides),
        "scattered, large": (spread, rng.uniform(100, 400, (count, 2))),
        "scattered, of all sizes": (spread, np.exp(rng.uniform(-2, 6, (count, 2)))),
        "none overlaps": (np.stack(np.divmod(np.arange(count), 160), 1) * 12.0, np.full((count, 2), 10.0)),
        "in 60 clusters": (clusters, sides),
        "in one place": (320 + rng.standard_normal((count, 2)), sides),
        "all equal": (np.full((count, 2), 320.0), np.full((count, 2), 50.0)),
    }
    scores, labels = rng.random(count).astype(np.float32), np.zeros(count, np.int64)
    classes = rng.integers(0, 80, count)
    for kind, (centers, size) in layouts.items():
        boxes = np.concatenate([centers - size / 2, centers + size / 2], 1).astype(np.float32)
        candidates, selection = Candidates(boxes, scores, labels), Selection(conf=0.0, iou=0.45)
        contenders = {
            "ops.nms": lambda boxes=boxes: ops.nms(boxes, scores, 0.45),
            "ops.batched_nms, 80 classes": lambda boxes=boxes: ops.batched_nms(boxes, scores, classes, 0.45),
            "pipeline, at most 300": lambda candidates=candidates, selection=selection: select(
                candidates, selection, ""
            ),
        }
        if len(ops.nms(boxes, scores, 0.45)) < 1000:  # else it takes seconds
            contenders["a box at a time"] = lambda boxes=boxes: plain_nms(boxes, scores, 0.45)
        print(report(f"NMS of 25,000 boxes, {kind}", compare(contenders, max(3, rounds // 3), 1), "ops.nms"))


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    sys.path[:0] = [str(TESTS), str(TESTS / "bench")]
    yolox = ASSETS / "yolox-nano" / "yolox_nano.onnx"
    fastest = ASSETS / "yolo-fastest" / "yolo-fastest-1.1-xl.weights"
    for title, path, side in (("yolox-nano", yolox, 416), ("yolo-fastest 1.1-xl", fastest, 320)):
        if path.exists():
            detector(f"{title} {side}", path, side, arguments.threads, arguments.rounds)
        else:
            print(f"{path} is absent\n")
    suppression(arguments.rounds)


if __name__ == "__main__":
    main()
