"""Every entry of the catalog that has a network agrees with it in shapes, without a network connection.

Published counts of parameters and sizes of files are the oracle: those of torchvision, timm, Keras and transformers.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet import ops, weights
from zoonet.formats import Checkpoint, LazyTensor
from zoonet.weights.names import in_our_names
from zoonet.zoo import architectures
from zoonet.zoo.modules import Module, compare_shapes
from zoonet.zoo.sources import changes_of, configuration_of, runs
from zoonet.zoo.tasks import make_task
from zoonet.zoo.transformers.pretrained import network_for

RUNNABLE = [entry for entry in weights.entries() if runs(entry)]
NETWORKS = [entry for entry in RUNNABLE if entry.format != "onnx"]
PICTURES = [entry for entry in NETWORKS if entry.task == "image-classification"]
DETECTORS = [entry for entry in NETWORKS if entry.task == "object-detection"]
TEXTS = [entry for entry in NETWORKS if entry.vocabulary == "hugging-face" and entry not in DETECTORS]
#: Bytes that a file has beside its arrays: names, headers, alignment; GPT-2's hold the causal masks of all layers.
BESIDE = {"gpt2": 12 << 22, "gpt2-medium": 24 << 22, "distilgpt2": 6 << 22}
#: In bfloat16 or float16.
HALVES = (
    "SmolLM2-135M",
    "TinyLlama-1.1B-Chat-v1.0",
    "Qwen2.5-0.5B-Instruct",
    "wide_resnet50_2.tv_in1k",
    "wide_resnet101_2.tv_in1k",
)


def count(network: Module) -> int:
    return sum(int(array.size) for _, array in network.named_parameters())


def nbytes(network: Module) -> int:
    return sum(int(array.nbytes) for _, array in network.named_parameters()) + sum(
        int(array.nbytes) for _, array in network.named_buffers()
    )


def built(entry: weights.Entry) -> Module:
    """The network of an entry, its parameters zero."""
    if entry in TEXTS:
        return network_for(entry.configuration)
    classes = {"classes": entry.configuration["num_classes"]} if entry in PICTURES else {}
    return architectures.build(entry.architecture, seed=None, **classes, **changes_of(entry))


def test_what_runs() -> None:
    names = {entry.name for entry in RUNNABLE}
    for depth in (18, 34, 50, 101, 152):
        assert f"resnet{depth}.tv_in1k" in names
    for name in ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"):
        assert {f"{name}.tv_in1k", f"{name}.tv2_in1k"} <= names
    assert {"wide_resnet101_2.tv2_in1k", "resnext101_64x4d.tv_in1k", "resnet18.a1_in1k", "resnet50.a1_in1k"} <= names
    assert {f"resnet{depth}.keras_in1k" for depth in (50, 101, 152)} <= names
    assert {f"mobilenet_v3_{size}.keras_in1k" for size in ("large", "large_075", "small", "small_075")} <= names
    assert {"mobilenet_v1.keras_in1k", "mobilenet_v2.keras_in1k", "mobilenetv3_small_100.lamb_in1k"} <= names
    assert {f"deit_{size}_patch16_224.fb_in1k" for size in ("tiny", "small", "base")} <= names
    assert {"rtdetr_r18vd.coco", "rtdetr_r50vd.coco"} <= names
    assert weights.find("rtdetr_r50vd").name == "rtdetr_r50vd.coco"
    assert {"bert-base-uncased", "gpt2", "distilgpt2", "all-MiniLM-L6-v2"} <= names
    assert sum(entry.format == "onnx" for entry in RUNNABLE) == 184 + 7
    assert not [entry.name for entry in RUNNABLE if "notop" in entry.name]


@pytest.mark.parametrize("entry", PICTURES, ids=lambda entry: entry.name)
def test_networks_of_pictures(entry: weights.Entry) -> None:
    classes = entry.configuration["num_classes"]
    network = built(entry)
    assert count(network) == entry.parameters
    size = entry.bytes_or_estimate
    if size is not None:
        stored = nbytes(network) // (2 if entry.name in HALVES else 1)
        # size_mib is rounded, to a tenth or, where three digits are published, to an integer
        assert -(600_000 if isinstance(entry.size_mib, int) else 60_000) < size - stored < 0.01 * stored + 50_000
    config: dict[str, Any] = configuration_of(entry)
    task: Any = make_task(entry.task, config, network, entry.architecture, entry.name, {})
    assert len(task.labels) == classes
    assert task.preprocessing.shape is not None
    settings, facts = network.config, entry.configuration  # type: ignore[attr-defined]
    if entry.architecture.startswith(("vit", "deit")):
        assert settings.eps == 1e-6  # torchvision's and timm's
        assert task.preprocessing.shape[1:] == (settings.size, settings.size)
        return
    assert getattr(settings, "stride_first", False) == facts.get("stride_on_1x1", False)
    assert getattr(settings, "bias", False) == facts.get("convolution_bias", False)
    assert getattr(settings, "eps", 1e-5) == facts.get("batch_norm_epsilon", 1e-5)
    if entry.vocabulary == "keras":
        same = facts.get("same_padding", False)
        assert getattr(settings, "padding", "both") == (
            "after" if "v1" in entry.architecture else "same" if same else "both"
        )
        if entry.architecture.startswith("mobilenet"):  # from 0…255 to -1…1, as preprocess_input or a layer does there
            ends = [task.preprocessing(Image.fromarray(np.full((9, 9, 3), level, np.uint8))) for level in (0, 255)]
            np.testing.assert_allclose([end.mean() for end in ends], [-1, 1], atol=1e-6)
    assert getattr(settings, "shortcut", "conv") == facts.get("shortcut", "conv")


#: Sizes of darknet's own files.
DARKNET = {
    "yolov2.coco": 203_934_260,
    "yolov3.coco": 248_007_048,
    "yolov3-tiny.coco": 35_434_956,
    "yolov4.coco": 257_717_640,
    "yolov4-tiny.coco": 24_251_276,
}

#: Scales and shifts of ResNet-50's 26,560 normalised channels, which torchvision freezes and does not count here.
FROZEN = {"fcos_resnet50_fpn.tv_coco": 2 * 26_560, "retinanet_resnet50_fpn.tv_coco": 2 * 26_560}
#: The same for transformers, which freezes those of RT-DETR's backbones: ResNet-18 and 50 with a stem of three layers.
FROZEN |= {"rtdetr_r18vd.coco": 2 * 4_928, "rtdetr_r50vd.coco": 2 * 26_624}


@pytest.mark.parametrize("entry", DETECTORS, ids=lambda entry: entry.name)
def test_detectors(entry: weights.Entry) -> None:
    network = built(entry)
    if entry.vocabulary == "yolox":  # published in millions, of three digits
        assert count(network) == pytest.approx(entry.parameters, rel=0.005)
    elif entry.vocabulary == "darknet":
        assert entry.size == DARKNET[entry.name]
        assert entry.size - nbytes(network) in (16, 20)  # a header, and every number once
    else:
        assert count(network) - FROZEN.get(entry.name, 0) == entry.parameters
    if entry.format == "safetensors":
        assert 0 < entry.size - nbytes(network) < 150 * len(network.state_dict())  # the header, a line for each array
    task: Any = make_task(entry.task, configuration_of(entry), network, entry.architecture, entry.name, {})
    assert tuple(task.labels) == weights.label_names(entry.labels)


def test_every_network_is_compared() -> None:
    assert {entry.name for entry in NETWORKS} == {entry.name for entry in [*PICTURES, *DETECTORS, *TEXTS]}


@pytest.mark.parametrize("entry", TEXTS, ids=lambda entry: entry.name)
def test_networks_of_texts(entry: weights.Entry) -> None:
    network = network_for(entry.configuration)
    assert entry.configuration["model_type"] == entry.architecture
    assert count(network) == entry.parameters
    assert {item.name for item in entry.companions if item.required} >= {"config.json"}
    if entry.size is None and entry.size_mib is not None:
        assert entry.bytes_or_estimate == pytest.approx(nbytes(network), rel=0.01)
    if entry.size is not None:
        # A file may hold parts that the task does not use, such as BERT's guess at the next sentence.
        stored = nbytes(network) // (2 if entry.name in HALVES else 1)
        assert 0 <= entry.size - stored - BESIDE.get(entry.name, 0) < 2_500_000


@pytest.mark.parametrize("entry", PICTURES, ids=lambda entry: entry.name)
def test_pictures_go_through(entry: weights.Entry) -> None:
    """A picture of the size that the entry's preprocessing makes gives a score for each label, by types alone."""
    network = built(entry)
    task: Any = make_task(entry.task, configuration_of(entry), network, entry.architecture, entry.name, {})
    graph = ops.trace(network, ops.tensor_type((1, *task.preprocessing.shape)))
    (scores,) = graph.outputs
    assert scores.type.shape == (1, len(task.labels))


