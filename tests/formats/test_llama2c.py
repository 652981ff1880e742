"""llama2.c checkpoints: the real one, and files written by the format's description."""

from __future__ import annotations

import pathlib
import struct

import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import FormatError, UnsupportedFormatError


def test_stories260k(assets: pathlib.Path) -> None:
    path = assets / "stories260k" / "stories260K.bin"
    checkpoint = formats.read(path)
    assert checkpoint.format == "llama2c"
    expected = {"dim": 64, "hidden_dim": 172, "n_layers": 5, "n_heads": 8, "n_kv_heads": 4, "vocab_size": 512}
    assert {name: checkpoint.metadata[name] for name in expected} == expected
    assert checkpoint.metadata["shared_classifier"] is True
    assert checkpoint["wk"].shape == (5, 32, 64)
    assert checkpoint["w2"].shape == (5, 64, 172)
    # The rotary tables are a check of every offset: they are cos and sin of position / 10000^(2i / 8).
    angles = np.outer(np.arange(512), 10000.0 ** (-np.arange(0, 8, 2) / 8))
    np.testing.assert_allclose(checkpoint["freq_cis_real"].load(), np.cos(angles), atol=1e-4)
    np.testing.assert_allclose(checkpoint["freq_cis_imag"].load(), np.sin(angles), atol=1e-4)
    tokenizer = checkpoint.metadata["tokenizer"]
    assert len(tokenizer["tokens"]) == len(tokenizer["scores"]) == 512
    assert tokenizer["tokens"][:4] == [b"<unk>", b"\n<s>\n", b"\n</s>\n", b"<0x00>"]
    assert max(map(len, tokenizer["tokens"])) == tokenizer["max_token_length"]


def sizes(version: int) -> list[int]:
    """Elements of each tensor for dim 4, hidden 6, 2 layers, 2 heads, 1 key-value head, 5 tokens, 3 positions."""
    norms, embedding = [8, 8, 4], [20]
    attention, feed_forward = [32, 16, 16, 32], [48, 48, 48]
    if version == 1:
        return [*norms, *embedding, *attention, *feed_forward, 20]
    return [20, 8, *attention, 8, *feed_forward, 4, 3, 3, 20]


@pytest.mark.parametrize("version", [0, 1])
def test_synthetic_files(tmp_path: pathlib.Path, version: int) -> None:
    numbers = np.arange(sum(sizes(version)), dtype="<f4")
    header = (4, 6, 2, 2, 1, -5 if version == 0 else 5, 3)
    start = struct.pack("<7i", *header)
    if version == 1:
        start = (struct.pack("<Ii", 0x616B3432, 1) + start + b"\0").ljust(256, b"\0")
    (tmp_path / "model.bin").write_bytes(start + numbers.tobytes())
    checkpoint = formats.read(tmp_path / "model.bin")
    assert [tensor.size for tensor in checkpoint.values()] == sizes(version)
    assert np.concatenate([tensor.load().ravel() for tensor in checkpoint.values()]).tolist() == numbers.tolist()
    assert checkpoint["wcls"].shape == (5, 4)
    assert checkpoint.metadata["shared_classifier"] is False
    assert "tokenizer" not in checkpoint.metadata


def test_the_tokenizer_is_checked(tmp_path: pathlib.Path, assets: pathlib.Path) -> None:
    folder = assets / "stories260k"
    (tmp_path / "m.bin").write_bytes((folder / "stories260K.bin").read_bytes())
    assert "tokenizer" not in formats.read(tmp_path / "m.bin").metadata
    (tmp_path / "tok512.bin").write_bytes((folder / "tok512.bin").read_bytes()[:-1])
    assert "tokenizer" not in formats.read(tmp_path / "m.bin").metadata
    with pytest.raises(FormatError, match=r"not a llama2\.c tokenizer of 512 tokens"):
        formats.read(tmp_path / "m.bin", tokenizer=tmp_path / "tok512.bin")
    assert "tokenizer" in formats.read(tmp_path / "m.bin", tokenizer=folder / "tok512.bin").metadata


def test_damaged_files(tmp_path: pathlib.Path, assets: pathlib.Path) -> None:
    content = (assets / "stories260k" / "stories260K.bin").read_bytes()
    (tmp_path / "short.bin").write_bytes(content[:-4])
    with pytest.raises(FormatError, match="expected 1056540 bytes; received 1056536"):
        formats.read(tmp_path / "short.bin", format="llama2c")
    for count in (1, 4, 5000, len(content) // 2):
        (tmp_path / "short.bin").write_bytes(content[:-count])
        with pytest.raises(FormatError, match=f"expected 1056540 bytes; received {1056540 - count}"):
            formats.read(tmp_path / "short.bin")
    (tmp_path / "short.bin").write_bytes(content[:5000])
    with pytest.raises(FormatError, match="expected 1056540 bytes; received 5000"):
        formats.read(tmp_path / "short.bin")
    (tmp_path / "quantised.bin").write_bytes(struct.pack("<Ii", 0x616B3432, 2).ljust(512, b"\0"))
    with pytest.raises(UnsupportedFormatError, match="version 2"):
        formats.read(tmp_path / "quantised.bin")


def test_weights_without_a_tokenizer_run_on_numbers(tmp_path: pathlib.Path, assets: pathlib.Path) -> None:
    from zoonet import zoo

    source = assets / "stories260k" / "stories260K.bin"
    (tmp_path / "m.bin").write_bytes(source.read_bytes())
    tokens = np.array([[1, 403, 407]])
    expected = zoo.load(source).network(tokens)
    np.testing.assert_array_equal(zoo.load(tmp_path / "m.bin").network(tokens), expected)
    report = zoo.convert(tmp_path / "m.bin", tmp_path / "folder")
    assert report.agrees
    assert "the tokenizer" in " ".join(report.lost)
    np.testing.assert_allclose(zoo.load(tmp_path / "folder").network(tokens), expected, rtol=1e-5, atol=1e-5)
