"""Names of MobileNets: weights that timm, transformers and Keras hold, loaded by us, give their outputs."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch
from PIL import Image
from resnet_parity import relative

from zoonet import formats, zoo
from zoonet.weights.mobilenet_names import named_as, renamed_mobilenet, vocabulary_of_mobilenet

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

#: An odd size too: paddings differ there.
SIZES = (64, 75)


def drawn(network: torch.nn.Module) -> torch.nn.Module:
    """Statistics that matter."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def oracle(name: str) -> tuple[torch.nn.Module, Any]:
    """A network of timm, or of transformers, and a function from pictures to its scores."""
    torch.manual_seed(0)
    if not name.startswith("hf"):
        import timm

        network = drawn(timm.create_model(name, num_classes=5))
        return network, network
    import transformers

    version, _, width = name.removeprefix("hf_").partition("_")
    config = getattr(transformers, f"MobileNet{version}Config")(num_labels=5, depth_multiplier=float(width or 1))
    network = drawn(getattr(transformers, f"MobileNet{version}ForImageClassification")(config))
    return network, lambda x: network(x).logits


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("mobilenetv3_large_100", "mobilenetv3_large_100"),
        ("mobilenetv3_small_100", "mobilenetv3_small_100"),
        ("mobilenetv3_small_075", "mobilenetv3_small_100"),
        ("mobilenetv1_100", "mobilenetv1"),
        ("mobilenetv2_050", "mobilenet_v2"),
        ("hf_V1", "mobilenetv1_tf"),
        ("hf_V1_0.5", "mobilenetv1_tf"),
        ("hf_V2", "mobilenet_v2_keras"),
        ("hf_V2_1.4", "mobilenet_v2_keras"),
    ],
)
def test_weights_of_others(name: str, architecture: str, tmp_path: pathlib.Path) -> None:
    network, run = oracle(name)
    torch.save(network.state_dict(), tmp_path / "m.pth")
    model = zoo.load(tmp_path / "m.pth")
    assert (model.architecture, len(model.labels)) == (architecture, 5)
    for size in SIZES:
        x = np.random.default_rng(1).standard_normal((2, 3, size, size), np.float32)
        assert relative(model(x), run(torch.from_numpy(x)).detach().numpy()) <= 1e-5, size
    vocabulary = "Hugging Face" if name.startswith("hf") else "timm"
    ours = {key: formats.as_lazy(array) for key, array in model.network.state_dict().items()}
    theirs = named_as(architecture, vocabulary, ours)
    assert theirs is not None
    assert list(theirs) == list(network.state_dict()) or set(theirs) == set(network.state_dict())
    for key, tensor in network.state_dict().items():
        assert np.array_equal(theirs[key].load(), tensor.numpy()), key


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("MobileNet", "mobilenetv1_keras"),
        pytest.param("MobileNetV2", "mobilenet_v2_keras", marks=pytest.mark.slow),
        ("MobileNetV3Small", "mobilenet_v3_small_keras"),
        pytest.param("MobileNetV3Large", "mobilenet_v3_large_keras", marks=pytest.mark.slow),
    ],
)
def test_weights_of_keras(name: str, architecture: str, tmp_path: pathlib.Path) -> None:
    keras = pytest.importorskip("keras")
    options = {"include_preprocessing": False} if "V3" in name else {}
    network = getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classifier_activation=None, classes=5, **options
    )
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if type(layer).__name__ == "BatchNormalization":
            scale, bias, mean, variance = layer.get_weights()
            draws = [rng.uniform(-0.1, 0.1, mean.shape), rng.uniform(0.5, 1.5, variance.shape)]
            layer.set_weights([scale, bias, *draws])
    x = rng.standard_normal((2, 64, 64, 3), np.float32)
    expected = keras.ops.convert_to_numpy(network(x, training=False))
    network.save_weights(tmp_path / "m.weights.h5")
    files = ["m.weights.h5"]
    if name == "MobileNetV2":
        network.save(tmp_path / "m.h5")
        files.append("m.h5")
    for file in files:
        model = zoo.load(tmp_path / file, architecture)
        assert relative(model(x.transpose(0, 3, 1, 2)), expected) <= 1e-5
    assert zoo.load(tmp_path / "m.weights.h5").architecture == architecture


