"""Oracle of the Fourier transform: torch.fft on complex numbers."""

import torch

from operator_oracles import torch_oracle


@torch_oracle("dft")
def dft(x, axis=-2, length=None, inverse=False, onesided=False):
    axis = axis % x.ndim
    if onesided and not inverse:
        return torch.view_as_real(torch.fft.rfft(x[..., 0], length, axis))
    z = torch.complex(x[..., 0], x[..., 1] if x.shape[-1] == 2 else torch.zeros_like(x[..., 0]))
    if onesided:
        return torch.fft.irfft(z, length, axis)[..., None]
    return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(z, length, axis))
