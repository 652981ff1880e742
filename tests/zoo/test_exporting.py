"""Models saved as ONNX: ONNX Runtime has our outputs, and `zoo.load` gives the model back with its task."""

from __future__ import annotations

import contextlib
import json
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_runtime import assert_equal, run, session_of
from PIL import Image

from zoonet import ops, zoo
from zoonet.ops.errors import ArgumentError, FormatError, ZoonetError
from zoonet.zoo import architectures, exporting

RNG = np.random.default_rng(0)
SPATIAL = {"input": {0: "batch", 2: "height", 3: "width"}}
USUAL = (
    "resnet18",
    "resnet20",
    "resnet50d",
    "resnext50_32x4d",
    "resnet50_keras",
    "mobilenetv1_025",
    "vit_tiny_patch16_224",
)
VISION = [
    pytest.param(name, marks=[] if name in USUAL else pytest.mark.slow)
    for name in architectures.names()
    if name != "digitnet" and architectures.task_of(name) == "image-classification"
]


def moved(model: Any) -> Any:
    """The model with running statistics that are not 0 and 1."""
    for name, slot in model.network.slots().items():
        if name.endswith("running_mean"):
            slot.set(RNG.normal(0, 0.1, slot.get().shape).astype(np.float32))
        elif name.endswith("running_var"):
            slot.set(RNG.uniform(0.5, 2, slot.get().shape).astype(np.float32))
    return model


@pytest.mark.parametrize("name", VISION)
def test_vision_models(name: str, tmp_path: pathlib.Path) -> None:
    transformer = name.startswith(("vit", "deit"))  # of fixed size, and with equal layers
    model = moved(zoo.create(name, seed=1, **({"layers": 2} if transformer else {})))
    path = tmp_path / "m.onnx"
    model.save(path, dynamic=None if transformer else SPATIAL)
    session = session_of(path)
    x = RNG.normal(size=(2, *(model.input_shape if transformer else (3, 64, 48)))).astype(np.float32)
    expected = model(x)
    assert_equal(expected, run(session, x)[0])
    weights = {t.name for t in onnx.load(path).graph.initializer}
    assert weights == {n for n in model.network.state_dict() if not n.endswith("num_batches_tracked")}
    again = zoo.load(path)
    assert_equal(expected, again(x))
    assert set(again.network.parameters()) == set(model.network.parameters())
    assert (again.labels, again.preprocessing) == (model.labels, model.preprocessing)


