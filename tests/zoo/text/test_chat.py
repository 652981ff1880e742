"""Chat templates beside transformers' own rendering, and templates that mean harm."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
from typing import Any

import pytest

from zoonet import zoo
from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.zoo.text.chat import ChatTemplate
from zoonet.zoo.text.tokenizer import read_tokenizer

try:
    from transformer_oracles import drawn, transformers
except ImportError as error:
    pytest.skip(f"no oracle: {error}", allow_module_level=True)

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}"""
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if loop.index0 > 3 %}{% break %}{% endif %}{% if m.role == 'user' %}"
    "{{ '[INST] ' ~ m.content ~ ' [/INST]' }}{% elif m.role == 'assistant' %}{% generation %}"
    "{{ m.content ~ eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('no ' ~ m.role) }}{% endif %}{% endfor %}"
)
JSON = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ ns.n }}{{ m | tojson }}{% endfor %}"
)
TALK = [
    {"role": "user", "content": "  Hi, <b>naïve</b> 日本 & 'you' "},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who?"},
]


@pytest.fixture
def folder(assets: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copy(assets / "vocabs" / "gpt2_bpe_encoder.json", tmp_path / "vocab.json")
    shutil.copy(assets / "vocabs" / "gpt2_bpe_vocab.bpe", tmp_path / "merges.txt")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("source", [CHATML, LLAMA2, JSON])
def test_templates_equal_transformers(folder: pathlib.Path, source: str, reply: bool) -> None:
    (folder / "chat_template.jinja").write_text(source)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=reply)
    ours = read_tokenizer(folder)
    assert ours.template is not None
    assert ours.template.render(TALK, reply=reply) == expected
    (folder / "saved").mkdir()
    ours.save(folder / "saved")
    again = read_tokenizer(folder / "saved").template
    assert again is not None
    assert again.render(TALK, reply=reply) == expected


def test_conversations_through_the_facade(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": CHATML}))
    sizes = {"vocab_size": 50257, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 128}
    network = drawn(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)))
    network.save_pretrained(folder)
    model = zoo.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = theirs.apply_chat_template(TALK, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = network.generate(**encoded, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    reply = model.run(TALK, max_tokens=8)
    assert list(reply.tokens) == tokens[0, encoded["input_ids"].shape[1] :].tolist()
    assert reply.text() == theirs.decode(reply.tokens)
    assert reply.message == {"role": "assistant", "content": reply.text()}
    assert "".join(model.stream(TALK, max_tokens=8)) == reply.text()
    one, two = model.run(["Hi", "Who?"], chat=True, system="Be kind.", max_tokens=4)
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
    assert two.tokens == model.run(talk, max_tokens=4).tokens == model.run([TALK, talk], max_tokens=4)[1].tokens
    assert one.source.startswith("<|im_start|>system\nBe kind.")
    for wrong in ([], [{"role": "user"}], [{"text": "Hi"}], [TALK, "Hi"]):
        with pytest.raises(InputError):
            model.run(wrong)


HARMFUL = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "import": "{% include '/etc/passwd' %}",
    "memory": "{{ 'a' * 1000000000 }}",
    "powers": "{{ 10 ** 10000000 }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "output": "{% for i in range(90000) %}{{ 'a' * 10000 }}{% endfor %}",
    "steps": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "changes": "{{ messages.append(1) }}",
    "syntax": "{% if %}",
    "types": "{{ messages + 1 }}",
    "unknown": "{{ nothing.at.all }}",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_templates(name: str) -> None:
    with pytest.raises(FormatError):
        ChatTemplate(HARMFUL[name]).render(TALK)


def test_what_cannot_be_said_says_why(folder: pathlib.Path) -> None:
    with pytest.raises(InputError, match="no system"):
        ChatTemplate(LLAMA2, {"bos_token": "<s>"}).render([{"role": "system", "content": "x"}])
    (folder / "tokenizer_config.json").write_text('{"chat_template": 3}')
    with pytest.raises(FormatError, match="chat template"):
        read_tokenizer(folder)


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ArgumentError, match=r"zoonet\[chat\]"):
        ChatTemplate(CHATML).render(TALK)


def test_models_without_a_template(assets: pathlib.Path) -> None:
    model: Any = zoo.load(assets / "stories260k" / "stories260K.bin")
    with pytest.raises(ArgumentError, match="no chat template"):
        model.run(TALK)
    with pytest.raises(ArgumentError, match="chat"):
        model.run("Once", system="x")
