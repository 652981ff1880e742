"""What skl2onnx writes for scikit-learn's estimators and transformers, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from sklearn import (
    calibration,
    cluster,
    cross_decomposition,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    mixture,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    random_projection,
    svm,
    tree,
)
from sklearn.feature_extraction import FeatureHasher, text

from zoonet.formats.onnx import run_model

skl2onnx = pytest.importorskip("skl2onnx")
StringTensorType = skl2onnx.common.data_types.StringTensorType
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
VALUES = (X @ [1.0, -2.0, 0.5, 0.0] + 0.1 * X[:, 0] ** 2).astype(np.float32)
CLASSES = np.digitize(VALUES, [-1, 1])
GAPS = np.where(RNG.random(X.shape) < 0.1, np.float32(np.nan), X)
OPSETS = {"": 18, "ai.onnx.ml": 3}


def simple_tree(kind: Any) -> Any:
    return kind(max_depth=3, random_state=0)


CLASSIFIERS: list[Callable[[], Any]] = [
    linear_model.LogisticRegression,
    linear_model.RidgeClassifier,
    linear_model.Perceptron,
    linear_model.LogisticRegressionCV,
    lambda: linear_model.SGDClassifier(loss="log_loss", random_state=0),
    lambda: neighbors.KNeighborsClassifier(3),
    naive_bayes.GaussianNB,
    naive_bayes.BernoulliNB,
    lambda: neural_network.MLPClassifier((5,), max_iter=50, random_state=0),
    lambda: ensemble.AdaBoostClassifier(n_estimators=4, random_state=0),
    lambda: ensemble.BaggingClassifier(n_estimators=3, random_state=0),
    lambda: ensemble.ExtraTreesClassifier(4, random_state=0),
    lambda: ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0),
    lambda: ensemble.StackingClassifier(
        [("a", linear_model.LogisticRegression()), ("b", simple_tree(tree.DecisionTreeClassifier))]
    ),
    discriminant_analysis.LinearDiscriminantAnalysis,
    discriminant_analysis.QuadraticDiscriminantAnalysis,
    lambda: multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    lambda: multiclass.OneVsOneClassifier(linear_model.LogisticRegression()),
    lambda: calibration.CalibratedClassifierCV(linear_model.LogisticRegression()),
    lambda: svm.SVC(probability=True, random_state=0),
    lambda: pipeline.make_pipeline(
        preprocessing.StandardScaler(), decomposition.PCA(3), linear_model.LogisticRegression()
    ),
]
REGRESSORS: list[Callable[[], Any]] = [
    lambda: linear_model.Lasso(0.1),
    linear_model.BayesianRidge,
    linear_model.HuberRegressor,
    linear_model.TweedieRegressor,
    lambda: linear_model.RANSACRegressor(random_state=0),
    lambda: neighbors.KNeighborsRegressor(3),
    lambda: neural_network.MLPRegressor(hidden_layer_sizes=(5,), max_iter=50, random_state=0),
    lambda: ensemble.AdaBoostRegressor(n_estimators=4, random_state=0),
    lambda: ensemble.BaggingRegressor(n_estimators=3, random_state=0),
    lambda: ensemble.ExtraTreesRegressor(4, random_state=0),
    lambda: ensemble.VotingRegressor(
        [("a", linear_model.LinearRegression()), ("b", simple_tree(tree.DecisionTreeRegressor))]
    ),
    gaussian_process.GaussianProcessRegressor,
    lambda: cross_decomposition.PLSRegression(2),
    lambda: svm.NuSVR(),
]
TRANSFORMERS: list[Callable[[], Any]] = [
    lambda: cluster.KMeans(3, n_init=1, random_state=0),
    lambda: decomposition.PCA(2),
    lambda: decomposition.TruncatedSVD(2, random_state=0),
    lambda: decomposition.KernelPCA(2, kernel="rbf", random_state=0),
    lambda: mixture.GaussianMixture(2, random_state=0),
    lambda: ensemble.IsolationForest(n_estimators=5, random_state=0),
    lambda: neighbors.KNeighborsTransformer(),
    preprocessing.MinMaxScaler,
    preprocessing.RobustScaler,
    lambda: preprocessing.Normalizer("l1"),
    preprocessing.Binarizer,
    lambda: preprocessing.KBinsDiscretizer(3, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    lambda: preprocessing.PolynomialFeatures(2),
    preprocessing.PowerTransformer,
    lambda: preprocessing.QuantileTransformer(n_quantiles=10),
    lambda: feature_selection.SelectKBest(k=2),
    lambda: random_projection.GaussianRandomProjection(2, random_state=0),
]


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):  # maps from class to score
        assert [list(row) for row in ours] == [list(row) for row in theirs]
        ours, theirs = (np.array([list(row.values()) for row in rows]) for rows in (ours, theirs))
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    if theirs.dtype.kind in "OU":
        assert ours.tolist() == theirs.tolist()
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def compare(proto: Any, x: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    expected = session.run(None, {session.get_inputs()[0].name: x})
    for ours, theirs in zip(run_model(proto, [x]), expected, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("position", range(len(CLASSIFIERS)))
def test_classifiers(position: int) -> None:
    model = CLASSIFIERS[position]().fit(X, CLASSES)
    compare(skl2onnx.to_onnx(model, X[:1], target_opset=OPSETS), X)


@pytest.mark.parametrize("position", range(len(REGRESSORS)))
def test_regressors(position: int) -> None:
    model = REGRESSORS[position]().fit(X, VALUES)
    compare(skl2onnx.to_onnx(model, X[:1], target_opset=OPSETS), X)


@pytest.mark.parametrize("position", range(len(TRANSFORMERS)))
def test_transformers(position: int) -> None:
    model = TRANSFORMERS[position]().fit(X, CLASSES)
    compare(skl2onnx.to_onnx(model, X[:1], target_opset=OPSETS), X)


@pytest.mark.parametrize("opset", [11, 13, 15, 17, 21])
def test_opsets(opset: int) -> None:
    steps = (preprocessing.StandardScaler(), ensemble.RandomForestClassifier(3, max_depth=3, random_state=0))
    model = pipeline.make_pipeline(*steps).fit(X, CLASSES)
    versions = {"": opset, "ai.onnx.ml": 1 if opset < 13 else 3}
    compare(skl2onnx.to_onnx(model, X[:1], target_opset=versions), X)


def test_gaps() -> None:
    for model in (impute.SimpleImputer(), impute.KNNImputer()):
        compare(skl2onnx.to_onnx(model.fit(GAPS), GAPS[:1], target_opset=OPSETS), GAPS)


WORDS = np.array(["the cat sat", "a dog ran", "The the dog", "cat and dog sat down", "it's 3 o'clock", ""], object)


@pytest.mark.parametrize(
    "model",
    [
        text.CountVectorizer(ngram_range=(1, 2)),
        text.CountVectorizer(analyzer="char"),
        text.CountVectorizer(lowercase=False, binary=True),
        text.TfidfVectorizer(ngram_range=(1, 3), norm="l1", sublinear_tf=True, stop_words=["the"]),
        text.TfidfVectorizer(token_pattern="[a-z]+"),
    ],
    ids=repr,
)
def test_texts(model: Any) -> None:
    proto = skl2onnx.to_onnx(model.fit(WORDS), initial_types=[("X", StringTensorType([None, 1]))], target_opset=OPSETS)
    for node in proto.graph.node:
        if node.op_type == "StringNormalizer":  # the locale en_US is not on every machine
            node.attribute.append(helper.make_attribute("locale", "C"))
    compare(proto, WORDS.reshape(-1, 1))


def test_categories() -> None:
    rows = np.array([["a", "x"], ["b", "y"], ["a", "y"], ["c", "x"]], object)
    for model in (
        preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        preprocessing.OrdinalEncoder(),
    ):
        types = [("X", StringTensorType([None, 2]))]
        compare(skl2onnx.to_onnx(model.fit(rows), initial_types=types, target_opset=OPSETS), rows)
    labels = preprocessing.LabelEncoder().fit(["a", "b", "c"])
    proto = skl2onnx.to_onnx(labels, initial_types=[("X", StringTensorType([None]))], target_opset=OPSETS)
    compare(proto, np.array(["b", "a", "c"], object))


@pytest.mark.parametrize(
    "attributes",
    [
        {"separators": [" "]},
        {"separators": ["[,.]", " +"]},
        {"separators": [""]},
        {"tokenexp": "[a-z]+|[0-9]"},
        {"tokenexp": "."},
        {"tokenexp": "a|ab|abc"},
    ],
)
@pytest.mark.parametrize(("mark", "least"), [(0, 1), (1, 2)])
def test_tokens(attributes: dict, mark: int, least: int) -> None:
    if attributes.get("tokenexp") == "." or attributes.get("separators") == [""]:
        least = 1  # all that ONNX Runtime takes for single characters
    rows = np.array([["Hello World", "a, b.cd,,e"], ["abc 12 abx", ""]], object)
    node = helper.make_node(
        "Tokenizer", ["x"], ["y"], domain="com.microsoft", mark=mark, mincharnum=least, pad_value="#", **attributes
    )
    ports = [helper.make_tensor_value_info(name, 8, None) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    compare(helper.make_model(graph, opset_imports=opsets, ir_version=9), rows)


@pytest.mark.parametrize("attributes", [{}, {"positive": 0}, {"seed": 42}, {"positive": 0, "seed": 7}])
def test_hashes(attributes: dict) -> None:
    generator = np.random.default_rng(0)
    words = np.array(["", "a", "ab", "abc", "abcd", "abcde", "é日本", "x" * 100], object)
    wide = generator.integers(-(2**60), 2**60, (2, 3))
    for x in (words, wide, wide.astype(np.uint64), wide.astype(np.int32), wide.astype(np.float32), wide * 0.1):
        node = helper.make_node("MurmurHash3", ["x"], ["y"], domain="com.microsoft", **attributes)
        kinds = (helper.np_dtype_to_tensor_dtype(x.dtype), 12 if attributes.get("positive", 1) else 6)
        ports = [helper.make_tensor_value_info(name, kind, x.shape) for name, kind in zip("xy", kinds, strict=True)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([node], "g", ports[:1], ports[1:])
        compare(helper.make_model(graph, opset_imports=opsets, ir_version=9), x)


def test_hashed_features() -> None:
    rows = np.array([["a", "bc"], ["cat", "dog"]], object)
    for signed in (True, False):
        model = FeatureHasher(8, input_type="string", alternate_sign=signed)
        types = [("X", StringTensorType([None, 2]))]
        compare(skl2onnx.to_onnx(model, initial_types=types, target_opset=OPSETS), rows)
