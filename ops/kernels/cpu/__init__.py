"""Kernels for the CPU, on NumPy alone."""
