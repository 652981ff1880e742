"""Hugging Face's transformers with random weights beside ours."""

from __future__ import annotations

import importlib
from typing import Any

import resnet_parity
import torch

from zoonet.zoo.modules import initialised_by
from zoonet.zoo.transformers import gpt2, llama

resnet_parity.torchvision_and_timm()
transformers: Any = importlib.import_module("transformers")

SIZES: dict[str, Any] = {"vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 24}
DISTIL: dict[str, Any] = {"vocab_size": 37, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
DISTIL |= {"max_position_embeddings": 24}
GROUPED = {**SIZES, "num_key_value_heads": 2, "attn_implementation": "eager", "initializer_range": 0.3}


def drawn(network: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.3 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1) * 0.5)
    return network.eval()


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 12, "rope_theta": 50.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 50.0}
LONG: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": 4, "rope_theta": 50.0}
LONG |= {"short_factor": [1.0, 1.1] * 4, "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0]}
WIDE = {**GROUPED, "hidden_size": 64}  # more pairs, so that a scaling treats them differently
DECODERS = {
    "llama": ("Llama", GROUPED),
    "llama-tied-biased": ("Llama", {**GROUPED, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("Llama", {**WIDE, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "llama3": ("Llama", {**WIDE, "rope_parameters": LLAMA3}),
    "llama-yarn": ("Llama", {**WIDE, "rope_parameters": YARN}),
    "llama-longrope": ("Llama", {**WIDE, "rope_parameters": LONG}),
    "llama-longrope-short": ("Llama", {**WIDE, "rope_parameters": {**LONG, "original_max_position_embeddings": 24}}),
    "llama-dynamic": (
        "Llama",
        {
            **WIDE,
            "max_position_embeddings": 4,
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        },
    ),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 3}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen2-window": ("Qwen2", {**GROUPED, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 6}),
}


def decoder(name: str) -> tuple[Any, Any]:
    title, sizes = DECODERS[name]
    settings = getattr(transformers, f"{title}Config")(**sizes)
    theirs = drawn(getattr(transformers, f"{title}ForCausalLM")(settings))
    with initialised_by(None):
        ours = llama.LlamaForCausalLM(llama.LlamaConfig.from_json(settings.to_dict()))
    return ours, theirs


def gpt(**changes: Any) -> tuple[Any, Any]:
    settings = transformers.GPT2Config(vocab_size=37, n_embd=16, n_layer=2, n_head=4, n_positions=24, **changes)
    theirs = drawn(transformers.GPT2LMHeadModel(settings))
    with initialised_by(None):
        ours = gpt2.GPT2LMHeadModel(gpt2.GPT2Config.from_json(settings.to_dict()))
    return ours, theirs
