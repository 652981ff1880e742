"""Conversion between formats of weights, read back by the libraries that own the formats."""

from __future__ import annotations

import itertools
import json
import pathlib
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from onnx_runtime import assert_equal, run, session_of

from zoonet import formats, zoo
from zoonet.ops.errors import ArgumentError, DTypeError, StateDictError, UnsupportedFormatError
from zoonet.zoo.cli import main

SUFFIXES = (".safetensors", ".pt", ".npz")


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "layer.weight": torch.randn(4, 3),
        "layer.bias": torch.randn(4).half(),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
    }


def write(path: pathlib.Path, state: dict[str, torch.Tensor]) -> pathlib.Path:
    if path.suffix == ".pt":
        torch.save(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        safetensors.torch.save_file(state, path)
    return path


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.suffix == ".pt":
        return {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()}
    return dict(np.load(path)) if path.suffix == ".npz" else safetensors.numpy.load_file(path)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(SUFFIXES, SUFFIXES)))
def test_every_pair_of_formats(source: str, target: str, tmp_path: pathlib.Path) -> None:
    state = state_dict()
    report = zoo.convert(write(tmp_path / f"a{source}", state), tmp_path / f"b{target}")
    assert (report.tensors, report.compared, report.lost, report.agrees) == (4, 4, [], True)
    found = read(tmp_path / f"b{target}")
    assert set(found) == set(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_casting_is_that_of_torch_and_leaves_integers(tmp_path: pathlib.Path) -> None:
    state = state_dict()
    zoo.convert(write(tmp_path / "a.pt", state), tmp_path / "b.pt", dtype="bfloat16")
    found = torch.load(tmp_path / "b.pt", weights_only=True)
    assert found["steps"].dtype == torch.int64
    assert torch.equal(found["layer.weight"], state["layer.weight"].bfloat16())


def test_a_known_network_runs_from_the_target_without_its_architecture(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "digits.pt"
    arrays = {name: torch.from_numpy(array) for name, array in zoo.load("digits").network.state_dict().items()}
    torch.save(arrays, source)
    for target in ("d.npz", "d.safetensors"):
        report = zoo.convert(source, tmp_path / target)
        assert (report.architecture, report.relative) == ("digitnet", 0.0)
        assert zoo.load(tmp_path / target).run("examples/digit.png").label == "4"


def test_outputs_are_compared_and_the_command_says_so_by_its_status(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "d.safetensors")
    assert main(["convert", "digits", target, "--dtype", "bfloat16"]) == 0
    assert "outputs agree" in capfd.readouterr().out
    assert main(["convert", "digits", target, "--dtype", "bfloat16", "--tolerance", "1e-6", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    original = zoo.load("digits")
    x = np.random.default_rng(0).normal(size=(1, 1, 24, 24)).astype(np.float32)
    scores = original(x)
    for slot in original.network.slots().values():
        slot.set(slot.get().astype(ml_dtypes.bfloat16).astype(np.float32))
    difference = np.abs(original(x) - scores).max()
    assert found["absolute"] == pytest.approx(difference, rel=1e-4)
    assert not found["agrees"]


def test_what_is_lost_is_said(tmp_path: pathlib.Path) -> None:
    weight = torch.ones(2, 2)
    torch.save(
        {
            "state_dict": {"a.weight": weight, "b.weight": weight},
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2, 2)}}},
            "epoch": 3,
        },
        tmp_path / "a.pt",
    )
    lost = zoo.convert(tmp_path / "a.pt", tmp_path / "b.npz").lost
    assert lost[0].startswith("'optimizer'")
    assert lost[1] == "metadata epoch"
    assert lost[2].startswith("that a.weight and b.weight are one tensor")
    kept = zoo.convert(tmp_path / "a.pt", tmp_path / "c.pt").lost
    assert not any("one tensor" in item for item in kept)
    found = torch.load(tmp_path / "c.pt", weights_only=True)
    assert found["a.weight"].data_ptr() == found["b.weight"].data_ptr()


def test_bad_requests_leave_nothing(tmp_path: pathlib.Path) -> None:
    source = write(tmp_path / "a.npz", state_dict())
    cases = [
        ((source, tmp_path / "b.xyz"), {}, UnsupportedFormatError, "unknown suffix"),
        ((source, tmp_path / "b.onnx"), {}, StateDictError, "fit no architecture"),
        ((source, tmp_path / "b.npz"), {"opset": 17}, ArgumentError, "opset"),
        ((source, tmp_path / "b.keras"), {}, UnsupportedFormatError, "--arch"),
        ((source, source), {}, ArgumentError, "same file"),
        ((source, tmp_path / "b.npz"), {"dtype": "int8"}, DTypeError, "floating"),
        ((source, tmp_path / "b.npz"), {"dtype": "bfloat16"}, UnsupportedFormatError, "NumPy files cannot hold"),
        ((source, tmp_path / "b.npz", "resnet18"), {}, StateDictError, "unexpected"),
        ((source, ""), {}, ArgumentError, "named by its path"),
    ]
    for arguments, options, error, message in cases:
        with pytest.raises(error, match=message):
            zoo.convert(*arguments, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]
    assert set(formats.read(source)) == set(state_dict())


