"""The catalog's entries, and how a catalog file is read.

Facts are compared with the frameworks' own metadata.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from zoonet import weights
from zoonet.ops.errors import FormatError, UnknownModelError
from zoonet.weights.registry import CATALOG, LABELS, build_index, read_catalog_file

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
ALL = weights.entries()


def test_every_network_names_who_made_it() -> None:
    unnamed = {entry.name for entry in ALL if not entry.citation}
    assert unnamed == {"resnet-preproc-v1-18.onnx_zoo"}  # steps before a network, in the zoo's own words
    assert all(metric.source and metric.dataset for entry in ALL for metric in entry.metrics)


def test_every_file_of_the_reference_has_an_entry() -> None:
    """The facts that the catalog was built from: every URL, hash and size of theirs is in ours."""
    facts_file = SHARED / "reference" / "registry_facts.json"
    if not facts_file.exists():
        pytest.skip("the folder shared/ is absent")
    import json

    facts = json.loads(facts_file.read_text())
    by_hash = {text: entry for entry in ALL for text in (*entry.sha256, *entry.md5)}
    for fact in facts["torchvision"]:
        entry = by_hash[fact.get("full_sha256") or fact["sha256_prefix"]]
        assert str(entry.sources[0]) == fact["url"]
        assert entry.parameters == fact.get("num_params", entry.parameters)
        published = {value for values in (fact.get("metrics") or {}).values() for value in values.values()}
        assert {metric.value for metric in entry.metrics} == published
    for fact in facts["onnx_zoo"]:
        assert by_hash[fact["sha256"]].size == fact["bytes"]
    for fact in facts["keras_applications"]:
        named = [entry for entry in ALL if str(entry.sources[0]) == fact["url"]]
        assert [entry.md5 for entry in named] == [(fact["hash"],) if fact["hash"] else ()]
    # Three timm files repeat weights that torchvision's entries of the same name already have.
    same = ("timm/vgg16.tv_in1k", "timm/densenet121.tv_in1k", "timm/inception_v3.tv_in1k")
    for fact in facts["hf"]:
        if fact["file"] == "model.safetensors" and fact["repo"] not in same:
            entry = by_hash[fact["sha256"]]
            assert (entry.size, entry.sources[0].location) == (fact["bytes"], fact["repo"])
            assert entry.sources[0].revision == (fact["revision"] or "main")
    urls = {str(source) for entry in ALL for source in entry.sources}
    assert {fact["url"] for fact in facts["yolox"] + facts["darknet"]} <= urls


@pytest.mark.parametrize(
    "family",
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"],
)
def test_names_that_the_issue_promises(family: str) -> None:
    assert weights.find(f"{family}.tv_in1k").architecture == family
    assert weights.find(family).name.startswith(f"{family}.tv")


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.tv2_in1k",
        "resnet50.a1_in1k",
        "resnet18.a1_in1k",
        "resnet50.keras_in1k",
        "resnet101.keras_in1k",
        "resnet152.keras_in1k",
        "bert-base-uncased",
        "gpt2",
        "distilgpt2",
        "all-MiniLM-L6-v2",
        "roberta-base",
        "distilbert-base-uncased",
        "distilbert-base-cased-distilled-squad",
        "bert-base-NER",
        "SmolLM2-135M",
        "TinyLlama-1.1B-Chat-v1.0",
        "Qwen2.5-0.5B-Instruct",
        "yolov3.coco",
        "yolox_nano.coco",
        "mobilenet_v2.tv_in1k",
        "mobilenet_v3_large.tv2_in1k",
        "mobilenet_v1.keras_in1k",
    ],
)
def test_more_names(name: str) -> None:
    assert weights.find(name).name == name
    assert weights.find(name.upper()).name == name


def test_fields_of_one_entry_by_hand() -> None:
    """Read in torchvision/models/resnet.py."""
    entry = weights.find("resnet50.tv_in1k")
    assert (entry.family, entry.tag, entry.task) == ("resnet50", "tv_in1k", "image-classification")
    assert (entry.parameters, entry.file_name) == (25557032, "resnet50-0676ba61.pth")
    preprocessing = entry.preprocessing
    assert preprocessing is not None
    assert (preprocessing.size, preprocessing.crop, preprocessing.interpolation) == (
        256,
        (224, 224),
        "bilinear",
    )
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert [(metric.name, metric.value) for metric in entry.metrics] == [("top-1", 76.13), ("top-5", 92.862)]
    assert entry.bytes_or_estimate == pytest.approx(25557032 * 4, rel=0.004)


def test_keras_resnet_says_how_it_differs() -> None:
    entry = weights.find("resnet50.keras_in1k")
    assert dict(entry.configuration) == {
        "num_classes": 1000,
        "stride_on_1x1": True,
        "convolution_bias": True,
        "batch_norm_epsilon": 1.001e-5,
    }
    assert entry.preprocessing is not None
    assert (entry.preprocessing.channels, entry.preprocessing.mean) == ("bgr", (103.939, 116.779, 123.68))


# Bytes a parameter takes where it is not 4: halves, and a file with two classifiers more than the network.
STORED = {"wide_resnet50_2.tv_in1k": 2, "wide_resnet101_2.tv_in1k": 2, "googlenet.tv_in1k": 7.87}


BFLOAT16 = ("SmolLM2-135M", "TinyLlama-1.1B-Chat-v1.0", "Qwen2.5-0.5B-Instruct")


def test_torchvision_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """URL, preprocessing and parameter count of every entry, against the installed torchvision."""
    if not (SHARED / "oracles.py").exists():
        pytest.skip("the folder shared/ is absent")
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(SHARED))
    pytest.importorskip("oracles", reason="torchvision is not installed", exc_type=Exception)
    from torchvision.models import get_model_weights, list_models

    published = {str(item.url): item for name in list_models() for item in get_model_weights(name)}
    compared = 0
    for entry in ALL:
        item = published.get(str(entry.sources[0]))
        if item is None:
            continue
        compared += 1
        assert entry.parameters == item.meta["num_params"]
        assert entry.size_mib == item.meta["_file_size"]
        # The checkpoint holds every parameter once, as float32, with little beside it.
        if entry.task == "image-classification":
            width = STORED.get(entry.name, 4)
            assert entry.size_mib * 2**20 == pytest.approx(entry.parameters * width, rel=0.05)
            transform = item.transforms()
            preprocessing = entry.preprocessing
            assert preprocessing is not None
            assert [preprocessing.size] == transform.resize_size
            assert preprocessing.crop is not None
            assert [preprocessing.crop[0]] == transform.crop_size
            assert preprocessing.interpolation == transform.interpolation.value
            assert [*preprocessing.mean, *preprocessing.std] == [*transform.mean, *transform.std]
            assert weights.label_names(entry.labels) == tuple(item.meta["categories"])
    assert compared == 142


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)
def test_entry_is_complete(entry: weights.Entry) -> None:
    assert entry.expected.has_hash or entry.note, "an entry without a hash says so"
    assert not entry.sha256 or entry.hash_origin
    assert entry.default is False or not entry.warning
    assert all(0 < metric.value <= 100 and metric.source for metric in entry.metrics)
    if entry.labels and "num_classes" in entry.configuration:
        assert len(weights.label_names(entry.labels)) == entry.configuration["num_classes"]
    if entry.preprocessing is not None:
        channels = 1 if entry.preprocessing.channels == "grey" else 3
        assert len(entry.preprocessing.mean) == len(entry.preprocessing.std) == channels
    if entry.sources[0].kind == "hugging-face" and entry.sources[0].revision == "main":
        assert entry.expected.full_sha256, "a moving revision needs a full hash"
    if entry.size is not None and entry.parameters is not None and entry.format == "safetensors":
        # GPT-2 files hold the causal mask of each layer too, 1024 x 1024 floats.
        masks = {"gpt2": 12, "distilgpt2": 6}.get(entry.name, 0) * 2**22
        width = 2 if entry.name in BFLOAT16 else 4
        assert entry.size == pytest.approx(entry.parameters * width + masks, rel=0.01)


def test_names_of_the_hub_have_no_tag() -> None:
    entry = weights.find("Qwen2.5-0.5B-Instruct")
    assert (entry.family, entry.tag) == ("Qwen2.5-0.5B-Instruct", "")
    assert [(e.family, e.tag) for e in weights.entries("resnet20.cifar10")] == [("resnet20", "cifar10")]
    with pytest.raises(UnknownModelError):
        weights.find("Qwen2.5-0")


def test_copyleft_is_never_a_default() -> None:
    assert not [entry.name for entry in ALL if re.match("A?GPL", entry.licence) and entry.default]
    swag = weights.find("vit_l_16.tv_swag_e2e_in1k")
    assert swag.licence == "CC-BY-NC-4.0"
    assert "not for commercial use" in swag.warning
    assert not weights.find("vit_l_16").warning


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnt50", "resnet50"),
        ("bert-base", "bert-base-uncased"),
        ("yolov3.cocoo", "yolov3.coco"),
        ("vgg", "vgg11"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, near: str) -> None:
    assert near in weights.suggest(name)
    with pytest.raises(UnknownModelError, match=re.escape(near)):
        weights.find(name)


def test_listing() -> None:
    names = [entry.name for entry in weights.entries("resnet50*", task="image-classification", format="torch")]
    assert names == ["resnet50.tv2_in1k", "resnet50.tv_in1k"]
    assert [entry.name for entry in weights.entries("gpt2")] == ["gpt2"]
    assert len(weights.entries(format="onnx")) == 184 + 7
    only = weights.entries(task="text-generation", architectures={"gpt2"})
    assert {"gpt2", "distilgpt2", "gpt2-10.onnx_zoo"} <= {entry.name for entry in only}
    assert {entry.architecture for entry in only if entry.format != "onnx"} == {"gpt2"}
    assert "object-detection" in weights.tasks()


def test_labels() -> None:
    imagenet = weights.label_names("imagenet-1k")
    assert (len(imagenet), imagenet[0], imagenet[281], imagenet[999]) == (
        1000,
        "tench",
        "tabby",
        "toilet tissue",
    )
    coco = weights.label_names("coco-80")
    assert (len(coco), coco[0], coco[16], coco[79]) == (80, "person", "dog", "toothbrush")
    assert weights.label_names("cifar-10")[3] == "cat"
    assert len(weights.label_names("voc-21")) == 21
    assert len(weights.label_names("kinetics-400")) == 400
    for path in LABELS.glob("*.txt"):
        assert path.read_text().startswith("# "), "each list says where it comes from"
    with pytest.raises(UnknownModelError, match="imagenet-1k"):
        weights.label_names("../catalog/keras")


def test_labels_agree_with_another_list() -> None:
    """The names that come with Google's test pictures:

    the same classes in the same order, after the background.
    """
    path = SHARED / "assets" / "photos" / "imagenet_labels.txt"
    if not path.exists():
        pytest.skip("the folder shared/ is absent")
    theirs = path.read_text().splitlines()[1:]
    ours = weights.label_names("imagenet-1k")
    same = sum(mine.lower().split(",")[0] in other.lower() for mine, other in zip(ours, theirs, strict=True))
    assert same > 850


GOOD = """
[entry."net.tag"]
architecture = "net"
task = "image-classification"
sources = ["https://example.org/net.pth"]
format = "torch"
vocabulary = "timm"
origin = "a test"
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("colour = 3", "'colour' is wrong.*unknown key"),
        ("size = -1", "'size' is wrong.*not below zero"),
        ("size = '1'", "'size' is wrong.*expected int"),
        ("parameters = true", "'parameters' is wrong"),
        ("sha256 = ['xyz']", "'sha256 or md5' is wrong.*'xyz'"),
        ("sha256 = ['ABCDEF0123']", "is wrong"),
        ("md5 = ['abcdef']", "is wrong"),
        ("preprocessing = 'nowhere'", "unknown preprocessing"),
        ("preprocessing = { resize = 'stretch' }", "preprocessing.resize.*'stretch'"),
        ("preprocessing = { colour = 1 }", "'preprocessing' is wrong"),
        ("metrics = [{ name = 'top-1' }]", "'metrics' is wrong"),
        ("companions = [{ sha256 = 'ab' }]", "'companions' is wrong"),
        ("default = true\nlicence = 'AGPL-3.0'", "copyleft weights are never a default"),
        ("[unknown]", "unknown tables"),
        ("this is not TOML", "cannot be read"),
    ],
)
def test_mistakes_in_a_catalog_name_their_place(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + change + "\n")
    with pytest.raises(FormatError, match=message) as caught:
        read_catalog_file(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sources", '["ftp://example.org/a"]'),
        ("sources", '["hf://org/name"]'),
        ("sources", '["package://a/../b"]'),
        ("sources", "[]"),
        ("format", '"zip"'),
        ("vocabulary", '"mine"'),
        ("task", "3"),
    ],
)
def test_wrong_values_in_a_catalog(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(re.sub(rf"^{key} = .*$", f"{key} = {value}", GOOD, flags=re.MULTILINE))
    with pytest.raises(FormatError, match=f"'net.tag', key '{key}' is wrong"):
        read_catalog_file(path)


def test_the_example_for_contributors_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    (entry,) = read_catalog_file(tmp_path / "mine.toml")
    assert (entry.architecture, [source.kind for source in entry.sources]) == ("resnet18", ["url", "hugging-face"])


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    entries = read_catalog_file(path)
    assert list(build_index(entries)) == ["net.tag"]
    with pytest.raises(FormatError, match="two entries of one name"):
        build_index(entries * 2)


def test_copyleft_weights_warn(tmp_path: Path, server: Any) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        GOOD.replace("https://example.org/net.pth", server.add("/net.pth", b"x")) + 'licence = "AGPL-3.0"\n'
    )
    (entry,) = read_catalog_file(path)
    with pytest.warns(weights.LicenceWarning, match="AGPL-3.0"), pytest.warns(weights.UnverifiedWarning):
        weights.fetch(entry)


def test_catalog_is_plain_toml_in_the_package() -> None:
    files = sorted(CATALOG.glob("*.toml"))
    assert len(files) >= 8
    total = sum(len(tomllib.loads(path.read_text())["entry"]) for path in files)
    assert total == len(ALL)
    pyproject = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())
    assert {"catalog/*.toml", "labels/*.txt"} <= set(pyproject["tool"]["setuptools"]["package-data"]["zoonet.weights"])


def test_import_is_light(python_environment: dict[str, str]) -> None:
    code = "import sys; from zoonet import weights; print([name for name in sys.modules if name in HEAVY])"
    heavy = ("requests", "urllib3", "filelock", "platformdirs", "tomllib", "zoonet.weights.download")
    process = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy!r}\n{code}"],
        env=python_environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.strip() == "[]"
