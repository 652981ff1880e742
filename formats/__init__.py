"""File formats: bytes to and from named tensors or a graph. Nothing here knows a model."""
