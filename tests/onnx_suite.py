"""The backend suite of the installed onnx package: its cases, and whether zoonet passes them.

`python tests/onnx_suite.py [PATTERN]` prints a table by kind, and the first lines of what fails.
"""

from __future__ import annotations

import collections
import functools
import pathlib
import sys
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader
from onnx.backend.test.case.test_case import TestCase

#: Kinds of cases. Those of "real" models are downloaded by the suite; the light ones stand in for them.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
#: Operators whose results are random: only type and shape are compared, as by the suite.
RANDOM = ("test_bernoulli", "test_training_dropout", "test_random", "test_multinomial")


@functools.cache
def cases() -> dict[str, TestCase]:
    """Every case by kind/name."""
    found = {}
    for kind in KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for case in loader.load_model_tests(kind=kind):
                found[f"{kind}/{case.name}"] = case
    for folder in sorted((pathlib.Path(loader.DATA_DIR) / "light").glob("*.onnx")):
        found[f"light/{folder.stem}"] = TestCase(
            folder.stem, folder.stem, None, str(folder), None, None, "light", 1e-3, 1e-7
        )
    return found


def model_of(case: TestCase) -> onnx.ModelProto:
    """The case's model."""
    if case.model is not None:
        return case.model
    path = pathlib.Path(case.model_dir)
    return onnx.load(path if path.suffix else path / "model.onnx")


def data_sets(case: TestCase, model: onnx.ModelProto) -> list[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs."""
    if case.data_sets is not None:
        return [(_arrays(inputs), _arrays(outputs)) for inputs, outputs in case.data_sets]
    found = []
    for folder in sorted(pathlib.Path(case.model_dir).glob("test_data_set*")):
        sides = []
        for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
            count = len(list(folder.glob(f"{side}_*.pb")))
            sides.append([_value(folder / f"{side}_{i}.pb", infos[i].type) for i in range(count)])
        found.append((sides[0], sides[1]))
    return found


def _arrays(values: Any) -> list[Any]:
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def _value(path: pathlib.Path, kind: Any) -> Any:
    data = path.read_bytes()
    case = kind.WhichOneof("value")
    if case == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if case == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def compare(expected: Any, actual: Any, case: TestCase) -> None:
    """Raise AssertionError unless the values agree by the suite's own rule."""
    if expected is None:
        assert actual is None
        return
    if isinstance(expected, list | tuple):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            compare(one, other, case)
        return
    if isinstance(expected, dict):
        assert dict(expected) == dict(actual)
        return
    if not hasattr(expected, "dtype"):
        assert expected == actual
        return
    actual = np.asarray(actual)
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if case.name.startswith(RANDOM):
        return
    if expected.dtype == object or expected.dtype.kind in "USb":
        np.testing.assert_array_equal(actual, expected)
        return
    rtol = case.rtol
    if expected.dtype.kind == "V" or expected.dtype.name in ml_dtypes.__dict__:
        rtol = max(rtol, 2**-6) if expected.dtype.name == "bfloat16" else rtol
        actual, expected = actual.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=case.atol)


def light_inputs(model: onnx.ModelProto) -> list[Any]:
    """Inputs of a light model, which has no data of its own."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    shapes = [
        [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in model.graph.input if v.name not in initialized
    ]
    return [np.random.default_rng(0).random(shape, np.float32) for shape in shapes]


def run(case: TestCase) -> None:
    """Run a case through the backend interface. Raises AssertionError, or what the library raises."""
    from zoonet.formats.onnx import Backend

    model = model_of(case)
    prepared = Backend.prepare(model)
    if case.kind == "light":
        import onnxruntime

        inputs = light_inputs(model)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        feeds = dict(zip([i.name for i in session.get_inputs()], inputs, strict=True))
        compare(session.run(None, feeds), list(prepared.run(inputs)), case)
        return
    for inputs, expected in data_sets(case, model):
        compare(expected, list(prepared.run(inputs)), case)


def operators_of(case: TestCase) -> set[str]:
    """The operators that a case of one node is about, else all that its graph has."""
    return {f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model_of(case).graph.node}


def main(pattern: str = "") -> None:
    """Print the tables: by kind, by operator, and what fails."""
    import zoonet.ops.sets.onnx  # noqa: F401

    kinds: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    operators: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    failures = collections.defaultdict(list)
    for name, case in cases().items():
        if pattern and pattern not in name:
            continue
        counts = [kinds[name.split("/")[0]], *(operators[operator] for operator in operators_of(case))]
        passed = 1
        try:
            run(case)
        except Exception as error:
            passed = 0
            failures[type(error).__name__ + ": " + str(error).strip().replace("\n", " ")[:110]].append(name)
        for count in counts:
            count[0] += passed
            count[1] += 1
    print("cases by operator (a case counts for each operator in its graph)")
    rows = [f"{name} {passed}/{total}" for name, (passed, total) in sorted(operators.items())]
    for start in range(0, len(rows), 4):
        print("  " + "".join(f"{row:<38}" for row in rows[start : start + 4]).rstrip())
    print("cases by kind")
    for kind, (passed, total) in kinds.items():
        print(f"  {kind:<20}{passed:>6} of {total}")
    for message, names in sorted(failures.items(), key=lambda item: -len(item[1])):
        print(f"{len(names):4}  {message}\n        {', '.join(n.split('/')[1] for n in names[:3])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
