"""Models on text in files: folders in Hugging Face's layout and llama2.c checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoonet import formats
from zoonet.formats.files import atomic_path
from zoonet.formats.json_data import parse_json, parse_json_object
from zoonet.ops.errors import ArgumentError, MissingFileError, UnsupportedFormatError, ZoonetError
from zoonet.zoo.hugging_face import IMAGE_TYPES
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module
from zoonet.zoo.tasks import make_task
from zoonet.zoo.text import build
from zoonet.zoo.text.tasks import network_kind
from zoonet.zoo.text.tokenizer import Tokenizer, read_tokenizer
from zoonet.zoo.transformers import llama2c
from zoonet.zoo.transformers.bert import HEADS
from zoonet.zoo.transformers.pretrained import config_fields, network_for, read_config, read_network, write_network

_TASKS = {
    "embedding": "text-embedding",
    "masked": "fill-mask",
    "sequence": "text-classification",
    "answer": "question-answering",
    "token": "token-classification",
    "discriminator": "replaced-tokens",
    "decoder": "text-generation",
    "encoder-decoder": "text-to-text",
}
_LABELLED = ("text-classification", "token-classification")
#: Poolings of sentence-transformers, and what they are called here.
POOLINGS = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
_HEADS = {task: kind for kind, task in _TASKS.items() if kind in HEADS}


def is_text_model(path: Path) -> bool:
    """Whether a path is a folder whose config.json has a model_type, not one of pictures, or a llama2.c checkpoint."""
    if path.is_dir():
        try:
            config = read_config(path)
            return "model_type" in config and config["model_type"] not in tuple(IMAGE_TYPES)
        except ZoonetError:
            return False
    try:
        return path.suffix == ".bin" and formats.detect(path).name == "llama2c"
    except ZoonetError:
        return False


def describe(path: Path) -> dict[str, str]:
    """The kind and the task of the model at such a path, without reading its weights; or why it cannot run."""
    try:
        if not path.is_dir():
            return {"architecture": "llama2c", "task": "text-generation"}
        config = read_config(path)
        return {"architecture": str(config["model_type"]), "task": _task_of(network_for(config))}
    except ZoonetError as error:
        return {"cannot run": str(error)}


def load(path: Path, *, task: str | None, device: str, dtype: Any, given: Mapping[str, Any]) -> Model:
    """The model of such a path; see `zoonet.zoo.load`. given: tokenizer, a `Tokenizer` or the path of its files.

    A task and labels that the folder has no head for give it a new one, to be trained. A folder or a llama2.c file
    without tokenizer gives a model that takes token numbers alone.
    """
    if path.is_dir():
        config = read_config(path)
        labels = given.get("labels")
        classes = len(labels) if labels is not None and task in _LABELLED else None
        network = read_network(path, _HEADS.get(task or ""), classes)
        config = {**config, **_pooling(path), **_ends(path)}
        tokenizer = _tokenizer(path, given.get("tokenizer"))
        kind = str(config["model_type"])
    else:
        network, tokenizer, config = _llama2c(path, given.get("tokenizer"))
        kind = "llama2c"
    if dtype is not None:
        network.to(dtype=dtype)
    purpose = task or _task_of(network)
    chosen = {**given, "tokenizer": tokenizer}
    return Model(
        network, kind, make_task(purpose, config, network, kind, path.name, chosen), card=Card(path.name), device=device
    )


def _tokenizer(folder: Path, given: Any) -> Tokenizer | None:
    """The given one, or the folder's. None where the folder has none: the network takes token numbers all the same."""
    if given is not None:
        return given if isinstance(given, Tokenizer) else read_tokenizer(given)
    try:
        return read_tokenizer(folder)
    except MissingFileError:
        return None


def _llama2c(path: Path, tokenizer: Any) -> tuple[Module, Tokenizer | None, dict[str, Any]]:
    options = {"tokenizer": tokenizer} if isinstance(tokenizer, str | os.PathLike) else {}
    checkpoint = formats.read(path, "llama2c", **options)
    config = {**llama2c.config_of(checkpoint.metadata).to_json(), "bos_token_id": 1, "eos_token_id": [1, 2]}
    if isinstance(tokenizer, Tokenizer):
        return llama2c.network_of(checkpoint), tokenizer, config
    if "tokenizer" not in checkpoint.metadata:  # the network takes token numbers all the same
        return llama2c.network_of(checkpoint), None, config
    vocabulary = checkpoint.metadata["tokenizer"]
    pipeline = build.llama2c(vocabulary["tokens"], vocabulary["scores"])
    roles = {"unk_token": 0, "bos_token": 1, "eos_token": 2}
    made = Tokenizer(pipeline, names={role: pipeline.id_to_token(number) for role, number in roles.items()})
    return llama2c.network_of(checkpoint), made, config


