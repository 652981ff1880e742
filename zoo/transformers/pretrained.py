"""Folders in Hugging Face's layout: config.json and weights to a network, and back.

Names in checkpoints are the networks' own; a checkpoint of the encoder alone lacks or has the family's prefix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.formats.files import atomic_path, check_path
from zoonet.formats.json_data import parse_json_object
from zoonet.ops.errors import ArgumentError, FormatError, MissingFileError, UnsupportedFormatError
from zoonet.weights.source import WEIGHTS
from zoonet.zoo.hugging_face import IMAGE_TYPES
from zoonet.zoo.modules import Module, initialised_by
from zoonet.zoo.transformers import t5
from zoonet.zoo.transformers.bert import FAMILIES, HEADS, BertConfig, BertModel, BertWithHead
from zoonet.zoo.transformers.configurations import count
from zoonet.zoo.transformers.gpt2 import GPT2Config, GPT2LMHeadModel
from zoonet.zoo.transformers.llama import CLASSES, LlamaConfig, LlamaForCausalLM

#: Every model_type of config.json that there is a network for.
MODEL_TYPES = ("gpt2", "xlm-roberta", *CLASSES, *t5.CLASSES, *FAMILIES)
#: Arrays of old checkpoints that are computed, not learned.
_COMPUTED = (".attn.bias", ".attn.masked_bias", "embeddings.position_ids", "embeddings.token_type_ids", "inv_freq")


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The folder's config.json. Raises MissingFileError, FormatError."""
    return parse_json_object(check_path(Path(os.fsdecode(folder)) / "config.json").read_bytes(), "config.json")


def network_for(config: Mapping[str, Any], head: str | None = None) -> Module:
    """A network without weights for the fields of a config.json.

    head: of an encoder, a key of HEADS; what `architectures` says where None, else the encoder alone. Raises
    UnsupportedFormatError for a model_type that is not known, FormatError for fields that make no network.
    """
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise UnsupportedFormatError(
            "config.json: a model_type that zoonet does not have",
            expected=", ".join([*MODEL_TYPES, *IMAGE_TYPES]),
            received=repr(kind)[:100],
        )
    with initialised_by(None):
        if kind == "gpt2":
            return GPT2LMHeadModel(GPT2Config.from_json(config))
        if kind in t5.CLASSES:
            return t5.T5(t5.T5Config.from_json(config))
        if kind in CLASSES:
            return LlamaForCausalLM(LlamaConfig.from_json(config))
        chosen = head or _head_of(config)
        settings = BertConfig.from_json(config)
        return BertModel(settings) if chosen == "embedding" else BertWithHead(settings, chosen)


def _head_of(config: Mapping[str, Any]) -> str:
    classes = config.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes and isinstance(classes[0], str) else ""
    # BERT's own "ForPreTraining" is a masked language model and a guess at the next sentence
    ends = {**HEADS, "discriminator": "ElectraForPreTraining", "embedding": "Model"}
    return next((head for head, end in ends.items() if name.endswith(end)), "embedding")


def read_network(folder: str | os.PathLike[str], head: str | None = None, classes: int | None = None) -> Module:
    """The network in a folder, with its weights: safetensors or pytorch_model.bin, in one file or several.

    head: see `network_for`. classes: of a head that is drawn anew where the weights have none for as many. Raises
    MissingFileError where a file is not there, StateDictError where weights do not fit.
    """
    place = Path(os.fsdecode(folder))
    config = read_config(place)
    if classes is not None:
        config = {**config, "id2label": {str(number): "" for number in range(classes)}}
    checkpoint = formats.read(weights_of(place))
    check_layers(config, checkpoint)
    network = network_for(config, head)
    load_weights(network, checkpoint, fresh=classes is not None)
    return network


