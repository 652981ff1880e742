"""Every architecture of the zoo that is not an image classifier as ONNX, checked and run by ONNX Runtime.

Image classifiers: test_exporting.py. Networks on text are made small, each with what sets it apart; detectors are as
they are, on small pictures.
"""

from __future__ import annotations

import pathlib
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from onnx_runtime import assert_equal, session_of

from zoonet import zoo
from zoonet.zoo import architectures

RNG = np.random.default_rng(0)
SMALL = {
    "width": 32,
    "embedding": 32,
    "layers": 2,
    "decoder_layers": 2,
    "heads": 4,
    "head_size": 8,
    "hidden": 48,
    "vocabulary": 50,
    "written": 50,
    "positions": 40,
}
SIDES: dict[str, tuple[int, int]] = {"ultralight": (240, 320), "blazeface": (128, 128)}
USUAL = ("blazeface", "darknet", "yolov4-tiny", "yolox_nano", "bert-base-cased", "electra-small", "gpt2", "t5-small")
USUAL += ("llama-3.2-1b", "qwen3-0.6b", "mistral-7b-v0.1", "transformer-base")


def names(*tasks: str) -> list[Any]:
    found = [name for name in architectures.names() if architectures.task_of(name) in tasks]
    return [pytest.param(name, marks=[] if name in USUAL else pytest.mark.slow) for name in found]


def small(name: str) -> Any:
    """A model of an architecture with few layers of small width."""
    config = architectures.find(name)[1]
    own = {field.name: getattr(config, field.name) for field in fields(config)}
    changes: dict[str, Any] = {key: value for key, value in SMALL.items() if type(own.get(key)) is int}
    if "key_value_heads" in own:
        changes["key_value_heads"] = 4 if own["key_value_heads"] == own["heads"] else 2
    return zoo.create(name, seed=0, **changes)


def test_every_task_is_here() -> None:
    tasks = {architectures.task_of(name) for name in architectures.names()}
    assert tasks == {"image-classification", "object-detection", "text-embedding", "text-generation", "text-to-text"}


def detector(name: str) -> tuple[Any, dict[str, Any], tuple[Any, ...]]:
    """A model, what its file takes, and what it takes itself: two small pictures.

    A detection transformer refines the places of best score. Scores without training differ in the last digits only,
    so that rounding would choose: it gets as many queries as there are places.
    """
    height, width = sides = SIDES.get(name.split("_")[0], (64, 96))
    places = sum(height // stride * (width // stride) for stride in (8, 16, 32))
    model = zoo.create(name, seed=1, **({"queries": places} if name.startswith("rtdetr") else {}))
    if name != "darknet" and hasattr(model.preprocessing, "size"):
        model.task.preprocessing = replace(model.preprocessing, size=sides)  # type: ignore[attr-defined]
    shape = model.task.example(model.network)[0].shape
    x = RNG.random((2, *shape[1:])).astype(np.float32)
    return model, {"input": x}, (x,)


def on_text(name: str) -> tuple[Any, dict[str, Any], tuple[Any, ...]]:
    """A small model, what its file takes, and what it takes itself: two texts of nine tokens."""
    model = small(name)
    tokens, written = RNG.integers(2, 50, (2, 9)), RNG.integers(2, 50, (2, 6))
    feeds: dict[str, Any] = {"input_ids": tokens, "attention_mask": np.ones((2, 9), np.int64)}
    feeds |= {"token_type_ids": np.zeros((2, 9), np.int64), "position_ids": np.arange(9)[None].repeat(2, 0)}
    if architectures.task_of(name) == "text-to-text":
        return model, {**feeds, "decoder_input_ids": written}, (tokens, written)
    return model, feeds, (tokens,)


def outputs_of(
    model: Any, feeds: dict[str, Any], inputs: tuple[Any, ...], path: pathlib.Path
) -> list[tuple[Any, Any, Any]]:
    """Each output of the model, of ONNX Runtime on its file, and of the file read again."""
    model.save(path)
    session = session_of(path)
    assert all(port.shape[0] == "batch" for port in session.get_inputs())
    given = {
        port.name: feeds[port.name] if port.name in feeds else np.zeros((2, port.shape[1], 0, port.shape[3]), "f")
        for port in session.get_inputs()
    }
    results = [model(*inputs), zoo.load(path)(*inputs)]
    ours, again = [result if isinstance(result, tuple) else (result,) for result in results]
    return list(zip(ours, session.run(None, given), map(np.asarray, again), strict=False))


def difference_of_queries(ours: list[Any], theirs: list[Any]) -> float:
    """How far a row (scores and box of a query) is from the nearest of the other side at most, over the largest number.

    Queries are sorted by scores, which differ in the last digits where weights are not trained; the order has no
    meaning.
    """
    worst = 0.0
    for one, other in zip(np.concatenate(ours, -1), np.concatenate(theirs, -1), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        distances = np.abs(one[:, None] - other).max(-1)
        worst = max(worst, distances.min(0).max(), distances.min(1).max())
    return float(worst / min(np.abs(kind).max() for kind in theirs))


@pytest.mark.parametrize("name", names("object-detection"))
def test_detectors(name: str, tmp_path: pathlib.Path) -> None:
    found = outputs_of(*detector(name), tmp_path / "m.onnx")
    if name.startswith("rtdetr"):
        ours, theirs, again = map(list, zip(*found, strict=True))
        assert difference_of_queries(ours, theirs) <= 1e-4
        assert difference_of_queries(again, theirs) <= 1e-4
        return
    for ours, theirs, again in found:
        assert_equal(ours, theirs)
        assert_equal(again, theirs)


@pytest.mark.parametrize("name", names("text-embedding", "text-generation", "text-to-text"))
def test_networks_on_text(name: str, tmp_path: pathlib.Path) -> None:
    for ours, theirs, again in outputs_of(*on_text(name), tmp_path / "m.onnx")[:1]:
        assert_equal(ours, theirs)
        assert_equal(again, theirs)
