"""Signals: DFT, STFT, windows (Hann, Hamming, Blackman), MelWeightMatrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.common import affordable, dtype_of, scalar
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array


def _whole(value: Any, purpose: str) -> int | None:
    return None if value is None else int(scalar(value, purpose))


def _transformed(x: Array, length: int | None, axis: int, inverse: int, onesided: int) -> Array:
    if length is not None:
        shape = list(x.shape)
        shape[axis] = length
        affordable(shape, x.dtype, "DFT")
    return ops.dft(x, axis, length, bool(inverse), bool(onesided))


@onnx_operator("DFT", since=17)
def dft_17(input: Array, dft_length: Any = None, /, axis: int = 1, inverse: int = 0, onesided: int = 0) -> Array:
    """The discrete Fourier transform along an axis; the last axis holds real and imaginary parts."""
    return _transformed(input, _whole(dft_length, "the dft_length"), axis, inverse, onesided)


@onnx_operator("DFT", since=20)
def dft(input: Array, dft_length: Any = None, axis: Any = None, /, inverse: int = 0, onesided: int = 0) -> Array:
    """As version 17, with the axis as an operand."""
    place = _whole(axis, "the axis of DFT")
    return _transformed(input, _whole(dft_length, "the dft_length"), -2 if place is None else place, inverse, onesided)


@onnx_operator("STFT", since=17)
def stft(
    signal: Array, frame_step: Any, window: Array | None = None, frame_length: Any = None, /, onesided: int = 1
) -> Array:
    """Transforms (batch, frames, frequencies, 2) of pieces of a signal (batch, length[, 1 or 2]) under a window."""
    x = ops.expand_dims(signal, -1) if len(signal.shape) == 2 else signal
    if len(x.shape) != 3:
        raise ShapeError("STFT takes signals", expected="(batch, length, 1 or 2)", received=list(signal.shape))
    size, step = _whole(frame_length, "the frame_length"), _whole(frame_step, "the frame_step") or 0
    if size is None:
        size = x.shape[1] if window is None else int(window.shape[0])
    if step < 1 or not 1 <= size <= x.shape[1]:
        raise ArgumentError(
            "STFT: frames do not fit the signal",
            expected=f"a step of at least 1 and a length up to {x.shape[1]}",
            received=f"{step} and {size}",
        )
    frames = (x.shape[1] - size) // step + 1
    affordable((x.shape[0], frames, size, 2), x.dtype, "STFT")
    places = np.arange(frames)[:, None] * step + np.arange(size)
    pieces = ops.take(x, places, 1)  # (batch, frames, size, 1 or 2)
    if window is not None:
        if tuple(window.shape) != (size,):
            raise ShapeError("STFT: the window does not fit", expected=[size], received=list(window.shape))
        pieces = ops.multiply(pieces, ops.reshape(window, (size, 1)))
    return ops.dft(pieces, 2, None, False, bool(onesided) and pieces.shape[-1] == 1)


def _window(size: Any, periodic: int, output_datatype: int, weights: tuple[float, ...], operator: str) -> Array:
    """Σ ± weight · cos(2π k i / n)."""
    count = _whole(size, f"the size of {operator}") or 0
    dtype = dtype_of(output_datatype)
    affordable((count,), np.dtype(np.float64), operator)
    angles = 2 * np.pi * np.arange(count) / max(count if periodic else count - 1, 1)
    terms = [(-1) ** k * weight * np.cos(k * angles) for k, weight in enumerate(weights)]
    return ops.cast(np.sum(terms, axis=0), dtype)


@onnx_operator("HannWindow", since=17)
def hann_window(size: Any, /, output_datatype: int = 1, periodic: int = 1) -> Array:
    """½ - ½ cos(2π i / n), n less 1 where it is not periodic."""
    return _window(size, periodic, output_datatype, (0.5, 0.5), "HannWindow")


@onnx_operator("HammingWindow", since=17)
def hamming_window(size: Any, /, output_datatype: int = 1, periodic: int = 1) -> Array:
    """25/46 - 21/46 cos(2π i / n)."""
    return _window(size, periodic, output_datatype, (25 / 46, 21 / 46), "HammingWindow")


@onnx_operator("BlackmanWindow", since=17)
def blackman_window(size: Any, /, output_datatype: int = 1, periodic: int = 1) -> Array:
    """0.42 - ½ cos(2π i / n) + 0.08 cos(4π i / n)."""
    return _window(size, periodic, output_datatype, (0.42, 0.5, 0.08), "BlackmanWindow")


@onnx_operator("MelWeightMatrix", since=17)
def mel_weight_matrix(
    num_mel_bins: Any,
    dft_length: Any,
    sample_rate: Any,
    lower_edge_hertz: Any,
    upper_edge_hertz: Any,
    /,
    output_datatype: int = 1,
) -> Array:
    """(dft_length // 2 + 1, num_mel_bins): triangles over frequencies, evenly spaced on the mel scale."""
    bins, length = _whole(num_mel_bins, "num_mel_bins") or 0, _whole(dft_length, "dft_length") or 0
    rate = _whole(sample_rate, "sample_rate") or 0
    low, high = (float(scalar(edge, "an edge in hertz")) for edge in (lower_edge_hertz, upper_edge_hertz))
    if bins < 1 or length < 1 or rate < 1 or not 0 <= low <= high <= rate / 2:
        raise ArgumentError(
            "MelWeightMatrix: impossible arguments",
            expected="positive counts and 0 <= lower <= upper <= sample_rate / 2",
            received=(bins, length, rate, low, high),
        )
    dtype = dtype_of(output_datatype)
    affordable((length // 2 + 1, bins), np.dtype(np.float64), "MelWeightMatrix")
    edges = 2595 * np.log10(1 + np.asarray([low, high]) / 700)
    mels = edges[0] + np.arange(bins + 2) * (edges[1] - edges[0]) / (bins + 2)
    places = ((length + 1) * (700 * (10 ** (mels / 2595) - 1)) // rate).astype(np.int64)
    left, centre, right = places[:-2], places[1:-1], places[2:]
    at = np.arange(length // 2 + 1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where(left == centre, at == centre, (at - left) / (centre - left))
        falling = (right - at) / (right - centre)
    rise, fall = (at >= left) & (at <= centre), (at >= centre) & (at < right)
    return ops.cast(np.where(fall, falling, np.where(rise, rising, 0.0)), dtype)
