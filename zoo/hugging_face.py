"""Folders of image models as on the Hugging Face hub: config.json of transformers' ResNet and ViT, and of timm.

Each becomes the configuration that `zoonet.zoo.storage` keeps beside weights: architecture, changes of its
configuration, preprocessing and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import ArgumentError, FormatError, UnsupportedFormatError
from zoonet.zoo import architectures
from zoonet.zoo.preprocessing import IMAGENET_MEAN, IMAGENET_STD, ImagePreprocessing
from zoonet.zoo.transformers.configurations import count, number
from zoonet.zoo.transformers.vit_folder import architecture_of

__all__ = ["IMAGE_TYPES", "configuration_of"]

_LARGEST = 64 << 20
#: Resampling by PIL's numbers, in which preprocessor_config.json writes it.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def configuration_of(folder: Path) -> dict[str, Any]:
    """What a folder's config.json says of an image model, as a configuration of ours; {} if it is of another kind.

    Raises FormatError for values that make no network, UnsupportedFormatError for options that ours has not.
    """
    config = _read(folder / "config.json")
    try:
        return _configuration(config, folder)
    except ArgumentError as error:  # of ImagePreprocessing
        raise FormatError(f"{folder.name}: {error.message}", expected=error.expected, received=error.received) from None


def _configuration(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in IMAGE_TYPES:
        return IMAGE_TYPES[kind](config, _read(folder / "preprocessor_config.json"))
    if isinstance(config.get("architecture"), str) and (
        isinstance(config.get("pretrained_cfg"), dict) or "mean" in config
    ):
        return _timm(config)
    return {}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST:
        raise FormatError(f"{path.name} is too large", expected=f"at most {_LARGEST} bytes")
    return dict(parse_json_object(path.read_bytes(), path.name))


# -- transformers ------------------------------------------------------------------------------------------------


def _transformers_resnet(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model_type "resnet": the first architecture of its blocks, and in what it differs."""
    kind = config.get("layer_type", "bottleneck")
    if kind not in ("basic", "bottleneck"):
        raise FormatError("config.json: layer_type is wrong", expected="basic or bottleneck", received=repr(kind)[:100])
    _only(config, "hidden_act", "relu")
    _only(config, "downsample_in_first_stage", False)
    width = count(config, "embedding_size", default=64)
    depths, sizes = _counts(config, "depths", (3, 4, 6, 3)), _counts(config, "hidden_sizes", (256, 512, 1024, 2048))
    ends = tuple(width * (4 if kind == "bottleneck" else 1) << stage for stage in range(len(depths)))
    if len(sizes) != len(depths) or (kind == "bottleneck" and any(n % 4 for n in sizes)):
        raise UnsupportedFormatError(
            "config.json: a ResNet of these widths is not in the zoo",
            expected="one of hidden_sizes for each of depths, of bottlenecks a multiple of 4",
            received=list(sizes),
        )
    wanted = {
        "blocks": depths,
        "bottleneck": kind == "bottleneck",
        "width": width,
        "widths": () if sizes == ends else sizes,
        "channels": count(config, "num_channels", default=3),
        "stride_first": config.get("downsample_in_bottleneck") is True,
    }
    name, changes = _nearest_resnet(wanted)
    labels = _labels(config.get("id2label"))
    return {
        "architecture": name,
        "configuration": changes,
        **({"labels": labels} if labels else {}),
        **({"preprocessing": _of_processor(processor).to_config()} if processor else {}),
    }


