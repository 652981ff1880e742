"""Other libraries as witnesses of a conversion: each runs, if it is installed, the file that is its own.

None is ever needed, and none reads a file that others made: torchvision, timm, transformers and keras.applications get
tensors that zoonet read from the source, under the names of the file, and transformers the sizes in config.json; ONNX
Runtime and Keras load what zoonet wrote itself.
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
from zoonet.formats.json_data import parse_json_object
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
#: What transformers calls networks that the zoo has. Its other kinds may fetch parts of themselves.
_IN_TRANSFORMERS = (
    *("bert", "distilbert", "roberta", "electra", "gpt2", "llama", "mistral", "qwen2", "qwen3", "t5"),
    *("resnet", "vit", "deit", "mobilenet_v1", "mobilenet_v2"),
)
#: Beginnings of the keys of config.json that say how a network is made rather than what it is.
_NO_SIZES = ("architectures", "attn", "_attn", "auto_map", "dtype", "quantization", "torch_dtype", "transformers")


def of_source(path: pathlib.Path, architecture: str, classes: int) -> Witness | None:
    """The library whose names the weights of a file have, and its network with these weights.

    None where the names are of no library that has the network, or it is not installed.
    """
    libraries = homes(architecture)
    config = path.with_name("config.json")
    if not libraries and not config.is_file():
        return None
    try:
        state = formats.read(path)
        if config.is_file() and (run := _in_transformers(state, parse_json_object(config.read_bytes(), config.name))):
            return "transformers", run
    except (ZoonetError, OSError):
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


def _in_transformers(state: Mapping[str, Any], config: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any] | None:
    """The class that config.json names, of its sizes, with the tensors of a file."""
    if config.get("model_type") not in _IN_TRANSFORMERS:
        return None
    torch, transformers = _imported("torch"), _imported("transformers")
    if torch is None or transformers is None:
        return None
    try:
        kind = getattr(transformers, config["architectures"][0])
        if not issubclass(kind, transformers.PreTrainedModel):
            return None
        sizes = {key: value for key, value in config.items() if not key.startswith(_NO_SIZES)}
        made = transformers.AutoConfig.for_model(attn_implementation="eager", **sizes)
        tensors = {key: torch.from_numpy(np.array(tensor.load(), np.float32)) for key, tensor in state.items()}
        network, told = kind.from_pretrained(None, config=made, state_dict=tensors, output_loading_info=True)
    except Exception:  # whatever it raises: it has no such network
        return None
    if any(told.values()):  # tensors that are missing, unexpected, or of another shape
        return None
    network.eval()

    def run(inputs: Sequence[Any]) -> Any:
        names = (network.main_input_name, "decoder_input_ids")
        with torch.no_grad():
            found = network(**{name: torch.from_numpy(np.array(x)) for name, x in zip(names, inputs, strict=False)})
        spans = "start_logits" in found  # of answers: two arrays there, one here
        return (torch.stack([found["start_logits"], found["end_logits"]], -1) if spans else found[0]).numpy()

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
    """Beside what the network takes, its file may have inputs that say what is masked and remembered: here nothing."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first, *_ = arrays = [np.asarray(x) for x in inputs]
    beside: dict[str, Any] = {}
    if first.ndim == 2:
        beside = {"attention_mask": np.ones_like(first), "token_type_ids": np.zeros_like(first)}
        beside["position_ids"] = np.arange(first.shape[1])[None].repeat(len(first), 0)
    given = iter(arrays)
    feeds = {}
    for port in session.get_inputs():
        if port.name.startswith("past_key_values."):
            feeds[port.name] = np.zeros((len(first), port.shape[1], 0, port.shape[3]), np.float32)
        else:
            feeds[port.name] = beside[port.name] if port.name in beside else next(given)
    return session.run(None, feeds)[0]
