"""A tokenizer: texts to token numbers in padded batches, and back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoonet.formats.files import atomic_path, check_path
from zoonet.formats.json_data import parse_json_object
from zoonet.formats.sentencepiece import read_sentencepiece
from zoonet.ops.errors import ArgumentError, FormatError, InputError, MissingFileError, ZoonetError
from zoonet.zoo.text import build
from zoonet.zoo.text.chat import ChatTemplate, read_chat_template, special_names
from zoonet.zoo.transformers.sampling import check_integer

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TokenBatch:
    """tokens, mask (1: text, 0: padding), token_types: (N, T) int64. offsets: per text, (start, stop) in characters.

    special: (N, T) bool, tokens that stand for no text. sequence: (N, T) int64, 0 or 1 for the text of a pair, -1 else.
    """

    tokens: Array
    mask: Array
    token_types: Array
    offsets: list[list[tuple[int, int]]]
    special: Array
    sequence: Array


#: What a folder may hold its tokenizer in.
TOKENIZER_FILES = "tokenizer.json, tokenizer.model, spiece.model, vocab.txt, or vocab.json and merges.txt"


@contextmanager
def _checked(what: str) -> Iterator[None]:
    """What the `tokenizers` package raises for damaged files inside becomes a FormatError; panics are no Exceptions."""
    try:
        yield
    except (ZoonetError, OSError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        received = f"{type(error).__name__}: {error}"[:300]
        raise FormatError(f"{what} are damaged", received=received, fix="obtain the tokenizer's files again") from error


class Tokenizer:
    """Around a pipeline of the `tokenizers` package.

    padding: the token that fills batches. names: special tokens by role (bos_token, …); a role that is left out has the
    token with its usual name, if there is one. template: of conversations.
    """

    def __init__(
        self,
        pipeline: Any,
        padding: int = 0,
        names: Mapping[str, str] | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        pipeline.no_padding()
        pipeline.no_truncation()
        self.pipeline = pipeline
        self.padding = padding
        self.names = {**usual_names(pipeline), **(names or {})}
        self.template = template
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Number of tokens, those that were added included."""
        return int(self.pipeline.get_vocab_size())

    def number(self, token: str) -> int | None:
        """The number of a token, None if there is none of this name."""
        found = self.pipeline.token_to_id(token)
        return None if found is None else int(found)

    def token(self, number: int) -> str | None:
        """The token of this number."""
        return self.pipeline.id_to_token(number) if number >= 0 else None

    @_checked("the tokenizer's files")
    def encode(self, text: str, pair: str | None = None, *, special: bool = True) -> list[int]:
        """Token numbers of a text or a pair. special: with start and end tokens. Raises InputError for no text."""
        return list(
            self.pipeline.encode(_text(text), None if pair is None else _text(pair), add_special_tokens=special).ids
        )

    @_checked("the tokenizer's files")
    def batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_tokens: int | None = None,
        special: bool = True,
        left: bool = False,
    ) -> TokenBatch:
        """Texts (or pairs) as arrays of one length, padded at the end, or in front if `left`.

        max_tokens: longer ones are cut, the longer of a pair first. Raises InputError for what is no text,
        ArgumentError for lists of different lengths or a max_tokens with no room for text.
        """
        if isinstance(texts, str) or (pairs is not None and len(pairs) != len(texts)):
            raise ArgumentError("batch takes lists of texts", expected="as many pairs as texts")
        given: list[Any] = [_text(text) for text in texts]
        if pairs is not None:
            given = list(zip(given, [_text(pair) for pair in pairs], strict=True))
        with self._lock:  # the pipeline keeps truncation as state
            if max_tokens is not None:
                room = max_tokens - self.pipeline.num_special_tokens_to_add(pairs is not None) * special
                if room < 1:
                    raise ArgumentError("max_tokens leaves no room for text", received=max_tokens)
                self.pipeline.enable_truncation(max_tokens)
            try:
                found = self.pipeline.encode_batch(given, add_special_tokens=special)
            finally:
                self.pipeline.no_truncation()
        return self._arrays(found, left)

    @_checked("the tokenizer's files")
    def windows(self, text: str, pair: str | None = None, *, max_tokens: int, overlap: int) -> TokenBatch:
        """A text as windows of at most max_tokens that share `overlap` tokens, but at most half of their room.

        pair: is cut into the windows, the text stands in front of each. Raises InputError where that leaves no room.
        """
        check_integer("overlap", overlap)
        given: Any = _text(text) if pair is None else (_text(text), _text(pair))
        taken = self.pipeline.num_special_tokens_to_add(pair is not None)
        taken += 0 if pair is None else len(self.encode(text, special=False))
        if max_tokens - taken < 1:
            raise InputError("the question is too long", expected=f"less than {max_tokens} tokens", received=taken)
        with self._lock:  # the pipeline keeps truncation as state
            strategy = "longest_first" if pair is None else "only_second"
            shared = min(overlap, (max_tokens - taken) // 2)
            self.pipeline.enable_truncation(max_tokens, stride=shared, strategy=strategy)
            try:
                found = self.pipeline.encode(given) if pair is None else self.pipeline.encode(*given)
            finally:
                self.pipeline.no_truncation()
        return self._arrays([found, *found.overflowing], left=False)

    def _arrays(self, found: list[Any], left: bool) -> TokenBatch:
        shape = (len(found), max((len(e.ids) for e in found), default=0))
        tokens, mask, types = (
            np.full(shape, self.padding, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
        )
        special, sequence = np.ones(shape, bool), np.full(shape, -1, np.int64)
        offsets = []
        for row, encoding in enumerate(found):
            count = len(encoding.ids)
            place = slice(shape[1] - count, None) if left else slice(0, count)
            tokens[row, place], mask[row, place], types[row, place] = encoding.ids, 1, encoding.type_ids
            special[row, place] = np.array(encoding.special_tokens_mask, bool)
            sequence[row, place] = [-1 if i is None else i for i in encoding.sequence_ids]
            filling = [(0, 0)] * (shape[1] - count)
            offsets.append([*filling, *encoding.offsets] if left else [*encoding.offsets, *filling])
        return TokenBatch(tokens, mask, types, offsets, special, sequence)

    @_checked("the tokenizer's files")
    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of token numbers; special: start and end tokens are written out too."""
        return str(self.pipeline.decode([int(t) for t in tokens], skip_special_tokens=not special))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat template, which transformers reads."""
        place = Path(folder)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **self.names}
        contents = {
            "tokenizer.json": self.pipeline.to_str(pretty=True),
            "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
        }
        if self.template is not None:
            contents["chat_template.jinja"] = self.template.source
        for name, content in contents.items():
            with atomic_path(place / name) as temporary:
                temporary.write_text(content, encoding="utf-8")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError("a tokenizer takes texts", expected="str", received=type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError("the text has half of a surrogate pair", fix="decode it from valid UTF-8") from error
    return value


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a folder: tokenizer.json, else tokenizer.model, T5's spiece.model, vocab.txt, or vocab.json with
    merges.txt.

    tokenizer_config.json says whether BERT's lowercases, and which tokens stand around a text. Raises MissingFileError
    where there is none of them, FormatError where they are damaged.
    """
    place = Path(os.fsdecode(folder))
    settings: dict[str, Any] = {}
    if (place / "tokenizer_config.json").is_file():
        settings = parse_json_object((place / "tokenizer_config.json").read_bytes(), "tokenizer_config.json")
    with _checked(f"the tokenizer's files in {place}"):
        pipeline = _pipeline(place, settings)
    if (place / "special_tokens_map.json").is_file():
        older = parse_json_object((place / "special_tokens_map.json").read_bytes(), "special_tokens_map.json")
        settings = {**older, **settings}
    names = {**usual_names(pipeline), **special_names(settings)}
    return Tokenizer(pipeline, _padding(pipeline, names), names, read_chat_template(place, settings, names))


def usual_names(pipeline: Any) -> dict[str, str]:
    """Special tokens that a vocabulary has under the names that they usually have, by role."""
    usual = {
        "bos_token": ("<s>", "<|endoftext|>"),
        "eos_token": ("</s>", "<|endoftext|>"),
        "unk_token": ("[UNK]", "<unk>"),
        "sep_token": ("[SEP]", "</s>"),
        "pad_token": ("[PAD]", "<pad>"),
        "cls_token": ("[CLS]", "<s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    known = {role: [name for name in found if pipeline.token_to_id(name) is not None] for role, found in usual.items()}
    return {role: found[0] for role, found in known.items() if found}


def _pipeline(place: Path, settings: Mapping[str, Any]) -> Any:
    if (place / "tokenizer.json").is_file():
        path = check_path(place / "tokenizer.json")
        return pipeline_of(path.read_bytes(), path.name)
    if (place / "tokenizer.model").is_file():
        start, end = settings.get("add_bos_token") is not False, settings.get("add_eos_token") is True
        return build.sentence_piece(read_sentencepiece(place / "tokenizer.model"), start=start, end=end)
    if (place / "spiece.model").is_file():
        return build.t5(read_sentencepiece(place / "spiece.model"), _sentinels(settings))
    if (place / "vocab.txt").is_file():
        accents = settings.get("strip_accents")
        return build.word_piece(
            _lines(place / "vocab.txt"),
            lowercase=settings.get("do_lower_case", True) is not False,
            strip_accents=accents if isinstance(accents, bool) else None,
            chinese=settings.get("tokenize_chinese_chars", True) is not False,
        )
    if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
        prefix = settings.get("add_prefix_space") is True
        return _from_merges(place / "vocab.json", place / "merges.txt", prefix)
    raise MissingFileError(
        f"{place} has no tokenizer",
        expected=TOKENIZER_FILES,
        fix="download the tokenizer's files too, or name them, load(path, tokenizer=…)",
    )


def _sentinels(settings: Mapping[str, Any]) -> int:
    number = settings.get("extra_ids", 100)
    if type(number) is not int or not 0 <= number <= 10_000:
        raise FormatError(
            "tokenizer_config.json: extra_ids is wrong", expected="0 to 10000", received=repr(number)[:99]
        )
    return number


def _padding(pipeline: Any, names: Mapping[str, str]) -> int:
    for name in (names.get("pad_token"), "[PAD]", "<pad>"):
        found = pipeline.token_to_id(name) if name else None
        if found is not None:
            return int(found)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return [line.rstrip("\r") for line in check_path(path).read_bytes().decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise FormatError(f"{path.name} is no UTF-8", received=str(error)[:200]) from error


def pipeline_of(data: bytes, name: str) -> Any:
    """The pipeline that the contents of a tokenizer.json describe. Raises FormatError naming the file."""
    import tokenizers

    try:
        pipeline = tokenizers.Tokenizer.from_str(data.decode())
        pipeline.encode("a", "b")  # what does not fit together is noticed only here
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the package raises plain exceptions, and panics, which are none
        raise FormatError(f"{name} is not read by the tokenizers package", received=str(error)[:300]) from error
    return pipeline


def _from_merges(vocabulary: Path, merges: Path, prefix: bool) -> Any:
    tokens = parse_json_object(check_path(vocabulary).read_bytes(), vocabulary.name)
    if not all(type(number) is int and 0 <= number < 1 << 31 for number in tokens.values()):
        raise FormatError(f"{vocabulary.name} must map tokens to numbers")
    pairs = [tuple(line.split(" ")) for line in _lines(merges) if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise FormatError(f"{merges.name} must have two tokens in each line")
    return build.byte_pairs(tokens, pairs, prefix=prefix)  # type: ignore[arg-type]
