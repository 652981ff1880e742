"""Functions of TensorFlow that functional models of tf.keras hold (TFOpLambda, SlicingOpLambda) as keras.ops has them.

Such a layer names a function, "math.multiply", and its arguments by TensorFlow's names. Nothing is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoonet.ops.errors import UnsupportedFormatError

__all__ = ["translated"]

#: For each function the operation, and its arguments in order; "name:other" where keras.ops has another name.
_FUNCTIONS: dict[str, tuple[str, str]] = {
    **{
        f"math.{name}": (operation, "x:x1 y:x2")
        for name, operation in {
            **{"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "truediv": "TrueDivide"},
            **{"divide": "TrueDivide", "pow": "Power", "maximum": "Maximum", "minimum": "Minimum", "mod": "Mod"},
            **{"floordiv": "FloorDivide", "floormod": "Mod", "greater": "Greater", "greater_equal": "GreaterEqual"},
            **{"less": "Less", "less_equal": "LessEqual", "equal": "Equal", "not_equal": "NotEqual"},
            **{"logical_and": "LogicalAnd", "logical_or": "LogicalOr", "logical_xor": "LogicalXor"},
            **{"divide_no_nan": "DivideNoNan"},
        }.items()
    },
    **{f"__operators__.{name}": ("Add", "x:x1 y:x2") for name in ("add", "radd")},
    "math.atan2": ("Arctan2", "y:x1 x:x2"),
    **{
        f"math.{name}": (operation, "x")
        for name, operation in {
            **{"square": "Square", "sqrt": "Sqrt", "rsqrt": "Rsqrt", "exp": "Exp", "log": "Log", "abs": "Absolute"},
            **{"negative": "Negative", "tanh": "Tanh", "sigmoid": "Sigmoid", "sin": "Sin", "cos": "Cos", "tan": "Tan"},
            **{"floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "erf": "Erf", "log1p": "Log1p"},
            **{"expm1": "Expm1", "reciprocal": "Reciprocal", "logical_not": "LogicalNot", "is_nan": "Isnan"},
            **{"softplus": "Softplus", "log_sigmoid": "LogSigmoid", "sinh": "Sinh", "cosh": "Cosh", "atan": "Arctan"},
        }.items()
    },
    "math.softplus": ("Softplus", "features:x"),
    **{
        f"nn.{name}": (operation, "features:x")
        for name, operation in {
            **{"relu": "Relu", "relu6": "Relu6", "silu": "Silu", "swish": "Silu", "selu": "Selu"},
            **{"softplus": "Softplus", "softsign": "Softsign"},
        }.items()
    },
    "nn.sigmoid": ("Sigmoid", "x"),
    "nn.tanh": ("Tanh", "x"),
    "nn.elu": ("Elu", "features:x"),
    "nn.gelu": ("Gelu", "features:x approximate"),
    "nn.leaky_relu": ("LeakyRelu", "features:x alpha:negative_slope"),
    "nn.softmax": ("Softmax", "logits:x axis"),
    "compat.v1.nn.softmax": ("Softmax", "logits:x axis"),
    "nn.log_softmax": ("LogSoftmax", "logits:x axis"),
    **{
        f"math.{name}": (operation, "input_tensor:x axis keepdims")
        for name, operation in {
            **{"reduce_mean": "Mean", "reduce_sum": "Sum", "reduce_max": "Max", "reduce_min": "Min"},
            **{"reduce_prod": "Prod", "reduce_std": "Std", "reduce_variance": "Var", "reduce_any": "Any"},
            **{"reduce_all": "All", "reduce_logsumexp": "Logsumexp"},
        }.items()
    },
    "math.argmax": ("Argmax", "input:x axis output_type"),
    "math.argmin": ("Argmin", "input:x axis output_type"),
    "math.l2_normalize": ("Normalize", "x axis epsilon"),
    "nn.l2_normalize": ("Normalize", "x axis epsilon"),
    "math.cumsum": ("Cumsum", "x axis"),
    "math.add_n": ("AddN", "inputs:xs"),
    "linalg.matmul": ("Matmul", "a:x1 b:x2 transpose_a transpose_b"),
    "linalg.norm": ("Norm", "tensor:x ord axis keepdims"),
    "norm": ("Norm", "tensor:x ord axis keepdims"),
    "reshape": ("Reshape", "tensor:x shape:newshape"),
    "transpose": ("Transpose", "a:x perm:axes"),
    "compat.v1.transpose": ("Transpose", "a:x perm:axes"),
    "expand_dims": ("ExpandDims", "input:x axis"),
    "squeeze": ("Squeeze", "input:x axis"),
    "compat.v1.squeeze": ("Squeeze", "input:x axis"),
    "concat": ("Concatenate", "values:xs axis"),
    "stack": ("Stack", "values:xs axis"),
    "unstack": ("Unstack", "value:x num axis"),
    "split": ("Split", "value:x num_or_size_splits:indices_or_sections axis"),
    "tile": ("Tile", "input:x multiples:repeats"),
    "repeat": ("Repeat", "input:x repeats axis"),
    "pad": ("Pad", "tensor:x paddings:pad_width mode constant_values"),
    "compat.v1.pad": ("Pad", "tensor:x paddings:pad_width mode constant_values"),
    "slice": ("Slice", "input_:inputs begin:start_indices size:shape"),
    "reverse": ("Flip", "tensor:x axis"),
    "roll": ("Roll", "input:x shift axis"),
    "broadcast_to": ("BroadcastTo", "input:x shape"),
    "zeros_like": ("ZerosLike", "input:x dtype"),
    "ones_like": ("OnesLike", "input:x dtype"),
    "identity": ("Copy", "input:x"),
    "stop_gradient": ("StopGradient", "input:x"),
    "cast": ("Cast", "x dtype"),
    "clip_by_value": ("Clip", "t:x clip_value_min:x_min clip_value_max:x_max"),
    "where": ("Where", "condition x:x1 y:x2"),
    "gather": ("Take", "params:x indices validate_indices axis"),
    "compat.v1.gather": ("Take", "params:x indices validate_indices axis"),
    "one_hot": ("OneHot", "indices:x depth:num_classes on_value off_value axis dtype"),
    "image.resize": ("Resize", "images size method:interpolation preserve_aspect_ratio antialias"),
    "image.rgb_to_grayscale": ("RGBToGrayscale", "images"),
    "__operators__.getitem": ("GetItem", "tensor:x slice_spec:key"),
}
#: Data types by their numbers in TensorFlow, as old files have them.
_TYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}


def translated(
    function: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The operation of keras.ops that a function is, and its arguments by name.

    name: of the layer, for messages. Raises UnsupportedFormatError for a function or an argument that is not known.
    """
    found = _FUNCTIONS.get(function)
    if found is None:
        raise UnsupportedFormatError(
            f"the layer {name!r} calls the TensorFlow function {function!r}, which is not supported",
            expected=", ".join(sorted(_FUNCTIONS)),
            received=function,
        )
    operation, signature = found
    names = dict([term.partition(":")[::2] for term in signature.split()])
    given = {}
    for key, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
        if key == "name" or (value is None and key not in ("y", "axis")) or (value is False and key not in names):
            continue
        if key not in names:
            raise UnsupportedFormatError(
                f"the layer {name!r} calls {function!r} with an argument that is not supported",
                expected=", ".join(names),
                received=f"{key}={str(value)[:80]}",
            )
        given[names[key] or key] = value
    change = _CHANGES.get(operation)
    return (operation, given) if change is None else (operation, change(given, name))


