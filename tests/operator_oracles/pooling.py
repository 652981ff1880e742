"""Oracles of pooling: PyTorch, with asymmetric padding applied beforehand."""

import torch
from torch.nn import functional

from operator_oracles import torch_oracle
from operator_oracles.convolution import flat, pairs, per_axis

MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
ADAPTIVE_MAX = {
    1: functional.adaptive_max_pool1d,
    2: functional.adaptive_max_pool2d,
    3: functional.adaptive_max_pool3d,
}
ADAPTIVE_AVG = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}
AVG = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
UNPOOL = {1: functional.max_unpool1d, 2: functional.max_unpool2d, 3: functional.max_unpool3d}


def max_with_indices(x, kernel, stride, padding, dilation, ceil_mode):
    """torch pads symmetrically, so the padding is made by hand and the indices are moved back."""
    rank = x.ndim - 2
    kernel, dilation = per_axis(kernel, rank), per_axis(dilation, rank)
    stride = kernel if stride is None else per_axis(stride, rank)
    padding = pairs(padding, rank)
    if all(a == b for a, b in padding):
        given = x if x.is_floating_point() else x.double()
        y, indices = MAX[rank](
            given, kernel, stride, [a for a, _ in padding], dilation, ceil_mode=ceil_mode, return_indices=True
        )
        return y.to(x.dtype), indices
    assert not ceil_mode
    padded = functional.pad(x, flat(padding), value=-torch.inf)
    y, indices = MAX[rank](padded, kernel, stride, 0, dilation, return_indices=True)
    moved, rest = torch.zeros_like(indices), indices
    step = 1
    for size, n, (before, _) in reversed(list(zip(padded.shape[2:], x.shape[2:], padding, strict=True))):
        moved += (rest % size - before) * step
        rest, step = rest // size, step * n
    return y, moved


@torch_oracle("max_pool")
def max_pool(*arguments):
    return max_with_indices(*arguments)[0]


@torch_oracle("max_pool_with_indices")
def max_pool_with_indices(*arguments):
    return max_with_indices(*arguments)


@torch_oracle("max_unpool")
def max_unpool(x, indices, kernel, stride, padding, output_size):
    rank = x.ndim - 2
    kernel = per_axis(kernel, rank)
    stride = kernel if stride is None else per_axis(stride, rank)
    if output_size is not None:  # torch takes only sizes that pooling may have come from
        flat_result = x.new_zeros((*x.shape[:2], int(torch.tensor(output_size).prod())))
        flat_result = flat_result.scatter(2, indices.flatten(2), x.flatten(2))
        return flat_result.reshape(*x.shape[:2], *output_size)
    return UNPOOL[rank](x, indices, kernel, stride, per_axis(padding, rank))


def windows_of(x, kernel, stride, padding, dilation):
    """Every window of zero-padded x as a last axis, by unfolding one axis after the other."""
    rank = x.ndim - 2
    x = functional.pad(x, flat(padding))
    for axis in range(rank):
        x = x.unfold(2 + axis, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])
        x = x[..., :: dilation[axis]]
    return x.flatten(2 + rank)


@torch_oracle("avg_pool")
def avg_pool(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor, dilation):
    rank = x.ndim - 2
    kernel, dilation = per_axis(kernel, rank), per_axis(dilation, rank)
    stride = kernel if stride is None else per_axis(stride, rank)
    padding = pairs(padding, rank)
    if all(a == b for a, b in padding) and dilation == (1,) * rank:
        extra = () if divisor is None else (divisor,)
        return AVG[rank](x, kernel, stride, [a for a, _ in padding], ceil_mode, count_include_pad, *extra)
    assert not ceil_mode
    sums = windows_of(x, kernel, stride, padding, dilation).sum(-1)
    ones = torch.ones_like(x[:1, :1])
    if count_include_pad:
        return sums / windows_of(
            functional.pad(ones, flat(padding), value=1), kernel, stride, [(0, 0)] * rank, dilation
        ).sum(-1)
    return sums / windows_of(ones, kernel, stride, padding, dilation).sum(-1)


@torch_oracle("lp_pool")
def lp_pool(x, p, kernel, stride, padding, dilation, ceil_mode):
    assert not ceil_mode
    rank = x.ndim - 2
    kernel, dilation = per_axis(kernel, rank), per_axis(dilation, rank)
    stride = kernel if stride is None else per_axis(stride, rank)
    return torch.linalg.vector_norm(windows_of(x, kernel, stride, pairs(padding, rank), dilation), p, -1)


@torch_oracle("global_avg_pool")
def global_avg_pool(x):
    return ADAPTIVE_AVG[x.ndim - 2](x, 1)


@torch_oracle("global_max_pool")
def global_max_pool(x):
    return ADAPTIVE_MAX[x.ndim - 2](x, 1)


@torch_oracle("adaptive_avg_pool")
def adaptive_avg_pool(x, output_size):
    return ADAPTIVE_AVG[x.ndim - 2](x, output_size)


@torch_oracle("adaptive_max_pool")
def adaptive_max_pool(x, output_size):
    return ADAPTIVE_MAX[x.ndim - 2](x, output_size)
