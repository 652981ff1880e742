"""Oracles of recurrent layers: torch.nn's own, and cells written out where torch has none."""

import torch

from operator_oracles import torch_oracle


def stacked(kind, x, weights, states, lengths, layers, bidirectional, batch_first, **options):
    """A torch.nn layer applied to given weights, so that its autograd reaches them."""
    size = weights[1].shape[0] // {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    count = len(weights) // (layers * (2 if bidirectional else 1))
    layer = getattr(torch.nn, kind)(
        x.shape[-1],
        size,
        layers,
        bias=count > 3,
        batch_first=batch_first,
        bidirectional=bidirectional,
        **options,
    ).to(x.dtype)
    names = [n for n, _ in layer.named_parameters()]
    given = dict(zip(names, weights, strict=True))
    steps = x.shape[1] if batch_first else x.shape[0]
    if lengths is not None:
        pack = torch.nn.utils.rnn.pack_padded_sequence
        x = pack(x, lengths, batch_first=batch_first, enforce_sorted=False)
    y, last = torch.func.functional_call(layer, given, (x, states))
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=batch_first, total_length=steps)
    return y, *(last if isinstance(last, tuple) else (last,))


@torch_oracle("rnn")
def rnn(x, weights, hidden, lengths, layers, bidirectional, batch_first, nonlinearity):
    return stacked("RNN", x, weights, hidden, lengths, layers, bidirectional, batch_first, nonlinearity=nonlinearity)


@torch_oracle("lstm")
def lstm(x, weights, hidden, cell, lengths, layers, bidirectional, batch_first):
    projection = weights[-1].shape[0] if weights[1].shape[1] * 4 != weights[1].shape[0] else 0
    states = None if hidden is None else (hidden, cell)
    return stacked("LSTM", x, weights, states, lengths, layers, bidirectional, batch_first, proj_size=projection)


@torch_oracle("gru")
def gru(x, weights, hidden, lengths, layers, bidirectional, batch_first, linear_before_reset):
    if linear_before_reset:
        return stacked("GRU", x, weights, hidden, lengths, layers, bidirectional, batch_first)
    assert bidirectional
    assert layers == 1
    assert hidden is None
    assert lengths is None  # torch has no such layer: the one sample is written out
    outputs, last = [], []
    for direction in range(2):
        w, u, b, c = weights[4 * direction : 4 * direction + 4]
        h, states = torch.zeros(x.shape[1], u.shape[1], dtype=x.dtype), []
        for step in x.flip(0) if direction else x:
            h = gru_cell(step @ w.T + b, h, u, c, False)
            states.append(h)
        states = torch.stack(states)
        outputs.append(states.flip(0) if direction else states)
        last.append(h)
    return torch.cat(outputs, 2), torch.stack(last)


@torch_oracle("gru_cell")
def gru_cell(gates, hidden, weight, bias, linear_before_reset):
    bias = torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias
    if linear_before_reset:
        identity = torch.eye(gates.shape[1], dtype=gates.dtype)
        return torch.gru_cell(gates, hidden, identity, weight, torch.zeros_like(bias), bias)
    n = hidden.shape[1]
    r, z, g = gates.split(n, 1)
    r = torch.sigmoid(r + hidden @ weight[:n].T + bias[:n])
    z = torch.sigmoid(z + hidden @ weight[n : 2 * n].T + bias[n : 2 * n])
    g = torch.tanh(g + (r * hidden) @ weight[2 * n :].T + bias[2 * n :])
    return (1 - z) * g + z * hidden


@torch_oracle("lstm_cell")
def lstm_cell(gates, cell, peepholes, clip_at, coupled):
    if peepholes is None and clip_at is None and not coupled:
        n = cell.shape[1]
        none = torch.zeros(4 * n, n, dtype=gates.dtype)
        return torch.lstm_cell(gates, [torch.zeros_like(cell), cell], torch.eye(4 * n, dtype=gates.dtype), none)
    bound = float("inf") if clip_at is None else clip_at
    i, f, g, o = gates.chunk(4, 1)
    pi, po, pf = peepholes.chunk(3)
    i = torch.sigmoid((i + pi * cell).clamp(-bound, bound))
    f = 1 - i if coupled else torch.sigmoid((f + pf * cell).clamp(-bound, bound))
    new = f * cell + i * torch.tanh(g.clamp(-bound, bound))
    return torch.sigmoid((o + po * new).clamp(-bound, bound)) * torch.tanh(new), new


@torch_oracle("recurrent_layer")
def recurrent_layer(inputs, hidden, cell, weight, bias, projection, lengths, kind, reverse):
    """One sequence at a time, without its padding; a step is torch's cell."""
    steps, batch, total = inputs.shape
    identity = torch.eye(total, dtype=inputs.dtype)
    bias = torch.zeros(total, dtype=inputs.dtype) if bias is None else bias
    outputs, cells, last, last_cells = [], [], [], []
    for n in range(batch):
        length = steps if lengths is None else int(lengths[n])
        h, c = hidden[n : n + 1], hidden[n : n + 1, :0] if cell is None else cell[n : n + 1]
        row, row_cells = [], []
        for t in range(length)[::-1] if reverse else range(length):
            x = inputs[t, n : n + 1]
            if kind in ("tanh", "relu"):
                h = getattr(torch, kind)(x + h @ weight.T + bias)
            elif kind == "gru":
                h = torch.gru_cell(x, h, identity, weight, torch.zeros_like(bias), bias)
            elif kind == "gru_reset_first":
                h = gru_cell(x, h, weight, bias, False)
            else:
                nothing = torch.zeros(total, c.shape[1], dtype=x.dtype)
                h, c = torch.lstm_cell(x + h @ weight.T + bias, [torch.zeros_like(c), c], identity, nothing)
                h = h if projection is None else h @ projection.T
            row.append(h)
            row_cells.append(c)
        rest = steps - length
        for kept, all_rows, state in ((row, outputs, h), (row_cells, cells, c)):
            ordered = torch.cat(kept[::-1] if reverse else kept) if kept else state[:0]
            all_rows.append(torch.cat([ordered, torch.zeros(rest, state.shape[1], dtype=state.dtype)]))
        last.append(h)
        last_cells.append(c)
    return torch.stack(outputs, 1), torch.cat(last), torch.cat(last_cells), torch.stack(cells, 1)
