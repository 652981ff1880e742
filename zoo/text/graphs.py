"""Imported graphs of networks on text: what `Model.save` wrote as ONNX, with its task, tokenizer and cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.devices import array_module
from zoonet.ops.errors import FormatError, InputError
from zoonet.ops.graph import Graph
from zoonet.ops.passes import eliminate_dead_code
from zoonet.ops.tracing import evaluate_graph
from zoonet.zoo import architectures
from zoonet.zoo.onnx_graphs import OnnxNetwork
from zoonet.zoo.tasks import TASKS, task_class
from zoonet.zoo.text.chat import ChatTemplate
from zoonet.zoo.text.tokenizer import Tokenizer, pipeline_of
from zoonet.zoo.transformers.blocks import Cache
from zoonet.zoo.transformers.pretrained import network_for

#: What the graphs of tasks that write take first; the keys and values of earlier positions follow.
_INPUTS = {
    "text-generation": ["input_ids", "attention_mask", "position_ids"],
    "text-to-text": ["input_ids", "attention_mask", "decoder_input_ids"],
}


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
        self._past = _cached(graph.config.inputs[3:])
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
        wide = [xp.asarray(a).astype(np.int64) for a in (tokens, mask, positions)]
        scores, *present = self.run_graph(*wide, *_past(self._past, cache, count, xp))
        _keep(cache, present, length)
        return scores[:, -1:] if last else scores


class GraphEncoderDecoder(OnnxNetwork):
    """An encoder–decoder whose graph takes tokens and mask of a text, what is written, and the keys and values of
    earlier positions; the encoder's output is the last of its outputs, where it is cut in two.

    limit: the longest text in tokens, or None.
    """

    def __init__(self, graph: OnnxNetwork, config: Any, limit: int | None) -> None:
        vars(self).update(vars(graph))
        self._limit = limit
        self._past = _cached(graph.config.inputs[3:])
        self._halves: tuple[Graph, tuple[Graph, Graph]] | None = None
        self.config = config

    @property
    def positions(self) -> int | None:
        """The longest text in tokens, or None."""
        return self._limit

    def forward(self, tokens: Any, written: Any, mask: Any = None) -> Any:
        """(N, M), (N, T), mask (N, M) 1: take part -> scores (N, T, V)."""
        xp = array_module(tokens)
        mask = xp.ones(tokens.shape, np.int64) if mask is None else mask
        wide = [ops.cast(a, "int64") for a in (tokens, mask, written)]
        return self.run_graph(*wide, *_past(self._past, None, tokens.shape[0], xp))[0]

    def encode(self, tokens: Any, mask: Any = None) -> Any:
        """(N, M), mask (N, M) -> memory (N, M, width)."""
        xp = array_module(tokens)
        mask = xp.ones(tokens.shape, np.int64) if mask is None else mask
        given = [*(xp.asarray(a).astype(np.int64) for a in (tokens, mask)), xp.zeros((tokens.shape[0], 1), np.int64)]
        return evaluate_graph(self._split()[0], *given, *_past(self._past, None, tokens.shape[0], xp), *self._arrays())[
            0
        ]

    def decode(
        self,
        tokens: Any,
        memory: Any,
        memory_mask: Any = None,
        mask: Any = None,
        positions: Any = None,
        cache: Cache | None = None,
        last: bool = False,
    ) -> Any:
        """(N, T), memory (N, M, width), its mask (N, M) -> scores (N, T, V); (N, 1, V) if `last`.

        Raises InputError for a mask of what is written, which the graph does not take.
        """
        if mask is not None and not bool(mask.all()):
            raise InputError("the graph takes no padding in what is written", fix="give texts of one length")
        xp = array_module(tokens)
        memory_mask = xp.ones(memory.shape[:2], np.int64) if memory_mask is None else memory_mask
        if cache is not None:  # which may repeat the rows
            memory, memory_mask = cache.memory(0, lambda: (memory, memory_mask))
        count, length = tokens.shape
        read = xp.zeros(memory.shape[:2], np.int64)  # of its shape alone
        wide = [xp.asarray(a).astype(np.int64) for a in (read, memory_mask, tokens)]
        past = _past(self._past, cache, count, xp)
        scores, *present = evaluate_graph(self._split()[1], *wide, *past, *self._arrays(), memory)
        _keep(cache, present, length)
        return scores[:, -1:] if last else scores

    def _split(self) -> tuple[Graph, Graph]:
        """The graph up to the encoder's output, and after it, which is then the last input."""
        whole = self._inferring()
        if self._halves is None or self._halves[0] is not whole:
            encoder, decoder = whole.copy(), whole.copy()
            *results, memory = whole.outputs
            encoder.outputs, decoder.outputs = [memory], list(results)
            given = decoder.add_input(memory.type, "encoder_hidden_states")
            decoder.replace_uses({memory: given})
            self._halves = whole, (eliminate_dead_code(encoder), eliminate_dead_code(decoder))
        return self._halves[1]


#: Heads, size and data type of keys and values that a graph takes.
Kept = tuple[Any, Any, Any]


def _cached(ports: Sequence[Any]) -> list[Kept]:
    return [(port.shape[1], port.shape[3], port.dtype) for port in ports]


def _past(kinds: Sequence[Kept], cache: Cache | None, count: int, xp: Any) -> list[Any]:
    """What a cache has for each layer: keys and values (N, H, length, D), of no length where there are none."""
    past: list[Any] = []
    for layer in range(len(kinds) // 2):
        kept = None if cache is None else cache.kept(layer)
        pair = kinds[2 * layer : 2 * layer + 2]
        past += kept or [xp.zeros((count, heads, 0, depth), dtype) for heads, depth, dtype in pair]
    return past


def _keep(cache: Cache | None, present: Sequence[Any], length: int) -> None:
    """Keep the last `length` positions of keys and values (N, H, S, D), in pairs by layer."""
    if cache is None:
        return
    offset = cache.length
    for layer in range(len(present) // 2):
        key, value = present[2 * layer : 2 * layer + 2]
        cache.append(layer, key[:, :, offset:], value[:, :, offset:])
    cache.advance(length)


def prepared(
    graph: OnnxNetwork, task: str, config: Mapping[str, Any], file: str, given: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The network for a task on text, the task's configuration, and what is given, the tokenizer among it."""
    settings = config.get("config", {})
    sizes = _network(config, len(graph.weights))
    names = [port.name for port in graph.config.inputs]
    wanted = _INPUTS.get(task, ["input_ids", "attention_mask"])
    cached = graph.config.inputs[3:] if task in _INPUTS else []
    if names[: len(wanted)] != wanted or any(len(port.shape or ()) != 4 for port in cached):
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
    if task == "text-generation":
        network = GraphDecoder(graph, sizes.config)
    elif task == "text-to-text":
        network = GraphEncoderDecoder(graph, sizes.config, sizes.positions)
    else:
        saved = config.get("task", task)
        kind = getattr(task_class(saved if saved in TASKS else task), "takes", "")
        network = GraphEncoder(graph, sizes.config, kind)
    return network, dict(settings), {**given, "tokenizer": tokenizer}


def _network(config: Mapping[str, Any], arrays: int) -> Any:
    """A network without weights of the sizes that the file tells. Raises FormatError."""
    settings = config.get("config", {})
    name = config.get("architecture")
    if "model_type" in settings or name not in architectures.names():
        return network_for(settings)
    return architectures.make(
        architectures.find(name)[0], architectures.changed(name, config.get("configuration", {}), arrays), None
    )
