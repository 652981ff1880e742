"""Folders of image models in Hugging Face's layout: transformers' ResNets and timm's, written by them and run by us."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import zoo
from zoonet.ops.errors import FormatError, StateDictError, UnsupportedFormatError, ZoonetError
from zoonet.zoo import hugging_face

torch = pytest.importorskip("torch")
try:
    from resnet_parity import condition, torch_oracle
    from transformer_oracles import transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)
timm: Any = pytest.importorskip("timm")  # after transformer_oracles, which makes torchvision importable

BOTTLENECK = {"depths": [1, 2, 1], "hidden_sizes": [32, 64, 128], "embedding_size": 8, "layer_type": "bottleneck"}
BASIC = {"depths": [2, 1, 1, 1], "hidden_sizes": [8, 16, 32, 64], "embedding_size": 8, "layer_type": "basic"}
KINDS = {"bottleneck": BOTTLENECK, "basic": BASIC, "stride first": {**BOTTLENECK, "downsample_in_bottleneck": True}}
X = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 17, 3), np.uint8)
    return Image.fromarray(pixels).resize((313, 250), Image.Resampling.BICUBIC)


class Logits(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Any:
        return self.network(x).logits


def resnet(**settings: Any) -> Any:
    """A ResNet of transformers whose outputs depend on all weights, statistics of batch norms included."""
    names = {index: f"thing {index}" for index in range(5)}
    network = transformers.ResNetForImageClassification(transformers.ResNetConfig(**settings, id2label=names))
    condition(torch_oracle("", Logits(network)), torch.from_numpy(X))
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "files"), [*((kind, "safetensors") for kind in KINDS), ("basic", "shards"), ("basic", "bin")]
)
def test_resnets_of_transformers(tmp_path: pathlib.Path, kind: str, files: str) -> None:
    network = resnet(**KINDS[kind])
    network.save_pretrained(tmp_path, max_shard_size="20KB" if files == "shards" else "1GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (files == "shards")
    if files == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    model = zoo.load(tmp_path)
    expected = network(torch.from_numpy(X)).logits.detach().numpy()
    np.testing.assert_allclose(model(X), expected, atol=2e-5 * np.abs(expected).max())
    assert model.labels == tuple(f"thing {index}" for index in range(5))
    model.save(tmp_path / "ours")  # a network between those of the table keeps what tells it from them
    np.testing.assert_array_equal(zoo.load(tmp_path / "ours")(X), model(X))
    report = zoo.convert(tmp_path, tmp_path / "one.safetensors")
    assert (report.agrees, report.relative) == (True, 0)


def test_a_network_of_the_table_has_its_name(tmp_path: pathlib.Path) -> None:
    config = transformers.ResNetConfig()  # ResNet-50, with two classes
    (tmp_path / "config.json").write_text(config.to_json_string())
    found = hugging_face.configuration_of(tmp_path)
    assert (found["architecture"], found["configuration"]) == ("resnet50", {})
    basic = transformers.ResNetConfig(depths=[2, 2, 2, 2], layer_type="basic", hidden_sizes=[64, 128, 256, 512])
    (tmp_path / "config.json").write_text(basic.to_json_string())
    assert hugging_face.configuration_of(tmp_path)["architecture"] == "resnet18"


# Published preprocessor_config.json of resnet-50 on the hub, of the old kind; and what newer versions write.
PROCESSORS: dict[str, dict[str, Any]] = {
    "old": {
        "crop_pct": 0.875, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224,
    },
    "ConvNextImageProcessor": {"size": {"shortest_edge": 96}, "crop_pct": 0.9, "resample": 2},
    "ConvNextImageProcessor, large": {"size": {"shortest_edge": 384}},
    "ViTImageProcessor": {"size": {"height": 64, "width": 80}},
    "BitImageProcessor": {"size": {"shortest_edge": 100}, "crop_size": {"height": 64, "width": 80}},
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_of_transformers(tmp_path: pathlib.Path, photo: Image.Image, name: str) -> None:
    kind = "ConvNextImageProcessor" if name == "old" else name.partition(",")[0]
    processor = getattr(transformers, kind)(**PROCESSORS[name])
    (tmp_path / "config.json").write_text(transformers.ResNetConfig().to_json_string())
    written = json.dumps(PROCESSORS[name]) if name == "old" else processor.to_json_string()
    (tmp_path / "preprocessor_config.json").write_text(written)
    found = hugging_face.configuration_of(tmp_path)["preprocessing"]
    ours = zoo.ImagePreprocessing.from_config(found)(photo)
    theirs = processor(photo, return_tensors="np")["pixel_values"][0]
    assert ours.shape == theirs.shape
    # They resize tensors, we pictures, so that pixels differ by a grey value here and there.
    assert np.abs(ours - theirs).mean() < 0.01
    assert np.abs(ours - theirs).max() < 0.05


TIMM: dict[str, dict[str, Any]] = {
    "resnet18.a1_in1k": {},
    "resnet26t.ra2_in1k": {"num_classes": 3},
    "resnet18d.ra2_in1k": {"crop_mode": "squash", "input_size": (3, 96, 128), "interpolation": "bilinear"},
}


@pytest.mark.parametrize("name", TIMM)
def test_folders_of_timm(tmp_path: pathlib.Path, photo: Image.Image, name: str) -> None:
    changes = dict(TIMM[name])
    network = timm.create_model(name, pretrained=False, num_classes=changes.pop("num_classes", 1000)).eval()
    network.pretrained_cfg.update(changes)
    few = network.num_classes == 3
    settings = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n2": "two"}} if few else {}
    condition(torch_oracle("", network), torch.from_numpy(X))
    timm.models._hub.save_for_hf(network.eval(), tmp_path, model_config=settings, safe_serialization=True)
    model = zoo.load(tmp_path)
    expected = network(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(model(X), expected, atol=2e-5 * np.abs(expected).max())
    assert model.architecture == name.partition(".")[0]
    assert model.card.licence == "apache-2.0"
    assert model.labels[1] == ("two" if few else "goldfish")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(network.pretrained_cfg))
    np.testing.assert_allclose(model.preprocessing(photo), transform(photo).numpy(), atol=1e-5)


def test_a_folder_of_timm_whose_network_has_another_name_here(tmp_path: pathlib.Path) -> None:
    network = timm.create_model("mobilenetv2_100.ra_in1k", pretrained=False).eval()
    timm.models._hub.save_for_hf(network, tmp_path, safe_serialization=True)
    model = zoo.load(tmp_path)
    assert (model.architecture, model.preprocessing.resize) == ("mobilenet_v2", 256)
    expected = network(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(model(X), expected, atol=1e-5 * np.abs(expected).max())


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a layer type that there is not": ({"layer_type": "deep"}, "basic or bottleneck"),
    "depths that are no numbers": ({"depths": ["3"]}, "depths"),
    "too many stages": ({"depths": [1] * 99}, "depths"),
    "widths that the zoo lacks": ({"hidden_sizes": [1, 2, 3, 4]}, "hidden_sizes"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act.*relu"),
    "an early stride": ({"downsample_in_first_stage": True}, "downsample_in_first_stage"),
    "channels below zero": ({"num_channels": -3}, "num_channels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_configurations_that_make_no_network(tmp_path: pathlib.Path, name: str) -> None:
    changes, message = BROKEN[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", **changes}))
    with pytest.raises(FormatError, match=message):
        hugging_face.configuration_of(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"shortest_edge": "large"}},
        {"size": {"height": 1}},
        {"crop_pct": 0, "feature_extractor_type": "ConvNextFeatureExtractor"},
        {"resample": 9},
        {"image_mean": [1, 2]},
        {"image_std": [0, 0, 0]},
        {"do_center_crop": True, "crop_size": {"height": 10**9, "width": 1}},
        {"rescale_factor": "1/255"},
    ],
)
def test_processors_that_make_no_preprocessing(tmp_path: pathlib.Path, changes: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(changes))
    with pytest.raises(FormatError):
        hugging_face.configuration_of(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet51"}, "not in the zoo.*resnet50"),
        ({"pretrained_cfg": {"input_size": [3, 224]}}, "input_size"),
        ({"pretrained_cfg": {"input_size": [3, 224, 256]}}, "input_size"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "interpolation"),
        ({"pretrained_cfg": {"mean": "grey"}}, "mean"),
    ],
)
def test_configurations_of_timm_that_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": {}, **changes}))
    with pytest.raises(FormatError, match=message):
        hugging_face.configuration_of(tmp_path)


def test_weights_and_configuration_of_different_networks(tmp_path: pathlib.Path) -> None:
    resnet(**BASIC).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "depths": [1, 1, 1, 1]}))
    with pytest.raises(StateDictError, match=r"layer1\.1"):
        zoo.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "convnext"}))
    with pytest.raises(UnsupportedFormatError, match=r"model_type.*resnet"):
        zoo.load(tmp_path)
    headless = transformers.ResNetModel(transformers.ResNetConfig(**BASIC))
    headless.save_pretrained(tmp_path / "headless")
    with pytest.raises(StateDictError, match=r"fc\.weight"):
        zoo.load(tmp_path / "headless")


def test_saved_configurations_hold_what_differs(tmp_path: pathlib.Path) -> None:
    made = zoo.create("resnet20", classes=4, width=8, eps=1e-2)
    x = X[:, :, :32, :32]
    made.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(zoo.load(tmp_path / "m.safetensors")(x), made(x))
    made.save(tmp_path / "m.npz")
    beside = tmp_path / "m.npz.json"
    config = json.loads(beside.read_text())
    assert config["zoonet"]["configuration"] == {"classes": 4, "width": 8, "eps": 1e-2}
    for wrong in ([], {"colour": 1}, {"blocks": [10**9]}, {"blocks": 3}, {"width": -1}, {"eps": True}, {"bias": 1}):
        beside.write_text(json.dumps({"zoonet": {**config["zoonet"], "configuration": wrong}}))
        with pytest.raises(ZoonetError, match="configuration"):
            zoo.load(tmp_path / "m.npz")
