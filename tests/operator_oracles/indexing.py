"""Oracles of gathering, scattering, sorting and searching."""

import numpy as np
import torch

from operator_oracles import array_oracle, torch_oracle


def wrapped(indices, size):
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@torch_oracle("take")
def take(x, indices, axis):
    if axis is None:
        return x.reshape(-1)[indices.long()]
    chosen = torch.index_select(x, axis, wrapped(indices, x.shape[axis]).reshape(-1))
    axis %= x.ndim
    return chosen.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@torch_oracle("untake")
def untake(x, indices, shape, axis):
    base = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
    return torch.autograd.grad(take(base, indices, axis), base, x, create_graph=True)[0]


@torch_oracle("index_add")
def index_add(x, indices, updates, axis):
    return torch.index_add(x, axis, wrapped(indices, x.shape[axis]), updates)


@torch_oracle("take_along_axis")
def take_along_axis(x, indices, axis):
    sizes = [max(n, m) for n, m in zip(x.shape, indices.shape, strict=True)]
    axis %= x.ndim
    x_sizes, index_sizes = list(sizes), list(sizes)
    x_sizes[axis], index_sizes[axis] = x.shape[axis], indices.shape[axis]
    return torch.gather(x.expand(x_sizes), axis, wrapped(indices, x.shape[axis]).expand(index_sizes))


@torch_oracle("untake_along_axis")
def untake_along_axis(x, indices, shape, axis):
    base = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
    return torch.autograd.grad(take_along_axis(base, indices, axis), base, x, create_graph=True)[0]


@torch_oracle("gather_elements")
def gather_elements(x, indices, axis):
    return torch.gather(x, axis, wrapped(indices, x.shape[axis]))


REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin", "mean": "mean"}


@torch_oracle("scatter_elements")
def scatter_elements(x, indices, updates, axis, reduction):
    indices = wrapped(indices, x.shape[axis])
    if reduction == "none":
        return torch.scatter(x, axis, indices, updates)
    if reduction == "mul" and x.is_floating_point():
        return scatter_mul(x, axis, indices, updates)
    return torch.scatter_reduce(x, axis, indices, updates, REDUCTIONS[reduction])


def scatter_mul(x, axis, indices, updates):
    """torch's product has no second derivative: products of single updates by steps of `scatter`, one at a time."""
    axis %= x.ndim
    for place in np.ndindex(tuple(updates.shape)):
        target = list(place)
        target[axis] = int(indices[place])
        mask = torch.zeros(x.shape, dtype=torch.bool)
        mask[tuple(target)] = True
        x = torch.where(mask, x * updates[place], x)
    return x


@torch_oracle("scatter_reduce")
def scatter_reduce(x, indices, updates, axis, reduction, include_self):
    indices = wrapped(indices, x.shape[axis])
    if reduction == "mul":
        start = x if include_self else torch.scatter(x, axis, indices, torch.ones_like(updates))
        return scatter_mul(start, axis, indices, updates)
    return torch.scatter_reduce(x, axis, indices, updates, REDUCTIONS[reduction], include_self=include_self)


@torch_oracle("put_along_axis")
def put_along_axis(x, indices, values, axis):
    shape = list(x.shape)
    shape[axis] = indices.shape[axis]
    return torch.scatter(x, axis, wrapped(indices, x.shape[axis]).expand(shape), values.expand(shape))


@array_oracle("ravel_index")
def ravel_index(indices, shape):
    positions = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)
    found = [positions[tuple(int(i) for i in row)] for row in indices.reshape(-1, indices.shape[-1])] if shape else 0
    return np.broadcast_to(np.asarray(found, np.int64), indices.shape[:-1] if not shape else (len(found),)).reshape(
        indices.shape[:-1]
    )


@torch_oracle("scatter_nd")
def scatter_nd(x, indices, updates, reduction):
    key = tuple(indices[..., i] for i in range(indices.shape[-1]))
    if reduction in ("none", "add"):
        return x.index_put(key, updates, accumulate=reduction == "add")
    assert indices.shape[-1] == 1
    width = int(np.prod(x.shape[1:], dtype=int))
    rows = indices.reshape(-1, 1).expand(-1, width)
    result = scatter_elements(x.reshape(-1, width), rows, updates.reshape(-1, width), 0, reduction)
    return result.reshape(x.shape)


@torch_oracle("gather_nd")
def gather_nd(x, indices, batch_dims):
    if batch_dims:
        return torch.stack([gather_nd(a, i, batch_dims - 1) for a, i in zip(x, indices, strict=True)])
    return x[tuple(indices[..., i] for i in range(indices.shape[-1]))]


@torch_oracle("nonzero")
def nonzero(x):
    return torch.nonzero(x, as_tuple=True)


@array_oracle("one_hot")
def one_hot(indices, num_classes, dtype, axis):
    rows = np.array([[int(i) == c for c in range(num_classes)] for i in indices.reshape(-1)])
    return np.moveaxis(rows.reshape(*indices.shape, num_classes), -1, axis).astype(dtype)


@torch_oracle("embedding")
def embedding(indices, weight, padding_idx):
    return torch.nn.functional.embedding(indices, weight, padding_idx)


@torch_oracle("masked_fill")
def masked_fill(x, mask, value):
    return x.masked_fill(mask, value)


@torch_oracle("masked_select")
def masked_select(x, mask):
    return x.masked_select(mask)


@torch_oracle("compress")
def compress(x, condition, axis):
    places = torch.nonzero(condition).reshape(-1)
    return x.reshape(-1)[places] if axis is None else torch.index_select(x, axis, places)


@torch_oracle("sort")
def sort(x, axis, descending, stable):
    return torch.sort(x, dim=axis, descending=descending, stable=True).values


@torch_oracle("argsort")
def argsort(x, axis, descending, stable):
    return torch.argsort(x, dim=axis, descending=descending, stable=True)


@torch_oracle("topk")
def topk(x, k, axis, largest, sorted):
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


@array_oracle("unique")
def unique(x, axis, return_index, return_inverse, return_counts, sorted, equal_nan):
    slices = [x.reshape(-1)[i] for i in range(x.size)] if axis is None else list(np.moveaxis(x, axis, 0))
    keys = [tuple(np.ravel(s).tolist()) for s in slices]
    distinct = list(dict.fromkeys(keys))
    if sorted:
        distinct.sort()
    first = [keys.index(key) for key in distinct]
    values = np.stack([slices[i] for i in first], 0 if axis is None else axis)
    inverse = np.array([distinct.index(key) for key in keys]).reshape(x.shape if axis is None else -1)
    counts = np.array([keys.count(key) for key in distinct])
    asked = ((np.array(first), return_index), (inverse, return_inverse), (counts, return_counts))
    return (values, *[array for array, wanted in asked if wanted])


@torch_oracle("searchsorted")
def searchsorted(x, values, side):
    return torch.searchsorted(x, values, side=side)


@torch_oracle("bincount")
def bincount(x, minlength):
    return torch.bincount(x, minlength=minlength)
