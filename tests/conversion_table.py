"""Print conversions between all formats: `python tests/conversion_table.py [NETWORK...]`, a Markdown table per network.

The rows are the formats converted from, the columns those converted to. A cell is the largest difference of the
outputs of the converted file from those of the network it began with, relative to the largest output: as zoonet loads
the file, without being told its architecture, and as ONNX Runtime runs .onnx and Keras .keras and .h5. In brackets
what the conversion said is lost. The status is 1 if a difference exceeds 1e-4 or a conversion fails.

`python tests/conversion_table.py files` does so for files of every format that is read, as the libraries write them,
and to every format that is written: a cell is what the conversion itself measured, the largest difference of outputs
(of zoonet and of each library that it found installed) or how many tensors are equal, or why it refused.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import warnings
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np

from zoonet import zoo
from zoonet.ops.errors import ZoonetError

warnings.simplefilter("ignore")
TOLERANCE = 1e-4
NETWORKS = ("digits", "resnet20", "mobilenet_v2")
#: A name for each format that whole networks are converted from and to; one without suffix is a folder.
FORMATS = {
    "safetensors": "m.safetensors",
    "sharded": "m.safetensors.index.json",
    ".pt": "m.pt",
    ".npz": "m.npz",
    ".keras": "m.keras",
    ".h5": "m.h5",
    ".weights.h5": "m.weights.h5",
    ".onnx": "m.onnx",
    "folder": "m",
}
#: Those of files.
TARGETS = {**FORMATS, ".bin": "m.bin", ".npy": "m.npy", ".weights": "m.weights"}
ASSETS = pathlib.Path(__file__).resolve().parents[2] / "shared" / "assets"


def network(name: str) -> zoo.Model:
    """The model, where its weights are in the package, or with random parameters and statistics of few classes."""
    if name == "digits":
        return zoo.load(name)
    model = zoo.create(name, seed=1, classes=7)
    rng = np.random.default_rng(2)
    for label, slot in model.network.slots().items():
        if label.endswith("running_mean"):
            slot.set(rng.uniform(-0.1, 0.1, slot.get().shape).astype(np.float32))
        elif label.endswith("running_var"):
            slot.set(rng.uniform(0.1, 0.2, slot.get().shape).astype(np.float32))
    return model


def example(model: zoo.Model) -> np.ndarray[Any, Any]:
    """A small input: (2, channels, height, width) of float32."""
    shape = model.input_shape
    return np.random.default_rng(3).standard_normal((2, *shape[-3:])).astype(np.float32)


def foreign(path: pathlib.Path, x: Any) -> Any:
    """The outputs as the library that owns the format has them; None where it does not run the file."""
    if path.suffix == ".onnx":
        from onnx_runtime import run, session_of

        return run(session_of(path), x)[0]
    if path.suffix == ".keras" or (path.suffix == ".h5" and not path.name.endswith(".weights.h5")):
        import keras

        model = keras.saving.load_model(path, compile=False)
        return keras.ops.convert_to_numpy(model(x.transpose(0, 2, 3, 1), training=False))
    return None


def difference(path: pathlib.Path, x: Any, expected: Any) -> float:
    """The largest difference of a file's outputs, by zoonet and by the owner of its format."""
    found = [np.asarray(zoo.load(path)(x)), foreign(path, x)]
    return max(float(np.abs(y - expected).max() / np.abs(expected).max()) for y in found if y is not None)


