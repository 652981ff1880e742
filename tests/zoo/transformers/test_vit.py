"""Vision transformers against timm, transformers and torchvision, on random weights."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import resnet_parity
import torch

from zoonet import formats, ops, zoo
from zoonet.ops.errors import ArgumentError, FormatError, InputError, StateDictError
from zoonet.weights.vit_names import renamed
from zoonet.zoo import architectures
from zoonet.zoo.modules import initialised_by, value_and_grad
from zoonet.zoo.transformers.vit import VITS, ViT, ViTConfig

try:
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)
import timm

TOLERANCE = 1e-4
SMALL: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8, "num_classes": 5}
OURS = ViTConfig(16, 2, 4, 8, 32, classes=5)


def loaded(config: ViTConfig, state: dict[str, Any]) -> ViT:
    with initialised_by(None):
        network = ViT(config)
    network.load_state_dict({n: t.detach().numpy().copy() for n, t in state.items()})
    return network


def pictures(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("size", [(32, 32), (48, 24), (16, 40)])
@pytest.mark.parametrize("name", ["vit", "deit", "deit_distilled"])
def test_outputs_and_gradients(name: str, size: tuple[int, int]) -> None:
    distilled = name == "deit_distilled"
    made = "deit_tiny_distilled_patch16_224" if distilled else f"{name}_tiny_patch16_224"
    theirs = drawn(timm.create_model(made, dynamic_img_size=True, **SMALL))
    config = replace(OURS, distilled=distilled, heads_mean=distilled)
    ours = loaded(config, theirs.state_dict())
    assert set(ours.state_dict()) == set(theirs.state_dict())
    x = pictures(2, 3, *size)
    expected = theirs(torch.from_numpy(x))
    noise = np.random.default_rng(1).standard_normal((2, 5), np.float32)
    (expected * torch.from_numpy(noise)).sum().backward()
    assert resnet_parity.relative(ours(x), expected.detach().numpy()) <= TOLERANCE
    _, gradients, _ = value_and_grad(ours, lambda x: ops.sum(ours(x) * noise))(x)
    for parameter, tensor in theirs.named_parameters():
        assert resnet_parity.relative(gradients[parameter], tensor.grad.numpy()) <= TOLERANCE, parameter
    compiled = ops.compile(ops.trace(ours, ops.TensorType(x.shape, x.dtype)))
    assert resnet_parity.relative(compiled(x), expected.detach().numpy()) <= TOLERANCE


def test_names_sizes_and_preprocessing_are_timm_s() -> None:
    for name in VITS:
        with torch.device("meta"):
            theirs = timm.create_model(name)
        ours = architectures.build(name).state_dict()
        assert {n: tuple(a.shape) for n, a in ours.items()} == {
            n: tuple(t.shape) for n, t in theirs.state_dict().items()
        }
        usual, stated = architectures.defaults(name).preprocessing, theirs.default_cfg
        assert (usual.mean, usual.std, usual.interpolation) == (stated["mean"], stated["std"], stated["interpolation"])
        assert usual.shape == stated["input_size"]
        assert usual.resize == int(usual.crop[0] / stated["crop_pct"])
    assert architectures.parameters("vit_base_patch16_224") == 86_567_656  # torchvision's documentation


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "kind", ["ViTForImageClassification", "DeiTForImageClassification", "DeiTForImageClassificationWithTeacher"]
)
def test_folders_of_hugging_face(kind: str, bias: bool, tmp_path: pathlib.Path) -> None:
    sizes: dict[str, Any] = {
        "qkv_bias": bias,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
    }
    made = getattr(transformers, kind)
    settings = made.config_class(**sizes, image_size=32, patch_size=8, id2label={0: "cat", 1: "dog", 2: "owl"})
    theirs = drawn(made(settings))
    theirs.save_pretrained(tmp_path / "theirs")
    processor = {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_normalize": True}
    processor |= {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 255}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(processor))
    model = zoo.load(tmp_path / "theirs")
    x = pictures(2, 3, 32, 32)
    expected = theirs(torch.from_numpy(x)).logits.detach().numpy()
    assert resnet_parity.relative(model(x), expected) <= TOLERANCE
    assert model.labels == ("cat", "dog", "owl")
    picture = np.random.default_rng(3).integers(0, 256, (40, 50, 3), np.uint8)
    processed = transformers.ViTImageProcessorPil.from_pretrained(tmp_path / "theirs")(picture, return_tensors="np")
    np.testing.assert_allclose(model.preprocessing(_image(picture)), processed["pixel_values"][0], atol=1e-5)
    model.save(tmp_path / "ours.safetensors")
    again = zoo.load(tmp_path / "ours.safetensors")
    np.testing.assert_array_equal(again(x), model(x))
    assert (again.labels, again.preprocessing) == (model.labels, model.preprocessing)
    assert again.run(picture).label in model.labels


def _image(picture: Any) -> Any:
    from PIL import Image

    return Image.fromarray(picture)


def test_names_of_torchvision() -> None:
    import torchvision

    network = torchvision.models.VisionTransformer(32, 8, 2, 4, 16, 24, num_classes=5)
    theirs = drawn(network)
    state = {name: tensor.detach().numpy().copy() for name, tensor in theirs.state_dict().items()}
    with initialised_by(None):
        ours = ViT(replace(OURS, hidden=24))
    ours.load_state_dict(renamed(state))
    x = pictures(2, 3, 32, 32)
    assert resnet_parity.relative(ours(x), theirs(torch.from_numpy(x)).detach().numpy()) <= TOLERANCE


def test_bad_input(tmp_path: pathlib.Path) -> None:
    model = zoo.create("vit_tiny_patch16_224", layers=1, classes=3, seed=0)
    with pytest.raises(InputError, match="multiples of 16"):
        model(pictures(1, 3, 30, 32))
    with pytest.raises(ArgumentError, match="heads"):
        zoo.create("vit_tiny_patch16_224", heads=5)
    with pytest.raises(ArgumentError, match="patches"):
        zoo.create("vit_tiny_patch16_224", patch=15)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(zoo.load(tmp_path / "m.safetensors").network.pos_embed, model.network.pos_embed)
    whole = zoo.create("deit_tiny_patch16_224", seed=None)
    np.savez(tmp_path / "bare.npz", **whole.network.state_dict())
    with pytest.raises(StateDictError, match="choose one"):
        zoo.load(tmp_path / "bare.npz")
    (tmp_path / "hf").mkdir()
    for fields in ({"model_type": "vit"}, {"model_type": "vit", "hidden_size": 7, "num_attention_heads": 2}):
        (tmp_path / "hf" / "config.json").write_text(json.dumps(fields))
        formats.write(model.network.state_dict(), tmp_path / "hf" / "model.safetensors")
        with pytest.raises(FormatError, match=r"config\.json"):
            zoo.load(tmp_path / "hf")