def test_a_model_becomes_a_graph_and_weights_again(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "d.safetensors"
    zoo.load("digits").save(source)
    report = zoo.convert(source, tmp_path / "d.onnx", opset=15)
    assert (report.architecture, report.tensors, report.compared, report.agrees) == ("digitnet", 17, 17, True)
    assert report.lost == [
        "what the outputs do not depend on: " + ", ".join(f"bn{i}.num_batches_tracked" for i in (1, 2, 3))
    ]
    assert report.relative is not None
    assert report.relative < 1e-5
    x = np.random.default_rng(0).normal(size=(2, 1, 24, 24)).astype(np.float32)
    [found] = run(session_of(tmp_path / "d.onnx"), x)
    assert_equal(zoo.load("digits")(x), found)
    back = zoo.convert(tmp_path / "d.onnx", tmp_path / "e.safetensors")
    assert (back.architecture, back.compared, back.agrees) == ("digitnet", 17, True)
    assert zoo.load(tmp_path / "e.safetensors").run("examples/digit.png").label == "4"
    assert main(["convert", "digits", str(tmp_path / "f.onnx"), "--opset", "13", "--dtype", "float16"]) == 0
    assert "outputs agree" in capfd.readouterr().out
    assert not back.lost
    copy = zoo.convert(tmp_path / "d.onnx", tmp_path / "copy.onnx")
    assert (copy.compared, copy.agrees) == (17, True)
    assert copy.relative is not None
    assert copy.relative < 1e-6  # sums follow where the mapped arrays lie in memory


def test_a_target_without_suffix_is_a_folder(tmp_path: pathlib.Path) -> None:
    report = zoo.convert("digits", tmp_path / "folder")
    assert (report.target, report.relative) == (str(tmp_path / "folder" / "model.safetensors"), 0.0)
    assert zoo.load(tmp_path / "folder").run("examples/digit.png").label == "4"
    zoo.convert(write(tmp_path / "bare.pt", state_dict()), tmp_path / "bare")
    assert set(read(tmp_path / "bare" / "model.safetensors")) == set(state_dict())
    back = zoo.convert(tmp_path / "folder", tmp_path / "again.npz")
    assert (back.architecture, back.relative) == ("digitnet", 0.0)


def test_one_array_without_a_name(tmp_path: pathlib.Path) -> None:
    array = torch.arange(3.0)
    torch.save(array, tmp_path / "a.pt")
    report = zoo.convert(tmp_path / "a.pt", tmp_path / "b.npy")
    assert (report.compared, report.agrees) == (1, True)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), array.numpy())


def test_a_cast_graph_is_compared_with_the_original(tmp_path: pathlib.Path) -> None:
    report = zoo.convert("digits", tmp_path / "d.onnx", dtype="float16")
    x = np.random.default_rng(0).normal(size=(1, 1, 24, 24)).astype(np.float32)
    [found] = run(session_of(tmp_path / "d.onnx"), x.astype(np.float16))
    assert report.relative is not None
    assert 1e-5 < report.relative < 1e-2
    np.testing.assert_allclose(found, zoo.load("digits")(x), atol=0.05 * np.abs(found).max())


