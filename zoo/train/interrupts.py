"""Ctrl-C while training: noted first, so that a step is finished and what was done can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interruptible"]


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A function that tells whether Ctrl-C (or SIGTERM) was sent; a second one interrupts at once."""
    sent = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield sent.is_set
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(_number: int, _frame: Any) -> None:
        if sent.is_set():
            raise KeyboardInterrupt
        sent.set()

    for number in before:
        signal.signal(number, note)
    try:
        yield sent.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
