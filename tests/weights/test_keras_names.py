"""Maps between the zoo's names and those of keras.applications, and whose names a file has."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from zoonet import formats, zoo
from zoonet.formats.checkpoint import as_lazy
from zoonet.ops.errors import StateDictError
from zoonet.weights.keras_names import from_keras, to_keras_names
from zoonet.weights.vocabularies import vocabulary_of
from zoonet.zoo.cli import main
from zoonet.zoo.commands.show import file_facts


def keras_weights(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    """By layer and role; Keras 3 calls the kernel of a depthwise convolution by another name than Keras 2."""
    found = {}
    for variable in model.variables:
        layer, role = variable.path.split("/")[-2:]
        if "seed" not in variable.path:
            depthwise = layer.startswith("conv_dw") and role == "kernel"
            found[f"{layer}/{'depthwise_kernel' if depthwise else role}"] = np.asarray(variable.value.detach())
    return found


@pytest.mark.parametrize(
    ("architecture", "application", "changes"),
    [
        ("mobilenetv1_025", "MobileNet", {"alpha": 0.25}),
        pytest.param("resnet50_keras", "ResNet50", {}, marks=pytest.mark.slow),
        pytest.param("resnet101_keras", "ResNet101", {}, marks=pytest.mark.slow),
    ],
)
def test_every_tensor_of_keras_has_a_name_and_a_layout(
    architecture: str, application: str, changes: dict[str, Any]
) -> None:
    """Names and shapes are those of keras.applications itself, both ways."""
    keras = pytest.importorskip("keras")
    theirs = keras_weights(getattr(keras.applications, application)(weights=None, **changes))
    state = zoo.create(architecture, seed=1).network.state_dict()
    ours = to_keras_names(architecture, {name: as_lazy(array) for name, array in state.items()})
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: a.shape for name, a in theirs.items()}
    back = from_keras(architecture, [(name, array.ndim) for name, array in state.items()], ours)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor.load(), state[name], strict=True)
    assert set(back) == {name for name in state if not name.endswith("num_batches_tracked")}


def test_kernels_are_turned_as_keras_has_them() -> None:
    kernel = np.arange(2 * 3 * 5 * 7, dtype=np.float32).reshape(2, 3, 5, 7)
    found = to_keras_names("resnet50", {"layer2.0.downsample.0.weight": as_lazy(kernel)})
    turned = found["conv3_block1_0_conv/kernel"].load()
    assert turned.shape == (5, 7, 3, 2)
    assert turned[4, 6, 2, 1] == kernel[1, 2, 4, 6]
    depthwise = to_keras_names("mobilenetv1_025", {"stage2.0.0.weight": as_lazy(kernel[:, :1])})
    assert depthwise["conv_dw_6/depthwise_kernel"].load()[4, 6, 1, 0] == kernel[1, 0, 4, 6]


def test_what_has_no_name() -> None:
    with pytest.raises(StateDictError, match=r"no name for 'conv1\.0\.weight' of resnet50d"):
        to_keras_names("resnet50d", {"conv1.0.weight": as_lazy(np.zeros((2, 2, 3, 3)))})
    with pytest.raises(StateDictError, match="lack 1 tensors"):
        from_keras("resnet50_keras", [("conv1.weight", 4)], {})


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        ("resnet50", "layer1.0.conv1.weight", "torchvision"),
        ("resnet50", "module.layer1.0.conv1.weight", "torchvision"),
        ("resnet50d", "layer1.0.conv1.weight", "timm"),
        ("resnet50", "resnet.embedder.embedder.convolution.weight", "Hugging Face"),
        ("resnet50_keras", "conv1_conv/conv1_conv/kernel:0", "keras.applications"),
        ("resnet20", "linear.weight", "pytorch_resnet_cifar10"),
        ("mobilenetv1_025", "stage1.0.0.weight", "Pytorch_Retinaface"),
        ("mobilenet_v2", "features.0.0.weight", "torchvision"),
        ("mobilenet_v2", "blocks.0.0.conv_dw.weight", "timm"),
        ("vit_base_patch16_224", "blocks.0.norm1.weight", "timm"),
        ("vit_base_patch16_224", "encoder.layers.encoder_layer_0.ln_1.weight", "torchvision"),
        ("vit_base_patch16_224", "vit.embeddings.cls_token", "Hugging Face"),
        ("other", "weight", ""),
    ],
)
def test_vocabulary(architecture: str, name: str, expected: str) -> None:
    assert vocabulary_of(architecture, [name]) == expected


def test_a_bare_state_dict_is_recognised(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = zoo.create("resnet18", classes=37).network.state_dict()
    formats.write({name: as_lazy(array) for name, array in state.items()}, tmp_path / "a.safetensors")
    assert file_facts(tmp_path / "a.safetensors", None)["looks like"] == "resnet18, torchvision names, 37 classes"
    assert main(["show", str(tmp_path / "a.safetensors")]) in (0, None)
    assert "looks like:     resnet18, torchvision names, 37 classes" in capsys.readouterr().out


def test_ambiguity_is_said(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = zoo.create("resnet18", classes=3).network.state_dict()
    formats.write({name: as_lazy(array) for name, array in state.items()}, tmp_path / "a.safetensors")
    monkeypatch.setattr("zoonet.zoo.architectures.recognise", lambda state: ["resnet18", "resnet18_other"])
    looks = file_facts(tmp_path / "a.safetensors", None)["looks like"]
    assert looks == "resnet18 or resnet18_other (ambiguous: --arch decides)"
    assert file_facts(tmp_path / "a.safetensors", "resnet18")["classes"] == 3
