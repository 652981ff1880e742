"""From llama2.c's checkpoints to Llama's names and layout.

llama2.c rotates features 2i and 2i + 1 together, Hugging Face's Llama i and i + D/2: rows of queries and keys move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet.ops.errors import FormatError
from zoonet.zoo.modules import initialised_by
from zoonet.zoo.transformers.llama import LlamaConfig, LlamaForCausalLM

Array = np.ndarray[Any, Any]
_LAYER = {
    "rms_att_weight": "input_layernorm",
    "wq": "self_attn.q_proj",
    "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj",
    "rms_ffn_weight": "post_attention_layernorm",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}


def _halves(weight: Array, heads: int) -> Array:
    """Rows of each head from (pair, member) to (member, pair): (heads · D, inputs) -> the same."""
    rows, inputs = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def config_of(metadata: Mapping[str, Any]) -> LlamaConfig:
    """The configuration that a checkpoint's header says."""
    return LlamaConfig(
        metadata["dim"],
        metadata["n_layers"],
        metadata["n_heads"],
        metadata["n_kv_heads"],
        metadata["hidden_dim"],
        metadata["vocab_size"],
        metadata["seq_len"],
        tied=bool(metadata["shared_classifier"]),
    )


def state_of(checkpoint: Mapping[str, Any], config: LlamaConfig) -> dict[str, Array]:
    """Arrays by Hugging Face's names, of a checkpoint read by `formats.read`."""
    arrays = {name: checkpoint[name].load() for name in (*_LAYER, "token_embedding_table", "rms_final_weight")}
    heads = {"wq": config.heads, "wk": config.key_value_heads}
    state = {
        "model.embed_tokens.weight": arrays["token_embedding_table"],
        "model.norm.weight": arrays["rms_final_weight"],
    }
    for layer in range(config.layers):
        for name, place in _LAYER.items():
            weight = arrays[name][layer]
            state[f"model.layers.{layer}.{place}.weight"] = _halves(weight, heads[name]) if name in heads else weight
    if not config.tied:
        state["lm_head.weight"] = checkpoint["wcls"].load()
    return state


def network_of(checkpoint: Any) -> LlamaForCausalLM:
    """The decoder of a llama2.c checkpoint read by `formats.read`. Raises FormatError for another format."""
    if checkpoint.format != "llama2c":
        raise FormatError("not a llama2.c checkpoint", expected="llama2c", received=checkpoint.format)
    config = config_of(checkpoint.metadata)
    with initialised_by(None):
        network = LlamaForCausalLM(config)
    network.load_state_dict(state_of(checkpoint, config))
    return network
