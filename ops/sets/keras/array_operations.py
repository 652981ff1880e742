"""Further operations of keras.ops in functional models: those that rearrange, select and reduce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoonet import ops
from zoonet.ops.errors import UnsupportedFormatError
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array


@layer("ops.LeakyRelu")
def leaky_relu(x: Array, /, negative_slope: float = 0.2) -> Array:
    """x where it is positive, else negative_slope · x."""
    return ops.leaky_relu(x, negative_slope)


@layer("ops.Elu")
def elu(x: Array, /, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha · (exp(x) - 1)."""
    return ops.elu(x, alpha)


@layer("ops.LogSoftmax")
def log_softmax(x: Array, /, axis: int = -1) -> Array:
    """The logarithm of softmax along an axis."""
    return ops.log_softmax(x, axis)


@layer("ops.HardSigmoid")
def hard_sigmoid(x: Array, /) -> Array:
    """relu6(x + 3) / 6."""
    return ops.hardsigmoid(x)


@layer("ops.HardSilu", "ops.HardSwish")
def hard_silu(x: Array, /) -> Array:
    """x · relu6(x + 3) / 6."""
    return ops.hardswish(x)


@layer("ops.Argmax")
def argmax(x: Array, /, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where the largest number is along an axis, int32."""
    return ops.cast(ops.argmax(x, axis, keepdims), "int32")


@layer("ops.Argmin")
def argmin(x: Array, /, axis: int | None = None, keepdims: bool = False) -> Array:
    """Where the smallest number is along an axis, int32."""
    return ops.cast(ops.argmin(x, axis, keepdims), "int32")


@layer("ops.OneHot")
def one_hot(x: Array, /, num_classes: int, axis: int = -1, dtype: str | None = None, sparse: bool = False) -> Array:
    """1 at each index along a new axis, and 0 elsewhere."""
    return ops.one_hot(x, num_classes, dtype or "float32", axis)


def _parts(options: Mapping[str, Any]) -> int:
    given = options.get("indices_or_sections")
    if not isinstance(given, int | tuple):
        raise UnsupportedFormatError(
            "keras.ops.split needs the parts", expected="a number, or the places where they begin", received=given
        )
    return given if isinstance(given, int) else len(given) + 1


@layer("ops.Split", outputs=_parts)
def split(x: Array, /, indices_or_sections: Any, axis: int = 0) -> Any:
    """Equal parts along an axis, or parts that begin at these places."""
    return ops.split(x, indices_or_sections, axis)


@layer("ops.Norm")
def norm(x: Array, /, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    """The length of vectors along an axis, by the 2-norm or another one."""
    if ord not in (None, 1, 2, "euclidean"):
        raise UnsupportedFormatError("keras.ops.norm is supported for the norms 1 and 2", received=ord)
    return ops.norm(x, 1.0 if ord == 1 else 2.0, axis, keepdims)


@layer("ops.Repeat")
def repeat(x: Array, /, repeats: Any, axis: int | None = None) -> Array:
    """Elements repeated along an axis."""
    return ops.repeat(x, repeats, axis)


@layer("ops.Tile")
def tile(x: Array, /, repeats: Any) -> Array:
    """The array repeated as a whole."""
    return ops.tile(x, repeats)


@layer("ops.Pad")
def pad(x: Array, /, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Array:
    """Positions added before and after: constants, or those near the edge."""
    if mode not in ("constant", "reflect", "symmetric", "edge"):
        raise UnsupportedFormatError("keras.ops.pad is not supported in this mode", received=mode)
    return ops.pad(x, pad_width, mode, constant_values or 0)


@layer("ops.Take")
def take(x: Array, indices: Array, /, axis: int | None = None) -> Array:
    """Slices of an axis by index; negative ones count from the end."""
    return ops.take(x, indices, axis)


@layer("ops.Flip")
def flip(x: Array, /, axis: Any = None) -> Array:
    """Axes turned round."""
    return ops.flip(x, axis)


@layer("ops.Roll")
def roll(x: Array, /, shift: Any, axis: Any = None) -> Array:
    """Elements moved along axes; what leaves at the end comes in at the start."""
    return ops.roll(x, shift, axis)


@layer("ops.Cumsum")
def cumsum(x: Array, /, axis: int | None = None, dtype: str | None = None) -> Array:
    """Sums of all elements so far along an axis."""
    y = ops.cumsum(ops.reshape(x, (-1,)) if axis is None else x, 0 if axis is None else axis)
    return y if dtype is None else ops.cast(y, dtype)


@layer("ops.BroadcastTo")
def broadcast_to(x: Array, /, shape: tuple[int, ...]) -> Array:
    """The array with the sizes of a larger shape."""
    return ops.broadcast_to(x, shape)


@layer("ops.Moveaxis")
def moveaxis(x: Array, /, source: Any, destination: Any) -> Array:
    """Axes put in other places."""
    return ops.moveaxis(x, source, destination)
