"""Keras models as modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoonet import formats, ops
from zoonet.ops.tracing import evaluate_graph
from zoonet.zoo.graphs import GraphConfig, GraphNetwork, with_inputs

if TYPE_CHECKING:
    from zoonet.formats.keras import KerasModel

__all__ = ["KerasNetwork"]


class KerasNetwork(GraphNetwork):
    """The graph of a Keras model, and its graph in training, in which batch norm and dropout do otherwise.

    key: the random key of the next call in training. metadata: see `metadata`.
    """

    buffers = ("state", "key")
    hidden = ("key",)

    def __init__(self, model: KerasModel, metadata: Mapping[str, str]) -> None:
        config = GraphConfig(model.inputs, model.outputs, model.channels_last, model.probabilities)
        super().__init__(model.graph, config, model.weights, model.state)
        self._model = model
        self._metadata = dict(metadata)
        self._training_graph = with_inputs(model.training, self._places.values())
        if model.random:
            self.key = ops.random_key(0)

    def _outputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.training:
            return super()._outputs(inputs)
        keys: list[Any] = []
        if self._model.random:
            following, used = ops.unstack(ops.random_split(self.key), 0)
            keys = [used]
            self.assign_state(key=following)
        outputs = evaluate_graph(self._training_graph, *inputs, *keys, *self._arrays())
        count = len(outputs) - len(self._model.updates)
        self.move_state(dict(zip(self._model.updates, outputs[count:], strict=True)))
        return outputs[:count]

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of its task, where zoonet wrote it."""
        return self._metadata

    def checkpoint(self, format_name: str) -> formats.Checkpoint | None:
        """The file with the network's present arrays in the place of its own; see `KerasModel.checkpoint`."""
        arrays = {name: ops.to_device(array, "cpu") for name, array in self.state_dict().items()}
        return self._model.checkpoint(arrays, format_name, self._graph)
