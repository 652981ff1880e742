"""Oracles of arithmetic, comparisons, logic, bits and elementary functions: PyTorch's functions of the same meaning."""

import numpy as np
import scipy.special
import torch

from operator_oracles import array_oracle, torch_oracle


def tensors(*values):
    """Python numbers as tensors beside the tensors, in the dtype that zoonet promotes all of them to."""
    like = [v for v in values if isinstance(v, torch.Tensor)]
    dtype = like[0].dtype
    for other in like[1:]:
        dtype = torch.promote_types(dtype, other.dtype)
    for number in values:
        if isinstance(number, float) and not (dtype.is_floating_point or dtype.is_complex):
            dtype = torch.float32
    return [v.to(dtype) if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=dtype) for v in values]


def same_name(name, torch_name=None, **options):
    """Declare that operator `name` is what torch.<torch_name or name> computes."""
    function = getattr(torch, torch_name or name)
    torch_oracle(name, **options)(lambda *operands: function(*tensors(*operands)))


NAMES = """
    add subtract multiply divide floor_divide remainder fmod negative
    positive abs sign square sqrt rsqrt reciprocal pow
    nextafter signbit maximum minimum ceil floor trunc round
    real exp expm1 log log1p log2 log10 logaddexp
    sin cos tan asin acos atan atan2 sinh
    cosh tanh asinh acosh atanh erf erfc less
    less_equal greater greater_equal isfinite isinf isnan logical_and logical_or
    logical_xor logical_not bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift
"""
for _name in NAMES.split():
    same_name(_name, {"sign": "sgn"}.get(_name))
same_name("equal", "eq")
same_name("not_equal", "ne")
same_name("bitwise_invert", "bitwise_not")


@torch_oracle("hypot")
def hypot(x, y):
    x, y = tensors(x, y)
    return torch.hypot(x, y) if x.is_floating_point() else torch.hypot(x.float(), y.float())


@torch_oracle("copysign")
def copysign(x, y):
    return torch.copysign(x, y if isinstance(y, torch.Tensor) else torch.tensor(y))


@torch_oracle("conj")
def conj(x):
    return torch.conj(x).resolve_conj()


@torch_oracle("imag")
def imag(x):
    return x.imag if x.is_complex() else torch.zeros_like(x)


@torch_oracle("where")
def where(condition, x, y):
    return torch.where(condition.bool(), x, y)


@torch_oracle("clip")
def clip(x, low, high):
    if low is None and high is None:
        return x.clone()
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        return torch.clamp(x, torch.as_tensor(low), torch.as_tensor(high))
    return torch.clamp(x, low, high)


@torch_oracle("cast")
def cast(x, dtype):
    return x.to(getattr(torch, str(np.dtype(dtype))))


@array_oracle("binary_log_loss", by="SciPy")
def binary_log_loss(x, target):
    x, target = np.asarray(x, np.float64), np.asarray(target, np.float64)
    return -(scipy.special.xlogy(target, x) + scipy.special.xlog1py(1 - target, -x))
