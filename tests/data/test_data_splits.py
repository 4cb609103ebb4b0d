"""Splits: nobody judges what he learned from, and every class is everywhere."""

from pathlib import Path

import numpy as np
import pytest
from data_making import read

from prunecli.data import DataSet
from prunecli.tasks import REGRESSION


def rows_of(data: DataSet, split: str) -> list[int]:
    """Row numbers, which the examples carry as their value."""
    return getattr(data, split).inputs[0][:, 0].int().tolist()


def table(path: Path, labels: np.ndarray, **more: np.ndarray) -> Path:
    """Examples whose only feature is their row number, validation counting on from training."""
    arrays = {"x_train": np.arange(len(labels), dtype=np.float32)[:, None], "y_train": labels}
    for key, values in more.items():
        start = len(labels)
        arrays[f"x_{key}"] = np.arange(start, start + len(values), dtype=np.float32)[:, None]
        arrays[f"y_{key}"] = values
    np.savez(path, **arrays)
    return path


def test_every_example_serves_one_purpose(tmp_path: Path) -> None:
    labels = np.arange(2000) % 7
    data = read(table(tmp_path / "a.npz", labels))
    train, choose, validation = (
        set(rows_of(data, name)) for name in ("train", "choose", "validation")
    )
    assert train | choose | validation == set(range(2000))
    assert len(train) + len(choose) + len(validation) == 2000
    assert (len(validation), len(choose)) == (300, 200)
    for name in ("train", "choose", "validation"):
        split = getattr(data, name)
        assert split.name == name
        assert split.targets[0].tolist() == labels[rows_of(data, name)].tolist()


def test_held_out_part_is_stratified_and_the_note_says_so(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], [900, 98, 2])
    data = read(table(tmp_path / "a.npz", labels))
    assert np.bincount(data.validation.targets[0].numpy()).tolist() == [135, 14, 1]
    assert np.bincount(data.train.targets[0].numpy(), minlength=3)[2] == 1
    assert (
        "no validation split: 15% of a.npz is held out for validation (stratified, seed 0)"
        in data.notes
    )


def test_validation_is_preferred_to_test(tmp_path: Path) -> None:
    train, labels = np.arange(100) % 2, np.arange(30) % 2
    data = read(table(tmp_path / "a.npz", train, val=labels, test=labels))
    assert rows_of(data, "validation") == list(range(100, 130))
    assert "judged on the source's validation split" in data.notes
    assert (len(data.train), len(data.choose)) == (80, 20)


def test_test_judges_where_there_is_no_validation(tmp_path: Path) -> None:
    labels = np.arange(100) % 2
    data = read(table(tmp_path / "a.npz", labels, test=labels[:31]))
    assert len(data.validation) == 31
    assert "judged on the source's test split" in data.notes


def test_a_lone_validation_split_is_divided(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_val=np.arange(100.0)[:, None], y_val=np.arange(100) % 2)
    data = read(tmp_path / "a.npz")
    assert sorted(
        rows_of(data, "train") + rows_of(data, "choose") + rows_of(data, "validation")
    ) == list(range(100))
    assert (
        "no training split: 15% of a.npz is held out for validation (stratified, seed 0)"
        in data.notes
    )


@pytest.mark.parametrize(
    ("examples", "choose"),
    [
        (10, 2),
        (500, 100),
        (1000, 200),
        (4000, 200),
        (10_000, 500),
        (100_000, 5000),
        (200_000, 5000),
    ],
)
def test_size_of_the_choosing_part(tmp_path: Path, examples: int, choose: int) -> None:
    labels = np.arange(examples) % 2
    data = read(table(tmp_path / "a.npz", labels, val=labels[:4]))
    assert len(data.choose) == choose
    assert len(data.train) == examples - choose


def test_the_seed_decides_and_only_the_seed(tmp_path: Path) -> None:
    path = table(tmp_path / "a.npz", np.arange(200) % 3)
    first, again, other = read(path), read(path), read(path, seed=1)
    for name in ("train", "choose", "validation"):
        assert rows_of(first, name) == rows_of(again, name)
    assert rows_of(first, "validation") != rows_of(other, "validation")
    path = table(tmp_path / "b.npz", np.arange(200) % 3, val=np.arange(10) % 3)
    assert rows_of(read(path), "choose") != rows_of(read(path, seed=1), "choose")
    capped, others = read(path, max_samples=50), read(path, max_samples=50, seed=1)
    assert sorted(rows_of(capped, "train") + rows_of(capped, "choose")) != sorted(
        rows_of(others, "train") + rows_of(others, "choose")
    )


def test_max_samples_caps_every_split_in_proportion(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2, 3], [600, 300, 90, 10])
    data = read(table(tmp_path / "a.npz", labels, val=labels), max_samples=100)
    assert len(data.train) + len(data.choose) == 100
    assert np.bincount(data.validation.targets[0].numpy()).tolist() == [60, 30, 9, 1]
    assert "--max-samples: 100 of 1,000 examples are used for training" in data.notes
    assert "--max-samples: 100 of 1,000 examples are used for validation" in data.notes


def test_max_samples_holds_with_more_classes_than_samples(tmp_path: Path) -> None:
    labels = np.arange(300) % 50
    data = read(table(tmp_path / "a.npz", labels, val=labels), max_samples=20)
    assert len(data.validation) == 20
    assert len(data.train) + len(data.choose) == 20


def test_regression_is_split_by_chance(tmp_path: Path) -> None:
    targets = np.linspace(0.0, 1.0, 200)
    data = read(table(tmp_path / "a.npz", targets))
    assert data.task is REGRESSION
    assert len(data.validation) == 30
    assert data.validation.targets[0].tolist() == pytest.approx(
        targets[rows_of(data, "validation")]
    )
    assert rows_of(data, "validation") != list(range(30))
    assert "no validation split: 15% of a.npz is held out for validation (seed 0)" in data.notes


def test_a_handful_of_examples_is_enough(tmp_path: Path) -> None:
    data = read(table(tmp_path / "a.npz", np.array([0, 1, 0, 1])))
    assert (len(data.train), len(data.choose), len(data.validation)) == (1, 1, 2)
    assert sorted(data.validation.targets[0].tolist()) == [0, 1]
