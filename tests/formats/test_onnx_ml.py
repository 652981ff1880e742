"""Operators of ai.onnx.ml and of strings against ONNX Runtime, as nodes and as scikit-learn's converter writes them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
from onnx import TensorProto, helper

from zoonet.formats.onnx import Backend, run_model
from zoonet.ops.errors import ArgumentError, ZoonetError

RNG = np.random.default_rng(0)
ML = "ai.onnx.ml"
LETTERS = np.array([["a", "b", "a", "c", "d"], ["c", "c", "b", "x", "a"]], object)


def floats(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RNG.normal(size=shape) * scale).astype(np.float32)


def type_of(value: Any) -> Any:
    if isinstance(value, dict):
        key, item = next(iter(value.items()))
        element = TensorProto.STRING if isinstance(item, str) else TensorProto.FLOAT
        element = TensorProto.INT64 if isinstance(item, int) else element
        kind = TensorProto.INT64 if isinstance(key, int) else TensorProto.STRING
        return helper.make_map_type_proto(kind, helper.make_tensor_type_proto(element, None))
    kind = TensorProto.STRING if value.dtype == object else helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_type_proto(kind, value.shape)


def model_of(operator: str, inputs: list, kinds: list[int], domain: str, **attributes: Any) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, [f"y{i}" for i in range(len(kinds))], domain=domain, **attributes)
    ports = [helper.make_value_info(name, type_of(x)) for name, x in zip(names, inputs, strict=True)]
    made = [helper.make_tensor_value_info(f"y{i}", kind, None) for i, kind in enumerate(kinds)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ML, 5 if operator == "TreeEnsemble" else 3)]
    return helper.make_model(helper.make_graph([node], "g", ports, made), opset_imports=opsets, ir_version=9)


def compare(
    operator: str, inputs: list, kinds: list[int], domain: str = ML, tolerance: float = 1e-5, **attributes: Any
) -> None:
    model = model_of(operator, inputs, kinds, domain, **attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {f"x{i}": x if isinstance(x, dict) else np.asarray(x) for i, x in enumerate(inputs)}
    expected = session.run(None, feeds)
    equal(run_model(model, inputs), expected, tolerance)


def equal(ours: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(ours, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape
        if other.dtype.kind in "OU":
            assert one.tolist() == other.tolist()
        else:
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


# -- support vector machines ---------------------------------------------------------------------------------------


def _machines() -> dict[str, Any]:
    from sklearn import svm

    machines: dict[str, Any] = {
        f"SVC {kernel}": svm.SVC(kernel=kernel, gamma=0.3, coef0=0.5, degree=3, random_state=0)
        for kernel in ("linear", "poly", "rbf", "sigmoid")
    }
    machines["SVC with probabilities"] = svm.SVC(probability=True, random_state=0)
    machines["NuSVC"] = svm.NuSVC(nu=0.3, random_state=0)
    machines["SVR"] = svm.SVR(kernel="poly", degree=2)
    machines["LinearSVR"] = svm.LinearSVR(random_state=0)
    machines["LinearSVC"] = svm.LinearSVC(random_state=0)
    machines["OneClassSVM"] = svm.OneClassSVM(nu=0.3)
    return machines


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "name",
    [
        *["SVC linear", "SVC poly", "SVC rbf", "SVC sigmoid", "SVC with probabilities", "NuSVC"],
        *["SVR", "LinearSVR", "LinearSVC", "OneClassSVM"],
    ],
)
def test_support_vector_machines_of_scikit_learn(name: str, classes: int) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    x = floats(80, 4)
    y = np.digitize(x @ [1.0, -2.0, 0.5, 0.0], [0] if classes == 2 else [-2, 0, 1])
    model = _machines()[name].fit(x, y)
    options = {"zipmap": False} if name.startswith(("SVC", "NuSVC")) else None
    proto = skl2onnx.to_onnx(model, x[:1], options=options, target_opset={"": 17, ML: 3})
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"X": x})
    equal(run_model(proto, [x]), expected, 2e-4)


def test_support_vector_nodes() -> None:
    x, labels = floats(6, 3), [TensorProto.INT64, TensorProto.FLOAT]
    vectors = {"support_vectors": floats(5, 3).ravel().tolist(), "vectors_per_class": [2, 3], "rho": [0.1]}
    shared = {"kernel_type": "RBF", "kernel_params": [0.4, 0.0, 3.0], "classlabels_ints": [3, 7]}
    for post in ("NONE", "LOGISTIC"):
        coefficients = floats(5).tolist()
        compare("SVMClassifier", [x], labels, post_transform=post, coefficients=coefficients, **vectors, **shared)
    # of one score ONNX Runtime makes (1 - s, s) before a softmax, the reference of the specification (-s, s)
    options = {"post_transform": "SOFTMAX", "coefficients": coefficients, **vectors, **shared}
    model = model_of("SVMClassifier", [x], labels, ML, **options)
    equal(run_model(model, [x]), onnx.reference.ReferenceEvaluator(model).run(None, {"x0": x}), 1e-5)
    straight = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}
    linear = {"coefficients": floats(3, 3).ravel().tolist(), "rho": [0.2], "classlabels_strings": ["a", "b", "c"]}
    compare("SVMClassifier", [x], [TensorProto.STRING, TensorProto.FLOAT], **linear, **straight)
    one = {"coefficients": floats(5).tolist(), "support_vectors": vectors["support_vectors"], "n_supports": 5}
    for options in (
        straight,
        {"one_class": 1, **straight},
        {"kernel_type": "SIGMOID", "kernel_params": [0.2, 0.1, 0.0]},
    ):
        compare("SVMRegressor", [x], [TensorProto.FLOAT], rho=[0.3], **one, **options)
    compare("SVMRegressor", [x], [TensorProto.FLOAT], rho=[0.3], coefficients=[1.0, -2.0, 0.5], **straight)


# -- maps ------------------------------------------------------------------------------------------------------------


def test_maps() -> None:
    numbers = {3: 1.5, 1: -2.0, 4: 7.25}
    for form in ("DENSE", "SPARSE"):
        compare("CastMap", [numbers], [TensorProto.FLOAT], cast_to="TO_FLOAT", map_form=form, max_map=6)
        compare("CastMap", [numbers], [TensorProto.INT64], cast_to="TO_INT64", map_form=form, max_map=6)
    words = {3: "30", 1: "10"}  # ONNX Runtime's Python interface takes no such maps
    for kind, expected in (("TO_FLOAT", [[10.0, 30.0]]), ("TO_STRING", [["10", "30"]]), ("TO_INT64", [[10, 30]])):
        model = model_of("CastMap", [words], [TensorProto.FLOAT], ML, cast_to=kind)
        assert run_model(model, [words])[0].tolist() == expected
    compare("DictVectorizer", [{"a": 1.5, "c": 2.5}], [TensorProto.FLOAT], string_vocabulary=["c", "b", "a"])
    counts, vocabulary = {"a": 5, "c": 2}, ["c", "b", "a"]
    model = model_of("DictVectorizer", [counts], [TensorProto.INT64], ML, string_vocabulary=vocabulary)
    assert run_model(model, [counts])[0].tolist() == [[2, 0, 5]]
    compare("DictVectorizer", [{4: 1.5, 2: 2.5}], [TensorProto.FLOAT], int64_vocabulary=[2, 3, 4])
    tables = {"cats_strings": ["a", "b"], "cats_int64s": [10, 20], "default_int64": -7, "default_string": "none"}
    compare("CategoryMapper", [LETTERS], [TensorProto.INT64], **tables)
    compare("CategoryMapper", [np.array([[20, 10, 5]])], [TensorProto.STRING], **tables)


def test_transforms_of_scores() -> None:
    x = floats(5, 3, scale=0.2)
    x[0, 0] = 0.0
    coefficients = {"coefficients": np.eye(3).ravel().tolist(), "intercepts": [0.0, 0.0, 0.0], "targets": 3}
    for post in ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"):
        compare("LinearRegressor", [x], [TensorProto.FLOAT], post_transform=post, **coefficients)
    compare("LinearRegressor", [np.abs(x) + 0.01], [TensorProto.FLOAT], post_transform="PROBIT", **coefficients)


# -- trees of opset 5 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_trees_of_opset_5(aggregate: int) -> None:
    def tensor(name: str, kind: int, values: Any) -> onnx.TensorProto:
        return helper.make_tensor(name, kind, [len(values)], values)

    attributes = {
        "n_targets": 2,
        "aggregate_function": aggregate,
        "tree_roots": [0, 3],
        "nodes_modes": tensor("m", TensorProto.UINT8, [0, 1, 3, 2, 0]),
        "nodes_featureids": [0, 1, 2, 0, 2],
        "nodes_splits": tensor("s", TensorProto.FLOAT, [0.1, -0.3, 0.2, 0.0, 0.5]),
        "nodes_truenodeids": [1, 0, 2, 4, 4],
        "nodes_trueleafs": [0, 1, 1, 0, 1],
        "nodes_falsenodeids": [2, 1, 3, 6, 5],
        "nodes_falseleafs": [0, 1, 1, 1, 1],
        "nodes_missing_value_tracks_true": [1, 0, 0, 0, 1],
        "leaf_targetids": [0, 1, 1, 0, 1, 0, 1],
        "leaf_weights": tensor("w", TensorProto.FLOAT, [1.0, -2.0, 3.0, 0.5, 4.0, -1.5, 2.5]),
    }
    x = floats(40, 3, scale=0.5)
    x[3, 0] = x[5, 2] = np.nan
    compare("TreeEnsemble", [x], [TensorProto.FLOAT], **attributes)


# -- strings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 2])
def test_counts_of_n_grams(mode: str, skips: int) -> None:
    attributes = {
        "mode": mode,
        "min_gram_length": 1,
        "max_gram_length": 3,
        "max_skip_count": skips,
        "ngram_counts": [0, 3, 7],
        "ngram_indexes": [0, 2, 1, 5, 4, 3],
        "weights": [0.5, 1.0, 2.0, 3.0, 0.25, 0.75],
        "pool_strings": ["a", "c", "x", "a", "b", "c", "b", "a", "b", "a"],
    }
    compare("TfIdfVectorizer", [LETTERS], [TensorProto.FLOAT], "", **attributes)
    compare("TfIdfVectorizer", [LETTERS[0]], [TensorProto.FLOAT], "", **attributes)


def test_strings_are_normalised_joined_and_split() -> None:
    words = np.array(["Monday", "tuesday", "WEDNESDAY", "monday"], object)
    for change in ("NONE", "LOWER", "UPPER"):
        for sensitive in (0, 1):
            options = {"case_change_action": change, "is_case_sensitive": sensitive, "locale": "C"}
            options["stopwords"] = ["monday"]
            compare("StringNormalizer", [words], [TensorProto.STRING], "", **options)
    compare("StringConcat", [LETTERS, np.array(["!", "", "?", "-", "+"], object)], [TensorProto.STRING], "")
    kinds = [TensorProto.STRING, TensorProto.INT64]
    lines = np.array(["a,b,,c", ",", "no", " x  y z "], object)  # ONNX Runtime differs from the reference for ""
    for options in ({"delimiter": ","}, {}, {"delimiter": ",", "maxsplit": 1}):
        compare("StringSplit", [lines], kinds, "", **options)


PATTERNS = [
    "www.[\\w.-]+\\bcom",
    "(\\W|^)[\\w.\\-]{0,25}@(yahoo|gmail)\\.com(\\W|$)",
    "a*b+?c{2,3}",
    "(?i)hello(?: world)?",
    "[^[:digit:]x]+\\d*",
    "^(a|bc)*$",
    "\\x41\\x{42}.",
    "(?s).*",
    "\\Qa.b\\E+",
    "(?P<year>\\d{4})-(\\d\\d)",
    "",
    "[]a]+|-",
]
TEXTS = ["", "www.google.com", "www.x.com.", "aab", "bcc", "aabbccc", "Hello World", "hello", "abc1", "x1", "abcbca"]
TEXTS += ["ABz", "a.bb", "a.b", "aXb", "2024-05", "me@gmail.com", "]a]", "-", "line\nline", "é", "me@gmail.comx"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_in_onnx_runtime(pattern: str) -> None:
    compare("RegexFullMatch", [np.array(TEXTS, object)], [TensorProto.BOOL], "", pattern=pattern)


def test_patterns_take_bounded_time() -> None:
    for pattern in ("(a*)*b", "(a|aa)+$", "((a?){20}){20}a{400}", "(x+x+)+y"):
        model = model_of("RegexFullMatch", [np.array(["a" * 400], object)], [TensorProto.BOOL], "", pattern=pattern)
        run_model(model, [np.array(["a" * 400], object)])
    for pattern in ("(((a{1000}){1000}){1000})", "((((){1000}){1000}){1000}){1000}", "(" * 5000):
        with pytest.raises(ArgumentError, match="pattern"):
            run_model(model_of("RegexFullMatch", [LETTERS], [TensorProto.BOOL], "", pattern=pattern), [LETTERS])


def test_patterns_agree_with_another_engine_on_random_ones() -> None:
    pieces = ["a", "b", ".", "[ab]", "(a|b)", "(ab)", "a?", "b*", "(a|)", "[^a]", "\\w", "(?:b|aa)+", "a{2}", "b{1,2}?"]
    for _ in range(150):
        pattern = "".join(RNG.choice(pieces, 4)) + ("|" + "".join(RNG.choice(pieces, 2)) if RNG.random() < 0.3 else "")
        words = np.array(["".join(RNG.choice(list("abc"), n)) for n in RNG.integers(0, 7, 12)], object)
        (ours,) = run_model(model_of("RegexFullMatch", [words], [TensorProto.BOOL], "", pattern=pattern), [words])
        expected = [re.compile(pattern).fullmatch(word) is not None for word in words]
        assert ours.tolist() == expected, pattern


@pytest.mark.parametrize("pattern", ["(a", "a)", "[a", "*a", "a**", "a{2,1}", "(?=a)", "\\1", "(?<n", "\\", "[b-a]"])
def test_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ArgumentError, match="pattern"):
        run_model(model_of("RegexFullMatch", [LETTERS], [TensorProto.BOOL], "", pattern=pattern), [LETTERS])


# -- signals and deformable convolution --------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows_and_fourier_transforms(window: str) -> None:
    for periodic in (0, 1):
        for kind in (TensorProto.FLOAT, TensorProto.DOUBLE):
            options = {"periodic": periodic, "output_datatype": kind}
            compare(window, [np.int64(10)], [kind], "", 1e-4, **options)
    signal = floats(2, 64, 1)
    for onesided in (0, 1):
        for inputs in ([signal, np.int64(8), floats(16)], [signal, np.int64(5), floats(16), np.int64(16)]):
            compare("STFT", inputs, [TensorProto.FLOAT], "", 1e-4, onesided=onesided)
    x = floats(2, 10, 3, 2)
    for length in (10, 7, 13):
        for inverse in (0, 1):
            compare("DFT", [x, np.int64(length), np.int64(1)], [TensorProto.FLOAT], "", 1e-4, inverse=inverse)
    compare("DFT", [x[..., :1], np.int64(8), np.int64(-3)], [TensorProto.FLOAT], "", 1e-4, onesided=1)


def test_mel_weights() -> None:
    inputs = [np.int64(8), np.int64(64), np.int64(8192), np.float32(0), np.float32(4096)]
    compare("MelWeightMatrix", inputs, [TensorProto.FLOAT], "")


@pytest.mark.parametrize("groups", [1, 2])
def test_deformable_convolution(groups: int) -> None:
    x, weight, bias = floats(2, 4, 7, 6), floats(6, 4 // groups, 3, 2), floats(6)
    offset, mask = floats(2, 2 * 2 * 6, 4, 7), floats(2, 2 * 6, 4, 7)
    options = {"group": groups, "offset_group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1], "kernel_shape": [3, 2]}
    compare("DeformConv", [x, weight, offset, bias, mask], [TensorProto.FLOAT], "", 1e-4, **options)
    compare("DeformConv", [x, weight, offset, bias], [TensorProto.FLOAT], "", 1e-4, **options)


def test_deformable_convolution_in_three_dimensions_without_offsets_is_a_convolution() -> None:
    import torch

    x, weight = floats(1, 2, 4, 5, 3), floats(3, 2, 2, 2, 2)
    offset = np.zeros((1, 8 * 3, 3, 4, 2), np.float32)
    model = model_of("DeformConv", [x, weight, offset], [TensorProto.FLOAT], "")
    expected = torch.nn.functional.conv3d(torch.tensor(x), torch.tensor(weight)).numpy()
    np.testing.assert_allclose(run_model(model, [x, weight, offset])[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode: str, ratio: int) -> None:
    rois = np.float32([[1, 1, 9, 7], [0, 0, 3, 12], [5, 4, 30, 40]])
    inputs = [floats(2, 3, 8, 9), rois, np.array([0, 1, 1])]
    options = {"mode": mode, "sampling_ratio": ratio, "output_height": 3, "output_width": 2, "spatial_scale": 0.5}
    for transformation in ("half_pixel", "output_half_pixel"):
        compare(
            "RoiAlign", inputs, [TensorProto.FLOAT], "", 1e-4, coordinate_transformation_mode=transformation, **options
        )


# -- what is wrong says so ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("StringSplit", [floats(3)], {}),
        ("StringConcat", [LETTERS, np.array(["a", "b"], object)], {}),
        ("StringNormalizer", [LETTERS], {}),
        ("StringNormalizer", [LETTERS[0]], {"case_change_action": "TITLE"}),
        ("ImageDecoder", [np.zeros(4, np.uint8)], {"pixel_format": "CMYK"}),
        ("HannWindow", [np.int64(1 << 50)], {}),
        ("STFT", [floats(1, 8, 1), np.int64(0)], {}),
        ("STFT", [floats(1, 8, 1), np.int64(1), floats(9)], {}),
        ("DFT", [floats(4)], {}),
        ("DFT", [floats(4, 1), np.int64(1 << 50)], {}),
        ("MelWeightMatrix", [np.int64(8), np.int64(64), np.int64(0), np.float32(0), np.float32(1)], {}),
        ("DeformConv", [floats(1, 2, 4, 4), floats(2, 2, 2, 2), floats(1, 7, 3, 3)], {}),
    ],
)
def test_errors(operator: str, inputs: list, attributes: dict) -> None:
    model = model_of(operator, inputs, [TensorProto.FLOAT] * (2 if operator == "StringSplit" else 1), "", **attributes)
    with pytest.raises(ZoonetError):
        run_model(model, inputs)


def test_bytes_that_are_no_picture_decode_to_nothing() -> None:
    model = model_of("ImageDecoder", [np.zeros(64, np.uint8)], [TensorProto.UINT8], "")
    (picture,) = Backend.prepare(model).run([np.arange(64, dtype=np.uint8)])
    assert picture.size == 0
    assert picture.dtype == np.uint8
