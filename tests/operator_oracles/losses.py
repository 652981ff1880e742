"""Oracles of losses: torch.nn.functional, and the formula of class_targets by loops."""

import numpy as np
import torch
import torch.nn.functional as F

from operator_oracles import array_oracle, torch_oracle


@array_oracle("class_indices")
def class_indices(target, classes, ignore_index, dtype):
    counts = np.array([t != ignore_index for t in target.reshape(-1)]).reshape(target.shape)
    return target * counts, counts.astype(dtype)


@array_oracle("class_targets")
def class_targets(target, classes, ignore_index, smoothing, dtype):
    targets = np.zeros((*target.shape, classes))
    for position in np.ndindex(target.shape):
        for c in range(classes):
            if int(target[position]) != ignore_index:
                targets[(*position, c)] = (1 - smoothing) * (c == int(target[position])) + smoothing / classes
    return np.moveaxis(targets, -1, 1 if target.ndim else 0)


def reduce(loss, reduction):
    return {"none": lambda a: a, "mean": torch.mean, "sum": torch.sum}[reduction](loss)


def by_formula(torch_function, formula, *weights):
    """torch refuses gradients by weights; where one is asked for, a formula that must equal torch's result has it."""
    if not any(w is not None and w.requires_grad for w in weights):
        return torch_function(*weights)
    result = formula(*weights)
    torch.testing.assert_close(result, torch_function(*(None if w is None else w.detach() for w in weights)))
    return result


def class_formula(scores, target, weight, ignore_index, reduction, smoothing):
    one_hot = F.one_hot(torch.where(target == ignore_index, 0, target), scores.shape[1]).to(scores.dtype)
    one_hot = one_hot * (target != ignore_index).unsqueeze(-1)
    smooth = one_hot * (1 - smoothing) + (target != ignore_index).unsqueeze(-1) * smoothing / scores.shape[1]
    loss = -(smooth * weight * scores).sum(1)
    return loss.sum() / (one_hot * weight).sum() if reduction == "mean" else reduce(loss, reduction)


@torch_oracle("nll_loss")
def nll_loss(input, target, weight, ignore_index, reduction):
    return by_formula(
        lambda w: F.nll_loss(input, target, w, ignore_index=ignore_index, reduction=reduction),
        lambda w: class_formula(input, target, w, ignore_index, reduction, 0.0),
        weight,
    )


@torch_oracle("cross_entropy")
def cross_entropy(input, target, weight, ignore_index, reduction, smoothing):
    def formula(w):
        scores = F.log_softmax(input, 1)
        if not target.is_floating_point():
            return class_formula(scores, target, w, ignore_index, reduction, smoothing)
        loss = -((target * (1 - smoothing) + smoothing / input.shape[1]) * w * scores).sum(1)
        return reduce(loss, reduction)

    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": smoothing}
    return by_formula(lambda w: F.cross_entropy(input, target, w, **options), formula, weight)


@torch_oracle("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight):
    def formula(w, p):
        loss = -(target * F.logsigmoid(input) * (1 if p is None else p) + (1 - target) * F.logsigmoid(-input))
        return reduce(loss if w is None else loss * w, reduction)

    return by_formula(
        lambda w, p: F.binary_cross_entropy_with_logits(input, target, w, reduction=reduction, pos_weight=p),
        formula,
        weight,
        pos_weight,
    )


@torch_oracle("binary_cross_entropy")
def binary_cross_entropy(input, target, weight, reduction):
    return by_formula(
        lambda w: F.binary_cross_entropy(input, target, w, reduction=reduction),
        lambda w: reduce(F.binary_cross_entropy(input, target, reduction="none") * w, reduction),
        weight,
    )


@torch_oracle("sigmoid_focal_loss")
def sigmoid_focal_loss(input, target, alpha, gamma, reduction):
    """The formula of arXiv:1708.02002, equation 5."""
    p = torch.sigmoid(input)
    p_t = p * target + (1 - p) * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(input, target, reduction="none")
    loss = entropy * (1 - p_t) ** gamma
    if alpha >= 0:
        loss = (alpha * target + (1 - alpha) * (1 - target)) * loss
    return reduce(loss, reduction)


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