@pytest.mark.slow
def test_libraries_that_are_installed_are_witnesses(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import resnet_parity

    try:
        resnet_parity.torchvision_and_timm()
    except ImportError as error:
        pytest.skip(f"no oracle: {error}")
    import timm
    import torchvision

    torch.manual_seed(0)
    networks = {
        "torchvision": torchvision.models.resnet18(num_classes=5),
        "timm": timm.create_model("mobilenetv2_100", num_classes=5),
    }
    for library, network in networks.items():
        torch.save({"state_dict": network.state_dict()}, tmp_path / "a.pth")
        report = zoo.convert(tmp_path / "a.pth", tmp_path / "b.safetensors")
        assert list(report.originals) == [library]
        assert 0 < report.originals[library] < 1e-5
        assert f"verified: {library}'s outputs agree" in str(report)
    networks["torchvision"].bn1.eps = 0.1  # as a network would be that has the same names and another arithmetic
    monkeypatch.setattr(torchvision.models, "get_model", lambda *_, **__: networks["torchvision"])
    torch.save(networks["torchvision"].state_dict(), tmp_path / "a.pth")
    assert main(["convert", str(tmp_path / "a.pth"), str(tmp_path / "b.npz")]) == 1
    assert "torchvision's outputs DIFFER" in capfd.readouterr().out
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    report = zoo.convert(tmp_path / "a.pth", tmp_path / "b.npz")
    assert (report.originals, report.agrees) == ({}, True)


def test_the_owners_of_written_files_are_witnesses(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = zoo.convert("digits", tmp_path / "d.onnx")
    assert list(report.originals) == ["ONNX Runtime"]
    assert report.originals["ONNX Runtime"] < 1e-5
    pytest.importorskip("keras")
    for suffix in (".keras", ".h5"):
        report = zoo.convert("digits", tmp_path / f"d{suffix}")
        assert list(report.originals) == ["Keras"]
        assert report.originals["Keras"] < 1e-5
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = zoo.convert("digits", tmp_path / "d.onnx")
    assert (report.originals, report.notes, report.agrees) == ({}, [], True)


TINY = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
OF_TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForQuestionAnswering": ("Bert", TINY),
    "ElectraForSequenceClassification": ("Electra", {**TINY, "embedding_size": 16}),
    "GPT2LMHeadModel": ("GPT2", {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "LlamaForCausalLM": ("Llama", {**TINY, "tie_word_embeddings": True}),
    "T5ForConditionalGeneration": ("T5", {"vocab_size": 60, "d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4}),
    "ViTForImageClassification": ("ViT", {**TINY, "image_size": 32, "patch_size": 8}),
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_transformers_is_a_witness_of_its_folders(name: str, tmp_path: pathlib.Path) -> None:
    transformers: Any = pytest.importorskip("transformer_oracles").transformers
    family, sizes = OF_TRANSFORMERS[name]
    sizes = {key: value for key, value in sizes.items() if family != "ViT" or key != "vocab_size"}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    getattr(transformers, name)(config).save_pretrained(tmp_path / "source", max_shard_size="60KB")
    report = zoo.convert(tmp_path / "source", tmp_path / "target")
    assert list(report.originals) == ["transformers"], report
    assert report.originals["transformers"] < 1e-5
    if name != "GPT2LMHeadModel":
        return
    file = tmp_path / "source" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": ["Trainer"]}))
    assert not zoo.convert(tmp_path / "source", tmp_path / "again").originals  # nothing but networks is made
    report = zoo.convert(tmp_path / "target", tmp_path / "m.onnx")
    assert list(report.originals) == ["ONNX Runtime"]
    assert report.originals["ONNX Runtime"] < 1e-5


def test_darknet_and_back_is_the_same_file(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    original = assets / "yolo-fastest" / "yolo-fastest-1.1-xl.weights"
    for between in ("a.safetensors", "shards.safetensors.index.json"):
        zoo.convert(original, tmp_path / between, verify=False)
        zoo.convert(tmp_path / between, tmp_path / "b.weights", verify=False)
        assert (tmp_path / "b.weights").read_bytes() == original.read_bytes()


def test_a_bare_state_dict_as_layers_of_keras(tmp_path: pathlib.Path) -> None:
    import h5py

    torch.save({"a.b.weight": torch.arange(6.0).reshape(2, 3), "a.b.bias": torch.ones(2)}, tmp_path / "a.pt")
    report = zoo.convert(tmp_path / "a.pt", tmp_path / "b.h5")
    assert (report.compared, report.agrees) == (2, True)
    with h5py.File(tmp_path / "b.h5") as file:
        np.testing.assert_array_equal(file["a.b/weight"], np.arange(6.0).reshape(2, 3))


@pytest.mark.slow
def test_keras_applications_is_a_witness_of_its_weights(tmp_path: pathlib.Path) -> None:
    keras = pytest.importorskip("keras")
    for name, arch in (("MobileNetV2", "mobilenet_v2_keras"), ("MobileNetV3Small", "mobilenet_v3_small_keras")):
        getattr(keras.applications, name)(weights=None, classes=7).save(tmp_path / "a.h5")
        report = zoo.convert(tmp_path / "a.h5", tmp_path / "b.safetensors", arch=arch)
        assert list(report.originals) == ["keras.applications"]
        assert report.originals["keras.applications"] < 1e-5


@pytest.mark.slow
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: pathlib.Path) -> None:
    count, size = 24, 16 << 20  # 24 tensors of 64 MiB
    header = {
        f"t{i}": {"dtype": "F32", "shape": [size], "data_offsets": [4 * size * i, 4 * size * (i + 1)]}
        for i in range(count)
    }
    text = json.dumps(header).encode()
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 4 * size * count)
    program = (
        "import resource, sys; from zoonet import zoo\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "print(zoo.convert(sys.argv[1], sys.argv[2], dtype='float16').compared)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    for target in ("b.safetensors", "b.pt"):
        command = [sys.executable, "-c", program, str(tmp_path / "a.safetensors"), str(tmp_path / target)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        compared, kilobytes = result.stdout.split() or ("", "0")
        assert compared == str(count), result.stderr
        assert int(kilobytes) < 500_000  # the source has 1.6 GB; pages of mapped files count
