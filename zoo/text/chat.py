"""Chat templates: conversations to the text that a model was trained on.

A template is a program in a file, so it runs in a sandbox that reaches no attributes of Python objects, with a limit on
what it writes. Source: `chat_template` of Hugging Face's tokenizer_config.json, or chat_template.jinja.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from zoonet.formats.files import check_path
from zoonet.ops.errors import ArgumentError, FormatError, InputError, ZoonetError

_LONGEST = 1 << 24  # characters that a template may write
_STEPS = 1_000_000  # that a template may count
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")

Message = Mapping[str, Any]


class ChatTemplate:
    """source: a template in jinja's language. tokens: special tokens by the names that templates use (bos_token, …)."""

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.tokens = dict(tokens or {})

    def render(self, messages: Sequence[Message], *, reply: bool = True) -> str:
        """The text of a conversation. messages: {"role": "user", "content": …}. reply: an answer's start follows.

        Raises InputError for messages of another form, and where the template refuses them; FormatError for a template
        that is wrong.
        """
        check_messages(messages)
        jinja2 = _jinja2()
        try:
            template = _environment(jinja2).from_string(self.source)
            parts, size = [], 0
            for part in template.generate(
                messages=[dict(message) for message in messages], add_generation_prompt=reply, tools=None, **self.tokens
            ):
                size += len(part)
                if size > _LONGEST:
                    raise FormatError("the chat template writes without end", fix="obtain the file again")
                parts.append(part)
            return "".join(parts)
        except ZoonetError:
            raise
        except jinja2.TemplateError as error:
            raise FormatError(
                "the chat template is wrong", received=f"{type(error).__name__}: {error}"[:300]
            ) from error
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise FormatError("the chat template fails on these messages", received=repr(error)[:300]) from error


def check_messages(messages: object) -> None:
    """Raise InputError where these are no messages."""
    if (
        not isinstance(messages, list | tuple)
        or not messages
        or not all(isinstance(m, Mapping) and isinstance(m.get("role"), str) and "content" in m for m in messages)
    ):
        received = repr(messages)[:100]
        raise InputError("this is no conversation", expected='[{"role": "user", "content": "…"}]', received=received)


def _jinja2() -> Any:
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError:
        raise ArgumentError("chat templates need jinja2", fix="pip install 'zoonet[chat]'") from None
    return jinja2


def _harmless(operator: str, left: Any, right: Any) -> bool:
    """Whether left * right, left ** right or left % right is small."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        return operator != "**" or abs(right) < 64
    if operator == "%":  # a number in the form is a width
        return isinstance(left, str) and not any(map(str.isdigit, left)) and "*" not in left
    return operator == "*" and isinstance(left, str | list) and isinstance(right, int) and len(left) * right < _LONGEST


def _environment(jinja2: Any) -> Any:
    """The sandbox with what templates of Hugging Face expect to find."""

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):  # type: ignore[misc]
        intercepted_binops = frozenset(("*", "**", "%"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if not _harmless(operator, left, right):
                raise FormatError("the chat template computes what none needs", received=f"{operator} of {left!r:.50}")
            return super().call_binop(context, operator, left, right)

    class Marked(jinja2.ext.Extension):  # type: ignore[misc]
        """{% generation %} marks answers, for training; the text is the same."""

        tags: ClassVar[set[str]] = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    left = _STEPS

    def counted(*bounds: int) -> range:
        nonlocal left
        steps = range(*bounds)
        left -= len(steps)
        if left < 0:
            raise FormatError("the chat template counts without end", fix="obtain the file again")
        return steps

    def refuse(message: str) -> None:
        raise InputError("the chat template refuses the messages", received=str(message)[:300])

    def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Marked])
    environment.globals |= {
        "range": counted,
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
    }
    environment.filters["tojson"] = to_json
    return environment


def special_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens that tokenizer_config.json names, by role."""
    found = {}
    for role in _ROLES:
        token = settings.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[role] = token
    return found


def read_chat_template(folder: Path, settings: Mapping[str, Any], names: Mapping[str, str]) -> ChatTemplate | None:
    """The template in a folder's chat_template.jinja, or its tokenizer_config.json; None without one.

    settings: the fields of tokenizer_config.json. names: special tokens by role. Raises FormatError.
    """
    source = settings.get("chat_template")
    if isinstance(source, list):  # several by name
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    if (folder / "chat_template.jinja").is_file():
        try:
            source = check_path(folder / "chat_template.jinja").read_bytes().decode()
        except UnicodeDecodeError as error:
            raise FormatError("chat_template.jinja is no UTF-8", received=str(error)[:200]) from error
    if source is None:
        return None
    if not isinstance(source, str):
        raise FormatError("the chat template is wrong", expected="a text", received=type(source).__name__)
    return ChatTemplate(source, names)
