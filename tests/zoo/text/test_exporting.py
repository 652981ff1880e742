"""Models on text saved as ONNX: ONNX Runtime has our outputs at any length, and `zoo.load` gives the task back."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_runtime import assert_equal, session_of

from zoonet import ops, zoo
from zoonet.ops.errors import FormatError, InputError, UnsupportedFormatError
from zoonet.zoo.exporting import draft
from zoonet.zoo.modules import initialised_by
from zoonet.zoo.text.build import word_piece
from zoonet.zoo.text.generation import TextGeneration, TextToText
from zoonet.zoo.text.spans import QuestionAnswering, TokenClassification
from zoonet.zoo.text.tasks import FillMask, TextClassification, TextEmbedding
from zoonet.zoo.text.tokenizer import Tokenizer, usual_names
from zoonet.zoo.transformers.bert import FAMILIES, BertConfig, BertModel, BertWithHead
from zoonet.zoo.transformers.gpt2 import GPT2Config, GPT2LMHeadModel
from zoonet.zoo.transformers.llama import LlamaConfig, LlamaForCausalLM

RNG = np.random.default_rng(0)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "a", "dog", "##s", "."]
TOKENIZER = Tokenizer(word_piece(WORDS), names=usual_names(word_piece(WORDS)))
TASKS: dict[str, Any] = {
    "embedding": TextEmbedding,
    "masked": FillMask,
    "sequence": TextClassification,
    "token": TokenClassification,
    "answer": QuestionAnswering,
}


def encoder(family: str, head: str) -> Any:
    width = 12 if family == "electra" else 16
    config = BertConfig(family, 16, 2, 4, 24, len(WORDS), 40, 2, width, 3, padding=1 if family == "roberta" else 0)
    network = BertModel(config) if head == "embedding" else BertWithHead(config, head)
    settings: dict[str, Any] = {"id2label": {"0": "no", "1": "yes", "2": "perhaps"}, "pooling": "mean"}
    return zoo.Model(network, family, TASKS[head](TOKENIZER, settings))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", TASKS)
def test_encoders(family: str, head: str, tmp_path: pathlib.Path) -> None:
    model = encoder(family, head)
    path = tmp_path / "m.onnx"
    model.save(path)
    session = session_of(path)
    names = [port.name for port in session.get_inputs()]
    assert names == ["input_ids", "attention_mask", "token_type_ids"][: 3 if FAMILIES[family].token_types else 2]
    assert all(port.shape == ["batch", "sequence"] for port in session.get_inputs())
    again = zoo.load(path)
    for count, length in ((1, 1), (3, 7), (2, 30)):
        tokens, types = RNG.integers(2, 14, (count, length)), RNG.integers(0, 2, (count, length))
        mask = (np.arange(length) < RNG.integers(1, length + 1, (count, 1))).astype(np.int64)
        given = (tokens, mask, types)[: len(names)]
        expected = model.network(*given)
        assert_equal(expected, session.run(None, dict(zip(names, given, strict=True)))[0])
        assert_equal(expected, again.network(*given))
    text: Any = {"masked": "the [MASK] sat", "answer": ("the cat", "a dog on the mat")}.get(head, "the cat sat.")
    assert again.task.name == model.task.name
    lacking = dict(model.network.named_parameters()).keys() - again.network.state_dict().keys()
    assert all(name.startswith("pooler") for name in lacking)  # which the hidden states do not need
    ours, theirs = model.run(text), again.run(text)
    assert type(ours) is type(theirs)
    if head == "embedding":
        np.testing.assert_allclose(ours.vector, theirs.vector, rtol=1e-4, atol=1e-5)
    elif head in ("masked", "sequence"):
        assert [p.label for p in ours.top(3)] == [p.label for p in theirs.top(3)]
    else:
        assert ours.to_dict().keys() == theirs.to_dict().keys()


def decoder(kind: str) -> Any:
    network: Any
    with initialised_by(0):
        if kind == "gpt2":
            network = GPT2LMHeadModel(GPT2Config(16, 2, 4, 24, len(WORDS), 40))
        else:
            window = 3 if kind == "mistral" else None
            config = LlamaConfig(
                16, 2, 4, 2, 24, len(WORDS), 40, kind=kind, window=window, query_norm=kind == "qwen3", tied=True
            )
            network = LlamaForCausalLM(config)
    settings = {**network.config.to_json(), "eos_token_id": 3}
    return zoo.Model(network, kind, TextGeneration(TOKENIZER, settings))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "qwen3"])
def test_decoders_take_past_keys_and_values(kind: str, tmp_path: pathlib.Path) -> None:
    model = decoder(kind)
    path = tmp_path / "m.onnx"
    model.save(path)
    session = session_of(path)
    outputs = [port.name for port in session.get_outputs()]
    assert outputs[:3] == ["logits", "present.0.key", "present.0.value"]
    heads, depth = session.get_inputs()[3].shape[1], session.get_inputs()[3].shape[3]
    past = {p.name: np.zeros((2, heads, 0, depth), np.float32) for p in session.get_inputs()[3:]}
    tokens = RNG.integers(4, 14, (2, 12))
    mask = np.ones((2, 12), np.int64)
    mask[0, :2] = 0
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    expected = model.network(tokens, mask, positions)
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        feeds = {"input_ids": tokens[:, start:stop], "attention_mask": mask[:, :stop], **past}
        found = session.run(None, {**feeds, "position_ids": positions[:, start:stop]})
        past = {f"past_key_values.{name.removeprefix('present.')}": a for name, a in zip(outputs, found, strict=True)}
        del past["past_key_values.logits"]
        seen = mask[:, start:stop].astype(bool)  # a padded position sees nothing, which is 0 and no softmax
        assert_equal(expected[:, start:stop][seen], found[0][seen])
    again = zoo.load(path)
    texts = ["the cat sat", "a"]
    assert [g.tokens for g in again.run(texts, max_tokens=12)] == [g.tokens for g in model.run(texts, max_tokens=12)]
    assert again.network.state_dict().keys() == dict(model.network.named_parameters()).keys()
    again.save(tmp_path / "other.onnx", opset=21)  # which traces the graph
    session_of(tmp_path / "other.onnx")
    other = zoo.load(tmp_path / "other.onnx")
    assert [g.tokens for g in other.run(texts, max_tokens=12)] == [g.tokens for g in model.run(texts, max_tokens=12)]


def test_stories(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = zoo.load(assets / "stories260k" / "stories260K.bin")
    model.save(tmp_path / "stories.onnx")
    session_of(tmp_path / "stories.onnx")
    again = zoo.load(tmp_path / "stories.onnx")
    text = again.run("", max_tokens=200, temperature=0).text
    assert text == (assets / "stories260k" / "greedy_200.txt").read_text()
    again.save(tmp_path / "second.onnx")
    assert zoo.load(tmp_path / "second.onnx").run("", max_tokens=20).tokens == again.run("", max_tokens=20).tokens


def test_a_decoder_of_few_positions(tmp_path: pathlib.Path) -> None:
    model = zoo.create("gpt2", seed=0, width=16, layers=1, heads=2, hidden=24, vocabulary=20, positions=12)
    model.save(tmp_path / "m.onnx")
    session_of(tmp_path / "m.onnx")
    tokens = RNG.integers(0, 20, (2, 12))
    assert_equal(model(tokens), zoo.load(tmp_path / "m.onnx").network(tokens))


def test_positions_that_depend_on_the_whole_length_are_refused(tmp_path: pathlib.Path) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 8}
    sizes = {"width": 16, "layers": 1, "heads": 2, "key_value_heads": 1, "hidden": 24, "vocabulary": 20}
    model = zoo.create("llama-2-7b", seed=0, **sizes, rope={"rope_type": "longrope", **factors})
    with pytest.raises(UnsupportedFormatError, match="LongRoPE"):
        model.save(tmp_path / "m.onnx")


@pytest.mark.parametrize("opset", [13, 18, 23, 28])
def test_opsets(opset: int) -> None:
    for model in (encoder("bert", "sequence"), decoder("llama")):
        session_of(draft(model, opset).proto())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_training_step_runs_in_onnx_runtime_at_any_length(kind: str, tmp_path: pathlib.Path) -> None:
    """Attention, norms and embeddings with their gradients, where batch and sequence are free."""
    network = (encoder("bert", "token") if kind == "bert" else decoder(kind)).network
    classes = 3 if kind == "bert" else len(WORDS)
    parameters = network.parameters()

    def loss(ids: Any, last: Any, target: Any) -> Any:
        scores = network(ids, last) if kind == "bert" else network(ids, None, last)  # a mask, or positions
        return ops.cross_entropy(ops.reshape(scores, (-1, classes)), ops.reshape(target, (-1,)))

    def step(parameters: dict[str, Any], *inputs: Any) -> Any:
        def value(given: dict[str, Any]) -> Any:
            return zoo.functional_call(network, given, *inputs, function=loss)[0]

        found, gradients = ops.value_and_grad(value)(parameters)
        return {"loss": found, "new": {n: p - 0.1 * gradients[n] for n, p in parameters.items()}}

    tokens = ops.tensor_type((1, 4), "int64")
    names = ["ids", "last", "target"]
    dynamic = {name: {0: "batch", 1: "sequence"} for name in names}
    inputs = [*(f"p.{name}" for name in parameters), *names]
    zoo.export(step, tmp_path / "step.onnx", parameters, *[tokens] * 3, inputs=inputs, dynamic=dynamic, opset=18)
    session = session_of(tmp_path / "step.onnx")
    for count, length in ((2, 5), (3, 9)):
        ids, target = RNG.integers(2, 14, (count, length)), RNG.integers(0, classes, (count, length))
        last = np.ones_like(ids) if kind == "bert" else np.arange(length) + np.zeros_like(ids)
        expected = step(parameters, ids, last, target)
        given = {f"p.{name}": np.array(value) for name, value in parameters.items()}
        given |= {"ids": ids, "last": last, "target": target}
        found = session.run(None, {port.name: given[port.name] for port in session.get_inputs()})
        results = dict(zip([port.name for port in session.get_outputs()], found, strict=True))
        assert_equal(expected["loss"], results["loss"])
        for name in parameters:
            assert_equal(expected["new"][name], results[f"new.{name}"])


def encoder_decoder(kind: str) -> Any:
    sizes = {"width": 16, "layers": 2, "decoder_layers": 3, "heads": 4, "hidden": 24, "vocabulary": len(WORDS)}
    if kind == "transformer-base":
        made = zoo.create(kind, seed=0, **sizes, written=len(WORDS), longest=60, start=2)
    else:
        made = zoo.create(kind, seed=0, **sizes, head_size=6, buckets=8, distance=12)
    settings = getattr(made.network.config, "to_json", dict)()
    return zoo.Model(made.network, kind, TextToText(TOKENIZER, {**settings, "eos_token_id": 3}))


@pytest.mark.parametrize("kind", ["t5-small", "flan-t5-small", "transformer-base"])
def test_encoder_decoders(kind: str, tmp_path: pathlib.Path) -> None:
    model = encoder_decoder(kind)
    path = tmp_path / "m.onnx"
    model.save(path)
    session = session_of(path)
    inputs, outputs = session.get_inputs(), [port.name for port in session.get_outputs()]
    assert [port.name for port in inputs[:4]] == [
        "input_ids",
        "attention_mask",
        "decoder_input_ids",
        "past_key_values.0.decoder.key",
    ]
    assert [port.shape for port in inputs[1:3]] == [["batch", "source"], ["batch", "sequence"]]
    assert (outputs[0], outputs[1], outputs[-1]) == ("logits", "present.0.decoder.key", "encoder_last_hidden_state")
    again = zoo.load(path)
    assert again.task.name == "text-to-text"
    for count, read, length in ((1, 1, 1), (2, 20, 7), (3, 5, 30)):  # further apart than the last bucket
        tokens, written = RNG.integers(2, 14, (count, read)), RNG.integers(2, 14, (count, length))
        mask = (np.arange(read) < RNG.integers(1, read + 1, (count, 1))).astype(np.int64)
        expected = model.network(tokens, written, mask)
        assert_equal(model.network.encode(tokens, mask), again.network.encode(tokens, mask))
        assert_equal(expected, again.network(tokens, written, mask))
        assert_equal(expected, again(tokens, written, mask))
        past = {p.name: np.zeros((count, 4, 0, p.shape[3]), np.float32) for p in inputs[3:]}
        for start, stop in ((0, (length + 1) // 2), ((length + 1) // 2, length)):
            if start == stop:
                continue
            feeds = {"input_ids": tokens, "attention_mask": mask, "decoder_input_ids": written[:, start:stop], **past}
            found = dict(zip(outputs, session.run(None, feeds), strict=True))
            past = {name: found[name.replace("past_key_values", "present")] for name in past}
            assert_equal(expected[:, start:stop], found["logits"])
            assert_equal(model.network.encode(tokens, mask), found["encoder_last_hidden_state"])
    texts = ["the cat sat on the mat", "a dog"]
    for options in ({}, {"beams": 3}):
        ours, theirs = [m.run(texts, max_tokens=9, **options) for m in (model, again)]
        assert [g.tokens for g in ours] == [g.tokens for g in theirs]
    assert again.network.state_dict().keys() == dict(model.network.named_parameters()).keys()
    again.save(tmp_path / "same.onnx")
    again.save(tmp_path / "other.onnx", opset=21)  # which traces the graph
    for name in ("same", "other"):
        session_of(tmp_path / f"{name}.onnx")
        other = zoo.load(tmp_path / f"{name}.onnx")
        assert [g.tokens for g in other.run(texts, max_tokens=9)] == [g.tokens for g in model.run(texts, max_tokens=9)]


def test_a_graph_that_does_not_fit_its_task(tmp_path: pathlib.Path) -> None:
    model = encoder_decoder("t5-small")
    model.save(tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.input[2].name = "written"
    for node in proto.graph.node:
        node.input[:] = ["written" if name == "decoder_input_ids" else name for name in node.input]
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(FormatError, match="do not fit its task"):
        zoo.load(tmp_path / "other.onnx")
    again = zoo.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="padding"):
        again.network.decode(
            np.ones((1, 2), np.int64), np.zeros((1, 3, 16), np.float32), mask=np.array([[False, True]])
        )
