"""Oracles of losses: torch.nn.functional, and the formula of class_targets by loops."""

import numpy as np
import torch
import torch.nn.functional as F

from operator_oracles import array_oracle, torch_oracle


@array_oracle("class_targets")
def class_targets(target, classes, weight, ignore_index, smoothing, dtype):
    weight = np.ones(classes, dtype) if weight is None else np.asarray(weight, np.float64)
    targets = np.zeros((*target.shape, classes))
    weights = np.zeros(target.shape)
    for position in np.ndindex(target.shape):
        wanted = int(target[position])
        if wanted == ignore_index:
            continue
        weights[position] = weight[wanted]
        for c in range(classes):
            targets[(*position, c)] = weight[wanted] * (1 - smoothing) * (c == wanted)
            targets[(*position, c)] += weight[c] * smoothing / classes
    return np.moveaxis(targets, -1, 1 if target.ndim else 0), weights


@torch_oracle("nll_loss")
def nll_loss(input, target, weight, ignore_index, reduction):
    return F.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)


@torch_oracle("cross_entropy")
def cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing):
    return F.cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


@torch_oracle("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight):
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=reduction, pos_weight=pos_weight)


# torch's own second derivative of it is not implemented by finite differences' standard, ours is checked by them
@torch_oracle("binary_cross_entropy")
def binary_cross_entropy(input, target, weight, reduction):
    return F.binary_cross_entropy(input, target, weight, reduction=reduction)


@torch_oracle("sigmoid_focal_loss")
def sigmoid_focal_loss(input, target, alpha, gamma, reduction):
    """The formula of arXiv:1708.02002, equation 5."""
    p = torch.sigmoid(input)
    p_t = p * target + (1 - p) * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    loss = entropy * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return {"none": lambda a: a, "mean": torch.mean, "sum": torch.sum}[reduction](loss)


@torch_oracle("mse_loss")
def mse_loss(input, target, reduction):
    return F.mse_loss(input, target, reduction=reduction)


@torch_oracle("l1_loss")
def l1_loss(input, target, reduction):
    return F.l1_loss(input, target, reduction=reduction)


@torch_oracle("smooth_l1_loss")
def smooth_l1_loss(input, target, reduction, beta):
    return F.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


@torch_oracle("huber_loss")
def huber_loss(input, target, reduction, delta):
    return F.huber_loss(input, target, reduction=reduction, delta=delta)


@torch_oracle("kl_div")
def kl_div(input, target, reduction, log_target):
    return F.kl_div(input, target, reduction=reduction, log_target=log_target)