def _task_of(network: Module) -> str:
    kind = network_kind(network)
    if kind not in _TASKS:
        raise UnsupportedFormatError(
            f"a network of the kind {kind!r} has no task yet",
            expected=", ".join(_TASKS),
            fix="read_network of zoonet.zoo.transformers.pretrained gives it",
        )
    return _TASKS[kind]


def _pooling(path: Path) -> dict[str, Any]:
    """What the files of sentence-transformers say: pooling ("cls", "mean"), normalise, max_seq_length."""
    found: dict[str, Any] = {}
    if (path / "modules.json").is_file():
        kinds = parse_json((path / "modules.json").read_bytes(), "modules.json")
        entries = [m for m in kinds if isinstance(m, dict)] if isinstance(kinds, list) else []
        names = [str(m.get("type", "")).rpartition(".")[2] for m in entries]
        if unknown := sorted(set(names) - {"Transformer", "Pooling", "Normalize"}):
            raise UnsupportedFormatError(
                "modules.json has a step that zoonet does not have",
                expected="Transformer, Pooling, Normalize",
                received=", ".join(unknown)[:100],
            )
        found["normalise"] = "Normalize" in names
    if (path / "1_Pooling" / "config.json").is_file():
        pooling = parse_json_object((path / "1_Pooling" / "config.json").read_bytes(), "1_Pooling/config.json")
        modes = [name.removeprefix("pooling_mode_") for name, on in pooling.items() if on is True]
        chosen = [name for name in modes if name.endswith(("_token", "_tokens", "lasttoken"))] or ["mean_tokens"]
        if len(chosen) > 1 or chosen[0] not in POOLINGS:
            raise UnsupportedFormatError(
                "1_Pooling/config.json: a pooling that zoonet does not have",
                expected=" or ".join(f"pooling_mode_{name}" for name in POOLINGS),
                received=", ".join(chosen)[:100],
            )
        found["pooling"] = POOLINGS[chosen[0]]
    if (path / "sentence_bert_config.json").is_file():
        sizes = parse_json_object((path / "sentence_bert_config.json").read_bytes(), "sentence_bert_config.json")
        if type(sizes.get("max_seq_length")) is int and sizes["max_seq_length"] > 2:
            found["max_seq_length"] = sizes["max_seq_length"]
    return found


def _ends(path: Path) -> dict[str, Any]:
    """The tokens that end a text by generation_config.json, which has more of them than config.json for chat models."""
    if not (path / "generation_config.json").is_file():
        return {}
    fields = parse_json_object((path / "generation_config.json").read_bytes(), "generation_config.json")
    return {name: fields[name] for name in ("eos_token_id", "bos_token_id") if fields.get(name) is not None}


def has_folder(model: Model) -> bool:
    """Whether transformers has a network of this kind, so that the model is saved as a folder that it reads."""
    try:
        config_fields(model.network)
    except ArgumentError:
        return False
    return True


def save(model: Model, path: Path) -> None:
    """Write a folder in Hugging Face's layout: config.json, model.safetensors, tokenizer.json."""
    if path.suffix:
        raise UnsupportedFormatError(
            f"a model on text cannot be saved as {path.name!r}", expected="a name without suffix, for a folder"
        )
    kept = {
        k: v
        for k, v in model.task.to_config().items()
        if k in ("id2label", "bos_token_id", "eos_token_id", "decoder_start_token_id")
    }
    write_network(model.network, path, kept)
    task: Any = model.task
    if task.has_tokenizer:
        task.tokenizer.save(path)
    if "pooling" in model.task.to_config():
        _write_pooling(model.task.to_config(), path, model.network.config.width)  # type: ignore[attr-defined]


def _write_pooling(settings: Mapping[str, Any], path: Path, width: int) -> None:
    """The files of sentence-transformers that `_pooling` reads."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if settings.get("normalise") else [])]
    places = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places, strict=False))
    ]
    modes = {f"pooling_mode_{name}": kind == settings["pooling"] for name, kind in POOLINGS.items()}
    pooling = {"word_embedding_dimension": width, **modes}
    (path / "1_Pooling").mkdir(exist_ok=True)
    files: dict[str, Any] = {"modules.json": modules, "1_Pooling/config.json": pooling}
    if "max_seq_length" in settings:
        files["sentence_bert_config.json"] = {"max_seq_length": settings["max_seq_length"], "do_lower_case": False}
    for name, content in files.items():
        with atomic_path(path / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
