"""Kernels of pooling on NumPy: results written in place."""

from __future__ import annotations

from zoonet.ops.pooling import max_pool, max_pool_into

max_pool.kernel("cpu", takes_out=True)(max_pool_into)
