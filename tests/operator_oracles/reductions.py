"""Oracles of reductions and statistics."""

import numpy as np
import torch

from operator_oracles import array_oracle, torch_oracle


def axes_of(x, axis):
    return tuple(range(x.ndim)) if axis is None else axis


@torch_oracle("sum")
def sum(x, axis, keepdims):
    return torch.sum(x, axes_of(x, axis), keepdims)


@torch_oracle("mean")
def mean(x, axis, keepdims):
    return torch.mean(x if x.is_floating_point() or x.is_complex() else x.float(), axes_of(x, axis), keepdims)


@torch_oracle("max")
def max(x, axis, keepdims):
    return torch.amax(x, axes_of(x, axis), keepdims)


@torch_oracle("min")
def min(x, axis, keepdims):
    return torch.amin(x, axes_of(x, axis), keepdims)


@torch_oracle("prod")
def prod(x, axis, keepdims):
    for a in sorted((a % x.ndim for a in np.atleast_1d(axes_of(x, axis)).astype(int)), reverse=True):
        x = torch.prod(x, a, keepdims)
    return x


@array_oracle("argmax", by="NumPy")
def argmax(x, axis, keepdims, last):
    if last:
        return x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis, keepdims=keepdims)
    return np.argmax(x, axis, keepdims=keepdims)


@array_oracle("argmin", by="NumPy")
def argmin(x, axis, keepdims, last):
    if last:
        return x.shape[axis] - 1 - np.argmin(np.flip(x, axis), axis, keepdims=keepdims)
    return np.argmin(x, axis, keepdims=keepdims)


@torch_oracle("any")
def any(x, axis, keepdims):
    return torch.any(x, axes_of(x, axis), keepdims)


@torch_oracle("all")
def all(x, axis, keepdims):
    return torch.all(x, axes_of(x, axis), keepdims)


@array_oracle("count_nonzero", by="NumPy")
def count_nonzero(x, axis, keepdims):
    return np.count_nonzero(x, axis, keepdims=keepdims)


def _running(accumulate, start, x, axis, exclusive, reverse):
    if reverse:
        x = torch.flip(x, (axis,))
    if exclusive and x.shape[axis]:
        first = torch.full_like(x.narrow(axis, 0, 1), start)
        x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    y = accumulate(x, axis)
    return torch.flip(y, (axis,)) if reverse else y


@torch_oracle("cumsum")
def cumsum(x, axis, exclusive, reverse):
    return _running(torch.cumsum, 0, x, axis, exclusive, reverse)


@torch_oracle("cumprod")
def cumprod(x, axis, exclusive, reverse):
    return _running(torch.cumprod, 1, x, axis, exclusive, reverse)


@torch_oracle("var")
def var(x, axis, correction, keepdims):
    x = x if x.is_floating_point() else x.float()
    return torch.var(x, axes_of(x, axis), correction=correction, keepdim=keepdims)


@torch_oracle("std")
def std(x, axis, correction, keepdims):
    x = x if x.is_floating_point() else x.float()
    return torch.std(x, axes_of(x, axis), correction=correction, keepdim=keepdims)


@torch_oracle("logsumexp")
def logsumexp(x, axis, keepdims):
    return torch.logsumexp(x if x.is_floating_point() else x.float(), axes_of(x, axis), keepdims)


@torch_oracle("norm")
def norm(x, p, axis, keepdims):
    return torch.linalg.vector_norm(x, p, axis, keepdims)
