"""Oracles of arithmetic, casts and sums."""

import torch

from operator_oracles import torch_oracle


@torch_oracle("add")
def add(x, y):
    return torch.add(x, y)
