"""Recurrent layers. Gates come in Keras's order: LSTM input, forget, cell, output; GRU update, reset, new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.random import random_fold_in
from zoonet.ops.registry import composite
from zoonet.ops.sets.keras.activations import Activation, activate
from zoonet.ops.sets.keras.common import (
    LARGEST_LOOP,
    Sizes,
    affordable,
    along,
    from_first,
    is_channels_first,
    kept,
    per_axis,
    require_shape,
)
from zoonet.ops.sets.keras.convolution import convolve
from zoonet.ops.sets.keras.registry import Weight, layer
from zoonet.ops.types import Array

__all__ = ["fold_time", "join_steps", "merge_directions", "time_step", "unfold_time"]

_WEIGHTS = (Weight("kernel"), Weight("recurrent_kernel"), Weight("bias", when="use_bias"))
_RATES = ("dropout", "recurrent_dropout")
States = tuple[Any, ...]
Masks = tuple[Any, ...]


def _outputs(states: int) -> Callable[[Mapping[str, Any]], int]:
    return lambda options: 1 + states if options.get("return_state") else 1


def run_steps(
    inputs: Array,
    states: States,
    mask: Array | None,
    step: Callable[[Any, States], States],
    zero_output_for_mask: bool,
) -> tuple[list[Any], States]:
    """The output of every step and the last states. inputs: time first; a step gives new states, output first.

    Steps that the mask (N, T) leaves out keep the states, and repeat the output before them, or give zeros.
    """
    affordable(int(inputs.shape[0]), LARGEST_LOOP, "recurrent layer", "the number of steps")
    outputs: list[Any] = []
    steps = [inputs[t] for t in range(int(inputs.shape[0]))]
    for t, given in enumerate(steps):
        after = step(given, states)
        if mask is None:
            states = after
            outputs.append(after[0])
            continue
        keep = ops.reshape(mask[:, t], (-1, *(1,) * (len(after[0].shape) - 1)))
        before = outputs[-1] if outputs and not zero_output_for_mask else ops.zeros_like(after[0])
        outputs.append(ops.where(keep, after[0], before))
        states = tuple(ops.where(keep, new, old) for new, old in zip(after, states, strict=True))
    return outputs, states


def _arranged(
    outputs: Any, states: States, return_sequences: bool, return_state: bool, batch_first: Callable[[Any], Any]
) -> Any:
    """What the layer returns. outputs: (T, N, …), or a list of the steps."""
    stacked = isinstance(outputs, list)
    if return_sequences:
        y = batch_first(ops.stack(tuple(outputs), 0) if stacked else outputs)
    else:
        y = outputs[-1] if stacked else outputs[int(outputs.shape[0]) - 1]
    return (y, *states) if return_state else y


def _swapped(x: Array) -> Array:
    return ops.swapaxes(x, 0, 1)


def _begin(sequences: Array, initial_state: Sequence[Any], count: int, units: int, name: str) -> States:
    if initial_state:
        if len(initial_state) != count:
            raise ShapeError(f"{name}: wrong number of states", expected=count, received=len(initial_state))
        return tuple(initial_state)
    return tuple(ops.zeros((int(sequences.shape[0]), units), sequences.dtype) for _ in range(count))


def _is_usual(activation: Activation, recurrent_activation: Activation, mask: Array | None, masks: Masks) -> bool:
    return activation == "tanh" and recurrent_activation == "sigmoid" and mask is None and not masks


def gate_masks(random_key: Array | None, place: int, x: Array, rate: float, count: int) -> Masks:
    """What x, a step or a state, is multiplied by in training, at every step alike: a mask for each of `count` gates.

    place: tells the masks of inputs from those of states. Empty without a key or a rate. Source: Gal and Ghahramani,
    2016, as in Keras.
    """
    if random_key is None or not 0 < rate < 1:
        return ()
    key = random_fold_in(random_key, np.asarray(place, np.int64))
    scaled = ops.multiply(kept(key, (count, *x.shape), rate, x), 1.0 / (1.0 - rate))
    return tuple([scaled[gate] for gate in range(count)])


def _masked(x: Array, masks: Masks) -> list[Array]:
    return [ops.multiply(x, mask) for mask in masks]


def gates_of_inputs(x: Array, kernel: Array, bias: Array | None, masks: Masks) -> Array:
    """x · kernel + bias for all steps; with masks, each gate has its own x. x: (T, N, features)."""
    if len(masks) < 2:
        return ops.linear(_masked(x, masks)[0] if masks else x, ops.transpose(kernel), bias)
    parts = ops.split(kernel, len(masks), 1)
    y = ops.concat([ops.matmul(given, part) for given, part in zip(_masked(x, masks), parts, strict=True)], -1)
    return y if bias is None else ops.add(y, bias)


def gates_of_state(hidden: Array, kernel: Array, masks: Masks) -> Array:
    """hidden · kernel; with masks, each gate has its own hidden state."""
    if not masks:
        return ops.matmul(hidden, kernel)
    parts = ops.split(kernel, len(masks), 1)
    return ops.concat([ops.matmul(given, part) for given, part in zip(_masked(hidden, masks), parts, strict=True)], 1)


def _time_first(sequences: Array, mask: Array | None, go_backwards: bool, name: str) -> tuple[Array, Any]:
    if len(sequences.shape) != 3:
        raise ShapeError(f"{name} takes sequences", expected="(N, T, features)", received=list(sequences.shape))
    x = _swapped(sequences)
    if not go_backwards:
        return x, mask
    return ops.flip(x, 0), None if mask is None else ops.flip(mask, 1)


@layer("SimpleRNN", weights=_WEIGHTS, outputs=_outputs(1), cell=True, draws=_RATES)
def simple_rnn(
    sequences: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    initial_state: Sequence[Array] = (),
    random_key: Array | None = None,
    /,
    units: int = 1,
    activation: Activation = "tanh",
    use_bias: bool = True,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    zero_output_for_mask: bool = False,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
) -> Any:
    """h = activation(x · kernel + bias + h · recurrent_kernel). (N, T, features) -> (N, units) or (N, T, units).

    mask: (N, T), steps that count. go_backwards: from the last step; outputs come in that order. return_state: also
    the last state. stateful: each call begins at zero, as after Keras's reset_state.
    """
    require_shape(kernel, (sequences.shape[-1], units), "SimpleRNN", "kernel")
    x, counted = _time_first(sequences, mask, go_backwards, "SimpleRNN")
    begin = _begin(sequences, initial_state, 1, units, "SimpleRNN")
    of_h = gate_masks(random_key, 1, begin[0], recurrent_dropout, 1)
    x = gates_of_inputs(x, kernel, bias, gate_masks(random_key, 0, x[0], dropout, 1))

    def step(given: Any, states: States) -> States:
        return (activate(ops.add(given, gates_of_state(states[0], recurrent_kernel, of_h)), activation),)

    outputs, states = run_steps(x, begin, counted, step, zero_output_for_mask)
    return _arranged(outputs, states, return_sequences, return_state, _swapped)


@layer("LSTM", "CuDNNLSTM", weights=_WEIGHTS, outputs=_outputs(2), cell=True, draws=_RATES)
def lstm(
    sequences: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    initial_state: Sequence[Array] = (),
    random_key: Array | None = None,
    /,
    units: int = 1,
    activation: Activation = "tanh",
    recurrent_activation: Activation = "sigmoid",
    use_bias: bool = True,
    unit_forget_bias: bool = True,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    zero_output_for_mask: bool = False,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
) -> Any:
    """Long short-term memory; arguments as of SimpleRNN, with two states. Source: Hochreiter, Schmidhuber 1997.

    kernel: (features, 4 · units), recurrent_kernel: (units, 4 · units), bias: (4 · units,).
    """
    require_shape(kernel, (sequences.shape[-1], 4 * units), "LSTM", "kernel")
    require_shape(recurrent_kernel, (units, 4 * units), "LSTM", "recurrent_kernel")
    x, counted = _time_first(sequences, mask, go_backwards, "LSTM")
    count = 4 if recurrent_dropout or implementation == 1 else 1
    begin = _begin(sequences, initial_state, 2, units, "LSTM")
    of_h = gate_masks(random_key, 1, begin[0], recurrent_dropout, count)
    x = gates_of_inputs(x, kernel, bias, gate_masks(random_key, 0, x[0], dropout, count))
    if _is_usual(activation, recurrent_activation, mask, of_h):
        recurrent = ops.transpose(recurrent_kernel)
        outputs, hidden, cell, _ = ops.recurrent_layer(x, begin[0], begin[1], recurrent, None, None, None, "lstm")
        return _arranged(outputs, (hidden, cell), return_sequences, return_state, _swapped)

    def step(given: Any, states: States) -> States:
        gates = ops.add(given, gates_of_state(states[0], recurrent_kernel, of_h))
        entering, forget, candidate, output = ops.split(gates, 4, 1)
        old = ops.multiply(activate(forget, recurrent_activation), states[1])
        new = ops.multiply(activate(entering, recurrent_activation), activate(candidate, activation))
        cell = ops.add(old, new)
        return ops.multiply(activate(output, recurrent_activation), activate(cell, activation)), cell

    steps, states = run_steps(x, begin, counted, step, zero_output_for_mask)
    return _arranged(steps, states, return_sequences, return_state, _swapped)


def _reset_first(matrix: Array, axis: int) -> Array:
    """Gates update, reset, new as reset, update, new."""
    update, reset, new = ops.split(matrix, 3, axis)
    return ops.concat((reset, update, new), axis)


@layer("GRU", weights=_WEIGHTS, outputs=_outputs(1), cell=True, draws=_RATES)
def gru(
    sequences: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    initial_state: Sequence[Array] = (),
    random_key: Array | None = None,
    /,
    units: int = 1,
    activation: Activation = "tanh",
    recurrent_activation: Activation = "sigmoid",
    use_bias: bool = True,
    return_sequences: bool = False,
    return_state: bool = False,
    go_backwards: bool = False,
    stateful: bool = False,
    unroll: bool = False,
    reset_after: bool = True,
    zero_output_for_mask: bool = False,
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
) -> Any:
    """Gated recurrent unit; arguments as of SimpleRNN. Source: Cho et al., 2014.

    reset_after: the reset gate acts on the product with recurrent_kernel, and the bias is (2, 3 · units), one for
    inputs and one for states; else it acts on the state before the product, and the bias is (3 · units,).
    """
    require_shape(kernel, (sequences.shape[-1], 3 * units), "GRU", "kernel")
    require_shape(recurrent_kernel, (units, 3 * units), "GRU", "recurrent_kernel")
    if bias is not None:
        require_shape(bias, (2, 3 * units) if reset_after else (3 * units,), "GRU", "bias")
    x, counted = _time_first(sequences, mask, go_backwards, "GRU")
    count = 3 if recurrent_dropout or implementation == 1 else 1
    of_x = gate_masks(random_key, 0, x[0], dropout, count)
    entering, recurring = (bias[0], bias[1]) if bias is not None and reset_after else (bias, None)
    begin = _begin(sequences, initial_state, 1, units, "GRU")
    of_h = gate_masks(random_key, 1, begin[0], recurrent_dropout, count)
    if _is_usual(activation, recurrent_activation, mask, of_h):
        turned = None if entering is None else _reset_first(entering, 0)
        of_x = (of_x[1], of_x[0], of_x[2]) if len(of_x) == 3 else of_x
        outputs, hidden, _, _ = ops.recurrent_layer(
            gates_of_inputs(x, _reset_first(kernel, 1), turned, of_x),
            begin[0],
            None,
            ops.transpose(_reset_first(recurrent_kernel, 1)),
            None if recurring is None else _reset_first(recurring, 0),
            None,
            None,
            "gru" if reset_after else "gru_reset_first",
        )
        return _arranged(outputs, (hidden,), return_sequences, return_state, _swapped)
    x = gates_of_inputs(x, kernel, entering, of_x)

    def step(given: Any, states: States) -> States:
        hidden = states[0]
        x_update, x_reset, x_new = ops.split(given, 3, 1)
        if reset_after:
            product = gates_of_state(hidden, recurrent_kernel, of_h)
            product = product if recurring is None else ops.add(product, recurring)
            h_update, h_reset, h_new = ops.split(product, 3, 1)
        else:
            h_update, h_reset = ops.split(gates_of_state(hidden, recurrent_kernel[:, : 2 * units], of_h[:2]), 2, 1)
        update = activate(ops.add(x_update, h_update), recurrent_activation)
        reset = activate(ops.add(x_reset, h_reset), recurrent_activation)
        if reset_after:
            inner = ops.multiply(reset, h_new)
        else:
            inner = gates_of_state(ops.multiply(reset, hidden), recurrent_kernel[:, 2 * units :], of_h[2:])
        new = activate(ops.add(x_new, inner), activation)
        return (ops.add(ops.multiply(update, hidden), ops.multiply(ops.subtract(1.0, update), new)),)

    steps, states = run_steps(x, begin, counted, step, zero_output_for_mask)
    return _arranged(steps, states, return_sequences, return_state, _swapped)


def _declare_conv_lstm(rank: int) -> None:
    name = f"ConvLSTM{rank}D"

    @layer(name, weights=_WEIGHTS, outputs=_outputs(2), cell=True, draws=_RATES)
    def conv_lstm(
        sequences: Array,
        kernel: Array,
        recurrent_kernel: Array,
        bias: Array | None = None,
        mask: Array | None = None,
        initial_state: Sequence[Array] = (),
        random_key: Array | None = None,
        /,
        filters: int = 1,
        kernel_size: Sizes = 1,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: Activation = "tanh",
        recurrent_activation: Activation = "sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
    ) -> Any:
        """An LSTM whose products are convolutions, that of the state with padding "same". Source: Shi et al., 2015.

        sequences: (N, T, spatial…, channels), or channels after T; kernels: (size…, channels, 4 · filters).
        """
        first = is_channels_first(data_format, name)
        if len(sequences.shape) != rank + 3:
            raise ShapeError(f"{name}: wrong number of axes", expected=rank + 3, received=list(sequences.shape))
        per_axis(kernel_size, rank, name, "kernel_size")
        x = sequences if first else ops.moveaxis(sequences, -1, 2)
        batch, steps = int(x.shape[0]), int(x.shape[1])

        def convolved(x: Array, kernel: Array, bias: Array | None, masks: Masks, how: tuple[Any, str, Any]) -> Array:
            """A convolution; with masks, each gate has its own input. how: strides, padding, dilation."""
            if not masks:
                return convolve(x, kernel, bias, *how, 1, name)
            parts = ops.split(kernel, 4, rank + 1)
            given = zip(_masked(x, masks), parts, strict=True)
            y = ops.concat([convolve(x, part, None, *how, 1, name) for x, part in given], 1)
            return y if bias is None else ops.add(y, along(bias, (1,), rank + 2))

        of_x = gate_masks(random_key, 0, x[:, 0], dropout, 4)
        of_x = tuple([ops.repeat(mask, steps, 0) for mask in of_x])
        merged = ops.reshape(x, (batch * steps, *x.shape[2:]))
        gates = convolved(merged, kernel, bias, of_x, (strides, padding, dilation_rate))
        gates = _swapped(ops.reshape(gates, (batch, steps, *gates.shape[1:])))
        counted = mask
        if go_backwards:
            gates, counted = ops.flip(gates, 0), None if mask is None else ops.flip(mask, 1)
        shape = (batch, filters, *gates.shape[3:])
        begin: States = tuple(ops.zeros(shape, sequences.dtype) for _ in range(2))
        if initial_state:
            begin = tuple(s if first else ops.moveaxis(s, -1, 1) for s in initial_state)
        of_h = gate_masks(random_key, 1, begin[0], recurrent_dropout, 4)

        def step(given: Any, states: States) -> States:
            product = convolved(states[0], recurrent_kernel, None, of_h, (1, "same", 1))
            entering, forget, candidate, output = ops.split(ops.add(given, product), 4, 1)
            old = ops.multiply(activate(forget, recurrent_activation), states[1])
            new = ops.multiply(activate(entering, recurrent_activation), activate(candidate, activation))
            cell = ops.add(old, new)
            return ops.multiply(activate(output, recurrent_activation), activate(cell, activation)), cell

        outputs, states = run_steps(gates, begin, counted, step, zero_output_for_mask)
        outputs = [from_first(y, data_format, name) for y in outputs]
        states = tuple(from_first(s, data_format, name) for s in states)
        return _arranged(outputs, states, return_sequences, return_state, _swapped)


for _rank in (1, 2, 3):
    _declare_conv_lstm(_rank)


# -- around other layers -----------------------------------------------------------------------------------------


@composite(inline=True, exact=True, name="keras.fold_time")
def fold_time(inputs: Array) -> Array:
    """(N, T, …) -> (N · T, …): what TimeDistributed gives its layer."""
    if len(inputs.shape) < 2:
        raise ShapeError("TimeDistributed takes sequences", expected="(N, T, …)", received=list(inputs.shape))
    return ops.reshape(inputs, (int(inputs.shape[0]) * int(inputs.shape[1]), *inputs.shape[2:]))


@composite(inline=True, exact=True, name="keras.unfold_time")
def unfold_time(outputs: Array, inputs: Array) -> Array:
    """(N · T, …) -> (N, T, …), with the sizes of the inputs."""
    return ops.reshape(outputs, (int(inputs.shape[0]), int(inputs.shape[1]), *outputs.shape[1:]))


@composite(inline=True, exact=True, name="keras.time_step")
def time_step(inputs: Array, step: int) -> Array:
    """One step of (N, T, …)."""
    return inputs[:, step]


@composite(inline=True, exact=True, name="keras.join_steps")
def join_steps(outputs: Sequence[Array]) -> Array:
    """T steps (N, …) as (N, T, …)."""
    return ops.stack(tuple(outputs), 1)


@composite(inline=True, exact=True, name="keras.merge_directions")
def merge_directions(
    forward: Array, backward: Array, merge_mode: str | None = "concat", return_sequences: bool = False
) -> Any:
    """Outputs of both directions as one, the backward ones turned round; both for merge_mode None."""
    backward = ops.flip(backward, 1) if return_sequences else backward
    if merge_mode is None:
        return forward, backward
    if merge_mode == "concat":
        return ops.concat((forward, backward), -1)
    if merge_mode == "sum":
        return ops.add(forward, backward)
    if merge_mode == "mul":
        return ops.multiply(forward, backward)
    if merge_mode == "ave":
        return ops.multiply(ops.add(forward, backward), 0.5)
    raise ArgumentError("unknown merge_mode", expected="concat, sum, mul, ave or None", received=merge_mode)
