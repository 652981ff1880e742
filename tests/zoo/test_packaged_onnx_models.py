"""ONNX models that Python packages carry have the outputs of ONNX Runtime: file types, speech, printed text.

magika (Apache-2.0, from Keras), silero-vad (MIT, from PyTorch: If, LSTM), rapidocr-onnxruntime (Apache-2.0, from
PaddlePaddle). Each test skips where its package is absent.
"""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw, ImageFont

from zoonet import zoo

RNG = np.random.default_rng(0)


def folder_of(package: str) -> pathlib.Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def compared(path: pathlib.Path, feeds: dict[str, np.ndarray], tolerance: float = 1e-4) -> list[np.ndarray]:
    """Outputs, after comparing the facade's with ONNX Runtime's."""
    expected = onnxruntime.InferenceSession(str(path)).run(None, feeds)
    outputs = list(zoo.load(path).run(feeds).values()) if len(expected) > 1 else [zoo.load(path)(*feeds.values())]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
    return outputs


def test_types_of_files() -> None:
    path = next((folder_of("magika") / "models").glob("*/model.onnx"))
    text = pathlib.Path(__file__).read_bytes()[:1024]
    padded = np.full(2048, 256, np.int32)
    padded[:1024] = np.frombuffer(text, np.uint8)[:1024]
    padded[-len(text) :] = np.frombuffer(text, np.uint8)
    compared(path, {"bytes": np.stack([padded, RNG.integers(0, 257, 2048).astype(np.int32)])})


@pytest.mark.parametrize(
    "name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx", "silero_vad_half.onnx"]
)
def test_speech_over_steps(name: str) -> None:
    """The state of one step goes into the next."""
    path = folder_of("silero_vad") / "data" / name
    if not path.is_file():
        pytest.skip(f"this version of silero-vad has no {name}")
    session, model = onnxruntime.InferenceSession(str(path)), zoo.load(path)
    theirs = ours = np.zeros((2, 1, 128), np.float32)
    for _ in range(4):
        sound = (RNG.normal(size=(1, 576)) * 0.1).astype(np.float32)
        feeds = {"input": sound, "sr": np.array(16000)}
        feeds = {port.name: feeds[port.name] for port in session.get_inputs() if port.name in feeds}
        expected, theirs = session.run(None, {**feeds, "state": theirs})
        output, ours = model.run({**feeds, "state": ours}).values()
        np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_printed_text() -> None:
    models = folder_of("rapidocr_onnxruntime") / "models"
    picture = Image.new("RGB", (224, 160), "white")
    ImageDraw.Draw(picture).text((20, 50), "Hello 123", "black", ImageFont.load_default(36))
    x = (np.asarray(picture, np.float32) / 255 - 0.5).transpose(2, 0, 1)[None] / 0.5
    (probability,) = compared(next(models.glob("*_det_*.onnx")), {"x": x}, 1e-3)
    assert probability.max() > 0.9
    strip = np.ascontiguousarray(x[:, :, 44:92, 10:202])
    (letters,) = compared(next(models.glob("*_rec_*.onnx")), {"x": strip}, 1e-3)
    alphabet = onnxruntime.InferenceSession(str(next(models.glob("*_rec_*.onnx")))).get_modelmeta()
    signs = ["", *alphabet.custom_metadata_map["character"].splitlines(), " "]
    best = letters[0].argmax(-1)
    text = "".join(signs[b] for a, b in zip([0, *best], best, strict=False) if b != a and b)
    assert text.replace(" ", "") == "Hello123"
    compared(next(models.glob("*_cls_*.onnx")), {"x": strip}, 1e-3)


@pytest.mark.parametrize("name", ["mul_1.onnx", "sigmoid.onnx", "logreg_iris.onnx"])
def test_examples_of_onnx_runtime(name: str) -> None:
    path = pathlib.Path(onnxruntime.__file__).parent / "datasets" / name
    session = onnxruntime.InferenceSession(str(path))
    (port,) = session.get_inputs()
    x = RNG.normal(size=[n if isinstance(n, int) else 3 for n in port.shape]).astype(np.float32)
    expected = session.run(None, {port.name: x})
    outputs = zoo.load(path).run({port.name: x})
    for ours, theirs in zip(outputs.values(), expected, strict=True):
        if isinstance(theirs, list):  # maps from class to score
            assert [list(row) for row in ours] == [list(row) for row in theirs]
            ours, theirs = ([list(row.values()) for row in rows] for rows in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
