"""Weights of a Keras 3 file alone (.weights.h5) as a legacy file names them: by layers.

Such a file says the names of layers and not their order, so Keras takes the result by names,
`load_weights(file, by_name=True)`.
"""

from __future__ import annotations

from typing import Any

from zoonet.formats.checkpoint import Checkpoint
from zoonet.ops.errors import UnsupportedFormatError

__all__ = ["by_layers"]

#: Parts of a layer in the order in which Keras lists their weights.
_PARTS = (
    *("forward_layer", "backward_layer"),
    *("query_dense", "key_dense", "gate_dense", "value_dense", "output_dense"),
)


def by_layers(checkpoint: Checkpoint) -> Checkpoint:
    """The same tensors under names of layers, "conv/vars/0", with what `formats.keras_h5` writes them by.

    Raises UnsupportedFormatError for models within the model, and for layers of several parts whose order is not known.
    """
    names = checkpoint.metadata.get("names")
    known: dict[str, Any] = names if isinstance(names, dict) else {}
    found: dict[str, list[tuple[tuple[int, ...], str, str]]] = {}
    for name in checkpoint:
        if "seed_generator" in name:
            continue
        place, *rest = name.removeprefix("layers/").split("/")
        if not name.startswith("layers/") or not rest or "layers" in rest:
            raise UnsupportedFormatError(
                f"the weight {name!r} is not of a layer of the model itself: its place in a legacy file is not known",
                expected="weights of layers, layers/NAME/vars/0",
                fix="convert the whole model, a .keras file",
            )
        layer = str(known.get(f"layers/{place}", place))
        found.setdefault(layer, []).append((_order(name, rest), name, "/".join((layer, *rest))))
    tensors = {}
    weights: dict[str, list[str]] = {}
    for layer, entries in found.items():
        for _, name, new in sorted(entries):
            tensors[new] = checkpoint[name]
            weights.setdefault(layer, []).append(new)
    return Checkpoint(tensors, {"layer_names": list(found), "weight_names": weights}, "keras_h5")


def _order(name: str, rest: list[str]) -> tuple[int, ...]:
    """Where a weight stands among those of its layer: by its part, then by its number."""
    parts = [part.lstrip("_") for part in rest[:-2] if part != "cell"]
    if not set(parts) <= set(_PARTS) or rest[-2] != "vars" or not rest[-1].isdecimal():
        raise UnsupportedFormatError(
            f"the order of the weights of the layer of {name!r} is not known",
            expected="a layer with weights of its own, Bidirectional or attention",
            fix="convert the whole model, a .keras file",
        )
    return (*(_PARTS.index(part) for part in parts), int(rest[-1]))
