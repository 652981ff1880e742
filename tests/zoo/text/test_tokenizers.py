"""Tokenizers against transformers', the sentencepiece package and run.c's algorithm, on texts that are hard."""

from __future__ import annotations

import itertools
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from zoonet import formats
from zoonet.formats.sentencepiece import read_sentencepiece
from zoonet.ops.errors import ArgumentError, FormatError, InputError, MissingFileError
from zoonet.zoo.text import build
from zoonet.zoo.text.streaming import TextStream
from zoonet.zoo.text.tokenizer import Tokenizer, read_tokenizer

try:
    from transformer_oracles import transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

CORPUS = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces\tand a tab\nand a line ",
    "naïve café Ünïcödé ÅNGSTRÖM e\u0301",
    "日本語と中文和한국어",
    "emoji 😀👩‍👩‍👧 flags 🇫🇷",
    "control \x00\x01\x7f\u200b\ufeff characters",
    "a" * 300,
    "don't can't I'll we've 12345.678 3/4",
    "العربية עברית हिन्दी",
    "<s>not</s> [CLS] a [MASK] <|endoftext|> token",
    "ﬁ ligature ½ ² Ⅷ",
    "x\r\ny\u00a0z\u3000w",
]


@pytest.fixture
def bert_folder(assets: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return tmp_path


@pytest.fixture
def gpt2_folder(assets: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copy(assets / "vocabs" / "gpt2_bpe_encoder.json", tmp_path / "vocab.json")
    shutil.copy(assets / "vocabs" / "gpt2_bpe_vocab.bpe", tmp_path / "merges.txt")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return tmp_path


@pytest.mark.parametrize("folder", ["bert_folder", "gpt2_folder"])
def test_vocabularies_equal_transformers(folder: str, request: Any) -> None:
    place = request.getfixturevalue(folder)
    ours, theirs = read_tokenizer(place), transformers.AutoTokenizer.from_pretrained(place)
    for text in CORPUS:
        expected = theirs(text, return_offsets_mapping=True)
        assert ours.encode(text) == expected["input_ids"], text
        assert ours.batch([text]).offsets[0] == expected["offset_mapping"], text
        assert ours.decode(expected["input_ids"]) == theirs.decode(expected["input_ids"], skip_special_tokens=True)
    ours.save(place)
    assert [read_tokenizer(place).encode(text) for text in CORPUS] == [ours.encode(text) for text in CORPUS]


@pytest.mark.parametrize("left", [False, True])
def test_batches_equal_transformers(bert_folder: pathlib.Path, left: bool) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(bert_folder, padding_side="left" if left else "right")
    pairs = CORPUS[::-1]
    expected = theirs(CORPUS, pairs, padding=True, truncation=True, max_length=20, return_tensors="np")
    found = read_tokenizer(bert_folder).batch(CORPUS, pairs, max_tokens=20, left=left)
    np.testing.assert_array_equal(found.tokens, expected["input_ids"])
    np.testing.assert_array_equal(found.mask, expected["attention_mask"])
    np.testing.assert_array_equal(found.token_types, expected["token_type_ids"])


@pytest.mark.parametrize(("kind", "fallback"), [("unigram", False), ("unigram", True), ("bpe", False), ("bpe", True)])
def test_sentencepiece(assets: pathlib.Path, tmp_path: pathlib.Path, kind: str, fallback: bool) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        input=str(assets / "tinyshakespeare" / "input.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type=kind,
        vocab_size=800,
        byte_fallback=fallback,
        input_sentence_size=2000,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ours = read_tokenizer(tmp_path)
    assert ours.size == theirs.get_piece_size()
    lines = (assets / "tinyshakespeare" / "input.txt").read_text().splitlines()[5000:5200]
    for text in [*(t for t in CORPUS if "<s>" not in t), *lines]:
        expected = theirs.encode(text)
        assert ours.encode(text, special=False) == expected, text
        assert ours.encode(text) == [1, *expected]
        if fallback:
            assert ours.decode(expected) == theirs.decode(expected), text


def run_c_encode(tokens: list[bytes], scores: list[float], text: str) -> list[int]:
    """`encode` of run.c, from its description: letters (or bytes), then the best pair again and again."""
    numbers = {token: number for number, token in reversed(list(enumerate(tokens)))}
    found = [numbers[b" "]] if text else []
    for letter in text:
        whole = letter.encode()
        found += [numbers[whole]] if whole in numbers else [byte + 3 for byte in whole]
    while True:
        joined = [tokens[a] + tokens[b] for a, b in itertools.pairwise(found)]
        pairs = [(scores[numbers[whole]], -i) for i, whole in enumerate(joined) if whole in numbers]
        if not pairs:
            return [1, *found]
        place = -max(pairs)[1]
        found[place : place + 2] = [numbers[tokens[found[place]] + tokens[found[place + 1]]]]


def test_llama2c(assets: pathlib.Path) -> None:
    checkpoint = formats.read(assets / "stories260k" / "stories260K.bin")
    vocabulary = checkpoint.metadata["tokenizer"]
    ours = Tokenizer(build.llama2c(vocabulary["tokens"], vocabulary["scores"]))
    story = (assets / "stories260k" / "greedy_200.txt").read_text()
    for text in [*(t for t in CORPUS if "\x00" not in t), story]:
        expected = run_c_encode(vocabulary["tokens"], vocabulary["scores"], text)
        assert ours.encode(text) == expected, text
        assert ours.decode(expected) == text
    stream = TextStream(ours)
    assert "".join([*(stream.push(token) for token in ours.encode(story + "😀")), stream.finish()]) == story + "😀"


def test_what_is_no_tokenizer_says_why(bert_folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tokenizer = read_tokenizer(bert_folder)
    with pytest.raises(InputError, match="str"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode("\ud800")
    with pytest.raises(ArgumentError, match="room"):
        tokenizer.batch(["text"], max_tokens=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingFileError, match=r"vocab\.txt"):
        read_tokenizer(empty)
    (empty / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(FormatError, match="tokenizers"):
        read_tokenizer(empty)


def test_damaged_sentencepiece_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tokenizer.model"
    whole = b"".join(b"\x0a\x0a\x0a\x03" + name + b"\x15\x00\x00\x80\xbf" for name in (b"<u>", b"abc", b"d\xc3\xa9"))
    path.write_bytes(whole)
    assert read_sentencepiece(path).pieces == (("<u>", -1.0, 1), ("abc", -1.0, 1), ("dé", -1.0, 1))
    for stop in range(len(whole)):
        path.write_bytes(whole[:stop])
        if stop % 12 == 0 and stop:
            assert len(read_sentencepiece(path).pieces) == stop // 12
        else:
            with pytest.raises(FormatError):
                read_sentencepiece(path)
