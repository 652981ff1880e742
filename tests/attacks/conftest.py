"""What an attack may not do: run, import, connect, write elsewhere, take long, fill the memory."""

from __future__ import annotations

import importlib
import pathlib
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import ZoonetError

_FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.putenv", "subprocess.Popen"),
    *("socket.", "urllib.", "ctypes.", "pickle.find_class", "code.", "shutil.", "webbrowser."),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink", "tempfile."),
)


class Watch:
    """Records forbidden audit events while `active`."""

    def __init__(self) -> None:
        self.active = False
        self.events: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event.startswith(_FORBIDDEN):
            self.events.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            self.events.append(f"open for writing: {arguments[0]!r}")


WATCH = Watch()
sys.addaudithook(WATCH)


def load_everything(path: pathlib.Path, **options: Any) -> formats.Checkpoint:
    """Read a file and load all its arrays."""
    checkpoint = formats.read(path, **options)
    for tensor in checkpoint.values():
        tensor.load()
    return checkpoint


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Import what the readers import lazily, so that time and memory are those of reading."""
    for entry in formats.FORMATS:
        assert entry.module
    for name in ("tarfile", "zipfile", "h5py", "onnx"):
        importlib.import_module(name)


@pytest.fixture
def attack(tmp_path: pathlib.Path) -> Iterator[Callable[..., ZoonetError]]:
    """Read a hostile file: it must end in our exception within a second and in bounded memory, and do nothing else."""

    def run(
        path: pathlib.Path, error: type[ZoonetError] = ZoonetError, match: str | None = None, **options: Any
    ) -> ZoonetError:
        before = sorted(tmp_path.rglob("*"))
        WATCH.events.clear()
        start = time.process_time()  # not the clock on the wall: other tests run beside this one
        WATCH.active = True
        try:
            with pytest.raises(error, match=match) as caught:
                load_everything(path, **options)
        finally:
            WATCH.active = False
        assert time.process_time() - start < 1.0
        assert not WATCH.events
        assert sorted(tmp_path.rglob("*")) == before
        tracemalloc.start()
        try:
            with pytest.raises(error):
                load_everything(path, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < (48 << 20) + 3 * path.stat().st_size
        return caught.value

    yield run
    WATCH.active = False


@pytest.fixture
def generator() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)