def cell(source: pathlib.Path, target: pathlib.Path, x: Any, expected: Any) -> tuple[str, bool]:
    """What stands in the table for one conversion, and whether it is good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = zoo.convert(source, target)
        found = difference(target, x, expected)
    except ZoonetError as error:
        return f"no: {error.message.splitlines()[0]}", False
    lost = f" ({'; '.join(report.lost)})" if report.lost else ""
    return f"{found:.0e}{lost}", report.agrees and found <= TOLERANCE


def torch_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Weights of torchvision's small MobileNet v3 in PyTorch's containers, and files of other states."""
    import resnet_parity
    import torch

    resnet_parity.torchvision_and_timm()
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=7).eval()
    paths = {name: folder / f"{name}.pt" for name in ("torch zip", "torch legacy", "torch checkpoint", "TorchScript")}
    torch.save(network.state_dict(), paths["torch zip"])
    torch.save(network.state_dict(), paths["torch legacy"], _use_new_zipfile_serialization=False)
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(
        {"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 3, "best_acc": 0.5},
        paths["torch checkpoint"],
    )
    torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(paths["TorchScript"])
    tied = torch.ones(3, 2)
    paths["tied, fp8, bf16"] = folder / "tied.pt"
    low = {"a": tied, "b": tied, "c": torch.ones(2).to(torch.float8_e4m3fn), "d": torch.ones(2).bfloat16()}
    torch.save(low, paths["tied, fp8, bf16"])
    paths["an optimizer alone"] = folder / "optimizer.pt"
    torch.save(optimizer.state_dict(), paths["an optimizer alone"])
    return paths


def keras_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """keras.applications' small MobileNet v3 and a small model of layers, in each kind of file of Keras."""
    import keras

    network = keras.applications.MobileNetV3Small((224, 224, 3), weights=None, classes=7)
    small = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    paths = {}
    for kind, model in (("applications", network), ("layers", small)):
        for suffix in (".h5", ".keras"):
            paths[f"Keras {kind} {suffix}"] = folder / f"{kind}{suffix}"
            model.save(paths[f"Keras {kind} {suffix}"])
        paths[f"Keras {kind} .weights.h5"] = folder / f"{kind}.weights.h5"
        model.save_weights(paths[f"Keras {kind} .weights.h5"])
    return paths


def files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """A file of every format that is read, written by the library that owns it, or a real one."""
    import onnx
    import safetensors.torch
    import torch

    paths = torch_files(folder)
    state = torch.load(paths["torch zip"], weights_only=True)
    paths["safetensors"] = folder / "s.safetensors"
    safetensors.torch.save_file(state, paths["safetensors"])
    paths["npz"], paths["npy"], paths["sharded"] = (
        folder / "n.npz",
        folder / "n.npy",
        folder / "x.safetensors.index.json",
    )
    np.savez(paths["npz"], **{name: tensor.numpy() for name, tensor in state.items()})
    np.save(paths["npy"], np.arange(6.0).reshape(2, 3))
    names = list(state)
    for part, chosen in enumerate((names[::2], names[1::2])):
        safetensors.torch.save_file({name: state[name] for name in chosen}, folder / f"x{part}.safetensors")
    table = {name: f"x{part}.safetensors" for part in (0, 1) for name in names[part::2]}
    paths["sharded"].write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    paths |= keras_files(folder)
    zoo.load("digits").save(folder / "digits.onnx")
    stripped = onnx.load(folder / "digits.onnx")
    del stripped.metadata_props[:]
    onnx.save(stripped, folder / "digits.onnx")
    paths["ONNX"] = folder / "digits.onnx"
    for name, path in (
        ("llama2.c", "stories260k/stories260K.bin"),
        ("darknet", "yolo-fastest/yolo-fastest-1.1-xl.weights"),
        ("pickled NumPy", "gomoku/best_policy_6_6_4.model"),
        ("torch tar", "torch-files/src__pytorch__tests__reader__test_data__tar_multi_dtype.tar"),
    ):
        found = ASSETS / path
        if found.exists():
            paths[name] = found
    return paths


def file_cell(source: pathlib.Path, target: pathlib.Path) -> tuple[str, bool]:
    """What a conversion measured, or why it refused; good unless outputs differ or a verified tensor does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = zoo.convert(source, target)
    except ZoonetError as error:
        return f"no: {' '.join(error.message.split())[:160]}", not target.exists()
    found = [] if report.relative is None else [f"{report.relative:.0e}"]
    found += [f"{library} {value:.0e}" for library, value in report.originals.items()]
    text = ", ".join(found) or ("not compared" if report.compared is None else f"{report.compared} equal")
    return text + (f" ({'; '.join(report.lost)})" if report.lost else ""), report.agrees


def print_files() -> bool:
    """Print the table of files; whether all its cells are good."""
    good = []
    print(f"| from \\ to | {' | '.join(TARGETS)} |\n|{'---|' * (len(TARGETS) + 1)}")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for row, (source, path) in enumerate(files(folder).items()):
            cells = [file_cell(path, folder / f"{row}-{place}" / file) for place, file in enumerate(TARGETS.values())]
            good += [passed for _, passed in cells]
            print(f"| {source} | {' | '.join(text + ' !' * (not passed) for text, passed in cells)} |", flush=True)
    return all(good)


def main(arguments: list[str]) -> int:
    """Print the tables; 1 if a cell is not good."""
    if arguments == ["files"]:
        return 0 if print_files() else 1
    good = []
    for name in arguments or NETWORKS:
        model = network(name)
        x = example(model)
        expected = np.asarray(model(x))
        assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max(), "constant outputs"
        print(f"{name}:\n\n| from \\ to | {' | '.join(FORMATS)} |\n|{'---|' * (len(FORMATS) + 1)}")
        with tempfile.TemporaryDirectory() as folder:
            first = pathlib.Path(folder) / "first.safetensors"
            model.save(first)
            for source, file in FORMATS.items():
                start = pathlib.Path(folder) / source.strip(".") / file
                start.parent.mkdir()
                zoo.convert(first, start, verify=False)
                cells = []
                for target, other in FORMATS.items():
                    text, passed = cell(start, start.parent / f"to-{target.strip('.')}" / other, x, expected)
                    cells.append(text)
                    good.append(passed)
                print(f"| {source} | {' | '.join(cells)} |", flush=True)
        print()
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
