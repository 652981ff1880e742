"""Writing from Python and from the command line: pieces, stop texts, options, wrong options; on stories260k."""

from __future__ import annotations

import io
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo.cli import main
from zoonet.zoo.text.streaming import Continuation, TextStream
from zoonet.zoo.text.tokenizer import read_tokenizer
from zoonet.zoo.transformers.sampling import Sampling

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def path(assets: pathlib.Path) -> str:
    return str(assets / "stories260k" / "stories260K.bin")


@pytest.fixture(scope="module")
def model(path: str) -> Any:
    return zoo.load(path)


@pytest.fixture(scope="module")
def story(assets: pathlib.Path) -> str:
    """200 greedy steps of llama2.c's own program."""
    return (assets / "stories260k" / "greedy_200.txt").read_text()


def run(capfd: Capture, *arguments: str) -> str:
    status = main(["run", *arguments])
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("stop", [["Lily"], [". "], ["park", "the", "e pa"], [" One day"], ["zebra"], "girl"])
def test_stop_texts(model: Any, story: str, stop: Any) -> None:
    texts = [stop] if isinstance(stop, str) else stop
    places = [story.find(text) for text in texts if text in story]
    expected = story[: min(places, default=len(story))]
    pieces = list(model.stream("", max_tokens=200, stop=stop))
    assert "".join(pieces) == expected
    assert len(pieces) > 1
    found = model.run("", max_tokens=200, stop=stop)
    assert (found.text(), found.reason) == (expected, "string" if places else "length")


def test_log_probabilities(model: Any) -> None:
    """Those of the network's scores over prompt and continuation, computed at once."""
    found = model.run("Once upon", max_tokens=12)
    prompt = model.task.tokenizer.encode("Once upon")
    scores = np.asarray(model(np.array([prompt + list(found.tokens)])), np.float64)[0]
    logarithms = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    expected = [logarithms[len(prompt) - 1 + i, token] for i, token in enumerate(found.tokens)]
    np.testing.assert_allclose(found.log_probabilities, expected, rtol=1e-4, atol=1e-5)
    drawn = model.run("Once upon", max_tokens=12, temperature=0.8, top_k=5, seed=1)
    assert all(probability <= 0 for probability in drawn.log_probabilities)
    assert drawn == model.run("Once upon", max_tokens=12, temperature=0.8, top_k=5, seed=1)


def test_beams(model: Any) -> None:
    greedy = model.run("Lily wanted", max_tokens=10)
    best = model.run("Lily wanted", max_tokens=10, beams=4)
    assert sum(best.log_probabilities) >= sum(greedy.log_probabilities)
    with pytest.raises(ArgumentError, match="beam"):
        model.run("Lily", beams=2, temperature=1.0)


WRONG = {
    "max_tokens": [-1, 2.5, "many", True, None],
    "temperature": [-0.1, math.nan, math.inf, "hot", None],
    "top_k": [-1, 1.5],
    "top_p": [0, 1.1, math.nan],
    "min_p": [-0.1, 1.0],
    "repetition_penalty": [0, -1, math.inf],
    "presence_penalty": [math.nan, "x"],
    "seed": [-1, 1.5, "x"],
    "beams": [0, 1.5],
    "stop": [3, [""], [3], ""],
}


@pytest.mark.parametrize("option", WRONG)
def test_wrong_options(model: Any, option: str) -> None:
    for value in WRONG[option]:
        with pytest.raises(ArgumentError, match=option):
            model.run("Once", **{option: value})
        if option != "beams":
            with pytest.raises(ArgumentError, match=option):
                model.stream("Once", **{option: value})  # at once, before a piece is asked for
    with pytest.raises(ArgumentError, match="no option 'warmth'"):
        model.stream("Once", warmth=1)


def test_wrong_prompts(model: Any) -> None:
    for source in (b"Once", None, [], ["Once", 3], {"role": "user"}):
        with pytest.raises(InputError):
            model.run(source)
    with pytest.raises(InputError, match="one text"):
        model.stream(["a", "b"])
    with pytest.raises(InputError, match="surrogate"):
        model.run("\udcff")


