"""Oracles of shapes, slices, padding and creation."""

import numpy as np
import torch

from operator_oracles import array_oracle, torch_oracle
from zoonet.ops.types import Slice, as_dtype


@torch_oracle("reshape")
def reshape(x, shape):
    return torch.reshape(x, shape)


@torch_oracle("transpose")
def transpose(x, axes):
    return x.permute(axes if axes is not None else tuple(range(x.ndim))[::-1])


@torch_oracle("moveaxis")
def moveaxis(x, source, destination):
    return torch.movedim(x, source, destination)


@torch_oracle("swapaxes")
def swapaxes(x, axis1, axis2):
    return torch.swapaxes(x, axis1, axis2)


@torch_oracle("broadcast_to")
def broadcast_to(x, shape):
    return torch.broadcast_to(x, shape)


@torch_oracle("squeeze")
def squeeze(x, axis):
    return torch.squeeze(x) if axis is None else torch.squeeze(x, axis)


@torch_oracle("expand_dims")
def expand_dims(x, axis):
    axes = (axis,) if isinstance(axis, int) else axis
    ndim = x.ndim + len(axes)
    for a in sorted(a % ndim for a in axes):
        x = torch.unsqueeze(x, a)
    return x


@torch_oracle("concat")
def concat(arrays, axis):
    return torch.cat(arrays, axis)


@torch_oracle("stack")
def stack(arrays, axis):
    return torch.stack([a.to(arrays[0].dtype) for a in arrays], axis)


@torch_oracle("unstack")
def unstack(x, axis):
    return torch.unbind(x, axis)


@torch_oracle("split")
def split(x, indices_or_sections, axis):
    return torch.tensor_split(x, indices_or_sections, axis)


@torch_oracle("flip")
def flip(x, axis):
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return torch.flip(x, axes)


@torch_oracle("roll")
def roll(x, shift, axis):
    return torch.roll(x, shift, axis)


@torch_oracle("tile")
def tile(x, repetitions):
    return torch.tile(x, (repetitions,) if isinstance(repetitions, int) else repetitions)


@torch_oracle("repeat")
def repeat(x, repeats, axis):
    return torch.repeat_interleave(x, repeats if isinstance(repeats, int) else torch.tensor(repeats), axis)


def basic_key(key):
    """For torch, which has no negative steps: the key with slices as index tensors is made by NumPy on positions."""
    items = key if isinstance(key, tuple) else (key,)
    return tuple(item.builtin() if isinstance(item, Slice) else item for item in items)


@torch_oracle("index")
def index(x, key):
    positions = np.arange(x.numel()).reshape(tuple(x.shape))[basic_key(key)]
    return x.reshape(-1)[torch.from_numpy(np.array(positions))]


@torch_oracle("unindex")
def unindex(x, shape, key):
    positions = np.arange(int(np.prod(shape))).reshape(shape)[basic_key(key)]
    zeros = torch.zeros(int(np.prod(shape)), dtype=x.dtype)
    return zeros.index_put((torch.from_numpy(np.array(positions)),), x).reshape(shape)


@torch_oracle("index_update")
def index_update(x, key, values):
    positions = np.arange(x.numel()).reshape(tuple(x.shape))[basic_key(key)]
    return x.reshape(-1).index_put((torch.from_numpy(np.array(positions)),), values.to(x.dtype)).reshape(x.shape)


@torch_oracle("pad")
def pad(x, pad_width, mode, value):
    pairs = pad_width
    if isinstance(pairs, int):
        pairs = ((pairs, pairs),) * x.ndim
    elif isinstance(pairs[0], int):
        pairs = (pairs,) * x.ndim
    flat = [n for pair in reversed(pairs) for n in pair]
    if mode == "constant":
        return torch.nn.functional.pad(x, flat, value=value)
    crops = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True))
    x = x[crops]
    positions = np.pad(np.arange(x.numel()).reshape(tuple(x.shape)), np.maximum(pairs, 0), mode)
    return x.reshape(-1)[torch.from_numpy(positions)]


@array_oracle("full_like", by="NumPy")
def full_like(x, value, dtype):
    return np.full(x.shape, value, as_dtype(dtype) if dtype else x.dtype)


@array_oracle("zeros_like", by="NumPy")
def zeros_like(x, dtype):
    return np.zeros(x.shape, as_dtype(dtype) if dtype else x.dtype)


@array_oracle("ones_like", by="NumPy")
def ones_like(x, dtype):
    return np.ones(x.shape, as_dtype(dtype) if dtype else x.dtype)


@torch_oracle("unpad")
def unpad(x, shape, pad_width, mode):
    base = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
    (result,) = torch.autograd.grad(pad(base, pad_width, mode, 0), base, x, create_graph=True)
    return result


@array_oracle("full", by="NumPy")
def full(shape, value, dtype, device):
    default = {bool: "bool", int: "int64", float: "float32"}[type(value)]
    return np.full(shape, value, as_dtype(dtype or default))


@array_oracle("zeros", by="NumPy")
def zeros(shape, dtype, device):
    return np.zeros(shape, dtype)


@array_oracle("ones", by="NumPy")
def ones(shape, dtype, device):
    return np.ones(shape, dtype)


@torch_oracle("arange")
def arange(start, stop, step, dtype, device):
    first, last = (0, start) if stop is None else (start, stop)
    if (last - first) * step <= 0:
        return torch.empty(0, dtype=torch.int64)
    result = torch.arange(first, last, step)
    return result.to(torch.float32) if dtype in ("float32", "bfloat16") else result


@array_oracle("linspace", by="NumPy")
def linspace(start, stop, num, dtype, device, endpoint):
    return np.linspace(start, stop, num, endpoint, dtype=dtype)


@array_oracle("eye")
def eye(rows, columns, offset, dtype, device):
    return (
        np.array([[i + offset == j for j in range(rows if columns is None else columns)] for i in range(rows)])
        .reshape(rows, rows if columns is None else columns)
        .astype(dtype)
    )


@torch_oracle("meshgrid")
def meshgrid(arrays, indexing):
    return torch.meshgrid([a.to(arrays[0].dtype) for a in arrays], indexing=indexing)


@torch_oracle("tril")
def tril(x, k):
    return torch.tril(x, k)


@torch_oracle("triu")
def triu(x, k):
    return torch.triu(x, k)


@torch_oracle("diagonal")
def diagonal(x, offset, axis1, axis2):
    return torch.diagonal(x, offset, axis1, axis2)


@torch_oracle("undiagonal")
def undiagonal(x, shape, offset, axis1, axis2):
    return torch.diagonal_scatter(torch.zeros(shape, dtype=x.dtype), x, offset, axis1, axis2)


@torch_oracle("diag")
def diag(x, k):
    return torch.diag(x, k)


@torch_oracle("unrepeat")
def unrepeat(x, repeats, axis):
    parts = torch.split(x, list(repeats), axis)
    return torch.stack([part.sum(axis) for part in parts], axis)
