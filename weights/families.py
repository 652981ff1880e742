"""Families of transformers told from the names of a state dict, and their sizes from its shapes.

A network of any size of these families has the same names, so sizes can be said where no architecture of a table fits.
What shapes do not tell (the number of heads of most) is said too: config.json has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Found", "family_of"]

_HEADS = "the number of heads, which shapes do not tell, stands in config.json"


@dataclass(frozen=True)
class Found:
    """What a state dict is of. sizes: by what they count. unknown: what names and shapes do not tell, or ""."""

    family: str
    vocabulary: str
    sizes: Mapping[str, int]
    unknown: str

    def __str__(self) -> str:
        """Such as "BERT, Hugging Face names: 2 layers, width 64, 99 words; the number of heads, …"."""
        counted = ("layers", "words", "positions", "classes", "heads")
        parts = [f"{n} {what}" if what in counted else f"{what} {n}" for what, n in self.sizes.items() if n]
        text = f"{self.family}, {self.vocabulary} names: {', '.join(parts)}"
        return f"{text}; {self.unknown}" if self.unknown else text


@dataclass(frozen=True)
class _Family:
    """layer: pattern of the name of one array of each layer, numbered by its first group; what stands before is a
    prefix. sizes: by what they count, (pattern of a name, axis); {0} stands for the number of a layer. name: a function
    of the names without prefix and of sizes, or the name itself. heads: an array and the axis whose size they are.
    """

    name: str | Callable[[Mapping[str, Any]], str]
    vocabulary: str
    layer: str
    sizes: Mapping[str, tuple[str, int]]
    heads: tuple[str, int] | None = None


def _of_bert(state: Mapping[str, Any]) -> str:
    for family, title in (("roberta", "RoBERTa"), ("electra", "ELECTRA"), ("bert", "BERT")):
        if any(re.search(rf"(^|\.){family}\.", name) for name in state):
            return title
    types = next((a for n, a in state.items() if n.endswith("embeddings.token_type_embeddings.weight")), None)
    return "RoBERTa" if types is not None and tuple(types.shape)[:1] == (1,) else "BERT"


def _of_llama(state: Mapping[str, Any]) -> str:
    ends = {re.sub(r".*layers\.\d+\.", "", name) for name in state}
    if "pre_feedforward_layernorm.weight" in ends:
        return "Gemma 3" if "self_attn.q_norm.weight" in ends else "Gemma 2"
    if "self_attn.q_norm.weight" in ends:
        return "Qwen 3"
    return "Qwen 2" if "self_attn.q_proj.bias" in ends else "Llama or a network of the same arrays (Mistral, Gemma)"


_WORDS = {
    "words": (r"embeddings\.word_embeddings\.weight", 0),
    "positions": (r"embeddings\.position_embeddings\.weight", 0),
}
_CLASSES = {"classes": (r"(?:^|\.)classifier(?:\.out_proj)?\.weight", 0)}
_FAMILIES = (
    _Family(
        _of_bert,
        "Hugging Face",
        r"encoder\.layer\.(\d+)\.attention\.self\.query\.weight",
        {"width": (r"attention\.self\.query\.weight", 1), "inner width": (r"\d\.intermediate\.dense\.weight", 0)}
        | _WORDS
        | _CLASSES,
    ),
    _Family(
        "MPNet",
        "Hugging Face",
        r"encoder\.layer\.(\d+)\.attention\.attn\.q\.weight",
        {"width": (r"attention\.attn\.q\.weight", 1), "inner width": (r"\d\.intermediate\.dense\.weight", 0)} | _WORDS,
        (r"relative_attention_bias\.weight", 1),
    ),
    _Family(
        "DistilBERT",
        "Hugging Face",
        r"transformer\.layer\.(\d+)\.attention\.q_lin\.weight",
        {"width": (r"attention\.q_lin\.weight", 1), "inner width": (r"\d\.ffn\.lin1\.weight", 0)} | _WORDS | _CLASSES,
    ),
    _Family(
        "GPT-2",
        "Hugging Face",
        r"h\.(\d+)\.attn\.c_attn\.weight",
        {
            "width": (r"attn\.c_attn\.weight", 0),
            "inner width": (r"mlp\.c_fc\.weight", 1),
            "words": (r"(?:^|\.)wte\.weight", 0),
            "positions": (r"(?:^|\.)wpe\.weight", 0),
        },
    ),
    _Family(
        _of_llama,
        "Hugging Face",
        r"layers\.(\d+)\.self_attn\.o_proj\.weight",
        {
            "width": (r"self_attn\.o_proj\.weight", 0),
            "inner width": (r"mlp\.down_proj\.weight", 1),
            "width of keys": (r"self_attn\.k_proj\.weight", 0),
            "words": (r"(?:^|\.)embed_tokens\.weight", 0),
        },
    ),
    _Family(
        lambda state: "T5 v1.1" if any(".wi_0." in name for name in state) else "T5",
        "Hugging Face",
        r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.q\.weight",
        {
            "width": (r"SelfAttention\.q\.weight", 1),
            "inner width": (r"DenseReluDense\.wo\.weight", 1),
            "words": (r"(?:^|\.)shared\.weight", 0),
        },
        (r"relative_attention_bias\.weight", 1),
    ),
    _Family(
        "vision transformer (ViT)",
        "timm",
        r"blocks\.(\d+)\.attn\.qkv\.weight",
        {
            "width": (r"attn\.qkv\.weight", 1),
            "inner width": (r"mlp\.fc1\.weight", 0),
            "patch": (r"patch_embed\.proj\.weight", 3),
            "positions": (r"(?:^|\.)pos_embed", 1),
            "classes": (r"(?:^|\.)head\.weight", 0),
        },
    ),
)


def family_of(state: Mapping[str, Any]) -> Found | None:
    """The family and the sizes of a state dict (names to anything with a shape), whatever stands before its names.

    None where it is of none of them. Layers are counted by their arrays, never by a number in a name.
    """
    for family in _FAMILIES:
        layers = {found[1] for name in state if (found := re.search(family.layer + "$", name))}
        if not layers:
            continue
        sizes = {"layers": len(layers)}
        sizes |= {what: size for what, (name, axis) in family.sizes.items() if (size := _size(state, name, axis))}
        heads = _size(state, *family.heads) if family.heads is not None else 0
        name = family.name if isinstance(family.name, str) else family.name(state)
        return Found(name, family.vocabulary, sizes | {"heads": heads}, "" if heads else _HEADS)
    return None


def _size(state: Mapping[str, Any], pattern: str, axis: int) -> int:
    for name, array in state.items():
        if len(array.shape) > axis and re.search(pattern + "$", name):
            return int(array.shape[axis])
    return 0
