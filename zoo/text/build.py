"""Tokenizers made of vocabularies: WordPiece, byte-level BPE, SentencePiece and llama2.c's.

All become pipelines of the `tokenizers` package. Source: arXiv:1810.04805 (WordPiece), GPT-2's byte-level BPE,
arXiv:1808.06226 (SentencePiece), run.c of karpathy/llama2.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoonet.formats.sentencepiece import CONTROL, NORMAL, UNKNOWN, SentencePieceModel
from zoonet.ops.errors import FormatError, UnsupportedFormatError

_SPACE = "▁"


def word_piece(
    vocabulary: Sequence[str], *, lowercase: bool = True, strip_accents: bool | None = None, chinese: bool = True
) -> Any:
    """BERT's tokenizer, of the lines of vocab.txt. Raises FormatError where [UNK], [CLS] or [SEP] is missing.

    strip_accents: as lowercase where None. chinese: each Chinese letter is a word.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    tokens = {token: number for number, token in enumerate(vocabulary)}
    if missing := [name for name in ("[UNK]", "[CLS]", "[SEP]") if name not in tokens]:
        raise FormatError("vocab.txt is not BERT's", expected="[UNK], [CLS] and [SEP]", received=f"no {missing[0]}")
    tokenizer = tokenizers.Tokenizer(models.WordPiece(tokens, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokens[name]) for name in ("[CLS]", "[SEP]")],
    )
    special = [name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in tokens]
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_pairs(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, prefix: bool = False) -> Any:
    """GPT-2's tokenizer, or RoBERTa's where the vocabulary has <s> and </s>; of vocab.json and merges.txt.

    prefix: a text begins with a space, whatever it begins with.
    """
    import tokenizers
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

    try:
        model = models.BPE(dict(vocabulary), list(merges))
    except Exception as error:  # the package raises plain exceptions
        raise FormatError("merges.txt does not fit vocab.json", received=str(error)[:300]) from error
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|endoftext|>"]
    if "<s>" in vocabulary and "</s>" in vocabulary:
        names = ["<s>", "</s>", "<unk>", "<pad>"]
        start, end = ("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])
        tokenizer.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=prefix)
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([name for name in names if name in vocabulary])
    if "<mask>" in vocabulary:
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def _ranked_merges(scores: Mapping[str, float], numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, those of high score first."""
    found = [
        (-score, numbers[piece], piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, _, left, right in sorted(found)]


def sentence_piece(model: SentencePieceModel, *, start: bool = True, end: bool = False) -> Any:
    """The tokenizer of a SentencePiece model, as Llama's: the start token, where there is one, goes in front.

    start, end: whether texts begin with the start token, and end with the end token.
    Control pieces written out in a text ("<s>") are taken as such, as transformers does. Raises
    UnsupportedFormatError for word and char models, FormatError for tokens outside the vocabulary or given twice.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, processors

    numbers = {text: number for number, (text, _, _) in enumerate(model.pieces)}
    if len(numbers) != len(model.pieces) or not 0 <= model.unknown < len(model.pieces):
        raise FormatError("the SentencePiece model has a piece twice, or no unknown piece", fix="obtain the file again")
    inner: Any
    if model.kind == "unigram":
        pieces = [(text, score) for text, score, _ in model.pieces]
        inner = models.Unigram(pieces, unk_id=model.unknown, byte_fallback=model.byte_fallback)
    elif model.kind == "bpe":
        normal = {text: score for text, score, kind in model.pieces if kind == NORMAL}
        inner = models.BPE(
            numbers,
            _ranked_merges(normal, numbers),
            unk_token=model.pieces[model.unknown][0],
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    else:
        raise UnsupportedFormatError("a kind of SentencePiece model", expected="unigram or bpe", received=model.kind)
    tokenizer = tokenizers.Tokenizer(inner)
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    if model.escape_whitespaces:
        steps.append(normalizers.Replace(" ", _SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)
    decoding: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        decoding.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(decoding)
    tokenizer.add_special_tokens([text for text, _, kind in model.pieces if kind in (CONTROL, UNKNOWN)])
    around = [
        [(model.pieces[number][0], number)] if wanted and 0 <= number < len(model.pieces) else []
        for wanted, number in ((start, model.start), (end, model.end))
    ]
    before, after = ([name for name, _ in tokens] for tokens in around)
    if before or after:
        second = [*(f"{name}:1" for name in before), "$B:1", *(f"{name}:1" for name in after)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *second],
            special_tokens=[token for tokens in around for token in tokens],
        )
    return tokenizer


def t5(model: SentencePieceModel, sentinels: int = 100) -> Any:
    """T5's tokenizer of a SentencePiece model (spiece.model): texts end with </s>.

    sentinels: tokens <extra_id_0>, …, which stand for what is left out, the last of the vocabulary being the first.
    Raises what `sentence_piece` raises, and FormatError where </s> is missing.
    """
    from tokenizers import processors

    tokenizer = sentence_piece(model, start=False)
    end = tokenizer.token_to_id("</s>")
    if end is None:
        raise FormatError("spiece.model is not T5's", expected="a piece </s>")
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in reversed(range(sentinels))])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", end)]
    )
    return tokenizer


def llama2c(tokens: Sequence[bytes], scores: Sequence[float]) -> Any:
    """The tokenizer of a llama2.c file: pairs merged by score, bytes where a letter is not in the vocabulary."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors

    if len(tokens) < 3:
        raise FormatError("not a llama2.c tokenizer", expected="3 tokens or more", received=len(tokens))
    names: list[str] = []
    known: set[str] = set()
    for number, token in enumerate(tokens):
        text = token.decode(errors="replace")
        if "�" in text or text in known:  # never produced, as in run.c, which finds the first of two
            text = f"<unused {number}>"
        names.append(text)
        known.add(text)
    numbers = {text: number for number, text in enumerate(names)}
    ranked = dict(zip(names[259:], scores[259:], strict=True))
    model = models.BPE(numbers, _ranked_merges(ranked, numbers), byte_fallback=True, unk_token=names[0])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(names[:3])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[names[1], "$A"], pair=[names[1], "$A", "$B"], special_tokens=[(names[1], 1)]
    )
    return tokenizer