def check_layers(config: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
    """Raise FormatError where config.json has more layers than the weights have tensors, before they are made."""
    names = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_decoder_layers")
    if max(count(config, name, default=0, least=0) for name in names) > len(checkpoint):
        raise FormatError("config.json has more layers than the weights", expected=f"{len(checkpoint)} tensors in all")


def weights_of(folder: Path) -> Path:
    """The file of the weights in a folder, or the index of several. Raises MissingFileError."""
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise MissingFileError(f"{folder} has no weights", expected=" or ".join(WEIGHTS))
    return path


def load_weights(network: Module, checkpoint: formats.Checkpoint, *, fresh: bool = False) -> None:
    """Put a checkpoint's arrays into a network, with or without the family's prefix ("bert.", "transformer.").

    Old names of layer norms (gamma, beta) are taken; heads that the network lacks are left out. fresh: a head that the
    checkpoint lacks is drawn, always the same. Raises StateDictError.
    """
    original = checkpoint.original()
    given = {_modern(name): tensor for name, tensor in original.items() if not name.endswith(_COMPUTED)}
    own = network.state_dict()
    if isinstance(network, BertModel):
        prefix = f"{network.config.family}."
        given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
        given = {name: tensor for name, tensor in given.items() if name in own}
        if "pooler.dense.weight" not in given:  # trained without: the first position is not pooled
            vars(network).pop("pooler", None)
    elif isinstance(network, GPT2LMHeadModel) and "wte.weight" in given:
        given = {f"transformer.{name}": tensor for name, tensor in given.items()}
    elif isinstance(network, LlamaForCausalLM) and "embed_tokens.weight" in given:
        given = {f"model.{name}": tensor for name, tensor in given.items()}
    elif isinstance(network, BertWithHead):
        prefix = f"{network.config.family}."
        if not any(name.startswith(prefix) for name in given):  # of the encoder alone
            given = {prefix + name: tensor for name, tensor in given.items()}
        given = {name: tensor for name, tensor in given.items() if name in own}
        if fresh:
            given |= _drawn_head(network, given)
    _check_ties(own, given)
    network.load_state_dict(given)


def _drawn_head(network: BertWithHead, given: Mapping[str, Any]) -> dict[str, formats.LazyTensor]:
    """Arrays of the head, and of the pooler before it, that are not given or have another shape."""
    rng = np.random.default_rng(0)
    encoder, result = f"{network.config.family}.", {}
    for name, module in network.named_modules():
        if name and (not name.startswith(encoder) or ".pooler." in name):
            module.reset(rng)
            for key, array in module.state_dict().items():
                whole = f"{name}.{key}"
                if whole not in given or tuple(given[whole].shape) != tuple(array.shape):
                    result[whole] = formats.as_lazy(array)
    return result


def _check_ties(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise FormatError where arrays differ that are one in the network, such as an embedding and an output layer."""
    first: dict[int, str] = {}
    for name, array in own.items():
        if name not in given:
            continue
        other = first.setdefault(id(array), name)
        same = other == name or (given[name].identity is not None and given[name].identity == given[other].identity)
        if not same and not np.array_equal(given[name].load(), given[other].load()):
            raise FormatError(
                "the weights have two arrays where the network has one",
                received=f"{other} and {name}, which differ",
                fix='check "tie_word_embeddings" of config.json',
            )


def _modern(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def write_network(network: Module, folder: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
    """Write config.json and model.safetensors, which transformers' from_pretrained loads.

    extra: further fields of config.json (id2label, token numbers). A tied output layer is written once.
    """
    fields = config_fields(network)
    place = Path(os.fsdecode(folder))
    place.mkdir(parents=True, exist_ok=True)
    formats.write(formats.Checkpoint(_lazy(network), {"format": "pt"}), place / "model.safetensors")
    with atomic_path(place / "config.json") as temporary:
        temporary.write_text(json.dumps({**fields, **(extra or {})}, indent=2) + "\n")


def config_fields(network: Module) -> dict[str, Any]:
    """The fields of config.json for a network. Raises ArgumentError for one that has none."""
    if isinstance(network, BertWithHead):
        return network.config.to_json(network.head)
    if isinstance(network, BertModel | GPT2LMHeadModel | LlamaForCausalLM | t5.T5):
        return network.config.to_json()
    raise ArgumentError("not a transformer that has a config.json", received=type(network).__name__)


def _lazy(network: Module) -> dict[str, Any]:
    own = network.state_dict()
    once = dict(network.named_parameters())
    return {name: formats.as_lazy(array) for name, array in own.items() if name in once}
