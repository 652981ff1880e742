"""keras.applications with random weights, saved by Keras in each of its formats, and real files of others."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest

keras = pytest.importorskip("keras")
import keras_oracles  # noqa: E402
import onnx_runtime  # noqa: E402

from zoonet import formats, ops, zoo  # noqa: E402
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError  # noqa: E402
from zoonet.zoo.modules import value_and_grad  # noqa: E402
from zoonet.zoo.preprocessing import ImagePreprocessing  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

#: Name, size of the pictures, whether they are 0 to 255 (the network scales them itself).
QUICK = [("MobileNet", 64, False), ("EfficientNetB0", 48, True)]
SLOW = [
    ("ResNet50", 64, False),
    ("ResNet101", 64, False),
    ("ResNet50V2", 64, False),
    ("VGG16", 48, False),
    ("MobileNetV2", 64, False),
    ("MobileNetV3Small", 64, True),
    ("DenseNet121", 64, False),
    ("EfficientNetV2B0", 64, True),
    ("Xception", 80, False),
    ("InceptionV3", 80, False),
    ("ConvNeXtTiny", 64, True),
    ("MobileNetV3Large", 48, True),
    ("InceptionResNetV2", 80, False),
    ("EfficientNetV2S", 48, True),
    ("DenseNet201", 48, False),
    ("ResNet152V2", 64, False),
    ("VGG19", 48, False),
]


@pytest.mark.parametrize(
    ("name", "size", "scales"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_application(name: str, size: int, scales: bool, tmp_path: pathlib.Path) -> None:
    keras.utils.clear_session(free_memory=False)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=11, classifier_activation=None
    )
    keras_oracles.scrambled(model)
    generator = np.random.default_rng(3)
    x = generator.random((2, size, size, 3)) * 255 if scales else generator.standard_normal((2, size, size, 3))
    keras_oracles.check(model, [x.astype(np.float32)], tmp_path, gradients=False)
    if not all(isinstance(layer, keras.Layer) for layer in model.operations):
        return  # tf.keras has other operations in the place of layers
    path = as_tf_keras(keras_oracles.saved(model, tmp_path, ".h5"))
    y = zoo.load(path)(x.astype(np.float32))
    keras_oracles.close(y, keras_oracles.outputs_of(model, [x.astype(np.float32)])[1][0].detach().numpy(), "tf.keras")


def as_tf_keras(path: pathlib.Path) -> pathlib.Path:
    """The legacy file of Keras 3 rewritten as tf.keras 2 writes it: configuration, names of weights, versions."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            options = layer["config"]
            if "dtype" in options:
                options["dtype"] = "float32"
            if "batch_shape" in options:
                options["batch_input_shape"] = options.pop("batch_shape")
            if layer["class_name"] == "BatchNormalization":
                options["axis"] = [3 if options["axis"] == -1 else options["axis"]]
            layer["inbound_nodes"] = [
                [[*tensor["config"]["keras_history"], {}] for tensor in _tensors(node["args"])]
                for node in layer["inbound_nodes"]
            ]
        for key in ("input_layers", "output_layers"):
            entry = config["config"][key]
            config["config"][key] = [entry] if isinstance(entry[0], str) else entry
        file.attrs["model_config"] = json.dumps(config)
        root = file["model_weights"]
        for attributes in (file.attrs, root.attrs):
            attributes["keras_version"], attributes["backend"] = "2.4.0", "tensorflow"
        for layer in root.values():
            names = [name.decode() if isinstance(name, bytes) else name for name in layer.attrs["weight_names"]]
            for name in names:
                layer.move(name, f"{name}:0")
            layer.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
    return path


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value] if value.get("class_name") == "__keras_tensor__" else []
    return [tensor for item in value for tensor in _tensors(item)] if isinstance(value, list) else []


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="Keras has NASNet with JAX or TensorFlow only")
def test_nasnet_by_jax(tmp_path: pathlib.Path) -> None:
    """Keras's torch backend does not have NASNetMobile."""
    script = f"""
import keras, keras_oracles, numpy
network = keras.applications.NASNetMobile(
    weights=None, input_shape=(64, 64, 3), classes=11, classifier_activation=None
)
keras_oracles.scrambled(network)
x = numpy.random.default_rng(3).standard_normal((2, 64, 64, 3)).astype("float32")
network.save({str(tmp_path / "a.keras")!r})
network.save({str(tmp_path / "a.h5")!r})
numpy.savez({str(tmp_path / "a.npz")!r}, x=x, y=numpy.asarray(network(x)))
"""
    tests = str(pathlib.Path(keras_oracles.__file__).parent)
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    found = np.load(tmp_path / "a.npz")
    for suffix in (".keras", ".h5"):
        keras_oracles.close(zoo.load(tmp_path / f"a{suffix}")(found["x"]), found["y"], suffix)


