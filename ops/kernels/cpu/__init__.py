"""Kernels for the CPU, on NumPy alone. Importing this package registers them."""

from zoonet.ops.kernels.cpu import convolution

__all__ = ["convolution"]
