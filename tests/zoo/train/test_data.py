"""Folders, lists, arrays and iterables as data; batches, order and threads; stratified splits."""

from __future__ import annotations

import json
import pathlib
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zoonet.ops.errors import ArgumentError, FormatError, InputError
from zoonet.zoo.train.data import Data, fingerprint, open_data, split
from zoonet.zoo.train.files import validation_folder
from zoonet.zoo.train.loader import Loader

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def test_folders_with_parts(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = open_data(folder)
    assert data.labels == ("bar", "cross", "disc")
    assert data.counts() == {"bar": 16, "cross": 16, "disc": 16}
    assert [data.name(0), data.targets[0]] == [str(data.inputs[0]), 0]
    for part in ("train", "val"):
        for kind in ("a", "b"):
            (tmp_path / part / kind / "below").mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / part / kind / "below" / f"{part}.png")
            (tmp_path / part / kind / ".hidden.png").write_bytes(b"")
    data = open_data(tmp_path)
    assert [p.name for p in data.inputs] == ["train.png", "train.png"]
    found = validation_folder(tmp_path)
    assert found is not None
    assert [p.name for p in open_data(found).inputs] == ["val.png", "val.png"]
    (tmp_path / "train" / "a" / "note.txt").write_text("text")
    with pytest.raises(InputError, match="mixes"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "file,label\n1.png,rose\nb/2.png,tulip\n"),
        ("list.csv", "Path;Class\n1.png;rose\nb/2.png;tulip\n"),
        ("list.tsv", "image\tsize\ttarget\n1.png\t3\trose\nb/2.png\t4\ttulip\n"),
        ("list.json", json.dumps([{"file": "1.png", "label": "rose"}, {"file": "b/2.png", "label": "tulip"}])),
        ("list.json", json.dumps({"1.png": "rose", "b/2.png": "tulip"})),
        ("list.jsonl", '{"path": "1.png", "class": "rose"}\n\n{"path": "b/2.png", "class": "tulip"}\n'),
    ],
)
def test_lists(name: str, content: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "b").mkdir()
    for path in ("1.png", "b/2.png"):
        Image.new("L", (3, 3)).save(tmp_path / path)
    (tmp_path / name).write_text(content)
    data = open_data(tmp_path / name)
    assert data.inputs == [tmp_path / "1.png", tmp_path / "b" / "2.png"]
    assert data.labels == ("rose", "tulip")
    assert data.targets.tolist() == [0, 1]


