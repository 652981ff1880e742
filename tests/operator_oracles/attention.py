"""Oracles of attention and rotary embeddings."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from operator_oracles import array_oracle, torch_oracle


@torch_oracle("scaled_dot_product_attention")
def scaled_dot_product_attention(q, k, v, mask, is_causal, scale, window, query_offset, softcap):
    rows, columns = torch.meshgrid(torch.arange(q.shape[-2]), torch.arange(k.shape[-2]), indexing="ij")
    grouped = q.ndim > 2 and q.shape[-3] != k.shape[-3]
    if window is None and softcap is None and not (is_causal and (query_offset or mask is not None)):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, scale=scale, enable_gqa=grouped)
    bias = torch.zeros(q.shape[-2], k.shape[-2], dtype=q.dtype)
    if mask is not None:
        bias = bias.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else bias + mask
    distance = columns - rows - query_offset
    left, right = window or (-1, -1)
    if is_causal:
        right = 0
    if left >= 0:
        bias = bias.masked_fill(distance < -left, -math.inf)
    if right >= 0:
        bias = bias.masked_fill(distance > right, -math.inf)
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale, enable_gqa=grouped)
    if grouped:
        k, v = [a.repeat_interleave(q.shape[-3] // a.shape[-3], -3) for a in (k, v)]
    scores = q @ k.mT * (scale if scale is not None else q.shape[-1] ** -0.5)
    return torch.nan_to_num(torch.softmax(softcap * torch.tanh(scores / softcap) + bias, -1)) @ v


@torch_oracle("attention_gradient")
def attention_gradient(gy, q, k, v, mask, *options):
    operands = [q, k, v, *([mask] if mask is not None and mask.is_floating_point() else [])]
    differentiable = any(a.requires_grad for a in (gy, *operands))
    with torch.enable_grad():
        operands = [a if a.requires_grad else a.detach().requires_grad_() for a in operands]
        given = operands if len(operands) == 4 else [*operands, mask]
        y = scaled_dot_product_attention(*given, *options)
        return torch.autograd.grad(y, operands, gy, create_graph=differentiable)


@torch_oracle("rotary_embedding")
def rotary_embedding(x, cos, sin, interleaved):
    depth = cos.shape[-1]
    rotated, rest = x[..., : 2 * depth], x[..., 2 * depth :]
    # as a product of complex numbers
    pairs = rotated.unflatten(-1, (depth, 2) if interleaved else (2, depth))
    pairs = pairs if interleaved else pairs.transpose(-1, -2)
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.complex(cos, sin))
    turned = turned if interleaved else turned.transpose(-1, -2)
    return torch.cat([turned.flatten(-2), rest], -1)


@array_oracle("rotary_tables", tolerance=1e3)  # angles are float32 by contract
def rotary_tables(positions, dimension, base, frequencies, attention_factor, dtype):
    rates = frequencies or [base ** (-2 * i / dimension) for i in range(dimension // 2)]
    angles = np.multiply.outer(positions.astype(np.float64), np.array(rates))
    return np.cos(angles) * attention_factor, np.sin(angles) * attention_factor