def _transformers_mobilenet(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model_type "mobilenet_v1" or "mobilenet_v2" as TensorFlow's weights are."""
    second = config["model_type"] == "mobilenet_v2"
    usual: dict[str, Any] = {"hidden_act": "relu6", "tf_padding": True, "layer_norm_eps": 0.001, "min_depth": 8}
    if second:
        usual |= {"depth_divisible_by": 8, "expand_ratio": 6, "output_stride": 32, "first_layer_is_expansion": True}
    for key, value in usual.items():
        _only(config, key, value)
    width = number(config, "depth_multiplier", 1.0)
    if second and width < 1:
        _only(config, "finegrained_output", True)
    labels = _labels(config.get("id2label"))
    channels = count(config, "num_channels", default=3)
    return {
        "architecture": "mobilenet_v2_keras" if second else "mobilenetv1_tf",
        "configuration": {"width": width, "channels": channels},
        **({"labels": labels} if labels else {}),
        **({"preprocessing": _of_processor(processor, channels).to_config()} if processor else {}),
    }


def _transformers_vit(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model_type "vit" or "deit"; without preprocessor_config.json as ViT's own processor."""
    name, changes = architecture_of(config)
    size, channels = count(config, "image_size", default=224), count(config, "num_channels", default=3)
    half = [0.5] * channels
    given = {"image_processor_type": "ViT", "size": size, "image_mean": half, "image_std": half, **processor}
    labels = _labels(config.get("id2label"))
    return {
        "architecture": name,
        "configuration": changes,
        **({"labels": labels} if labels else {}),
        "preprocessing": _of_processor(given, channels).to_config(),
    }


def _transformers_rtdetr(config: Mapping[str, Any], processor: Mapping[str, Any]) -> dict[str, Any]:
    """Of a model_type "rt_detr" or "rt_detr_v2", which are one network: the architecture of the same sizes.

    Pictures are stretched, from 0 to 1.
    """
    from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
    from zoonet.zoo.detectors.rtdetr import RTDETRS

    backbone = config.get("backbone_config")
    inner: Mapping[str, Any] = backbone if isinstance(backbone, dict) else {}
    wanted = {
        "blocks": _counts(inner, "depths", (3, 4, 6, 3)),
        "widths": _counts(inner, "hidden_sizes", (256, 512, 1024, 2048)),
        "bottleneck": inner.get("layer_type", "bottleneck") == "bottleneck",
        "width": count(config, "encoder_hidden_dim", default=256),
        "inner": count(config, "encoder_ffn_dim", default=1024),
        "expansion": number(config, "hidden_expansion", 1.0),
        "layers": count(config, "decoder_layers", default=6),
    }
    for key, value in (("encoder_layers", 1), ("num_feature_levels", 3), ("decoder_n_points", 4), ("d_model", 256)):
        _only(config, key, value)
    _only(config, "learn_initial_query", False)
    _only(config, "decoder_method", "default")
    _only(config, "decoder_offset_scale", 0.5)
    sizes = {name: {**vars(known.backbone), **vars(known)} for name, known in RTDETRS.items()}
    found = [name for name, known in sizes.items() if known | wanted == known]
    if not found:
        raise UnsupportedFormatError(
            "config.json: an RT-DETR of these sizes is not in the zoo", expected=", ".join(RTDETRS), received=wanted
        )
    size = processor.get("size", {"height": 640, "width": 640})
    normal = processor.get("do_normalize") is True
    where = "preprocessor_config.json"
    preprocessing = DetectionPreprocessing(
        size=_pair(size, where),
        keep=False,
        mean=_three(processor, "image_mean", IMAGENET_MEAN, where) if normal else (0.0, 0.0, 0.0),
        std=_three(processor, "image_std", IMAGENET_STD, where) if normal else (1.0, 1.0, 1.0),
        scale=number(processor, "rescale_factor", 1 / 255) if processor.get("do_rescale", True) is not False else 1.0,
    )
    labels = _labels(config.get("id2label"))
    return {
        "architecture": found[0],
        "configuration": {"queries": count(config, "num_queries", default=300)},
        **({"labels": labels} if labels else {}),
        "preprocessing": {"kind": "detection", **preprocessing.to_config()},
    }


def _nearest_resnet(wanted: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The plain ResNet that a configuration is of, or one that differs in fewest fields, and those fields."""
    best: tuple[str, dict[str, Any]] | None = None
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet26"):
        usual = architectures.find(name)[1]
        changes = {key: value for key, value in wanted.items() if getattr(usual, key) != value}
        if best is None or len(changes) < len(best[1]):
            best = name, changes
    assert best is not None
    return best


def _only(config: Mapping[str, Any], key: str, value: object) -> None:
    if config.get(key, value) != value:
        raise UnsupportedFormatError(
            f"config.json: {key} is not what the zoo's network does", expected=value, received=repr(config[key])[:100]
        )


def _counts(config: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = config.get(key, list(default))
    if (
        not isinstance(value, list)
        or not 0 < len(value) < 9
        or not all(type(n) is int and 0 < n < 1 << 16 for n in value)
    ):
        raise FormatError(f"config.json: {key} is wrong", expected="positive integers", received=repr(value)[:100])
    return tuple(value)


def _labels(names: Any) -> list[str]:
    """The values of id2label in the order of its keys; [] where it is none."""
    if not isinstance(names, dict) or not all(str(index) in names for index in range(len(names))):
        return []
    found = [names[str(index)] for index in range(len(names))]
    return found if all(isinstance(label, str) for label in found) else []


def _of_processor(config: Mapping[str, Any], channels: int = 3) -> ImagePreprocessing:
    """preprocessor_config.json: the image processors of ConvNext (which ResNets use), ViT, BiT and their kin."""
    where = "preprocessor_config.json"
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    size = config.get("size", 224)
    edge: Any = size.get("shortest_edge") if isinstance(size, dict) else size
    exact = _pair(size, where) if isinstance(size, dict) and "height" in size else None
    crop = None
    if config.get("do_center_crop") and "crop_size" in config:
        crop = _pair(config["crop_size"], where)
    if exact is None and (type(edge) is not int or not 0 < edge < 1 << 15):
        raise FormatError(
            f"{where}: size is wrong", expected="shortest_edge, or height and width", received=repr(size)[:100]
        )
    resize: Any = exact or edge
    if kind.startswith("ConvNext") and exact is None:
        # Small pictures are cut from a larger resize, large ones are resized to a square.
        share = number(config, "crop_pct", 224 / 256)
        if not 0.05 <= share <= 1:
            raise FormatError(f"{where}: crop_pct is wrong", expected="0.05 to 1", received=share)
        resize, crop = (int(edge / share), (edge, edge)) if edge < 384 else ((edge, edge), None)
    elif kind.startswith(("ViT", "DeiT")) and exact is None:
        resize = (edge, edge)
    normal = config.get("do_normalize", True) is not False
    return ImagePreprocessing(
        resize=resize if config.get("do_resize", True) is not False else None,
        crop=crop,
        mean=(_three(config, "image_mean", IMAGENET_MEAN, where) if normal else (0.0, 0.0, 0.0))[:channels],
        std=(_three(config, "image_std", IMAGENET_STD, where) if normal else (1.0, 1.0, 1.0))[:channels],
        channels="L" if channels == 1 else "RGB",
        interpolation=_resampling(config.get("resample", 2)),
        scale=number(config, "rescale_factor", 1 / 255) if config.get("do_rescale", True) is not False else 1.0,
    )


def _resampling(value: Any) -> str:
    if type(value) is not int or value not in _RESAMPLING:
        raise FormatError("preprocessor_config.json: resample is wrong", expected="0 to 5", received=repr(value)[:100])
    return _RESAMPLING[value]


def _pair(size: Any, where: str) -> tuple[int, int]:
    values: Any = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if not all(type(value) is int and 0 < value < 1 << 15 for value in values):
        raise FormatError(f"{where}: a size is wrong", expected="height and width", received=repr(size)[:100])
    return values[0], values[1]


def _three(config: Mapping[str, Any], key: str, default: tuple[float, ...], where: str) -> tuple[float, ...]:
    values = config.get(key, list(default))
    right = isinstance(values, list) and len(values) in (1, 3)
    if not right or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e6 for v in values):
        raise FormatError(f"{where}: {key} is wrong", expected="three numbers", received=repr(values)[:100])
    return tuple(float(v) for v in values) * (3 // len(values))


# -- timm --------------------------------------------------------------------------------------------------------


#: timm's names of networks that have another name here.
_TIMM_NAMES = {"mobilenetv2_100": "mobilenet_v2"}


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's config.json: architecture and pretrained_cfg (older files have its entries at the top).

    An architecture that the zoo lacks raises UnsupportedFormatError with the nearest.
    """
    name = _TIMM_NAMES.get(config["architecture"], config["architecture"])
    if name not in architectures.names():
        raise UnsupportedFormatError(
            f"config.json: timm's {architectures.shortened(name)!r} is not in the zoo",
            fix=architectures.nearest(name, architectures.names()),
        )
    given = config.get("pretrained_cfg")
    settings: Mapping[str, Any] = given if isinstance(given, dict) else config
    preprocessing = _of_timm(settings)
    labels = config.get("label_names", settings.get("label_names"))
    words = config.get("label_descriptions", settings.get("label_descriptions"))
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        described = words if isinstance(words, dict) else {}
        labels = [text if isinstance(text := described.get(label), str) else label for label in labels]
    else:
        labels = []
    licence = settings.get("license")
    return {
        "architecture": name,
        "preprocessing": preprocessing.to_config(),
        **({"labels": labels} if labels else {}),
        **({"card": {"licence": licence}} if isinstance(licence, str) else {}),
    }


def _of_timm(settings: Mapping[str, Any]) -> ImagePreprocessing:
    """The evaluation transform of a pretrained_cfg, at the size of training, as timm itself chooses."""
    where = "config.json"
    shape = settings.get("input_size", [3, 224, 224])
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n < 1 << 14 for n in shape):
        raise FormatError(f"{where}: input_size is wrong", expected="[3, height, width]", received=repr(shape)[:100])
    if shape[0] != 3 or (shape[1] != shape[2] and settings.get("crop_mode", "center") != "squash"):
        raise UnsupportedFormatError(
            f"{where}: pictures of this input_size", expected="three channels and a square", received=shape
        )
    size, share = (shape[1], shape[2]), number(settings, "crop_pct", 0.875)
    if not 0.05 <= share <= 1:
        raise FormatError(f"{where}: crop_pct is wrong", expected="0.05 to 1", received=share)
    options: dict[str, Any] = {
        "mean": _three(settings, "mean", IMAGENET_MEAN, where),
        "std": _three(settings, "std", IMAGENET_STD, where),
        "interpolation": settings.get("interpolation", "bilinear"),
    }
    mode = settings.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise UnsupportedFormatError(f"{where}: this crop_mode", expected="center or squash", received=repr(mode)[:100])
    usual = ImagePreprocessing.from_crop_pct(size[0], share, **options)
    if mode == "center":
        return usual
    return replace(usual, resize=(int(size[0] / share), int(size[1] / share)), crop=size)


#: By model_type of transformers: what makes a configuration of config.json and preprocessor_config.json.
IMAGE_TYPES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "mobilenet_v1": _transformers_mobilenet,
    "mobilenet_v2": _transformers_mobilenet,
    "resnet": _transformers_resnet,
    "rt_detr": _transformers_rtdetr,
    "rt_detr_v2": _transformers_rtdetr,
    "vit": _transformers_vit,
    "deit": _transformers_vit,
}
