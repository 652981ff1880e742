"""Types that ONNX declares for inputs and outputs: what they say, and whether a given value fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.ops.devices import is_array
from zoonet.ops.errors import FormatError, InputError, UnsupportedFormatError
from zoonet.ops.operands import Traced
from zoonet.ops.sets.onnx.common import STRING, dtype_of
from zoonet.ops.types import UNKNOWN, DType, TensorType

__all__ = ["ValueInfo"]


@dataclass(frozen=True)
class ValueInfo:
    """What a model declares of an input or output.

    kind: "tensor", "sparse", "sequence", "optional", "map" or "unknown"; "optional sequence" for one in the other.
    dtype and shape: of a tensor (of the elements for a sequence or optional); a size is an int, a name where it may
    vary, or None; shape None: of any rank.
    optional: an initializer gives the value if the caller does not.
    """

    name: str
    kind: str = "unknown"
    dtype: DType | None = None
    shape: tuple[int | str | None, ...] | None = None
    optional: bool = False

    @property
    def type(self) -> TensorType:
        """The tensor type for a graph, UNKNOWN where the model does not tell it."""
        if self.kind != "tensor" or self.dtype is None or self.shape is None:
            return UNKNOWN
        return TensorType(tuple(n if isinstance(n, int) else None for n in self.shape), self.dtype)

    def __str__(self) -> str:
        dtype = "string" if self.dtype == STRING else self.dtype.name if self.dtype is not None else "?"
        shape = "..." if self.shape is None else ", ".join("?" if n is None else str(n) for n in self.shape)
        tensor = f"{dtype}[{shape}]"
        return tensor if self.kind == "tensor" else f"{self.kind}({tensor})" if self.dtype is not None else self.kind

    def check(self, value: Any) -> Any:
        """The value as the graph takes it (lists and numbers become arrays). Raises InputError if it does not fit."""
        if self.kind not in ("tensor", "sparse"):
            return value
        if not is_array(value) and not isinstance(value, Traced):
            try:
                value = np.asarray(value, self.dtype)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"input {self.name!r} is not an array", expected=str(self), received=str(error)
                ) from None
        if isinstance(value, np.ndarray) and value.dtype.kind in "US":
            value = value.astype(object)
        wrong_type = self.dtype is not None and value.dtype != self.dtype
        shape = tuple(value.shape)
        wrong_shape = self.shape is not None and (
            len(shape) != len(self.shape)
            or any(isinstance(n, int) and n != m for n, m in zip(self.shape, shape, strict=True))
        )
        if wrong_type or wrong_shape:
            received = "string" if value.dtype == STRING else value.dtype.name
            raise InputError(
                f"input {self.name!r} has the wrong {'data type' if wrong_type else 'shape'}",
                expected=str(self),
                received=f"{received}[{', '.join(map(str, shape))}]",
                fix=f"cast it to {self.dtype}" if wrong_type else None,
            )
        return value


def as_text(text: Any) -> str:
    """A string of a message as text: protobuf gives bytes where it is no UTF-8, as in damaged files."""
    data = text if isinstance(text, bytes) else str(text or "").encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")


def element_type(number: int) -> DType | None:
    """The data type of a number of TensorProto.DataType, None for UNDEFINED. Raises UnsupportedFormatError."""
    return dtype_of(number) if number else None


def value_info(proto: Any, optional: bool = False) -> ValueInfo:
    """What a ValueInfoProto says."""
    try:
        kind, dtype, shape = describe_type(proto.type)
    except UnsupportedFormatError as error:
        raise FormatError(f"{as_text(proto.name)!r} is declared of an unknown type: {error}") from None
    return ValueInfo(proto.name, kind, dtype, shape, optional)


def describe_type(proto: Any) -> tuple[str, DType | None, tuple[int | str | None, ...] | None]:
    """Kind, data type and shape of a TypeProto (those of the elements, for containers)."""
    case = proto.WhichOneof("value")
    if case in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(proto, case)
        shape = None
        if tensor.HasField("shape"):
            shape = tuple(
                d.dim_value
                if d.WhichOneof("value") == "dim_value" and d.dim_value >= 0
                else as_text(d.dim_param) or None
                for d in tensor.shape.dim
            )
        return "tensor" if case == "tensor_type" else "sparse", element_type(tensor.elem_type), shape
    if case in ("sequence_type", "optional_type"):
        inner, dtype, shape = describe_type(getattr(proto, case).elem_type)
        kind = case.removesuffix("_type")
        return kind if inner in ("tensor", "unknown") else f"{kind} {inner}", dtype, shape
    return case.removesuffix("_type") if case else "unknown", None, None
