"""Oracles of activation functions: torch.nn.functional."""

import torch
import torch.nn.functional as F

from operator_oracles import torch_oracle


def floating(x):
    return x if x.is_floating_point() else x.float()


def same_name(name, torch_name=None, **options):
    function = getattr(F, torch_name or name)
    torch_oracle(name, **options)(lambda x, *parameters: function(floating(x), *parameters))


NAMES = """
    relu6 leaky_relu threshold hardshrink softshrink hardswish softplus elu
    celu selu silu mish softsign tanhshrink hardtanh softmax
    log_softmax prelu glu
"""
for _name in NAMES.split():
    same_name(_name)


@torch_oracle("relu")
def relu(x):
    return F.relu(x)


@torch_oracle("sigmoid")
def sigmoid(x):
    return torch.sigmoid(x)


@torch_oracle("log_sigmoid")
def log_sigmoid(x):
    return F.logsigmoid(floating(x))


@torch_oracle("hardsigmoid")
def hardsigmoid(x, alpha, beta):
    if (alpha, beta) == (1 / 6, 0.5):
        return F.hardsigmoid(floating(x))
    return torch.clamp(alpha * x + beta, 0, 1)


@torch_oracle("gelu")
def gelu(x, approximate):
    return F.gelu(floating(x), approximate=approximate)
