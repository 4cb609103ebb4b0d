"""Several inputs and several targets: which array is which, and what travels as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunecli.choices import TaskName
from prunecli.config import DataConfig, HeadConfig, TaskConfig
from prunecli.data import DataSet, Preprocess, open_data
from prunecli.errors import DataError
from prunecli.progress import SilentReporter

INPUTS = ("input_ids", "batch.mask", "image")
HEADS = TaskConfig(
    heads=(HeadConfig("digit", TaskName.CLASSIFICATION), HeadConfig("tilt", TaskName.REGRESSION))
)
COUNT = 40


def arrays(**other: np.ndarray) -> dict[str, np.ndarray]:
    """Everything knows its row."""
    rows = np.arange(COUNT)
    return {
        "image": np.broadcast_to(rows[:, None, None, None], (COUNT, 3, 4, 4)).astype(np.uint8),
        "tilt": rows / 2,
        "batch_mask": rows[:, None] % 2 == np.zeros((1, 5)),
        "digit": rows % 3,
        "input_ids": np.tile(rows[:, None], (1, 5)).astype(np.uint16),
        **other,
    }


def opened(path: Path, task: TaskConfig | None = HEADS, **config: object) -> DataSet:
    return open_data(
        DataConfig(path, task=task, **config),  # type: ignore[arg-type]
        sample_shape=None,
        reporter=SilentReporter(),
        inputs=INPUTS,
    )


def write(folder: Path, **found: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **found)
    return folder / "data.npz"


def test_arrays_by_the_names_of_inputs_and_heads(tmp_path: Path) -> None:
    data = opened(write(tmp_path, **arrays()), mean=(0.5,), std=(0.25,))
    assert data.names == ("input_ids", "batch.mask", "image")
    assert [labels.name for labels in data.labels] == ["digit", "tilt"]
    for split in (data.train, data.choose, data.validation):
        ids, mask, image = split.inputs
        digit, tilt = split.targets
        rows = ids[:, 0].long()
        assert torch.equal(mask[:, 0], rows % 2 == 0)
        assert torch.equal(image[:, 0, 0, 0].long(), rows)
        assert torch.equal(digit, rows % 3)
        assert torch.equal(tilt, rows / 2)
    # uint16 is no type to compute with; masks and images stay what they are.
    assert [item.dtype for item in data.train.inputs] == [torch.int32, torch.bool, torch.uint8]
    assert [own.image for own in data.preprocess] == [False, False, True]
    # The image alone is normalised.
    assert [own.mean for own in data.preprocess] == [(), (), (0.5,)]


def test_whole_numbers_travel_as_they_are() -> None:
    stored = torch.tensor([[3, 70_000]], dtype=torch.int32)
    rule = Preprocess(image=False, dtype=torch.int64)
    found = rule(stored)
    assert found.dtype == torch.int64
    assert found.tolist() == [[3, 70_000]]
    assert rule.in_words() == "used as stored"
    assert Preprocess(image=False)(stored).dtype == torch.float32


def test_classes_of_a_head_are_stratified(tmp_path: Path) -> None:
    data = opened(write(tmp_path, **arrays(digit=np.repeat([0, 1], [36, 4]))))
    assert data.validation.targets[0].bincount().tolist() == [5, 1]


def test_no_targets_are_needed_to_match(tmp_path: Path) -> None:
    bare = {name: item for name, item in arrays().items() if name not in ("digit", "tilt")}
    data = opened(write(tmp_path, **bare), TaskConfig(TaskName.MATCH))
    assert data.labels == data.train.targets == ()
    assert len(data.train) + len(data.choose) + len(data.validation) == COUNT


@pytest.mark.parametrize(
    ("changed", "config", "said"),
    [
        ({"tilt": None}, {}, "an array of targets 'tilt' is needed beside"),
        ({"tilt": np.ones(3)}, {}, "must have the same length, got 40 and 3"),
        ({"input_ids_val": np.ones((4, 5), int)}, {}, "is needed beside 'input_ids_val', got none"),
        ({"data": np.ones((40, 2))}, {}, "one array of inputs is needed for train"),
        ({"digit": np.linspace(0, 1, 40)}, {}, "--task classification needs one class for each"),
        ({"image": None}, {"mean": (0.5,)}, "--mean, --std: are for images or for a single input"),
    ],
)
def test_what_is_missing_or_wrong(
    changed: dict[str, np.ndarray | None],
    config: dict[str, object],
    said: str,
    tmp_path: Path,
) -> None:
    found = {name: item for name, item in {**arrays(), **changed}.items() if item is not None}
    with pytest.raises(DataError, match=said):
        opened(write(tmp_path, **found), **config)


@pytest.mark.parametrize(
    ("task", "targets", "said"),
    [
        ("multilabel", np.arange(40).reshape(-1, 2), "a row of 0 and 1 for each example"),
        ("token-classification", -np.ones((20, 4), int), "labels must count from 0, got -1"),
        ("segmentation", np.zeros((20, 4), int), "integers with 2 axes for each example"),
        ("language-modelling", np.zeros((20, 4)), "got float64 of shape"),
        ("regression", np.array(["a"] * 20), "--task regression needs numbers"),
        ("regression", np.full(20, np.nan), "targets must be finite numbers"),
    ],
)
def test_targets_that_are_none_of_the_task(
    task: str, targets: np.ndarray, said: str, tmp_path: Path
) -> None:
    file = write(tmp_path, x=np.ones((20, 3)), y=targets)
    with pytest.raises(DataError, match=said):
        opened(file, TaskConfig(TaskName(task)))


def test_labels_that_do_not_count_are_no_classes(tmp_path: Path) -> None:
    tokens = np.tile([0, 4, -100], (20, 1))
    data = opened(
        write(tmp_path, x=np.ones((20, 3)), y=tokens), TaskConfig(TaskName("token-classification"))
    )
    assert len(data.labels[0].classes) == 5
    masks = np.tile([[0, 255], [2, -100]], (20, 1, 1))
    data = opened(write(tmp_path, x=np.ones((20, 3)), y=masks), TaskConfig(TaskName.SEGMENTATION))
    assert len(data.labels[0].classes) == 3
