"""Arrays: which is which by name, and what their axes mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_making import check, read

from prunecli.tasks import CLASSIFICATION, REGRESSION

LABELS = np.arange(40) % 4
FLOATS = np.random.default_rng(0).normal(size=(40, 3, 5, 6))
BYTES = np.random.default_rng(1).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)


def whole(data: object) -> tuple[torch.Tensor, torch.Tensor]:
    """All inputs and targets, in no order."""
    splits = [getattr(data, name) for name in ("train", "choose", "validation")]
    return torch.cat([s.inputs[0] for s in splits]), torch.cat([s.targets[0] for s in splits])


def same_examples(inputs: torch.Tensor, expected: np.ndarray) -> bool:
    """Whether both hold the same examples, whatever the order."""
    ours = sorted(row.flatten().tolist() for row in inputs)
    theirs = sorted(row.ravel().tolist() for row in expected.astype(inputs.numpy().dtype))
    return inputs.shape == expected.shape and ours == theirs


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y"),
        ("inputs", "targets"),
        ("images", "labels"),
        ("X", "Y"),
        ("x_train", "y_train"),
        ("train_images", "train_labels"),
        ("data", "target"),
    ],
)
def test_names(tmp_path: Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / "a.npz", **{names[0]: FLOATS, names[1]: LABELS})
    data = read(tmp_path / "a.npz", sample_shape=(3, 5, 6))
    inputs, targets = whole(data)
    assert inputs.dtype == torch.float32
    assert same_examples(inputs, FLOATS)
    for row, label in zip(inputs, targets, strict=True):
        index = int(np.abs(FLOATS - row.numpy()).reshape(40, -1).max(axis=1).argmin())
        assert label == LABELS[index]


@pytest.mark.parametrize("given", ["", "x.npy"])
def test_npy_pairs(tmp_path: Path, given: str) -> None:
    np.save(tmp_path / "x.npy", FLOATS)
    np.save(tmp_path / "y.npy", LABELS)
    assert same_examples(whole(read(tmp_path / given))[0], FLOATS)


def test_npy_splits_in_a_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "x_train.npy", FLOATS)
    np.save(tmp_path / "y_train.npy", LABELS)
    np.save(tmp_path / "x_valid.npy", FLOATS[:5] + 100)
    np.save(tmp_path / "y_valid.npy", LABELS[:5])
    data = read(tmp_path)
    assert same_examples(data.validation.inputs[0], FLOATS[:5] + 100)


def test_one_archive_for_each_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=FLOATS, y=LABELS)
    np.savez(tmp_path / "test.npz", x=FLOATS[:5] + 100, y=LABELS[:5])
    assert same_examples(read(tmp_path).validation.inputs[0], FLOATS[:5] + 100)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(BYTES, BYTES.transpose(0, 3, 1, 2), id="NHWC"),
        pytest.param(BYTES.transpose(0, 3, 1, 2), BYTES.transpose(0, 3, 1, 2), id="NCHW"),
        pytest.param(BYTES[..., 0], BYTES[..., 0][:, None], id="NHW"),
        pytest.param(BYTES[..., :1], BYTES[..., 0][:, None], id="NHW1"),
    ],
)
def test_bytes_are_images(tmp_path: Path, stored: np.ndarray, expected: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", x=stored, y=LABELS)
    data = read(tmp_path / "a.npz")
    assert data.preprocess[0].image
    assert same_examples(whole(data)[0], expected)
    assert float(data.preprocess[0](data.train.inputs[0]).max()) <= 1.0


def test_the_model_says_where_channels_are(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (40, 5, 6, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=stored, y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=(4, 5, 6))
    assert same_examples(whole(data)[0], stored.transpose(0, 3, 1, 2))
    ambiguous = BYTES[:, :3]  # 3 x 6 x 3
    np.savez(tmp_path / "a.npz", x=ambiguous, y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=(3, 3, 6))
    assert same_examples(whole(data)[0], ambiguous.transpose(0, 3, 1, 2))


def test_byte_images_are_resized_and_recoloured_like_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full_like(BYTES, 77), y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=(1, 8, 8))
    assert data.train.inputs[0].shape[1:] == (1, 8, 8)
    assert data.train.inputs[0].unique().tolist() == [77]
    assert data.preprocess[0].in_words() == "resized to 8x8, scaled to 0-1"
    assert read(tmp_path / "a.npz", image_size=4).train.inputs[0].shape[1:] == (3, 4, 4)


def test_flat_bytes_become_the_models_images(tmp_path: Path) -> None:
    images = BYTES[..., 0]
    np.savez(tmp_path / "a.npz", x=images.reshape(40, 30), y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=(1, 5, 6))
    assert data.preprocess[0].image
    assert same_examples(whole(data)[0], images[:, None])


def test_images_become_the_models_flat_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=BYTES.transpose(0, 3, 1, 2), y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=(90,), mean=(0.1, 0.2, 0.3))
    prepared = data.preprocess[0](data.train.inputs[0])
    by_hand = data.train.inputs[0] / 255 - torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    torch.testing.assert_close(prepared, by_hand.flatten(1))


@pytest.mark.parametrize(
    ("stored", "sample", "expected"),
    [
        pytest.param(FLOATS.transpose(0, 2, 3, 1), (3, 5, 6), FLOATS, id="channels-last"),
        pytest.param(FLOATS.reshape(40, 90), (3, 5, 6), FLOATS, id="flat-to-images"),
        pytest.param(FLOATS[:, 0], (1, 5, 6), FLOATS[:, :1], id="channel-axis-added"),
        pytest.param(FLOATS[:, 0, 0, 0], (1,), FLOATS[:, 0, 0, :1], id="scalars"),
    ],
)
def test_floats_are_brought_into_the_models_shape(
    tmp_path: Path, stored: np.ndarray, sample: tuple[int, ...], expected: np.ndarray
) -> None:
    np.savez(tmp_path / "a.npz", x=stored, y=LABELS)
    data = read(tmp_path / "a.npz", sample_shape=sample)
    assert same_examples(whole(data)[0], expected)
    assert data.preprocess[0].in_words() == "used as stored"


def test_one_hot_targets_are_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=FLOATS, y=np.eye(4)[LABELS])
    data = read(tmp_path / "a.npz")
    assert (data.task, len(data.labels[0].classes)) == (CLASSIFICATION, 4)
    assert sorted(whole(data)[1].tolist()) == sorted(LABELS.tolist())


def test_text_targets_are_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=FLOATS, y=np.array(["no", "yes"])[LABELS % 2])
    data = read(tmp_path / "a.npz")
    assert (data.labels[0].classes, data.labels[0].named) == (("no", "yes"), True)


@pytest.mark.parametrize(
    ("targets", "shape", "outputs"),
    [
        (FLOATS[:, 0, 0, 0], (), (2, 1)),
        (FLOATS[:, 0, 0, :1], (), (2, 1)),
        (FLOATS[:, 0, 0, :3], (3,), (2, 3)),
    ],
)
def test_float_targets_are_regression(
    tmp_path: Path, targets: np.ndarray, shape: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "a.npz", x=FLOATS, y=targets)
    data = read(tmp_path / "a.npz")
    assert data.task is REGRESSION
    assert data.labels[0].classes == ()
    assert data.train.targets[0].shape[1:] == shape
    assert data.train.targets[0].dtype == torch.float32
    check(data, outputs)
