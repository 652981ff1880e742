"""State dicts that torchvision, timm and transformers write, in wrappers, of any size: what they look like."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import resnet_parity
import safetensors.torch
import torch

from zoonet import zoo
from zoonet.ops.errors import InputError, StateDictError
from zoonet.zoo.commands.show import file_facts

try:
    resnet_parity.torchvision_and_timm()
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def resnet18() -> tuple[State, np.ndarray, np.ndarray]:
    """torchvision's ResNet-18 of 5 classes: its state dict, a picture and its scores."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    return network.state_dict(), x, network(torch.from_numpy(x)).detach().numpy()


def prefixed(state: State, prefix: str, fc: str | None = None) -> State:
    """All names after a prefix; the last layer under another name."""
    moved = {name: name if fc is None else name.replace("fc.", fc) for name in state}
    return {new if fc and new.startswith(fc) else prefix + new: state[old] for old, new in moved.items()}


WRAPPED = {
    "backbone": lambda s: prefixed(s, "backbone."),
    "two deep": lambda s: prefixed(s, "model.net."),
    "EMA of timm": lambda s: {"state_dict_ema": prefixed(s, "module."), "epoch": 3},
    "Lightning": lambda s: {"state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.1"},
    "mmcv": lambda s: {"meta": {"epoch": 1}, "state_dict": prefixed(s, "backbone.", "head.fc.")},
    "compiled": lambda s: prefixed(s, "_orig_mod.module."),
    "a dropout before the classes": lambda s: prefixed(s, "", "fc.1."),
    "another name of the classes": lambda s: prefixed(s, "encoder.", "classifier."),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrapped_weights_are_recognised_and_run(case: str, resnet18: Any, tmp_path: pathlib.Path) -> None:
    state, x, scores = resnet18
    torch.save(WRAPPED[case](state), tmp_path / "w.pth")
    facts = file_facts(tmp_path / "w.pth", None)
    assert facts["looks like"].startswith("resnet18, torchvision names, 5 classes"), facts["looks like"]
    model = zoo.load(tmp_path / "w.pth")
    assert model.architecture == "resnet18"
    assert np.abs(model(x) - scores).max() <= 1e-5 * np.abs(scores).max()
    np.testing.assert_array_equal(zoo.load(tmp_path / "w.pth", "resnet18")(x), model(x))


def test_weights_of_fastai(resnet18: Any, tmp_path: pathlib.Path) -> None:
    import torchvision

    body = torch.nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
    head = torch.nn.Sequential(torch.nn.BatchNorm1d(1024), torch.nn.Linear(1024, 512), torch.nn.Linear(512, 5))
    torch.save({"model": torch.nn.Sequential(body, head).state_dict(), "opt": {}}, tmp_path / "f.pth")
    looks = file_facts(tmp_path / "f.pth", None)["looks like"]
    assert looks.startswith("resnet18 under '0.' without its last layer (fc, so no classes); 9 other tensors (1.")


HEADLESS = {
    "resnet50": "resnet50",
    "vit_tiny_patch16_224": "vit_tiny_patch16_224",
    "mobilenetv1_100": "mobilenetv1",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenetv3_small_100",
    "deit_tiny_distilled_patch16_224": "deit_tiny_distilled_patch16_224",
}


SLOW = ("resnet50", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in HEADLESS])
def test_weights_without_a_last_layer_give_features(name: str, tmp_path: pathlib.Path) -> None:
    import timm

    torch.manual_seed(0)
    size = 224 if "vit" in name or "deit" in name else 32
    network = timm.create_model(name, num_classes=0).eval()
    x = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    torch.save(network.state_dict(), tmp_path / "h.pth")
    torch.save({f"backbone.{key}": tensor for key, tensor in network.state_dict().items()}, tmp_path / "p.pth")
    looks = file_facts(tmp_path / "h.pth", None)["looks like"]
    assert looks.startswith(f"{HEADLESS[name]} without its last layer"), looks
    for path, arch in (("h.pth", None), ("h.pth", HEADLESS[name]), ("p.pth", None)):
        model = zoo.load(tmp_path / path, arch)
        assert (model.architecture, model.labels) == (HEADLESS[name], ())
        assert model(x).shape == expected.shape
        assert np.abs(model(x) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_features_are_for(tmp_path: pathlib.Path) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    network.fc = torch.nn.Identity()
    torch.save(network.state_dict(), tmp_path / "h.pth")
    model = zoo.load(tmp_path / "h.pth")
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32), np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    with pytest.raises(InputError, match="no last layer"):
        model.run("examples/digit.png")
    for suffix in (".safetensors", ".onnx"):
        model.save(tmp_path / f"m{suffix}")
        again = np.asarray(zoo.load(tmp_path / f"m{suffix}")(x))
        assert np.abs(again - expected).max() <= 1e-5 * np.abs(expected).max()
    model.train((x, np.array([0, 1, 0, 1])), epochs=1, lr=1e-9, freeze="backbone", preprocessed=True, run=False)
    assert model.labels == ("class 0", "class 1")
    assert model(x).shape == (4, 2)
    kept, original = model.network.state_dict(), network.state_dict()
    np.testing.assert_array_equal(kept["layer4.1.conv2.weight"], original["layer4.1.conv2.weight"].numpy())
    torch.save({**network.state_dict(), "head.1.scale": torch.ones(3)}, tmp_path / "o.pth")
    with pytest.raises(StateDictError, match="arrays that the network does not know"):
        zoo.load(tmp_path / "o.pth")


