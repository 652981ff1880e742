"""What PyTorch's pickles name: storages, tensors, parameters and containers, as records that nothing executes.

Source: `torch/serialization.py`, `torch/_utils.py`, `torch/_tensor.py` (functions `_rebuild_*`), and for TorchScript
`torch/jit/_pickle.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from zoonet.formats.checkpoint import Array, LazyTensor
from zoonet.formats.dtypes import TORCH, TORCH_STORAGES
from zoonet.formats.files import view_as
from zoonet.formats.pickle_names import Buildable, Inert, InertClass, Known, Resolver, brief, resolver
from zoonet.formats.pickled_numpy import NUMPY, PLAIN
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError

_MAX_RANK = 64

_BUILTIN_TYPES = ("bool", "float", "int", "long", "object", "range", "slice", "str", "unicode", "xrange")
_MEMORY_FORMATS = ("contiguous_format", "channels_last", "channels_last_3d", "preserve_format")

# Classes whose instances are kept as what the pickle says of them: options, paths, dates, and PyTorch's own modules.
INERT = (
    "addict.",
    "argparse.Namespace",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTIN_TYPES),
    "collections.deque",
    "datetime.",
    "decimal.Decimal",
    "easydict.",
    "fractions.Fraction",
    "functools.partial",
    "fvcore.common.config.",
    "lightning.",
    "lightning_fabric.",
    "mmcv.",
    "mmengine.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "timm.",
    "torch._C._VariableFunctionsClass",
    "torch._C._nn.",
    "torch.functional.",
    "torch.nn.",
    "torch.optim.",
    "torch.torch_version.TorchVersion",
    "torchvision.",
    "types.SimpleNamespace",
    "typing.Any",
    "uuid.UUID",
    "yacs.config.",
)


@dataclass(frozen=True)
class TorchDType:
    """`torch.float32` and the like; prints as PyTorch prints it."""

    name: str

    def __str__(self) -> str:
        return f"torch.{self.name}"


@dataclass(frozen=True)
class StorageType:
    """A storage class; `dtype_name` is that of its elements."""

    dtype_name: str


@dataclass
class Storage:
    """A flat run of bytes of the file. `read` is set once the place of the bytes is known.

    nbytes: what the pickle declares. budget: bytes that one tensor made of this storage may take.
    """

    key: str
    dtype: np.dtype[Any]
    nbytes: int
    budget: int
    read: Callable[[], Array] | None = None

    def content(self) -> Array:
        """The bytes (uint8), at least `nbytes` of them."""
        if self.read is None:
            raise FormatError(f"storage {self.key!r} is missing from the file", fix="the file is truncated")
        data = self.read()
        if data.size < self.nbytes:
            raise FormatError(
                f"storage {self.key!r} is shorter than its tensors need",
                expected=f"{self.nbytes} bytes",
                received=f"{data.size}",
                fix="the file is truncated or corrupt: obtain it again",
            )
        return data[: self.nbytes]


def storage_from_id(dtype: Any, key: Any, count: Any, budget: int, big_endian: bool = False) -> Storage:
    """Make a storage of `count` elements from the parts of a persistent identifier."""
    if not isinstance(dtype, StorageType) or not isinstance(key, (str, int)):
        raise FormatError("the file has a storage of unknown type", received=brief(dtype))
    if type(count) is not int or not 0 <= count < 2**60:
        raise FormatError(f"storage {key!r} has an invalid size", received=brief(count))
    element = TORCH[dtype.dtype_name].newbyteorder(">" if big_endian else "<")
    return Storage(str(key), element, count * element.itemsize, budget)


def tensor_from_storage(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: TorchDType | None = None, flags: Any = None
) -> LazyTensor:
    """Check the geometry of a tensor against its storage and make it lazy.

    offset and strides are in elements. flags: {"conj": bool, "neg": bool}, views that PyTorch resolves late.
    """
    if not isinstance(storage, Storage):
        raise FormatError("the file has a tensor without a storage", received=type(storage).__name__)
    element = storage.dtype
    if dtype is not None:
        if not isinstance(dtype, TorchDType):
            raise FormatError("the file has a tensor of unknown dtype", received=brief(dtype))
        element = TORCH[dtype.name].newbyteorder(">" if element.byteorder == ">" else "<")
    sizes, steps = _counts(shape, "shape"), _counts(strides, "strides")
    if type(offset) is not int or offset < 0 or len(sizes) != len(steps) or len(sizes) > _MAX_RANK:
        place = f"offset {brief(offset)}, shape {brief(sizes)}, strides {brief(steps)}"
        raise FormatError("the file has a tensor of invalid geometry", received=place)
    count = math.prod(sizes)
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) if count else offset - 1
    if (last + 1) * element.itemsize > storage.nbytes:
        raise FormatError(
            f"a tensor reaches beyond its storage {storage.key!r}",
            expected=f"at most {storage.nbytes} bytes",
            received=f"{(last + 1) * element.itemsize} bytes for shape {sizes}"[:200],
            fix="the file is corrupt: obtain it again",
        )
    if count * element.itemsize > storage.budget:
        raise UnsafeFileError(
            "a tensor repeats its storage beyond measure",
            expected=f"at most {storage.budget} bytes",
            received=f"{count * element.itemsize} bytes",
        )
    conjugate, negative = _flags(flags)
    contiguous = steps == _contiguous_strides(sizes) or count <= 1

    def load() -> Array:
        data = storage.content()
        start = offset * element.itemsize
        if contiguous:
            array = view_as(data[start : start + count * element.itemsize], element, sizes)
        else:
            flat = view_as(data[start : (last + 1) * element.itemsize], element, (last + 1 - offset,))
            steps_in_bytes = tuple(step * element.itemsize for step in steps)
            view = np.lib.stride_tricks.as_strided(flat, sizes, steps_in_bytes, writeable=False)
            array = np.ascontiguousarray(view)
        array = np.conj(array) if conjugate else array
        return np.negative(array) if negative else array

    identity = (id(storage), offset, sizes, steps if not contiguous else None, conjugate, negative)
    return LazyTensor(sizes, element.newbyteorder("="), load, identity)


def _counts(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or not all(type(v) is int and 0 <= v < 2**62 for v in values):
        raise FormatError(f"the file has a tensor of invalid {what}", received=brief(values))
    return tuple(values)


def _contiguous_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _flags(flags: Any) -> tuple[bool, bool]:
    if not flags:
        return False, False
    if not isinstance(flags, dict):
        raise FormatError("the file has a tensor with metadata that are not a dict")
    return bool(flags.get("conj")), bool(flags.get("neg"))


class OldTensor(Buildable):
    """A tensor of PyTorch before 0.4: an empty object whose storage and geometry come by BUILD."""

    def set_state(self, state: Any) -> Any:
        """Take (storage, offset, shape, strides)."""
        if not isinstance(state, tuple) or len(state) != 4:
            raise FormatError("the file has an old tensor without its four parts")
        return tensor_from_storage(*state)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> LazyTensor:
    return tensor_from_storage(storage, offset, shape, strides)


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, _gradient: Any, _hooks: Any, flags: Any = None
) -> LazyTensor:
    return tensor_from_storage(storage, offset, shape, strides, None, flags)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _gradient: Any,
    _hooks: Any,
    dtype: Any,
    flags: Any = None,
) -> LazyTensor:
    if not isinstance(dtype, TorchDType):
        raise FormatError("the file has a tensor of unknown dtype", received=brief(dtype))
    return tensor_from_storage(storage, offset, shape, strides, dtype, flags)


def _parameter(data: Any = None, *_rest: Any) -> Any:
    return OldTensor() if data is None else data


def _from_type(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    if not isinstance(function, Known) or not function.name.startswith("torch._utils._rebuild"):
        raise UnsafeFileError("the file rebuilds a tensor by an unknown function", received=brief(function))
    if not isinstance(arguments, tuple):
        raise FormatError("the file rebuilds a tensor from what is not a tuple")
    return function.build(*arguments)


def _refused(kind: str, fix: str) -> Callable[..., Any]:
    def refuse(*_arguments: Any) -> Any:
        raise UnsupportedFormatError(f"the file has a {kind} tensor, which zoonet does not read", fix=fix)

    return refuse


def _first(value: Any, *_rest: Any) -> Any:
    return value


def _dense(*arguments: Any) -> tuple[Any, ...]:
    sizes = arguments[0] if arguments else ()
    return _counts(sizes, "size")


def _device(*arguments: Any) -> str:
    return ":".join(str(part)[:100] if isinstance(part, (str, int)) else brief(part) for part in arguments[:2])


def _layout(name: Any) -> str:
    return name[:100] if isinstance(name, str) else brief(name)


_QUANTISED = _refused("quantised", "save the dequantised weights (tensor.dequantize()) instead")
_NESTED = _refused("nested", "save its parts instead")
_SPARSE = _refused("sparse", "save tensor.to_dense() instead")

TORCH_KNOWN: dict[str, Callable[..., Any]] = {
    **PLAIN,
    **NUMPY,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _QUANTISED,
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_nested_tensor": _NESTED,
    "torch._utils._rebuild_meta_tensor_no_storage": _refused("meta", "it has no contents: save real weights"),
    "torch._utils._rebuild_wrapper_subclass": _refused("wrapped", "save plain tensors instead"),
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.tensor._rebuild_from_type": _from_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    "torch.Tensor": lambda *_rest: OldTensor(),
    "torch.Size": _dense,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "copy_reg._reconstructor": lambda target, *_rest: _reconstruct(target),
    "copyreg._reconstructor": lambda target, *_rest: _reconstruct(target),
    "__builtin__.getattr": lambda target, name: _member(target, name),
    "builtins.getattr": lambda target, name: _member(target, name),
}


def _reconstruct(target: Any) -> Any:
    if isinstance(target, InertClass):
        return Inert(target.name)
    if isinstance(target, Known):
        return target.build()
    raise UnsafeFileError("the file makes an object of what is not a class", received=type(target).__name__)


def _member(target: Any, name: Any) -> Inert:
    """The member of an enumeration, as Python before 3.11.4 pickles it; of no other object is an attribute taken."""
    if isinstance(target, InertClass) and isinstance(name, str):
        return Inert(target.name, (name,))
    raise UnsafeFileError("the file takes an attribute of what is not a class", received=type(target).__name__)


def torch_resolver(inert: tuple[str, ...] = INERT, unknown: set[str] | None = None) -> Resolver:
    """Resolve the globals of PyTorch files. inert, unknown: see `resolver`."""
    general = resolver(TORCH_KNOWN, inert, unknown)

    @lru_cache(maxsize=1024)  # a file may name one class a million times
    def resolve(module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda", "torch.storage"):
            if name in TORCH:
                return TorchDType(name)
            if name in TORCH_STORAGES:
                return StorageType(TORCH_STORAGES[name])
            if name in ("UntypedStorage", "TypedStorage"):
                return StorageType("uint8")
            if name.endswith("Tensor") and name.removesuffix("Tensor") + "Storage" in TORCH_STORAGES:
                return Known(f"{module}.{name}", lambda *_rest: OldTensor())
            if name.startswith(("QInt", "QUInt", "qint", "quint")):
                raise UnsupportedFormatError(
                    "the file has quantised tensors, which zoonet does not read",
                    fix="save the dequantised weights (tensor.dequantize()) instead",
                )
            if re.fullmatch(r"(complex|bits|u?int|float)\d\w*", name):
                raise UnsupportedFormatError(f"the file has tensors of torch.{name}", expected=", ".join(TORCH))
        if module.startswith("torch.nested."):
            _NESTED()
        if module in ("torch", "torch._utils") and name.removeprefix("torch.") in _MEMORY_FORMATS:
            return InertClass(f"torch.{name.removeprefix('torch.')}")
        return general(module, name)

    return resolve
