"""Maps of parameter names and layouts: files of Keras's ResNets, loaded by us, give Keras's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoonet import formats, zoo
from zoonet.ops.errors import FormatError
from zoonet.weights.names import in_our_names

X = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)


@pytest.fixture(scope="module")
def keras_resnet() -> tuple[Any, Any]:
    """keras.applications' ResNet-50 with weights that all matter, and its outputs before the softmax."""
    pytest.importorskip("keras")
    torch = pytest.importorskip("torch")
    from resnet_parity import condition, keras_oracle

    oracle = keras_oracle("resnet50_keras", 64)
    condition(oracle, torch.from_numpy(X))
    return oracle.network, oracle.run(torch.from_numpy(X), False).detach().numpy()


def legacy_weights(network: Any, path: Path, last_layer: str) -> None:
    """The file that `load_weights` of keras.applications reads, by Keras's own writer; its last layer has had names."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)
        names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
        file.attrs["layer_names"] = [name.replace("predictions", last_layer).encode() for name in names]
        if last_layer != "predictions":
            file.move("predictions", last_layer)
            file.move(f"{last_layer}/predictions", f"{last_layer}/{last_layer}")
            weights = file[last_layer].attrs["weight_names"]
            weights = [name.decode() if isinstance(name, bytes) else name for name in weights]
            file[last_layer].attrs["weight_names"] = [
                name.replace("predictions", last_layer).encode() for name in weights
            ]


@pytest.mark.parametrize("name", ["probs.h5", "predictions.h5", "whole.h5", "tree.weights.h5", "whole.keras"])
def test_resnet_of_keras(tmp_path: Path, keras_resnet: tuple[Any, Any], name: str) -> None:
    network, expected = keras_resnet
    path = tmp_path / name
    if name.startswith("whole"):
        network.save(path)
    elif name.startswith("tree"):
        network.save_weights(path)
    else:
        legacy_weights(network, path, path.stem)
    model = zoo.load(path, "resnet50_keras")
    assert model.preprocessing.channels == "BGR"
    np.testing.assert_allclose(model(X), expected, atol=1e-5 * np.abs(expected).max())
    assert len(zoo.load(path, "resnet50_keras").labels) == 1000


def test_resnet_of_keras_in_the_catalog(tmp_path: Path, keras_resnet: tuple[Any, Any], serve: Any) -> None:
    network, expected = keras_resnet
    legacy_weights(network, tmp_path / "w.h5", "probs")
    serve("resnet50.keras_in1k", (tmp_path / "w.h5").read_bytes())
    model = zoo.load("resnet50.keras_in1k")
    assert model.architecture == "resnet50_keras"
    np.testing.assert_allclose(model(X), expected, atol=1e-5 * np.abs(expected).max())
    preprocessing = model.preprocessing
    assert (preprocessing.resize, preprocessing.crop, preprocessing.channels) == ((224, 224), None, "BGR")
    assert preprocessing.mean == (103.939, 116.779, 123.68)  # keras.applications.imagenet_utils, mode "caffe"
    assert "74.9 % top-1" in model.card.accuracy
    report = zoo.convert("resnet50.keras_in1k", tmp_path / "ours.safetensors")
    assert (report.agrees, report.lost) == (True, [])
    again = zoo.load(tmp_path / "ours.safetensors")
    np.testing.assert_allclose(again(X), expected, atol=1e-5 * np.abs(expected).max())
    assert (again.preprocessing, again.card) == (preprocessing, model.card)


def test_networks_without_a_map_keep_their_names(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    small = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, name="conv1_conv")])
    small.save(tmp_path / "small.h5")
    found = formats.read(tmp_path / "small.h5")
    assert in_our_names(found) is found


def test_weights_that_keras_numbered() -> None:
    names = ["conv1_conv/conv1_conv_1/kernel:0", "resnet50/conv2_block1_1_conv/kernel:0", "probs/probs_1/bias:0"]
    tensors = {name: formats.as_lazy(np.zeros(3, np.float32)) for name in names}
    ours = in_our_names(formats.Checkpoint(tensors, {}, "keras_h5"))
    assert list(ours) == ["conv1.weight", "layer1.0.conv1.weight", "fc.bias"]


UNKNOWN = ["conv2_block1_9_conv/kernel:0", f"conv2_block{'9' * 5000}_1_conv/kernel:0", "dense/kernel:0", "x"]


@pytest.mark.parametrize("extra", [*UNKNOWN, "conv1_conv/alpha:0"], ids=lambda name: name[:24])
def test_layers_that_the_map_does_not_know(extra: str) -> None:
    names = ["conv1_conv/conv1_conv/kernel:0", "conv2_block1_1_conv/conv2_block1_1_conv/kernel:0"]
    array = np.zeros((1, 1, 3, 2), np.float32)
    tensors = {name: formats.as_lazy(array) for name in names}
    ours = in_our_names(formats.Checkpoint(tensors, {}, "keras_h5"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        "conv1.weight": (2, 3, 1, 1),
        "layer1.0.conv1.weight": (2, 3, 1, 1),
    }
    with pytest.raises(FormatError, match=r"keras\.applications"):
        in_our_names(formats.Checkpoint({**tensors, extra: formats.as_lazy(array)}, {}, "keras_h5"))


def test_names_of_transformers_that_the_map_does_not_know() -> None:
    array = formats.as_lazy(np.zeros((1, 1, 1, 1), np.float32))
    stem = "resnet.embedder.embedder.convolution.weight"
    assert list(in_our_names(formats.Checkpoint({stem: array}))) == ["conv1.weight"]
    with pytest.raises(FormatError, match="transformers"):
        in_our_names(formats.Checkpoint({stem: array, "resnet.encoder.stages.0.layer.0.weight": array}))
