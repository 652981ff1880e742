"""Weights of ONNX files are views of the mapped file, inside the model or beside it."""

from __future__ import annotations

import mmap
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_runtime import assert_equal, run, session_of

from zoonet import formats, ops, zoo
from zoonet.formats import onnx as onnx_format
from zoonet.formats.onnx.wire import without_weights
from zoonet.ops.errors import UnsupportedFormatError

RNG = np.random.default_rng(0)


def chain(width: int, depth: int) -> onnx.ModelProto:
    """x · w0 · w1 …, and a constant inside of a sub-graph."""
    weights = [RNG.normal(0, width**-0.5, (width, width)).astype(np.float32) for _ in range(depth)]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(depth)]
    bias = numpy_helper.from_array(RNG.normal(size=(2000,)).astype(np.float32)[:width], "bias")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=bias), helper.make_node("Add", [f"x{depth}", "c"], ["sum"])],
        "then",
        [],
        [helper.make_tensor_value_info("sum", 1, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", [f"x{depth}"], ["same"])],
        "else",
        [],
        [helper.make_tensor_value_info("same", 1, None)],
    )
    nodes += [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True), "yes")),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=other),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", 1, ["n", width])],
        [helper.make_tensor_value_info("y", 1, ["n", width])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("external", [False, True])
def test_weights_are_views_of_the_file(external: bool, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(chain(1200, 2), path, save_as_external_data=external, location="m.data", size_threshold=1000)
    model = onnx_format.load(path)
    arrays = [model.graph.constants[model.initializers[f"w{i}"]] for i in range(2)]
    for array, tensor in zip(arrays, onnx.load(path).graph.initializer, strict=True):
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, memoryview)
        assert isinstance(base.obj, mmap.mmap)
    x = RNG.normal(size=(3, 1200)).astype(np.float32)
    [expected] = run(session_of(path), x)
    assert_equal(model.run([x])[0], expected)
    assert_equal(zoo.load(path)(x), expected)
    assert_equal(formats.read(path)["w0"].load(), arrays[0])


def test_the_message_without_weights() -> None:
    model = chain(1200, 1)
    data = np.frombuffer(model.SerializeToString(), np.uint8)
    message, weights = without_weights(data)
    assert sorted(map(len, weights.values())) == [4800, 4 * 1200**2]
    parsed = onnx.ModelProto.FromString(message)
    assert parsed.graph.initializer[0].raw_data in weights
    assert len(message) < 2000
    inner = parsed.graph.node[-1].attribute
    assert [t.t.raw_data in weights for a in inner for node in a.g.node for t in node.attribute] == [True]
    for cut in (1, 10, len(data) // 2, len(data) - 1):
        assert without_weights(data[:cut]) == (data[:cut].tobytes(), {}) or cut == 10
    damaged = data.copy()
    damaged[:40] = 255
    assert without_weights(damaged) == (damaged.tobytes(), {})


PROGRAM = """
import sys, time
import numpy as np, onnx, google.protobuf
from zoonet import zoo
import zoonet.formats.onnx.model, zoonet.zoo.graphs, zoonet.zoo.arrays, zoonet.ops.sets.onnx
def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return {key: int(lines[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS", "RssAnon")}
x = np.ones((1, 1024), np.float32)
zoo.load(sys.argv[2])(x)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before, start = memory(), time.perf_counter()
model = zoo.load(sys.argv[1])
seconds, loaded = time.perf_counter() - start, memory()
model(x)
ran = memory()
own = [state["RssAnon"] - before["RssAnon"] for state in (loaded, ran)]
print(seconds, loaded["VmHWM"] - before["VmRSS"], *own)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("external", [False, True])
def test_memory_of_a_model_of_100_megabytes(external: bool, tmp_path: pathlib.Path, capsys: Any) -> None:
    """Importing takes no memory for the weights; running takes one copy of them at most."""
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    onnx.save(chain(1024, 25), large, save_as_external_data=external, location="m.data", size_threshold=1000)
    onnx.save(chain(1024, 1), small)
    command = [sys.executable, "-c", PROGRAM, str(large), str(small)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert not result.returncode, result.stderr
    seconds, peak, loaded, ran = map(float, result.stdout.split())
    with capsys.disabled():
        print(
            f"\n100 MiB, {'external' if external else 'inside'}: import {seconds:.3f} s, peak +{peak:.1f} MiB, "
            f"own memory +{loaded:.1f} MiB, after a run +{ran:.1f} MiB"
        )
    assert seconds < 2
    assert peak < 75  # pages of the file, which the kernel maps by up to 2 MiB at a time
    assert loaded < 10
    assert ran < 115


LARGE = """
import sys
import numpy as np
from zoonet import zoo
import zoonet.formats.onnx.model, zoonet.zoo.graphs, zoonet.zoo.arrays, zoonet.ops.sets.onnx
def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) / 1024
before = memory()
model = zoo.load(sys.argv[1])
loaded = memory() - before
places = np.array([[5], [8191]])
np.save(sys.argv[2], model.network(places))
print(loaded, memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_model_above_2_gigabytes(tmp_path: pathlib.Path, capsys: Any) -> None:
    """Written with external data, checked, and read by ONNX Runtime, and here without a copy of the weights."""
    if shutil.disk_usage(tmp_path).free < 4 << 30:
        pytest.skip("there is no room for it")
    rows = RNG.normal(size=(9, 8192)).astype(np.float32)
    weights = {f"table{i}": np.broadcast_to(row, (8192, 8192)) for i, row in enumerate(rows)}  # 256 MiB each

    def sums(weights: dict[str, Any], places: Any) -> Any:
        found = [ops.embedding(places, table)[..., :4] * (i + 1) for i, table in enumerate(weights.values())]
        return ops.sum(ops.stack(found, 0), 0)

    draft = onnx_format.export(sums, ops.tensor_type((1, 1), "int64"), weights=weights, inputs=["places"])
    assert draft.nbytes == 9 << 28
    with pytest.raises(UnsupportedFormatError, match="too large"):
        draft.proto()
    path, data = tmp_path / "large.onnx", tmp_path / "large.onnx.data"
    start = time.perf_counter()
    draft.save(path)
    seconds = time.perf_counter() - start
    assert path.stat().st_size < 1 << 14
    assert data.stat().st_size == 9 << 28 > 1 << 31
    expected = (rows[:, :4].astype(np.float64) * np.arange(1, 10)[:, None]).sum(0)
    places = np.array([[5], [8191]])
    [theirs] = session_of(path).run(None, {"places": places})
    np.testing.assert_allclose(theirs, np.broadcast_to(expected, (2, 1, 4)), rtol=1e-4, atol=1e-4)
    command = [sys.executable, "-c", LARGE, str(path), str(tmp_path / "ours.npy")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert not result.returncode, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "ours.npy"), theirs, rtol=1e-5, atol=1e-5)
    loaded, ran = map(float, result.stdout.split())
    with capsys.disabled():
        print(f"\n2.25 GiB: written in {seconds:.1f} s; import +{loaded:.1f} MiB of own memory, +{ran:.1f} with a run")
    assert loaded < 20
    assert ran < 300
    data.unlink()
