"""com.microsoft: mixtures of experts, with weights as they are or in few bits.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.sets.onnx.microsoft_attention import refused
from zoonet.ops.sets.onnx.microsoft_quantization import unpacked
from zoonet.ops.types import Array

#: A layer of all experts: weights (experts, out, in) and perhaps biases (experts, out).
Layer = tuple[Array, Array | None]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": ops.relu,
    "gelu": lambda h: ops.gelu(h, "tanh"),
    "silu": ops.silu,
    "identity": lambda h: h,
}


@dataclass(frozen=True)
class Mixture:
    """How experts are chosen and what they compute, by the names of the operator's attributes.

    softmax_of_chosen: the k shares sum to 1; else the softmax is over all experts.
    """

    k: int
    activation: str
    softmax_of_chosen: bool
    fusion: int
    alpha: float
    beta: float
    limit: float | None

    def run(self, x: Array, router: Array, layers: tuple[Layer, Layer, Layer | None], mixing: Array | None) -> Array:
        """x (…, width), router (tokens, experts) -> (…, width).

        Every expert computes all tokens, weighted with 0 where it is not chosen: so shapes do not depend on contents.
        """
        rows = ops.reshape(x, (-1, x.shape[-1]))
        experts = layers[0][0].shape[0]
        if tuple(router.shape) != (rows.shape[0], experts) or not 0 < self.k <= experts:
            raise ShapeError(
                "the router of a mixture of experts does not fit",
                expected=f"({rows.shape[0]}, {experts}), and k from 1 to {experts}",
                received=f"{tuple(router.shape)}, k={self.k}",
            )
        shares = ops.expand_dims(ops.swapaxes(self._shares(router, mixing), 0, 1), -1)  # (experts, tokens, 1)
        y = _applied(self._hidden(ops.expand_dims(rows, 0), layers), layers[1])
        return ops.reshape(ops.sum(ops.multiply(y, ops.cast(shares, y.dtype)), 0), tuple(x.shape))

    def _shares(self, router: Array, mixing: Array | None) -> Array:
        """What each expert counts for each token: (tokens, experts), 0 but for the k that are chosen."""
        values, chosen = ops.topk(router, self.k, -1)
        if mixing is not None:
            values = ops.take_along_axis(mixing, chosen, -1)
            if self.softmax_of_chosen:
                values = ops.divide(values, ops.sum(values, -1, True))
        elif self.softmax_of_chosen:
            values = ops.softmax(values, -1)
        else:
            values = ops.take_along_axis(ops.softmax(router, -1), chosen, -1)
        one_hot = ops.equal(ops.expand_dims(chosen, -1), np.arange(router.shape[-1]))
        return ops.sum(ops.where(one_hot, ops.expand_dims(values, -1), number(0, values.dtype)), 1)

    def _hidden(self, x: Array, layers: tuple[Layer, Layer, Layer | None]) -> Array:
        first = _applied(x, layers[0])
        if self.activation != "swiglu":
            if self.activation not in _ACTIVATIONS:
                raise ArgumentError(
                    "unknown activation of a mixture of experts",
                    expected=", ".join([*_ACTIVATIONS, "swiglu"]),
                    received=self.activation,
                )
            hidden = _ACTIVATIONS[self.activation](first)
            return hidden if layers[2] is None else ops.multiply(hidden, _applied(x, layers[2]))
        if self.fusion == 0:
            if layers[2] is None:
                raise ArgumentError("swiglu without fusion needs the third layer", fix="give fc3_experts_weights")
            gate, linear = first, _applied(x, layers[2])
        elif self.fusion == 1:
            pairs = ops.reshape(first, (*first.shape[:-1], -1, 2))
            gate, linear = ops.index(pairs, (Ellipsis, 0)), ops.index(pairs, (Ellipsis, 1))
        else:
            gate, linear = ops.split(first, 2, -1)
        if self.limit is not None:
            gate = ops.minimum(gate, number(self.limit, gate.dtype))
            linear = ops.clip(linear, -self.limit, self.limit)
        slope, shift = number(self.alpha, gate.dtype), number(self.beta, gate.dtype)
        return ops.multiply(ops.multiply(gate, ops.sigmoid(ops.multiply(gate, slope))), ops.add(linear, shift))


def _applied(x: Array, layer: Layer) -> Array:
    """x (experts or 1, tokens, in) through a layer of each expert: (experts, tokens, out)."""
    weight, bias = layer
    y = ops.matmul(x, ops.swapaxes(weight, -1, -2))
    return y if bias is None else ops.add(y, ops.expand_dims(bias, 1))


@declared("MoE")
def mixture_of_experts(
    input: Array,
    router_probs: Array,
    fc1_experts_weights: Array,
    fc1_experts_bias: Array | None,
    fc2_experts_weights: Array,
    fc2_experts_bias: Array | None = None,
    fc3_experts_weights: Array | None = None,
    fc3_experts_bias: Array | None = None,
    /,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    k: int = 1,
    normalize_routing_weights: int = 0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
) -> Array:
    """The sum of the k experts that router_probs choose for each token of input (…, width), by their shares."""
    refused("MoE", use_sparse_mixer=use_sparse_mixer, swiglu_limit_after_activation=swiglu_limit_after_activation)
    mixture = Mixture(
        k, activation_type, bool(normalize_routing_weights), swiglu_fusion, activation_alpha, activation_beta,
        swiglu_limit,
    )  # fmt: skip
    third = None if fc3_experts_weights is None else (fc3_experts_weights, fc3_experts_bias)
    layers = (fc1_experts_weights, fc1_experts_bias), (fc2_experts_weights, fc2_experts_bias), third
    return mixture.run(input, router_probs, layers, None)


def _experts(
    weights: Array, scales: Array | None, zeros: Array | None, bits: int, block: int, dtype: np.dtype[np.generic]
) -> Array:
    """Weights (experts, out, in) of numbers of few bits, with a scale for each row, or each block of a row."""
    if scales is None or bits not in (2, 4, 8):
        raise ArgumentError("QMoE: weights lack scales, or are of unknown width", expected="2, 4 or 8", received=bits)
    values = ops.cast(unpacked(weights, bits), np.float32)
    experts, rows, columns = values.shape
    blocks = columns // block if block else 1
    if tuple(scales.shape) not in ((experts, rows, blocks), *([(experts, rows)] if blocks == 1 else [])):
        raise ShapeError("QMoE: scales do not fit", expected=(experts, rows, blocks), received=tuple(scales.shape))
    parts = ops.reshape(values, (experts, rows, blocks, -1))
    zero: Array = np.asarray(2 ** (bits - 1), np.float32)
    if zeros is not None:
        points = ops.cast(unpacked(zeros, bits), np.float32)
        points = ops.index(points, (Ellipsis, slice(0, blocks if len(zeros.shape) == 3 else rows)))
        zero = ops.reshape(points, (experts, rows, blocks, 1))
    scale = ops.cast(ops.reshape(scales, (experts, rows, blocks, 1)), np.float32)
    return ops.cast(ops.reshape(ops.multiply(ops.subtract(parts, zero), scale), (experts, rows, columns)), dtype)


@declared("QMoE")
def quantised_mixture_of_experts(
    input: Array,
    router_probs: Array,
    fc1_experts_weights: Array,
    fc1_scales: Array | None,
    fc1_experts_bias: Array | None,
    fc2_experts_weights: Array,
    fc2_scales: Array | None = None,
    fc2_experts_bias: Array | None = None,
    fc3_experts_weights: Array | None = None,
    fc3_scales: Array | None = None,
    fc3_experts_bias: Array | None = None,
    fc1_zero_points: Array | None = None,
    fc2_zero_points: Array | None = None,
    fc3_zero_points: Array | None = None,
    router_weights: Array | None = None,
    /,
    accuracy_level: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    block_size: int = 0,
    expert_weight_bits: int = 4,
    fc1_expert_weight_bits: int | None = None,
    fc2_expert_weight_bits: int | None = None,
    fc3_expert_weight_bits: int | None = None,
    k: int = 1,
    normalize_routing_weights: int = 0,
    quant_type: str = "int",
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
    weights_prepacked: int = -1,
) -> Array:
    """MoE whose weights are integers of 2, 4 or 8 bits; router_weights: the shares, where router_probs only choose."""
    refused(
        "QMoE", use_sparse_mixer=use_sparse_mixer, swiglu_limit_after_activation=swiglu_limit_after_activation,
        quant_type=None if quant_type == "int" else quant_type,
    )  # fmt: skip
    of_chosen = bool(normalize_routing_weights) or router_weights is None  # as ONNX Runtime does, whatever is asked
    mixture = Mixture(k, activation_type, of_chosen, swiglu_fusion, activation_alpha, activation_beta, swiglu_limit)
    wide = [bits or expert_weight_bits for bits in (fc1_expert_weight_bits, fc2_expert_weight_bits)]
    first = _experts(fc1_experts_weights, fc1_scales, fc1_zero_points, wide[0], block_size, input.dtype)
    second = _experts(fc2_experts_weights, fc2_scales, fc2_zero_points, wide[1], block_size, input.dtype)
    third = None
    if fc3_experts_weights is not None:
        bits = fc3_expert_weight_bits or expert_weight_bits
        weight = _experts(fc3_experts_weights, fc3_scales, fc3_zero_points, bits, block_size, input.dtype)
        third = weight, fc3_experts_bias
    return mixture.run(
        input, router_probs, ((first, fc1_experts_bias), (second, fc2_experts_bias), third), router_weights
    )
