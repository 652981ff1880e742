"""Check that a wheel holds every tracked file of the four layers, and nothing else but its own metadata."""

from __future__ import annotations

import subprocess
import sys
import zipfile

LAYERS = ("ops", "formats", "weights", "zoo")


def main(path: str) -> None:
    """Exit with a message unless the wheel at this path is complete and clean."""
    tracked = subprocess.run(["git", "ls-files", *LAYERS], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    expected = {f"zoonet/{name}" for name in tracked if name}
    names = set(zipfile.ZipFile(path).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    problems = [f"missing: {name}" for name in sorted(expected - names)]
    problems += [f"should not be there: {name}" for name in sorted(names - expected - metadata)]
    problems += [f"missing: zoonet/{layer}/py.typed" for layer in LAYERS if f"zoonet/{layer}/py.typed" not in names]
    if not any(name.endswith("licenses/LICENSE") for name in metadata):
        problems.append("missing: LICENSE")
    entry = next((name for name in metadata if name.endswith("entry_points.txt")), None)
    if entry is None or b"zoonet = zoonet.zoo.cli:main" not in zipfile.ZipFile(path).read(entry):
        problems.append("missing: entry point zoonet")
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(names)} files, all as they should be")


if __name__ == "__main__":
    main(sys.argv[1])