def test_other_widths_and_depths_run(tmp_path: pathlib.Path) -> None:
    import timm
    import torchvision

    narrow = torchvision.models.mobilenet_v2(width_mult=0.5, num_classes=7).eval()
    deep = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 3, 1], num_classes=3).eval()
    thin = timm.create_model("mobilenetv3_large_100", num_classes=4).eval()
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    for network, looks in (
        (narrow, "mobilenet_v2, width 0.5, torchvision names, 7 classes"),
        (deep, "resnet26, blocks (1, 2, 3, 1), "),
        (thin, "mobilenetv3_large_100, timm names, 4 classes"),
    ):
        torch.save(network.state_dict(), tmp_path / "s.pth")
        assert file_facts(tmp_path / "s.pth", None)["looks like"].startswith(looks)
        expected = network(torch.from_numpy(x)).detach().numpy()
        assert np.abs(zoo.load(tmp_path / "s.pth")(x) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_a_resnet_of_transformers_with_widths_of_its_own(tmp_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_sizes": [32, 48, 80], "depths": [1, 2, 1]}
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    for kind in ("basic", "bottleneck"):
        network = transformers.ResNetForImageClassification(
            transformers.ResNetConfig(**sizes, layer_type=kind, num_labels=3)
        ).eval()
        expected = network(torch.from_numpy(x)).logits.detach().numpy()
        network.save_pretrained(tmp_path / kind)
        for place in (tmp_path / kind, tmp_path / f"{kind}.pt"):
            torch.save(network.state_dict(), tmp_path / f"{kind}.pt")
            assert np.abs(zoo.load(place)(x) - expected).max() <= 1e-5 * np.abs(expected).max()


def text_networks() -> dict[str, tuple[torch.nn.Module, str]]:
    """Networks of transformers of no published size, and what their state dicts look like."""
    t = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    unknown = "; the number of heads, which shapes do not tell, stands in config.json"
    own = "Hugging Face names: 2 layers, width 64, inner width 128"
    bert, decoder = t.BertConfig(**sizes, vocab_size=99), {**sizes, "num_key_value_heads": 2, "vocab_size": 99}
    words = "99 words, 512 positions"
    llama = "Llama or a network of the same arrays (Mistral, Gemma)"
    return {
        "bert": (t.BertModel(bert), f"BERT, {own}, {words}{unknown}"),
        "classes": (t.BertForSequenceClassification(bert), f"BERT, {own}, {words}, 2 classes{unknown}"),
        "roberta": (t.RobertaModel(t.RobertaConfig(**sizes, type_vocab_size=1)), "RoBERTa, Hugging Face names: 2 "),
        "distil": (t.DistilBertModel(t.DistilBertConfig(dim=64, n_layers=2, n_heads=2)), "DistilBERT, Hugging Face"),
        "gpt2": (
            t.GPT2Model(t.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=99)),
            f"GPT-2, Hugging Face names: 2 layers, width 64, inner width 256, 99 words, 1024 positions{unknown}",
        ),
        "llama": (
            t.LlamaForCausalLM(t.LlamaConfig(**decoder)),
            f"{llama}, {own}, width of keys 32, 99 words{unknown}",
        ),
        "qwen2": (t.Qwen2ForCausalLM(t.Qwen2Config(**decoder)), f"Qwen 2, {own}, width of keys 32, 99 words"),
        "qwen3": (t.Qwen3Model(t.Qwen3Config(**decoder, head_dim=16)), f"Qwen 3, {own}"),
        "t5": (
            t.T5ForConditionalGeneration(
                t.T5Config(d_model=64, d_kv=16, num_layers=2, num_heads=4, d_ff=128, vocab_size=99)
            ),
            f"T5, {own}, 99 words, 4 heads",
        ),
    }


def test_transformers_of_any_size(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.safetensors"
    for name, (network, looks) in text_networks().items():
        tensors = {key: tensor.clone().contiguous() for key, tensor in network.state_dict().items()}
        safetensors.torch.save_file(tensors, path)
        assert file_facts(path, None)["looks like"].startswith(looks), name
        with pytest.raises(StateDictError, match=r"config\.json"):
            zoo.load(path)


def test_a_number_in_a_name_makes_no_layers() -> None:
    from zoonet.weights.families import family_of
    from zoonet.zoo.resnet import RESNETS, ResNet

    state = {f"encoder.layer.{10**9}.attention.self.query.weight": np.zeros((4, 4))}
    found = family_of(state)
    assert found is not None
    assert found.sizes["layers"] == 1
    deep = {"layer1.0.conv1.weight": np.zeros((4, 4)), "layer1.900.conv1.weight": np.zeros((4, 4))}
    assert ResNet.resized(RESNETS["resnet50"], deep).blocks == RESNETS["resnet50"].blocks


def test_a_narrow_terminal_and_a_huge_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import json

    from zoonet.zoo.cli import main

    size, count = 1 << 26, 80  # 5 GiB, of which none is on the disk
    name = "model.layers.{}.some_long_name_of_a_module.projection.weight"
    header = {
        name.format(i): {"dtype": "F32", "shape": [size >> 14, 4096], "data_offsets": [size * i, size * (i + 1)]}
        for i in range(count)
    }
    text = json.dumps(header).encode()
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size * count)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", str(tmp_path / "a.safetensors")]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines[-2 * count :])) <= 80
    assert sum("67,108,864" in line for line in lines) == count
    assert "5,368,709,120" in "".join(lines[:10])
