"""Scores against numpy's own arithmetic, on ONNX files built by hand."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure_session import WEIGHT, examples, write_linear

from prunecli.compat import _compiled_part_loads, declare_missing_operators
from prunecli.data import batching
from prunecli.errors import DataError, ModelError, VerificationError
from prunecli.measure.score import Score, score_file
from prunecli.measure.session import Array, fit_batch
from prunecli.progress import SilentReporter
from prunecli.tasks import CLASSIFICATION, REGRESSION, Task
from prunecli.tasks.classes import ACCURACY
from prunecli.tasks.numbers import MSE, R2


class FakeNetwork:
    """Answers with a function of the batch."""

    batch_size: int | None = None

    def __init__(self, answer: Callable[[Array], Array]) -> None:
        self.answer = answer

    def fit(self, examples: Sequence[Array], size: int) -> tuple[Array, ...]:
        return tuple(fit_batch(array, size) for array in examples)

    def run(self, batch: Sequence[Array]) -> tuple[Array, ...]:
        (only,) = batch
        return (self.answer(only),)


def batches(
    inputs: Array, targets: Array, size: int
) -> Iterator[tuple[tuple[Array, ...], tuple[Array, ...]]]:
    for start in range(0, len(inputs), size):
        yield (inputs[start : start + size],), (targets[start : start + size],)


def score_answers(
    answer: Callable[[Array], Array], inputs: Array, targets: Array, task: Task, size: int = 4
) -> Score:
    return score_file(
        Path("fake.onnx"),
        batches(inputs, targets, size),
        task,
        SilentReporter(),
        open_session=lambda _path, _threads: FakeNetwork(answer),
    )


@pytest.mark.parametrize("fixed", ["batch", 4])
@pytest.mark.parametrize("size", [3, 4, 64])
def test_accuracy_over_the_whole_split(tmp_path: Path, fixed: int | str, size: int) -> None:
    inputs = examples(23)
    targets = np.random.default_rng(1).integers(0, 2, 23)
    right = int(((inputs @ WEIGHT).argmax(1) == targets).sum())
    assert 0 < right < 23
    found = score_file(
        write_linear(tmp_path / "m.onnx", fixed),
        batches(inputs, targets, size),
        CLASSIFICATION,
        SilentReporter(),
        threads=1,
    )
    common = max(int((targets == 0).sum()), int((targets == 1).sum()))
    assert (found.metric, found.value, found.examples) == (ACCURACY, right / 23, 23)
    assert found.chance == common / 23


@pytest.mark.parametrize(
    ("elements", "step", "expected"),
    [(3, 1, 256), (25, 1, 40), (25, 16, 32), (500, 1, 2), (5000, 1, 1), (5000, 16, 16)],
)
def test_batches_are_smaller_where_outputs_are_large(
    elements: int, step: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "MOST_ELEMENTS", 1000)
    assert batching.fitting_batch(256, elements, step) == expected


def test_large_outputs_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def answer(x: Array) -> Array:
        asked.append(len(x))
        return np.float32(np.tile([1, 0, 0, 0], (len(x), 1)))

    targets = np.array([0, 1] * 8)
    monkeypatch.setattr(batching, "MOST_ELEMENTS", 12)
    found = score_answers(answer, examples(16), targets, CLASSIFICATION, size=8)
    assert (found.value, found.examples) == (0.5, 16)
    # First one, to see how large its outputs are.
    assert asked == [1, 3, 3, 2, 3, 3, 2]


def test_accuracy_is_top_one_and_counts_examples_not_classes() -> None:
    # 8 of class 0, all right; 2 of class 2, both wrong: 0.8, where a mean over classes says 0.5.
    targets = np.array([0] * 8 + [2] * 2)
    always_first = score_answers(
        lambda x: np.tile(np.float32([3, 2, 1]), (len(x), 1)), examples(10), targets, CLASSIFICATION
    )
    assert (always_first.value, always_first.chance) == (0.8, 0.8)


def test_accuracy_is_exact_where_single_precision_is_not() -> None:
    count = 30_001
    targets = np.zeros(count, dtype=np.int64)
    targets[:10_000] = 1
    found = score_answers(
        lambda x: np.tile(np.float32([1, 0]), (len(x), 1)),
        np.zeros((count, 1), np.float32),
        targets,
        CLASSIFICATION,
        size=5_000,
    )
    assert found.value == 20_001 / 30_001


@pytest.mark.parametrize("shape", [(), (1,)])
def test_squared_error_and_r2_far_from_zero(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    wanted = 2000.0 + rng.normal(size=11)
    answers = (wanted + 0.1 * rng.normal(size=11)).astype(np.float32)
    inputs = np.arange(11, dtype=np.float32)[:, None]
    found = score_answers(
        lambda x: answers[x[:, 0].astype(int)][:, None],
        inputs,
        wanted.reshape(11, *shape),
        REGRESSION,
    )
    error = (answers.astype(np.float64) - wanted) ** 2
    assert found.value == pytest.approx(error.mean(), rel=1e-9)
    assert found.chance == pytest.approx(wanted.var(), rel=1e-9)
    assert dict(found.others)[R2] == pytest.approx(1 - error.mean() / wanted.var(), rel=1e-6)
    assert (found.metric, found.examples) == (MSE, 11)


def test_r2_of_several_outputs_is_their_mean() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.normal(size=(9, 2)) * (1.0, 10.0)
    answers = (wanted + rng.normal(size=(9, 2))).astype(np.float32)
    inputs = np.arange(9, dtype=np.float32)[:, None]
    found = score_answers(lambda x: answers[x[:, 0].astype(int)], inputs, wanted, REGRESSION)
    error = (answers.astype(np.float64) - wanted) ** 2
    assert found.value == pytest.approx(error.mean(), rel=1e-9)
    assert dict(found.others)[R2] == pytest.approx(
        (1 - error.mean(0) / wanted.var(0)).mean(), rel=1e-6
    )


def test_r2_is_unknown_where_it_is_not_defined() -> None:
    def zero(x: Array) -> Array:
        return np.zeros((len(x), 1), np.float32)

    assert score_answers(zero, examples(1), np.array([3.0]), REGRESSION).others == ((R2, None),)
    constant = score_answers(zero, examples(5), np.full(5, 3.0), REGRESSION)
    assert (constant.value, constant.others) == (9.0, ((R2, None),))


TWO_CLASSES = np.float32([1, 0])


@pytest.mark.parametrize(
    ("answer", "targets", "task", "kind", "message"),
    [
        pytest.param(
            lambda x: np.full((len(x), 2), np.nan, np.float32),
            np.zeros(3, int),
            CLASSIFICATION,
            VerificationError,
            r"fake\.onnx: outputs must be numbers, got NaN",
            id="nan",
        ),
        pytest.param(
            lambda x: np.full((len(x), 1), np.inf, np.float32),
            np.zeros(3),
            REGRESSION,
            VerificationError,
            r"fake\.onnx: outputs must be numbers, got infinity",
            id="infinite",
        ),
        pytest.param(
            lambda x: np.zeros((len(x), 2, 1), np.float32),
            np.zeros(3, int),
            CLASSIFICATION,
            ModelError,
            r"classification needs outputs of shape \(batch, classes\), got \(3, 2, 1\)",
            id="no class scores",
        ),
        pytest.param(
            lambda x: np.tile(TWO_CLASSES, (len(x), 1)),
            np.array([0, 1, 2]),
            CLASSIFICATION,
            DataError,
            "data: labels must lie in 0 to 1, the network's outputs, got 2",
            id="label beyond the outputs",
        ),
        pytest.param(
            lambda x: np.tile(TWO_CLASSES, (len(x), 1)),
            np.array([0, 1, -1]),
            CLASSIFICATION,
            DataError,
            "data: labels must lie in 0 to 1, the network's outputs, got -1",
            id="negative label",
        ),
        pytest.param(
            lambda x: np.zeros((len(x), 2), np.float32),
            np.zeros(3),
            REGRESSION,
            ModelError,
            r"regression needs outputs of the targets' shape \(3,\), got \(3, 2\)",
            id="two outputs for one value",
        ),
    ],
)
def test_what_cannot_be_scored(
    answer: Callable[[Array], Array],
    targets: Array,
    task: Task,
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        score_answers(answer, examples(3), targets, task)


@pytest.mark.parametrize("task", [CLASSIFICATION, REGRESSION])
def test_no_examples(task: Task) -> None:
    with pytest.raises(DataError, match="at least one example is needed to score, got 0"):
        score_answers(lambda x: x, examples(0), np.zeros(0), task)


def test_a_compiled_part_that_does_not_load(tmp_path: Path) -> None:
    assert not _compiled_part_loads(tmp_path)
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert not _compiled_part_loads(tmp_path)


def test_without_torchvision_nothing_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[object] = []
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr("prunecli.compat.find_spec", lambda _name: None)
    monkeypatch.setattr(torch.ops, "torchvision", object())
    monkeypatch.setattr("prunecli.compat._declared", declared)
    declare_missing_operators()
    assert declared == []


@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_torchvision_can_be_imported_after_scoring_was() -> None:
    code = "import prunecli.measure.score, torchvision; print(torchvision.models.resnet18.__name__)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "resnet18"), done.stderr
