"""Mutated weights files: each must be read, or end in an error of zoonet, quickly and in bounded memory.

    python tests/attacks/fuzz.py FORMAT [--count 20000] [--seed 0]

Small files of the format, written here and taken from the assets where they are, are mutated at random. Prints how
many were read and refused, and the longest time; the exit status is 1 if anything else happened. The reader runs in
this process: libraries that it uses (HDF5, protobuf) may crash it, which the caller sees by the exit status.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import pathlib
import pickle
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from zoonet import formats
from zoonet.ops.errors import ZoonetError

ASSETS = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "assets"
#: Longest processor time of one file, in seconds, and address space on top of what the libraries take, in bytes. The
#: HDF5 library fills as many bytes with zeros as a damaged text says that it has, up to MEMORY in about a second.
LIMIT, MEMORY = 2.0, 2 << 30
#: Larger files of the assets are left out: a mutation of one is as rare as the file is large.
LARGEST, SMALL = 1_500_000, 100_000
Model = tuple[dict[str, bytes], str]
INTERESTING = [0, 1, -1, 127, -128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Between one and six random changes: bits, bytes, integers at the limits, cuts, copies, joins."""
    content = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 3, 6))):
        if not content:
            break
        # Headers are where the damage is done: half of the changes are near the start or the end.
        size = len(content)
        place = generator.randrange(size)
        if generator.random() < 0.5:
            place = min(size - 1, generator.choice((0, max(0, size - 512))) + generator.randrange(min(size, 512)))
        kind = generator.randrange(7)
        if kind == 0:
            content[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            content[place] = generator.randrange(256)
        elif kind == 2:
            width, code = generator.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
            number = generator.choice(INTERESTING) % (1 << (8 * width))
            content[place : place + width] = struct.pack("<" + code, number)
        elif kind == 3:
            del content[place : place + generator.randrange(1, 64)]
        elif kind == 4:
            content[place:place] = generator.randbytes(generator.randrange(1, 16))
        elif kind == 5:
            start = generator.randrange(size)
            piece = content[start : start + generator.randrange(1, 64)]
            content[place : place + len(piece)] = piece
        else:
            del content[place:]
    return bytes(content)


@dataclass(frozen=True)
class Seed:
    """Files of one model by name; `mutated` is changed, `opened` is read."""

    files: dict[str, bytes]
    opened: str
    mutated: str


def seeds(name: str, folder: pathlib.Path) -> Iterator[Seed]:
    """Models of a format, each of one or more files in which one is to be mutated."""
    for files, opened in itertools.chain(MAKERS[name](folder), _of_the_assets(name)):
        for mutated in files:
            yield Seed(files, opened, mutated)


def _weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "layers/dense/vars/0": generator.normal(size=(4, 3)).astype(np.float32),
        "layers/dense/vars/1": np.arange(3, dtype=np.float32),
        "layers/other/vars/0": np.arange(7, dtype=np.int64),
    }


def _written(file_name: str, **metadata: object) -> Callable[[pathlib.Path], Iterator[Model]]:
    def make(folder: pathlib.Path) -> Iterator[Model]:
        formats.write(formats.Checkpoint(_lazy(_weights()), metadata), folder / file_name)
        yield {path.name: path.read_bytes() for path in sorted(folder.glob("seed*"))}, file_name

    return make


def _lazy(arrays: dict[str, np.ndarray]) -> dict[str, formats.LazyTensor]:
    return {key: formats.as_lazy(value) for key, value in arrays.items()}


def _npy(folder: pathlib.Path) -> Iterator[Model]:
    np.save(folder / "seed.npy", _weights()["layers/dense/vars/0"])
    yield {"seed.npy": (folder / "seed.npy").read_bytes()}, "seed.npy"


def _compressed(folder: pathlib.Path) -> Iterator[Model]:
    yield from _written("seed.npz")(folder)
    np.savez_compressed(folder / "more.npz", **_weights())
    yield {"more.npz": (folder / "more.npz").read_bytes()}, "more.npz"


def _legacy(folder: pathlib.Path) -> Iterator[Model]:
    import torch

    state = {key: torch.from_numpy(value) for key, value in _weights().items()}
    torch.save(state, folder / "seed.pt", _use_new_zipfile_serialization=False)
    yield {"seed.pt": (folder / "seed.pt").read_bytes()}, "seed.pt"


def _onnx(folder: pathlib.Path) -> Iterator[Model]:
    import onnx

    initializers = [onnx.numpy_helper.from_array(value, key) for key, value in _weights().items()]
    node = onnx.helper.make_node("Identity", ["layers/dense/vars/1"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [output], initializers))
    yield {"seed.onnx": model.SerializeToString()}, "seed.onnx"


def _pickles(folder: pathlib.Path) -> Iterator[Model]:
    import torch

    tensors = {key: torch.from_numpy(value) for key, value in _weights().items()}
    for protocol in range(5):
        yield {"seed.pkl": pickle.dumps(_weights(), protocol)}, "seed.pkl"
    for protocol in (0, 2, 4):
        yield {"tensors.pkl": pickle.dumps(tensors, protocol)}, "tensors.pkl"


