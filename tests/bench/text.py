"""BERT-base and GPT-2 (124M) by zoonet, PyTorch and ONNX Runtime, in turn in one process on the same random weights.

Run: python tests/bench/text.py [--threads 2] [--rounds 7] [--prompt 512] [--tokens 32]

Prints Markdown tables: the forward pass of BERT on 1×128 and 8×128 tokens; GPT-2's reading of a prompt and its writing
with cached keys and values, in tokens per second; and the largest differences of outputs.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def onnx_session(network: Any, inputs: tuple[Any, ...], names: list[str], axes: Any, threads: int, folder: str) -> Any:
    """An ONNX Runtime session of a torch module."""
    import onnxruntime
    import torch

    path = os.path.join(folder, "network.onnx")
    torch.onnx.export(network, inputs, path, input_names=names, dynamic_axes=axes, opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def differences(outputs: list[Any]) -> str:
    """The largest difference of each output from the first, relative to the largest number."""
    import numpy as np

    first = np.asarray(outputs[0])
    return ", ".join(f"{np.abs(np.asarray(o) - first).max() / np.abs(first).max():.1e}" for o in outputs[1:])


def bert(batch: int, threads: int, rounds: int) -> None:
    """Print the comparison of BERT-base on 128 tokens."""
    import numpy as np
    import torch
    from compare import compare, report
    from transformer_oracles import transformers

    from zoonet import ops
    from zoonet.zoo.transformers import bert as ours_of

    theirs = transformers.BertModel(
        transformers.BertConfig(attn_implementation="eager"), add_pooling_layer=False
    ).eval()
    ours = ours_of.BertModel(ours_of.BERTS["bert-base-uncased"], pooler=False)
    ours.load_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    tokens = np.random.default_rng(0).integers(0, 30522, (batch, 128))
    program = ops.compile(ops.trace(ours, ops.tensor_type(tokens.shape, "int64")))
    tensor = torch.from_numpy(tokens)

    class Hidden(torch.nn.Module):
        """The network with one output."""

        def __init__(self) -> None:
            super().__init__()
            self.network = theirs

        def forward(self, x: Any) -> Any:
            return self.network(x)[0]

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        session = onnx_session(Hidden().eval(), (tensor,), ["x"], None, threads, folder)
        contenders: dict[str, Callable[[], Any]] = {
            "zoonet": lambda: program(tokens),
            "torch": lambda: theirs(tensor)[0],
            "onnxruntime": lambda: session.run(None, {"x": tokens})[0],
        }
        outputs = [run() for run in contenders.values()]
        seconds = compare(contenders, rounds, 1)
    print(report(f"BERT-base forward, {batch}×128 tokens, float32, {threads} thread(s)", seconds))
    print(f"largest relative difference of outputs: {differences(outputs)} (torch, onnxruntime)\n")


def gpt2_step(network: Any) -> Any:
    """A torch module (tokens, keys, values) -> (scores of the last token, keys, values), with GPT-2's weights.

    tokens: (1, T); keys, values: (layers, 1, heads, S, size) of the positions before.
    """
    import torch

    class Step(torch.nn.Module):
        """See `gpt2_step`."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: Any, keys: Any, values: Any) -> Any:
            body, before = self.network.transformer, keys.shape[3]
            length = tokens.shape[1]
            positions = torch.arange(length) + before
            x = body.wte(tokens) + body.wpe(positions)
            hidden = torch.arange(before + length)[None] > positions[:, None]
            new_keys, new_values = [], []
            for layer, block in enumerate(body.h):
                parts = block.attn.c_attn(block.ln_1(x)).reshape(1, length, 3, 12, 64).permute(2, 0, 3, 1, 4)
                key = torch.cat([keys[layer], parts[1]], 2)
                value = torch.cat([values[layer], parts[2]], 2)
                scores = (parts[0] @ key.transpose(-1, -2) / 8.0).masked_fill(hidden, float("-inf"))
                y = (torch.softmax(scores, -1) @ value).transpose(1, 2).reshape(1, length, 768)
                x = x + block.attn.c_proj(y)
                x = x + block.mlp.c_proj(block.mlp.act(block.mlp.c_fc(block.ln_2(x))))
                new_keys.append(key)
                new_values.append(value)
            return self.network.lm_head(body.ln_f(x[:, -1:])), torch.stack(new_keys), torch.stack(new_values)

    return Step().eval()


def gpt2(prompt: int, count: int, threads: int, rounds: int) -> None:
    """Print the comparison of GPT-2: a prompt read, and `count` tokens written after it."""
    import numpy as np
    import torch
    from compare import compare, report
    from transformer_oracles import transformers

    from zoonet.zoo.transformers import generation
    from zoonet.zoo.transformers import gpt2 as ours_of

    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(attn_implementation="sdpa")).eval()
    ours = ours_of.GPT2LMHeadModel(ours_of.GPT2S["gpt2"])
    ours.load_state_dict({n: p.numpy() for n, p in theirs.state_dict().items()})
    tokens = np.random.default_rng(0).integers(0, 50257, (1, prompt))
    tensor, empty = torch.from_numpy(tokens), np.zeros((12, 1, 12, 0, 64), np.float32)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        names, past = ["tokens", "keys", "values"], torch.zeros(12, 1, 12, 3, 64)
        axes = {"tokens": {1: "T"}, "keys": {3: "S"}, "values": {3: "S"}}
        session = onnx_session(gpt2_step(theirs), (tensor[:, :4], past, past), names, axes, threads, folder)

        def onnx_write(length: int) -> list[int]:
            scores, *state = session.run(None, dict(zip(names, (tokens, empty, empty), strict=True)))
            written = [int(scores[0, -1].argmax())]
            for _ in range(length - 1):
                scores, *state = session.run(None, dict(zip(names, (np.array([written[-1:]]), *state), strict=True)))
                written.append(int(scores[0, -1].argmax()))
            return written

        def torch_write(length: int) -> list[int]:
            options = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False, "pad_token_id": 0}
            return theirs.generate(tensor, **options)[0, prompt:].tolist()

        def ours_write(length: int) -> list[int]:
            return generation.generate(ours, tokens.tolist(), length)[0].tokens

        writers = {"zoonet": ours_write, "torch": torch_write, "onnxruntime": onnx_write}
        reading = compare({name: lambda write=write: write(1) for name, write in writers.items()}, rounds, 1)
        whole = compare({name: lambda write=write: write(count) for name, write in writers.items()}, rounds, 1)
        texts = [write(count) for write in writers.values()]
    print(report(f"GPT-2 124M, {prompt} tokens read, float32, {threads} thread(s)", reading))
    print("| | read tokens / s | written tokens / s |\n|---|---|---|")
    for name, runs in whole.items():
        read = statistics.median(reading[name])
        print(f"| {name} | {prompt / read:.0f} | {(count - 1) / (statistics.median(runs) - read):.1f} |")
    same = [sum(a == b for a, b in zip(texts[0], text, strict=True)) for text in texts[1:]]
    print(f"\nof {count} tokens the same as zoonet's: {same[0]} (torch), {same[1]} (onnxruntime)\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # before NumPy is imported
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads of one library that spin slow down the next
    sys.path.append(str(ROOT))
    import torch

    torch.set_num_threads(options.threads)
    for batch in (1, 8):
        bert(batch, options.threads, options.rounds)
    gpt2(options.prompt, options.tokens, options.threads, options.rounds)


if __name__ == "__main__":
    main()
