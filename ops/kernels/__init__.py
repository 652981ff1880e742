"""Kernels: faster bodies for one device, registered on operators. They add speed, never names."""

from zoonet.ops.kernels import cpu

__all__ = ["cpu"]
