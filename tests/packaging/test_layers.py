"""The layers import one way only, and importing the facade stays light."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEAVY = ("h5py", "onnx", "requests", "PIL", "cupy", "matplotlib", "rich", "typer", "tokenizers", "torch")


def test_importing_the_facade_imports_nothing_heavy() -> None:
    code = "import sys, zoonet.zoo; print(*(m for m in sys.argv[1:] if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_package_is_declared() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {p.parent for layer in settings["package-dir"].values() for p in (ROOT / layer).rglob("*.py")}
    assert set(settings["packages"]) == {"zoonet." + ".".join(f.relative_to(ROOT).parts) for f in folders}


def test_files_stay_short() -> None:
    """About 500 lines for code; tables of data are files of their own."""
    long = {
        str(path.relative_to(ROOT)): count
        for layer in ("ops", "formats", "weights", "zoo")
        for path in (ROOT / layer).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 600
    }
    assert long == {}


def test_importing_the_facade_is_quick() -> None:
    """Under 0.2 s; the best of three, as the machine may be busy with other things."""
    code = "import time; started = time.perf_counter(); import zoonet.zoo; print(time.perf_counter() - started)"
    commands = [[sys.executable, "-c", code]] * 3
    seconds = [float(subprocess.run(c, capture_output=True, text=True, check=True).stdout) for c in commands]
    assert min(seconds) < 0.2, seconds
