"""ONNX Runtime on models that zoonet wrote, and the onnx package's checker."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime


def session_of(model: Any) -> onnxruntime.InferenceSession:
    """A session for a ModelProto or a path, which is checked first, with full shape inference."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = str(model) if not isinstance(model, onnx.ModelProto) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, *inputs: Any) -> list[Any]:
    """The outputs for inputs in the order of the model; those that the model does not use have no port."""
    feeds = {port.name: np.array(x, order="C") for port, x in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, feeds))


def assert_equal(ours: Any, theirs: Any, tolerance: float = 1e-4) -> None:
    """Equal types and shapes, and numbers that differ by the tolerance of the largest at most."""
    ours = np.asarray(ours)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if ours.dtype.kind in "biuO":
        np.testing.assert_array_equal(ours, theirs)
        return
    finite = np.abs(theirs[np.isfinite(theirs)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(scale, 1e-2))