def test_letters_of_several_tokens(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "vocab.json").write_bytes((assets / "vocabs" / "gpt2_bpe_encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((assets / "vocabs" / "gpt2_bpe_vocab.bpe").read_bytes())
    tokenizer = read_tokenizer(tmp_path)
    for text in ("😀😀👩‍👩‍👧🇫🇷 日本語と中文 한국어", " naïve  café\n\n ", "a" * 300, "العربية हिन्दी"):
        stream = TextStream(tokenizer, tokenizer.encode("Once"))
        pieces = [stream.push(token) for token in tokenizer.encode(text)]
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join([*pieces, stream.finish()]) == text
        written = Continuation(tokenizer, [], ["本語と", "café"])
        pieces = [written.push(token) for token in tokenizer.encode(text)]
        cut = min((text.find(stop) for stop in ("本語と", "café") if stop in text), default=len(text))
        assert "".join([*pieces, written.finish()]) == written.text == text[:cut]
    broken = TextStream(tokenizer)
    half = tokenizer.encode("日")[:1]
    pieces = [broken.push(token) for token in half * 200]
    assert "".join([*pieces, broken.finish()]) == "\ufffd" * 200


# -- the command -----------------------------------------------------------------------------------------------------


def test_command(capfd: Capture, path: str, story: str) -> None:
    assert run(capfd, path, "", "--max-tokens", "200", "--temperature", "0") == story + "\n"
    assert run(capfd, path, "", "--max-tokens", "200", "--stream") == story + "\n"
    stopped = run(capfd, path, "", "--stream", "--stop", "zebra", "--stop", "Lily", "--max-tokens", "99")
    assert stopped == story.partition("Lily")[0] + "\n"
    drawn = ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.9", "--min-p", "0.01", "--seed", "5"]
    drawn += ["--repetition-penalty", "1.1", "--presence-penalty", "0.1", "--max-tokens", "20"]
    texts = ["Once upon", "Lily"]
    assert run(capfd, path, *texts, *drawn) == run(capfd, path, *texts, *drawn)
    streamed = [run(capfd, path, text, *drawn, "--stream") for text in texts]
    assert run(capfd, path, *texts, *drawn, "--stream") == "\n".join(streamed)
    [found] = json.loads(run(capfd, path, "Once upon", "--max-tokens", "3", "--json"))
    assert found["source"] + found["continuation"] == "Once upon a time,"
    assert len(found["tokens"]) == len(found["log_probabilities"]) == 3


class _Input:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def test_standard_input(capfd: Capture, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Input(b"Once upon\n"))
    assert run(capfd, path, "-", "--max-tokens", "2") == "Once upon a time\n"
    monkeypatch.setattr(sys, "stdin", _Input(b"Once\xff"))
    assert main(["run", path, "-"]) == 2
    assert "UTF-8" in capfd.readouterr().err


def test_wrong_commands(capfd: Capture, path: str) -> None:
    for arguments, message in {
        ("Once", "--max-tokens", "-1"): "max_tokens",
        ("Once", "--max-tokens", "x"): "integer",
        ("Once", "--top-p", "7"): "top_p",
        ("Once", "--stream", "--json"): "--stream",
        ("Once", "--stream", "--beams", "3"): "beams",
        ("Once", "--stream", "--batch", "3"): "batch",
        ("Once", "--chat"): "chat template",
        ("Once", "--task", "poetry"): "poetry",
        ("Once", "--tokenizer", "/nowhere"): "/nowhere",
    }.items():
        assert main(["run", path, *arguments]) == 2, arguments
        out, err = capfd.readouterr()
        assert out == ""
        assert message in err
        assert "Traceback" not in err
    assert main(["run", "digits", str(pathlib.Path(__file__).parents[3] / "examples" / "digit.png"), "--stream"]) == 2
    assert "has no stream" in capfd.readouterr().err


def test_batches_give_the_same_texts(model: Any) -> None:
    prompts = ["Once", "Lily and Tom", "", "The dog", "x"]
    options = {"max_tokens": 9, "temperature": 1.0, "top_k": 20, "seed": 7}
    expected = [text.tokens for text in model.run(prompts, **options)]
    for batch in (1, 2, 3):
        assert [text.tokens for text in model.run(prompts, **options, batch=batch)] == expected
    assert list(model.run(prompts[:1], **options)[0].tokens) == list(expected[0])


def test_presence_penalty() -> None:
    """By hand: 1.5 is taken from what occurred, so that the second becomes the likeliest."""
    sampling = Sampling(presence_penalty=1.5)
    scores = np.array([[2.0, 1.0, 0.0]])
    np.testing.assert_array_equal(sampling.penalise(scores, np.array([[True, False, True]])), [[0.5, 1.0, -1.5]])
    tokens, logarithms = sampling.choose(scores, np.array([[True, False, True]]), [])
    assert tokens.tolist() == [1]
    assert logarithms[0] == pytest.approx(1 - math.log(math.e**2 + math.e + 1))  # before the penalty


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_dtypes(path: str, story: str, dtype: str) -> None:
    loaded = zoo.load(path, dtype=dtype)
    text = loaded.run("", max_tokens=30).text()
    assert text == story[: len(text)] or dtype == "bfloat16"
    assert text.startswith("Once upon a time, there was a little girl named Lily")


def test_tasks_that_do_not_fit(path: str) -> None:
    for task in ("text-embedding", "fill-mask", "text-to-text", "image-classification", "arrays", "question-answering"):
        with pytest.raises(ArgumentError):
            zoo.load(path, task=task)
    with pytest.raises(ArgumentError, match="not for text-generation"):
        zoo.load("digits", task="text-generation")
