"""The ONNX operator set: every version of every operator as a function over the shared operators.

Operators are found by `find_operator(domain, name, opset)`: the newest version not above the opset. Each family is a
file; importing this package declares them all.
"""

from __future__ import annotations

from zoonet.ops.sets.onnx import (  # noqa: F401 (declare their operators)
    arithmetic,
    attention,
    casting,
    control,
    detection,
    elementwise,
    features,
    hashing,
    images,
    indexing,
    legacy,
    linear,
    losses,
    maps,
    microsoft,
    microsoft_attention,
    microsoft_decoding,
    microsoft_experts,
    microsoft_images,
    microsoft_layers,
    microsoft_packing,
    microsoft_quantization,
    normalization,
    quantization,
    random,
    recurrent,
    reduction,
    resampling,
    sequences,
    shape,
    signal,
    support_vectors,
    text,
    training,
    trees,
    windows,
)
from zoonet.ops.sets.onnx.registry import (
    DOMAINS,
    Operator,
    Subgraph,
    find_operator,
    onnx_operator,
    operators,
    schema_of,
)

__all__ = ["DOMAINS", "Operator", "Subgraph", "find_operator", "onnx_operator", "operators", "schema_of"]
