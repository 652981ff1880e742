"""Answers and labelled parts of a text, from the logits of transformers' networks."""

from __future__ import annotations

import itertools
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import InputError
from zoonet.zoo.text.spans import _grouped

try:
    import torch
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

QUESTION, TEXT = "Where does Amélie live?", "Amélie moved to Paris, and lives in Montmartre."
SIZES = {"vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def pair(kind: str, folder: pathlib.Path, assets: pathlib.Path, **options: Any) -> tuple[Any, Any]:
    theirs = drawn(getattr(transformers, kind)(transformers.BertConfig(**SIZES, intermediate_size=24, **options)))
    theirs.save_pretrained(folder)
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", folder / "vocab.txt")
    return zoo.load(folder), theirs


def test_answers(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, theirs = pair("BertForQuestionAnswering", tmp_path, assets)
    encoded = transformers.BertTokenizer.from_pretrained(tmp_path)(
        QUESTION, TEXT, return_tensors="pt", return_offsets_mapping=True
    )
    offsets, first = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids().index(1)
    found = theirs(**encoded)
    starts, ends = [torch.softmax(x[0, first:-1], 0).detach().numpy() for x in (found.start_logits, found.end_logits)]
    every = {(a, b): starts[a] * ends[b] for a in range(len(starts)) for b in range(a, min(a + 4, len(starts)))}
    best = sorted(every, key=lambda place: -every[place])[:3]
    answers = model.run((QUESTION, TEXT), longest=4)
    expected = [(offsets[a + first][0], offsets[b + first][1]) for a, b in best]
    assert [(s.start, s.stop) for s in answers] == expected
    assert [s.words for s in answers] == [TEXT[a:b] for a, b in expected]
    np.testing.assert_allclose([s.score for s in answers], [every[place] for place in best], rtol=1e-3)
    with pytest.raises(InputError, match="question"):
        model.run(QUESTION)


def test_labels_of_tokens(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model, theirs = pair("BertForTokenClassification", tmp_path, assets, id2label={0: "X", 1: "Y", 2: "Z"})
    encoded = transformers.BertTokenizer.from_pretrained(tmp_path)(
        TEXT, return_tensors="pt", return_offsets_mapping=True
    )
    offsets = encoded.pop("offset_mapping")[0, 1:-1].tolist()
    labels = ["XYZ"[int(i)] for i in theirs(**encoded).logits[0, 1:-1].argmax(-1)]
    spans = model.run(TEXT)
    covered = [next(s.label for s in spans if s.start <= a and b <= s.stop) for a, b in offsets]
    assert covered == labels
    assert len(spans) == 1 + sum(a != b for a, b in itertools.pairwise(labels))


def test_grouping() -> None:
    marked = [
        ("B-PER", 0.9, 0, 3),
        ("I-PER", 0.7, 3, 5),
        ("O", 1.0, 6, 8),
        ("B-LOC", 0.5, 9, 10),
        ("B-LOC", 0.4, 10, 12),
    ]
    spans = _grouped("Ameli in XYZ", marked)
    found = [(s.words, s.label, round(s.score, 6)) for s in spans]
    assert found == [("Ameli", "PER", 0.8), ("X", "LOC", 0.5), ("YZ", "LOC", 0.4)]
