"""Other libraries as witnesses of a conversion: each runs, if it is installed, the file that is its own.

None is ever needed, and none reads a file that others made: torchvision, timm and keras.applications get tensors that
zoonet read from the source, under the names of the file; ONNX Runtime and Keras load what zoonet wrote itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoonet import formats
from zoonet.ops.errors import ZoonetError
from zoonet.weights.naming import homes

__all__ = ["Witness", "of_source", "of_target"]

#: What a library is called, and a function from sample inputs to the outputs that it has for them.
Witness = tuple[str, Callable[[Sequence[Any]], Any]]

#: Where timm has another name for the network.
_IN_TIMM = {"mobilenet_v2": "mobilenetv2_100", "mobilenetv1": "mobilenetv1_100"}
_IN_KERAS = {
    "resnet50_keras": "ResNet50",
    "resnet101_keras": "ResNet101",
    "resnet152_keras": "ResNet152",
    "mobilenetv1_keras": "MobileNet",
    "mobilenet_v2_keras": "MobileNetV2",
    "mobilenet_v3_large_keras": "MobileNetV3Large",
    "mobilenet_v3_small_keras": "MobileNetV3Small",
}


def of_source(path: pathlib.Path, architecture: str, classes: int) -> Witness | None:
    """The library whose names the weights of a file have, and its network with these weights.

    None where the names are of no library that has the network, or it is not installed.
    """
    libraries = homes(architecture)
    if not libraries:
        return None
    try:
        state = formats.read(path)
    except ZoonetError:
        return None
    if "keras" in libraries and state.format == "keras_h5":
        return _of_keras_applications(state, architecture, classes)
    for library in ("torchvision", "timm"):
        if library in libraries and (made := _in_torch(library, state, architecture, classes)) is not None:
            return library, made
    return None


def of_target(path: pathlib.Path) -> Witness | None:
    """The library that runs files of this kind, for a file that zoonet wrote from a network of its own."""
    if path.suffix == ".onnx":
        runtime = _imported("onnxruntime")
        return None if runtime is None else ("ONNX Runtime", lambda inputs: _run_onnx(runtime, path, inputs))
    if path.suffix == ".keras" or (path.suffix in (".h5", ".hdf5") and not path.name.endswith(".weights.h5")):
        keras = _keras()
        return None if keras is None else ("Keras", lambda inputs: _run_keras_file(keras, path, inputs))
    return None


def _imported(name: str) -> Any:
    """A module, or None where it is not installed or does not work."""
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.import_module(name)
    except Exception:  # whatever a broken installation raises: it is as good as absent
        return None


def _keras() -> Any:
    """Keras, where the backend that it would choose is installed too."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" not in sys.modules and importlib.util.find_spec(backend) is None:
        return None
    return _imported("keras")


def _in_torch(
    library: str, state: Mapping[str, Any], architecture: str, classes: int
) -> Callable[[Sequence[Any]], Any] | None:
    torch, module = _imported("torch"), _imported(library)
    if torch is None or module is None:
        return None
    create = module.models.get_model if library == "torchvision" else module.create_model
    name = _IN_TIMM.get(architecture, architecture) if library == "timm" else architecture
    try:
        network = create(name, num_classes=classes)
    except (ValueError, RuntimeError, TypeError):  # it has none of this name
        return None
    own = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
    if own != {key for key in state if not key.endswith("num_batches_tracked")}:
        return None
    tensors = {key: torch.from_numpy(np.array(state[key].load(), np.float32)) for key in own}
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError:  # other shapes: it is not this network
        return None
    network.eval()

    def run(inputs: Sequence[Any]) -> Any:
        with torch.no_grad():
            return network(*(torch.from_numpy(np.asarray(x)) for x in inputs)).numpy()

    return run


def _of_keras_applications(state: Mapping[str, Any], architecture: str, classes: int) -> Witness | None:
    """The tensors of each layer in the order of the file, which is how Keras itself loads by names."""
    keras = _keras()
    if keras is None or architecture not in _IN_KERAS:
        return None
    layers: dict[str, list[Any]] = {}
    for name, tensor in state.items():
        layers.setdefault(name.partition("/")[0], []).append(tensor)
    # Pictures are prepared before the network: Keras puts it into its MobileNet v3.
    options = {"include_preprocessing": False} if "_v3_" in architecture else {}
    create = getattr(keras.applications, _IN_KERAS[architecture])
    network = create(weights=None, classes=classes, classifier_activation=None, **options)
    own = {layer.name: layer for layer in network.layers if layer.weights}
    if set(own) != set(layers):
        return None
    try:
        for name, layer in own.items():
            layer.set_weights([np.asarray(tensor.load(), np.float32) for tensor in layers[name]])
    except ValueError:  # other shapes
        return None
    return "keras.applications", lambda inputs: _run_keras(keras, network, inputs)


def _run_keras_file(keras: Any, path: pathlib.Path, inputs: Sequence[Any]) -> Any:
    return _run_keras(keras, keras.saving.load_model(path, compile=False), inputs)


def _run_keras(keras: Any, network: Any, inputs: Sequence[Any]) -> Any:
    """Pictures (N, C, H, W) go in as Keras has them, (N, H, W, C)."""
    moved = [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in map(np.asarray, inputs)]
    return keras.ops.convert_to_numpy(network(*moved, training=False))


def _run_onnx(runtime: Any, path: pathlib.Path, inputs: Sequence[Any]) -> Any:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))[0]
