"""Transformers of Hugging Face as ONNX: as PyTorch writes them, fused by ONNX Runtime, and with weights of 4 bits."""

from __future__ import annotations

import io
import pathlib
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformer_oracles import drawn, transformers

from zoonet.formats import onnx as reader

SIZES = {"vocab_size": 37, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
EAGER = {"attn_implementation": "eager"}


class FirstOutput(torch.nn.Module):
    """The first result alone, without a cache."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.network(input_ids=tokens, attention_mask=mask)[0]


def network_of(kind: str) -> torch.nn.Module:
    if kind == "bert":
        settings = transformers.BertConfig(**SIZES, **EAGER, max_position_embeddings=32)
        return drawn(transformers.BertModel(settings))
    if kind == "gpt2":
        sizes = {"vocab_size": 37, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}
        return drawn(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **EAGER, use_cache=False)))
    settings = transformers.LlamaConfig(**SIZES, **EAGER, num_key_value_heads=2, use_cache=False)
    return drawn(transformers.LlamaForCausalLM(settings))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function from a kind to the path of its ONNX file."""
    folder = tmp_path_factory.mktemp("transformers")

    def path_of(kind: str) -> pathlib.Path:
        path = folder / f"{kind}.onnx"
        if not path.exists():
            axes = {name: {0: "N", 1: "T"} for name in ("tokens", "mask")}
            buffer = io.BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    FirstOutput(network_of(kind)).eval(), tuple(torch.tensor(x) for x in tokens(2, 7)), buffer,
                    opset_version=17, dynamo=False, input_names=list(axes), dynamic_axes=axes,
                )  # fmt: skip
            path.write_bytes(buffer.getvalue())
        return path

    return path_of


def tokens(batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(batch)
    mask = np.ones((batch, length), np.int64)
    mask[-1, length - 2 :] = 0
    return generator.integers(0, 37, (batch, length)), mask


def assert_equal_to_onnx_runtime(path: pathlib.Path, tolerance: float = 1e-3) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    model = reader.load(path)
    for batch, length in ((2, 7), (3, 5), (1, 9)):
        given = dict(zip([port.name for port in session.get_inputs()], tokens(batch, length), strict=True))
        for ours, theirs in zip(model.run(given), session.run(None, given), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_as_pytorch_writes_them(kind: str, written: Any) -> None:
    assert_equal_to_onnx_runtime(written(kind))


@pytest.mark.parametrize(
    ("kind", "operators"),
    [
        ("bert", {"Attention", "EmbedLayerNormalization", "SkipLayerNormalization", "BiasGelu"}),
        ("gpt2", {"SkipLayerNormalization", "FastGelu"}),
        ("llama", {"SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"}),
    ],
)
def test_as_onnx_runtime_fuses_them(kind: str, operators: set[str], written: Any, tmp_path: pathlib.Path) -> None:
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    known = "bert" if kind == "bert" else "gpt2"
    fused = optimizer.optimize_model(str(written(kind)), model_type=known, num_heads=4, hidden_size=64, opt_level=0)
    assert operators <= {node.op_type for node in fused.model.graph.node}
    onnx.save(fused.model, tmp_path / "m.onnx")
    assert_equal_to_onnx_runtime(tmp_path / "m.onnx")


def test_with_weights_of_four_bits(written: Any, tmp_path: pathlib.Path) -> None:
    quantizer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    made = quantizer.MatMulNBitsQuantizer(onnx.load(written("llama")), block_size=16, is_symmetric=False)
    made.process()
    made.model.save_model_to_file(str(tmp_path / "m.onnx"), use_external_data_format=False)
    assert "MatMulNBits" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert_equal_to_onnx_runtime(tmp_path / "m.onnx", 2e-3)
