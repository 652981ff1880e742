"""Vision transformers: ViT (Dosovitskiy et al., arXiv:2010.11929) and DeiT (Touvron et al., arXiv:2012.12877).

Parameter names are timm's; `weights/vit_names.py` knows those of Hugging Face and torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.layers import Conv2d, LayerNorm, Linear, linear_or_none, undrawn
from zoonet.zoo.modules import Array, Module, sizes
from zoonet.zoo.transformers.blocks import Block, BlockConfig, Context, check_heads

_NAMES = {
    "norm1": "norm1",
    "query_key_value": "attn.qkv",
    "output": "attn.proj",
    "norm2": "norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a vision transformer. size: of the pictures that its positions are for; patch: of a patch, in pixels.

    distilled: a second token besides that of the class. heads_mean: that token has an output layer of its own, and the
    scores are the mean of both. hidden: 0 for 4 · width. projection_bias: of queries, keys and values.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    patch: int = 16
    size: int = 224
    distilled: bool = False
    heads_mean: bool = False
    hidden: int = 0
    classes: int = 1000
    channels: int = 3
    activation: str = "gelu"
    eps: float = 1e-6
    projection_bias: bool = True

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.size // self.patch


class PatchEmbedding(Module):
    """A vector for each patch: (N, channels, H, W) -> (N, H / patch · W / patch, width), row by row."""

    def __init__(self, config: ViTConfig) -> None:
        self.proj = Conv2d(config.channels, config.width, config.patch, config.patch, padding=0, bias=True)

    def forward(self, x: Array) -> Array:
        """(N, channels, H, W) -> (N, patches, width)."""
        y = self.proj(x)  # (N, width, H / patch, W / patch)
        batch, width, height, across = y.shape
        return ops.transpose(ops.reshape(y, (batch, width, height * across)), (0, 2, 1))


class ViT(Module):
    """Pictures (N, channels, H, W), H and W multiples of the patch -> scores (N, classes)."""

    def __init__(self, config: ViTConfig) -> None:
        check_heads(config.width, config.heads)
        if config.size % config.patch:
            raise ArgumentError(
                "patches do not divide the pictures", expected=f"a multiple of {config.patch}", received=config.size
            )
        self.config = config
        width, tokens = config.width, 2 if config.distilled else 1
        block = BlockConfig(
            width,
            config.heads,
            config.hidden or 4 * width,
            config.activation,
            partial(LayerNorm, eps=config.eps),
            _NAMES,
            config.heads,
            width // config.heads,
            pre_norm=True,
            projection_bias=config.projection_bias,
        )
        self.cls_token = undrawn(1, 1, width)
        if config.distilled:
            self.dist_token = undrawn(1, 1, width)
        self.pos_embed = undrawn(1, tokens + config.grid**2, width)
        self.patch_embed = PatchEmbedding(config)
        self.blocks = [Block(block) for _ in range(config.layers)]
        self.norm = LayerNorm(width, eps=config.eps)
        self.head = linear_or_none(width, config.classes)
        if config.heads_mean:
            self.head_dist = linear_or_none(width, config.classes)
        self._draw()

    @classmethod
    def fit(cls, config: ViTConfig, shapes: Mapping[str, Any]) -> ViTConfig:
        """The configuration with as many classes, channels and output layers as the arrays of a state dict have."""
        fitted = sizes(shapes, classes=("head.weight", 0), channels=("patch_embed.proj.weight", 1))
        has_both = "head_dist.weight" in shapes or not config.classes  # without classes timm takes the mean of features
        return replace(config, heads_mean=config.distilled and has_both, **fitted)

    @classmethod
    def resized(cls, config: ViTConfig, shapes: Mapping[str, Any]) -> ViTConfig:
        """The configuration for pictures of the size that the positions of a state dict are for."""
        positions = sizes(shapes, count=("pos_embed", 1)).get("count", 0) - (2 if config.distilled else 1)
        side = math.isqrt(max(positions, 0))
        fitted = cls.fit(config, shapes)
        return replace(fitted, size=side * config.patch) if side and side * side == positions else fitted

    def reset(self, rng: np.random.Generator) -> None:
        """Matrices, tokens and positions normal with deviation 0.02; biases zero."""

        def drawn(array: Array) -> Array:
            return rng.standard_normal(array.shape, np.float32) * np.float32(0.02)

        for _, module in self.named_modules():
            if isinstance(module, Linear):
                module.weight = drawn(module.weight)
                module.bias = None if module.bias is None else np.zeros_like(module.bias)
        self.cls_token, self.pos_embed = drawn(self.cls_token), drawn(self.pos_embed)
        if self.config.distilled:
            self.dist_token = drawn(self.dist_token)

    def forward(self, x: Array) -> Array:
        """(N, channels, H, W) -> (N, classes)."""
        config = self.config
        batch, _, height, width = x.shape
        if height % config.patch or width % config.patch:
            raise InputError(
                "the picture cannot be cut into patches",
                expected=f"height and width that are multiples of {config.patch}",
                received=f"{height}×{width}",
                fix=f"resize it, to {config.size}×{config.size} for example",
            )
        tokens = [self.cls_token, self.dist_token] if config.distilled else [self.cls_token]
        row = [ops.broadcast_to(token, (batch, 1, config.width)) for token in tokens]
        x = ops.concat([*row, self.patch_embed(x)], 1)  # (N, tokens + patches, width)
        x = x + self._positions(height // config.patch, width // config.patch)
        for block in self.blocks:
            x = block(x, Context())
        x = self.norm(x)
        scores = self.head(x[:, 0])
        return (scores + self.head_dist(x[:, 1])) / 2 if config.heads_mean else scores

    def _positions(self, height: int, width: int) -> Array:
        """(1, tokens + height · width, width): for other sizes between those of the grid, as timm interpolates."""
        grid = self.config.grid
        if (height, width) == (grid, grid):
            return self.pos_embed
        tokens = self.pos_embed.shape[1] - grid**2
        table = ops.reshape(self.pos_embed[:, tokens:], (1, grid, grid, self.config.width))
        table = ops.interpolate(ops.transpose(table, (0, 3, 1, 2)), (height, width), mode="bicubic", antialias=True)
        table = ops.reshape(ops.transpose(table, (0, 2, 3, 1)), (1, height * width, self.config.width))
        return ops.concat([self.pos_embed[:, :tokens], table], 1)


_TINY, _SMALL, _BASE = ViTConfig(192, heads=3), ViTConfig(384, heads=6), ViTConfig()
_LARGE = ViTConfig(1024, 24, 16)
_DISTILLED: dict[str, Any] = {"distilled": True, "heads_mean": True}

#: Published sizes by timm's names.
VITS: dict[str, ViTConfig] = {
    "vit_tiny_patch16_224": _TINY,
    "vit_tiny_patch16_384": replace(_TINY, size=384),
    "vit_small_patch16_224": _SMALL,
    "vit_small_patch16_384": replace(_SMALL, size=384),
    "vit_small_patch32_224": replace(_SMALL, patch=32),
    "vit_small_patch32_384": replace(_SMALL, patch=32, size=384),
    "vit_base_patch8_224": replace(_BASE, patch=8),
    "vit_base_patch16_224": _BASE,
    "vit_base_patch16_384": replace(_BASE, size=384),
    "vit_base_patch32_224": replace(_BASE, patch=32),
    "vit_base_patch32_384": replace(_BASE, patch=32, size=384),
    "vit_large_patch16_224": _LARGE,
    "vit_large_patch16_384": replace(_LARGE, size=384),
    "deit_tiny_patch16_224": _TINY,
    "deit_small_patch16_224": _SMALL,
    "deit_base_patch16_224": _BASE,
    "deit_base_patch16_384": replace(_BASE, size=384),
    "deit_tiny_distilled_patch16_224": replace(_TINY, **_DISTILLED),
    "deit_small_distilled_patch16_224": replace(_SMALL, **_DISTILLED),
    "deit_base_distilled_patch16_224": replace(_BASE, **_DISTILLED),
    "deit_base_distilled_patch16_384": replace(_BASE, size=384, **_DISTILLED),
}