def _refuse(name: str, what: str, received: Any) -> UnsupportedFormatError:
    return UnsupportedFormatError(f"the layer {name!r}: {what} is not supported", received=str(received)[:80])


def _dtype(value: Any) -> Any:
    return _TYPES.get(value, value) if isinstance(value, int) else value


def _with_dtype(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: _dtype(value) if key == "dtype" else value for key, value in given.items()}


def _place(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Of argmax: axis 0 where none is given. The integers are int32 here."""
    return {"axis": 0, **{key: value for key, value in given.items() if key != "output_type"}}


def _normalize(given: dict[str, Any], name: str) -> dict[str, Any]:
    """TensorFlow divides by √max(Σ x², epsilon), keras.ops by max(√Σ x², epsilon)."""
    epsilon = given.get("epsilon", 1e-12)
    return {**given, "epsilon": float(epsilon) ** 0.5}


def _matmul(given: dict[str, Any], name: str) -> dict[str, Any]:
    given = dict(given)
    for key in ("transpose_a", "transpose_b"):
        if given.pop(key, False):
            raise _refuse(name, f"linalg.matmul with {key}", True)
    return given


def _split(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Sizes of parts become the places where they begin."""
    parts = given.get("indices_or_sections")
    if isinstance(parts, tuple):
        if not all(isinstance(n, int) and n >= 0 for n in parts):
            raise _refuse(name, "a part of unknown size", parts)
        parts = tuple([sum(parts[:i]) for i in range(1, len(parts))])
    return {**given, "indices_or_sections": parts}


def _pad(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {**given, "mode": str(given.get("mode", "constant")).lower()}


def _take(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {"axis": 0, **{key: value for key, value in given.items() if key != "validate_indices"}}


def _one_hot(given: dict[str, Any], name: str) -> dict[str, Any]:
    given = _with_dtype(given, name)
    for key, usual in (("on_value", 1), ("off_value", 0)):
        if given.pop(key, usual) != usual:
            raise _refuse(name, f"one_hot with another {key}", key)
    return given


def _resize(given: dict[str, Any], name: str) -> dict[str, Any]:
    given = dict(given)
    if given.pop("preserve_aspect_ratio", False):
        raise _refuse(name, "image.resize with preserve_aspect_ratio", True)
    return given


def _key(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Slices as objects of start, stop and step become those of Keras 3."""

    def item(value: Any) -> Any:
        if isinstance(value, dict):
            if not set(value) <= {"start", "stop", "step"}:
                raise _refuse(name, "an index of this kind", value)
            return ("slice", value.get("start"), value.get("stop"), value.get("step"))
        if value is None or value == "..." or isinstance(value, int):
            return value
        raise _refuse(name, "an index of this kind", value)

    key = given.get("key")
    return {**given, "key": tuple([item(value) for value in key]) if isinstance(key, tuple) else (item(key),)}


def _where(given: dict[str, Any], name: str) -> dict[str, Any]:
    if given.get("x1") is None or given.get("x2") is None:
        raise _refuse(name, "where without two choices", "condition alone")
    return given


_CHANGES: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    **dict.fromkeys(("Cast", "ZerosLike", "OnesLike"), _with_dtype),
    **dict.fromkeys(("Argmax", "Argmin"), _place),
    "Normalize": _normalize,
    "Gelu": lambda given, name: {"approximate": False, **given},
    "Matmul": _matmul,
    "Split": _split,
    "Pad": _pad,
    "Take": _take,
    "OneHot": _one_hot,
    "Resize": _resize,
    "GetItem": _key,
    "Where": _where,
}
