"""RT-DETR (Zhao et al., 2023): a convolutional network, a hybrid encoder, and a decoder that refines boxes.

Source: arXiv:2304.08069; parameter names are those of the checkpoints in Hugging Face's layout (PekingU/rtdetr_*,
Apache-2.0). Deformable attention: Zhu et al., 2020 (arXiv:2010.04159).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.zoo.detection.decoding import QueriesDecoder
from zoonet.zoo.detection.preprocessing import DetectionPreprocessing
from zoonet.zoo.detectors.rtdetr_backbone import RTDetrResNet, RTDetrResNetConfig
from zoonet.zoo.layers import BatchNorm2d, Conv2d, Embedding, LayerNorm, Linear, Sequential
from zoonet.zoo.modules import Array, Module, sizes

_HEADS, _POINTS, _LEVELS = 8, 4, 3


@dataclass(frozen=True)
class RTDetrConfig:
    """backbone: the convolutional network. width: of all tokens. inner: of the feed-forward layers of the encoder.

    expansion: of the blocks that mix scales. layers: of the decoder. queries: boxes that it refines.
    """

    backbone: RTDetrResNetConfig = RTDetrResNetConfig()  # noqa: RUF009, frozen
    width: int = 256
    inner: int = 1024
    expansion: float = 1.0
    layers: int = 6
    queries: int = 300
    classes: int = 80
    channels: int = 3
    size: int = 640


class Attention(Module):
    """Attention among tokens, whose queries and keys know positions: (N, T, width) -> the same."""

    def __init__(self, width: int) -> None:
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (Linear(width, width) for _ in range(4))

    def forward(self, x: Array, positions: Array) -> Array:
        """(N, T, width), (N or 1, T, width) -> (N, T, width)."""
        placed = x + positions

        def heads(y: Array) -> Array:
            return ops.transpose(ops.reshape(y, (*y.shape[:2], _HEADS, -1)), (0, 2, 1, 3))

        query, key, value = heads(self.q_proj(placed)), heads(self.k_proj(placed)), heads(self.v_proj(x))
        y = ops.scaled_dot_product_attention(query, key, value)  # (N, heads, T, width / heads)
        return self.out_proj(ops.reshape(ops.transpose(y, (0, 2, 1, 3)), tuple(x.shape)))


class EncoderLayer(Module):
    """Attention and a feed-forward layer, each with the input added and normalised: (N, T, width) -> the same."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.self_attn, self.self_attn_layer_norm = Attention(config.width), LayerNorm(config.width)
        self.fc1, self.fc2 = Linear(config.width, config.inner), Linear(config.inner, config.width)
        self.final_layer_norm = LayerNorm(config.width)

    def forward(self, x: Array, positions: Array) -> Array:
        """(N, T, width) -> (N, T, width)."""
        x = self.self_attn_layer_norm(x + self.self_attn(x, positions))
        return self.final_layer_norm(x + self.fc2(ops.gelu(self.fc1(x))))


class Within(Module):
    """Attention within one map, whose places are sines and cosines: (N, width, H, W) -> the same."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.layers = [EncoderLayer(config)]

    def forward(self, x: Array) -> Array:
        """(N, width, H, W) -> (N, width, H, W)."""
        n, width, down, across = x.shape
        positions = sine_positions(down, across, width).astype(x.dtype)
        tokens = ops.transpose(ops.reshape(x, (n, width, down * across)), (0, 2, 1))
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return ops.reshape(ops.transpose(tokens, (0, 2, 1)), (n, width, down, across))


def sine_positions(height: int, width: int, features: int, temperature: float = 10_000.0) -> np.ndarray[Any, Any]:
    """(1, H·W, features): sines and cosines of rows, then of columns, at features / 4 frequencies."""
    frequencies = temperature ** -(np.arange(features // 4) / (features // 4))
    rows, columns = np.divmod(np.arange(height * width), width)
    parts = [wave(np.outer(places, frequencies)) for places in (rows, columns) for wave in (np.sin, np.cos)]
    result: np.ndarray[Any, Any] = np.concatenate(parts, 1)[None]
    return result


class ConvNorm(Module):
    """Convolution, batch norm and perhaps SiLU: (N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, activation: bool = True) -> None:
        self.conv, self.norm = Conv2d(inputs, outputs, kernel, stride), BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: Array) -> Array:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = self.norm(self.conv(x))
        return ops.silu(y) if self.activation else y