def test_numbers_as_labels_are_in_their_order(tmp_path: pathlib.Path) -> None:
    rows = "\n".join(f"{i}.5,{label}" for i, label in enumerate([10, 2, 1, 10]))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}\n")
    data = open_data(tmp_path / "t.csv")
    assert data.labels == ("1", "2", "10")
    assert data.targets.tolist() == [2, 1, 0, 2]
    np.testing.assert_array_equal(data.inputs[:, 0], [0.5, 1.5, 2.5, 3.5])
    (tmp_path / "r.csv").write_text("x,y\n1,0.5\n2,1\n")
    assert open_data(tmp_path / "r.csv").targets.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", "file,label\n", "no rows"),
        ("a.csv", "file,label\na.png\n", "line 2: a wrong number of columns"),
        ("a.csv", 'file,label\n"a.png,rose\n', "malformed"),
        ("a.json", "[1, 2]", "no list"),
        ("a.json", "{", "malformed"),
        ("a.json", "[" * 100_000, "malformed"),
        ("a.jsonl", '{"file": "a"}\nx', "malformed"),
        ("a.json", '[{"file": "a.png", "label": {"x": 1}}]', "labels of a wrong type"),
        ("a.csv", "file,label\na.png,\n", "row 1 has no label"),
        ("a.xyz", "what", "no data that can be read"),
    ],
)
def test_malformed_lists(name: str, content: str, message: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((FormatError, InputError), match=message):
        open_data(tmp_path / name)


def test_arrays_pairs_and_iterables(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=Y)

    class Indexable:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> tuple[Any, Any]:
            return X[i], Y[i]

    pairs = list(zip(X, Y, strict=True))
    for source in (
        (X, Y),
        {"x": X, "y": Y},
        pairs,
        iter(pairs),
        Indexable(),
        tmp_path / "data.npz",
        (list(X), list(Y)),
    ):
        data = open_data(source)
        np.testing.assert_array_equal(np.stack(list(data.inputs)), X)
        assert data.targets.tolist() == Y.tolist()
        assert data.labels is None
    assert open_data((X, list("bacbacbacb"))).labels == ("a", "b", "c")
    assert open_data((X, Y > 0)).targets.tolist() == (Y > 0).astype(int).tolist()
    assert open_data((X, X)).targets.dtype == np.float32
    assert open_data(pairs[:2]).targets.tolist() == [0, 1]
    assert open_data((X, Y), labels=("a", "b", "c")).labels == ("a", "b", "c")
    with pytest.raises(InputError, match="class has no label"):
        open_data((X, Y), labels=("a", "b"))
    with pytest.raises(InputError, match="nan"):
        open_data((X, np.full(10, np.nan)))


def test_split_is_stratified() -> None:
    from sklearn.model_selection import train_test_split

    targets = np.repeat([0, 1, 2], [100, 30, 10])
    data = Data(np.arange(140), targets, ("a", "b", "c"))
    training, held = split(data, 0.2, seed=3)
    theirs = train_test_split(targets, test_size=0.2, stratify=targets, random_state=0)[1]
    assert list(held.counts().values()) == np.bincount(theirs).tolist() == [20, 6, 2]
    assert sorted([*training.inputs, *held.inputs]) == list(range(140))
    again, other = split(data, 0.2, seed=3)[1], split(data, 0.2, seed=4)[1]
    assert list(again.inputs) == list(held.inputs) != list(other.inputs)
    assert len(split(Data(np.arange(4), np.array([0, 0, 1, 1])), 0.01)[1]) == 2
    with pytest.raises(InputError, match="too few"):
        split(Data(np.arange(2), np.array([0, 1])), 0.5)


def loader(**options: Any) -> Loader:
    def prepare(index: int, rng: np.random.Generator | None) -> np.ndarray:
        time.sleep(0.002 * (index % 3))  # so that threads finish in another order
        return X[index] + (rng.normal() if rng is not None else 0)

    return Loader(Data(X, Y, ("a", "b", "c")), prepare, **{"batch": 4, **options})


def test_batches_are_the_same_whatever_the_threads() -> None:
    runs = [[b.inputs for b in loader(workers=workers).epoch(2)] for workers in (0, 1, 7)]
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(run, runs[0], strict=True))
    whole = [b.indices for b in loader().epoch(2)]
    assert [b.indices for b in loader().epoch(2, start=1)] == whole[1:]
    assert sorted(i for group in whole for i in group) == list(range(10))
    assert [b.indices for b in loader().epoch(3)] != whole
    assert [b.indices for b in loader(seed=1).epoch(2)] != whole
    assert [list(b.indices) for b in loader(shuffle=False).epoch()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_last_batches() -> None:
    assert [len(b.inputs) for b in loader(last="drop").epoch()] == [4, 4]
    padded = list(loader(last="pad").epoch())
    assert [len(b.inputs) for b in padded] == [4, 4, 4]
    assert padded[-1].count == 2
    assert [len(b.inputs) for b in loader(batch=3).epoch()] == [3, 3, 3]  # a batch norm cannot train on one sample
    assert [len(b.inputs) for b in loader(batch=3, shuffle=False).epoch()] == [3, 3, 3, 1]
    assert len(loader(last="drop")) == 2
    with pytest.raises(ArgumentError, match="larger than the data"):
        loader(last="drop", batch=11)
    with pytest.raises(ArgumentError, match="last"):
        loader(last="none")


def test_balance_draws_classes_equally() -> None:
    targets = np.repeat([0, 1], [95, 5])
    drawn = Loader(Data(np.arange(100), targets), lambda i, _: np.array(i), 10, balance=True, workers=0)
    counts = np.bincount([t for epoch in range(20) for b in drawn.epoch(epoch) for t in b.targets])
    assert counts.sum() == 2000
    assert abs(counts[1] - 1000) < 150


def test_samples_that_cannot_be_read() -> None:
    def prepare(index: int, rng: Any) -> np.ndarray:
        if index in (1, 4):
            raise FormatError(f"sample {index} is corrupt")
        return X[index]

    data = Data(X, Y)
    found = Loader(data, prepare, 4, shuffle=False)
    assert [list(b.indices) for b in found.epoch()] == [[0, 2, 3], [5, 6, 7], [8, 9]]
    assert sorted(found.skipped) == [1, 4]
    with pytest.raises(FormatError, match="sample 1"):
        list(Loader(data, prepare, 4, shuffle=False, corrupt="raise").epoch())
    shapes = Loader(data, lambda i, _: np.zeros(2 + i % 2), 4)
    with pytest.raises(InputError, match="differ in shape"):
        list(shapes.epoch())


def test_fingerprints_tell_data_apart(folder: pathlib.Path) -> None:
    first = fingerprint(open_data((X, Y)))
    assert first == fingerprint(open_data((X.copy(), Y.copy())))
    assert first != fingerprint(open_data((X + 1, Y)))
    assert first != fingerprint(open_data((X, Y[::-1])))
    assert fingerprint(open_data(folder)) == fingerprint(open_data(folder))
