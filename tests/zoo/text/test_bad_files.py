"""Folders that are damaged, hostile or do not fit together: each says why, whatever is wrong."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import random
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import (
    ArgumentError,
    FormatError,
    InputError,
    MissingFileError,
    UnsupportedFormatError,
    ZoonetError,
)
from zoonet.zoo.text.tokenizer import read_tokenizer

SMALL: dict[str, Any] = {"vocabulary": 31, "layers": 2, "width": 8, "heads": 2, "hidden": 8}
KINDS: dict[str, dict[str, Any]] = {
    "bert-base-uncased": {**SMALL, "embedding": 8, "positions": 9},
    "gpt2": {**SMALL, "positions": 9},
    "llama-3.1-8b": {**SMALL, "key_value_heads": 1},
    "t5-small": {**SMALL, "decoder_layers": 2, "head_size": 4},
}
LETTERS = [chr(97 + i) for i in range(26)]


def folder(name: str, place: pathlib.Path) -> pathlib.Path:
    """A tiny random model with a tokenizer."""
    zoo.create(name, **KINDS[name]).save(place)
    if "bert" in name:
        (place / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]))
    else:
        numbers = {token: number for number, token in enumerate(["<|endoftext|>", *LETTERS, "Ġ", "!", ".", "aa"])}
        (place / "vocab.json").write_text(json.dumps(numbers))
        (place / "merges.txt").write_text("#version: 0.2\na a\n")
    return place


def use(place: pathlib.Path) -> None:
    model = zoo.load(place)
    options = {"max_tokens": 2} if "text-" in model.task.name and model.task.name != "text-embedding" else {}
    model.run("a b", **options)


VALUES = [None, -1, 0, 1 << 40, 1 << 20, 1.5, math.nan, "x", [], {}, {"a": 1}, True]
EXTRA = ["rope_scaling", "eos_token_id", "bos_token_id", "head_dim", "id2label", "position_embedding_type"]
EXTRA += ["decoder_start_token_id", "sliding_window", "use_sliding_window", "max_window_layers", "pad_token_id"]


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_a_configuration(name: str, tmp_path: pathlib.Path) -> None:
    """A model or an error of ours: nothing else, and no memory beyond that of the file."""
    place = folder(name, tmp_path / "m")
    use(place)
    fields = json.loads((place / "config.json").read_text())
    refused = 0
    for key in [*fields, *EXTRA]:
        for value in VALUES:
            (place / "config.json").write_text(json.dumps({**fields, key: value}))
            try:
                use(place)
            except ZoonetError:
                refused += 1
    assert refused > 50


def test_damaged_tokenizers(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    place = folder("bert-base-uncased", tmp_path / "m")
    read_tokenizer(place).save(place)
    whole = {name: (place / name).read_bytes() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")}
    for name, content in whole.items():
        if name == "vocab.txt":
            (place / "tokenizer.json").unlink()
        for trial in range(60):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            (place / name).write_bytes(changed if trial % 2 else content[: len(content) * trial // 60])
            with contextlib.suppress(ZoonetError):
                tokenizer = read_tokenizer(place)
                tokenizer.batch(["a b", "c"], ["d", ""], max_tokens=9)
                tokenizer.decode(tokenizer.encode("a b"))
        (place / name).write_bytes(content)
    capfd.readouterr()  # panics of the tokenizers package print their own traces


def test_files_that_do_not_fit_together(tmp_path: pathlib.Path) -> None:
    place = folder("gpt2", tmp_path / "m")
    config = (place / "config.json").read_text()
    vocabulary = json.loads((place / "vocab.json").read_text())
    (place / "vocab.json").write_text(json.dumps({**vocabulary, **{f"t{i}": 31 + i for i in range(9)}}))
    with pytest.raises(ArgumentError, match="more tokens than the network"):
        zoo.load(place)
    (place / "vocab.json").unlink()
    model = zoo.load(place)  # which takes token numbers, and no text
    assert model(np.array([[1, 2, 3]])).shape == (1, 3, 31)
    with pytest.raises(ArgumentError, match=r"no tokenizer: expected tokenizer\.json"):
        model.run("a")
    with pytest.raises(MissingFileError, match="no tokenizer"):
        zoo.load(place, tokenizer=place)
    (place / "config.json").write_text(config.replace('"gpt2"', '"mamba"'))
    with pytest.raises(UnsupportedFormatError, match=r"model_type.*expected gpt2.*received 'mamba'"):
        zoo.load(place)
    (place / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 400'))
    with pytest.raises(FormatError, match="more layers than the weights"):
        zoo.load(place)
    (place / "config.json").write_bytes(b'{"model_type": "gpt2\xff"}')
    with pytest.raises(ZoonetError):
        zoo.load(place)


def test_what_cannot_be_continued(tmp_path: pathlib.Path) -> None:
    place = folder("gpt2", tmp_path / "m")
    assert zoo.load(place).run("", max_tokens=2).source == ""  # begins with <|endoftext|>
    (place / "vocab.json").write_text((place / "vocab.json").read_text().replace("<|endoftext|>", "?"))
    model = zoo.load(place)
    with pytest.raises(InputError, match="start token"):
        model.run("")
    with pytest.raises(InputError, match="too long"):
        model.run("a" * 9 + "b" * 30)
    with pytest.raises(InputError, match=r"too long.*max_tokens"):
        model.run("a b", max_tokens=20)
    assert model.run("a b", max_tokens=0).text() == "a b"
    model.network.transformer.ln_f.bias[:] = np.nan
    with pytest.raises(InputError, match="no numbers"):
        model.run("a b", max_tokens=3)
    with pytest.raises(InputError, match="no numbers"):
        list(model.stream("a b", max_tokens=3))
    with pytest.raises(InputError, match="no numbers"):
        model.run("a b", max_tokens=3, beams=2)
