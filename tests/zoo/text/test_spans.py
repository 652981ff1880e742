"""Answers and labelled parts of a text, from the logits of transformers' networks."""

from __future__ import annotations

import json
import pathlib
import shutil
import warnings
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.text.spans import STRATEGIES

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
    named, again = model.run([{"question": QUESTION, "context": TEXT}, (QUESTION, TEXT)], longest=4)
    assert list(named) == list(again) == list(answers)
    for wrong in (QUESTION, {"question": QUESTION}, [(QUESTION, TEXT), 5], []):
        with pytest.raises(InputError, match=r"question|takes a text"):
            model.run(wrong)


@pytest.mark.parametrize("overlap", [0, 5, 12])
def test_answers_in_long_texts(assets: pathlib.Path, tmp_path: pathlib.Path, overlap: int) -> None:
    """Windows as transformers' tokenizer cuts them, answers ranked by the sum of both logits."""
    model, theirs = pair("BertForQuestionAnswering", tmp_path, assets, max_position_embeddings=40)
    text = TEXT + (assets / "tinyshakespeare" / "input.txt").read_text()[:600]
    encoded = transformers.BertTokenizer.from_pretrained(tmp_path)(
        QUESTION,
        text,
        max_length=40,
        truncation="only_second",
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=True,
        return_tensors="pt",
    )
    count = len(encoded["input_ids"])
    assert count > 3
    offsets = encoded["offset_mapping"].tolist()
    kept = {k: encoded[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
    found = theirs(**kept)
    sums = {}
    for window in range(count):
        inside = [i for i, part in enumerate(encoded.sequence_ids(window)) if part == 1]
        for a in inside:
            for b in [b for b in inside if a <= b < a + 4]:
                place = offsets[window][a][0], offsets[window][b][1]
                score = found.start_logits[window, a].item() + found.end_logits[window, b].item()
                sums[place] = max(score, sums.get(place, -np.inf))
    expected = sorted(sums, key=lambda place: -sums[place])[:5]
    answers = model.run((QUESTION, text), longest=4, top=5, overlap=overlap, batch=2)
    assert [(s.start, s.stop) for s in answers] == expected
    ratios = np.log([s.score for s in answers])
    np.testing.assert_allclose(ratios - ratios[0], [sums[p] - sums[expected[0]] for p in expected], atol=1e-3)
    with pytest.raises(InputError, match="too long"):
        model.run((QUESTION * 8, TEXT))
    with pytest.raises(ArgumentError, match="overlap"):
        model.run((QUESTION, TEXT), overlap=-1)


LABELS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "X-Y"]))
TEXTS = [
    TEXT,
    "Unbelievably hypersensitive antidisestablishmentarianism, naïve 日本語 😀 in New York; O'Neill's.",
    "",
    "word " * 9 + "incomprehensibilities",
]


@pytest.mark.parametrize(
    ("tokens", "strategy"), [*(("bert", strategy) for strategy in STRATEGIES), ("gpt2", "simple"), ("gpt2", "first")]
)
def test_labels_equal_transformers(assets: pathlib.Path, tmp_path: pathlib.Path, tokens: str, strategy: str) -> None:
    if tokens == "bert":
        model, theirs = pair("BertForTokenClassification", tmp_path, assets, id2label=LABELS)
        tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    else:
        model, theirs, tokenizer = roberta(tmp_path, assets)
    pipeline = transformers.TokenClassificationPipeline(model=theirs, tokenizer=tokenizer)
    for text in TEXTS[:2] + TEXTS[3:]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that words are guessed
            expected = pipeline(text, aggregation_strategy=strategy)
        found = model.run(text, strategy=strategy)
        name = "entity" if strategy == "none" else "entity_group"
        assert [(s.label, s.start, s.stop) for s in found] == [(e[name], e["start"], e["end"]) for e in expected]
        np.testing.assert_allclose([s.score for s in found], [e["score"] for e in expected], rtol=1e-3)
    assert [list(s) for s in model.run(["", TEXT])] == [[], list(model.run(TEXT))]
    assert "<b>" not in model.run("<b>x</b>")._repr_html_()


