"""From the nodes of a traced graph to layers of Keras: see `describe`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoonet.formats.keras.writer import Description, LayerSpec, WeightSpec, refuse
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.types import Slice

__all__ = ["describe"]

_ACTIVATIONS = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "elu": "elu",
    "selu": "selu",
    "relu6": "relu6",
    "softplus": "softplus",
    "softsign": "softsign",
}
_MERGES = {"add": "Add", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}


def describe(
    graph: Graph, parameters: Mapping[Value, str], layer_names: Mapping[str, str] | None = None, name: str = "model"
) -> Description:
    """The Keras model of a traced graph of pictures: inputs (N, C, …) become (N, …, C).

    parameters: names of the graph's constants. layer_names: for the part of a parameter's name before the last ".", the
    layer's name; made from that part where it is not given. Raises UnsupportedFormatError for what Keras's layers do
    not have.
    """
    tracer = _Tracer(parameters, dict(layer_names or {}))
    for position, value in enumerate(graph.inputs):
        sizes = list(value.type.shape)
        shape = [None, *[None] * (len(sizes) - 2), sizes[1]] if len(sizes) > 2 else [None, *sizes[1:]]
        label = f"input_{position + 1}"
        tracer.layers.append(LayerSpec("InputLayer", label, {"batch_shape": shape}, []))
        tracer.names[value] = label
    for node in graph.nodes:
        tracer.node(node)
    if tracer.fixed:
        for spec, value in zip(tracer.layers, graph.inputs, strict=False):
            sizes = list(value.type.shape)
            spec.options["batch_shape"] = [None, *sizes[2:], sizes[1]]
    outputs = [tracer.name_of(value, "an output") for value in graph.outputs]
    return Description(name, tracer.layers, [tracer.names[value] for value in graph.inputs], outputs)


@dataclass
class _Tracer:
    parameters: Mapping[Value, str]
    layer_names: dict[str, str]
    layers: list[LayerSpec] = field(default_factory=list)
    names: dict[Value, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    positive: set[Value] = field(default_factory=set)
    fixed: bool = False

    def node(self, node: Node) -> None:
        """Add the layers of a node."""
        kind = node.op.name
        handler: Callable[[Node], str] | None = getattr(self, f"_{kind}", None)
        if kind in _ACTIVATIONS:
            made = self._add(node, "Activation", {"activation": _ACTIVATIONS[kind]}, kind)
        elif kind in _MERGES:
            made = self._merge(node)
        elif handler is not None:
            made = handler(node)
        else:
            raise refuse(f"the operator {kind}", "has no layer")
        self.names[node.outputs[0]] = made

    def name_of(self, value: Any, what: str) -> str:
        """The layer that gives a value."""
        if value not in self.names:
            raise refuse(what, "is a constant" if isinstance(value, Value) else "is a number")
        return self.names[value]

    def _free(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name

    def _layer(
        self, class_name: str, options: dict[str, Any], inputs: list[str], wanted: str, weights: Any = ()
    ) -> str:
        name = self._free(wanted)
        self.layers.append(LayerSpec(class_name, name, options, inputs, list(weights)))
        return name

    def _add(self, node: Node, class_name: str, options: dict[str, Any], wanted: str) -> str:
        source = self.name_of(next(iter(node.arguments.values())), f"an operand of {node.op.name}")
        return self._layer(class_name, options, [source], wanted)

    def _weight(self, node: Node, argument: str, role: str, layout: str = "") -> list[WeightSpec]:
        value = node.arguments[argument]
        if value is None:
            return []
        if value not in self.parameters:
            raise refuse(f"{argument} of {node.op.name}", "is not a parameter of the network")
        return [WeightSpec(role, self.parameters[value], layout)]

    def _named(self, weights: list[WeightSpec], default: str) -> str:
        if not weights:
            return default
        module = weights[0].parameter.rpartition(".")[0]
        return self.layer_names.get(module) or re.sub(r"\W", "_", module) or default

    def _padded(self, source: str, pairs: Any, spatial: int) -> str:
        """ZeroPadding before a layer, where there is some."""
        if not any(n for pair in pairs for n in pair):
            return source
        padding = list(pairs[0]) if spatial == 1 else [list(pair) for pair in pairs]
        return self._layer(f"ZeroPadding{spatial}D", {"padding": padding}, [source], f"zero_padding{spatial}d")

    # -- layers with weights -------------------------------------------------------------------------------------

    def _conv(self, node: Node) -> str:
        arguments = node.arguments
        x, weight = arguments["x"], arguments["weight"]
        spatial = len(x.type.shape) - 2
        kernel = [int(n) for n in weight.type.shape[2:]]
        strides, dilation = (_per_axis(arguments[key], spatial) for key in ("stride", "dilation"))
        groups, channels = arguments["groups"], int(x.type.shape[1])
        same = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        source, padding = self.name_of(x, "the input of a convolution"), "valid"
        given = arguments["padding"]
        if given == "same":
            padding = "same"
        elif given != "valid":
            pairs = _pairs(given, spatial)
            if max(strides) == 1 and all(
                p == (n // 2, n // 2) and n % 2 == 0 for p, n in zip(pairs, same, strict=True)
            ):
                padding = "same"
            else:
                source = self._padded(source, pairs, spatial)
        options: dict[str, Any] = {
            "kernel_size": kernel,
            "strides": strides,
            "padding": padding,
            "data_format": "channels_last",
            "dilation_rate": dilation,
            "use_bias": arguments["bias"] is not None,
            "activation": "linear",
        }
        letters = "DHW"[3 - spatial :]
        if groups == channels and groups > 1 and spatial < 3 and int(weight.type.shape[0]) == channels:
            weights = self._weight(node, "weight", "depthwise_kernel", f"{letters}CM")
            options["depth_multiplier"] = 1
            class_name = f"DepthwiseConv{spatial}D"
        else:
            weights = self._weight(node, "weight", "kernel", f"{letters}IO")
            options |= {"filters": int(weight.type.shape[0]), "groups": groups}
            class_name = f"Conv{spatial}D"
        weights += self._weight(node, "bias", "bias")
        return self._layer(class_name, options, [source], self._named(weights, "conv"), weights)

    def _batch_norm(self, node: Node) -> str:
        weights = [
            *self._weight(node, "weight", "gamma"),
            *self._weight(node, "bias", "beta"),
            *self._weight(node, "mean", "moving_mean"),
            *self._weight(node, "variance", "moving_variance"),
        ]
        options = {
            "axis": -1,
            "momentum": 0.9,
            "epsilon": float(node.arguments["eps"]),
            "scale": node.arguments["weight"] is not None,
            "center": node.arguments["bias"] is not None,
        }
        source = self.name_of(node.arguments["x"], "the input of a batch norm")
        return self._layer("BatchNormalization", options, [source], self._named(weights, "batch_norm"), weights)

    def _linear(self, node: Node) -> str:
        weights = [*self._weight(node, "weight", "kernel", "IO"), *self._weight(node, "bias", "bias")]
        options = {
            "units": int(node.arguments["weight"].type.shape[0]),
            "use_bias": node.arguments["bias"] is not None,
            "activation": "linear",
        }
        source = node.arguments["x"]
        if len(source.type.shape) > 2:
            raise refuse("a linear layer", "acts on more than vectors")
        return self._layer("Dense", options, [self.name_of(source, "an input")], self._named(weights, "dense"), weights)

    # -- layers without ------------------------------------------------------------------------------------------

    def _relu(self, node: Node) -> str:
        self.positive.add(node.outputs[0])
        return self._add(node, "ReLU", {}, "relu")

    def _leaky_relu(self, node: Node) -> str:
        return self._add(node, "LeakyReLU", {"negative_slope": float(node.arguments["negative_slope"])}, "leaky_relu")

    def _clip(self, node: Node) -> str:
        if node.arguments["min"] != 0 or not isinstance(node.arguments["max"], int | float):
            raise refuse("clip", "is a layer for a minimum of 0 and a number as maximum only")
        self.positive.add(node.outputs[0])
        return self._add(node, "ReLU", {"max_value": float(node.arguments["max"])}, "relu")

    def _hard(self, source: str, alpha: float, beta: float) -> str:
        """clip(alpha · x + beta, 0, 1), in layers that mean the same in every Keras; its "hard_sigmoid" does not."""
        scaled = self._layer("Rescaling", {"scale": alpha, "offset": beta}, [source], "rescaling")
        return self._layer("ReLU", {"max_value": 1.0}, [scaled], "relu")

    def _hardsigmoid(self, node: Node) -> str:
        self.positive.add(node.outputs[0])
        source = self.name_of(node.arguments["x"], "the input of hardsigmoid")
        return self._hard(source, float(node.arguments["alpha"]), float(node.arguments["beta"]))

    def _hardswish(self, node: Node) -> str:
        source = self.name_of(node.arguments["x"], "the input of hardswish")
        return self._layer("Multiply", {}, [source, self._hard(source, 1 / 6, 0.5)], "multiply")

    def _softmax(self, node: Node) -> str:
        if (
            node.arguments["axis"] not in (-1, len(node.outputs[0].type.shape) - 1)
            or len(node.outputs[0].type.shape) > 2
        ):
            raise refuse("softmax", "is written for vectors only")
        return self._add(node, "Softmax", {"axis": -1}, "softmax")

    def _merge(self, node: Node) -> str:
        x, y = node.arguments["x"], node.arguments["y"]
        names = [self.name_of(value, f"an operand of {node.op.name}") for value in (y, x)]  # the shortcut first
        if x in self.positive and y in self.positive:
            self.positive.add(node.outputs[0])
        return self._layer(_MERGES[node.op.name], {}, names, node.op.name)

    def _pool(self, node: Node, class_name: str, padding: str, source: str) -> str:
        spatial = len(node.arguments["x"].type.shape) - 2
        kernel = _per_axis(node.arguments["kernel"], spatial)
        strides = node.arguments["stride"]
        options = {
            "pool_size": kernel,
            "strides": kernel if strides is None else _per_axis(strides, spatial),
            "padding": padding,
        }
        return self._layer(
            f"{class_name}Pooling{spatial}D", options, [source], f"{class_name.lower()}_pooling{spatial}d"
        )

    def _max_pool(self, node: Node) -> str:
        arguments = node.arguments
        x = arguments["x"]
        spatial = len(x.type.shape) - 2
        source = self.name_of(x, "the input of a pooling")
        if arguments["ceil_mode"] or set(_per_axis(arguments["dilation"], spatial)) != {1}:
            raise refuse("max_pool", "with ceil_mode or dilation has no layer")
        if x in self.positive:
            self.positive.add(node.outputs[0])
        if arguments["padding"] in ("same", "valid"):
            return self._pool(node, "Max", arguments["padding"], source)
        pairs = _pairs(arguments["padding"], spatial)
        if any(n for pair in pairs for n in pair) and x not in self.positive:
            raise refuse("max_pool", "pads numbers that may be negative, which Keras would raise to zero")
        return self._pool(node, "Max", "valid", self._padded(source, pairs, spatial))

    def _avg_pool(self, node: Node) -> str:
        arguments = node.arguments
        spatial = len(arguments["x"].type.shape) - 2
        kernel = _per_axis(arguments["kernel"], spatial)
        strides = kernel if arguments["stride"] is None else _per_axis(arguments["stride"], spatial)
        source = self.name_of(arguments["x"], "the input of a pooling")
        if arguments["divisor"] is not None or set(_per_axis(arguments["dilation"], spatial)) != {1}:
            raise refuse("avg_pool", "with a divisor or dilation has no layer")
        given = arguments["padding"]
        if given in ("same", "valid"):
            if given == "same" and arguments["count_include_pad"]:
                raise refuse("avg_pool", "counts cells of its padding")
            return self._pool(node, "Average", given, source)
        pairs = _pairs(given, spatial)
        padded = any(n for pair in pairs for n in pair)
        if padded and not arguments["count_include_pad"]:
            raise refuse("avg_pool", "pads without counting, on both sides")
        if arguments["ceil_mode"]:  # a last window that is cut off is averaged over what it has, as "same" does
            if padded or kernel != strides:
                raise refuse("avg_pool", "with ceil_mode is a layer only where windows do not overlap")
            return self._pool(node, "Average", "same", source)
        return self._pool(node, "Average", "valid", self._padded(source, pairs, spatial))

    def _mean(self, node: Node) -> str:
        rank = len(node.arguments["x"].type.shape)
        axis = node.arguments["axis"]
        axes = tuple(sorted(a % rank for a in ((axis,) if isinstance(axis, int) else axis or ())))
        if rank < 3 or axes != tuple(range(2, rank)):
            raise refuse("mean", "is a layer over all spatial axes only")
        options = {"keepdims": bool(node.arguments["keepdims"])}
        return self._add(node, f"GlobalAveragePooling{rank - 2}D", options, "avg_pool")

    def _global_avg_pool(self, node: Node) -> str:
        spatial = len(node.arguments["x"].type.shape) - 2
        return self._add(node, f"GlobalAveragePooling{spatial}D", {"keepdims": True}, "avg_pool")

    def _reshape(self, node: Node) -> str:
        x, shape = node.arguments["x"], node.outputs[0].type.shape
        given = tuple(x.type.shape)
        if len(shape) != 2 or shape[0] != given[0] or shape[1] != math.prod(int(n) for n in given[1:]):
            raise refuse("reshape", "is a layer only where all but the batch becomes one axis")
        source = self.name_of(x, "the input of a reshape")
        if len(given) > 2:
            self.fixed = True
            dims = [len(given) - 1, *range(1, len(given) - 1)]
            source = self._layer("Permute", {"dims": dims}, [source], "permute")
        return self._layer("Flatten", {}, [source], "flatten")

    def _index(self, node: Node) -> str:
        """Every n-th row and column, as the shortcuts of the first residual networks take them."""
        x, key = node.arguments["x"], node.arguments["key"]
        rank = len(x.type.shape)
        items = list(key) if isinstance(key, tuple) else [key]
        items += [Slice(None, None, None)] * (rank - len(items))
        plain = all(isinstance(item, Slice) and item.start in (None, 0) and item.stop is None for item in items)
        steps = [item.step or 1 for item in items] if plain else []
        if rank < 3 or not plain or steps[:2] != [1, 1] or min(steps) < 1:
            raise refuse("indexing", "is a layer only for every n-th position of the spatial axes")
        options = {"pool_size": [1] * (rank - 2), "strides": steps[2:], "padding": "valid"}
        if x in self.positive:
            self.positive.add(node.outputs[0])
        return self._add(node, f"MaxPooling{rank - 2}D", options, "take_every")

    def _pad(self, node: Node) -> str:
        arguments = node.arguments
        x = arguments["x"]
        rank = len(x.type.shape)
        pairs = _pairs(arguments["pad_width"], rank)
        if arguments["mode"] != "constant" or arguments["value"] != 0 or any(pairs[0]) or rank != 4:
            raise refuse("pad", "is a layer only for zeros around pictures")
        source = self._padded(self.name_of(x, "the input of a padding"), pairs[2:], 2)
        if x in self.positive:
            self.positive.add(node.outputs[0])
        if not any(pairs[1]):
            return source
        turned = self._layer("Permute", {"dims": [1, 3, 2]}, [source], "permute")
        padded = self._padded(turned, [(0, 0), pairs[1]], 2)
        return self._layer("Permute", {"dims": [1, 3, 2]}, [padded], "permute")


def _per_axis(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else [int(n) for n in value]


def _pairs(padding: Any, rank: int) -> list[tuple[int, int]]:
    items = [padding] * rank if isinstance(padding, int) else list(padding)
    if len(items) == 2 and rank != 2 and all(isinstance(n, int) for n in items):
        items = [tuple(items)] * rank
    return [(item, item) if isinstance(item, int) else (int(item[0]), int(item[1])) for item in items]
