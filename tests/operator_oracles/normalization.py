"""Oracles of the normalisation operators."""

import torch
import torch.nn.functional as F

from operator_oracles import torch_oracle


@torch_oracle("batch_norm")
def batch_norm(x, mean, variance, weight, bias, eps):
    y = F.batch_norm(x, mean.detach(), variance.detach(), weight, bias, False, 0.1, eps) if x.numel() else x.clone()
    if not (x.requires_grad and x.numel()):
        return y
    # torch has no gradient by the statistics: there the definition is written out, and compared with torch's value
    spread = [-1] + [1] * (x.ndim - 2)
    written = (x - mean.reshape(spread)) / torch.sqrt(variance.reshape(spread) + eps)
    written = written if weight is None else written * weight.reshape(spread)
    written = written if bias is None else written + bias.reshape(spread)
    torch.testing.assert_close(written.detach(), y.detach())
    return written


@torch_oracle("batch_norm_training")
def batch_norm_training(x, weight, bias, running_mean, running_variance, momentum, eps):
    # F.batch_norm updates the running statistics in place, outside autograd: there they are written out.
    axes = [0, *range(2, x.ndim)]
    moved_mean = (1 - momentum) * running_mean + momentum * x.mean(axes)
    moved_variance = (1 - momentum) * running_variance + momentum * x.var(axes, correction=1)
    kept_mean, kept_variance = running_mean.detach().clone(), running_variance.detach().clone()
    y = F.batch_norm(x, kept_mean, kept_variance, weight, bias, True, momentum, eps)
    torch.testing.assert_close(kept_mean, moved_mean.detach())
    torch.testing.assert_close(kept_variance, moved_variance.detach())
    return y, moved_mean, moved_variance


@torch_oracle("standardize")
def standardize(x, weight, bias, axis, eps, centered):
    mean = x.mean(axis, keepdim=True) if centered else torch.zeros_like(x.mean(axis, keepdim=True))
    variance = (x - mean).square().mean(axis, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, variance


# The statistics of the samples are those of x, where torch's autograd through `standardize` above gives the value;
# as operands of their own they have gradients that only finite differences know.
@torch_oracle("standardize_gradient", autograd=False)
def standardize_gradient(gy, gmean, gvariance, x, weight, mean, variance, axis, eps, centered, affine_shape):
    x = x.clone().requires_grad_()
    given = torch.ones(affine_shape or ()) if weight is None else weight
    given = given.to(x.dtype).clone().requires_grad_()
    bias = torch.zeros(affine_shape or (), dtype=x.dtype, requires_grad=True)
    y, got_mean, got_variance = standardize(x, given, bias, axis, eps, centered)
    torch.testing.assert_close(got_variance.detach(), variance)
    total = (y * gy).sum() + (got_variance * gvariance).sum()
    if centered:
        total = total + (got_mean * gmean).sum()
    gx, gweight, gbias = torch.autograd.grad(total, [x, given, bias])
    return (gx, gweight, gbias) if affine_shape is not None else (gx, gx.new_zeros(0), gx.new_zeros(0))


@torch_oracle("layer_norm")
def layer_norm(x, normalized_shape, weight, bias, eps):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return F.layer_norm(x, shape, weight, bias, eps)


@torch_oracle("rms_norm")
def rms_norm(x, normalized_shape, weight, eps):
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    return F.rms_norm(x, shape, weight, eps)


@torch_oracle("group_norm")
def group_norm(x, groups, weight, bias, eps):
    return F.group_norm(x, groups, weight, bias, eps)


@torch_oracle("instance_norm")
def instance_norm(x, weight, bias, eps):
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


@torch_oracle("window_sum")
def window_sum(x, axis, before, after):
    moved = x.movedim(axis, -1)
    padded = F.pad(moved, (before, after))
    return padded.unfold(-1, before + after + 1, 1).sum(-1).movedim(-1, axis)


@torch_oracle("local_response_norm")
def local_response_norm(x, size, alpha, beta, k):
    return F.local_response_norm(x, size, alpha, beta, k)


@torch_oracle("normalize")
def normalize(x, p, axis, eps):
    return F.normalize(x, p, axis, eps)
