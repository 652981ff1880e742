"""The Keras operator set: the layers of keras.layers as functions over the shared operators.

`layer` declares one, `activation` an activation, also from outside: readers of Keras files find them by their names.
"""

from zoonet.ops.sets.keras import (
    arithmetic,
    array_operations,
    attention,
    augmentation,
    convolution,
    core,
    functions,
    merging,
    normalization,
    numeric,
    pictures,
    pooling,
    preprocessing,
    recurrent,
    shapes,
)
from zoonet.ops.sets.keras.activations import activate, activation, activation_names
from zoonet.ops.sets.keras.registry import Layer, Weight, find_layer, is_known, layer, layers, training

__all__ = [
    "Layer",
    "Weight",
    "activate",
    "activation",
    "activation_names",
    "arithmetic",
    "array_operations",
    "attention",
    "augmentation",
    "convolution",
    "core",
    "find_layer",
    "functions",
    "is_known",
    "layer",
    "layers",
    "merging",
    "normalization",
    "numeric",
    "pictures",
    "pooling",
    "preprocessing",
    "recurrent",
    "shapes",
    "training",
]
