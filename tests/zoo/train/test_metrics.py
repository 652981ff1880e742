"""Metrics against scikit-learn; augmentation against torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import resnet_parity
import torch
from PIL import Image
from sklearn import metrics as sklearn_metrics

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.zoo import ImagePreprocessing
from zoonet.zoo.train import augment, metrics
from zoonet.zoo.train.augment import Augmentation
from zoonet.zoo.train.data import Data
from zoonet.zoo.train.prepare import Pictures

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 7, 300)
SCORES = RNG.dirichlet(np.ones(7), 300) + 0.3 * np.eye(7)[TARGETS]
SCORES /= SCORES.sum(1, keepdims=True)


def test_metrics_are_scikit_learn_s() -> None:
    predicted = SCORES.argmax(1)
    confusion = metrics.confusion_matrix(predicted, TARGETS, 7)
    np.testing.assert_array_equal(confusion, sklearn_metrics.confusion_matrix(TARGETS, predicted))
    assert metrics.accuracy(SCORES, TARGETS) == sklearn_metrics.accuracy_score(TARGETS, predicted)
    for k in (1, 3, 5):
        expected = sklearn_metrics.top_k_accuracy_score(TARGETS, SCORES, k=k)
        assert metrics.top_k_accuracy(SCORES, TARGETS, k) == pytest.approx(expected, abs=1e-12)
    assert metrics.f1(confusion) == pytest.approx(sklearn_metrics.f1_score(TARGETS, predicted, average="macro"))
    expected = sklearn_metrics.precision_recall_fscore_support(TARGETS, predicted, zero_division=0)
    for ours, theirs in zip(metrics.precision_recall_f1(confusion), expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert metrics.auc(SCORES, TARGETS) == pytest.approx(
        sklearn_metrics.roc_auc_score(TARGETS, SCORES, multi_class="ovr"), rel=1e-12
    )
    tied, binary = RNG.integers(0, 5, 200) / 4, RNG.integers(0, 2, 200)
    assert metrics.auc(tied, binary) == pytest.approx(sklearn_metrics.roc_auc_score(binary, tied), rel=1e-12)
    x, y = RNG.normal(size=(2, 50, 3))
    found = metrics.regression(x, y)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(y, x), rel=1e-9)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, x), rel=1e-12)
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(y, x), rel=0.05)
    assert metrics.perplexity(math.log(7)) == pytest.approx(7)
    assert math.isnan(metrics.auc(tied, np.ones(200, int)))
    with pytest.raises(InputError):
        metrics.accuracy(SCORES[:-1], TARGETS)


PICTURE = Image.fromarray(RNG.integers(0, 256, (40, 30, 3), np.uint8)).resize((60, 50), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("magnitude", [3, 9, 12, 29])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", list(augment._OPERATIONS))
def test_operations_of_rand_augment_are_torchvision_s(name: str, negative: bool, magnitude: int) -> None:
    resnet_parity.torchvision_and_timm()
    from torchvision.transforms import InterpolationMode, autoaugment

    camel = "".join(part.title() for part in name.split("_"))
    camel = "AutoContrast" if camel == "Autocontrast" else camel
    table = autoaugment.RandAugment(2, magnitude)._augmentation_space(31, (50, 60))
    magnitudes, signed = table[camel]
    level = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
    level = -level if signed and negative else level
    expected = autoaugment._apply_op(PICTURE, camel, level, InterpolationMode.NEAREST, None)
    ours = np.asarray(augment.augmented_by(PICTURE, name, magnitude, negative), int)
    if name.startswith("shear"):  # torchvision shears by an angle, with other rounding of coordinates
        assert np.mean(np.abs(ours - np.asarray(expected, int)) > 2) < 0.12
    else:
        np.testing.assert_array_equal(ours, np.asarray(expected, int))


def test_colours_are_torchvision_s() -> None:
    resnet_parity.torchvision_and_timm()
    from torchvision.transforms import functional

    np.testing.assert_array_equal(
        np.asarray(augment.turned_hue(PICTURE, 0.1)), np.asarray(functional.adjust_hue(PICTURE, 0.1))
    )
    for kind, adjust in (
        ("Brightness", functional.adjust_brightness),
        ("Contrast", functional.adjust_contrast),
        ("Color", functional.adjust_saturation),
    ):
        ours = augment._enhanced(PICTURE, kind, 1.3)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(adjust(PICTURE, 1.3)))


def test_cuts_have_the_distribution_of_torchvision_s() -> None:
    resnet_parity.torchvision_and_timm()
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    theirs, ours = [], []
    for _ in range(3000):
        _, _, h, w = RandomResizedCrop.get_params(PICTURE, (0.2, 1.0), (3 / 4, 4 / 3))
        theirs.append((h * w, w / h))
        left, top, right, bottom = augment.crop_box(60, 50, (0.2, 1.0), (3 / 4, 4 / 3), rng)
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 50
        ours.append(((right - left) * (bottom - top), (right - left) / (bottom - top)))
    np.testing.assert_allclose(np.mean(ours, 0), np.mean(theirs, 0), rtol=0.03)
    np.testing.assert_allclose(np.std(ours, 0), np.std(theirs, 0), rtol=0.05)


def test_without_augmentation_it_is_the_preprocessing() -> None:
    preprocessing = ImagePreprocessing(resize=36, crop=(32, 32))
    data = Data([PICTURE], np.array([0]))
    plain = Pictures(data, preprocessing, Augmentation())
    expected = preprocessing(PICTURE)
    np.testing.assert_array_equal(plain(0, None), expected)
    np.testing.assert_array_equal(plain(0, np.random.default_rng(0)), expected)
    whole = ImagePreprocessing(resize=(32, 32), crop=None)
    flipped = Pictures(data, whole, Augmentation(flip=1.0))(0, np.random.default_rng(0))
    np.testing.assert_allclose(flipped, whole(PICTURE)[:, :, ::-1], atol=0.05)
    strong = Pictures(data, preprocessing, augment.AUGMENTATIONS["strong"])
    first, again = (strong(0, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == expected.shape
    assert not np.array_equal(first, strong(0, np.random.default_rng(8)))


def test_mixing() -> None:
    x = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1) * np.ones((4, 2, 8, 8), np.float32)
    t = np.eye(4, dtype=np.float32)
    for name in ("mixup", "cutmix"):
        mixed, targets = augment.mix(x, t, Augmentation(**{name: 1.0}), np.random.default_rng(3))
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        # the mean of a picture is the mean of its classes, weighted as its target says
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), targets @ np.arange(4), rtol=1e-4)
        assert mixed.dtype == np.float32
    same, _ = augment.mix(x, t, Augmentation(), np.random.default_rng(3))
    assert same is x


def test_moving_and_erasing() -> None:
    array = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5)
    np.testing.assert_array_equal(augment.moved(array, np.array([1, -2]))[0, 1:, :3], array[0, :-1, 2:])
    erased = augment.erased(array, np.random.default_rng(0))
    assert 0 < (erased == 0).sum() < 15
    for seed in range(50):  # at most a third is erased, or nothing: never a long picture as a whole
        long = augment.erased(np.ones((1, 3, 300), np.float32), np.random.default_rng(seed))
        assert (long == 0).mean() < 0.4
    with pytest.raises(ArgumentError, match="crop"):
        Augmentation(crop=(0.5, 0.2))
    with pytest.raises(ArgumentError, match="no such augmentation"):
        augment.make_augmentation("much")
