"""Networks on text by name, their folders and conversion, beside transformers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, UnknownModelError
from zoonet.zoo import architectures
from zoonet.zoo.cli import main
from zoonet.zoo.listing import listed

try:
    import torch
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

TOKENS = np.array([[1, 5, 9, 30]])
#: As the model cards and papers state them.
PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
    "bert-base-uncased": 109_482_240,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b-v0.1": 7_241_732_096,
    "tinyllama-1.1b": 1_100_048_384,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "smollm2-135m": 134_515_008,
}


def test_names_are_listed_with_parameters() -> None:
    names = {entry.name for entry in listed()}
    for name, count in PARAMETERS.items():
        assert name in names
        assert architectures.parameters(name) == count, name
    assert {"gpt2", "llama-3.2-1b"} <= set(zoo.list(task="text-generation"))
    assert "roberta-large" in zoo.list("roberta*", task="fill-mask")
    assert "gpt2" not in zoo.list(task="image-classification")
    with pytest.raises(UnknownModelError, match="gpt2"):
        zoo.create("gpt-2")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gpt2", "AutoModelForCausalLM"), ("qwen3-0.6b", "AutoModelForCausalLM"), ("electra-small", "AutoModel")],
)
def test_made_by_name(name: str, kind: str, tmp_path: pathlib.Path) -> None:
    model = zoo.create(name, seed=1, layers=1, vocabulary=50)
    assert model.architecture == name
    scores = model(TOKENS)
    assert np.isfinite(scores).all()
    with pytest.raises(ArgumentError, match="no tokenizer"):
        model.run("text")
    model.save(tmp_path / "made")
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "made")
    output = theirs(torch.from_numpy(TOKENS))
    expected = (output.logits if hasattr(output, "logits") else output.last_hidden_state).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max())
    again = zoo.load(tmp_path / "made")  # which has no tokenizer either
    np.testing.assert_array_equal(again(TOKENS), scores)
    with pytest.raises(ArgumentError, match="tokenizer=PATH"):
        again.run("text")
    assert zoo.convert(tmp_path / "made", tmp_path / "half", dtype="float16").agrees
    assert zoo.convert(tmp_path / "made", tmp_path / "made.onnx").agrees


def test_a_folder_of_an_encoder_decoder_is_converted(tmp_path: pathlib.Path) -> None:
    sizes = {"vocab_size": 40, "d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    original = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).eval()
    original.save_pretrained(tmp_path / "t5")
    assert zoo.convert(tmp_path / "t5", tmp_path / "copy").relative == 0.0
    half = zoo.convert(tmp_path / "t5", tmp_path / "half", dtype="float16")
    assert half.relative is not None
    assert 0 < half.relative < 1e-2
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "copy")
    for (name, wanted), found in zip(original.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(wanted, found), name


def test_sizes_beyond_memory_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "llama-2-70b", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["parameters"], facts["task"]) == (68_976_648_192, "text-generation")


def test_stories_become_a_folder_of_transformers(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source, folder = assets / "stories260k", tmp_path / "stories"
    expected = (source / "greedy_200.txt").read_text()
    report = zoo.convert(source / "stories260K.bin", folder)
    assert report.agrees
    assert (report.compared, report.relative) == (47, 0.0)
    assert zoo.load(folder).run("", max_tokens=200, temperature=0).text() == expected
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    start = tokenizer("", return_tensors="pt")
    tokens = theirs.generate(**start, max_new_tokens=200, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert tokenizer.decode(tokens[0], skip_special_tokens=True) == expected
    with pytest.raises(ArgumentError, match="same folder"):
        zoo.convert(folder, folder)
    assert zoo.convert(folder, tmp_path / "half", dtype="float16").agrees


def test_t5_from_text_to_text(assets: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A random T5 whose tokenizer was trained on real text, through the facade, beside transformers."""
    sentencepiece = pytest.importorskip("sentencepiece")
    numbers = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    text = str(assets / "tinyshakespeare" / "input.txt")
    options = {"input": text, "model_type": "unigram", "vocab_size": 600, "input_sentence_size": 1000, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(model_prefix=str(tmp_path / "spiece"), **options, **numbers)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    settings = transformers.T5Config(vocab_size=704, decoder_start_token_id=0, **sizes)
    theirs = drawn(transformers.T5ForConditionalGeneration(settings))
    theirs.save_pretrained(tmp_path)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = zoo.load(tmp_path)
    texts = ["", "What ho!  <extra_id_0> my lord", "To be, or not to be", "naïve 日本 <extra_id_99>\n", "x" * 200]
    for text in texts:
        assert model.task.tokenizer.encode(text) == tokenizer(text)["input_ids"], text
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    written = theirs.generate(**encoded, max_new_tokens=7, do_sample=False, use_cache=False)
    expected = [tokenizer.decode(row, skip_special_tokens=True) for row in written]
    assert [answer.text() for answer in model.run(texts, max_tokens=7)] == expected
    assert "".join(model.stream(texts[2], max_tokens=7)) == model.run(texts[2], max_tokens=7).text()
    capfd.readouterr()
    assert main(["run", str(tmp_path), texts[2], "--stream", "--max-tokens", "7"]) == 0
    assert capfd.readouterr().out == model.run(texts[2], max_tokens=7).text() + "\n"
    model.save(tmp_path / "saved")
    assert zoo.load(tmp_path / "saved").run(texts, max_tokens=7) == model.run(texts, max_tokens=7)


def test_the_transformer_of_2017_is_saved(tmp_path: pathlib.Path) -> None:
    sizes = {"layers": 1, "decoder_layers": 2, "width": 16, "heads": 2, "hidden": 8, "vocabulary": 30, "written": 40}
    model = zoo.create("transformer-base", **sizes)
    model.save(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(zoo.load(tmp_path / "t.safetensors")(TOKENS % 30, TOKENS), model(TOKENS % 30, TOKENS))
    assert zoo.list(task="text-to-text", pretrained=False)[-2:] == ["transformer-base", "transformer-big"]


def test_folders_are_shown(assets: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    zoo.create("gpt2", layers=1, width=8, heads=2, vocabulary=20).save(tmp_path / "m")
    zoo.create("electra-small", layers=1, width=8, heads=2, hidden=8, vocabulary=20).save(tmp_path / "e")
    stories = assets / "stories260k" / "stories260K.bin"
    kinds = {tmp_path / "m": ("gpt2", "text-generation"), tmp_path / "e": ("electra", "text-embedding")}
    for path, (kind, task) in {**kinds, stories: ("llama2c", "text-generation")}.items():
        assert main(["show", str(path), "--json"]) == 0
        facts = json.loads(capfd.readouterr().out)
        assert (facts["architecture"], facts["task"], facts["looks like"]) == (kind, task, "")
    report = zoo.convert(tmp_path / "m", tmp_path / "bare.safetensors")
    assert any("tokenizer" in what for what in report.lost)


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "t5-small"])
def test_made_by_name_and_saved_as_onnx(name: str, tmp_path: pathlib.Path) -> None:
    """Without a tokenizer too: the arrays are those of the network."""
    sizes = {"layers": 1, "width": 16, "heads": 2, "hidden": 16, "vocabulary": 50}
    model = zoo.create(name, **sizes, **({"embedding": 16} if "bert" in name else {}))
    model.save(tmp_path / "m.onnx")
    again = zoo.load(tmp_path / "m.onnx")
    assert again.task.name == model.task.name
    mask = np.ones_like(TOKENS)
    if name != "t5-small":  # which takes a decoder's tokens and past as well: test_exporting.py
        np.testing.assert_allclose(again.network(TOKENS, mask), model.network(TOKENS, mask), atol=1e-5)
    with pytest.raises(ArgumentError, match="no tokenizer"):
        again.run("text")
