"""Files of every format, cut at each percent and mutated at random, through tests/attacks/fuzz.py."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import time
from types import ModuleType

import numpy as np
import pytest

from zoonet import formats
from zoonet.ops.errors import ZoonetError

SCRIPT = pathlib.Path(__file__).with_name("fuzz.py")


def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("zoonet_fuzz", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["zoonet_fuzz"] = module
    specification.loader.exec_module(module)
    return module


FUZZ = script()


def loaded(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: tensor.load().copy() for name, tensor in formats.read(path).items()}


@pytest.mark.parametrize("name", FUZZ.MAKERS)
def test_files_cut_at_each_percent(tmp_path: pathlib.Path, name: str) -> None:
    """An error that names the file, or, where the end was padding, all arrays unchanged."""
    for seed in list(FUZZ.seeds(name, tmp_path))[:4]:
        for file_name, data in seed.files.items():
            (tmp_path / file_name).write_bytes(data)
        whole = loaded(tmp_path / seed.opened)
        assert whole
        data = seed.files[seed.mutated]
        messages = []
        for percent in range(100):
            (tmp_path / seed.mutated).write_bytes(data[: len(data) * percent // 100])
            start = time.process_time()
            try:
                cut = loaded(tmp_path / seed.opened)
            except ZoonetError as error:
                messages.append(str(error))
            else:
                assert cut.keys() == whole.keys()
                assert all(np.array_equal(cut[key], whole[key], equal_nan=True) for key in whole)
            assert time.process_time() - start < 1
        assert len(messages) >= 90
        assert all(seed.mutated.split(".")[0] in message for message in messages)


@pytest.mark.parametrize("name", FUZZ.MAKERS)
def test_some_mutated_files(name: str) -> None:
    run(name, 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZ.MAKERS)
def test_mutated_files(name: str) -> None:
    run(name, 20_000)


def run(name: str, count: int) -> None:
    """In a process of its own, which a library that crashes ends."""
    command = [sys.executable, str(SCRIPT), name, "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{name}: {count} files" in done.stdout
