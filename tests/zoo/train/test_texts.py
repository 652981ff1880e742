"""Training models on text: a language model on Shakespeare, a classifier of sentences."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError, MissingFileError

QUIET: dict[str, Any] = {"progress": False, "workers": 0}


def test_a_language_model_learns_shakespeare(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = (assets / "tinyshakespeare" / "input.txt").read_text()[:20_000]
    (tmp_path / "plays.txt").write_text(text)
    model = zoo.load(assets / "stories260k" / "stories260K.bin")
    before = model.evaluate(text[10_000:])
    history = model.train(tmp_path / "plays.txt", epochs=2, batch=8, run=tmp_path / "run", **QUIET)
    assert history.best["val_perplexity"] < 0.75 * before["perplexity"]
    assert model.evaluate(text[10_000:])["perplexity"] < 0.75 * before["perplexity"]
    again = zoo.load(tmp_path / "run" / "best")
    assert again.run("KING", max_tokens=20).text() == model.run("KING", max_tokens=20).text()
    more = zoo.load(assets / "stories260k" / "stories260K.bin")
    assert len(more.train(tmp_path / "plays.txt", epochs=2, batch=8, run=tmp_path / "run", resume=True, **QUIET)) == 2
    np.testing.assert_array_equal(*(m.network.state_dict()["model.norm.weight"] for m in (model, more)))


def test_the_loss_of_a_language_model_is_torch_s(assets: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    model = zoo.load(assets / "stories260k" / "stories260K.bin")
    text = "Once upon a time, there was a little girl named Lily. " * 8
    tokens = model.task.tokenizer.encode(text)  # type: ignore[attr-defined]
    length = min(256, len(tokens) // 4)
    array = np.array(tokens[: (len(tokens) - 1) // length * length + 1])
    inputs, targets = (a.reshape(-1, length) for a in (array[:-1], array[1:]))
    scores = torch.from_numpy(np.asarray(model.network(inputs)))
    expected = torch.nn.functional.cross_entropy(
        scores.reshape(-1, scores.shape[-1]), torch.from_numpy(targets.ravel())
    )
    assert model.evaluate(text)["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_classifier_of_sentences(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformer_oracles").transformers
    sizes = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=48, id2label={0: "no", 1: "yes"})
    pytest.importorskip("torch").manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    shutil.copy(assets / "vocabs" / "bert_base_uncased_vocab.txt", tmp_path / "bert" / "vocab.txt")
    words = {"animals": "cat dog horse bird", "food": "bread apple cheese soup", "towns": "paris london rome berlin"}
    rng = np.random.default_rng(0)
    rows = ["text,label"]
    for label, names in words.items():
        rows += [f"the {rng.choice(names.split())} and the {rng.choice(names.split())},{label}" for _ in range(24)]
    (tmp_path / "sentences.csv").write_text("\n".join(rows))
    model = zoo.load(tmp_path / "bert")
    history = model.train(tmp_path / "sentences.csv", epochs=24, batch=12, lr=5e-3, run=False, **QUIET)
    assert history.best["val_accuracy"] > 0.9
    assert model.labels == ("animals", "food", "towns")
    model.save(tmp_path / "trained")
    assert zoo.load(tmp_path / "trained").run("the dog and the horse").label == "animals"
    assert model.evaluate(tmp_path / "sentences.csv")["accuracy"] > 0.9


def test_bad_texts(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = zoo.load(assets / "stories260k" / "stories260K.bin")
    for source, error, message in (
        (tmp_path / "none.txt", MissingFileError, "no such data"),
        ("none.txt", MissingFileError, "no such data"),
        (tmp_path, InputError, "no texts"),
        ("a", InputError, "too short"),
        ([1, 2], InputError, "no texts"),
    ):
        with pytest.raises(error, match=message):
            model.train(source, epochs=1, run=False, **QUIET)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(Exception, match="UTF-8"):
        model.train(tmp_path / "bytes.txt", epochs=1, run=False, **QUIET)
    from zoonet.zoo.text.tasks import FillMask

    model.task = FillMask(model.task.tokenizer)  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="cannot be trained"):
        model.train("text", epochs=1, run=False, **QUIET)