@pytest.mark.parametrize("opset", [13, 15, 17, 18, 21, 23])
def test_the_classifier_of_digits(opset: int, digits: Any, text_picture: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "digits.onnx"
    digits.save(path, opset=opset)
    session = session_of(path)
    assert [(p.name, p.shape) for p in session.get_inputs()] == [("input", ["batch", 1, 24, 24])]
    assert [(p.name, p.shape) for p in session.get_outputs()] == [("scores", ["batch", 10])]
    for batch in (1, 7):
        x = RNG.random((batch, 1, 24, 24)).astype(np.float32)
        assert_equal(digits(x), run(session, x)[0])
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(properties["labels"]) == list("0123456789")
    assert json.loads(properties["preprocessing"])["kind"] == "digit"
    assert properties["licence"] == digits.card.licence
    again = zoo.load(path)
    [ours], [theirs] = digits.run(text_picture("4")).top(1), again.run(text_picture("4")).top(1)
    assert (theirs.label, theirs.score) == ("4", pytest.approx(ours.score, rel=1e-5))
    assert again.card == digits.card
    again.save(tmp_path / "second.onnx")
    second = zoo.load(tmp_path / "second.onnx")
    assert_equal(digits(x), second(x))
    assert second.labels == digits.labels
    assert zoo.load(path, task="arrays").run(x)["scores"].shape == (7, 10)


def test_a_photo(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Real weights: the graph alone classifies a photo, in zoonet and, preprocessed, in ONNX Runtime."""
    weights = next((assets / "mobilenet025-imagenet").glob("*.tar"))
    model = zoo.load(weights, "mobilenetv1_025")
    model.save(tmp_path / "m.onnx")
    again = zoo.load(tmp_path / "m.onnx")
    photo = assets / "photos" / "cat_720p.jpg"
    assert again.run(photo).top(1)[0].label == model.run(photo).top(1)[0].label
    with Image.open(photo) as image:
        x = model.preprocessing(image.convert("RGB"))[None]
    scores = run(session_of(tmp_path / "m.onnx"), x)[0][0]
    assert model.labels[int(scores.argmax())] == model.run(photo).top(1)[0].label


def test_trained_weights_survive(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.onnx"
    zoo.create("digitnet", seed=1).save(path)
    model = zoo.load(path)
    changed = {name: array + np.float32(0.1) for name, array in model.network.state_dict().items()}
    model.network.load_state_dict(changed)
    x = RNG.random((2, 1, 24, 24)).astype(np.float32)
    model.save(tmp_path / "trained.onnx")
    assert_equal(model(x), run(session_of(tmp_path / "trained.onnx"), x)[0])
    assert_equal(model(x), zoo.load(tmp_path / "trained.onnx")(x))


def test_saving_leaves_the_mode(tmp_path: pathlib.Path) -> None:
    model = zoo.create("digitnet", seed=1)
    model.network.train()
    model.save(tmp_path / "m.onnx")
    assert all(module.training for _, module in model.network.named_modules())
    assert "BatchNormalization" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str, tmp_path: pathlib.Path) -> None:
    model = zoo.create("digitnet", seed=1)
    model.network.to(dtype=dtype)
    model.save(tmp_path / "m.onnx")
    x = RNG.random((2, 1, 24, 24)).astype(dtype)
    expected = model(x)
    assert_equal(expected, zoo.load(tmp_path / "m.onnx")(x), 1e-2 if dtype == "float16" else 1e-12)
    if dtype == "float16":  # ONNX Runtime pools no float64
        assert_equal(expected, run(session_of(tmp_path / "m.onnx"), x)[0], 1e-2)


def test_errors(digits: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ArgumentError, match="opset"):
        digits.save(tmp_path / "m.onnx", opset=5)
    with pytest.raises(ArgumentError, match=r"\.onnx"):
        digits.save(tmp_path / "m.safetensors", opset=17)
    with pytest.raises(ArgumentError, match="dynamic names no input"):
        digits.save(tmp_path / "m.onnx", dynamic={"x": {0: "batch"}})
    assert not list(tmp_path.iterdir())


def test_an_imported_graph_in_another_opset(digits: Any, assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """By tracing: through zoonet's operators and back. Otherwise it stays as it is in its file."""
    digits.save(tmp_path / "m.onnx", opset=18)
    model = zoo.load(tmp_path / "m.onnx")
    for name, options in (("n.onnx", {"opset": 13}), ("o.onnx", {"dynamic": {"input": {0: "n"}}, "opset": 21})):
        model.save(tmp_path / name, **options)
        session = session_of(tmp_path / name)
        for batch in (1, 3):
            x = RNG.random((batch, 1, 24, 24)).astype(np.float32)
            assert_equal(digits(x), run(session, x)[0])
        assert zoo.load(tmp_path / name).labels == digits.labels
        written = onnx.load(tmp_path / name)
        assert written.opset_import[0].version == options["opset"]
        assert {t.name for t in written.graph.initializer} == set(model.network.state_dict())
    source = assets / "ultra-light-face" / "version-RFB-320.onnx"
    zoo.load(source).save(tmp_path / "face.onnx", opset=17)
    x = RNG.random((1, 3, 240, 320)).astype(np.float32)
    for ours, theirs in zip(run(session_of(tmp_path / "face.onnx"), x), run(session_of(source), x), strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"task": 3}', '{"labels": [1]}', '{"task": "fill-mask", "tokenizer": "x"}']
)
def test_malformed_metadata(text: str, digits: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.onnx"
    proto = exporting.draft(digits).proto()
    onnx.helper.set_model_props(proto, {"zoonet": text})
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(FormatError):
        zoo.load(path)


def test_a_function_and_a_module(tmp_path: pathlib.Path) -> None:
    def scores(parameters: dict[str, Any], x: Any) -> Any:
        return {"scores": ops.softmax(ops.matmul(x, parameters["w"]))}

    weights = {"w": RNG.normal(size=(3, 2)).astype(np.float32)}
    zoo.export(scores, tmp_path / "f.onnx", weights, ops.tensor_type((1, 3)), opset=13)
    x = RNG.normal(size=(4, 3)).astype(np.float32)
    assert_equal(scores(weights, x)["scores"], run(session_of(tmp_path / "f.onnx"), weights["w"], x)[0])
    network = architectures.build("digitnet", seed=0)
    zoo.export(network, tmp_path / "m.onnx", ops.tensor_type((1, 1, 24, 24)))
    x = RNG.random((3, 1, 24, 24)).astype(np.float32)
    session = session_of(tmp_path / "m.onnx")
    assert [p.name for p in session.get_inputs()] == ["x"]
    assert_equal(network(x), run(session, x)[0])


@pytest.mark.parametrize(
    # gradients of the deep network in float32 are up to 2 % off those in float64, here as in ONNX Runtime
    ("name", "size", "tolerance"),
    [("digitnet", (1, 24, 24), 1e-4), ("mobilenetv1_025", (3, 64, 64), 2e-2)],
)
def test_a_training_step_runs_in_onnx_runtime(
    name: str, size: tuple[int, ...], tolerance: float, tmp_path: pathlib.Path
) -> None:
    """Loss, gradients, batch statistics and SGD as one graph: each of ten steps, at two sizes of the batch."""
    network = architectures.build(name, seed=0, classes=10)
    network.train()
    parameters, state = dict(network.named_parameters()), dict(network.named_buffers())

    def step(parameters: dict[str, Any], state: dict[str, Any], x: Any, target: Any) -> Any:
        def loss(values: dict[str, Any]) -> Any:
            scores, moved = zoo.functional_call(network, {**values, **state}, x)
            return ops.cross_entropy(scores, target), moved

        (value, moved), gradients = ops.value_and_grad(loss, has_aux=True)(parameters)
        return {
            "loss": value,
            "parameters": {n: p - 0.01 * gradients[n] for n, p in parameters.items()},
            "state": moved,
        }

    kinds = parameters, state, ops.tensor_type((1, *size)), ops.tensor_type((1,), "int64")
    zoo.export(step, tmp_path / "step.onnx", *kinds, opset=18)
    session = session_of(tmp_path / "step.onnx")
    names = [port.name for port in session.get_outputs()]
    losses = []
    pictures, targets = RNG.random((9, *size)).astype(np.float32), RNG.integers(0, 10, 9)
    for index in range(10):
        x, target = pictures[: 8 + index % 2], targets[: 8 + index % 2]
        feeds = {f"parameters.{n}": p for n, p in parameters.items()} | {f"state.{n}": p for n, p in state.items()}
        feeds |= {"x": x, "target": target}
        found = dict(zip(names, session.run(None, {p.name: feeds[p.name] for p in session.get_inputs()}), strict=True))
        result = step(parameters, state, x, target)
        parameters, state = result["parameters"], {**state, **result["state"]}
        losses.append(float(result["loss"]))
        assert float(found["loss"]) == pytest.approx(losses[-1], rel=1e-4)
        for kind, arrays in (("parameters", parameters), ("state", state)):
            for key, value in arrays.items():
                assert_equal(value, found[f"new.{kind}.{key}"], tolerance)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_fail_clearly(count: int, digits: Any, tmp_path: pathlib.Path) -> None:
    data = exporting.draft(digits).proto().SerializeToString()
    rng, path = np.random.default_rng(count), tmp_path / "m.onnx"
    x = np.zeros((1, 1, 24, 24), np.float32)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):  # most of them outside of the weights
            place = rng.integers(0, 4000)
            changed[rng.choice([place, len(data) - 1 - place, rng.integers(0, len(data))])] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del changed[rng.integers(1, len(changed)) :]
        path.unlink(missing_ok=True)  # the file is mapped: it may not change in place
        path.write_bytes(changed)
        with contextlib.suppress(ZoonetError):
            model = zoo.load(path)
            model(x)
            model.save(tmp_path / "n.onnx")
