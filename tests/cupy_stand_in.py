"""A stand-in for CuPy on machines without a GPU: NumPy arrays behind a class as strict as CuPy's.

What fails here fails on a GPU: mixing its arrays with NumPy's, converting one to NumPy silently, giving one to a NumPy
function, naming a function or argument that CuPy lacks. Reductions to one number give arrays of no axes, as CuPy does.
It checks how bodies are written, not what a GPU computes; the tests under the mark `cuda` do that.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def words(text: str) -> list[str]:
    return text.split()


#: Functions that CuPy 13 and 14 have, as far as operators are likely to use them; others are refused.
FUNCTIONS = words("""
abs add all amax any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort array asarray
ascontiguousarray atleast_1d bincount bitwise_and bitwise_or bitwise_xor broadcast_to ceil clip concatenate conj
copysign cos cosh count_nonzero cumprod cumsum diagonal divide dot einsum empty empty_like equal exp expand_dims expm1
eye flip floor floor_divide fmod full full_like greater greater_equal hypot imag invert isfinite isinf isnan left_shift
less less_equal linspace log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor matmul max
maximum mean meshgrid min minimum moveaxis multiply negative nextafter nonzero not_equal ones ones_like pad partition
positive power prod ravel real reciprocal remainder repeat reshape right_shift roll searchsorted sign
signbit sin sinh sort sqrt square squeeze stack std subtract sum swapaxes take take_along_axis tan tanh tensordot tile
transpose tril triu trunc unique unravel_index var where zeros zeros_like bitwise_not absolute rint split isin
""")
CONSTANTS = ("inf", "nan", "newaxis", "pi", "e")
TYPES = words("""bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128
dtype iinfo finfo""")
METHODS = words("""all any argmax argmin argsort astype choose clip conj copy cumprod cumsum diagonal dot fill flatten
max mean min nonzero partition prod put ravel repeat reshape round sort squeeze std sum swapaxes take trace
transpose var view""")


class ndarray:
    """An array that only the functions of this module, its own methods and Python's operators take."""

    __slots__ = ("host",)
    __array_ufunc__ = None

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use .get() to construct one explicitly.")

    def get(self) -> np.ndarray:
        return self.host.copy()

    shape = property(lambda self: self.host.shape, lambda self, shape: setattr(self.host, "shape", shape))
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: ndarray(self.host.T))
    real = property(lambda self: ndarray(self.host.real))
    imag = property(lambda self: ndarray(self.host.imag))

    def item(self, *index: int) -> Any:
        return self.host.item(*index)

    def tolist(self) -> Any:
        return self.host.tolist()

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[ndarray]:
        return (ndarray(row) for row in self.host)

    def __bool__(self) -> bool:
        return bool(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __complex__(self) -> complex:
        return complex(self.host)

    def __index__(self) -> int:
        return operator.index(self.host)

    def __getitem__(self, key: Any) -> Any:
        return ndarray(self.host[lower(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[lower(key)] = lower(value)


def lower(value: Any) -> Any:
    """What NumPy computes with; refuses NumPy's own arrays, as CuPy does."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}")
    if isinstance(value, tuple | list):
        return type(value)(lower(item) for item in value)
    return value


def lift(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(value)
    if isinstance(value, tuple | list):
        return type(value)(lift(item) for item in value)
    return value


def strict(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A NumPy function on arrays of this module alone."""

    def call(*arguments: Any, **options: Any) -> Any:
        if name in ("argsort", "sort") and options.get("kind") not in (None, "stable"):
            raise ValueError("kind can only be None or 'stable'")
        if name == "repeat" and isinstance(arguments[1], ndarray):
            raise ValueError("repeats must be an int or a sequence of ints")
        if name == "argsort":
            options["kind"] = "stable"  # as CuPy's is
        result = function(*lower(list(arguments)), **{key: lower(option) for key, option in options.items()})
        return options["out"] if options.get("out") is not None else lift(result)

    return call


def from_host(array: Any, dtype: Any = None, **_: Any) -> ndarray:
    """asarray and array take NumPy's arrays: the one way in."""
    if isinstance(array, ndarray):
        return array if dtype is None or dtype == array.dtype else ndarray(array.host.astype(dtype))
    return ndarray(np.array(array, dtype))


def module() -> types.ModuleType:
    """A module to stand at sys.modules["cupy"]."""
    made: Any = types.ModuleType("cupy")
    for name in FUNCTIONS:
        setattr(made, name, strict(getattr(np, name), name))
    for name in (*CONSTANTS, *TYPES):
        setattr(made, name, getattr(np, name))
    made.asarray = made.array = from_host
    made.ndarray = ndarray
    made.add.at = strict(np.add.at, "add.at")
    made.errstate = np.errstate
    made.linalg = types.SimpleNamespace(**{name: strict(getattr(np.linalg, name), name) for name in ("det", "inv")})
    made.fft = types.SimpleNamespace(
        **{name: strict(getattr(np.fft, name), name) for name in ("fft", "ifft", "rfft", "irfft")}
    )
    made.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 1), Device=lambda index: np.errstate()
    )
    return made


def _operators() -> None:
    for name in words("add sub mul truediv floordiv mod pow matmul and or xor lshift rshift lt le gt ge eq ne divmod"):
        function = divmod if name == "divmod" else getattr(operator, f"{name}_" if name in ("and", "or") else name)
        forward = strict(function, name)
        setattr(ndarray, f"__{name}__", lambda a, b, f=forward: f(a, b))
        if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
            setattr(ndarray, f"__r{name}__", lambda a, b, f=forward: f(b, a))
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"):
        function = getattr(operator, f"i{name}")

        def change(a: ndarray, b: Any, f: Callable[..., Any] = function) -> ndarray:
            f(a.host, lower(b))
            return a

        setattr(ndarray, f"__i{name}__", change)
    for name in ("neg", "pos", "abs", "invert"):
        setattr(ndarray, f"__{name}__", strict(getattr(operator, name), name))
    for name in METHODS:
        setattr(ndarray, name, strict(getattr(np.ndarray, name), name))
    ndarray.__hash__ = None  # type: ignore[assignment]


_operators()