#: Layers of Keras 3, as Keras 2 called them when the files were published (keras/applications/mobilenet_v3.py of 2.15).
KERAS_2 = {"conv": "Conv", "conv_1": "Conv_1", "conv_2": "Conv_2", "logits": "Logits"}


def as_keras_2(layer: str) -> str:
    """conv_bn -> Conv/BatchNorm, expanded_conv_1_squeeze_excite_conv_1 -> expanded_conv_1/squeeze_excite/Conv_1."""
    name, norm = (layer.removesuffix("_bn"), "/BatchNorm") if layer.endswith("_bn") else (layer, "")
    found = re.fullmatch(r"(expanded_conv(?:_\d+)?)_(expand|depthwise|project|squeeze_excite)(?:_(conv(?:_1)?))?", name)
    if found is None:
        return KERAS_2.get(name, name) + norm
    return "/".join(filter(None, (found[1], found[2], found[3] and found[3].capitalize()))) + norm


@pytest.mark.parametrize(
    ("name", "alpha"), [("MobileNetV3Small", 0.75), pytest.param("MobileNetV3Large", 0.75, marks=pytest.mark.slow)]
)
def test_published_weights_of_keras(name: str, alpha: float, tmp_path: pathlib.Path, serve: Any) -> None:
    """A file in the layout and with the names of the published ones, loaded by its name in the catalog."""
    keras, h5py = pytest.importorskip("keras"), pytest.importorskip("h5py")
    network = getattr(keras.applications, name)(alpha=alpha, weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    file = tmp_path / "published.h5"
    with h5py.File(file, "w") as root:
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        root.attrs["layer_names"] = [as_keras_2(layer.name).encode() for layer in network.layers]
        for layer in network.layers:
            if type(layer).__name__ == "BatchNormalization":
                scale, bias, mean, variance = layer.get_weights()
                draws = [rng.uniform(-0.1, 0.1, mean.shape), rng.uniform(0.5, 1.5, variance.shape)]
                layer.set_weights([scale, bias, *draws])
            own = as_keras_2(layer.name)
            roles = [w.name for w in layer.weights]
            if type(layer).__name__ == "DepthwiseConv2D":
                roles = ["depthwise_kernel"]
            group = root.create_group(own)
            group.attrs["weight_names"] = [f"{own}/{role}:0".encode() for role in roles]
            for role, value in zip(roles, layer.get_weights(), strict=True):
                group.create_dataset(f"{own}/{role}:0", data=value)
    size = re.sub(r"MobileNetV3", "mobilenet_v3_", name).lower()
    entry = serve(f"{size}_{round(alpha * 100):03d}.keras_in1k", file.read_bytes())
    model = zoo.load(entry.name)
    picture = rng.integers(0, 256, (224, 224, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(network(picture[None].astype(np.float32), training=False))  # scales by itself
    x = model.preprocessing(Image.fromarray(picture))[None]
    assert relative(model(x), expected) <= 1e-4


def test_folder_of_transformers(tmp_path: pathlib.Path) -> None:
    import transformers

    network, _ = oracle("hf_V2_0.5")
    network.save_pretrained(tmp_path)
    transformers.MobileNetV2ImageProcessor().save_pretrained(tmp_path)
    model = zoo.load(tmp_path)
    assert (model.architecture, model.network.config.width) == ("mobilenet_v2_keras", 0.5)  # type: ignore[attr-defined]
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)


def test_names_of_another_depth_stay() -> None:
    layers = ["conv_stem", "bn1", "blocks.0.0.conv_dw"]
    assert vocabulary_of_mobilenet(layers, ("timm",)) is None  # too few to tell
    import timm

    array = formats.as_lazy(np.zeros(1, np.float32))
    deeper = dict.fromkeys(timm.create_model("mobilenetv2_110d").state_dict(), array)
    assert renamed_mobilenet(deeper) is None
