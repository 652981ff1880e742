"""Vision transformers of others: names of Hugging Face and torchvision to timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet.formats import LazyTensor

_HUGGING_FACE = (
    (r"(vit|deit)\.", ""),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"encoder\.layer\.", "blocks."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.attention\.", "attn."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layernorm\.", "norm."),
    (r"(cls_)?classifier\.", "head."),
    (r"distillation_head\.", "head_dist."),
)
#: Names that networks of transformers 5 have in memory, in those of its files.
_IN_MEMORY = (
    (r"(?<![a-z_])layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"mlp\.fc1\.", "intermediate.dense."),
    (r"mlp\.fc2\.", "output.dense."),
)
_TORCHVISION = (
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj", "patch_embed.proj"),
    (r"encoder\.layers\.encoder_layer_", "blocks."),
    (r"encoder\.ln\.", "norm."),
    (r"ln_([12])", r"norm\1"),
    (r"self_attention\.in_proj_", "attn.qkv."),
    (r"self_attention\.out_proj", "attn.proj"),
    (r"mlp\.(0|linear_1)\.", "mlp.fc1."),
    (r"mlp\.(3|linear_2)\.", "mlp.fc2."),
    (r"heads\.head", "head"),
)


def renamed(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict of Hugging Face's or torchvision's ViT under timm's names; any other as it is.

    Values are arrays or lazy tensors; queries, keys and values become one matrix.
    """
    if _is_of_hugging_face(state):
        given = {_published(name): state[name] for name in state}
        return _joined({_replaced(name, _HUGGING_FACE): tensor for name, tensor in given.items()})
    if _is_of_torchvision(state):
        return {_replaced(name, _TORCHVISION): tensor for name, tensor in state.items()}
    return state


def _published(name: str) -> str:
    for pattern, new in _IN_MEMORY:
        name = re.sub(pattern, new, name)
    return name.replace("distillation_classifier", "distillation_head")


def is_foreign_vit(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is of Hugging Face's or torchvision's ViT."""
    return _is_of_hugging_face(state) or _is_of_torchvision(state)


def _is_of_hugging_face(state: Mapping[str, Any]) -> bool:
    return any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in state)


def _is_of_torchvision(state: Mapping[str, Any]) -> bool:
    return "conv_proj.weight" in state and "class_token" in state


def _replaced(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        name = re.sub(rf"(?<![a-z_]){pattern}", new, name, count=1)
    return name


def _joined(state: Mapping[str, Any]) -> dict[str, Any]:
    """attn.query, attn.key and attn.value as attn.qkv."""
    result: dict[str, Any] = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)", name)
        if found is None:
            result[name] = tensor
            continue
        start, role, kind = found.groups()
        parts = [state.get(f"{start}{other}.{kind}") for other in ("query", "key", "value")]
        if role == "query" and all(part is not None and part.shape == tensor.shape for part in parts):
            result[f"{start}qkv.{kind}"] = _stacked(parts)
        elif any(part is None for part in parts):
            result[name] = tensor  # the message about what is missing names it
    return result


def _stacked(parts: list[Any]) -> Any:
    if not isinstance(parts[0], LazyTensor):
        return np.concatenate(parts)
    shape = (3 * parts[0].shape[0], *parts[0].shape[1:])
    return LazyTensor(shape, parts[0].dtype, lambda: np.concatenate([part.load() for part in parts]))
