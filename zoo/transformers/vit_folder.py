"""Folders of vision transformers in Hugging Face's layout, as image classification models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoonet import formats
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import FormatError, ZoonetError
from zoonet.zoo.classification import ImageClassification, default_labels
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import initialised_by
from zoonet.zoo.preprocessing import ImagePreprocessing
from zoonet.zoo.transformers.configurations import count, multiple, number
from zoonet.zoo.transformers.pretrained import check_layers, read_config, weights_of
from zoonet.zoo.transformers.vit import VITS, ViT, ViTConfig
from zoonet.zoo.transformers.vit_names import renamed

#: model_type of config.json.
KINDS = ("vit", "deit")


def is_folder(path: Path) -> bool:
    """Whether a path is a folder whose config.json is that of a ViT or DeiT."""
    try:
        return path.is_dir() and (path / "config.json").is_file() and read_config(path).get("model_type") in KINDS
    except ZoonetError:
        return False


def config_of(fields: Mapping[str, Any], names: Mapping[str, Any]) -> ViTConfig:
    """The configuration of config.json's fields. names: a state dict by timm's names. Raises FormatError."""
    width, heads = count(fields, "hidden_size"), count(fields, "num_attention_heads")
    multiple("hidden_size and heads", width, heads)
    size, patch = count(fields, "image_size", default=224), count(fields, "patch_size", default=16)
    multiple("image_size and patch_size", size, patch)
    labels = fields.get("id2label")
    named = len(labels) if isinstance(labels, dict) and labels else count(fields, "num_labels", default=2)
    return ViTConfig(
        width,
        count(fields, "num_hidden_layers"),
        heads,
        patch,
        size,
        fields.get("model_type") == "deit",
        "head_dist.weight" in names,
        count(fields, "intermediate_size"),
        int(names["head.weight"].shape[0]) if "head.weight" in names else named,
        count(fields, "num_channels", default=3),
        str(fields.get("hidden_act", "gelu")),
        number(fields, "layer_norm_eps", 1e-12),
    )


def load(path: Path, *, device: str, dtype: Any, given: Mapping[str, Any]) -> Model:
    """The model in a folder of Hugging Face; see `zoonet.zoo.load`. given: labels and preprocessing."""
    fields = read_config(path)
    state = renamed(formats.read(weights_of(path)).original())
    check_layers(fields, state)
    config = config_of(fields, state)
    with initialised_by(None):
        network = ViT(config)
    network.load_state_dict(state)
    if dtype is not None:
        network.to(dtype=dtype)
    named = fields.get("id2label")
    labels = given.get("labels")
    if labels is None and isinstance(named, dict) and set(named) == {str(i) for i in range(config.classes)}:
        labels = [str(named[str(i)]) for i in range(config.classes)]
    preprocessing = given.get("preprocessing") or _preprocessing(path, config)
    task = ImageClassification(preprocessing, labels or default_labels(None, config.classes))
    usual = "deit_base_distilled_patch16_224" if config.distilled else "vit_base_patch16_224"
    return Model(network, _named(config) or usual, task, card=Card(path.name), device=device)


def _named(config: ViTConfig) -> str | None:
    """The architecture whose sizes these are, if there is one; a saved file says what else is different."""
    sizes = ("width", "layers", "heads", "patch", "size", "distilled")
    same = (name for name, own in VITS.items() if all(getattr(own, s) == getattr(config, s) for s in sizes))
    return next(same, None)


def _preprocessing(path: Path, config: ViTConfig) -> ImagePreprocessing:
    """What preprocessor_config.json says; ViT's own where there is none. Raises FormatError."""
    half = (0.5,) * config.channels
    file = path / "preprocessor_config.json"
    if not file.is_file():
        return ImagePreprocessing((config.size, config.size), None, half, half, "bilinear")
    fields = parse_json_object(file.read_bytes(), file.name)
    filters = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
    try:
        crop = _size(fields.get("crop_size", config.size)) if fields.get("do_center_crop") else None
        shape = _size(fields.get("size", config.size)) if fields.get("do_resize", True) else None
        mean, std = (tuple(map(float, fields.get(key, half))) for key in ("image_mean", "image_std"))
        if fields.get("do_normalize", True) is False:
            mean, std = (0.0,) * config.channels, (1.0,) * config.channels
        scale = float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0
        chosen = filters[int(fields.get("resample", 2))]
        crop = (crop, crop) if isinstance(crop, int) else crop
        return ImagePreprocessing(shape, crop, mean, std, chosen, "RGB" if config.channels == 3 else "L", scale)
    except (TypeError, ValueError, KeyError, ZoonetError) as error:
        raise FormatError(f"{file.name} is not understood", received=repr(error)[:200]) from error


def _size(value: Any) -> int | tuple[int, int]:
    """224 and {"height": 224, "width": 224} are exact, {"shortest_edge": 256} is the shorter side."""
    if isinstance(value, dict) and "shortest_edge" in value:
        return int(value["shortest_edge"])
    pair = (value["height"], value["width"]) if isinstance(value, dict) else (value, value)
    return int(pair[0]), int(pair[1])
