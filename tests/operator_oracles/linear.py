"""Oracles of matrix products: PyTorch."""

import torch

from operator_oracles import torch_oracle


def together(*tensors):
    """Operands in one dtype, as torch's products want them."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


@torch_oracle("matmul")
def matmul(x, y):
    return torch.matmul(*together(x, y))


@torch_oracle("linear")
def linear(x, weight, bias):
    y = torch.matmul(x, weight.T)
    return y if bias is None else y + bias


@torch_oracle("outer")
def outer(x, y):
    return torch.outer(x, y)


@torch_oracle("tensordot")
def tensordot(x, y, axes):
    return torch.tensordot(x, y, axes if isinstance(axes, int) else [list(a) for a in axes])


@torch_oracle("einsum")
def einsum(equation, *operands):
    return torch.einsum(equation, *operands)


@torch_oracle("det")
def det(x):
    return torch.linalg.det(x)


@torch_oracle("inv")
def inv(x):
    return torch.linalg.inv(x)
