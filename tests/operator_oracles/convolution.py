"""Oracles of convolution: PyTorch, with asymmetric padding applied beforehand."""

import torch
from torch.nn import functional

from operator_oracles import torch_oracle

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def per_axis(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pairs(padding, rank):
    """(before, after) for each axis, as zoonet's padding argument spells them."""
    return [(p, p) if isinstance(p, int) else tuple(p) for p in per_axis(padding, rank)]


def flat(padding):
    """Pairs in the order of torch.nn.functional.pad: last axis first."""
    return [n for pair in reversed(padding) for n in pair]


@torch_oracle("conv")
def conv(x, weight, bias, stride, padding, dilation, groups):
    rank = x.ndim - 2
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    if padding == "same":  # TensorFlow's rule
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
        ]
        padding = [(t // 2, t - t // 2) for t in totals]
    elif padding == "valid":
        padding = 0
    x = functional.pad(x, flat(pairs(padding, rank)))
    if not x.is_floating_point():
        return CONV[rank](x.double(), weight.double(), bias, stride, 0, dilation, groups).round().to(x.dtype)
    return CONV[rank](x, weight, bias, stride, 0, dilation, groups)


@torch_oracle("conv_transpose")
def conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation):
    rank = x.ndim - 2
    arguments = (per_axis(stride, rank), 0, 0, groups, per_axis(dilation, rank))
    if not x.is_floating_point():
        y = CONV_TRANSPOSE[rank](x.double(), weight.double(), bias, *arguments).round().to(x.dtype)
    else:
        y = CONV_TRANSPOSE[rank](x, weight, None, *arguments)
    extra = per_axis(output_padding, rank)
    y = functional.pad(y, flat([(-a, e - b) for (a, b), e in zip(pairs(padding, rank), extra, strict=True)]))
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


@torch_oracle("deform_conv2d")
def deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask):
    """Tap by tap: torch's grid_sample reads where the offsets point, which is then weighted as in a convolution."""
    (down, across), (up, aside) = per_axis(stride, 2), per_axis(dilation, 2)
    (top, _), (left, _) = pairs(padding, 2)
    out, channels, taps = offset.shape[2:], x.shape[1], weight[0, 0].numel()
    groups = offset.shape[1] // (2 * taps)
    offset = offset.reshape(len(x), groups, taps, 2, *out)
    mask = torch.ones_like(offset[:, :, :, 0]) if mask is None else mask.reshape(len(x), groups, taps, *out)
    rows, columns = torch.arange(out[0]) * down - top, torch.arange(out[1]) * across - left
    last = torch.tensor([x.shape[3] - 1, x.shape[2] - 1])
    shares = channels // weight.shape[1]
    y = 0
    for tap in range(taps):
        i, j = divmod(tap, weight.shape[3])
        read = []
        for group, part in enumerate(x.chunk(groups, 1)):
            at = offset[:, group, tap]
            place = torch.stack([at[:, 1] + columns + j * aside, at[:, 0] + rows[:, None] + i * up], -1)
            sampled = functional.grid_sample(part, place / last * 2 - 1, align_corners=True)
            read.append(sampled * mask[:, group, tap, None])
        y = y + functional.conv2d(torch.cat(read, 1), weight[:, :, i, j, None, None], groups=shares)
    return y if bias is None else y + bias[:, None, None]
