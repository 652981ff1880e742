"""Devices: NumPy on the CPU and CuPy on an NVIDIA GPU, chosen by where the operands lie."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from zoonet.ops.errors import DeviceError
from zoonet.ops.types import Array

__all__ = ["array_module", "device_of", "is_array", "to_device"]


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            "the device 'cuda' needs CuPy", received=str(error), fix="pip install 'zoonet[cuda]'"
        ) from None
    return cupy


#: Whether NumPy arrays move to the GPU where they meet arrays there.
_following = contextvars.ContextVar("following", default=False)


@contextlib.contextmanager
def constants_follow() -> Iterator[None]:
    """While it lasts, NumPy arrays are copied to the device of the arrays that they meet.

    For operator sets, whose functions make constants (positions, sizes, factors) and whose graphs hold some: these
    belong to no device. Anywhere else arrays on different devices are an error.
    """
    token = _following.set(True)
    try:
        yield
    finally:
        _following.reset(token)


def is_array(value: object) -> bool:
    """True for NumPy and CuPy arrays and NumPy scalars, not for traced values or Python numbers."""
    if isinstance(value, (np.ndarray, np.generic)):
        return True
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def array_module(*arrays: Array) -> Any:
    """The module, numpy or cupy, that computes on these arrays. Raises DeviceError if they are on both devices."""
    cupy = sys.modules.get("cupy")
    if cupy is None or not any(isinstance(a, cupy.ndarray) for a in arrays):
        return np
    if not _following.get() and any(isinstance(a, np.ndarray) and a.ndim for a in arrays):
        raise DeviceError(
            "operands are on different devices",
            expected="all on the CPU or all on the GPU",
            received="NumPy and CuPy arrays",
            fix="move them with zoonet.ops.to_device(array, 'cuda')",
        )
    return cupy


def device_of(array: Array) -> str:
    """The device that an array lies on: 'cpu' or 'cuda'."""
    return "cpu" if array_module(array) is np else "cuda"


def module_for(device: str) -> Any:
    """numpy for 'cpu', cupy for 'cuda' or 'cuda:N'. Raises DeviceError for other names and where there is no GPU."""
    if device == "cpu":
        return np
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError("unknown device", expected="'cpu', 'cuda' or 'cuda:N'", received=repr(device))
    cupy = _cupy()
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise DeviceError("no GPU can be used", received=str(error), fix="use device='cpu'") from None
    if int(index or 0) >= count:
        raise DeviceError("no such GPU", expected=f"an index below {count}", received=repr(device))
    return cupy


def to_device(array: Array, device: str) -> Array:
    """The same array on 'cpu', 'cuda' or 'cuda:N'; itself where it lies there already."""
    xp = module_for(device)
    if xp is np:
        return array.get() if array_module(array) is not np else np.asarray(array)
    with xp.cuda.Device(int(device.partition(":")[2] or 0)):
        return xp.asarray(array)
