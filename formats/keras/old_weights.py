"""Weights of Keras 1, of Theano and of CuDNN layers in the layout that Keras 3 has.

Source: `preprocess_weights_for_loading` and `convert_kernel` of Keras 2, which load such files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoonet.formats.keras.config import LayerConfig

__all__ = ["conversion_of"]

Array = np.ndarray[Any, Any]
Conversion = Callable[[Array], Array]
_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "ConvLSTM2D")
_GATES = {"LSTM": 4, "GRU": 3}


def conversion_of(layer: LayerConfig, weight: str, generation: int, backend: str) -> Conversion | None:
    """What brings an old file's weight of a layer to Keras 3's layout; None where it has that already.

    generation: Keras's major version. backend: Theano turned the kernels of convolutions round.
    """
    if layer.class_name in _CONVOLUTIONS and weight in ("kernel", "recurrent_kernel"):
        first = generation == 1 and layer.options.get("data_format") == "channels_first"
        one = generation == 1 and layer.class_name == "Conv1D"
        if first or one or backend == "theano":
            return _kernel(first, one, backend == "theano")
    if layer.options.get("cudnn") and layer.class_name in _GATES:
        return _cudnn(weight, _GATES[layer.class_name])
    return None


def _kernel(first: bool, one: bool, turned: bool) -> Conversion:
    """first: (out, in, size…). one: of one axis, kept with two, (size, 1, in, out). turned: mirrored in each axis."""

    def convert(kernel: Array) -> Array:
        if one and kernel.ndim == 4:
            kernel = kernel[:, 0]
        elif first and kernel.ndim > 3:
            kernel = kernel.transpose((*range(2, kernel.ndim), 1, 0))
        if turned:
            kernel = np.flip(kernel, tuple(range(kernel.ndim - 2)))
        return np.ascontiguousarray(kernel)

    return convert


def _cudnn(weight: str, gates: int) -> Conversion:
    """CuDNN keeps each gate's kernel transposed, and two biases one after the other."""

    def convert(array: Array) -> Array:
        if weight == "bias":
            both = array.reshape(2, -1)
            return both if gates == 3 else both.sum(0)
        parts = np.split(array, gates, axis=1)
        if weight == "recurrent_kernel":
            return np.concatenate([part.T for part in parts], 1)
        return np.concatenate([part.T.reshape(part.shape, order="F") for part in parts], 1)

    return convert