class RepBlock(Module):
    """3×3 beside 1×1: (N, C, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        self.conv1 = ConvNorm(channels, channels, 3, activation=False)
        self.conv2 = ConvNorm(channels, channels, 1, activation=False)

    def forward(self, x: Array) -> Array:
        """(N, C, H, W) -> (N, C, H, W)."""
        return ops.silu(self.conv1(x) + self.conv2(x))


class Fusion(Module):
    """Two maps, one after the other on the channels, mixed: (N, 2·width, H, W) -> (N, width, H, W)."""

    def __init__(self, config: RTDetrConfig) -> None:
        hidden = int(config.width * config.expansion)
        self.conv1, self.conv2 = ConvNorm(2 * config.width, hidden, 1), ConvNorm(2 * config.width, hidden, 1)
        self.bottlenecks = Sequential(*(RepBlock(hidden) for _ in range(3)))
        self.conv3 = None if hidden == config.width else ConvNorm(hidden, config.width, 1)

    def forward(self, x: Array) -> Array:
        """(N, 2·width, H, W) -> (N, width, H, W)."""
        y = self.bottlenecks(self.conv1(x)) + self.conv2(x)
        return y if self.conv3 is None else self.conv3(y)


class HybridEncoder(Module):
    """Attention on the coarsest map, then scales mixed from coarse to fine and back."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.encoder = [Within(config)]
        self.lateral_convs = [ConvNorm(config.width, config.width, 1) for _ in range(2)]
        self.fpn_blocks = [Fusion(config) for _ in range(2)]
        self.downsample_convs = [ConvNorm(config.width, config.width, 3, 2) for _ in range(2)]
        self.pan_blocks = [Fusion(config) for _ in range(2)]

    def forward(self, fine: Array, middle: Array, coarse: Array) -> list[Array]:
        """Three maps (N, width, …) -> three of the same shapes."""
        tops = [self.encoder[0](coarse)]
        for k, below in enumerate((middle, fine)):
            tops[-1] = self.lateral_convs[k](tops[-1])
            larger = ops.interpolate(tops[-1], size=(int(below.shape[2]), int(below.shape[3])))
            tops.append(self.fpn_blocks[k](ops.concat([larger, below], 1)))
        found = [tops.pop()]
        for k in range(2):
            smaller = self.downsample_convs[k](found[-1])
            found.append(self.pan_blocks[k](ops.concat([smaller, tops.pop()], 1)))
        return found


