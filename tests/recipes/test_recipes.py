"""The figures that the recipes reach."""

from __future__ import annotations

import pathlib
import time

import numpy as np
import pytest
from recipes import blood_cells, cifar, mnist

from zoonet import zoo


def folder(assets: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        if not (assets / name).is_dir():
            pytest.skip(f"{name} is absent")
    return assets


@pytest.mark.parametrize(
    ("optimizer", "dtype", "smooth", "limit"),
    [
        ("sgd", "float32", False, 1e-3),
        ("adam", "float32", True, 1e-5),
        pytest.param("sgd", "float64", False, 1e-9, marks=pytest.mark.slow),
        pytest.param("adam", "float64", False, 1e-9, marks=pytest.mark.slow),
    ],
)
def test_losses_on_mnist_are_pytorch_s(
    optimizer: str, dtype: str, smooth: bool, limit: float, assets: pathlib.Path
) -> None:
    x, y = mnist.read(folder(assets, "mnist-t10k") / "mnist-t10k")
    ours, theirs = mnist.losses_beside_torch(x, y, optimizer, dtype, smooth)
    assert len(ours) == 50
    assert ours[-1] < 0.9 * ours[0]
    np.testing.assert_allclose(ours, theirs, rtol=limit)


@pytest.mark.slow
def test_mnist(assets: pathlib.Path) -> None:
    assert mnist.main(str(folder(assets, "mnist-t10k") / "mnist-t10k")) >= 0.985


@pytest.mark.slow
def test_blood_cells(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder(assets, "blood-cells", "mobilenet025-imagenet")
    assert blood_cells.cut_cells(assets / "blood-cells", tmp_path / "cells") == {"WBC": 80, "RBC": 80, "Platelets": 80}
    found = blood_cells.compare(assets, tmp_path / "cells")
    scratch = found.pop("from scratch")
    for best in found.values():
        assert best["val_accuracy"] >= 0.97
        assert best["val_loss"] < 0.5 * scratch["val_loss"]


@pytest.mark.slow
def test_cifar_goes_on_and_resumes(assets: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder(assets, "resnet-cifar10", "coco-permissive")
    before, history, scratch = cifar.main(str(assets), run=tmp_path / "run")
    assert before < 0.1
    assert max(history["val_loss"]) < 0.2 < 1 < min(scratch["val_loss"])
    model = zoo.load(assets / "resnet-cifar10" / "resnet20-12fca82f.th", arch="resnet20")
    x, y = cifar.tiles(model, assets / "coco-permissive" / "images")
    again = model.train(
        (x, y),
        freeze="*bn*",
        lr=1e-3,
        epochs=4,
        batch=32,
        augment="shift",
        head="keep",
        run=tmp_path / "run",
        resume=True,
    )
    assert len(again) == 4
    assert again["val_loss"][3] < 0.2


@pytest.mark.slow
def test_digits_in_a_minute(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From scratch to 98.5 % on scans that were held out; the seconds that it says depend on the machine."""
    from zoonet.zoo import train_digits

    target = tmp_path / "digits.safetensors"
    began = time.process_time()
    assert train_digits.main(["--minute", "--output", str(target)]) == 0
    seconds = time.process_time() - began
    with capsys.disabled():
        print(f"digits: {seconds:.0f} s of computing")
    images, targets = train_digits.scans()
    test = np.arange(len(images)) % 5 == 4
    assert zoo.load(target).evaluate((list(images[test]), targets[test]))["accuracy"] >= 0.985