def roberta(folder: pathlib.Path, assets: pathlib.Path) -> tuple[Any, Any, Any]:
    sizes = {**SIZES, "vocab_size": 50260, "intermediate_size": 24, "pad_token_id": 1, "id2label": LABELS}
    theirs = drawn(transformers.RobertaForTokenClassification(transformers.RobertaConfig(**sizes)))
    theirs.save_pretrained(folder)
    vocabulary = json.loads((assets / "vocabs" / "gpt2_bpe_encoder.json").read_text())
    vocabulary |= {"<s>": 50257, "</s>": 50258, "<mask>": 50259}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    shutil.copy(assets / "vocabs" / "gpt2_bpe_vocab.bpe", folder / "merges.txt")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    model = zoo.load(folder)
    (folder / "tokenizers").mkdir()
    model.task.tokenizer.save(folder / "tokenizers")
    return model, theirs, transformers.PreTrainedTokenizerFast.from_pretrained(folder / "tokenizers")


@pytest.mark.parametrize("strategy", ["simple", "max"])
def test_labels_in_long_texts_equal_transformers(assets: pathlib.Path, tmp_path: pathlib.Path, strategy: str) -> None:
    sizes = {"max_position_embeddings": 24, "id2label": LABELS}
    model, theirs = pair("BertForTokenClassification", tmp_path, assets, **sizes)
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path, model_max_length=24)
    text = " ".join(TEXTS) * 4
    pipeline = transformers.TokenClassificationPipeline(model=theirs, tokenizer=tokenizer)
    expected = pipeline(text, aggregation_strategy=strategy, stride=6)
    found = model.run(text, strategy=strategy, overlap=6, batch=3)
    assert [(s.label, s.start, s.stop) for s in found] == [(e["entity_group"], e["start"], e["end"]) for e in expected]
    assert len(found) > 20
    with pytest.raises(ArgumentError, match="strategy"):
        model.run(text, strategy="best")


def test_several_classes_at_once(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for options in ({"problem_type": "multi_label_classification", "num_labels": 3}, {"num_labels": 1}):
        model, theirs = pair("BertForSequenceClassification", tmp_path, assets, **options)
        encoded = transformers.BertTokenizer.from_pretrained(tmp_path)(TEXT, return_tensors="pt")
        expected = torch.sigmoid(theirs(**encoded).logits[0]).detach().numpy()
        np.testing.assert_allclose(model.run(TEXT).scores, expected, rtol=1e-3)
    with pytest.raises(InputError, match=r"too long.*truncate"):
        model.run("word " * 600)
    assert model.run("word " * 600, truncate=True).scores.shape == (1,)
    model.network.classifier.bias[:] = np.nan
    with pytest.raises(InputError, match="no numbers"):
        model.run(TEXT)


def test_replaced_tokens(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sizes = {**SIZES, "embedding_size": 8, "intermediate_size": 24}
    theirs = drawn(transformers.ElectraForPreTraining(transformers.ElectraConfig(**sizes)))
    theirs.save_pretrained(tmp_path)
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer(TEXTS[:2], padding=True, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping").tolist()
    shares = torch.sigmoid(theirs(**encoded).logits).detach().numpy()
    for row, spans in enumerate(zoo.load(tmp_path).run(TEXTS[:2])):
        inside = [i for i, (a, b) in enumerate(offsets[row]) if a < b and shares[row, i] > 0.5]
        assert [(s.start, s.stop) for s in spans] == [tuple(offsets[row][i]) for i in inside]
        np.testing.assert_allclose([s.score for s in spans], shares[row, inside], rtol=1e-3)
    assert 0 < len(spans) < 40
