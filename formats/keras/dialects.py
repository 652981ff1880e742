"""Options of Keras 1, Keras 2 and tf.keras under the names and with the meaning that Keras 3 has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoonet.ops.errors import UnsupportedFormatError

__all__ = ["activation_of", "edited", "generation", "modern_options"]

_RENAMED_1 = {
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    "pool_length": "pool_size",
    "stride": "strides",
    "length": "size",
    "inner_activation": "recurrent_activation",
    "bias": "use_bias",
    "p": "rate",
    "sigma": "stddev",
    "dim_ordering": "data_format",
    "consume_less": "implementation_1",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "concat_axis": "axis",
    "dot_axes": "axes",
}
_CLASSES_1 = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_MERGES_1 = {"sum": "Add", "mul": "Multiply", "concat": "Concatenate", "ave": "Average", "max": "Maximum", "dot": "Dot"}
_UNITS_NAME_1 = "output_dim"
_UNITS_1 = ("Dense", "LSTM", "GRU", "SimpleRNN")
_IGNORED_1 = frozenset(
    {"init", "inner_init", "forget_bias_init", "weights", "input_dim", "implementation_1", "batch_input_shape", "mode"}
)
#: Classes of activations that stand where a name may stand, and the name.
_ACTIVATION_CLASSES = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Softmax": "softmax",
}


def generation(version: Any) -> int:
    """Keras's major version of a file: 1, 2 (also tf.keras) or 3. A legacy file that says nothing is of Keras 1."""
    found = re.match(r"\d+", version) if isinstance(version, str) else None
    return min(max(int(found[0][:4]), 1), 3) if found else 1


def modern_options(class_name: str, options: dict[str, Any], generation: int) -> tuple[str, dict[str, Any]]:
    """The class and the options of a layer as Keras 3 has them. generation: Keras's major version in the file."""
    if generation == 1:
        class_name, options = _from_keras_1(class_name, options)
    if class_name in ("CuDNNLSTM", "CuDNNGRU"):
        class_name = class_name.removeprefix("CuDNN")
        options = {**options, "activation": "tanh", "recurrent_activation": "sigmoid", "cudnn": True}
        if class_name == "GRU":
            options["reset_after"] = True
    if generation < 3:
        if class_name == "GRU":
            options.setdefault("reset_after", False)
        if class_name == "LeakyReLU" and "alpha" in options:
            options["negative_slope"] = options.pop("alpha")
    for key in ("activation", "recurrent_activation"):
        if key in options:
            options[key] = activation_of(options[key], generation)
    return class_name, options


def edited(value: Any, changes: Mapping[int, Mapping[str, Any]]) -> Any:
    """A copy of a file's configuration with other options. changes: new options by the id of the object they are in.

    An option that the file has under its old name is changed there.
    """
    if isinstance(value, list):
        return [edited(item, changes) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: edited(item, changes) for key, item in value.items()}
    for key, new in changes.get(id(value), {}).items():
        old = _UNITS_NAME_1 if key == "units" else next((k for k, v in _RENAMED_1.items() if v == key), key)
        made[old if old in value and key not in value else key] = list(new) if isinstance(new, tuple) else new
    return made


def activation_of(value: Any, generation: int) -> Any:
    """An activation as a name, or a pair of name and options; "hard_sigmoid_v2" is the one of Keras 1 and 2."""
    if value is None:
        return None
    if isinstance(value, str):
        return "hard_sigmoid_v2" if value == "hard_sigmoid" and generation < 3 else value
    if isinstance(value, dict):
        class_name, config = value.get("class_name"), value.get("config")
        if class_name == "function" or isinstance(config, str):
            return activation_of(config, generation)
        if class_name == "Activation" and isinstance(config, dict):
            return activation_of(config.get("activation"), generation)
        if class_name in _ACTIVATION_CLASSES and isinstance(config, dict):
            kept = {k: v for k, v in config.items() if k not in ("name", "dtype", "trainable")}
            if class_name == "LeakyReLU":
                kept = {"negative_slope": kept.get("negative_slope", kept.get("alpha", 0.3))}
            return _ACTIVATION_CLASSES[class_name], tuple(sorted(kept.items()))
        if class_name == "__lambda__":
            raise UnsupportedFormatError(
                "an activation is a Python lambda, which is never run", fix="save the model with a named activation"
            )
        return str(class_name)
    raise UnsupportedFormatError("an activation is no name", received=str(value)[:200])


def _from_keras_1(class_name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    options = dict(options)
    axes = [options.pop(key) for key in ("kernel_dim1", "kernel_dim2", "kernel_dim3") if key in options]
    axes = axes or [options.pop(key) for key in ("nb_row", "nb_col") if key in options]
    if axes:
        options["kernel_size"] = tuple(axes)
    if class_name in _UNITS_1 and _UNITS_NAME_1 in options:
        options["units"] = options.pop(_UNITS_NAME_1)
    if class_name == "BatchNormalization" and options.get("mode", 0) != 0:
        raise UnsupportedFormatError("BatchNormalization of Keras 1 with another mode than 0", received=options["mode"])
    if class_name == "Merge":
        mode = options.pop("mode", "sum")
        if mode not in _MERGES_1:
            raise UnsupportedFormatError(
                "a Merge layer is of an unknown mode", expected=", ".join(_MERGES_1), received=mode
            )
        class_name = _MERGES_1[mode]
        wanted = {"Concatenate": ("concat_axis",), "Dot": ("dot_axes",)}.get(class_name, ())
        options = {key: value for key, value in options.items() if key in ("name", "trainable", *wanted)}
    class_name = _CLASSES_1.get(class_name, class_name)
    kept_input = class_name == "Embedding"
    options = {
        _RENAMED_1.get(key, key): value
        for key, value in options.items()
        if key not in _IGNORED_1 or (kept_input and key == "input_dim") or key == "batch_input_shape"
    }
    options.pop("implementation_1", None)
    if "data_format" in options:
        options["data_format"] = {"th": "channels_first", "tf": "channels_last"}.get(options["data_format"])
    if class_name == "GRU":
        options["reset_after"] = False
    return class_name, options
