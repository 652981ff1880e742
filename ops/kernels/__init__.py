"""Kernels: faster bodies for one device, registered on operators. They add speed, never names."""
