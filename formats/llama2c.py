"""llama2.c checkpoints (.bin): a header of integers, then float32 weights one after the other.

Source: `run.c` and `export.py` of karpathy/llama2.c. Version 0 has seven integers; versions from 1 on start with
the magic number "ak42", have a header of 256 bytes and another order. Version 2 is quantised and refused.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.formats.checkpoint import Array, Checkpoint, LazyTensor
from zoonet.formats.files import check_path, map_file, view_as
from zoonet.ops.errors import FormatError, UnsupportedFormatError

if TYPE_CHECKING:
    import os

    from zoonet.formats.registry import Probe

_MAGIC = 0x616B3432
_FIELDS = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
_FLOAT = np.dtype("<f4")
_MAX_TOKEN = 4096
#: The largest numbers in the header of a network that somebody trained.
_USUAL = (("dim", 1 << 14), ("hidden_dim", 1 << 16), ("n_layers", 256), ("vocab_size", 1 << 20), ("seq_len", 1 << 20))


def recognise(probe: Probe) -> bool:
    """Whether the header's integers are possible and give the size of the file, or those of a usual network give more.

    A file that was cut is of this format all the same, so that reading it says what is missing.
    """
    if len(probe.head) >= 256 and struct.unpack("<I", probe.head[:4])[0] == _MAGIC:
        return True
    if len(probe.head) < 28:
        return False
    config = _config(struct.unpack("<7i", probe.head[:28]))
    if config is None:
        return False
    expected = 28 + 4 * sum(math.prod(shape) for _, shape in _layout(config, 0))
    return probe.size == expected or (probe.size < expected and all(config[key] <= most for key, most in _USUAL))


def _config(numbers: tuple[int, ...]) -> dict[str, Any] | None:
    """The header as a dict, or None where the numbers make no network."""
    config: dict[str, Any] = dict(zip(_FIELDS, numbers, strict=True))
    config["shared_classifier"] = config["vocab_size"] > 0
    config["vocab_size"] = abs(config["vocab_size"])
    dim, heads, kv_heads = config["dim"], config["n_heads"], config["n_kv_heads"]
    if any(not 0 < config[name] < 2**28 for name in _FIELDS) or config["n_layers"] > 10_000:
        return None
    if dim % heads or heads % kv_heads or (dim // heads) % 2:
        return None
    return config


def _layout(config: dict[str, Any], version: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file; the names are those of `TransformerWeights` in run.c."""
    dim, hidden, layers = config["dim"], config["hidden_dim"], config["n_layers"]
    vocabulary, length = config["vocab_size"], config["seq_len"]
    head = dim // config["n_heads"]
    kv_dim = head * config["n_kv_heads"]
    embedding = ("token_embedding_table", (vocabulary, dim))
    norms = [
        ("rms_att_weight", (layers, dim)),
        ("rms_ffn_weight", (layers, dim)),
        ("rms_final_weight", (dim,)),
    ]
    attention = [
        ("wq", (layers, dim, dim)),
        ("wk", (layers, kv_dim, dim)),
        ("wv", (layers, kv_dim, dim)),
        ("wo", (layers, dim, dim)),
    ]
    feed_forward = [
        ("w1", (layers, hidden, dim)),
        ("w2", (layers, dim, hidden)),
        ("w3", (layers, hidden, dim)),
    ]
    classifier = [] if config["shared_classifier"] else [("wcls", (vocabulary, dim))]
    if version == 1:
        return [*norms, embedding, *attention, *feed_forward, *classifier]
    rotary = [("freq_cis_real", (length, head // 2)), ("freq_cis_imag", (length, head // 2))]
    return [embedding, norms[0], *attention, norms[1], *feed_forward, norms[2], *rotary, *classifier]


def read(path: Path, tokenizer: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Read a llama2.c checkpoint; weights keep run.c's names, with the layers as first axis.

    tokenizer: the tokenizer's .bin; where None, `tok<vocab_size>.bin` or `tokenizer.bin` beside the checkpoint.
    metadata: the header's fields, "shared_classifier", "version", and "tokenizer" (max_token_length, tokens as bytes,
    scores) where one is found.
    """
    data = map_file(path)
    head = data[:256].tobytes()
    version, start, numbers = 0, 28, head[:28]
    if len(head) >= 4 and struct.unpack("<I", head[:4])[0] == _MAGIC:
        version, start, numbers = int.from_bytes(head[4:8], "little"), 256, head[8:36]
        if version != 1:
            raise UnsupportedFormatError(
                f"{path.name}: version {version} of llama2.c's format (quantised) is not read",
                expected="0 or 1",
            )
    config = _config(struct.unpack("<7i", numbers)) if len(numbers) == 28 else None
    if config is None or (version == 1 and len(head) < 256):
        raise FormatError(f"{path.name}: not a header of llama2.c", received=repr(numbers[:28]))
    if version == 1:
        config["shared_classifier"] = head[36] != 0
    layout = _layout(config, version)
    expected = start + 4 * sum(math.prod(shape) for _, shape in layout)
    if data.size != expected:
        raise FormatError(
            f"{path.name}: the file has not the size that its header declares",
            expected=f"{expected} bytes",
            received=f"{data.size}",
            fix="the file is truncated or corrupt: obtain it again",
        )
    tensors = {}
    for name, shape in layout:
        nbytes = 4 * math.prod(shape)
        tensors[name] = _tensor(data[start : start + nbytes], shape)
        start += nbytes
    metadata: dict[str, Any] = {**config, "version": version}
    vocabulary = _find_tokenizer(path, tokenizer, config["vocab_size"])
    if vocabulary is not None:
        metadata["tokenizer"] = vocabulary
    return Checkpoint(tensors, metadata, "llama2c")


def _tensor(data: Array, shape: tuple[int, ...]) -> LazyTensor:
    return LazyTensor(shape, _FLOAT.newbyteorder("="), lambda: view_as(data, _FLOAT, shape))


def _find_tokenizer(path: Path, tokenizer: str | os.PathLike[str] | None, size: int) -> dict[str, Any] | None:
    if tokenizer is not None:
        return read_tokenizer(tokenizer, size)
    for candidate in (path.with_name(f"tok{size}.bin"), path.with_name("tokenizer.bin")):
        if candidate.is_file():
            try:
                return read_tokenizer(candidate, size)
            except FormatError:
                continue  # a tokenizer of another model
    return None


def read_tokenizer(path: str | os.PathLike[str], vocab_size: int) -> dict[str, Any]:
    """Read a llama2.c tokenizer: max_token_length (int), tokens (list of bytes), scores (list of float).

    Raises FormatError where the file does not hold exactly `vocab_size` tokens.
    """
    file = check_path(path)
    data = map_file(file)
    content = data.data
    tokens, scores, position = [], [], 4
    wrong = FormatError(
        f"{file.name}: not a llama2.c tokenizer of {vocab_size} tokens",
        fix="give the tokenizer of this model",
    )
    if data.size < 4 + 8 * vocab_size:
        raise wrong
    (longest,) = struct.unpack("<I", content[:4])
    for _ in range(vocab_size):
        if position + 8 > data.size:
            raise wrong
        score, length = struct.unpack("<fi", content[position : position + 8])
        position += 8
        if not 0 <= length <= min(_MAX_TOKEN, data.size - position):
            raise wrong
        tokens.append(bytes(content[position : position + length]))
        scores.append(score)
        position += length
    if position != data.size:
        raise wrong
    return {"max_token_length": longest, "tokens": tokens, "scores": scores}
