"""Real ONNX files, damaged: whatever they hold, reading and running them must end soon, in a result or a ZoonetError.

`python tests/onnx_fuzz.py SEED COUNT [FOLDER]` tries COUNT damaged files (FOLDER: of larger real models), prints how
they ended as JSON, and exits with 1 if one raised anything else, or took longer than TIME seconds of the processor.
"""

from __future__ import annotations

import collections
import json
import pathlib
import random
import resource
import signal
import sys
import warnings
from typing import Any

import numpy as np
import onnx
from onnx.backend.test import loader

TIME = 10.0
MEMORY = 4 << 30
INTEGERS = (0, 1, -1, 2, 3, 7, -2, 64, 255, 100_000, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
FLOATS = (0.0, -1.0, 1.0, float("inf"), float("nan"), 1e30, 0.5)


def seeds(folder: pathlib.Path | None = None) -> list[bytes]:
    """Small real models: those of the suite of the onnx package; and larger ones."""
    from onnx_suite import cases

    root = pathlib.Path(loader.DATA_DIR)
    found = [path.read_bytes() for path in sorted(root.glob("*/*/model.onnx")) if path.stat().st_size < 60_000]
    found += [case.model.SerializeToString() for case in cases().values() if case.kind == "node" and case.model]
    if folder is not None:
        found += 40 * [path.read_bytes() for path in sorted(folder.glob("*/*.onnx")) if path.stat().st_size < 2_000_000]
    return found


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bits turned, bytes replaced, removed, added, moved, or the end cut off."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        if not result:
            break
        kind = chance.randrange(6)
        at = chance.randrange(min(len(result), len(result) if chance.random() < 0.5 else 400))
        if kind == 0:
            result[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            result[at] = chance.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            del result[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            result[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 4:
            other = chance.randrange(len(result))
            result[at : at + 8] = result[other : other + 8]
        elif chance.random() < 0.2:
            del result[chance.randrange(len(result)) :]
    return bytes(result)


def damaged_message(data: bytes, chance: random.Random) -> bytes:
    """A model that is well formed as a message, with fields that say something else."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change(model, chance)
    return model.SerializeToString()


def _change(model: onnx.ModelProto, chance: random.Random) -> None:
    graph = model.graph
    node = chance.choice(graph.node) if graph.node else None
    kind = chance.randrange(9)
    if kind < 3 and node is not None and node.attribute:
        attribute = chance.choice(node.attribute)
        _change_attribute(attribute, chance)
        if chance.random() < 0.1:
            node.attribute.remove(attribute)
    elif kind == 3 and graph.initializer:
        _change_tensor(chance.choice(graph.initializer), chance)
    elif kind == 4 and node is not None and node.input:
        names = [name for each in graph.node for name in (*each.input, *each.output)]
        node.input[chance.randrange(len(node.input))] = chance.choice([*names, ""])
    elif kind == 5 and node is not None:
        if chance.random() < 0.5:
            del node.input[-1:]
        else:
            node.input.append(node.input[0] if node.input else "x")
    elif kind == 6 and node is not None:
        node.op_type = chance.choice(graph.node).op_type if chance.random() < 0.3 else chance.choice(_names())
    elif kind == 7 and model.opset_import:
        model.opset_import[0].version = chance.choice((1, 6, 7, 9, 10, 11, 13, 17, 18, 21, 23, 28, 0, -1, 99))
    elif kind == 8 and graph.input:
        tensor = chance.choice(graph.input).type.tensor_type
        if chance.random() < 0.4:
            tensor.elem_type = chance.randrange(28)
        elif tensor.shape.dim and chance.random() < 0.5:
            tensor.shape.dim[chance.randrange(len(tensor.shape.dim))].dim_value = chance.choice((0, 1, 2, 3, 5))
        else:
            tensor.shape.dim.add().dim_value = chance.choice((0, 1, 2))


def _names() -> list[str]:
    from zoonet.ops.sets.onnx import operators

    return sorted({operator.name for operator in operators() if not operator.domain})


def _change_attribute(attribute: onnx.AttributeProto, chance: random.Random) -> None:
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = chance.choice(INTEGERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = chance.choice(FLOATS)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = chance.choice((b"", b"x", b"\xff", b"NOTSET", b"linear"))
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        place = chance.randrange(len(attribute.ints))
        if chance.random() < 0.5:
            attribute.ints[place] = chance.choice(INTEGERS)
        elif chance.random() < 0.5:
            del attribute.ints[place]
        else:
            attribute.ints.append(chance.choice(INTEGERS))
    elif attribute.type == onnx.AttributeProto.FLOATS and attribute.floats:
        attribute.floats[chance.randrange(len(attribute.floats))] = chance.choice(FLOATS)
    elif attribute.type == onnx.AttributeProto.TENSOR:
        _change_tensor(attribute.t, chance)
    elif attribute.type == onnx.AttributeProto.GRAPH:
        inner = onnx.ModelProto(graph=attribute.g)
        _change(inner, chance)
        attribute.g.CopyFrom(inner.graph)


def _change_tensor(tensor: onnx.TensorProto, chance: random.Random) -> None:
    kind = chance.randrange(4)
    if kind == 0:
        tensor.data_type = chance.randrange(28)
    elif kind == 1 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(INTEGERS)
    elif kind == 2:
        tensor.dims.append(chance.choice((1, 0, 2, -1)))
    elif tensor.int64_data:
        tensor.int64_data[chance.randrange(len(tensor.int64_data))] = chance.choice(INTEGERS)
    elif tensor.raw_data:
        data = bytearray(tensor.raw_data)
        data[chance.randrange(len(data))] = chance.randrange(256)
        tensor.raw_data = bytes(data)


def inputs_of(model: Any, chance: random.Random) -> list[Any]:
    """Something for every input: of its type and shape where these are known and small."""
    made = []
    for info in model.inputs:
        if info.optional:
            continue
        shape = tuple(n if isinstance(n, int) and n < 64 else 2 for n in info.shape or ())
        if np.prod(shape, dtype=float) > 1e5:
            shape = tuple(min(n, 3) for n in shape)
        dtype = info.dtype or np.dtype(np.float32)
        if dtype.kind == "O":
            value: Any = np.full(shape, "a", object)
        elif dtype.kind in "iu" and chance.random() < 0.5:
            numbers = [chance.choice((0, 1, 2, -1, 3, 7, 1 << 40)) for _ in range(int(np.prod(shape)))]
            value = np.array(numbers, np.int64).astype(dtype).reshape(shape)
        else:
            value = (np.random.default_rng(0).random(shape) * 3).astype(dtype)
        made.append([value] if info.kind == "sequence" else value)
    return made


class TooLong(BaseException):
    """A case took longer than TIME."""


def main(seed: int, count: int, folder: str = "") -> int:
    """Try damaged files; the exit status."""
    from zoonet.formats import onnx as reader
    from zoonet.ops.errors import ZoonetError

    def stop(*_: Any) -> None:
        raise TooLong

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, stop)
    chance = random.Random(seed)
    files = seeds(pathlib.Path(folder) if folder else None)
    ends: collections.Counter[str] = collections.Counter()
    failures = []
    for case in range(count):
        damage = chance.choice((damaged_bytes, damaged_message))
        data = damage(chance.choice(files), chance)
        signal.setitimer(signal.ITIMER_PROF, TIME)
        try:
            model = reader.from_bytes(data)
            model.run(inputs_of(model, chance))
            ends["ran"] += 1
        except ZoonetError as error:
            ends[type(error).__name__] += 1
        except (Exception, TooLong) as error:
            if isinstance(error, TooLong) and b"Loop" in data:  # a loop may be asked to run for ever
                ends["loops on"] += 1
                continue
            failures.append(f"case {case}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps({"cases": count, "ends": ends, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
