"""The discrete Fourier transform of complex numbers as pairs on the last axis, so that it has gradients."""

from __future__ import annotations

from typing import Any

from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import floats, sample
from zoonet.ops.types import Array, TensorType, is_floating

__all__ = ["dft"]


def _resized(xp: Any, x: Array, size: int, axis: int) -> Array:
    """x cut or padded with zeros to a size along an axis."""
    if x.shape[axis] >= size:
        return x[(*[slice(None)] * axis, slice(0, size))]
    shape = list(x.shape)
    shape[axis] = size - shape[axis]
    return xp.concatenate([x, xp.zeros(tuple(shape), x.dtype)], axis=axis)


@op(
    samples=[
        sample(floats(2, 5, 1)),
        sample(floats(2, 6, 3, 2), 1),
        sample(floats(2, 4, 2), -2, 6),
        sample(floats(2, 7, 2), -2, 4, True),
        sample(floats(2, 7, 1), -2, None, False, True),
        sample(floats(2, 6, 1), -2, 4, False, True),
        sample(floats(2, 4, 2), -2, None, True, True),
        sample(floats(2, 4, 2), -2, 7, True, True),
        sample(floats(1, 5, 1), -2, 8, True),
    ]
)
def dft(
    xp: Any, x: Array, axis: int = -2, length: int | None = None, inverse: bool = False, onesided: bool = False
) -> Array:
    """The discrete Fourier transform along an axis.

    x: (..., n, ..., 2), real and imaginary parts, or (..., n, ..., 1), real -> (..., length, ..., 2), x's dtype.
    length: n by default; x is cut or padded with zeros to it. inverse: with 1 / length. onesided: only the first
    length // 2 + 1 frequencies of a real x; with inverse, the real signal (..., length, ..., 1) of such frequencies,
    whose length is 2 (n - 1) by default. Raises ShapeError, ArgumentError, DTypeError.
    Source: ONNX DFT; numpy.fft.fft, rfft, ifft and irfft.
    """
    axis = axis % x.ndim
    size = _length(x.shape[axis], length, inverse and onesided)
    if onesided and not inverse:
        y = xp.fft.rfft(x[..., 0], size, axis)
    else:
        z = x[..., 0] if x.shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]
        if onesided:
            return xp.fft.irfft(z, size, axis).astype(x.dtype)[..., None]
        y = xp.fft.ifft(z, size, axis) if inverse else xp.fft.fft(z, size, axis)
    return xp.stack([y.real, y.imag], axis=-1).astype(x.dtype)


def _length(size: int, length: int | None, from_half: bool) -> int:
    return length if length is not None else 2 * (size - 1) if from_half else size


@dft.type
def _(x: TensorType, axis: int, length: int | None, inverse: bool, onesided: bool) -> TensorType:
    if not is_floating(x.dtype):
        raise DTypeError("dft takes floats", received=x.dtype.name, fix="give complex numbers as pairs on a last axis")
    if x.ndim < 2 or x.shape[-1] not in (1, 2):
        raise ShapeError("dft takes pairs", expected="(..., n, ..., 1 or 2)", received=list(x.shape))
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == x.ndim - 1:
        raise ArgumentError("dft: no such axis", expected=f"{-x.ndim} to {x.ndim - 2}, not the last", received=axis)
    if onesided and x.shape[-1] != (2 if inverse else 1):
        raise ShapeError(
            "dft: one-sided transforms go from real signals to half of their frequencies, or back",
            expected=f"a last axis of {2 if inverse else 1}",
            received=list(x.shape),
        )
    size = _length(x.shape[axis], length, inverse and onesided)
    if size < 1:
        raise ArgumentError("dft: the length is not positive", expected="at least 1", received=size)
    shape = list(x.shape)
    shape[axis] = size // 2 + 1 if onesided and not inverse else size
    shape[-1] = 1 if onesided and inverse else 2
    return TensorType(tuple(shape), x.dtype)


@dft.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, axis: int, length: int | None, inverse: bool, onesided: bool) -> Any:
    return dft_gradient(gy, _x.shape[axis], _x.shape[-1], axis, length, inverse, onesided)


@op(name="dft.gradient")
def dft_gradient(
    xp: Any, gy: Array, count: int, parts: int, axis: int, length: int | None, inverse: bool, onesided: bool
) -> Array:
    """The transpose of dft: from a gradient of its result to that of x, of size count on the axis, parts on the last.

    The transpose of a matrix of powers of a root of unity is its conjugate up to scale: the other transform.
    """
    axis = axis % gy.ndim
    size = _length(count, length, inverse and onesided)
    if onesided and inverse:
        z = xp.fft.rfft(gy[..., 0], size, axis)
        doubled = xp.full(z.shape[axis], 2.0 / size)
        doubled[0] = 1.0 / size
        if size % 2 == 0:
            doubled[-1] = 1.0 / size
        z = z * doubled.reshape((-1, *[1] * (z.ndim - axis - 1)))
    else:
        z = gy[..., 0] + 1j * gy[..., 1]
        z = _resized(xp, z, size, axis)
        z = xp.fft.fft(z, size, axis) / size if inverse else xp.fft.ifft(z, size, axis) * size
    z = _resized(xp, z, count, axis)
    return xp.stack([z.real, z.imag][:parts], axis=-1).astype(gy.dtype)


@dft_gradient.type
def _(gy: TensorType, count: int, parts: int, axis: int, *_rest: Any) -> TensorType:
    shape = list(gy.shape)
    shape[axis], shape[-1] = count, parts
    return TensorType(tuple(shape), gy.dtype)


@dft_gradient.vjp
def _(
    gx: Array,
    _y: TensorType,
    _gy: TensorType,
    count: int,
    parts: int,
    axis: int,
    length: int | None,
    inverse: bool,
    onesided: bool,
) -> Any:
    return dft(gx, axis, _length(count, length, inverse and onesided), inverse, onesided)