OF_LIBRARIES = [
    entry
    for entry in NETWORKS
    if entry.vocabulary in ("torchvision", "timm", "hugging-face") and entry.name != "resnet20.cifar10"
]


def theirs(entry: weights.Entry) -> Any:
    """The network in the library that published it, without its numbers."""
    resnet_parity = pytest.importorskip("resnet_parity")
    try:
        resnet_parity.torchvision_and_timm()
    except ImportError as error:
        pytest.skip(f"no oracle: {error}")
    import timm
    import torch
    import torchvision

    with torch.device("meta"):
        if entry.vocabulary == "timm":
            return timm.create_model(entry.family)
        if entry.vocabulary == "torchvision":
            options: dict[str, Any] = {}
            if entry.family.startswith("vit") and entry.preprocessing is not None and entry.preprocessing.crop:
                options["image_size"] = entry.preprocessing.crop[0]
            if entry.task == "object-detection":
                options["weights_backbone"] = None
            return torchvision.models.get_model(entry.family, weights=None, **options)
        transformers = pytest.importorskip("transformer_oracles").transformers
        kind = getattr(transformers, entry.configuration["architectures"][0])
        facts = {k: v for k, v in entry.configuration.items() if k not in ("architectures", "model_type")}
        return kind(kind.config_class(**facts))


