"""Imported graphs of networks on text: what `Model.save` wrote as ONNX, with its task, tokenizer and cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet.ops.devices import array_module
from zoonet.ops.errors import FormatError
from zoonet.zoo.onnx_graphs import OnnxNetwork
from zoonet.zoo.tasks import TASKS, task_class
from zoonet.zoo.text.chat import ChatTemplate
from zoonet.zoo.text.tokenizer import Tokenizer, pipeline_of
from zoonet.zoo.transformers.blocks import Cache
from zoonet.zoo.transformers.pretrained import network_for


class GraphEncoder(OnnxNetwork):
    """An encoder whose graph takes tokens, mask and perhaps token types, all (N, T).

    kind: what it does with tokens, as `network_kind` has it.
    """

    def __init__(self, graph: OnnxNetwork, config: Any, kind: str) -> None:
        vars(self).update(vars(graph))
        self.kind = kind
        self._inputs = len(graph.config.inputs)
        self.config = config

    def forward(self, tokens: Any, mask: Any = None, token_types: Any = None) -> Any:
        """(N, T), mask (N, T) 1: take part, token types (N, T) -> what the graph gives first."""
        mask = np.ones(tokens.shape, np.int64) if mask is None else mask
        types = np.zeros(tokens.shape, np.int64) if token_types is None else token_types
        return self.run_graph(*(tokens, mask, types)[: self._inputs])


class GraphDecoder(OnnxNetwork):
    """A decoder whose graph takes tokens, mask, positions, and the keys and values of earlier positions."""

    def __init__(self, graph: OnnxNetwork, config: Any) -> None:
        vars(self).update(vars(graph))
        self._limit = config.positions if not hasattr(config, "rope") else None
        self._past = [(port.shape[1], port.shape[3], port.dtype) for port in graph.config.inputs[3:]]
        self.config = config

    @property
    def positions(self) -> int | None:
        """The longest text in tokens, or None."""
        return self._limit

    def forward(
        self, tokens: Any, mask: Any = None, positions: Any = None, cache: Cache | None = None, last: bool = False
    ) -> Any:
        """(N, T), mask (N, S), positions (N, T) -> scores (N, T, V). S: cached positions and T."""
        xp = array_module(tokens)
        count, length = tokens.shape
        offset = 0 if cache is None else cache.length
        if mask is None:
            mask = xp.ones((count, offset + length), np.int64)
        if positions is None:
            positions = xp.broadcast_to(xp.arange(offset, offset + length), (count, length))
        past: list[Any] = []
        for layer in range(len(self._past) // 2):
            kept = None if cache is None else cache.kept(layer)
            ports = self._past[2 * layer : 2 * layer + 2]
            past += kept or [xp.zeros((count, heads, 0, depth), dtype) for heads, depth, dtype in ports]
        wide = [xp.asarray(a).astype(np.int64) for a in (tokens, mask, positions)]
        scores, *present = self.run_graph(*wide, *past)
        if cache is not None:
            for layer in range(len(present) // 2):
                key, value = present[2 * layer : 2 * layer + 2]
                cache.append(layer, key[:, :, offset:], value[:, :, offset:])
            cache.advance(length)
        return scores[:, -1:] if last else scores


def prepared(
    graph: OnnxNetwork, task: str, config: Mapping[str, Any], file: str, given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The network for a task on text, the task's configuration, and what is given, the tokenizer among it."""
    settings = config.get("config", {})
    sizes: Any = network_for(settings).config  # type: ignore[attr-defined]
    names = [port.name for port in graph.config.inputs]
    decodes = task == "text-generation"
    wanted = ["input_ids", "attention_mask", "position_ids"] if decodes else ["input_ids", "attention_mask"]
    if names[: len(wanted)] != wanted or any(len(port.shape or ()) != 4 for port in graph.config.inputs[3:]):
        raise FormatError(
            f"the inputs of {file} do not fit its task",
            expected=", ".join(wanted),
            received=", ".join(names),
            fix='load it as a plain graph, task="arrays"',
        )
    tokenizer = given.get("tokenizer")
    if tokenizer is None and "tokenizer" in config:
        pipeline = pipeline_of(config["tokenizer"].encode("utf-8", "surrogatepass"), f"the tokenizer in {file}")
        names = config.get("special_tokens", {})
        if not all(isinstance(name, str) for name in names.values()):
            raise FormatError(f"the special tokens in {file} are malformed", expected="names by role")
        source = config.get("chat_template")
        template = None if source is None else ChatTemplate(source, names)
        tokenizer = Tokenizer(pipeline, int(config.get("padding", 0)), names, template)
    network: OnnxNetwork
    if decodes:
        network = GraphDecoder(graph, sizes)
    else:
        saved = config.get("task", task)
        network = GraphEncoder(graph, sizes, getattr(task_class(saved if saved in TASKS else task), "takes", ""))
    return network, dict(settings), {**given, "tokenizer": tokenizer}
