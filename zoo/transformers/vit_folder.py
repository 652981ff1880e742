"""Vision transformers in Hugging Face's config.json: the architecture of ours, and what differs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from zoonet.zoo.transformers.configurations import count, multiple, number
from zoonet.zoo.transformers.vit import VITS, ViTConfig

__all__ = ["architecture_of"]


def architecture_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The architecture whose sizes a config.json has, or the usual one, and the fields that it has otherwise.

    The numbers of classes and of output layers follow from the weights. Raises FormatError.
    """
    wanted = _config_of(config)
    sizes = ("width", "layers", "heads", "patch", "size", "distilled")
    same = (name for name, own in VITS.items() if all(getattr(own, s) == getattr(wanted, s) for s in sizes))
    name = next(same, "deit_base_distilled_patch16_224" if wanted.distilled else "vit_base_patch16_224")
    usual = VITS[name]
    names = [field.name for field in fields(ViTConfig) if field.name not in ("classes", "heads_mean")]
    return name, {key: getattr(wanted, key) for key in names if getattr(wanted, key) != getattr(usual, key)}


def _config_of(config: Mapping[str, Any]) -> ViTConfig:
    width, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    multiple("hidden_size and heads", width, heads)
    size, patch = count(config, "image_size", default=224), count(config, "patch_size", default=16)
    multiple("image_size and patch_size", size, patch)
    hidden = count(config, "intermediate_size")
    return ViTConfig(
        width=width,
        layers=count(config, "num_hidden_layers"),
        heads=heads,
        patch=patch,
        size=size,
        distilled=config.get("model_type") == "deit",
        hidden=0 if hidden == 4 * width else hidden,
        channels=count(config, "num_channels", default=3),
        activation=str(config.get("hidden_act", "gelu")),
        eps=number(config, "layer_norm_eps", 1e-12),
        projection_bias=config.get("qkv_bias", True) is not False,
    )
