"""A file that is hashed and synced while it is written, so that neither has to be waited for at the end."""

from __future__ import annotations

import os
import queue
import threading
from types import TracebackType
from typing import BinaryIO, Self

from zoonet.weights.integrity import Hasher

# Pieces are handed over in groups of this many bytes, and this many groups may wait.
_GROUP = 1 << 20
_WAITING = 8
# Bytes after which what was written is sent on to the disk.
_SYNC_EVERY = 1 << 26


class HashedFile:
    """A binary file, open for writing, and a hasher that has seen what is before its position.

    `write` counts and writes; a thread hashes behind it, and sends the file to the disk now and then. hashlib and the
    system's calls run beside Python's own code, so a download takes as long as its slowest part and not as the sum. The
    hasher is complete after `finish`. Use it in a `with` statement, which ends the thread.
    """

    def __init__(self, file: BinaryIO, hasher: Hasher) -> None:
        self.size = hasher.size
        self._file = file
        self._hasher = hasher
        self._group: list[bytes] = []
        self._grouped = 0
        self._unsynced = 0
        self._waiting: queue.Queue[list[bytes] | None] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def write(self, data: bytes) -> None:
        """Add the next bytes. Raises OSError where the disk refuses them, or refused earlier ones."""
        if self._error is not None:
            raise self._error
        self._file.write(data)
        self.size += len(data)
        self._group.append(data)
        self._grouped += len(data)
        if self._grouped >= _GROUP:
            self._hand_over()

    def finish(self) -> None:
        """Wait until all is hashed and on the disk. Raises OSError where the disk refuses it."""
        self._end_thread()
        self._hash(self._group)
        self._group = []
        if self._error is not None:
            raise self._error
        self._file.flush()
        os.fsync(self._file.fileno())

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="zoonet-hash", daemon=True)
            self._thread.start()
        self._waiting.put(self._group)
        self._group, self._grouped = [], 0

    def _work(self) -> None:
        while (group := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # only to let the writer come to its end
            try:
                self._hash(group)
                if self._unsynced >= _SYNC_EVERY:
                    self._unsynced = 0
                    os.fsync(self._file.fileno())
            except Exception as error:  # is raised where the file is written
                self._error = error

    def _hash(self, group: list[bytes]) -> None:
        for data in group:
            self._hasher.update(data)
            self._unsynced += len(data)

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_thread()