ASSETS = {
    "face-emotion/fer2013_mini_XCEPTION.102-0.66.hdf5": 7,
    "mlperf-tiny/pretrainedResnet.h5": 10,
    "mnist-keras3/mnist_cnn.h5": 10,
    "mnist-keras3/mnist_cnn.keras": 10,
}


@pytest.mark.parametrize("name", ASSETS)
def test_real_files_equal_keras(assets: pathlib.Path, name: str) -> None:
    model = zoo.load(assets / name)
    assert model.network.config.classes == ASSETS[name]
    x = np.random.default_rng(0).random((3, *model.input_shape), np.float32)
    expected = keras.models.load_model(assets / name, compile=False)(x, training=False).detach().numpy()
    keras_oracles.close(model(x), expected, name)
    [(output, y)] = model.run(x.astype(np.float64)).items()  # other numbers are cast, as Keras does
    assert output == model.network.config.outputs[0].name
    np.testing.assert_array_equal(y, model(x))


def test_visual_wake_words_by_hand(assets: pathlib.Path) -> None:
    """Keras 3 refuses this file for an option of its depthwise convolutions, so torch runs the layers one by one."""
    import torch
    from torch.nn import functional as F

    path = assets / "mlperf-tiny/vww_96.h5"
    checkpoint = formats.read(path)
    layers = checkpoint.metadata["model_config"]["config"]["layers"]
    weights = checkpoint.metadata["weight_names"]
    x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
    y = torch.tensor(x).permute(0, 3, 1, 2)
    for layer in layers[1:]:
        kind, options = layer["class_name"], layer["config"]
        arrays = [torch.tensor(checkpoint[name].load()) for name in weights.get(layer["name"], [])]
        if kind in ("Conv2D", "DepthwiseConv2D"):
            depthwise = kind == "DepthwiseConv2D"
            kernel = arrays[0].permute(2, 3, 0, 1) if depthwise else arrays[0].permute(3, 2, 0, 1)
            size, stride = options["kernel_size"][0], options["strides"][0]
            total = max((-(-y.shape[2] // stride) - 1) * stride + size - y.shape[2], 0)
            before, after = total // 2, total - total // 2
            padded = F.pad(y, (before, after, before, after))
            y = F.conv2d(padded, kernel, arrays[1], stride, groups=y.shape[1] if depthwise else 1)
        elif kind == "BatchNormalization":
            gamma, beta, mean, variance = arrays
            y = F.batch_norm(y, mean, variance, gamma, beta, eps=options["epsilon"])
        elif kind == "Activation":
            assert options["activation"] == "relu"
            y = F.relu(y)
        elif kind == "AveragePooling2D":
            y = F.avg_pool2d(y, options["pool_size"], options["strides"])
        elif kind == "Flatten":
            y = y.permute(0, 2, 3, 1).flatten(1)
        else:
            assert (kind, options["activation"]) == ("Dense", "softmax")
            y = F.softmax(y @ arrays[0] + arrays[1], -1)
    keras_oracles.close(zoo.load(path)(x), y.numpy(), "visual wake words")


def test_one_step_of_training_equals_keras(assets: pathlib.Path) -> None:
    """Loss, gradients and moving statistics of a batch, with dropout left out, for a real file."""
    import torch

    path = assets / "mlperf-tiny/pretrainedResnet.h5"
    network = zoo.load(path).network.train()
    reference = keras.models.load_model(path, compile=False)
    x = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    target = np.eye(10, dtype=np.float32)[[1, 3, 5, 7]]
    theirs = -(torch.tensor(target) * torch.log(reference(x, training=True) + 1e-6)).sum()
    theirs.backward()

    def loss(pictures: Any) -> Any:
        return ops.negative(ops.sum(ops.multiply(target, ops.log(ops.add(network(pictures), 1e-6)))))

    names = {array.tobytes(): name for name, array in network.named_parameters()}
    value, gradients, state = value_and_grad(network, loss)(x)
    keras_oracles.close(value, theirs.item(), "loss")
    for variable in reference.trainable_variables:
        name = names[variable.value.detach().numpy().tobytes()]
        keras_oracles.close(gradients[name], variable.value.grad.numpy(), name, 1e-3, 0.1)
    moving = [v for v in reference.non_trainable_variables if "moving" in v.path]
    assert len(state) == len(moving) == 14
    for variable in moving:
        layer, role = variable.path.split("/")[-2:]
        keras_oracles.close(state[f"{layer}/{role}"], variable.value.detach().numpy(), variable.path)


def test_dropout_draws_anew_in_training_only(assets: pathlib.Path) -> None:
    model = zoo.load(assets / "mnist-keras3/mnist_cnn.keras")
    x = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    np.testing.assert_array_equal(model.network(x), model.network(x))
    model.network.train()
    assert np.abs(model.network(x) - model.network(x)).max() > 1e-6


@pytest.mark.parametrize("name", ASSETS)
def test_a_trained_model_is_saved_as_it_was_read(assets: pathlib.Path, name: str, tmp_path: pathlib.Path) -> None:
    """Other weights are written into the file's own configuration; Keras and zoonet load both alike."""
    model = zoo.load(assets / name)
    for kind in (model.network.weights, model.network.state):
        for key, array in kind.items():
            kind[key] = array * np.float32(0.9)
    path = tmp_path / f"a{pathlib.Path(name).suffix}"
    model.save(path)
    x = np.random.default_rng(0).random((2, *model.input_shape), np.float32)
    loaded = keras.models.load_model(path)
    keras_oracles.close(loaded(x, training=False).detach().numpy(), model(x), name)
    np.testing.assert_array_equal(zoo.load(path)(x), model(x))
    if path.suffix == ".keras":
        model.save(tmp_path / "a.weights.h5")
        loaded.set_weights([np.zeros(w.shape, w.dtype) for w in loaded.get_weights()])
        loaded.load_weights(tmp_path / "a.weights.h5")
        keras_oracles.close(loaded(x, training=False).detach().numpy(), model(x), "weights")
    model.save(tmp_path / "a.onnx")
    onnx_runtime.assert_equal(model(x), onnx_runtime.run(onnx_runtime.session_of(tmp_path / "a.onnx"), x)[0])
    with pytest.raises(UnsupportedFormatError, match=r"cannot be saved as 'a\.npz': expected a name that"):
        model.save(tmp_path / "a.npz")


def test_pictures_are_classified(assets: pathlib.Path) -> None:
    """Visual wake words on photos: whether there is a person; scores are those of the softmax at the file's end."""
    path = assets / "mlperf-tiny/vww_96.h5"
    with pytest.raises(ArgumentError, match="does not say how pictures are prepared"):
        zoo.load(path, task="image-classification")
    preprocessing = ImagePreprocessing(resize=(96, 96), crop=None, mean=(0, 0, 0), std=(1, 1, 1))
    model = zoo.load(path, task="image-classification", preprocessing=preprocessing, labels=["nobody", "a person"])
    assert model.input_shape == (3, 96, 96)
    photos = assets / "photos"
    person, animal = model.run([photos / "grace_hopper.bmp", photos / "parrot.jpg"])
    assert (person.label, animal.label) == ("a person", "nobody")
    x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
    scores = model(np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(np.exp(scores), zoo.load(path)(x), rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "face-emotion/fer2013_mini_XCEPTION.102-0.66.hdf5",
        "mlperf-tiny/pretrainedResnet.h5",
        "mlperf-tiny/vww_96.h5",
        "mnist-keras3/mnist_cnn.h5",
    ],
)
def test_old_files_become_new_ones(assets: pathlib.Path, name: str, tmp_path: pathlib.Path) -> None:
    """A legacy file saved as .keras is loaded by Keras 3, also where Keras 3 refuses the legacy file."""
    model = zoo.load(assets / name)
    x = np.random.default_rng(0).random((2, *model.input_shape), np.float32)
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    keras_oracles.close(loaded(x, training=False).detach().numpy(), model(x), name)
    np.testing.assert_array_equal(zoo.load(tmp_path / "a.keras")(x), model(x))
    model.save(tmp_path / "a.weights.h5")
    loaded.load_weights(tmp_path / "a.weights.h5")
    keras_oracles.close(loaded(x, training=False).detach().numpy(), model(x), name)
    report = zoo.convert(assets / name, tmp_path / "b.keras")
    assert report.agrees
    assert report.relative is not None
    assert report.compared == report.tensors
    assert (tmp_path / "b.keras").stat().st_size > report.nbytes
