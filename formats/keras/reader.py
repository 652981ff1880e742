"""A tree of layers to a `Graph`: each call of a layer becomes a node of the Keras set, weights become constants.

Every use of a layer shares its weights. Masks are values beside the tensors that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.keras.config import Call, LayerConfig, Ref, references
from zoonet.formats.keras.slots import CELLS, Slot, all_layers, declared, directions, operator_name
from zoonet.formats.keras.tensorflow import translated
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.random import random_fold_in
from zoonet.ops.registry import Op, composite
from zoonet.ops.sets.keras import Layer, activation_names, find_layer, is_known
from zoonet.ops.sets.keras.merging import any_mask, concatenated_mask, embedding_mask, masking_mask
from zoonet.ops.sets.keras.recurrent import fold_time, join_steps, merge_directions, time_step, unfold_time
from zoonet.ops.types import UNKNOWN, Array

__all__ = ["GraphBuilder", "Tensor"]

_CALL_LIMIT = 20_000
_OUTPUT_LIMIT = 10_000
_STEPS_APART = 1000
_MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
#: Options that say how weights are made, stored or penalised, and not what is computed.
_NO_EFFECT = frozenset(
    {
        "name", "trainable", "dtype", "batch_input_shape", "batch_shape", "input_shape", "input_dtype", "input_dim",
        "sparse", "ragged", "optional", "seed", "autocast", "fused", "synchronized", "virtual_batch_size",
        "renorm_clipping", "renorm_momentum", "input_length", "implementation", "use_cudnn", "build_input_shape",
        "output_dim", "batch_size", "weights", "adjustment", "lora_alpha", "state_size", "input_spec", "cudnn",
        "quantization_config", "lora_rank", "query_shape", "key_shape", "value_shape",
    }
)  # fmt: skip
#: In the place of a mask where a layer gets none, whatever its inputs have.
_NO_MASK = False
_NO_EFFECT_ENDS = ("_initializer", "_regularizer", "_constraint")


@dataclass(frozen=True)
class Tensor:
    """A value of the graph with the mask that belongs to it."""

    value: Value
    mask: Value | None = None


@composite(inline=True, exact=True, name="keras.layer_key", differentiable=False)
def layer_key(key: Array, number: int) -> Array:
    """A random key for one call of one layer."""
    return random_fold_in(key, np.asarray(number, np.int64))


class GraphBuilder:
    """Builds the graph of one model, for inference or for training.

    training: layers that act otherwise in training do so; their random numbers come from `key`, a further input, and
    the statistics that they give are in `updates`, by the name of the weight. owners: the layer of a node, by its id.
    """

    def __init__(self, slots: Iterable[Slot], training: bool = False) -> None:
        self.graph = Graph(name="keras")
        self.training = training
        self.key: Value | None = None
        self.updates: dict[str, Value] = {}
        self.slots: dict[int, list[Slot]] = {}
        self.values: dict[str, Value] = {}
        self.owners: dict[int, LayerConfig] = {}
        for slot in slots:
            self.slots.setdefault(id(slot.layer), []).append(slot)
        self._calls = 0

    # -- models --------------------------------------------------------------------------------------------------

    def run(self, model: LayerConfig, inputs: list[Tensor]) -> list[Tensor]:
        """The outputs of a Sequential or Functional model for its inputs, in order."""
        if model.kind == "sequential":
            return self._sequential(model, inputs)
        environment: dict[tuple[str, int], list[Tensor]] = {}
        wanted = list(references(model.inputs))
        if len(inputs) != len(wanted):
            raise FormatError(
                f"the model {model.name!r} is called on the wrong number of tensors",
                expected=len(wanted),
                received=len(inputs),
            )
        for ref, tensor in zip(wanted, inputs, strict=True):
            environment.setdefault((ref.layer, ref.call), []).append(tensor)
        self._run_calls(model, environment)
        return [_lookup(ref, environment, model) for ref in references(model.outputs)]

    def _sequential(self, model: LayerConfig, inputs: list[Tensor]) -> list[Tensor]:
        tensors = inputs
        for child in model.layers:
            if child.class_name != "InputLayer":
                argument: Any = tensors[0] if len(tensors) == 1 else tuple(tensors)
                tensors = self.call(child, (argument,), {})
        return tensors

    def _run_calls(self, model: LayerConfig, environment: dict[tuple[str, int], list[Tensor]]) -> None:
        """Every call of every layer as soon as what it reads is there."""
        waiting = [
            (child, number, call)
            for child in model.layers
            for number, call in enumerate(child.calls)
            if (child.name, number) not in environment
        ]
        while waiting:
            later = []
            for child, number, call in waiting:
                if all((ref.layer, ref.call) in environment for ref in references((call.args, call.kwargs))):
                    environment[child.name, number] = self._call_in(child, call, environment, model)
                else:
                    later.append((child, number, call))
            if len(later) == len(waiting):
                raise FormatError(
                    f"the calls in the model {model.name!r} have a cycle, or read what no layer gives",
                    received=", ".join(child.name for child, _, _ in later[:5]),
                )
            waiting = later

    def _call_in(
        self, layer: LayerConfig, call: Call, environment: Mapping[tuple[str, int], list[Tensor]], model: LayerConfig
    ) -> list[Tensor]:
        def resolved(value: Any) -> Any:
            if isinstance(value, Ref):
                return _lookup(value, environment, model)
            if isinstance(value, tuple):
                return tuple(resolved(item) for item in value)
            if isinstance(value, dict):
                return {key: resolved(item) for key, item in value.items()}
            return value

        args = tuple(resolved(arg) for arg in call.args)
        kwargs = {key: resolved(value) for key, value in call.kwargs.items()}
        if call.modern and sum(any(_flat(argument)) for argument in (*args, *kwargs.values())) > 1:
            kwargs.setdefault("mask", _NO_MASK)  # Keras 3 hands on a mask of a layer's only tensor, tf.keras any
        return self.call(layer, args, kwargs)

    # -- layers --------------------------------------------------------------------------------------------------

    def call(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The outputs of one use of a layer. Arguments are structures with `Tensor` in them."""
        self._calls += 1
        if self._calls > _CALL_LIMIT:
            raise UnsafeFileError("the model calls its layers too often", expected=f"at most {_CALL_LIMIT} times")
        kwargs = {key: value for key, value in kwargs.items() if key != "training" or value is True}
        if kwargs.pop("training", False):
            raise UnsupportedFormatError(
                f"the layer {layer.name!r} is always in training mode, so that its outputs are random or depend on the "
                "batch",
                expected="layers that are called without training=True",
            )
        if layer.kind != "layer":
            return self.run(layer, list(_flat((args, kwargs.get("inputs", ())))))
        wrapper = {
            "TimeDistributed": self._time_distributed,
            "Bidirectional": self._bidirectional,
            "RNN": self._cells,
            "SpectralNormalization": self._wrapped,
            "TFOpLambda": self._tensorflow,
            "SlicingOpLambda": self._tensorflow,
        }.get(layer.class_name)
        if wrapper is not None and not is_known(layer.registered):
            return wrapper(layer, args, kwargs)
        return self._plain(layer, declared(layer), args, kwargs)

    def _plain(
        self, layer: LayerConfig, kind: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], **fixed: Any
    ) -> list[Tensor]:
        options = {**prepared_options(layer, kind), **fixed}
        if not args and kind.inputs and kind.inputs[0] not in kwargs:
            kwargs = {kind.inputs[0]: next(iter(kwargs.values()), None), **dict(list(kwargs.items())[1:])}
        tensors = self._bound(layer, kind, args, kwargs, options)
        arguments: dict[str, Any] = {name: _values(tensor) for name, tensor in tensors.items()}
        for name in ("mask", "query_mask", "value_mask", "key_mask"):
            if name in kind.inputs and arguments.get(name) is None:
                arguments[name] = self._mask_for(name, kind, tensors)
            elif arguments.get(name) is _NO_MASK:
                arguments[name] = None
        for slot in self.slots.get(id(layer), ()):
            arguments[slot.weight.name] = self._weight(slot)
        outputs = self._record(layer, kind, arguments, options)
        mask = self._output_mask(layer, kind, tensors, options)
        return [Tensor(value, mask if number == 0 else None) for number, value in enumerate(outputs)]

    def _weight(self, slot: Slot) -> Value:
        if slot.name not in self.values:
            self.values[slot.name] = Value(UNKNOWN, slot.name)
        return self.values[slot.name]

    def _bound(
        self, layer: LayerConfig, kind: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Tensors by the names of the layer's inputs; further options of the call go to `options`."""
        if "initial_state" in kind.inputs:
            flat = _sequences(layer, (args, kwargs.pop("initial_state", None)))
            return {kind.inputs[0]: flat[0], "initial_state": tuple(flat[1:]), "mask": kwargs.pop("mask", None)}
        options_in_order = [name for name in kind.op.parameters if name in kind.options or name in kind.required]
        names = [*kind.inputs, *options_in_order]
        bound = dict(zip(names, _positional(kind, args), strict=False))
        bound.update(kwargs)
        mask = bound.pop("mask", None) if "mask" not in kind.inputs else None
        if isinstance(mask, tuple) and "query_mask" in kind.inputs:
            bound.update(zip(("query_mask", "value_mask"), mask, strict=False))
        tensors: dict[str, Any] = {}
        for name, value in bound.items():
            if name in kind.inputs:
                tensors[name] = value
            elif name in kind.options or name in kind.required:
                options[name] = value
            elif value not in (None, False, ()):
                raise UnsupportedFormatError(
                    f"the layer {layer.name!r} ({layer.class_name}) is called with an argument that is not supported",
                    expected=", ".join((*kind.inputs, *kind.options)),
                    received=f"{name}={str(value)[:80]}",
                )
        if not kind.inputs or tensors.get(kind.inputs[0]) is None:
            raise FormatError(f"the layer {layer.name!r} ({layer.class_name}) is called without a tensor")
        return tensors

    def _record(self, layer: LayerConfig, kind: Layer, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
        """A node for the layer; its outputs."""
        op, count = kind.op, 1 if kind.outputs is None else kind.outputs(options)
        if not 0 < count <= _OUTPUT_LIMIT:
            raise UnsafeFileError(f"the layer {layer.name!r} gives too many outputs", expected=_OUTPUT_LIMIT)
        slots = self.slots.get(id(layer), ())
        updated: list[Slot] = []
        in_training = kind.training(options) if self.training and layer.trainable else None
        if in_training is not None:
            op = in_training
            if "random_key" in op.parameters:
                arguments["random_key"] = self._next_key()
            else:
                updated = [slot for slot in slots if not slot.weight.trainable]
                count = 1 + len(updated)
                for slot in updated:  # a layer that is called again goes on from what its first call gave
                    arguments[slot.weight.name] = self.updates.get(slot.name, arguments[slot.weight.name])
        ordered = {}
        for name in op.parameters:
            value = arguments.get(name, options.get(name))
            if name not in arguments and name not in options:
                value = op.defaults.get(name)
            if value is None and name not in op.defaults:
                raise FormatError(
                    f"the layer {layer.name!r} ({layer.class_name}) lacks {name!r}", received=", ".join(options)
                )
            ordered[name] = value
        outputs = tuple(Value(UNKNOWN) for _ in range(count))
        self.graph.nodes.append(Node(op, ordered, outputs, count == 1, layer.name))
        self.owners[id(self.graph.nodes[-1])] = layer
        if not updated:
            return outputs
        self.updates |= {slot.name: value for slot, value in zip(updated, outputs[1:], strict=True)}
        return outputs[:1]

    def _next_key(self) -> Value:
        if self.key is None:
            self.key = Value(UNKNOWN, "key")
        value = Value(UNKNOWN)
        number = sum(node.op is layer_key for node in self.graph.nodes)
        self.graph.nodes.append(Node(layer_key, {"key": self.key, "number": number}, (value,), True))
        return value

    def _node(self, op: Op[..., Any], label: str, **arguments: Any) -> Value:
        ordered = {name: arguments.get(name, op.defaults.get(name)) for name in op.parameters}
        value = Value(UNKNOWN)
        self.graph.nodes.append(Node(op, ordered, (value,), True, label))
        return value

    # -- masks ---------------------------------------------------------------------------------------------------

    def _mask_for(self, name: str, kind: Layer, tensors: Mapping[str, Any]) -> Value | None:
        """The mask that a layer's parameter gets where none was given."""
        if name == "mask":
            return _mask(tensors[kind.inputs[0]])
        if kind.many:  # [query, value] or [query, value, key]
            items = tensors[kind.inputs[0]]
            return _mask(items[{"query_mask": 0, "value_mask": 1}[name]])
        source = tensors.get(name.removesuffix("_mask"))
        return None if source is None else _mask(source)

    def _output_mask(
        self, layer: LayerConfig, kind: Layer, tensors: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Value | None:
        first: Any = tensors[kind.inputs[0]]
        name = operator_name(layer)
        if name in ("Embedding", "ReversibleEmbedding") and not options.get("reverse"):
            return self._node(embedding_mask, layer.name, inputs=first.value) if options.get("mask_zero") else None
        if name == "Masking":
            value = options.get("mask_value", 0.0)
            return self._node(masking_mask, layer.name, inputs=first.value, mask_value=value)
        if name in _RECURRENT:
            return _mask(first) if options.get("return_sequences") else None
        if name in ("Attention", "AdditiveAttention"):
            return _mask(first[0])
        if name in _MERGES:
            masks = [_mask(item) for item in first]
            if any(mask is None for mask in masks):
                return None
            return self._node(any_mask, layer.name, masks=tuple(masks))
        if name == "Concatenate":
            known = tuple(i for i, item in enumerate(first) if _mask(item) is not None)
            if not known:
                return None
            return self._node(
                concatenated_mask,
                layer.name,
                inputs=_values(first),
                masks=tuple(_mask(first[i]) for i in known),
                known=known,
                axis=options.get("axis", -1),
            )
        return _mask(first) if kind.passes_mask else None

    # -- layers around layers ------------------------------------------------------------------------------------

    def _inside(self, layer: LayerConfig) -> LayerConfig:
        inner = layer.below("layer")
        if inner is None:
            raise FormatError(f"the layer {layer.name!r} ({layer.class_name}) has no layer inside")
        return inner

    def _wrapped(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """A wrapper that computes what the layer inside does."""
        return self.call(self._inside(layer), args, kwargs)

    def _time_distributed(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        inner = self._inside(layer)
        source = _sequences(layer, (args, tuple(kwargs.values())))[0]
        takes_mask = inner.kind == "layer" and not inner.layers and "mask" in declared(inner).inputs
        mask = source.mask if takes_mask else None
        steps = self._steps_apart(layer, inner)
        if steps:
            results = []
            for number in range(steps):
                step = Tensor(self._node(time_step, layer.name, inputs=source.value, step=number))
                given = {} if mask is None else {"mask": self._node(time_step, layer.name, inputs=mask, step=number)}
                results.append([y.value for y in self.call(inner, (step,), given)])
            return [
                Tensor(self._node(join_steps, layer.name, outputs=outputs), source.mask)
                for outputs in zip(*results, strict=True)
            ]
        folded = Tensor(self._node(fold_time, layer.name, inputs=source.value))
        given = {} if mask is None else {"mask": self._node(fold_time, layer.name, inputs=mask)}
        return [
            Tensor(self._node(unfold_time, layer.name, outputs=y.value, inputs=source.value), source.mask)
            for y in self.call(inner, (folded,), given)
        ]

    def _steps_apart(self, layer: LayerConfig, inner: LayerConfig) -> int:
        """How many steps are computed one after the other, since each has statistics of its own; 0 for all together.

        Keras 3 does so where the file says how many there are; tf.keras takes all steps as one batch.
        """
        shape = layer.build_shape
        if not (self.training and layer.modern and isinstance(shape, tuple | list) and len(shape) > 1):
            return 0
        moves = any(
            slot.layer.trainable and not slot.weight.trainable and declared(slot.layer).training(slot.layer.options)
            for child in all_layers(inner)
            for slot in self.slots.get(id(child), ())
        )
        return shape[1] if moves and isinstance(shape[1], int) and 0 < shape[1] <= _STEPS_APART else 0

    def _bidirectional(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        forward, backward = directions(layer)
        [source, *states] = _sequences(layer, (args, kwargs.pop("initial_state", None)))
        half = len(states) // 2
        sequences = bool(forward.options.get("return_sequences", False))
        results = [
            self._cells(one, (source, *given), dict(kwargs), zero_output_for_mask=sequences)
            if one.class_name == "RNN"
            else self._plain(one, declared(one), (source, *given), dict(kwargs), zero_output_for_mask=sequences)
            for one, given in ((forward, states[:half]), (backward, states[half:]))
        ]
        mode = layer.options.get("merge_mode", "concat")
        merged = tuple(Value(UNKNOWN) for _ in range(2 if mode is None else 1))
        arguments = {
            "forward": results[0][0].value,
            "backward": results[1][0].value,
            "merge_mode": mode,
            "return_sequences": sequences,
        }
        self.graph.nodes.append(Node(merge_directions, arguments, merged, mode is not None, layer.name))
        mask = source.mask if sequences else None
        return [*[Tensor(value, mask) for value in merged], *results[0][1:], *results[1][1:]]

    def _cells(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any], **fixed: Any) -> list[Tensor]:
        """RNN around known cells: one layer after the other."""
        cells = [cell for child in layer.layers for cell in (child.layers or [child])]
        outer = {k: v for k, v in layer.options.items() if k in ("go_backwards", "unroll", "zero_output_for_mask")}
        outer |= fixed
        last = {"return_sequences": layer.options.get("return_sequences", False)}
        returned = bool(layer.options.get("return_state", False))
        [source, *states] = _sequences(layer, (args, kwargs.get("initial_state")))
        given = {"mask": kwargs["mask"]} if "mask" in kwargs else {}
        ends: list[Tensor] = []
        for number, cell in enumerate(cells):
            if cell.class_name not in CELLS:
                raise UnsupportedFormatError(
                    f"the layer {layer.name!r} has a cell that is not known",
                    expected=", ".join(CELLS),
                    received=cell.class_name,
                )
            kind = find_layer(CELLS[cell.class_name])
            how = {**outer, **(last if number == len(cells) - 1 else {"return_sequences": True})}
            if number:
                how["go_backwards"] = False
            count = (2 if cell.class_name == "LSTMCell" else 1) if states else 0
            begin, states = states[:count], states[count:]
            [source, *after] = self._plain(cell, kind, (source, *begin), dict(given), **how, return_state=returned)
            ends += after
        if states:
            raise FormatError(f"the layer {layer.name!r} is given more states than its cells have")
        return [source, *ends]

    def _tensorflow(self, layer: LayerConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """An operation of TensorFlow that a functional model of tf.keras holds."""
        operation, given = translated(str(layer.options.get("function")), layer.name, args, kwargs)
        return self._plain(LayerConfig("TFOpLambda", layer.name, {}), find_layer(f"ops.{operation}"), (), given)


def _positional(kind: Layer, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of a call as the layer's inputs: old files list several tensors as one argument."""
    if kind.many and args:
        if isinstance(args[0], tuple):
            return args
        return tuple(_flat(args)), *[arg for arg in args if not isinstance(arg, Tensor | dict)]
    if len(args) == 1 and isinstance(args[0], tuple) and (len(kind.inputs) > 1 or len(args[0]) == 1):
        return args[0]
    return args


def _flat(value: Any) -> Iterable[Tensor]:
    """The tensors of a structure, in order; those of a dict by sorted names, as Keras flattens it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _flat(value[key])
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)


def _sequences(layer: LayerConfig, arguments: Any) -> list[Tensor]:
    """The tensors of a call of a recurrent layer or a wrapper, of which there is one at least."""
    tensors = list(_flat(arguments))
    if not tensors:
        raise FormatError(f"the layer {layer.name!r} ({layer.class_name}) is called without a tensor")
    return tensors


def _values(tensor: Any) -> Any:
    """Values in the place of tensors, in tuples too; numbers stay."""
    if isinstance(tensor, Tensor):
        return tensor.value
    return tuple(_values(item) for item in tensor) if isinstance(tensor, tuple | list) else tensor


def _mask(tensor: Any) -> Value | None:
    return tensor.mask if isinstance(tensor, Tensor) else None


def _lookup(ref: Ref, environment: Mapping[tuple[str, int], list[Tensor]], model: LayerConfig) -> Tensor:
    outputs = environment.get((ref.layer, ref.call))
    if outputs is None or ref.output >= len(outputs):
        raise FormatError(
            f"the model {model.name!r} reads an output that does not exist",
            expected=f"one of {0 if outputs is None else len(outputs)} outputs of layer {ref.layer!r}",
            received=f"output {ref.output} of call {ref.call}",
        )
    return outputs[ref.output]


def prepared_options(layer: LayerConfig, kind: Layer) -> dict[str, Any]:
    """The options that the layer's operator takes. Raises UnsupportedFormatError for others that have an effect."""
    options = {}
    for key, value in layer.options.items():
        if key in kind.options or key in kind.required:
            options[key] = value
        elif not (
            kind.any_options
            or key in _NO_EFFECT
            or key.endswith(_NO_EFFECT_ENDS)
            or value in (None, False, (), {})
            or (key == "groups" and value == 1)
        ):
            raise UnsupportedFormatError(
                f"the layer {layer.name!r} ({layer.class_name}) has an option that is not supported",
                expected=", ".join(kind.options) or "no options",
                received=f"{key}={str(value)[:80]}",
            )
    for key in ("activation", "recurrent_activation"):
        if key in options:
            check_activation(options[key], layer)
    return options


def check_activation(value: Any, layer: LayerConfig) -> None:
    """Raise UnsupportedFormatError for an activation that no one declared."""
    name = value[0] if isinstance(value, tuple) else value
    if name not in (None, "linear") and name not in activation_names():
        raise UnsupportedFormatError(
            f"the layer {layer.name!r} ({layer.class_name}) has an activation that is not known",
            expected=", ".join(sorted(activation_names())),
            received=str(name)[:80],
            fix=f'declare it, @activation("{str(name)[:80]}") of zoonet.ops.sets.keras',
        )
