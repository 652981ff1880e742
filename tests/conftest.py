"""Fixtures and rules that all tests share."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(scope="session")
def assets() -> pathlib.Path:
    """The folder of real files made by others; tests that need it skip where it is absent."""
    folder = SHARED / "assets"
    if not folder.is_dir():
        pytest.skip("../shared/assets is absent")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked cuda where no GPU can be used."""
    from zoonet.ops.devices import module_for
    from zoonet.ops.errors import DeviceError

    if not any(item.get_closest_marker("cuda") for item in items):
        return
    try:
        module_for("cuda")
    except DeviceError as error:
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=f"no GPU: {error.received}"))
