"""Networks of the zoo as Keras files: what Keras loads, and what makes them networks of the zoo again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoonet import ops
from zoonet.formats import Checkpoint, LazyTensor
from zoonet.ops.errors import FormatError

if TYPE_CHECKING:
    from zoonet.zoo.model import Model

__all__ = ["FORMATS", "keras_checkpoint", "restored"]

#: Names of formats that Keras loads.
FORMATS = ("keras", "keras_h5", "keras_weights")


def keras_checkpoint(
    model: Model, parameters: Mapping[str, LazyTensor], config: Mapping[str, Any], format_name: str
) -> Checkpoint:
    """What `formats.write` takes to write a network of the zoo for Keras, with pictures as (N, H, W, C).

    parameters: the network's, by name. config: of the zoo; it is kept in the file, with the parameter and layout that
    each tensor is. Raises UnsupportedFormatError for a network that Keras's layers cannot express.
    """
    from zoonet.formats.keras.tracing import describe
    from zoonet.weights.keras_names import layer_names

    network = model.network
    training = [module for _, module in network.named_modules() if module.training]
    network.eval()
    try:
        graph = ops.trace(network, *model.task.example(network), name=model.architecture)
    finally:
        for module in training:
            module.training = True
    names = {id(slot.get()): name for name, slot in network.slots().items()}
    constants = {value: names[id(array)] for value, array in graph.constants.items() if id(array) in names}
    described = describe(graph, constants, layer_names(model.architecture, names.values()), model.architecture)
    checkpoint, tensors = described.checkpoint(format_name, parameters)
    checkpoint.metadata["zoonet"] = {**config, "tensors": tensors}
    return checkpoint


def restored(checkpoint: Checkpoint, tensors: Any) -> Checkpoint:
    """The parameters of a network of the zoo from a Keras file that zoonet wrote.

    tensors: for each tensor of the file [parameter, layout]. Raises FormatError where the file does not fit.
    """
    from zoonet.formats.keras.layouts import to_torch

    if not isinstance(tensors, dict):
        raise FormatError("the table of tensors is malformed", expected="an object", received=type(tensors).__name__)
    found = {}
    for name, entry in tensors.items():
        if name not in checkpoint or not isinstance(entry, list) or len(entry) != 2:
            raise FormatError(f"the tensor {name[:200]!r} is listed but missing", fix="the file is damaged")
        found[str(entry[0])] = to_torch(checkpoint[name], str(entry[1]))
    return Checkpoint(found, checkpoint.metadata, checkpoint.format)
