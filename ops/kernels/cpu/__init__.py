"""Kernels for the CPU, on NumPy alone. Importing this package registers them."""

from zoonet.ops.kernels.cpu import convolution, elementwise, pooling

__all__ = ["convolution", "elementwise", "pooling"]
