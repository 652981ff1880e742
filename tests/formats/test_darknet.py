"""Darknet weights: a real network consumed exactly, synthetic ones in the order of darknet's source, damage named."""

from __future__ import annotations

import math
import pathlib
import struct

import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import ArgumentError, FormatError, MissingFileError, UnsupportedFormatError

CFG = """
[net]
width=8
height=6
channels=3
[convolutional]   # layer 0
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=6
groups=2
size=1
[maxpool]
size=2
stride=2
[route]
layers=-1,-2
[upsample]
stride=2
[shortcut]
from=-1
weights_type=per_channel
[batchnorm]
[connected]
output=5
batch_normalize=1
[softmax]
"""


def write_pair(folder: pathlib.Path, cfg: str, numbers: np.ndarray, header: bytes | None = None) -> pathlib.Path:
    (folder / "net.cfg").write_text(cfg)
    start = struct.pack("<3iq", 0, 2, 5, 640) if header is None else header
    (folder / "net.weights").write_bytes(start + numbers.astype("<f4").tobytes())
    return folder / "net.weights"


def shape_cfg(cfg: str) -> str:
    """The network above, routing only layers of one size."""
    return cfg.replace("layers=-1,-2", "layers=-2")


def test_yolo_fastest_is_consumed_exactly(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = assets / "yolo-fastest" / "yolo-fastest-1.1-xl.weights"
    checkpoint = formats.read(path)
    assert checkpoint.format == "darknet"
    assert checkpoint.nbytes + 20 == path.stat().st_size
    assert checkpoint.metadata["seen"] == 16_000_000
    # The two detection heads: 3 anchors x (80 classes + 5), at strides 32 and 16 of 320 pixels.
    heads = [layer for layer in checkpoint.metadata["layers"] if layer["type"] == "yolo"]
    assert [head["output_shape"] for head in heads] == [(255, 10, 10), (255, 20, 20)]
    variances = [tensor.load() for name, tensor in checkpoint.items() if name.endswith(".variances")]
    assert len(variances) == 82
    assert all((variance >= 0).all() for variance in variances)  # wrong order or offset would give negative ones
    formats.write(checkpoint, tmp_path / "copy.weights")
    assert (tmp_path / "copy.weights").read_bytes()[20:] == path.read_bytes()[20:]
    assert formats.read(tmp_path / "copy.weights").metadata["cfg"] == checkpoint.metadata["cfg"]


def test_names_shapes_and_order(tmp_path: pathlib.Path) -> None:
    """The order of `load_convolutional_weights`, `load_batchnorm_weights` and `load_connected_weights`."""
    expected: list[tuple[str, tuple[int, ...]]] = [
        *(
            ("0.biases", (4,)),
            ("0.scales", (4,)),
            ("0.means", (4,)),
            ("0.variances", (4,)),
            ("0.weights", (4, 3, 3, 3)),
        ),
        *(("1.biases", (6,)), ("1.weights", (6, 2, 1, 1))),
        ("5.weights", (2, 6)),
        *(("6.biases", (6,)), ("6.scales", (6,)), ("6.means", (6,)), ("6.variances", (6,))),
        *(("7.biases", (5,)), ("7.weights", (5, 6 * 6 * 8)), ("7.scales", (5,)), ("7.means", (5,))),
        ("7.variances", (5,)),
    ]
    count = sum(math.prod(shape) for _, shape in expected)
    path = write_pair(tmp_path, shape_cfg(CFG), np.arange(count))
    checkpoint = formats.read(path)
    assert [(name, tensor.shape) for name, tensor in checkpoint.items()] == expected
    assert np.concatenate([tensor.load().ravel() for tensor in checkpoint.values()]).tolist() == list(range(count))
    shapes = [layer["output_shape"] for layer in checkpoint.metadata["layers"]]
    assert shapes[:5] == [(4, 3, 4), (6, 3, 4), (6, 2, 2), (6, 3, 4), (6, 6, 8)]
    formats.write(checkpoint, tmp_path / "copy.weights")
    assert (tmp_path / "copy.weights").read_bytes() == path.read_bytes()


def test_old_headers_and_transposed_matrices(tmp_path: pathlib.Path) -> None:
    cfg = "[net]\ninputs=3\n[connected]\noutput=2\n"
    path = write_pair(tmp_path, cfg, np.arange(8), struct.pack("<4i", 0, 1, 0, 77))
    checkpoint = formats.read(path)
    assert checkpoint.metadata["seen"] == 77
    np.testing.assert_array_equal(checkpoint["0.weights"].load(), [[2, 3, 4], [5, 6, 7]])
    path = write_pair(tmp_path, cfg, np.arange(8), struct.pack("<3iq", 0, 1001, 0, 77))
    np.testing.assert_array_equal(formats.read(path)["0.weights"].load(), [[2, 4, 6], [3, 5, 7]])


def test_damage_is_named(tmp_path: pathlib.Path, assets: pathlib.Path) -> None:
    source = assets / "yolo-fastest" / "yolo-fastest-1.1-xl.weights"
    (tmp_path / "a.weights").write_bytes(source.read_bytes()[:100_000])
    cfg = source.with_suffix(".cfg")
    with pytest.raises(FormatError, match=r"inside layer 36 \[convolutional\].*expected 923486 floats; received 24995"):
        formats.read(tmp_path / "a.weights", cfg=cfg)
    (tmp_path / "a.weights").write_bytes(source.read_bytes() + b"\0\0\0\0")
    with pytest.raises(FormatError, match="longer than its cfg"):
        formats.read(tmp_path / "a.weights", cfg=cfg)
    with pytest.raises(MissingFileError, match=r"a\.cfg"):
        formats.read(tmp_path / "a.weights")


def test_partial_files(tmp_path: pathlib.Path) -> None:
    path = write_pair(tmp_path, shape_cfg(CFG), np.arange(4 * 4 + 108))
    assert len(formats.read(path, layers=1)) == 5
    with pytest.raises(FormatError, match="inside layer 1"):
        formats.read(path)


@pytest.mark.parametrize(
    ("cfg", "error", "said"),
    [
        ("# nothing\n", FormatError, "starts with the section"),
        ("[convolutional]\n", FormatError, "starts with the section"),
        ("key=1\n", FormatError, "line 1"),
        ("[net]\n[convolutional]\nfilters=x\n", FormatError, "line 2.*'filters' is not an integer"),
        ("[net]\n[convolutional]\nfilters=-3\n", FormatError, "must be positive"),
        ("[net]\nwidth=99999999999\n", FormatError, "not an integer"),
        ("[net]\n[convolutional]\nstride=0\n", FormatError, "must be positive"),
        ("[net]\nheight=4\nwidth=4\n[convolutional]\nsize=9\n", FormatError, "no or too many"),
        ("[net]\n[route]\nlayers=5\n", FormatError, "no earlier layer"),
        ("[net]\n[route]\n", FormatError, "missing"),
        ("[net]\n[gru]\n", UnsupportedFormatError, "gru"),
        ("[net]\nheight=2\nwidth=2\n" + "[upsample]\nstride=1000\n" * 9, FormatError, "too many"),
        ("[net\n", FormatError, "bracket"),
        ("[net]\n[convolutional]\nfilters=2\ngroups=2\n", FormatError, "groups"),
    ],
)
def test_bad_cfg(tmp_path: pathlib.Path, cfg: str, error: type[Exception], said: str) -> None:
    path = write_pair(tmp_path, cfg, np.arange(10))
    with pytest.raises(error, match=said):
        formats.read(path)


def test_writing_checks_names_and_shapes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.cfg").write_text("[net]\ninputs=3\n[connected]\noutput=2\n")
    good = {"0.biases": np.zeros(2), "0.weights": np.ones((2, 3))}
    formats.write(good, tmp_path / "net.weights", cfg=tmp_path / "net.cfg")
    np.testing.assert_array_equal(formats.read(tmp_path / "net.weights")["0.weights"].load(), np.ones((2, 3)))
    with pytest.raises(FormatError, match="missing"):
        formats.write({"0.biases": np.zeros(2)}, tmp_path / "b.weights", cfg=tmp_path / "net.cfg")
    with pytest.raises(FormatError, match="shape"):
        formats.write({**good, "0.biases": np.zeros(3)}, tmp_path / "b.weights", cfg=tmp_path / "net.cfg")
    with pytest.raises(ArgumentError, match="cfg"):
        formats.write(good, tmp_path / "b.weights")
    assert not (tmp_path / "b.weights").exists()