def _llama2c(folder: pathlib.Path) -> Iterator[Model]:
    # dim 4, hidden 6, 2 layers, 2 heads, 1 key-value head, 5 tokens, 3 positions
    yield {"seed.bin": struct.pack("<7i", 4, 6, 2, 2, 1, 5, 3) + np.zeros(286, "<f4").tobytes()}, "seed.bin"


def _darknet(folder: pathlib.Path) -> Iterator[Model]:
    layers = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    layers += "[maxpool]\nsize=2\nstride=2\n[route]\nlayers=-1\n[convolutional]\nfilters=6\ngroups=2\nsize=1\n"
    cfg = "[net]\nwidth=8\nheight=8\nchannels=3\n" + layers + "[connected]\noutput=5\n"
    weights = struct.pack("<3iq", 0, 2, 5, 640) + np.zeros(4 * 4 + 108 + 6 + 12 + 5 + 120, "<f4").tobytes()
    yield {"seed.cfg": cfg.encode(), "seed.weights": weights}, "seed.weights"


def _sharded(folder: pathlib.Path) -> Iterator[Model]:
    formats.write(_weights(), folder / "seed.safetensors.index.json", format="sharded", max_shard_bytes=64)
    yield {path.name: path.read_bytes() for path in sorted(folder.glob("seed*"))}, "seed.safetensors.index.json"


MAKERS: dict[str, Callable[[pathlib.Path], Iterator[Model]]] = {
    "safetensors": _written("seed.safetensors"),
    "sharded": _sharded,
    "torch": _written("seed.pt"),
    "torch_legacy": _legacy,
    "npz": _compressed,
    "npy": _npy,
    "keras": _written("seed.keras", config={"class_name": "Sequential", "config": {"layers": []}}),
    "keras_h5": _written("seed.h5"),
    "keras_weights": _written("seed.weights.h5"),
    "pickle": _pickles,
    "onnx": _onnx,
    "llama2c": _llama2c,
    "darknet": _darknet,
}
PLACES = {
    "torch": ("torch-files/**/*", "blazeface/*.pth"),
    "torch_legacy": ("torch-files/**/*",),
    "keras": ("mnist-keras3/*.keras",),
    "keras_h5": ("mlperf-tiny/*.h5", "face-emotion/*.hdf5"),
    "keras_weights": ("keras3-weights-h5/*",),
    "pickle": ("gomoku/*",),
    "safetensors": ("torch-files/**/*.safetensors",),
    "onnx": ("super-resolution/*.onnx",),
}


def _of_the_assets(name: str) -> Iterator[Model]:
    for pattern in PLACES.get(name, ()):
        for path in sorted(ASSETS.glob(pattern)):
            if path.is_file() and path.stat().st_size <= LARGEST and _is_whole(path):
                yield {path.name: path.read_bytes()}, path.name


def _is_whole(path: pathlib.Path) -> bool:
    try:
        read(path)
    except ZoonetError:
        return False
    return True


def read(path: pathlib.Path) -> None:
    """Do with a file what a user does: what is it, what is in it, all arrays."""
    formats.describe(path)
    for tensor in formats.read(path).values():
        tensor.load()


def fuzz(name: str, count: int, seed: int, say: Callable[[str], None] = print) -> int:
    """Read mutated files; returns how many ended in anything but an array or an error of zoonet."""
    generator = random.Random(f"{name} {seed}")
    outcomes: collections.Counter[str] = collections.Counter()
    longest = 0.0
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared) as text:
        folder = pathlib.Path(text)
        pool = list(seeds(name, folder))
        small = [model for model in pool if len(model.files[model.mutated]) < SMALL] or pool
        for entry in formats.FORMATS:
            assert entry.module  # imported now, so that times are those of reading
        limit_memory()
        for number in range(count):
            chosen = pool if number % 20 == 0 else small  # large files take most of the time
            model = chosen[generator.randrange(len(chosen))]
            for file_name, data in model.files.items():
                (folder / file_name).write_bytes(mutate(data, generator) if file_name == model.mutated else data)
            path = folder / model.opened
            start = time.process_time()
            try:
                read(path)
                outcome = "read"
            except ZoonetError:
                outcome = "refused"
            except BaseException as error:
                outcome = f"FAILED: {type(error).__name__}"
                if outcomes[outcome] < 2:
                    say("".join(traceback.format_exception(error, limit=-4)))
                    keep(path, number)
            elapsed = time.process_time() - start
            longest = max(longest, elapsed)
            if elapsed > LIMIT:
                outcome = "FAILED: too slow"
                keep(path, number)
            outcomes[outcome] += 1
    say(f"{name}: {count} files from {len(pool)}, longest {longest:.3f} s, {dict(outcomes)}")
    return sum(times for outcome, times in outcomes.items() if outcome.startswith("FAILED"))


def keep(path: pathlib.Path, number: int) -> None:
    """Copy a file that failed to the folder that ZOONET_FUZZ_KEEP names, if it does."""
    folder = os.environ.get("ZOONET_FUZZ_KEEP")
    if folder:
        (pathlib.Path(folder) / f"{number}-{path.name}").write_bytes(path.read_bytes())


def limit_memory() -> None:
    """No more address space than MEMORY beyond what is taken now."""
    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("format", choices=MAKERS)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return 1 if fuzz(arguments.format, arguments.count, arguments.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
