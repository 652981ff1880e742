"""ONNX models as modules, which may be put in training mode and written again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet.ops.graph import Graph, Value
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import as_dtype
from zoonet.zoo.graph_training import TrainingGraph, draws, inference_graph, training_graph, trains_by_itself
from zoonet.zoo.graph_weights import weights_of
from zoonet.zoo.graphs import GraphConfig, GraphNetwork, with_inputs

if TYPE_CHECKING:
    from zoonet.formats.onnx import OnnxModel, ValueInfo
    from zoonet.formats.onnx.writing.draft import Draft

__all__ = ["OnnxNetwork"]


class OnnxNetwork(GraphNetwork):
    """The graph of an ONNX model; which of its constants are weights, `weights_of` decides.

    It runs as the file says until `train` or `eval` is called: then batch norm uses the batch and moves its statistics,
    dropout drops and noise is drawn, by a key that each call changes; or neither does.
    """

    buffers = ("state", "dropout_key")
    hidden = ("dropout_key",)

    def __init__(self, model: OnnxModel) -> None:
        model, parameters, state = weights_of(model)
        inputs = tuple(info for info in model.inputs if not info.optional)
        config = GraphConfig(inputs, model.outputs, _channels_last(inputs), _ends_in_softmax(model.graph))
        super().__init__(model.graph, config, parameters, state)
        self._model = model
        self._mode: bool | None = None
        self._training: TrainingGraph | None = None
        self._inference: Graph | None = None
        if draws(self._graph):
            self.dropout_key = np.zeros(2, np.uint32)

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """As that of a module; a dtype is that of the whole graph, of its inputs, outputs and constants too."""
        super().to(device, dtype)
        if dtype is not None:
            from zoonet.formats.onnx.precision import cast_model

            self.precision = as_dtype(dtype)
            self._model, values = cast_model(self._model, self.precision, set(self._places.values()))
            self._places = {name: values[value] for name, value in self._places.items()}
            self._graph = with_inputs(self._model.graph, self._places.values())
            self._training = self._inference = None
            self._ports = tuple([port for port in self._model.inputs if not port.optional])
            if isinstance(self.config, GraphConfig):
                self.config = replace(self.config, inputs=self._ports, outputs=self._model.outputs)
        return self

    def _outputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values = (*inputs, *self._arrays())
        return self._trained(values) if self.training else evaluate_graph(self._inferring(), *values)

    def _inferring(self) -> Graph:
        """The graph that runs outside of training."""
        if self._mode is None:
            return self._graph
        if self._inference is None:
            self._inference = inference_graph(self._graph, self._statistics())
        return self._inference

    def _trained(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._training is None:
            self._training = training_graph(self._graph, self._statistics())
        outputs, moved, key = self._training.run(values, vars(self).get("dropout_key"))
        self.move_state(moved)
        if key is not None:
            self.assign_state(dropout_key=key)
        return outputs

    def _statistics(self) -> dict[Value, str]:
        return {value: name for name, value in self._places.items() if name in self.state}

    @property
    def training(self) -> bool:
        """Whether the graph trains, whatever its file says."""
        return self._mode is True

    @training.setter
    def training(self, mode: bool) -> None:
        self._mode = bool(mode)

    @property
    def as_file(self) -> bool:
        """Whether it runs as its file says, since neither `train` nor `eval` was called."""
        return self._mode is None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata_props of the file."""
        return dict(self._model.metadata)

    @property
    def opset(self) -> int | None:
        """The opset of the file, None where it has no operators of ONNX proper."""
        return self._model.opsets.get("")

    @property
    def differs_from_file(self) -> bool:
        """Whether it was put in another mode than the file says, which the file written anew has to say."""
        return self._mode is not None and trains_by_itself(self._graph, self._statistics())

    def draft(self, metadata: Mapping[str, str]) -> Draft:
        """The graph as an ONNX model as it was read, with the weights that the network has now."""
        from zoonet.formats import onnx

        model = self._model
        arrays = {**self.weights, **self.state}
        return onnx.rewrite(
            model.graph,
            model.inputs,
            self.config.outputs if isinstance(self.config, GraphConfig) else model.outputs,
            model.opsets,
            {value: arrays[name] for name, value in self._places.items()},
            initializers={*model.initializers.values(), *self._places.values()},
            metadata=metadata,
            description=model.description,
            ir_version=model.ir_version,
        )


def _channels_last(inputs: tuple[ValueInfo, ...]) -> bool:
    """Whether the first input can only be pictures (N, H, W, channels), as converters from TensorFlow write them."""
    shape = (inputs[0].shape or ()) if inputs else ()
    usual = (1, 3, 4)
    return len(shape) == 4 and shape[-1] in usual and shape[1] not in usual


def _ends_in_softmax(graph: Graph) -> bool:
    """Whether the first output is a softmax, in another shape perhaps."""
    makers = {value: node for node in graph.nodes for value in node.outputs}
    node = makers.get(graph.outputs[0]) if graph.outputs else None
    while node is not None and node.op.name.startswith(_SHAPES_ONLY) and node.inputs:
        node = makers.get(node.inputs[0])
    return node is not None and node.op.name.startswith("onnx.Softmax-")


#: Operators that leave the numbers as they are.
_SHAPES_ONLY = ("onnx.Flatten-", "onnx.Reshape-", "onnx.Squeeze-", "onnx.Identity-")