class Deformable(Module):
    """Attention of queries to a few places around their boxes: (N, Q, width) -> the same."""

    def __init__(self, width: int) -> None:
        places = _HEADS * _LEVELS * _POINTS
        self.sampling_offsets, self.attention_weights = Linear(width, 2 * places), Linear(width, places)
        self.value_proj, self.output_proj = Linear(width, width), Linear(width, width)
        self._draw()

    def reset(self, rng: np.random.Generator) -> None:
        """The places start on rays around the box's center, one per head; weights start equal."""
        angles = np.arange(_HEADS) * (2 * math.pi / _HEADS)
        rays = np.stack([np.cos(angles), np.sin(angles)], -1)
        rays /= np.abs(rays).max(-1, keepdims=True)
        steps = np.tile(rays[:, None, None], (1, _LEVELS, _POINTS, 1)) * np.arange(1, _POINTS + 1)[:, None]
        self.sampling_offsets.bias = steps.reshape(-1).astype(np.float32)
        for layer in (self.sampling_offsets, self.attention_weights):
            layer.weight = np.zeros(layer.weight.shape, np.float32)
        self.attention_weights.bias = np.zeros(self.attention_weights.weight.shape[0], np.float32)

    def forward(self, x: Array, memory: Array, boxes: Array, shapes: Any) -> Array:
        """(N, Q, width), tokens (N, S, width), boxes (N, Q, 4) in fractions, heights and widths -> (N, Q, width)."""
        n, queries, width = x.shape
        offsets = ops.reshape(self.sampling_offsets(x), (n, queries, _HEADS, _LEVELS, _POINTS, 2))
        weights = ops.softmax(ops.reshape(self.attention_weights(x), (n, queries, _HEADS, _LEVELS * _POINTS)), -1)
        center, side = (ops.reshape(part, (n, queries, 1, 1, 1, 2)) for part in (boxes[..., :2], boxes[..., 2:]))
        grid = 2.0 * (center + offsets * (0.5 / _POINTS) * side) - 1.0
        value = ops.reshape(self.value_proj(memory), (n, memory.shape[1], _HEADS, width // _HEADS))
        found, start = [], 0
        for level, (down, across) in enumerate(shapes):
            part = ops.transpose(value[:, start : start + down * across], (0, 2, 3, 1))
            part = ops.reshape(part, (n * _HEADS, width // _HEADS, down, across))
            places = ops.transpose(grid[:, :, :, level], (0, 2, 1, 3, 4))
            found.append(ops.grid_sample(part, ops.reshape(places, (n * _HEADS, queries, _POINTS, 2))))
            start += down * across
        weights = ops.reshape(ops.transpose(weights, (0, 2, 1, 3)), (n * _HEADS, 1, queries, _LEVELS * _POINTS))
        y = ops.sum(ops.concat(found, 3) * weights, 3)  # (N·heads, width / heads, Q)
        return self.output_proj(ops.transpose(ops.reshape(y, (n, width, queries)), (0, 2, 1)))


class DecoderLayer(Module):
    """Attention among queries, to the maps, and a feed-forward layer: (N, Q, width) -> the same."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.self_attn, self.self_attn_layer_norm = Attention(256), LayerNorm(256)
        self.encoder_attn, self.encoder_attn_layer_norm = Deformable(256), LayerNorm(256)
        self.fc1, self.fc2, self.final_layer_norm = Linear(256, 1024), Linear(1024, 256), LayerNorm(256)

    def forward(self, x: Array, positions: Array, memory: Array, boxes: Array, shapes: Any) -> Array:
        """(N, Q, width) -> (N, Q, width)."""
        x = self.self_attn_layer_norm(x + self.self_attn(x, positions))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x + positions, memory, boxes, shapes))
        return self.final_layer_norm(x + self.fc2(ops.relu(self.fc1(x))))


class MLP(Module):
    """Linear layers with ReLU between them: (…, inputs) -> (…, outputs)."""

    def __init__(self, *widths: int) -> None:
        self.layers = [Linear(a, b) for a, b in pairwise(widths)]

    def forward(self, x: Array) -> Array:
        """(…, inputs) -> (…, outputs)."""
        for layer in self.layers[:-1]:
            x = ops.relu(layer(x))
        return self.layers[-1](x)


class Decoder(Module):
    """Queries and their boxes, refined layer by layer."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.layers = [DecoderLayer(config) for _ in range(config.layers)]
        self.query_pos_head = MLP(4, 512, 256)
        self.class_embed = [Linear(256, config.classes) for _ in range(config.layers)]
        self.bbox_embed = [MLP(256, 256, 256, 4) for _ in range(config.layers)]

    def forward(self, x: Array, memory: Array, boxes: Array, shapes: Any) -> tuple[Array, Array]:
        """Queries (N, Q, 256), tokens, boxes (N, Q, 4) -> logits (N, Q, classes), boxes (N, Q, 4) in fractions."""
        for k, layer in enumerate(self.layers):
            x = layer(x, self.query_pos_head(boxes), memory, boxes, shapes)
            refined = ops.sigmoid(self.bbox_embed[k](x) + _logit(boxes))
            boxes = ops.stop_gradient(refined)
        return self.class_embed[-1](x), refined


def _logit(x: Array) -> Array:
    """The inverse of the sigmoid, kept finite."""
    x = ops.clip(x, 0.0, 1.0)
    return ops.log(ops.clip(x, 1e-5, 1.0) / ops.clip(1.0 - x, 1e-5, 1.0))


class Backbone(Module):
    """The convolutional network under the name that checkpoints give it."""

    def __init__(self, config: RTDetrConfig) -> None:
        self.model = RTDetrResNet(config.backbone, config.channels)

    def forward(self, x: Array) -> Any:
        """(N, 3, H, W) -> maps at strides 8, 16, 32."""
        return self.model(x)


def _projection(inputs: int, outputs: int) -> Sequential:
    return Sequential(Conv2d(inputs, outputs, 1), BatchNorm2d(outputs))


class Core(Module):
    """All of the network."""

    def __init__(self, config: RTDetrConfig) -> None:
        self._queries = config.queries
        self.backbone = Backbone(config)
        self.encoder_input_proj = [_projection(c, config.width) for c in config.backbone.widths[1:]]
        self.encoder = HybridEncoder(config)
        self.denoising_class_embed = Embedding(config.classes + 1, 256)  # of training alone
        self.enc_output = Sequential(Linear(256, 256), LayerNorm(256))
        self.enc_score_head, self.enc_bbox_head = Linear(256, config.classes), MLP(256, 256, 256, 4)
        self.decoder_input_proj = [_projection(config.width, 256) for _ in range(_LEVELS)]
        self.decoder = Decoder(config)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, H, W) -> (N, queries, classes), (N, queries, 4)."""
        pairs = zip(self.encoder_input_proj, self.backbone(x), strict=True)
        maps = self.encoder(*(layer(y) for layer, y in pairs))
        maps = [layer(y) for layer, y in zip(self.decoder_input_proj, maps, strict=True)]
        shapes = [(int(y.shape[2]), int(y.shape[3])) for y in maps]
        flat = [ops.transpose(ops.reshape(y, (*y.shape[:2], y.shape[2] * y.shape[3])), (0, 2, 1)) for y in maps]
        memory = ops.concat(flat, 1)  # (N, S, 256)
        anchors, valid = anchors_of(shapes)
        tokens = self.enc_output(memory * valid.astype(memory.dtype))
        scores = self.enc_score_head(tokens)
        places = self.enc_bbox_head(tokens) + anchors.astype(memory.dtype)
        best = ops.topk(ops.max(scores, -1), min(self._queries, int(memory.shape[1])), 1)[1]
        rows = ops.expand_dims(best, -1)  # (N, queries, 1)
        boxes = ops.stop_gradient(ops.sigmoid(ops.take_along_axis(places, rows, 1)))
        queries = ops.stop_gradient(ops.take_along_axis(tokens, rows, 1))
        logits, refined = self.decoder(queries, memory, boxes, shapes)
        return logits, refined


def anchors_of(shapes: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits (1, S, 4) of a box in each cell, 0.05 of the picture at the finest map and twice as large at each further
    one; and which are not too near to the edges (1, S, 1)."""
    parts = []
    for level, (down, across) in enumerate(shapes):
        rows, columns = np.divmod(np.arange(down * across), across)
        side = np.full(down * across, 0.05 * 2.0**level)
        parts.append(np.stack([(columns + 0.5) / across, (rows + 0.5) / down, side, side], 1))
    boxes = np.concatenate(parts)[None]
    valid: np.ndarray[Any, Any] = np.all((boxes > 0.01) & (boxes < 0.99), axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(boxes / (1 - boxes))
    return np.where(valid, logits, np.finfo(np.float32).max), valid


class RTDetr(Module):
    """Pictures (N, 3, H, W), sides multiples of 32 -> logits (N, queries, classes), boxes (N, queries, 4).

    Boxes are center, width and height in fractions of the input.
    """

    thresholds = (0.5, 0.45)
    size_multiple = 32

    def __init__(self, config: RTDetrConfig) -> None:
        self.config = config
        self.model = Core(config)
        self._draw()

    @classmethod
    def fit(cls, config: RTDetrConfig, shapes: Mapping[str, Any]) -> RTDetrConfig:
        """The configuration with as many classes as the arrays of a state dict have."""
        return replace(config, **sizes(shapes, classes=("model.enc_score_head.bias", 0)))

    def reset(self, rng: np.random.Generator) -> None:
        """Scores start at 1 in as many as there are classes; boxes start where the encoder proposes them."""
        bias = -math.log(self.config.classes)
        for layer in (self.model.enc_score_head, *self.model.decoder.class_embed):
            layer.bias = np.full(layer.weight.shape[0], bias, np.float32)
        for mlp in (self.model.enc_bbox_head, *self.model.decoder.bbox_embed):
            last = mlp.layers[-1]
            last.weight, last.bias = np.zeros(last.weight.shape, np.float32), np.zeros(4, np.float32)

    @property
    def decoder(self) -> QueriesDecoder:
        """What the outputs mean."""
        return QueriesDecoder(self.config.classes)

    @property
    def preprocessing(self) -> DetectionPreprocessing:
        """Stretched RGB from 0 to 1."""
        return DetectionPreprocessing(size=(self.config.size, self.config.size), keep=False)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """(N, 3, H, W) -> (N, queries, classes), (N, queries, 4)."""
        logits, boxes = self.model(x)
        return logits, boxes


_SMALL = (64, 128, 256, 512)
#: Every variant by name.
RTDETRS: dict[str, RTDetrConfig] = {
    "rtdetr_r18vd": RTDetrConfig(RTDetrResNetConfig((2, 2, 2, 2), _SMALL, False), expansion=0.5, layers=3),
    "rtdetr_r34vd": RTDetrConfig(RTDetrResNetConfig((3, 4, 6, 3), _SMALL, False), expansion=0.5, layers=4),
    "rtdetr_r50vd": RTDetrConfig(),
    "rtdetr_r101vd": RTDetrConfig(RTDetrResNetConfig((3, 4, 23, 3)), width=384, inner=2048),
}