def described(array: Any) -> LazyTensor:
    def load() -> Any:
        raise AssertionError("shapes alone are compared")

    return LazyTensor(tuple(array.shape), np.dtype(str(array.dtype).removeprefix("torch.")), load)


@pytest.mark.parametrize("entry", OF_LIBRARIES, ids=lambda entry: entry.name)
def test_every_array_of_its_library(entry: weights.Entry) -> None:
    """Each has a place of its name and shape in our network, through the maps that loading uses, and none lacks one."""
    network = theirs(entry)
    if entry.vocabulary == "hugging-face" or entry.name not in FROZEN:
        assert sum(parameter.numel() for parameter in network.parameters()) == entry.parameters
    arrays = {name: described(array) for name, array in network.state_dict().items()}
    given = in_our_names(Checkpoint(arrays, {}, "torch"))
    own = built(entry).state_dict()
    misfits = compare_shapes(own, given)
    # Frozen normalisation counts no batches, and loading does not ask for that.
    frozen = entry.architecture.startswith("rtdetr")
    missing = [n for n in misfits.missing if not (frozen and n.endswith("num_batches_tracked"))]
    assert (missing, misfits.unexpected, misfits.wrong) == ([], [], {})
    assert {n for n in own.keys() & given.keys() if np.dtype(own[n].dtype).kind != given[n].dtype.kind} == set()


def test_how_many_are_compared_with_a_library() -> None:
    """The others are compared in test_mobilenet_names and test_keras_names, or by the sizes of darknet's files."""
    others = {entry.vocabulary for entry in NETWORKS if entry not in OF_LIBRARIES}
    assert others == {"keras", "darknet", "yolox", "torchvision"}
    assert len(OF_LIBRARIES) >= 60
    assert len(NETWORKS) >= 79


GRAPHS = [entry for entry in RUNNABLE if entry.format == "onnx" and "inputs" in entry.configuration]


def test_graphs_say_what_they_take() -> None:
    """Graphs have no network to agree with; their opset and inputs are known, and the opset is one that is read."""
    from zoonet.ops.sets.onnx.registry import DOMAINS

    assert len(GRAPHS) > 150
    for entry in GRAPHS:
        assert 0 < entry.configuration["opset"] <= DOMAINS[""]
        for text in entry.configuration["inputs"]:
            found = re.fullmatch(r"\S+ (?:tensor\((\w+)\)|seq\(tensor\((\w+)\)\))(?: \[.*\])?", text)
            assert found, text
            assert (found[1] or found[2]) in ("float", "int64", "uint8", "float16", "bool", "int32", "string")
