"""How much memory there is: what cannot fit is refused before it is begun."""

from __future__ import annotations

import os
from pathlib import Path

from zoonet.ops.errors import ShapeError
from zoonet.ops.types import TensorType

__all__ = ["MEMORY", "available", "check_fits"]


def _memory() -> int:
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return 1 << 36


#: Bytes of the machine's memory.
MEMORY = _memory()
#: Results below this many bytes are not checked.
_LARGE = 1 << 28


def available() -> int:
    """The bytes that a program can still take, by Linux's /proc/meminfo; elsewhere all of the machine's memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return MEMORY


def check_fits(types: TensorType | tuple[TensorType, ...], operator: str) -> None:
    """Raise ShapeError if results of these types are larger than the memory that is available."""
    nbytes = sum(t.size * t.dtype.itemsize for t in ((types,) if isinstance(types, TensorType) else types))
    if nbytes >= _LARGE and nbytes > (free := available()):
        shown = types if isinstance(types, TensorType) else ", ".join(map(str, types))
        raise ShapeError(
            f"{operator} needs more memory than there is",
            expected=f"at most {free} bytes",
            received=f"{nbytes} bytes for {shown}",
            fix="use smaller batches or inputs",
        )
